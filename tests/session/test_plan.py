"""What is in force for a model: the call, over the nearest source; within one, aliases, `model_params`, `params`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from llm_magic.config.settings import Settings
from llm_magic.errors import ConfigurationError, OptionError
from llm_magic.options import Options
from llm_magic.options.reader import parse
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.plan import choose


class LLMMagics(Settings):
    """Stands for the magics: the settings, in the section of that name."""


class House:
    """Settings and registry as loading makes them: from a profile and a project's file."""

    def __init__(self, folder: Path, profile: str = "", project: str = "") -> None:
        config = Config()
        exec(profile, {"c": config})  # noqa: S102 - as ipython_config.py
        (folder / "pyproject.toml").write_text(project)
        self.settings = LLMMagics(config=config)
        self.registry = ProviderRegistry(parent=self.settings)
        self.registry.apply_project(self.settings, folder)
        Session(self.settings, self.registry)

    def config(self, line: str) -> None:
        """Do what `%config LINE` does."""
        config = Config()
        exec(f"c.{line}", {"c": config})  # noqa: S102 - lines of this very test
        for owner in (self.settings, self.registry):
            owner.update_config(config)

    def options(self, line: str = "-m mine") -> Options:
        return choose(parse(line)[0], self.settings, self.registry)[0].options

    def temperature(self, line: str = "-m mine") -> Any:
        return self.options(line).parameters.get("temperature")


ALIAS = "c.ProviderRegistry.aliases = {'mine': {'model': 'vllm:m', 'temperature': 0.1}}\n"
PARAMS = "c.LLMMagics.params = {'temperature': 0.3, 'seed': 3}\n"
OF_MODEL = "c.LLMMagics.model_params = {'vllm:*': {'temperature': 0.2}}\n"
PROJECT_ALIAS = '[tool.llm_magic.aliases]\nmine = {model = "vllm:m", temperature = 0.4}\n'
PROJECT_PARAMS = "[tool.llm_magic.params]\ntemperature = 0.5\n"


def test_within_one_source_the_alias_wins_then_the_model_then_all(tmp_path: Path) -> None:
    assert House(tmp_path, ALIAS + OF_MODEL + PARAMS).temperature() == 0.1
    assert House(tmp_path, ALIAS + OF_MODEL + PARAMS).temperature("-m vllm:m") == 0.2
    assert House(tmp_path, PARAMS).temperature("-m vllm:m") == 0.3
    assert House(tmp_path, ALIAS + OF_MODEL + PARAMS).temperature("-m mine -t 0.9") == 0.9


def test_a_nearer_source_wins_over_an_alias(tmp_path: Path) -> None:
    assert House(tmp_path, ALIAS, PROJECT_PARAMS).temperature() == 0.5
    assert House(tmp_path, PARAMS, PROJECT_ALIAS).temperature() == 0.4
    assert House(tmp_path, PARAMS + OF_MODEL, PROJECT_ALIAS + PROJECT_PARAMS).temperature() == 0.4
    assert House(tmp_path, OF_MODEL, PROJECT_PARAMS).temperature("-m vllm:m") == 0.5


def test_what_the_session_sets_wins_over_an_alias_of_elsewhere(tmp_path: Path) -> None:
    house = House(tmp_path, ALIAS, PROJECT_PARAMS)
    house.config("LLMMagics.params = {'temperature': 0.6}")
    assert house.temperature() == 0.6
    house.config("ProviderRegistry.aliases = {'mine': {'model': 'vllm:m', 'temperature': 0.7}}")
    assert house.temperature() == 0.7
    house.config("LLMMagics.params = {'temperature': 0.8}")
    assert house.temperature() == 0.7


def test_an_entry_that_the_session_leaves_as_it_is_keeps_its_source(tmp_path: Path) -> None:
    house = House(tmp_path, ALIAS + PARAMS)
    house.settings.params = {**house.settings.params, "seed": 4}  # as the picker sets one
    assert house.temperature() == 0.1
    assert house.options().parameters["seed"] == 4
    house.settings.params["temperature"] = 0.9  # in place
    assert house.temperature() == 0.9


def test_entries_of_profile_and_project_keep_their_sources(tmp_path: Path) -> None:
    house = House(tmp_path, ALIAS + PARAMS, "[tool.llm_magic.params]\ntop_p = 0.5\n")
    assert house.options().parameters == {"temperature": 0.1, "seed": 3, "top_p": 0.5}


def test_settings_of_their_own_are_of_their_source_too(tmp_path: Path) -> None:
    house = House(tmp_path, "c.ProviderRegistry.aliases = {'mine': {'model': 'vllm:m', 'system': 'Of the alias.'}}")
    assert house.options().system == "Of the alias."
    house.config("LLMMagics.system = 'Of the session.'")
    assert house.options().system == "Of the session."
    assert house.options("-m mine -s Mine").system == "Mine"


