"""What `--each` and `LLM.map` take: a frame, a series, or anything to iterate, as rows with names for a template."""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from itertools import count
from typing import Any

from llm_magic.errors import InputError, LLMError
from llm_magic.mapping.inputs.columns import Columns, Kind, columns_of
from llm_magic.mapping.inputs.row_names import (
    OURS,
    PLAIN,
    RESERVED,
    Cells,
    NamesOfCells,
    RowValues,
    row_of_item,
    said_of,
)
from llm_magic.mapping.rows import Row
from llm_magic.records import record_of
from llm_magic.response import Response

_AT_ONCE = 1000
"""Rows of a frame that are read together: columns are fast, single rows are not."""


def read_inputs(value: Any, name: str = "inputs") -> Inputs:
    """Return the rows of what a user gave.

    Parameters
    ----------
    value
        A DataFrame of pandas or polars, a LazyFrame (collected here), a Table or RecordBatch of pyarrow: its columns
        are names in the template. Or a Series, an array (its items along the first dimension), a list, a set, a range,
        anything else that can be iterated: `item` is the input, and the keys of a mapping or fields of a record are
        names, too. A mapping has a row a key: `index` is the key, `item` the value; it is no frame of columns. An
        iterator is read as rows are asked for, once.
    name
        What errors call it: the expression that the user wrote.

    Raises
    ------
    InputError
        It is one value and no list of inputs (a text, None, a number, an answer, one record), or something that has to
        be awaited, computed or converted first.

    >>> [row.names["item"] for row in read_inputs(["good", "bad"])]
    ['good', 'bad']
    >>> inputs = read_inputs([{"text": "good"}, {"text": "bad"}])
    >>> inputs.length, inputs.names_in_rows()
    (2, ('text', 'row', 'index', 'item'))

    """
    if isinstance(value, Inputs):
        return value
    columns = columns_of(value, name)
    if columns is not None:
        return _ColumnInputs(columns, name)
    _refuse(value, name)
    if isinstance(value, dict):
        return _Items(list(value.values()), list(value), value, name)
    if isinstance(value, Mapping):
        return _Stream(value, name, lambda: iter(value.items()), keyed=True)
    if type(value) in (list, tuple, set, frozenset):
        return _Items(list(value), None, value, name)
    if type(value) is range:
        return _Items(value, None, value, name)
    return _Stream(value, name, lambda: iter(value))


def is_dask(value: object) -> bool:
    """Tell whether a value is a Dask DataFrame, Series or Bag; Dask is not imported for that."""
    return _library(value) in ("dask", "dask_expr") and type(value).__name__ in ("DataFrame", "Series", "Bag")


class Inputs(ABC):
    """The rows of an input, read as they are asked for.

    Iterating yields each as a `Row`, from the first one; an iterator can be iterated once. Whatever the input raises
    while it is read is raised as an `InputError` that tells after how many rows.
    """

    kind: Kind = "sequence"
    """Whose frame it is: "pandas", "polars" or "pyarrow"; "sequence" for all else, a series included."""
    length: int | None = None
    """Rows; None where nobody knows before all are read."""
    columns: tuple[str, ...] = ()
    """The names of a frame's columns, as far as they are text."""
    labels: tuple[Hashable, ...] = ()
    """The names of a frame's columns as they are: text, numbers, tuples."""
    is_iterator: bool = False
    """Whether it can be read only once."""
    may_wait: bool = False
    """Whether the user's code gives its rows, which may take its time."""

    def __init__(self, source: Any, name: str) -> None:
        self.source = source
        """The frame, series or other object, to which answers are bound; a frame as it was when it was taken."""
        self.name = name
        """What the user called it."""
        self._own: tuple[str, ...] | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Row]:
        """Yield the rows, from the first one."""

    @abstractmethod
    def rows(self, numbers: Sequence[int]) -> Iterator[Row]:
        """Yield the rows of these numbers, in this order; InputError for an iterator, which has no way back."""

    def own_names(self) -> tuple[str, ...]:
        """Return the names of a frame's columns, else of the fields of the first row.

        Of an iterator the first row is read for that, and kept.
        """
        if self._own is None:
            first = None if self.columns else self._first_row()
            whole = None if first is None else first.names["row"]
            fields = whole if isinstance(whole, RowValues) else self.columns
            self._own = tuple(dict.fromkeys(name for name in fields if isinstance(name, str)))
        return self._own

    def _first_row(self) -> Row | None:
        return next(iter(self), None)

    def names_in_rows(self) -> tuple[str, ...]:
        """Return the names that the rows have for a template: their own, and `row`, `index` and `item`."""
        return tuple(dict.fromkeys((*self.own_names(), *OURS)))

    def has_name(self, name: str) -> bool:
        """Tell whether any row has a name; of an iterator, whether the first one has."""
        return name in self.names_in_rows()

    @abstractmethod
    def without_value(self, name: str) -> int:
        """Return how many rows have None for a name that is a column, a field or `item`; 0 where nobody knows."""

    def twice(self, name: str) -> bool:
        """Tell whether two columns have this name: the template would read the first one."""
        return self.columns.count(name) > 1


