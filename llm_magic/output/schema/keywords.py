"""What the keywords of JSON Schema mean: references followed, two schemas as one, formats as patterns.

References lead within their own document; other documents are never fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal
from urllib.parse import unquote

from llm_magic.output.schema import Schema


def resolve(schema: Schema, root: Schema) -> Schema:
    """Follow `$ref` within the document; one that leads elsewhere is returned as it stands."""
    for _ in range(50):
        reference = schema.get("$ref")
        target = target_of(reference, root) if isinstance(reference, str) else None
        if not isinstance(target, dict):
            break
        schema = target
    return schema


def target_of(reference: str, root: Schema) -> Any:
    """Return what a reference names, by pointer, by anchor, or behind the own `$id`; or None."""
    for base in (root.get("$id"), root.get("id")):
        if isinstance(base, str) and reference.startswith(base.rstrip("#") + "#"):
            reference = reference.removeprefix(base.rstrip("#"))
    if reference == "#":
        return root
    if reference.startswith("#/"):
        return _pointed(reference[2:], root)
    marks = (("$anchor", reference[1:]), ("$id", reference), ("id", reference))
    found = (each for each in subschemas(root) for key, name in marks if each.get(key) == name)
    return next(found, None) if reference.startswith("#") else None


def _pointed(pointer: str, root: Schema) -> Any:
    """Return what a JSON Pointer (RFC 6901) without its first slash names; or None."""
    target: Any = root
    for step in unquote(pointer).split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and key in target:
            target = target[key]
        elif isinstance(target, list) and key.isdigit() and int(key) < len(target):
            target = target[int(key)]
        else:
            return None
    return target


def subschemas(node: Any) -> Iterator[Schema]:
    """Yield a schema and all objects within it, the outermost first."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            node = list(node.values())
        if isinstance(node, list):
            waiting += reversed(node)


def is_object(schema: Schema, root: Schema) -> bool:
    """Tell whether a schema says, without alternatives, that the value is an object."""
    waiting, seen = [schema], set()
    while waiting:
        schema = resolve(waiting.pop(), root)
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        if "type" in schema:
            if schema["type"] == "object" and not {"anyOf", "oneOf"} & schema.keys():
                return True
        else:
            waiting += [part for part in schema.get("allOf", ()) if isinstance(part, dict)]
    return False


def may_be(kind: Literal["object", "null"], schema: Any, root: Schema, known: dict[int, bool] | None = None) -> bool:
    """Tell whether an object, or null, may be a value of the schema; in doubt yes.

    `known` holds what was found of schemas that this one is made of.

    >>> may_be("null", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, {})
    True

    """
    if not isinstance(schema, dict):
        return schema is not False
    schema = resolve(schema, root)
    known = {} if known is None else known
    if id(schema) in known:
        return known[id(schema)]
    known[id(schema)] = True  # in doubt, while it is looked at
    known[id(schema)] = found = _may_be(kind, schema, root, known)
    return found


def _may_be(kind: Literal["object", "null"], schema: Schema, root: Schema, known: dict[int, bool]) -> bool:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return any(value is None if kind == "null" else isinstance(value, dict) for value in values)
    kinds = schema.get("type", kind)
    if kind != kinds and kind not in kinds:
        return False
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return any(may_be(kind, part, root, known) for part in schema[key])
    return all(may_be(kind, part, root, known) for part in schema.get("allOf", ()))


def without_nulls(data: Any, root: Schema, schemas: list[Any] | None = None) -> Any:
    """Return data without the nulls of optional properties that may not be null.

    `schemas` are those of the data, which stand in `root`; None: it is `root` itself.
    """
    branches = _branches([root] if schemas is None else schemas, root)
    if isinstance(data, list):
        items = [branch["items"] for branch in branches if "items" in branch]
        return [without_nulls(value, root, items) for value in data]
    if not isinstance(data, dict):
        return data
    kept = {}
    for key, value in data.items():
        said = [branch["properties"][key] for branch in branches if key in branch.get("properties", ())]
        said = said or [rest for branch in branches if isinstance(rest := branch.get("additionalProperties"), dict)]
        required = any(key in branch.get("required", ()) for branch in branches)
        if value is not None or not said or required or any(may_be("null", each, root) for each in said):
            kept[key] = without_nulls(value, root, said)
    return kept


