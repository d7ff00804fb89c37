"""What the requests of a session use: each is allowed by the budgets before it is sent, and accounted when it ends."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from llm_magic.budget import EVERYTHING, NOTHING, Accounts, Amount, Budget, Reservation, Standing, amount, units
from llm_magic.conversation import estimate, most_tokens
from llm_magic.errors import BudgetError, InputError
from llm_magic.events import Attempt, Event, Note, Opened, Progress, Usage, UsageReport
from llm_magic.ledger import EndOfRequest, Ledger
from llm_magic.messages import user
from llm_magic.model_names import shown_model
from llm_magic.options import PARAMETERS
from llm_magic.rate_limits import EndpointLimits
from llm_magic.wire.attempts import NO_ANSWER

if TYPE_CHECKING:
    from llm_magic.config.settings import Settings
    from llm_magic.messages import Message
    from llm_magic.providers.base import Price, Provider
    from llm_magic.request import Request

_OK = 200
_UNAUTHORIZED = 401
_FAILED = 400  # the least status of a failure (RFC 9110, 15)


TEMPLATE = 64
"""Tokens that a server may put around the messages: its template, a system prompt of its own."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request asks for, in tokens: of the prompt, `estimated` and what it hardly exceeds, and of the answer.

    `answer` is that of all its answers at most; None where nothing bounds it.
    """

    estimated: int
    prompt: int
    answer: int | None = None

    def with_message(self, message: Message) -> Demand:
        """Return the demand of the same request with one message more."""
        messages = (message,)
        return Demand(self.estimated + estimate(messages), self.prompt + most_tokens(messages), self.answer)


def demand(request: Request) -> Demand:
    """Return what a request asks for."""
    told = [json.dumps(each, default=str) for each in (request.structure, *map(asdict, request.tools)) if each]
    said = (request.parameters.max_tokens, *map(request.parameters.extra.get, PARAMETERS["max_tokens"].all_fields))
    most = next((each * (request.parameters.n or 1) for each in said if type(each) is int), None)
    messages = (*request.messages, *map(user, told))
    return Demand(estimate(messages), most_tokens(messages) + TEMPLATE, most)


class Spending:
    """What the requests of a session use: the ledger, the accounts of the budgets, and the settings of these.

    Parameters
    ----------
    settings
        `budget` and `budget_tokens_per_request` count.
    ledger
        What was used, as servers tell it.

    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.settings = settings
        self.ledger = ledger
        self.accounts = Accounts()
        self.rate_limits = EndpointLimits()
        self.prices_learned: dict[tuple[str, str], float] = {}
        """US dollars a token, the most that a server told, by origin and model."""

    def budgets(self, *providers: Provider) -> tuple[Budget, ...]:
        """Return the budgets that hold for requests to providers: that of all, then their own."""
        budgets: tuple[Budget, ...] = ()
        if limits := self.settings.budget:
            budgets = (Budget("LLMMagics.budget", EVERYTHING, limits),)
        for each in providers:
            if limits := each.budget:
                budgets += (Budget(f"{each.section}.budget", each.name, limits),)
        return budgets

    def standing(self, budget: Budget) -> Standing:
        """Return how the account of a budget stands."""
        return self.accounts.standing(budget.account)

    def price(self, provider: Provider, model: str) -> Price | None:
        """Return what a model costs; None where nobody says it. Raises ConfigurationError where that is no price."""
        return provider.price(model)

    def reserve(
        self, provider: Provider, asked: Amount, budgets: tuple[Budget, ...], what: str = "", least: Amount = NOTHING
    ) -> Reservation:
        """Reserve what a request may take by the budgets that hold for it; as `Accounts.reserve`."""
        return self.accounts.reserve(budgets, provider.name, asked, what, least)

    async def allowed(self, provider: Provider, model: str, asked: Demand) -> RequestAccount:
        """Allow a request, as `begin`; in a run once the requests before have left enough of the budgets."""
        return self.begin(provider, model, asked)

    async def allowed_again(self, account: RequestAccount) -> None:
        """Allow another attempt at a request, where the last one failed and is followed by one; as `allowed`."""
        account.allow()

    def begin(self, provider: Provider, model: str, asked: Demand) -> RequestAccount:
        """Allow a request that is about to be sent.

        Raises
        ------
        BudgetError
            It would exceed a budget, or a budget of cost has no price for it.
        ConfigurationError
            A price is none.

        """
        price, budgets = self.price(provider, model), self.budgets(provider)
        account = RequestAccount(
            self, provider, model, asked, may_take=self.may_take(provider, model, asked, price, budgets), price=price
        )
        account.reserve(budgets)
        account.ends = self.ledger.begin(provider.name, model)
        return account

    def may_take(
        self,
        provider: Provider,
        model: str,
        asked: Demand,
        price: Price | None,
        budgets: tuple[Budget, ...] | None = None,
    ) -> Amount:
        """Return what a request is counted at before anybody knows; raises BudgetError where a price is missing."""
        answer = self.settings.budget_tokens_per_request if asked.answer is None else asked.answer
        tokens, cost = asked.prompt + answer, 0.0
        if price is not None:
            cost = price.of(Usage(asked.prompt, answer))
        elif (learned := self.learned(provider, model)) is not None:
            cost = learned * tokens
        else:
            for budget in self.budgets(provider) if budgets is None else budgets:
                if "cost" in budget.limits and not provider.is_free:
                    raise self._without_price(budget, provider, model)
        return Amount(units(cost) if cost else 0, tokens, 1)

    def _without_price(self, budget: Budget, provider: Provider, model: str) -> BudgetError:
        example = json.dumps({model: {"input": 2.5, "output": 10}})
        return BudgetError(
            f"The budget of {amount('cost', budget.most['cost'])} ({budget.setting}) needs a price for "
            f"{provider.origin(model)}, and none is known. Nothing was sent.",
            f"{provider.price_hint(example)} Or budget tokens{': --budget tokens=N' if budget.of_run else ''}.",
        )

    def learned(self, provider: Provider, model: str) -> float | None:
        """Return the US dollars a token that a model took at most, of what its server told in this session."""
        return self.prices_learned.get((str(provider.origin(model)), model)) if self.prices_learned else None

    def learn(self, provider: Provider, model: str, cost: float, usage: Usage) -> None:
        """Take note of what a server told that an answer cost."""
        tokens = usage.input_tokens + usage.output_tokens
        if tokens > 0:
            name = (str(provider.origin(model)), model)
            self.prices_learned[name] = max(cost / tokens, self.prices_learned.get(name, 0.0))

    def reset(self) -> None:
        """Count anew; prices that servers told stay known."""
        self.ledger.reset()
        self.accounts.reset()


