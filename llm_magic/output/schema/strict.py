"""OpenAI's strict subset of JSON Schema: closed objects, all properties required or nullable.

The rules are those of https://platform.openai.com/docs/guides/structured-outputs#supported-schemas.
A schema that needs what the subset has not (maps with free keys, tuples, values of any kind) is no
strict schema, and the reason is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llm_magic.errors import UnsupportedError
from llm_magic.output.schema import Schema
from llm_magic.output.schema.keywords import subschemas
from llm_magic.output.schema.normalize import SchemaSupport, normalize, type_of

_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
SUPPORT = SchemaSupport(formats=_FORMATS, number_bounds=True, multiples=True, descriptions=True, closes=True)

MAX_DEPTH = 10
MAX_PROPERTIES = 5000
MAX_ENUM_VALUES = 1000
_ROOT = "the value"


class _NotStrictError(Exception):
    """The schema leaves the subset; the text says where."""


def _closed(schema: Schema, path: str, depth: int) -> Schema:
    """Write one schema; `path` is where it stands, for reasons."""
    where = path or _ROOT
    if depth > MAX_DEPTH:
        raise _NotStrictError(f"{where} is nested deeper than {MAX_DEPTH} levels")
    written: Schema = dict(schema)
    for key, limit in (("minLength", "at least"), ("maxLength", "at most")):
        if key in written:
            note = f"({limit} {written.pop(key)} characters)"
            written["description"] = f"{written.get('description', '')} {note}".strip()
    if "anyOf" in written:
        written["anyOf"] = [_closed(way, path, depth) for way in written["anyOf"]]
    if any(isinstance(value, (dict, list)) for value in written.get("enum", ())):
        raise _NotStrictError(f"{where} lists values that are no scalars")
    if "enum" in written and "type" not in written:
        by_type: dict[str, list[Any]] = {}
        for value in written.pop("enum"):
            by_type.setdefault(type_of(value), []).append(value)
        written["anyOf"] = [{"type": kind, "enum": values} for kind, values in by_type.items()]
    if written.get("type") == "object":
        if "properties" not in written or written.get("additionalProperties", True) is not False:
            raise _NotStrictError(f"{where} is an object with free keys")
        required, properties = written.get("required", ()), {}
        for key, value in written["properties"].items():
            inner = _closed(value, f"{path}.{key}" if path else key, depth + 1)
            properties[key] = inner if key in required else _nullable(inner)
        written |= {"properties": properties, "required": list(properties)}
    if written.get("type") == "array":
        if "prefixItems" in written:
            raise _NotStrictError(f"{where} is an array of fixed places")
        if "items" not in written:
            raise _NotStrictError(f"{where} is an array of anything")
        written["items"] = _closed(written["items"], f"{path}[]", depth + 1)
    return written


def _check_size(root: Schema) -> None:
    nodes = list(subschemas(root))
    if sum(len(node["properties"]) for node in nodes if node.get("type") == "object") > MAX_PROPERTIES:
        raise _NotStrictError(f"it has more than {MAX_PROPERTIES} properties")
    if sum(len(node["enum"]) for node in nodes if isinstance(node.get("enum"), list)) > MAX_ENUM_VALUES:
        raise _NotStrictError(f"it lists more than {MAX_ENUM_VALUES} values")


def _nullable(schema: Schema) -> Schema:
    """Return the schema with null as one more possibility: how an absent property is written."""
    if any(way.get("type") == "null" or None in way.get("enum", ()) for way in (schema, *schema.get("anyOf", ()))):
        return schema
    described = {key: schema[key] for key in ("description",) if key in schema}
    bare = {key: value for key, value in schema.items() if key not in described}
    ways = bare["anyOf"] if set(bare) == {"anyOf"} else [bare]
    return {**described, "anyOf": [*ways, {"type": "null"}]}


@dataclass(frozen=True, slots=True)
class Strict:
    """A schema in the strict subset, or the reason why it cannot be, and what it says otherwise than the original."""

    schema: Schema | None
    reason: str = ""
    unenforced: tuple[str, ...] = ()
    narrowed: tuple[str, ...] = ()


def strict(schema: Schema, *, of_type: bool = False) -> Strict:
    """Return the schema in the strict subset, if it can be; `of_type` as for `normalize`.

    Values that fit the result fit `schema`, but for what is reported, and nulls in optional
    properties.

    >>> strict({"type": "object", "properties": {"a": {"type": "integer"}}}).schema["required"]
    ['a']

    """
    try:
        normal = normalize(schema, SUPPORT, of_type=of_type)
    except UnsupportedError as error:
        return Strict(None, error.message[:1].lower() + error.message[1:].rstrip("."))
    plain = dict(normal.schema)
    definitions = plain.pop("$defs", {})
    lengths = {key for node in subschemas(normal.schema) for key in ("minLength", "maxLength") if key in node}
    try:
        root = _closed(plain, "", 0)
        if definitions:
            root["$defs"] = {name: _closed(value, name, 1) for name, value in definitions.items()}
        _check_size(root)
    except _NotStrictError as reason:
        return Strict(None, str(reason))
    if root.get("type") != "object":
        return Strict(None, f"{_ROOT} is not one kind of object")
    return Strict(root, "", tuple(sorted({*normal.unenforced, *lengths})), normal.narrowed)
