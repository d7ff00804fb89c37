"""DataFrames and Series in a prompt, small, odd and enormous."""

from __future__ import annotations

import sys
import time
import types
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from llm_magic.config.settings import Settings
from llm_magic.messages import Text
from llm_magic.prompt import Rendered, render
from llm_magic.prompt.tables import library_of


def shown(value: Any, template: str = "{{ df }}", **limits: int) -> Rendered:
    return render(template, {"df": value}, settings=Settings(**limits))


def text(value: Any, template: str = "{{ df }}", **limits: int) -> str:
    (part,) = shown(value, template, **limits).parts
    assert isinstance(part, Text)
    return part.text


def test_a_small_frame() -> None:
    frame = pd.DataFrame({"city": ["Bern", "a|b"], "people": [133_883, 2], "share": [0.1, np.nan], 5: [None, "x\ny"]})
    assert text(frame) == (
        "| city | people | share | 5 |\n"
        "| --- | ---: | ---: | --- |\n"
        "| Bern | 133883 | 0.1 | NaN |\n"
        "| a\\|b | 2 | NaN | x<br>y |\n"
        "\n"
        "2 rows × 4 columns"
    )
    assert shown(frame).notes == ()


def test_a_frame_is_cut_to_its_first_and_last_rows() -> None:
    rendered = shown(pd.DataFrame({"n": range(100)}), max_rows=3)
    assert rendered.parts == (
        Text(
            "|  | n |\n| ---: | ---: |\n| 0 | 0 |\n| 1 | 1 |\n| … | … |\n| 99 | 99 |\n"
            "\n100 rows × 1 column; the first 2 and the last 1 rows are shown"
        ),
    )
    assert rendered.notes == ("{{ df }}: 3 of 100 rows are in the prompt (LLMMagics.max_rows).",)
    assert text(pd.DataFrame({"n": range(9)}), max_rows=1).endswith(
        "| 0 | 0 |\n\n9 rows × 1 column; the first row is shown"
    )


def test_exactly_as_many_rows_as_allowed_are_not_cut() -> None:
    assert text(pd.DataFrame({"n": [1, 2]}), max_rows=2) == "| n |\n| ---: |\n| 1 |\n| 2 |\n\n2 rows × 1 column"


def test_a_frame_within_a_line_gets_lines_of_its_own() -> None:
    frame = pd.DataFrame({"n": [1]})
    table_text = "| n |\n| ---: |\n| 1 |\n\n1 row × 1 column"
    assert text(frame, "Data: {{ df }}. Why?") == f"Data: \n{table_text}\n. Why?"
    assert text(frame, "Data:\n{{ df }}\nWhy?") == f"Data:\n{table_text}\nWhy?"


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (pd.Series([1, 2], name="n"), ["|  | n |", "| ---: | ---: |", "| 0 | 1 |", "| 1 | 2 |", "", "2 rows"]),
        (pd.Series(["x"], index=["a"]), ["|  | value |", "| --- | --- |", "| a | x |", "", "1 row"]),
        (
            pd.DataFrame({"v": [1]}, index=pd.MultiIndex.from_tuples([("a", 2)], names=["k", None])),
            ["| k |  | v |", "| --- | ---: | ---: |", "| a | 2 | 1 |", "", "1 row × 1 column"],
        ),
        (
            pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])),
            ["| a, x | a, y |", "| ---: | ---: |", "| 1 | 2 |", "", "1 row × 2 columns"],
        ),
        (
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            ["| a | a |", "| ---: | ---: |", "| 1 | 2 |", "", "1 row × 2 columns"],
        ),
        (
            pd.DataFrame({"t": pd.to_datetime(["2024-01-02"]), "f": np.array([0.1], "float32"), "l": [[1, 2]]}),
            [
                "| t | f | l |",
                "| --- | ---: | --- |",
                "| 2024-01-02 00:00:00 | 0.1 | [1, 2] |",
                "",
                "1 row × 3 columns",
            ],
        ),
        (pd.DataFrame({"c": pd.Categorical(["x"])}), ["| c |", "| --- |", "| x |", "", "1 row × 1 column"]),
        (
            pd.DataFrame({"i": pd.array([1, None], "Int64")}),
            ["| i |", "| ---: |", "| 1 |", "| <NA> |", "", "2 rows × 1 column"],
        ),
        (pd.DataFrame({"a": []}), ["| a |", "| ---: |", "", "0 rows × 1 column"]),
    ],
)
def test_kinds_of_tables(value: Any, lines: list[str]) -> None:
    assert text(value).splitlines() == lines


def test_many_columns_and_long_cells_are_cut() -> None:
    rendered = shown(pd.DataFrame({"long": ["x" * 600], **{f"c{n}": [n] for n in range(70)}}))
    (part,) = rendered.parts
    assert isinstance(part, Text)
    assert "x" * 500 + "… | 0 | 1 |" in part.text
    assert part.text.endswith("1 row × 71 columns; the first 50 columns are shown")
    assert rendered.notes == (
        "{{ df }}: 50 of 71 columns are in the prompt.",
        "{{ df }}: 1 long cell was cut to 500 characters.",
    )


def test_the_shape_is_said_also_where_the_text_is_cut() -> None:
    told = text(pd.DataFrame({"n": range(20)}), max_value_chars=30)
    assert told.endswith("characters]\n\n20 rows × 1 column")


@pytest.mark.parametrize("wide", [False, True])
def test_a_frame_of_5_gb_takes_no_time_and_no_memory(wide: bool) -> None:
    rows, columns = (1_000, 700_000) if wide else (350_000_000, 2)
    frame = pd.DataFrame(np.broadcast_to(np.float64(1.5), (rows, columns)), copy=False)
    assert frame.shape[0] * frame.shape[1] * 8 > 5 * 10**9
    before = _resident()
    start = time.perf_counter()
    told = text(frame)
    assert time.perf_counter() - start < 0.5
    assert _resident() - before < 50 * 2**20
    assert f"\n\n{rows:,} rows × {columns:,} columns; the first 10 and the last 10 rows are shown" in told
    assert told.count("1.5") == 20 * min(columns, 50)


def _resident() -> int:
    with open("/proc/self/statm") as opened:  # noqa: PTH123 - one line
        return int(opened.read().split()[1]) * 4096


if not sys.platform.startswith("linux"):

    def _resident() -> int:
        return 0


def test_subclasses_are_tables_and_lookalikes_are_not() -> None:
    class Records(pd.DataFrame):
        """As geopandas has it."""

    lookalike = types.new_class("DataFrame")
    assert library_of(Records({"a": [1]}))
    assert not library_of(lookalike())
    assert not library_of(pd.DataFrame)


def test_polars() -> None:
    frame = pl.DataFrame({"n": list(range(50)), "s": ["x"] * 50, "f": [0.1] * 50})
    assert text(frame, max_rows=2) == (
        "| n | s | f |\n| ---: | --- | ---: |\n| 0 | x | 0.1 |\n| … | … | … |\n| 49 | x | 0.1 |\n"
        "\n50 rows × 3 columns; the first 1 and the last 1 rows are shown"
    )
    assert text(frame["s"], max_rows=2).splitlines()[:3] == ["| s |", "| --- |", "| x |"]
    assert text(frame.head(1)) == "| n | s | f |\n| ---: | --- | ---: |\n| 0 | x | 0.1 |\n\n1 row × 3 columns"
    assert text(pl.Series([None, "a|b"])) == "| value |\n| --- |\n| None |\n| a\\|b |\n\n2 rows"
