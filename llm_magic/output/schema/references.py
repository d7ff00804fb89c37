"""What a `$ref` of a JSON Schema names, within its own document; other documents are never fetched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote


def resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow `$ref` within the document; a reference that leads elsewhere is returned as it stands."""
    for _ in range(50):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        target = target_of(reference, root)
        if not isinstance(target, Mapping):
            return schema
        schema = target
    return schema


def pointed(reference: str, root: Mapping[str, Any]) -> Any:
    """Return what a reference `#/…` of JSON Pointer (RFC 6901) names in `root`; None where it names nothing there."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    target: Any = root
    for step in unquote(reference[2:]).split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, Mapping) and key in target:
            target = target[key]
        elif isinstance(target, list) and key.isdigit() and int(key) < len(target):
            target = target[int(key)]
        else:
            return None
    return target


def target_of(reference: str, root: Mapping[str, Any]) -> Any:
    """Return what a reference names in `root`, by pointer, by anchor, or behind the document's own `$id`; else None."""
    for key in ("$id", "id"):
        base = root.get(key)
        if isinstance(base, str) and base.rstrip("#") and reference.startswith(base.rstrip("#") + "#"):
            reference = reference[len(base.rstrip("#")) :]
    if reference.startswith("#") and not reference.startswith("#/") and reference != "#":
        return _anchored(root, reference[1:])
    return pointed(reference, root)


def _anchored(node: Any, name: str) -> Any:
    """Return the subschema that carries an anchor."""
    if isinstance(node, Mapping):
        if node.get("$anchor") == name or node.get("$id") == f"#{name}" or node.get("id") == f"#{name}":
            return node
        children: list[Any] = list(node.values())
    else:
        children = node if isinstance(node, list) else []
    return next((found for child in children if (found := _anchored(child, name)) is not None), None)


Schema = Mapping[str, Any]


def pruned(data: Any, schema: Schema) -> Any:
    """Return data without the nulls of optional properties that may not be null; `data` itself where there are none."""
    return _pruned(data, [schema], schema)


def _pruned(data: Any, schemas: list[Schema], root: Schema) -> Any:
    if isinstance(data, dict):
        branches = [branch for schema in schemas for branch in branches_of(schema, root)]
        result = {}
        for key, value in data.items():
            said = [branch["properties"][key] for branch in branches if key in branch.get("properties", {})]
            said = said or [
                branch["additionalProperties"]
                for branch in branches
                if isinstance(branch.get("additionalProperties"), Mapping)
            ]
            required = any(key in branch.get("required", ()) for branch in branches)
            if value is None and said and not required and not any(_allows_null(each, root) for each in said):
                continue
            result[key] = _pruned(value, [each for each in said if isinstance(each, Mapping)], root)
        unchanged = len(result) == len(data) and all(result[key] is data[key] for key in data)
        return data if unchanged else result
    if isinstance(data, list):
        items = [
            branch["items"]
            for schema in schemas
            for branch in branches_of(schema, root)
            if isinstance(branch.get("items"), Mapping)
        ]
        values = [_pruned(value, items, root) for value in data]
        return data if all(new is old for new, old in zip(values, data, strict=True)) else values
    return data


def branches_of(schema: Any, root: Schema, depth: int = 0) -> Iterator[Schema]:
    """Yield a schema and the alternatives and parts it is made of, references followed."""
    if not isinstance(schema, Mapping) or depth > 20:  # noqa: PLR2004 - deeper is a loop of references
        return
    schema = resolve(schema, root)
    yield schema
    for key in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(key, ()):
            yield from branches_of(part, root, depth + 1)


def _allows_null(schema: Any, root: Schema) -> bool:
    if not isinstance(schema, Mapping):
        return bool(schema)
    said = False
    for branch in branches_of(schema, root):
        if "enum" in branch:
            said = True
            if None in branch["enum"]:
                return True
        elif "const" in branch:
            said = True
            if branch["const"] is None:
                return True
        elif "type" in branch:
            said = True
            if branch["type"] == "null" or "null" in branch["type"]:
                return True
        elif {"properties", "items", "pattern", "format"} & branch.keys():
            said = True
    return not said
