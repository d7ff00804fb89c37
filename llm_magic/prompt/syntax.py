r"""How a template is read: by Jinja2's grammar, but every byte outside of tags survives, and positions are exact.

Jinja2 numbers tokens by line and turns line ends into `\n`. The lexer here numbers them by offset, so that an
error can name the column, and gives each line end back as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import TemplateSyntaxError
from jinja2.lexer import Lexer

if TYPE_CHECKING:
    from jinja2 import Environment

_LINE_END = re.compile(r"\r\n|\r|\n")

# Comments are no part of a prompt's syntax: `{#1}` is LaTeX. No source contains these, its line ends being \n.
COMMENT_START, COMMENT_END = "\r{#", "#}\r"

_BEGINS = {"block_begin": "block_end", "variable_begin": "variable_end"}


class Token(NamedTuple):
    r"""A token of the lexer: where it starts in the source with `\n` line ends, from 0."""

    start: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A `{{ … }}` or `{% … %}`: where it starts and ends in the source, and its text on one line."""

    start: int
    end: int
    text: str
    closed: bool = True


class ExactLexer(Lexer):
    r"""A lexer that keeps line ends, removes lines that hold only block tags, and numbers tokens by offset + 1.

    `{{{ a }}}` is the value of `a` in braces, as in `\frac{{{ a }}}{{{ b }}}`: a dict in a template begins `{{ {`.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        text_up_to_a_tag = self.rules["root"][0]
        begin = r"(?P<variable_begin>\{\{"
        pattern = text_up_to_a_tag.pattern.pattern.replace(begin, begin + r"(?!\{)")
        self.rules["root"][0] = text_up_to_a_tag._replace(pattern=re.compile(pattern, re.MULTILINE | re.DOTALL))

    def _normalize_newlines(self, value: str) -> str:
        return value

    def tokeniter(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> Iterator[tuple[int, str, str]]:
        """Yield `(offset + 1, kind, text)`."""
        ends = _LINE_END.findall(source)
        flat = flatten(source)
        error: TemplateSyntaxError | None = None
        tokens: list[Token] = []
        at = 0
        try:
            for _, kind, text in super().tokeniter(flat, name, filename, state):
                at = flat.index(text, at)
                tokens.append(Token(at, kind, text))
                at += len(text)
        except TemplateSyntaxError as caught:
            error = caught
        line = passed = 0
        for token in _without_bare_lines(tokens):
            line += flat.count("\n", passed, token.start)
            passed = token.start
            first, *others = token.text.split("\n")
            restored = first + "".join(ends[line + number] + text for number, text in enumerate(others))
            yield token.start + 1, token.kind, restored
        if error is not None:
            found = re.search(r" at (\d+)$", error.message or "")
            message = re.sub(r" at \d+$", "", error.message or "")
            offset = int(found[1]) if found else at
            raise TemplateSyntaxError(message, offset + 1, name, filename)


def flatten(source: str) -> str:
    r"""Return the source with `\n` for every line end, which offsets count in."""
    return _LINE_END.sub("\n", source)


def place(flat: str, offset: int) -> tuple[int, int]:
    r"""Return line and column of an offset, both from 1.

    >>> place("ab\ncd", 4)
    (2, 2)

    """
    return flat.count("\n", 0, offset) + 1, offset - (flat.rfind("\n", 0, offset) + 1) + 1


def tags(environment: Environment, source: str) -> list[Tag]:
    """Return the tags of a source, as far as it can be read; only the last one may be open."""
    flat = flatten(source)
    found: list[Tag] = []
    begin: Token | None = None
    try:
        for number, kind, text in environment.lexer.tokeniter(source, None):
            if kind in _BEGINS:
                begin = Token(number - 1, kind, text)
            elif begin is not None and kind == _BEGINS[begin.kind]:
                end = number - 1 + len(text.rstrip())
                found.append(Tag(begin.start, end, " ".join(flat[begin.start : end].split())))
                begin = None
    except TemplateSyntaxError:
        pass
    if begin is not None:
        found.append(Tag(begin.start, len(flat), " ".join(flat[begin.start :].split()), closed=False))
    return found


def _without_bare_lines(tokens: list[Token]) -> list[Token]:
    """Drop the blanks and the line end of each line that holds only block tags, as a reader expects.

    Jinja2's own `trim_blocks` would also join the line that follows `text {% endif %}` to it.
    """
    pieces = _pieces(tokens)
    head = [0] * len(pieces)  # characters to cut at the start of a piece of text, and at its end
    tail = [0] * len(pieces)
    position = 0
    while position < len(pieces):
        if not _is_tag(pieces[position]):
            position += 1
            continue
        end = position
        while end + 1 < len(pieces) and (_is_tag(pieces[end + 1]) or _is_gap(pieces, end + 1)):
            end += 1
        before = pieces[position - 1][0].text if position else "\n"
        after = pieces[end + 1][0].text if end + 1 < len(pieces) else "\n"
        if position > 1 and "\n" not in before:
            before = "x"  # the line began before the tag that precedes this text
        elif position == 1:
            before = "\n" + before
        if end + 2 == len(pieces) and "\n" not in after:
            after += "\n"
        blank_before, blank_after = re.search(r"\n[ \t]*\Z", before), re.match(r"[ \t]*\n", after)
        if blank_before and blank_after and not any(_is_marked(pieces[index]) for index in range(position, end + 1)):
            if position:
                tail[position - 1] = len(blank_before[0]) - 1
            if end + 1 < len(pieces):
                head[end + 1] = len(blank_after[0])
            for gap in range(position, end + 1):
                head[gap] = 0 if _is_tag(pieces[gap]) else len(pieces[gap][0].text)
        position = end + 1
    kept: list[Token] = []
    for index, piece in enumerate(pieces):
        if head[index] or tail[index]:
            start, kind, text = piece[0]
            text = text[head[index] : len(text) - tail[index]]
            kept += [Token(start + head[index], kind, text)] if text else []
        else:
            kept += piece
    return kept


def _pieces(tokens: list[Token]) -> list[list[Token]]:
    """Group tokens: a piece is one run of text, or one whole tag."""
    pieces: list[list[Token]] = []
    inside = False
    for token in tokens:
        if inside:
            pieces[-1].append(token)
        else:
            pieces.append([token])
        if token.kind in _BEGINS:
            inside = True
        elif token.kind in _BEGINS.values():
            inside = False
    return pieces


def _is_tag(piece: list[Token]) -> bool:
    return piece[0].kind in {"block_begin", "raw_begin", "raw_end"}


def _is_gap(pieces: list[list[Token]], index: int) -> bool:
    """Whether this piece is blanks between two block tags of one line."""
    _, kind, text = pieces[index][0]
    return kind == "data" and not text.strip(" \t") and index + 1 < len(pieces) and _is_tag(pieces[index + 1])


def _is_marked(piece: list[Token]) -> bool:
    """Whether the writer said with `-` or `+` what is to become of the blanks."""
    return bool(re.search(r"^\{%[-+]|[-+]%\}\s*$", "".join(token.text for token in piece)))
