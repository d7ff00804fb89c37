"""Many rows as an output of a notebook: a bar with its figures while they are asked, a table in the end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from unicodedata import east_asian_width

from llm_magic.display import batches, markup
from llm_magic.display.footer import counted
from llm_magic.display.markup import Bundle, escaped, one_line
from llm_magic.display.rows import (
    LAST_ROWS,
    LONGEST_PRINTED,
    MOST_ROWS,
    RowLine,
    RowsProgress,
    RowsTable,
    TableRow,
    ended_rows,
    figures,
    line,
    of_models,
    stopped,
    text_of,
)
from llm_magic.display.table import is_number
from llm_magic.errors import error_line
from llm_magic.markdown import fences
from llm_magic.markdown.links import escaped as escaped_markdown
from llm_magic.markdown.sanitize import sanitize
from llm_magic.records import fields_of, record_of

LARGEST = 20_000
"""Bytes of an output at most, in all its media types."""
UNFINISHED = "unfinished: rows are still being asked"
"""What stands below the bar until all rows have ended: a notebook may be saved, or its page reloaded, in between."""
MOST_NOTES = 10

_ROOM = ((160, 8), (60, 8), (30, 6), (8, 3))
"""Characters of a cell and columns of a table, the next where an output is too large."""
_NARROWER = (60, 40, 30, 20, 12, 8)  # characters of a cell in a terminal
_LONGEST_NOTE = 300
_LONGEST_HEAD = 40
_NARROW = 60  # characters of a cell where there are several columns of values
_EXACT = 2**53  # a number that every reader of JSON reads as it is; a larger one, or none (NaN), is text
_AROUND = 3  # columns that a table of single values has: label, value, error
_ERROR = "color: var(--jp-error-color1, #b71c1c)"
_LEFT, _RIGHT = "text-align: left", "text-align: right"


class Cell(NamedTuple):
    """One cell of a table."""

    text: str
    right: bool = False
    failed: bool = False


def live(title: str, progress: RowsProgress, notes: Sequence[str] = (), mark: str | None = None) -> Bundle:
    """Return how far a run is: its bar, figures, what it waits for, and the rows that ended last.

    `mark` says how it was stopped, empty where an error says that; None: it goes on.
    """
    progress = progress if mark is None else stopped(progress)
    for width, _ in _ROOM:
        bundle = _live(one_line(title, width), progress, notes, mark, width)
        if size(bundle) <= LARGEST:
            break
    return bundle


def final(shown: RowsTable, below: str, notes: Sequence[str] = (), show: str = "markdown") -> Bundle:
    """Return the output that stays: the table, what is to be known, and a quiet line `below`.

    `show` is `markdown` or `code`; `text`, which has no HTML; or `json`, a line of JSON for each row.
    """
    shown = replace(shown, rows=shown.rows[:MOST_ROWS])
    last = [markup.quiet(below)] if below else []
    for width, columns in _ROOM:
        table = _json(shown, width, columns) if show == "json" else _table(shown, width, columns)
        bundle = _joined([table, *map(markup.mark, _bounded(notes, width)), *last])
        if size(bundle) <= LARGEST:
            break
    return of_show(bundle, show)


def noted(text: str) -> Bundle:
    """Return an output that is one line, for what is to be known once all else is shown."""
    return markup.mark(one_line(text, LONGEST_PRINTED))


def as_text(shown: RowsTable, show: str = "markdown", wide: int | None = None) -> str:
    """Return the table as plain text, its cells cut so that no line is wider than `wide` columns of a terminal."""
    shown = replace(shown, rows=shown.rows[:MOST_ROWS])
    for width in (_ROOM[0][0], *_NARROWER):
        table = _json(shown, width, _ROOM[0][1]) if show == "json" else _table(shown, width, _ROOM[0][1])
        if wide is None or show == "json" or max(map(columns_of, table["text/plain"].splitlines())) <= wide:
            break
    return table["text/plain"]


def columns_of(text: str) -> int:
    """Return how many columns a text takes in a terminal: two for each character of East Asian scripts.

    >>> columns_of("Oslo"), columns_of("東京")
    (4, 4)

    """
    return len(text) + sum(east_asian_width(each) in "WF" for each in text) if not text.isascii() else len(text)


def of_show(bundle: Bundle, show: str) -> Bundle:
    """Return what of an output is shown where an answer is to be shown in this way."""
    if show == "text":
        return {"text/plain": bundle["text/plain"]}
    if show == "json":
        return {kind: text for kind, text in bundle.items() if kind != "text/html"}
    return bundle


def size(bundle: Bundle) -> int:
    """Return the bytes of an output."""
    return sum(len(text.encode("utf-8", "replace")) for text in bundle.values())


def _live(title: str, progress: RowsProgress, notes: Sequence[str], mark: str | None, width: int) -> Bundle:
    rows, pace = figures(progress)
    parts = [markup.quiet(title)] if title else []
    parts += [_bar(progress, title), markup.quiet(rows)]
    parts += [markup.quiet(pace)] if pace else []
    parts += map(markup.mark, _bounded(notes, width))
    parts += map(markup.mark, batches.problems(progress.batches))
    if progress.waiting:
        parts.append(markup.mark(one_line(progress.waiting, _LONGEST_NOTE)))
    if progress.models:
        parts.append(
            grid(["model", "rows"], [[Cell(name), Cell(said)] for name, said in of_models(progress).items()], width)
        )
    if progress.last:
        parts.append(_last(progress.last[-LAST_ROWS:], width))
    if mark is None:
        parts.append(markup.quiet(batches.unfinished(progress.batches) if progress.batches else UNFINISHED))
    elif said := " ".join(filter(None, [one_line(mark, _LONGEST_NOTE), batches.left_behind(progress.batches)])):
        parts.append(markup.mark(said))
    return _joined(parts)


def _bar(progress: RowsProgress, title: str) -> Bundle:
    """Return the bar: one that moves from end to end where nobody knows how many rows there are."""
    said = line(progress)[:_LONGEST_NOTE]
    return {"text/html": markup.progress_bar(ended_rows(progress), progress.total, f"Rows of {title}", said)}


def _last(rows: Iterable[RowLine], width: int) -> Bundle:
    """Return the rows that ended last, as a table of labels and values."""
    cells = [
        [Cell(row.label), Cell(f"failed: {row.value}" if row.failed else row.value, failed=row.failed)] for row in rows
    ]
    return grid(["row", "value"], cells, width)


def _table(shown: RowsTable, width: int, most: int) -> Bundle:
    """Return the rows as a table: a column for each field of records, one for errors where a row failed."""
    if not shown.rows:
        return {"text/plain": "No rows.", "text/html": markup.quiet("No rows.")["text/html"]}
    names: list[Any] = fields_of(row.value for row in shown.rows if row.value is not None)
    columns = names[:most] if names else [shown.value]
    values = [_cells(row, columns if names else None) for row in shown.rows]
    heads = [shown.label or "row", *columns]
    if more := names[most:]:
        heads.append(f"… {counted(len(more), 'more column')}")
        values = [
            [*cells, Cell("…" if row.value is not None else "")] for row, cells in zip(shown.rows, values, strict=True)
        ]
    if any(row.error for row in shown.rows):
        heads.append("error")
        values = [[*cells, Cell(row.error, failed=True)] for row, cells in zip(shown.rows, values, strict=True)]
    rows = [[Cell(str(row.label)), *cells] for row, cells in zip(shown.rows, values, strict=True)]
    shown_rows = grid(heads, rows, width if len(heads) <= _AROUND else min(width, _NARROW))
    more_rows = shown.total - len(shown.rows)
    caption = f"{len(shown.rows):,} of {shown.total:,} rows" if more_rows > 0 else ""
    return _joined([shown_rows, markup.quiet(caption)]) if caption else shown_rows


def _cells(row: TableRow, columns: Sequence[str] | None) -> list[Cell]:
    """Return the values of a row."""
    values: list[Any] = [row.value]
    if columns is not None:
        fields = record_of(row.value) or {}
        values = [fields.get(name) for name in columns]
    return list(map(_cell, values))


def _cell(value: Any) -> Cell:
    """Return a value as a cell; an error, of one among several models, as what failed."""
    if isinstance(value, Exception):
        return Cell(error_line(value), failed=True)
    return Cell(text_of(value), is_number(value))


def grid(heads: Sequence[str], rows: Sequence[Sequence[Cell]], width: int) -> Bundle:
    """Return a table by media type; the first cell of a row is its label."""
    heads = [one_line(str(head), min(width, _LONGEST_HEAD)) for head in heads]
    rows = [[cell._replace(text=one_line(cell.text, width)) for cell in row] for row in rows]
    right = [
        all(row[at].right or row[at].failed or not row[at].text for row in rows) and any(row[at].right for row in rows)
        for at in range(len(heads))
    ]
    html = "".join(
        f'<th scope="col" style="{_RIGHT if right[at] else _LEFT}">{escaped(head)}</th>'
        for at, head in enumerate(heads)
    )
    body = "".join(
        f"<tr>{''.join(_html(cell, at, right=right[at]) for at, cell in enumerate(row))}</tr>" for row in rows
    )
    lines = [heads, *([cell.text for cell in row] for row in rows)]
    widths = [max(columns_of(each[at]) for each in lines) for at in range(len(heads))]
    plain = [
        "  ".join(_padded(text, widths[at], right=right[at]) for at, text in enumerate(each)).rstrip() for each in lines
    ]
    ruled = [lines[0], ["---:" if each else "---" for each in right], *lines[1:]]
    marked = [
        f"| {' | '.join(text if at == 1 else escaped_markdown(text) for text in each)} |"
        for at, each in enumerate(ruled)
    ]
    return {
        "text/plain": "\n".join(plain),
        "text/html": f"<table {markup.NO_MATHS}><thead><tr>{html}</tr></thead><tbody>{body}</tbody></table>",
        "text/markdown": sanitize("\n".join(marked)),
    }


def _padded(text: str, width: int, *, right: bool) -> str:
    blank = " " * (width - columns_of(text))
    return blank + text if right else text + blank


def _html(cell: Cell, column: int, *, right: bool) -> str:
    style = _RIGHT if right else f"{_LEFT}; {_ERROR}" if cell.failed and cell.text else _LEFT
    if column == 0:
        return f'<th scope="row" style="{style}">{escaped(cell.text)}</th>'
    return f'<td style="{style}">{escaped(cell.text)}</td>'


def _json(shown: RowsTable, width: int, most: int) -> Bundle:
    """Return the rows as lines of JSON; long strings in them are cut."""
    lines = [json.dumps(_member(row, width, most), ensure_ascii=False) for row in shown.rows]
    text = "\n".join(lines)
    return {"text/plain": text, "text/markdown": sanitize(fences.fenced(text, "json"))}


def _member(row: TableRow, width: int, most: int) -> dict[str, Any]:
    label = _plain(row.label, width)
    if row.error:
        return {"row": label, "error": one_line(row.error, width)}
    fields = record_of(row.value)
    if fields is None:
        return {"row": label, "value": _plain(row.value, width)}
    kept = {one_line(name, width): _plain(value, width) for name, value in list(fields.items())[:most]}
    return {"row": label, "value": kept}


def _plain(value: Any, width: int) -> Any:
    """Return a value as JSON has it, one with parts as text."""
    if isinstance(value, Exception):
        return one_line(error_line(value), width)
    if value is None or isinstance(value, bool) or (isinstance(value, (int, float)) and abs(value) <= _EXACT):
        return value
    return one_line(text_of(value), width)


def _bounded(notes: Sequence[str], width: int) -> list[str]:
    """Return notes, each once and on one line, the first few; how many more there are is said."""
    different = list(dict.fromkeys(notes))
    said = [one_line(note, min(_LONGEST_NOTE, 5 * width)) for note in different[:MOST_NOTES]]
    return (
        [*said, f"… and {counted(len(different) - MOST_NOTES, 'more note')}"] if len(different) > MOST_NOTES else said
    )


def _joined(parts: Iterable[Bundle]) -> Bundle:
    """Return one output that shows several below each other; a part without Markdown is a paragraph of its text."""
    parts = list(parts)
    plain = [each["text/plain"] for each in parts if "text/plain" in each]
    marked = [
        each.get("text/markdown") or escaped_markdown(each["text/plain"])
        for each in parts
        if "text/markdown" in each or "text/plain" in each
    ]
    return {
        "text/plain": "\n".join(plain),
        "text/html": "".join(each.get("text/html", "") for each in parts),
        "text/markdown": "\n\n".join(marked),
    }
