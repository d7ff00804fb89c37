"""The columns that values of an output type make: what kind each is, whatever library holds them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import pydantic
import typing_extensions

from llm_magic.errors import OutputTypeError
from llm_magic.output.schema import Schema
from llm_magic.output.schema.formats import NAIVE_DATETIME
from llm_magic.output.schema.keywords import resolve
from llm_magic.output.schema.python_types import unaliased

Kind = Literal[
    "int", "float", "bool", "str", "bytes", "date", "datetime", "time", "timedelta", "decimal", "category", "list",
    "record", "any",
]  # fmt: skip
_MOST_PLACES = 15
"""Decimal places of a `Decimal` whose type does not limit them: what the schema of one lets a model write."""

_MOST_FIELDS = 500
"""Of a record within a record, those in it included; one that has more is no type of column."""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """What the values of a column are; None may be among them always.

    Attributes
    ----------
    kind
        `category` is one of `words`, `list` has items of one kind, `record` has named fields; `any` is everything else.
    words
        The values of a category, in the order of their definition: strings, or whole numbers.
    item
        What the items of a list are.
    fields
        What the fields of a record are.
    places
        The decimal places of a `decimal`.
    naive
        Whether times of a `datetime` have no zone.

    """

    kind: Kind
    words: tuple[Any, ...] = ()
    item: Column | None = None
    fields: Mapping[str, Column] = dataclasses.field(default_factory=dict)
    places: int = _MOST_PLACES
    naive: bool = False

    def without_zones(self) -> Column:
        """Return the same with times that have no zone."""
        return dataclasses.replace(
            self,
            naive=True,
            item=self.item and self.item.without_zones(),
            fields={name: column.without_zones() for name, column in self.fields.items()},
        )


ANY = Column("any")
TEXT = Column("str")

_SCALARS: Mapping[type, Kind] = {
    bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes", dt.datetime: "datetime", dt.date: "date",
    dt.time: "time", dt.timedelta: "timedelta", decimal.Decimal: "decimal",
}  # fmt: skip
_OTHERS: Mapping[Any, Column] = {
    pydantic.NaiveDatetime: Column("datetime", naive=True),
    **dict.fromkeys((pydantic.AwareDatetime, pydantic.PastDatetime, pydantic.FutureDatetime), Column("datetime")),
    **dict.fromkeys((pydantic.PastDate, pydantic.FutureDate), Column("date")),
    uuid.UUID: TEXT,
}
_LISTS = (list, set, frozenset, Sequence, Iterable)
_JSON_TYPES: Mapping[str, Kind] = {"integer": "int", "number": "float", "boolean": "bool", "string": "str"}


def column_of(kind: Any, schema: Schema, root: Schema) -> Column:
    """Return what a column of values of this type is.

    Parameters
    ----------
    kind
        The Python type, None where there is but a schema.
    schema, root
        The schema of a value, and the document that it stands in.

    """
    found = None if kind is None else _of_type(kind, ())
    return found or _of_schema(schema, root, {})


def fields_of(kind: Any, schema: Schema, root: Schema) -> Mapping[str, Column] | None:
    """Return the fields of values that are records, all of those of alternatives; None for a type of other values.

    Parameters are those of `column_of`.
    """
    found = column_of(kind, schema, root)
    if found.kind == "record":
        return columns_of(kind, schema, root)
    if kind is not None:
        ways = [way for way in _alternatives(kind) if way is not types.NoneType]
        return columns_of(kind, schema, root) if len(ways) > 1 and all(map(_is_record, ways)) else None
    ways = [way for way in _ways(schema, root) if way.get("type") != "null"]
    is_record = len(ways) > 1 and all(way.get("properties") for way in ways)
    return columns_of(None, schema, root) if is_record else None


def columns_of(record: Any, item: Schema, root: Schema) -> Mapping[str, Column]:
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
        return {name: _of_schema(schema, root, {}) for name, schema in properties.items()}
    found: dict[str, Column] = {}
    for way in _alternatives(record):
        if way is types.NoneType:
            continue
        hints = _hints(way)
        for name, alias in _fields(way):
            column = column_of(hints.get(name), properties.get(alias, {}), root)
            found[name] = column if found.get(name, column) == column else ANY
    return found


def _alternatives(record: Any) -> tuple[Any, ...]:
    record = unaliased(record)
    inner = typing.get_args(record)
    if typing.get_origin(record) is typing.Annotated:
        return _alternatives(inner[0])
    if inner and typing.get_origin(record) in (typing.Union, types.UnionType):
        return tuple(each for part in inner for each in _alternatives(part))
    return (record,)


def _is_record(kind: Any) -> bool:
    kind = typing.get_origin(kind) or kind
    if getattr(kind, "__pydantic_root_model__", False):
        return False
    return isinstance(kind, type) and (
        isinstance(getattr(kind, "model_fields", None), Mapping)
        or dataclasses.is_dataclass(kind)
        or typing_extensions.is_typeddict(kind)
        or hasattr(kind, "_fields")
    )


def _fields(kind: Any) -> Iterator[tuple[str, str]]:
    """Yield the fields of a record type, each with its name in JSON."""
    kind = typing.get_origin(kind) or kind
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


def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of the fields of a record type; those that cannot be found are left out."""
    names = getattr(kind, "model_fields", None)
    if isinstance(names, Mapping):
        annotated: Any = typing.Annotated
        return {
            name: annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            for name, field in names.items()
        }
    try:
        return typing_extensions.get_type_hints(typing.get_origin(kind) or kind, include_extras=True)
    except Exception:  # noqa: BLE001 - names that are not defined here, or whatever an annotation raises
        return {}


