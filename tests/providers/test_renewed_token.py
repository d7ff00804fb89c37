"""A token that expired gives 401 once: another one is asked for, and the request is sent once more."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from kernels import Kernel
from servers import Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import AuthenticationError, ConfigurationError, LLMError
from llm_magic.events import Attempt, Done, Event, TextDelta
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

VERSION = "2024-10-21"
EXPIRED = {
    "error": {"code": "401", "message": "Unauthorized. Access token is missing, invalid, or have expired."},
}


def token_of(request: Received) -> str:
    sent: str = request.headers.get("api-key") or request.headers.get("authorization", "")
    return sent.removeprefix("Bearer ")


def only(good: str) -> Callable[[Received], Answer]:
    """Return a server's answers to one good token; each other one is refused with 401, and repeated."""

    def answer(request: Received) -> Answer:
        if token_of(request) != good:
            return document({"error": {**EXPIRED["error"], "param": token_of(request)}}, status=401)
        if request.path.partition("?")[0].endswith("/models"):
            return document({"data": [{"id": "listed"}]})
        body = request.json
        if "input" in body and "embeddings" in request.path:
            return document({"data": [{"index": 0, "embedding": [1.0, 2.0]}], "model": "m"})
        if body.get("stream"):
            return stream(chunk("Hello"), chunk(finish="stop"))
        message = {"role": "assistant", "content": "Hello"}
        return document({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "model": "m"})

    return answer


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


