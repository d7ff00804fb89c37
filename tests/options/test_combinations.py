"""Every pair of options is sensible, or an error that names both; of a default and what is nearer, the nearer holds."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from itertools import combinations, permutations, product
from typing import Any, get_args

import pytest
from echo import echo
from servers import ScriptedServer

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import LLMError, ModelNotFoundError, OptionError
from llm_magic.options import OF_ROWS, OPTIONS, PARAMETERS, Options
from llm_magic.options.combinations import check, flag, need_cluster, need_each, need_tools, put_over
from llm_magic.options.parameters import Api
from llm_magic.options.reader import parse
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.plan import Cell

EXCLUDED = {
    ("output_type", "schema"), ("output_type", "choices"), ("output_type", "regex"), ("output_type", "grammar"),
    ("schema", "choices"), ("schema", "regex"), ("schema", "grammar"),
    ("choices", "regex"), ("choices", "grammar"), ("regex", "grammar"),
    ("output_type", "code"), ("schema", "code"), ("choices", "code"),
    ("chat", "once"), ("stream", "no_stream"), ("background", "dry_run"),
    ("each", "code"), ("each", "stream"),
    *product(
        ("batch", "batch_file"),
        ("background", "concurrency", "patience", "sample", "order", "on", "forward_env", "retries_invalid",
         "max_tool_rounds", "confirm", "record_tools", "stream", "code"),
    ),
    *product(("batch_file",), ("wait", "poll", "header", "timeout", "retries", "budget")),
}  # fmt: skip
"""The other pairs are sensible: a pattern or a grammar can be one of code, an answer may be shown in one way and its
code put into the next cell; a dry run is a look at the cell as it stands, which says what it does not do, and whether
it is recorded; whatever is asked, wherever it goes and however it is shown, can be recorded. Rows may continue a
conversation, be asked in the background, from a cluster or in a sample, and share a raw prompt where each has an image
of its own; `--confirm` is refused with `--each` where
tools are in force, so that a default of it is never dropped."""

VALUES: dict[str, Any] = {
    "model": "m", "base_url": "http://x/v1", "api": "chat", "timeout": 3.0, "retries": 1, "header": {"A": "b"},
    "out": "x", "output_type": "int", "schema": "a, b", "choices": ("a", "b"), "regex": "a", "grammar": "g",
    "retries_invalid": 1, "temperature": 1.0, "top_p": 1.0, "max_tokens": 5, "seed": 1, "stop": ("a",),
    "presence_penalty": 1.0, "frequency_penalty": 1.0, "n": 2, "logprobs": 1, "reasoning_effort": "low",
    "param": {"min_p": 0.1}, "system": "", "image": ("a",), "raw": True, "context": 3, "chat": "x", "once": True,
    "tools": ("f",), "tool_choice": "auto", "max_tool_rounds": 3, "confirm": True, "each": "rows", "concurrency": 4,
    "patience": 1.0, "on_error": "keep", "again": True, "sample": 3, "dedup": True, "order": "prefix",
    "budget": {"cost": 1.0}, "on": "dask", "forward_env": ("A",), "batch": True, "wait": True, "poll": 5.0,
    "batch_file": "rows.jsonl", "code": True, "background": True, "stream": True,
    "no_stream": True, "show": "text", "record": "once", "record_tools": True, "dry_run": True, "help": True,
}  # fmt: skip


def of(*names: str) -> Options:
    return Options.of({name: VALUES[name] for name in names})


def test_every_option_has_a_value_here() -> None:
    assert {option.name for option in OPTIONS} == set(VALUES)


@pytest.mark.parametrize("pair", list(combinations([option.name for option in OPTIONS], 2)))
def test_each_pair(pair: tuple[str, str]) -> None:
    if pair not in EXCLUDED and pair[::-1] not in EXCLUDED:
        check(of(*pair))
        return
    with pytest.raises(OptionError) as caught:
        check(of(*pair))
    assert all(flag(name) in caught.value.message for name in pair)
    assert caught.value.hint == "Keep one of them."


def test_the_nearer_of_each_pair_holds() -> None:
    for near, far in permutations(VALUES, 2):
        merged = put_over(of(near), of(far))
        check(merged)
        assert (merged.parameters.get(near) if near in PARAMETERS else getattr(merged, near)) == VALUES[near]
        excluded = (near, far) in EXCLUDED or (far, near) in EXCLUDED
        kept = merged.parameters.get(far) if far in PARAMETERS else getattr(merged, far)
        assert kept in (None, {}) if excluded else kept == VALUES[far]


FIELDS = [(name, field) for name in PARAMETERS for each in get_args(Api) for field in PARAMETERS[name].fields(each)]
FIELDS += [
    ("system", "instructions"), ("tools", "tools"), ("tools", "functions"), ("tool_choice", "tool_choice"),
    ("tool_choice", "function_call"), ("output_type", "response_format"), ("schema", "response_format"),
    ("choices", "structured_outputs"), ("regex", "grammar"), ("grammar", "grammar"), ("output_type", "json_schema"),
    ("no_stream", "stream_options"), ("output_type", "text"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "field"), sorted({*FIELDS} - {("logprobs", "include")}))
def test_a_field_that_an_option_sets(name: str, field: str) -> None:
    both = Options.of({name: VALUES[name] or "a", "param": {field: 1}})
    with pytest.raises(OptionError) as caught:
        check(both)
    assert caught.value.message == f"{flag(name)} and -p {field} set the same field."
    near, far = Options(param={field: 1}), of(name)
    merged = put_over(near, far)
    assert merged.param == {field: 1}
    check(merged)
    assert put_over(far if name != "system" else Options(system="a"), near).param == {}


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("logprobs", "include", ["reasoning.encrypted_content"]),
        ("reasoning_effort", "reasoning", {"summary": "auto"}),
        ("output_type", "text", {"verbosity": "low"}),
        ("regex", "structured_outputs", {"disable_any_whitespace": True}),
        ("tools", "parallel_tool_calls", False),
        ("stream", "stream_options", {"include_usage": False}),
    ],
)
def test_what_may_stand_beside_an_option(name: str, field: str, value: Any) -> None:
    check(Options.of({name: VALUES[name], "param": {field: value}}))


@pytest.mark.parametrize("name", ["model", "messages", "input", "prompt", "stream"])
@pytest.mark.parametrize("value", ["[]", "x", "null", "true"])
def test_a_field_that_the_cell_sets(name: str, value: str) -> None:
    with pytest.raises(OptionError) as caught:
        check(parse(f"-p {name}={value}")[0])
    assert caught.value.message == f"-p {name} is refused: the cell sets this field itself."
    with pytest.raises(OptionError, match=f"LLMMagics.params: -p {name} is refused"):
        check(parse(f"-p {name}={value}")[0], "LLMMagics.params")


def test_a_stored_prompt_of_the_responses_api() -> None:
    check(Options(param={"prompt": {"id": "pmpt_1"}}))


def test_what_needs_tools() -> None:
    for name in ("tool_choice", "max_tool_rounds", "confirm", "record_tools"):
        with pytest.raises(OptionError, match=f"{flag(name)} needs --tools"):
            need_tools(of(name), of(name))
        need_tools(of(name), of(name, "tools"))
        need_tools(Options(), of(name))  # a default
    with pytest.raises(OptionError, match="--tool-choice none and --confirm exclude each other"):
        need_tools(Options(tool_choice="none", confirm=True), of("tools"))


def test_what_needs_each() -> None:
    for name in OF_ROWS:
        with pytest.raises(OptionError, match=f"^{flag(name)} needs --each.\n--each EXPR gives the inputs"):
            need_each(of(name))
        need_each(of(name, "each"))
    need_each(Options())
    with pytest.raises(OptionError, match="--again and --record only exclude each other: nothing is sent"):
        need_each(Options(each="rows", again=True, record="only"))
    need_each(Options(each="rows", again=True, record="new"))


def test_what_needs_a_cluster() -> None:
    with pytest.raises(OptionError, match=r"^--forward-env needs --on: rows are asked from this process"):
        need_cluster(of("each", "forward_env"), on_cluster=False)
    need_cluster(of("each", "forward_env"), on_cluster=True)
    need_cluster(of("each"), on_cluster=False)


# What an endpoint is known not to take


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with echo() as server:
        yield server


@pytest.fixture
def session(server: ScriptedServer) -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
    yield session
    session.close()
    api.activate(None)


def f(x: int) -> int:
    """Add one."""
    return x + 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        *((f"--api responses {each}", each.split()[0]) for each in
          ("--seed 1", "--stop x", "--n 2", "--presence-penalty 1", "--frequency-penalty 1")),
        ("--api completions --reasoning-effort low", "--reasoning-effort does not exist in the Completions API"),
        ("--api completions --image png", "The Completions API takes no images."),
        ("--api completions --tools f", "The Completions API knows no tools."),
        ("--api completions --as int", "--as: The completions API takes no JSON Schema."),
        ("--regex a+", "--regex: This endpoint takes no regular expression."),
        ("--grammar g", "--grammar: This endpoint takes no grammar."),
        ("-m local: --reasoning-effort low", "smollm2 does not take --reasoning-effort."),
        ("-m local: --image png", "smollm2 does not take images."),
        ("-m local: --tools f", "smollm2 cannot call tools at this endpoint."),
        ("--as str --retries-invalid 2", "--retries-invalid needs an output type"),
    ],
)  # fmt: skip
def test_what_the_endpoint_lacks(session: Session, server: ScriptedServer, line: str, words: str) -> None:
    line = line if "-m " in line else f"-m s:m {line}"
    names = {"f": f, "png": b64decode(PNG), "g": 'root ::= "a"'}
    with pytest.raises(LLMError) as caught:
        session.preview(Cell("Hi", parse(f"{line} --once --dry-run")[0], names))
    assert words in caught.value.message
    assert server.connections == 0


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_vllm_gives_one_answer_without_sampling(session: Session, server: ScriptedServer) -> None:
    session.registry.add("v", "vllm", base_url=server.url, max_retries=0)
    with pytest.raises(LLMError, match="vLLM gives one answer at temperature=0, not n=2"):
        LLM("v:m").ask("Hi", n=2, temperature=0)
    assert [request for request in server.requests if request.method == "POST"] == []
    assert len(LLM("v:m").ask("Hi", n=2, temperature=0.1).value) == 2


# A URL of one call, and a name that leads nowhere else


def test_a_bare_name_at_a_url(session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai-0123456789")
    monkeypatch.setenv("OWN_KEY", "sk-own-0123456789")
    session.registry.add("compatible", "compatible", base_url="https://gateway.invalid/v1", api_key_env="OWN_KEY")
    with pytest.raises(ModelNotFoundError, match="No provider answers to the model 'llama3:8b'"):
        LLM("llama3:8b").ask("Hi")
    assert LLM("llama3:8b").ask("SAY one", base_url=server.url).text == "one"
    assert LLM("llama3:8b", base_url=server.url).ask("SAY two").text == "two"
    assert LLM("llama3:8b").embed(["a"], base_url=server.url).dimensions == 2
    assert LLM("gpt-9").ask("SAY three", base_url=server.url).provider == "openai"  # a route knows it
    assert [request.json["model"] for request in server.requests] == ["llama3:8b"] * 3 + ["gpt-9"]
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer EMPTY"}
    assert b"0123456789" not in b"".join(str(request).encode() for request in server.requests)


def test_a_bare_name_at_the_host_of_the_key(
    session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_KEY", "sk-own-0123456789")
    session.registry.add("compatible", "compatible", base_url=f"{server.host}/one/v1", api_key_env="OWN_KEY")
    LLM("free").ask("Hi", base_url=server.url)
    assert server.requests[-1].headers["authorization"] == "Bearer sk-own-0123456789"


def test_an_alias_keeps_its_fallbacks_at_a_url(session: Session, server: ScriptedServer) -> None:
    session.registry.aliases = {"mine": {"model": "s:m", "fallbacks": ["local:smollm2", "unknown"], "seed": 4}}
    response = LLM("mine").ask("SAY one", base_url=server.url)
    assert response.text == "one"
    assert server.requests[-1].json["seed"] == 4
