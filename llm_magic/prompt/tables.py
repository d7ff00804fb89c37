"""Any object as the text that IPython shows for it, written only as far as it is wanted."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from io import StringIO
from typing import Any

from IPython.lib.pretty import RepresentationPrinter


class _Full(Exception):  # noqa: N818 - no error: it ends the writing
    """Enough was written."""


class _Bounded(StringIO):
    """A text that takes so many characters and no more."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def write(self, text: str) -> int:
        if len(text) > self._left:
            super().write(text[: self._left])
            self._left = 0
            raise _Full
        self._left -= len(text)
        return super().write(text)


def plain(value: Any, most: int) -> tuple[str, bool]:
    """Return the pretty-printed text of a value, at most `most` characters of it, and whether that is all.

    Cyclic containers show as IPython shows them (`[...]`); an object whose own repr never ends shows as Python's
    default one. A repr that raises, raises here.
    """
    sink = _Bounded(most)
    printer: Any = RepresentationPrinter(sink, max_width=100, max_seq_length=0)
    try:
        printer.pretty(value)
        printer.flush()
    except _Full:
        return sink.getvalue(), False
    except RecursionError:
        return object.__repr__(value), True
    return sink.getvalue(), True


MAX_COLUMNS = 50
MAX_CELL = 500  # characters of one cell


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text, its true shape in words, and what was left out of it."""

    text: str
    shape: str
    notes: tuple[str, ...] = ()


def is_table(value: object) -> bool:
    """Whether this is a DataFrame or Series of pandas or polars; imports neither."""
    return _library(value) is not None


def _library(value: object) -> str | None:
    for base in type(value).__mro__:
        library = base.__module__.partition(".")[0]
        if library in {"pandas", "polars"} and base.__name__ in {"DataFrame", "Series"}:
            return library
    return None


def table(value: Any, max_rows: int) -> Table:
    """Return a DataFrame or Series as a markdown table of at most `max_rows` rows, its first and its last ones."""
    rows = len(value)
    head = rows if rows <= max_rows else (max_rows + 1) // 2
    tail = 0 if rows <= max_rows else max_rows - head
    shown = (_pandas if _library(value) == "pandas" else _polars)(value, head, tail)
    return _written(shown, rows, head, tail)


@dataclass(slots=True)
class _Shown:
    """The cells that are shown, column by column, as text; `columns` counts those of the data, index apart."""

    names: list[str]
    cells: list[list[str]]
    right: list[bool]
    columns: int | None
    columns_shown: int


def _pandas(value: Any, head: int, tail: int) -> _Shown:
    frame = value.ndim == 2  # noqa: PLR2004 - a table has two dimensions
    pieces = [value.iloc[:head], *([value.iloc[len(value) - tail :]] if tail else [])]
    index_type = type(value.index).__name__
    plain_index = index_type == "RangeIndex" and value.index.start == 0 and value.index.step == 1
    names: list[str] = []
    cells: list[list[str]] = []
    right: list[bool] = []
    cut = head + tail < len(value)
    if not (plain_index and frame and not cut and value.index.name is None):
        for level in range(value.index.nlevels):
            label = value.index.names[level]
            names.append("" if label is None else str(label))
            levels = [piece.index.get_level_values(level) for piece in pieces]
            cells.append([text for piece in levels for text in _texts(piece)])
            right.append(_is_number(levels[0].dtype))
    if not frame:
        names.append("value" if value.name is None else _label(value.name))
        cells.append([text for piece in pieces for text in _texts(piece)])
        right.append(_is_number(value.dtype))
        return _Shown(names, cells, right, None, 1)
    columns = value.shape[1]
    shown = min(columns, MAX_COLUMNS)
    for number in range(shown):
        names.append(_label(value.columns[number]))
        series = [piece.iloc[:, number] for piece in pieces]
        cells.append([text for piece in series for text in _texts(piece)])
        right.append(_is_number(series[0].dtype))
    return _Shown(names, cells, right, columns, shown)


def _polars(value: Any, head: int, tail: int) -> _Shown:
    if type(value).__name__ == "Series":
        columns = [value]
        total = None
    else:
        total = value.shape[1]
        columns = [value.get_column(name) for name in value.columns[:MAX_COLUMNS]]
    cells = [
        [_cell(item) for piece in (column.head(head), column.tail(tail)) for item in piece.to_list()]
        for column in columns
    ]
    right = [column.dtype.is_numeric() for column in columns]
    return _Shown([str(column.name) or "value" for column in columns], cells, right, total, len(columns))


def _label(name: Any) -> str:
    return ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _is_number(dtype: Any) -> bool:
    return getattr(dtype, "kind", "O") in "iufc"


def _texts(column: Any) -> list[str]:
    """Return a column as text; floats keep their own precision (0.1 in 32 bits is `0.1`)."""
    numpy_floats = type(column.dtype).__module__.startswith("numpy") and column.dtype.kind == "f"
    return [_cell(item) for item in (column.to_numpy() if numpy_floats else column)]


def _cell(value: object) -> str:
    """Return one cell: on one line, its bars escaped, cut where it is very long."""
    if isinstance(value, float):
        text = str(value)  # also of NumPy's
        return "NaN" if text == "nan" else text
    if isinstance(value, str):
        text = value[: MAX_CELL + 1]
    elif type(value).__module__ == "numpy" and hasattr(value, "ndim") and value.ndim:
        text = sys.modules["numpy"].array2string(value, threshold=20)
    elif isinstance(value, (list, tuple, dict, set, frozenset)):
        text = plain(value, MAX_CELL + 1)[0]
    else:
        text = str(value)
    if len(text) > MAX_CELL:
        text = text[:MAX_CELL] + "…"
    text = text.replace("|", "\\|").replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\n", "<br>")


def _written(shown: _Shown, rows: int, head: int, tail: int) -> Table:
    """Write the table."""
    names = [_cell(name) for name in shown.names]
    lines = [_line(names), _line(["---:" if right else "---" for right in shown.right])]
    for number in range(head + tail):
        if tail and number == head:
            lines.append(_line(["…"] * len(names)))
        lines.append(_line([column[number] for column in shown.cells]))
    shape = f"{rows:,} row{'s' * (rows != 1)}"
    if shown.columns is not None:
        shape += f" × {shown.columns:,} column{'s' * (shown.columns != 1)}"
    said: list[str] = []
    notes: list[str] = []
    if tail or head < rows:
        said.append(f"the first {head:,} and the last {tail:,} rows are shown" if tail else "the first row is shown")
        notes.append(f"{head + tail:,} of {rows:,} rows are in the prompt (LLMMagics.max_rows).")
    if shown.columns is not None and shown.columns_shown < shown.columns:
        said.append(f"the first {shown.columns_shown:,} columns are shown")
        notes.append(f"{shown.columns_shown:,} of {shown.columns:,} columns are in the prompt.")
    cut = sum(text.endswith("…") and len(text) > MAX_CELL for column in shown.cells for text in column)
    if cut:
        notes.append(f"{cut:,} long cell{'s were' if cut > 1 else ' was'} cut to {MAX_CELL} characters.")
    return Table("\n".join(lines), "; ".join([shape, *said]), tuple(notes))


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
