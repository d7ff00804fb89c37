"""DataFrame in, DataFrame of the same kind out: rows, order, index, types, names that are taken."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import subprocess
import sys
from decimal import Decimal
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
import pandas as pd
import polars as pl
import polars.testing
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.errors import InvalidValueError, LLMError, OptionError, RateLimitedError
from llm_magic.mapping.answers.frames import bind_back, check_names, columns_for
from llm_magic.mapping.rows import Outcome
from llm_magic.output.spec import OutputSpec, spec_from
from llm_magic.response import Response

STR = str(pd.Series(dtype="str").dtype)  # before pandas 3 that of objects


class Kind(enum.Enum):
    GOODS = "goods"
    SERVICE = "service"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Person(pydantic.BaseModel):
    name: str
    born: dt.date | None = None


class Review(pydantic.BaseModel):
    stars: int
    score: float
    good: bool
    topic: Literal["price", "quality"]
    kind: Kind
    day: dt.date
    paid: Annotated[Decimal, pydantic.Field(decimal_places=2)]
    tags: list[str]
    by: Person
    note: str | None = None


REVIEW = Review(
    stars=5, score=0.5, good=True, topic="quality", kind=Kind.SERVICE, day=dt.date(2024, 2, 29), paid=Decimal("1.25"),
    tags=["a", "b"], by=Person(name="Ada", born=dt.date(1815, 12, 10)),
)  # fmt: skip


def well(number: int, value: Any) -> Outcome:
    return Outcome(number, Response(value=value))


def ill(number: int, error: LLMError | None = None) -> Outcome:
    return Outcome(number, error=error or RateLimitedError("Too many requests."))


def typed(kind: Any) -> OutputSpec:
    spec = spec_from(kind)
    assert spec is not None
    return spec


TOPIC = pd.CategoricalDtype(["price", "quality"])
KIND = pd.CategoricalDtype(["goods", "service"])


def test_pandas_has_the_fields_as_columns_each_of_its_dtype() -> None:
    source = pd.DataFrame({"text": ["x", "y"]}, index=[7, 7])
    found = bind_back(source, "pandas", [well(1, REVIEW), well(0, REVIEW)], typed(Review))
    expected = pd.DataFrame(
        {
            "text": ["x", "y"],
            "stars": pd.Series([5, 5], dtype="int64", index=[7, 7]),
            "score": [0.5, 0.5],
            "good": [True, True],
            "topic": pd.Categorical(["quality"] * 2, dtype=TOPIC),
            "kind": pd.Categorical(["service"] * 2, dtype=KIND),
            "day": pd.Series([pd.Timestamp(2024, 2, 29)] * 2, dtype="datetime64[us]", index=[7, 7]),
            "paid": pd.Series([Decimal("1.25")] * 2, dtype=object, index=[7, 7]),
            "tags": pd.Series([["a", "b"]] * 2, dtype=object, index=[7, 7]),
            "by": pd.Series([{"name": "Ada", "born": dt.date(1815, 12, 10)}] * 2, dtype=object, index=[7, 7]),
            "note": pd.Series([None, None], dtype="str", index=[7, 7]),
        },
        index=[7, 7],
    )
    pd.testing.assert_frame_equal(found, expected)
    assert list(source.columns) == ["text"]


def test_pandas_keeps_whole_numbers_and_truth_where_a_row_failed() -> None:
    source = pd.DataFrame({"text": ["x", "y"]})
    found = bind_back(source, "pandas", [ill(0), well(1, REVIEW)], typed(Review))
    kinds = {name: str(kind) for name, kind in found.dtypes.items()}
    assert (kinds["stars"], kinds["good"], kinds["score"], kinds["error"]) == ("Int64", "boolean", "float64", STR)
    assert (found.topic.dtype, kinds["day"]) == (TOPIC, "datetime64[us]")
    assert found.stars.tolist() == [pd.NA, 5]
    assert found.error[0] == "RateLimitedError: Too many requests."
    assert pd.isna(found.error[1])


def test_polars_has_its_own_types() -> None:
    source = pl.DataFrame({"text": ["x", "y"]})
    found = bind_back(source, "polars", [well(0, REVIEW), ill(1)], typed(Review))
    born = {"name": pl.String, "born": pl.Date}
    schema = {
        "text": pl.String, "stars": pl.Int64, "score": pl.Float64, "good": pl.Boolean,
        "topic": pl.Enum(["price", "quality"]), "kind": pl.Enum(["goods", "service"]), "day": pl.Date,
        "paid": pl.Decimal(38, 2), "tags": pl.List(pl.String), "by": pl.Struct(born), "note": pl.String,
        "error": pl.String,
    }  # fmt: skip
    expected = pl.DataFrame(
        {
            "text": ["x", "y"], "stars": [5, None], "score": [0.5, None], "good": [True, None],
            "topic": ["quality", None], "kind": ["service", None], "day": [dt.date(2024, 2, 29), None],
            "paid": [Decimal("1.25"), None], "tags": [["a", "b"], None],
            "by": [{"name": "Ada", "born": dt.date(1815, 12, 10)}, None], "note": [None, None],
            "error": [None, "RateLimitedError: Too many requests."],
        },
        schema=schema,
    )  # fmt: skip
    polars.testing.assert_frame_equal(found, expected, categorical_as_str=False)


def test_pyarrow_has_its_own_types_and_keeps_its_metadata() -> None:
    source = pa.table({"text": ["x", "y"]}).replace_schema_metadata({"mine": "1"})
    found = bind_back(source, "pyarrow", [well(0, REVIEW), ill(1)], typed(Review))
    words = pa.dictionary(pa.int32(), pa.string())
    assert dict(zip(found.schema.names, found.schema.types, strict=True)) == {
        "text": pa.string(), "stars": pa.int64(), "score": pa.float64(), "good": pa.bool_(), "topic": words,
        "kind": words, "day": pa.date32(), "paid": pa.decimal128(38, 2), "tags": pa.list_(pa.string()),
        "by": pa.struct([("name", pa.string()), ("born", pa.date32())]), "note": pa.string(), "error": pa.string(),
    }  # fmt: skip
    assert found["topic"].combine_chunks().dictionary.to_pylist() == ["price", "quality"]
    assert found.schema.metadata == {b"mine": b"1"}
    assert found.to_pylist()[0]["by"] == {"name": "Ada", "born": dt.date(1815, 12, 10)}
    assert found.to_pylist()[1] == {
        **dict.fromkeys(found.schema.names), "text": "y", "error": "RateLimitedError: Too many requests.",
    }  # fmt: skip


EMPTY: dict[str, Any] = {
    "pandas": pd.DataFrame({"text": ["x", "y"]}),
    "polars": pl.DataFrame({"text": ["x", "y"]}),
    "pyarrow": pa.table({"text": ["x", "y"]}),
}


def types_of(frame: Any) -> dict[str, str]:
    schema = frame.dtypes.items() if isinstance(frame, pd.DataFrame) else None
    if schema is None:
        schema = frame.schema.items() if isinstance(frame, pl.DataFrame) else zip(
            frame.schema.names, frame.schema.types, strict=True
        )  # fmt: skip
    return {name: str(kind) for name, kind in schema}


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_types_are_the_same_where_some_failed_and_where_all_did(kind: Any) -> None:
    some = bind_back(EMPTY[kind], kind, [well(0, REVIEW), ill(1)], typed(Review))
    none = bind_back(EMPTY[kind], kind, [ill(0), ill(1)], typed(Review))
    assert types_of(some) == types_of(none)


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_an_empty_table_gets_the_columns_and_no_errors(kind: Any) -> None:
    source = EMPTY[kind][:0] if kind != "pyarrow" else EMPTY[kind].slice(0, 0)
    found = bind_back(source, kind, [], typed(Review))
    whole = bind_back(EMPTY[kind], kind, [well(0, REVIEW), well(1, REVIEW)], typed(Review))
    assert len(found) == 0
    assert types_of(found) == types_of(whole)


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (pd.MultiIndex.from_tuples([("a", 1), ("a", 1)], names=["l", None]), "multi"),
        (pd.DatetimeIndex(["2024-01-01", "2023-01-01"], name="when"), "dates"),
        (pd.CategoricalIndex(["b", "b"]), "categories"),
        (pd.Index([None, np.nan], dtype=object), "missing"),
    ],
)
def test_any_index_stays(index: pd.Index, name: str) -> None:
    source = pd.DataFrame({"text": ["x", "y"], 3: [1.5, None]}, index=index)
    source.attrs["from"] = name
    found = bind_back(source, "pandas", [well(0, "one"), ill(1)], None, "label")
    pd.testing.assert_frame_equal(found[["text", 3]], source)
    assert list(found.columns) == ["text", 3, "label", "error"]
    assert found.attrs == {"from": name}
    pd.testing.assert_index_equal(found.index, index)


def test_columns_of_several_levels_stay() -> None:
    source = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]))
    found = bind_back(source, "pandas", [well(0, "one")], None)
    assert list(found.columns) == [("a", "x"), ("a", "y"), ("answer", "")]


def test_five_hundred_fields_are_added_at_once() -> None:
    spec = spec_from(schema={"type": "object", "properties": {f"f{n}": {"type": "integer"} for n in range(500)}})
    found = bind_back(EMPTY["pandas"], "pandas", [ill(0), ill(1)], spec)
    assert found.shape == (2, 502)


def test_a_class_of_the_users_own_stays() -> None:
    class Mine(pd.DataFrame):
        @property
        def _constructor(self) -> type[Mine]:
            return Mine

    assert type(bind_back(Mine({"a": [1]}), "pandas", [well(0, "x")], None)) is Mine


@dataclasses.dataclass
class Node:
    name: str
    below: list[Node]


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


@pytest.mark.parametrize(
    ("kind", "value", "dtypes", "stored"),
    [
        (int, 3, ("int64", "Int64", "int64"), 3),
        (bool, True, ("bool", "Boolean", "bool"), True),
        (float, 1.5, ("float64", "Float64", "double"), 1.5),
        (Kind, Kind.GOODS, ("category", "Enum(categories=['goods', 'service'])", "dictionary"), "goods"),
        (Level, Level.HIGH, ("category", "Int64", "dictionary"), 2),
        (Literal[1, 2], 2, ("category", "Int64", "dictionary"), 2),
        (Literal[True, False], True, ("bool", "Boolean", "bool"), True),
        (list[int], [1, 2], ("object", "List(Int64)", "list<item: int64>"), [1, 2]),
        (set[str], {"a"}, ("object", "List(String)", "list<item: string>"), ["a"]),
        (tuple[int, ...], (1, 2), ("object", "List(Int64)", "list<item: int64>"), [1, 2]),
        (list[Kind], [Kind.GOODS], ("object", "List(Enum(categories=['goods', 'service']))", "list<"), ["goods"]),
        (dt.date, dt.date(1, 1, 1), ("datetime64[us]", "Date", "date32[day]"), dt.date(1, 1, 1)),
        (dt.time, dt.time(1, 2), ("object", "Time", "time64[us]"), dt.time(1, 2)),
        (dt.timedelta, dt.timedelta(1), ("timedelta64[us]", "Duration(", "duration[us]"), dt.timedelta(1)),
        (dict[str, int], {"a": 1}, ("object", "String", "string"), {"a": 1}),
        (int | str, "12", ("object", "String", "string"), "12"),
        (int | float, 1.5, ("float64", "Float64", "double"), 1.5),
        (int | None, 3, ("int64", "Int64", "int64"), 3),
        (list[Node], [Node("a", [])], ("object", "List(Struct(", "list<item: struct<"), None),
    ],
)  # fmt: skip
def test_a_value_that_is_no_record_is_one_column(kind: Any, value: Any, dtypes: tuple[str, ...], stored: Any) -> None:
    names = ("pandas", "polars", "pyarrow")
    sources = (pd.DataFrame({"a": [1]}), pl.DataFrame({"a": [1]}), pa.table({"a": [1]}))
    for library, source, dtype in zip(names, sources, dtypes, strict=True):
        found = bind_back(source, library, [well(0, value)], typed(kind), "label")
        assert types_of(found)["label"].startswith(dtype), library
        got = found.to_pylist()[0]["label"] if library == "pyarrow" else found["label"][0]
        if stored is not None and not isinstance(got, str):
            got = got.to_list() if isinstance(got, pl.Series) else got
            assert (got.date() if type(got) is pd.Timestamp else got) == stored


def test_json_that_no_type_of_column_holds_is_text_but_in_pandas() -> None:
    outcomes = [well(0, {"a": [1, None]}), well(1, {"b": "é"})]
    spec = typed(dict[str, Any])
    assert bind_back(EMPTY["pandas"], "pandas", outcomes, spec).answer.tolist() == [{"a": [1, None]}, {"b": "é"}]
    assert bind_back(EMPTY["polars"], "polars", outcomes, spec)["answer"].to_list() == [
        '{"a": [1, null]}',
        '{"b": "é"}',
    ]
    assert bind_back(EMPTY["pyarrow"], "pyarrow", outcomes, spec)["answer"].to_pylist()[1] == '{"b": "é"}'


def test_choices_are_a_category_in_the_order_given() -> None:
    spec = spec_from(choices="yes,no,perhaps")
    found = bind_back(EMPTY["pandas"], "pandas", [well(0, "no"), well(1, "yes")], spec, "label")
    assert list(found.label.cat.categories) == ["yes", "no", "perhaps"]


def test_several_answers_a_row_are_a_list() -> None:
    outcomes = [well(0, [REVIEW, REVIEW]), ill(1)]
    found = bind_back(EMPTY["polars"], "polars", outcomes, typed(Review), "label", several=True)
    assert found.columns == ["text", "label", "error"]
    assert found["label"].dtype.inner.fields[0] == pl.Field("stars", pl.Int64)
    assert (
        bind_back(EMPTY["pandas"], "pandas", outcomes, typed(Review), "label", several=True).label[0][1]["stars"] == 5
    )
    text = bind_back(EMPTY["polars"], "polars", [well(0, ["a", "b"]), ill(1)], None, several=True)
    assert text["answer"].to_list() == [["a", "b"], None]


@pytest.mark.parametrize("kind", [Person | None, Person | Movie, Movie, "Person"])
def test_fields_are_known_of_alternatives_typed_dicts_and_nothing(kind: Any) -> None:
    spec = spec_from(kind, namespace=globals())
    made = columns_for(spec)
    assert made.is_record
    names = {"Movie": ["title", "year"], "Person": ["name", "born"]}
    expected = names["Movie"] if kind is Movie else names["Person"] + (names["Movie"] if kind == Person | Movie else [])
    assert list(made.columns) == expected
    found = bind_back(EMPTY["pandas"], "pandas", [well(0, None), ill(1)], spec)
    assert found[expected].isna().all(axis=None)


def test_fields_of_a_schema() -> None:
    spec = spec_from(schema="name, age int?, day date, tags list[str]")
    outcomes = [well(0, {"name": "a", "age": None, "day": "2024-02-29", "tags": ["x"]}), ill(1)]
    found = bind_back(EMPTY["pandas"], "pandas", outcomes, spec)
    assert types_of(found) == {
        "text": STR, "name": STR, "age": "Int64", "day": "datetime64[us]", "tags": "object", "error": STR,
    }  # fmt: skip
    in_polars = bind_back(EMPTY["polars"], "polars", outcomes, spec)
    assert in_polars["day"].to_list() == [dt.date(2024, 2, 29), None]
    assert in_polars.schema["age"] == pl.Int64


def test_fields_that_the_schema_does_not_name_come_too_under_names_that_are_free() -> None:
    spec = spec_from(schema={"type": "object", "properties": {"a": {"type": "integer"}}})
    found = bind_back(EMPTY["pandas"], "pandas", [well(0, {"a": 1, "text": 2, "error": 3}), ill(1)], spec)
    assert list(found.columns) == ["text", "a", "text_", "error_", "error"]
    assert (found.text[0], found.text_[0], found.error_[0]) == ("x", 2, 3)


class Odd(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    shape: int
    index: int
    values_: int = pydantic.Field(0, alias="a b <é>")


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
def test_fields_named_like_methods_are_columns(kind: Any) -> None:
    outcomes = [well(0, Odd.model_validate({"shape": 1, "index": 2, "a b <é>": 3})), ill(1)]
    found = bind_back(EMPTY[kind], kind, outcomes, typed(Odd))
    assert list(types_of(found)) == ["text", "shape", "index", "values_", "error"]
    schema = {"type": "object", "properties": {"a b": {"type": "integer"}, "": {"type": "string"}, "self": {}}}
    found = bind_back(EMPTY[kind], kind, [well(0, {"a b": 1, "": "x"}), ill(1)], spec_from(schema=schema))
    assert list(types_of(found)) == ["text", "a b", "", "self", "error"]


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize(
    ("as_", "value"),
    [
        (int, 10**20),
        (int, -(10**300)),
        (None, "half \ud800"),
        (Decimal, Decimal("0.12345678901234567890")),
        (Decimal, Decimal("1e40")),
        (list[int], [10**20]),
        (list[str], ["\udfff"]),
        (dt.timedelta, dt.timedelta.max),
        (dt.time, dt.time(1, tzinfo=dt.UTC)),
    ],
)
def test_a_value_that_no_dtype_holds_is_not_lost(kind: Any, as_: Any, value: Any) -> None:
    found = bind_back(EMPTY[kind], kind, [well(0, value), ill(1)], spec_from(as_))
    got = found["answer"].to_pylist()[0] if kind == "pyarrow" else found["answer"].to_list()[0]
    if kind == "pandas" or isinstance(got, dt.timedelta):
        assert got == value
    else:
        wanted = str(value) if not isinstance(value, list) else str(value[0])
        wanted = wanted.encode("utf-8", "backslashreplace").decode()
        assert wanted in (got if isinstance(got, str) else str(got[0]))


NAIVE = dt.datetime.fromisoformat("2024-01-01")


@pytest.mark.parametrize(
    ("values", "dtypes"),
    [
        ([NAIVE] * 2, ("datetime64[us]", pl.Datetime("us"))),
        ([dt.datetime(2024, 1, 1, tzinfo=dt.UTC)] * 2, ("datetime64[us, UTC]", pl.Datetime("us", "UTC"))),
        (
            [dt.datetime(2024, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=h))) for h in (2, 1)],
            ("datetime64[us, UTC]", pl.Datetime("us", "UTC")),
        ),
        ([dt.datetime(2024, 1, 1, tzinfo=dt.UTC), NAIVE], ("object", pl.String)),
    ],
)  # fmt: skip
def test_times_with_and_without_zones(values: list[dt.datetime], dtypes: tuple[str, Any]) -> None:
    outcomes = [well(number, value) for number, value in enumerate(values)]
    found = bind_back(EMPTY["pandas"], "pandas", outcomes, typed(dt.datetime)).answer
    assert str(found.dtype) == dtypes[0]
    assert [pd.Timestamp(value) for value in found] == [pd.Timestamp(value) for value in values]
    assert bind_back(EMPTY["polars"], "polars", outcomes, typed(dt.datetime))["answer"].dtype == dtypes[1]


def test_a_dataframe_in_each_row_stays_one() -> None:
    inner = pd.DataFrame({"a": [1]})
    found = bind_back(EMPTY["pandas"], "pandas", [well(0, inner), ill(1)], spec_from("DataFrame[a int]"))
    assert found.answer[0] is inner


def test_each_row_has_exactly_one_outcome() -> None:
    for outcomes in ([well(0, "a")], [well(0, "a"), well(0, "b")], [well(0, "a"), well(2, "b")]):
        with pytest.raises(ValueError, match="exactly one outcome for each row"):
            bind_back(EMPTY["pandas"], "pandas", outcomes, None)


@pytest.mark.parametrize(
    ("columns", "as_", "out_name", "said", "hint"),
    [
        (["text", "error"], None, "label", "The input has a column 'error'", "leave it out"),
        (["text", "label"], None, "label", "The input has a column 'label' already", "--out NAME"),
        (["text", "answer"], None, "answer", "The input has a column 'answer' already", "--out NAME"),
        (["name", "born", "x"], Person, "label", "'name', 'born' already, which is a field", "leave the column out"),
        (["text"], None, "error", "--out is 'error'", "--out answers"),
        (["text"], "DataFrame[error str]", "error", "--out is 'error'", "--out answers"),
    ],
)
def test_a_name_that_is_taken_is_refused(columns: Any, as_: Any, out_name: str, said: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_names(columns, spec_from(as_), out_name)
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_a_field_error_is_refused_and_what_is_free_is_not() -> None:
    with pytest.raises(OptionError, match="field 'error'") as caught:
        check_names(["text"], spec_from(schema="error, x int"))
    assert caught.value.hint == "Rename that field."
    with pytest.raises(OptionError, match="'answer' already"):
        check_names([("text", "x"), ("answer", "")], None)
    check_names([("answer", "x")], None)
    check_names([], None)
    check_names(["label", 3, None, ("a", "b")], typed(Person), "label")
    check_names(["name"], typed(Person), "label", several=True)


OUTCOMES = st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.none()), max_size=30)


@given(OUTCOMES, st.randoms())
@settings(max_examples=60, deadline=None)
def test_any_mix_of_success_and_failure_keeps_rows_order_and_index(values: list[int | None], random: Any) -> None:
    given_rows = [f"row {number}" for number in range(len(values))]
    labels = [random.choice("abc") for _ in values]
    outcomes = [
        ill(number, InvalidValueError(f"no {number}")) if value is None else well(number, value)
        for number, value in enumerate(values)
    ]
    random.shuffle(outcomes)
    spec = typed(int)
    frame = pd.DataFrame({"given": pd.Series(given_rows, dtype="str")}).set_axis(pd.Index(labels, dtype="str"))
    tables = {"pandas": frame, "polars": pl.DataFrame({"given": given_rows}, schema={"given": pl.String}),
              "pyarrow": pa.table({"given": pa.array(given_rows, pa.string())})}  # fmt: skip
    errors = [None if value is not None else f"InvalidValueError: no {n}" for n, value in enumerate(values)]
    for kind, table in tables.items():
        found = bind_back(table, kind, outcomes, spec, "label")  # type: ignore[arg-type]
        assert len(found) == len(values)
        if kind == "pandas":
            pd.testing.assert_frame_equal(found[["given"]], frame)
            assert found.label.dtype == ("Int64" if None in values else "int64")
            got = {name: [None if pd.isna(item) else item for item in found[name]] for name in found.columns}
        else:
            got = found.to_dict(as_series=False) if kind == "polars" else found.to_pydict()
        assert got["label"] == values
        assert got["given"] == given_rows
        assert got.get("error", [None] * len(values)) == errors


def test_no_library_is_imported_before_there_is_a_table_of_it() -> None:
    script = (
        "import sys, llm_magic.mapping.answers.answers as a, llm_magic.mapping.answers.frames as f\n"
        "from llm_magic.mapping.rows import Outcome\n"
        "f.check_names(['a'], None, 'b'); repr(a.Answers([Outcome(0)]))\n"
        "print([name for name in ('pandas', 'polars', 'pyarrow', 'numpy') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603 - our own words
    assert ran.stdout.strip() == "[]"