class RequestAccount:
    """The account of one request: what it reserved, and what it took so far, over all its attempts."""

    def __init__(
        self,
        spending: Spending,
        provider: Provider,
        model: str,
        asked: Demand,
        *,
        may_take: Amount,
        price: Price | None,
    ) -> None:
        self._spending, self._provider, self._model, self._asked = spending, provider, model, asked
        self._may_take, self._price = may_take, price
        self._reservation: Reservation | None = None
        self.ends: EndOfRequest | None = None
        self._attempts: list[Attempt] = []
        self._last: Attempt | None = None  # what is told of the attempt that is under way
        self._waits_until = 0.0  # the moment until which another attempt is not sent, because the server asked for that
        self.waits = False
        """Whether it is not sent yet: it waits for its turn, or another attempt does."""
        self._answered = False
        self._usage: Usage | None = None  # of the attempt that is under way
        self._told: float | None = None  # its cost, as the server told it
        self._usages: list[Usage] = []  # of all attempts that told it
        self._costs: list[float] = []

    def reserve(self, budgets: tuple[Budget, ...]) -> None:
        """Reserve by these budgets what the request, or another attempt at it, may take; raises BudgetError."""
        spending, provider, model, last = self._spending, self._provider, self._model, self._last
        what, least = "", NOTHING
        if budgets:  # for an error
            what = f"this request to {provider.name}:{shown_model(model)}"
            if last is not None:
                said = last.reason or last.status
                what = f"another attempt at {provider.name}:{shown_model(model)}, of which the last one failed ({said})"
            least = spending.may_take(provider, model, replace(self._asked, answer=0), self._price, ())
        self._last = None
        self._reservation = spending.reserve(provider, self._may_take, budgets, what, least)

    def counted(self, batch: list[Event]) -> list[Event]:
        """Take note of what a batch of events tells, and return it: with the cost of tokens that have a price."""
        for place, event in enumerate(batch):
            if type(event) not in _READ:
                self._answered = True
            elif isinstance(event, Attempt):
                self.attempted(event)
            elif isinstance(event, UsageReport):
                self._answered = True
                cost = self.used(event.usage, event.cost)
                if cost is not None and event.cost is None and self._told is None:
                    batch = [*batch[:place], replace(event, cost=cost), *batch[place + 1 :]]
            elif isinstance(event, Opened):
                self._answered, self._told = True, event.cost
        return batch

    def used(self, usage: Usage | None, cost: float | None) -> float | None:
        """Take note of the tokens and the cost that the server told, as far as it did; return the cost."""
        self._usage = usage or self._usage
        self._told = self._told if cost is None else cost
        return self._cost()

    def _cost(self) -> float | None:
        if self._told is not None or self._usage is None or self._price is None:
            return self._told
        return self._price.of(self._usage)

    def attempted(self, attempt: Attempt) -> None:
        """Take note of an HTTP request; one that broke off is told a second time, with its reason."""
        broke_off = attempt.status == _OK and bool(attempt.reason)
        if broke_off and self._attempts and not self._attempts[-1].reason:
            self._attempts.pop()
        self._attempts.append(attempt)
        self._last = attempt
        self._answered = self._answered or attempt.status == _OK
        waits = attempt.retry_after if attempt.status != _UNAUTHORIZED else None  # another key is tried at once
        self._waits_until = time.perf_counter() + (waits or 0.0)
        if not attempt.final:
            self._settle(unknown=broke_off or attempt.reason.startswith(NO_ANSWER))

    @property
    def wants_another(self) -> bool:
        """Whether the last attempt failed and is followed by one."""
        return self._reservation is None

    def allow(self) -> None:
        """Allow another attempt, where the last one failed and is followed by one; raises BudgetError."""
        if self.wants_another:
            self.reserve(self._spending.budgets(self._provider))

    def end(self, error: Exception | None = None) -> tuple[str, ...]:
        """Enter what the request took, once; `error` is what ended it.

        Returns
        -------
        tuple of str
            What the user should know: a line for each budget that is exceeded because more was used than reserved.

        """
        if self.ends is None or self.ends.ended:
            return ()
        last = self._last
        notes: tuple[str, ...] = ()
        early = self.waits or time.perf_counter() < self._waits_until
        if last is None and error is None and early:  # interrupted before it was sent
            self._settle(unknown=False, requests=0)
        elif last is None and error is not None and not self._answered:  # a server's failure would have been told
            sent = self._provider.own_backend and not isinstance(error, InputError)
            self._settle(unknown=False, requests=int(sent))
        else:
            failed = last is not None and (last.status is None or last.status >= _FAILED)
            notes = self._settle(unknown=last is None or not failed or last.reason.startswith(NO_ANSWER))
        usage = sum(self._usages[1:], self._usages[0]) if self._usages else None
        cost = sum(self._costs) if self._costs else None
        self.ends(self._attempts, usage, cost, answered=self._answered)
        return notes

    def _settle(self, *, unknown: bool, requests: int = 1) -> tuple[str, ...]:
        """End an attempt: what it took is what the server told; else what was reserved, where that is `unknown`."""
        if self._reservation is None:
            return ()
        usage, cost, told = self._usage, self._cost(), self._told
        assumed = NOTHING
        tokens = 0
        if usage is not None:
            tokens = usage.input_tokens + usage.output_tokens
            self._usages.append(usage)
            if told is not None:
                self._spending.learn(self._provider, self._model, told, usage)
        elif unknown:
            tokens = self._may_take.tokens
            assumed = Amount(tokens=tokens)
        if cost is not None:
            self._costs.append(cost)
            price = units(cost)
        elif usage is not None and (learned := self._spending.learned(self._provider, self._model)) is not None:
            price = units(learned * tokens)
            assumed += Amount(cost=price)
        else:
            price = self._may_take.cost if unknown and usage is None else 0
            assumed = assumed + Amount(cost=price) if price else assumed
        notes = self._reservation.settle(Amount(price, tokens, requests), assumed)
        self._reservation, self._usage, self._told = None, None, None
        return notes


