"""A JSON Schema with its `$ref`s followed: what they name, and what may be a value.

References lead within their own document; other documents are never fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import unquote

from llm_magic.output.schema import Schema

_MAX_DEPTH = 20
"""Alternatives that are nested deeper are a loop of references."""


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
    for key in ("$id", "id"):
        base = root.get(key)
        if isinstance(base, str) and base.rstrip("#") and reference.startswith(base.rstrip("#") + "#"):
            reference = reference[len(base.rstrip("#")) :]
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
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    for child in node if isinstance(node, list) else ():
        yield from subschemas(child)


def is_object(schema: Schema, root: Schema) -> bool:
    """Tell whether a schema says, without alternatives, that the value is an object."""
    schema = resolve(schema, root)
    if "type" in schema:
        return schema["type"] == "object" and not {"anyOf", "oneOf"} & schema.keys()
    return any(is_object(part, root) for part in schema.get("allOf", ()) if isinstance(part, dict))


def may_be(kind: Literal["object", "null"], schema: Any, root: Schema, depth: int = 0) -> bool:
    """Tell whether an object, or null, may be a value of the schema; in doubt yes.

    >>> may_be("null", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, {})
    True

    """
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return schema is not False
    schema = resolve(schema, root)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return any(value is None if kind == "null" else isinstance(value, dict) for value in values)
    kinds = schema.get("type", kind)
    if kind != kinds and kind not in kinds:
        return False
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return any(may_be(kind, part, root, depth + 1) for part in schema[key])
    return all(may_be(kind, part, root, depth + 1) for part in schema.get("allOf", ()))


def without_nulls(data: Any, schema: Schema) -> Any:
    """Return data without the nulls of optional properties that may not be null."""
    return _without_nulls(data, [schema], schema)


def _without_nulls(data: Any, schemas: list[Any], root: Schema) -> Any:
    branches = [branch for schema in schemas for branch in _branches(schema, root)]
    if isinstance(data, list):
        items = [branch["items"] for branch in branches if "items" in branch]
        return [_without_nulls(value, items, root) for value in data]
    if not isinstance(data, dict):
        return data
    kept = {}
    for key, value in data.items():
        said = [branch["properties"][key] for branch in branches if key in branch.get("properties", ())]
        said = said or [rest for branch in branches if isinstance(rest := branch.get("additionalProperties"), dict)]
        required = any(key in branch.get("required", ()) for branch in branches)
        if value is not None or not said or required or any(may_be("null", each, root) for each in said):
            kept[key] = _without_nulls(value, said, root)
    return kept


def _branches(schema: Any, root: Schema, depth: int = 0) -> Iterator[Schema]:
    """Yield a schema and the alternatives and parts it is made of, references followed."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return
    schema = resolve(schema, root)
    yield schema
    for key in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(key, ()):
            yield from _branches(part, root, depth + 1)
