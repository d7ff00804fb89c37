"""`Answers`: a sequence as long as the inputs, failures in it, shown safely, as a frame, pickled."""

from __future__ import annotations

import dataclasses
import datetime as dt
import pickle
import re
import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.config.settings import Settings
from llm_magic.errors import (
    ConfigurationError,
    InputError,
    InvalidValueError,
    LLMError,
    Origin,
    RateLimitedError,
    RowsFailedError,
)
from llm_magic.mapping.answers.answers import RETRY, Answers, rows_failed, summary_of_failures
from llm_magic.mapping.rows import Outcome
from llm_magic.metadata import Usage
from llm_magic.output.spec import spec_from
from llm_magic.prompt.values import to_prompt
from llm_magic.response import Response

STR = str(pd.Series(dtype="str").dtype)  # before pandas 3 that of objects


class Label(pydantic.BaseModel):
    topic: Literal["price", "quality"]
    stars: int


def well(number: int, value: Any = "x", **more: Any) -> Outcome:
    return Outcome(number, Response(value=value, **more))


def ill(number: int, error: LLMError | None = None) -> Outcome:
    return Outcome(number, error=error or RateLimitedError("Too many.", origin=Origin("p"), status=429))


def test_it_is_a_sequence_of_the_values_in_the_order_of_the_rows() -> None:
    answers = Answers([well(2, "c"), ill(1), well(0, "a")])
    assert isinstance(answers, Sequence)
    assert (len(answers), list(answers), answers.values) == (3, ["a", None, "c"], ["a", None, "c"])
    assert (answers[0], answers[-1], answers[np.int64(2)]) == ("a", "c", "c")
    assert [type(error) for error in answers.errors] == [type(None), RateLimitedError, type(None)]
    assert ("c" in answers, answers.index("c"), list(reversed(answers))) == (True, 2, ["c", None, "a"])
    assert answers.failed == [1]
    assert answers.labels == [0, 1, 2]
    with pytest.raises(IndexError):
        answers[3]
    with pytest.raises(TypeError):
        answers["a"]  # type: ignore[call-overload]


def test_a_slice_is_answers_with_its_own_numbers() -> None:
    answers = Answers([well(0), ill(1), well(2, "c")], ["a", "b", "c"], retry=lambda: answers)
    part = answers[1:]
    assert (type(part), part.values, part.failed, part.labels) == (Answers, [None, "c"], [0], ["b", "c"])
    assert answers[::-1].values == ["c", None, "x"]
    with pytest.raises(InputError, match="a part of others"):
        part.retry()


def test_equality_is_identity() -> None:
    one, other = Answers([well(0)]), Answers([well(0)])
    assert one != other
    assert len({one, other}) == 2


def test_responses_usage_and_cost_are_of_failed_rows_too() -> None:
    error = InvalidValueError("no", response=Response(text="?", usage=Usage(1, 1), cost=0.25))
    answers = Answers([well(0, usage=Usage(2, 3), cost=0.5), ill(1, error), ill(2), well(3)], seconds=2.0)
    assert [None if each is None else each.text for each in answers.responses] == ["", "?", None, ""]
    assert (answers.usage, answers.cost, answers.seconds) == (Usage(3, 4), 0.75, 2.0)
    assert (Answers([well(0)]).usage, Answers([ill(0)]).cost) == (None, None)
    assert str(answers.statistics) == (
        "4 rows in 2.0 s, p50 0.0 s, p95 0.0 s, 3 → 4 tokens, $0.75; 2 failed: 1 InvalidValueError, 1 RateLimitedError"
    )


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([], "Answers of 0 rows"),
        ([well(0)], "Answers of 1 row"),
        ([well(n) for n in range(1_997)] + [ill(n) for n in range(1_997, 2_000)], "Answers of 2,000 rows, 3 failed"),
    ],
)  # fmt: skip
def test_its_repr_is_short(outcomes: list[Outcome], said: str) -> None:
    assert repr(Answers(outcomes)) == said


HOSTILE = "<img src=x onerror=alert(1)><script>x</script> $\\href{javascript:x}{y}$ \x1b[31m \u202e & \x00"


def test_what_a_model_wrote_is_only_text_on_the_page() -> None:
    spec = spec_from(schema={"type": "object", "properties": {HOSTILE: {"type": "string"}, "nested": {}}})
    record = {HOSTILE: HOSTILE, "nested": [{HOSTILE: [HOSTILE]}]}
    for answers in (
        Answers([well(0, HOSTILE)], [HOSTILE]),
        Answers([well(0, record), ill(1, LLMError(HOSTILE))], [HOSTILE, (HOSTILE,)], spec=spec),
    ):
        html = answers._repr_html_()
        assert set(re.findall(r"<(/?\w+)", html)) <= {
            "table", "thead", "tbody", "tr", "th", "td", "p", "/table", "/thead", "/tbody", "/tr", "/th", "/td", "/p",
        }  # fmt: skip
        assert not set(html) & {"\x1b", "\u202e", "\x00"}
        assert "onerror=alert(1)&gt;" in html
        assert "$\\href" not in html.replace("$x", "")


