"""A value as a table, as fields or as text, in HTML (everything is escaped) and in plain text."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any

from llm_magic.display.markup import Bundle, shortened
from llm_magic.records import record_of

MAX_ROWS = 200
"""Rows of a table that are shown; how many there are is said."""
_WIDEST = 60
_SEQUENCES = (list, tuple, set, frozenset)
_LEFT, _RIGHT = 'style="text-align: left"', 'style="text-align: right"'


def shown(value: Any, *, widest: int = _WIDEST) -> Bundle:
    """Return a value by media type: `text/html` and `text/plain`, whose cells have `widest` characters at most.

    A sequence of records is a table, a record or mapping is its fields, anything else is text.

    >>> print(shown([{"name": "Ada", "born": 1815}])["text/plain"])
    name  born
    Ada   1815

    """
    records = _records(value)
    if records is not None:
        return _table(records, len(value), widest)
    fields = record_of(value)
    if fields is not None:
        return _fields(fields)
    return {"text/plain": _text(value), "text/html": f"<pre>{escape(_text(value))}</pre>"}


def is_structured(value: Any) -> bool:
    """Tell whether a value is more than one line of text: a record, or a sequence of something."""
    return record_of(value) is not None or (isinstance(value, _SEQUENCES) and len(value) > 0)


def _records(value: Any) -> list[Mapping[str, Any]] | None:
    """Return a sequence of records or of scalars as the rows that are shown; None where the value is no sequence."""
    if not isinstance(value, _SEQUENCES) or hasattr(value, "_asdict") or not value:
        return None
    items = list(islice(value, MAX_ROWS))
    rows: list[Mapping[str, Any]] = [row for row in map(record_of, items) if row is not None]
    return rows if len(rows) == len(items) else [{"value": item} for item in items]


def _table(rows: Sequence[Mapping[str, Any]], count: int, widest: int = _WIDEST) -> Bundle:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row[name]) if name in row else "" for name in columns] for row in rows]
    numeric = [all(_is_number(row.get(name)) for row in rows) for name in columns]
    more = f"… {count:,} rows in all" if count > len(rows) else ""
    aligns = [_RIGHT if right else _LEFT for right in numeric]
    head = "".join(f'<th scope="col" {align}>{escape(name)}</th>' for name, align in zip(columns, aligns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td {align}>{escape(text)}</td>" for text, align in zip(row, aligns, strict=True)) + "</tr>"
        for row in cells
    )
    html = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" + (f"<p>{more}</p>" if more else "")
    lines = [[shortened(text, widest) for text in row] for row in [columns, *cells]]
    widths = [max(len(row[number]) for row in lines) for number in range(len(columns))]
    plain = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in lines
    ]
    return {"text/plain": "\n".join([*plain, *([more] if more else [])]), "text/html": html}


def _fields(fields: Mapping[str, Any]) -> Bundle:
    rows = "".join(
        f'<tr><th scope="row" {_LEFT}>{escape(name)}</th><td {_LEFT}>{_nested(item)}</td></tr>'
        for name, item in fields.items()
    )
    width = max((len(name) for name in fields), default=0)
    hanging = "\n" + " " * (width + 2)
    plain = "\n".join(f"{name.ljust(width)}  {_text(item)}".replace("\n", hanging) for name, item in fields.items())
    return {"text/plain": plain, "text/html": f"<table><tbody>{rows}</tbody></table>"}


def _nested(value: Any) -> str:
    """Return the HTML of a value inside of another: records in it are tables of their own."""
    records = _records(value)
    if records is not None and "value" not in records[0]:
        return _table(records, len(value))["text/html"]
    inner = record_of(value)
    return _fields(inner)["text/html"] if inner else escape(_text(value)).replace("\n", "<br>")


def _text(value: Any) -> str:
    """Return a value in one cell of a table."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, enum.Enum):
        return _text(value.value)
    if isinstance(value, _SEQUENCES) and not hasattr(value, "_asdict"):
        simple = not any(isinstance(item, _SEQUENCES) or record_of(item) is not None for item in value)
        return ", ".join(_text(item) for item in value) if simple else json.dumps(_plain(value), ensure_ascii=False)
    fields = record_of(value)
    return str(value) if fields is None else json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    fields = record_of(value)
    if fields is not None:
        return {name: _plain(item) for name, item in fields.items()}
    if isinstance(value, _SEQUENCES):
        return [_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
