"""A LiteLLM configuration, read from files as people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asked import ask
from recorder import Recorder

from llm_magic.errors import ConfigurationError
from llm_magic.providers.registry import ProviderRegistry

pytest.importorskip("yaml", reason="needs the extra litellm")

CONFIG = """
model_list:
  - model_name: fast
    litellm_params:
      model: openai/smollm2
      api_base: {url}
      api_key: os.environ/GATEWAY_KEY
      temperature: 0.5
      max_tokens: 7
      rpm: 60
      extra_body: {{min_p: 0.1}}
  - model_name: fast
    litellm_params: {{model: hosted_vllm/other, api_base: {url}, api_key: none}}
  - model_name: azure-gpt
    litellm_params:
      model: azure/my-deployment
      api_base: {root}
      api_version: "2024-10-21"
      api_key: os.environ/AZURE_KEY
      timeout: 9
    model_info: {{base_model: azure/gpt-4o, input_cost_per_token: 0.0000025, output_cost_per_token: 0.00001}}
  - model_name: claude
    litellm_params: {{model: anthropic/claude-opus-4, api_key: os.environ/ANTHROPIC_API_KEY}}
  - model_name: written-out
    litellm_params: {{model: openai/x, api_base: {url}, api_key: sk-written-out}}
  - model_name: real-openai
    litellm_params: {{model: gpt-4o, organization: org-1}}
  - model_name: "my/*"
    litellm_params: {{model: "openai/served-*", api_base: {url}, api_key: none, extra_headers: {{X-Team: a}}}}
  - model_name: groq-llama
    litellm_params: {{model: groq/llama-3.3-70b}}
  - model_name: strange
    litellm_params: {{model: openai/x, api_base: {url}, warp_speed: 9}}
  - model_name: priceless
    litellm_params: {{model: openai/x, api_base: {url}, input_cost_per_token: free, output_cost_per_token: 1}}
  - model_name: endless
    litellm_params: {{model: openai/x, api_base: {url}, input_cost_per_token: 1, output_cost_per_token: .inf}}
litellm_settings:
  fallbacks: [{{fast: [azure-gpt]}}]
"""


@pytest.fixture
def registry(tmp_path: Path, recorder: Recorder) -> ProviderRegistry:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(url=recorder.url, root=recorder.root))
    return ProviderRegistry(litellm_config=str(path))


def test_an_alias_asks_its_server(
    registry: ProviderRegistry, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = registry.resolve("fast")
    assert target.model == "smollm2"
    assert target.defaults == {"temperature": 0.5, "max_tokens": 7, "param": {"min_p": 0.1}}
    assert target.fallbacks == ("fast#2", "azure-gpt")
    assert target.provider.kind == "compatible"
    with pytest.raises(ConfigurationError, match="GATEWAY_KEY is not set"):
        ask(target.provider, target.model)
    monkeypatch.setenv("GATEWAY_KEY", "gateway-key")
    ask(target.provider, target.model)
    assert recorder.last.headers["authorization"] == "Bearer gateway-key"
    assert recorder.last.json["model"] == "smollm2"


def test_a_second_entry_of_a_name_is_its_fallback(registry: ProviderRegistry) -> None:
    target = registry.resolve("fast#2")
    assert (target.provider.kind, target.model) == ("vllm", "other")


def test_azure(registry: ProviderRegistry, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_KEY", "azure-key")
    target = registry.resolve("azure-gpt")
    assert target.provider.kind == "azure"
    assert target.provider.timeout == 9.0
    ask(target.provider, target.model)
    assert recorder.last.target == "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21"
    assert recorder.last.headers["api-key"] == "azure-key"
    price: Any = target.provider.price("my-deployment")
    assert (price.input, price.output) == (2.5, 10.0)


def test_a_wildcard_is_a_route(registry: ProviderRegistry, recorder: Recorder) -> None:
    target = registry.resolve("my/model")
    assert target.model == "served-model"
    ask(target.provider, target.model)
    assert recorder.last.headers["x-team"] == "a"
    assert recorder.last.json["model"] == "served-model"


def test_openai_itself(registry: ProviderRegistry) -> None:
    target = registry.resolve("real-openai")
    assert (target.provider.kind, target.model) == ("openai", "gpt-4o")
    assert target.provider.url() == "https://api.openai.com/v1"
    assert target.provider.organization == "org-1"


def test_a_provider_with_an_address_of_its_own(registry: ProviderRegistry) -> None:
    target = registry.resolve("groq-llama")
    assert target.provider.url() == "https://api.groq.com/openai/v1"
    with pytest.raises(ConfigurationError, match="GROQ_API_KEY is not set"):
        target.provider.client()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("claude", "adapter of its own"),
        ("written-out", "key written out"),
        ("strange", "'warp_speed'"),
        ("priceless", "input_cost_per_token is no cost"),
        ("endless", "output_cost_per_token is no cost"),
    ],
)
def test_what_cannot_be_taken_over_is_said_when_used(registry: ProviderRegistry, name: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        registry.resolve(name)
    assert said in caught.value.message
    assert "sk-written" not in str(caught.value)
    assert "model_list[" in caught.value.message


def test_our_own_configuration_comes_first(registry: ProviderRegistry) -> None:
    registry.aliases = {"fast": "vllm:mine"}
    assert registry.resolve("fast").model == "mine"


def test_a_changed_file_is_read_again(registry: ProviderRegistry) -> None:
    import os

    path = Path(registry.litellm_config)
    assert "added" not in registry.all_aliases()
    path.write_text("model_list: [{model_name: added, litellm_params: {model: openai/x, api_base: 'http://h/v1'}}]")
    os.utime(path, ns=(1, 1))
    assert list(registry.all_aliases()) == ["added"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model_list: [", "cannot be read"),
        ("- a", "no LiteLLM configuration"),
        ("other: 1", "has no model_list"),
        ("model_list: [{model_name: x}]", "lacks model_name or litellm_params"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        ProviderRegistry(litellm_config=str(path)).resolve("x")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="There is no LiteLLM configuration"):
        ProviderRegistry(litellm_config=str(tmp_path / "none.yaml")).resolve("x")


def test_a_path_in_a_project_is_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_magic.config.settings import Settings

    monkeypatch.setenv("LLM_MAGIC_TRUST", "1")
    (tmp_path / "config.yaml").write_text(
        "model_list: [{model_name: added, litellm_params: {model: openai/x, api_base: 'http://h/v1'}}]"
    )
    (tmp_path / "pyproject.toml").write_text('[tool.llm_magic]\nlitellm_config = "config.yaml"\n')
    settings, registry = Settings(), ProviderRegistry()
    registry.apply_project(settings, tmp_path)
    assert registry.resolve("added").provider.url() == "http://h/v1"
