"""Plain answers: their responses and what is kept of them are those of the draft and of recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from servers import Answer, Received, ScriptedServer, document

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.draft import Draft
from llm_magic.events import (
    Attempt,
    Event,
    Finished,
    Identified,
    LogprobsDelta,
    Note,
    Opened,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from llm_magic.mapping.asking.plain_answer import kept, plain_answer
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.recordings.answers import answer_of
from llm_magic.response import Response
from llm_magic.session import Session


class Review(BaseModel):
    topic: str
    score: int


SECONDS = st.floats(0, 100)
COST = st.none() | st.floats(0, 1)
TEXT = st.text() | st.sampled_from(["", "\ud83d", "\ude00", "a \ud800 b"])
ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        st.just("s"),
        st.just("m"),
        st.sampled_from([500, 429, None]),
        st.sampled_from(["busy", ""]),
        SECONDS,
        st.none() | st.sampled_from(["r", ""]),
        st.none() | SECONDS,
        st.booleans(),
    ),
    max_size=2,
)
OPENED = st.builds(
    Opened,
    st.just(200),
    st.dictionaries(st.sampled_from(["x-a", "date"]), st.sampled_from(["1", "2"])),
    st.none() | st.sampled_from(["", "r1"]),
    COST,
)
SAID = st.lists(
    st.builds(TextDelta, TEXT)
    | st.builds(Identified, st.sampled_from(["", "m-1", "m-2"]))
    | st.builds(UsageReport, st.builds(Usage, *[st.integers(0, 9)] * 4), COST),
    max_size=6,
)


@given(ATTEMPTS, st.none() | OPENED, st.tuples(SAID, SAID), st.none() | st.text(min_size=1), st.booleans())
def test_a_plain_answer_is_that_of_the_draft_and_of_recordings(
    attempts: list[Event], opened: Event | None, said: tuple[list[Event], ...], dialect: str | None, nulls: bool
) -> None:
    last = [Attempt("s", "m", 200, "", 0.5, "r1"), *([] if opened is None else [opened])]
    events = [*attempts, *last, *said[0], Finished("stop"), *said[1]]
    draft = Draft()
    draft.add_all(events)
    draft.settle(1.5)
    draft.first_token_seconds = 0.25 if draft.begun else None
    known: dict[str, Any] = {"value": 7, "model": "m", "provider": "s", "structured": dialect}
    plain = plain_answer(events)
    assert plain is not None
    response = plain.response(1.5, 0.25, **known)
    assert response == draft.response(**known)
    structured = {"dialect": dialect, "nulls": nulls} if dialect else None
    expected = answer_of(events, seconds=1.5, first_token_seconds=response.first_token_seconds, structured=structured)
    assert kept(response, structured) == expected


@pytest.mark.parametrize(
    "event",
    [
        Finished("stop"),
        Finished("length"),
        Finished("stop", 1),
        TextDelta("b", 1),
        ReasoningDelta("hm"),
        RefusalDelta("no"),
        ToolCallDelta(0, "i", "f", "{}"),
        LogprobsDelta(({"token": "a"},)),
        Note("The budget of …"),
        Opened(200, {}),
        Attempt("s", "m", 200, "broke off", 0.1),
    ],
)
def test_any_other_answer_is_left_to_the_draft(event: Event) -> None:
    plain = [Attempt("s", "m", 200, "", 0.1), Opened(200, {}), TextDelta("a")]
    assert plain_answer([*plain, Finished("stop")]) is not None
    assert plain_answer([*plain, event, Finished("stop")]) is None


@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls", "truncated"])
def test_an_answer_that_ended_otherwise_or_never_is_not_plain(reason: Any) -> None:
    assert plain_answer([TextDelta("a"), Finished(reason)]) is None
    assert plain_answer([TextDelta("a")]) is None


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def answered(request: Received) -> Answer:
    text = '{"topic": "price", "score": 3}' if "response_format" in request.json else "It is the price."
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    return document(
        {"id": "c1", "model": "m-1", "choices": [choice], "usage": usage},
        headers={"x-request-id": "r1", "x-ratelimit-limit-requests": "60"},
    )


def of_row_and_of_one(session: Session, server: ScriptedServer, **options: Any) -> tuple[Response, Response]:
    prices = {"*": {"input": 2.5, "output": 10}}
    session.registry.add("s", "compatible", base_url=server.url, max_retries=0, prices=prices)
    llm = LLM("s:m", system="Be brief.", **options)
    (of_row,) = llm.map("What is {{ item }} about?", ["it"]).responses
    assert of_row is not None
    return of_row, llm.ask("What is it about?", no_stream=True)


@pytest.mark.parametrize("options", [{}, {"output_type": Review}, {"max_tokens": 50, "temperature": 0.5}])
def test_the_response_of_a_row_has_every_field_as_that_of_one_prompt(session: Session, options: dict[str, Any]) -> None:
    with ScriptedServer(answered) as server:
        of_row, of_one = (vars(each).copy() for each in of_row_and_of_one(session, server, **options))
    assert of_row["cost"] == of_one["cost"] == pytest.approx((7 * 2.5 + 3 * 10) / 1e6)
    for told in (of_row, of_one):
        headers = dict(told.pop("headers"))
        assert (headers.pop("x-request-id"), headers["x-ratelimit-limit-requests"]) == ("r1", "60")
        assert 0 < told.pop("first_token_seconds") <= told.pop("seconds")
        (attempt,) = told.pop("attempts")
        assert asdict(attempt) | {"seconds": 0} == asdict(Attempt("s", "m", 200, "", 0, "r1"))
    assert of_row == of_one


def test_the_seconds_of_a_row_count_the_attempts_that_failed(session: Session) -> None:
    def slowly(request: Received) -> Answer:
        answer = answered(request)
        return Answer([0.2, *answer.steps], answer.status, answer.headers)  # the head comes at once

    busy = document({"error": {"message": "busy"}}, status=429, headers={"retry-after-ms": "300"})
    with ScriptedServer(busy, slowly) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=1)
        (response,) = LLM("s:m").map("{{ item }}?", ["a"]).responses
    assert response is not None
    assert [attempt.status for attempt in response.attempts] == [429, 200]
    assert response.first_token_seconds is not None
    assert response.first_token_seconds >= 0.2
    assert response.seconds >= response.first_token_seconds + 0.3
