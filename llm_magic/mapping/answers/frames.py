"""DataFrame in, DataFrame of the same kind out: the answers as further columns, known before any has come.

pandas, polars and pyarrow are imported only for a table of theirs.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import importlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llm_magic.errors import OptionError, error_line
from llm_magic.mapping.rows import Outcome
from llm_magic.output.columns import ANY, TEXT, Column, column_of, fields_of
from llm_magic.output.spec import OutputSpec
from llm_magic.records import record_of

FrameKind = Literal["pandas", "polars", "pyarrow"]
ERROR = "error"
"""The column that says, of a row that failed, why."""
ANSWER = "answer"
"""The column of answers that are no records, where no name is given."""


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """The columns that the answers of one output type make.

    Attributes
    ----------
    columns
        What each is, by name, in their order.
    is_record
        Whether they are the fields of a record; else there is one column, of the values as they are.

    """

    columns: Mapping[str, Column]
    is_record: bool


def columns_for(spec: OutputSpec | None, name: str = ANSWER, *, several: bool = False) -> AnswerColumns:
    """Return the columns of an output type: the fields of a record, or one of this name.

    `spec` is None for plain text; of `several` answers a row (`--n`) the column holds lists.
    """
    if spec is not None and spec.kind == "json" and not several:
        fields = fields_of(spec.shape and spec.shape.kind, spec.schema, spec.schema) if spec.columns is None else None
        if fields:
            return AnswerColumns(fields, is_record=True)
    column = _column_of(spec)
    return AnswerColumns({name: Column("list", item=column) if several else column}, is_record=False)


def _column_of(spec: OutputSpec | None) -> Column:
    if spec is None or spec.kind in ("regex", "grammar"):
        return TEXT
    if spec.columns is not None:
        return ANY  # a DataFrame in each row
    if spec.kind == "choices":
        return Column("category", words=spec.choices)
    return column_of(spec.shape and spec.shape.kind, spec.schema, spec.schema)


def check_names(
    columns: Iterable[Any], spec: OutputSpec | None, out_name: str = ANSWER, *, several: bool = False
) -> None:
    """Raise `OptionError` where a column of the answers would have the name of a column that is there, or of `error`.

    Parameters
    ----------
    columns
        The names of the columns of the input.
    spec, out_name, several
        As in `bind_back`.

    """
    there = [name[0] if isinstance(name, tuple) and not any(name[1:]) else name for name in columns]
    made = columns_for(spec, out_name, several=several)
    new = list(made.columns)
    if ERROR in there:
        raise OptionError(
            f"The input has a column {ERROR!r}; the errors of rows that fail go into one of this name.",
            "Rename that column, or leave it out of the input.",
        )
    if ERROR in new:
        what = f"The output type has a field {ERROR!r}" if made.is_record else f"--out is {ERROR!r}"
        raise OptionError(
            f"{what}; the errors of rows that fail go into a column of this name.",
            "Rename that field." if made.is_record else "Take another name: --out answers.",
        )
    twice = [name for name in new if name in there]
    if twice and made.is_record:
        raise OptionError(
            f"The input has a column {_listed(twice)} already, which is a field of the output type, too.",
            "Rename the one or the other, or leave the column out of the input.",
        )
    if twice:
        raise OptionError(
            f"The input has a column {_listed(twice)} already, where the answers are to be.",
            "Take another name: --out NAME is that of the column, too.",
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def bind_back(
    source: Any,
    kind: FrameKind,
    outcomes: Iterable[Outcome],
    spec: OutputSpec | None,
    out_name: str = ANSWER,
    *,
    several: bool = False,
) -> Any:
    """Return a table with the answers as further columns: same rows, order, index and columns before them.

    The fields of a record are a column each, any other value is in one column. There is a column `error`, with the
    class of the error and its message, if any row failed. Columns and their types come from the output type, so that
    they are there, too, where every row failed. Whole numbers stay whole, `Literal` and enumerations are categories,
    dates are dates, lists are lists. Records in records are structs in polars and pyarrow, dicts in pandas. What no
    type of column holds (`Any`, a dict, unions) is Python's object in pandas, and JSON as text in the others.

    Parameters
    ----------
    source, kind
        The table that the rows came from, which is not changed, and whose it is.
    outcomes
        One for each row, in any order.
    spec
        The output type; None is plain text.
    out_name
        The name of the column of values that are no records.
    several
        Whether a value is a list of several answers (`--n`).

    """
    found = in_order(outcomes, len(source))
    data = filled(found, columns_for(spec, out_name, several=several), taken=names_of(source, kind))
    return with_columns(source, kind, data)


def names_of(source: Any, kind: FrameKind) -> list[str]:
    """Return the names of the columns of a table, as text."""
    return [str(name) for name in (source.schema.names if kind == "pyarrow" else source.columns)]


def with_columns(source: Any, kind: FrameKind, data: Data) -> Any:
    """Return a table with further columns of as many values as it has rows; `source` is not changed."""
    return _ADDED[kind](source, data)


def in_order(outcomes: Iterable[Outcome], length: int | None = None) -> list[Outcome]:
    """Return outcomes in the order of their rows, of which each has exactly one; else `ValueError`."""
    found = sorted(outcomes, key=lambda outcome: outcome.number)
    if [outcome.number for outcome in found] != list(range(len(found) if length is None else length)):
        raise ValueError("There is not exactly one outcome for each row.")
    return found


Data = dict[str, tuple[Column, list[Any]]]
"""By name of a column: what it is, and its values, None for a gap."""


def filled(outcomes: Sequence[Outcome], made: AnswerColumns, taken: Iterable[str] = ()) -> Data:
    """Return the columns of the answers with their values, and with `error` where any row failed.

    Fields that the output type does not name come behind it; a name that is `taken` gets a `_` at its end.
    """
    values = [plain(outcome.value) for outcome in outcomes]
    if made.is_record:
        data = _of_records(values, made.columns, {*taken, ERROR})
    else:
        data = {name: (column, values) for name, column in made.columns.items()}
    if any(outcome.error is not None for outcome in outcomes):
        said = [None if outcome.error is None else error_line(outcome.error) for outcome in outcomes]
        data[free_name(ERROR, data)] = (TEXT, said)
    return data


def _of_records(values: Sequence[Any], columns: Mapping[str, Column], taken: set[str]) -> Data:
    records = [value if isinstance(value, dict) else {} for value in values]
    data = {name: (column, [record.get(name) for record in records]) for name, column in columns.items()}
    for name in dict.fromkeys(name for record in records for name in record if name not in columns):
        data[free_name(name, {*taken, *data})] = (ANY, [record.get(name) for record in records])
    return data


def free_name(name: str, taken: Iterable[str]) -> str:
    """Return a name that is not taken: with a `_` at its end, or more, where it is."""
    names = set(taken)
    while name in names:
        name += "_"
    return name


_PLAIN = (str, int, float, bool, type(None))


def plain(value: Any) -> Any:
    """Return a value with records as dicts, members of enumerations as their values, tuples and sets as lists."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if getattr(type(value), "__pydantic_root_model__", False):
        return plain(value.root)
    record = record_of(value)
    if record is not None:
        return {name: plain(item) for name, item in record.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple, set, frozenset)) else value


