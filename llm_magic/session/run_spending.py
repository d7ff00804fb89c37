"""What one run of many requests uses: a budget of its own beside all others, and the wait for what is in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from llm_magic.budget import EVERYTHING, NOTHING, Accounts, Amount, Budget, Reservation, Standing
from llm_magic.errors import BudgetError
from llm_magic.session.spending import Demand, RequestAccount, Spending

if TYPE_CHECKING:
    from llm_magic.providers.base import Price, Provider

T = TypeVar("T")


class RunSpending(Spending):
    """What one run of many requests uses: counted with all others, and by a budget of its own besides.

    A request that a budget does not cover while others of the run are in flight waits for these: they settle with less
    than they reserved. All of it belongs to one event loop.

    Parameters
    ----------
    spending
        That of the session.
    limits
        What the run may use at most: `cost` in US dollars, `tokens`, `requests`; None: it has no limit of its own.

    """

    def __init__(self, spending: Spending, limits: Mapping[str, float] | None = None) -> None:
        self.settings, self.ledger, self.accounts = spending.settings, spending.ledger, spending.accounts
        self.rate_limits, self.prices_learned = spending.rate_limits, spending.prices_learned
        self._own = (Budget("--budget", EVERYTHING, limits, of_run=True),) if limits else ()
        self._of_run = Accounts()
        self._prices: dict[tuple[Provider, str], Price | None] = {}
        self._in_flight = 0
        self._turn = asyncio.Lock()  # of who waits: in the order in which they came
        self._settled = asyncio.Event()

    def budgets(self, *providers: Provider) -> tuple[Budget, ...]:
        """Return the budgets that hold for requests of the run: its own first."""
        return (*self._own, *super().budgets(*providers))

    def standing(self, budget: Budget) -> Standing:
        """Return how the account of a budget stands."""
        return self._of_run.standing(budget.account) if budget.of_run else super().standing(budget)

    def price(self, provider: Provider, model: str) -> Price | None:
        """Return what a model costs: all of a run at the price that its first request found."""
        name = provider, model
        if name not in self._prices:
            self._prices[name] = super().price(provider, model)
        return self._prices[name]

    def reserve(
        self, provider: Provider, asked: Amount, budgets: tuple[Budget, ...], what: str = "", least: Amount = NOTHING
    ) -> Reservation:
        """Reserve what a request may take, of the run and of all."""
        own = self._of_run.reserve(self._own, provider.name, asked, what, least) if self._own else None
        try:
            of_all = super().reserve(provider, asked, budgets[len(self._own) :], what, least)
        except BudgetError:
            if own is not None:
                own.settle(NOTHING)
            raise
        self._in_flight += 1
        return _RunReservation(self, of_all, own)

    def settled(self) -> None:
        """Take note that a request has settled, so that another may be covered."""
        self._in_flight -= 1
        self._settled.set()

    async def allowed(self, provider: Provider, model: str, asked: Demand) -> RequestAccount:
        """Allow a request, once the requests before have left enough of the budgets.

        Raises
        ------
        BudgetError
            A budget does not cover it, and nothing of the run is in flight.
        ConfigurationError
            A price is none.

        """
        return await self._once_covered(lambda: self.begin(provider, model, asked))

    async def allowed_again(self, account: RequestAccount) -> None:
        """Allow another attempt at a request, where the last one failed and is followed by one; as `allowed`."""
        if account.wants_another:
            await self._once_covered(account.allow)

    async def _once_covered(self, begin: Callable[[], T]) -> T:
        if not self._turn.locked():
            try:
                return begin()
            except BudgetError:
                if not self._in_flight:
                    raise
        async with self._turn:
            while True:
                try:
                    return begin()
                except BudgetError:
                    if not self._in_flight:
                        raise
                self._settled.clear()
                await self._settled.wait()


class _RunReservation(Reservation):
    """What one request of a run may take: `of_all` requests, and of the run's `own` budget where it has one."""

    __slots__ = ("_of_all", "_open", "_own", "_run")

    def __init__(self, run: RunSpending, of_all: Reservation, own: Reservation | None) -> None:
        self._run, self._of_all, self._own = run, of_all, own
        self._open = True

    def settle(self, actual: Amount, assumed: Amount | None = None) -> tuple[str, ...]:
        """Enter what the request took, once."""
        if not self._open:
            return ()
        self._open = False
        notes = self._of_all.settle(actual, assumed)
        if self._own is not None:
            notes += self._own.settle(actual, assumed)
        self._run.settled()
        return notes
