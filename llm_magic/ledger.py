"""The ledger: what was used so far, by provider and model, as servers counted it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
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


@dataclass(slots=True)
class _Entry:
    row: UsageRow
    time: _WallTime = field(default_factory=_WallTime)


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
        used = usage or Usage()
        row = UsageRow(
            *name,
            requests=len(attempts),
            failed=sum(map(_has_failed, attempts)),
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cached_tokens=used.cached_tokens,
            reasoning_tokens=used.reasoning_tokens,
            uncounted=int(answered and usage is None),
            cost=cost,
            unpriced=int(answered and cost is None),
        )
        with self._lock:
            now, entry = self._clock(), self._entry(name)
            entry.row += row
            entry.time.end(now)
            self._time.end(now)

    def answered(self, response: Response, provider: str, model: str) -> None:
        """Enter a response, where something of it came; what its requests took was entered when they ended."""
        row = UsageRow(provider, shown_model(model))
        if response.recorded:
            row = replace(row, recorded=1)
        elif not all(map(_has_failed, response.attempts)) or response.usage is not None or response.text:
            row = replace(row, answers=1)
        else:
            return
        with self._lock:
            self._entry((row.provider, row.model)).row += row

    def _entry(self, name: tuple[str, str]) -> _Entry:
        if name not in self._entries:
            self._entries[name] = _Entry(UsageRow(*name))
        return self._entries[name]

    def rows(self) -> tuple[UsageRow, ...]:
        """Return one row for each provider and model, in the order of their first use."""
        with self._lock:
            now = self._clock()
            rows = (replace(entry.row, seconds=entry.time.seconds(now)) for entry in self._entries.values())
            return tuple(row for row in rows if row != UsageRow(row.provider, row.model, seconds=row.seconds))

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
            for name, entry in self._entries.items():
                entry.row = UsageRow(*name)
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
