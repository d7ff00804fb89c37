"""The output that an answer is saved as."""

from __future__ import annotations

import json

import pytest

from llm_magic.display import answer
from llm_magic.draft import Draft
from llm_magic.events import Usage
from llm_magic.response import Alternative, Response

TEXT = "Use \\(a\\):\n\n```python\nx = 1\n```\n\nor <script>y</script>\n"


def test_the_plain_text_is_the_models_and_the_markdown_is_to_be_rendered() -> None:
    assert answer.finished(Response(text=TEXT, value=TEXT), "markdown") == {
        "text/plain": TEXT,
        "text/markdown": "Use $a$:\n\n```python\nx = 1\n```\n\nor &lt;script>y&lt;/script>\n",
    }


@pytest.mark.parametrize(
    ("show", "expected"),
    [
        ("text", {"text/plain": TEXT}),
        ("code", {"text/plain": TEXT, "text/markdown": "```python\nx = 1\n```\n"}),
        ("json", {"text/plain": TEXT, "text/markdown": f"````json\n{TEXT.removesuffix(chr(10))}\n````\n"}),
    ],
)
def test_other_ways_to_show_it(show: str, expected: dict[str, str]) -> None:
    assert answer.finished(Response(text=TEXT, value=TEXT), show) == expected


def test_json_is_indented() -> None:
    assert answer.fenced('{"a":[1]}', "json", whole=True) == '```json\n{\n  "a": [\n    1\n  ]\n}\n```\n'


def test_a_value_is_a_table_that_front_ends_prefer_to_the_text() -> None:
    text = '[{"a": "<b>"}]'
    bundle = answer.finished(Response(text=text, value=[{"a": "<b>"}]), "markdown", typed=True)
    assert (bundle["text/plain"], bundle["text/markdown"]) == (text, '[{"a": "&lt;b>"}]')
    assert bundle["text/html"].count("<td") == 1
    assert "<b>" not in bundle["text/html"]


def test_a_value_that_its_text_says_as_well_needs_no_html() -> None:
    assert set(answer.finished(Response(text=" 42\n", value=42), "markdown", typed=True)) == {
        "text/plain",
        "text/markdown",
    }


def test_a_value_that_is_wrapped_in_its_text_is_shown_plainly() -> None:
    for value, text in ((42, "42"), (0, "0"), ([], "[]"), ("yes", "yes"), (True, "True")):
        wrapped = Response(text=f'{{"value": {json.dumps(value)}}}', value=value, structured="json_schema")
        assert answer.finished(wrapped, "markdown") == {"text/plain": text, "text/markdown": text}
        assert answer.finished(wrapped, "text") == {"text/plain": text}
        assert answer.as_text(wrapped, "markdown") == text


def test_text_that_became_no_value_is_shown_as_it_stands() -> None:
    html = answer.finished(Response(text='{"a": <b>', value=None), "markdown", typed=True)["text/html"]
    assert "{&quot;a&quot;: &lt;b&gt;" in html


def test_alternatives_are_side_by_side() -> None:
    alternatives = (Alternative("one <b>", "stop", "one <b>"), Alternative('{"a": 2}', "length", {"a": 2}))
    bundle = answer.finished(Response(text="one <b>", alternatives=alternatives), "markdown")
    assert bundle["text/plain"] == "one <b>"
    assert "one &lt;b&gt;" in bundle["text/html"]
    assert "Answer 2: Cut off: the answer reached its token limit." in bundle["text/html"]
    assert "<table>" in bundle["text/html"]


def test_metadata() -> None:
    response = Response(
        model="eu:gpt", provider="eu", finish_reason="stop", usage=Usage(3, 4, 1, 2), seconds=1.23456, request_id="r"
    )
    assert answer.metadata(response) == {
        "llm_magic": {
            "model": "eu:gpt",
            "provider": "eu",
            "finish_reason": "stop",
            "usage": {"input_tokens": 3, "output_tokens": 4, "cached_tokens": 1, "reasoning_tokens": 2},
            "seconds": 1.235,
            "request_id": "r",
        }
    }
    assert answer.metadata(Response())["llm_magic"]["usage"] is None
    recorded = answer.metadata(Response(recorded=True))["llm_magic"]
    assert recorded == {**answer.metadata(Response())["llm_magic"], "recorded": True}


def test_a_partial_value_is_shown_as_far_as_it_goes() -> None:
    assert answer.streaming(Draft(), {"a": "x"}, "markdown")["text/plain"] == "a  x"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no code", "no code"),
        (TEXT, "x = 1\n"),
        ("```\na\n```\nand\n~~~\nb\n~~~\n", "a\n\nb\n"),
        ("```py\nopen", "open"),
    ],
)
def test_code(text: str, code: str) -> None:
    assert answer.code_of(text) == code
