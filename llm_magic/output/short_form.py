"""The short form of a schema: `name, age int, bio: one sentence` is an object of these fields, all required."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from llm_magic.errors import OutputTypeError

FIELD_NAME = re.compile(r"[A-Za-z_][\w-]*")

_TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "time": {"type": "string", "format": "time"},
    "uuid": {"type": "string", "format": "uuid"},
    "email": {"type": "string", "format": "email"},
    "url": {"type": "string", "format": "uri"},
    "list": {"type": "array", "items": {"type": "string"}},
    "dict": {"type": "object"},
}


def short_form(text: str) -> dict[str, Any]:
    """Return the JSON Schema that a short form stands for.

    Fields are separated by commas, or by line ends where there are any (descriptions may hold commas then). A field is
    `name` or `name type`, and `: description` behind it. A type is one of str, int, float, bool, date, datetime, time,
    uuid, email, url, list, dict, or `list[…]` of one; a `?` behind it allows null. Brackets around it all ask for a
    list of such objects. After the short form of schemas in the `llm` command-line tool.

    Raises
    ------
    OutputTypeError
        A name or type that is none, or a field given twice.

    >>> short_form("[city, people int]")["items"]["required"]
    ['city', 'people']

    """
    body = text.strip()
    if body.startswith("[") and body.endswith("]"):
        return {"type": "array", "items": short_form(body[1:-1])}
    separator = r"\n" if "\n" in body else r","
    properties: dict[str, Any] = {}
    for field in re.split(separator, body):
        if not field.strip():
            continue
        name, schema = _field(field.strip().rstrip(","))
        if name in properties:
            raise OutputTypeError(f"--schema names the field {name!r} twice.")
        properties[name] = schema
    if not properties:
        raise OutputTypeError(f"--schema {text!r} names no field.", "Example: --schema 'name, age int'.")
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _field(text: str) -> tuple[str, dict[str, Any]]:
    head, colon, description = text.partition(":")
    name, _, kind = head.strip().partition(" ")
    if not FIELD_NAME.fullmatch(name):
        raise OutputTypeError(
            f"--schema: {name!r} is no name of a field.", "The short form is: name, age int, bio: one sentence."
        )
    schema = _type(kind.strip() or "str")
    if colon and description.strip():
        schema["description"] = description.strip()
    return name, schema


def _type(kind: str) -> dict[str, Any]:
    if kind.endswith("?"):
        return {"anyOf": [_type(kind[:-1].strip()), {"type": "null"}]}
    if kind.startswith("list[") and kind.endswith("]"):
        return {"type": "array", "items": _type(kind[5:-1].strip())}
    if kind not in _TYPES:
        close = get_close_matches(kind, _TYPES, n=2)
        known = ", ".join(_TYPES)
        raise OutputTypeError(
            f"--schema: {kind!r} is no type of the short form.",
            f"Did you mean {' or '.join(close)}?" if close else f"There are {known}; a description follows a colon.",
        )
    return dict(_TYPES[kind])
