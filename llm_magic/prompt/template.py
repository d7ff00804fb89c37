"""A template over the notebook's variables: rendered to parts, or to an error that tells where."""

from __future__ import annotations

import builtins
import re
import secrets
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.utils import missing

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import LLMError, PromptError
from llm_magic.messages import Part, Text
from llm_magic.prompt.language import LANGUAGE, Names, Tag, UnknownError, flatten, last_error
from llm_magic.prompt.single_braces import notes_on
from llm_magic.prompt.values import Limits, Rendering, to_prompt

_FILE = "<prompt>"
_MOST_OF_TAG = 120  # characters in a message
_MOST_OF_ERROR = 300
_LITERALLY = "Braces that are meant literally: --raw, or {% raw %}…{% endraw %} around them."
_TAGS = ["for", "endfor", "if", "elif", "else", "endif", "set", "endset", "filter", "endfilter", "macro", "endmacro"]
_TAGS += ["call", "endcall", "with", "endwith", "raw", "endraw", "do", "break", "continue", "print"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt ready to send: text and images in their order; notes for the user on cuts, and on single braces."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()


def render(template: str, namespace: Mapping[str, Any], *, settings: Limits, raw: bool = False) -> Rendered:
    r"""Render a cell's body over the notebook's variables; a `raw` one is no template.

    Text outside of `{{ … }}` and `{% … %}` is kept byte for byte. The variables are read where the
    template names them, and never copied. Names that are not there may be Python builtins
    (`{{ len(df) }}`), or `error`: the last exception of the notebook, with its traceback.

    PromptError where the template does not parse, names what is not there, or a value fails while
    it is rendered.

    >>> from llm_magic.config.settings import Settings
    >>> render("{{ n + 1 }} of {\"n\": 1}", {"n": 1}, settings=Settings()).parts
    (Text(text='2 of {"n": 1}'),)

    """
    last_error()  # noted, should one of ours hide it
    if raw:
        return Rendered((Text(template),))
    notes = tuple(notes_on(template, namespace))
    if not has_tags(template):
        return Rendered((Text(template),), notes)
    rendered = TemplateRun(template, namespace, settings).rendered()
    return Rendered(rendered.parts, (*rendered.notes, *notes))


def has_tags(source: str) -> bool:
    """Whether a text is a template at all."""
    return "{{" in source or "{%" in source


@dataclass(frozen=True, slots=True)
class TemplateNames:
    """The names that a template takes from outside, as far as it is known without rendering it."""

    places: Mapping[str, int] = field(default_factory=dict)
    """Each name, and the offset where it stands first."""
    optional: frozenset[str] = frozenset()
    """Those that may be missing: the template asks whether they are defined, or has a default for them."""
    shown: frozenset[str] = frozenset()
    """Those that stand alone in `{{ … }}`, and that no condition of the template looks at."""
    uncalled: frozenset[str] = frozenset()
    """Those of Python's own that stand alone in `{{ … }}`, where they say nothing."""
    members: tuple[tuple[str, Any, int], ...] = ()
    """Each `name.member` and `name["member"]` that may not be missing: the name, the member, the offset."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A template that was read.

    Line numbers of the template are offsets from 1, see `ExactLexer`.
    """

    template: Template
    builtin_names: tuple[tuple[str, int], ...]
    """Each `{{ id }}` that names a builtin, which is to be called, with its offset."""
    names: TemplateNames


@lru_cache(maxsize=32)  # a cell that is run again, and many rows of one prompt, are read once
def _compiled(source: str) -> _Compiled:
    tree = LANGUAGE.parse(source, filename=_FILE)
    for other in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        raise TemplateSyntaxError("a prompt has no other templates to include, import or extend", other.lineno)
    undeclared = find_undeclared_variables(tree)
    names = _names_in(tree, undeclared)
    alone = [child for output in tree.find_all(nodes.Output) for child in output.nodes if isinstance(child, nodes.Name)]
    found = [
        (child.name, child.lineno - 1) for child in alone if child.name in undeclared and hasattr(builtins, child.name)
    ]
    return _Compiled(Template.from_code(LANGUAGE, LANGUAGE.compile(tree, filename=_FILE), {}), tuple(found), names)


def _names_in(tree: nodes.Template, undeclared: set[str]) -> TemplateNames:
    outside = undeclared | set(LANGUAGE.globals)
    found = [name for name in tree.find_all(nodes.Name) if name.ctx == "load" and name.name in outside]
    asked = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    asked += [use.node for use in tree.find_all(nodes.Filter) if use.node and use.name in ("default", "d")]
    outputs = tree.find_all(nodes.Output)
    alone = {part.name for output in outputs for part in output.nodes if isinstance(part, nodes.Name)}
    conditions = [branch.test for branch in tree.find_all(nodes.If)]
    conditions += [choice.test for choice in tree.find_all(nodes.CondExpr)]
    looked_at = {name.name for test in conditions for name in _names(test)}
    places: dict[str, int] = {}
    for name in found:
        places[name.name] = min(name.lineno - 1, places.get(name.name, name.lineno))
    optional = frozenset(node.name for node in asked if isinstance(node, nodes.Name))
    shown = frozenset(alone & set(places))
    uncalled = frozenset(name for name in shown if hasattr(builtins, name))
    uses: list[nodes.Getattr | nodes.Getitem] = [*tree.find_all(nodes.Getattr), *tree.find_all(nodes.Getitem)]
    members = [
        (use.node.name, *member, use.lineno - 1)
        for use in uses
        if isinstance(use.node, nodes.Name) and use.node.name in outside and use not in asked
        for member in _member(use)
    ]
    return TemplateNames(places, optional, shown - looked_at, uncalled, tuple(members))


def _member(use: nodes.Getattr | nodes.Getitem) -> list[tuple[Any]]:
    """Return the member of which `a.b` and `a["b"]` speak; nothing for an expression, or where it is set."""
    if isinstance(use, nodes.Getattr):
        return [(use.attr,)]
    return [(use.arg.value,)] if isinstance(use.arg, nodes.Const) else []


def _names(expression: nodes.Node) -> Iterable[nodes.Name]:
    return (expression,) if isinstance(expression, nodes.Name) else expression.find_all(nodes.Name)


class TemplateRun:
    """One template at work: read once, it is rendered over one namespace.

    Parameters
    ----------
    source
        The template. PromptError where it does not parse.
    namespace
        Where its names are looked up before Jinja2's and Python's own.
    limits
        How much of a value is shown.
    nowhere
        The end of the sentence that says of a name that it is not there.

    """

    def __init__(
        self,
        source: str,
        namespace: Mapping[str, Any],
        limits: Limits,
        nowhere: str = "the notebook has no such variable",
    ) -> None:
        self.source = source
        self.namespace = namespace
        self.limits = limits
        self.nowhere = nowhere
        self.notes: dict[str, None] = {}
        self.placed: list[Rendering] = []
        self.nonce = ""
        try:
            self.compiled = _compiled(source)
        except TemplateSyntaxError as error:
            raise self._syntax_error(error) from None
        self.template = self.compiled.template

    @property
    def names(self) -> TemplateNames:
        """The names that the template takes from outside."""
        return self.compiled.names

    def rendered(self) -> Rendered:
        """Return the prompt; PromptError where a name is not there, or a value cannot be shown."""
        for name, offset in self.compiled.builtin_names:
            if name not in self.namespace:
                raise self.unknown_name(name, offset)
        names = Names(self.template.blocks, self.namespace, self.show)
        try:
            text = "".join(self.template.root_render_func(names))
        except UnknownError as error:
            raise self._unknown(error) from None
        except Exception as error:
            raise self._failed(error) from error
        parts = tuple(self._parts(text)) if self.placed else (Text(text),)
        return Rendered(parts, tuple(self.notes))

    def show(self, value: Any, line: int) -> str:
        """Return the text of a value; for an image or a block, a mark that `_parts` replaces."""
        if type(value) is str and len(value) <= self.limits.max_value_chars:
            return value
        rendering = self.rendering(value)
        if rendering.notes:
            tag, _ = self._tag(line)
            self.notes.update(dict.fromkeys(f"{tag}: {note}" for note in rendering.notes))
        if rendering.image is None and not rendering.block:
            return rendering.text
        self.nonce = self.nonce or str(secrets.randbelow(10**18))  # no value holds our marks, not even on purpose
        self.placed.append(rendering)
        return f"\0{self.nonce}.{len(self.placed) - 1}\0"

    def rendering(self, value: Any) -> Rendering:
        """Render one value."""
        return to_prompt(value, self.limits)

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

    def _where(self, offset: int) -> str:
        before = flatten(self.source)[:offset]
        line, column = before.count("\n") + 1, offset - before.rfind("\n")
        return f"line {line}, column {column} of the prompt"

    def _tag(self, line: int) -> tuple[str, int]:
        """Return the tag that a line of the compiled template came from, and its offset."""
        return self._tag_at(self.template.get_corresponding_lineno(line) - 1)

    def _tag_at(self, offset: int) -> tuple[str, int]:
        for tag in _tags_of(self.source):
            if tag.start <= offset < tag.end:
                return (tag.text if len(tag.text) <= _MOST_OF_TAG else f"{tag.text[:_MOST_OF_TAG]}…"), tag.start
        return "the template", offset

    def _failing_tag(self, error: Exception) -> tuple[str, int]:
        """Return the tag that raised, by the innermost line of the template in the traceback."""
        lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == _FILE]
        return self._tag(lines[-1] if lines else 1)

    def _syntax_error(self, error: TemplateSyntaxError) -> PromptError:
        """Say why the source does not parse."""
        flat, tags = flatten(self.source), LANGUAGE.lexer.tags(self.source)
        offset = min(max(error.lineno - 1, 0), len(flat))
        message = (error.message or "").strip().rstrip(".")
        hint = _LITERALLY
        nameless = re.fullmatch(r"No (filter|test) named '(\w+)'", message)
        strange = re.match(r"Encountered unknown tag '(\w+)'", message)
        within = re.search(r"needs to be closed is '(\w+)'", message)
        if strange and strange[1] not in _TAGS:
            message, hint = f"'{{% {strange[1]} %}}' is no tag", did_you_mean(strange[1], _TAGS, hint)
        elif strange and within and strange[1] != within[1]:
            message = f"'{{% {strange[1]} %}}' comes before the end of '{{% {within[1]} %}}'"
        elif strange:
            message = f"'{{% {strange[1]} %}}' is out of place"
        elif nameless:
            kind, name = nameless.groups()
            message = f"there is no {kind} {name!r}"
            hint = did_you_mean(name, LANGUAGE.filters if kind == "filter" else LANGUAGE.tests, hint)
        elif message.startswith("unexpected end of template") and tags and not tags[-1].closed:
            offset = tags[-1].start
            message = f"{flat[offset : offset + 2]!r} is not closed"
        elif within:
            begin = re.compile(rf"\{{%[-+]?\s*{within[1]}\b")
            offset = max((tag.start for tag in tags if begin.match(tag.text)), default=offset)
            message = f"'{{% {within[1]} %}}' has no '{{% end{within[1]} %}}'"
        return PromptError(f"The prompt's template does not parse, {self._where(offset)}: {message}.", hint)

    def unknown_name(self, name: str, offset: int) -> PromptError:
        """Say that a name is not there."""
        message = f"The prompt names {name!r} on {self._where(offset)}, but {self.nowhere}."
        if name == "error":
            return PromptError(message, "It stands for the last exception, and no cell has failed yet.")
        if name == "Err":
            return PromptError(message, "Errors have no numbers here: {{ error }} is the last one, with its traceback.")
        otherwise = f"It is Python's own: {{{{ {name}(…) }}}} calls it." if hasattr(builtins, name) else _LITERALLY
        return PromptError(message, did_you_mean(name, _public(self.namespace), otherwise))

    def _unknown(self, error: UnknownError) -> PromptError:
        """Say which name, attribute or item is not there."""
        tag, offset = self._failing_tag(error)
        if error.obj is missing:
            return self.unknown_name(error.name, offset)
        if history := self._history(error.obj):
            name, hint = history
            return PromptError(f"{tag} on {self._where(offset)}: {name} has no entry {error.name!r}.", hint)
        if isinstance(error.name, str):
            try:
                getattr(error.obj, error.name)
            except LLMError as explained:  # one of ours, that says more
                return PromptError(f"{tag} on {self._where(offset)}: {explained.message}", explained.hint)
            except Exception:  # noqa: BLE001, S110 - it is not there, as said below
                pass
        members = error.obj if isinstance(error.obj, Mapping) else dir(error.obj)
        return self.unknown_member(type(error.obj).__name__, error.name, members, offset)

    def unknown_member(self, kind: str, name: Any, members: Iterable[Any], offset: int) -> PromptError:
        """Say that an object has no such attribute or item."""
        tag, offset = self._tag_at(offset)
        what = "attribute or item" if isinstance(name, str) else "item"
        return PromptError(
            f"{tag} on {self._where(offset)}: this {kind} has no {what} {name!r}.",
            did_you_mean(str(name), _public(members)),
        )

    def _history(self, entries: object) -> tuple[str, str] | None:
        """Return the name of IPython's `In` or `Out`, and which entries it has; None for any other object."""
        name = next((name for name in ("In", "Out") if self.namespace.get(name) is entries), "")
        if name == "Out" and isinstance(entries, Mapping):
            return name, _listed(name, [number for number in entries if isinstance(number, int)])
        if name == "In" and isinstance(entries, list):
            return name, _listed(name, list(range(1, len(entries))))
        return None

    def _failed(self, error: Exception) -> PromptError:
        """Say which tag raised what."""
        tag, offset = self._failing_tag(error)
        at = f"{tag} failed on {self._where(offset)}"
        if isinstance(error, LLMError):
            return PromptError(f"{at}: {error.message}", error.hint)
        said = " ".join(str(error).split())
        said = said if len(said) <= _MOST_OF_ERROR else f"{said[:_MOST_OF_ERROR]}…"
        return PromptError(
            f"{at}: {type(error).__name__}{': ' * bool(said)}{said}",
            "Try the expression in a cell of its own; %tb shows where it failed.",
        )


@lru_cache(maxsize=32)
def _tags_of(source: str) -> tuple[Tag, ...]:
    return tuple(LANGUAGE.lexer.tags(source))


def _public(names: Iterable[Any]) -> list[str]:
    return [name for name in map(str, names) if not name.startswith("_")]


def _listed(name: str, numbers: list[int]) -> str:
    """Say which entries there are.

    >>> _listed("Out", [2, 3, 5, 7, 11, 13])
    'There are 6, the last ones Out[5], Out[7], Out[11] and Out[13].'
    """
    if not numbers:
        return f"{name} is empty: no cell has shown a value yet."
    shown = [f"{name}[{number}]" for number in sorted(numbers)[-4:]]
    words = f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
    if len(shown) < len(numbers):
        return f"There are {len(numbers):,}, the last ones {words}."
    return f"There {'are' if len(shown) > 1 else 'is'} {words}."
