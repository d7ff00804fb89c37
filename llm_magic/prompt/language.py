"""How a template is read: by Jinja2's grammar, but every byte outside of tags survives, and positions are exact.

Jinja2 numbers tokens by line and turns line ends into `\n`. The lexer here numbers them by offset, so that an
error can name the column, and gives each line end back as it was written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError, pass_context
from jinja2.lexer import Lexer
from jinja2.runtime import Context
from jinja2.utils import missing

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


class UnknownError(UndefinedError):
    """What is not there is used: a name (`obj` is Jinja2's `missing`), or an attribute or item of `obj`."""

    def __init__(self, obj: Any, name: Any, message: str | None = None) -> None:
        super().__init__(message)
        self.obj = obj
        self.name = name


class Unknown(StrictUndefined):
    """What is not there: a template may ask whether it is defined, or give it a default, and nothing else."""

    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = missing, name: Any = None, exc: Any = None) -> None:
        raised: Any = exc or partial(UnknownError, obj, name)  # typed as a class there, but only ever called
        super().__init__(hint, obj, name, raised)


class _Environment(Environment):
    """Jinja2 with our lexer, and attributes and items that fail the way Python's do."""

    @cached_property
    def lexer(self) -> ExactLexer:
        return ExactLexer(self)

    def getattr(self, obj: Any, attribute: str) -> Any:
        try:
            return getattr(obj, attribute)
        except AttributeError:
            if hasattr(type(obj), attribute):
                raise  # a property that failed
        try:
            return obj[attribute]
        except (TypeError, LookupError, AttributeError):
            return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return obj[argument]
        except LookupError:
            return self.undefined(obj=obj, name=argument)
        except TypeError:
            if isinstance(argument, str) and hasattr(obj, argument):
                return getattr(obj, argument)
            raise


class Names(Context):
    """The names of one run of a template.

    `find` gives the value of a name that the template did not set, or Jinja2's `missing`; `show` gives the text of a
    value, told the line of the compiled template that wants it.
    """

    find: Callable[[str], Any]
    show: Callable[[Any, int], str]

    def resolve_or_missing(self, key: str) -> Any:
        """Return the value of a name."""
        return self.vars[key] if key in self.vars else self.find(key)

    def call(self, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls; an unknown name as an argument is an error here, not within the function."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, Unknown):
                value._fail_with_undefined_error()  # noqa: SLF001 - Jinja2 has no public way
        return super().call(obj, *args, **kwargs)

    def derived(self, locals: dict[str, Any] | None = None) -> Names:  # noqa: A002 - as the base class has it
        """Return these names with some more; the base class would copy the notebook's."""
        other = Names(self.environment, self.parent, self.name, {})
        other.vars = self.vars | {name: value for name, value in (locals or {}).items() if value is not missing}
        other.find, other.show, other.eval_ctx, other.blocks = self.find, self.show, self.eval_ctx, self.blocks
        return other


@pass_context
def _finalize(names: Names, value: Any) -> str:
    if isinstance(value, Undefined):
        return str(value)  # raises, but for `{{ x if condition }}` without an else
    return names.show(value, sys._getframe(1).f_lineno)  # noqa: SLF001 - the line tells which expression it is


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the language, the same for all prompts."""
    made = _Environment(
        comment_start_string=COMMENT_START,
        comment_end_string=COMMENT_END,
        keep_trailing_newline=True,
        undefined=Unknown,
        finalize=_finalize,
        extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"],
    )
    for name in ("lipsum", "range", "dict"):  # the latter two are Python's own
        del made.globals[name]
    made.filters["tojson"] = _to_json
    return made


def _to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON as it is written; Jinja2's own filter escapes it for HTML."""
    from pydantic_core import to_json

    return to_json(value, indent=indent, fallback=repr, inf_nan_mode="constants").decode()
