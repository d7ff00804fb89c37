"""Budgets: what was used and what is in flight, and the error of a request that would exceed what a budget allows.

Each request reserves what it may take before it is sent, and settles with what it took when it ends, whatever its end:
so what is used never exceeds a budget as long as no request takes more than it reserved.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llm_magic.errors import BudgetError

EVERYTHING = ""
"""The name of the account of all providers together."""

_UNITS = 10**12
"""Units of cost in a US dollar: whole numbers, so that sums are exact."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What requests take: `tokens` of prompt and answer, `requests`, and their `cost` in `units`."""

    cost: int = 0
    tokens: int = 0
    requests: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.cost + other.cost, self.tokens + other.tokens, self.requests + other.requests)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.cost - other.cost, self.tokens - other.tokens, self.requests - other.requests)

    @property
    def dollars(self) -> float:
        """The cost in US dollars."""
        return self.cost / _UNITS


NOTHING = Amount()


def units(dollars: float) -> int:
    """Return US dollars in whole units.

    >>> units(0.25)
    250000000000

    """
    return round(dollars * _UNITS)


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget in force.

    Attributes
    ----------
    setting
        The setting that says it: `LLMMagics.budget`, `OpenAIProvider.budget`; or the option: `--budget`.
    account
        Whose requests it is for: the name of a provider, or `EVERYTHING`.
    limits
        What may be used at most: `cost` in US dollars, `tokens`, `requests`.
    of_run
        Whether it is for one run of many requests, which `%llm_usage --reset` does not count anew.

    """

    setting: str
    account: str
    limits: Mapping[str, float]
    of_run: bool = False

    @property
    def most(self) -> Mapping[str, int]:
        """The limits as amounts."""
        return {kind: units(limit) if kind == "cost" else int(limit) for kind, limit in self.limits.items()}


@dataclass(frozen=True, slots=True)
class Standing:
    """How one account stands: what is `used`, of it `assumed` what no server told, and what is `in_flight`."""

    used: Amount = NOTHING
    assumed: Amount = NOTHING
    in_flight: Amount = NOTHING


class _Account:
    """How one account stands, as plain numbers: each request changes them twice."""

    __slots__ = ("_assumed", "_in_flight", "_used")

    def __init__(self) -> None:
        self._used, self._assumed, self._in_flight = [0, 0, 0], [0, 0, 0], [0, 0, 0]

    @property
    def standing(self) -> Standing:
        """The numbers as amounts."""
        return Standing(Amount(*self._used), Amount(*self._assumed), Amount(*self._in_flight))

    def begin(self, asked: Amount) -> None:
        """Have more in flight."""
        _add(self._in_flight, asked, 1)

    def end(self, asked: Amount, actual: Amount, assumed: Amount) -> None:
        """Have used what was in flight."""
        _add(self._in_flight, asked, -1)
        _add(self._used, actual, 1)
        if assumed is not NOTHING:
            _add(self._assumed, assumed, 1)

    def clear_used(self) -> None:
        """Count anew; what is in flight stays so."""
        self._used, self._assumed = [0, 0, 0], [0, 0, 0]

    def clear_in_flight(self) -> None:
        """Have nothing in flight."""
        self._in_flight = [0, 0, 0]


def _add(sums: list[int], amount: Amount, times: int) -> None:
    if amount.cost:
        sums[0] += times * amount.cost
    sums[1] += times * amount.tokens
    sums[2] += times * amount.requests


class Accounts:
    """What was used and what is in flight, of all requests and by provider; safe to use from several threads.

    They count whether there is a budget or not: one that is set later holds for what was used before, too. A process
    that was forked goes on with what was used, and has nothing in flight.

    >>> accounts, budget = Accounts(), Budget("LLMMagics.budget", EVERYTHING, {"tokens": 100})
    >>> reserved = accounts.reserve([budget], "openai", Amount(tokens=80, requests=1), "this request")
    >>> accounts.reserve([budget], "openai", Amount(tokens=30, requests=1), "this request")
    Traceback (most recent call last):
    llm_magic.errors.BudgetError: The budget of 100 tokens (LLMMagics.budget) ...
    >>> reserved.settle(Amount(tokens=20, requests=1))
    ()
    >>> accounts.standing(EVERYTHING)
    Standing(used=Amount(cost=0, tokens=20, requests=1), assumed=Amount(...), in_flight=Amount(cost=0, ...))

    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}
        self._open: set[int] = set()
        self._numbers = 0
        self._process = os.getpid()

    def reserve(
        self, budgets: Sequence[Budget], provider: str, asked: Amount, what: str, least: Amount = NOTHING
    ) -> Reservation:
        """Reserve what a request may take.

        Parameters
        ----------
        budgets
            Those that hold for it.
        provider
            The name of the provider that is asked.
        asked
            What it may take at most, as far as that is known.
        what
            The request, in an error.
        least
            What it takes even if its answer is bounded; an error says to bound it only where that may help.

        Raises
        ------
        BudgetError
            It is more than a budget has left; nothing is reserved.

        """
        with self._lock:
            self._after_fork()
            for budget in budgets:
                self._check(budget, asked, what, least)
            self._numbers += 1
            self._open.add(self._numbers)
            self._account(EVERYTHING).begin(asked)
            self._account(provider).begin(asked)
            return Reservation(self, self._numbers, provider, asked, tuple(budgets))

    def _check(self, budget: Budget, asked: Amount, what: str, least: Amount) -> None:
        standing = self._standing(budget.account)
        for kind, most in budget.most.items():
            used, flying, may_take = (getattr(each, kind) for each in (standing.used, standing.in_flight, asked))
            if used + flying + may_take > most:
                left = max(0, most - used - flying)
                helps = kind != "requests" and getattr(least, kind) < min(may_take, left)
                remedies = ["bound the answer with --max-tokens N"] if helps else []
                remedies += [] if budget.of_run else ["count anew: %llm_usage --reset"]
                remedies[-1:] = [f"or {remedies[-1]}"] if remedies else []
                raise BudgetError(
                    f"The budget of {said(kind, most)} ({budget.setting}) does not cover {what}: "
                    f"{amount(kind, used)} used, {amount(kind, flying)} in flight, {amount(kind, left)} left, "
                    f"and it may take {amount(kind, may_take)}.",
                    f"{', '.join([f'Raise {budget.setting}', *remedies])}.",
                )

    def settle(self, reservation: Reservation, actual: Amount, assumed: Amount) -> tuple[str, ...]:
        """Enter what a request took in the place of what it had reserved; as `Reservation.settle`."""
        with self._lock:
            self._after_fork()
            if reservation.number not in self._open:  # settled already, or the process that was forked has it
                return ()
            self._open.remove(reservation.number)
            for account in (EVERYTHING, reservation.provider):
                self._account(account).end(reservation.asked, actual, assumed)
            return tuple(self._overshoots(reservation, actual)) if reservation.budgets else ()

    def _overshoots(self, reservation: Reservation, actual: Amount) -> Iterable[str]:
        for budget in reservation.budgets:
            used = self._standing(budget.account).used
            for kind, most in budget.most.items():
                over, took, reserved = (
                    getattr(used, kind) - most, getattr(actual, kind), getattr(reservation.asked, kind)
                )  # fmt: skip
                if over > 0 and took > reserved:
                    yield (
                        f"The budget of {said(kind, most)} ({budget.setting}) is exceeded by {amount(kind, over)}: "
                        f"{amount(kind, reserved)} were reserved for this request, and it took {amount(kind, took)}."
                    )

    def standing(self, account: str) -> Standing:
        """Return how an account stands."""
        with self._lock:
            self._after_fork()
            return self._standing(account)

    def _standing(self, account: str) -> Standing:
        known = self._accounts.get(account)
        return Standing() if known is None else known.standing

    def _account(self, name: str) -> _Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account()
        return account

    def reset(self) -> None:
        """Count anew; what is in flight stays so, and counts when it ends."""
        with self._lock:
            for account in self._accounts.values():
                account.clear_used()

    def _after_fork(self) -> None:
        if self._process != os.getpid():
            self._process = os.getpid()
            self._open.clear()
            for account in self._accounts.values():
                account.clear_in_flight()


