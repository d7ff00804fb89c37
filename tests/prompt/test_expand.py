"""`$name` and `{expression}` on the option line, and what they must not touch."""

from __future__ import annotations

import pytest

from llm_magic.prompt import expand_option

NAMES = {
    "model": "openai:gpt-5",
    "n": 3,
    "a": 1,
    "b": 2,
    "config": type("C", (), {"name": "x y"}),
    "spaced": "$model {n}",
}


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("$model", "openai:gpt-5"),
        ("{model}", "openai:gpt-5"),
        ("run-$n.txt", "run-3.txt"),
        ("$config.name", "x y"),
        ("{n + 1}", "4"),
        ("{len(model)}", "12"),
        ("k={n}", "k=3"),
        ("$$model", "$model"),
        ("$spaced", "$model {n}"),
    ],
)
def test_expanded(token: str, expected: str) -> None:
    assert expand_option(token, NAMES) == expected


LEFT_ALONE = [
    '{"a":1}', "{'a':1}", 'x={"a":{b}}', "[{a}]", "{{a}}", "^[a-z]{2}$", r"\d{1,3}", "$HOME", "{unknown}", "${HOME}",
    "$", "a$", "{}", "{a:1}", "{a.nothing}", "{1}", r"\frac{1}{2}", "5$", "{a,b}", "{a b}", "{a, b}",
]  # fmt: skip


@pytest.mark.parametrize("token", LEFT_ALONE)
def test_left_alone(token: str) -> None:
    assert expand_option(token, NAMES) == token
