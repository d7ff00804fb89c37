"""What a column of values is, of Python types and of JSON Schemas, endless ones among them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import pickle
import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypeVar

import pydantic
import pytest
import typing_extensions

from llm_magic.errors import OutputTypeError
from llm_magic.output.columns import ANY, TEXT, Column, column_of, columns_of, fields_of
from llm_magic.output.schema.shape import Shape


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Node(pydantic.BaseModel):
    name: str
    below: list[Node] = []


T = TypeVar("T")


class Box(pydantic.BaseModel, Generic[T]):
    inside: T


class Pair(NamedTuple):
    left: int
    right: Colour | None = None


@dataclasses.dataclass
class Event:
    at: pydantic.NaiveDatetime
    id: uuid.UUID
    of: pydantic.HttpUrl


UserId = NewType("UserId", int)
Size = typing_extensions.TypeAliasType("Size", Literal["s", "m"])


def of(kind: Any) -> Column:
    schema = Shape(kind, "T").schema
    return column_of(kind, schema, schema)


NO_KEY = pydantic.Field(examples=[[1]], json_schema_extra={"a": []})
COLOURS = Column("category", words=("red", "blue"))


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        (bool, Column("bool")),
        (int, Column("int")),
        (Optional[int], Column("int")),  # noqa: UP045 - that spelling, too
        (UserId, Column("int")),
        (pydantic.PositiveInt, Column("int")),
        (float | int, Column("float")),
        (int | str, ANY),
        (Any, ANY),
        (uuid.UUID, TEXT),
        (pydantic.HttpUrl, TEXT),
        (bytes, Column("bytes")),
        (dt.timedelta, Column("timedelta")),
        (dt.time, Column("time")),
        (dt.datetime, Column("datetime")),
        (Decimal, Column("decimal")),
        (Annotated[Decimal, pydantic.Field(decimal_places=2)], Column("decimal", places=2)),
        (Colour, COLOURS),
        (Access, Column("int")),
        (Size, Column("category", words=("s", "m"))),
        (Literal["a", None], Column("category", words=("a",))),  # noqa: PYI061 - that spelling, too
        (Literal[Colour.BLUE], Column("category", words=("blue",))),
        (Literal[2, 1], Column("category", words=(2, 1))),
        (Literal[1, "a"], ANY),
        (Literal[True], Column("bool")),
        (list, Column("list", item=ANY)),
        (set[Colour], Column("list", item=COLOURS)),
        (tuple[int, int], Column("list", item=Column("int"))),
        (tuple[int, str], Column("list", item=ANY)),
        (dict[str, int], ANY),
        (dict[str, Annotated[int, NO_KEY]], ANY),
        (list[Annotated[int, NO_KEY]], Column("list", item=Column("int"))),
        (tuple[Annotated[int, NO_KEY], int], Column("list", item=Column("int"))),
        (Iterable[int], Column("list", item=Column("int"))),
        (Pair, Column("record", fields={"left": Column("int"), "right": COLOURS})),
        (Box[int], Column("record", fields={"inside": Column("int")})),
        (Node, Column("record", fields={"name": TEXT, "below": Column("list", item=ANY)})),
    ],
)
def test_python_types(kind: Any, column: Column) -> None:
    assert of(kind) == column


def test_what_no_python_type_says_the_schema_does() -> None:
    schema = Shape(Event, "Event").schema
    assert fields_of(Event, schema, schema) == {"at": Column("datetime", naive=True), "id": TEXT, "of": TEXT}
    schema = {"type": "string", "format": "date"}
    assert column_of(None, schema, schema) == Column("date")


def test_a_root_model_is_what_it_holds() -> None:
    class Numbers(pydantic.RootModel[list[int]]):
        pass

    assert of(Numbers) == Column("list", item=Column("int"))


@pytest.mark.parametrize(
    ("schema", "column"),
    [
        ({}, ANY),
        ({"type": "integer"}, Column("int")),
        ({"type": ["null", "number"]}, Column("float")),
        ({"type": ["integer", "string"]}, ANY),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, Column("int")),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, Column("float")),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, ANY),
        ({"enum": ["b", "a", None]}, Column("category", words=("b", "a"))),
        ({"enum": ["a", 1]}, ANY),
        ({"enum": []}, ANY),
        ({"const": "x"}, Column("category", words=("x",))),
        ({"enum": [True, False]}, Column("bool")),
        ({"type": "string", "format": "date-time"}, Column("datetime")),
        ({"type": "string", "format": "email"}, TEXT),
        ({"type": "array", "items": {"type": "boolean"}}, Column("list", item=Column("bool"))),
        ({"type": "array"}, Column("list", item=ANY)),
        ({"type": "array", "prefixItems": [{"type": "integer"}]}, ANY),
        ({"type": "object"}, ANY),
        ({"type": "object", "properties": {"a": True}}, Column("record", fields={"a": ANY})),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "integer"}}}, Column("int")),
        ({"$ref": "https://elsewhere/"}, ANY),
    ],
)
def test_schemas(schema: Any, column: Column) -> None:
    assert column_of(None, schema, schema) == column


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}, {"type": "integer"}, {"type": "string"}]},
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "object", "properties": {name: {"$ref": "#"} for name in "abcdefgh"}},
    ],
)
def test_schemas_that_hold_themselves_end(schema: Any) -> None:
    assert column_of(None, schema, schema).kind in ("any", "list", "record")
    fields_of(None, schema, schema)


def test_schemas_that_double_at_each_level_end() -> None:
    levels = {
        str(n): {"type": "object", "properties": {k: {"$ref": f"#/$defs/{n + 1}"} for k in "ab"}} for n in range(40)
    }
    schema = {"$ref": "#/$defs/0", "$defs": {**levels, "40": {"type": "integer"}}}
    fields = fields_of(None, schema, schema)
    assert fields is not None
    assert len(repr(fields)) < 200_000


def test_many_fields_at_the_top_are_all_columns() -> None:
    schema = {"type": "object", "properties": {f"f{n}": {"type": "integer"} for n in range(2_000)}}
    fields = fields_of(None, schema, schema)
    assert fields is not None
    assert len(fields) == 2_000


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Pair, ["left", "right"]),
        (Pair | None, ["left", "right"]),
        (Pair | Node, ["left", "right", "name", "below"]),
        (Pair | int, None),
        (dict[str, int], None),
        (list[Pair], None),
        (int, None),
    ],
)
def test_fields(kind: Any, names: list[str] | None) -> None:
    schema = Shape(kind, "T").schema
    fields = fields_of(kind, schema, schema)
    assert (None if fields is None else list(fields)) == names


def test_a_field_of_two_kinds_is_of_any() -> None:
    schema = Shape(Pair | Box[str], "T").schema
    assert columns_of(Pair | Box[str], schema, schema)["left"] == Column("int")

    class Other(NamedTuple):
        left: str

    schema = Shape(Pair | Other, "T").schema
    assert columns_of(Pair | Other, schema, schema)["left"] == ANY


def test_no_record_has_no_columns() -> None:
    with pytest.raises(OutputTypeError, match="int is no record"):
        columns_of(int, {}, {})


def test_without_zones_all_the_way_down() -> None:
    inner = Column("record", fields={"at": Column("datetime")})
    bare = Column("list", item=inner).without_zones()
    assert bare.item is not None
    assert bare.item.fields["at"].naive


def test_columns_are_plain_data() -> None:
    column = of(Node)
    assert pickle.loads(pickle.dumps(column)) == column  # noqa: S301 - our own bytes