def test_ten_rows_and_thirty_columns_are_shown_and_what_is_long_is_cut() -> None:
    spec = spec_from(schema={"type": "object", "properties": {f"f{n}": {"type": "integer"} for n in range(100)}})
    answers = Answers([well(n, {"f0": n}) for n in range(2_000)] + [ill(2_000)], spec=spec)
    html = answers._repr_html_()
    assert (html.count("<tr>"), html.count("<th ")) == (11, 31)
    assert html.endswith("<p>Answers of 2,001 rows, 1 failed, the first shown, 70 columns not shown</p>")
    assert len(html) < 40_000
    for huge in ("x" * 10**7, ["x" * 10**6] * 5, {"k" * 10**6: 1}, 10**4_000, b"x" * 10**6):
        assert len(Answers([well(0, huge)])._repr_html_()) < 2_000
    assert Answers([])._repr_html_() == "<p>Answers of 0 rows</p>"


def test_a_frame_of_text_has_the_column_value() -> None:
    found = Answers([well(0, "a"), ill(1)], ["x", "x"]).to_frame()
    expected = pd.DataFrame(
        {"value": ["a", None], "error": [None, "RateLimitedError: Too many."]}, index=["x", "x"], dtype="str"
    )
    pd.testing.assert_frame_equal(found, expected)


def test_a_frame_of_records_has_the_dtypes_of_their_type() -> None:
    spec = spec_from(Label)
    topics = pd.CategoricalDtype(["price", "quality"])
    found = Answers([well(0, Label(topic="price", stars=3)), ill(1)], [("a", 1), ("b", 2)], spec=spec).to_frame()
    assert found.dtypes.astype(str).to_dict() == {"topic": "category", "stars": "Int64", "error": STR}
    assert found.topic.dtype == topics
    assert found.index.equals(pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]))
    empty = Answers([], spec=spec).to_frame()
    assert empty.dtypes.astype(str).to_dict() == {"topic": "category", "stars": "int64"}
    assert isinstance(empty.index, pd.RangeIndex)
    assert Answers([ill(0)], spec=spec).to_frame().topic.dtype == topics


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("kind", "value", "columns"),
    [
        (int, 3, {"value": "int64"}),
        (dt.date, dt.date(2024, 1, 1), {"value": "datetime64[us]"}),
        (list[int], [1], {"value": "object"}),
        (dict[str, int], {"a": 1}, {"value": "object"}),
        (Point, Point(1), {"x": "int64"}),
        (Literal["a", "b"], "a", {"value": "category"}),
        (None, {"a": 1}, {"a": "object"}),
        (None, 3, {"value": "object"}),
    ],
)
def test_a_frame_of_other_values(kind: Any, value: Any, columns: dict[str, str]) -> None:
    found = Answers([well(0, value)], spec=spec_from(kind)).to_frame()
    assert found.dtypes.astype(str).to_dict() == columns


def test_a_field_error_stands_beside_the_errors() -> None:
    spec = spec_from(schema="error, values, failed int")
    found = Answers([well(0, {"error": "e", "values": "v", "failed": 1}), ill(1)], spec=spec).to_frame()
    assert list(found.columns) == ["error", "values", "failed", "error_"]
    assert (found["error"][0], found["error_"][1]) == ("e", "RateLimitedError: Too many.")


def test_several_answers_a_row_are_lists() -> None:
    answers = Answers([well(0, ["a", "b"]), ill(1)], several=True)
    assert answers[0] == ["a", "b"]
    assert answers.to_frame().value.tolist() == [["a", "b"], None]


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigurationError, match="pip install pandas"):
        Answers([well(0)]).to_frame()
    assert "<td" in Answers([well(0)])._repr_html_()


def test_it_is_pickled_whole_but_for_the_way_to_ask_again() -> None:
    answers = Answers(
        [well(0, Label(topic="price", stars=1), usage=Usage(1, 2)), ill(1)], ["a", "b"], spec=spec_from(Label),
        seconds=3.0, retry=lambda: answers,
    )  # fmt: skip
    read = pickle.loads(pickle.dumps(answers))  # noqa: S301 - our own bytes
    assert (read.values, read.labels, read.seconds, read.usage) == (answers.values, ["a", "b"], 3.0, Usage(1, 2))
    assert (read.errors[1].status, str(read.errors[1])) == (429, "Too many.")
    pd.testing.assert_frame_equal(read.to_frame(), answers.to_frame())
    with pytest.raises(InputError, match="unpickled") as caught:
        read.retry()
    assert "answers.failed" in caught.value.hint


