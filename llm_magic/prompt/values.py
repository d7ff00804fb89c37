"""Values of the notebook in a prompt: an image, a table, JSON or text, cut where too long."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
from dataclasses import dataclass
from typing import Any, Protocol

from llm_magic import images
from llm_magic.errors import PromptError
from llm_magic.messages import Image
from llm_magic.prompt.reprs import pretty, source_of, traceback_of
from llm_magic.prompt.tables import is_table, table
from llm_magic.response import Response

_UNFINISHED = (types.CoroutineType, types.AsyncGeneratorType, types.GeneratorType)
_WHOLE = 1000  # items of an array that is shown whole


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
class Rendering:
    """A value in a prompt: text or an image; a `block` wants lines of its own."""

    text: str = ""
    image: Image | None = None
    block: bool = False
    notes: tuple[str, ...] = ()


def to_prompt(value: Any, limits: Limits) -> Rendering:
    """Render one value.

    Raises
    ------
    PromptError
        The value has nothing to show yet (a coroutine), or is an image that cannot be read.
    Exception
        Whatever the value's own repr raises.

    """
    most = limits.max_value_chars
    if images.is_picture(value):
        return _image(*images.part(value, max_side=limits.max_image_pixels))
    if is_table(value):
        shown = table(value, limits.max_rows)
        cut = _cut(shown.text, most)
        return Rendering(f"{cut.text}\n\n{shown.shape}", block=True, notes=(*shown.notes, *cut.notes))
    if isinstance(value, BaseException):
        return _cut(traceback_of(value), most, keep_end=True)
    drawn = images.repr_image(value, max_side=limits.max_image_pixels)
    if drawn is not None:
        return _image(*drawn)
    if _is_numpy(value) and value.ndim:
        return _array(value, most)
    text = _text(value)
    if text is not None:
        return _cut(text, most)
    text, whole = pretty(value, most)
    said = f"the first {most:,} characters"  # of how many, nobody has counted
    return Rendering(text) if whole else _noted(f"{text}\n… [cut: {said}]", said)


def _image(image: Image, note: str) -> Rendering:
    return Rendering(image=image, notes=(note,) if note else ())


def _cut(text: str, most: int, *, keep_end: bool = False) -> Rendering:
    """Cut a text that is too long, and say so in it and in a note."""
    if len(text) <= most:
        return Rendering(text)
    said = f"the {'last' if keep_end else 'first'} {most:,} of {len(text):,} characters"
    return _noted(f"[cut: {said}] …\n{text[-most:]}" if keep_end else f"{text[:most]}\n… [cut: {said}]", said)


def _noted(text: str, said: str) -> Rendering:
    return Rendering(text, notes=(f"{said} are in the prompt (LLMMagics.max_value_chars).",))


def _text(value: Any) -> str | None:
    """Return the text of a value; None where that is its repr."""
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
    if _is_numpy(value):
        return str(value)
    markdown = images.display_data(value, "_repr_markdown_")
    if isinstance(markdown, str):
        return markdown
    values = value.values() if isinstance(value, dict) else value
    is_collection = isinstance(value, (dict, list, tuple)) and bool(value)
    if _is_record(value) or (is_collection and all(map(_is_record, values))):
        return _json(value)
    return None


def _is_numpy(value: object) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "dtype")


def _array(value: Any, most: int) -> Rendering:
    """Render a NumPy array; a large one by its corners, its shape said."""
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
    return hasattr(type(value), "__pydantic_serializer__") or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    )


def _json(value: object) -> str | None:
    """Return indented JSON, None where the value cannot be JSON (it contains itself)."""
    from pydantic_core import PydanticSerializationError, to_json

    try:
        return to_json(value, indent=2, fallback=repr, inf_nan_mode="constants").decode()
    except (PydanticSerializationError, ValueError, RecursionError):
        return None
