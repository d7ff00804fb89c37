"""The prompt of a row: a template read once, over the row's names, the notebook's variables and Python's builtins."""

from __future__ import annotations

import builtins
import inspect
import re
from asyncio import CancelledError
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any

from llm_magic.close_matches import close_matches
from llm_magic.errors import LLMError, PromptError
from llm_magic.mapping.inputs.inputs import Inputs
from llm_magic.mapping.inputs.row_names import RESERVED, said_of
from llm_magic.mapping.rows import Row
from llm_magic.messages import Image, Part, Text
from llm_magic.prompt.language import LANGUAGE, last_error
from llm_magic.prompt.single_braces import notes_on
from llm_magic.prompt.template import Rendered, TemplateNames, TemplateRun, has_tags
from llm_magic.prompt.values import Limits, Rendering, to_prompt

_MOST_NOTES = 20
_MOST_OF_LABEL = 60
_MOST_NAMES = 8
_WITH_BLANKS = re.compile(r"\{\{\s*(\w+(?: \w+)+)\s*\}\}")
_OF_DATA = ("builtins", "collections", "datetime", "decimal", "llm_magic", "numpy", "pandas", "polars", "pyarrow")
"""Packages whose objects run no code of the user's."""
_KEYWORDS = ("None", "none", "True", "true", "False", "false", "self")
"""Words that a template cannot use as the name of a column."""


