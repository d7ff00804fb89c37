"""What `--each` takes, as rows with names; what it refuses, and in which words."""

from __future__ import annotations

import collections
import dataclasses
import enum
import pickle
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.errors import InputError, PromptError
from llm_magic.mapping.inputs import columns
from llm_magic.mapping.inputs.inputs import Inputs, is_dask, read_inputs
from llm_magic.mapping.inputs.row_names import RowValues
from llm_magic.response import Response


def names(value: Any) -> list[dict[str, Any]]:
    return [dict(row.names) for row in read_inputs(value)]


def refused(value: Any, name: str = "reviews") -> tuple[str, str]:
    with pytest.raises(InputError) as caught:
        read_inputs(value, name)
    return caught.value.message, caught.value.hint


def raised(inputs: Inputs) -> InputError:
    with pytest.raises(InputError) as caught:
        list(inputs)
    return caught.value


FRAMES = {
    "pandas": pd.DataFrame({"text": ["good", None, "bad"], "stars": [1, 2, 3]}),
    "polars": pl.DataFrame({"text": ["good", None, "bad"], "stars": [1, 2, 3]}),
    "pyarrow": pa.table({"text": ["good", None, "bad"], "stars": [1, 2, 3]}),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_has_its_columns_as_names(kind: str) -> None:
    inputs = read_inputs(FRAMES[kind], "reviews")
    assert (inputs.kind, inputs.length, inputs.columns) == (kind, 3, ("text", "stars"))
    assert inputs.names_in_rows() == ("text", "stars", "row", "index", "item")
    rows = list(inputs)
    assert [(row.number, row.index) for row in rows] == [(0, 0), (1, 1), (2, 2)]
    whole = {"text": "good", "stars": 1}
    assert rows[0].names == {**whole, "row": whole, "item": whole, "index": 0}
    assert rows[1].names["text"] is None
    assert [type(row.names["stars"]) for row in rows] == [int, int, int]
    assert (inputs.without_value("text"), inputs.without_value("stars"), inputs.without_value("row")) == (1, 0, 0)
    assert [row.names for row in inputs] == [row.names for row in rows]  # as often as one likes


@pytest.mark.parametrize("kind", FRAMES)
def test_rows_by_their_numbers_in_any_order(kind: str) -> None:
    inputs = read_inputs(FRAMES[kind])
    rows = list(inputs.rows([2, 0]))
    assert [(row.number, row.index, row.names["text"]) for row in rows] == [(2, 2, "bad"), (0, 0, "good")]
    assert list(inputs.rows([])) == []


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_without_rows_or_columns(kind: str) -> None:
    empty = FRAMES[kind][:0]
    assert (read_inputs(empty).length, list(read_inputs(empty))) == (0, [])
    assert read_inputs(empty).names_in_rows() == ("text", "stars", "row", "index", "item")


def test_a_frame_without_columns_has_rows_all_the_same() -> None:
    frame = pd.DataFrame(index=["a", "b"])
    assert names(frame) == [{"item": {}, "row": {}, "index": "a"}, {"item": {}, "row": {}, "index": "b"}]


def test_labels_of_pandas_may_be_anything_and_twice() -> None:
    frame = pd.DataFrame({"text": ["a", "b"]}, index=["x", "x"])
    assert [row.index for row in read_inputs(frame)] == ["x", "x"]
    frame.index = pd.MultiIndex.from_tuples([("x", 1), ("y", 2)])
    assert [row.index for row in read_inputs(frame)] == [("x", 1), ("y", 2)]
    frame.index = np.array([7, 8])
    assert [type(row.index) for row in read_inputs(frame)] == [int, int]


def test_more_rows_than_are_read_together() -> None:
    frame = pd.DataFrame({"n": range(2_500)})
    assert [(row.number, row.index, row.names["n"]) for row in read_inputs(frame)] == [(n, n, n) for n in range(2_500)]
    numbers = list(range(2_499, -1, -2))
    assert [row.names["n"] for row in read_inputs(frame).rows(numbers)] == numbers


def test_missing_values_of_pandas_are_none() -> None:
    frame = pd.DataFrame(
        {
            "text": pd.Series(["a", np.nan], dtype="str"),
            "any": pd.Series([1, pd.NA], dtype="object"),
            "whole": pd.Series([1, pd.NA], dtype="Int64"),
            "small": pd.Series([0.1, pd.NA], dtype="Float32"),
            "float": [0.5, np.nan],
            "when": pd.to_datetime(["2024-01-02", None]),
            "kind": pd.Series(["a", None], dtype="category"),
            "arrow": pd.Series([1, None], dtype="int64[pyarrow]"),
            "true": pd.Series([True, None], dtype="boolean"),
        }
    )
    first, second = read_inputs(frame)
    assert dict(first.names["row"]) == {
        "text": "a",
        "any": 1,
        "whole": 1,
        "small": 0.1,
        "float": 0.5,
        "when": pd.Timestamp("2024-01-02"),
        "kind": "a",
        "arrow": 1,
        "true": True,
    }
    assert set(second.names["row"].values()) == {None}
    assert all(read_inputs(frame).without_value(name) == 1 for name in frame)


def test_nan_of_others_is_a_number() -> None:
    (polars,) = read_inputs(pl.DataFrame({"x": [float("nan")]}))
    (arrow,) = read_inputs(pa.table({"x": [float("nan")]}))
    (numpy,) = read_inputs(np.array([np.nan]))
    assert [str(each) for each in (polars.names["x"], arrow.names["x"], numpy.names["item"])] == ["nan"] * 3


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"x": np.array([0.1, 3e38, np.inf], "float32")}),
        pl.DataFrame({"x": [0.1, 3e38, float("inf")]}, schema={"x": pl.Float32}),
        pa.table({"x": pa.array([0.1, 3e38, float("inf")], pa.float32())}),
        np.array([0.1, 3e38, np.inf], "float32"),
    ],
)
def test_small_floats_have_the_digits_they_show(frame: Any) -> None:
    rows = list(read_inputs(frame))
    assert [row.names.get("x", row.names["item"]) for row in rows] == [0.1, 3e38, float("inf")]


