"""Instructions: what a prompt says of an output type, for models that are not shown its schema."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from llm_magic.output.json_text import WRAP
from llm_magic.output.schema import Schema
from llm_magic.output.schema.keywords import subschemas

if TYPE_CHECKING:
    from llm_magic.output.spec import OutputSpec

_MANY_FIELDS = 20
"""A record of more fields is not sketched: its names would outweigh the question."""


def of_schema(what: str, schema: Schema) -> str:
    """Return the instruction that shows the whole schema."""
    compact = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return f"Answer with {what} that fits this JSON Schema, and nothing else:\n{compact}"


def of_constraint(spec: OutputSpec) -> str:
    """Return what a constraint does not tell the model: the choices, the form of the answer, descriptions of fields.

    A decoder masks what the model would rather say. Asked for a bare number, a small one goes on with digits for ever;
    a form that it was told of leads it to the number itself. `benchmarks/right_answers.py` measures it.
    """
    if spec.kind == "choices":
        return f"Answer with exactly one of: {', '.join(spec.choices)}"
    return "\n".join(line for line in (_form(spec.schema), *_descriptions(spec.schema)) if line)


def is_number(schema: Schema) -> bool:
    """Whether a value is a number, or a number or null."""
    return "number" in _number_or_null(schema) and "enum" not in schema


def _number_or_null(schema: Schema) -> str:
    """Return the words of a schema of numbers, empty for any other."""
    kinds = {branch.get("type") for branch in schema.get("anyOf", [schema]) if isinstance(branch, dict)}
    if not kinds & {"integer", "number"} or kinds - {"integer", "number", "null"}:
        return ""
    return ("a number" if "number" in kinds else "a whole number") + (" or null" if "null" in kinds else "")


def _form(schema: Schema) -> str:
    """Return a sketch of the answer: of a number, in its wrapping, and of a record of few fields."""
    if is_number(schema):
        return f'Answer in the form {{"{WRAP}": ...}} with {_number_or_null(schema)}.'
    names = schema.get("properties") if schema.get("type") == "object" else None
    if not isinstance(names, dict) or not 0 < len(names) <= _MANY_FIELDS:
        return ""
    return f"Answer in the form {{{', '.join(f'{json.dumps(name, ensure_ascii=False)}: ...' for name in names)}}}."


def _descriptions(schema: Schema) -> Iterable[str]:
    lines = dict.fromkeys(
        f"- {name}: {' '.join(said.split())}"
        for node in subschemas(schema)
        if isinstance(properties := node.get("properties"), dict)
        for name, field in properties.items()
        if isinstance(field, dict) and isinstance(said := field.get("description"), str)
    )
    return ("The fields of the answer:", *lines) if lines else ()
