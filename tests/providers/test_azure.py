"""Azure OpenAI: addresses, versions, deployments and credentials, as a server sees them."""

from __future__ import annotations

import asyncio
import sys
import types
from typing import Any

import pytest
from asked import answer, ask
from recorder import Recorder

from llm_magic.errors import AuthenticationError, ConfigurationError, ContentFilteredError, LLMError
from llm_magic.providers.azure import AzureProvider

VERSION = "2024-10-21"


@pytest.fixture(autouse=True)
def _own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "standard-key")


def test_v1_is_openai_at_another_address(recorder: Recorder) -> None:
    ask(AzureProvider(azure_endpoint=recorder.root + "/"), "gpt-4o")
    assert recorder.last.target == "/openai/v1/chat/completions"
    assert recorder.last.headers["authorization"] == "Bearer standard-key"
    assert recorder.last.json["model"] == "gpt-4o"
    assert "api-key" not in recorder.last.headers


def test_the_classic_api_names_the_deployment_in_the_path(recorder: Recorder) -> None:
    ask(AzureProvider(azure_endpoint=recorder.root, api_version=VERSION), "gpt-4o")
    assert recorder.last.target == f"/openai/deployments/gpt-4o/chat/completions?api-version={VERSION}"
    assert recorder.last.headers["api-key"] == "standard-key"
    assert "authorization" not in recorder.last.headers


@pytest.mark.parametrize(
    ("api", "path"),
    [("completions", "/openai/deployments/d/completions"), ("responses", "/openai/responses")],
)
def test_the_other_apis_of_the_classic_one(api: Any, path: str, recorder: Recorder) -> None:
    ask(AzureProvider(azure_endpoint=recorder.root, api_version=VERSION), "d", api=api)
    assert recorder.last.target == f"{path}?api-version={VERSION}"


@pytest.mark.parametrize(
    ("endpoint", "version", "path"),
    [
        ("{root}/openai/v1", "", "/openai/v1/chat/completions"),
        ("{root}/openai/v1/", VERSION, "/openai/v1/chat/completions"),
        ("{root}", "v1", "/openai/v1/chat/completions"),
        ("{root}/openai", VERSION, f"/openai/deployments/d/chat/completions?api-version={VERSION}"),
        (
            "{root}/openai/deployments/x/chat/completions?api-version=2023-05-15",
            VERSION,
            f"/openai/deployments/d/chat/completions?api-version={VERSION}",
        ),
        ("{root}/gateway", VERSION, f"/gateway/openai/deployments/d/chat/completions?api-version={VERSION}"),
    ],
)
def test_endpoints_as_people_copy_them(endpoint: str, version: str, path: str, recorder: Recorder) -> None:
    ask(AzureProvider(azure_endpoint=endpoint.format(root=recorder.root), api_version=version), "d")
    assert recorder.last.target == path


def test_a_base_url_is_taken_as_it_stands(recorder: Recorder) -> None:
    ask(AzureProvider(base_url=f"{recorder.root}/openai/deployments/fixed", api_version=VERSION), "d")
    assert recorder.last.target == f"/openai/deployments/fixed/chat/completions?api-version={VERSION}"


def test_the_sdks_own_variables(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", recorder.root)
    ask(AzureProvider(), "d")
    assert recorder.last.target == "/openai/v1/chat/completions"
    monkeypatch.setenv("OPENAI_API_VERSION", "2025-01-01-preview")
    ask(AzureProvider(), "d")
    assert recorder.last.target.endswith("?api-version=2025-01-01-preview")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "environment-token")
    for version in (VERSION, "v1"):
        ask(AzureProvider(api_version=version), "d")
        assert recorder.last.headers["authorization"] == "Bearer environment-token"
        assert "api-key" not in recorder.last.headers


@pytest.mark.parametrize("version", ["", VERSION])
def test_what_is_configured_comes_before_the_environments_token(
    version: str, monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "environment-token")
    monkeypatch.setenv("MY_KEY", "my-key")
    monkeypatch.setenv("MY_TOKEN", "my-token")
    place = {"azure_endpoint": recorder.root, "api_version": version}
    ask(AzureProvider(api_key_env="MY_KEY", **place), "d")
    assert recorder.last.headers["api-key" if version else "authorization"].endswith("my-key")
    ask(AzureProvider(api_key_env="MY_KEY", azure_ad_token_env="MY_TOKEN", **place), "d")
    assert recorder.last.headers["authorization"] == "Bearer my-token"
    assert b"environment-token" not in recorder.received


@pytest.mark.parametrize("version", ["", VERSION])
def test_a_token_provider_is_asked_at_each_request(
    version: str, monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "environment-token")
    count = iter(range(9))
    module = types.ModuleType("my_tokens")

    async def ask_entra() -> str:
        return f"token-{next(count)}"

    module.ask_entra = ask_entra  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "my_tokens", module)
    place = {"azure_endpoint": recorder.root, "api_version": version}

    async def work() -> None:
        for given in ("my_tokens:ask_entra", lambda: f"plain-{next(count)}"):
            provider = AzureProvider(azure_ad_token_provider=given, **place)
            await answer(provider, "d")
            await answer(provider, "d")
            await provider.aclose()

    asyncio.run(work())
    seen = [item.headers["authorization"] for item in recorder.requests]
    assert seen == ["Bearer token-0", "Bearer token-1", "Bearer plain-2", "Bearer plain-3"]
    assert all("api-key" not in item.headers for item in recorder.requests)


def test_a_key_from_a_function_for_the_classic_api(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    module = types.ModuleType("my_keys")
    module.key = lambda: "asked-key"  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "my_keys", module)
    ask(AzureProvider(azure_endpoint=recorder.root, api_version=VERSION, api_key_env="my_keys:key"), "d")
    assert recorder.last.headers["api-key"] == "asked-key"


