"""The ledger: what was used so far, by provider and model, as servers counted it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import astuple, dataclass

from llm_magic.events import Usage
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
        pairs = zip(astuple(self)[2:], astuple(other)[2:], strict=True)
        return UsageRow(
            self.provider, self.model, *(mine if more is None else (mine or 0) + more for mine, more in pairs)
        )


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
        rows = [
            UsageRow(
                each.provider,
                shown_model(each.model),
                requests=1,
                failed=int(each.status is None or each.status >= _FAILED),
            )
            for each in response.attempts
        ]
        answered = not all(row.failed for row in rows) or response.usage is not None or bool(response.text)
        if not rows and not answered:
            return  # nothing was sent
        usage, asked = response.usage or Usage(), rows[-1] if rows else response
        rows.append(
            UsageRow(
                asked.provider,
                shown_model(asked.model),
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
        with self._lock:
            for row in rows:
                known = self._rows.get((row.provider, row.model))
                self._rows[row.provider, row.model] = known + row if known is not None else row

    def rows(self) -> tuple[UsageRow, ...]:
        """Return one row for each provider and model, in the order of their first use."""
        with self._lock:
            return tuple(self._rows.values())

    def reset(self) -> None:
        """Begin anew."""
        with self._lock:
            self._rows.clear()
