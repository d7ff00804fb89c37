"""Strings, numbers and lists of values as a constrained decoder takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_magic.errors import UnsupportedError
from llm_magic.output.formats import PATTERNS_BY_ALIAS
from llm_magic.output.merge import Schema, integer_bounds
from llm_magic.output.notation import in_json, to_regex
from llm_magic.output.regex import Chars, Repeat, read_regex, width

_MAX_LENGTH = 2000


@dataclass(frozen=True, slots=True)
class Target:
    """What one kind of decoder knows beyond the common ground."""

    formats: frozenset[str] = frozenset()
    """Formats that it knows itself; others become patterns."""
    number_bounds: bool = False
    """Whether `minimum` and its like work on numbers that are not whole."""
    integer_limit: int = 0
    """Bound of integers without bounds, so that a weak model does not write digits for ever; 0: none is needed."""
    descriptions: bool = False
    """Whether it reads descriptions (the model sees the schema)."""
    escapes: bool = False
    """Whether patterns are about the JSON text, so that `"` is written with its backslash."""


def scalar(kind: str, flat: Schema, target: Target, unsaid: set[str]) -> Schema:
    """Write a schema of one scalar type; what cannot be said is added to `unsaid`."""
    if kind == "string":
        return _string(flat, target, unsaid)
    if kind == "integer":
        bounds = integer_bounds(flat)
        limit = target.integer_limit
        if limit and bounds.get("minimum", 0) < limit and bounds.get("maximum", 0) > -limit:
            bounds = {"minimum": -limit, "maximum": limit} | bounds
        return {"type": "integer", **bounds}
    if kind == "number":
        bounds = {
            key: flat[key] for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if key in flat
        }
        if bounds and not target.number_bounds:
            unsaid.update(bounds)
            bounds = {}
        return {"type": "number", **{key: value for key, value in bounds.items() if not isinstance(value, bool)}}
    return {"type": kind}


def _string(flat: Schema, target: Target, unsaid: set[str]) -> Schema:
    written: Schema = {"type": "string"}
    low = int(flat.get("minLength") or 0)
    high = int(flat["maxLength"]) if isinstance(flat.get("maxLength"), (int, float)) else None
    name = flat.get("format")
    pattern = flat.get("pattern")
    if pattern is None and name in target.formats:
        return {"type": "string", "format": name}
    if pattern is None and isinstance(name, str) and name in PATTERNS_BY_ALIAS:
        pattern = PATTERNS_BY_ALIAS[name]
    if isinstance(pattern, str):
        plain = _pattern(pattern, low, high, target, unsaid)
        if plain is not None:
            return {"type": "string", "pattern": plain}
    if 0 < low <= _MAX_LENGTH:
        written["minLength"] = low
    if high is not None and high <= _MAX_LENGTH:
        written["maxLength"] = high
    return written


def _pattern(pattern: str, low: int, high: int | None, target: Target, unsaid: set[str]) -> str | None:
    """Return a pattern in plain notation, anchored; None where it cannot be said."""
    try:
        node = read_regex(pattern, search=True)
        if isinstance(node, Repeat) and isinstance(node.part, Chars):
            most = node.high if high is None else high if node.high is None else min(high, node.high)
            node = Repeat(node.part, max(low, node.low), most)
        least, longest = width(node)
        if least < low:
            unsaid.add("minLength")
        if high is not None and (longest is None or longest > high):
            unsaid.add("maxLength")
        return f"^({to_regex(in_json(node, escapes=target.escapes))})$"
    except UnsupportedError:
        unsaid.add("pattern")
        return None


def enumeration(flat: Schema) -> Schema:
    """Write a schema that lists its values."""
    values = [flat["const"]] if "const" in flat else list(flat["enum"])
    kinds = flat.get("type")
    if kinds is not None:
        fitting = [value for value in values if _fits(value, [kinds] if isinstance(kinds, str) else kinds)]
        values = fitting or values
    types = {_type_of(value) for value in values}
    return {"type": types.pop(), "enum": values} if len(types) == 1 else {"enum": values}


def _fits(value: Any, kinds: list[str]) -> bool:
    kind = _type_of(value)
    return kind in kinds or (kind == "integer" and "number" in kinds)


def _type_of(value: Any) -> str:
    """Return JSON Schema's name for the type of a JSON value."""
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    names = {type(None): "null", bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    return names[type(value)]
