"""Markdown of a model as HTML: what is said is shown, and nothing in it can act, load, or restyle what is around it."""

from __future__ import annotations

import random
import re
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.markdown.as_html import as_html, code_as_html

sys.path.insert(0, str(Path(__file__).parent.parent / "browser"))  # for `payloads`

PLAIN = (
    "p", "blockquote", "ul", "li", "em", "strong", "s", "table", "thead", "tbody", "tr", "br", "hr",
)  # fmt: skip
ATTRIBUTES: dict[str, dict[str, str]] = {
    "a": {"href": r'(?:https?://|mailto:)[^\s"<>]+', "target": "_blank", "rel": "noopener noreferrer"},
    "img": {
        "src": r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+",
        "alt": r"[\s\S]*",
        "style": "max-width: 100%",
    },
    "div": {"class": "mathjax_ignore tex2jax_ignore", "style": r"white-space: pre-wrap; [\w%;:.,() -]+"},
    "span": {
        "class": "mathjax_process tex2jax_process",
        "style": r"color: var\(--jp-(?:ui-font-color2|mirror-editor-(?:string|keyword|tag)-color), #[0-9a-f]+\)",
    },
    "ol": {"start": r"\d+"},
    "th": {"scope": "col", "style": "text-align: ?(?:left|right|center)"},
    "td": {"style": "text-align: ?(?:left|right|center)"},
    "pre": {"style": r"white-space: pre-wrap; [\w%;:.,() -]+"},
    "code": {"style": "overflow-wrap: anywhere|background: none; [a-z;: 0-9-]+"},
    **{f"h{level}": {"style": r"font-weight: 600; font-size: [\d.]+em; margin: [\d. em]+"} for level in range(1, 7)},
    **{name: {} for name in PLAIN},
}  # fmt: skip
"""All that may come out: elements, their attributes, and what is in these."""
ALONE = {"img", "br", "hr"}


