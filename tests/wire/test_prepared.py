"""A request prepared once: the same events, errors and requests over aiohttp as over the SDK's own client."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import ssl
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from servers import HANG, RESET, Answer, Received, ScriptedServer, chunk, document, stream

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))

from fault_apis import APIS
from fault_table import FAULTS, SECRET, Fault

from llm_magic.errors import (
    AuthenticationError,
    EndpointNotFoundError,
    IncompleteAnswerError,
    LLMError,
    OptionError,
    PromptError,
    TimedOutError,
    UnsupportedError,
)
from llm_magic.events import Attempt, Event, Finished, Opened, TextDelta
from llm_magic.messages import system, user
from llm_magic.providers.azure import AzureProvider
from llm_magic.providers.base import Provider
from llm_magic.providers.compatible import CompatibleProvider, ExistingClientProvider
from llm_magic.request import Parameters, Request
from llm_magic.wire import attempts, call, connection, logs
from llm_magic.wire import prepared as module
from llm_magic.wire import stream as stream_module
from llm_magic.wire.body_template import BodyTemplate
from llm_magic.wire.prepared import PreparedRequest, why_the_sdk_sends
from llm_magic.wire.transport_pool import TransportPool

MARK = "the row's text stands here"
HELLO = {
    "object": "chat.completion",
    "model": "scripted",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ROWS_KEY", SECRET)
    monkeypatch.setattr(attempts, "FIRST_WAIT", 0.01)
    yield
    logs.unguard()


def asked(text: str = MARK, model: str = "m", **parameters: Any) -> Request:
    return Request(model, (user(text),), Parameters(parameters), stream=False)


@asynccontextmanager
async def prepared(
    url: str,
    request: Request | None = None,
    *,
    by_the_sdk: bool = False,
    provider: Provider | None = None,
    **known: Any,
) -> AsyncGenerator[PreparedRequest]:
    """Return a request prepared over a provider of its own, over aiohttp unless it is said otherwise."""
    request = request or asked()
    settings = {"base_url": url, "max_retries": 1, "timeout": 10.0, "api_key_env": "ROWS_KEY", **known}
    made = provider or CompatibleProvider(name="rows", **settings)
    found = await made.prepare_request(request, made.capabilities(request.model))
    assert found is not None
    assert found.why_the_sdk_sends == ""
    assert found.slower_because == ""
    if by_the_sdk:
        found.why_the_sdk_sends = "a test wants it"
    async with found:
        yield found
    await made.aclose()


async def said(found: PreparedRequest, text: str = "Hi", request: Request | None = None, **more: Any) -> list[Event]:
    """Return the events of one row."""
    template = await found.template(MARK)
    assert template is not None
    events: list[Event] = []
    await found.exchange(template.body(text), request or asked(text), events, **more)
    return events


def texts(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def statuses(events: list[Event]) -> list[tuple[int | None, bool]]:
    return [(event.status, event.final) for event in events if isinstance(event, Attempt)]


def timeless(events: list[Event]) -> list[Event]:
    return [dataclasses.replace(each, seconds=0.0) if isinstance(each, Attempt) else each for each in events]


# What is sent


def test_what_is_sent_is_what_the_sdk_sends() -> None:
    async def run(url: str) -> None:
        request = dataclasses.replace(asked(), headers={"X-Row": "one"})
        headers = {"X-Of-All": "two"}
        for by_the_sdk in (True, False):
            async with prepared(
                url, request, by_the_sdk=by_the_sdk, default_headers=headers, default_query={"v": "1", "q": "a b"}
            ) as found:
                await said(found, 'a "row"\n', request)

    with ScriptedServer(document(HELLO)) as server:
        asyncio.run(run(server.url))
    first, second = server.requests
    assert (second.method, second.path, second.body) == (first.method, first.path, first.body)
    assert second.json["messages"][0]["content"] == 'a "row"\n'
    assert second.headers["authorization"] == f"Bearer {SECRET}"
    assert (second.headers["x-row"], second.headers["x-of-all"]) == ("one", "two")
    different = {name for name in first.headers | second.headers if first.headers.get(name) != second.headers.get(name)}
    assert different <= {"accept-encoding"}  # what aiohttp cannot read is not asked for
    assert set(map(str.strip, second.headers["accept-encoding"].split(","))) <= {"gzip", "deflate"}
    names = [{line.partition(":")[0] for line in each.header_lines} for each in (first, second)]
    assert {name for name in names[0] if name.startswith("X-")} <= names[1]


TEXTS = [
    "",
    "Hi",
    'a "quoted" \\ text',
    "line\nbreak\ttab\r",
    "NUL \x00 and \x1f \x7f",
    "é ü 漢字",
    "\U0001d4b3\U0001f600",
    "\u2028\u2029",
    MARK,
]


@pytest.mark.parametrize("api", ["chat", "responses", "completions"])
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_template_gives_the_bytes_of_the_sdk(api: Any, text: str) -> None:
    async def run() -> tuple[bytes, bytes]:
        made = CompatibleProvider(name="rows", base_url="http://127.0.0.1:1/v1", api=api)
        able = made.capabilities("m")
        with_system = (system('Be "brief".'), user(f"é Say {MARK}!"))
        request = dataclasses.replace(asked(temperature=0.5), messages=with_system)
        if api == "completions":
            request = dataclasses.replace(request, messages=(user(f"é Say {MARK}!"),))
        found = await made.prepare_request(request, able)
        assert found is not None
        template = await found.template(MARK)
        assert template is not None
        messages = (*request.messages[:-1], user(f"é Say {text}!"))
        other = await made.prepare_request(dataclasses.replace(request, messages=messages), able)
        assert other is not None
        http = other.call.http_request()
        caught = await call.catch(http, http.client._client.event_hooks["request"])
        assert await other.body() == bytes(caught.content)
        await made.aclose()
        return template.body(text), bytes(caught.content)

    ours, of_the_sdk = asyncio.run(run())
    assert ours == of_the_sdk


def test_half_of_a_surrogate_pair_is_refused_as_in_a_cell() -> None:
    template = BodyTemplate(b'"', b'"')
    with pytest.raises(PromptError, match="half of a surrogate pair"):
        template.body("a\ud800")


def test_a_marker_that_does_not_stand_for_the_text_once_gives_no_template() -> None:
    assert BodyTemplate.split(b'{"a":"MARK MARK"}', "MARK") is None
    assert BodyTemplate.split(b'{"a":"nothing"}', "MARK") is None


def test_an_option_that_the_api_does_not_take_is_refused_before_anything_is_sent() -> None:
    async def run() -> None:
        async with prepared("http://127.0.0.1:1/v1", asked(stop=["x"], seed=1), api="responses"):
            pass

    with pytest.raises((UnsupportedError, OptionError)):
        asyncio.run(run())


# What comes


def test_events_are_those_of_a_cell_that_does_not_stream() -> None:
    async def run(url: str) -> tuple[list[Event], list[Event]]:
        async with prepared(url, by_the_sdk=True) as slower, prepared(url) as found:
            return await said(slower), await said(found)

    with ScriptedServer(document(HELLO, headers={"x-request-id": "r1"})) as server:
        slower, events = asyncio.run(run(server.url))
    assert timeless(events) == timeless(slower)
    assert [type(event).__name__ for event in events[:2]] == ["Attempt", "Opened"]
    assert texts(events) == "Hello"


def test_many_rows_share_a_few_connections() -> None:
    async def run(url: str) -> list[str]:
        free = asyncio.Semaphore(8)
        async with prepared(url) as found:

            async def one(number: int) -> str:
                async with free:
                    return texts(await said(found, f"row {number}"))

            return await asyncio.gather(*map(one, range(100)))

    def echo(received: Received) -> Answer:
        text = received.json["messages"][0]["content"]
        choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
        return document({**HELLO, "choices": [choice]})

    with ScriptedServer(echo) as server:
        answers = asyncio.run(run(server.url))
    assert answers == [f"row {number}" for number in range(100)]
    assert server.connections <= 8


def test_a_server_that_streams_all_the_same_is_read() -> None:
    async def run(url: str) -> list[Event]:
        async with prepared(url) as found:
            return await said(found)

    with ScriptedServer(stream(chunk("Hel"), 0.05, chunk("lo"), chunk(finish="stop"))) as server:
        events = asyncio.run(run(server.url))
    assert texts(events) == "Hello"
    assert isinstance(events[-1], Finished)


def test_a_document_in_pieces_is_read() -> None:
    async def run(url: str) -> list[Event]:
        async with prepared(url) as found:
            return await said(found)

    data = document(HELLO)
    (whole,) = data.steps
    assert isinstance(whole, bytes)
    slow = Answer([whole[:9], 0.05, whole[9:50], 0.05, whole[50:]], headers=data.headers)
    with ScriptedServer(slow) as server:
        assert texts(asyncio.run(run(server.url))) == "Hello"


def test_what_came_of_an_answer_that_broke_off_is_kept() -> None:
    async def run(url: str) -> list[Event]:
        events: list[Event] = []
        async with prepared(url) as found:
            with pytest.raises(IncompleteAnswerError):
                await found.exchange(await found.body(), asked(), events)
        return events

    (whole,) = document(HELLO).steps
    assert isinstance(whole, bytes)
    cut = Answer([whole.partition(b'lo"')[0], RESET], headers={"content-type": "application/json"})
    with ScriptedServer(cut) as server:
        assert texts(asyncio.run(run(server.url))) == "Hel"


def test_cancelling_closes_the_connection_at_the_server() -> None:
    async def run(server: ScriptedServer) -> None:
        async with prepared(server.url) as found:
            row = asyncio.ensure_future(said(found))
            while not server.requests:  # noqa: ASYNC110 - the server is on another thread
                await asyncio.sleep(0.01)
            row.cancel()
            with pytest.raises(asyncio.CancelledError):
                await row
            assert await asyncio.to_thread(server.requests[0].left.wait, 5)

    for held in (Answer([HANG], raw=True), Answer([b'{"choices": [', HANG])):
        with ScriptedServer(held) as server:
            asyncio.run(run(server))


def test_the_wait_and_each_attempt_are_heard() -> None:
    heard: list[Any] = []

    async def wait(seconds: float) -> None:
        heard.append(seconds)

    async def run(url: str, *, by_the_sdk: bool) -> list[Event]:
        async with prepared(url, by_the_sdk=by_the_sdk) as found:
            return await said(found, on_attempt=lambda attempt: heard.append(attempt.status), wait=wait)

    for by_the_sdk in (False, True):
        heard.clear()
        busy = document({"error": {"message": "busy"}}, 429, {"retry-after": "7"})
        with ScriptedServer(busy, document(HELLO)) as server:
            assert statuses(asyncio.run(run(server.url, by_the_sdk=by_the_sdk))) == [(429, False), (200, True)]
        assert heard == [429, pytest.approx(7.0, abs=5), 200]  # less what the turn took


def test_silence_ends_by_the_timeout_of_the_call() -> None:
    async def run(url: str) -> list[Event]:
        made = CompatibleProvider(name="rows", base_url=url)
        found = await made.prepare_request(asked(), made.capabilities("m"), timeout=0.3, max_retries=0)
        assert found is not None
        events: list[Event] = []
        async with found:
            with pytest.raises(TimedOutError):
                await found.exchange(await found.body(), asked(), events)
        await made.aclose()
        return events

    with ScriptedServer(Answer([HANG], raw=True)) as server:
        assert statuses(asyncio.run(run(server.url))) == [(None, True)]
    with ScriptedServer(Answer([b'{"choices": [', HANG])) as server:
        assert statuses(asyncio.run(run(server.url))) == [(200, True)]


def test_a_redirect_at_home_is_followed_and_no_other_one() -> None:
    async def run(url: str) -> list[Event]:
        async with prepared(url, default_query={"v": "1"}) as found:
            return await said(found)

    moved = Answer(status=308, headers={"location": "/other/chat/completions?x=2"})
    with ScriptedServer(moved, document(HELLO)) as server:
        assert texts(asyncio.run(run(server.url))) == "Hello"
        first, second = server.requests
        assert second.path.startswith("/other/chat/completions?")
        assert {"v=1", "x=2"} == set(second.path.partition("?")[2].split("&"))
        assert second.body == first.body
    with ScriptedServer(Answer(status=308, headers={"location": "http://elsewhere.invalid/v1"})) as server:
        with pytest.raises(EndpointNotFoundError, match="redirects from"):
            asyncio.run(run(server.url))
        assert len(server.requests) == 1
    with ScriptedServer(Answer(status=308, headers={"location": "/v1/chat/completions"})) as server:
        with pytest.raises(EndpointNotFoundError, match="in a circle"):
            asyncio.run(run(server.url))
        assert len(server.requests) == 6


# Keys

keys: Iterator[str] = iter(())


def next_key() -> str:
    return next(keys)


@pytest.mark.parametrize("by_the_sdk", [False, True])
def test_a_function_is_asked_for_the_key_of_each_request(by_the_sdk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keys_of_rows", sys.modules[__name__])
    monkeypatch.setattr(
        sys.modules[__name__], "keys", iter(["sk-first-0123456", "sk-second-012345", "sk-third-0123456"])
    )

    async def run(url: str) -> list[Event]:
        async with prepared(url, by_the_sdk=by_the_sdk, api_key_env="keys_of_rows:next_key") as found:
            await said(found)
            return await said(found)

    echo = document(HELLO, headers={"x-echo": "your key is sk-second-012345"})
    with ScriptedServer(document(HELLO), echo) as server:
        events = asyncio.run(run(server.url))
    sent = [received.headers["authorization"] for received in server.requests]
    assert sent == ["Bearer sk-first-0123456", "Bearer sk-second-012345"]
    assert "sk-second-012345" not in repr(events)


@pytest.mark.parametrize("version", ["", "2024-10-21"])
@pytest.mark.parametrize("by_the_sdk", [False, True])
def test_a_token_of_entra_is_asked_for_each_request(by_the_sdk: bool, version: str) -> None:
    tokens = iter(["token-first-0123456", "token-second-012345"])

    async def run(url: str) -> None:
        made = AzureProvider(
            name="rows", azure_endpoint=url, api_version=version, azure_ad_token_provider=lambda: next(tokens)
        )
        async with prepared(url, provider=made, by_the_sdk=by_the_sdk) as found:
            await said(found)
            await said(found)

    with ScriptedServer(document(HELLO)) as server:
        asyncio.run(run(server.host))
    sent = [(received.headers["authorization"], "api-key" in received.headers) for received in server.requests]
    assert sent == [("Bearer token-first-0123456", False), ("Bearer token-second-012345", False)]
    path = server.requests[0].path
    assert path == (
        f"/openai/deployments/m/chat/completions?api-version={version}" if version else "/openai/v1/chat/completions"
    )


@pytest.mark.parametrize("by_the_sdk", [False, True])
def test_a_key_that_was_changed_is_read_once_more_after_a_401(
    by_the_sdk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(received: Received) -> Answer:
        if received.headers["authorization"] == "Bearer sk-good-0123456789":
            return document(HELLO)
        return document({"error": {"message": f"bad {received.headers['authorization']}"}}, 401)

    async def run(url: str) -> list[list[Event]]:
        async with prepared(url, by_the_sdk=by_the_sdk) as found:
            monkeypatch.setenv("ROWS_KEY", "sk-good-0123456789")
            return [await said(found), *await asyncio.gather(said(found), said(found))]

    with ScriptedServer(answer) as server:
        first, *others = asyncio.run(run(server.url))
    assert statuses(first) == [(401, False), (200, True)]
    if not by_the_sdk:  # what was renewed holds for all rows from there on
        assert [statuses(each) for each in others] == [[(200, True)], [(200, True)]]
    assert SECRET not in repr(first)


def test_a_key_that_stays_wrong_is_told_in_the_words_of_a_cell() -> None:
    async def run(url: str, *, by_the_sdk: bool) -> str:
        async with prepared(url, by_the_sdk=by_the_sdk) as found:
            with pytest.raises(AuthenticationError) as caught:
                await said(found)
            assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
            return str(caught.value)

    with ScriptedServer(document({"error": {"message": f"no {SECRET}"}}, 401)) as server:
        assert asyncio.run(run(server.url, by_the_sdk=True)) == asyncio.run(run(server.url, by_the_sdk=False))


def test_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def run(url: str) -> None:
        async with prepared(url, default_query={"sub": "query-secret-1"}) as found:
            await said(found)

    echo = {"x-echo": SECRET, "set-cookie": "a=b"}
    with caplog.at_level(logging.DEBUG), ScriptedServer(document(HELLO, headers=echo)) as server:
        asyncio.run(run(server.url))
    assert "sub=query-secret-1" in server.requests[0].path
    assert SECRET not in caplog.text
    assert "query-secret-1" not in caplog.text


@pytest.mark.parametrize("by_the_sdk", [False, True])
def test_the_environments_headers_do_not_come_back(by_the_sdk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer of-the-environment\nX-Other: of-it-too")
    monkeypatch.setitem(sys.modules, "keys_of_rows", sys.modules[__name__])
    monkeypatch.setattr(sys.modules[__name__], "keys", iter(["sk-first-0123456", "sk-second-012345"]))

    async def run(url: str) -> None:
        async with prepared(url, by_the_sdk=by_the_sdk, api_key_env="keys_of_rows:next_key") as found:
            await said(found)

    with ScriptedServer(document(HELLO)) as server:
        asyncio.run(run(server.url))
    assert server.requests[0].headers["authorization"] == "Bearer sk-first-0123456"
    assert "of-" not in "".join(server.requests[0].header_lines)


@pytest.mark.parametrize("way", ["aiohttp", "its HTTP library"])
def test_credentials_in_the_url_are_sent_as_the_sdk_sends_them(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_aiohttp", lambda: way == "aiohttp")

    async def run(url: str) -> list[Event]:
        made = CompatibleProvider(name="rows", base_url=url, max_retries=0)
        found = await made.prepare_request(asked(), made.capabilities("m"))
        assert found is not None
        async with found:
            return await said(found)

    moved = Answer(status=307, headers={"location": "/v1/chat/completions?again=1"})
    with ScriptedServer(moved, document(HELLO, headers={"x-echo": "it is pass-word-1"})) as server:
        events = asyncio.run(run(server.url.replace("://", "://me:pass-word-1@")))
    assert [received.headers["authorization"] for received in server.requests] == ["Basic bWU6cGFzcy13b3JkLTE="] * 2
    assert "pass-word-1" not in repr(events)


# TLS and size


@pytest.mark.parametrize("way", ["aiohttp", "its HTTP library"])
def test_a_certificate_is_trusted_as_the_sdk_trusts_it(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "has_aiohttp", lambda: way == "aiohttp")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    async def run(url: str) -> list[list[Event]]:
        made = CompatibleProvider(name="rows", base_url=url, max_retries=0)
        found = await made.prepare_request(asked(), made.capabilities("m"))
        assert found is not None
        async with found:
            events = [await said(found), await said(found)]
        await made.aclose()
        return events

    with ScriptedServer(document(HELLO), tls=context) as server:
        assert [texts(events) for events in asyncio.run(run(server.url))] == ["Hello", "Hello"]
    assert server.connections == 1


@pytest.mark.parametrize("way", ["aiohttp", "its HTTP library"])
def test_a_body_and_an_answer_of_megabytes(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_aiohttp", lambda: way == "aiohttp")

    async def run(url: str) -> list[Event]:
        made = CompatibleProvider(name="rows", base_url=url)
        found = await made.prepare_request(asked(), made.capabilities("m"))
        assert found is not None
        async with found:
            return await said(found, "x" * 3_000_000)

    large = {**HELLO, "choices": [{"index": 0, "message": {"content": "y" * 3_000_000}, "finish_reason": "stop"}]}
    busy = document({"error": {"message": "busy"}}, 503)
    with ScriptedServer(busy, document(large)) as server:
        assert texts(asyncio.run(run(server.url))) == "y" * 3_000_000
    assert len(server.requests[1].json["messages"][0]["content"]) == 3_000_000


# Which client sends


def plain_client(**known: Any) -> Any:
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url="http://127.0.0.1:1/v1", api_key="none", **known)


def of_another_class() -> Any:
    from openai import AsyncOpenAI

    class Signing(AsyncOpenAI):
        pass

    return Signing(base_url="http://127.0.0.1:1/v1", api_key="none")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"http_client": "aiohttp"}, ""),
        ({"settings": {"proxy": None}}, ""),
        ({"ours": False}, "the client is a ready one"),
        ({"http_client": "my:client"}, "http_client is my:client"),
        ({"settings": {"verify": False, "cert": "a.pem"}}, "http_client_kwargs sets cert, verify"),
        ({"proxy": "http://proxy:1"}, "it goes through the proxy http://proxy:1"),
        ({"client": of_another_class}, "the client is a Signing that sends in its own way"),
    ],
)
def test_what_sends(changed: dict[str, Any], why: str) -> None:
    made: Callable[[], Any] = changed.pop("client", plain_client)
    known: dict[str, Any] = {"ours": True, "http_client": "", "settings": {}, "proxy": "", **changed}
    assert why_the_sdk_sends(made(), **known) == why


def test_where_aiohttp_is_missing_the_http_library_of_the_sdk_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(url: str) -> tuple[str, list[str], list[Event]]:
        async with prepared(url) as found:
            monkeypatch.setattr(module, "has_aiohttp", lambda: False)
            answers = await asyncio.gather(*[said(found, f"row {number}") for number in range(4)])
            more = await said(found)
            assert isinstance(found._pool, TransportPool)
            return found.slower_because, [texts(events) for events in answers], more

    with ScriptedServer(document(HELLO)) as server:
        why, answers, more = asyncio.run(run(server.url))
    assert why == 'aiohttp is not installed (pip install "llm_magic[many]")'
    assert answers == ["Hello"] * 4
    assert statuses(more) == [(200, True)]
    assert server.connections == 4
    assert server.requests[-1].headers["authorization"] == f"Bearer {SECRET}"


def test_a_ready_client_and_one_behind_a_proxy_send_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    from openai import OpenAI

    async def run(made: Provider) -> tuple[str, str]:
        found = await made.prepare_request(asked(), made.capabilities("m"))
        assert found is not None
        async with found:
            events: list[Event] = []
            await found.exchange(await found.body(), asked(), events)
        await made.aclose()
        return found.why_the_sdk_sends, texts(events)

    with ScriptedServer(document(HELLO)) as server:
        ready = ExistingClientProvider(OpenAI(base_url=server.url, api_key="none"), name="ready")
        assert asyncio.run(run(ready)) == ("the client is a ready one", "Hello")
        ready.client().close()
        monkeypatch.setenv("http_proxy", server.host)
        monkeypatch.setenv("no_proxy", "")
        behind = CompatibleProvider(name="behind", base_url="http://far.invalid/v1")
        why, text = asyncio.run(run(behind))
        assert (why, text) == (f"it goes through the proxy {server.host}", "Hello")


def test_an_own_backend_prepares_nothing() -> None:
    class Echo(Provider):
        kind = "echo"

        async def exchange(self, *_: Any, **__: Any) -> AsyncGenerator[list[Event]]:
            yield [TextDelta("Hi")]

    made = Echo(name="echo")
    assert asyncio.run(made.prepare_request(asked(), made.capabilities("m"))) is None


# Faults

OF_THE_PARSER = {
    "HTTP/0.9",
    "the greeting of SSH",
    "the greeting of a mail server",
    "more than the length",
}
"""Where the parsers of HTTP differ in what they take for its beginning: a malformed answer is told at once."""

WHOLE = [fault for fault in FAULTS if "whole" in fault.modes or fault.warm or fault.tls]


@pytest.fixture(scope="module")
def certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize("way", ["aiohttp", "its HTTP library"])
@pytest.mark.parametrize("fault", WHOLE, ids=lambda fault: fault.name)
def test_a_fault_is_told_as_over_the_sdk(
    fault: Fault, way: str, certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "LINGER", 0.2)
    for each in (connection, stream_module):
        monkeypatch.setattr(each, "LARGEST", 1 << 22)
    spoken = next(api for api in APIS if api.name in fault.apis)

    async def both(seconds: float) -> list[Any]:
        return [await outcome(fault, spoken, certificate, seconds, way) for way in ("the SDK", way)]

    monkeypatch.setattr(module, "has_aiohttp", lambda: way == "aiohttp")
    slower, faster = asyncio.run(both(0.5))
    if slower != faster:  # once more with time: the machine may be busy
        slower, faster = asyncio.run(both(2.5))
    if fault.name in OF_THE_PARSER and way == "aiohttp":
        assert faster[0] == "ProtocolError"
    else:
        assert faster == slower


async def outcome(
    fault: Fault, spoken: Any, certificate: ssl.SSLContext, seconds: float, way: str
) -> tuple[str, str, str, int]:
    """Return the error and its words, what came, and the requests."""
    tls = certificate if fault.tls in ("server", "plain client") else None
    with ScriptedServer(*fault.script(spoken), tls=tls) as server:
        url = server.url.replace("https:", "http:") if fault.tls == "plain client" else server.url
        url = url.replace("http:", "https:") if fault.tls == "client" else url
        made = CompatibleProvider(
            name="rows", base_url=url, max_retries=1, timeout=seconds, api=spoken.name, api_key_env="ROWS_KEY"
        )
        retries = fault.options.get("retries")
        found = await made.prepare_request(asked(), made.capabilities("m"), max_retries=retries)
        assert found is not None
        found.why_the_sdk_sends = "a test wants it" if way == "the SDK" else ""
        events: list[Event] = []
        error: LLMError | None = None
        async with found:
            if fault.warm:
                await found.exchange(await found.body(), asked(), [])
            try:
                await asyncio.wait_for(found.exchange(await found.body(), asked(), events), 30)
            except LLMError as failed:
                error = failed
        await made.aclose()
        shown = "" if error is None else "".join(traceback.format_exception(error)) + repr(vars(error))
        assert SECRET not in shown + repr(events)
        plain = str(error).replace(str(server.port), "PORT").replace(f"{seconds:g} s", "N s")
        plain = re.sub(r"(malformed HTTP answer: ).*", r"\1", plain)  # each parser of HTTP has its own words
        came = re.sub(r"reason=('[^']*'|\"[^\"]*\")|retry_after=[0-9.]+", "", repr(timeless(events)))
        came = came.replace(str(server.port), "PORT")
        return type(error).__name__, plain, came, len(server.requests)


# Real servers


@pytest.mark.parametrize("name", ["vllm", "llamacpp", "litellm"])
def test_a_real_server_answers_many(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    url, key = request.getfixturevalue(f"{name}_url"), ""
    if name == "litellm":
        monkeypatch.setenv("PROXY_KEY", request.getfixturevalue("litellm_key"))
        key = "PROXY_KEY"
    model = "gpt-4o" if name == "litellm" else "smollm2"
    row = asked(f"Say {MARK}.", model, max_tokens=16, temperature=0.0)

    async def run() -> list[list[Event]]:
        async with prepared(url, row, api_key_env=key, timeout=120.0) as found:
            return await asyncio.gather(*[said(found, word, row) for word in ("one", "two", "three")])

    for events in asyncio.run(run()):
        assert statuses(events) == [(200, True)]
        assert texts(events)
        opened = next(event for event in events if isinstance(event, Opened))
        assert opened.headers["content-type"].startswith("application/json")


def test_the_classic_azure_route_of_the_proxy(
    litellm_url: str, litellm_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", litellm_key)
    row = asked(model="gpt-4o", max_tokens=16)

    async def run() -> list[Event]:
        made = AzureProvider(
            name="azure", azure_endpoint=litellm_url.removesuffix("/v1"), api_version="2024-10-21", timeout=120.0
        )
        async with prepared("", row, provider=made) as found:
            return await said(found, "Say hello.", row)

    events = asyncio.run(run())
    assert statuses(events) == [(200, True)]
    assert texts(events)
    assert litellm_key not in repr(events)
