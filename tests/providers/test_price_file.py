"""Prices in a file: of named providers, and of vendors at their own hosts; a hostile file is an error that names it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from llm_magic.errors import ConfigurationError
from llm_magic.events import Usage
from llm_magic.providers import price_file
from llm_magic.providers.model_info import Price
from llm_magic.providers.registry import ProviderRegistry

LITELLM = {
    "sample_spec": {"litellm_provider": "one of https://docs.litellm.ai/docs/providers", "input_cost_per_token": "0"},
    "gpt-4o": {
        "litellm_provider": "openai",
        "input_cost_per_token": 2.5e-06,
        "output_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 1.25e-06,
        "mode": "chat",
        "max_tokens": 16384,
    },
    "text-embedding-3-small": {"litellm_provider": "openai", "input_cost_per_token": 2e-08, "mode": "embedding"},
    "gpt-3.5-turbo-instruct": {
        "litellm_provider": "text-completion-openai",
        "input_cost_per_token": 1.5e-06,
        "output_cost_per_token": 2e-06,
    },
    "dall-e-3": {"litellm_provider": "openai", "input_cost_per_pixel": 0},
    "azure/gpt-4o": {
        "litellm_provider": "azure",
        "input_cost_per_token": 3e-06,
        "output_cost_per_token": 1.2e-05,
    },
    "groq/gpt-4o": {"litellm_provider": "groq", "input_cost_per_token": "free"},
}

OPENAI = {"litellm_provider": "openai"}


def registry_with(tmp_path: Path, content: object, name: str = "prices.json", **traits: Any) -> ProviderRegistry:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return ProviderRegistry(price_file=str(path), **traits)


def near(price: Price | None) -> tuple[float, float, float | None] | None:
    if price is None:
        return None
    cached = None if price.cached is None else round(price.cached, 9)
    return round(price.input, 9), round(price.output, 9), cached


def test_prices_of_named_providers(tmp_path: Path) -> None:
    prices = {
        "openai:gpt-5*": {"input": 1, "output": 2},
        "openai:gpt-5-mini*": {"input": 0.1, "output": 0.2, "cached": 0.05},
        "openai:gpt-5-mini": {"input": 0.3, "output": 0.4},
        "eu:*": {"input": 7, "output": 8},
    }
    registry = registry_with(tmp_path, prices)
    registry.add("eu", "compatible", base_url="http://127.0.0.1:9/v1")
    openai, eu = registry.get("openai"), registry.get("eu")
    assert openai.price("gpt-5") == Price(1, 2)
    assert openai.price("gpt-5-mini") == Price(0.3, 0.4)
    assert openai.price("gpt-5-mini-2026") == Price(0.1, 0.2, 0.05)
    assert openai.price("gpt-4o") is None
    assert eu.price("anything:else/there") == Price(7, 8)
    assert registry.get("vllm").price("gpt-5") is None


def test_yaml(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, "openai:gpt-5*:\n  input: 2.5\n  output: 10\n", "prices.yaml")
    assert registry.get("openai").price("gpt-5") == Price(2.5, 10)


def test_the_users_own_prices_come_first(tmp_path: Path) -> None:
    registry = registry_with(
        tmp_path, {"openai:gpt-5": {"input": 1, "output": 2}, "openai:o3": {"input": 3, "output": 4}}
    )
    openai = registry.get("openai")
    openai.prices = {"gpt-5": {"input": 9, "output": 9}}
    assert (openai.price("gpt-5"), openai.price("o3")) == (Price(9, 9), Price(3, 4))


def test_the_table_of_litellm_holds_at_openai_itself(tmp_path: Path) -> None:
    openai = registry_with(tmp_path, LITELLM).get("openai")
    assert near(openai.price("gpt-4o")) == (2.5, 10, 1.25)
    assert near(openai.price("gpt-3.5-turbo-instruct")) == (1.5, 2, None)
    assert near(openai.price("text-embedding-3-small")) == (0.02, 0, None)
    assert [openai.price(name) for name in ("dall-e-3", "gpt-4o-mini", "azure/gpt-4o", "groq/gpt-4o")] == [None] * 4


@pytest.mark.parametrize(
    "base_url",
    ["http://127.0.0.1:8000/v1", "https://api.openai.com.example.org/v1", "http://api.openai.com/v1",
     "https://api.openai.com:8443/v1", "https://eu.api.openai.com/v1", "https://api.openai.com@example.org/v1"],
)  # fmt: skip
def test_it_holds_at_no_other_host(tmp_path: Path, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_with(tmp_path, LITELLM)
    assert registry.get("openai").at(base_url).price("gpt-4o") is None
    registry.add("mine", "openai", base_url=base_url)
    assert registry.get("mine").price("gpt-4o") is None
    for cls in ("compatible", "vllm"):
        registry.add("private", cls, base_url=base_url)
        assert registry.get("private").price("gpt-4o") is None
    monkeypatch.setenv("OPENAI_BASE_URL", base_url)
    assert registry.get("openai").price("gpt-4o") is None


def test_our_own_form_stays_behind_when_another_host_is_asked(tmp_path: Path) -> None:
    openai = registry_with(tmp_path, {"openai:*": {"input": 1, "output": 2}}).get("openai")
    assert openai.at("http://127.0.0.1:8000/v1").price("gpt-5") is None
    assert openai.at("https://api.openai.com/v2").price("gpt-5") == Price(1, 2)


def test_on_azure_it_holds_for_deployments_whose_model_is_known(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, LITELLM)
    endpoint = "https://house.openai.azure.com"
    registry.add("az", "azure", azure_endpoint=endpoint, deployments={"prod": "gpt-4o"})
    registry.add("any", "azure", azure_endpoint=endpoint)
    registry.add("proxy", "azure", azure_endpoint="https://proxy.example.org", deployments={"prod": "gpt-4o"})
    assert near(registry.get("az").price("prod")) == near(registry.get("az").price("gpt-4o")) == (3, 12, None)
    assert registry.get("any").price("gpt-4o") is None  # a deployment may be called anything
    assert registry.get("proxy").price("prod") is None


def test_a_registered_provider_has_prices_by_its_name(tmp_path: Path) -> None:
    from llm_magic.providers.compatible import CompatibleProvider

    registry = registry_with(tmp_path, {"mine:*": {"input": 1, "output": 2}})
    registry.register("mine", provider=CompatibleProvider(base_url="http://127.0.0.1:9/v1"))
    assert registry.get("mine").price("m") == Price(1, 2)


def test_it_is_read_once_for_each_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, reads = price_file.read_prices, []
    monkeypatch.setattr(price_file, "read_prices", lambda path: reads.append(path) or read(path))
    registry = registry_with(tmp_path, {"openai:*": {"input": 1, "output": 2}})
    openai = registry.get("openai")
    assert [openai.price("gpt-5") for _ in range(3)] == [Price(1, 2)] * 3
    assert len(reads) == 1
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"openai:*": {"input": 3, "output": 4, "cached": 1}}))
    assert openai.price("gpt-5") == Price(3, 4, 1)
    assert len(reads) == 2
    path.unlink()
    with pytest.raises(ConfigurationError, match=f"There is no file {path}"):
        openai.price("gpt-5")
    registry.price_file = ""
    assert openai.price("gpt-5") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read: Expecting property name"),
        ("", "cannot be read: Expecting value"),
        ("[" * 100_000, "cannot be read: "),
        ("null", "is no table of prices"),
        ("[1]", "is no table of prices"),
        ({"gpt-5": {"input": 1, "output": 2}}, "has an entry 'gpt-5', which names no provider."),
        ({":gpt-5": {"input": 1, "output": 2}}, "names no provider"),
        ({"openai:gpt-5": {"input": 1}}, "the entry 'openai:gpt-5' is no price."),
        ({"openai:gpt-5": {"input": "1", "output": 2}}, "is no price"),
        ({"openai:gpt-5": {"input": True, "output": 2}}, "is no price"),
        ({"openai:gpt-5": {"input": -1, "output": 2}}, "is no price"),
        ('{"openai:gpt-5": {"input": NaN, "output": 2}}', "is no price"),
        ('{"openai:gpt-5": {"input": 1e999, "output": 2}}', "is no price"),
        ('{"openai:gpt-5": {"input": ' + "9" * 400 + ', "output": 2}}', "is no price"),
        ({"openai:gpt-5": {"input": 1, "output": 2, "batch": 3}}, "is no price"),
        ({"openai:gpt-5": None}, "is no price"),
        ({"openai:gpt-5": [1, 2]}, "is no price"),
        ({"x\ud800\x1b[2J" * 50: 1}, "has an entry"),
        (
            {"gpt-5": {"litellm_provider": "openai", "input_cost_per_token": "1"}},
            "the entry 'gpt-5' has a cost of tokens",
        ),
        (
            {"gpt-5": {"litellm_provider": "openai", "input_cost_per_token": 1, "output_cost_per_token": []}},
            "has a cost",
        ),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, content: object, message: str) -> None:
    openai = registry_with(tmp_path, content).get("openai")
    with pytest.raises(ConfigurationError) as caught:
        openai.price("gpt-5")
    assert str(caught.value.message).startswith(f"ProviderRegistry.price_file: {tmp_path / 'prices.json'}")
    assert message in caught.value.message
    assert len(str(caught.value)) < 600
    assert caught.value.message.isprintable()
    openai.prices = {"gpt-5": {"input": 1, "output": 2}}
    assert openai.price("gpt-5") == Price(1, 2)  # the user's own needs no file


@pytest.mark.parametrize(
    "content", ["a: [", "? [a]\n: 1", "!!python/object/apply:os.system ['true']", "a: &a [*a]", "5: 6"]
)
def test_yaml_that_is_none(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ProviderRegistry.price_file: .*prices\.yml"):
        registry_with(tmp_path, content, "prices.yml").get("openai").price("gpt-5")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_what_is_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link", "."):
        registry = ProviderRegistry(price_file=str(tmp_path / name))
        with pytest.raises(ConfigurationError, match="is no plain file"):
            registry.get("openai").price("gpt-5")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "nowhere/prices.json", "\ud800"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    registry = ProviderRegistry(price_file=str(tmp_path / name))
    with pytest.raises(ConfigurationError, match="price_file"):
        registry.get("openai").price("gpt-5")


def test_a_huge_file(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    with path.open("wb") as file:
        file.truncate(price_file.LIMIT + 1)
    with pytest.raises(ConfigurationError, match="is larger than 16 MB"):
        ProviderRegistry(price_file=str(path)).get("openai").price("gpt-5")


def test_a_large_table_costs_little_a_request(tmp_path: Path) -> None:
    prices = {f"openai:model-{number}*": {"input": 1, "output": 2} for number in range(5_000)}
    openai = registry_with(tmp_path, prices).get("openai")
    price = openai.price("model-4999")
    assert price is not None
    assert price.of(Usage(1_000_000, 0)) == 1
