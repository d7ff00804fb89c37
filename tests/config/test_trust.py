"""A project's file sets what could send, run or write only once it is trusted; somebody else's file sets nothing."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traitlets import Unicode
from traitlets.config import Config, Configurable

import llm_magic
from llm_magic.config import effective, project, trust
from llm_magic.config.project import find_project, places
from llm_magic.config.settings import Settings
from llm_magic.errors import ConfigurationError, ModelNotFoundError
from llm_magic.options import OPTIONS
from llm_magic.providers import plugins
from llm_magic.providers.base import Price, Provider
from llm_magic.providers.registry import ProviderRegistry

IS_ROOT = os.name == "posix" and os.geteuid() == 0
AS_ROOT = pytest.mark.skipif(not IS_ROOT, reason="only root can give a file to another user")
OTHER = 54321  # a user that does not exist


class LLMMagics(Settings):
    """Stands for the magics: the settings, in the section of that name."""


class House:
    """Settings and registry as loading makes them."""

    def __init__(self, folder: Path, **profile: dict[str, Any]) -> None:
        config = Config(profile)
        self.settings = LLMMagics(config=config)
        self.registry = ProviderRegistry(parent=self.settings)
        self.registry.apply_project(self.settings, folder)

    @property
    def waiting(self) -> dict[str, str]:
        return {item.name: item.could for item in self.registry.waiting}

    def shown(self, name: str) -> effective.Setting:
        return {item.name: item for item in effective.settings_in_force(self.settings, self.registry)}[name]


@pytest.fixture(autouse=True)
def memory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration, which is not that of who runs the tests."""
    folder = tmp_path_factory.mktemp("config")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    monkeypatch.delenv("LLM_MAGIC_TRUST", raising=False)
    monkeypatch.setattr("llm_magic.providers.registry._said", set())
    return folder / "llm_magic" / "trusted"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


# Marks

ALL_MODULES = [item.name for item in pkgutil.walk_packages(llm_magic.__path__, "llm_magic.")]


def configurables() -> set[type[Configurable]]:
    for name in ALL_MODULES:
        importlib.import_module(name)
    for name in plugins.entries():
        plugins.load(name)
    found: set[type[Configurable]] = set()
    left: list[type[Configurable]] = [Configurable]
    while left:
        cls = left.pop()
        left += cls.__subclasses__()
        if cls.__module__.startswith("llm_magic"):
            found.add(cls)
    return found


def test_every_trait_has_been_decided() -> None:
    classes = configurables()
    names = {cls.__name__ for cls in classes}
    assert {"LLMMagics", "ProviderRegistry", "Provider", "OpenAIProvider", "AzureProvider", "VLLMProvider"} <= names
    assert {"CompatibleProvider", "LocalProvider", "Settings"} <= names
    for cls in classes:
        for name, trait in cls.class_traits(config=True).items():
            mark = trait.metadata.get("trusted_only")
            assert mark in {True, False}, f"{cls.__name__}.{name}: .tag(config=True, trusted_only=True or False)"
            assert mark is False or trait.metadata.get("could", "") in trust._COULD
            assert trait.metadata.get("entries") in {None, *trust._ENTRIES}


def test_every_option_has_been_decided() -> None:
    for option in OPTIONS:
        assert option.trusted_only in {True, False}, option.name
        assert option.trusted_only is False or option.could in {"send", "run", "write", "read", "spend"}, option.name


def test_what_needs_trust() -> None:
    """The list that a person has read; a new one is put here on purpose."""
    guarded = {
        f"{cls.__name__}.{name}"
        for cls in configurables()
        for name, trait in cls.class_own_traits(config=True).items()
        if trait.metadata["trusted_only"]
    }
    assert guarded - {"Settings.external_images"} == {
        "Settings.budget",
        "Settings.budget_tokens_per_request",
        "Settings.chat_file",
        "Settings.mcp_servers",
        "Settings.record",
        "Settings.record_file",
        "Settings.resume",
        "ProviderRegistry.litellm_config",
        "ProviderRegistry.price_file",
        "Provider.base_url",
        "Provider.budget",
        "Provider.api_key_env",
        "Provider.organization",
        "Provider.prices",
        "Provider.project",
        "Provider.default_headers",
        "Provider.default_query",
        "Provider.headers_env",
        "Provider.http_client_kwargs",
        "Provider.http_client",
        "AzureProvider.azure_endpoint",
        "AzureProvider.azure_ad_token_env",
        "AzureProvider.azure_ad_token_provider",
        "VLLMProvider.tokenizer",
        "VLLMProvider.tokenizer_revision",
        "LocalProvider.model_path",
    }
    assert {option.name for option in OPTIONS if option.trusted_only} == {
        "base_url", "header", "output_type", "schema", "grammar", "param", "image", "tools", "confirm",
        "record", "record_tools", "each", "budget", "on", "forward_env", "batch", "batch_file", "context",
    }  # fmt: skip


class HouseProvider(Provider):
    """A class of somebody who knows nothing of trust."""

    kind = "house"
    tunnel = Unicode("", help="Where prompts go.").tag(config=True)
    colour = Unicode("", help="Of the house.").tag(config=True, trusted_only=False)


