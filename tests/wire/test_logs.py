"""Logs: the records that the libraries write of our requests are masked, all others stay as they are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from asking import KEY, ask, call, client, collect
from servers import Answer, ScriptedServer, chunk, document, stream

from llm_magic.secrets import Secret
from llm_magic.wire import logs

HELLO = stream(chunk("Hi"), chunk(finish="stop"), headers={"x-echo": KEY, "x-query": "query-secret-1"})


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    logs.unguard()


def asked(server: ScriptedServer, **known: Any) -> None:
    made = client(server.url, default_query={"sub": "query-secret-1", "api-version": "v-2024"}, **known)
    secrets = (Secret("query-secret-1"), Secret(KEY, key=True))

    async def run() -> None:
        from dataclasses import replace

        await collect(replace(call(made), secrets=secrets))

    asyncio.run(run())


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_no_record_of_a_request_shows_a_secret(level: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(level), ScriptedServer(HELLO) as server:
        asked(server)
    said = caplog.text
    assert "/chat/completions?sub=***&api-version=v-2024" in said
    assert "query-secret-1" not in said
    assert KEY not in said
    if level == logging.DEBUG:
        assert "receive_response_headers.complete" in said
        assert "(b'x-echo', b'***')" in said


def test_a_value_in_a_query_is_masked_although_nobody_knows_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), ScriptedServer(HELLO) as server:
        ask(server.url, made=client(server.url, default_query={"s": "short"}))
    assert "?s=***" in caplog.text
    assert "short" not in caplog.text


def test_a_logged_traceback_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        logs.guard((Secret("tracked-secret"),))
        try:
            int("tracked-secret")
        except ValueError:
            logging.getLogger("httpcore.http11").exception("failed")
            logging.getLogger("httpcore.http11").debug("data %s %r", {"a": "tracked-secret"}, b"tracked-secret")

    import contextvars

    logging.getLogger("httpcore.http11")
    with caplog.at_level(logging.DEBUG):
        contextvars.copy_context().run(work)
    assert "invalid literal for int() with base 10: '***'" in caplog.text
    assert "data {'a': '***'} b'***'" in caplog.text
    assert "tracked-secret" not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)


def test_records_of_others_stay_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedServer(HELLO) as server:
        asked(server)
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("httpx").info("HTTP Request: %s", "https://other.example/?sub=query-secret-1")
        logging.getLogger("mine").info("query-secret-1")
    first, second = caplog.records
    assert first.args == ("https://other.example/?sub=query-secret-1",)
    assert second.getMessage() == "query-secret-1"


def test_a_refusal_and_a_lost_connection_in_the_logs(caplog: pytest.LogCaptureFixture) -> None:
    refusal = document({"error": {"message": KEY}}, 401, {"x-echo": KEY})
    for script in (refusal, Answer([b"\x00" + KEY.encode()], raw=True), Answer([], 307, {"location": f"/{KEY}"})):
        with caplog.at_level(logging.DEBUG), ScriptedServer(script) as server:
            asked(server)
    assert KEY not in caplog.text
    assert "query-secret-1" not in caplog.text


def test_nothing_is_left_on_the_loggers() -> None:
    with ScriptedServer(HELLO) as server:
        asked(server)
    assert [name for name in _names() if logging.getLogger(name).filters] != []
    logs.unguard()
    assert [name for name in _names() if logs._filter in logging.getLogger(name).filters] == []


def _names() -> list[str]:
    return [name for name in logging.Logger.manager.loggerDict if name.startswith(("openai", "http"))]
