"""Redirects: within one origin they are followed; to another scheme, host or port nothing travels."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from asking import KEY, ask, call, client
from servers import Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic.errors import EndpointNotFoundError, LLMError, Origin
from llm_magic.providers.azure import AzureProvider
from llm_magic.providers.base import Provider
from llm_magic.providers.compatible import CompatibleProvider, ExistingClientProvider
from llm_magic.providers.vllm import VLLMProvider
from llm_magic.wire.models import list_models

HELLO = stream(chunk("Hi"), chunk(finish="stop"))
CODES = [301, 302, 303, 307, 308]


def moved(location: str, status: int = 307) -> Answer:
    return Answer([], status, {"location": location})


@pytest.fixture
def elsewhere() -> Iterator[ScriptedServer]:
    """A second server, on another port; nothing may arrive at it."""
    with ScriptedServer(HELLO) as server:
        yield server
        assert server.requests == []
        assert server.connections == 0


@pytest.mark.parametrize("status", CODES)
@pytest.mark.parametrize("stream_", [True, False])
def test_another_port_is_an_error_that_names_both(status: int, stream_: bool, elsewhere: ScriptedServer) -> None:
    with ScriptedServer(moved(f"{elsewhere.url}/chat/completions", status)) as server:
        outcome = ask(server.url, retries=3, stream=stream_)
    assert isinstance(outcome.error, EndpointNotFoundError)
    assert f"redirects from {server.url}/chat/completions to {elsewhere.url}/chat/completions." in outcome.error.message
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", CODES)
def test_a_listing_of_models_stays_too(status: int, elsewhere: ScriptedServer) -> None:
    async def run(url: str) -> None:
        made = client(url)
        with pytest.raises(EndpointNotFoundError, match="redirects from"):
            await list_models(made, Origin("there", "", url))
        await made.close()

    with ScriptedServer(moved(f"{elsewhere.url}/models", status)) as server:
        asyncio.run(run(server.url))


_MAKERS: dict[str, Callable[[str], Provider]] = {
    "compatible": lambda url: CompatibleProvider(base_url=url),
    "compatible, aiohttp": lambda url: CompatibleProvider(base_url=url, http_client="aiohttp"),
    "vllm": lambda url: VLLMProvider(base_url=url),
    "azure": lambda url: AzureProvider(azure_endpoint=url.removesuffix("/v1"), api_key_env="CANARY"),
    "azure classic": lambda url: AzureProvider(
        azure_endpoint=url.removesuffix("/v1"), api_key_env="CANARY", api_version="2024-10-21"
    ),
    "ready": lambda url: ExistingClientProvider(_following(url)),
    "ready, blocking": lambda url: ExistingClientProvider(_following(url, blocking=True)),
}


def _following(url: str, *, blocking: bool = False) -> Any:
    """Return a client whose HTTP client follows redirects by itself."""
    import openai

    if blocking:
        http: Any = openai.DefaultHttpxClient(follow_redirects=True)
        return openai.OpenAI(base_url=url, api_key=KEY, http_client=http)
    http = openai.DefaultAsyncHttpxClient(follow_redirects=True)
    return openai.AsyncOpenAI(base_url=url, api_key=KEY, http_client=http)


@pytest.mark.parametrize("status", CODES)
@pytest.mark.parametrize("kind", _MAKERS)
def test_no_provider_follows(
    kind: str, status: int, elsewhere: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", KEY)

    def away(received: Received) -> Answer:
        return moved(f"{elsewhere.host}{received.path}", status)

    async def run(provider: Provider) -> list[LLMError]:
        from llm_magic.wire.embeddings import embed

        async def asked() -> AsyncGenerator[Any]:
            request = call(provider.client()).request
            async for batch in provider.exchange(request, provider.capabilities("m"), max_retries=0):
                yield batch

        found: list[LLMError] = []
        try:
            async for _ in asked():
                pass
        except LLMError as error:
            found.append(error)
        for work in (
            lambda: provider.ask_for_models(2, 0),
            lambda: embed(provider.client(), provider.origin(), "m", ["a"], max_retries=0, secrets=provider.secrets()),
        ):
            try:
                await work()
            except LLMError as error:
                found.append(error)
        closing = provider.client().close()
        if closing is not None:
            await closing
        await provider.aclose()
        return found

    with ScriptedServer(away) as server:
        found = asyncio.run(run(_MAKERS[kind](server.url)))
    assert [type(error) for error in found] == [EndpointNotFoundError] * 3
    for error in found:
        assert f"redirects from {server.host}/" in error.message
        assert f" to {elsewhere.host}/" in error.message
        assert KEY not in str(error)


def test_https_does_not_become_http_on_the_same_host(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    monkeypatch.setenv("CANARY", "a-key-for-https")

    async def run(url: str) -> LLMError:
        provider = CompatibleProvider(base_url=url, api_key_env="CANARY", http_client_kwargs={"verify": False})
        with pytest.raises(LLMError) as caught:
            await provider.ask_for_models(2, 0)
        await provider.aclose()
        return caught.value

    with ScriptedServer(lambda _: moved(f"{server.host.replace('https', 'http')}/v1/models"), tls=context) as server:
        error = asyncio.run(run(server.url))
    assert f"redirects from {server.url}/models to http://127.0.0.1:{server.port}/v1/models." in error.message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "location",
    [
        "//127.0.0.1:{port}/v1/chat/completions",  # protocol-relative
        "http://user:pw@127.0.0.1:{own}/v1/chat/completions",  # another account at the same place
        "http://127.0.0.1:{own}@127.0.0.1:{port}/v1",  # the host is behind the @
        "http://localhost:{own}/v1/chat/completions",
        "http://[::1]:{own}/v1/chat/completions",
        "https://127.0.0.1:{own}/v1/chat/completions",
        "http://127.0.0.1:{own}0/v1",
        "http:\\\\127.0.0.1:{port}\\v1",
        "http://[::1/v1",
        "http:///v1",
        "javascript:alert(1)",
        "ftp://127.0.0.1:{own}/v1",
    ],
)
def test_what_only_looks_like_the_same_place(location: str, elsewhere: ScriptedServer) -> None:
    with ScriptedServer(lambda _: moved(location.format(port=elsewhere.port, own=server.port))) as server:
        outcome = ask(server.url)
        assert isinstance(outcome.error, LLMError), outcome
        assert server.connections == 1
    assert "pw" not in str(outcome.error)


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize(
    "location", ["/v2/chat/completions?k=1", "../../v2/chat/completions", "{host}/v2/chat/completions"]
)
def test_the_same_place_is_followed_with_everything(status: int, location: str) -> None:
    made: list[Any] = []

    def answer(received: Received) -> Answer:
        return HELLO if received.path.startswith("/v2") else moved(location.format(host=server.host), status)

    with ScriptedServer(answer) as server:
        made.append(client(server.url, default_query={"sub": "query-secret"}, default_headers={"X-T": "t"}))
        outcome = ask(server.url, made=made[0])
    assert outcome.error is None
    first, second = server.requests
    assert second.headers["authorization"] == first.headers["authorization"] == f"Bearer {KEY}"
    assert second.headers["x-t"] == "t"
    assert "sub=query-secret" in second.path
    assert second.body == first.body


def test_credentials_of_the_url_stay_with_it() -> None:
    def answer(received: Received) -> Answer:
        return HELLO if received.path.startswith("/v2") else moved(f"{server.host}/v2/chat/completions")

    with ScriptedServer(answer) as server:
        outcome = ask(server.url.replace("//", "//me:pass-word-1@"))
    assert outcome.error is None
    assert server.requests[1].headers["authorization"] == server.requests[0].headers["authorization"]


@pytest.mark.parametrize("spelled", ["{key}", "x?key={key}", "x#{key}", "{quoted}", "x?a=b&c={quoted}"])
def test_a_location_that_echoes_a_secret_does_not_show_it(spelled: str, elsewhere: ScriptedServer) -> None:
    key = 'odd&key"of <mine>/+%'
    location = f"{elsewhere.host}/" + spelled.format(key=quote(key, safe='&"'), quoted=quote(key, safe=""))
    with ScriptedServer(moved(location)) as server:
        outcome = ask(server.url, made=client(server.url, default_headers={"X-Api-Key": key}))
    assert isinstance(outcome.error, EndpointNotFoundError)
    assert "mine" not in f"{outcome.error}{outcome.attempts}{outcome.error.__cause__.response.headers}"  # type: ignore[union-attr]


_QUERY = {"sub": "query-secret-1", "api-version": "2024-10-21"}


def test_a_query_secret_is_not_shown_in_the_error(monkeypatch: pytest.MonkeyPatch, elsewhere: ScriptedServer) -> None:
    async def run(url: str) -> str:
        provider = CompatibleProvider(base_url=url, default_query=_QUERY)
        with pytest.raises(EndpointNotFoundError) as caught:
            await provider.ask_for_models(2, 0)
        await provider.aclose()
        return caught.value.message

    with ScriptedServer(lambda received: moved(f"{elsewhere.host}{received.path}")) as server:
        said = asyncio.run(run(server.url))
    assert f"{server.url}/models?sub=***&api-version=2024-10-21" in said
    assert f"{elsewhere.host}/v1/models?sub=***&api-version=2024-10-21" in said


def test_a_circle_ends() -> None:
    with ScriptedServer(lambda received: moved(f"{received.path}x")) as server:
        outcome = ask(server.url, retries=3)
    assert isinstance(outcome.error, EndpointNotFoundError)
    assert "redirects in a circle" in outcome.error.message
    assert len(server.requests) == 6


def test_the_error_of_a_redirect_keeps_the_sdks_traceback(elsewhere: ScriptedServer) -> None:
    import traceback

    with ScriptedServer(moved(f"{elsewhere.host}/{KEY}")) as server:
        outcome = ask(server.url)
    assert outcome.error is not None
    told = "".join(traceback.format_exception(outcome.error))
    assert "openai" in told
    assert "APIStatusError" in told
    assert KEY not in told
    assert KEY not in "".join(traceback.TracebackException.from_exception(outcome.error, capture_locals=True).format())


@pytest.mark.parametrize(
    "answer",
    [
        lambda key: moved(f"/v1/{key}"),
        lambda key: document({"nothing": key}),
        lambda key: document([key]),
        lambda key: document({"data": [{"id": key, "owned_by": f"me:{key}"}]}),
        lambda key: Answer([f"no list, {key}".encode()]),
        lambda key: document({"error": {"message": "x" * 390 + key}}, 400),
        lambda key: Answer([], 400, {"x-request-id": key}),
    ],
)
def test_a_key_that_was_asked_for_is_not_repeated(
    answer: Callable[[str], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    import types

    key = "asked-for-at-each-request"
    monkeypatch.setitem(sys.modules, "source_of_keys", types.SimpleNamespace(key=lambda: key))

    async def run(url: str) -> list[str]:
        provider = CompatibleProvider(base_url=url, api_key_env="source_of_keys:key")
        said = []
        for _ in range(2):
            try:
                said += [str(card) for card in await provider.ask_for_models(2, 0)]
            except LLMError as error:
                said.append(f"{error} {vars(error)} {error.__cause__!r} {vars(error.__cause__ or error)}")
        await provider.aclose()
        return said

    with ScriptedServer(answer(key)) as server:
        said = asyncio.run(run(server.url))
        assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    assert "asked-for" not in "\n".join(said)
