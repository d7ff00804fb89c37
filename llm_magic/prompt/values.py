"""Functions, classes and modules as their source, also where a notebook cell defined them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import linecache
import sys
import textwrap
import types
from dataclasses import dataclass
from typing import Any

from llm_magic import images
from llm_magic.errors import PromptError
from llm_magic.messages import Image
from llm_magic.prompt.errors import traceback_text
from llm_magic.prompt.tables import is_table, plain, table
from llm_magic.response import Response


def source_of(value: Any) -> str:
    """Return the source of a function, method, class or module; without one its signature and docstring."""
    for find in (_from_inspect, _from_cells):
        try:
            source = find(value)
        except (OSError, TypeError, SyntaxError):
            continue
        if source:
            return textwrap.dedent(source).rstrip("\n")
    return _described(value)


def _from_inspect(value: Any) -> str:
    return inspect.getsource(value)


def _from_cells(value: Any) -> str:
    """Find a class in the cells that ran: up to Python 3.12 `inspect` finds no class of `__main__`.

    The newest class statement of its name is its source, unless the class has not what that one defines.
    """
    if not inspect.isclass(value):
        return ""
    name = value.__qualname__.rpartition(".")[2]
    known = {*dir(value), *getattr(value, "__annotations__", ())}
    newest = ""
    for entry in reversed(list(linecache.cache.values())):
        if len(entry) != 4 or entry[1] is not None:  # noqa: PLR2004 - (size, mtime, lines, name); a cell has no mtime
            continue
        lines = entry[2]
        if not any(f"class {name}" in line for line in lines):
            continue
        for node in reversed([*ast.walk(ast.parse("".join(lines)))]):
            if isinstance(node, ast.ClassDef) and node.name == name:
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                source = "".join(lines[first - 1 : node.end_lineno])
                if _defined(node) <= known:
                    return source
                newest = newest or source
    return newest


def _defined(node: ast.ClassDef) -> set[str]:
    """Return the names that the body of a class statement defines."""
    names: set[str] = set()
    for statement in node.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(statement.name)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.add(statement.target.id)
    return {name for name in names if not name.startswith("__")}  # those are mangled


def _described(value: Any) -> str:
    name = getattr(value, "__qualname__", getattr(value, "__name__", repr(value)))
    module = getattr(value, "__module__", None)
    full = f"{module}.{name}" if isinstance(module, str) and module not in {"builtins", "__main__"} else name
    try:
        signature = str(inspect.signature(value))
    except (TypeError, ValueError):
        signature = ""
    return "\n\n".join(text for text in (f"{full}{signature}", inspect.getdoc(value)) if text)


_UNFINISHED = (types.CoroutineType, types.AsyncGeneratorType, types.GeneratorType)
_WHOLE = 1000  # items of an array that is shown whole
_INDENT = 2


@dataclass(frozen=True, slots=True)
class Rendering:
    """A value in a prompt: text or an image; a `block` wants lines of its own."""

    text: str = ""
    image: Image | None = None
    block: bool = False
    notes: tuple[str, ...] = ()


def to_prompt(value: Any, max_rows: int, max_chars: int, max_side: int) -> Rendering:
    """Render one value.

    Parameters
    ----------
    value
        Anything.
    max_rows, max_chars, max_side
        Rows of a table, characters of the text, and pixels of an image's longest side that are allowed.

    Raises
    ------
    PromptError
        The value has nothing to show yet (a coroutine), or is an image that cannot be read.
    Exception
        Whatever the value's own repr raises.

    """
    if images.is_picture(value):
        image, note = images.part(value, max_side=max_side)
        return Rendering(image=image, notes=(note,) if note else ())
    if is_table(value):
        shown = table(value, max_rows)
        text, notes = _cut(shown.text, max_chars)
        return Rendering(f"{text}\n\n{shown.shape}", block=True, notes=(*shown.notes, *notes))
    if isinstance(value, BaseException):
        text, notes = _cut(traceback_text(value), max_chars, keep_end=True)
        return Rendering(text, notes=notes)
    drawn = images.own_picture(value, max_side=max_side)
    if drawn is not None:
        return Rendering(image=drawn[0], notes=(drawn[1],) if drawn[1] else ())
    text, notes = _text(value, max_chars)
    return Rendering(text, notes=notes)


def _cut(text: str, most: int, *, keep_end: bool = False) -> tuple[str, tuple[str, ...]]:
    """Cut a text that is too long, and say so in it and in a note."""
    if len(text) <= most:
        return text, ()
    said = f"the {'last' if keep_end else 'first'} {most:,} of {len(text):,} characters"
    cut = f"[cut: {said}] …\n{text[-most:]}" if keep_end else f"{text[:most]}\n… [cut: {said}]"
    return cut, (f"{said} are in the prompt (LLMMagics.max_value_chars).",)


def _text(value: Any, max_chars: int) -> tuple[str, tuple[str, ...]]:
    """Return the text of a value, and notes on what is not in it."""
    if isinstance(value, str):
        return _cut(str.__str__(value), max_chars)
    if isinstance(value, Response):
        return _cut(value.text, max_chars)
    if isinstance(value, _UNFINISHED):
        kind = type(value).__name__
        hint = "Add the filter `list`: {{ … | list }}." if kind == "generator" else "Await it in a cell first."
        raise PromptError(f"the value is a {kind}, which has nothing to show yet.", hint)
    if inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value):
        return _cut(source_of(value), max_chars)
    if _is_numpy(value):
        return _array(value, max_chars)
    markdown = _own(value, "_repr_markdown_")
    if isinstance(markdown, str):
        return _cut(markdown, max_chars)
    if _is_record(value) or _is_collection_of_records(value):
        json = _json(value)
        if json is not None:
            return _cut(json, max_chars)
    text, whole = plain(value, max_chars)
    if whole:
        return text, ()
    said = f"the first {max_chars:,} characters"  # of how many, nobody has counted
    return f"{text}\n… [cut: {said}]", (f"{said} are in the prompt (LLMMagics.max_value_chars).",)


def _is_numpy(value: object) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "dtype")


def _array(value: Any, max_chars: int) -> tuple[str, tuple[str, ...]]:
    """Return a NumPy array or scalar; a large array by its corners, its shape said."""
    if not value.ndim:
        return _cut(str(value), max_chars)
    text, notes = _cut(sys.modules["numpy"].array2string(value, threshold=_WHOLE, separator=", "), max_chars)
    if value.size <= _WHOLE:
        return text, notes
    shape = " × ".join(f"{side:,}" for side in value.shape)
    return (
        f"{text}\narray of {shape} items, {value.dtype}; its corners are shown",
        (f"the corners of an array of {shape} items are in the prompt.", *notes),
    )


def _own(value: Any, method: str) -> Any:
    """Call a display method of the value's class; it may give `(data, metadata)`."""
    if not callable(getattr(type(value), method, None)):
        return None
    shown = getattr(value, method)()
    return shown[0] if isinstance(shown, tuple) and shown else shown


def _is_record(value: object) -> bool:
    """Whether this is a pydantic model or a dataclass; imports no pydantic."""
    return hasattr(type(value), "__pydantic_serializer__") or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    )


def _is_collection_of_records(value: object) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(map(_is_record, value.values()))
    return isinstance(value, (list, tuple)) and bool(value) and all(map(_is_record, value))


def _json(value: object) -> str | None:
    """Return indented JSON, None where the value cannot be JSON (it contains itself)."""
    from pydantic_core import PydanticSerializationError, to_json

    try:
        return to_json(value, indent=_INDENT, fallback=repr, inf_nan_mode="constants").decode()
    except (PydanticSerializationError, ValueError, RecursionError):
        return None
