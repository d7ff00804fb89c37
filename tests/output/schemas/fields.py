"""Kinds of fields, as JSON Schema says them."""

from __future__ import annotations

from typing import Any


def text(low: int = 1, high: int = 24, **more: Any) -> dict[str, Any]:
    return {"type": "string", "minLength": low, "maxLength": high, **more}


def matching(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}


def one_of(*values: Any) -> dict[str, Any]:
    return {"enum": list(values)}


def formatted(name: str) -> dict[str, Any]:
    return {"type": "string", "format": name}


def whole(low: int | None = None, high: int | None = None) -> dict[str, Any]:
    bounds = {"minimum": low, "maximum": high}
    return {"type": "integer", **{key: value for key, value in bounds.items() if value is not None}}


def some(items: dict[str, Any], high: int = 3, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "maxItems": high, **more}


SEMVER = matching(r"^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})(-[0-9A-Za-z-]{1,8})?$")
FLAG = {"type": "boolean"}
SHA = matching(r"^[0-9a-f]{7,12}$")
SLUG = matching(r"^[a-z][a-z0-9-]{0,14}[a-z0-9]$")
