"""Nearest wins: session over project over profile over default, and each value knows where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from llm_magic.config.effective import Setting, masked, set_value, settings_in_force
from llm_magic.config.project import find_project, misspelled
from llm_magic.config.settings import Settings
from llm_magic.errors import ConfigurationError, OptionError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


class LLMMagics(Settings):
    """Stands for the magics: the settings, in the section of that name."""


class House:
    """Settings and registry as loading makes them."""

    def __init__(self, folder: Path, profile: str = "") -> None:
        config = Config()
        exec(profile, {"c": config})  # noqa: S102 - as ipython_config.py
        self.settings = LLMMagics(config=config)
        self.registry = ProviderRegistry(parent=self.settings)
        self.registry.apply_project(self.settings, folder)

    def config(self, line: str) -> None:
        """Do what `%config LINE` does."""
        config = Config()
        exec(f"c.{line}", {"c": config})  # noqa: S102 - lines of this very test
        for owner in (self.settings, self.registry):
            owner.update_config(config)

    def all(self) -> dict[str, Setting]:
        return {item.name: item for item in settings_in_force(self.settings, self.registry)}

    def value(self, name: str) -> tuple[Any, str]:
        item = self.all()[name]
        return item.value, item.source.partition(" ")[0]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_each_source_in_turn(write: Any) -> None:
    folder = write(
        '[tool.llm_magic]\nmodel = "project:m"\n[tool.llm_magic.OpenAIProvider]\ntimeout = 20\nmax_retries = 2\n'
    )
    profile = "c.LLMMagics.model = 'profile:m'\nc.LLMMagics.chat = 'profile'\n"
    profile += "c.OpenAIProvider.timeout = 10\nc.OpenAIProvider.organization = 'org-profile'"
    house = House(folder, profile)
    assert house.value("LLMMagics.model") == ("project:m", "project")
    assert house.value("LLMMagics.chat") == ("profile", "profile")
    assert house.value("LLMMagics.system") == ("", "default")
    assert house.value("OpenAIProvider.timeout") == (20.0, "project")
    assert house.value("OpenAIProvider.max_retries") == (2, "project")
    assert house.value("OpenAIProvider.organization") == ("org-profile", "profile")
    assert house.value("OpenAIProvider.api") == ("chat", "default")
    house.config("LLMMagics.model = 'session:m'")
    house.config("OpenAIProvider.timeout = 30")
    assert house.value("LLMMagics.model") == ("session:m", "session")
    assert house.value("OpenAIProvider.timeout") == (30.0, "session")
    assert house.value("OpenAIProvider.max_retries") == (2, "project")
    assert house.all()["OpenAIProvider.max_retries"].source == f"project ({folder / 'pyproject.toml'})"


def test_the_session_wins_also_where_the_provider_is_made_later(write: Any) -> None:
    house = House(write("[tool.llm_magic.OpenAIProvider]\ntimeout = 20\n"), "c.OpenAIProvider.timeout = 10")
    house.config("OpenAIProvider.timeout = 30")
    assert house.registry.get("openai").timeout == 30.0
    assert house.value("OpenAIProvider.timeout") == (30.0, "session")


def test_a_trait_set_by_hand_is_the_sessions(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.registry.get("vllm").timeout = 5
    house.settings.model = "vllm:"
    assert house.value("VLLMProvider.timeout") == (5.0, "session")
    assert house.value("LLMMagics.model") == ("vllm:", "session")


def test_a_section_below_the_magics_beats_the_plain_one(tmp_path: Path) -> None:
    house = House(tmp_path, "c.VLLMProvider.timeout = 1\nc.LLMMagics.VLLMProvider.timeout = 2")
    assert house.value("VLLMProvider.timeout") == (2.0, "profile")


def test_a_setting_of_all_providers(tmp_path: Path) -> None:
    house = House(tmp_path, "c.Provider.timeout = 9\nc.VLLMProvider.timeout = 8")
    assert house.registry.get("openai").timeout == 9.0
    assert house.registry.get("vllm").timeout == 8.0


NAMED = "c.ProviderRegistry.providers = {'eu': {'class': 'azure', 'timeout': 11}, 'us': {'class': 'azure'}}\n"


def test_named_providers_take_their_class_settings_and_their_own(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MAGIC_TRUST", "1")  # `eu` would take the place of the user's own
    folder = write(
        '[tool.llm_magic.providers]\neu = {class = "azure", timeout = 22}\nasia = {class = "vllm"}\n'
        "[tool.llm_magic.AzureProvider]\nmax_retries = 3\n"
    )
    house = House(folder, NAMED + "c.AzureProvider.api_version = '2024-10-21'")
    assert house.value("eu.timeout") == (22.0, "project")
    assert house.value("eu.max_retries") == (3, "project")
    assert house.value("eu.api_version") == ("2024-10-21", "profile")
    assert house.value("us.timeout") == (120.0, "default")
    assert "asia.timeout" in house.all()
    house.config("AzureProvider.timeout = 33")
    assert house.value("eu.timeout") == (33.0, "session")
    assert house.value("us.timeout") == (33.0, "session")
    house.registry.add("late", "azure", max_retries=5)
    assert house.value("late.timeout") == (33.0, "session")
    assert house.value("late.max_retries") == (5, "session")
    house.registry.add("eu", "azure", timeout=44)
    assert house.value("eu.timeout") == (44.0, "session")


def test_mappings_of_project_and_profile_are_put_together(write: Any) -> None:
    folder = write('[tool.llm_magic.aliases]\nb = "vllm:project"\nc = "vllm:c"\n[tool.llm_magic.params]\nseed = 2\n')
    profile = (
        "c.ProviderRegistry.aliases = {'a': 'vllm:a', 'b': 'vllm:b'}\nc.LLMMagics.params = {'seed': 1, 'top_p': 1}"
    )
    house = House(folder, profile)
    assert house.registry.aliases == {"a": "vllm:a", "b": "vllm:project", "c": "vllm:c"}
    assert house.settings.params == {"seed": 2, "top_p": 1}


def test_sections_of_the_two_main_classes(write: Any) -> None:
    house = House(
        write('[tool.llm_magic.LLMMagics]\nmodel = "a:b"\n[tool.llm_magic.ProviderRegistry.routes]\n"x*" = "vllm"\n')
    )
    assert house.value("LLMMagics.model") == ("a:b", "project")
    assert house.registry.resolve("xy").provider.name == "vllm"


def test_the_nearest_file_with_a_section_of_ours(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text('[tool.llm_magic]\nmodel = "outer:m"\n')
    (tmp_path / "a" / "pyproject.toml").write_text('[tool.other]\nname = "llm_magic"\n')
    found = find_project(inner)
    assert found is not None
    assert found.path == tmp_path / "pyproject.toml"
    (inner / "pyproject.toml").write_text('[tool.llm_magic]\nmodel = "inner:m"\n')
    assert House(inner).settings.model == "inner:m"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.llm_magic]\nmodle = 'x'\n", "unknown setting modle"),
        ("[tool.llm_magic.LLMMagics]\nmodle = 'x'\n", "unknown setting LLMMagics.modle"),
        ("[tool.llm_magic.OpenAIProvidr]\ntimeout = 1\n", "unknown setting OpenAIProvidr"),
        ("[tool.llm_magic]\nhistory_turns = 'many'\n", "history_turns"),
        ("[tool.llm_magic\n", "cannot be read"),
    ],
)
def test_a_wrong_file_stops_the_first_cell_and_not_the_loading(write: Any, text: str, said: str) -> None:
    folder = write(text)
    house = House(folder)
    with pytest.raises(ConfigurationError) as caught:
        house.registry.resolve("vllm:m")
    assert said in caught.value.message
    assert str(folder / "pyproject.toml") in caught.value.message


def test_a_wrong_setting_of_a_class_stops_those_who_ask_for_it(write: Any) -> None:
    house = House(write("[tool.llm_magic.OpenAIProvider]\ntimout = 1\n"), "c.VLLMProvider.tokeniser = 'x'")
    with pytest.raises(ConfigurationError, match="has no setting 'timout'"):
        house.registry.resolve("openai:m")
    with pytest.raises(ConfigurationError, match="has no setting 'tokeniser'"):
        house.registry.resolve("vllm:m")
    assert house.registry.resolve("compatible:m").model == "m"


def test_setting_a_value_by_its_name(tmp_path: Path) -> None:
    house = House(tmp_path, NAMED)
    assert set_value(house.settings, house.registry, "model", "vllm:m").name == "LLMMagics.model"
    assert house.settings.model == "vllm:m"
    set_value(house.settings, house.registry, "LLMMagics.history_turns", "3")
    assert house.settings.history_turns == 3
    set_value(house.settings, house.registry, "aliases", "{'a': 'vllm:m'}")
    assert house.registry.resolve("a").model == "m"
    set_value(house.settings, house.registry, "AzureProvider.timeout", "5")
    assert house.registry.get("eu").timeout == house.registry.get("us").timeout == 5.0
    setting = set_value(house.settings, house.registry, "eu.timeout", 6)
    assert (setting.name, setting.value, setting.source) == ("eu.timeout", 6.0, "session")
    assert house.registry.get("us").timeout == 5.0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("modle", "x", "Did you mean"),
        ("LLMMagics.modle", "x", "LLMMagics.model"),
        ("OpenAIProvider.timout", "1", "Did you mean timeout"),
        ("OpenAIProvider.api_key", "sk-abc", "api_key_env"),
        ("OpenAIProvider.timeout", "soon", "does not take that value"),
        ("OpenAIProvider.api_key_env", "sk-abcdef-ghijkl", "looks like a key itself"),
        ("Nobody.timeout", "1", "no setting Nobody.timeout"),
    ],
)
def test_what_cannot_be_set(tmp_path: Path, name: str, value: str, said: str) -> None:
    house = House(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        set_value(house.settings, house.registry, name, value)
    assert said in str(caught.value)


def test_what_is_shown_hides_secrets(tmp_path: Path) -> None:
    profile = (
        "c.CompatibleProvider.base_url = 'https://me:PASSMARK@h/v1?k=QUERYMARK'\n"
        "c.CompatibleProvider.http_client_kwargs = {'proxy': 'http://me:PASSMARK@p:1'}\n"
        "c.CompatibleProvider.api_key_env = 'MY_KEY'\n"
        "c.CompatibleProvider.headers_env = {'X-Token': 'MY_TOKEN'}\n"
        "c.CompatibleProvider.default_query = {'token': 'QUERYMARK'}\n"
        "c.ProviderRegistry.providers = {'x': {'class': 'compatible', 'base_url': 'http://a:PASSMARK@h/v1'}}"
    )
    shown = House(tmp_path, profile).all()
    assert not [item.shown for item in shown.values() if "MARK" in item.shown]
    assert shown["CompatibleProvider.api_key_env"].shown == "'MY_KEY'"
    assert shown["CompatibleProvider.headers_env"].shown == "{'X-Token': 'MY_TOKEN'}"
    assert shown["CompatibleProvider.base_url"].shown == "'https://***@h/v1?k=***'"
    assert masked({"class": "vllm", "tokenizer": "org/name"}) == {"class": "vllm", "tokenizer": "org/name"}


def test_every_setting_says_what_it_is_for(tmp_path: Path) -> None:
    shown = House(tmp_path).all()
    assert [name for name, item in shown.items() if not item.help] == []


@pytest.mark.parametrize(
    ("section", "shown"),
    [
        ("[tool.llm-magic]", "[tool.llm-magic]"),
        ("[tool.llmmagic]", "[tool.llmmagic]"),
        ("[tool.LLM_Magic]", "[tool.LLM_Magic]"),
        ("[tool.llm_magics.params]", "[tool.llm_magics]"),
        ("[llm_magic]", "[llm_magic]"),
        ("[llm-magic.params]", "[llm-magic]"),
    ],
)
def test_a_misspelled_section_is_said_once(tmp_path: Path, section: str, shown: str) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text(f"[tool.other]\nllm_magic = 1\n{section}\ntemperature = 0\n")
    inner = tmp_path / "notebooks"
    inner.mkdir()
    house = House(inner)
    said: list[str] = []
    session = Session(house.settings, house.registry, said.append)
    session.tell()
    session.tell()
    file = tmp_path / "pyproject.toml"
    assert said == [f"{shown} in {file} sets nothing: the section of llm_magic is [tool.llm_magic]."]
    session.close()


def test_other_sections_are_not_misspelled(write: Any) -> None:
    folder = write('[project]\nname = "llm-magic"\ndependencies = ["llm-magic"]\n[tool.llm]\nx = 1\n[tool.llm_magic]\n')
    assert misspelled(folder) == ""


def test_unknown_keys_have_close_matches(write: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        House(write("[tool.llm_magic]\nmodle = 'x'\n")).registry.resolve("vllm:m")
    assert caught.value.hint == "Did you mean model?"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("params", "{'temprature': 0}", "params has no option temprature.\nDid you mean temperature?"),
        ("LLMMagics.params", "{'temperature': 'hot'}", "LLMMagics.params: temperature must be a number, not 'hot'."),
        ("model_params", "{'gpt-*': {'temprature': 0}}", "model_params['gpt-*'] has no option temprature."),
        ("aliases", "{'a': {'model': 'vllm:m', 'fallback': 'b'}}", "The alias a has no option fallback."),
    ],
)
def test_unknown_options_are_refused_where_they_are_set(tmp_path: Path, name: str, value: str, said: str) -> None:
    house = House(tmp_path)
    with pytest.raises(OptionError) as caught:
        set_value(house.settings, house.registry, name, value)
    assert str(caught.value).startswith(said)
    assert (house.settings.params, house.settings.model_params, house.registry.aliases) == ({}, {}, {})
