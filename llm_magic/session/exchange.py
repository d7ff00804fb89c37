"""The exchange of one request: where each request of a run leaves, once the budgets allow it, and is accounted.

Answers, rounds of tools, values that are asked for again and fallbacks all pass here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from llm_magic.events import Event
from llm_magic.session.spending import Spending, demand

if TYPE_CHECKING:
    from llm_magic.request import Request
    from llm_magic.session.plan import BoundModel


async def exchange(
    bound: BoundModel, request: Request, spending: Spending, exceeded: list[str]
) -> AsyncGenerator[list[Event], None]:
    """Send a request and yield what comes, in batches of events; enter what it took, whatever its end.

    The tokens that a server reports come with their cost, where a price is known. `exceeded` gets a line for each
    budget that is exceeded at the end, because more was used than reserved.

    Raises
    ------
    BudgetError
        The request, or another attempt at it, would exceed a budget.
    LLMError
        As of `Provider.exchange`.

    """
    account = await spending.allowed(bound.provider, bound.model, demand(request))
    try:
        async with aclosing(bound.exchange(request)) as stream:
            async for batch in stream:
                yield account.counted(batch)
                await spending.allowed_again(account)
    except Exception as error:
        exceeded += account.end(error)
        raise
    finally:
        exceeded += account.end()
