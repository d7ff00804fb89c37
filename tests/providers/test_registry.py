"""Names to providers and models, in the order that the contract gives."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from importlib import metadata
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import openai
import pytest
from asked import answer, ask
from recorder import Recorder

from llm_magic.errors import ConfigurationError, ModelNotFoundError
from llm_magic.providers import plugins
from llm_magic.providers.base import Provider
from llm_magic.providers.compatible import CompatibleProvider
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.providers.routes import SHIPPED, route


@pytest.fixture
def registry() -> ProviderRegistry:
    return ProviderRegistry(
        providers={"eu": {"class": "azure", "azure_endpoint": "https://eu.invalid"}, "gw": {"class": "compatible"}},
        aliases={
            "fast": "vllm:smollm2",
            "gpt-4o": {"model": "eu:gpt-4o", "temperature": 0, "fallbacks": ["fast", "openai:gpt-4o"]},
            "careful": {"model": "gpt-4o", "max_tokens": 5},
            "o3": "o3",
        },
        routes={"claude-*": "gw", "claude-opus-*": "gw:anthropic/*", "special": "eu:deployment", "gpt-oss-*": "vllm"},
    )


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("fast", "vllm", "smollm2"),
        ("eu:my-deployment", "eu", "my-deployment"),
        ("gw:a/b:c", "gw", "a/b:c"),
        ("vllm:", "vllm", ""),
        ("local", "local", ""),
        ("ft:gpt-4o:org::id", "openai", "ft:gpt-4o:org::id"),
        ("o3", "openai", "o3"),
        ("o4-mini", "openai", "o4-mini"),
        ("chatgpt-4o-latest", "openai", "chatgpt-4o-latest"),
        ("text-embedding-3-small", "openai", "text-embedding-3-small"),
        ("gpt-oss-120b", "vllm", "gpt-oss-120b"),
        ("claude-sonnet", "gw", "claude-sonnet"),
        ("claude-opus-4", "gw", "anthropic/4"),
        ("special", "eu", "deployment"),
        (" gpt-5 ", "openai", "gpt-5"),
    ],
)
def test_a_name_leads_to(registry: ProviderRegistry, name: str, provider: str, model: str) -> None:
    target = registry.resolve(name)
    assert (target.provider.name, target.model, target.asked) == (provider, model, name.strip())


@pytest.mark.parametrize("name", ["llama3:8b", "openai/gpt-oss-120b", "xgpt-4o", "ogre", "GPT-4o", "unknown", ""])
def test_names_that_lead_nowhere_stay_whole(registry: ProviderRegistry, name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        registry.resolve(name)
    assert repr(name) in caught.value.message
    assert "eu, gw, " in caught.value.hint


def test_close_names_are_given(registry: ProviderRegistry) -> None:
    registry.get("vllm").models = ["smollm2"]
    for name, close in [("fsat", "fast"), ("smolm2", "vllm:smollm2"), ("vlm:smollm2", "vllm:smollm2")]:
        with pytest.raises(ModelNotFoundError) as caught:
            registry.resolve(name)
        assert close in caught.value.hint


def test_an_alias_brings_defaults_and_fallbacks(registry: ProviderRegistry) -> None:
    target = registry.resolve("gpt-4o")
    assert (target.provider.name, target.model) == ("eu", "gpt-4o")
    assert target.defaults == {"temperature": 0}
    assert target.fallbacks == ("fast", "openai:gpt-4o")
    outer = registry.resolve("careful")
    assert outer.asked == "careful"
    assert outer.defaults == {"temperature": 0, "max_tokens": 5}
    assert outer.fallbacks == target.fallbacks


def test_an_alias_of_itself_is_the_name_it_hides() -> None:
    registry = ProviderRegistry(aliases={"gpt-4o": {"model": "gpt-4o", "seed": 1}, "a": "b", "b": "a"})
    assert registry.resolve("gpt-4o").provider.name == "openai"
    with pytest.raises(ModelNotFoundError):
        registry.resolve("a")


@pytest.mark.parametrize("alias", [5, {}, {"model": 3}, {"temperature": 0}, {"model": "vllm:m", "fallbacks": [1]}])
def test_an_alias_without_a_model_is_said(alias: Any) -> None:
    with pytest.raises(ConfigurationError, match="The alias x names no model"):
        ProviderRegistry(aliases={"x": alias}).resolve("x")


def test_a_route_to_no_provider_is_said() -> None:
    with pytest.raises(ConfigurationError, match="leads to 'nobody', which is no provider"):
        ProviderRegistry(routes={"x*": "nobody"}).resolve("xy")


def test_exact_comes_before_globs_and_longer_before_shorter() -> None:
    routes = {"*": "a", "m*": "b", "mo*": "c", "model": "d", "[mn]odel": "e", "[mn]odel-*": "f", "[!a]x": "g"}
    assert [route(name, routes) for name in ("model", "modal", "model-1", "max", "zx")] == [
        ("d", "model"),
        ("c", "modal"),
        ("f", "model-1"),
        ("b", "max"),
        ("g", "zx"),
    ]


def test_routes_are_anchored_at_both_ends_and_mind_case() -> None:
    assert [route(name, SHIPPED) for name in ("my-gpt-4", "gpt-4o", "o", "oo", "o1\nx", "Gpt-4")] == [
        None,
        ("openai", "gpt-4o"),
        None,
        None,
        ("openai", "o1\nx"),
        None,
    ]
    assert route("a.b", {"a?b": "x"}) == ("x", "a.b")
    assert route("axb", {"a.b": "x"}) is None


def test_a_shipped_route_can_be_changed_or_taken_away() -> None:
    assert ProviderRegistry(routes={"gpt-*": "vllm"}).resolve("gpt-4o").provider.name == "vllm"
    with pytest.raises(ModelNotFoundError):
        ProviderRegistry(routes={"gpt-*": ""}).resolve("gpt-4o")


def test_a_target_elsewhere_leaves_the_provider_alone(registry: ProviderRegistry, recorder: Recorder) -> None:
    target = registry.resolve("fast").at(recorder.url)
    assert target.provider.url() == recorder.url
    assert registry.resolve("fast").provider.url() == "http://localhost:8000/v1"
    assert registry.resolve("fast").at(recorder.url).provider is target.provider


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"class": "azur"}, "Did you mean azure"),
        ({"class": "compatible", "base_ur": "x"}, "Did you mean base_url"),
        ({"class": "compatible", "api_key": "sk-1"}, "api_key_env"),
        ({"class": "compatible", "timeout": "soon"}, "timeout"),
        ({"class": "json:JSONDecoder"}, "is no provider"),
        ({"class": "nowhere:Thing"}, "cannot be imported"),
        ("compatible", "describes no provider"),
    ],
)
def test_a_named_provider_that_cannot_be_made(spec: Any, said: str) -> None:
    registry = ProviderRegistry(providers={"x": spec})
    with pytest.raises(ConfigurationError) as caught:
        registry.resolve("x:m")
    assert said in str(caught.value)
    assert registry.resolve("vllm:m").model == "m"


def test_a_class_by_its_import_string() -> None:
    registry = ProviderRegistry(providers={"x": {"class": "llm_magic.providers.vllm:VLLMProvider", "timeout": 7}})
    provider = registry.get("x")
    assert (type(provider).__name__, provider.timeout, provider.name) == ("VLLMProvider", 7.0, "x")


def test_unknown_providers_have_close_names(registry: ProviderRegistry) -> None:
    with pytest.raises(ConfigurationError, match="There is no provider 'vlm'") as caught:
        registry.get("vlm")
    assert "Did you mean vllm?" in caught.value.hint


def test_providers_come_and_go_with_the_session(registry: ProviderRegistry) -> None:
    shelf: list[Any] = []
    registry.shelf = shelf
    added = registry.add("mine", "compatible", base_url="http://one.invalid/v1")
    assert registry.get("mine") is added
    assert shelf == [added]
    again = registry.add("mine", "compatible", base_url="http://two.invalid/v1")
    assert registry.get("mine") is again
    assert again.url() == "http://two.invalid/v1"
    assert shelf == [again]
    with pytest.raises(ConfigurationError):
        registry.add("mine", "compatible", base_url=3)
    with pytest.raises(ConfigurationError):
        registry.add("wrong", "compatible", no_such=1)
    assert "wrong" not in registry.names()
    assert registry.get("mine").url() == "http://two.invalid/v1"
    registry.remove("mine")
    assert "mine" not in registry.names()
    assert shelf == []
    for name, said in [("openai", "cannot be removed"), ("mine", "There is no provider")]:
        with pytest.raises(ConfigurationError, match=said):
            registry.remove(name)


@pytest.mark.parametrize("kind", ["AsyncOpenAI", "OpenAI", "AsyncAzureOpenAI", "AzureOpenAI"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_ready_client_is_registered(kind: str, stream: bool, recorder: Recorder) -> None:
    arguments: dict[str, Any] = {"api_key": "ready-key", "default_headers": {"X-Ready": "yes"}, "max_retries": 0}
    if "Azure" in kind:
        arguments |= {"azure_endpoint": recorder.root, "api_version": "2024-10-21"}
    else:
        arguments |= {"base_url": recorder.url}
    client = getattr(openai, kind)(**arguments)
    registry = ProviderRegistry()
    registry.register("mine", client=client)

    async def work() -> None:
        target = registry.resolve("mine:gpt-4o")
        response = await answer(target.provider, target.model, stream=stream)
        assert response.text == "Hello"
        assert response.provider == ""  # the session's to say
        assert [attempt.status for attempt in response.attempts] == [200]
        await registry.aclose()
        assert not client.is_closed()
        if kind.startswith("Async"):
            await client.close()

    asyncio.run(work())
    if not kind.startswith("Async"):
        client.close()
    seen = recorder.last.headers
    assert seen["x-ready"] == "yes"
    assert seen["api-key" if "Azure" in kind else "authorization"].endswith("ready-key")


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="A dict is no client"):
        ProviderRegistry().register("mine", client={})
    with pytest.raises(ConfigurationError, match="cannot be registered"):
        ProviderRegistry().register("a:b", provider=CompatibleProvider())
    with pytest.raises(ConfigurationError, match="cannot be registered"):
        ProviderRegistry().register("mine")


def test_a_provider_is_registered(recorder: Recorder) -> None:
    registry = ProviderRegistry()
    registry.register("mine", provider=CompatibleProvider(base_url=recorder.url))
    assert registry.names()[0] == "mine"
    assert ask(registry.resolve("mine:m").provider, "m").text == "Hello"
    registry.remove("mine")
    assert "mine" not in registry.names()


def test_the_first_listed_model_stands_for_none(recorder: Recorder) -> None:
    recorder.models = [{"id": "one"}, {"id": "two"}]
    provider = CompatibleProvider(base_url=recorder.url)
    assert ask(provider).model_reported == "one"
    assert ask(CompatibleProvider(base_url=recorder.url, models=["three"])).model_reported == "three"
    recorder.models = []
    with pytest.raises(ModelNotFoundError, match="lists no model"):
        ask(CompatibleProvider(base_url=recorder.url))


def test_the_default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = ProviderRegistry()
    assert registry.default_model("vllm:m") == "vllm:m"
    monkeypatch.setattr("llm_magic.providers.registry.find_spec", lambda _: object())
    assert registry.default_model("") == "local:smollm2"
    registry.get("local").model_path = "/models/qwen.gguf"
    assert registry.default_model("") == "local:qwen"
    monkeypatch.setattr("llm_magic.providers.registry.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="No model is set") as caught:
        registry.default_model("")
    assert "%config LLMMagics.model =" in caught.value.hint


def test_our_classes_are_entry_points_like_any_other() -> None:
    ours = {entry.name: entry.value for entry in entry_points(group=plugins.GROUP) if "llm_magic." in entry.value}
    assert ours == {
        "openai": "llm_magic.providers.openai:OpenAIProvider",
        "azure": "llm_magic.providers.azure:AzureProvider",
        "vllm": "llm_magic.providers.vllm:VLLMProvider",
        "compatible": "llm_magic.providers.compatible:CompatibleProvider",
        "local": "llm_magic.providers.local:LocalProvider",
    }
    for name in ours:
        assert plugins.load(name).kind == name


def test_another_packages_class_is_found_and_a_broken_one_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {
        **plugins.entries(),
        "theirs": EntryPoint("theirs", "llm_magic.providers.compatible:ExistingClientProvider", plugins.GROUP),
        "broken": EntryPoint("broken", "package_that_is_broken:Provider", plugins.GROUP),
    }
    monkeypatch.setattr(plugins, "entries", lambda: entries)
    registry = ProviderRegistry()
    assert registry.names()[-2:] == ["theirs", "broken"]
    assert issubclass(plugins.load("theirs"), Provider)
    assert registry.resolve("vllm:m").model == "m"
    with pytest.raises(ConfigurationError, match="package_that_is_broken cannot be loaded: ModuleNotFoundError"):
        registry.resolve("broken:m")


def test_one_of_ours_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    real = list(entry_points(group=plugins.GROUP))
    thief = EntryPoint("openai", "thief:Provider", plugins.GROUP)
    for order in ([thief, *real], [*real, thief]):
        monkeypatch.setattr(
            metadata, "entry_points", lambda group, order=order: order if group == plugins.GROUP else []
        )
        plugins.entries.cache_clear()
        assert plugins.entries()["openai"].value == "llm_magic.providers.openai:OpenAIProvider"
    monkeypatch.undo()
    plugins.entries.cache_clear()


def test_loading_imports_nothing_but_traitlets() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "from llm_magic.providers.registry import ProviderRegistry\n"
        "early = {'llm_magic.options', 'llm_magic.providers.model_info'} & set(sys.modules)\n"
        "registry = ProviderRegistry()\n"
        "[registry.get(name) for name in ('openai', 'azure', 'vllm', 'compatible')]\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)), early)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own
    assert run.stdout.strip() == "['llm_magic', 'traitlets'] set()"
