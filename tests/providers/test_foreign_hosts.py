"""No byte of the environment's OPENAI_* values reaches a host that they are not for, whichever class asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from asked import answer, ask
from recorder import Recorder

from llm_magic.errors import ConfigurationError
from llm_magic.providers.azure import AzureProvider
from llm_magic.providers.base import Provider
from llm_magic.providers.compatible import CompatibleProvider, ExistingClientProvider
from llm_magic.providers.openai import OpenAIProvider
from llm_magic.providers.vllm import VLLMProvider

SECRETS = {
    "OPENAI_API_KEY": "sk-openai-KEYMARK",
    "OPENAI_ADMIN_KEY": "sk-admin-ADMINMARK",
    "OPENAI_ORG_ID": "org-ORGMARK",
    "OPENAI_ORGANIZATION": "org-OTHERMARK",
    "OPENAI_PROJECT_ID": "proj-PROJMARK",
    "OPENAI_CUSTOM_HEADERS": "X-Team: TEAMMARK\nx-trace: TRACEMARK\nAuthorization: Bearer AUTHMARK\napi-key: APIMARK",
    "OPENAI_WEBHOOK_SECRET": "whsec-HOOKMARK",
}

CLASSES: dict[str, Callable[[str], Provider]] = {
    "openai": lambda root: OpenAIProvider(base_url=f"{root}/v1"),
    "openai at --base-url": lambda root: OpenAIProvider().at(f"{root}/v1"),
    "azure v1": lambda root: AzureProvider(azure_endpoint=root),
    "azure classic": lambda root: AzureProvider(azure_endpoint=root, api_version="2024-10-21"),
    "vllm": lambda root: VLLMProvider(base_url=root),
    "vllm at --base-url": lambda root: VLLMProvider().at(root),
    "compatible": lambda root: CompatibleProvider(base_url=f"{root}/v1"),
    "compatible at --base-url": lambda root: CompatibleProvider(base_url="http://elsewhere.invalid").at(f"{root}/v1"),
}


@pytest.fixture
def _all_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-OWN")


def leaked(recorder: Recorder) -> list[str]:
    marks = ["KEYMARK", "ADMINMARK", "ORGMARK", "OTHERMARK", "PROJMARK", "TEAMMARK", "TRACEMARK", "AUTHMARK", "APIMARK"]
    return [mark for mark in [*marks, "HOOKMARK"] if mark.encode() in recorder.received]


@pytest.mark.usefixtures("_all_set")
@pytest.mark.parametrize("api", ["chat", "responses", "completions"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_foreign_host_sees_none_of_them(name: str, api: Any, recorder: Recorder) -> None:
    provider = CLASSES[name](recorder.root)
    assert ask(provider, "gpt-4o", api=api).text == "Hello"
    assert leaked(recorder) == []
    assert len(recorder.requests) >= 1


@pytest.mark.usefixtures("_all_set")
@pytest.mark.parametrize("name", CLASSES)
def test_nor_in_the_other_requests(name: str, recorder: Recorder) -> None:
    from llm_magic.wire.embeddings import embed

    provider = CLASSES[name](recorder.root)

    async def work() -> None:
        await provider.list_models()
        await embed(provider.client(), provider.origin(), "m", ["text"])
        await provider.client().with_options(max_retries=0).models.list()  # a copy of the client
        await provider.aclose()

    asyncio.run(work())
    assert len(recorder.requests) == 3
    assert leaked(recorder) == []


def _sdk_reads_custom_headers() -> bool:
    """Whether this version of the SDK does: 2.20 does not."""
    return any(
        "OPENAI_CUSTOM_HEADERS" in path.read_text() for path in Path(openai.__file__).parent.rglob("_client*.py")
    )


@pytest.mark.usefixtures("_all_set")
def test_openai_itself_gets_them_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", recorder.url)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Team: TEAMMARK")
    assert ask(OpenAIProvider(), "gpt-4o").text == "Hello"
    headers = recorder.last.headers
    assert headers["authorization"] == "Bearer sk-openai-KEYMARK"
    assert headers["openai-organization"] == "org-ORGMARK"
    assert headers["openai-project"] == "proj-PROJMARK"
    assert headers.get("x-team") == ("TEAMMARK" if _sdk_reads_custom_headers() else None)


@pytest.mark.usefixtures("_all_set")
def test_a_key_named_for_a_host_is_sent_there_and_nothing_else(recorder: Recorder) -> None:
    ask(OpenAIProvider(base_url=recorder.url, api_key_env="OPENAI_API_KEY"), "gpt-4o")
    assert recorder.last.headers["authorization"] == "Bearer sk-openai-KEYMARK"
    assert leaked(recorder) == ["KEYMARK"]


@pytest.mark.usefixtures("_all_set")
@pytest.mark.parametrize("cls", [CompatibleProvider, VLLMProvider, AzureProvider])
def test_no_other_class_sends_one_even_when_told_to(cls: Any, recorder: Recorder) -> None:
    place = {"azure_endpoint": recorder.root} if cls is AzureProvider else {"base_url": recorder.url}
    for traits in (
        {"api_key_env": "OPENAI_API_KEY"},
        {"api_key_env": "env:OPENAI_API_KEY"},
        {"headers_env": {"X-Key": "OPENAI_API_KEY"}},
        {"default_headers": {"X-Org": "env:OPENAI_ORG_ID"}},
        {"default_query": {"k": "os.environ/OPENAI_API_KEY"}},
        {"organization": "env:OPENAI_ORG_ID"},
    ):
        with pytest.raises(ConfigurationError, match="OPENAI_"):
            ask(cls(**place, **traits), "m")
    assert recorder.requests == []


@pytest.mark.usefixtures("_all_set")
def test_a_url_of_one_call_takes_nothing_of_its_provider_along(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    monkeypatch.setenv("OWN", "OWNMARK")
    traits = {
        "api_key_env": "OWN",
        "organization": "org-X",
        "project": "proj-X",
        "default_headers": {"X-Account": "ACCOUNT"},
        "default_query": {"account": "ACCOUNT"},
        "headers_env": {"Helicone-Auth": "Bearer OWN"},
    }
    for provider in (
        OpenAIProvider(base_url="https://gateway.invalid/v1", **traits),
        AzureProvider(azure_endpoint="https://r.invalid", azure_ad_token_env="OWN", api_version="2024-10-21", **traits),
        VLLMProvider(base_url="https://gateway.invalid", **traits),
        CompatibleProvider(base_url="https://gateway.invalid/v1", **traits),
    ):
        ask(provider.at(recorder.url), "m")
    assert len(recorder.requests) >= 4
    for mark in (b"OWNMARK", b"org-X", b"proj-X", b"ACCOUNT", b"azure-OWN"):
        assert mark not in recorder.received


def test_the_same_host_keeps_the_key(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setenv("OWN", "own-key")
    provider = CompatibleProvider(base_url=f"{recorder.root}/one/v1", api_key_env="OWN")
    ask(provider.at(recorder.url), "m")
    assert recorder.last.headers["authorization"] == "Bearer own-key"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{recorder.root}/one/v1")
    ask(OpenAIProvider().at(recorder.url), "m")
    assert recorder.last.headers["authorization"] == "Bearer sk-own"


def test_a_registered_client_leaves_its_key_behind(recorder: Recorder) -> None:
    client = openai.AsyncOpenAI(api_key="READYMARK", base_url="http://elsewhere.invalid/v1", organization="org-READY")
    ask(ExistingClientProvider(client, name="mine").at(recorder.url), "m")
    assert b"READY" not in recorder.received
    asyncio.run(client.close())


@pytest.mark.usefixtures("_all_set")
def test_a_refused_key_is_explained(recorder: Recorder) -> None:
    assert "OPENAI_API_KEY is not sent to 127.0.0.1" in OpenAIProvider(base_url=recorder.url).key_hint()
    assert "No key goes with --base-url" in OpenAIProvider().at(recorder.url).key_hint()
    assert "api_key_env" in CompatibleProvider(base_url=recorder.url).key_hint()


@pytest.mark.usefixtures("_all_set")
def test_a_redirect_to_another_host_takes_nothing_along(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    with Recorder() as home:
        home.fixed = (307, "text/plain", b"")
        home.headers = {"location": recorder.url.replace("127.0.0.1", "localhost") + "/chat/completions"}
        monkeypatch.setenv("OPENAI_BASE_URL", home.url)
        with pytest.raises(Exception, match="redirect"):
            asyncio.run(_closing(OpenAIProvider()))
    assert recorder.requests == []


async def _closing(provider: Provider) -> None:
    try:
        await answer(provider, "gpt-4o", max_retries=0)
    finally:
        await provider.aclose()