@given(st.lists(st.floats(width=32) | st.floats(width=16)))
def test_small_floats_are_the_same_number(numbers: list[float]) -> None:
    array = np.array(numbers, "float32")
    given_back = [row.names["item"] for row in read_inputs(array)]
    assert np.array_equal(np.array(given_back, "float32"), array, equal_nan=True)


def test_columns_are_read_when_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    values = columns._pandas_values
    monkeypatch.setattr(columns, "_pandas_values", lambda series: read.append(series.name) or values(series))
    rows = list(read_inputs(pd.DataFrame({name: range(1_500) for name in "abc"})))
    assert [row.names["b"] for row in rows] == list(range(1_500))
    assert read == ["b", "b"]
    assert rows[7].names["row"] == {"a": 7, "b": 7, "c": 7}
    assert read == ["b", "b", "a", "c"]


def test_a_row_travels_without_the_others() -> None:
    frame = pd.DataFrame({"text": ["a", "b" * 10_000]})
    row = next(iter(read_inputs(frame)))
    sent = pickle.dumps(row)
    assert len(sent) < 1_000
    assert pickle.loads(sent) == row  # noqa: S301 - our own


def test_names_that_are_ours_and_columns_that_are_called_so() -> None:
    frame = pd.DataFrame({"item": ["tea"], "row": [1], "index": ["x"], "error": ["e"], "items": [5], "my col": ["m"]})
    (row,) = read_inputs(frame)
    whole = frame.iloc[0].to_dict()
    assert row.names == {**whole, "row": whole, "index": 0}
    assert (row.names["item"], row.names["error"], row.names["my col"]) == ("tea", "e", "m")
    assert (row.names["row"].items, row.names["row"]["my col"], row.names["row"].index) == (5, "m", "x")


def test_column_names_that_are_no_text() -> None:
    frame = pd.DataFrame([[1, 2, 3]], columns=[0, ("a", "b"), "c"])
    inputs = read_inputs(frame)
    (row,) = inputs
    assert inputs.columns == ("c",)
    assert set(row.names) == {"c", "row", "index", "item"}
    assert (row.names["row"][0], row.names["row"]["a", "b"], row.names["row"].c) == (1, 2, 3)


def test_columns_of_more_levels_are_in_the_row() -> None:
    frame = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]))
    (row,) = read_inputs(frame)
    assert row.names["row"] == {("a", "x"): 1, ("a", "y"): 2}


