"""A key is refused wherever it would be given by name, before anything is sent and without its value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_magic.api import LLM
from llm_magic.config.settings import Settings
from llm_magic.embeddings import EmbeddingOptions
from llm_magic.errors import LLMError, OptionError
from llm_magic.options.mapping import from_mapping
from llm_magic.options.reader import parse
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session.plan import choose

VALUE = "sk-live-0123456789abcdef"
NAMES = ["api_key", "apikey", "api-key", "API_KEY", "Authorization", "token", "secret", "password"]


def _alias(name: str) -> None:
    registry = ProviderRegistry(aliases={"mine": {"model": "openai:m", name: VALUE}})
    options, _ = parse("-m mine")
    choose(options, Settings(), registry)


def _params(name: str) -> None:
    options, _ = parse("-m openai:m")
    choose(options, Settings(params={name: VALUE}), ProviderRegistry())


def _model_params(name: str) -> None:
    options, _ = parse("-m openai:m")
    choose(options, Settings(model_params={"*": {"param": {name: VALUE}}}), ProviderRegistry())


DOORS: dict[str, Callable[[str], Any]] = {
    "-p": lambda name: parse(f"-p {name}={VALUE}"),
    "--param": lambda name: parse(f'--param "{name}={VALUE}"'),
    "LLM(…)": lambda name: LLM("m", **{name: VALUE}),
    "LLM(param=…)": lambda name: LLM("m", param={name: VALUE}),
    "ask(…)": lambda name: LLM("m").ask("Hi", **{name: VALUE}),
    "ask(param=…)": lambda name: LLM("m").ask("Hi", param={name: VALUE}),
    "embed(…)": lambda name: LLM("m").embed(["a"], **{name: VALUE}),
    "embed(param=…)": lambda name: EmbeddingOptions.of({"param": {name: VALUE}}, "m"),
    "params": _params,
    "model_params": _model_params,
    "an alias": _alias,
    "param of params": lambda name: from_mapping({"param": {name: VALUE}}, "LLMMagics.params"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("door", DOORS)
def test_a_key_is_refused(door: str, name: str) -> None:
    with pytest.raises(OptionError) as caught:
        DOORS[door](name)
    assert f"takes no {name}" in caught.value.message
    assert "api_key_env" in caught.value.hint
    assert "headers_env" in caught.value.hint
    assert "history" in caught.value.hint
    chain: BaseException | None = caught.value
    while chain is not None:
        assert VALUE not in f"{chain!r}{vars(chain)}"
        chain = chain.__cause__ or chain.__context__
    assert len(str(caught.value).splitlines()) == 2


def test_names_that_only_resemble_one_are_sent() -> None:
    options, _ = parse("-p user_token=a -p max_token=3 -p prompt_cache_key=k")
    assert options.param == {"user_token": "a", "max_token": 3, "prompt_cache_key": "k"}


def test_deeper_names_are_the_servers_own() -> None:
    assert from_mapping({"param": {"tool": {"token": 1}}}, "x").param == {"tool": {"token": 1}}


@pytest.mark.parametrize("line", [f"--header 'Authorization: Bearer {VALUE}'", f"--header {VALUE}", f"-p {VALUE}"])
def test_a_malformed_header_is_not_repeated(line: str) -> None:
    with pytest.raises(LLMError) as caught:
        parse(line)
    assert VALUE not in str(caught.value)


def test_a_header_may_be_written_out() -> None:
    options, _ = parse(f"--header Authorization={VALUE} --header X-Title=mine")
    assert options.header == {"Authorization": VALUE, "X-Title": "mine"}


def test_an_unknown_option_does_not_repeat_what_follows() -> None:
    with pytest.raises(OptionError) as caught:
        parse(f"--api-key {VALUE}")
    assert VALUE not in str(caught.value)
    with pytest.raises(OptionError) as caught:
        parse(f"--api-key={VALUE}")
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize("name", ["openai_api_key", "azure-api-key", "X_API_KEY"])
def test_a_key_by_the_name_of_another_library_is_refused(name: str) -> None:
    for refused in (
        lambda: LLM("s:m", **{name: "sk-0123456789abcdef"}),
        lambda: LLM("s:m", param={name: "sk-0123456789abcdef"}),
        lambda: parse(f"-p {name}=sk-0123456789abcdef"),
        lambda: parse(f"--{name} sk-0123456789abcdef"),
        lambda: parse("--api-key sk-0123456789abcdef"),
    ):
        with pytest.raises(OptionError, match=r"(?i)takes no .*api.key: keys do not stand in cells") as caught:
            refused()
        assert "sk-01" not in str(caught.value)
