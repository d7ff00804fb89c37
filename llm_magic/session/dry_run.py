"""A dry run: the first request of a plan as it would be sent, and what it would take, roughly; nothing leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llm_magic.config.references import dry_run
from llm_magic.events import Usage
from llm_magic.session.exchange import Demand, Spending, demand, left
from llm_magic.session.plan import Plan, bind
from llm_magic.wire.call import Estimate

if TYPE_CHECKING:
    from llm_magic.providers.base import Price
    from llm_magic.wire.call import Preview


async def preview(plan: Plan, spending: Spending) -> Preview:
    """Return the first request of a plan as it would be sent; nothing is sent, started, listed or downloaded.

    What is left of the budgets in `spending` is among its notes.

    What the environment lacks, a key or the variable of a header, stands there in words.
    """
    planned = plan.models[0]
    provider, options = planned.target.provider, planned.options
    listed = provider.cached_models or ()
    with dry_run():
        model = provider.listed_model(planned.target.model) or (listed[0].id if listed else "(the first model listed)")
        bound = bind(plan, planned, model)
        request = bound.compose(plan)
        shown = await provider.preview(
            request, bound.capabilities, timeout=options.timeout, max_retries=options.retries
        )
    asked, price = demand(request), provider.price(bound.model)
    others = ", ".join(other.target.asked for other in plan.models[1:])
    return replace(
        shown,
        notes=(
            *plan.notes,
            *bound.notes,
            *([f"Where that fails, these are asked: {others}."] if others else []),
            *left(spending, provider, bound.model, asked),
        ),
        estimate=_estimate(asked, price),
    )


def _estimate(asked: Demand, price: Price | None) -> Estimate:
    """Return what a request will take, roughly."""
    tokens, most = asked.prompt, asked.answer
    if price is None:
        return Estimate(tokens, most)
    return Estimate(tokens, most, price.of(Usage(tokens, 0)), price.of(Usage(tokens, most or 0)) if most else None)
