"""A template over the notebook's variables: rendered to parts, or to an error that tells where."""

from __future__ import annotations

import builtins
import re
import secrets
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, NoReturn

from jinja2 import Environment, StrictUndefined, Template, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.utils import missing

from llm_magic.errors import LLMError
from llm_magic.messages import Part, Text
from llm_magic.prompt import errors
from llm_magic.prompt.errors import UnknownError
from llm_magic.prompt.lexer import COMMENT_END, COMMENT_START, ExactLexer
from llm_magic.prompt.values import Limits, Rendering, to_prompt

_FILE = "<prompt>"
_MOST = 120  # characters of a tag in a message


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt ready to send: text and images in their order, and notes for the user on cuts."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()


def render(template: str, namespace: Mapping[str, Any], *, settings: Limits, raw: bool = False) -> Rendered:
    r"""Render a cell's body over the notebook's variables.

    Parameters
    ----------
    template
        The body. Text outside of `{{ … }}` and `{% … %}` is kept byte for byte.
    namespace
        The variables, read where the template names them and never copied. Names that are not there
        may be Python builtins (`{{ len(df) }}`), or `error`: the last exception of the notebook,
        with its traceback.
    settings
        The rows of a table, the characters of a value and the pixels of an image that are allowed.
    raw
        The body is no template: it is sent as it stands.

    Returns
    -------
    Rendered
        Its `parts` are texts, and images where the template names some.

    Raises
    ------
    PromptError
        The template does not parse, names what is not there, or a value fails while it is rendered.

    Examples
    --------
    >>> from llm_magic.config.settings import Settings
    >>> render("{{ n + 1 }} of {\"n\": 1}", {"n": 1}, settings=Settings()).parts
    (Text(text='2 of {"n": 1}'),)

    """
    last_error()  # noted, should one of ours hide it
    if raw or ("{{" not in template and "{%" not in template):
        return Rendered((Text(template),))
    return _Run(template, namespace, settings).rendered()


class _Run:
    """One template at work."""

    def __init__(self, source: str, namespace: Mapping[str, Any], limits: Limits) -> None:
        self.source = source
        self.namespace = namespace
        self.limits = limits
        self.notes: dict[str, None] = {}
        self.placed: list[Rendering] = []
        self.nonce = str(secrets.randbelow(10**18))  # no value holds our marks, not even on purpose
        self.template = self._compile()

    def rendered(self) -> Rendered:
        names = _Names(_language(), self.template.blocks, self.namespace, self.show)
        try:
            text = "".join(self.template.root_render_func(names))
        except Exception as error:  # noqa: BLE001 - whatever the user's objects raise
            self._fail(error)
        return Rendered(tuple(self._parts(text)), tuple(self.notes))

    def _compile(self) -> Template:
        """Read the template. Its line numbers are offsets, see `ExactLexer`."""
        language = _language()
        try:
            tree = language.parse(self.source, filename=_FILE)
            self._check(tree)
            code = language.compile(tree, filename=_FILE)
        except TemplateSyntaxError as error:
            raise errors.syntax_error(self.source, error, language.lexer.tags(self.source), language) from None
        return Template.from_code(language, code, {})

    def _check(self, tree: nodes.Template) -> None:
        """Refuse other templates, and `{{ id }}` where that is a builtin, which is to be called."""
        for other in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
            raise TemplateSyntaxError("a prompt has no other templates to include, import or extend", other.lineno)
        undeclared = find_undeclared_variables(tree)
        for output in tree.find_all(nodes.Output):
            for child in output.nodes:
                name = child.name if isinstance(child, nodes.Name) else ""
                if name in undeclared and name not in self.namespace and hasattr(builtins, name):
                    raise errors.unknown_name(self.source, child.lineno - 1, name, self.namespace)

    def show(self, value: Any, line: int) -> str:
        """Return the text of a value; for an image or a block, a mark that `_parts` replaces."""
        rendering = to_prompt(value, self.limits)
        if rendering.notes:
            tag, _ = self._tag(line)
            self.notes.update(dict.fromkeys(f"{tag}: {note}" for note in rendering.notes))
        if rendering.image is None and not rendering.block:
            return rendering.text
        self.placed.append(rendering)
        return f"\0{self.nonce}.{len(self.placed) - 1}\0"

    def _parts(self, text: str) -> Iterator[Part]:
        """Put images and blocks in their places; a block begins and ends on a line of its own."""
        so_far, *pieces = re.split(f"\0{self.nonce}\\.(\\d+)\0", text)
        for number, following in zip(pieces[::2], pieces[1::2], strict=True):
            rendering = self.placed[int(number)]
            if rendering.image is not None:
                if so_far:
                    yield Text(so_far)
                yield rendering.image
                so_far = following
            else:
                so_far += "\n" * bool(so_far and not so_far.endswith("\n")) + rendering.text
                so_far += "\n" * bool(following and not following.startswith(("\n", "\r"))) + following
        if so_far or not pieces:
            yield Text(so_far)

    def _tag(self, line: int) -> tuple[str, int]:
        """Return the tag that a line of the compiled template came from, and its offset."""
        offset = self.template.get_corresponding_lineno(line) - 1
        for tag in _language().lexer.tags(self.source):
            if tag.start <= offset < tag.end:
                return (tag.text if len(tag.text) <= _MOST else f"{tag.text[:_MOST]}…"), tag.start
        return "the template", offset

    def _fail(self, error: Exception) -> NoReturn:
        """Say which tag failed, by the innermost line of the template in the traceback."""
        lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == _FILE]
        tag, offset = self._tag(lines[-1] if lines else 1)
        if not isinstance(error, UnknownError):
            raise errors.failed(self.source, offset, tag, error) from error
        if error.obj is missing:
            raise errors.unknown_name(self.source, offset, error.name, self.namespace) from None
        raise errors.unknown_member(self.source, offset, tag, error) from None


class _Names(Context):
    """The names of a template: its own, the notebook's, the language's, `error`, the builtins.

    `show` gives the text of a value, told the line of the compiled template that wants it.
    """

    def __init__(
        self,
        language: Environment,
        blocks: dict[str, Any],
        namespace: Mapping[str, Any],
        show: Callable[[Any, int], str],
    ) -> None:
        super().__init__(language, {}, None, blocks)
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

    def derived(self, locals: dict[str, Any] | None = None) -> _Names:  # noqa: A002 - as the base class has it
        """Return these names with some more; the base class would copy the notebook's."""
        other = _Names(self.environment, {}, self.namespace, self.show)
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


class _Unknown(StrictUndefined):
    """What is not there: a template may ask whether it is defined, or give it a default."""

    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = missing, name: Any = None, exc: Any = None) -> None:
        raised: Any = exc or partial(UnknownError, obj, name)  # typed as a class, but only called
        super().__init__(hint, obj, name, raised)


class _Language(Environment):
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


@pass_context
def _shown(names: _Names, value: Any) -> str:
    if isinstance(value, Undefined):
        return str(value)  # raises, but for `{{ x if condition }}` without an else
    return names.show(value, sys._getframe(1).f_lineno)  # noqa: SLF001 - the line tells which expression it is


@lru_cache(maxsize=1)
def _language() -> _Language:
    """Return the language of templates, the same for all prompts."""
    made = _Language(
        comment_start_string=COMMENT_START,
        comment_end_string=COMMENT_END,
        keep_trailing_newline=True,
        undefined=_Unknown,
        finalize=_shown,
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
