"""Functions, classes and modules as their source, also where a notebook cell defined them."""

from __future__ import annotations

import ast
import inspect
import linecache
import textwrap
from typing import Any


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
