"""Offline batches: who takes them, what their lines and their creation name, refusals, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from llm_magic.capabilities import Capabilities
from llm_magic.errors import ConfigurationError, UnsupportedError
from llm_magic.events import Finished, TextDelta, Usage
from llm_magic.options.keywords_in_errors import in_python
from llm_magic.providers.azure import AzureProvider
from llm_magic.providers.base import Price, Provider
from llm_magic.providers.batches import (
    endpoint,
    line_url,
    no_batches,
    refuse_batch_file,
    refuse_batches,
    unknown_price,
)
from llm_magic.providers.compatible import CompatibleProvider, ExistingClientProvider
from llm_magic.providers.local import LocalProvider
from llm_magic.providers.model_info import is_price
from llm_magic.providers.openai import OpenAIProvider
from llm_magic.providers.price_file import read_prices
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.providers.vllm import VLLMProvider


class Echo(Provider):
    """A backend of an author's own."""

    kind = "echo"

    async def exchange(self, request: Any, *_: Any, **__: Any) -> Any:
        yield [TextDelta(request.messages[-1].text), Finished("stop")]


AZURE = "https://r.openai.azure.com"


def ready(url: str) -> ExistingClientProvider:
    return ExistingClientProvider(openai.AsyncOpenAI(base_url=url, api_key="sk-x"))


def ready_azure() -> ExistingClientProvider:
    return ExistingClientProvider(
        openai.AsyncAzureOpenAI(azure_endpoint=AZURE, api_version="2024-10-21", api_key="sk-x")
    )


# Who takes them


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_VERSION", "AZURE_OPENAI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("make", "batches", "url", "created"),
    [
        (OpenAIProvider, True, "/v1/chat/completions", "/v1/chat/completions"),
        (lambda: OpenAIProvider(base_url="https://eu.api.openai.com/v1"), True, "/v1/chat/completions", None),
        (lambda: OpenAIProvider(base_url="http://proxy/v1"), None, "/v1/chat/completions", None),
        (lambda: OpenAIProvider(base_url="http://proxy/v1", batches=True), True, "/v1/chat/completions", None),
        (lambda: OpenAIProvider(batches=False), False, "/v1/chat/completions", None),
        (lambda: AzureProvider(azure_endpoint=AZURE), True, "/v1/chat/completions", "/chat/completions"),
        (lambda: AzureProvider(azure_endpoint=AZURE, api="responses"), True, "/v1/responses", "/chat/completions"),
        (
            lambda: AzureProvider(azure_endpoint=AZURE, api_version="2024-10-21"),
            True, "/chat/completions", "/chat/completions",
        ),
        (VLLMProvider, False, "/v1/chat/completions", None),
        (lambda: VLLMProvider(batches=True), True, "/v1/chat/completions", None),
        (LocalProvider, False, "/v1/chat/completions", None),
        (lambda: CompatibleProvider(base_url="http://h/v1"), None, "/v1/chat/completions", None),
        (lambda: CompatibleProvider(base_url="http://h/x/v3", api="responses"), None, "/v1/responses", None),
        (lambda: CompatibleProvider(base_url="http://h/v1", batches=False), False, "/v1/chat/completions", None),
        (lambda: ready("https://api.openai.com/v1"), True, "/v1/chat/completions", "/v1/chat/completions"),
        (lambda: ready("http://h/v1"), None, "/v1/chat/completions", "/v1/chat/completions"),
        (lambda: ready(f"{AZURE}/openai/v1/"), True, "/v1/chat/completions", "/chat/completions"),
        (ready_azure, True, "/chat/completions", "/chat/completions"),
    ],
)  # fmt: skip
def test_who_takes_them(make: Callable[[], Provider], batches: bool | None, url: str, created: str | None) -> None:
    provider = make()
    model = "smollm2" if provider.kind == "local" else "m"
    known = provider.capabilities(model)
    assert known.batches is batches
    assert line_url(known) == url
    assert endpoint(known) == (created or url)
    if batches is False:
        with pytest.raises(UnsupportedError):
            refuse_batches(provider, known, model)
    else:
        refuse_batches(provider, known, model)