# --- pandas ---


def pandas_frame(data: Data, index: Any) -> Any:
    """Return columns as a pandas DataFrame with this index; `ImportError` where pandas is not installed."""
    pd = importlib.import_module("pandas")
    from llm_magic.output.dataframe import series_of

    series = {name: series_of(values, column) for name, (column, values) in data.items()}
    return pd.DataFrame(series, columns=list(data)).set_axis(index)


def _to_pandas(source: Any, data: Data) -> Any:
    pd = importlib.import_module("pandas")
    new = pandas_frame(data, source.index)
    levels = source.columns.nlevels
    if levels > 1:
        new.columns = pd.MultiIndex.from_tuples([(name, *[""] * (levels - 1)) for name in data])
    new.columns.names, new.attrs = source.columns.names, source.attrs
    return pd.concat([source, new], axis=1)  # at once: one by one pandas warns of fragments


# --- polars and pyarrow: values of exactly one type ---

_DIGITS = 38
"""What their decimals hold."""


def _to_polars(source: Any, data: Data) -> Any:
    pl = importlib.import_module("polars")

    def made(name: str, values: list[Any], column: Column) -> Any:
        return pl.Series(name, values, dtype=_polars_type(pl, column))

    return source.with_columns([_typed(name, *each, made) for name, each in data.items()])


def _to_pyarrow(source: Any, data: Data) -> Any:
    pa = importlib.import_module("pyarrow")

    def made(_: str, values: list[Any], column: Column) -> Any:
        if column.kind != "category":
            return pa.array(values, type=_arrow_type(pa, column))
        places = {word: place for place, word in enumerate(column.words)}
        numbers = pa.array([None if value is None else places[value] for value in values], type=pa.int32())
        return pa.DictionaryArray.from_arrays(numbers, pa.array(column.words, type=_words_type(pa, column)))

    for name, each in data.items():
        source = source.append_column(name, _typed(name, *each, made))
    return source


