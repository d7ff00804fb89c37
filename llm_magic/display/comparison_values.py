"""Typed values of several models as one table: a row a model, a column for each field, an error in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_magic.control_characters import visible
from llm_magic.display import table
from llm_magic.model_names import shown_models
from llm_magic.records import record_of


@dataclass(frozen=True, slots=True)
class ValueTable:
    """The values as texts, in which nothing is cut and nothing acts on a screen."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """A row a model: its name, the fields of its value, and its error where any failed."""
    right: tuple[bool, ...]
    """Which columns hold numbers alone."""


def value_table(values: Mapping[str, Any]) -> ValueTable:
    """Return the values of models, an error where there is none, as a table.

    >>> found = value_table({"a": {"city": "Oslo", "year": 1048}, "b:": ValueError("no value")})
    >>> found.heads
    ('model', 'city', 'year', 'error')
    >>> found.rows
    (('a', 'Oslo', '1048', ''), ('b:', '', '', 'ValueError: no value'))

    """
    answers = {name: value for name, value in values.items() if not isinstance(value, BaseException)}
    records = {name: record_of(value) for name, value in answers.items()}
    of_records = bool(records) and all(fields is not None for fields in records.values())
    fields = list(dict.fromkeys(field for each in records.values() for field in each or ())) if of_records else []
    failed = len(answers) < len(values)
    titles = shown_models(values)
    heads, rows, numbers = ["model", *(fields or ["value"])], [], []
    for name, value in values.items():
        record = records.get(name) if fields else {"value": answers.get(name)}
        cells = [(record or {}).get(field) for field in heads[1:]]
        if name in answers:
            numbers.append([_is_number(cell) for cell in cells])
        error = [error_line(value) if name not in answers else ""] if failed else []
        rows.append(tuple(map(visible, [titles[name], *map(table.cell_text, cells), *error])))
    right = [all(column) for column in zip(*numbers, strict=True)] if numbers else [False] * (len(heads) - 1)
    return ValueTable(
        tuple(map(visible, [*heads, *(["error"] if failed else [])])),
        tuple(rows),
        (False, *right, *([False] if failed else [])),
    )


def error_line(error: BaseException) -> str:
    """Return an error in a line: its class, and what happened."""
    return f"{type(error).__name__}: {getattr(error, 'message', '') or error}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
