"""What a CommonMark parser finds in a text, at its place there: code blocks, code spans, images, links.

The parser (`markdown-it-py`) gives lines of blocks; its inline rules are made to tell where they found something.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_magic.markdown import unsafe

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_LONGEST_INLINE = 20_000
"""Characters of one paragraph in which code spans and images are looked for; what could act is found in any."""


@dataclass(frozen=True, slots=True)
class Code:
    """Code of a text: fenced at the margin, or `before` is what stands before it on its first line."""

    start: int
    end: int
    code: str
    info: str
    run: str
    before: str
    at_margin: bool
    closed: bool = True


class Span(NamedTuple):
    """A code span, an image or a link: where it is in the text; `content` is its code or its label."""

    kind: str
    start: int
    end: int
    content: str


def parsed(text: str, *, inline: bool = True) -> tuple[list[Code], list[Span]]:
    """Return the code blocks of a text, and its code spans, images and links."""
    parser = _parser()
    tokens: list[Any] = []
    references: dict[str, Any] = {}
    parser.block.parse(text, parser, references, tokens)
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    codes: list[Code] = []
    spans: list[Span] = []
    cells = [0, 0]  # the line of a table that is being read, and how far
    for token in tokens:
        if token.map is None:
            continue
        if token.type in {"fence", "code_block"}:
            codes.append(_code(token, lines, starts))
        elif inline and token.type == "inline" and _may_hold_spans(token.content):
            spans += _spans(token, lines, starts, cells, references)
    return codes, spans


def _may_hold_spans(content: str) -> bool:
    return ("`" in content or "![" in content) and len(content) <= _LONGEST_INLINE


def _code(token: Any, lines: list[str], starts: list[int]) -> Code:
    first, last = token.map
    last = min(last, len(lines))
    line = lines[first]
    start, end = starts[first], max(starts[first], starts[last] - 1)
    if token.type == "fence":
        before = line[: max(0, line.find(token.markup))]
        closed = last - first > 1 and re.fullmatch(
            rf"[ \t>]*{re.escape(token.markup)}{re.escape(token.markup[0])}*[ \t]*", lines[last - 1]
        )
        at_margin = token.level == 0 and not before
        if not closed and at_margin:
            end = starts[-1] - 1
        return Code(start, end, token.content, token.info, token.markup, before, at_margin, bool(closed))
    content = token.content.split("\n", 1)[0]
    place = line.rfind(content) if content else len(line)
    columns = line[: max(0, place)].expandtabs(4)[:-4]
    before = columns if not columns.strip() or columns.endswith(" ") else columns + " "
    return Code(start, end, token.content, "", "", before, at_margin=False)


def _spans(token: Any, lines: list[str], starts: list[int], cells: list[int], known: dict[str, Any]) -> Iterator[Span]:
    """Yield what is found in a paragraph, heading or cell, at its place in the text."""
    from markdown_it.rules_inline import StateInline

    found: list[tuple[str, int, int, str]] = []
    state = StateInline(token.content, _parser(), {**known, "found": found}, [])
    state.md.inline.tokenize(state)
    if not found:
        return
    places: list[tuple[int, int]] = []  # of each line of the content: where it begins there, and in the text
    at = 0
    for number, content in enumerate(token.content.split("\n"), token.map[0]):
        line = lines[number] if number < len(lines) else ""
        begin = cells[1] if cells[0] == number else 0
        place = line.find(content, begin)
        if place < 0:
            return  # it is not there as it stands, such as `\|` in a table
        if "\n" not in token.content:
            cells[:] = [number, place + len(content)]
        places.append((at, starts[number] + place))
        at += len(content) + 1
    for kind, start, end, content in found:
        yield Span(kind, _placed(places, start), _placed(places, end - 1) + 1, content)


def _placed(places: list[tuple[int, int]], at: int) -> int:
    begin, place = places[bisect_right(places, (at, sys.maxsize)) - 1]
    return place + at - begin


@cache
def _parser() -> MarkdownIt:
    """Return the parser, whose inline rules tell where they found something."""
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline

    parser = MarkdownIt("commonmark", {"html": True, "maxNesting": 12}).enable("table")
    parser.validateLink = bool  # type: ignore[assignment]  # where links lead is looked at here
    parser.inline.ruler.enableOnly(
        ["text", "newline", "escape", "backticks", "link", "image", "autolink", "html_inline"]
    )

    def telling(kind: str, rule: Any) -> Any:
        def told(state: StateInline, silent: bool) -> bool:
            start, count, found = state.pos, len(state.tokens), state.env["found"]
            if kind == "image":
                state.env["found"] = []  # a label is parsed by itself: places in it are not those of the text
            ok: bool = rule(state, silent)
            state.env["found"] = found
            if ok and not silent and len(state.tokens) > count and (kind != "code" or state.tokens[-1].content):
                content = state.tokens[-1].content if kind != "link" else ""
                found.append((kind, start, state.pos, content))
            return ok

        return told

    _replace(parser.block.ruler, "html_block", _of_safe_tags)
    for name, kind in (("backticks", "code"), ("image", "image"), ("link", "link")):
        _replace(parser.inline.ruler, name, partial(telling, kind))
    return parser


def _replace(ruler: Any, name: str, new: Callable[[Any], Any]) -> None:
    rule = next(rule for rule in ruler.__rules__ if rule.name == name)
    ruler.at(name, new(rule.fn), {"alt": rule.alt})


def _of_safe_tags(rule: Any) -> Any:
    """Return the rule of HTML blocks for those alone that will be some: other tags will be text."""

    def block(state: Any, start: int, end: int, silent: bool) -> bool:
        at = state.bMarks[start] + state.tShift[start]
        return unsafe.SAFE_TAG.match(state.src, at) is not None and rule(state, start, end, silent)

    return block
