"""What batches use: all rows of one are reserved before it is submitted, and settle with what its results tell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llm_magic.budget import NOTHING, Amount, Reservation, units
from llm_magic.metadata import Usage
from llm_magic.model_names import shown_model
from llm_magic.session.spending import Demand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_magic.batches.kept.record import BatchRecord
    from llm_magic.providers.base import Provider
    from llm_magic.providers.model_info import Price
    from llm_magic.session import Session
    from llm_magic.session.run_spending import RunSpending


class BatchSpending:
    """Reserves and settles what the batches of one run take; those that go on stay reserved in this session.

    Parameters
    ----------
    spending
        That of the run.
    session
        Knows what is reserved for batches that go on.

    """

    def __init__(self, spending: RunSpending, session: Session) -> None:
        self._spending = spending
        self._open: dict[str, tuple[Reservation, Price | None]] = session.batches_in_flight
        self._counted: set[str] = session.batches_counted
        self._assumed = session.settings.budget_tokens_per_request
        self._asked = Demand(0, 0, 0)
        self._took: dict[str, Amount] = {}

    def expect(self, asked: Demand) -> None:
        """Take note of what one more row asks for."""
        answer = self._assumed if asked.answer is None else asked.answer
        so_far = self._asked
        self._asked = Demand(
            so_far.estimated + asked.estimated, so_far.prompt + asked.prompt, (so_far.answer or 0) + answer
        )

    def reserve(self, provider: Provider, model: str, batches: Sequence[BatchRecord]) -> None:
        """Reserve what the rows of these batches may take, which were all that was expected.

        Where no price of batches is known, they are counted at that of single requests, which is hardly less.

        Raises
        ------
        BudgetError
            A budget does not cover them, or has no price.

        """
        asked, self._asked = self._asked, Demand(0, 0, 0)
        total = sum(each.rows for each in batches)
        if not total:
            return
        budgets = self._spending.budgets(provider)
        price = provider.price(model)
        price = price.of_batches if price is not None and price.of_batches is not None else price
        most = self._spending.may_take(provider, model, asked, price, budgets)
        least = self._spending.may_take(provider, model, replace(asked, answer=0), price, ())
        what = f"this batch to {provider.name}:{shown_model(model)}"
        made: list[str] = []
        for each in batches:
            part = each.rows / total
            share = Amount(round(most.cost * part), round(most.tokens * part), each.rows)
            try:
                self._open[each.id] = self._spending.reserve(provider, share, budgets, what, least), price
            except BaseException:
                for name in made:
                    self._open.pop(name)[0].settle(NOTHING)
                raise
            made.append(each.id)

    def begin(self, record: BatchRecord) -> None:
        """Begin to read the results of a batch."""
        self._took[record.id] = NOTHING

    def counts(self, record: BatchRecord) -> bool:
        """Tell the first reader of a batch in this session, and no other, that its results are to be counted."""
        is_first = record.id not in self._counted
        self._counted.add(record.id)
        return is_first

    def broke_off(self, record: BatchRecord) -> None:
        """Take note that the results of a batch were not read to their end: the next reader counts the others."""
        self._counted.discard(record.id)

    def took(self, record: BatchRecord, usage: Usage | None, cost: float | None) -> None:
        """Take note of what one of its rows took, as far as anybody knows; without a price, as it was reserved."""
        usage = usage or Usage(0, 0)
        if cost is None and (price := self._open.get(record.id, (None, None))[1]) is not None:
            cost = price.of(usage)
        tokens = usage.input_tokens + usage.output_tokens
        self._took[record.id] += Amount(units(cost) if cost else 0, tokens, 1)

    def settle(self, record: BatchRecord) -> None:
        """Enter what a batch took that has been read."""
        self._settle(record.id, self._took.pop(record.id, NOTHING))

    def release(self, record: BatchRecord) -> None:
        """Enter that a batch took nothing: it was refused."""
        self._settle(record.id, NOTHING)

    def _settle(self, name: str, took: Amount) -> None:
        if (held := self._open.pop(name, None)) is not None:
            held[0].settle(took)
