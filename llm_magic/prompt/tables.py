"""DataFrames and Series of pandas and polars as markdown tables; neither library is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llm_magic.prompt.reprs import pretty

MAX_COLUMNS = 50
MAX_CELL = 500  # characters of one cell


@dataclass(frozen=True, slots=True)
class _Column:
    """The cells of a column that are shown, as text."""

    name: str
    cells: list[str]
    is_number: bool


def library_of(value: object) -> str | None:
    """Return `pandas` or `polars` for a DataFrame or Series of theirs, else None."""
    for base in type(value).__mro__:
        library = base.__module__.partition(".")[0]
        if library in {"pandas", "polars"} and base.__name__ in {"DataFrame", "Series"}:
            return library
    return None


def table(value: Any, max_rows: int) -> tuple[str, str, list[str]]:
    """Return a DataFrame or Series as a table, its true shape in words, and what was left out of it.

    The table has at most `max_rows` rows, the first and last.
    """
    rows, columns = (*value.shape, None)[:2]
    head, tail = (rows, 0) if rows <= max_rows else ((max_rows + 1) // 2, max_rows // 2)
    shown = (_pandas if library_of(value) == "pandas" else _polars)(value, head, tail)
    lines = [_line(_cell(column.name) for column in shown), _line("---:" if c.is_number else "---" for c in shown)]
    lines += [_line(column.cells[number] for column in shown) for number in range(head + tail)]
    if tail:
        lines.insert(2 + head, _line("…" for _ in shown))
    said = [f"{rows:,} row{'s' * (rows != 1)}"]
    notes: list[str] = []
    if columns is not None:
        said[0] += f" × {columns:,} column{'s' * (columns != 1)}"
    if head + tail < rows:
        said.append(f"the first {head:,} and the last {tail:,} rows are shown" if tail else "the first row is shown")
        notes.append(f"{head + tail:,} of {rows:,} rows are in the prompt (LLMMagics.max_rows).")
    if columns is not None and columns > MAX_COLUMNS:
        said.append(f"the first {MAX_COLUMNS:,} columns are shown")
        notes.append(f"{MAX_COLUMNS:,} of {columns:,} columns are in the prompt.")
    cut = sum(text.endswith("…") and len(text) > MAX_CELL for column in shown for text in column.cells)
    if cut:
        notes.append(f"{cut:,} long cell{'s were' if cut > 1 else ' was'} cut to {MAX_CELL} characters.")
    return "\n".join(lines), "; ".join(said), notes


def _pandas(value: Any, head: int, tail: int) -> list[_Column]:
    """Return the columns of the index, where it says something, and those of the data."""
    rows = len(value)
    is_frame = value.ndim == 2  # noqa: PLR2004 - a table has two dimensions
    index = value.index
    counts_rows = type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1 and index.name is None
    columns = []
    shown = (value.iloc[:, :MAX_COLUMNS] if is_frame else value).iloc[[*range(head), *range(rows - tail, rows)]]
    if not (is_frame and counts_rows and head + tail == rows):
        for level, label in enumerate(index.names):
            columns.append(_pandas_column("" if label is None else str(label), shown.index.get_level_values(level)))
    if not is_frame:
        return [*columns, _pandas_column("value" if value.name is None else value.name, shown)]
    return columns + [_pandas_column(name, shown.iloc[:, number]) for number, name in enumerate(shown.columns)]


def _pandas_column(name: Any, values: Any) -> _Column:
    """Read a Series or an Index; floats keep their own precision (0.1 in 32 bits is `0.1`)."""
    kind = getattr(values.dtype, "kind", "O")
    numpy_floats = type(values.dtype).__module__.startswith("numpy") and kind == "f"
    cells = [_cell(item) for item in (values.to_numpy() if numpy_floats else values)]
    return _Column(", ".join(map(str, name)) if isinstance(name, tuple) else str(name), cells, kind in "iufc")


def _polars(value: Any, head: int, tail: int) -> list[_Column]:
    columns = value.get_columns()[:MAX_COLUMNS] if hasattr(value, "get_columns") else [value]
    return [
        _Column(
            str(column.name) or "value",
            [_cell(item) for piece in (column.head(head), column.tail(tail)) for item in piece.to_list()],
            column.dtype.is_numeric(),
        )
        for column in columns
    ]


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
        text, _ = pretty(value, MAX_CELL + 1)
    else:
        text = str(value)
    if len(text) > MAX_CELL:
        text = text[:MAX_CELL] + "…"
    text = text.replace("|", "\\|").replace("\r\n", "\n").replace("\r", "\n")
    return text.replace("\n", "<br>")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
