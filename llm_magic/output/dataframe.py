"""`DataFrame[City]`: records as a pandas DataFrame with one column a field."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llm_magic.errors import OutputTypeError
from llm_magic.output.schema import Schema
from llm_magic.output.schema.keywords import resolve
from llm_magic.output.schema.python_types import unaliased
from llm_magic.records import record_of

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # pandas is no dependency, its stubs even less

_DTYPES = {"integer": ("int64", "Int64"), "number": ("float64", "float64"), "boolean": ("bool", "boolean")}
"""By JSON Schema's type: the dtype of a column, and that of one with gaps."""


def require_pandas(title: str) -> None:
    """Raise `OutputTypeError` where pandas is not installed; it is imported when there is an answer."""
    if importlib.util.find_spec("pandas") is None:
        raise OutputTypeError(f"--as {title}: pandas is not installed.", "Install it: %pip install pandas")


def columns_of(record: Any, item: Schema, root: Schema) -> Mapping[str, Schema]:
    """Return the columns of records: the fields of their type, or the properties of their schema.

    Parameters
    ----------
    record
        The type of a record, None where there is but a schema.
    item, root
        The schema of a record, and the document that it stands in.

    """
    properties = dict(_properties(item, root))
    if record is None:
        return properties
    return {name: properties.get(alias, {}) for kind in _alternatives(record) for name, alias in _fields(kind)}


def _alternatives(record: Any) -> tuple[Any, ...]:
    record = unaliased(record)
    inner = typing.get_args(record)
    if typing.get_origin(record) is typing.Annotated:
        return _alternatives(inner[0])
    if inner and not isinstance(record, type):
        return tuple(each for part in inner for each in _alternatives(part))
    return (record,)


def _fields(kind: Any) -> Iterator[tuple[str, str]]:
    """Yield the fields of a record type, each with its name in JSON."""
    names = getattr(kind, "model_fields", None)
    if isinstance(names, Mapping):
        yield from ((name, field.alias or name) for name, field in names.items())
    elif dataclasses.is_dataclass(kind):
        yield from ((field.name, field.name) for field in dataclasses.fields(kind))
    elif typing.is_typeddict(kind) or hasattr(kind, "__required_keys__"):
        yield from ((name, name) for name in kind.__annotations__)
    elif hasattr(kind, "_fields"):
        yield from ((name, name) for name in kind._fields)
    else:
        name = getattr(kind, "__name__", repr(kind))
        raise OutputTypeError(
            f"--as DataFrame[{name}]: {name} is no record, whose fields are the columns.",
            "Name a model, dataclass, TypedDict or NamedTuple, or the fields: DataFrame[name, age int].",
        )


def _properties(item: Schema, root: Schema) -> Iterator[tuple[str, Schema]]:
    item = resolve(item, root)
    for way in item.get("anyOf", ()):
        yield from _properties(way, root)
    yield from ((name, _not_null(resolve(value, root), root)) for name, value in item.get("properties", {}).items())


def _not_null(schema: Schema, root: Schema) -> Schema:
    ways = [resolve(way, root) for way in schema.get("anyOf", ()) if way.get("type") != "null"]
    return ways[0] if len(ways) == 1 else schema


def frame_of(values: Sequence[Any], columns: Mapping[str, Schema]) -> pd.DataFrame:
    """Return validated records as a DataFrame, of which each column has the dtype of its field.

    Whole numbers and truth values with gaps are nullable; dates are `datetime64`; members of an
    enumeration are their values. Of no records the columns are there all the same.
    """
    import pandas as pd

    records = [record_of(value) or {} for value in values]
    names = dict.fromkeys([*columns, *(name for record in records for name in record)])
    data = {name: [_plain(record.get(name)) for record in records] for name in names}
    series = {name: _column(pd, values, columns.get(name, {})) for name, values in data.items()}
    return pd.DataFrame(series, columns=list(names))


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _column(pd: Any, values: list[Any], schema: Schema) -> Any:
    whole, gaps = _DTYPES.get(str(schema.get("type")), ("", ""))
    with suppress(TypeError, ValueError, OverflowError):  # a number that no dtype holds stays what it is
        if whole:
            return pd.Series(values, dtype=gaps if None in values else whole)
        if schema.get("format") in ("date", "date-time"):
            return pd.to_datetime(pd.Series(values, dtype="object"))
    if not values and schema.get("type") == "string":
        return pd.Series(values, dtype="str")
    return pd.Series(values, dtype=None if values else "object")
