"""What a `$ref` of a JSON Schema names, within its own document; other documents are never fetched."""

from __future__ import annotations

from collections.abc import Mapping
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
