"""What the keywords of JSON Schema mean: references followed, two schemas as one.

References lead within their own document; other documents are never fetched.
"""

from __future__ import annotations

import json
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
        optional = said and not any(key in branch.get("required", ()) for branch in branches)
        said = said or [rest for branch in branches if isinstance(rest := branch.get("additionalProperties"), dict)]
        if value is not None or not optional or any(may_be("null", each, root) for each in said):
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


def merge(one: Schema, other: Schema, lost: set[str]) -> Schema | None:
    """Return a schema, in the words of 2020-12, for what fits both; None where nothing can.

    Of keywords that cannot be joined the first stays, and `lost` gets their names.

    >>> merge({"type": "integer", "minimum": 1}, {"minimum": 3, "maximum": 5}, set())
    {'type': 'integer', 'minimum': 3, 'maximum': 5}

    """
    joined = {key: _JOINS[key](value, other[key]) for key, value in one.items() if key in other and key in _JOINS}
    if [] in (joined.get("type"), joined.get("enum")):
        return None
    lost.update(key for key in _ONE_ONLY if key in one and key in other and one[key] != other[key])
    return {**one, **other, **one, **joined, **_members(one, other), **_items(one, other)}


def _both(one: Any, other: Any) -> Any:
    """Return a schema for a place where two hold."""
    if one is True or other is False:
        return other
    if other is True or one is False or one == other:
        return one
    return {"allOf": [one, other]}


_ONE_ONLY = (
    "pattern", "format", "not", "contains", "multipleOf", "dependentRequired", "dependentSchemas",
    "unevaluatedProperties", "unevaluatedItems",
)  # fmt: skip


def _members(one: Schema, other: Schema) -> Schema:
    """Return what both say of the members of an object: where one names a key, the other may still forbid it."""
    rests = [schema.get("additionalProperties", True) for schema in (one, other)]
    joined: Schema = {}
    properties: Schema = {}
    for key in dict.fromkeys([*one.get("properties", ()), *other.get("properties", ())]):
        properties[key] = _both(_member(one, key), _member(other, key))
    if properties:
        joined["properties"] = properties
    if rests != [True, True]:
        joined["additionalProperties"] = _both(*rests)
    patterns = [schema["patternProperties"] for schema in (one, other) if "patternProperties" in schema]
    if patterns:
        names = dict.fromkeys(name for each in patterns for name in each)
        joined["patternProperties"] = {
            name: {"allOf": [each[name] for each in patterns if name in each]} for name in names
        }
    return joined


def _member(schema: Schema, key: str) -> Any:
    """Return what a schema says of one member; True where only its patterns could."""
    if key in schema.get("properties", ()):
        return schema["properties"][key]
    return True if schema.get("patternProperties") else schema.get("additionalProperties", True)


def _items(one: Schema, other: Schema) -> Schema:
    """Return what both say of the items of an array."""
    length = max(len(schema.get("prefixItems", ())) for schema in (one, other))
    rest = _both(one.get("items", True), other.get("items", True))
    places = [_both(_item(one, at), _item(other, at)) for at in range(length)]
    return ({"prefixItems": places} if places else {}) | ({} if rest is True else {"items": rest})


def _item(schema: Schema, at: int) -> Any:
    prefix = schema.get("prefixItems", ())
    return prefix[at] if at < len(prefix) else schema.get("items", True)


def _types(one: Any, other: Any) -> Any:
    left, right = ([kind] if isinstance(kind, str) else list(kind) for kind in (one, other))
    kept = [kind for kind in left if kind in right or (kind == "integer" and "number" in right)]
    kept += [kind for kind in right if kind == "integer" and "number" in left and kind not in kept]
    return kept[0] if len(kept) == 1 else kept


def canonical(value: Any) -> str:
    """Return a text that is the same for values that JSON Schema holds for equal: 1 and 1.0, but not 1 and true."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(key)}:{canonical(value[key])}' for key in sorted(value))}}}"
    if isinstance(value, list):
        return f"[{','.join(map(canonical, value))}]"
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _common(one: list[Any], other: list[Any]) -> list[Any]:
    known = set(map(canonical, other))
    return [value for value in one if canonical(value) in known]


_JOINS: Mapping[str, Callable[[Any, Any], Any]] = {
    "type": _types,
    "enum": _common,
    "propertyNames": _both,
    "required": lambda one, other: [*one, *(value for value in other if value not in one)],
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
    "uniqueItems": lambda one, other: one or other,
}