def _of_type(kind: Any, above: tuple[Any, ...]) -> Column | None:
    """Return what values of a Python type are; None where only the schema may tell. `above` are the types around it."""
    kind = unaliased(kind)
    kind = getattr(kind, "__supertype__", kind)  # of NewType
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        found = _of_type(inner[0], above)
        return found and dataclasses.replace(found, places=_places(inner[1:]))
    if origin in (typing.Required, typing.NotRequired, typing_extensions.ReadOnly):
        return _of_type(inner[0], above)
    if origin in (typing.Union, types.UnionType):
        return _of_alternatives([part for part in inner if part is not types.NoneType], above)
    if origin is typing.Literal:
        return _of_words([value.value if isinstance(value, enum.Enum) else value for value in inner])
    if origin is tuple:
        items = [_of_type(part, above) or ANY for part in inner if part is not Ellipsis]
        return Column("list", item=items[0] if items and all(item == items[0] for item in items) else ANY)
    if any((origin or kind) is each for each in _LISTS):
        return Column("list", item=(_of_type(inner[0], above) if inner else None) or ANY)
    if not isinstance(kind, type) and not isinstance(origin, type):
        return None
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return Column("int") if issubclass(kind, enum.Flag) else _of_words([member.value for member in kind])
    if _is_record(kind):
        return _of_record(kind, above)
    if origin is not None:  # it may be of what is no key
        return None
    return Column(_SCALARS[kind]) if kind in _SCALARS else _OTHERS.get(kind)


def _of_record(kind: Any, above: tuple[Any, ...]) -> Column | None:
    if any(kind is each for each in above):  # a record that holds itself
        return ANY
    hints = _hints(kind)
    fields = {name: (_of_type(hints[name], (*above, kind)) if name in hints else None) for name, _ in _fields(kind)}
    return _bounded(Column("record", fields={k: column or ANY for k, column in fields.items()})) if fields else ANY


def _of_alternatives(ways: Sequence[Any], above: tuple[Any, ...]) -> Column | None:
    found = [_of_type(way, above) for way in ways]
    if found and all(each == found[0] for each in found):
        return found[0]
    return Column("float") if {each.kind for each in found if each} == {"int", "float"} and None not in found else ANY


def _of_words(words: Sequence[Any]) -> Column:
    """Return what the values of an enumeration are."""
    words = [word for word in words if word is not None]
    kinds = {type(word) for word in words}
    if kinds in ({str}, {int}):
        return Column("category", words=tuple(dict.fromkeys(words)))
    return Column(_SCALARS.get(kinds.pop(), "any")) if len(kinds) == 1 else ANY


def _places(metadata: Sequence[Any]) -> int:
    for each in metadata:
        for said in (each, *(getattr(each, "metadata", None) or ())):
            places = getattr(said, "decimal_places", None)
            if isinstance(places, int):
                return places
    return _MOST_PLACES


def _properties(item: Schema, root: Schema) -> Iterator[tuple[str, Schema]]:
    for way in _ways(item, root):
        yield from way.get("properties", {}).items()


def _ways(schema: Schema, root: Schema) -> Iterator[Schema]:
    """Yield a schema, or its alternatives, references followed, each once."""
    waiting, seen = [schema], set()
    while waiting:
        schema = resolve(waiting.pop(), root)
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        ways = [way for key in ("anyOf", "oneOf") for way in schema.get(key, ()) if isinstance(way, dict)]
        waiting += reversed(ways)
        if not ways:
            yield schema


def _of_schema(schema: Any, root: Schema, known: dict[int, Column]) -> Column:
    """Return what values of a JSON Schema are; `known` are the schemas seen, those around this one among them."""
    ways = [way for way in _ways(schema, root) if way.get("type") != "null"] if isinstance(schema, dict) else []
    if len(ways) != 1:
        kinds = {way.get("type") if len(way) == 1 else None for way in ways}
        return Column("float") if kinds == {"integer", "number"} else ANY
    schema = ways[0]
    if id(schema) not in known:
        known[id(schema)] = ANY  # within itself
        known[id(schema)] = _bounded(_of_one_schema(schema, root, known))
    return known[id(schema)]


def _of_one_schema(schema: Schema, root: Schema, known: dict[int, Column]) -> Column:
    if isinstance(schema.get("enum"), list) or "const" in schema:
        return _of_words(schema["enum"] if "enum" in schema else [schema["const"]])
    kind = schema.get("type")
    if isinstance(kind, list):
        named = [each for each in kind if each != "null"]
        kind = named[0] if len(named) == 1 else None
    if kind == "string":
        return _of_string(schema)
    if kind == "array" and "prefixItems" not in schema:
        return Column("list", item=_of_schema(schema.get("items"), root, known))
    if kind == "object" and schema.get("properties"):
        return Column("record", fields={k: _of_schema(v, root, known) for k, v in schema["properties"].items()})
    return Column(_JSON_TYPES[kind]) if isinstance(kind, str) and kind in _JSON_TYPES else ANY


def _bounded(column: Column) -> Column:
    """Return a column without the fields of fields that make it endless: what is named once may be meant very often."""
    if column.kind == "list" and column.item is not None and _size(column.item) > _MOST_FIELDS:
        return dataclasses.replace(column, item=ANY)
    if column.kind == "record":
        fields = {name: ANY if _size(field) > _MOST_FIELDS else field for name, field in column.fields.items()}
        return dataclasses.replace(column, fields=fields)
    return column


def _size(column: Column) -> int:
    return 1 + sum(map(_size, column.fields.values())) + (0 if column.item is None else _size(column.item))


def _of_string(schema: Schema) -> Column:
    if schema.get("format") == "date":
        return Column("date")
    if schema.get("format") == "date-time" or schema.get("pattern") == NAIVE_DATETIME:
        return Column("datetime", naive="format" not in schema)
    return TEXT
