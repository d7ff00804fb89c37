"""Values of the notebook as text: in a prompt (an image, a table, JSON, …), and in an option."""

from __future__ import annotations

import ast
import dataclasses
import datetime as dt
import inspect
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from llm_magic.errors import PromptError
from llm_magic.messages import Image
from llm_magic.prompt.reprs import pretty, source_of, traceback_of
from llm_magic.response import Response

_UNFINISHED = (types.CoroutineType, types.AsyncGeneratorType, types.GeneratorType)
_AS_IN_A_TABLE = (dt.date, dt.time, dt.timedelta, Decimal)  # a Timestamp of pandas is a date, too
_WHOLE = 1000  # items of an array that is shown whole


class Limits(Protocol):
    """What of the settings a prompt heeds; `Settings` has it all."""

    max_rows: int
    """Rows of a table."""
    max_value_chars: int
    """Characters of one value."""
    max_image_pixels: int
    """Pixels of an image's longest side."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A value in a prompt: text or an image; a `block` wants lines of its own."""

    text: str = ""
    image: Image | None = None
    block: bool = False
    notes: tuple[str, ...] = ()


def to_prompt(value: Any, limits: Limits) -> Rendering:
    """Render one value.

    Raises PromptError where it has nothing to show yet (a coroutine) or is an image that cannot be
    read, and whatever its own repr raises.
    """
    most = limits.max_value_chars
    if type(value) in {str, int, float, bool}:
        return _cut(str(value), most)
    if isinstance(value, _AS_IN_A_TABLE):
        return _cut(str(value), most)
    if isinstance(value, BaseException):
        return _cut(traceback_of(value), most, keep_end=True)
    if (stands_for := getattr(type(value), "_in_prompt_", None)) is not None:  # of answers to many rows
        return to_prompt(stands_for(value), limits)
    from llm_magic import images
    from llm_magic.prompt.tables import library_of, table

    if library_of(value):
        text, shape, notes = table(value, limits.max_rows)
        cut = _cut(text, most)
        return Rendering(f"{cut.text}\n\n{shape}", block=True, notes=(*notes, *cut.notes))
    if drawn := images.displayed(value, max_side=limits.max_image_pixels):
        image, note = drawn
        return Rendering(image=image, notes=(note,) if note else ())
    if type(value).__module__ == "numpy" and hasattr(value, "dtype"):
        return _array(value, most)
    own = _text(value)
    if own is None:
        markdown = images.display_data(value, "_repr_markdown_")
        own = markdown if isinstance(markdown, str) else _json(value)
    if own is not None:
        return _cut(own, most)
    text, whole = pretty(value, most)
    said = f"the first {most:,} characters"  # of how many, nobody has counted
    return Rendering(text) if whole else _noted(f"{text}\n… [cut: {said}]", said)


def _cut(text: str, most: int, *, keep_end: bool = False) -> Rendering:
    """Cut a text that is too long, and say so in it and in a note."""
    if len(text) <= most:
        return Rendering(text)
    said = f"the {'last' if keep_end else 'first'} {most:,} of {len(text):,} characters"
    return _noted(f"[cut: {said}] …\n{text[-most:]}" if keep_end else f"{text[:most]}\n… [cut: {said}]", said)


def _noted(text: str, said: str) -> Rendering:
    return Rendering(text, notes=(f"{said} are in the prompt (LLMMagics.max_value_chars).",))


def _text(value: Any) -> str | None:
    """Return the text of what is or has one: a string, a response, code; else None."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Response):
        return value.text
    if isinstance(value, _UNFINISHED):
        kind = type(value).__name__
        hint = "Add the filter `list`: {{ … | list }}." if kind == "generator" else "Await it in a cell first."
        raise PromptError(f"the value is a {kind}, which has nothing to show yet.", hint)
    if inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value):
        return source_of(value)
    return None


def _array(value: Any, most: int) -> Rendering:
    """Render a NumPy number or array; a large one by its corners, its shape said."""
    if not value.ndim:
        return _cut(str(value), most)
    cut = _cut(sys.modules["numpy"].array2string(value, threshold=_WHOLE, separator=", "), most)
    if value.size <= _WHOLE:
        return cut
    shape = " × ".join(f"{side:,}" for side in value.shape)
    return Rendering(
        f"{cut.text}\narray of {shape} items, {value.dtype}; its corners are shown",
        notes=(f"the corners of an array of {shape} items are in the prompt.", *cut.notes),
    )


def _is_record(value: object) -> bool:
    """Whether this is a pydantic model or a dataclass; imports no pydantic."""
    return hasattr(type(value), "__pydantic_serializer__") or dataclasses.is_dataclass(type(value))


def _json(value: Any) -> str | None:
    """Return records as indented JSON; None for what is none, or contains itself."""
    values = value.values() if isinstance(value, dict) else value
    is_collection = isinstance(value, (dict, list, tuple)) and bool(value)
    if not (_is_record(value) or (is_collection and all(map(_is_record, values)))):
        return None
    try:
        return to_json(value, indent=2)
    except (ValueError, RecursionError):
        return None


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON; what it does not know stands as its repr."""
    import pydantic_core

    return pydantic_core.to_json(value, indent=indent, fallback=repr, inf_nan_mode="constants").decode()


_OPTION = re.compile(
    r"\$\$(?P<literal>[A-Za-z_]\w*)"
    r"|\$(?P<path>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    r"|\{(?P<code>[A-Za-z_][^{}]*)\}"
)


def expand_option(token: str, namespace: Mapping[str, Any]) -> str:
    """Return an unquoted option value with `$name`, `$name.attribute` and `{expression}` replaced.

    What cannot be evaluated stays as it is, as in IPython, and `$$name` is a literal `$name`. A
    token that contains a quote, or that begins like JSON, is returned untouched; braces are an
    expression only where they begin with a name (so `[a-z]{2}` is not).

    >>> expand_option("$model", {"model": "openai:gpt-5"}), expand_option("run-{n + 1}", {"n": 1})
    ('openai:gpt-5', 'run-2')
    >>> expand_option('{"a":1}', {"a": 2}), expand_option("^[a-z]{2}$", {}), expand_option("$HOME", {})
    ('{"a":1}', '^[a-z]{2}$', '$HOME')

    """
    if "'" in token or '"' in token or token.startswith(("[", "{{")):
        return token

    def expanded(match: re.Match[str]) -> str:
        if match["literal"]:
            return f"${match['literal']}"
        names = [match["code"]] if match["code"] else match["path"].split(".")
        for count in range(len(names), 0, -1):  # `$name.txt` is a name and an ending
            found = _evaluated(".".join(names[:count]), namespace)
            if found is not None:
                return ".".join([found, *names[count:]])
        return match[0]

    return _OPTION.sub(expanded, token)


def _evaluated(code: str, namespace: Mapping[str, Any]) -> str | None:
    """Return the value of a name, attribute, item, call or sum as text; None where it has none."""
    try:
        tree = ast.parse(code, mode="eval")
        if not isinstance(tree.body, (ast.Name, ast.Attribute, ast.Subscript, ast.Call, ast.BinOp)):
            return None
        return str(eval(compile(tree, "<option>", "eval"), {}, namespace))  # noqa: S307 - the user's own words
    except Exception:  # noqa: BLE001 - whatever it is that fails, IPython leaves the text alone
        return None
