"""Text shown as it stands: each character as wide as any other, in every front end and exported page."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llm_magic.display import items, markup, table

MONOSPACE = "font-family: var(--jp-code-font-family, monospace)"


@pytest.mark.parametrize(
    "html",
    [
        markup.preformatted('{\n  "a": 1\n}'),
        markup.folded("16 headers of the SDK", "host: x")["text/html"],
        items.folded_items([{"type": "web_search_call"}])[0]["text/html"],
        table.shown("two\nlines")["text/html"],
    ],
)
def test_preformatted_text_names_its_font(html: str) -> None:
    opening = html[html.index("<pre") :].partition(">")[0]
    assert MONOSPACE in opening


@pytest.mark.parametrize("line", [markup.quiet, markup.mark])
def test_two_amounts_of_dollars_on_a_line_are_no_formula(line: Callable[[str], markup.Bundle]) -> None:
    assert line("About $0.10, at most $0.20.")["text/html"].startswith('<div class="mathjax_ignore tex2jax_ignore" ')
    assert line("About $0.10.")["text/html"].startswith("<div style=")
