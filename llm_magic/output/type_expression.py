"""Type expressions, evaluated over the user's namespace, which is neither copied nor written."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections import ChainMap
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import OutputTypeError


class DataFrame:
    """An output type: records as a pandas DataFrame with one column a field.

    `DataFrame[City]` names the type of a record: a pydantic model, dataclass, TypedDict or
    NamedTuple; `DataFrame["name, age int"]` gives the fields in the short form of `--schema`. In
    `--as` the name is there without import, and the quotes can be left out.

    >>> DataFrame["name, age int"]
    DataFrame[name, age int]

    """

    def __class_getitem__(cls, record: Any) -> FrameType:
        return FrameType(record)


@dataclasses.dataclass(frozen=True)
class FrameType:
    """What `DataFrame[…]` is: the type of a record, or its short form as text."""

    record: Any

    def __repr__(self) -> str:
        named = isinstance(self.record, type) and not typing.get_args(self.record)
        return f"DataFrame[{self.record.__name__ if named else str(self.record).replace('typing.', '')}]"


_MODULES: Mapping[str, types.ModuleType] = {module.__name__: module for module in (typing, dt, decimal, uuid, enum)}
_OFFERED: dict[str, Any] = {
    **{name: getattr(typing, name) for name in typing.__all__},
    **{name: getattr(dt, name) for name in ("date", "datetime", "time", "timedelta")},
    "Decimal": decimal.Decimal,
    "UUID": uuid.UUID,
    "DataFrame": DataFrame,
}
"""Names that need no import."""


def offered(name: str) -> bool:
    """Tell whether a name means something in every type expression."""
    return name in _OFFERED or name in _MODULES or name == "JsonValue" or hasattr(builtins, name)


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
    if option == "--as":
        tree = ast.fix_missing_locations(_Frames().visit(tree))
        names = names.new_child({_FRAME: DataFrame})
        with suppress(ImportError):  # where pydantic is not there, nothing of this is used
            from pydantic import JsonValue

            names.maps.append({"JsonValue": JsonValue})
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


_FRAME = "__frame__"


class _Frames(ast.NodeTransformer):
    """Makes `DataFrame[…]` and `pd.DataFrame[…]` ours: pandas' own class is of nothing."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Replace what is subscripted."""
        named = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        if named == "DataFrame":
            node.value = ast.Name(_FRAME, ast.Load())
        return self.generic_visit(node)


def require_type(value: Any, name: str) -> Any:
    """Return `value`, or raise `OutputTypeError` where it is plainly no type."""
    if isinstance(value, FrameType):
        return value
    if isinstance(value, type) and value.__name__ == "DataFrame":
        hint = "Say DataFrame[City], with a record type of yours for City, or DataFrame[name, age int]."
        raise OutputTypeError(f"--as {name}: its columns are not known.", hint)
    for kind, hint in _NOT_TYPES.items():
        if isinstance(value, kind):
            if value in (typing.TypedDict, typing.NamedTuple):
                raise OutputTypeError(f"--as {name}: it makes record types; name one of yours.", "")
            raise OutputTypeError(f"--as {name}: this is a {kind.__name__}, not a type.", hint)
    is_alias = type(value).__name__ == "TypeAliasType"
    is_type = isinstance(value, type) or typing.get_origin(value) is not None or type(value).__module__ == "typing"
    is_type = is_type or is_alias or type(value).__module__ == "typing_extensions"
    if value is Ellipsis or (not is_type and (callable(value) or isinstance(value, (int, float, bytes, tuple, set)))):
        raise OutputTypeError(f"--as {name}: {value!r} is not a type.", "Examples: int, list[City], date | None.")
    return value
