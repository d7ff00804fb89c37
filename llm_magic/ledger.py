"""The ledger: what was used so far, by provider and model, as servers counted it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter

from llm_magic.events import Usage
from llm_magic.metadata import Attempt
from llm_magic.model_names import shown_model
from llm_magic.response import Response

_FAILED = 400  # the least status of a failure (RFC 9110, 15)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The usage of one model at one provider.

    Attributes
    ----------
    provider, model
        Whose usage it is.
    answers
        Responses of which something came, interrupted ones included; not those that came from recordings.
    requests, failed
        HTTP requests made, and those of them that failed.
    input_tokens, output_tokens, cached_tokens, reasoning_tokens
        As the server counted them; cached ones are part of the input, reasoning ones of the output.
    uncounted
        Requests that were answered and whose tokens the server did not tell: they are not in the sums.
    seconds
        Time in which requests were under way, by the clock: those that overlap are counted once. So it is no sum of
        rows either; `Ledger.total` has that of all.
    cost
        US dollars; None where nothing had a price.
    unpriced
        Requests that were answered and have no price: they are not in the cost.
    recorded
        Responses that came from recordings: they count in nothing else.

    """

    provider: str
    model: str
    answers: int = 0
    requests: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    uncounted: int = 0
    seconds: float = 0.0
    cost: float | None = None
    unpriced: int = 0
    recorded: int = 0

    def __add__(self, other: UsageRow) -> UsageRow:
        """Return the sum under the name of the first; the cost of those that have one."""
        pairs = zip(_sums(self), _sums(other), strict=True)
        return UsageRow(
            self.provider, self.model, *(mine if more is None else (mine or 0) + more for mine, more in pairs)
        )


_sums = attrgetter(*(each.name for each in fields(UsageRow)[2:]))
"""The numbers of a row; `astuple` would copy each."""

_NUMBERS = tuple(each.name for each in fields(UsageRow)[2:] if each.name != "seconds")
_numbers = attrgetter(*_NUMBERS)
"""The same without the seconds, which are counted by the clock."""


@dataclass(slots=True)
class _WallTime:
    """Time in which at least one request is under way: those that overlap are counted once."""

    before: float = 0.0
    """Seconds until none was under way the last time."""
    under_way: int = 0
    since: float = 0.0

    def begin(self, now: float) -> None:
        if self.under_way == 0:
            self.since = now
        self.under_way += 1

    def end(self, now: float) -> None:
        self.under_way -= 1
        if self.under_way == 0:
            self.before += now - self.since

    def seconds(self, now: float) -> float:
        return self.before + (now - self.since if self.under_way else 0.0)

    def reset(self, now: float) -> None:
        self.before, self.since = 0.0, now


class _Entry:
    """The sums of one model at one provider, as plain numbers: each request changes them."""

    __slots__ = (*_NUMBERS, "name", "time")

    def __init__(self, name: tuple[str, str]) -> None:
        self.name = name
        self.time = _WallTime()
        self.clear()

    def clear(self) -> None:
        """Count anew."""
        self.answers = self.requests = self.failed = self.uncounted = self.unpriced = self.recorded = 0
        self.input_tokens = self.output_tokens = self.cached_tokens = self.reasoning_tokens = 0
        self.cost: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was entered; a cost of 0.0 is something."""
        return self.cost is None and not any(number for number in _numbers(self) if number is not None)

    def row(self, seconds: float) -> UsageRow:
        """Return the sums."""
        named = dict(zip(_NUMBERS, _numbers(self), strict=True))
        return UsageRow(*self.name, seconds=seconds, **named)


class Ledger:
    """The sums, kept up to date; safe to use from several threads. `clock` gives seconds.

    >>> ledger = Ledger()
    >>> end = ledger.begin("local", "smollm2")
    >>> end([Attempt("local", "smollm2", 200, "", 0.5)], Usage(12, 34), None)
    >>> ledger.answered(Response(text="Hello"), "local", "smollm2")
    >>> [(row.model, row.answers, row.input_tokens, row.cost) for row in ledger.rows()]
    [('smollm2', 1, 12, None)]

    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._time = _WallTime()

    def begin(self, provider: str, model: str) -> EndOfRequest:
        """Take note that a request is sent now; call what is returned when it has ended."""
        name = (provider, shown_model(model))
        with self._lock:
            now = self._clock()
            self._entry(name).time.begin(now)
            self._time.begin(now)
        return EndOfRequest(self, name)

    def end(
        self,
        name: tuple[str, str],
        attempts: Sequence[Attempt],
        usage: Usage | None,
        cost: float | None,
        answered: bool,
    ) -> None:
        """Enter what a request took; as `EndOfRequest`."""
        with self._lock:
            now, entry = self._clock(), self._entry(name)
            entry.requests += len(attempts)
            for attempt in attempts:
                entry.failed += _has_failed(attempt)
            if usage is not None:
                entry.input_tokens += usage.input_tokens
                entry.output_tokens += usage.output_tokens
                entry.cached_tokens += usage.cached_tokens
                entry.reasoning_tokens += usage.reasoning_tokens
            else:
                entry.uncounted += answered
            if cost is not None:
                entry.cost = (entry.cost or 0) + cost
            else:
                entry.unpriced += answered
            entry.time.end(now)
            self._time.end(now)

    def answered(self, response: Response, provider: str, model: str) -> None:
        """Enter a response, where something of it came; what its requests took was entered when they ended."""
        came = response.text or response.usage is not None or not all(map(_has_failed, response.attempts))
        if not came and not response.recorded:
            return
        with self._lock:
            entry = self._entry((provider, shown_model(model)))
            if response.recorded:
                entry.recorded += 1
            else:
                entry.answers += 1

    def _entry(self, name: tuple[str, str]) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(name)
        return entry

    def rows(self) -> tuple[UsageRow, ...]:
        """Return one row for each provider and model, in the order of their first use."""
        with self._lock:
            now = self._clock()
            return tuple(entry.row(entry.time.seconds(now)) for entry in self._entries.values() if not entry.is_empty)

    def total(self) -> UsageRow:
        """Return the sum of all, as that of the provider `all`; its `seconds` are those of the clock."""
        rows = self.rows()
        with self._lock:
            seconds = self._time.seconds(self._clock())
        return replace(sum(rows, start=UsageRow("all", "")), seconds=seconds)

    def reset(self) -> None:
        """Begin anew; of what is under way, the time from now on counts."""
        with self._lock:
            now = self._clock()
            self._entries = {name: entry for name, entry in self._entries.items() if entry.time.under_way}
            for entry in self._entries.values():
                entry.clear()
                entry.time.reset(now)
            self._time.reset(now)


def _has_failed(attempt: Attempt) -> bool:
    return attempt.status is None or attempt.status >= _FAILED


@dataclass(slots=True)
class EndOfRequest:
    """Ends a request that was begun, once; the second call does nothing."""

    ledger: Ledger
    name: tuple[str, str]
    ended: bool = False

    def __call__(
        self, attempts: Sequence[Attempt], usage: Usage | None, cost: float | None, *, answered: bool = True
    ) -> None:
        """Enter what it took.

        Parameters
        ----------
        attempts
            HTTP requests.
        usage
            Tokens as the server told them; None where it told none.
        cost
            US dollars; None where nobody knows.
        answered
            Whether something came.

        """
        if not self.ended:
            self.ended = True
            self.ledger.end(self.name, attempts, usage, cost, answered)