def test_embeddings() -> None:
    assert endpoint(Capabilities(), embeddings=True) == line_url(Capabilities(), embeddings=True) == "/v1/embeddings"
    classic = AzureProvider(azure_endpoint=AZURE, api_version="2024-10-21").capabilities("m")
    assert endpoint(classic, embeddings=True) == "/embeddings"


def test_what_is_said_of_a_server_does_not_go_along_to_another_host() -> None:
    provider = CompatibleProvider(base_url="http://h/v1", batches=True)
    assert provider.at("http://h/v2").capabilities("m").batches is True
    assert provider.at("http://other/v1").capabilities("m").batches is None


def test_the_setting() -> None:
    for value in ("yes", 2, "None"):
        with pytest.raises(ConfigurationError, match="batches"):
            CompatibleProvider(batches=value)
    registry = ProviderRegistry()
    registry.add("s", "compatible", base_url="http://h/v1", batches=False)
    assert registry.get("s").capabilities("m").batches is False
    with pytest.raises(ConfigurationError, match="Did you mean batches"):
        registry.add("s", "compatible", base_url="http://h/v1", batchs=False)


# Refusals


def refused(provider: Provider, model: str = "m") -> str:
    with pytest.raises(UnsupportedError) as caught:
        refuse_batches(provider, provider.capabilities(model), model)
    return str(caught.value)


def test_refusals() -> None:
    assert refused(VLLMProvider()) == (
        "vllm:m (http://localhost:8000/v1) takes no offline batches.\n"
        "--batch-file FILE writes the file that `vllm run-batch` reads, and %llm_batch fetch FILE reads what it wrote; "
        "or leave --batch out: --each asks now."
    )
    assert refused(LocalProvider(), "smollm2") == (
        "local:smollm2 (http://127.0.0.1:0/v1) takes no offline batches.\nLeave --batch out: --each asks now."
    )
    assert refused(CompatibleProvider(base_url="http://user:sk-secret@h/v1?key=sk-secret", batches=False)) == (
        "compatible:m (http://h/v1) takes no offline batches: CompatibleProvider.batches says so.\n"
        "Leave --batch out: --each asks now."
    )
    assert refused(Echo()) == (
        "echo:m takes no offline batches: Echo sends its requests by code of its own.\n"
        "Leave --batch out: --each asks now."
    )
    assert refused(Echo(batches=True)).startswith("echo:m takes no offline batches: Echo sends")


def test_what_a_server_answered() -> None:
    error = no_batches(CompatibleProvider(base_url="http://h/v1"), "m", "it answers 404 to /v1/files")
    assert error.message == "compatible:m (http://h/v1) takes no offline batches: it answers 404 to /v1/files."


def test_from_python_they_name_calls() -> None:
    assert in_python(VLLMProvider.instead_of_batches) == (
        "batch_file=FILE writes the file that `vllm run-batch` reads, and %llm_batch fetch FILE reads what it wrote; "
        "or LLM.map asks now."
    )
    assert in_python(Provider.instead_of_batches) == "LLM.map asks now."


def test_files_that_nothing_could_read() -> None:
    for provider in (OpenAIProvider(), OpenAIProvider(api="responses"), VLLMProvider()):
        refuse_batch_file(provider, provider.capabilities("smollm2"), "smollm2")
    cases = {
        VLLMProvider(api="responses"): "reads chats and embeddings, and these are of the Responses API.\n"
        "Say --api chat.",
        VLLMProvider(tokenizer="org/name"): (
            "and VLLMProvider.tokenizer makes them requests of the Completions API.\n"
            "%config VLLMProvider.tokenizer = '': `vllm run-batch` applies the template itself."
        ),
        LocalProvider(): "the embedded model answers here, and reads no file of a batch.\n"
        "Leave --batch-file out: --each asks now. For vLLM name the model as its own: -m vllm:MODEL.",
        Echo(): "echo:m: Echo sends its requests by code of its own, which no file can hold.\n"
        "Leave --batch-file out: --each asks now.",
    }
    for provider, words in cases.items():
        model = "smollm2" if isinstance(provider, LocalProvider) else "m"
        with pytest.raises(UnsupportedError) as caught:
            refuse_batch_file(provider, provider.capabilities(model), model)
        assert words in str(caught.value)


# Prices

USAGE = Usage(1_000_000, 100_000, cached_tokens=400_000)


