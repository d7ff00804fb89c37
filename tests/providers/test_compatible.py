"""Servers of the OpenAI protocol: a proxy with a key, one without, a gateway by its headers, and ways to constrain."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from asked import answer, ask
from recorder import Recorder

from llm_magic.errors import ConfigurationError, ConnectionFailedError, LLMError, ProtocolError
from llm_magic.providers.base import Provider
from llm_magic.providers.compatible import CompatibleProvider
from llm_magic.providers.model_info import ModelCard
from llm_magic.providers.registry import ProviderRegistry


@pytest.mark.parametrize(
    ("structured", "json_by", "choices_by", "regex_by"),
    [
        ("json_schema", "json_schema", "json_schema", None),
        ("json_object", "json_object", "prompt", None),
        ("grammar", "llama_json_schema", "llama_grammar", "llama_grammar"),
        ("none", "prompt", "prompt", None),
    ],
)
def test_how_a_server_is_constrained(structured: str, json_by: str, choices_by: str, regex_by: str | None) -> None:
    dialects = CompatibleProvider(base_url="http://h/v1", structured=structured).capabilities("m").dialects
    assert (dialects["json"], dialects["choices"], dialects.get("regex")) == (json_by, choices_by, regex_by)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="structured"):
        CompatibleProvider(structured="xml")


def test_no_base_url_is_said() -> None:
    with pytest.raises(ConfigurationError, match="compatible has no base_url") as caught:
        ask(CompatibleProvider(), "m")
    assert "%config CompatibleProvider.base_url" in caught.value.hint


def test_a_gateway_is_known_by_url_and_headers(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    monkeypatch.setenv("HELICONE_API_KEY", "helicone-key")
    monkeypatch.setenv("VENDOR_KEY", "vendor-key")
    registry = ProviderRegistry(
        providers={
            "helicone": {
                "class": "compatible",
                "base_url": recorder.url,
                "api_key_env": "VENDOR_KEY",
                "headers_env": {"Helicone-Auth": "Bearer HELICONE_API_KEY"},
                "default_headers": {"Helicone-Property-App": "notebook"},
            }
        }
    )
    target = registry.resolve("helicone:gpt-4o")
    ask(target.provider, target.model)
    headers = recorder.last.headers
    assert headers["authorization"] == "Bearer vendor-key"
    assert headers["helicone-auth"] == "Bearer helicone-key"
    assert headers["helicone-property-app"] == "notebook"


@pytest.mark.parametrize(
    ("raw", "card"),
    [
        ({"id": "a", "max_model_len": 4096, "owned_by": "vllm"}, ModelCard("a", 4096, None, "vllm")),
        ({"id": "b", "meta": {"n_ctx": 8192, "n_ctx_train": 9}}, ModelCard("b", 8192)),
        ({"id": "c", "context_length": 100, "expiration_date": "2027-01-02T00:00"}, ModelCard("c", 100, "2027-01-02")),
        ({"id": "d", "max_input_tokens": 5, "parent": "base"}, ModelCard("d", 5, None, "", "base")),
        ({"id": "e", "max_model_len": None, "owned_by": None, "parent": None, "meta": None}, ModelCard("e")),
        ({"name": "f"}, ModelCard("f")),
    ],
)
def test_cards_of_all_sorts(raw: dict[str, Any], card: ModelCard, recorder: Recorder) -> None:
    recorder.models = [raw]
    provider = CompatibleProvider(base_url=recorder.url)

    async def work() -> None:
        assert provider.cached_models is None
        assert await provider.list_models() == [card]
        assert await provider.list_models() == [card]
        assert len(recorder.requests) == 1
        assert provider.cached_models == (card,)
        await provider.list_models(refresh=True)
        assert len(recorder.requests) == 2
        await provider.aclose()
        assert provider.cached_models is None

    asyncio.run(work())


def test_a_static_list_asks_nobody() -> None:
    provider = CompatibleProvider(base_url="http://127.0.0.1:9/v1", models=["a", "b"])
    assert asyncio.run(provider.list_models()) == [ModelCard("a"), ModelCard("b")]
    assert asyncio.run(provider.first_model()) == "a"


def test_a_file_as_a_model_is_not_shown_whole() -> None:
    origin = CompatibleProvider(base_url="http://me:pass@h:1/v1?key=k").origin("/home/me/models/tiny.gguf")
    assert str(origin) == "compatible:tiny.gguf (http://h:1/v1)"


@pytest.mark.parametrize(
    ("fixed", "error"),
    [
        ((200, "text/html", b"<html><title>Welcome</title></html>"), ProtocolError),
        ((404, "text/html", b"<html>none</html>"), LLMError),
    ],
)
def test_a_wrong_url(fixed: tuple[int, str, bytes], error: type[Exception], recorder: Recorder) -> None:
    recorder.fixed = fixed
    with pytest.raises(error) as caught:
        ask(CompatibleProvider(base_url=recorder.url), "m")
    assert f"compatible:m ({recorder.url})" in str(caught.value)


def test_nobody_there() -> None:
    with pytest.raises(ConnectionFailedError, match="refused"):
        ask(CompatibleProvider(base_url="http://127.0.0.1:9/v1", max_retries=0), "m")


# Real servers.


async def _through_all(provider: Provider, model: str, apis: tuple[str, ...]) -> list[Any]:
    options = {"temperature": 0, "max_tokens": 6}
    try:
        return [
            await answer(provider, model, "Say hello.", api=api, stream=stream, **options)
            for api in apis
            for stream in (True, False)
        ]
    finally:
        await provider.aclose()


def test_a_real_litellm_proxy(litellm_url: str, litellm_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_KEY", litellm_key)
    provider = CompatibleProvider(base_url=litellm_url, api_key_env="GATEWAY_KEY")
    answers = asyncio.run(_through_all(provider, "gpt-4o", ("chat", "completions")))
    assert all(item.text and item.finish_reason == "length" for item in answers)
    assert all(item.usage.output_tokens == 6 for item in answers)
    assert all(item.request_id for item in answers)


def test_a_real_litellm_proxy_wants_its_key(litellm_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "sk-wrong")
    for traits in ({}, {"api_key_env": "GATEWAY_KEY"}):
        with pytest.raises(LLMError) as caught:
            ask(CompatibleProvider(base_url=litellm_url, max_retries=0, **traits), "gpt-4o")
        assert "compatible:gpt-4o" in caught.value.message
        assert "sk-wrong" not in str(caught.value)


def test_a_real_llama_server_without_a_key(llamacpp_url: str) -> None:
    provider = CompatibleProvider(base_url=llamacpp_url, structured="grammar")
    answers = asyncio.run(_through_all(provider, "any", ("chat", "responses", "completions")))
    assert all(item.text for item in answers)
    provider = CompatibleProvider(base_url=llamacpp_url)

    async def card() -> ModelCard:
        try:
            return (await provider.list_models())[0]
        finally:
            await provider.aclose()

    assert (asyncio.run(card()).context or 0) > 0


def test_a_real_llama_server_is_constrained(llamacpp_url: str) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    structure = {"response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}}
    provider = CompatibleProvider(base_url=llamacpp_url, structured="grammar")
    text = ask(provider, "any", "A person.", structure=structure, max_tokens=60, temperature=0).text
    assert isinstance(json.loads(text)["age"], int)
    assert ask(provider, "any", structure={"grammar": 'root ::= "yes" | "no"'}, max_tokens=5).text in ("yes", "no")
