"""Two JSON Schemas that both have to hold become one, as far as keywords can say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llm_magic.output.schema import Schema

ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment", "$id",
     "id", "$schema", "$anchor", "$defs", "definitions", "$vocabulary", "contentMediaType", "contentEncoding"}
)  # fmt: skip
"""Keywords that say nothing about which values fit."""


def merge(one: Schema, other: Schema) -> Schema:
    """Return a schema for what fits both; of keywords that cannot be joined the first stays.

    >>> merge({"type": "integer", "minimum": 1}, {"minimum": 3, "maximum": 5})
    {'type': 'integer', 'minimum': 3, 'maximum': 5}

    """
    joined = {key: _JOINS[key](value, other[key]) for key, value in one.items() if key in other and key in _JOINS}
    return {**one, **other, **one, **joined}


def _both(one: Any, other: Any) -> Any:
    """Return a schema for a place where two hold."""
    if one is True or other is False:
        return other
    if other is True or one is False or one == other:
        return one
    return {"allOf": [one, other]}


def _properties(one: Schema, other: Schema) -> Schema:
    return {**one, **{key: _both(one[key], value) if key in one else value for key, value in other.items()}}


def _types(one: Any, other: Any) -> Any:
    left, right = ([kind] if isinstance(kind, str) else list(kind) for kind in (one, other))
    kept = [kind for kind in left if kind in right or (kind == "integer" and "number" in right)]
    kept += [kind for kind in right if kind == "integer" and "number" in left and kind not in kept]
    return kept[0] if len(kept) == 1 else kept or one


_JOINS: Mapping[str, Callable[[Any, Any], Any]] = {
    "type": _types,
    "enum": lambda one, other: [value for value in one if value in other] or one,
    **dict.fromkeys(("properties", "patternProperties"), _properties),
    **dict.fromkeys(("additionalProperties", "items", "propertyNames"), _both),
    "required": lambda one, other: [*one, *(value for value in other if value not in one)],
    "allOf": lambda one, other: [*one, *other],
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
    "uniqueItems": lambda one, other: one or other,
}
