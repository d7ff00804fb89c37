"""`DataFrame[City]`: records as a pandas DataFrame with one column a field."""

from __future__ import annotations

import datetime as dt
import enum
import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llm_magic.errors import OutputTypeError
from llm_magic.output.columns import ANY, Column
from llm_magic.records import record_of

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # pandas is no dependency, its stubs even less

_DTYPES = {"int": ("int64", "Int64"), "float": ("float64", "float64"), "bool": ("bool", "boolean")}
"""By kind of column: its dtype, and that of one with gaps."""
_NUMBERS: Mapping[str, Any] = {"int": int, "float": (int, float), "bool": bool}
_FIXED = {"str": "str", "timedelta": "timedelta64[us]"}


def require_pandas(title: str) -> None:
    """Raise `OutputTypeError` where pandas is not installed; it is imported when there is an answer."""
    if importlib.util.find_spec("pandas") is None:
        raise OutputTypeError(f"--as {title}: pandas is not installed.", "Install it: %pip install pandas")


def frame_of(values: Sequence[Any], columns: Mapping[str, Column]) -> pd.DataFrame:
    """Return validated records as a DataFrame, of which each column has the dtype of its field.

    Whole numbers and truth values with gaps are nullable; dates are `datetime64`; members of an
    enumeration are their values, and a category. Of no records the columns are there all the same.
    """
    import pandas as pd

    records = [record_of(value) or {} for value in values]
    names = dict.fromkeys([*columns, *(name for record in records for name in record)])
    data = {name: [_plain(record.get(name)) for record in records] for name in names}
    series = {name: _series_or_inferred(values, columns.get(name, ANY)) for name, values in data.items()}
    return pd.DataFrame(series, columns=list(names))


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _series_or_inferred(values: Sequence[Any], column: Column) -> pd.Series:
    import pandas as pd

    if column.kind == "any" and values:
        with suppress(TypeError, ValueError, OverflowError):
            return pd.Series(values)
    return series_of(values, column)


def series_of(values: Sequence[Any], column: Column) -> pd.Series:
    """Return the values of a column as a Series of its dtype; None is a gap.

    What the dtype does not hold makes the column one of Python's objects.
    """
    import pandas as pd

    with suppress(TypeError, ValueError, OverflowError):  # a value that no dtype holds stays what it is
        found = _series(pd, values, column)
        if found is not None:
            return found
    return pd.Series(values, dtype="object")


def _series(pd: Any, values: Sequence[Any], column: Column) -> Any:
    there = [value for value in values if value is not None]
    kind = column.kind
    if kind in _DTYPES:
        if not all(isinstance(value, _NUMBERS[kind]) or _is_whole(value, kind) for value in there):
            return None
        return pd.Series(values, dtype=_DTYPES[kind][len(there) < len(values)])
    if kind == "category":
        known = set(column.words)
        return pd.Series(pd.Categorical(values, list(column.words))) if known.issuperset(there) else None
    if kind in ("date", "datetime"):
        zones = {_has_zone(value, column) for value in there}
        utc = zones == {True} or (not zones and kind == "datetime" and not column.naive)
        return pd.Series(values, dtype="object").astype("datetime64[us, UTC]" if utc else "datetime64[us]")
    if kind in _FIXED:
        right = {"str": str, "timedelta": dt.timedelta}[kind]
        return pd.Series(values, dtype=_FIXED[kind]) if all(isinstance(value, right) for value in there) else None
    return None


def _is_whole(value: Any, kind: str) -> bool:
    return kind == "int" and isinstance(value, float) and value.is_integer()


def _has_zone(value: Any, column: Column) -> bool:
    """Tell whether a time has a zone; those of a schema are still written as text."""
    if isinstance(value, str) and column.kind == "datetime":
        value = dt.datetime.fromisoformat(value)
    return isinstance(value, dt.datetime) and value.tzinfo is not None
