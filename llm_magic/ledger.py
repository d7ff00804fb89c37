"""What was used so far, by provider and model; only what servers counted and what prices were given for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

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
        """Enter a response: tokens, time and cost for the model that gave it, requests for each model asked."""
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
                row = self._row(attempt.provider, attempt.model)
                failed = attempt.status is None or attempt.status >= _FAILED
                self._rows[row.provider, row.model] = replace(
                    row, requests=row.requests + 1, failed=row.failed + failed
                )
            row = self._row(*key)
            self._rows[key] = replace(
                row,
                answers=row.answers + answered,
                input_tokens=row.input_tokens + usage.input_tokens,
                output_tokens=row.output_tokens + usage.output_tokens,
                cached_tokens=row.cached_tokens + usage.cached_tokens,
                reasoning_tokens=row.reasoning_tokens + usage.reasoning_tokens,
                uncounted=row.uncounted + (answered and response.usage is None),
                seconds=row.seconds + response.seconds,
                cost=row.cost if response.cost is None else (row.cost or 0.0) + response.cost,
                unpriced=row.unpriced + (answered and response.cost is None),
            )

    def _row(self, provider: str, model: str) -> UsageRow:
        return self._rows.get((provider, model)) or UsageRow(provider, model)

    def rows(self) -> tuple[UsageRow, ...]:
        """Return one row for each provider and model, in the order of their first use."""
        with self._lock:
            return tuple(self._rows.values())

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self._rows.clear()
