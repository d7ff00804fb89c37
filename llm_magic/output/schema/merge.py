"""Two JSON Schemas that both have to hold become one, as far as keywords can say it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

Schema = dict[str, Any]

ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment", "$id",
     "id", "$schema", "$anchor", "$defs", "definitions", "$vocabulary", "contentMediaType", "contentEncoding"}
)  # fmt: skip
"""Keywords that say nothing about which values fit."""


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> Schema:
    """Return a schema for what fits both; of two keywords that cannot be joined, the first one stays.

    >>> merged({"type": "integer", "minimum": 1}, {"minimum": 3, "maximum": 5})
    {'type': 'integer', 'minimum': 3, 'maximum': 5}

    """
    result: Schema = dict(one)
    for key, value in other.items():
        if key not in result:
            result[key] = value
        elif key in _JOINS:
            result[key] = _JOINS[key](result[key], value)
    return result


def _both(one: Any, other: Any) -> Any:
    """Return a schema for a place where two hold."""
    if one is True or other is False:
        return other
    if other is True or one is False:
        return one
    if one == other:
        return one
    return {"allOf": [one, other]}


def _properties(one: Mapping[str, Any], other: Mapping[str, Any]) -> Schema:
    return {**one, **{key: _both(one[key], value) if key in one else value for key, value in other.items()}}


def _types(one: Any, other: Any) -> Any:
    left, right = ([kind] if isinstance(kind, str) else list(kind) for kind in (one, other))
    kept = [kind for kind in left if kind in right or (kind == "integer" and "number" in right)]
    kept += [kind for kind in right if kind == "integer" and "number" in left and kind not in kept]
    if not kept:
        return one
    return kept[0] if len(kept) == 1 else kept


def _values(one: list[Any], other: list[Any]) -> list[Any]:
    return [value for value in one if value in other] or one


def _union(one: list[Any], other: list[Any]) -> list[Any]:
    return [*one, *(value for value in other if value not in one)]


def _concatenated(one: list[Any], other: list[Any]) -> list[Any]:
    return [*one, *other]


_JOINS: Mapping[str, Callable[[Any, Any], Any]] = {
    "type": _types,
    "enum": _values,
    "properties": _properties,
    "patternProperties": _properties,
    "additionalProperties": _both,
    "items": _both,
    "propertyNames": _both,
    "required": _union,
    "allOf": _concatenated,
    "minimum": max,
    "exclusiveMinimum": max,
    "minLength": max,
    "minItems": max,
    "minProperties": max,
    "maximum": min,
    "exclusiveMaximum": min,
    "maxLength": min,
    "maxItems": min,
    "maxProperties": min,
    "uniqueItems": lambda one, other: one or other,
}


def integer_bounds(schema: Mapping[str, Any]) -> Schema:
    """Return `minimum` and `maximum` of whole numbers for the bounds of a schema, whatever draft wrote them.

    >>> integer_bounds({"exclusiveMinimum": 0, "maximum": 9.5})
    {'minimum': 1, 'maximum': 9}

    """
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if above is True and low is not None:  # draft 4: a flag beside `minimum`
        above = low
    if below is True and high is not None:
        below = high
    lows = [math.ceil(low)] if _is_number(low) else []
    lows += [math.floor(above) + 1] if _is_number(above) else []
    highs = [math.floor(high)] if _is_number(high) else []
    highs += [math.ceil(below) - 1] if _is_number(below) else []
    bounds: Schema = {}
    if lows:
        bounds["minimum"] = max(lows)
    if highs:
        bounds["maximum"] = min(highs)
    return bounds


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