class _ColumnInputs(Inputs):
    """A frame, a series or an array."""

    def __init__(self, columns: Columns, name: str) -> None:
        super().__init__(columns.source, name)
        self._columns = columns
        self.kind = columns.kind
        self.length = len(columns)
        self._first: dict[Hashable, int] = {}
        for place, label in enumerate(columns.names or ()):  # of two of one name the first
            self._first.setdefault(label, place)
        self.labels = columns.names or ()
        self.columns = tuple(label for label in self.labels if isinstance(label, str))

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, self.length or 0, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, self.length or 0))
            yield from self._read(numbers, slice(numbers.start, numbers.stop), start)

    def rows(self, numbers: Sequence[int]) -> Iterator[Row]:
        for start in range(0, len(numbers), _AT_ONCE):
            some = list(numbers[start : start + _AT_ONCE])
            yield from self._read(some, some, start)

    def _read(self, numbers: Sequence[int], which: slice | Sequence[int], before: int) -> Iterator[Row]:
        try:
            labels, read = self._columns.read(which)
            items = read(0) if self._columns.names is None else None
        except Exception as error:
            raise _raised(self.name, error, before) from error
        if items is not None:
            return map(row_of_item, numbers, labels, items)
        cells = Cells(self._first, read)
        return (
            Row(number, label, NamesOfCells(cells, place, label))
            for place, (number, label) in enumerate(zip(numbers, labels, strict=True))
        )

    def has_name(self, name: str) -> bool:
        if name in self.names_in_rows():
            return True
        return self._columns.names is None and any(name in row.names for row in self)

    def without_value(self, name: str) -> int:
        if self._columns.names is None:
            return self._columns.missing(0) if name == "item" else 0
        return self._columns.missing(self._first[name]) if name in self._first and name not in RESERVED else 0


class _Items(Inputs):
    """What lies in memory as a list: a list, a tuple, a set, a dict, as they were when they were taken; a range."""

    def __init__(self, items: Sequence[Any], labels: Sequence[Hashable] | None, source: Any, name: str) -> None:
        super().__init__(source, name)
        self._items = items
        self._labels = labels
        self.length = len(items)

    def __iter__(self) -> Iterator[Row]:
        return map(row_of_item, count(), self._labels or count(), self._items)

    def rows(self, numbers: Sequence[int]) -> Iterator[Row]:
        for number in numbers:
            yield row_of_item(number, self._labels[number] if self._labels else number, self._items[number])

    def has_name(self, name: str) -> bool:
        if name in OURS or name in self.names_in_rows():
            return True
        if isinstance(self._items, range):
            return False
        return any(name in row_of_item(0, 0, item).names for item in self._items if type(item) not in PLAIN)

    def without_value(self, name: str) -> int:
        if name in RESERVED or isinstance(self._items, range):
            return 0
        found = 0
        for item in self._items:
            if type(item) is dict:
                found += item.get(name, item) is None
            elif type(item) in PLAIN:
                found += item is None and name == "item"
            else:
                names = row_of_item(0, 0, item).names
                found += name in names and names[name] is None
        return found


