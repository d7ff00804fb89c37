"""Rows whose answers take longer than the timeout: streamed once it is seen that they do, and not paid for blindly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import HANG, Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import TimedOutError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

SSE = {"content-type": "text/event-stream"}

pytestmark = pytest.mark.parametrize("transport", ["pool", "sdk"])


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("llm_magic.wire.attempts.FIRST_WAIT", 0.01)
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def llm_at(session: Session, server: ScriptedServer, transport: str, **settings: object) -> LLM:
    settings = {"timeout": 0.4, "max_retries": 6, **settings}
    if transport == "sdk":
        settings["http_client_kwargs"] = {"trust_env": False}
    session.registry.add("s", "compatible", base_url=server.url, **settings)
    return LLM("s:m")


def said(request: Received) -> str:
    return str(request.json["messages"][-1]["content"])


def writes_slowly(request: Received) -> Answer:
    """Answer over three times the timeout: piece by piece, or all of it with its headers at the end of that."""
    text = f"you said {said(request)}"
    if request.json.get("stream"):
        pieces = stream(*map(chunk, (text[:4], text[4:6], text[6:8], text[8:])), chunk(finish="stop")).steps
        return Answer([step for piece in pieces[:4] for step in (piece, 0.3)] + pieces[4:], headers=SSE)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
    return Answer([1.2, head, *document({"choices": [choice]}).steps], raw=True)


def test_rows_that_take_longer_than_the_timeout_are_streamed(session: Session, transport: str) -> None:
    with ScriptedServer(writes_slowly) as server:
        answers = llm_at(session, server, transport).map("{{ item }}", range(3), concurrency=1)
    assert answers.values == ["you said 0", "you said 1", "you said 2"]
    assert [bool(request.json.get("stream")) for request in server.requests] == [False, True, True, True]
    assert [len(response.attempts) for response in answers.responses if response] == [2, 1, 1]
    (note,) = answers.notes
    assert note.startswith("An answer took longer than the timeout")


def test_where_nothing_may_be_streamed_the_same_is_sent_again(session: Session, transport: str) -> None:
    with ScriptedServer(writes_slowly) as server:
        llm = llm_at(session, server, transport, max_retries=1)
        answers = llm.map("{{ item }}", [0], no_stream=True, on_error="keep")
    assert [request.json.get("stream") for request in server.requests] == [None, None]
    (error,) = answers.errors
    assert type(error) is TimedOutError
    assert error.hint == "Allow more with timeout=SECONDS, or ask again."


def test_a_server_that_is_silent_is_asked_by_streams_as_often_as_retries_allow(
    session: Session, transport: str
) -> None:
    with ScriptedServer(Answer([HANG], raw=True)) as server:
        answers = llm_at(session, server, transport, max_retries=1).map("{{ item }}", [0], on_error="keep")
    assert len(server.requests) == 3  # a document, and two streams
    assert type(answers.errors[0]) is TimedOutError
    assert answers.responses[0] is None or len(answers.responses[0].attempts) == 3


def test_what_may_be_sent_once_is_sent_once(session: Session, transport: str) -> None:
    with ScriptedServer(writes_slowly) as server:
        answers = llm_at(session, server, transport, max_retries=0).map("{{ item }}", [0], on_error="keep")
    assert len(server.requests) == 1
    assert type(answers.errors[0]) is TimedOutError


def test_a_longer_timeout_of_the_call_is_waited_for(session: Session, transport: str) -> None:
    with ScriptedServer(writes_slowly) as server:
        answers = llm_at(session, server, transport).map("{{ item }}", [0], timeout=5)
    assert answers.values == ["you said 0"]
    assert len(server.requests) == 1
