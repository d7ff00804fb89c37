"""HTML of a model is shown, and does nothing; everything else stays as it is."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llm_magic.markdown import for_notebook
from llm_magic.markdown.sanitize import sanitize

UNCHANGED = [
    "plain, a < b, x<y, 1<2, <3",
    "x<sub>1</sub>, <br>, <kbd>Ctrl</kbd>, H<sup>+</sup>",
    '<details open>\n<summary>More</summary>\n\ntext\n\n</details>\n<td align="right" colspan="2">',
    "[a](https://example.org/x?y=1:2) ![b](images/c.png) [d](#e) [f](mailto:g@h.org) <https://i.org/j> <k@l.org>",
    "[1]: https://example.org 'title'\n\n[^2]: a note",
    "$a < b$ and `x < y`",
    "```html\n<br>\n```\n",
    "\\(a<b\\)",
    "",
]
CHANGED = {
    "<script>alert(1)</script>": "&lt;script>alert(1)&lt;/script>",
    "<img src=x onerror=alert(1)>": "&lt;img src=x onerror=alert(1)>",
    '<b onmouseover="x">y</b>': '&lt;b onmouseover="x">y</b>',
    "List<String> l": "List&lt;String> l",
    "`<script>x</script>`": "<code>&#60;script&#62;x&#60;&#47;script&#62;</code>",
    "$a<b$ but b>c": "$a< b$ but b>c",
    "\\<img src=x>": "&lt;img src=x>",
    "<!-- x -->": "&lt;!-- x -->",
    "[a](javascript:alert(1))": "[a](#javascript:alert(1))",
    "[a](JaVa&#115;cript:x)": "[a](#JaVa&#115;cript:x)",
    "[a](java\\script:x)": "[a](#java\\script:x)",
    "[a]: vbscript:x": "[a]: #vbscript:x",
    "![a](data:text/html,x)": "![a](#data:text/html,x)",
    "Use:\n```html\n<script>x</script>\n```\nNow": "Use:\n\n```html\n<script>x</script>\n```\n\nNow",
    "~~~\n```\n<img src=x>\n~~~": "````\n```\n<img src=x>\n````",
    "```\n<a>\n```~\n<img src=x onerror=y>": "````\n<a>\n```~\n<img src=x onerror=y>\n````",
    "- x\n  ```\n  <img src=x>\n  ```": "- x\n  <pre><code>&#60;img src&#61;x&#62;</code></pre>",
    "| `a | <img src=x onerror=y> ` |": "| <code>a &#124; &#60;img src&#61;x onerror&#61;y&#62;</code> |",
}


@pytest.mark.parametrize("text", UNCHANGED)
def test_what_can_do_nothing_stays_as_it_is(text: str) -> None:
    assert sanitize(text) == text


@pytest.mark.parametrize(("text", "expected"), CHANGED.items(), ids=range(len(CHANGED)))
def test_what_could_do_something_is_text(text: str, expected: str) -> None:
    assert sanitize(text) == expected


SEEDS = [
    "<script>x</script>", "<img src=x onerror=y>", "<svg onload=x>", "<style>b{}</style>", "<iframe src=x>",
    "<b onclick=x>", "[a](javascript:x)", "<div>", "</div>", "<details>", "`", "``", "```\n", "```html\n",
    "~~~\n", "````\n", "```~\n", "\n", "\n\n", "- ", "  ", "    ", "> ", "1. ", "|", "$", "$$", "\\", "<!--",
    "-->", "text ", "\t", "<pre>", "</pre>", "]: ", '<a title="`">', "](", "[x]", "&lt;", "<", ">", "\r",
    "===\n", "|-|-|\n",
]  # fmt: skip
TAG = re.compile(
    r"<(script|img|svg|style|iframe)\b|<[a-z]+\s[^>]*\bon\w+\s*=|(href|src)=\"\s*javascript:", re.IGNORECASE
)


@given(st.lists(st.sampled_from(SEEDS), max_size=14).map("".join))
@settings(max_examples=3000, deadline=None)
def test_no_reader_of_markdown_finds_anything_that_acts(text: str) -> None:
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(for_notebook(text))
    assert TAG.search(html) is None, html


@given(st.lists(st.sampled_from(SEEDS), max_size=14).map("".join))
@settings(max_examples=500, deadline=None)
def test_fenced_code_at_the_margin_is_exact(text: str) -> None:
    code = text.replace("`", "'").replace("~", "-").replace("\r", "").rstrip("\n") + "\n<img src=x onerror=y>\n"
    html = MarkdownIt("commonmark").render(for_notebook(f"Code:\n```html\n{code}```\nEnd"))
    assert MarkdownIt("commonmark").render(f"```html\n{code}```\n") in html


@pytest.mark.parametrize(
    "text",
    [
        "`",
        "$",
        "$$ a\n",
        "<",
        "<a ",
        "](",
        "- ",
        "> ",
        "\\[",
        "\\( a",
        "\n",
        "\\",
        "```\n",
        "`a\n",
        "<b ",
        "* ",
        "1. ",
        "- " + " " * 30000,
        "\n    \\(a",
        '<b title="a" ',
        "](&#x41;",
        " ".join("`" * length for length in range(1, 60)),
    ],
    ids=range(22),
)
def test_no_text_takes_long(text: str) -> None:
    begun = time.perf_counter()
    for_notebook("\\(x\\) <script>" + text * (30_000 // len(text) + 1))
    assert time.perf_counter() - begun < 5
