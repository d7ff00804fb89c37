r"""Maths in `\(…\)` and `\[…\]` becomes maths in dollars, and nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.markdown import with_dollars

CASES = {
    r"a \( x \) b": "a $x$ b",
    r"\[ \frac{a}{b} \]": r"$$ \frac{a}{b} $$",
    "\\[\na\n\nb\n\\]": "$$\na\nb\n$$",
    "- item\n  \\[\n  a\n  \\]": "- item\n  $$\n  a\n  $$",
    r"\(\text{a \(b\)}\)": r"$\text{a \(b$}\)",
    r"row \\[2pt] end": r"row \\[2pt] end",
    r"\\(no\\)": r"\\(no\\)",
    r"\[ a \\[1ex] b \]": r"$$ a \\[1ex] b $$",
    r"\[text\](https://example.org)": r"\[text\](https://example.org)",
    r"open \( and no end": r"open \( and no end",
    "\\( one\n\ntwo \\)": "\\( one\n\ntwo \\)",
    r"`\(a\)` and \(b\)": r"`\(a\)` and $b$",
    r"``a ` \(b\)`` \(c\)": r"``a ` \(b\)`` $c$",
    "```\n\\(a\\)\n```\n\\(b\\)": "```\n\\(a\\)\n```\n$b$",
    "~~~tex\n\\[a\\]\n~~~": "~~~tex\n\\[a\\]\n~~~",
    "- x\n  ```\n  \\(a\\)\n  ```\n  \\(b\\)": "- x\n  ```\n  \\(a\\)\n  ```\n  $b$",
    "```\n\\(never closed\\)": "```\n\\(never closed\\)",
    "Text\n\n    \\(code\\)\n\n\\(a\\)": "Text\n\n    \\(code\\)\n\n$a$",
    "- item\n\n    \\(a\\)": "- item\n\n    $a$",
    r"<code>\(a\)</code> \(b\)": r"<code>\(a\)</code> $b$",
    r"$$ \text{\(a\)} $$ \(b\)": r"$$ \text{\(a\)} $$ $b$",
    r"$x$ and \(y\)": "$x$ and $y$",
    r"\(\)": r"\(\)",
    "no maths at all, $5 and 50%": "no maths at all, $5 and 50%",
}


@pytest.mark.parametrize(("text", "expected"), CASES.items(), ids=range(len(CASES)))
def test_conversion(text: str, expected: str) -> None:
    assert with_dollars(text) == expected


@given(st.text(alphabet="a`\n~ \\$<>-").filter(lambda text: "\\(" not in text))
@settings(max_examples=200)
def test_text_without_such_maths_is_untouched(text: str) -> None:
    assert with_dollars(text) == text


@given(st.text(alphabet="a()[]\\`\n $"))
@settings(max_examples=300, deadline=None)
def test_code_is_untouched(text: str) -> None:
    code = "```\n" + text.replace("`", "'") + "\n```\n"
    assert with_dollars(code) == code


def test_a_long_text_of_openings_takes_no_time() -> None:
    assert with_dollars("\\( " * 50_000) == "\\( " * 50_000