def test_of_two_columns_of_one_name_the_first() -> None:
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    inputs = read_inputs(frame)
    assert (next(iter(inputs)).names["a"], inputs.twice("a"), inputs.twice("b")) == (1, True, False)


def test_frames_and_arrays_in_cells_stay_what_they_are() -> None:
    inner, array = pd.DataFrame({"x": [1]}), np.array([1, 2])
    (row,) = read_inputs(pd.DataFrame({"frame": [inner], "array": [array], "list": [[1, None]]}))
    assert row.names["frame"] is inner
    assert row.names["array"] is array
    assert row.names["list"] == [1, None]


def test_a_frame_changed_meanwhile_is_read_as_it_was() -> None:
    frame = pd.DataFrame({"text": ["a", "b"]})
    inputs = read_inputs(frame)
    rows = iter(inputs)
    frame.loc[0, "text"] = "changed"
    frame.loc[2] = "more"
    assert [row.names["text"] for row in rows] == ["a", "b"]
    assert len(inputs.source) == 2
    polars = pl.DataFrame({"text": ["a", "b"]})
    inputs = read_inputs(polars)
    polars[0, "text"] = "changed"
    assert [row.names["text"] for row in inputs] == ["a", "b"]
    texts = ["a", "b"]
    inputs = read_inputs(texts)
    texts.clear()
    assert [row.names["item"] for row in inputs] == ["a", "b"]


@pytest.mark.parametrize(
    "value",
    [
        pd.Series([1, 2], name="n"),
        pl.Series("n", [1, 2]),
        pa.array([1, 2]),
        pa.chunked_array([[1], [2]]),
        np.array([1, 2]),
        pd.Index([1, 2]),
        pd.Series([1, 2, 2], dtype="Int64").unique(),
        [1, 2],
        (1, 2),
        range(1, 3),
        {1: None, 2: None}.keys(),
        collections.deque([1, 2]),
    ],
)
def test_what_is_no_frame_has_items(value: Any) -> None:
    inputs = read_inputs(value)
    assert (inputs.kind, inputs.length, inputs.columns, inputs.is_iterator) == ("sequence", 2, (), False)
    assert inputs.names_in_rows() == ("row", "index", "item")
    for _ in range(2):
        assert names(value) == [{"row": n, "item": n, "index": n - 1} for n in (1, 2)]
    assert [type(row.names["item"]) for row in inputs] == [int, int]
    assert [row.names["item"] for row in inputs.rows([1, 0, 1])] == [2, 1, 2]


def test_a_series_has_its_labels() -> None:
    assert [row.index for row in read_inputs(pd.Series(["a", "b"], index=["x", "y"]))] == ["x", "y"]


def test_a_lazy_frame_is_collected() -> None:
    inputs = read_inputs(pl.LazyFrame({"text": ["a"]}))
    assert (inputs.kind, inputs.length, type(inputs.source)) == ("polars", 1, pl.DataFrame)
    message, hint = refused(pl.LazyFrame({"text": ["a"]}).select(pl.col("txt")))
    assert message.startswith('reviews cannot be collected: ColumnNotFoundError: unable to find column "txt"')
    assert hint == "Try .collect() first."


def test_a_record_batch_is_a_table() -> None:
    inputs = read_inputs(pa.RecordBatch.from_pydict({"text": ["a"]}))
    assert (inputs.kind, type(inputs.source), inputs.names_in_rows()[0]) == ("pyarrow", pa.Table, "text")


def test_arrays() -> None:
    assert [row.names["item"].tolist() for row in read_inputs(np.array([[1, 2], [3, 4]]))] == [[1, 2], [3, 4]]
    records = np.array([("a", 1)], dtype=[("text", "U1"), ("stars", "i4")])
    inputs = read_inputs(records)
    assert (inputs.kind, inputs.columns) == ("sequence", ("text", "stars"))
    assert next(iter(inputs)).names["row"] == {"text": "a", "stars": 1}
    (row,) = read_inputs(np.array(["2024-01-02"], "datetime64[ns]"))
    assert str(row.names["item"]) == "2024-01-02 00:00:00"
    masked = read_inputs(np.ma.array([1, 2], mask=[False, True]))
    assert [row.names["item"] for row in masked] == [1, None]
    assert masked.without_value("item") == 1
    assert refused(np.array(1)) == (
        "reviews is an array without a dimension, one value.",
        "Did you mean [reviews.item()]?",
    )


