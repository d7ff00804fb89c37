"""The names that a row has for a template: columns or fields, and `row`, `item` and `index`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from llm_magic.errors import InputError, LLMError
from llm_magic.mapping.rows import Row
from llm_magic.prompt.tables import library_of
from llm_magic.records import record_of

PLAIN = frozenset({str, int, float, bool, type(None)})
"""Types of inputs that have no fields."""
_MOST_OF_ERROR = 300
RESERVED = ("row", "index")
"""Names that are the whole row and its label, whatever columns or fields there are."""
OURS = (*RESERVED, "item")
"""The names that every row has."""


class RowValues(dict[Any, Any]):
    """A whole row, `{{ row }}`: its values by the names of the columns or fields, which are attributes, too.

    A name that is also a method of a dict is the value: `{{ row.items }}` is the column `items`.
    """

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if dict.__contains__(self, name) and not name.startswith("__"):
            return dict.__getitem__(self, name)
        return dict.__getattribute__(self, name)


RowValues.__name__ = "row"  # so errors call it: this row has no attribute …


class Cells:
    """Some rows of a frame, whose columns are read when they are first wanted.

    Parameters
    ----------
    places
        The columns by their names, each with its place.
    read
        What gives the values of the column at a place.

    """

    __slots__ = ("_columns", "_places", "_read")

    def __init__(self, places: Mapping[Hashable, int], read: Callable[[int], list[Any]]) -> None:
        self._places = places
        self._read = read
        self._columns: dict[Hashable, list[Any]] = {}

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def column(self, name: Hashable) -> list[Any]:
        """Return the values of a column; KeyError where there is none of this name."""
        if name not in self._columns:
            self._columns[name] = self._read(self._places[name])
        return self._columns[name]


class NamesOfCells(Mapping[str, Any]):
    """The names of one row of a frame."""

    __slots__ = ("_cells", "_index", "_place")

    def __init__(self, cells: Cells, place: int, index: Hashable) -> None:
        self._cells = cells
        self._place = place
        self._index = index

    def __getitem__(self, name: str) -> Any:
        if name == "index":
            return self._index
        if name == "row" or (name == "item" and name not in self._cells):
            return RowValues((each, self._cells.column(each)[self._place]) for each in self._cells)
        if isinstance(name, str):
            return self._cells.column(name)[self._place]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in OURS or (isinstance(name, str) and name in self._cells)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*(name for name in self._cells if isinstance(name, str)), *OURS)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as a dict: the row, and nothing of the others."""
        return dict, (dict(self),)


def row_of_item(number: int, label: Hashable, item: Any) -> Row:
    """Return the row of an input that lies in no frame, with the names of its fields."""
    if type(item) in PLAIN:
        return Row(number, label, {"row": item, "item": item, "index": label})
    try:
        fields = _fields_of(item)
    except Exception as error:  # noqa: BLE001 - whatever it is that fails, this row fails
        return Row(number, label, _Unreadable(error, {"row": item, "item": item, "index": label}))
    if fields is None:
        return Row(number, label, {"row": item, "item": item, "index": label})
    row = RowValues(fields)
    names = {name: value for name, value in fields.items() if isinstance(name, str)}
    names.setdefault("item", item)
    names["row"], names["index"] = row, label
    return Row(number, label, names)


def _fields_of(item: Any) -> dict[Any, Any] | None:
    """Return the keys of a mapping or the fields of a record with their values; None for what has none."""
    if isinstance(item, dict):
        return item
    if isinstance(item, Mapping):
        return dict(item)
    kind = type(item)
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(item, field.name) for field in kind.__attrs_attrs__}
    if library_of(item) and kind.__name__ == "DataFrame":  # a frame as an input is what it is, and has no fields
        return None
    if hasattr(kind, "keys") and hasattr(kind, "__getitem__"):  # a row of sqlite3, a Series of pandas
        return {key: item[key] for key in item.keys()}  # noqa: SIM118 - it is no mapping
    return record_of(item)


class _Unreadable(Mapping[str, Any]):
    """The names of a record that raises when it is read: its row fails where its template wants one of them."""

    def __init__(self, error: Exception, names: dict[str, Any]) -> None:
        self._error = error
        self._names = names

    def __getitem__(self, name: str) -> Any:
        if name in self._names:
            return self._names[name]
        raise InputError(f"the fields of the row cannot be read: {said_of(self._error)}") from self._error

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def said_of(error: BaseException) -> str:
    """Return an error's class and words on one line."""
    try:
        said = " ".join((error.message if isinstance(error, LLMError) else str(error)).split())
    except Exception:  # noqa: BLE001 - an error that cannot be said is named
        said = ""
    said = said if len(said) <= _MOST_OF_ERROR else f"{said[:_MOST_OF_ERROR]}…"
    return f"{type(error).__name__}{': ' * bool(said)}{said}"
