"""Columns of pandas, polars, pyarrow and numpy as plain Python values, some rows at a time; none of them is imported.

What a library calls missing is None: NaN, NaT and NA of pandas, null of polars and pyarrow, what is masked in numpy.
NaN of the others is a number and stays one. A 32 bit float has the digits that it shows (0.1, no 0.10000000149011612).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, Protocol

from llm_magic.errors import InputError

Kind = Literal["pandas", "polars", "pyarrow", "sequence"]
Which = slice | Sequence[int]
"""Numbers of rows, from 0: all of a range, or these in this order."""
Read = Callable[[int], list[Any]]
"""What gives the values of a column by its place."""


class Columns(Protocol):
    """Rows that lie in columns: of a frame, or of a series, which has one column without a name."""

    kind: Kind
    """Whose frame it is; "sequence" where it is none."""
    source: Any
    """The object that is read: of one that is changed in place, a copy that shares its data."""
    names: tuple[Hashable, ...] | None
    """The names of the columns; None where it is no frame."""

    def __len__(self) -> int: ...

    def read(self, which: Which) -> tuple[Sequence[Hashable], Read]:
        """Return the labels of rows, and what reads their columns, those that are wanted."""
        ...

    def missing(self, column: int) -> int:
        """Return how many rows have no value in a column."""
        ...


def columns_of(value: Any, name: str) -> Columns | None:
    """Return what lies in columns; None for anything else. `name` is what an error calls it."""
    library, kind = _class_of(value)
    if library == "pandas":
        if kind in ("Index", "ExtensionArray"):
            return _Pandas(sys.modules["pandas"].Series(value))
        return _Pandas(value)
    if library == "polars":
        return _Polars(_collected(value, name) if kind == "LazyFrame" else value)
    if library == "pyarrow":
        table = sys.modules["pyarrow"].Table
        return _Arrow(table.from_batches([value]) if kind == "RecordBatch" else value)
    return _Numpy(value, name) if library == "numpy" else None


_CLASSES = {
    "pandas": ("DataFrame", "Series", "Index", "ExtensionArray"),
    "polars": ("DataFrame", "Series", "LazyFrame"),
    "pyarrow": ("Table", "RecordBatch", "ChunkedArray", "Array"),
    "numpy": ("ndarray",),
}


def _class_of(value: Any) -> tuple[str, str]:
    for base in type(value).__mro__:
        library = base.__module__.partition(".")[0]
        if base.__name__ in _CLASSES.get(library, ()):
            return library, base.__name__
    return "", ""


def _collected(value: Any, name: str) -> Any:
    try:
        return value.collect()
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(
            f"{name} cannot be collected: {type(error).__name__}: {said}", "Try .collect() first."
        ) from error


class _Pandas:
    """A DataFrame or Series."""

    def __init__(self, value: Any) -> None:
        self.source = value.copy(deep=False)
        self._is_frame = value.ndim > 1
        self.kind: Kind = "pandas" if self._is_frame else "sequence"
        self.names: tuple[Hashable, ...] | None = tuple(value.columns.tolist()) if self._is_frame else None

    def __len__(self) -> int:
        return len(self.source)

    def read(self, which: Which) -> tuple[Sequence[Hashable], Read]:
        part = self.source.iloc[which]
        return part.index.tolist(), lambda column: _pandas_values(part.iloc[:, column] if self._is_frame else part)

    def missing(self, column: int) -> int:
        return int((self.source.iloc[:, column] if self._is_frame else self.source).isna().sum())


def _pandas_values(series: Any) -> list[Any]:
    kind = getattr(series.dtype, "kind", "O")
    values: list[Any] = series.tolist()
    if kind in "iub" and type(series.dtype).__module__.startswith("numpy"):
        return values
    gaps = series.isna().to_numpy()
    if gaps.any():
        values = [None if gap else value for value, gap in zip(values, gaps, strict=True)]
    if kind == "f":
        return _shortest(values, getattr(series.dtype, "itemsize", 8))
    return [_plain(value) for value in values] if kind == "O" else values


class _Polars:
    """A DataFrame or Series; the labels of its rows are their numbers."""

    def __init__(self, value: Any) -> None:
        self.source = value.clone()
        self._is_frame = hasattr(value, "columns")
        self.kind: Kind = "polars" if self._is_frame else "sequence"
        self.names: tuple[Hashable, ...] | None = tuple(value.columns) if self._is_frame else None

    def __len__(self) -> int:
        return len(self.source)

    def read(self, which: Which) -> tuple[Sequence[Hashable], Read]:
        part = self.source[which if isinstance(which, slice) else list(which)]
        return _numbers(which, len(self)), lambda column: _polars_values(
            part.to_series(column) if self._is_frame else part
        )

    def missing(self, column: int) -> int:
        return int((self.source.to_series(column) if self._is_frame else self.source).null_count())


def _polars_values(series: Any) -> list[Any]:
    return _shortest(series.to_list(), 4 if series.dtype == sys.modules["polars"].Float32 else 8)


class _Arrow:
    """A Table, Array or ChunkedArray; the labels of its rows are their numbers."""

    def __init__(self, value: Any) -> None:
        self.source = value
        self._is_frame = hasattr(value, "column_names")
        self.kind: Kind = "pyarrow" if self._is_frame else "sequence"
        self.names: tuple[Hashable, ...] | None = tuple(value.column_names) if self._is_frame else None

    def __len__(self) -> int:
        return len(self.source)

    def read(self, which: Which) -> tuple[Sequence[Hashable], Read]:
        part = self.source[which] if isinstance(which, slice) else self.source.take(list(which))
        return _numbers(which, len(self)), lambda column: _arrow_values(part.column(column) if self._is_frame else part)

    def missing(self, column: int) -> int:
        return int((self.source.column(column) if self._is_frame else self.source).null_count)


def _arrow_values(array: Any) -> list[Any]:
    return _shortest(array.to_pylist(), {"halffloat": 2, "float": 4}.get(str(array.type), 8))


class _Numpy:
    """An array: its items are along the first dimension; one with named fields is a frame to read, but none to give."""

    kind: Kind = "sequence"

    def __init__(self, value: Any, name: str) -> None:
        if not value.ndim:
            raise InputError(f"{name} is an array without a dimension, one value.", f"Did you mean [{name}.item()]?")
        self.source = value
        fields = value.dtype.names if value.ndim == 1 else None
        self.names: tuple[Hashable, ...] | None = fields

    def __len__(self) -> int:
        return len(self.source)

    def read(self, which: Which) -> tuple[Sequence[Hashable], Read]:
        part = self.source[which if isinstance(which, slice) else list(which)]
        names = self.names
        return _numbers(which, len(self)), lambda column: _numpy_values(part[names[column]] if names else part)

    def missing(self, column: int) -> int:
        return sum(value is None for value in self.read(slice(None))[1](column))


def _numpy_values(array: Any) -> list[Any]:
    if array.ndim > 1:
        return list(array)
    kind = array.dtype.kind
    if kind in "mM":
        array = array.astype(f"{array.dtype.kind}8[us]")  # nanoseconds would be whole numbers
    values: list[Any] = array.tolist()
    if kind == "O":
        return [_plain(value) for value in values]
    return _shortest(values, array.dtype.itemsize) if kind == "f" else values


def _numbers(which: Which, length: int) -> Sequence[int]:
    return range(*which.indices(length)) if isinstance(which, slice) else which


def _plain(value: Any) -> Any:
    """Return a number of numpy as Python's."""
    if type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "ndim", 1):
        return value.item()
    return value


_FORMATS = {2: "e", 4: "f"}


def _shortest(values: list[Any], size: int) -> list[Any]:
    """Return floats of a size in bytes by the fewest digits that mean them.

    >>> _shortest([0.10000000149011612, None, float("inf")], 4)
    [0.1, None, inf]

    """
    if size not in _FORMATS:
        return values
    same = struct.Struct(_FORMATS[size])
    return [value if value is None or value - value != 0 else _short(value, same) for value in values]


def _short(value: float, same: struct.Struct) -> float:
    wanted = same.pack(value)
    for digits in range(3, 9):
        short = float(f"{value:.{digits}g}")
        try:
            if same.pack(short) == wanted:
                return short
        except OverflowError:  # rounded up, the largest is too large
            continue
    return value
