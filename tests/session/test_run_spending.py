"""The budget of one run of many requests: rows, rounds and attempts count, exactly; what is in flight is waited for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic.budget import EVERYTHING, Amount, units
from llm_magic.errors import BudgetError, LLMError, RateLimitedError, ServerFailedError
from llm_magic.events import Usage
from llm_magic.options import Options
from llm_magic.options.keywords_in_errors import in_python
from llm_magic.response import Response
from llm_magic.session import Session
from llm_magic.session.dry_run import preview
from llm_magic.session.plan import Cell, Plan
from llm_magic.session.run import Run
from llm_magic.session.run_spending import RunSpending
from llm_magic.session.spending import Demand

PROMPT = "four bytes a token"  # 9 tokens, by the estimate


@pytest.fixture
def session(counted_session: Session) -> Session:
    return counted_session


def said(text: str = "Hello", given: int = 9, taken: int = 2, **headers: str) -> Answer:
    used = {"choices": [], "usage": {"prompt_tokens": given, "completion_tokens": taken}}
    return stream(chunk(text, finish="stop"), used, headers=headers)


def planned(session: Session, **options: Any) -> Plan:
    given = Options.of({"model": "s:m", "once": True, **options})
    return session.plan(Cell(PROMPT, given, {"add": add}, template=False))


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


async def nowhere(_: list[Any]) -> None:
    pass


def rows(session: Session, plan: Plan, spending: RunSpending, count: int, at_once: int = 1) -> list[Any]:
    """Ask so often; return the response, or the error, of each."""

    async def all_of() -> list[Any]:
        turns = asyncio.Semaphore(at_once)

        async def one() -> Response:
            async with turns:
                return await Run(plan, spending).answer(nowhere)

        return await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)

    return session.loop.run(all_of())


def of(session: Session, **limits: float) -> RunSpending:
    return RunSpending(session.spending, limits)


def used(spending: RunSpending) -> Amount:
    budget = next(budget for budget in spending.budgets() if budget.of_run)
    standing = spending.standing(budget)
    assert standing.in_flight == Amount()
    return standing.used


@pytest.mark.parametrize("at_once", [1, 4, 16])
def test_rows_beyond_it_are_not_asked(session: Session, at_once: int) -> None:
    spending = of(session, tokens=70)
    with ScriptedServer(said()) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        outcomes = rows(session, planned(session, max_tokens=20), spending, 16, at_once)
    # each reserves 29 and takes 11: after four 44 are used, and 26 are left
    answered = [outcome for outcome in outcomes if isinstance(outcome, Response)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetError)]
    assert (len(server.requests), len(answered), len(refused)) == (4, 4, 12)
    assert used(spending) == Amount(0, 44, 4)
    assert len({str(error) for error in refused}) == 1
    assert str(refused[0]) == (
        "The budget of 70 tokens (--budget) does not cover this request to s:m: 44 used, 0 in flight, 26 left, and it "
        "may take 29.\nRaise --budget, or bound the answer with --max-tokens N."
    )
    assert session.spending.accounts.standing(EVERYTHING).used == Amount(0, 44, 4)


def test_dollars_are_exact(session: Session) -> None:
    spending = of(session, cost=0.001)
    with ScriptedServer(said(given=9, taken=1)) as server:
        prices = {"m": {"input": 1, "output": 10}}  # 19 millionths of a dollar a row, 109 reserved
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0, prices=prices)
        outcomes = rows(session, planned(session, max_tokens=10), spending, 100, 8)
    # the last one allowed finds at most 1000 - 109 used: 46 rows take 874, 47 take 893
    assert len(server.requests) == 47
    assert used(spending) == Amount(units(0.000019) * 47, 470, 47)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetError)]
    assert len(refused) == 53
    assert refused[0].message == (
        "The budget of $0.001 (--budget) does not cover this request to s:m: $0.000893 used, $0.00 in flight, "
        "$0.000107 left, and it may take $0.000109."
    )
    assert in_python(str(refused[0])) == (
        "The budget of $0.001 (budget=) does not cover this request to s:m: $0.000893 used, $0.00 in flight, $0.000107 "
        "left, and it may take $0.000109.\nRaise budget=, or bound the answer with max_tokens=N."
    )


def test_requests(session: Session) -> None:
    spending = of(session, requests=3)
    with ScriptedServer(said()) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        outcomes = rows(session, planned(session), spending, 9, 9)
    assert len(server.requests) == 3
    assert used(spending).requests == 3
    assert str(next(each for each in outcomes if isinstance(each, BudgetError))) == (
        "The budget of 3 requests (--budget) does not cover this request to s:m: 3 used, 0 in flight, 0 left, and it "
        "may take 1.\nRaise --budget."
    )


def test_what_is_in_flight_is_waited_for(session: Session) -> None:
    """Two reserve what is there, and the others wait until these take less."""
    spending, in_flight = of(session, tokens=2 * 4105 + 200), []

    def answer(_: Received) -> Answer:
        standing = session.spending.accounts.standing(EVERYTHING)
        in_flight.append(standing.in_flight.requests)
        return stream(0.02, *said().steps, done=False)

    with ScriptedServer(answer) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        outcomes = rows(session, planned(session), spending, 12, 12)
    assert all(isinstance(outcome, Response) for outcome in outcomes)
    assert len(server.requests) == 12
    assert max(in_flight) == 2
    assert used(spending) == Amount(0, 12 * 11, 12)


def test_attempts_count(session: Session) -> None:
    spending = of(session, requests=5)
    with ScriptedServer(document({"error": {"message": "busy"}}, 503, {"retry-after": "0"})) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=2)
        outcomes = rows(session, planned(session), spending, 3)
    assert len(server.requests) == 5
    assert [type(outcome) for outcome in outcomes] == [ServerFailedError, BudgetError, BudgetError]
    assert "does not cover another attempt at s:m, of which the last one failed" in outcomes[1].message
    assert "this request to s:m: 5 used" in outcomes[2].message


def test_attempts_wait_for_what_is_in_flight(session: Session) -> None:
    failed = threading.Event()

    def answer(_: Received) -> Answer:
        if failed.is_set():
            return said()
        failed.set()
        return document({"error": {"message": "busy"}}, 429, {"retry-after": "0"})

    spending = of(session, tokens=4105 + 100)
    with ScriptedServer(answer) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=2)
        outcomes = rows(session, planned(session), spending, 4, 4)
    assert [type(outcome) for outcome in outcomes] == [Response] * 4
    assert len(server.requests) == 5
    assert used(spending) == Amount(0, 44, 5)


def test_rounds_of_tools_count(session: Session) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}

    def answer(received: Received) -> Answer:
        told = any(message["role"] == "tool" for message in received.json["messages"])
        return said("3") if told else stream(chunk(tool_calls=[call]), chunk(finish="tool_calls"))

    spending = of(session, requests=3)
    with ScriptedServer(answer) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        outcomes = rows(session, planned(session, tools=("add",)), spending, 2)
    assert [type(outcome) for outcome in outcomes] == [Response, BudgetError]
    assert len(server.requests) == 3
    assert outcomes[1].response.messages  # what came before is kept


def test_values_that_are_asked_for_again_count(session: Session) -> None:
    spending = of(session, requests=2)
    with ScriptedServer(said("no number")) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        outcomes = rows(session, planned(session, output_type=int, retries_invalid=5), spending, 2)
    assert len(server.requests) == 2
    assert all(isinstance(outcome, LLMError) for outcome in outcomes)
    assert [type(outcome) for outcome in outcomes] == [BudgetError, BudgetError]
    assert "2 used, 0 in flight" in outcomes[0].message


def test_both_budgets_hold_and_each_is_named(session: Session) -> None:
    session.settings.budget = {"requests": 5}
    spending = of(session, requests=3)
    with ScriptedServer(said()) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0, budget={"requests": 4})
        plan = planned(session)
        first = rows(session, plan, spending, 4)
        second = rows(session, plan, of(session, requests=3), 3)
    assert len(server.requests) == 4
    assert "The budget of 3 requests (--budget)" in first[3].message
    assert "The budget of 4 requests (s.budget)" in second[1].message
    assert "%llm_usage --reset" in second[1].hint


def test_what_all_may_use_is_waited_for_too(session: Session) -> None:
    session.settings.budget = {"tokens": 4105 + 100}
    spending = RunSpending(session.spending)
    with ScriptedServer(said()) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        outcomes = rows(session, planned(session), spending, 5, 5)
        assert [type(outcome) for outcome in outcomes] == [Response] * 5
        outcomes = rows(session, planned(session, max_tokens=5000), spending, 5, 5)
    assert [type(outcome) for outcome in outcomes] == [BudgetError] * 5
    assert len(server.requests) == 5


def test_what_others_have_in_flight_is_not_waited_for(session: Session) -> None:
    with ScriptedServer(said()) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        session.settings.budget = {"requests": 1}
        provider = session.registry.get("s")
        other = session.spending.begin(provider, "m", Demand(5, 5, 5))
        outcomes = rows(session, planned(session), RunSpending(session.spending), 2, 2)
        assert [type(outcome) for outcome in outcomes] == [BudgetError] * 2
        other.end()
    assert server.requests == []


def test_a_budget_of_dollars_needs_a_price(session: Session) -> None:
    with ScriptedServer(said()) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        (error,) = rows(session, planned(session), of(session, cost=1), 1)
    assert server.requests == []
    assert error.message.startswith("The budget of $1.00 (--budget) needs a price for ")
    assert error.hint.endswith(" Or budget tokens: --budget tokens=N.")
    assert in_python(error.hint).endswith(' Or budget tokens: budget={"tokens": N}.')


def test_what_took_more_is_said(session: Session) -> None:
    spending = of(session, tokens=50)
    with ScriptedServer(said(taken=60)) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        (response,) = rows(session, planned(session, max_tokens=20), spending, 1)
    assert response.notes == (
        "The budget of 50 tokens (--budget) is exceeded by 19: 29 were reserved for this request, and it took 69.",
    )


def test_an_interrupt_leaves_nothing_in_flight(session: Session) -> None:
    begun = threading.Event()

    def answer(_: Received) -> Answer:
        begun.set()
        threading.Event().wait(0.3)
        return said()

    spending = of(session, tokens=4105 + 100)

    async def interrupted() -> None:
        plan = planned(session)
        asked = [asyncio.ensure_future(Run(plan, spending).answer(nowhere)) for _ in range(3)]
        await asyncio.to_thread(begun.wait, 5)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    with ScriptedServer(answer) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        session.loop.run(interrupted())
        assert used(spending).requests == 1
        assert session.spending.accounts.standing(EVERYTHING).in_flight == Amount()
        (response,) = rows(session, planned(session, max_tokens=20), of(session, requests=1), 1)
    assert response.text == "Hello"


def test_reset_does_not_count_a_run_anew(session: Session) -> None:
    spending = of(session, requests=2)
    with ScriptedServer(said()) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        plan = planned(session)
        rows(session, plan, spending, 2)
        session.spending.reset()
        (error,) = rows(session, plan, spending, 1)
    assert "2 used, 0 in flight" in error.message


def test_a_dry_run_says_what_is_left_of_it(session: Session) -> None:
    session.registry.add("s", "compatible", base_url="http://127.0.0.1:9/v1", prices={"m": {"input": 1, "output": 10}})
    plan = planned(session, max_tokens=10)
    found = session.loop.run(preview(plan, of(session, cost=0.5)))
    assert "Left of --budget: $0.50 of $0.50, and it may take $0.000109." in found.notes


@pytest.mark.parametrize("make", [lambda session: session.spending, lambda session: of(session, requests=9)])
def test_a_failure_settles(session: Session, make: Callable[[Session], Any]) -> None:
    spending = make(session)
    with ScriptedServer(document({"error": {"message": "slow down"}}, 429)) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        (error,) = rows(session, planned(session), spending, 1)
    assert isinstance(error, RateLimitedError)
    assert session.spending.accounts.standing(EVERYTHING).in_flight == Amount()


@settings(max_examples=40, deadline=None)
@given(
    takes=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=30),
    most=st.integers(1, 200),
    at_once=st.integers(1, 8),
)
def test_any_rows_never_exceed_it(takes: list[tuple[int, int]], most: int, at_once: int) -> None:
    """Each of `takes` reserves its sum and takes the first part: what is used never exceeds it, and nobody waits on."""
    session = _Session()
    spending = RunSpending(session.spending, {"tokens": most})
    provider: Any = session.registry.get("openai")

    async def all_of() -> tuple[int, int]:
        turns, covered, refused = asyncio.Semaphore(at_once), 0, 0

        async def one(actual: int, spare: int) -> None:
            nonlocal covered, refused
            async with turns:
                try:
                    account = await spending.allowed(provider, "m", Demand(0, actual, spare))
                except BudgetError:
                    refused += 1
                    return
                await asyncio.sleep(0)
                account.used(Usage(actual, 0), None)
                assert account.end() == ()
                covered += actual

        await asyncio.wait_for(asyncio.gather(*(one(*each) for each in takes)), 20)
        return covered, refused

    covered, refused = asyncio.run(all_of())
    assert used(spending).tokens == covered <= most
    if not refused:
        assert covered == sum(actual for actual, _ in takes)
    assert refused < len(takes) or min(map(sum, takes)) > most


def _Session() -> Session:  # noqa: N802 - a session that asks nobody
    from llm_magic.config.settings import Settings
    from llm_magic.providers.registry import ProviderRegistry

    return Session(Settings(), ProviderRegistry())
