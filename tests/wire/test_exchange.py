"""One request over the SDK against a server that misbehaves as scripted: no hang, no SDK exception, nothing lost."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from typing import Any

import pytest
from asking import KEY, ask, call, client, collect
from servers import HANG, RESET, Answer, Received, ScriptedServer, chunk, document, page, stream

from llm_magic import errors
from llm_magic.capabilities import Capabilities
from llm_magic.events import Attempt, Finished, Opened, TextDelta, Usage, UsageReport
from llm_magic.messages import user
from llm_magic.request import Parameters
from llm_magic.wire import connection
from llm_magic.wire.call import exchange, preview

HELLO = stream(
    chunk("", role="assistant"),
    chunk("Hel"),
    chunk("lo"),
    chunk(finish="stop"),
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    headers={"X-Request-ID": "r1", "x-ratelimit-remaining-requests": "9"},
)
WHOLE = {
    "model": "scripted",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}


def test_a_stream() -> None:
    with ScriptedServer(HELLO) as server:
        outcome = ask(server.url)
    assert outcome.error is None
    first, opened, *answer = outcome.events
    assert isinstance(first, Attempt)
    assert (first.status, first.reason, first.request_id, first.final) == (200, "", "r1", True)
    assert isinstance(opened, Opened)
    assert (opened.status, opened.request_id, opened.headers["x-ratelimit-remaining-requests"]) == (200, "r1", "9")
    assert answer[1:] == [TextDelta("Hel"), TextDelta("lo"), Finished("stop"), UsageReport(Usage(3, 2))]
    assert outcome.draft.response().rate_limits == {"remaining-requests": "9"}


def test_what_is_sent_is_what_the_body_says() -> None:
    with ScriptedServer(HELLO) as server:
        asked = call(
            client(server.url),
            headers={"X-Mine": "1"},
            parameters=Parameters(temperature=0.0, max_tokens=7, extra={"top_k": None, "nested": {"a": [1, None]}}),
        )
        body = asked.http_request().body
        asyncio.run(collect(asked))
    received = server.requests[0]
    assert received.json == body
    assert received.json["nested"] == {"a": [1, None]}
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.headers["x-mine"] == "1"
    assert received.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("api", "path"), [("chat", "/chat/completions"), ("responses", "/responses"), ("completions", "/completions")]
)
def test_the_paths_of_the_apis(api: Any, path: str) -> None:
    with ScriptedServer(document({"error": "no"}, 400)) as server:
        ask(server.url, capabilities=Capabilities(api=api))
    assert server.requests[0].path == "/v1" + path


def test_without_streaming() -> None:
    with ScriptedServer(document(WHOLE)) as server:
        outcome = ask(server.url, stream=False)
    assert "stream" not in server.requests[0].json
    assert outcome.answer[1:] == [TextDelta("Hello"), Finished("stop"), UsageReport(Usage(3, 2))]


def test_a_server_that_ignores_stream() -> None:
    with ScriptedServer(document(WHOLE)) as server:
        outcome = ask(server.url)
    assert outcome.answer[1:] == [TextDelta("Hello"), Finished("stop"), UsageReport(Usage(3, 2))]


def test_a_server_that_streams_unasked() -> None:
    with ScriptedServer(HELLO) as server:
        outcome = ask(server.url, stream=False)
    assert outcome.draft.text == "Hello"
    assert outcome.draft.finish_reason == "stop"


def test_a_compressed_stream() -> None:
    data = b"".join(step for step in HELLO.steps if isinstance(step, bytes))
    packed = gzip.compress(data)
    answer = Answer(
        [packed[:20], packed[20:]], headers={"content-type": "text/event-stream", "content-encoding": "gzip"}
    )
    with ScriptedServer(answer) as server:
        outcome = ask(server.url)
    assert outcome.draft.text == "Hello"


@pytest.mark.parametrize(
    "end",
    [[RESET], [b"data: {", RESET], [b'data: {"choices": [{"ind', RESET], []],
    ids=["cut", "cut early", "in json", "ended"],
)
def test_a_stream_that_breaks_off_keeps_its_text_and_has_no_end(end: list[Any]) -> None:
    with ScriptedServer(stream(chunk("Hel"), chunk("lo"), 0.02, *end, done=False)) as server:
        outcome = ask(server.url)
    assert isinstance(outcome.error, errors.IncompleteAnswerError)
    assert "broke off in the midst of its answer" in outcome.error.message
    assert outcome.draft.text == "Hello"
    assert outcome.draft.finish_reason is None
    assert outcome.draft.response().finish_reason == "truncated"
    assert [attempt.reason != "" for attempt in outcome.draft.attempts] == [True], "told of the one request"


def test_a_connection_cut_after_the_end_is_no_fault() -> None:
    with ScriptedServer(stream(chunk("Hello"), chunk(finish="stop"), 0.02, RESET, done=False)) as server:
        outcome = ask(server.url)
    assert outcome.error is None
    assert outcome.draft.finish_reason == "stop"


def test_a_server_that_never_ends_after_the_end_mark_does_not_hold_the_answer() -> None:
    with ScriptedServer(stream(chunk("Hello"), chunk(finish="stop"), b"data: [DONE]\n\n", HANG, done=False)) as server:
        started = time.perf_counter()
        outcome = ask(server.url)
    assert outcome.error is None
    assert outcome.draft.finish_reason == "stop"
    assert time.perf_counter() - started < 1.5


def test_a_server_that_never_ends_after_the_finish_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_magic.wire.call.LINGER", 0.2)
    with ScriptedServer(stream(chunk("Hello"), chunk(finish="stop"), HANG, done=False)) as server:
        started = time.perf_counter()
        outcome = ask(server.url)
    assert outcome.error is None
    assert outcome.draft.finish_reason == "stop"
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    "silence",
    [[HANG], [b" ", 0.1] * 100, [b": keep-alive\n\n", 0.1] * 100, [b"d", 0.1, b"a", 0.1] * 60],
    ids=["nothing", "spaces", "comments", "a byte at a time"],
)
@pytest.mark.parametrize("begun", [True, False])
def test_silence_ends_with_the_timeout(silence: list[Any], begun: bool) -> None:
    before = [chunk("Hello")] if begun else []
    with ScriptedServer(stream(*before, *silence, done=False)) as server:
        started = time.perf_counter()
        outcome = ask(server.url, timeout=0.5)
        seconds = time.perf_counter() - started
        assert server.requests[0].left.wait(1), "the connection is closed"
    assert isinstance(outcome.error, errors.TimedOutError)
    assert outcome.draft.text == ("Hello" if begun else "")
    assert 0.4 < seconds < 2.5


def test_a_slow_stream_that_lives_does_not_time_out() -> None:
    with ScriptedServer(
        stream(*[item for text in "Hello" for item in (chunk(text), 0.3)], chunk(finish="stop"))
    ) as server:
        outcome = ask(server.url, timeout=0.6)
    assert outcome.error is None
    assert outcome.draft.text == "Hello"


def test_headers_that_never_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_magic.wire.attempts.SLACK", 0.3)
    with ScriptedServer(Answer([b"HTTP/1.1 200 OK\r\n", *[b"x-a: b\r\n", 0.1] * 100], raw=True)) as server:
        started = time.perf_counter()
        outcome = ask(server.url, timeout=0.3)
    assert isinstance(outcome.error, errors.TimedOutError)
    assert time.perf_counter() - started < 3
    assert [attempt.status for attempt in outcome.attempts] == [None]


def test_no_answer_within_the_timeout() -> None:
    with ScriptedServer(Answer([HANG], raw=True)) as server:
        outcome = ask(server.url, timeout=0.3)
    assert isinstance(outcome.error, errors.TimedOutError)
    assert [(attempt.status, attempt.reason) for attempt in outcome.attempts] == [(None, "no answer within 0.3 s")]


def test_the_connection_to_a_server_that_falls_silent_is_closed() -> None:
    async def silent(server: ScriptedServer) -> list[bool]:
        made = client(server.url)
        for _ in range(5):  # the HTTP client's own timeout ends at the same moment
            outcome = await collect(call(made, timeout=0.2), close=False)
            assert outcome.draft.text == "Hello"
        left = [await asyncio.to_thread(received.left.wait, 2) for received in server.requests]
        await made.close()
        return left

    with ScriptedServer(stream(chunk("Hello"), HANG, done=False)) as server:
        assert asyncio.run(silent(server)) == [True] * 5


def test_an_interrupt_while_nobody_takes_what_comes_closes_the_connection() -> None:
    async def overflow(server: ScriptedServer) -> bool:
        made = client(server.url)
        batches = exchange(call(made))
        async for batch in batches:
            if any(isinstance(event, TextDelta) for event in batch):
                break
        await asyncio.sleep(0.5)  # more is read ahead than may be
        begun = time.perf_counter()
        await batches.aclose()
        assert time.perf_counter() - begun < connection.ENDING
        left = await asyncio.to_thread(server.requests[0].left.wait, 2)
        await made.close()
        return left

    long = [chunk("x" * 50_000) for _ in range(100)]
    with ScriptedServer(stream(chunk("Hello"), 0.1, *long, HANG, done=False)) as server:
        assert asyncio.run(overflow(server))


async def _interrupted(server: ScriptedServer, made: Any, after: float) -> tuple[float, Received]:
    """Cancel a running exchange; return how long the server took to see it."""
    asked = call(made)
    seen = asyncio.Event()

    async def read() -> None:
        async for batch in exchange(asked):
            if any(isinstance(event, TextDelta) for event in batch):
                seen.set()

    task = asyncio.ensure_future(read())
    if after:
        await asyncio.sleep(after)
    else:
        await asyncio.wait_for(seen.wait(), 5)
    cancelled = time.perf_counter()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    received = server.requests[0]
    left = await asyncio.to_thread(received.left.wait, 2)
    closing = made.close()  # not before: that would close the connection as well
    if closing is not None:
        await closing
    assert left, "the server never saw the client leave"
    assert received.closed_at is not None
    return received.closed_at - cancelled, received


def test_an_interrupt_closes_the_connection_at_once() -> None:
    with ScriptedServer(stream(chunk("Hello"), HANG, done=False)) as server:
        seconds, _ = asyncio.run(_interrupted(server, client(server.url), 0))
    assert seconds < 0.15


def test_an_interrupt_before_the_answer_closes_the_connection_at_once() -> None:
    with ScriptedServer(Answer([HANG], raw=True)) as server:
        seconds, _ = asyncio.run(_interrupted(server, client(server.url), 0.3))
    assert seconds < 0.15


def test_an_interrupt_of_a_blocking_client_closes_the_connection_too() -> None:
    from openai import OpenAI

    with ScriptedServer(stream(chunk("Hello"), HANG, done=False)) as server:
        made = OpenAI(base_url=server.url, api_key=KEY, max_retries=0, timeout=5)
        seconds, _ = asyncio.run(_interrupted(server, made, 0))
    assert seconds < 0.15


def test_leaving_the_iterator_closes_the_connection() -> None:
    async def leave(server: ScriptedServer) -> None:
        made = client(server.url)
        batches = exchange(call(made))
        async for batch in batches:
            if any(isinstance(event, TextDelta) for event in batch):
                break
        await batches.aclose()  # type: ignore[attr-defined]  # an async generator
        assert await asyncio.to_thread(server.requests[0].left.wait, 1)
        await made.close()

    with ScriptedServer(stream(chunk("Hello"), HANG, done=False)) as server:
        asyncio.run(leave(server))


def test_the_connection_is_kept_for_the_next_request() -> None:
    async def twice(server: ScriptedServer) -> None:
        made = client(server.url)
        for _ in range(3):
            async for _batch in exchange(call(made)):
                pass
        await made.close()

    with ScriptedServer(HELLO) as server:
        asyncio.run(twice(server))
        assert server.connections == 1


def test_failed_attempts_are_told_while_others_follow() -> None:
    busy = document(
        {"error": {"message": "slow down", "code": "rate_limit_exceeded"}},
        429,
        {"retry-after-ms": "300", "x-request-id": "r0"},
    )

    async def run(server: ScriptedServer) -> tuple[list[Any], float]:
        told, at = [], 0.0
        made = client(server.url)
        started = time.perf_counter()
        async for batch in exchange(call(made, retries=2)):
            told.extend(batch)
            if len(told) == 1:
                at = time.perf_counter() - started
        await made.close()
        return told, at

    with ScriptedServer(busy, HELLO) as server:
        told, at = asyncio.run(run(server))
    first, second = told[:2]
    assert (first.status, first.reason, first.request_id, first.retry_after, first.final) == (
        429,
        "slow down",
        "r0",
        0.3,
        False,
    )
    assert (second.status, second.final) == (200, True)
    assert at < 0.25, "told before the wait, not after it"


def test_a_lost_connection_is_an_attempt_too() -> None:
    with ScriptedServer(Answer([RESET], raw=True), HELLO) as server:
        outcome = ask(server.url, retries=1)
    assert [(attempt.status, attempt.final) for attempt in outcome.attempts] == [(None, False), (200, True)]
    assert outcome.attempts[0].reason != ""
    assert outcome.draft.text == "Hello"


IMAGE = "image input is not supported - hint: you may need to provide the mmproj"
PERMANENT = [
    (501, {"message": "off", "code": 501, "type": "not_supported_error"}),
    (500, {"message": IMAGE, "code": 500}),
    (429, {"message": "You exceeded your current quota", "type": "insufficient_quota"}),
    (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
    (500, {"message": "blocked", "code": "content_filter"}),
]


@pytest.mark.parametrize(("status", "answer"), PERMANENT)
@pytest.mark.parametrize("sync", [False, True])
def test_permanent_failures_are_not_repeated(status: int, answer: dict[str, Any], sync: bool) -> None:
    from openai import OpenAI

    with ScriptedServer(document({"error": answer}, status)) as server:
        made = OpenAI(base_url=server.url, api_key=KEY) if sync else client(server.url)
        outcome = ask(server.url, made=made, retries=4)
    assert len(server.requests) == 1
    assert [(attempt.status, attempt.final) for attempt in outcome.attempts] == [(status, True)]
    assert outcome.error is not None


def test_transient_failures_are_repeated_and_the_last_one_is_final() -> None:
    with ScriptedServer(document({"error": "busy"}, 503, {"retry-after-ms": "1"})) as server:
        outcome = ask(server.url, retries=2)
    assert [(attempt.status, attempt.final) for attempt in outcome.attempts] == [
        (503, False),
        (503, False),
        (503, True),
    ]
    assert isinstance(outcome.error, errors.ServerFailedError)
    assert outcome.error.status == 503


def test_a_retry_after_of_more_than_two_minutes_is_not_waited_for() -> None:
    with ScriptedServer(document({"error": {"message": "later"}}, 429, {"retry-after": "121"})) as server:
        outcome = ask(server.url, retries=3)
    assert len(server.requests) == 1
    assert isinstance(outcome.error, errors.RateLimitedError)
    assert "121 s" in outcome.error.hint
    assert [attempt.final for attempt in outcome.attempts] == [True]


def test_errors_in_mid_stream_come_after_the_text() -> None:
    bad = b'data: {"error": {"message": "CUDA out of memory", "code": 500}}\n\n'
    with ScriptedServer(stream(chunk("Hel"), chunk("lo"), bad)) as server:
        outcome = ask(server.url, retries=3)
    assert len(server.requests) == 1
    assert outcome.draft.text == "Hello"
    assert isinstance(outcome.error, errors.ServerFailedError)
    assert "CUDA out of memory" in outcome.error.message


@pytest.mark.parametrize("answer", [Answer([]), stream(), Answer([b": hello\n\n"]), stream(b"data:\n\n")])
def test_an_answer_of_nothing(answer: Answer) -> None:
    with ScriptedServer(answer) as server:
        outcome = ask(server.url)
    assert isinstance(outcome.error, errors.ProtocolError)
    assert "nothing" in outcome.error.message


def test_a_page_with_status_200() -> None:
    with ScriptedServer(page("<!DOCTYPE html><html><head><title>Sign in &amp; go</title></head></html>")) as server:
        outcome = ask(server.url)
    assert isinstance(outcome.error, errors.ProtocolError)
    assert "Sign in & go" in outcome.error.message
    assert "base_url" in outcome.error.hint


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_lose_the_body_is_named(status: int) -> None:
    with ScriptedServer(
        Answer([], status, {"location": "https://user:pw@elsewhere.example/v1/x?key=secret1"})
    ) as server:
        outcome = ask(server.url, retries=3)
    assert len(server.requests) == 1
    assert isinstance(outcome.error, errors.EndpointNotFoundError)
    assert "https://***@elsewhere.example/v1/x?key=***." in outcome.error.message
    assert "secret1" not in str(outcome.error)
    assert "pw" not in outcome.error.message


def test_a_redirect_on_the_same_host_is_followed() -> None:
    with ScriptedServer(Answer([], 307, {"location": "/other/chat/completions"}), HELLO) as server:
        outcome = ask(server.url)
    assert [received.path for received in server.requests] == ["/v1/chat/completions", "/other/chat/completions"]
    assert server.requests[1].json == server.requests[0].json
    assert outcome.draft.text == "Hello"
    assert len(outcome.attempts) == 1


def test_a_redirect_to_a_foreign_host_sends_nothing_there() -> None:
    with ScriptedServer(HELLO) as foreign:
        elsewhere = f"http://localhost:{foreign.port}/v1/chat/completions"
        with ScriptedServer(Answer([], 307, {"location": elsewhere})) as server:
            outcome = ask(server.url)
        assert foreign.requests == []
    assert isinstance(outcome.error, errors.EndpointNotFoundError)


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_port_sends_nothing_there(status: int, sync: bool) -> None:
    from openai import OpenAI

    with ScriptedServer(HELLO) as other:
        elsewhere = f"{other.host}/v1/chat/completions?key=secret-1"
        with ScriptedServer(Answer([], status, {"location": elsewhere, "x-request-id": "r7"})) as server:
            known = {"default_headers": {"api-key": "other-secret"}, "organization": "org"}
            made = OpenAI(base_url=server.url, api_key=KEY, **known) if sync else client(server.url, **known)
            outcome = ask(server.url, made=made, retries=3)
        assert other.connections == 0
    assert isinstance(outcome.error, errors.EndpointNotFoundError)
    assert f"from {server.url}/chat/completions to {other.host}/v1/chat/completions?key=***" in outcome.error.message
    assert [(a.status, a.reason, a.request_id, a.final) for a in outcome.attempts] == [
        (status, "redirected elsewhere", "r7", True)
    ]


def test_a_redirect_to_another_scheme_sends_nothing_there() -> None:
    with ScriptedServer(Answer([], 307, {"location": "https://127.0.0.1/v1/chat/completions"})) as server:
        outcome = ask(server.url, retries=3)
        assert len(server.requests) == 1
    assert isinstance(outcome.error, errors.EndpointNotFoundError)


def test_a_location_that_echoes_a_key_does_not_show_it() -> None:
    with ScriptedServer(Answer([], 307, {"location": f"https://elsewhere.example/{KEY}/x"})) as server:
        outcome = ask(server.url)
    assert isinstance(outcome.error, errors.EndpointNotFoundError)
    assert KEY not in str(outcome.error)


def test_redirects_in_a_circle_end() -> None:
    with ScriptedServer(Answer([], 307, {"location": "/v1/chat/completions"})) as server:
        outcome = ask(server.url, retries=3)
    assert len(server.requests) == 6
    assert isinstance(outcome.error, errors.EndpointNotFoundError)
    assert "circle" in outcome.error.message


@pytest.mark.parametrize("sync", [False, True])
def test_a_redirect_of_azure_keeps_key_and_version(sync: bool) -> None:
    from openai import AsyncAzureOpenAI, AzureOpenAI

    there = "/other/deployments/m/chat/completions?api-version=2030-01-01&a=1"
    with ScriptedServer(Answer([], 308, {"location": there}), HELLO) as server:
        cls: Any = AzureOpenAI if sync else AsyncAzureOpenAI
        outcome = ask(server.url, made=cls(azure_endpoint=server.host, api_key=KEY, api_version="2024-10-21"))
    assert outcome.draft.text == "Hello"
    assert server.requests[1].path == there
    assert server.requests[1].headers["api-key"] == KEY
    assert server.requests[1].json == server.requests[0].json


@pytest.mark.parametrize("header", [{"X-A": "a\nb"}, {"a b": "c"}, {"X-A": " c"}, {"X-A": "\u00fc"}])
@pytest.mark.parametrize("transport", ["default", "aiohttp"])
def test_a_clients_illegal_header_is_refused_and_not_shown(header: dict[str, str], transport: str) -> None:
    import openai

    http = openai.DefaultAioHttpClient() if transport == "aiohttp" else None
    with ScriptedServer(HELLO) as server:
        outcome = ask(server.url, made=client(server.url, default_headers=header, http_client=http), retries=3)
        assert server.connections == 0
    assert isinstance(outcome.error, errors.ConfigurationError)
    assert outcome.attempts == []


@pytest.mark.parametrize("transport", ["default", "aiohttp"])
def test_a_key_asked_for_that_no_header_may_carry(transport: str) -> None:
    import traceback

    import openai

    async def token() -> str:
        return "some-secret\nkey"

    http = openai.DefaultAioHttpClient() if transport == "aiohttp" else None
    with ScriptedServer(HELLO) as server:
        outcome = ask(server.url, made=client(server.url, api_key=token, http_client=http), retries=3)
        assert server.requests == []
    assert isinstance(outcome.error, errors.ConfigurationError)
    assert "some-secret" not in "".join(traceback.format_exception(outcome.error))


def test_the_waits_between_attempts_double(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_magic.wire import attempts

    monkeypatch.setattr(attempts, "random", lambda: 0.0)
    assert [attempts._wait(number, None) for number in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert [attempts._wait(0, asked) for asked in (0.0, -1.0, 3.0, 120.0, 121.0)] == [0.5, 0.5, 3.0, 120.0, 0.5]
    monkeypatch.setattr(attempts, "random", lambda: 1.0)
    assert attempts._wait(1, None) == 0.75


@pytest.mark.parametrize("status", [408, 409, 429, 500, 599])
def test_what_is_repeated(status: int) -> None:
    with ScriptedServer(document({"error": "busy"}, status, {"retry-after-ms": "1"}), HELLO) as server:
        assert ask(server.url, retries=1).draft.text == "Hello"
        assert len(server.requests) == 2


@pytest.mark.parametrize(("status", "said", "requests"), [(400, "true", 2), (503, "false", 1)])
def test_a_server_may_say_whether_to_repeat(status: int, said: str, requests: int) -> None:
    headers = {"retry-after-ms": "1", "x-should-retry": said}
    with ScriptedServer(document({"error": "busy"}, status, headers), HELLO) as server:
        ask(server.url, retries=1)
        assert len(server.requests) == requests


def test_a_host_that_is_not_known_is_not_asked_again() -> None:
    outcome = ask("http://nowhere.invalid/v1", retries=3)
    assert isinstance(outcome.error, errors.ConnectionFailedError)
    assert [attempt.final for attempt in outcome.attempts] == [True]


def test_a_body_is_not_read_far_ahead_of_who_takes_it() -> None:
    from llm_magic.wire.connection import READ_AHEAD, Connection

    read = 0

    class Endless:
        status_code, headers, is_stream_consumed = 200, {}, False

        @property
        async def stream(self) -> Any:
            nonlocal read
            while True:
                read += 1000
                yield b"x" * 1000

        async def aclose(self) -> None:
            pass

    async def run() -> None:
        connection = Connection(Endless())
        for times in range(1, 4):
            data = await connection.take()
            assert data is not None
            assert len(data) == read // times
            await asyncio.sleep(0.01)
            assert read < (times + 1) * (READ_AHEAD + 2000)
            read_before = read
            await asyncio.sleep(0.01)
            assert read == read_before, "nothing is read while nothing is taken"
        await connection.close()

    asyncio.run(run())


def test_what_has_arrived_is_fed_at_once() -> None:
    events = b"".join(b"data: %b\n\n" % json.dumps(chunk(str(number))).encode() for number in range(200))
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in re.findall(rb"data: .*\n\n", events))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    with ScriptedServer(Answer([head + framed + b"0\r\n\r\n"], raw=True)) as server:
        outcome = ask(server.url)
    assert outcome.draft.text == "".join(map(str, range(200)))
    assert outcome.batches < 10


def test_a_clean_task_context() -> None:
    """One call does not see another that runs beside it on the same client."""

    async def both(server: ScriptedServer) -> list[Any]:
        made = client(server.url)
        outcomes = await asyncio.gather(*[collect(call(made, retries=0), close=False) for _ in range(5)])
        await made.close()
        return outcomes

    with ScriptedServer(HELLO) as server:
        outcomes = asyncio.run(both(server))
    assert [len(outcome.attempts) for outcome in outcomes] == [1] * 5
    assert {outcome.draft.text for outcome in outcomes} == {"Hello"}


@pytest.mark.parametrize("sync", [False, True])
def test_a_blocking_client_works_too(sync: bool) -> None:
    from openai import AsyncAzureOpenAI, AzureOpenAI

    with ScriptedServer(HELLO) as server:
        cls: Any = AzureOpenAI if sync else AsyncAzureOpenAI
        made = cls(azure_endpoint=server.host, api_key=KEY, api_version="2024-10-21", max_retries=0)
        outcome = ask(server.url, made=made)
    received = server.requests[0]
    assert received.path == "/openai/deployments/m/chat/completions?api-version=2024-10-21"
    assert received.headers["api-key"] == KEY
    assert outcome.draft.text == "Hello"
    assert [attempt.status for attempt in outcome.attempts] == [200]


def test_a_preview_sends_nothing_and_shows_no_secret() -> None:
    asked_for: list[str] = []

    async def token() -> str:
        asked_for.append("token")
        return KEY

    async def run(server: ScriptedServer) -> Any:
        made = client(
            server.url,
            api_key=token,
            default_headers={"X-Api-Key": "secret-1"},
            default_query={"sig": "secret-2", "a": "b"},
        )
        asked = call(made, headers={"X-Mine": "1"}, parameters=Parameters(seed=3))
        return await preview(asked), asked.http_request().body

    with ScriptedServer(HELLO) as server:
        shown, body = asyncio.run(run(server))
        assert server.connections == 0
    assert asked_for == []
    assert (shown.method, shown.body) == ("POST", body)
    assert shown.url == f"{server.url}/chat/completions?sig=***&a=***"
    headers = {name.lower(): value for name, value in shown.headers.items()}
    assert (headers["authorization"], headers["x-api-key"], headers["x-mine"]) == ("Bearer ***", "***", "1")
    assert "secret" not in str(shown)


@pytest.mark.parametrize("sync", [False, True])
def test_a_preview_of_azure_asks_for_no_token(sync: bool) -> None:
    from openai import AsyncAzureOpenAI, AzureOpenAI

    def token() -> str:
        raise AssertionError("a token was asked for")

    cls: Any = AzureOpenAI if sync else AsyncAzureOpenAI
    made = cls(azure_endpoint="https://r.example", azure_ad_token_provider=token, api_version="2024-10-21")
    shown = asyncio.run(preview(call(made)))
    assert shown.url == "https://r.example/openai/deployments/m/chat/completions?api-version=2024-10-21"
    headers = {name.lower(): value for name, value in shown.headers.items()}
    assert headers["authorization"] == "Bearer ***"


@pytest.mark.parametrize("sync", [False, True])
def test_a_preview_stops_no_other_request_of_its_client(sync: bool) -> None:
    from openai import OpenAI

    async def both(server: ScriptedServer) -> Any:
        made = OpenAI(base_url=server.url, api_key=KEY) if sync else client(server.url)
        asked = [collect(call(made), close=False) for _ in range(4)]
        shown = [preview(call(made)) for _ in range(4)]
        mixed = [each for pair in zip(asked, shown, strict=True) for each in pair]
        found = await asyncio.gather(*mixed)
        closing = made.close()
        if closing is not None:
            await closing
        return found

    with ScriptedServer(HELLO) as server:
        found = asyncio.run(both(server))
        assert len(server.requests) == 4
    assert [outcome.draft.text for outcome in found[::2]] == ["Hello"] * 4
    assert {shown.method for shown in found[1::2]} == {"POST"}


def test_a_client_that_cannot_be_watched_still_answers_but_shows_no_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unhooked:
        """Stands before a client and hides its HTTP client."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            if name == "_client":
                raise AttributeError(name)
            return getattr(self._inner, name)

    with ScriptedServer(HELLO) as server:
        outcome = ask(server.url, made=Unhooked(client(server.url)))
        assert outcome.draft.text == "Hello"
        assert [attempt.status for attempt in outcome.attempts] == [200]
        with pytest.raises(errors.UnsupportedError, match="--dry-run"):
            asyncio.run(preview(call(Unhooked(client(server.url)))))
        assert len(server.requests) == 1


def test_unsupported_options_are_refused_before_anything_is_sent() -> None:
    with ScriptedServer(HELLO) as server:
        outcome = ask(server.url, parameters=Parameters(seed=1), capabilities=Capabilities(api="responses"))
        assert server.connections == 0
    assert isinstance(outcome.error, errors.UnsupportedError)
    assert "--seed" in outcome.error.message


def test_ten_megabytes_in_small_pieces() -> None:
    text = "x" * 1000
    with ScriptedServer(stream(*[chunk(text)] * 10_000, chunk(finish="stop"))) as server:
        outcome = ask(server.url, messages=(user("go"),))
    assert len(outcome.draft.text) == 10_000_000
    assert outcome.draft.finish_reason == "stop"