def test_a_mapping_has_a_row_a_key() -> None:
    assert names({"a": 1, "b": 2}) == [{"row": 1, "item": 1, "index": "a"}, {"row": 2, "item": 2, "index": "b"}]
    lists = {"text": ["a", "b"], "stars": [1, 2]}  # nobody guesses that these are columns
    assert [(row.index, row.names["item"]) for row in read_inputs(lists)] == list(lists.items())
    assert [(row.index, row.names["item"]) for row in read_inputs(collections.ChainMap({"a": 1}))] == [("a", 1)]
    assert [row.index for row in read_inputs({"a": 1, "b": 2}).rows([1])] == ["b"]


@dataclasses.dataclass
class Review:
    text: str
    stars: int | None = None


class Model(pydantic.BaseModel):
    text: str
    stars: int | None = None


Named = collections.namedtuple("Named", ["text", "stars"])  # noqa: PYI024 - what users have


@pytest.mark.parametrize(
    "record",
    [
        {"text": "good", "stars": None},
        collections.UserDict(text="good", stars=None),
        Review("good"),
        Model(text="good"),
        Named("good", None),
        pd.Series({"text": "good", "stars": None}, dtype="object"),
    ],
)
def test_records_have_their_fields_as_names(record: Any) -> None:
    inputs = read_inputs([record, record])
    assert inputs.names_in_rows() == ("text", "stars", "row", "index", "item")
    row = next(iter(inputs))
    assert (row.names["text"], row.names["stars"], row.names["index"]) == ("good", None, 0)
    assert row.names["item"] is record
    assert (row.names["row"].text, dict(row.names["row"])) == ("good", {"text": "good", "stars": None})
    assert inputs.without_value("stars") == 2


def test_rows_of_a_database() -> None:
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    inputs = read_inputs(database.execute("select 'good' as text, 5 as stars"))
    assert (inputs.is_iterator, inputs.names_in_rows()) == (True, ("text", "stars", "row", "index", "item"))
    assert [row.names["stars"] for row in inputs] == [5]
    database.close()


def test_keys_that_only_some_records_have() -> None:
    inputs = read_inputs([{"text": "a"}, {"text": "b", "note": None}, 5])
    assert (inputs.has_name("text"), inputs.has_name("note"), inputs.has_name("item")) == (True, True, True)
    assert (inputs.has_name("nothing"), "note" in inputs.names_in_rows()) == (False, False)
    assert inputs.without_value("note") == 1
    inputs = read_inputs([{"item": None}, None, Review("a"), Broken(), "b"])
    assert (inputs.without_value("item"), inputs.without_value("stars"), inputs.has_name("stars")) == (2, 1, True)
    assert inputs.has_name("nothing") is False


def test_a_generator_is_read_as_it_is_needed() -> None:
    read = []

    def reviews() -> Iterator[str]:
        for number in range(1_000_000):
            read.append(number)
            yield f"review {number}"

    inputs = read_inputs(reviews(), "reviews()")
    assert (inputs.length, inputs.is_iterator, read) == (None, True, [])
    assert inputs.names_in_rows() == ("row", "index", "item")
    assert inputs.names_in_rows() == ("row", "index", "item")
    assert read == [0]
    rows = iter(inputs)
    assert read == [0]
    assert [(row.number, row.names["item"]) for row in (next(rows), next(rows))] == [(0, "review 0"), (1, "review 1")]
    assert read == [0, 1]
    again = raised(inputs)
    assert (again.message, again.hint) == (
        "reviews() is an iterator that was read already.",
        "Make a list of it first: list(reviews())",
    )
    with pytest.raises(InputError, match="no way back to a row"):
        list(inputs.rows([0]))


def test_an_iterator_without_rows() -> None:
    inputs = read_inputs(iter([]))
    assert inputs.names_in_rows() == ("row", "index", "item")
    assert list(inputs) == []


