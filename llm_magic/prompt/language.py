r"""The language of templates: Jinja2's, but text survives byte for byte, and errors have columns.

Jinja2 numbers tokens by line and turns line ends into `\n`. Here tokens are numbered by their
offset in the source, from 0, and each line end comes back as it was written. Names are those of the
notebook; names, attributes and items that are not there fail the way Python's do.
"""

from __future__ import annotations

import builtins
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError, pass_context
from jinja2.lexer import Lexer
from jinja2.runtime import Context
from jinja2.utils import missing

from llm_magic.errors import LLMError
from llm_magic.prompt.values import to_json


@dataclass(frozen=True, slots=True)
class Tag:
    """A `{{ … }}` or `{% … %}`: the offsets where it starts and ends, and its text on one line."""

    start: int
    end: int
    text: str
    closed: bool = True


_Token = tuple[int, str, str]  # the offset of its first character, its kind in Jinja2's words, its text


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
        for start, kind, text in tokens:
            end = start + len(text)
            if kind == "data":
                kept = layout[start:end].lstrip(b"-")
                start, end = end - len(kept), end - len(kept) + len(kept.rstrip(b"-"))  # noqa: PLW2901
                if start == end:
                    continue
            yield start + 1, kind, source[start:end]
        if error is not None:
            raise TemplateSyntaxError(error.message or "", error.lineno, name, filename)

    def _read(self, flat: str, state: str | None = None) -> tuple[list[_Token], TemplateSyntaxError | None]:
        """Return the tokens of a source, as far as it can be read, and why not further."""
        tokens: list[_Token] = []
        at = 0
        try:
            for _, kind, text in super().tokeniter(flat, None, None, state):
                at = flat.index(text, at)  # Jinja2 leaves out blanks before `{%-`
                tokens.append((at, kind, text))
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
    r"""Return the source as Jinja2 is to see it: as long as it was, with `\n` for every line end."""
    return source.replace("\r\n", " \n").replace("\r", "\n")


def _tags(flat: str, tokens: list[_Token]) -> list[Tag]:
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


def _layout(flat: str, tokens: list[_Token]) -> bytes:
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


class UnknownError(UndefinedError):
    """A name (`obj` is Jinja2's `missing`), or an attribute or item of `obj`, is not there."""

    def __init__(self, obj: Any, name: Any, message: str | None = None) -> None:
        super().__init__(message)
        self.obj = obj
        self.name = name


class _Unknown(StrictUndefined):
    """What is not there: a template may ask whether it is defined, or give it a default."""

    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = missing, name: Any = None, exc: Any = None) -> None:
        raised: Any = exc or partial(UnknownError, obj, name)  # typed as a class, but only called
        super().__init__(hint, obj, name, raised)


class Names(Context):
    """The names of a template: its own, the notebook's, the language's, `error`, the builtins.

    `show` gives the text of a value, told the line of the compiled template that wants it.
    """

    def __init__(self, blocks: dict[str, Any], namespace: Mapping[str, Any], show: Callable[[Any, int], str]) -> None:
        super().__init__(LANGUAGE, {}, None, blocks)
        self.namespace = namespace
        self.show = show

    def resolve_or_missing(self, key: str) -> Any:
        """Return the value of a name, or Jinja2's `missing`."""
        for names in (self.vars, self.namespace, self.environment.globals):
            try:
                return names[key]
            except KeyError:
                continue
        if key == "error":
            error = last_error()
            return missing if error is None else error
        return getattr(builtins, key, missing)

    def call(self, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls; an unknown name as an argument is an error here already."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, _Unknown):
                value._fail_with_undefined_error()  # noqa: SLF001 - Jinja2 has no public way
        return super().call(obj, *args, **kwargs)

    def derived(self, locals: dict[str, Any] | None = None) -> Names:  # noqa: A002 - as the base class has it
        """Return these names with some more; the base class would copy the notebook's."""
        other = Names({}, self.namespace, self.show)
        other.vars = self.vars | {name: value for name, value in (locals or {}).items() if value is not missing}
        other.eval_ctx, other.blocks = self.eval_ctx, self.blocks
        return other


_others: list[BaseException] = []  # the last one that was not ours, while ours may hide it


def last_error() -> BaseException | None:
    """Return the last exception of the notebook; our own only where there is no other.

    A `%%llm` cell that asks about an error and fails on a typing mistake is run again: it means the
    same error.
    """
    last: BaseException | None = getattr(sys, "last_value", None)
    if last is None:
        _others.clear()
    elif not isinstance(last, LLMError):
        _others[:] = [last]
    return _others[0] if _others else last


class _Language(Environment):
    """Jinja2 with our lexer, and attributes and items that fail the way Python's do."""

    @cached_property
    def lexer(self) -> ExactLexer:
        return ExactLexer(self)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if hasattr(type(obj), attribute):
            return getattr(obj, attribute)  # a property that fails is no missing attribute
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return obj[argument]
        except LookupError:
            return self.undefined(obj=obj, name=argument)
        except TypeError:
            if isinstance(argument, str) and hasattr(obj, argument):
                return getattr(obj, argument)
            raise


@pass_context
def _shown(names: Names, value: Any) -> str:
    if isinstance(value, Undefined):
        return str(value)  # raises, but for `{{ x if condition }}` without an else
    return names.show(value, sys._getframe(1).f_lineno)  # noqa: SLF001 - the line tells which expression it is


LANGUAGE = _Language(
    comment_start_string="\r{#",  # `{#1}` is LaTeX: no comments, as no source has a \r once flattened
    comment_end_string="#}\r",
    keep_trailing_newline=True,
    undefined=_Unknown,
    finalize=_shown,
    extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"],
)
"""The language of templates, the same for all prompts."""
for _name in ("lipsum", "range", "dict"):  # the latter two are Python's own
    del LANGUAGE.globals[_name]
LANGUAGE.filters["tojson"] = to_json  # Jinja2's own escapes it for HTML
