"""`DataFrame[City]`: records bound as a DataFrame with one column a field."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import sys
from typing import Any, NamedTuple, NotRequired, TypedDict

import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_magic
from llm_magic.capabilities import Capabilities
from llm_magic.display import answer, table
from llm_magic.display.footer import footer
from llm_magic.errors import InvalidValueError, OutputTypeError
from llm_magic.output.dialects import apply
from llm_magic.output.spec import OutputSpec, spec_from
from llm_magic.response import Response


class Kind(enum.Enum):
    PORT = "port"


class City(pydantic.BaseModel):
    name: str
    people: int | None = None
    founded: dt.date
    capital: bool
    area: float
    kind: Kind = Kind.PORT
    tags: list[str] = []


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: str = "r"


NAMES: dict[str, Any] = {**globals()}
CITIES = json.dumps(
    [
        {"name": "Ulm", "people": 1, "founded": "0854-07-22", "capital": False, "area": 1},
        {"name": "Bonn", "founded": "2001-01-02", "capital": True, "area": 2.5, "people": None},
    ]
)


def frame_spec(expression: Any) -> OutputSpec:
    spec = spec_from(expression, namespace=NAMES)
    assert spec is not None
    return spec


@pytest.mark.parametrize("expression", ["DataFrame[City]", "pd.DataFrame[City]", llm_magic.DataFrame[City]])
def test_one_column_a_field_each_of_its_dtype(expression: Any) -> None:
    spec = frame_spec(expression)
    assert spec.title == "DataFrame[City]"
    frame = spec.parse(CITIES)
    assert type(frame) is pd.DataFrame
    assert list(frame.columns) == ["name", "people", "founded", "capital", "area", "kind", "tags"]
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert (kinds["people"], kinds["capital"], kinds["area"]) == ("Int64", "bool", "float64")
    assert kinds["founded"].startswith("datetime64")
    assert frame["people"].tolist() == [1, pd.NA]
    assert frame["kind"].tolist() == ["port", "port"]
    assert frame["founded"][1] == pd.Timestamp("2001-01-02")


@pytest.mark.parametrize(
    ("expression", "text", "columns", "rows"),
    [
        ("DataFrame[Point]", '[{"x": 1}]', ["x", "y"], [[1, 0.0]]),
        ("DataFrame[Pair]", '[{"left": 1}]', ["left", "right"], [[1, "r"]]),
        ("DataFrame[Movie]", '[{"title": "a"}]', ["title", "year"], [["a", pd.NA]]),
        ("DataFrame[name, age int]", '[{"name": "a", "age": 3}]', ["name", "age"], [["a", 3]]),
        ("DataFrame[name, age]", '[{"name": "a", "age": "3"}]', ["name", "age"], [["a", "3"]]),
        ("DataFrame['name, age int']", '{"value": [{"name": "a", "age": 3}]}', ["name", "age"], [["a", 3]]),
        (llm_magic.DataFrame["name, age int"], '[{"name": "a", "age": 3}]', ["name", "age"], [["a", 3]]),
        ("DataFrame[n int]", '[{"n": 100000000000000000000}]', ["n"], [[10**20]]),
    ],
)
def test_records_of_any_type(expression: Any, text: str, columns: list[str], rows: Any) -> None:
    frame = frame_spec(expression).parse(text)
    assert (list(frame.columns), frame.to_numpy(dtype=object).tolist()) == (columns, rows)


def test_enumerations_are_categories_and_times_of_several_zones_are_utc() -> None:
    frame = frame_spec("DataFrame[City]").parse(CITIES)
    assert frame["kind"].dtype == pd.CategoricalDtype(["port"])
    text = '[{"at": "2024-01-01T02:00:00+02:00"}, {"at": "2024-01-01T00:00:00Z"}]'
    times = frame_spec("DataFrame[at datetime]").parse(text)["at"]
    assert times.tolist() == [pd.Timestamp("2024-01-01", tz="UTC")] * 2


def test_no_records_keep_the_columns_and_their_dtypes() -> None:
    frame = frame_spec("DataFrame[City]").parse('{"value": []}')
    assert frame.empty
    kinds = [str(kind) for kind in frame.dtypes]
    assert kinds[1] == "int64"
    assert kinds[3:5] == ["bool", "float64"]
    assert list(frame.columns)[:2] == ["name", "people"]


@given(st.lists(st.builds(Point, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))))
@settings(max_examples=100, deadline=None)
def test_the_frame_is_the_records(points: list[Point]) -> None:
    text = json.dumps([dataclasses.asdict(point) for point in points])
    frame = frame_spec("DataFrame[Point]").parse(text)
    assert list(frame.itertuples(index=False, name=None)) == [(point.x, point.y) for point in points]
    assert [str(kind) for kind in frame.dtypes] == ["int64", "float64"]


@pytest.mark.parametrize("text", ['[{"x": "a"}]', '{"value": [{"x": true}]}', '{"x": 1}', "[1]"])
def test_a_wrong_record_is_not_bound(text: str) -> None:
    with pytest.raises(InvalidValueError):
        frame_spec("DataFrame[Point]").parse(text)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("DataFrame", "its columns are not known"),
        (pd.DataFrame, "its columns are not known"),
        ("DataFrame[int]", "int is no record, whose fields are the columns"),
        ("DataFrame[Cty]", "no name 'Cty'"),
        ("DataFrame[City, Point]", "one record type is needed"),
        ("DataFrame[name strng, age int]", "'strng' is no type of the short form"),
    ],
)
def test_what_has_no_columns_is_refused(expression: Any, reason: str) -> None:
    with pytest.raises(OutputTypeError) as caught:
        frame_spec(expression)
    assert reason in caught.value.message


def test_without_pandas_it_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(OutputTypeError, match=r"DataFrame\[name, age\]: pandas is not installed") as caught:
        frame_spec("DataFrame[name, age]")
    assert "%pip install pandas" in caught.value.hint


def test_the_request_asks_for_a_list_of_records() -> None:
    schema = apply(frame_spec("DataFrame[Point]"), Capabilities(dialects={"json": "structured_outputs"})).fields
    listed = apply(frame_spec("list[Point]"), Capabilities(dialects={"json": "structured_outputs"})).fields
    assert schema == listed


def test_it_is_shown_as_the_table_that_it_is() -> None:
    frame = frame_spec("DataFrame[name, age int?]").parse('[{"name": "<b>", "age": null}, {"name": "c", "age": 2}]')
    shown = table.shown(frame)
    assert shown["text/plain"] == "name  age\n<b>\nc     2"
    assert "&lt;b&gt;" in shown["text/html"]
    response = Response(text="[]", value=frame, structured="prompt")
    assert answer.finished(response, "markdown")["text/html"] == shown["text/html"]
    assert response.to_frame() is frame
    assert "to_frame" not in footer(response)


def test_the_footer_of_a_list_of_records_names_the_way_to_a_frame() -> None:
    assert footer(Response(model="m", value=[{"a": 1}])).endswith("as a DataFrame: _llm.to_frame()")
    assert "to_frame" not in footer(Response(model="m", value=[1]))