class RowPrompt:
    """One prompt for many rows.

    Parameters
    ----------
    prompt
        A template, or a function that is given the row (of a frame or of records `{{ row }}`, else the input itself)
        and returns a text, an image, or a list of both.
    namespace
        The notebook's variables, behind the names of the row; empty for a prompt from Python. Those that the template
        names are taken now: a variable that is set anew while rows are asked changes none of them.
    settings
        How much of a value is shown.
    raw
        The text is no template: all rows have the same prompt.

    Raises
    ------
    PromptError
        The template does not parse, or the function is asynchronous.

    """

    def __init__(
        self,
        prompt: str | Callable[[Any], Any],
        namespace: Mapping[str, Any],
        settings: Limits,
        *,
        raw: bool = False,
    ) -> None:
        self._source = prompt if isinstance(prompt, str) else ""
        self._function = None if isinstance(prompt, str) else prompt
        self._namespace = namespace
        self._settings = settings
        self._is_template = not raw and has_tags(self._source)
        self._is_raw = raw
        self._nowhere = "neither the rows nor the notebook have it" if namespace else "the rows do not have it"
        self._not_here = "neither this row nor the notebook has it" if namespace else "this row does not have it"
        self._notes: dict[str, list[Any]] = {}
        last_error()  # noted, should one of ours hide it
        names = self._read() if self._is_template else TemplateNames()
        self._names = names
        self._variables = {name: namespace[name] for name in names.places if name in namespace}
        self._rendered: dict[int, Rendering] = {}
        self._variable_ids = {id(value) for value in self._variables.values()}
        if inspect.iscoroutinefunction(self._function):
            raise PromptError("The prompt is an asynchronous function.", "Make it one that returns the text itself.")

    def _read(self) -> TemplateNames:
        try:
            return TemplateRun(self._source, {}, self._settings).names
        except PromptError as error:
            blanks = _WITH_BLANKS.search(self._source)
            hint = f'A column of that name is {{{{ row["{blanks[1]}"] }}}}.' if blanks else self._hint(error)
            raise PromptError(error.message, hint) from None

    def _hint(self, error: PromptError) -> str:
        """Return what to do about an error; a prompt from Python has no options."""
        return error.hint if self._namespace else error.hint.replace("--raw, or ", "")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel with the variables that the template names, and none of the notebook's others."""
        prompt = self._source if self._function is None else self._function
        return partial(RowPrompt, raw=self._is_raw), (prompt, self._variables, self._settings)

    @property
    def source(self) -> str:
        """The template; of a function its name."""
        return self._source or getattr(self._function, "__qualname__", "")

    @property
    def is_function(self) -> bool:
        """Whether the prompt is a function of the user's."""
        return self._function is not None

    @property
    def may_wait(self) -> bool:
        """Whether the user's code makes the prompt of a row, which may take its time, and may ask for something."""
        return self.is_function or any(map(_is_code, self._variables.values()))

    def forget_notes(self) -> None:
        """Forget what was to be said of the rows rendered so far: they are rendered once more."""
        self._notes.clear()

    @property
    def used_names(self) -> frozenset[str]:
        """The names that the template takes from outside, of the row or not."""
        return frozenset(self._names.places)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the values of the rows rendered so far, such as a cut: once, with how many rows."""
        return tuple(
            first if rows == 1 else f"{first} So it is in {rows - 1:,} more row{'s' * (rows > 2)}."  # noqa: PLR2004
            for first, rows in list(self._notes.values())
        )

    def check(self, inputs: Inputs, *, may_be_the_same: bool = False) -> tuple[str, ...]:
        """Check the template against the names of the rows, before anything is sent.

        Parameters
        ----------
        inputs
            The rows. Of an iterator the first one is read.
        may_be_the_same
            Whether rows differ in more than the prompt, as in images: a prompt that names nothing of the rows is right.

        Returns
        -------
        notes
            What the user should know: a column that hides a variable, rows without a value, single braces.

        Raises
        ------
        PromptError
            A name is nowhere, two columns have it, or all rows would have the same prompt.

        """
        names = inputs.names_in_rows()
        for name, offset in sorted(self._names.places.items(), key=lambda place: place[1]):
            has_no_rows = inputs.length == 0 and not inputs.columns
            if not has_no_rows and name not in self._names.optional and not self._is_somewhere(name, inputs):
                raise self._unknown(name, offset, inputs)
            if inputs.twice(name) and name not in RESERVED:
                count = inputs.columns.count(name)
                raise PromptError(
                    f"The prompt names {name!r}, and {count} columns of {inputs.name} are called so.",
                    "Give one of them another name.",
                )
        if inputs.labels:
            self._check_members(inputs)
        for name, value in self._variables.items():
            if hasattr(type(value), "__next__") and name not in names:
                raise PromptError(
                    f"{name!r} is a {type(value).__name__}: the first row would leave nothing of it for the others.",
                    f"Make a list of it first: {name} = list({name})",
                )
        braces: tuple[str, ...] = ()
        if not self._is_raw:
            braces = tuple(notes_on(self._source, {**self._namespace, **dict.fromkeys(names)}))
        is_same = self._function is None and not any(
            name in names or (name not in self._variables and inputs.has_name(name)) for name in self._names.places
        )
        if is_same and not may_be_the_same and inputs.length not in (0, 1):
            raise self._same(inputs, braces)
        return (*self._notes_on_names(inputs, names), *braces)

    def _is_somewhere(self, name: str, inputs: Inputs) -> bool:
        if name in self._variables or name in LANGUAGE.globals or (name == "error" and last_error() is not None):
            return True
        if hasattr(builtins, name) and name not in self._names.uncalled:
            return True
        return inputs.has_name(name)

    def _check_members(self, inputs: Inputs) -> None:
        """Raise PromptError where a template names a column of the row that a frame has not."""
        for name, member, offset in self._names.members:
            is_row = name == "row" or (name == "item" and name not in inputs.columns)
            if is_row and member not in inputs.labels and not (isinstance(member, str) and hasattr(dict, member)):
                run = TemplateRun(self._source, {}, self._settings)
                raise run.unknown_member("row", member, inputs.labels, offset)

    def _unknown(self, name: str, offset: int, inputs: Inputs) -> PromptError:
        in_rows = inputs.names_in_rows()
        candidates = dict.fromkeys(each for each in (*in_rows, *self._namespace) if str.isidentifier(each))
        error = TemplateRun(self._source, candidates, self._settings, self._nowhere).unknown_name(name, offset)
        keys = inputs.source if isinstance(inputs.source, dict) else {}
        if name in keys:
            hint = f"{inputs.name} has a row for each of its keys. For columns: pandas.DataFrame({inputs.name})"
            return PromptError(error.message, hint)
        if error.hint.startswith("Did you mean"):
            return error
        hint = self._hint(error)
        own = inputs.own_names()
        no_names = [each for each in own if not each.isidentifier()]
        if close := [each for each in no_names if each in self._source] or close_matches(name, no_names, most=1):
            return PromptError(error.message, f'Did you mean {{{{ row["{close[0]}"] }}}}?')
        if own:
            return PromptError(error.message, f"The rows have {_listed(own)}. {hint}")
        return PromptError(error.message, f"{{{{ item }}}} is the input, {{{{ index }}}} its label. {hint}")

    def _same(self, inputs: Inputs, braces: tuple[str, ...]) -> PromptError:
        rows = "all rows" if inputs.length is None else f"all {inputs.length:,} rows"
        own = [each for each in inputs.names_in_rows() if each not in RESERVED and str.isidentifier(each)] or ["item"]
        hint = f"Name what differs: {_listed([f'{{{{ {each} }}}}' for each in own])}."
        if braces:
            hint = braces[0]
        elif self._is_raw:
            hint = "--raw sends the text as it is; without it, {{ … }} is what differs."
        return PromptError(f"The prompt names nothing of the rows: {rows} of {inputs.name} would ask the same.", hint)

    def _notes_on_names(self, inputs: Inputs, names: tuple[str, ...]) -> Iterator[str]:
        own, what = inputs.own_names(), "column" if inputs.columns else "field"
        for name in self._names.places:
            if name in self._variables and name in names and name not in ("item", *RESERVED):
                yield f"{{{{ {name} }}}} is that of {inputs.name}, not the notebook's variable."
            if name in RESERVED and name in own:
                meaning = "the row's label" if name == "index" else "the whole row"
                yield f'{{{{ {name} }}}} is {meaning}; the {what} of that name is {{{{ row["{name}"] }}}}.'
            if name == "item" and name in own:
                yield f"{{{{ item }}}} is the {what} of that name; the whole row is {{{{ row }}}}."
        for name in _KEYWORDS:
            if name in own and re.search(rf"\{{\{{\s*{name}\b", self._source):
                yield f'{name} is a word of the template\'s language; the {what} is {{{{ row["{name}"] }}}}.'
        for name in sorted(self._names.shown, key=self._names.places.__getitem__):
            if count := inputs.without_value(name):
                of = f" of {inputs.length:,}" if inputs.length != 1 else ""
                rows = f"{count:,}{of} rows ha{'ve' if count > 1 else 's'}" if of else "1 row has"
                yield f"{rows} no value for {{{{ {name} }}}}: the prompt says None there."

    def render(self, row: Row) -> Rendered:
        """Return the prompt of a row; what is to be said of its values goes to `notes`.

        PromptError, with the row named, where a value of the row fails or is not there.
        """
        try:
            if self._function is not None:
                return self._called(row)
            if not self._is_template:
                return Rendered((Text(self._source),))
            run = _RowRun(self, _Layers(row.names, self._variables))
            rendered = run.rendered()
        except PromptError as error:
            raise PromptError(f"{_named(row)}: {error.message}", self._hint(error)) from error.__cause__
        except (SystemExit, KeyboardInterrupt, CancelledError) as error:  # of the user's code: they would end the loop
            raise PromptError(f"{_named(row)}: a value of the prompt raised {said_of(error)}.") from error
        if rendered.notes:
            self._gather(rendered.notes)
            return Rendered(rendered.parts)
        return rendered

    def _gather(self, notes: tuple[str, ...]) -> None:
        for note in notes:
            kind = re.sub(r"\d[\d,]*", "0", note)
            if kind in self._notes:
                self._notes[kind][1] += 1
            elif len(self._notes) < _MOST_NOTES:
                self._notes[kind] = [note, 1]

    def _called(self, row: Row) -> Rendered:
        assert self._function is not None  # noqa: S101 - for the types
        try:
            value = self._function(row.names["row"])
        except LLMError as error:
            raise PromptError(f"the function of the prompt failed: {error.message}", error.hint) from error
        except BaseException as error:
            said = said_of(error)
            raise PromptError(f"the function of the prompt raised {said}", "Call it with this row.") from error
        if isinstance(value, str):
            return Rendered((Text(value),))
        parts: list[Part] = []
        for piece in value if isinstance(value, (list, tuple)) else (value,):
            rendering = to_prompt(piece, self._settings) if not isinstance(piece, (str, Image, dict)) else None
            if isinstance(piece, str):
                parts.append(Text(piece))
            elif isinstance(piece, Image):
                parts.append(piece)
            elif rendering is not None and rendering.image is not None:
                parts.append(rendering.image)
            else:
                kind = type(piece).__name__
                raise PromptError(f"the function of the prompt returned {kind}.", "It returns text, images, or a list.")
        return Rendered(tuple(parts))

    def rendering(self, value: Any) -> Rendering:
        """Render a value; a variable of the notebook once for all rows."""
        key = id(value)
        if key not in self._variable_ids:
            return to_prompt(value, self._settings)
        if key not in self._rendered:
            self._rendered[key] = to_prompt(value, self._settings)
        return self._rendered[key]


class _RowRun(TemplateRun):
    """The template of a prompt at work on one row."""

    def __init__(self, prompt: RowPrompt, names: Mapping[str, Any]) -> None:
        super().__init__(prompt._source, names, prompt._settings, prompt._not_here)  # noqa: SLF001 - one with it
        self._prompt = prompt

    def rendering(self, value: Any) -> Rendering:
        return self._prompt.rendering(value)


class _Layers(Mapping[str, Any]):
    """The names of a row over the notebook's."""

    __slots__ = ("_row", "_variables")

    def __init__(self, row: Mapping[str, Any], variables: Mapping[str, Any]) -> None:
        self._row = row
        self._variables = variables

    def __getitem__(self, name: str) -> Any:
        try:
            return self._row[name]
        except KeyError:
            return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self._row), **dict.fromkeys(self._variables)})

    def __len__(self) -> int:
        return len(set(self._row) | set(self._variables))


def _is_code(value: object) -> bool:
    """Tell whether a variable that a template names may run the user's code: a function, a module, an object."""
    if isinstance(value, type):
        return False
    return callable(value) or isinstance(value, ModuleType) or type(value).__module__.partition(".")[0] not in _OF_DATA


def _named(row: Row) -> str:
    """Return how an error calls a row: by its number from 0, and its label where it is another."""
    return f"Row {row.number:,}{_label(row.index) if not _is_number(row) else ''}"


def _is_number(row: Row) -> bool:
    return type(row.index) is int and row.index == row.number


def _label(label: Hashable) -> str:
    with suppress(Exception):  # a label may fail to show itself
        said = repr(label)
        return f" ({said if len(said) <= _MOST_OF_LABEL else said[:_MOST_OF_LABEL] + '…'})"
    return ""


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:_MOST_NAMES])
    if len(shown) < len(names):
        return f"{', '.join(shown)} and {len(names) - len(shown):,} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]