def test_an_input_that_raises_tells_after_how_many_rows() -> None:
    def reviews() -> Iterator[str]:
        yield from ["a", "b"]
        raise ValueError("no  more\npages")

    inputs = read_inputs(reviews(), "reviews()")
    rows = iter(inputs)
    assert [next(rows).number, next(rows).number] == [0, 1]
    with pytest.raises(InputError) as caught:
        next(rows)
    assert caught.value.message == "reviews() raised ValueError: no more pages after 2 rows."
    assert caught.value.hint == "Iterate it in a cell of its own; %tb shows where it failed."
    assert isinstance(caught.value.__cause__, ValueError)

    def broken() -> Iterator[str]:
        raise PromptError("Not this.", "That.")
        yield ""

    with pytest.raises(InputError) as caught:
        read_inputs(broken(), "broken()").names_in_rows()
    assert (caught.value.message, caught.value.hint) == (
        "broken() raised PromptError: Not this. before its first row.",
        "That.",
    )


class Hostile:
    """An iterable of which nothing holds."""

    def __init__(self, length: Any, items: Any) -> None:
        self.length, self.items = length, items

    def __len__(self) -> int:
        if isinstance(self.length, Exception):
            raise self.length
        return self.length

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.items, Exception):
            raise self.items
        return iter(self.items)


class Unsayable(Exception):  # noqa: N818 - a name is enough
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_lengths_that_lie() -> None:
    assert read_inputs(Hostile(TypeError(), "ab")).length is None
    assert read_inputs(Hostile(-1, "ab")).length is None
    assert [row.names["item"] for row in read_inputs(Hostile(2, "ab"))] == ["a", "b"]
    fewer, more = raised(read_inputs(Hostile(3, "ab"), "data")), raised(read_inputs(Hostile(1, "ab"), "data"))
    assert (fewer.message, fewer.hint) == (
        "data says that it has 3 rows, but gave 2.",
        "Pass what it really has: list(data)",
    )
    assert more.message == "data says that it has 1 rows, but gives more."
    assert raised(read_inputs(Hostile(1, Unsayable()), "data")).message == "data raised Unsayable before its first row."


class Broken(collections.abc.Mapping[str, Any]):
    """A record that raises when it is read."""

    def __getitem__(self, name: str) -> Any:
        raise OSError("gone")

    def __iter__(self) -> Iterator[str]:
        return iter(["text"])

    def __len__(self) -> int:
        return 1


def test_a_record_that_cannot_be_read_is_a_matter_of_its_row() -> None:
    rows = list(read_inputs([{"text": "a"}, Broken(), {"text": "b"}]))
    assert (rows[0].names["text"], rows[2].names["text"], rows[1].names["index"]) == ("a", "b", 1)
    with pytest.raises(InputError, match="the fields of the row cannot be read: OSError: gone"):
        rows[1].names["text"]


async def _texts() -> AsyncIterator[str]:
    yield "a"


async def _list() -> list[str]:
    return ["a"]


NO_LIST = "no list of inputs."


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ("good", f"reviews is a text, {NO_LIST}", "Did you mean [reviews]?"),
        (b"good", f"reviews is bytes, {NO_LIST}", "Did you mean [reviews]?"),
        (None, f"reviews is None, {NO_LIST}", "Name a DataFrame, a Series, a list, or anything to iterate."),
        (Response("m"), f"reviews is one answer, {NO_LIST}", "Did you mean [reviews], or reviews.value?"),
        (
            5,
            f"reviews is of type int, which cannot be iterated: {NO_LIST}",
            "Did you mean [reviews], or range(reviews)?",
        ),
        (2.5, f"reviews is of type float, which cannot be iterated: {NO_LIST}", "Did you mean [reviews]?"),
        (Review("good"), f"reviews is one Review, {NO_LIST}", "Did you mean [reviews]?"),
        (Model(text="good"), f"reviews is one Model, {NO_LIST}", "Did you mean [reviews]?"),
        (Named("good", 1), f"reviews is one Named, {NO_LIST}", "Did you mean [reviews]?"),
        (
            _texts(),
            "reviews is of type async_generator, which is iterated asynchronously.",
            "Collect it first: [item async for item in reviews]",
        ),
        (
            pa.RecordBatchReader.from_batches(pa.schema([]), []),
            "reviews is a RecordBatchReader of pyarrow, whose rows are not read here.",
            "Convert it: reviews.read_all()",
        ),
    ],
)
def test_what_is_no_list_of_inputs(value: Any, message: str, hint: str) -> None:
    assert refused(value) == (message, hint)


def test_a_coroutine_is_to_be_awaited() -> None:
    coroutine = _list()
    assert refused(coroutine) == ("reviews is a coroutine, which has no rows yet.", "Await it first: await reviews")
    coroutine.close()