def _branches(schemas: list[Any], root: Schema) -> list[Schema]:
    """Return schemas with the alternatives and parts they are made of, references followed, each once."""
    found: dict[int, Schema] = {}
    waiting = [*reversed(schemas)]
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, dict):
            continue
        schema = resolve(schema, root)
        if id(schema) not in found:
            found[id(schema)] = schema
            waiting += [part for key in ("allOf", "oneOf", "anyOf") for part in reversed(schema.get(key, ()))]
    return list(found.values())


CONSTRAINTS = frozenset(
    {"$ref", "$dynamicRef", "$recursiveRef", "type", "enum", "const", "allOf", "anyOf", "oneOf", "not", "if", "then",
     "else", "properties", "patternProperties", "additionalProperties", "propertyNames", "required", "minProperties",
     "maxProperties", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "items",
     "prefixItems", "additionalItems", "unevaluatedItems", "contains", "minContains", "maxContains", "minItems",
     "maxItems", "uniqueItems", "pattern", "format", "minLength", "maxLength", "minimum", "maximum",
     "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)  # fmt: skip
"""Keywords that say something about which values fit; all others, of whatever vendor, are annotations."""


def constraints(schema: Schema) -> Schema:
    """Return a schema without its annotations.

    >>> constraints({"$ref": "#/$defs/Node", "title": "Below", "x-order": 2})
    {'$ref': '#/$defs/Node'}

    """
    return {key: value for key, value in schema.items() if key in CONSTRAINTS}


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


_YEAR = "(0[0-9]{2}[1-9]|0[0-9][1-9]0|0[1-9]00|[1-9][0-9]{3})"
_MONTH_DAY = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|[12][0-9]))"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_ZONE = r"(Z|[+-](0[0-9]|1[0-4]):(00|15|30|45))"
_TIME_PARTS = "([0-9]{1,4}H([0-9]{1,2}M)?([0-9]{1,2}S)?|[0-9]{1,4}M([0-9]{1,2}S)?|[0-9]{1,5}S)"
_LABEL = "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"

NAIVE_DATETIME = f"^{_YEAR}-{_MONTH_DAY}T{_CLOCK}$"
NAIVE_TIME = f"^{_CLOCK}$"
_EMAIL = rf"^[A-Za-z0-9][A-Za-z0-9_+-]{{0,30}}(\.[A-Za-z0-9_+-]{{1,30}}){{0,2}}@({_LABEL}\.){{1,3}}[a-z]{{2,12}}$"
_HOSTNAME = rf"^({_LABEL}\.){{0,4}}[a-z]([a-z0-9-]{{0,20}}[a-z0-9])?$"
_URI = r"^[a-z][a-z0-9+-]{1,15}://[A-Za-z0-9-]{1,40}(\.[A-Za-z0-9-]{1,40}){0,4}(:[1-9][0-9]{1,3})?(/[A-Za-z0-9._~-]{0,60}){0,8}$"

PATTERNS: Mapping[str, str] = {
    "date": f"^{_YEAR}-{_MONTH_DAY}$",
    "time": rf"^{_CLOCK}(\.[0-9]{{1,6}})?{_ZONE}$",
    "date-time": rf"^{_YEAR}-{_MONTH_DAY}T{_CLOCK}(\.[0-9]{{1,6}})?{_ZONE}$",
    "duration": f"^P([0-9]{{1,4}}D(T{_TIME_PARTS})?|T{_TIME_PARTS})$",
    **dict.fromkeys(("email", "idn-email"), _EMAIL),
    **dict.fromkeys(("hostname", "idn-hostname"), _HOSTNAME),
    **dict.fromkeys(("uri", "uri-reference", "iri", "iri-reference"), _URI),
    "ipv4": rf"^({_BYTE}\.){{3}}{_BYTE}$",
    "ipv6": "^([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$",
    "uuid": "^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    "json-pointer": "^(/[A-Za-z0-9_-]{1,40}){0,8}$",
}
"""Narrower than the formats in corners that no model needs (quoted e-mail names, `::` in
addresses), and never wider, but for 29 February."""
