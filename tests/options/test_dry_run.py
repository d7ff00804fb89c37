"""`--dry-run`: the request first and as it would be sent; no key is needed, and nothing is sent, started or fetched."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from echo import PREAMBLE, echo
from kernels import Kernel
from servers import ScriptedServer

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import ConfigurationError, OptionError
from llm_magic.options.reader import parse
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.plan import Cell
from llm_magic.wire.call import Estimate, Preview


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with echo() as server:
        yield server


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def dry(session: Session, line: str, body: str = "Hi", **names: Any) -> Preview:
    return session.preview(Cell(body, parse(f"{line} --dry-run --once")[0], names))


KEYLESS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "openai": (
        {}, "https://api.openai.com/v1/chat/completions", "authorization", "Bearer env:OPENAI_API_KEY (not set)"
    ),
    "azure": (
        {"azure_endpoint": "https://r.openai.azure.com"}, "https://r.openai.azure.com/openai/v1/chat/completions",
        "authorization", "Bearer env:AZURE_OPENAI_API_KEY (not set)",
    ),
    "azure, classic": (
        {"azure_endpoint": "https://r.openai.azure.com", "api_version": "2024-10-21"},
        "https://r.openai.azure.com/openai/deployments/m/chat/completions?api-version=2024-10-21",
        "api-key", "env:AZURE_OPENAI_API_KEY (not set)",
    ),
    "azure, Entra": (
        {"azure_endpoint": "https://r.openai.azure.com", "azure_ad_token_env": "NO_TOKEN"},
        "https://r.openai.azure.com/openai/v1/chat/completions", "authorization", "Bearer env:NO_TOKEN (not set)",
    ),
    "azure, classic, Entra": (
        {"azure_endpoint": "https://r.openai.azure.com", "azure_ad_token_env": "NO_TOKEN", "api_version": "2024-10-21"},
        "https://r.openai.azure.com/openai/deployments/m/chat/completions?api-version=2024-10-21",
        "authorization", "Bearer env:NO_TOKEN (not set)",
    ),
    "vllm": (
        {"base_url": "http://gpu.invalid:8000", "api_key_env": "NO_KEY"},
        "http://gpu.invalid:8000/v1/chat/completions", "authorization", "Bearer env:NO_KEY (not set)",
    ),
    "compatible": (
        {"base_url": "https://gateway.invalid/v1", "headers_env": {"X-Key": "NO_KEY"}},
        "https://gateway.invalid/v1/chat/completions", "x-key", "env:NO_KEY (not set)",
    ),
    "compatible, with a word before it": (
        {"base_url": "https://gateway.invalid/v1", "headers_env": {"Helicone-Auth": "Bearer NO_KEY"}},
        "https://gateway.invalid/v1/chat/completions", "helicone-auth", "Bearer env:NO_KEY (not set)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYLESS)
def test_no_key_is_needed(session: Session, kind: str) -> None:
    traits, url, header, value = KEYLESS[kind]
    session.registry.add("mine", kind.partition(",")[0], **traits)
    shown = dry(session, "-m mine:m")
    assert shown.url == url
    assert {name.lower(): each for name, each in shown.headers.items()}[header] == value
    assert shown.body["messages"] == [{"role": "user", "content": "Hi"}]


def test_no_key_of_a_litellm_configuration_is_needed(session: Session, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "model_list:\n- model_name: fast\n  litellm_params:\n    model: openai/gpt-4o\n"
        "    api_base: https://gateway.invalid/v1\n    api_key: os.environ/NO_KEY\n"
    )
    session.registry.litellm_config = str(config)
    shown = dry(session, "-m fast")
    assert shown.url == "https://gateway.invalid/v1/chat/completions"
    assert shown.headers["authorization"] == "Bearer env:NO_KEY (not set)"


def test_what_is_set_is_masked_and_what_is_not_is_named(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_TOKEN", "team-0123456789")
    session.registry.add("mine", "compatible", base_url="https://gateway.invalid/v1")
    line = "-m mine:m --header X-Team=env:TEAM_TOKEN --header X-Title=mine --header X-No=env:NOPE"
    shown = dry(session, line, "team-0123456789")
    ours = {name: value for name, value in shown.headers.items() if name not in shown.added}
    assert ours == {
        "authorization": "Bearer ***", "x-team": "***", "x-title": "mine", "x-no": "env:NOPE (not set)",
    }  # fmt: skip
    assert "team-0123456789" not in str(shown)


def test_a_key_that_is_set_later_is_sent(
    session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.registry.add("mine", "compatible", base_url=server.url, api_key_env="LATER")
    dry(session, "-m mine:m")
    with pytest.raises(ConfigurationError, match="LATER is not set"):
        LLM("mine:m").ask("Hi")
    monkeypatch.setenv("LATER", "key-0123456789")
    assert LLM("mine:m").ask("Hi").text == "Hello"
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer key-0123456789"]


def test_a_url_that_is_missing_is_an_error(session: Session) -> None:
    for traits in ({}, {"base_url": "env:NO_URL"}):
        session.registry.add("mine", "compatible", **traits)
        with pytest.raises(ConfigurationError, match=r"base_url|NO_URL"):
            dry(session, "-m mine:m")
        session.registry.remove("mine")


@pytest.mark.parametrize("model", ["mine:m", "mine:", "mine"])
@pytest.mark.parametrize("kind", ["compatible", "vllm"])
def test_nothing_is_sent_or_listed(session: Session, server: ScriptedServer, kind: str, model: str) -> None:
    session.registry.add("mine", kind, base_url=server.url)
    shown = dry(session, f"-m {model}")
    assert shown.body["model"] == ("m" if model == "mine:m" else "(the first model listed)")
    assert server.connections == 0


def test_the_embedded_model_is_neither_fetched_nor_started(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*_: object) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("llm_magic.providers.local.fetch", fetched)
    monkeypatch.setattr("llm_magic.providers.local.bindings", fetched)
    assert dry(session, "-m local:").body["model"] == "smollm2"
    assert session.registry.get("local")._server is None  # type: ignore[attr-defined]


def test_no_tokenizer_is_downloaded(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def from_pretrained(name: str, **arguments: Any) -> None:
        asked.append({"name": name, **arguments})
        raise OSError("not here")

    transformers = SimpleNamespace(AutoTokenizer=SimpleNamespace(from_pretrained=from_pretrained))
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    session.registry.add("mine", "vllm", base_url="http://gpu.invalid:8000", tokenizer="org/model")
    with pytest.raises(ConfigurationError) as caught:
        dry(session, "-m mine:m")
    assert asked == [{"name": "org/model", "local_files_only": True}]
    assert caught.value.message == "The tokenizer org/model is not on this machine, and --dry-run downloads nothing."


PRICED = {"m": {"input": 2.0, "output": 10.0}}


@pytest.mark.parametrize(
    ("line", "estimate"),
    [
        ("-m mine:m", Estimate(1004, None, 1004 * 2e-6, None)),
        ("-m mine:m --max-tokens 100", Estimate(1004, 100, 1004 * 2e-6, 1004 * 2e-6 + 100 * 10e-6)),
        ("-m mine:m --max-tokens 100 --n 3", Estimate(1004, 300, 1004 * 2e-6, 1004 * 2e-6 + 300 * 10e-6)),
        ("-m mine:other --max-tokens 100", Estimate(1004, 100)),
        ("-m mine:other -p max_completion_tokens=50", Estimate(1004, 50)),
    ],
)
def test_tokens_and_price_are_estimated(session: Session, line: str, estimate: Estimate) -> None:
    session.registry.add("mine", "compatible", base_url="https://gateway.invalid/v1", prices=PRICED)
    found = dry(session, line, "four" * 1000).estimate
    assert found is not None
    assert found.tokens == estimate.tokens
    assert found.most == estimate.most
    assert (found.cost, found.cost_at_most) == (
        pytest.approx(estimate.cost) if estimate.cost is not None else None,
        pytest.approx(estimate.cost_at_most) if estimate.cost_at_most is not None else None,
    )


def test_a_type_and_tools_count(session: Session) -> None:
    def add(number: int) -> int:
        """Add one."""
        return number + 1

    session.registry.add("mine", "compatible", base_url="https://gateway.invalid/v1")
    plain, typed = dry(session, "-m mine:m").estimate, dry(session, "-m mine:m --schema 'a int, b'").estimate
    offered = dry(session, "-m mine:m --tools add", add=add)
    assert plain is not None
    assert typed is not None
    assert offered.estimate is not None
    assert plain.tokens < typed.tokens
    assert plain.tokens < offered.estimate.tokens
    assert offered.body["tools"][0]["function"]["name"] == "add"


def test_fallbacks_and_notes_are_said(session: Session) -> None:
    session.registry.add("mine", "compatible", base_url="https://gateway.invalid/v1")
    session.registry.aliases = {"careful": {"model": "mine:m", "fallbacks": ["mine:a", "mine:b"], "seed": 3}}
    shown = dry(session, "-m careful --api responses", "Hi {{ text }}", text="x" * 30_000)
    assert shown.body["model"] == "m"
    assert "20,000" in shown.notes[0]
    assert shown.notes[1:] == (
        "--seed, which is a default, is left out: this endpoint does not take it.",
        "Where that fails, these are asked: mine:a, mine:b.",
    )


def test_in_the_background_is_refused(session: Session) -> None:
    with pytest.raises(OptionError, match="--background and --dry-run exclude each other"):
        dry(session, "-m local: -b")


# As it is seen


@pytest.fixture(scope="module")
def notebook() -> Iterator[Kernel]:
    with Kernel() as kernel:
        kernel.run(PREAMBLE).check()
        kernel.run(
            "get_ipython()._llm_magic.registry.add('s', 'compatible', base_url='https://gateway.invalid/v1', "
            "prices={'m': {'input': 2, 'output': 10}}, default_headers={'User-Agent': 'mine'})"
        ).check()
        yield kernel


def test_the_body_is_seen_first(notebook: Kernel) -> None:
    line = "-m s:m --dry-run --max-tokens 100 --header X-Title=mine -o value --code"
    ran = notebook.run(f"%%llm {line}\nHi").check()
    (plain,), (html,) = ran.of_type("text/plain"), ran.of_type("text/html")
    body, end = json.JSONDecoder().raw_decode(plain)
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    lines = plain[end:].strip().splitlines()
    assert lines[0] == "POST https://gateway.invalid/v1/chat/completions"
    assert sorted(lines[1:4]) == ["authorization: Bearer ***", "user-agent: mine", "x-title: mine"]
    assert lines[4:7] == [
        "",
        "About 5 tokens in, at most 100 out. Price: about $0.00001 for the prompt, at most $0.001 in all.",
        "Nothing was sent, value is not bound, no code is put into the next cell.",
    ]
    assert lines[7].endswith("headers of the SDK")
    assert "    accept: application/json" in lines[8:]
    assert html.index("messages") < html.index("POST https") < html.index("<details>") < html.index("x-stainless-lang")
    assert notebook.value("'value' in globals()") is False


def test_the_line_magic_shows_the_same(notebook: Kernel) -> None:
    ran = notebook.run("%llm -m s:m --dry-run Is it so?").check()
    (plain,) = ran.of_type("text/plain")
    assert plain.startswith('{\n  "model": "m"')
    assert '"Is it so?"' in plain


def test_an_image_is_cut(notebook: Kernel) -> None:
    notebook.run("large = png + b'x' * 3000").check()
    ran = notebook.run("%%llm -m s:m --dry-run -i png\nHi").check()
    (plain,) = ran.of_type("text/plain")
    assert plain.startswith("{")
    assert "About 1,00" in plain