_ADDED: Mapping[FrameKind, Callable[[Any, Data], Any]] = {
    "pandas": _to_pandas,
    "polars": _to_polars,
    "pyarrow": _to_pyarrow,
}


def _typed(name: str, column: Column, values: list[Any], made: Callable[[str, list[Any], Column], Any]) -> Any:
    """Return a column of its type, with times without zones where these have none, or of text where nothing else."""
    for attempt in (column, column.without_zones()):
        try:
            return made(name, [_exact(value, attempt) for value in values], attempt)
        except (TypeError, ValueError, ArithmeticError, LookupError):
            continue
        except Exception as error:  # polars has errors of its own, which are none of Python's
            if not type(error).__module__.startswith("polars"):
                raise
    return made(name, [_text(value) for value in values], TEXT)


def _polars_type(pl: Any, column: Column) -> Any:
    match column.kind:
        case "list" if column.item is not None:
            return pl.List(_polars_type(pl, column.item))
        case "record":
            return pl.Struct({name: _polars_type(pl, field) for name, field in column.fields.items()})
        case "category":
            return pl.Enum(list(column.words)) if isinstance(column.words[0], str) else pl.Int64()
        case "datetime":
            return pl.Datetime("us", None if column.naive else "UTC")
        case "timedelta":
            return pl.Duration("us")
        case "decimal":
            return pl.Decimal(_DIGITS, column.places)
    types = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "bytes": pl.Binary, "date": pl.Date}
    return types.get(column.kind, pl.Time if column.kind == "time" else pl.String)()


def _arrow_type(pa: Any, column: Column) -> Any:
    match column.kind:
        case "list" if column.item is not None:
            return pa.list_(_arrow_type(pa, column.item))
        case "record":
            return pa.struct([(name, _arrow_type(pa, field)) for name, field in column.fields.items()])
        case "category":  # in a list or a record
            return pa.dictionary(pa.int32(), _words_type(pa, column))
        case "datetime":
            return pa.timestamp("us", tz=None if column.naive else "UTC")
        case "timedelta":
            return pa.duration("us")
        case "time":
            return pa.time64("us")
        case "decimal":
            return pa.decimal128(_DIGITS, column.places)
    types = {"int": pa.int64, "float": pa.float64, "bool": pa.bool_, "bytes": pa.binary, "date": pa.date32}
    return types.get(column.kind, pa.string)()


def _words_type(pa: Any, column: Column) -> Any:
    return pa.string() if isinstance(column.words[0], str) else pa.int64()


def _exact(value: Any, column: Column) -> Any:
    """Return a value as a library has to be given it, which might lose something otherwise; `ValueError` if it would.

    Half characters (lone surrogates), which no library holds, are written as escapes.
    """
    if value is None:
        return None
    match column.kind:
        case "any":
            return _text(value)
        case "str":
            return _text(value) if not isinstance(value, (dict, list)) else _refuse(value)
        case "list" if column.item is not None:
            item = column.item
            return [_exact(each, item) for each in value] if isinstance(value, list) else _refuse(value)
        case "record":
            if not isinstance(value, dict) or not value.keys() <= column.fields.keys():
                return _refuse(value)
            return {name: _exact(value.get(name), field) for name, field in column.fields.items()}
        case "category":
            return value if value in column.words else _refuse(value)
        case "int":
            whole = isinstance(value, (int, float)) and int(value) == value
            return int(value) if whole else _refuse(value)
        case "float":
            return float(value) if isinstance(value, (int, float)) else _refuse(value)
        case "date":
            return dt.date.fromisoformat(value) if isinstance(value, str) else value
        case "datetime":
            return _time(dt.datetime.fromisoformat(value) if isinstance(value, str) else value, column)
        case "time":
            return value if value.tzinfo is None else _refuse(value)
        case "decimal":
            return value if _fits(value, column.places) else _refuse(value)
    return value


def _time(value: dt.datetime, column: Column) -> dt.datetime:
    if (value.tzinfo is None) != column.naive:
        raise ValueError
    return value if column.naive else value.astimezone(dt.UTC)


def _fits(value: decimal.Decimal, places: int) -> bool:
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -places and value.adjusted() < _DIGITS - places


def _refuse(value: Any) -> Any:
    raise ValueError(type(value).__name__)


def _text(value: Any) -> str | None:
    """Return a value as text: strings as they are, all else as JSON or as Python writes it."""
    if value is None:
        return None
    if isinstance(value, (dict, list, bool)):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return str(value).encode("utf-8", "backslashreplace").decode()
