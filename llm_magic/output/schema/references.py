"""References and alternatives of a JSON Schema: where they lead, and how much work a check of a value is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_magic.errors import OutputTypeError
from llm_magic.output.schema import Schema
from llm_magic.output.schema.keywords import resolve, subschemas, target_of


def in_place(schema: Schema, root: Schema) -> Iterator[Any]:
    """Yield the schemas that a value is held against because it is held against this one, references followed."""
    if isinstance(reference := schema.get("$ref"), str):
        yield target_of(reference, root)
    for key in ("allOf", "anyOf", "oneOf"):
        if isinstance(parts := schema.get(key), list):
            yield from parts
    yield from (schema.get(key) for key in ("not", "if", "then", "else"))
    if isinstance(dependent := schema.get("dependentSchemas"), dict):
        yield from dependent.values()


MAX_CHECKS = 100_000
"""Schemas that one value may be held against: nobody's schema needs as many, but one of 30 references may."""
_LONGEST_CHAIN = 200
"""References that lead from one to the next."""


def check_references(root: Schema) -> None:
    """Refuse a schema whose references go round in a circle, or branch until no check of a value would end.

    A reference to what lies within the value (a tree's children) is no circle.

    Raises
    ------
    OutputTypeError
        The schema has such references.

    """
    counts: dict[int, int] = {}  # by the id of a schema: what a value is held against; 0 while it is counted

    def count(schema: Any, depth: int) -> int:
        if not isinstance(schema, dict):
            return 1
        if depth > _LONGEST_CHAIN:
            raise OutputTypeError(f"The schema has a chain of more than {_LONGEST_CHAIN} references.", _CHAIN_HINT)
        found = counts.get(id(schema))
        if found == 0:
            name = f": {schema['$ref']}" if isinstance(schema.get("$ref"), str) else ""
            raise OutputTypeError(f"The schema's references go round in a circle{name}.", _CIRCLE_HINT)
        if found is None:
            counts[id(schema)] = 0
            found = counts[id(schema)] = 1 + sum(count(part, depth + 1) for part in in_place(schema, root))
        if found > MAX_CHECKS:
            raise OutputTypeError(
                f"The schema's references branch into more than {MAX_CHECKS:,} checks of one value.", _BRANCH_HINT
            )
        return found

    for schema in subschemas(root):
        count(schema, 0)


_CIRCLE_HINT = "A $ref may lead back to where it stands only below `properties` or `items`."
_CHAIN_HINT = "Refer to the definition itself."
_BRANCH_HINT = "Name each alternative once."


MAX_WORK = 2_000_000
"""Steps that the check of an answer may take: seconds of work that no interrupt reaches."""


def branching(root: Schema) -> int:
    """Return how many alternatives of one value may hold further values, at most: 0 or 1 where none multiply."""
    most = 0
    for schema in subschemas(root):
        for key in ("anyOf", "oneOf"):
            if isinstance(parts := schema.get(key), list):
                most = max(most, sum(_holds_more(part, root) for part in parts))
    return most


def _holds_more(schema: Any, root: Schema) -> bool:
    if not isinstance(schema, dict):
        return False
    kinds = resolve(schema, root).get("type", "object")
    return bool({"object", "array"} & ({kinds} if isinstance(kinds, str) else {*kinds}))


def depth(data: Any) -> int:
    """Return how many objects and arrays stand within each other, at most."""
    level, found = [data], 0
    while level := [each for each in level if isinstance(each, (dict, list))]:
        found += 1
        level = [value for each in level for value in (each.values() if isinstance(each, dict) else each)]
    return found


def work(data: Any, root: Schema, *, tagged: bool) -> int:
    """Return how many steps a check of data takes that holds each value against each alternative.

    `tagged` it looks at the `discriminator`, and takes the alternative that this names.
    """
    known: dict[tuple[int, int], int] = {}

    def count(schema: Any, value: Any) -> int:
        if not isinstance(schema, dict):
            return 1
        key = (id(schema), id(value))
        if key not in known:
            parts = _named(schema, value, root) if tagged else None
            known[key] = 1 + sum(count(part, value) for part in (in_place(schema, root) if parts is None else parts))
            known[key] += sum(count(part, inner) for part, inner in _inside(schema, value))
        return known[key]

    return count(root, data)


def _named(schema: Schema, value: Any, root: Schema) -> list[Any] | None:
    """Return the one alternative that a discriminator names; None where there is no discriminator."""
    discriminator = schema.get("discriminator")
    if not (isinstance(discriminator, dict) and isinstance(mapping := discriminator.get("mapping"), dict)):
        return None
    tag = value.get(discriminator.get("propertyName")) if isinstance(value, dict) else None
    named = mapping.get(tag) if isinstance(tag, str) else None
    return [target_of(named, root)] if isinstance(named, str) else []


def _inside(schema: Schema, value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what stands in an object or array, each with the schema that is for it."""
    if isinstance(value, dict):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        yield from ((properties.get(key, rest), inner) for key, inner in value.items())
    elif isinstance(value, list):
        first, rest = schema.get("prefixItems", []), schema.get("items")
        yield from ((first[at] if at < len(first) else rest, inner) for at, inner in enumerate(value))