def test_retry_asks_for_what_failed_only_if_anything_did() -> None:
    whole = Answers([well(0), well(1)])
    assert Answers([well(0), ill(1)], retry=lambda: whole).retry() is whole
    assert whole.retry() is whole


def test_rows_and_labels_are_as_many() -> None:
    with pytest.raises(ValueError, match="one label"):
        Answers([well(0)], ["a", "b"])
    with pytest.raises(ValueError, match="one outcome"):
        Answers([well(0), well(0)])


def test_the_summary_of_failures() -> None:
    outcomes = [well(number) for number in range(1_997)]
    outcomes += [ill(1_997), ill(1_998), ill(1_999, InvalidValueError("It is no int."))]
    line = "3 of 2,000 failed: 2 RateLimitedError, 1 InvalidValueError; "
    assert summary_of_failures(outcomes) == f"{line}run the cell again to ask for those"
    assert summary_of_failures(outcomes, RETRY) == f"{line}answers.retry() asks for those"
    assert summary_of_failures([well(0)]) == summary_of_failures([]) == ""


def test_what_came_of_a_row_that_failed_is_said_to_be_with_its_response() -> None:
    error = rows_failed(Answers([well(0), ill(1, InvalidValueError("It is no int.", "_llm.text has what came."))]))
    assert error is not None
    assert error.hint is not None
    assert error.hint.endswith("InvalidValueError: It is no int. _llm.responses[1].text has what came.")


def test_the_error_of_rows_that_failed_carries_the_answers() -> None:
    answers = Answers([well(0), ill(1)], ["a", "b" * 1_000])
    error = rows_failed(answers, again=RETRY)
    assert isinstance(error, RowsFailedError)
    assert error.answers is answers
    assert error.message == "1 of 2 failed: 1 RateLimitedError; answers.retry() asks for those."
    assert error.hint == f"The first of them, row {'b' * 40}…: RateLimitedError: Too many."
    try:
        raise error
    except RowsFailedError as raised:
        lines = raised._render_traceback_()
    assert lines == [f"RowsFailedError: {error.message}", error.hint]
    assert rows_failed(Answers([well(0)])) is None
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (str(again), again.answers.values) == (str(error), ["x", None])


@given(st.lists(st.one_of(st.text(), st.none()), max_size=40), st.randoms())
@settings(max_examples=60, deadline=None)
def test_any_mix_keeps_length_and_order(values: list[str | None], random: Any) -> None:
    outcomes = [ill(number) if value is None else well(number, value) for number, value in enumerate(values)]
    random.shuffle(outcomes)
    answers = Answers(outcomes)
    assert answers.values == values
    assert answers.failed == [number for number, value in enumerate(values) if value is None]
    assert [error is not None for error in answers.errors] == [value is None for value in values]
    frame = answers.to_frame()
    assert [None if pd.isna(value) else value for value in frame["value"]] == values
    assert ("error" in frame) == (None in values)
    assert answers._repr_html_()


def test_what_one_response_has_is_said_to_be_with_each() -> None:
    answers = Answers([Outcome(0, Response(text="a", value="a")), Outcome(1, Response(text="b", value="b"))])
    for name in ("text", "value", "messages", "finish_reason"):
        assert not hasattr(answers, name)
    with pytest.raises(InputError) as raised:
        _ = answers.text
    assert str(raised.value) == (
        "These are the answers to 2 rows, and have no text: each response has its own.\n"
        "Of the first row: .responses[0].text; of all rows, .values has the values, .to_frame() a table."
    )
    with pytest.raises(AttributeError, match=r"have no vales\.\nDid you mean values\?"):
        _ = answers.vales
    with pytest.raises(AttributeError, match=r"have no foo\.\nThey have .*to_frame.*values\."):
        _ = answers.foo
    with pytest.raises(AttributeError) as raised_plain:
        _ = answers._repr_png_
    assert not isinstance(raised_plain.value, InputError)


def test_in_a_prompt_they_are_their_values() -> None:
    class City(pydantic.BaseModel):
        name: str

    answers = Answers([Outcome(0, Response(value="a")), Outcome(1, error=LLMError("no"))])
    assert to_prompt(answers, Settings()).text == "['a', None]"
    assert to_prompt(Answers([Outcome(0, Response(value=City(name="Oslo")))]), Settings()).text == "[{'name': 'Oslo'}]"
    assert to_prompt(Answers([]), Settings()).text == "[]"
    long = to_prompt(Answers([Outcome(0, Response(value="a" * 200_000))]), Settings())
    assert "[cut: " in long.text
    assert long.notes
