"""Two hundred schemas in the shapes of real projects: each entity in five shapes of two drafts; and odd ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from fields import FLAG, one_of, some, text, whole
from records import RECORDS
from software import SOFTWARE

Schema = dict[str, Any]
ENTITIES = SOFTWARE | RECORDS
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"


def entity(name: str, *, closed: bool = False) -> Schema:
    fields, required = ENTITIES[name]
    schema = {"type": "object", "title": name, "properties": dict(fields), "required": list(required)}
    return schema | ({"additionalProperties": False} if closed else {})


def definitions(*names: str, closed: bool = False) -> Schema:
    """The entities and those that they refer to."""
    needed = list(names)
    if any('"#/$defs/person"' in json.dumps(ENTITIES[name][0]) for name in names) and "person" not in needed:
        needed.append("person")
    return {name: entity(name, closed=closed) for name in needed}


def flat(name: str, _other: str) -> Schema:
    return {"$schema": DRAFT_2020, **entity(name, closed=True), "$defs": definitions("person")}


def listed(name: str, _other: str) -> Schema:
    """A document with a list of references, a reference beside annotations, and bounds."""
    return {
        "$schema": DRAFT_2020,
        "$id": f"https://example.org/schemas/{name}-list.json",
        "type": "object",
        "properties": {
            "total": whole(0, 500),
            "items": {
                "description": "What was found.",
                "type": "array",
                "items": {"$ref": f"#/$defs/{name}"},
                "minItems": 1,
                "maxItems": 2,
            },
        },
        "required": ["items"],
        "additionalProperties": False,
        "$defs": definitions(name),
    }


def either(name: str, other: str) -> Schema:
    """Alternatives that are told apart by a constant."""
    ways = [
        {
            "type": "object",
            "properties": {"kind": {"const": each}, "data": {"$ref": f"#/$defs/{each}"}},
            "required": ["kind", "data"],
        }
        for each in (name, other)
    ]
    return {"$schema": DRAFT_2020, "anyOf": ways, "$defs": definitions(name, other)}


def extended(name: str, _other: str) -> Schema:
    """A base extended by `allOf`, with a condition, in draft 7."""
    schema: Schema = {
        "$schema": DRAFT_7,
        "definitions": definitions(name),
        "allOf": [
            {"$ref": f"#/definitions/{name}"},
            {
                "type": "object",
                "properties": {"review": one_of("draft", "final"), "note": text(1, 20)},
                "required": ["review"],
            },
        ],
        "if": {"properties": {"review": {"const": "final"}}},
        "then": {"required": ["note"]},
    }
    return json.loads(json.dumps(schema).replace("#/$defs/", "#/definitions/"))


def mapped(name: str, other: str) -> Schema:
    """Maps: by pattern and by free key, and a nullable reference."""
    return {
        "$schema": DRAFT_7,
        "type": "object",
        "definitions": json.loads(json.dumps(definitions(name, other)).replace("#/$defs/", "#/definitions/")),
        "properties": {
            "byName": {"type": "object", "additionalProperties": {"$ref": f"#/definitions/{name}"}, "maxProperties": 3},
            "extra": {"oneOf": [{"type": "null"}, {"$ref": f"#/definitions/{other}"}]},
            "flags": {"type": "object", "patternProperties": {"^x-": FLAG}},
        },
        "required": ["extra"],
    }


SHAPES: tuple[Callable[[str, str], Schema], ...] = (flat, listed, either, extended, mapped)

ODD: dict[str, Schema] = {
    "draft 4 bounds": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "object",
        "required": ["n"],
        "properties": {"n": {"type": "integer", "minimum": 3, "exclusiveMinimum": True, "maximum": 9}},
    },
    "a tree by #": {
        "type": "object",
        "properties": {"name": text(1, 8), "children": some({"$ref": "#"}, 2)},
        "required": ["name"],
    },
    "an anchor": {
        "$defs": {"a": {"$anchor": "item", "type": "integer", "minimum": 0, "maximum": 9}},
        "type": "array",
        "items": {"$ref": "#item"},
        "maxItems": 3,
    },
    "a pointer into properties": {
        "type": "object",
        "properties": {"a": whole(1, 5), "b": {"$ref": "#/properties/a"}},
        "required": ["a", "b"],
    },
    "a pointer with escapes": {
        "$defs": {"a/b~c": whole(1, 5)},
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/a~1b~0c"}},
        "required": ["x"],
    },
    "not": {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 20, "not": {"const": 13}}},
        "required": ["n"],
    },
    "dependent": {
        "type": "object",
        "properties": {"card": text(4, 8), "cvc": whole(100, 999)},
        "dependentRequired": {"card": ["cvc"]},
    },
    "contains": {"type": "array", "items": whole(0, 9), "contains": {"const": 7}, "maxItems": 5},
    "unevaluated": {
        "type": "object",
        "allOf": [{"properties": {"a": FLAG}}],
        "properties": {"b": FLAG},
        "unevaluatedProperties": False,
    },
    "a tuple": {
        "$schema": DRAFT_2020,
        "type": "array",
        "prefixItems": [whole(0, 9), text(1, 5), FLAG],
        "items": False,
        "minItems": 3,
    },
    "an old tuple": {
        "$schema": DRAFT_7,
        "type": "array",
        "items": [whole(0, 9), text(1, 5)],
        "additionalItems": False,
        "minItems": 2,
    },
    "a scalar": whole(10, 99),
    "an enumeration of all kinds": one_of("a", 1, None, True, 2.5),
    "a boolean schema inside": {
        "type": "object",
        "properties": {"any": True, "none": False, "n": whole(0, 3)},
        "required": ["n"],
    },
    "a pattern with look-ahead": {"type": "string", "pattern": r"^(?=.*\d)[a-z\d]{4,8}$"},
    "a pattern that is not anchored": {"type": "string", "pattern": "b", "maxLength": 5},
    "a pattern with quotes": {"type": "string", "pattern": r'^"\w{1,5}"\\$'},
    "many alternatives": {
        "oneOf": [{"type": "object", "properties": {"k": {"const": number}}, "required": ["k"]} for number in range(12)]
    },
    "deep nesting": json.loads(
        '{"type":"object","required":["a"],"properties":{"a":' * 12
        + '{"type":"integer","minimum":0,"maximum":9}'
        + "}}" * 12
    ),
    "a required field without a schema": {"type": "object", "properties": {"a": FLAG}, "required": ["a", "b"]},
    "number bounds": {
        "type": "object",
        "properties": {"p": {"type": "number", "minimum": 0, "maximum": 1}},
        "required": ["p"],
    },
    "multiples": {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 5},
    "names by pattern": {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z]{1,4}$"},
        "additionalProperties": whole(0, 9),
        "maxProperties": 2,
    },
    "alternatives beside properties": {
        "type": "object",
        "properties": {"a": whole(0, 9), "b": whole(0, 9)},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        "additionalProperties": False,
    },
    "nothing said": {},
}


REFUSED: dict[str, Any] = {
    "a reference to elsewhere": {"$ref": "https://example.org/other.json"},
    "a reference to nowhere": {"$ref": "#/$defs/missing"},
    "a type that is none": {"type": "object", "properties": {"a": {"type": "strin"}}},
    "a pattern that does not compile": {"type": "string", "pattern": "("},
    "an unknown draft": {"$schema": "https://example.org/my-own-draft", "type": "integer"},
    "a list": [1],
    "a set inside": {"enum": {1, 2}},
}


def corpus() -> Iterator[tuple[str, Schema]]:
    """Yield name and schema: 200 by entity and shape, and the odd ones."""
    names = list(ENTITIES)
    for place, name in enumerate(names):
        for shape in SHAPES:
            yield f"{name} {shape.__name__}", shape(name, names[(place + 7) % len(names)])
    yield from ODD.items()
