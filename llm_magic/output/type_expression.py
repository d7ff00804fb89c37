"""Type expressions, evaluated over the user's namespace, which is neither copied nor written."""

from __future__ import annotations

import ast
import builtins
import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import OutputTypeError

_MODULES: Mapping[str, types.ModuleType] = {module.__name__: module for module in (typing, dt, decimal, uuid, enum)}
_OFFERED: dict[str, Any] = {
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


def _names_for(tree: ast.Expression, namespace: Mapping[str, Any]) -> ChainMap[str, Any]:
    """Return the names that an expression sees: the user's first, then the offered ones.

    `datetime` is the class where it stands alone and the module in `datetime.date`, whichever the
    user imported.
    """
    dotted = {
        node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    stray = {name for name in _OFFERED if name not in dotted and isinstance(namespace.get(name), types.ModuleType)}
    modules = {name: module for name, module in _MODULES.items() if name in dotted}
    user: Any = namespace  # only read: what an expression assigns goes into the first map
    return ChainMap({name: _OFFERED[name] for name in stray}, user, modules, _OFFERED)


def evaluate(expression: str, namespace: Mapping[str, Any], option: str = "--as") -> Any:
    """Return what a Python expression of an option is worth in the user's namespace.

    It is an `OutputTypeError` if it is no expression, a name in it is unknown (close matches are
    named), or it raises.

    >>> evaluate("dict[str, date]", {})
    dict[str, datetime.date]

    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        reason = getattr(error, "msg", error)
        hint = 'Examples: --as int, --as "list[City]", --as \'Literal["yes", "no"]\'.'
        raise OutputTypeError(f"{option} {expression!r} is not a Python expression: {reason}.", hint) from None
    names = _names_for(tree, namespace)
    try:
        return eval(compile(tree, f"<{option}>", "eval"), {"__builtins__": builtins}, names)  # noqa: S307 - the user's own code, in the user's own kernel
    except NameError as error:
        name = error.name or str(error)
        known = [key for key, value in names.items() if isinstance(value, type) or key in _OFFERED]
        known += ["int", "float", "bool", "str", "list", "dict", "tuple", "set"]
        hint = did_you_mean(name, known) or did_you_mean(name, names, "Define or import it in a cell before this one.")
        raise OutputTypeError(f"{option} {expression!r}: no name {name!r} in this notebook.", hint) from None
    except Exception as error:  # anything may go wrong in the user's expression
        raise OutputTypeError(f"{option} {expression!r} raises {type(error).__name__}: {error}.") from error


def require_type(value: Any, name: str) -> Any:
    """Return `value`, or raise `OutputTypeError` where it is plainly no type."""
    for kind, hint in _NOT_TYPES.items():
        if isinstance(value, kind):
            raise OutputTypeError(f"--as {name}: this is a {kind.__name__}, not a type.", hint)
    is_type = isinstance(value, type) or typing.get_origin(value) is not None or type(value).__module__ == "typing"
    if value is Ellipsis or (not is_type and (callable(value) or isinstance(value, (int, float, bytes, tuple, set)))):
        raise OutputTypeError(f"--as {name}: {value!r} is not a type.", "Examples: int, list[City], date | None.")
    return value