def test_frames_among_inputs_have_no_fields() -> None:
    inputs = read_inputs([FRAMES["pandas"]] * 2)
    assert inputs.names_in_rows() == ("row", "index", "item")
    assert next(iter(inputs)).names["item"] is FRAMES["pandas"]


def test_an_object_that_answers_to_no_name() -> None:
    class Hidden:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert refused(Hidden())[1] == "Did you mean [reviews]?"
    assert names([Hidden()])[0]["index"] == 0


def test_sparse_columns() -> None:
    frame = pd.DataFrame({"x": pd.arrays.SparseArray([0.0, np.nan])})
    assert [row.names["x"] for row in read_inputs(frame)] == [0.0, None]


def test_members_of_an_enumeration_are_inputs() -> None:
    class Color(enum.Enum):
        RED = 1

    assert [row.names["item"] for row in read_inputs(Color)] == [Color.RED]


def test_frames_of_others_are_converted_first() -> None:
    theirs = type("DataFrame", (), {"__module__": "modin.pandas", "__iter__": iter, "to_pandas": None})()
    assert refused(theirs) == (
        "reviews is a DataFrame of modin, whose rows are not read here.",
        "Convert it: reviews.to_pandas()",
    )
    dask = type("DataFrame", (), {"__module__": "dask.dataframe.dask_expr._collection"})()
    assert is_dask(dask)
    assert not is_dask(FRAMES["pandas"])
    assert refused(dask) == (
        "reviews is a Dask DataFrame, whose rows are on its workers.",
        "Have them here: reviews.compute()",
    )


def test_inputs_are_inputs() -> None:
    inputs = read_inputs([1])
    assert read_inputs(inputs) is inputs


def test_a_row_with_hostile_names() -> None:
    row = RowValues({"__class__": 1, "get": 2, "keys": 3, "\ud800": 4})
    assert (type(row), row.get, row.keys, dict(row)) == (
        RowValues,
        2,
        3,
        {"__class__": 1, "get": 2, "keys": 3, "\ud800": 4},
    )
    with pytest.raises(AttributeError):
        _ = row.nothing


_CELLS = st.none() | st.integers(-(2**53), 2**53)
_TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(_CELLS, _TEXTS), min_size=1), st.data())
def test_all_frames_have_the_same_rows(rows: list[tuple[Any, Any]], data: st.DataObject) -> None:
    columns = {"n": [row[0] for row in rows], "text": [row[1] for row in rows]}
    schema = {"n": pl.Int64, "text": pl.String}
    polars = pl.DataFrame(columns, schema=schema)
    pandas = pd.DataFrame(
        {"n": pd.Series(columns["n"], dtype="Int64"), "text": pd.Series(columns["text"], dtype="str")}
    )
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    numbers = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    for value in (pandas, polars, polars.to_arrow(), records):
        inputs = read_inputs(value)
        assert [row.names["row"] for row in inputs] == records
        assert [row.names["row"] for row in inputs.rows(numbers)] == [records[number] for number in numbers]
        assert [row.number for row in inputs.rows(numbers)] == numbers
        assert [inputs.without_value(name) for name in columns] == [columns[name].count(None) for name in columns]


@given(st.lists(st.text(st.characters(codec=None)), min_size=1, unique=True))
def test_any_name_of_a_column(labels: list[str]) -> None:
    (row,) = read_inputs([dict.fromkeys(labels, 1)])
    assert dict(row.names["row"]) == dict.fromkeys(labels, 1)
    with suppress(UnicodeEncodeError):  # some of pandas takes no lone surrogates
        (row,) = read_inputs(pd.DataFrame([[1] * len(labels)], columns=pd.Index(labels, dtype="object")))
        assert dict(row.names["row"]) == dict.fromkeys(labels, 1)


@given(st.lists(st.text() | st.none() | st.integers() | st.dictionaries(st.text(), st.integers())))
def test_rows_are_the_items_in_their_order(items: list[Any]) -> None:
    rows = list(read_inputs(items))
    assert [row.number for row in rows] == [row.index for row in rows] == list(range(len(items)))
    for row, item in zip(rows, items, strict=True):
        assert (row.names["index"], row.names["row"]) == (row.number, item)