def test_a_token_provider_that_fails_is_said(recorder: Recorder) -> None:
    provider = AzureProvider(azure_endpoint=recorder.root, azure_ad_token_provider=lambda: None)
    with pytest.raises(ConfigurationError, match="gave no key"):
        ask(provider, "d")

    def fails() -> str:
        raise RuntimeError("az login first")

    for version in ("", VERSION):
        provider = AzureProvider(azure_endpoint=recorder.root, azure_ad_token_provider=fails, api_version=version)
        with pytest.raises(LLMError, match="az login first"):
            ask(provider, "d")
    assert recorder.requests == []


def test_deployments_may_be_asked_for_by_either_name(recorder: Recorder) -> None:
    provider = AzureProvider(
        azure_endpoint=recorder.root, api_version="2024-02-01", deployments={"mine": "gpt-4o", "thinker": "o3-mini"}
    )
    for asked, path, field in [
        ("mine", "mine", "max_tokens"),
        ("gpt-4o", "mine", "max_tokens"),
        ("thinker", "thinker", "max_completion_tokens"),
        ("o3-mini", "thinker", "max_completion_tokens"),
        ("other", "other", "max_tokens"),
    ]:
        ask(provider, asked, max_tokens=5)
        assert recorder.last.target == f"/openai/deployments/{path}/chat/completions?api-version=2024-02-01"
        assert recorder.last.json[field] == 5
        assert "stream_options" not in recorder.last.json  # this version does not know it

    async def names() -> list[str]:
        return [card.id for card in await provider.list_models()]

    assert asyncio.run(names()) == ["mine", "thinker"]
    assert [card.id for card in provider.cached_models or ()] == ["mine", "thinker"]


def test_newer_versions_take_the_newer_fields(recorder: Recorder) -> None:
    for version in ("", VERSION, "2025-04-01-preview"):
        ask(AzureProvider(azure_endpoint=recorder.root, api_version=version), "d", max_tokens=5)
        assert recorder.last.json["max_completion_tokens"] == 5
        assert recorder.last.json["stream_options"] == {"include_usage": True}
    ask(AzureProvider(azure_endpoint=recorder.root), "d", api="responses", max_tokens=5)
    assert recorder.last.json["max_output_tokens"] == 5
    assert recorder.last.json["store"] is False


@pytest.mark.parametrize(
    ("traits", "said"),
    [
        ({}, "has no azure_endpoint"),
        ({"azure_endpoint": "r.openai.azure.com"}, "is no URL"),
        ({"azure_endpoint": "env:NO_SUCH"}, "NO_SUCH is not set"),
        ({"azure_endpoint": "https://r", "azure_ad_token_env": "NO_SUCH"}, "NO_SUCH is not set"),
        ({"azure_endpoint": "https://r", "api_key_env": "NO_SUCH"}, "NO_SUCH is not set"),
    ],
)
def test_what_is_missing_is_said(traits: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ask(AzureProvider(**traits), "d")


def test_no_key_at_all(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_API_KEY is not set"):
        ask(AzureProvider(azure_endpoint=recorder.root), "d")


def test_the_list_of_a_resource(recorder: Recorder) -> None:
    recorder.models = [{"id": "gpt-4o", "deprecation": {"inference": 1790000000}, "owned_by": "azure"}]
    provider = AzureProvider(azure_endpoint=recorder.root, api_version=VERSION)

    async def cards() -> Any:
        try:
            return await provider.list_models()
        finally:
            await provider.aclose()

    (card,) = asyncio.run(cards())
    assert (card.id, card.retires) == ("gpt-4o", "2026-09-21")
    assert recorder.last.target == f"/openai/models?api-version={VERSION}"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("way", ["api-key", "token"])
def test_a_real_classic_server(
    way: str, stream: bool, litellm_url: str, litellm_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", litellm_key)
    how = {"api_key_env": "GATEWAY_KEY"} if way == "api-key" else {"azure_ad_token_env": "GATEWAY_KEY"}
    provider = AzureProvider(azure_endpoint=litellm_url.removesuffix("/v1"), api_version=VERSION, **how)
    response = ask(provider, "gpt-4o", stream=stream, max_tokens=6, temperature=0)
    assert response.text
    assert response.finish_reason == "length"
    assert response.usage is not None
    assert response.usage.output_tokens == 6


def test_a_real_servers_refusal_of_a_key(litellm_url: str) -> None:
    provider = AzureProvider(
        azure_endpoint=litellm_url.removesuffix("/v1"), api_version=VERSION, max_retries=0
    )  # the standard key is none of its keys
    with pytest.raises(LLMError) as caught:
        ask(provider, "gpt-4o")
    assert isinstance(caught.value, AuthenticationError)
    assert "standard-key" not in str(caught.value)
    assert provider.key_hint() == (
        f"azure used AZURE_OPENAI_API_KEY: check that it belongs to {litellm_url.removesuffix('/v1')}/openai."
    )


def test_a_blocked_prompt_is_said_in_words(recorder: Recorder) -> None:
    import json

    inner = {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"hate": {"filtered": True, "severity": "high"}, "sexual": {"filtered": False}},
    }
    document = {"error": {"message": "filtered", "code": "content_filter", "status": 400, "innererror": inner}}
    recorder.fixed = (400, "application/json", json.dumps(document).encode())
    with pytest.raises(ContentFilteredError, match="hate"):
        ask(AzureProvider(azure_endpoint=recorder.root, api_version=VERSION), "d")
    assert len(recorder.requests) == 1
