r"""The lexer of templates: Jinja2's, but text survives byte for byte, and tokens have offsets.

Jinja2 numbers tokens by line and turns line ends into `\n`. Here an error can name the column, and
each line end comes back as it was written. Offsets, from 0, count in the source with `\n` for every
line end.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jinja2 import Environment, TemplateSyntaxError
from jinja2.lexer import Lexer

# Comments are no part of a prompt's syntax: `{#1}` is LaTeX. No source has a \r once flattened.
COMMENT_START, COMMENT_END = "\r{#", "#}\r"


class Token(NamedTuple):
    """A token: the offset of its first character, its kind in Jinja2's words, and its text."""

    start: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Tag:
    """A `{{ … }}` or `{% … %}`: the offsets where it starts and ends, and its text on one line."""

    start: int
    end: int
    text: str
    closed: bool = True


class ExactLexer(Lexer):
    r"""A lexer that keeps line ends, drops lines of only block tags, and numbers by offset + 1.

    `{{{ a }}}` is the value of `a` in braces, as in `\frac{{{ a }}}{{{ b }}}`: a dict in a template
    begins `{{ {`.
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
        flat = flatten(source)
        tokens, error = self._read(flat, state)
        layout = _layout(flat, tokens)
        pairs = [match.start() - number for number, match in enumerate(re.finditer("\r\n", source))]
        for start, kind, text in tokens:
            end = start + len(text)
            if kind == "data":
                kept = layout[start:end].lstrip(b"-")
                start, end = end - len(kept), end - len(kept) + len(kept.rstrip(b"-"))  # noqa: PLW2901
                if start == end:
                    continue
            yield start + 1, kind, source[start + bisect_left(pairs, start) : end + bisect_left(pairs, end)]
        if error is not None:
            raise TemplateSyntaxError(error.message or "", error.lineno, name, filename)

    def _read(self, flat: str, state: str | None = None) -> tuple[list[Token], TemplateSyntaxError | None]:
        """Return the tokens of a source, as far as it can be read, and why not further."""
        tokens: list[Token] = []
        at = 0
        try:
            for _, kind, text in super().tokeniter(flat, None, None, state):
                at = flat.index(text, at)  # Jinja2 leaves out blanks before `{%-`
                tokens.append(Token(at, kind, text))
                at += len(text)
        except TemplateSyntaxError as error:
            message, _, offset = re.fullmatch(r"(.*?)( at (\d+))?", error.message or "", re.DOTALL).groups()  # type: ignore[union-attr]  # it matches anything
            return tokens, TemplateSyntaxError(message, int(offset or at) + 1)
        return tokens, None

    def tags(self, source: str) -> list[Tag]:
        """Return the tags of a source, as far as it can be read; only the last one may be open."""
        flat = flatten(source)
        return _tags(flat, self._read(flat)[0])


def flatten(source: str) -> str:
    r"""Return the source with `\n` for every line end, which offsets count in."""
    return re.sub("\r\n?", "\n", source)


def where(source: str, offset: int) -> str:
    r"""Return the words for an offset.

    >>> where("ab\r\ncd", 4)
    'line 2, column 2 of the prompt'

    """
    before = flatten(source)[:offset]
    line, column = before.count("\n") + 1, offset - before.rfind("\n")
    return f"line {line}, column {column} of the prompt"


def _tags(flat: str, tokens: list[Token]) -> list[Tag]:
    found: list[Tag] = []
    begin: int | None = None
    for start, kind, text in tokens:
        if kind in {"block_begin", "variable_begin"}:
            begin = start
        elif kind in {"block_end", "variable_end", "raw_begin", "raw_end"}:
            first, end = start if begin is None else begin, start + len(text.rstrip())
            found.append(Tag(first, end, " ".join(flat[first:end].split())))
            begin = None
    if begin is not None:
        found.append(Tag(begin, len(flat), " ".join(flat[begin:].split()), closed=False))
    return found


def _layout(flat: str, tokens: list[Token]) -> bytes:
    """Return the source, `%` for block tags, `x` for text, and `-` for what goes with the tags.

    That is the blanks and the line end around block tags that have a line for themselves, unless a
    `-` or `+` in one says what is to become of the blanks. Jinja2's own `trim_blocks` would also
    join the line that follows `text {% endif %}` to it.
    """
    shape = bytearray(b"x" * len(flat))
    for start, kind, text in tokens:
        if kind == "data":
            shape[start : start + len(text)] = re.sub(r"[^ \t\n]", "x", text).encode()
    for tag in _tags(flat, tokens):
        if re.match(r"\{%(?![-+]).*(?<![-+])%\}$", tag.text):
            shape[tag.start : tag.end] = b"%" * (tag.end - tag.start)
    bare_line = re.compile(rb"^[ \t]*+%[ \t%]*+(?:\n|\Z)", re.MULTILINE)
    return bare_line.sub(lambda match: re.sub(rb"[^%]", b"-", match[0]), bytes(shape))
