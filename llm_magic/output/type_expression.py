"""A type expression is evaluated over the user's own namespace: nothing is copied, nothing is written into it."""

from __future__ import annotations

import ast
import builtins
import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from llm_magic.errors import OutputTypeError

_MODULES: Mapping[str, types.ModuleType] = {module.__name__: module for module in (typing, dt, decimal, uuid, enum)}
_OFFERED: Mapping[str, Any] = {
    **{name: getattr(typing, name) for name in typing.__all__},
    **{name: getattr(dt, name) for name in ("date", "datetime", "time", "timedelta")},
    "Decimal": decimal.Decimal,
    "UUID": uuid.UUID,
}
"""Names that need no import."""

_NOT_TYPES: Mapping[type, str] = {
    dict: "A JSON Schema goes to --schema.",
    str: "Leave out the quotes around the type.",
    list: "Write list[…] of a type, or --choices for a list of words.",
    types.FunctionType: "A function that the model may call goes to --tools.",
    types.BuiltinFunctionType: "A function that the model may call goes to --tools.",
    types.ModuleType: "Name a class of this module.",
}


class Overlay(Mapping[str, Any]):
    """The names that an expression sees: the user's first, then the offered ones.

    `datetime` is the class where it stands alone and the module in `datetime.date`, whichever the user imported.
    """

    def __init__(self, namespace: Mapping[str, Any], dotted: frozenset[str]) -> None:
        self._namespace = namespace
        self._dotted = dotted

    def __getitem__(self, name: str) -> Any:
        if name in self._namespace:
            value = self._namespace[name]
            stray = isinstance(value, types.ModuleType) and name in _OFFERED and name not in self._dotted
            return _OFFERED[name] if stray else value
        if name in self._dotted and name in _MODULES:
            return _MODULES[name]
        return _OFFERED[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._namespace
        yield from _OFFERED

    def __len__(self) -> int:
        return len(self._namespace) + len(_OFFERED)


def evaluate(expression: str, namespace: Mapping[str, Any], option: str = "--as") -> Any:
    """Return what a Python expression is worth in the user's namespace.

    Parameters
    ----------
    expression
        Python source of one expression: `list[City]`, `Literal["a", "b"]`, `int | None`.
    namespace
        The user's variables; read only.
    option
        The option that it came from, for errors.

    Raises
    ------
    OutputTypeError
        It is no expression, a name in it is unknown (close matches are named), or it raises.

    >>> evaluate("dict[str, date]", {})
    dict[str, datetime.date]

    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise OutputTypeError(
            f"{option} {expression!r} is not a Python expression: {getattr(error, 'msg', error)}.",
            'Examples: --as int, --as "list[City]", --as \'Literal["yes", "no"]\'.',
        ) from None
    dotted = frozenset(
        node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    )
    overlay = Overlay(namespace, dotted)
    try:
        return eval(compile(tree, f"<{option}>", "eval"), {"__builtins__": builtins}, overlay)  # noqa: S307 - the user's own code, in the user's own kernel
    except NameError as error:
        raise _unknown(error.name or str(error), expression, overlay, option) from None
    except Exception as error:  # anything may go wrong in the user's expression
        raise OutputTypeError(f"{option} {expression!r} raises {type(error).__name__}: {error}.") from error


def evaluate_type(expression: str, namespace: Mapping[str, Any]) -> Any:
    """Return the type that an expression names, or raise `OutputTypeError` where it is something else."""
    value = evaluate(expression, namespace)
    require_type(value, expression)
    return value


def require_type(value: Any, name: str) -> None:
    """Raise `OutputTypeError` where `value` is plainly no type."""
    for kind, hint in _NOT_TYPES.items():
        if isinstance(value, kind):
            raise OutputTypeError(f"--as {name}: this is a {kind.__name__}, not a type.", hint)
    if value is Ellipsis or (isinstance(value, (int, float, bytes, tuple, set, Callable)) and not _is_type(value)):  # type: ignore[arg-type]  # mypy: Callable is no class to it
        raise OutputTypeError(f"--as {name}: {value!r} is not a type.", "Examples: int, list[City], date | None.")


def _is_type(value: Any) -> bool:
    return isinstance(value, type) or typing.get_origin(value) is not None or type(value).__module__ == "typing"


def _unknown(name: str, expression: str, overlay: Overlay, option: str) -> OutputTypeError:
    types_known = [key for key, value in overlay.items() if isinstance(value, type) or key in _OFFERED]
    close = get_close_matches(name, [*types_known, "int", "float", "bool", "str", "list", "dict", "tuple", "set"], n=3)
    if not close:
        close = get_close_matches(name, list(overlay), n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else "Define or import it in a cell before this one."
    return OutputTypeError(f"{option} {expression!r}: no name {name!r} in this notebook.", hint)
