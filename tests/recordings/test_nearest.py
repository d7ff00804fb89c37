"""What differs from the nearest recorded request, in words that say what to change."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.recordings.nearest import explain
from llm_magic.recordings.recording import Recording

RECORDED: dict[str, Any] = {
    "kind": "answer",
    "provider": "openai",
    "model": "gpt-5",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the time?"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "clock", "arguments": "{}"}]},
        {"role": "tool", "content": "12:00", "call": 0},
        {"role": "user", "content": [{"text": "Is water wet?"}, {"image": "a" * 64, "media_type": "image/png"}]},
    ],
    "parameters": {"temperature": 0},
    "output": {"schema": {"type": "string"}},
    "tools": [{"name": "clock", "description": "The time.", "parameters": {}}],
}


def line(asked: dict[str, Any]) -> bytes:
    answer = {"choices": [{"text": 'an "asked": {"kind": "answer"} text', "items": [{"asked": {"kind": "x"}}]}]}
    return Recording(asked, answer, "c", "2026-11-29T23:59:01Z").line()


def asking(*path_and_value: Any) -> dict[str, Any]:
    asked = copy.deepcopy(RECORDED)
    *path, last, value = path_and_value
    inner: Any = asked
    for step in path:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return asked


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (asking("parameters", "temperature", 0.2), "recorded with temperature 0, asked with 0.2."),
        (asking("parameters", "temperature", ...), "recorded with temperature 0, asked without."),
        (asking("parameters", "seed", 7), "asked with seed 7, recorded without."),
        (asking("parameters", ...), "recorded with temperature 0, asked without."),
        (asking("model", "gpt-5-mini"), "asked of openai:gpt-5-mini, recorded of openai:gpt-5."),
        (asking("provider", "vllm"), "asked of vllm:gpt-5, recorded of openai:gpt-5."),
        (asking("url", "0123456789ab"), "another --base-url."),
        (asking("output", {"schema": {"type": "integer"}}), "output type int, recorded str."),
        (
            asking("output", {"schema": {"type": "array", "items": {"type": "integer"}}}),
            "output type list[int], recorded str.",
        ),
        (asking("output", {"schema": {"title": "City", "type": "object"}}), "output type City, recorded str."),
        (asking("output", {"schema": {"type": "string", "minLength": 3}}), "output type str, otherwise defined."),
        (asking("output", {"choices": ["a", "b"]}), "output type choices a, b, recorded str."),
        (asking("output", {"regex": r"\d+"}), r"output type regex \d+, recorded str."),
        (asking("output", ...), "output type text, recorded str."),
        (asking("tools", [{"name": "calendar"}]), "tools calendar, recorded clock."),
        (asking("tools", ...), "tools none, recorded clock."),
        (asking("tools", 0, "description", "Now."), "a tool is described otherwise."),
        (asking("tool_choice", "clock"), "asked with tool choice clock, recorded without."),
        (asking("api", "completions"), "asked with API completions, recorded without."),
        (asking("messages", 0, "content", "Be long."), "the system prompt differs: 'Be long.', recorded 'Be brief.'."),
        (asking("messages", 1, "content", "What?"), "message 2 differs."),
        (asking("messages", 2, "content", "Hm"), "message 3 (an answer) differs."),
        (asking("messages", 3, "content", "12:01"), "message 4 (the result of clock) differs."),
        (
            asking("messages", 4, "content", 0, "text", "Is wat wet?"),
            "the prompt differs: 'Is wat wet?', recorded 'Is water wet?'.",
        ),
        (asking("messages", 4, "content", 1, "image", "b" * 64), "another image in the prompt."),
        (asking("messages", 4, ...), "4 messages, recorded 5."),
        (asking("extra", 1), "asked with extra 1, recorded without."),
        (RECORDED, "an equal one is recorded, but cannot be read."),
    ],
)
def test_what_differs_is_said(asked: dict[str, Any], said: str) -> None:
    assert explain(asked, [line(RECORDED)]) == said


def test_a_system_prompt_that_one_of_them_lacks_is_said_and_the_nearest_found() -> None:
    def prompt(*said: str) -> dict[str, Any]:
        roles = ("system", "user") if len(said) > 1 else ("user",)
        messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
        return {"kind": "answer", "provider": "p", "messages": messages}

    lines = [line(prompt("Is water wet?")), line(prompt("Be brief.", "Who was it?"))]
    assert explain(prompt("Be long.", "Is water wet?"), lines) == "asked with a system prompt, recorded without."
    assert explain(prompt("Who was it?"), lines) == "recorded with a system prompt, asked without."


def test_no_secret_is_shown_not_even_its_beginning() -> None:
    def prompt(text: str, **parameters: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": text}]
        return {"kind": "answer", "messages": messages, "parameters": parameters}

    lines = [line(prompt("Hi"))]
    said = explain(prompt("It is s3cret-value-of-mine"), lines, ["s3cret-value-of-mine"])
    assert said == "the prompt differs: 'It is ***', recorded 'Hi'."
    said = explain(prompt("Hi", user="s3cret-value-of-mine"), lines, ["s3cret-value-of-mine"])
    assert said == "asked with user ***, recorded without."
    key = "sk-proj-0123456789abcdef0123456789"
    assert explain(prompt(f"Is {key} a key?"), lines) == "the prompt differs: 'Is *** a key?', recorded 'Hi'."
    assert explain(prompt(key), [line(prompt(f"{key}0"))]) == "it differs in what looks like a key."


def test_several_differences_are_named_on_one_line() -> None:
    asked = asking(
        "parameters", {"temperature": 0.2, "seed": 1, **{f"field_{number}": "x" * 50 for number in range(9)}}
    )
    said = explain(asked, [line(RECORDED)])
    assert said.startswith("asked with field_0 xxx")
    assert len(said) <= 200
    assert said.endswith("….")


def test_the_nearest_has_the_fewest_differences_then_the_most_similar_prompt() -> None:
    def prompt(text: str, temperature: float) -> dict[str, Any]:
        return {
            "kind": "answer",
            "provider": "p",
            "messages": [{"role": "user", "content": text}],
            "parameters": {"temperature": temperature},
        }

    lines = [
        line(prompt("Write a poem about the sea and the wind.", 0)),
        line(prompt("Tell me the capital of France.", 0)),
        line(prompt("Tell me the capital of Francia.", 1)),
        *(line(prompt(f"Question {number} about something else", 0)) for number in range(50)),
    ]
    said = explain(prompt("Tell me the capital of Finland.", 0), lines)
    assert said == "the prompt differs: '…capital of Finland.', recorded '…capital of France.'."


def test_of_long_texts_the_place_is_shown_at_which_they_differ() -> None:
    text = "All work and no play makes Jack a dull boy. " * 5_000
    mine, other = f"{text}Is wat wet?{text}", f"{text}Is wet wat?{text}"
    said = explain(
        {"kind": "answer", "messages": [{"role": "user", "content": mine}]},
        [line({"kind": "answer", "messages": [{"role": "user", "content": other}]})],
    )
    assert said == "the prompt differs: '…ll boy. Is wat wet?All w…', recorded '…ll boy. Is wet wat?All w…'."


def test_embeddings_models_and_tools() -> None:
    texts = {"kind": "embeddings", "provider": "p", "model": "m", "input": ["a", "b"]}
    assert explain(texts | {"input": ["a", "c"]}, [line(texts)]) == "text 2 differs: 'c', recorded 'b'."
    assert explain(texts | {"input": ["a"]}, [line(texts)]) == "1 text, recorded 2."
    assert (
        explain({"kind": "model", "provider": "q"}, [line({"kind": "model", "provider": "p"})])
        == "asked of q:, recorded of p:."
    )
    tool = {"kind": "tool", "name": "clock", "arguments": '{"zone": "UTC"}', "asked": "a" * 64}
    assert (
        explain(tool | {"arguments": "{}"}, [line(tool)]) == 'recorded with arguments {"zone": "UTC"}, asked with {}.'
    )


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("answer", "no answers are recorded."),
        ("embeddings", "no embeddings are recorded."),
        ("tool", "no results of tools are recorded."),
    ],
)
def test_where_nothing_of_the_kind_is_recorded(kind: str, said: str) -> None:
    assert explain({"kind": kind}, []) == ""
    assert explain({"kind": kind}, [line({"kind": "model", "provider": "p"})]) == said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from([*RECORDED, "input", "url", "tool_choice", "api", "name", "arguments"])


@given(st.dictionaries(FIELDS, JSON, max_size=4), st.dictionaries(FIELDS, JSON, max_size=4))
def test_whatever_stands_in_the_file_it_is_one_line(mine: dict[str, Any], other: dict[str, Any]) -> None:
    said = explain(RECORDED | mine | {"kind": "answer"}, [line(RECORDED | other | {"kind": "answer"})])
    assert said
    assert len(said) <= 200
    assert "\n" not in said


def test_lines_that_are_none_are_passed_over() -> None:
    lines = [b"", b"{", b"[]", b'"asked": {"', b'{"asked": {"kind": 1}}', b'{"asked": []}', b"\xff", b"[" * 100_000]
    assert explain(RECORDED, lines) == "no answers are recorded."
    assert explain(RECORDED, [*lines, json.dumps({"asked": RECORDED}).encode()]).startswith("an equal one")
