"""Records as columns and rows, for a table on screen or a data frame."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_magic.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # pandas is no dependency, its stubs even less


@dataclasses.dataclass(frozen=True, slots=True)
class Records:
    """Records as a table.

    Attributes
    ----------
    columns
        The names of all fields, in the order of their first appearance.
    rows
        One tuple per record, in the order of `columns`; a field that a record lacks is None.

    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def column(self, name: str) -> tuple[Any, ...]:
        """Return the values of one column; `KeyError` for a name that is none."""
        if name not in self.columns:
            raise KeyError(name)
        number = self.columns.index(name)
        return tuple(row[number] for row in self.rows)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the rows as dicts."""
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas `DataFrame`; raises `ConfigurationError` where pandas is not installed."""
        try:
            import pandas as pd
        except ImportError:
            raise ConfigurationError("pandas is not installed.", "Install it: %pip install pandas") from None
        return pd.DataFrame(list(self.rows), columns=list(self.columns))


def records_of(value: Any) -> Records | None:
    """Return a sequence of records, or a DataFrame, as a table; None for anything else, an empty sequence too.

    Records are mappings, pydantic models, dataclasses and named tuples; one sequence may mix them.

    >>> records_of([{"a": 1}, {"a": 2, "b": "x"}])
    Records(columns=('a', 'b'), rows=((1, None), (2, 'x')))

    """
    if is_frame(value):
        rows = value.astype(object).where(value.notna(), None).itertuples(index=False, name=None)
        return Records(tuple(map(str, value.columns)), tuple(rows))
    if not isinstance(value, (Sequence, set, frozenset)) or isinstance(value, (str, bytes)) or not value:
        return None
    if hasattr(value, "_fields"):  # a named tuple is one record
        return None
    records = [record for record in map(record_of, value) if record is not None]
    if len(records) < len(value):
        return None
    columns = tuple(dict.fromkeys(key for record in records for key in record))
    return Records(columns, tuple(tuple(record.get(key) for key in columns) for record in records))


def is_frame(value: Any) -> bool:
    """Tell whether a value is a pandas DataFrame; pandas is not imported for that."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, getattr(pandas, "DataFrame", ()))


def record_of(value: Any) -> dict[str, Any] | None:
    """Return the fields of a record by name, their values as they are; None for what is no record.

    >>> record_of({"a": 1}), record_of(3)
    ({'a': 1}, None)

    """
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, type):
        return None
    fields = getattr(type(value), "model_fields", None)
    if isinstance(fields, Mapping):
        extra = getattr(value, "model_extra", None) or {}
        return {name: getattr(value, name, None) for name in fields} | extra
    if dataclasses.is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    names = getattr(value, "_fields", None)
    if isinstance(value, tuple) and names is not None:
        return dict(zip(names, value, strict=True))
    return None


def fields_of(values: Iterable[Any]) -> list[str]:
    """Return the fields of values that are all records, in the order of their first appearance; else nothing.

    >>> fields_of([{"a": 1}, {"b": 2, "a": 3}]), fields_of([{"a": 1}, 2])
    (['a', 'b'], [])

    """
    records = [record_of(value) for value in values]
    return [] if None in records else list(dict.fromkeys(name for each in records for name in each or ()))
