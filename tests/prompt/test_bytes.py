"""What is not in a tag reaches the server byte for byte, and what a value holds is never read as a template."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_magic.config.settings import Settings
from llm_magic.messages import Text
from llm_magic.prompt import render

SETTINGS = Settings(max_value_chars=10**6)

FRAGMENTS = [
    '{"a": 1}', r"\frac{a}{b}", r"\newcommand{\x}[1]{#1}", 'f"{x}"', "${HOME}", "$x$", "a{color: red}", "<b>&amp;</b>",
    "{#", "#}", "{# note #}", "}}", "%}", "{", "}", "%", "#", "{ {", "} }", "## if x", "-%}", "\\", "\r\n", "\n", "\r",
    "\n\n", " ", "\t", "\u2028", "\x85", "\x0b", "\0", "é", "日本", "🙂", "\u202e",
    "{%", "{{", "{{ x }}", "{% raw %}",
]  # fmt: skip
ANYTHING = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=8)).map("".join)
LITERAL = ANYTHING.filter(lambda text: "{{" not in text and "{%" not in text)


def rendered(template: str, **namespace: object) -> str:
    (part,) = render(template, namespace, settings=SETTINGS).parts
    assert isinstance(part, Text)
    return part.text


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(LITERAL, LITERAL, ANYTHING)
def test_text_and_values_pass_through(before: str, after: str, value: str) -> None:
    assert rendered(before) == before
    assert rendered(f"{before}{{{{ value }}}}{after}", value=value) == before + value + after


@settings(max_examples=200, deadline=None)
@given(ANYTHING)
def test_raw_is_not_read(body: str) -> None:
    assert render(body, {}, settings=SETTINGS, raw=True).parts == (Text(body),)


@settings(max_examples=200, deadline=None)
@given(LITERAL.filter(lambda text: "{" not in text))
def test_a_raw_block_is_not_read(text: str) -> None:
    assert rendered(f"a {{% raw %}}{{{{ {text} }}}}{{% endraw %}} b") == f"a {{{{ {text} }}}} b"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (r"\frac{{{ a }}}{{{ b }}}", r"\frac{7}{8}"),
        ("{{{{ a }}}}", "{{7}}"),
        ("{{ {'k': a}['k'] }}", "7"),
        ("{{ a }}\n", "7\n"),
        ("{{ a }}\r\n\r\n", "7\r\n\r\n"),
        ("\n\n {{ a }}", "\n\n 7"),
        ("{{ '\r\n' }}|", "\r\n|"),
        ("{{\r\n a }}\r{{ b }}", "7\r8"),
    ],
)
def test_braces_and_line_ends_around_tags(template: str, expected: str) -> None:
    assert rendered(template, a=7, b=8) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("A\n{% if a %}\nB\n{% endif %}\nC", "A\nB\nC"),
        ("A\r\n{% if a %}\r\nB\r\n  {% endif %}\t\r\nC", "A\r\nB\r\nC"),
        ("{% if a %}\nB\n{% endif %}", "B\n"),
        ("{% for i in [1, 2] %}\n- {{ i }}\n{% endfor %}\n", "- 1\n- 2\n"),
        ("{% if a %}{% if b %}\nB\n{% endif %} {% endif %}\nC", "B\nC"),
        ("A {% if a %}B{% endif %}\nC", "A B\nC"),
        ("{{ a }} {% if a %}\nB{% endif %}\nC", "7 \nB\nC"),
        ("A\n\n{% if a %}\n\nB\n{% endif %}\n\nC", "A\n\n\nB\n\nC"),
        ("A\n  {%+ if a %}\nB{% endif %}", "A\n  \nB"),
        ("A \n {%- if a -%} \n B{% endif %}", "AB"),
        ("{% raw %}\n{{ a }}\n{% endraw %}\nC", "{{ a }}\nC"),
        ("{% set x = 3 %}\n{{ x }}", "3"),
    ],
)
def test_a_line_of_block_tags_leaves_nothing(template: str, expected: str) -> None:
    assert rendered(template, a=7, b=8) == expected
