"""Drafts of JSON Schema: which one a schema is written in, and each of its objects as 2020-12 would say it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

Draft = Literal["4", "6", "7", "2019-09", "2020-12"]

LATEST: Draft = "2020-12"
"""The draft of a schema that names none."""

URLS: Mapping[Draft, str] = {
    "4": "http://json-schema.org/draft-04/schema#",
    "6": "http://json-schema.org/draft-06/schema#",
    "7": "http://json-schema.org/draft-07/schema#",
    "2019-09": "https://json-schema.org/draft/2019-09/schema",
    "2020-12": "https://json-schema.org/draft/2020-12/schema",
}
_NAMES: Mapping[str, Draft] = {
    "draft-04/": "4", "draft-06/": "6", "draft-07/": "7", "draft/2019-09/": "2019-09", "draft/2020-12/": "2020-12",
    "": LATEST,
}  # fmt: skip
_URL = re.compile(r"https?://json-schema\.org/([\w./-]*?)(?:hyper-)?schema(?:#/?)?")

_SINCE_6 = ("const", "contains", "propertyNames")
_SINCE_7 = ("if", "then", "else")
_SINCE_2019 = (
    "dependentRequired", "dependentSchemas", "minContains", "maxContains", "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_UNKNOWN: Mapping[Draft, frozenset[str]] = {
    "4": frozenset((*_SINCE_6, *_SINCE_7, *_SINCE_2019, "prefixItems", "$recursiveRef", "$dynamicRef")),
    "6": frozenset((*_SINCE_7, *_SINCE_2019, "prefixItems", "$recursiveRef", "$dynamicRef")),
    "7": frozenset((*_SINCE_2019, "prefixItems", "$recursiveRef", "$dynamicRef")),
    "2019-09": frozenset(("prefixItems", "$dynamicRef")),
    "2020-12": frozenset(("additionalItems", "$recursiveRef")),
}
"""Keywords that say nothing in a draft."""
_REF_ALONE: frozenset[Draft] = frozenset(("4", "6", "7"))
"""Drafts in which nothing beside a `$ref` counts."""


def draft_of(schema: Mapping[str, Any]) -> Draft | None:
    """Return the draft that `$schema` names, the latest if it names none; None for one that is not known.

    >>> draft_of({"$schema": "https://json-schema.org/draft-07/schema"}), draft_of({})
    ('7', '2020-12')

    """
    said = schema.get("$schema")
    if not isinstance(said, str):
        return LATEST
    match = _URL.fullmatch(said.strip())
    return _NAMES.get(match[1]) if match else None


def modern(schema: dict[str, Any], draft: Draft) -> dict[str, Any]:
    """Return one schema in the words of 2020-12; the schemas within it stay as they are.

    >>> modern({"items": [{"type": "null"}], "additionalItems": False}, "7")
    {'prefixItems': [{'type': 'null'}], 'items': False}

    """
    if draft in _REF_ALONE and isinstance(schema.get("$ref"), str):
        return {"$ref": schema["$ref"]}
    written = {key: value for key, value in schema.items() if key not in _UNKNOWN[draft]}
    if isinstance(written.get("items"), list):
        written["prefixItems"] = written.pop("items")
        if "additionalItems" in written:
            written["items"] = written["additionalItems"]
    written.pop("additionalItems", None)
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(flag := written.get(exclusive), bool):  # draft 4: a flag beside the bound
            del written[exclusive]
            if flag and bound in written:
                written[exclusive] = written.pop(bound)
    if isinstance(dependencies := written.pop("dependencies", None), dict):
        lists = {key: value for key, value in dependencies.items() if isinstance(value, list)}
        schemas = {key: value for key, value in dependencies.items() if key not in lists}
        written |= {"dependentRequired": lists} if lists else {}
        written |= {"dependentSchemas": schemas} if schemas else {}
    return written


_DATA = frozenset(("const", "enum", "default", "example", "examples"))
"""Keywords that hold data, not schemas."""


def rewritten(node: Any, pattern: Callable[[str], str], key: str = "") -> Any:
    """Return a schema whose patterns are what `pattern` makes of them."""
    if isinstance(node, list):
        return [rewritten(value, pattern) for value in node]
    if not isinstance(node, dict) or key in _DATA:
        return pattern(node) if key == "pattern" and isinstance(node, str) else node
    if key == "patternProperties":
        return {pattern(name): rewritten(value, pattern) for name, value in node.items()}
    names = key in {"properties", "$defs", "definitions", "dependentSchemas"}
    return {name: rewritten(value, pattern, "" if names else name) for name, value in node.items()}


_TOKEN = re.compile(r"\\.|\{\d+(?:,\d*)?\}|\[\^?|[\]{}]|.", re.DOTALL)


def with_escaped_brackets(pattern: str) -> str:
    r"""Return a pattern with a backslash before each bracket that stands for itself.

    ECMA-262 (annex B) and Python take these as they are; stricter readers do not.

    >>> with_escaped_brackets(r"^{id}[[a-z]{2}]$")
    '^\\{id\\}[\\[a-z]{2}\\]$'

    """
    parts: list[str] = []
    in_class = False
    for match in _TOKEN.finditer(pattern):
        token = match[0]
        if in_class:
            if token.startswith("["):
                token = f"\\{token}"
            in_class = token != "]"  # noqa: S105 - a bracket
        elif token.startswith("["):
            in_class = True
        elif token in ("]", "{", "}"):
            token = f"\\{token}"
        parts.append(token)
    return "".join(parts)
