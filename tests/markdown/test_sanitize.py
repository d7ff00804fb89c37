"""Markdown of a model can run and load nothing, for any reader; what cannot do anything stays byte for byte."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_readers import commonmark, what_acts

from llm_magic.markdown import for_notebook
from llm_magic.markdown.sanitize import sanitize

UNCHANGED = [
    "plain, a < b, x<y, 1<2, <3, x<y, z>w",
    "x<sub>1</sub>, <br>, <kbd>Ctrl</kbd>, H<sup>+</sup>",
    '<details open>\n<summary>More</summary>\n\ntext\n\n</details>\n<td align="right" colspan="2">',
    "[a](https://example.org/x?y=1:2) [d](#e) [f](mailto:g@h.org) <https://i.org/j> <k@l.org> [m](n/o.md)",
    "[1]: https://example.org 'title'\n\n[^2]: Note: a note\n\n[p](https://q.org \"r: s\")",
    "$a < b$ and `x < y` and $f \\colon a<b$, $c>d$",
    "```html\n<br>\n```\n",
    "```python {1,3} lines=4\nfor x in a[1:]:\n    try:\n        f[0](x)\n```\n",
    "\\(a<b\\)",
    "![a plot](data:image/png;base64,iVBORw0KGgo=)",
    "Wow! [a](https://b.org), vec![1, 2] and `#![allow]`",
    '$5 and "b" and $6\n\n[a](https://b.org)',
    "```latex\n\\newcommand{\\R}{\\mathbb{R}}\n\\href{a}{b}\n```",
    "diff\n\n@@ -1,3 +1,4 @@",
    "a\r\nb\rc",
    "",
]
CHANGED = {
    # tags
    "<script>alert(1)</script>": "&lt;script>alert(1)&lt;/script>",
    "<img src=x onerror=alert(1)>": "&lt;img src=x onerror=alert(1)>",
    '<b onmouseover="x">y</b>': '&lt;b onmouseover="x">y&lt;/b>',
    "<p style='x'>": "&lt;p style='x'>",
    "<p id=a>": "&lt;p id=a>",
    "List<String> l": "List&lt;String> l",
    "`<script>x</script>`": "<code>&#60;script&#62;x&#60;&#47;script&#62;</code>",
    "a ``<img\nsrc=x>`` b": "a <code>&#60;img src&#61;x&#62;</code> b",
    "$a<b and c>d$": "$a< b and c>d$",
    "\\<img src=x>": "&lt;img src=x>",
    "\\\\<img src=x>": "\\\\&lt;img src=x>",
    "<!-- x -->": "&lt;!-- x -->",
    "<?x?>": "&lt;?x?>",
    "<![CDATA[x]]>": "&lt;![CDATA[x]]>",
    "<details>\nmore": "&lt;details>\nmore",
    "- <b>x\n- y</b>": "- &lt;b>x\n- y&lt;/b>",
    "a </div> b": "a &lt;/div> b",
    "<details>\n<https://e/onclick=x>": "&lt;details>\n[https://e/onclick=x](https://e/onclick=x)",
    "<div>\n<y$ onclick=x>": "&lt;div>\n&lt;y$ onclick=x>",
    "1. <div\n": "1. &lt;div\n",
    "| `a | <img src=x onerror=y> ` |": "| <code>a &#124; &#60;img src&#61;x onerror&#61;y&#62;</code> |",
    # targets
    "[a](javascript:alert(1))": "[a]&#40;javascript:alert(1))",
    "[a](b)[c](javascript:d)": "[a](b)[c]&#40;javascript:d)",
    "[![x](y)](javascript:z)": "[x]&#40;javascript:z)",
    "[a](JaVa&#115;cript:x)": "[a]&#40;JaVa&#115;cript:x)",
    "[a](&#106avascript:x)": "[a]&#40;&#106avascript:x)",
    "[a](javascript&colon;x)": "[a]&#40;javascript&colon;x)",
    "[a](java&Tab;script:x)": "[a]&#40;java&Tab;script:x)",
    "[a](java\\script:x)": "[a]&#40;java\\script:x)",
    "[a](<javascript:x>)": "[a]&#40;<javascript:x>)".replace("<j", "&lt;j"),
    "> [a](\n> javascript:x)": "> [a]&#40;\n> javascript:x)",
    "[a](vbscript:x) [a](data:text/html,x)": "[a]&#40;vbscript:x) [a]&#40;data:text/html,x)",
    "[a](file:///etc/passwd) [b](vscode:x)": "[a]&#40;file:///etc/passwd) [b]&#40;vscode:x)",
    f"[a](&#{'0' * 100}106;avascript:x)": f"[a]&#40;&#{'0' * 100}106;avascript:x)",
    "<javascript:x>": "&lt;javascript:x>",
    "[a]: vbscript:x": "[a]&#58; vbscript:x",
    "> - [a\n> b]:\n>   javascript:x 'title'": "> - [a\n> b]&#58;\n>   javascript:x 'title'",
    "[^1]: javascript:x": "[^1]&#58; javascript:x",
    # what only some reader takes for something
    "[a]\n\n[a]: javascript:/*--></b>*/x": "[a]\n\n[a]&#58; javascript:/*-->&lt;/b>*/x",
    "Done.\n\n<style": "Done.\n\n&lt;style",
    "<div>\na &# b\n</div>": "<div>\na &amp;# b\n</div>",
    "$x$ \\@\\@0@@": "$x$ \\@&#64;0@@",
    "```x jp-Dialog\na\n```": "```x\na\n```",
    # info strings
    '```x" style="a" onanimationstart="b"\nc\n```': "```x\nc\n```",
    '~~~ y" onclick="b"\nc\n~~~': "```y\nc\n```",
    '- ```x" onclick="y"\n  c\n  ```': "- <pre><code>c</code></pre>",
    '> ~~~x" onclick="y"\n> c\n> ~~~': "> <pre><code>c</code></pre>",
    "```mermaid\ngraph TD; A-->B\n```": "```\ngraph TD; A-->B\n```",
    "```{mermaid}\ngraph TD\n```": "```\ngraph TD\n```",
    # fenced code, so that all agree on it
    "Use:\n```html\n<script>x</script>\n```\nNow": "Use:\n\n```html\n<script>x</script>\n```\n\nNow",
    "~~~\n```\n<img src=x>\n~~~": "````\n```\n<img src=x>\n````",
    "```\n<a>\n```~\n<img src=x onerror=y>": "````\n<a>\n```~\n<img src=x onerror=y>\n````",
    "- x\n  ```\n  <img src=x>\n  ```": "- x\n  <pre><code>&#60;img src&#61;x&#62;</code></pre>",
    "a\n\n    <img src=x>\n    b": "a\n\n<pre><code>&#60;img src&#61;x&#62;&#10;b</code></pre>",
    "[foo\n\n```html\nbar]: x\n<img src=y>\n```": (
        "[foo\n\n<pre><code>bar&#93;&#58; x&#10;&#60;img src&#61;y&#62;</code></pre>"
    ),
    "a $$ b\n\n```html\n<i id=x> $$ <i id=y>\n```": (
        "a $$ b\n\n<pre><code>&#60;i id&#61;x&#62; &#36;&#36; &#60;i id&#61;y&#62;</code></pre>"
    ),
    "\\$$ a $$\n\n```html\n<i id=x> $$ <i id=y>\n```": (
        "\\$$ a $$\n\n<pre><code>&#60;i id&#61;x&#62; &#36;&#36; &#60;i id&#61;y&#62;</code></pre>"
    ),
    # images
    "![a](https://b.org/c.png)": "[a](https://b.org/c.png)",
    "![a](//b.org/c.png) ![d](../api/e)": "[a](//b.org/c.png) [d](../api/e)",
    "![](https://b.org/c.png)": "[image](https://b.org/c.png)",
    "![a][b]\n\n[b]: https://c.org/d.png": "[a][b]\n\n[b]: https://c.org/d.png",
    "[![a](https://b.org/c.svg)](https://d.org)": "[a](https://d.org)",
    "![a](data:image/svg+xml;base64,AA)": "[a]&#40;data:image/svg+xml;base64,AA)",
    '![a" onerror="b](data:image/png;base64,AA)': '[a" onerror="b]&#40;data:image/png;base64,AA)',
    '<img src="https://b.org/c.png">': '&lt;img src="https://b.org/c.png">',
    # maths
    "$\\href{javascript:x}{y}$": "$\\backslash href{javascript:x}{y}$",
    "a \\\\style{b}{c}": "a \\\\\u2060style{b}{c}",
    "&#36;\\hre&#102;{javascript:x}{y}&#36;": "&#36;\\hre&amp;#102;{javascript:x}{y}&#36;",
    'https://a.org/$"onmouseover="x$': "https://a.org/$''onmouseover=''x$",
    '[a](b "$x" onclick="y$")': "[a](b &quot;$x'' onclick=''y$&quot;)",
    "https://a.org/@@1$b$": "https://a.org/@&#64;1$b$",
    # characters
    "a\x00b\x1b[31m": "a␀b␛[31m",
    'x\r```y" onclick="z"\rc\r```': "x\n\n```y\nc\n```",
    "a\u2028[b]: javascript:c": "a\n[b]&#58; javascript:c",
}


@pytest.mark.parametrize("text", UNCHANGED, ids=range(len(UNCHANGED)))
def test_what_can_do_nothing_stays_as_it_is(text: str) -> None:
    assert sanitize(text) == text


@pytest.mark.parametrize(("text", "expected"), CHANGED.items(), ids=range(len(CHANGED)))
def test_what_could_do_something_is_text(text: str, expected: str) -> None:
    assert sanitize(text) == expected
    assert what_acts(expected) == {}


def test_with_external_images_the_web_may_be_seen_and_nothing_else_changes() -> None:
    image = "![a cat](https://example.org/cat.png)"
    diagram = "```mermaid\ngraph TD; A-->B\n```"
    assert sanitize(image, external_images=True) == image
    assert sanitize(f"{diagram}\n\n{image}", external_images=True) == f"{diagram}\n\n{image}"
    for text in ('![a" onerror="x](https://e.org/c.png)', "![a](javascript:x)", "<script>x</script>"):
        written = sanitize(text, external_images=True)
        assert "![" not in written
        assert "<script" not in written


SEEDS = [
    "<script>x</script>", "<img src=x onerror=y>", "<svg onload=x>", "<style>b{}</style>", "<iframe src=x>",
    "<b onclick=x>", "[a](javascript:x)", "<div>", "</div>", "<details>", "`", "``", "```\n", "```html\n",
    "~~~\n", "````\n", "```~\n", "\n", "\n\n", "- ", "  ", "    ", "> ", "1. ", "|", "$", "$$", "\\", "<!--",
    "-->", "text ", "\t", "<pre>", "</pre>", "]: ", '<a title="`">', "](", "[x]", "&lt;", "<", ">", "\r",
    "===\n", "|-|-|\n", "![a](https://e.org/x)", "![", "![x]", "[x]: https://e.org\n", "[x]: javascript:y\n", '"',
    '" onerror="x', '```x" onclick="y"\n', "```mermaid\n", "https://e.org/", "www.e.org/", '$" onclick=x $',
    "@@0@@", "@@1", "\\begin{a}", "\\end{a}", "\\\\[", "\\\\]", "<javascript:x>", "<https://e.org/", "javascript:",
    "&#106;avascript:", "(", ")", "[", "]", "[foo", "bar]: ", ": ", "[^1]: ", "<?", "<![CDATA[", "]]>", "\u2028",
    "{", "}", "*", "_", "x ", "# ", "\\href{javascript:x}{y}", "<https://e.org>", "<pre><code>", "</code></pre>",
    "![a](data:image/png;base64,AA)", "~~", "[ ] ", "\\`", "\\[", "\\]", "`\n", "$\n", "\n```\n", "\n~~~\n",
    '<td align="right">', "&quot;", "onclick=x ", "=", "/>", "\n  ", "\n    ", "\n> ", "\n- ", "</a>",
    "\n\n```html\n<img src=x onerror=y>\n```\n\n", "\n```html\n<img src=x onerror=y>\n```\n",
]  # fmt: skip
hostile = st.lists(st.sampled_from(SEEDS), max_size=24).map("".join)


@given(hostile)
@settings(max_examples=3000, deadline=None)
def test_no_reader_of_markdown_finds_anything_that_acts(text: str) -> None:
    assert what_acts(for_notebook(text)) == {}


@given(hostile)
@settings(max_examples=500, deadline=None)
def test_a_text_that_was_made_harmless_is_so_in_every_surrounding(text: str) -> None:
    written = for_notebook(text)
    for before, after in (("", "\n\n*waiting*"), ("# Title\n\n", ""), ("Said:\n\n", "\n\nEnd")):
        assert what_acts(for_notebook(before + written + after)) == {}


@given(hostile)
@settings(max_examples=500, deadline=None)
def test_fenced_code_at_the_margin_is_exact(text: str) -> None:
    code = re.sub("[\r\u2028]", "", text.replace("`", "'").replace("~", "-")).rstrip("\n") + "\n<img src=x onerror=y>\n"
    html = commonmark(for_notebook(f"Code:\n```html\n{code}```\nEnd"))
    assert commonmark(f"```html\n{code}```\n") in html


ORDINARY = [
    "A line of *prose*, with `code < 2` and a [link](https://example.org/a?b=c&d=e).\n\n",
    "## A heading: with $x < y$\n\n",
    "- one\n- two\n    1. nested `x[0]: int`\n\n",
    '```python\ndef f(a: dict[str, int]) -> None:\n    print(f"{a[\'b\']:>{3}}", a[0](1), "$x")\n```\n\n',
    '```bash\necho "$HOME" | grep -v \'^#\' > out.txt; curl "https://a.org/$X"\n```\n\n',
    "```rust\nlet v = vec![1, 2]; // a < b\n```\n\n",
    '```json\n{"a": [1, {"b": null}]}\n```\n\n',
    "| a | b |\n|---|--:|\n| 1 | `x` |\n\n",
    "$$\n\\int_0^1 f(x)\\,dx < \\infty\n$$\n\n",
    "> A quote, 3 < 4.\n> Its second line.\n\n",
    "Inline maths: $a_1 < b$, \\(c\\), and $\\mathbb{R}^n$, which costs $5.\n\n",
    "[1]: https://example.org/a_(b)\n\n",
    "1. First\n\n   ```sql\n   SELECT a FROM b WHERE c <> 'd' AND e < 3;\n   ```\n\n2. Second\n\n",
    'Text with <sub>sub</sub>, <kbd>K</kbd>, <br> and ~~old~~ words; "quoted" — dash…\n\n',
    "- [x] done\n- [ ] open: see <https://example.org>\n\n".replace("<https://example.org>", "https://example.org"),
    "---\n\n",
    "Term: a word. Price: $3. Email a@b.org. 5 > 3 && 2 < 3; `a && b`.\n\n",
]


@given(st.lists(st.sampled_from(ORDINARY), max_size=12).map("".join))
@settings(max_examples=500, deadline=None)
def test_ordinary_markdown_stays_byte_for_byte(text: str) -> None:
    assert sanitize(text) == text


@pytest.mark.parametrize("page", ["CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_our_own_pages_stay_byte_for_byte(page: str) -> None:
    text = (Path(__file__).parent.parent.parent / page).read_text(encoding="utf-8")
    assert sanitize(text) == text


HEAPS = [
    "[", "](", ">", "> ", "*", "`", "``` ", "```\n", "~~~\n", "<", "<a ", "<b>", "$", "$$ a\n", "- ", "1. ", "\\",
    "\n", "(", "!", "![", "![a](", "[a]: ", "[a]\n", "[a]:\n", "_", "|", "|-|\n", "#", "`a\n", "\t", "&#x41;", "<!--",
    "<div>\n", "<b>\n</i>\n", "<b>a</b>", "</b>",
    "https://", "@@1", "\\href", '$"', '"$ https://\n\n', "]:", "[x](y)\n", "    <b onclick>\n\n",
    "> ```\n> <i onclick>\n> ```\n\n", "```\n<img>\n```\n", "`<img>` ", "[![a](b)](c) ", "x\n===\n",
    "a|b\n-|-\n<img>|`c|`\n", "\u2028", "- a\n  - ", "[^1]: ", "{", "~", "\\[", "\\( a", "\\begin{a}", "$a<b$ ",
    '<b title="a" ', "](&#x41;", "- " + " " * 30000, "\n    \\(a", "<pre><code>", "[a\n",
    "".join("`" * length + "x\n" for length in range(3, 60)),
    "".join("~" * length + "\n" for length in range(60, 3, -1)),
]  # fmt: skip


@pytest.mark.parametrize("unit", HEAPS, ids=range(len(HEAPS)))
@pytest.mark.parametrize("start", ["x ", "<script> \\(x\\) "])
def test_no_text_takes_long(unit: str, start: str) -> None:
    for_notebook("<script>")  # the parser is imported
    begun = time.perf_counter()
    written = for_notebook(start + unit * (1_000_000 // len(unit) + 1))
    assert time.perf_counter() - begun < 10  # seconds; measured: less than one
    assert not re.search(r"^<script>", written)


def test_a_text_beyond_all_bounds_is_code() -> None:
    text = "<script>" + "|`a`" * 50_000
    assert sanitize(text) == f"```\n{text}\n```"
