"""Each request of a session: allowed by the budgets, sent, and entered once, whatever its end."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import HANG, RESET, Answer, Received, ScriptedServer, chunk, document, stream

import llm_magic
from llm_magic import LLM
from llm_magic.budget import EVERYTHING, Amount, Standing
from llm_magic.errors import LLMError, RateLimitedError, ServerFailedError
from llm_magic.session import Session


@pytest.fixture
def session(counted_session: Session) -> Session:
    return counted_session


def used(given: int, taken: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": given, "completion_tokens": taken}}


def said(text: str = "Hello", given: int = 10, taken: int = 2, **headers: str) -> Answer:
    return stream(chunk(text, finish="stop"), used(given, taken), headers=headers)


def llm_at(session: Session, server: ScriptedServer, name: str = "s", **traits: Any) -> LLM:
    session.registry.add(name, "compatible", base_url=server.url, **traits)
    return LLM(f"{name}:m")


def standing(session: Session, account: str = EVERYTHING) -> Standing:
    return session.spending.accounts.standing(account)


def tokens(session: Session) -> tuple[int, int, int]:
    """Return the tokens used, those of them that no server told, and those in flight."""
    now = standing(session)
    return now.used.tokens, now.assumed.tokens, now.in_flight.tokens


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.01)


# What is entered


def test_an_answer(session: Session) -> None:
    with ScriptedServer(said()) as server:
        llm_at(session, server).ask("Hi")
    assert standing(session) == standing(session, "s") == Standing(used=Amount(0, 12, 1))
    assert standing(session, "other") == Standing()


def test_rounds_of_tools_are_entered_once_each(session: Session) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    calls = stream(chunk(tool_calls=[call]), chunk(finish="tool_calls"), used(20, 5))
    with ScriptedServer(calls, calls, said("3", 40, 1)) as server:
        response = llm_at(session, server).ask("1 + 2?", tools=[add])
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (80, 11)
    (row,) = session.ledger.rows()
    assert (row.answers, row.requests, row.input_tokens, row.output_tokens, row.uncounted) == (1, 3, 80, 11, 0)
    assert standing(session).used == Amount(0, 91, 3)


def test_a_value_asked_for_again(session: Session) -> None:
    with ScriptedServer(said("many", 10, 1), said("7", 30, 2)) as server:
        llm_at(session, server, structured="none", prices={"m": {"input": 1, "output": 2}}).ask(
            "How many?", output_type=int
        )
    (row,) = session.ledger.rows()
    assert (row.answers, row.requests, row.input_tokens, row.output_tokens) == (1, 2, 40, 3)
    assert row.cost == pytest.approx(46e-6)
    assert standing(session).used == Amount(46_000_000, 43, 2)


def test_one_of_several_values_asked_for_again_aside(session: Session) -> None:
    def two(first: str, second: str) -> Answer:
        choices = [
            {"index": number, "delta": {"content": text}, "finish_reason": "stop"}
            for number, text in enumerate((first, second))
        ]
        return stream({"id": "c", "object": "chat.completion.chunk", "choices": choices}, used(10, 2))

    with ScriptedServer(two("1", "many"), said("7", 30, 2)) as server:
        response = llm_at(session, server, structured="none").ask("How many?", output_type=int, n=2)
    assert response.value == [1, 7]
    assert response.usage is not None
    assert response.usage.input_tokens == 40
    (row,) = session.ledger.rows()
    assert (row.answers, row.requests, row.input_tokens, row.output_tokens) == (1, 2, 40, 4)
    assert standing(session).used.tokens == 44


def test_what_an_answer_took_that_failed_aside_is_told(session: Session) -> None:
    choices = [
        {"index": number, "delta": {"content": text}, "finish_reason": "stop"}
        for number, text in enumerate(("1", "no"))
    ]
    two = stream({"id": "c", "object": "chat.completion.chunk", "choices": choices}, used(10, 2))
    broken = stream(chunk("7"), used(30, 2), {"error": {"message": "broken"}}, done=False)
    with ScriptedServer(two, broken) as server, pytest.raises(LLMError, match="broken") as caught:
        llm_at(session, server, structured="none", max_retries=0).ask("How many?", output_type=int, n=2)
    response = caught.value.response
    assert response.usage is not None
    assert (len(response.attempts), response.usage.input_tokens) == (2, 40)
    (row,) = session.ledger.rows()
    assert (row.requests, row.input_tokens, row.output_tokens) == (2, 40, 4)


def test_a_fallback_is_entered_for_the_model_that_used_it(session: Session) -> None:
    with ScriptedServer(document({"error": {"message": "down"}}, 503)) as down, ScriptedServer(said()) as server:
        session.registry.add("a", "compatible", base_url=down.url, max_retries=0)
        session.registry.add("b", "compatible", base_url=server.url)
        session.registry.aliases = {"best": {"model": "a:x", "fallbacks": ["b:y"]}}
        LLM("best").ask("Hi")
    rows = [
        (row.provider, row.model, row.answers, row.requests, row.failed, row.input_tokens)
        for row in session.ledger.rows()
    ]
    assert rows == [("a", "x", 0, 1, 1, 0), ("b", "y", 1, 1, 0, 10)]
    assert (standing(session, "a").used, standing(session, "b").used) == (Amount(0, 0, 1), Amount(0, 12, 1))


def test_embeddings(session: Session) -> None:
    def vectors(received: Received) -> Answer:
        rows = [{"index": number, "embedding": [1.0, 0.0]} for number in range(len(received.json["input"]))]
        return document({"data": rows, "usage": {"prompt_tokens": 3 * len(rows)}})

    with ScriptedServer(vectors) as server:
        llm_at(session, server, prices={"m": {"input": 1, "output": 0}}).embed(list("abcde"), batch=2)
    (row,) = session.ledger.rows()
    assert (row.answers, row.requests, row.input_tokens, row.cost) == (1, 3, 15, pytest.approx(15e-6))
    assert standing(session).used == Amount(15_000_000, 15, 3)


# What no server tells


def test_the_cost_of_embeddings_that_is_told_without_tokens(session: Session) -> None:
    answer = document({"data": [{"index": 0, "embedding": [1.0]}]}, headers={"x-litellm-response-cost": "0.25"})
    with ScriptedServer(answer) as server:
        vectors = llm_at(session, server).embed(["a"])
    (row,) = session.ledger.rows()
    assert (vectors.usage, vectors.cost, row.cost, row.uncounted) == (None, 0.25, 0.25, 1)
    assert standing(session).used.dollars == 0.25


def test_usage_that_is_not_told_counts_as_reserved(session: Session) -> None:
    with ScriptedServer(stream(chunk("Hello", finish="stop"))) as server:
        llm_at(session, server).ask("four bytes a token", max_tokens=50)
    assert tokens(session) == (59, 59, 0)
    assert session.ledger.rows()[0].uncounted == 1


def test_without_max_tokens_the_setting_is_reserved(session: Session) -> None:
    session.settings.budget_tokens_per_request = 100
    with ScriptedServer(stream(chunk("Hello", finish="stop"))) as server:
        llm_at(session, server).ask("four bytes a token")
    assert tokens(session) == (109, 109, 0)


@pytest.mark.parametrize("keywords", [{"param": {"max_completion_tokens": 50}}, {"max_tokens": 25, "n": 2}])
def test_what_bounds_the_answer(session: Session, keywords: dict[str, Any]) -> None:
    choices = [{"index": number, "delta": {"content": "x"}, "finish_reason": "stop"} for number in range(2)]
    with ScriptedServer(stream({"object": "chat.completion.chunk", "choices": choices})) as server:
        llm_at(session, server).ask("four bytes a token", **keywords)
    assert tokens(session) == (59, 59, 0)


@pytest.mark.parametrize(
    ("script", "error", "counted", "requests"),
    [
        (document({"error": {"message": "bad"}}, 400), LLMError, 0, 1),
        (document({"error": {"message": "down"}}, 503), ServerFailedError, 0, 2),
        (document({"error": {"message": "wait"}}, 429, {"retry-after-ms": "1"}), RateLimitedError, 0, 2),
        (Answer([RESET], raw=True), LLMError, 0, 2),
        (stream(chunk("Hel"), RESET, done=False), LLMError, 59, 1),  # broke off after something was shown
        (stream(RESET, done=False), LLMError, 118, 2),  # broke off before, and so did the second attempt
    ],
)
def test_failures(session: Session, script: Answer, error: type[Exception], counted: int, requests: int) -> None:
    with ScriptedServer(script) as server, pytest.raises(error):
        llm_at(session, server, max_retries=1).ask("four bytes a token", max_tokens=50)
    assert len(server.requests) == requests
    assert tokens(session) == (counted, counted, 0)
    assert standing(session).used.requests == requests == session.ledger.rows()[0].requests


def test_what_never_answers_may_have_worked_on_it(session: Session) -> None:
    with ScriptedServer(Answer([HANG], raw=True)) as server, pytest.raises(LLMError, match="in time"):
        llm_at(session, server).ask("four bytes a token", max_tokens=50, timeout=0.3, retries=0)
    assert tokens(session) == (59, 59, 0)


def test_what_is_not_sent_counts_nothing(session: Session) -> None:
    session.registry.add("s", "compatible", base_url="http://127.0.0.1:9/v1", api_key_env="NOT_THERE")
    with pytest.raises(LLMError, match="NOT_THERE"):
        LLM("s:m").ask("Hi")
    assert standing(session) == Standing()
    assert session.ledger.rows() == ()


def test_a_stream_that_is_left_counts_as_reserved(session: Session) -> None:
    async def leave(llm: LLM) -> None:
        events = llm.stream("four bytes a token", max_tokens=50)
        async for _ in events:
            break
        await events.aclose()

    with ScriptedServer(stream(chunk("Hel"), HANG, done=False)) as server:
        asyncio.run(leave(llm_at(session, server)))
        wait_until(lambda: standing(session).in_flight.requests == 0)
    assert tokens(session) == (59, 59, 0)


def test_an_interrupt_before_another_attempt_is_sent_counts_the_first_one_alone(session: Session) -> None:
    async def ask(llm: LLM) -> None:
        task = asyncio.ensure_future(llm.aask("four bytes a token", max_tokens=50))
        await asyncio.to_thread(wait_until, lambda: standing(session).used.requests == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with ScriptedServer(document({"error": {"message": "busy"}}, 429, {"retry-after": "60"})) as server:
        asyncio.run(ask(llm_at(session, server)))
        wait_until(lambda: standing(session).in_flight.requests == 0)
    assert standing(session) == Standing(used=Amount(requests=1))
    (row,) = session.ledger.rows()
    assert (row.requests, row.failed, row.uncounted, row.answers) == (1, 1, 0, 0)


def test_there_is_one_place_where_requests_leave() -> None:
    package = Path(llm_magic.__file__).parent
    sends = re.compile(r"\bbound\.exchange\(|\bprovider\.exchange\(|await embed\(")
    found = {str(path.relative_to(package)) for path in package.rglob("*.py") if sends.search(path.read_text("utf-8"))}
    assert found == {"session/exchange.py", "session/plan.py", "embeddings/run.py"}  # the plan binds what is sent
