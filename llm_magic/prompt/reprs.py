"""An object as Python itself shows it: its repr, pretty-printed, its source code, its traceback."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from typing import Any, Final

from IPython.lib.pretty import RepresentationPrinter


class _Full(Exception):  # noqa: N818 - no error: it ends the writing
    """Enough was written."""


class _Bounded(StringIO):
    """A text that takes so many characters and no more."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def write(self, text: str) -> int:
        super().write(text[: self._left])
        if len(text) > self._left:
            raise _Full
        self._left -= len(text)
        return len(text)


def pretty(value: Any, most: int) -> tuple[str, bool]:
    """Return at most `most` characters of a pretty-printed repr, and whether that is all.

    It is written only as far as it is wanted. Cyclic containers show as IPython shows them
    (`[...]`); an object whose own repr never ends shows as Python's default one. A repr that
    raises, raises here.
    """
    sink = _Bounded(most)
    printer: Any = RepresentationPrinter(sink, max_width=100, max_seq_length=0)
    try:
        printer.pretty(value)
        printer.flush()
    except _Full:
        return sink.getvalue(), False
    except RecursionError:
        return object.__repr__(value), True
    return sink.getvalue(), True


_MACHINERY: Final = ("/IPython/core/", "/ipykernel/", "\\IPython\\core\\", "\\ipykernel\\")


def traceback_of(error: BaseException) -> str:
    """Return an exception with its traceback, without the frames of IPython that ran the cell."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    seen: traceback.TracebackException | None = told
    while seen is not None:
        own = [frame for frame in seen.stack if not any(part in frame.filename for part in _MACHINERY)]
        if own:
            seen.stack[:] = own
        seen = seen.__cause__ or seen.__context__
    return "".join(told.format()).rstrip("\n")


def source_of(value: Any) -> str:
    """Return the source of a function, method, class or module, defined in a cell or a file.

    Without a source it is the signature and the docstring.
    """
    for find in (inspect.getsource, _class_of_a_cell):
        with suppress(OSError, TypeError, SyntaxError):
            if source := find(value):
                return textwrap.dedent(source).rstrip("\n")
    return _signature(value)


def _class_of_a_cell(value: Any) -> str:
    """Find a class in the cells that ran: `inspect` finds none of `__main__` up to Python 3.12.

    The newest class statement of its name is its source, unless the class has not what that one
    defines.
    """
    if not inspect.isclass(value):
        return ""
    known = {*dir(value), *getattr(value, "__annotations__", ())}
    found = list(_class_statements(value.__name__))
    return next((source for source, defined in found if defined <= known), found[0][0] if found else "")


def _class_statements(name: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the class statements of the cells that ran, the newest first, and the names each defines."""
    cells = [entry[2] for entry in linecache.cache.values() if len(entry) == 4 and entry[1] is None]  # noqa: PLR2004 - (size, mtime, lines, name); a cell has no mtime
    for lines in reversed(cells):
        if not any(f"class {name}" in line for line in lines):
            continue
        for node in reversed([*ast.walk(ast.parse("".join(lines)))]):
            if isinstance(node, ast.ClassDef) and node.name == name:
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                yield "".join(lines[first - 1 : node.end_lineno]), _defined(node)


def _defined(node: ast.ClassDef) -> set[str]:
    """Return the names that a class statement defines, but for those that Python mangles."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = {statement.name for statement in node.body if isinstance(statement, functions)}
    fields = [statement.target for statement in node.body if isinstance(statement, ast.AnnAssign)]
    names |= {field.id for field in fields if isinstance(field, ast.Name)}
    return {name for name in names if not name.startswith("__")}


def _signature(value: Any) -> str:
    name = getattr(value, "__qualname__", getattr(value, "__name__", repr(value)))
    module = getattr(value, "__module__", None)
    full = f"{module}.{name}" if isinstance(module, str) and module not in {"builtins", "__main__"} else name
    try:
        signature = str(inspect.signature(value))
    except (TypeError, ValueError):
        signature = ""
    return "\n\n".join(text for text in (f"{full}{signature}", inspect.getdoc(value)) if text)
