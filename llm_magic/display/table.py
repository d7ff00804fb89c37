"""A value as a table, as fields or as text, in HTML (everything is escaped) and in plain text."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from llm_magic.display.markup import CODE_FONT, Bundle, escaped, shortened
from llm_magic.records import Records, is_frame, record_of, records_of

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
    text = cell_text(value)
    return {"text/plain": text, "text/html": f'<pre style="{CODE_FONT}">{escaped(text)}</pre>'}


def is_structured(value: Any) -> bool:
    """Tell whether a value is more than one line of text: a record, or a sequence of something."""
    return record_of(value) is not None or is_frame(value) or (isinstance(value, _SEQUENCES) and len(value) > 0)


def _records(value: Any) -> Records | None:
    """Return the rows that are shown of a sequence of records or of scalars; None where the value is no sequence."""
    if is_frame(value):
        return records_of(value.head(MAX_ROWS))
    if not isinstance(value, _SEQUENCES) or hasattr(value, "_asdict") or not value:
        return None
    items = list(islice(value, MAX_ROWS))
    return records_of(items) or Records(("value",), tuple((item,) for item in items))


def _table(records: Records, count: int, widest: int = _WIDEST) -> Bundle:
    html: list[list[str]] = []  # by column
    plain: list[list[str]] = []
    for name, column in zip(records.columns, zip(*records.rows, strict=True), strict=True):
        right = all(map(is_number, column))
        align = _RIGHT if right else _LEFT
        texts = [cell_text(item) for item in column]
        cells = [f"<td {align}>{escaped(text)}</td>" for text in texts]
        html.append([f'<th scope="col" {align}>{escaped(name)}</th>', *cells])
        lines = [shortened(text, widest) for text in (name, *texts)]
        width = max(map(len, lines))
        plain.append([line.rjust(width) if right else line.ljust(width) for line in lines])
    rows = [f"<tr>{''.join(row)}</tr>" for row in zip(*html, strict=True)]
    page = f"<table><thead>{''.join(rows[:1])}</thead><tbody>{''.join(rows[1:])}</tbody></table>"
    text = "\n".join("  ".join(row).rstrip() for row in zip(*plain, strict=True))
    if count > len(records.rows):
        more = f"… {count:,} rows in all"
        page, text = f"{page}<p>{more}</p>", f"{text}\n{more}"
    return {"text/plain": text, "text/html": page}


def _fields(fields: Mapping[str, Any]) -> Bundle:
    rows = "".join(
        f'<tr><th scope="row" {_LEFT}>{escaped(name)}</th><td {_LEFT}>{nested(item)}</td></tr>'
        for name, item in fields.items()
    )
    width = max((len(name) for name in fields), default=0)
    hanging = "\n" + " " * (width + 2)
    plain = "\n".join(f"{name.ljust(width)}  {cell_text(item)}".replace("\n", hanging) for name, item in fields.items())
    return {"text/plain": plain, "text/html": f"<table><tbody>{rows}</tbody></table>"}


def nested(value: Any) -> str:
    """Return the HTML of a value inside of another: records in it are tables of their own."""
    records = _records(value)
    if records is not None and "value" not in records.columns:
        return _table(records, len(value))["text/html"]
    inner = record_of(value)
    return _fields(inner)["text/html"] if inner else escaped(cell_text(value)).replace("\n", "<br>")


def cell_text(value: Any) -> str:
    """Return a value in one cell of a table."""
    if value is None:
        return ""
    if isinstance(value, enum.Enum):
        return cell_text(value.value)
    is_record = record_of(value) is not None
    if isinstance(value, _SEQUENCES) and not is_record:
        if not any(isinstance(item, _SEQUENCES) or record_of(item) is not None for item in value):
            return ", ".join(map(cell_text, value))
    elif not is_record:
        return str(value)
    return json.dumps(_plain(value), ensure_ascii=False)


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


def is_number(value: Any) -> bool:
    """Tell whether a value is a number: it stands at the right of its cell."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