class Page(HTMLParser):
    """Reads HTML as a browser does: what is off the list, elements that are not paired, and the text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.code = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        allowed = ATTRIBUTES.get(tag)
        if allowed is None:
            self.wrong.append(tag)
        for name, value in attrs:
            if not re.fullmatch(str((allowed or {}).get(name, "(?!)")), value or "", re.IGNORECASE):
                self.wrong.append(f"{tag} {name}={value}")
        if tag not in ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.text += data
        self.code += data if "pre" in self.open else ""

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"<!--{data}")

    def handle_decl(self, decl: str) -> None:
        self.wrong.append(f"<!{decl}")

    def handle_pi(self, data: str) -> None:
        self.wrong.append(f"<?{data}")

    def unknown_decl(self, data: str) -> None:
        self.wrong.append(f"<![{data}")


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    page.wrong += page.open
    return page


def inner(text: str, **options: bool) -> str:
    html = as_html(text, **options)
    assert html.startswith('<div class="mathjax_ignore tex2jax_ignore">')
    return html[html.index(">") + 1 : -len("</div>")]


MATHS = '<span class="mathjax_process tex2jax_process">{}</span>'
LINK = 'target="_blank" rel="noopener noreferrer"'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("*b* **c** ~~d~~", "<p><em>b</em> <strong>c</strong> <s>d</s></p>"),
        ("`f<`", '<p><code style="overflow-wrap: anywhere">f&lt;</code></p>'),
        ("- a\n- b", "<ul><li>a\n</li><li>b\n</li></ul>"),
        ("3. a", '<ol start="3"><li>a\n</li></ol>'),
        ("> a\n\n---", "<blockquote><p>a</p></blockquote><hr>"),
        ("a<br>b<BR />c  \nd", "<p>a<br>\nb<br>\nc<br>\nd</p>"),
        ("<b onclick=x>", "<p>&lt;b onclick=x&gt;</p>"),
        ("<script>\nx", "<p>&lt;script&gt;\nx</p>"),
        ("<!-- a -->", "<p>&lt;!-- a --&gt;</p>"),
        ('[a](https://e.org/?b=1&c="")', f'<p><a href="https://e.org/?b=1&amp;c=%22%22" {LINK}>a</a></p>'),
        ('[a](https://e.org "title")', f'<p><a href="https://e.org" {LINK}>a</a></p>'),
        ("<https://e.org>", f'<p><a href="https://e.org" {LINK}>https://e.org</a></p>'),
        ("<a@b.org>", f'<p><a href="mailto:a@b.org" {LINK}>a@b.org</a></p>'),
        ("[a](javascript:b) [c](d.md) [e](#f) [g](data:text/html,h)",
         "<p>[a](javascript:b) [c](d.md) [e](#f) [g](data:text/html,h)</p>"),
        ("[a](data:image/png;base64,AAAA)", "<p>a</p>"),
        ("![a *b*](data:image/png;base64,AAAA)",
         '<p><img src="data:image/png;base64,AAAA" alt="a b" style="max-width: 100%"></p>'),
        ("![a](https://e.org/b.png)", f'<p><a href="https://e.org/b.png" {LINK}>a</a></p>'),
        ("[![a](https://e.org/b.png)](https://e.org/c)", f'<p><a href="https://e.org/c" {LINK}>a</a></p>'),
        ("![a](b.png) ![a](data:image/svg+xml;base64,AAAA)",
         "<p>![a](b.png) ![a](data:image/svg+xml;base64,AAAA)</p>"),
        ("\x1b[31m\u202ea", "<p>␛[31m{U+202E}a</p>"),
    ],
)  # fmt: skip
def test_what_is_written(text: str, html: str) -> None:
    assert inner(text) == html
    assert read(as_html(text)).wrong == []


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (r"let \(a_1 * b_2 *\) be", f"<p>let {MATHS.format('$a_1 * b_2 *$')} be</p>"),
        ("$a<b$, $5 and $6, $7-$8, \\$9 and \\$10", f"<p>{MATHS.format('$a&lt;b$')}, $5 and $6, $7-$8, $9 and $10</p>"),
        ("$$\na\n- b\n+ c\n$$", "<p>" + MATHS.format("$$\na\n- b\n+ c\n$$") + "</p>"),
        ("so\n\\[\na\n\nb\n\\]\nand", "<p>so</p><p>" + MATHS.format("$$\na\nb\n$$") + "</p><p>and</p>"),
        ("\\begin{align}\na\n- b\n\\end{align}", "<p>" + MATHS.format("\\begin{align}\na\n- b\n\\end{align}") + "</p>"),
        ("`$a$` and\n\n    $b$", '<p><code style="overflow-wrap: anywhere">$a$</code> and</p>' + code_as_html("$b$\n")),
        (r"$\href{javascript:a}{b}$", f"<p>{MATHS.format('$' + chr(92) + chr(0x2060) + 'href{javascript:a}{b}$')}</p>"),
        ("| $a$ | b |\n|---|--:|\n| c<br>d | $|e|$ |", None),
    ],
)  # fmt: skip
def test_maths_is_kept_for_mathjax_and_nothing_else_is_maths(text: str, html: str | None) -> None:
    if html is not None:
        assert inner(text) == html
    assert read(as_html(text)).wrong == []


def test_code_is_its_text_coloured_where_its_language_is_known() -> None:
    code = 'if a < b:  # "c" & \\href{d}{e}\n    pass\n'
    html = as_html(f"```python\n{code}```\n")
    assert read(html).wrong == []
    assert read(html).code == code
    assert "--jp-mirror-editor-keyword-color" in html
    assert "<span" not in as_html(f"```python\n{code}```\n", plain=True)
    for info in ('python" onclick="x', "mermaid", "{.python #id}", "nothing"):
        shown = as_html(f"~~~{info}\n{code}~~~\n")
        assert read(shown).wrong == []
        assert read(shown).code == code


def test_headings_are_below_those_around_them() -> None:
    assert "".join(re.findall(r"<h\d", as_html("# a\n\n## b\n\n##### c", headings=3))) == "<h4<h5<h6"


def test_images_of_the_web_load_only_where_they_may() -> None:
    html = as_html("![a](https://e.org/b.png) ![c](javascript:d) ![e](http://f)", external_images=True)
    assert re.findall(r'src="([^"]*)', html) == ["https://e.org/b.png", "http://f"]
    assert html.count('referrerpolicy="no-referrer"') == 2


def test_no_payload_acts() -> None:
    from payloads import payloads

    for payload in payloads():
        page = read(as_html(payload.text, plain=payload.number % 4 > 0))
        assert page.wrong == [], payload


SEEDS = (
    "<script>x</script>", "<img src=x onerror=y>", "`", "``", "```\n", "```html\n", "~~~\n", "\n", "\n\n", "- ", "    ",
    "> ", "1. ", "|", "|-|-|\n", "$", "$$", "\\", "<!--", "-->", "text ", "\t", "<br>", "](", "![", "[", "]: ", "\\(",
    "\\)", "\\[", "\\]", "\\begin{a}", "\\end{a}", "&lt;", "&#60;", "*", "**", "~~", "_", "# ", "===\n", '"', "'",
    "https://e.org/", "javascript:x", "data:image/png;base64,AA==", "<https://e.org>", "\ud800", "\x00", "\u2028",
)  # fmt: skip


def test_no_mixture_acts_and_elements_are_paired() -> None:
    source = random.Random(11)  # noqa: S311 - mixtures, not secrets
    for _ in range(2_000):
        text = "".join(source.choices(SEEDS, k=source.randint(2, 16)))
        assert read(as_html(text)).wrong == [], text


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.text(max_size=200))
def test_no_text_acts(text: str) -> None:
    assert read(as_html(text)).wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "[a]: https://e.org/" + "x" * 1_000 + "\n\n" + "[a] " * 5_000,
        "![" * 3_000 + "a" + "](https://e.org)" * 3_000,
        "[" * 5_000 + "a" + "](https://e.org)" * 2_000,
        ">" * 3_000 + " end",
        "- " * 3_000 + "end",
        "*" * 10_000 + "a" + "*" * 10_000,
        "*a **b " * 5_000,
        "`" + "".join("`" * (1 + number % 80) + " " for number in range(2_000)),
        "$a" * 10_000,
        "\\begin{a}" * 3_000,
        "$$\n" * 3_000,
        "|" * 500 + "\n" + "|-" * 499 + "|\n" + "|\n" * 500,
        "<" * 20_000,
        "```python\n" + '"' * 19_000,
        "```html\n" + "<a " * 6_000,
        "\\(" * 10_000,
    ],
    ids=lambda text: text[:8],
)
def test_nothing_takes_long_or_grows_beyond_measure(text: str) -> None:
    begun = time.process_time()
    html = as_html(text)
    assert time.process_time() - begun < 3
    assert len(html) < 60 * len(text) + 20_100
    assert read(html).wrong == []


def test_nothing_is_lost_however_deep_it_is() -> None:
    for text in (">" * 200 + " end", "- " * 200 + "end", "*a " * 200 + "end" + "*" * 200):
        assert "end" in read(as_html(text)).text
