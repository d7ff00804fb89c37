r"""A model's markdown as HTML that can do nothing by itself: outputs of a cell that was run are not sanitized.

A CommonMark parser (`markdown-it-py`, with tables and strikethrough) reads the text; HTML in it is text. What is
written here is all that can come out: elements of a fixed list, whose attributes are our own but for the targets of
links (pages of the web, `mailto:`) and images (data of a bitmap). Maths stands in elements in which alone MathJax looks
for it, as it would else take two amounts of dollars for a formula; its commands that act are none
(`unsafe.neutral_maths`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llm_magic.control_characters import visible
from llm_magic.markdown import with_dollars
from llm_magic.markdown.highlighted import highlighted
from llm_magic.markdown.links import web_url
from llm_magic.markdown.unsafe import neutral_maths

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_NO_MATHS = "mathjax_ignore tex2jax_ignore"
_MATHS = "mathjax_process tex2jax_process"
"""Classes by which MathJax (3, 2) knows where it is to look for formulas, within what it is not to look at."""
_WRAP = "white-space: pre-wrap; overflow-wrap: anywhere; word-break: normal"
_CODE_FONT = "font-family: var(--jp-code-font-family, monospace)"
_CODE = (
    f"{_WRAP}; {_CODE_FONT}; font-size: var(--jp-code-font-size, 0.9em); line-height: 1.4; margin: 0.6em 0; "
    "padding: 0.5em 0.7em; background: var(--jp-cell-editor-background, rgba(128, 128, 128, 0.1)); border-radius: 3px"
)
_IN_CODE = "background: none; padding: 0; color: inherit; font: inherit; white-space: inherit; word-break: normal"
_SIZES = {"1": "1.3em", "2": "1.2em", "3": "1.1em"}
"""Of headings, by their level in the text; the others are as large as the text."""
_LINK = 'target="_blank" rel="noopener noreferrer"'
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+=*")
_MAIL = re.compile(r"mailto:[\w.+-]+@[\w-]+(?:\.[\w-]+)*", re.ASCII | re.IGNORECASE)
_ELEMENTS = {
    "paragraph": "p", "blockquote": "blockquote", "bullet_list": "ul", "list_item": "li", "em": "em",
    "strong": "strong", "s": "s", "table": "table", "thead": "thead", "tbody": "tbody", "tr": "tr",
}  # fmt: skip
_ALIGNED = {"text-align:left", "text-align:right", "text-align:center"}
_DEEPEST = 60
"""Blocks or marks within each other; a text that has more is shown as it stands, as nothing of it may be lost."""
_MOST, _LEAST = 60, 20_000
"""Characters of HTML for each of the text, and beyond; a text that makes more (empty cells) is shown as it stands."""
_LOWEST = 6
_TARGETS = 4_096
"""Characters of targets, besides twice those of the text: one definition may be the target of a thousand links."""
_BR = re.compile(r"<br[ \t]*/?>", re.IGNORECASE)
_INLINE_MATHS = re.compile(r"\$\$((?:\\[\s\S]|[^$\\])+)\$\$|\$((?![\s$])(?:\\[\s\S]|[^$\\])*(?<!\s))\$(?!\d)")
_NAMES = r"(?:align|alignat|eqnarray|equation|flalign|gather|multline)\*?"
"""Environments that are maths by themselves (amsmath); others, such as matrices, stand within maths."""
_ENVIRONMENT = re.compile(rf"\\begin\{{(?P<name>{_NAMES})\}}[\s\S]*?\\end\{{(?P=name)\}}")
_OPENS = re.compile(rf"\\begin\{{({_NAMES})\}}")
_LONGEST_MATHS = 4_000


def as_html(text: str, *, external_images: bool = False, headings: int = 0, plain: bool = False) -> str:
    """Return a model's markdown as HTML in which nothing runs, loads or restyles what is around it.

    Parameters
    ----------
    text
        Anything.
    external_images
        Whether images of the web may load; else they are links.
    headings
        Levels by which headings are lower than in the text: what is around it has those.
    plain
        Whether code is left without colours, which is quicker and shorter.

    >>> as_html("a *b* <i>c</i> [d](javascript:e)")
    '<div class="mathjax_ignore tex2jax_ignore"><p>a <em>b</em> &lt;i&gt;c&lt;/i&gt; [d](javascript:e)</p></div>'

    """
    shown = visible(with_dollars(text))
    parser = _parser()
    try:
        tokens = parser.parse(shown)
        deep = any(token.level >= _DEEPEST or _is_deep(token.children or ()) for token in tokens)
        html = None if deep else _Writer(shown, external_images, headings, plain).written(tokens)
    except RecursionError:
        html = None
    if html is None or len(html) > _MOST * len(shown) + _LEAST:
        html = f'<div style="{_WRAP}">{_text(shown)}</div>'
    return f'<div class="{_NO_MATHS}">{html}</div>'


def code_as_html(code: str, language: str = "") -> str:
    """Return code as HTML, coloured where its language is known."""
    return f'<pre style="{_CODE}"><code style="{_IN_CODE}">{highlighted(visible(code), language)}</code></pre>'


def _is_deep(tokens: Sequence[Any]) -> bool:
    return any(token.level >= _DEEPEST for token in tokens)


def _text(text: str) -> str:
    return escape(neutral_maths(text))


def _target(url: str) -> str | None:
    """Return what a link may lead to, as it may stand in an attribute; None where it may not."""
    if _MAIL.fullmatch(url.partition("?")[0]):
        return quote(url.partition("?")[0], safe="@:+-._")
    return web_url(url)


class _Writer:
    """Writes the tokens of one text."""

    def __init__(self, text: str, external_images: bool, headings: int, plain: bool) -> None:
        self._external_images = external_images
        self._headings = headings
        self._plain = plain
        self._left = 2 * len(text) + _TARGETS
        self._open: list[bool] = []  # of the links around: whether each is one

    def written(self, tokens: Sequence[Any]) -> str:
        return "".join(self._pieces(tokens))

    def _pieces(self, tokens: Sequence[Any]) -> Iterator[str]:
        for token in tokens:
            kind = token.type
            if kind == "inline":
                yield from self._pieces(token.children or ())
            elif kind == "text":
                yield _text(token.content)
            elif kind in {"softbreak", "hardbreak"}:
                yield "<br>\n" if kind == "hardbreak" else "\n"
            elif kind == "code_inline":
                yield f'<code style="overflow-wrap: anywhere">{escape(token.content)}</code>'
            elif kind in {"fence", "code_block"}:
                info = token.info.split()
                yield code_as_html(token.content, info[0].strip("{}.") if info and not self._plain else "")
            elif kind in {"maths", "maths_block"}:
                yield self._maths(token)
            elif kind == "image":
                yield self._image(token)
            elif kind == "hr":
                yield "<hr>"
            else:
                yield self._tag(token)

    def _maths(self, token: Any) -> str:
        maths = f'<span class="{_MATHS}">{_text(token.content)}</span>'
        return f"<p>{maths}</p>" if token.type == "maths_block" else maths

    def _tag(self, token: Any) -> str:
        """Return the tag that opens or closes an element; whatever else there may be is text."""
        name, _, part = token.type.rpartition("_")
        closes = part == "close"
        if name == "link":
            return self._link(closes=closes, url=str(token.attrs.get("href", "")))
        if part not in {"open", "close"} or token.hidden:
            return "\n" if token.hidden and closes else _text(token.content)
        if name == "heading":
            element = f"h{min(_LOWEST, int(token.tag[1:]) + self._headings)}"
        elif name == "ordered_list":
            element = "ol"
        elif name in {"th", "td"}:
            element = name
        else:
            element = _ELEMENTS.get(name, "")
        if not element:
            return _text(token.content)
        return f"</{element}>" if closes else f"<{element}{_attributes(name, token)}>"

    def _link(self, *, closes: bool, url: str) -> str:
        if closes:
            return "</a>" if self._open.pop() else ""
        href = _target(url)
        if href is not None:
            self._left -= len(href)
        self._open.append(href is not None and self._left >= 0)
        return f'<a href="{escape(href or "")}" {_LINK}>' if self._open[-1] else ""

    def _image(self, token: Any) -> str:
        """Return an image of data, or of the web where these may load; else a link to it."""
        source, alt = str(token.attrs.get("src", "")), _alt(token)
        url = web_url(source)
        data = _IMAGE.fullmatch(source) is not None
        self._left -= len(source)
        if self._left < 0 or not (data or url):
            return _text(alt)
        if data or self._external_images:
            shown = escape(source if data else url or "")
            private = "" if data else ' referrerpolicy="no-referrer"'
            return f'<img src="{shown}" alt="{escape(alt)}" style="max-width: 100%"{private}>'
        said = _text(alt or url or "")
        return said if any(self._open) else f'<a href="{escape(url or "")}" {_LINK}>{said}</a>'


def _alt(token: Any) -> str:
    """Return what an image is called, without marks."""
    inner = token.children or ()
    return "".join(_alt(each) if each.type == "image" else each.content for each in inner)


def _attributes(name: str, token: Any) -> str:
    if name == "heading":
        return f' style="font-weight: 600; font-size: {_SIZES.get(token.tag[1:], "1em")}; margin: 0.8em 0 0.4em"'
    if name == "ordered_list" and isinstance(start := token.attrs.get("start"), int):
        return f' start="{start}"'
    if name in {"th", "td"}:
        style = token.attrs.get("style")
        scope = ' scope="col"' if name == "th" else ""
        return f'{scope} style="{style}"' if style in _ALIGNED else f'{scope} style="text-align: left"'
    return ""


# The parser


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _DEEPEST + 1}).enable(["table", "strikethrough"])
    parser.validateLink = _may_be_target  # type: ignore[method-assign]  # its documented way to say which links are allowed
    interrupts: Any = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    parser.block.ruler.before("fence", "maths_block", _maths_block, interrupts)
    parser.inline.ruler.before("escape", "maths", _maths)
    parser.inline.ruler.before("autolink", "line_break", _line_break)
    return parser


def _may_be_target(url: str) -> bool:
    """Tell whether a link or an image may have this target; else it is text."""
    return _target(url) is not None or _IMAGE.fullmatch(url) is not None


def _maths(state: Any, silent: bool) -> bool:
    """Read maths in dollars, or an environment, whose text is not markdown."""
    first = state.src[state.pos]
    if first == "$":
        found = _INLINE_MATHS.match(state.src, state.pos, min(state.posMax, state.pos + _LONGEST_MATHS))
    elif first == "\\" and state.src.startswith("begin{", state.pos + 1):
        found = _ENVIRONMENT.match(state.src, state.pos, min(state.posMax, state.pos + _LONGEST_MATHS))
    else:
        return False
    if found is None:
        return False
    if not silent:
        state.push("maths", "", 0).content = found[0]
    state.pos = found.end()
    return True


def _line_break(state: Any, silent: bool) -> bool:
    """Read `<br>`, which models write into cells of tables."""
    found = _BR.match(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        state.push("hardbreak", "br", 0)
    state.pos = found.end()
    return True


def _maths_block(state: Any, first: int, end: int, silent: bool) -> bool:
    """Read maths in lines of its own, in which a line may begin with a minus: `$$`, or an environment."""
    if state.is_code_block(first):
        return False
    line = _line(state, first)
    environment = _OPENS.match(line)
    if environment is None and not line.startswith("$$"):
        return False
    closing = "$$" if environment is None else f"\\end{{{environment[1]}}}"
    lines: list[str] = []
    for number in range(first, min(end, first + _MOST_LINES)):
        line = _line(state, number)
        if not line or (number > first and state.sCount[number] < state.blkIndent):
            return False
        lines.append(line)
        rest = line[2:] if number == first else line
        if closing in rest:
            if not rest.endswith(closing) or rest.index(closing) != len(rest) - len(closing):
                return False
            break
    else:
        return False
    if silent:
        return True
    token = state.push("maths_block", "", 0)
    token.content, token.map = "\n".join(lines), [first, first + len(lines)]
    state.line = first + len(lines)
    return True


_MOST_LINES = 200


def _line(state: Any, number: int) -> str:
    return str(state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]).strip()
