"""OpenAI's strict subset of JSON Schema: every object closed, every property required, an optional one nullable.

The rules are those of https://platform.openai.com/docs/guides/structured-outputs#supported-schemas. A schema that needs
what the subset has not (maps with free keys, tuples, values of any kind) is no strict schema, and the reason is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magic.output.schema.normalize import Target, normal

_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
TARGET = Target(formats=_FORMATS, number_bounds=True, descriptions=True)

MAX_DEPTH = 10
MAX_PROPERTIES = 5000
MAX_ENUM_VALUES = 1000


_ROOT = "the value"


class _NotStrictError(Exception):
    """The schema leaves the subset; the text says where."""


class _StrictWriter:
    def __init__(self) -> None:
        self.properties = 0
        self.values = 0

    def node(self, schema: Mapping[str, Any], path: str, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise _NotStrictError(f"{path or _ROOT} is nested deeper than {MAX_DEPTH} levels")
        written: dict[str, Any] = dict(schema)
        for key in ("minLength", "maxLength"):
            if key in written:
                limit = {"minLength": "at least", "maxLength": "at most"}[key]
                note = f"({limit} {written.pop(key)} characters)"
                written["description"] = f"{written.get('description', '')} {note}".strip()
        if "anyOf" in written:
            written["anyOf"] = [self.node(way, path, depth) for way in written["anyOf"]]
        if "enum" in written:
            self._count(written["enum"], path)
        kind = written.get("type")
        if kind == "object":
            return self._object(written, path, depth)
        if kind == "array":
            if "prefixItems" in written:
                raise _NotStrictError(f"{path or _ROOT} is an array of fixed places")
            if "items" not in written:
                raise _NotStrictError(f"{path or _ROOT} is an array of anything")
            written["items"] = self.node(written["items"], f"{path}[]", depth + 1)
        return written

    def _count(self, values: list[Any], path: str) -> None:
        self.values += len(values)
        if self.values > MAX_ENUM_VALUES:
            raise _NotStrictError(f"it lists more than {MAX_ENUM_VALUES} values")
        if any(isinstance(value, (dict, list)) for value in values):
            raise _NotStrictError(f"{path or _ROOT} lists values that are no scalars")

    def _object(self, written: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        if "properties" not in written or written.get("additionalProperties", True) is not False:
            raise _NotStrictError(f"{path or _ROOT} is an object with free keys")
        required = written.get("required", [])
        self.properties += len(written["properties"])
        if self.properties > MAX_PROPERTIES:
            raise _NotStrictError(f"it has more than {MAX_PROPERTIES} properties")
        properties = {}
        for key, value in written["properties"].items():
            inner = self.node(value, f"{path}.{key}" if path else key, depth + 1)
            properties[key] = inner if key in required else _nullable(inner)
        return {**written, "properties": properties, "required": list(properties)}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with null as one more possibility: how an absent property is written."""
    if schema.get("type") == "null" or any(way.get("type") == "null" for way in schema.get("anyOf", ())):
        return schema
    if None in schema.get("enum", ()):
        return schema
    described = {key: schema[key] for key in ("description",) if key in schema}
    bare = {key: value for key, value in schema.items() if key not in described}
    ways = bare["anyOf"] if set(bare) == {"anyOf"} else [bare]
    return {**described, "anyOf": [*ways, {"type": "null"}]}


def strict(schema: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Return the schema in the strict subset, or None and the reason why it cannot be.

    Values that fit the result fit `schema`, but for what only the check here knows, and nulls in optional properties.

    >>> strict({"type": "object", "properties": {"a": {"type": "integer"}}})[0]["required"]
    ['a']

    """
    plain = normal(schema, TARGET).schema
    writer = _StrictWriter()
    definitions = plain.pop("$defs", {})
    try:
        root = writer.node(plain, "", 0)
        if definitions:
            root["$defs"] = {name: writer.node(value, name, 1) for name, value in definitions.items()}
    except _NotStrictError as reason:
        return None, str(reason)
    if root.get("type") != "object":
        return None, f"{_ROOT} is not one kind of object"
    return root, ""
