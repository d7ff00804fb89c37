"""The exchange of one request: where each request of a run leaves, once the budgets allow it, and is accounted.

Answers, rounds of tools, values that are asked for again and fallbacks all pass here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from llm_magic.errors import InputError
from llm_magic.events import Attempt, Event, Opened, Progress, UsageReport
from llm_magic.rate_limits import TOLD, RateLimits, Turn
from llm_magic.session.spending import Demand, RequestAccount, Spending, demand

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
    asked = demand(request)
    account = await spending.allowed(bound.provider, bound.model, asked)
    turns = Turns(spending.rate_limits.of(bound.provider), bound.model, asked)
    account.waits = True
    try:
        if line := turns.line():
            yield [Progress(line)]
        await turns.take(account)
        async with aclosing(bound.exchange(request)) as stream:
            async for batch in stream:
                yield account.counted(batch)
                await spending.allowed_again(account)
                if turns.heard(batch):
                    account.waits = True
                    if line := turns.line():
                        yield [Progress(line)]
                    await turns.take(account)
    except Exception as error:
        if isinstance(error, InputError):
            turns.give_back()
        exceeded += account.end(error)
        raise
    finally:
        exceeded += account.end()


class Turns:
    """The turns of one request at its endpoint: its first attempt waits for one, and so does each further one."""

    def __init__(self, limits: RateLimits, model: str, asked: Demand) -> None:
        self._limits, self._model, self._asked = limits, model, asked
        self._tokens = limits.expected(asked.estimated, asked.answer)
        self._turn: Turn | None = None
        self._waited = 0.0  # seconds that the next attempt waits anyway, which is told

    def line(self) -> str:
        """Return what the next attempt waits for, where that is worth telling."""
        return self._limits.line(self._tokens, self._model, self._waited + TOLD)

    async def take(self, account: RequestAccount) -> None:
        """Wait for the turn of the next attempt; interrupted meanwhile, it is none."""
        self._turn = await self._limits.turn(self._tokens, self._model)
        account.waits = False

    def give_back(self) -> None:
        """Count the turn that was taken last as none: nothing was sent."""
        if self._turn is not None:
            self._turn.give_back()

    def heard(self, batch: list[Event]) -> bool:
        """Heed what a batch of events tells; return whether another attempt follows."""
        turn, again = self._turn, False
        for event in batch:
            kind = type(event)
            if turn is None or kind not in _HEARD:
                continue
            if isinstance(event, Opened):
                turn.heard(event.status, event.headers)
            elif isinstance(event, UsageReport):
                turn.settle(event.usage.input_tokens + event.usage.output_tokens)
                if self._asked.answer is None:
                    self._limits.learn(event.usage.output_tokens)
            elif isinstance(event, Attempt):
                turn.sent(event.seconds)
                if event.status is None or event.status >= _FAILED or event.reason:
                    turn.heard(event.status, {}, event.retry_after)
                    turn.settle(0)
                    self._waited, again = event.retry_after or 0.0, not event.final
        return again


_HEARD: frozenset[type] = frozenset({Attempt, Opened, UsageReport})
_FAILED = 400  # the least status of a failure (RFC 9110, 15)
