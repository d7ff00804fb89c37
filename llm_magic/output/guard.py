"""What pydantic lets through even in strict mode, and a JSON Schema that does not.

Python holds `True` and `1` for equal, and pydantic with it: `Literal[1]` would take `true`. And a string of digits
passes for a date, as seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magic.output.formats import NAIVE_DATETIME, NAIVE_TIME

Schema = Mapping[str, Any]

_STRUCTURE = frozenset(
    {"$defs", "$ref", "properties", "items", "prefixItems", "additionalProperties", "anyOf", "oneOf", "allOf", "enum"}
)
_DATE = {"pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}"}
_TIME = {"pattern": ":"}
_LOOKS: Mapping[str, Schema] = {
    "date": _DATE, "date-time": _DATE, NAIVE_DATETIME: _DATE, "time": _TIME, NAIVE_TIME: _TIME,
    "duration": {"pattern": "[:PDdYy]"},
}  # fmt: skip
"""What strings of a format, or of our own pattern for one, have to look like at the least."""


def guard(schema: Schema) -> Schema | None:
    """Return the schema of what pydantic alone would let through; None where there is nothing to guard.

    It is looser than `schema` everywhere else: pydantic knows better what its types take.

    >>> guard({"type": "array", "items": {"enum": [0, 1]}})
    {'items': {'enum': [0, 1]}}

    """
    if not _needs_one(schema):
        return None
    kept: Schema = _kept(schema, named=False)
    return kept


def _needs_one(node: Any) -> bool:
    if isinstance(node, Mapping):
        values = node.get("enum")
        if isinstance(values, list) and any(type(value) in (int, float) and value in (0, 1) for value in values):
            return True
        if _look(node) is not None:
            return True
        return any(_needs_one(value) for value in node.values())
    return isinstance(node, list) and any(_needs_one(value) for value in node)


def _look(node: Schema) -> Schema | None:
    for key in ("format", "pattern"):
        name = node.get(key)
        if isinstance(name, str) and name in _LOOKS:
            return _LOOKS[name]
    return None


def _kept(node: Any, *, named: bool) -> Any:
    """Keep the keywords that lead to what is guarded; `named`: the keys of `node` are names, not keywords."""
    if isinstance(node, Mapping):
        if named:
            return {key: _kept(value, named=False) for key, value in node.items()}
        look = _look(node)
        if look is not None:
            return look
        return {
            key: value if key in {"enum", "$ref"} else _kept(value, named=key in {"properties", "$defs"})
            for key, value in node.items()
            if key in _STRUCTURE
        }
    return [_kept(value, named=False) for value in node] if isinstance(node, list) else node