_READ: frozenset[type] = frozenset({Attempt, UsageReport, Opened, Note, Progress})
"""Events that tell of more than an answer, or of none."""


def left(spending: Spending, provider: Provider, model: str, asked: Demand) -> tuple[str, ...]:
    """Return a line on each budget of a request: what is left of it, and what the request may take."""
    try:
        budgets = spending.budgets(provider)
        may_take = spending.may_take(provider, model, asked, provider.price(model), budgets)
    except BudgetError as error:
        return (f"It would be refused: {error.message}", error.hint)
    return tuple(_standing(spending, budget, may_take) for budget in budgets)


def _standing(spending: Spending, budget: Budget, may_take: Amount) -> str:
    standing, lefts, refused = spending.standing(budget), [], False
    for kind, most in budget.most.items():
        rest = most - getattr(standing.used, kind) - getattr(standing.in_flight, kind)
        takes = getattr(may_take, kind)
        refused = refused or takes > rest
        unit = "" if kind == "cost" else f" {kind}"
        of = f"{amount(kind, max(0, rest))} of {amount(kind, most)}{unit}"
        lefts.append(f"{of}, and it may take {amount(kind, takes)}")
    return f"Left of {budget.setting}: {'; '.join(lefts)}.{' It would be refused.' if refused else ''}"