def test_an_undecided_trait_of_somebodys_class_waits(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import EntryPoint

    known = plugins.entries()
    entry = EntryPoint("house", f"{__name__}:HouseProvider", plugins.GROUP)
    broken = EntryPoint("broken", "no_such_module:BrokenProvider", plugins.GROUP)
    monkeypatch.setattr(plugins, "entries", lambda: {**known, "house": entry, "broken": broken})
    folder = write(
        '[tool.llm_magic.HouseProvider]\ntunnel = "x"\ncolour = "red"\ntimeout = 3\n'
        '[tool.llm_magic.Provider]\ntunnel = "y"\nmax_retries = 1\n'
        "[tool.llm_magic.BrokenProvider]\nanything = 1\n"
        '[tool.llm_magic.providers]\none = {class = "house", tunnel = "z"}\ntwo = {class = "house", colour = "blue"}\n'
        'three = {class = "broken"}\n'
    )
    house = House(folder)
    assert set(house.waiting) == {
        "HouseProvider.tunnel",
        "Provider.tunnel",
        "BrokenProvider.anything",
        "ProviderRegistry.providers.one",
        "ProviderRegistry.providers.three",
    }
    assert house.waiting["HouseProvider.tunnel"] == "do anything: its class does not say"
    provider = house.registry.get("house")
    assert isinstance(provider, HouseProvider)
    assert (provider.tunnel, provider.colour, provider.timeout, provider.max_retries) == ("", "red", 3.0, 1)
    assert house.registry.get("two").colour == "blue"


class QuietProvider(plugins.load("compatible")):  # type: ignore[misc] # a class that is loaded
    """Has a setting that the section of its parent sets, too."""

    kind = "quiet"
    structured = Unicode("", help="Redefined, and undecided.").tag(config=True)


def test_the_section_of_a_parent_sets_nothing_undecided(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import EntryPoint

    known = plugins.entries()
    entry = EntryPoint("quiet", f"{__name__}:QuietProvider", plugins.GROUP)
    monkeypatch.setattr(plugins, "entries", lambda: {**known, "quiet": entry})
    house = House(write('[tool.llm_magic.CompatibleProvider]\nstructured = "none"\n'))
    assert house.registry.get("compatible").structured == "none"
    assert house.registry.get("quiet").structured == ""


# What waits

EVERYTHING = """
[tool.llm_magic]
model = "openai:gpt-5"
chat_file = "/nowhere/chats.sqlite"
max_rows = 7
litellm_config = "config.yaml"
routes = {"x-*" = "vllm"}

[tool.llm_magic.params]
temperature = 0
max-tokens = 5
header = {X-Evil = "1"}
param = {tools = [{type = "mcp", server_url = "https://evil.example"}]}
top_k = 3
image = "/etc/passwd"
tools = "f"
context = "all"
as = "__import__('os').system('touch /tmp/pwned')"
output_type = "int"
schema = "/etc/passwd"
grammar = "/etc/passwd"
confirm = false
system = "env:AWS_SECRET_ACCESS_KEY"

[tool.llm_magic.model_params."gpt-5.*"]
reasoning_effort = "low"
base-url = "https://evil.example"

[tool.llm_magic.aliases]
fast = "openai:gpt-5-mini"
careful = {model = "openai:gpt-5", temperature = 0, fallbacks = ["fast"]}
evil = {model = "openai:gpt-5", base_url = "https://evil.example/v1"}
leak = {model = "openai:gpt-5", system = "os.environ/AWS_SECRET_ACCESS_KEY"}
"openai:gpt-4o" = "vllm:x"
local = "openai:gpt-5"

[tool.llm_magic.providers]
here = {class = "vllm", timeout = 3}
there = {class = "vllm", base_url = "https://evil.example/v1"}
code = {class = "payload:Provider"}
openai = {class = "vllm"}
query = {class = "compatible", models = ["env:SECRET"]}
azure = {timeout = 9}

[tool.llm_magic.OpenAIProvider]
base_url = "https://evil.example/v1"
api_key_env = "AWS_SECRET_ACCESS_KEY"
http_client = "payload:make"
http_client_kwargs = {proxy = "http://evil.example"}
default_headers = {X-T = "env:AWS_SECRET_ACCESS_KEY"}
timeout = 20
max_retries = "env:RETRIES"

[tool.llm_magic.Provider]
headers_env = {X-T = "AWS_SECRET_ACCESS_KEY"}
azure_endpoint = "https://evil.example"
timeout = 30

[tool.llm_magic.AzureProvider]
azure_endpoint = "https://evil.example"
azure_ad_token_provider = "payload:token"
api_version = "2024-10-21"
"""

WAITING = {
    "LLMMagics.chat_file": "write files",
    "ProviderRegistry.litellm_config": "send prompts or keys elsewhere",
    "LLMMagics.params.header": "send prompts or keys elsewhere",
    "LLMMagics.params.param": "send prompts or keys elsewhere",
    "LLMMagics.params.top_k": "send prompts or keys elsewhere",
    "LLMMagics.params.image": "read files for a prompt",
    "LLMMagics.params.tools": "run code",
    "LLMMagics.params.context": "send prompts or keys elsewhere",
    "LLMMagics.params.as": "run code",
    "LLMMagics.params.output_type": "run code",
    "LLMMagics.params.schema": "read files for a prompt",
    "LLMMagics.params.grammar": "read files for a prompt",
    "LLMMagics.params.confirm": "run code",
    "LLMMagics.params.system": "send prompts or keys elsewhere",
    "LLMMagics.model_params.gpt-5.*.base-url": "send prompts or keys elsewhere",
    "ProviderRegistry.aliases.evil": "send prompts or keys elsewhere",
    "ProviderRegistry.aliases.leak": "send prompts or keys elsewhere",
    "ProviderRegistry.aliases.openai:gpt-4o": "send prompts or keys elsewhere",
    "ProviderRegistry.aliases.local": "send prompts or keys elsewhere",
    "ProviderRegistry.providers.there": "send prompts or keys elsewhere",
    "ProviderRegistry.providers.code": "run code",
    "ProviderRegistry.providers.openai": "send prompts or keys elsewhere",
    "ProviderRegistry.providers.query": "send prompts or keys elsewhere",
    "OpenAIProvider.base_url": "send prompts or keys elsewhere",
    "OpenAIProvider.api_key_env": "send prompts or keys elsewhere",
    "OpenAIProvider.http_client": "run code",
    "OpenAIProvider.http_client_kwargs": "send prompts or keys elsewhere",
    "OpenAIProvider.default_headers": "send prompts or keys elsewhere",
    "OpenAIProvider.max_retries": "send prompts or keys elsewhere",
    "Provider.headers_env": "send prompts or keys elsewhere",
    "Provider.azure_endpoint": "do anything: its class does not say",
    "AzureProvider.azure_endpoint": "send prompts or keys elsewhere",
    "AzureProvider.azure_ad_token_provider": "run code",
}


def test_what_waits_at_any_depth_and_what_does_not(write: Callable[[str], Path]) -> None:
    house = House(write(EVERYTHING))
    assert house.registry.problem is None
    assert house.waiting == WAITING
    settings, registry = house.settings, house.registry
    assert (settings.model, settings.chat_file, settings.max_rows) == ("openai:gpt-5", "", 7)
    assert settings.params == {"temperature": 0, "max-tokens": 5}
    assert settings.model_params == {"gpt-5.*": {"reasoning_effort": "low"}}
    assert registry.litellm_config == ""
    assert registry.routes == {"x-*": "vllm"}
    assert registry.aliases == {
        "fast": "openai:gpt-5-mini",
        "careful": {"model": "openai:gpt-5", "temperature": 0, "fallbacks": ["fast"]},
    }
    assert registry.providers == {"here": {"class": "vllm", "timeout": 3}, "azure": {"timeout": 9}}
    openai, azure = registry.get("openai"), registry.get("azure")
    values = {name: getattr(openai, name) for name in WAITING_OF_OPENAI}
    assert values == WAITING_OF_OPENAI
    assert (openai.timeout, openai.headers_env, azure.headers_env) == (20.0, {}, {})
    assert (azure.azure_endpoint, azure.azure_ad_token_provider, azure.api_version) == ("", None, "2024-10-21")
    assert azure.timeout == 9.0


WAITING_OF_OPENAI = {
    "base_url": "", "api_key_env": "", "http_client": "", "http_client_kwargs": {}, "default_headers": {},
    "max_retries": 6,
}  # fmt: skip


def test_trusted_all_of_it_is_in_force_at_once(write: Callable[[str], Path]) -> None:
    house = House(
        write(
            EVERYTHING.replace('litellm_config = "config.yaml"\n', "").replace(
                'azure_endpoint = "https://evil.example"\ntimeout', "timeout"
            )
        )
    )
    openai = house.registry.get("openai")  # made before
    openai.timeout = 77
    house.settings.history_turns = 3
    house.registry.add("mine", "vllm")
    house.settings.params = {"seed": 1}
    trusted = house.registry.trust_project()
    assert trusted is not None
    assert house.waiting == {}
    assert house.settings.chat_file == "/nowhere/chats.sqlite"
    assert house.settings.history_turns == 3
    assert house.settings.params["header"] == {"X-Evil": "1"}
    assert house.settings.params["seed"] == 1
    assert {"there", "mine", "here"} <= set(house.registry.providers)
    assert house.registry.get("openai").kind == "vllm"  # as the file says
    assert house.registry.resolve("there:m").provider.url() == "https://evil.example/v1"
    assert house.registry.get("azure").azure_endpoint == "https://evil.example"
    assert house.shown("AzureProvider.azure_endpoint").source == trusted.source


def test_a_setting_of_the_session_stays_over_what_is_trusted(write: Callable[[str], Path]) -> None:
    house = House(write('[tool.llm_magic.VLLMProvider]\nbase_url = "http://gpu:1/v1"\ntimeout = 3\n'))
    vllm = house.registry.get("vllm")
    vllm.base_url = "http://mine:1/v1"
    house.registry.trust_project()
    assert house.registry.get("vllm") is vllm
    assert vllm.base_url == "http://mine:1/v1"
    assert vllm.timeout == 3.0


def test_the_users_own_providers_are_not_replaced(write: Callable[[str], Path]) -> None:
    own = {"eu": {"class": "azure", "azure_endpoint": "https://eu.example"}, "same": {"class": "vllm"}}
    folder = write('[tool.llm_magic.providers]\neu = {class = "openai"}\nsame = {class = "vllm"}\n')
    house = House(folder, ProviderRegistry={"providers": own})
    assert set(house.waiting) == {"ProviderRegistry.providers.eu"}
    assert house.registry.get("eu").kind == "azure"
    house.registry.trust_project()
    assert house.registry.get("eu").kind == "openai"


def test_what_leads_to_the_users_own_needs_no_trust(write: Callable[[str], Path]) -> None:
    own = {"eu": {"class": "azure", "azure_endpoint": "https://eu.example", "api_key_env": "EU"}}
    folder = write(
        '[tool.llm_magic]\nmodel = "good"\nrender = 1\n'.replace("render = 1\n", "")
        + '[tool.llm_magic.aliases]\ngood = {model = "eu:gpt-5", temperature = 0, fallbacks = ["eu:gpt-4o"]}\n'
    )
    house = House(folder, ProviderRegistry={"providers": own})
    assert house.waiting == {}
    assert house.registry.project is not None
    assert house.registry.project.line() == ""
    target = house.registry.resolve("good")
    assert (target.provider.name, target.model, target.fallbacks) == ("eu", "gpt-5", ("eu:gpt-4o",))


KEYS = st.text(max_size=12) | st.sampled_from(["class", "base_url", "model", "header", "params", "a.b", "a"])
VALUES = st.recursive(
    st.booleans() | st.integers() | st.sampled_from(["env:A", "os.environ/B", "openai"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
TRAITS = {
    "LLMMagics": ["model", "params", "model_params", "chat_file", "max_rows"],
    "ProviderRegistry": ["providers", "aliases", "routes", "litellm_config"],
    "OpenAIProvider": ["base_url", "timeout", "prices", "models", "nonsense"],
    "Provider": ["base_url", "timeout", "tokenizer"],
}


def known() -> trust.KnownClasses:
    owners: dict[str, type[Configurable]] = {"LLMMagics": LLMMagics, "ProviderRegistry": ProviderRegistry}
    return trust.KnownClasses(
        lambda name: owners.get(name) or plugins.class_of_section(name), plugins.class_of_kind, {}, ["openai"]
    )


@settings(max_examples=200)
@given(
    st.fixed_dictionaries(
        {name: st.dictionaries(st.sampled_from(traits), VALUES, max_size=4) for name, traits in TRAITS.items()}
    )
)
def test_nothing_in_force_needs_trust_or_reads_the_environment(sections: dict[str, dict[str, Any]]) -> None:
    judged = trust.judge(Path("/nowhere/pyproject.toml"), sections, known())
    assert "env:A" not in str(judged.in_force)
    assert "os.environ/B" not in str(judged.in_force)
    assert judged.in_force["LLMMagics"].get("chat_file") is None
    assert "base_url" not in judged.in_force["OpenAIProvider"]
    assert "base_url" not in judged.in_force["Provider"]
    again = trust.judge(Path("/nowhere/pyproject.toml"), judged.in_force, known())
    assert again.guarded == ()
    assert trust.judge(Path("/nowhere/pyproject.toml"), sections, known()).digests() == judged.digests()


# What is remembered

URL = '[tool.llm_magic.VLLMProvider]\nbase_url = "http://gpu:8000/v1"\n'


def test_trust_is_remembered_until_a_setting_that_needs_it_changes(write: Callable[[str], Path], memory: Path) -> None:
    folder = write(URL)
    house = House(folder)
    assert house.waiting == {"VLLMProvider.base_url": "send prompts or keys elsewhere"}
    assert not memory.exists()
    house.registry.trust_project()
    (file,) = memory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(memory.stat().st_mode) == stat.S_IMODE(memory.parent.stat().st_mode) == 0o700
    assert "gpu" not in file.read_text()
    assert House(folder).waiting == {}
    more = '[project]\nname = "x"\ndependencies = ["new"]\n[tool.llm_magic]\nmodel = "vllm:m"\n'
    write(more + URL + "timeout = 5\n")
    house = House(folder)
    assert house.waiting == {}
    assert house.registry.get("vllm").timeout == 5.0
    write(more + URL.replace("gpu", "evil"))
    house = House(folder)
    assert set(house.waiting) == {"VLLMProvider.base_url"}
    assert house.registry.get("vllm").base_url == ""
    assert house.registry.waiting_line() == (
        f"Changed since %llm_config trust: VLLMProvider.base_url. VLLMProvider.base_url in {folder / 'pyproject.toml'} "
        "waits for %llm_config trust, which shows it and puts it in force."
    )
    house.registry.trust_project()
    assert House(folder).waiting == {}


@pytest.mark.parametrize("change", ["one more", "one less", "another place"])
def test_exactly_these_settings(write: Callable[[str], Path], tmp_path: Path, change: str) -> None:
    both = URL + 'api_key_env = "GPU_KEY"\n'
    House(write(both)).registry.trust_project()
    assert House(tmp_path).waiting == {}
    if change == "one more":
        write(both + 'http_client = "payload:make"\n')
    elif change == "one less":  # the key would go to the standard address
        write('[tool.llm_magic.VLLMProvider]\napi_key_env = "GPU_KEY"\n')
    else:
        (tmp_path / "copy").mkdir()
        (tmp_path / "pyproject.toml").rename(tmp_path / "copy" / "pyproject.toml")
        assert len(House(tmp_path / "copy").waiting) == 2
        return
    house = House(tmp_path)
    assert "VLLMProvider.api_key_env" in house.waiting
    assert house.registry.get("vllm").api_key_env == ""


def test_trust_in_one_file_is_none_in_another(write: Callable[[str], Path], tmp_path: Path, memory: Path) -> None:
    House(write(URL)).registry.trust_project()
    (known,) = memory.iterdir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "pyproject.toml").write_text(URL)
    house = House(other)
    house.registry.trust_project()
    (new,) = set(memory.iterdir()) - {known}
    new.write_bytes(known.read_bytes())
    assert len(House(other).waiting) == 1


def test_names_that_look_alike_are_not_taken_for_each_other(write: Callable[[str], Path]) -> None:
    one = '[tool.llm_magic.model_params.a]\n"b.header" = {X = "1"}\n'
    other = '[tool.llm_magic.model_params."a.b"]\nheader = {X = "1"}\n'
    House(write(one)).registry.trust_project()
    assert House(write(one)).waiting == {}
    assert len(House(write(other)).waiting) == 1
    twice = one.replace('"1"', '"%s"') + other
    House(write(twice % 1)).registry.trust_project()
    assert House(write(twice % 1)).waiting == {}
    assert len(House(write(twice % 2)).registry.waiting) == 2


@pytest.mark.parametrize(
    "text",
    ['[tool.llm_magic]\n"%s" = 1\n', '[tool.llm_magic.providers]\n"%s" = {class = "vllm", base_url = "http://x/v1"}\n',
     '[tool.llm_magic.aliases]\na = {"model" = "vllm:m", "x%s" = 1}\n',
     '[tool.llm_magic]\nparams = {x = [{"%s" = 1}]}\n'],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a\\u001b[31m", "a\\nIn force.", "a\\u202eb", "\\u0000"])
def test_a_name_out_of_the_file_draws_nothing_on_the_screen(write: Callable[[str], Path], text: str, name: str) -> None:
    problem = House(write(text % name)).registry.problem
    assert problem is not None
    assert "has a name that is not printable: '" in problem.message
    assert str(problem).replace("\n", "").isprintable()


def test_the_line_is_said_once_for_each_content(write: Callable[[str], Path], tmp_path: Path) -> None:
    folder = write(URL)
    line = House(folder).registry.waiting_line()
    assert line == (
        f"VLLMProvider.base_url in {tmp_path / 'pyproject.toml'} waits for %llm_config trust, which shows it and puts "
        "it in force."
    )
    assert House(folder).registry.waiting_line() == ""
    write(URL.replace("gpu", "other"))
    assert House(folder).registry.waiting_line() == line
    write(EVERYTHING)
    assert (
        House(folder)
        .registry.waiting_line()
        .startswith("LLMMagics.chat_file, LLMMagics.params.header and 31 more settings in ")
    )


def test_forgotten_it_waits_again(write: Callable[[str], Path], memory: Path) -> None:
    house = House(write(URL))
    trusted = house.registry.trust_project()
    assert trusted is not None
    assert trust.forget(trusted)
    assert list(memory.iterdir()) == []
    assert not trust.forget(trusted)
    assert len(House(write(URL)).waiting) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b'{"settings": 3}', b'{"settings": [1]}', b'{"settings": {"VLLMProvider.base_url": ""}}',
     b"\xff", b"[" * 100_000, b'{"settings": [["VLLMProvider.base_url"]]}'],
)  # fmt: skip
def test_a_damaged_memory_trusts_nothing_and_says_so(
    write: Callable[[str], Path], memory: Path, content: bytes
) -> None:
    folder = write(URL)
    House(folder).registry.trust_project()
    (file,) = memory.iterdir()
    file.write_bytes(content)
    house = House(folder)
    assert len(house.waiting) == 1
    assert house.registry.waiting_line().startswith(f"{file} is damaged, so nothing is trusted. ")
    house.registry.trust_project()
    assert House(folder).waiting == {}


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_memory_that_others_may_write_trusts_nothing(write: Callable[[str], Path], memory: Path, mode: int) -> None:
    folder = write(URL)
    House(folder).registry.trust_project()
    (file,) = memory.iterdir()
    file.chmod(mode)
    house = House(folder)
    assert len(house.waiting) == 1
    assert f"{file} may be written by others, so nothing is trusted." in house.registry.waiting_line()
    house.registry.trust_project()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert House(folder).waiting == {}


@AS_ROOT
def test_a_memory_of_another_user_trusts_nothing(write: Callable[[str], Path], memory: Path) -> None:
    folder = write(URL)
    House(folder).registry.trust_project()
    os.chown(next(memory.iterdir()), OTHER, -1)
    assert len(House(folder).waiting) == 1


def test_a_memory_that_is_a_pipe_or_a_link_makes_nobody_wait(write: Callable[[str], Path], memory: Path) -> None:
    folder = write(URL)
    House(folder).registry.trust_project()
    (file,) = memory.iterdir()
    file.unlink()
    os.mkfifo(file)
    house = House(folder)
    assert len(house.waiting) == 1
    with pytest.raises(ConfigurationError, match="cannot be remembered"):
        house.registry.trust_project()
    assert house.registry.get("vllm").base_url == ""


def test_where_nothing_can_be_remembered_nothing_is_put_in_force(write: Callable[[str], Path], memory: Path) -> None:
    folder = write(URL)
    memory.parent.parent.mkdir(exist_ok=True)
    memory.parent.write_text("a file in the place of the folder")
    house = House(folder)
    with pytest.raises(ConfigurationError) as caught:
        house.registry.trust_project()
    assert caught.value.message.endswith("cannot be remembered: Not a directory.")
    assert len(house.waiting) == 1
    assert house.registry.get("vllm").base_url == ""


def test_many_kernels_at_once(tmp_path: Path, memory: Path) -> None:
    folders = [tmp_path / str(number) for number in range(8)]
    for folder in folders:
        folder.mkdir()
        (folder / "pyproject.toml").write_text(URL)
    threads = [threading.Thread(target=House(folder).registry.trust_project) for folder in folders * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [House(folder).waiting for folder in folders] == [{}] * 8
    assert len(list(memory.iterdir())) == 8


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_trust import House
house, step = House(Path(sys.argv[1])), 0
def count(event, arguments):
    global step
    if event.split(".")[0] in {"open", "os"} and "trusted" in str(arguments):
        step += 1
        if step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
house.registry.trust_project()
print("whole")
"""


def test_a_kill_in_the_midst_leaves_the_old_memory_or_the_new_one(write: Callable[[str], Path], memory: Path) -> None:
    folder = write(URL)
    House(folder).registry.trust_project()
    write(URL.replace("gpu", "new"))
    for step in range(1, 30):
        ran = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", KILLED, folder, str(step), Path(__file__).parent],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ran.stdout:
            break
        assert ran.returncode == -9, ran.stderr
        house = House(folder)
        assert "damaged" not in house.registry.waiting_line()
        assert house.waiting == {} or "Changed since" in trust.Project.line(house.registry.project)  # type: ignore[arg-type]
    assert step > 3
    assert House(folder).waiting == {}


@pytest.mark.parametrize(("value", "trusts"), [("1", True), ("true", True), ("yes", False), ("0", False), ("", False),
                                               ("TRUE", False), (" 1", False)])  # fmt: skip
def test_the_variable_for_ci(
    write: Callable[[str], Path], memory: Path, monkeypatch: pytest.MonkeyPatch, value: str, trusts: bool
) -> None:
    monkeypatch.setenv("LLM_MAGIC_TRUST", value)
    house = House(write(URL))
    assert (house.waiting == {}) is trusts
    if trusts:
        assert house.registry.project is not None
        assert house.registry.project.trusted == f"LLM_MAGIC_TRUST={value}"
        assert house.registry.get("vllm").base_url == "http://gpu:8000/v1"
    assert not memory.exists()


def test_a_relative_folder_of_configuration_is_void(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform == "linux":
        assert trust.folder() == tmp_path / ".config" / "llm_magic"


LITELLM = """
model_list:
- model_name: fast
  litellm_params: {model: openai/m, api_base: "http://%s/v1", api_key: none}
"""


def test_a_litellm_configuration_is_trusted_as_it_is(write: Callable[[str], Path], tmp_path: Path) -> None:
    folder, config = write('[tool.llm_magic]\nlitellm_config = "config.yaml"\n'), tmp_path / "config.yaml"
    config.write_text(LITELLM % "good")
    house = House(folder)
    assert set(house.waiting) == {"ProviderRegistry.litellm_config"}
    assert house.registry.all_aliases() == {}
    house.registry.trust_project()
    assert house.registry.resolve("fast").provider.url() == "http://good/v1"
    config.write_text(LITELLM % "evil")
    os.utime(config, ns=(1, 1))
    with pytest.raises(ConfigurationError, match="has changed since it was trusted"):
        house.registry.resolve("fast")
    assert set(House(folder).waiting) == {"ProviderRegistry.litellm_config"}
    house.registry.trust_project()
    assert house.registry.resolve("fast").provider.url() == "http://evil/v1"


def test_a_table_of_prices_is_trusted_as_it_is(write: Callable[[str], Path], tmp_path: Path) -> None:
    folder, prices = write('[tool.llm_magic]\nprice_file = "prices.json"\n'), tmp_path / "prices.json"
    prices.write_text('{"openai:*": {"input": 1, "output": 2}}')
    house = House(folder)
    assert set(house.waiting) == {"ProviderRegistry.price_file"}
    assert house.registry.get("openai").price("gpt-5") is None
    house.registry.trust_project()
    assert house.registry.get("openai").price("gpt-5") == Price(1, 2)
    prices.write_text('{"openai:*": {"input": 0, "output": 0}}')
    os.utime(prices, ns=(1, 1))
    with pytest.raises(ConfigurationError, match="has changed since it was trusted"):
        house.registry.get("openai").price("gpt-5")


def test_no_project_changes_what_the_user_may_spend(write: Callable[[str], Path]) -> None:
    folder = write(
        "[tool.llm_magic]\nbudget = {}\nbudget_tokens_per_request = 1\n"
        '[tool.llm_magic.OpenAIProvider]\nbudget = {cost = 1000}\nprices = {"*" = {input = 0, output = 0}}\n'
    )
    house = House(folder, LLMMagics={"budget": {"cost": 5}}, OpenAIProvider={"budget": {"tokens": 100}})
    assert set(house.waiting) == {
        "LLMMagics.budget",
        "LLMMagics.budget_tokens_per_request",
        "OpenAIProvider.budget",
        "OpenAIProvider.prices",
    }
    assert set(house.waiting.values()) == {"use more than your own budget allows"}
    openai = house.registry.get("openai")
    assert (house.settings.budget, openai.budget, openai.price("gpt-5")) == ({"cost": 5}, {"tokens": 100}, None)
    house.registry.trust_project()
    assert (house.settings.budget, openai.budget, openai.price("gpt-5")) == ({}, {"cost": 1000}, Price(0, 0))


def test_what_is_no_budget_in_a_project_names_its_file(write: Callable[[str], Path]) -> None:
    folder = write("[tool.llm_magic]\nbudget = {token = 5}\n")
    house = House(folder)
    with pytest.raises(ConfigurationError, match=r"pyproject.toml\): LLMMagics.budget has no limit 'token'"):
        house.registry.trust_project()


# Where the file is looked for, and whose it is


def found(folder: Path) -> Path | None:
    file = find_project(folder)
    return None if file is None else file.path.parent


def test_the_search_ends_at_the_repositorys_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    root, inner = tmp_path / "repository", tmp_path / "repository" / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.llm_magic]\nmodel = "above:m"\n')
    assert list(places(inner)) == [inner]
    assert found(inner) is None
    assert found(tmp_path) == tmp_path  # the folder itself
    (root / ".git").mkdir()
    assert list(places(inner)) == [inner, root / "a", root]
    assert found(inner) is None
    (root / "pyproject.toml").write_text('[tool.llm_magic]\nmodel = "root:m"\n')
    assert found(inner) == root
    (root / ".git").rmdir()
    (root / ".git").write_text("gitdir: elsewhere")  # a worktree, or a submodule
    assert found(inner) == root
    (root / "a" / ".git").mkdir()
    assert found(inner) is None


def test_the_search_ends_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, inner = tmp_path / "home", tmp_path / "home" / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "pyproject.toml").write_text('[tool.llm_magic]\nmodel = "above:m"\n')
    assert list(places(inner)) == [inner, home / "a", home]
    assert found(inner) is None
    (home / "pyproject.toml").write_text('[tool.llm_magic]\nmodel = "home:m"\n')
    assert found(inner) == home
    assert found(home) == home
    link = tmp_path / "link"
    link.symlink_to(inner)
    assert found(link) == home
    monkeypatch.setenv("HOME", "/")
    assert list(places(inner)) == [inner]


@AS_ROOT
@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_a_file_of_another_user_sets_nothing(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[tool.llm_magic]\nmodel = "openai:evil"\n' + URL
    file = tmp_path / "pyproject.toml"
    if what == "link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "x.toml").write_text(text)
        file.symlink_to(tmp_path / "elsewhere" / "x.toml")
        os.lchown(file, OTHER, -1)
    else:
        file.write_text(text)
        os.chown(file if what == "file" else tmp_path, OTHER, -1)
    house = House(tmp_path)
    assert set(house.waiting) == {"LLMMagics.model", "VLLMProvider.base_url"}
    assert house.settings.model == ""
    owner = {"file": "it", "folder": "its folder", "link": "the link to it"}[what]
    assert house.registry.waiting_line() == (
        f"{file} sets nothing, because {owner} belongs to another user (uid {OTHER}): %llm_config trust shows it and "
        "puts it in force."
    )
    house.registry.trust_project()
    assert house.settings.model == "openai:evil"
    assert House(tmp_path).waiting == {}
    if what == "file":
        file.write_text(text.replace("openai:evil", "openai:more"))  # any setting of it needs trust
        assert len(House(tmp_path).waiting) == 2


@AS_ROOT
@pytest.mark.parametrize("text", ["[tool.llm_magic\n", "[tool.llm_magic]\nmodle = 1\n", "[tool.llm_magic]\nmodel = 1\n",
                                  "[tool]\nllm_magic = 3\n", "# llm_magic " + "x" * 2**20])  # fmt: skip
def test_a_wrong_file_of_another_user_stops_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    os.chown(tmp_path / "pyproject.toml", OTHER, -1)
    house = House(tmp_path)
    assert house.registry.problem is None
    assert house.registry.resolve("vllm:m").model == "m"


def test_a_file_of_roots_is_taken_as_the_users(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write('[tool.llm_magic]\nmodel = "vllm:m"\n')
    owner = (folder / "pyproject.toml").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    house = House(folder)
    assert house.settings.model == ("vllm:m" if owner == 0 else "")


def test_a_system_without_numbers_of_users(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "geteuid")
    house = House(write('[tool.llm_magic]\nmodel = "vllm:m"\n' + URL))
    assert house.settings.model == "vllm:m"
    assert set(house.waiting) == {"VLLMProvider.base_url"}
    house.registry.trust_project()
    assert House(write('[tool.llm_magic]\nmodel = "vllm:m"\n' + URL)).waiting == {}


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "sets"),
    [(0o644, 0o755, True), (0o664, 0o775, True), (0o600, 0o700, True), (0o646, 0o755, False), (0o666, 0o755, False),
     (0o644, 0o777, False), (0o644, 0o1777, True)],
)  # fmt: skip
def test_a_file_that_everybody_may_write_sets_nothing(
    write: Callable[[str], Path], file_mode: int, folder_mode: int, sets: bool
) -> None:
    folder = write('[tool.llm_magic]\nmodel = "vllm:m"\n')
    (folder / "pyproject.toml").chmod(file_mode)
    folder.chmod(folder_mode)
    house = House(folder)
    assert house.settings.model == ("vllm:m" if sets else "")
    if not sets:
        what = "its folder" if folder_mode == 0o777 else "it"
        assert f"sets nothing, because everybody may write to {what}: " in house.registry.waiting_line()
    folder.chmod(0o755)


def test_what_is_no_plain_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.llm_magic]\nmodel = "vllm:m"\n')
    started = time.monotonic()
    for name, make in (
        ("folder", Path.mkdir),
        ("pipe", os.mkfifo),
        ("loop", lambda path: path.symlink_to(path)),
        ("device", lambda path: path.symlink_to("/dev/zero")),
        ("terminal", lambda path: path.symlink_to("/dev/tty")),
    ):
        (tmp_path / name).mkdir()
        make(tmp_path / name / "pyproject.toml")  # type: ignore[operator]
        assert House(tmp_path / name).settings.model == "vllm:m", name
    assert time.monotonic() - started < 5


def test_a_file_that_is_too_long_or_no_text(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("# long\n" * 200_000)
    assert find_project(tmp_path) is None
    file.write_text("[tool.llm_magic]\n" + "# long\n" * 200_000)
    with pytest.raises(ConfigurationError, match="it is larger than 1 MB"):
        find_project(tmp_path)
    for content in (b"[tool.llm_magic]\nmodel = '\xff'\n", b"[tool]\nllm_magic = 3\n", b"tool = 3 # llm_magic\nx = ["):
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            find_project(tmp_path)
    for content in (b"tool = 3 # llm_magic", b"\xff\xfe", b"", b"[tool.other]\nname = 'llm_magic'\n"):
        file.write_bytes(content)
        assert find_project(tmp_path) is None


def test_the_owner_is_that_of_the_file_that_was_read(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write('[tool.llm_magic]\nmodel = "vllm:m"\n')
    asked: list[os.stat_result] = []
    judged = project._doubt

    def doubt(path: Path, found: os.stat_result) -> str:
        path.rename(path.with_name("read.toml"))  # another file takes the name meanwhile
        path.write_text("[tool.llm_magic]\n")
        asked.append(found)
        return judged(path, found)

    monkeypatch.setattr(project, "_doubt", doubt)
    file = find_project(folder)
    assert file is not None
    assert file.table == {"model": "vllm:m"}
    assert asked[0].st_ino == (folder / "read.toml").stat().st_ino


# What is said where something is missing


def test_an_error_says_what_waits(write: Callable[[str], Path]) -> None:
    folder = write(
        '[tool.llm_magic]\nroutes = {"x-*" = "gpu"}\n[tool.llm_magic.providers]\n'
        'gpu = {class = "vllm", base_url = "http://gpu:1/v1"}\n[tool.llm_magic.CompatibleProvider]\nbase_url = "http://y"\n'
    )
    house = House(folder)
    where = f"in {folder / 'pyproject.toml'} wait for %llm_config trust."
    for name, kind in (("gpu:m", ModelNotFoundError), ("x-1", ConfigurationError)):
        with pytest.raises(kind) as caught:
            house.registry.resolve(name)
        assert caught.value.hint.endswith(f" ProviderRegistry.providers.gpu and CompatibleProvider.base_url {where}")
    house.registry.trust_project()
    with pytest.raises(ModelNotFoundError) as missing:
        house.registry.resolve("gpx:m")
    assert "trust" not in missing.value.hint


def test_what_is_shown_says_that_the_projects_value_waits(write: Callable[[str], Path]) -> None:
    folder = write('[tool.llm_magic]\nchat_file = "x"\nmax_rows = 3\n' + URL)
    house = House(folder)
    assert house.shown("LLMMagics.chat_file").source == "default; project: waits for %llm_config trust"
    assert house.shown("VLLMProvider.base_url").source == "default; project: waits for %llm_config trust"
    assert house.shown("LLMMagics.max_rows").source == f"project ({folder / 'pyproject.toml'})"
    house.registry.trust_project()
    assert house.shown("VLLMProvider.base_url").source == f"project ({folder / 'pyproject.toml'})"
    assert json.loads(next((trust.folder() / "trusted").iterdir()).read_text())["path"] == str(
        folder / "pyproject.toml"
    )
