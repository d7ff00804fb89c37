"""The ledger: what was used so far, by provider and model, as servers counted it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, fields

from llm_magic.events import Usage
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
        Responses of which something came, interrupted ones included.
    requests, failed
        HTTP requests made, and those of them that failed.
    input_tokens, output_tokens, cached_tokens, reasoning_tokens
        As the server counted them; cached ones are part of the input, reasoning ones of the output.
    uncounted
        Answers whose tokens the server did not tell: they are not in the sums.
    seconds
        Time from sending to the end, summed.
    cost
        US dollars; None where no answer had a price.
    unpriced
        Answers that have no price: they are not in the cost.

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

    def __add__(self, other: UsageRow) -> UsageRow:
        """Return the sum under the name of the first; the cost of those that have one."""
        sums = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in _SUMMED:
            more = getattr(other, name)
            sums[name] = more if sums[name] is None else sums[name] + (more or 0)
        return UsageRow(**sums)


_SUMMED = [field.name for field in fields(UsageRow) if field.name not in {"provider", "model"}]


def total(rows: Iterable[UsageRow]) -> UsageRow:
    """Return the sum of rows, as that of the provider `all`."""
    return sum(rows, start=UsageRow("all", ""))


class Ledger:
    """The sums, kept up to date by `add`; safe to use from several threads.

    >>> from llm_magic.events import Usage
    >>> ledger = Ledger()
    >>> ledger.add(Response(provider="local", model="smollm2", usage=Usage(12, 34), seconds=0.5))
    >>> [(row.model, row.answers, row.input_tokens, row.cost) for row in ledger.rows()]
    [('smollm2', 1, 12, None)]

    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str], UsageRow] = {}

    def add(self, response: Response) -> None:
        """Enter a response: its usage for the model that gave it, requests for each model asked."""
        attempts = response.attempts
        succeeded = any(attempt.status is not None and attempt.status < _FAILED for attempt in attempts)
        answered = succeeded or response.usage is not None or bool(response.text)
        if not attempts and not answered:
            return  # nothing was sent
        last = attempts[-1] if attempts else None
        key = (last.provider, last.model) if last is not None else (response.provider, response.model)
        usage = response.usage or Usage()
        with self._lock:
            for attempt in attempts:
                failed = attempt.status is None or attempt.status >= _FAILED
                self._enter(UsageRow(attempt.provider, attempt.model, requests=1, failed=int(failed)))
            self._enter(
                UsageRow(
                    *key,
                    answers=int(answered),
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    cached_tokens=usage.cached_tokens,
                    reasoning_tokens=usage.reasoning_tokens,
                    uncounted=int(answered and response.usage is None),
                    seconds=response.seconds,
                    cost=response.cost,
                    unpriced=int(answered and response.cost is None),
                )
            )

    def _enter(self, row: UsageRow) -> None:
        key = (row.provider, row.model)
        self._rows[key] = self._rows[key] + row if key in self._rows else row

    def rows(self) -> tuple[UsageRow, ...]:
        """Return one row for each provider and model, in the order of their first use."""
        with self._lock:
            return tuple(self._rows.values())

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self._rows.clear()
