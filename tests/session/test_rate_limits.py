"""Rate limits of a session: every request and every further attempt waits for its turn; a minute is short here."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from servers import RESET, Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic import LLM, rate_limits
from llm_magic.budget import Standing
from llm_magic.errors import BudgetError, InputError, RateLimitedError
from llm_magic.events import Progress, TextDelta
from llm_magic.session import Session

MINUTE = 0.6
SAID = stream(chunk("Hello", finish="stop"), {"choices": [], "usage": {"prompt_tokens": 90, "completion_tokens": 10}})
BUSY = document({"error": {"message": "slow down"}}, 429)


@pytest.fixture
def session(counted_session: Session, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(rate_limits, "MINUTE", MINUTE)
    monkeypatch.setattr(rate_limits, "SLACK", 0.3)  # what a busy machine takes to send
    with ScriptedServer(SAID) as server:  # the first request of a process loads what sends it
        llm_at(counted_session, server, name="first").ask("Hi")
    return counted_session


def llm_at(session: Session, server: ScriptedServer, name: str = "s", **traits: Any) -> LLM:
    session.registry.add(name, "compatible", base_url=server.url, **traits)
    return LLM(f"{name}:m")


def ask_all(llm: LLM, number: int) -> None:
    async def main() -> None:
        await asyncio.gather(*(llm.aask(f"Hi {each}") for each in range(number)))

    asyncio.run(main())


def moments(server: ScriptedServer) -> list[float]:
    """Return when requests came, from the first one."""
    return [round(each.at - server.requests[0].at, 2) for each in server.requests]


def said_while(llm: LLM) -> list[str]:
    async def main() -> list[str]:
        return [event.text async for event in llm.stream("Hi") if isinstance(event, Progress | TextDelta)]

    return asyncio.run(main())


def busy_for(milliseconds: int) -> Answer:
    return document({"error": {"message": "slow down"}}, 429, {"retry-after-ms": str(milliseconds)})


def test_no_more_requests_than_are_allowed_are_sent_in_a_minute(session: Session) -> None:
    with ScriptedServer(SAID) as server:
        ask_all(llm_at(session, server, requests_per_minute=3), 8)
    came = moments(server)
    assert len(came) == 8
    assert all(later - earlier >= MINUTE for earlier, later in zip(came, came[3:], strict=False))
    assert came[-1] < 5 * MINUTE


def test_no_more_tokens_than_are_allowed_are_sent_in_a_minute(session: Session) -> None:
    with ScriptedServer(SAID) as server:
        llm = llm_at(session, server, tokens_per_minute=250)
        for number in range(4):  # of 100 tokens each
            llm.ask(f"Hi {number}", max_tokens=10)
    came = moments(server)
    assert came[2] - came[0] >= 0.3  # evenly: 100 of 250 take two fifths of a minute, and a few go at once
    assert came[3] - came[0] >= MINUTE


def test_what_waits_says_so(session: Session) -> None:
    with ScriptedServer(SAID) as server:
        llm = llm_at(session, server, requests_per_minute=1)
        assert said_while(llm) == ["Hello"]
        assert said_while(llm) == ["waits 1 s: s allows 1 request a minute", "Hello"]


def test_a_further_attempt_waits_for_a_turn_of_its_own(session: Session) -> None:
    with ScriptedServer(busy_for(10), SAID) as server:
        llm = llm_at(session, server, requests_per_minute=1)
        assert said_while(llm) == ["waits 1 s: s allows 1 request a minute", "Hello"]
    assert moments(server)[1] >= MINUTE


def test_what_a_server_asks_one_request_to_wait_all_wait_once(session: Session) -> None:
    with ScriptedServer(busy_for(500), SAID) as server:
        llm = llm_at(session, server)

        async def main() -> None:
            first = asyncio.ensure_future(llm.aask("Hi"))
            while not server.requests:  # noqa: ASYNC110 - of another thread
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            await asyncio.gather(first, *(llm.aask("Hi") for _ in range(3)))

        asyncio.run(main())
    came = moments(server)
    assert len(came) == 5
    assert all(0.49 <= moment < 0.9 for moment in came[1:])  # not before, and not twice as late


def test_a_429_that_only_says_when_there_is_more_is_repeated_then(session: Session) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
    with ScriptedServer(document({"error": {"message": "slow down"}}, 429, headers), SAID) as server:
        response = llm_at(session, server).ask("Hi")
    assert moments(server)[1] >= 0.29
    assert [attempt.retry_after for attempt in response.attempts] == [0.3, None]


def test_what_a_server_says_that_it_takes_is_not_exceeded(session: Session) -> None:
    headers = {"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "400ms"}
    first = stream(chunk("Hello", finish="stop"), headers=headers)
    with ScriptedServer(first, SAID) as server:
        llm = llm_at(session, server)
        llm.ask("Hi")
        ask_all(llm, 3)
    came = moments(server)
    assert came[1] < 0.35
    assert came[2] >= 0.39


@pytest.mark.parametrize("value", ["1000000000", "nan", "-5", "Mon, 01 Jan 1990 00:00:00 GMT", "soon"])
def test_what_is_no_wait_or_too_long_a_one_holds_no_other_request_up(session: Session, value: str) -> None:
    refused = document({"error": {"message": "slow down"}}, 429, {"retry-after": value})
    with ScriptedServer(refused, SAID) as server:
        llm = llm_at(session, server, max_retries=0)
        with pytest.raises(RateLimitedError):
            llm.ask("Hi")
        began = time.perf_counter()
        llm.ask("Hi")
        assert time.perf_counter() - began < 5


def test_one_that_is_interrupted_while_it_waits_is_not_sent_and_took_nothing(session: Session) -> None:
    with ScriptedServer(SAID) as server:
        llm = llm_at(session, server, requests_per_minute=1)
        llm.ask("Hi")
        before, rows = session.spending.accounts.standing("s"), session.ledger.rows()

        async def main() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await llm.aask("Hi")

        asyncio.run(main())
        deadline = time.monotonic() + 5
        while session.spending.accounts.standing("s") != before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert session.spending.accounts.standing("s") == before
        assert [row.requests for row in session.ledger.rows()] == [row.requests for row in rows]
        assert len(server.requests) == 1
        llm.ask("Hi")  # whose turn nobody took
    assert moments(server)[1] < 3 * MINUTE


def test_a_budget_is_looked_at_before_the_wait(session: Session) -> None:
    with ScriptedServer(SAID) as server:
        llm = llm_at(session, server, requests_per_minute=1, budget={"requests": 1})
        llm.ask("Hi")
        with pytest.raises(BudgetError):
            llm.ask("Hi")
    assert session.spending.rate_limits.of(session.registry.get("s")).waiting == ""
    assert session.spending.accounts.standing("s") != Standing()


def test_what_is_refused_before_it_is_sent_takes_no_turn(session: Session) -> None:
    with ScriptedServer(SAID) as server:
        llm = llm_at(session, server, requests_per_minute=1)
        with pytest.raises(InputError):
            llm.ask("Hi", header={"X-Bad": "a\nb"})
        assert session.spending.rate_limits.of(session.registry.get("s")).line() == ""
        llm.ask("Hi")


def test_an_attempt_that_broke_off_takes_a_turn_and_no_tokens(session: Session) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    with ScriptedServer(Answer([head, RESET], raw=True), SAID) as server:
        llm_at(session, server, requests_per_minute=1, tokens_per_minute=300).ask("Hi")
    assert moments(server)[1] >= MINUTE


def test_embeddings_wait_for_their_turns(session: Session) -> None:
    def vectors(received: Received) -> Answer:
        data = [{"index": at, "embedding": [1.0, 2.0]} for at, _ in enumerate(json.loads(received.body)["input"])]
        return document({"data": data, "model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3}})

    with ScriptedServer(busy_for(10), vectors) as server:
        llm_at(session, server, requests_per_minute=2).embed(["a", "b", "c"], batch=1)
    came = moments(server)
    assert len(came) == 4
    assert came[3] - came[0] >= MINUTE


def test_what_is_answered_from_a_recording_takes_no_turn(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ScriptedServer(SAID) as server:
        llm = llm_at(session, server, requests_per_minute=1)
        llm.ask("Hi")
        recorded = llm.ask("Hello", record="once")  # waits
        began = time.perf_counter()
        for _ in range(5):
            assert llm.ask("Hello", record="only").text == recorded.text
        assert time.perf_counter() - began < 4 * MINUTE
    assert len(server.requests) == 2
    (file,) = tmp_path.glob("*.jsonl")
    assert "waits" not in file.read_text()


def test_a_limit_that_is_changed_holds_for_the_next_request(session: Session) -> None:
    with ScriptedServer(SAID) as server:
        llm = llm_at(session, server, requests_per_minute=1)
        llm.ask("Hi")
        session.registry.get("s").requests_per_minute = 100
        llm.ask("Hi")
    assert moments(server)[1] < MINUTE
