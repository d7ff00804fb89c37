"""Nulls that mean absent: OpenAI's strict schemas make models write them for properties that are optional."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_magic.output.reference import resolve

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