class Reservation:
    """What one request may take, held until it is settled; settling again changes nothing."""

    __slots__ = ("_accounts", "asked", "budgets", "number", "provider")

    def __init__(
        self, accounts: Accounts, number: int, provider: str, asked: Amount, budgets: tuple[Budget, ...]
    ) -> None:
        self._accounts = accounts
        self.number = number
        self.provider = provider
        self.asked = asked
        self.budgets = budgets

    def settle(self, actual: Amount, assumed: Amount | None = None) -> tuple[str, ...]:
        """Enter what the request took; of it, `assumed` is what no server told.

        Returns
        -------
        tuple of str
            A line for each budget that is exceeded because the request took more than it had reserved.

        """
        return self._accounts.settle(self, actual, assumed or NOTHING)


def amount(kind: str, value: int) -> str:
    """Return an amount in words, without saying of what.

    >>> amount("cost", units(0.000123)), amount("tokens", 2_000_000)
    ('$0.000123', '2,000,000')

    """
    if kind != "cost":
        return f"{value:,}"
    digits = f"{value / _UNITS:,.6f}".rstrip("0")
    whole, _, rest = digits.partition(".")
    return f"${whole}.{rest:0<2}"


def said(kind: str, value: int) -> str:
    """Return an amount in words.

    >>> said("cost", units(5)), said("requests", 1), said("tokens", 2000)
    ('$5.00', '1 request', '2,000 tokens')

    """
    if kind == "cost":
        return amount(kind, value)
    return f"{value:,} {kind.removesuffix('s') if value == 1 else kind}"
