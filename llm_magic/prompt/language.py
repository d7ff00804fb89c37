"""The template language: Jinja2's, over the live namespace, strict about what is not there.

Names are looked up when the template runs: its own first, then the notebook's, then Python's builtins. The notebook's
variables are neither copied nor changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from typing import Any

from jinja2 import Environment, StrictUndefined, Undefined, UndefinedError, pass_context
from jinja2.runtime import Context
from jinja2.utils import missing

from llm_magic.prompt.syntax import COMMENT_END, COMMENT_START, ExactLexer


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