class _Stream(Inputs):
    """Anything else that can be iterated, an iterator among it: no more of it is read than is asked for."""

    def __init__(self, source: Any, name: str, begin: Callable[[], Iterator[Any]], *, keyed: bool = False) -> None:
        super().__init__(source, name)
        self._begin = begin
        self._keyed = keyed
        self._seen: list[Any] = []
        self._begun: Iterator[Any] | None = None
        self._is_taken = False
        self.is_iterator = hasattr(type(source), "__next__")
        self.may_wait = True
        if not self.is_iterator and isinstance(source, Sized):
            with suppress(Exception):  # it has no length, whatever it says
                self.length = len(source)

    def __iter__(self) -> Iterator[Row]:
        if self.is_iterator and self._is_taken:
            raise InputError(
                f"{self.name} is an iterator that was read already.", f"Make a list of it first: list({self.name})"
            )
        self._is_taken = True
        return self._read()

    def _read(self) -> Iterator[Row]:
        number = 0
        seen, self._seen = self._seen, []
        source = self._begun if self.is_iterator else None
        try:
            if source is None:
                source = self._begin()
            self._begun = source
        except BaseException as error:  # of the user's code on our thread: SystemExit would end the loop
            raise _raised(self.name, error, number) from error
        while True:
            try:
                item = seen.pop() if seen else next(source)
            except StopIteration:
                break
            except BaseException as error:  # a CancelledError would end the run as if these were all rows
                raise _raised(self.name, error, number) from error
            if number == self.length:
                raise InputError(f"{self.name} says that it has {number:,} rows, but gives more.", self._as_list)
            if self._keyed:
                yield row_of_item(number, *item)
            else:
                yield row_of_item(number, number, item)
            number += 1
        if self.length is not None and number < self.length:
            raise InputError(f"{self.name} says that it has {self.length:,} rows, but gave {number:,}.", self._as_list)

    @property
    def _as_list(self) -> str:
        return f"Pass what it really has: list({self.name})"

    def rows(self, numbers: Sequence[int]) -> Iterator[Row]:
        if self.is_iterator:
            raise InputError(
                f"{self.name} is read as it is needed, and has no way back to a row.",
                f"Make a list of it first: list({self.name})",
            )
        wanted = set(numbers)
        found: dict[int, Row] = {}
        for row in self if wanted else ():
            if row.number in wanted:
                found[row.number] = row
            if len(found) == len(wanted):
                break
        yield from (found[number] for number in numbers)

    def _first_row(self) -> Row | None:
        if not self.is_iterator:
            return super()._first_row()
        if not self._seen and not self._is_taken:
            try:
                self._begun = self._begun or self._begin()
                self._seen.append(next(self._begun))
            except StopIteration:
                self.length = 0
            except Exception as error:
                raise _raised(self.name, error, 0) from error
        return row_of_item(0, 0, self._seen[0]) if self._seen else None

    def without_value(self, name: str) -> int:  # noqa: ARG002 - nobody knows
        return 0


def _raised(name: str, error: BaseException, rows: int) -> InputError:
    after = f"after {rows:,} row{'s' * (rows != 1)}" if rows else "before its first row"
    hint = error.hint if isinstance(error, LLMError) else "Iterate it in a cell of its own; %tb shows where it failed."
    return InputError(f"{name} raised {said_of(error)} {after}.", hint)


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _refuse(value: Any, name: str) -> None:
    """Raise where a value is no list of inputs."""
    kind = type(value).__name__
    one = f"Did you mean [{name}]?"
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        what = "a text" if isinstance(value, str) else "bytes"
        raise InputError(f"{name} is {what}, no list of inputs.", one)
    if value is None:
        raise InputError(
            f"{name} is None, no list of inputs.", "Name a DataFrame, a Series, a list, or anything to iterate."
        )
    if isinstance(value, Response):
        raise InputError(f"{name} is one answer, no list of inputs.", f"Did you mean [{name}], or {name}.value?")
    if inspect.isawaitable(value) or inspect.isasyncgen(value) or hasattr(type(value), "__aiter__"):
        if inspect.iscoroutine(value):
            raise InputError(f"{name} is a coroutine, which has no rows yet.", f"Await it first: await {name}")
        hint = (
            f"Collect it first: [item async for item in {name}]" if hasattr(type(value), "__aiter__") else "Await it."
        )
        raise InputError(f"{name} is of type {kind}, which is iterated asynchronously.", hint)
    if _library(value) in ("dask", "dask_expr"):
        raise InputError(
            f"{name} is a Dask {kind}, whose rows are on its workers.", f"Have them here: {name}.compute()"
        )
    if any(base.__name__ in ("DataFrame", "LazyFrame", "RecordBatchReader") for base in type(value).__mro__):
        ways = [
            way for way in ("to_native", "to_pandas", "toPandas", "read_all", "compute") if hasattr(type(value), way)
        ]
        hint = f"Convert it: {name}.{ways[0]}()" if ways else "Convert it to pandas, polars or pyarrow."
        raise InputError(f"{name} is a {kind} of {_library(value)}, whose rows are not read here.", hint)
    if not isinstance(value, type) and not isinstance(value, Mapping) and _is_record(value):
        raise InputError(f"{name} is one {kind}, no list of inputs.", one)
    if not hasattr(type(value), "__iter__") and not hasattr(type(value), "__getitem__"):
        ways = [way for way in ("to_table", "to_pandas", "fetchall", "df") if hasattr(type(value), way)]
        otherwise = f"Did you mean [{name}], or range({name})?" if type(value) is int else one
        hint = f"Did you mean {name}.{ways[0]}()?" if ways and "pyarrow" in sys.modules else otherwise
        raise InputError(f"{name} is of type {kind}, which cannot be iterated: no list of inputs.", hint)


def _is_record(value: Any) -> bool:
    with suppress(Exception):
        return record_of(value) is not None
    return False
