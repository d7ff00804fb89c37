"""Budgets: nothing leaks, and what is used never exceeds one as long as no request takes more than it reserved."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from llm_magic.budget import EVERYTHING, NOTHING, Accounts, Amount, Budget, Reservation, Standing, amount, said, units
from llm_magic.errors import BudgetError, InputError

ALL = "LLMMagics.budget"


def budget(setting: str = ALL, account: str = EVERYTHING, **limits: float) -> Budget:
    return Budget(setting, account, limits)


def test_a_request_is_reserved_and_settled() -> None:
    accounts = Accounts()
    reserved = accounts.reserve([], "a", Amount(5, 10, 1), "this request")
    assert accounts.standing("a") == accounts.standing(EVERYTHING) == Standing(in_flight=Amount(5, 10, 1))
    assert accounts.standing("b") == Standing()
    assert reserved.settle(Amount(2, 4, 1), Amount(0, 3)) == ()
    assert accounts.standing("a") == Standing(used=Amount(2, 4, 1), assumed=Amount(0, 3))
    assert reserved.settle(Amount(2, 4, 1)) == ()  # once
    assert accounts.standing(EVERYTHING).used == Amount(2, 4, 1)


def test_what_would_exceed_a_budget_is_an_error_that_says_all_there_is_to_know() -> None:
    accounts = Accounts()
    accounts.reserve([], "a", Amount(0, 1_000_000, 1), "").settle(Amount(0, 990_000, 1))
    accounts.reserve([], "a", Amount(0, 4_196, 1), "")
    with pytest.raises(BudgetError) as caught:
        accounts.reserve([budget(tokens=1_000_000)], "a", Amount(0, 8_292, 1), "this request to a:m")
    assert caught.value.message == (
        "The budget of 1,000,000 tokens (LLMMagics.budget) does not cover this request to a:m: 990,000 used, "
        "4,196 in flight, 5,804 left, and it may take 8,292."
    )
    assert caught.value.hint == (
        "Raise LLMMagics.budget, bound the answer with --max-tokens N, or count anew: %llm_usage --reset."
    )
    assert not isinstance(caught.value, InputError)
    assert accounts.standing("a").in_flight == Amount(0, 4_196, 1)


def test_exactly_what_is_left_is_allowed() -> None:
    accounts, limits = Accounts(), [budget(tokens=100, cost=0.3, requests=2)]
    accounts.reserve(limits, "a", Amount(units(0.1), 50, 1), "").settle(Amount(units(0.1), 50, 1))
    accounts.reserve(limits, "a", Amount(units(0.2), 50, 1), "")
    with pytest.raises(BudgetError, match=r"of \$0.30 .* \$0.10 used, \$0.20 in flight, \$0.00 left"):
        accounts.reserve([budget(cost=0.3)], "a", Amount(1, 0, 0), "this")
    with pytest.raises(BudgetError, match=r"of 2 requests .* 1 used, 1 in flight, 0 left, and it may take 1") as caught:
        accounts.reserve([budget(requests=2)], "a", Amount(requests=1), "this")
    assert caught.value.hint == "Raise LLMMagics.budget, or count anew: %llm_usage --reset."


def test_a_budget_of_a_provider_is_for_that_alone() -> None:
    accounts, own = Accounts(), budget("a.budget", "a", tokens=10)
    accounts.reserve([own], "a", Amount(tokens=10), "")
    accounts.reserve([budget(tokens=100)], "b", Amount(tokens=90), "")
    with pytest.raises(BudgetError, match=r"\(a.budget\)"):
        accounts.reserve([budget(tokens=1000), own], "a", Amount(tokens=1), "")
    with pytest.raises(BudgetError, match=r"\(LLMMagics.budget\)"):
        accounts.reserve([budget(tokens=100)], "b", Amount(tokens=1), "")


def test_a_budget_of_nothing_allows_nothing() -> None:
    with pytest.raises(BudgetError, match="The budget of 0 requests"):
        Accounts().reserve([budget(requests=0)], "a", Amount(requests=1), "this")


def test_what_takes_more_than_it_reserved_is_said() -> None:
    accounts, limits = Accounts(), [budget(tokens=100), budget("a.budget", "a", tokens=1000)]
    reserved = accounts.reserve(limits, "a", Amount(tokens=60), "")
    (line,) = reserved.settle(Amount(tokens=130))
    assert line == (
        "The budget of 100 tokens (LLMMagics.budget) is exceeded by 30: 60 were reserved for this request, and it took "
        "130."
    )
    with pytest.raises(BudgetError, match="130 used, 0 in flight, 0 left"):
        accounts.reserve(limits, "a", Amount(tokens=1), "")


def test_more_than_reserved_is_not_said_where_the_budget_covers_it() -> None:
    accounts = Accounts()
    assert accounts.reserve([budget(tokens=100)], "a", Amount(tokens=60), "").settle(Amount(tokens=99)) == ()
    assert accounts.reserve([budget(tokens=100)], "a", Amount(tokens=1), "").settle(Amount(tokens=1)) == ()


def test_what_was_used_before_counts_for_a_budget_that_is_set_later() -> None:
    accounts = Accounts()
    accounts.reserve([], "a", Amount(tokens=60), "").settle(Amount(tokens=60))
    with pytest.raises(BudgetError, match="60 used"):
        accounts.reserve([budget(tokens=100)], "a", Amount(tokens=50), "")


def test_reset_forgets_what_was_used_and_keeps_what_is_in_flight() -> None:
    accounts = Accounts()
    accounts.reserve([], "a", Amount(tokens=60), "").settle(Amount(tokens=60))
    reserved = accounts.reserve([], "a", Amount(tokens=30), "")
    accounts.reset()
    assert accounts.standing("a") == Standing(in_flight=Amount(tokens=30))
    reserved.settle(Amount(tokens=20))
    assert accounts.standing("a") == Standing(used=Amount(tokens=20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forks beside threads
def test_a_forked_process_has_nothing_in_flight() -> None:
    accounts = Accounts()
    accounts.reserve([], "a", Amount(tokens=60), "").settle(Amount(tokens=60))
    reserved = accounts.reserve([], "a", Amount(tokens=30), "")
    child = os.fork()
    if child == 0:
        right = accounts.standing("a") == Standing(used=Amount(tokens=60))
        right = right and reserved.settle(Amount(tokens=30)) == () and accounts.standing("a").used.tokens == 60
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert accounts.standing("a").in_flight == Amount(tokens=30)


def test_threads_never_use_more_together() -> None:
    accounts, limits, allowed = Accounts(), [budget(tokens=1000)], []

    def work() -> None:
        for _ in range(200):
            try:
                reserved = accounts.reserve(limits, "a", Amount(tokens=3, requests=1), "")
            except BudgetError:
                continue
            allowed.append(1)
            reserved.settle(Amount(tokens=3, requests=1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(allowed), accounts.standing(EVERYTHING)) == (333, Standing(used=Amount(0, 999, 333)))


AMOUNTS = st.builds(Amount, st.integers(0, 40), st.integers(0, 40), st.integers(0, 2))
SHARES = st.integers(0, 100)


class AnyOrder(RuleBasedStateMachine):
    """Requests of two providers begin and end in any order: answered, failed, cancelled, settled twice."""

    reservations = Bundle("reservations")

    @initialize(
        limits=st.fixed_dictionaries({}, optional={"tokens": st.integers(0, 200), "requests": st.integers(0, 8)})
    )
    def begin(self, limits: dict[str, float]) -> None:
        self.accounts = Accounts()
        self.budgets = [budget(**limits), budget("a.budget", "a", cost=100e-12, tokens=60)]
        self.in_flight: dict[int, tuple[str, Amount]] = {}
        self.used: dict[str, Amount] = {EVERYTHING: NOTHING, "a": NOTHING, "b": NOTHING}

    @rule(target=reservations, provider=st.sampled_from(["a", "b"]), asked=AMOUNTS)
    def reserve(self, provider: str, asked: Amount) -> Reservation | None:
        held = [each for each in self.budgets if each.account in (EVERYTHING, provider)]
        try:
            reservation = self.accounts.reserve(held, provider, asked, "")
        except BudgetError:
            return None
        self.in_flight[reservation.number] = (provider, asked)
        return reservation

    @rule(reservation=reservations, share=SHARES)
    def settle(self, reservation: Reservation | None, share: int) -> None:
        if reservation is None:
            return
        asked = reservation.asked
        actual = Amount(asked.cost * share // 100, asked.tokens * share // 100, asked.requests * share // 100)
        assert reservation.settle(actual) == ()
        if reservation.number in self.in_flight:
            provider, _ = self.in_flight.pop(reservation.number)
            for account in (EVERYTHING, provider):
                self.used[account] += actual

    @rule(reservation=consumes(reservations))
    def fail(self, reservation: Reservation | None) -> None:
        self.settle(reservation, 0)

    @rule()
    def reset(self) -> None:
        self.accounts.reset()
        self.used = dict.fromkeys(self.used, NOTHING)

    @invariant()
    def everything_is_where_it_belongs(self) -> None:
        for account in (EVERYTHING, "a", "b"):
            flying = [asked for provider, asked in self.in_flight.values() if account in (EVERYTHING, provider)]
            standing = self.accounts.standing(account)
            assert standing == Standing(self.used[account], NOTHING, sum(flying, start=NOTHING))
        for each in self.budgets:
            standing = self.accounts.standing(each.account)
            for kind, most in each.most.items():
                assert getattr(standing.used, kind) + getattr(standing.in_flight, kind) <= most

    def teardown(self) -> None:
        for number, (provider, asked) in list(self.in_flight.items()):
            Reservation(self.accounts, number, provider, asked, ()).settle(asked)
        assert self.accounts.standing(EVERYTHING).in_flight == NOTHING


TestAnyOrder = AnyOrder.TestCase


@given(st.lists(st.floats(0, 1e9), max_size=20))
def test_sums_of_costs_are_exact(costs: list[float]) -> None:
    accounts = Accounts()
    reserved = [accounts.reserve([], "a", Amount(units(cost)), "") for cost in costs]
    for each in reserved:
        each.settle(each.asked)
    assert accounts.standing("a") == Standing(used=Amount(sum(map(units, costs))))


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("cost", 0, "$0.00"),
        ("cost", units(5), "$5.00"),
        ("cost", units(0.1 + 0.2), "$0.30"),
        ("cost", units(1234.5), "$1,234.50"),
    ],
)
def test_words(kind: str, value: int, words: str) -> None:
    assert amount(kind, value) == said(kind, value) == words