class Tokens:
    """A module of the user's that gives the tokens `token-number-1`, `token-number-2`, … one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        module = types.ModuleType("our_tokens")
        module.plain, module.asynchronous = self.plain, self.asynchronous  # type: ignore[attr-defined] # made here
        monkeypatch.setitem(sys.modules, "our_tokens", module)

    def plain(self) -> str:
        self.asked += 1
        return f"token-number-{self.asked}"

    async def asynchronous(self) -> str:
        await asyncio.sleep(0)
        return self.plain()


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Tokens:
    return Tokens(monkeypatch)


WAYS = {
    "v1": {"class": "azure", "azure_ad_token_provider": "our_tokens:FUNCTION"},
    "classic": {"class": "azure", "azure_ad_token_provider": "our_tokens:FUNCTION", "api_version": VERSION},
    "v1 key": {"class": "azure", "api_key_env": "our_tokens:FUNCTION"},
    "classic key": {"class": "azure", "api_key_env": "our_tokens:FUNCTION", "api_version": VERSION},
    "compatible": {"class": "compatible", "api_key_env": "our_tokens:FUNCTION"},
    "openai": {"class": "openai", "api_key_env": "our_tokens:FUNCTION"},
}


def add(session: Session, server: ScriptedServer, settings: dict[str, str], function: str = "plain") -> LLM:
    values: dict[str, Any] = {name: value.replace("FUNCTION", function) for name, value in settings.items()}
    kind = values.pop("class")
    place = {"azure_endpoint": server.host} if kind == "azure" else {"base_url": server.url}
    session.registry.add("s", kind, **place, max_retries=0, **values)
    return LLM("s:m")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("function", ["plain", "asynchronous"])
@pytest.mark.parametrize("no_stream", [False, True])
def test_an_expired_token_is_renewed_once(
    session: Session, tokens: Tokens, way: str, function: str, no_stream: bool
) -> None:
    with ScriptedServer(only("token-number-2")) as server:
        response = add(session, server, WAYS[way], function).ask("Hi", no_stream=no_stream)
    assert response.text == "Hello"
    assert [token_of(request) for request in server.requests] == ["token-number-1", "token-number-2"]
    assert server.requests[0].body == server.requests[1].body
    first, second = response.attempts
    assert (first.status, first.final, second.status, second.final) == (401, False, 200, True)
    assert "Access token is missing" in first.reason
    (row,) = [row for row in session.ledger.rows() if row.answers]
    assert (row.requests, row.failed) == (2, 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("retries", [0, 3])
def test_a_second_refusal_is_the_error(session: Session, tokens: Tokens, way: str, retries: int) -> None:
    with ScriptedServer(only("another")) as server, pytest.raises(AuthenticationError) as caught:
        add(session, server, WAYS[way]).ask("Hi", retries=retries)
    assert [token_of(request) for request in server.requests] == ["token-number-1", "token-number-2"]
    assert caught.value.response is not None
    assert [(each.status, each.final) for each in caught.value.response.attempts] == [(401, False), (401, True)]
    assert "token-number" not in str(caught.value) + repr(caught.value.response) + repr(vars(caught.value))


@pytest.mark.parametrize("way", ["v1", "classic", "classic key", "compatible"])
def test_embeddings_and_lists_of_models(session: Session, tokens: Tokens, way: str) -> None:
    with ScriptedServer(only("token-number-2")) as server:
        assert list(add(session, server, WAYS[way]).embed(["a"])) == [[1.0, 2.0]]
        assert [token_of(request) for request in server.requests] == ["token-number-1", "token-number-2"]
        server.script[:] = [only("token-number-4")]
        listed = session.loop.run(session.registry.get("s").list_models(refresh=True, patience=5))
        assert [card.id for card in listed] == ["listed"]
        assert [token_of(request) for request in server.requests[2:]] == ["token-number-3", "token-number-4"]


def test_a_stream_tells_of_it(session: Session, tokens: Tokens) -> None:
    async def collect() -> list[Event]:
        return [event async for event in add(session, server, WAYS["v1"]).stream("Hi")]

    with ScriptedServer(only("token-number-2")) as server:
        found = asyncio.run(collect())
    made = [(event.status, event.final) for event in found if isinstance(event, Attempt)]
    assert made == [(401, False), (200, True)]
    assert TextDelta("Hello") in found
    assert isinstance(found[-1], Done)


@pytest.mark.parametrize("version", ["", VERSION])
@pytest.mark.parametrize("trait", ["azure_ad_token_env", "api_key_env"])
def test_a_variable_is_read_again_and_used_where_it_has_changed(
    session: Session, monkeypatch: pytest.MonkeyPatch, version: str, trait: str
) -> None:
    monkeypatch.setenv("ROTATED", "rotated-token-1")
    accepts = only("rotated-token-2")

    def rotate(request: Received) -> Answer:
        os.environ["ROTATED"] = "rotated-token-2"  # by whatever keeps it fresh, while the first request is under way
        return accepts(request)

    with ScriptedServer(rotate) as server:
        llm = add(session, server, {"class": "azure", trait: "ROTATED", "api_version": version})
        response = llm.ask("Hi")
    assert response.text == "Hello"
    assert [token_of(request) for request in server.requests] == ["rotated-token-1", "rotated-token-2"]


def test_a_new_token_of_a_variable_is_no_more_shown_than_the_first(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ROTATED", "rotated-token-1")
    caplog.set_level(logging.DEBUG)

    def rotate(request: Received) -> Answer:
        os.environ["ROTATED"] = "rotated-token-2"
        return document({"error": {"message": f"wrong: {token_of(request)}"}}, status=401)

    with ScriptedServer(rotate) as server, pytest.raises(AuthenticationError) as caught:
        add(session, server, {"class": "azure", "azure_ad_token_env": "ROTATED"}).ask("Hi")
    assert len(server.requests) == 2
    shown = str(caught.value) + repr(vars(caught.value)) + repr(caught.value.response) + caplog.text
    assert "rotated-token" not in shown


@pytest.mark.parametrize(
    "settings",
    [
        {"class": "azure", "azure_ad_token_env": "STATIC"},
        {"class": "azure", "azure_ad_token_env": "STATIC", "api_version": VERSION},
        {"class": "azure", "api_key_env": "STATIC"},
        {"class": "compatible", "api_key_env": "STATIC"},
        {"class": "compatible"},
    ],
)
def test_a_key_that_stays_the_same_is_sent_once(
    session: Session, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    monkeypatch.setenv("STATIC", "static-key")
    with ScriptedServer(only("another")) as server, pytest.raises(AuthenticationError) as caught:
        add(session, server, settings).ask("Hi")
    assert len(server.requests) == 1
    assert [(each.status, each.final) for each in caught.value.response.attempts] == [(401, True)]


def test_a_keyring_is_asked_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = types.ModuleType("keyring")
    keyring.get_password = lambda *_: "kept-in-a-ring"  # type: ignore[attr-defined] # made here
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    with ScriptedServer(only("another")) as server, pytest.raises(AuthenticationError):
        add(session, server, {"class": "compatible", "api_key_env": "keyring:service/name"}).ask("Hi")
    assert [token_of(request) for request in server.requests] == ["kept-in-a-ring"]


def test_it_counts_as_no_retry_and_happens_once_a_request(session: Session, tokens: Tokens) -> None:
    """401, then 503, then 401 again: the token is renewed at the first one, the failure is retried as ever."""
    script = [
        document(EXPIRED, status=401),
        document({"error": {"message": "busy"}}, status=503, headers={"retry-after": "0.01"}),
        document(EXPIRED, status=401),
    ]
    with ScriptedServer(*script) as server, pytest.raises(AuthenticationError) as caught:
        add(session, server, WAYS["v1"]).ask("Hi", retries=1)
    assert [each.status for each in caught.value.response.attempts] == [401, 503, 401]
    assert len(server.requests) == 3


@pytest.mark.parametrize("version", ["", VERSION])
def test_what_the_provider_says_at_the_second_time_is_said(session: Session, version: str) -> None:
    count = itertools.count()

    def fails() -> str:
        if next(count):
            raise RuntimeError("az login first")
        return "token-number-1"

    settings = {"azure_ad_token_provider": fails, "api_version": version}
    with ScriptedServer(only("another")) as server:
        session.registry.add("s", "azure", azure_endpoint=server.host, max_retries=0, **settings)
        with pytest.raises(LLMError, match="az login first") as caught:
            LLM("s:m").ask("Hi")
    assert len(server.requests) == 1
    assert caught.value.response is not None
    assert [each.status for each in caught.value.response.attempts] == [401]


@pytest.mark.parametrize("version", ["", VERSION])
def test_a_variable_that_is_gone_is_said(session: Session, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("ROTATED", "rotated-token-1")

    def remove(_: Received) -> Answer:
        del os.environ["ROTATED"]
        return document(EXPIRED, status=401)

    settings = {"class": "azure", "azure_ad_token_env": "ROTATED", "api_version": version}
    with ScriptedServer(remove) as server, pytest.raises(ConfigurationError, match="ROTATED is not set") as caught:
        add(session, server, settings).ask("Hi")
    assert [(each.status, each.final) for each in caught.value.response.attempts] == [(401, True)]


def test_many_requests_at_once_are_renewed_each(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROTATED", "rotated-token-1")
    accepts = only("rotated-token-2")

    def rotate(request: Received) -> Answer:
        os.environ["ROTATED"] = "rotated-token-2"
        return accepts(request)

    async def ask() -> list[str]:
        llm = add(session, server, {"class": "azure", "azure_ad_token_env": "ROTATED"})
        return [response.text for response in await asyncio.gather(*(llm.aask("Hi") for _ in range(10)))]

    with ScriptedServer(rotate) as server:
        assert asyncio.run(ask()) == ["Hello"] * 10
    assert {token_of(request) for request in server.requests[10:]} <= {"rotated-token-2"}


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("azure", [False, True])
def test_a_ready_client_that_asks_a_function(session: Session, tokens: Tokens, blocking: bool, azure: bool) -> None:
    given: Any = tokens.plain if blocking else tokens.asynchronous
    with ScriptedServer(only("token-number-2")) as server:
        if azure:
            made: Any = openai.AzureOpenAI if blocking else openai.AsyncAzureOpenAI
            client = made(azure_endpoint=server.host, api_version=VERSION, azure_ad_token_provider=given)
        else:
            client = (openai.OpenAI if blocking else openai.AsyncOpenAI)(base_url=server.url, api_key=given)
        session.registry.register("ready", client=client)
        assert LLM("ready:m").ask("Hi", retries=0).text == "Hello"
        assert [token_of(request) for request in server.requests] == ["token-number-1", "token-number-2"]
        client.close() if blocking else session.loop.run(client.close())


def test_a_ready_client_with_a_key_is_asked_once(session: Session) -> None:
    with ScriptedServer(only("another")) as server:
        client = openai.AsyncOpenAI(base_url=server.url, api_key="static-key")
        session.registry.register("ready", client=client)
        with pytest.raises(AuthenticationError):
            LLM("ready:m").ask("Hi", retries=0)
        session.loop.run(client.close())
    assert len(server.requests) == 1


def test_a_foreign_host_is_sent_no_token_and_asked_once(session: Session, tokens: Tokens) -> None:
    with ScriptedServer(only("x")) as home, ScriptedServer(only("another")) as other:
        llm = add(session, home, WAYS["compatible"])
        with pytest.raises(AuthenticationError):
            llm.ask("Hi", base_url=other.url.replace("127.0.0.1", "localhost"))
    assert (home.requests, tokens.asked) == ([], 0)
    assert len(other.requests) == 1


MODULE = """
import sys, types
tokens = types.ModuleType("our_tokens")
tokens.count = 0
async def token():
    tokens.count += 1
    return f"token-number-{tokens.count}"
tokens.token = token
sys.modules["our_tokens"] = tokens
"""


def test_cells_of_a_notebook(kernel: Kernel) -> None:
    kernel.run("%reload_ext llm_magic").check()
    kernel.run(MODULE).check()
    with ScriptedServer(only("token-number-2")) as server:
        kernel.run(f"%config AzureProvider.azure_endpoint = {server.host!r}").check()
        kernel.run("%config AzureProvider.azure_ad_token_provider = 'our_tokens:token'").check()
        ran = kernel.run("%%llm -m azure:m --once -o x\nHi").check()
        assert kernel.value("(x, [attempt.status for attempt in _llm.attempts])") == ("Hello", [401, 200])
        assert "token-number" not in str(ran.messages)
        server.script[:] = [only("token-number-4")]
        kernel.run("%%llm_embed -m azure:m -o vectors\na").check()
        assert kernel.value("list(vectors)") == [[1.0, 2.0]]
        server.script[:] = [only("another")]
        ran = kernel.run("%%llm -m azure:m --once\nHi")
    assert ran.error_name == "AuthenticationError"
    assert "azure used the Entra token" in ran.error
    assert len(server.requests) == 6
