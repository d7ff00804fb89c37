"""How a template runs: from its source and the notebook's variables to parts, or to one error that tells the place."""

from __future__ import annotations

import builtins
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.compiler import generate
from jinja2.meta import find_undeclared_variables
from jinja2.parser import Parser
from jinja2.utils import missing

from llm_magic.messages import Part, Text
from llm_magic.prompt import errors
from llm_magic.prompt.language import Names, UnknownError, environment, tags
from llm_magic.prompt.values import Rendering, to_prompt

_FILE = "<prompt>"
_MOST = 120  # characters of a tag in a message


class Limits(Protocol):
    """What of the settings a prompt heeds; `Settings` has it all."""

    @property
    def max_rows(self) -> int:
        """Rows of a table."""

    @property
    def max_value_chars(self) -> int:
        """Characters of one value."""

    @property
    def max_image_pixels(self) -> int:
        """Pixels of an image's longest side."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt ready to send: text and images in their order, and what the user should know about cuts."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()


def render(template: str, namespace: Mapping[str, Any], *, settings: Limits, raw: bool = False) -> Rendered:
    r"""Render a cell's body over the notebook's variables.

    Parameters
    ----------
    template
        The body. Text outside of `{{ … }}` and `{% … %}` is kept byte for byte.
    namespace
        The variables, read where the template names them and never copied. Names that are not there may be
        Python builtins (`{{ len(df) }}`), or `error`: the last exception of the notebook, with its traceback.
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
    errors.note_last_error()
    if raw or ("{{" not in template and "{%" not in template):
        return Rendered((Text(template),))
    return _Run(template, namespace, settings).render()


class _Run:
    """One template at work."""

    def __init__(self, source: str, namespace: Mapping[str, Any], limits: Limits) -> None:
        self.source = source
        self.namespace = namespace
        self.limits = limits
        self.language = environment()
        self.notes: dict[str, None] = {}
        self.placed: list[Rendering] = []
        self.nonce = str(secrets.randbelow(10**18))  # no value can hold our marks by accident, nor on purpose
        self.template = self._compile()

    def render(self) -> Rendered:
        names = Names(self.language, {}, None, self.template.blocks)
        names.find, names.show = self.find, self.show
        try:
            text = "".join(self.template.root_render_func(names))
        except Exception as error:  # noqa: BLE001 - whatever the user's objects raise
            self._fail(error)
        return Rendered(tuple(self._parts(text)), tuple(self.notes))

    def _compile(self) -> Template:
        """Read the template. Its line numbers are offsets, see `ExactLexer`."""
        try:
            tree = Parser(self.language, self.source, filename=_FILE).parse()
            for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
                self._refuse(tree.find(kind))
            self._refuse_bare_builtins(tree)
            code = compile(str(generate(tree, self.language, None, _FILE)), _FILE, "exec")
        except TemplateSyntaxError as error:
            raise errors.syntax_error(self.source, error) from None
        return Template.from_code(self.language, code, {})

    def _refuse(self, other: nodes.Node | None) -> None:
        if other is not None:
            raise TemplateSyntaxError("a prompt has no other templates to include, import or extend", other.lineno)

    def _refuse_bare_builtins(self, tree: nodes.Template) -> None:
        """Refuse `{{ id }}` where the notebook has no `id`: a builtin is there to be called, not to be read."""
        undeclared = find_undeclared_variables(tree)
        for output in tree.find_all(nodes.Output):
            for child in output.nodes:
                name = child.name if isinstance(child, nodes.Name) else ""
                if name in undeclared and name not in self.namespace and hasattr(builtins, name):
                    raise errors.unknown_name(self.source, child.lineno - 1, name, self.namespace)

    def find(self, name: str) -> Any:
        """Return what a name stands for that the template itself did not set."""
        try:
            return self.namespace[name]
        except KeyError:
            pass
        if name in self.language.globals:
            return self.language.globals[name]
        if name == "error":
            error = errors.last_error()
            return missing if error is None else error
        return getattr(builtins, name, missing)

    def show(self, value: Any, line: int) -> str:
        """Return the text of a value; for an image or a block, a mark that `_parts` replaces."""
        limits = self.limits
        rendering = to_prompt(value, limits.max_rows, limits.max_value_chars, limits.max_image_pixels)
        if rendering.notes:
            tag, _ = self._tag(line)
            self.notes.update(dict.fromkeys(f"{tag}: {note}" for note in rendering.notes))
        if rendering.image is None and not rendering.block:
            return rendering.text
        self.placed.append(rendering)
        return f"\0{self.nonce}.{len(self.placed) - 1}\0"

    def _parts(self, text: str) -> Iterator[Part]:
        """Put images and blocks in their places; a block begins and ends on a line of its own."""
        pieces = re.split(f"\0{self.nonce}\\.(\\d+)\0", text)
        so_far = ""
        for number, piece in enumerate(pieces):
            if number % 2 == 0:
                so_far += piece
                continue
            rendering = self.placed[int(piece)]
            if rendering.image is not None:
                if so_far:
                    yield Text(so_far)
                yield rendering.image
                so_far = ""
            else:
                following = pieces[number + 1]
                so_far += "\n" * bool(so_far and not so_far.endswith("\n")) + rendering.text
                so_far += "\n" * bool(following and not following.startswith(("\n", "\r")))
        if so_far or len(pieces) == 1:
            yield Text(so_far)

    def _tag(self, line: int) -> tuple[str, int]:
        """Return the tag that a line of the compiled template came from, on one line, and its offset."""
        offset = self.template.get_corresponding_lineno(line) - 1
        for tag in tags(self.language, self.source):
            if tag.start <= offset < tag.end:
                return (tag.text if len(tag.text) <= _MOST else f"{tag.text[:_MOST]}…"), tag.start
        return "the template", offset

    def _fail(self, error: Exception) -> NoReturn:
        """Say which tag failed, and how: the innermost line of the template in the traceback tells."""
        line = 1
        step = error.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_filename == _FILE:
                line = step.tb_lineno
            step = step.tb_next
        tag, offset = self._tag(line)
        if not isinstance(error, UnknownError):
            raise errors.failed(self.source, offset, tag, error) from error
        if error.obj is missing:
            raise errors.unknown_name(self.source, offset, error.name, self.namespace) from None
        raise errors.unknown_member(self.source, offset, tag, error) from None