@pytest.mark.parametrize(
    ("price", "dollars"),
    [
        (Price(2.5, 10, 1.25), None),
        (Price(0, 0), None),
        (Price(2.5, 10, 1.25, batch_input=1.25), None),
        (Price(2.5, 10, 1.25, batch_output=5), None),
        (Price(2.5, 10, 1.25, batch_cached=0.5), None),
        (Price(2.5, 10, 1.25, batch_input=1.25, batch_output=5), 1.75),
        (Price(2.5, 10, 1.25, 1.25, 5, 0.5), 1.45),
        (Price(2.5, 10, 1.25, 0, 0), 0.0),
    ],
)
def test_what_a_batch_costs(price: Price, dollars: float | None) -> None:
    found = price.of_batch(USAGE)
    assert found == dollars if dollars is None else found == pytest.approx(dollars, abs=1e-12)
    assert Price(2.5, 10, 1.25).of(USAGE) == pytest.approx(3.0, abs=1e-12)


@pytest.mark.parametrize(
    "entry",
    [
        {"batch_input": 1}, {"batch_output": 1}, {"batch_cached": 1}, {"batch_input": 1, "batch_cached": 1},
        {"batch_input": 1, "batch_output": True}, {"batch_input": -1, "batch_output": 1}, {"batch": 1},
        {"batch_input": float("nan"), "batch_output": 1}, {"batch_input": 1, "batch_output": None}, {1: 2},
        {"batch_input": 1, "batch_output": 1, "batch_cached": "0"}, {"batch_input": 10**400, "batch_output": 1},
    ],
)  # fmt: skip
def test_what_is_no_price(entry: dict[Any, Any]) -> None:
    entry = {"input": 2, "output": 8, **entry}
    assert not is_price(entry)
    provider = CompatibleProvider(base_url="http://h/v1", prices={"m": entry}) if 1 not in entry else None
    if provider is not None:
        with pytest.raises(ConfigurationError) as caught:
            provider.price("m")
        assert str(caught.value) == (
            "CompatibleProvider.prices['m'] is no price.\n"
            'Write US dollars per million tokens: {"input": 2.5, "output": 10, "cached": 1.25, "batch_input": 1.25, '
            '"batch_output": 5}.'
        )


def test_a_price_of_the_user() -> None:
    entry = {"input": 2, "output": 8, "batch_input": 1, "batch_output": 4, "batch_cached": 0.25}
    provider = CompatibleProvider(base_url="http://h/v1", prices={"m*": entry})
    assert provider.price("mini") == Price(2, 8, None, 1, 4, 0.25)


def test_prices_of_litellm(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    batches = {"input_cost_per_token_batches": 1e-6, "output_cost_per_token_batches": 4e-6}
    path.write_text(json.dumps({
        "fallback_generalizations": {"rules": []},
        "a": {"litellm_provider": "openai", "input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6, **batches},
        "b": {"litellm_provider": "openai", "input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6,
              "input_cost_per_token_batches": 1e-6},
        "c": {"litellm_provider": "openai", "input_cost_per_token": 2e-6, "input_cost_per_token_batches": 1e-6},
        "d": {"litellm_provider": "openai", "input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6, **batches,
              "cache_read_input_token_cost_batches": 5e-7},
        "e": {"litellm_provider": "openai", "input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6,
              "input_cost_per_token_batches": "half", "output_cost_per_token_batches": None},
    }))  # fmt: skip
    table = read_prices(path)
    found = {name: table.price("openai", name, ("openai", name)) for name in "abcde"}
    rounded = {
        name: price
        and tuple(
            None if cost is None else round(cost, 9)
            for cost in (price.batch_input, price.batch_output, price.batch_cached)
        )
        for name, price in found.items()
    }
    assert rounded == {
        "a": (1, 4, None), "b": (None, None, None), "c": (1, 0, None), "d": (1, 4, 0.5), "e": (None, None, None)
    }  # fmt: skip


def test_where_no_price_is_known() -> None:
    assert unknown_price(OpenAIProvider(), "gpt-5") == (
        "No price of batches is known for gpt-5 (US dollars per million tokens): %config OpenAIProvider.prices = "
        '{"gpt-5": {"input": …, "output": …, "batch_input": …, "batch_output": …}}'
    )
