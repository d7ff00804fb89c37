"""What of a MIME bundle a model reads: what says most, never markup."""

from __future__ import annotations

import time

import pytest

from llm_magic.context.mime_bundles import LONGEST_HTML, text_in

OBJECT = "<IPython.core.display.HTML object>"
TABLE = "<table><thead><tr><th></th><th>city</th><th>n</th></tr></thead><tr><th>0</th><td>Oslo</td><td>a | b</td></tr>"


@pytest.mark.parametrize(
    ("bundle", "text"),
    [
        ({"text/plain": "3"}, "3"),
        ({"text/plain": "   a\n0  1", "text/html": TABLE}, "   a\n0  1"),
        ({"text/plain": OBJECT, "text/html": "<b>one</b> <i>two</i><p>three &lt; 4</p>"}, "one two\nthree < 4"),
        ({"text/plain": OBJECT, "text/html": TABLE}, "|  | city | n |\n| --- | --- | --- |\n| 0 | Oslo | a \\| b |"),
        ({"text/html": "<style>p{}</style><script>evil()</script><!-- no -->"}, "(text/html)"),
        ({"text/plain": OBJECT, "text/html": "<script>x</script>"}, OBJECT),
        ({"text/html": "<pre>a\n  b</pre>c"}, "a\n  b\nc"),
        ({"text/html": "<svg><text>label</text></svg>"}, "label"),
        ({"text/html": "<ul><li>one<li>two</ul>a<br>b"}, "one\ntwo\na\nb"),
        ({"text/plain": "<IPython.core.display.Markdown object>", "text/markdown": "**md**"}, "**md**"),
        ({"text/plain": "<a.B at 0x7f00deadbeef>", "text/latex": "$x$"}, "$x$"),
        ({"text/plain": "<IPython.core.display.JSON object>", "application/json": {"a": "é"}}, '{"a": "é"}'),
        ({"text/plain": "<a.B object>"}, "<a.B object>"),
        ({"text/plain": "<b>", "text/html": "x"}, "<b>"),
        ({"text/plain": 3, "text/html": 4, "application/json": {3}}, "(text/plain, text/html, application/json)"),
        ({"application/vnd.plotly.v1+json": {}, "text/html": "<div></div>"},
         "(application/vnd.plotly.v1+json, text/html)"),
        ({}, ""),
    ],
)  # fmt: skip
def test_the_text_of_a_bundle(bundle: dict[str, object], text: str) -> None:
    assert text_in(bundle) == text


@pytest.mark.parametrize("html", ["<div>" * 100_000, "<" * 500_000, "&" * 500_000, "<!--" * 100_000, "<td>" * 200_000])
def test_hostile_html_takes_no_time(html: str) -> None:
    before = time.process_time()
    text_in({"text/html": html})
    assert time.process_time() - before < 1


def test_of_long_html_the_beginning_is_read() -> None:
    assert text_in({"text/html": "<p>begin</p>" + " " * LONGEST_HTML + "<p>end</p>"}) == "begin"