def test_an_alias_of_an_alias(tmp_path: Path) -> None:
    house = House(
        tmp_path,
        "c.ProviderRegistry.aliases = {'far': {'model': 'vllm:m', 'temperature': 0.1, 'seed': 1}}\n" + PARAMS,
        '[tool.llm_magic.aliases]\nmine = {model = "far", seed = 2}\n[tool.llm_magic.params]\nseed = 5\ntop_p = 1\n',
    )
    assert house.options().parameters == {"temperature": 0.1, "seed": 2, "top_p": 1.0}


UNKNOWN = "has no option temprature."
HINT = 'Did you mean temperature? A further field of the body stands in param: {"temprature": …}.'


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (ALIAS.replace("temperature", "temprature"), f"The alias mine {UNKNOWN}"),
        (PARAMS.replace("temperature", "temprature"), f"LLMMagics.params {UNKNOWN}"),
        (OF_MODEL.replace("temperature", "temprature"), f"LLMMagics.model_params['vllm:*'] {UNKNOWN}"),
        (
            "c.LLMMagics.model_params = {'elsewhere:*': {'temprature': 1}}",
            f"LLMMagics.model_params['elsewhere:*'] {UNKNOWN}",
        ),
    ],
)
def test_an_unknown_name_is_an_error_before_anything_is_sent(tmp_path: Path, profile: str, message: str) -> None:
    house = House(tmp_path, "c.ProviderRegistry.aliases = {'mine': 'vllm:m'}\n" + profile)
    with pytest.raises(OptionError) as caught:
        house.options()
    assert (caught.value.message, caught.value.hint) == (message, HINT)


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ("{'model': 'vllm:m', 'fallback': []}", "The alias mine has no option fallback.", "Did you mean fallbacks? "),
        ("{'model': 'vllm:m', 'max_new_tokens': 5}", "The alias mine has no option max_new_tokens.",
         "It is called max_tokens here. "),
        ("{'model': 'vllm:m', 'images': 'a.png'}", "The alias mine has no option images.", "It is called image here. "),
        ("{'model': 'vllm:m', 'top_k': 5}", "The alias mine has no option top_k.", "Did you mean top_p or stop? "),
        ("{'model': 'vllm:m', 'max-tokens': 5, 'max_tokens': 6}",
         "The alias mine gives max_tokens twice: max-tokens and max_tokens.", "Keep one of them."),
        ("{'model': 'vllm:m', 5: 6}", "The alias mine: 5 is no name of an option.", "Names are text."),
    ],
)  # fmt: skip
def test_names_of_an_alias(tmp_path: Path, entry: str, message: str, hint: str) -> None:
    house = House(tmp_path, f"c.ProviderRegistry.aliases = {{'mine': {entry}}}")
    with pytest.raises(OptionError) as caught:
        house.options()
    assert caught.value.message == message
    assert caught.value.hint.startswith(hint)


def test_params_that_are_no_options_by_model(tmp_path: Path) -> None:
    house = House(tmp_path, "c.LLMMagics.model_params = {'*': 5}")
    with pytest.raises(OptionError) as caught:
        house.options("-m vllm:m")
    assert caught.value.message == "LLMMagics.model_params['*'] must be a dict of options, not 5."


def test_what_is_configured_of_the_cell_itself_is_in_force(tmp_path: Path) -> None:
    house = House(
        tmp_path, "c.LLMMagics.params = {'chat': 'talk', 'show': 'text', 'code': True, 'background': True}\n" + ALIAS
    )

    def of(line: str) -> tuple[Any, ...]:
        options = house.options(line)
        return options.chat, options.once, options.show, options.code, options.background

    assert of("-m mine") == ("talk", None, "text", True, True)
    assert of("-m mine --once --show json") == (None, True, "json", True, True)
    house.config("LLMMagics.params = {'once': True}")
    assert of("-m mine") == (None, True, None, None, None)
    assert of("-m mine -c other") == ("other", None, None, None, None)


SECRET = "sk-live-0123456789"


@pytest.mark.parametrize("setting", ["params", "max_rows", "stream", "footer"])
def test_a_value_of_the_wrong_type_is_not_repeated(tmp_path: Path, setting: str) -> None:
    house = House(tmp_path, project=f"[tool.llm_magic]\n{setting} = '{SECRET}'\n")
    with pytest.raises(ConfigurationError) as caught:
        house.options("-m vllm:m")
    assert SECRET not in str(caught.value)
    assert f"{setting} expected " in caught.value.message
    assert caught.value.message.endswith(", not this str.")
