"""Many rows as an output: exact texts, attributes for screen readers, sizes, and values that would act."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from markdown_readers import commonmark, nbconvert, off_the_list
from rows_on_stage import HOSTILE, Tags

from llm_magic.display import rows_markup
from llm_magic.display.markup import one_line
from llm_magic.display.rows import RowLine, RowsProgress, RowsTable, TableRow, row_line
from llm_magic.markdown import unsafe
from llm_magic.metadata import Usage


def under_way(value: str = "price", **more: Any) -> RowsProgress:
    return RowsProgress(20, 5, 1, rate=2, last=(row_line(3, value), RowLine("4", value, failed=True)), **more)


def test_the_live_output() -> None:
    shown = rows_markup.live("vllm:m", under_way(), ["The column text wins over the variable text."])
    assert shown["text/plain"] == (
        "vllm:m\n"
        "5 of 20 rows · 1 failed · 15 left\n"
        "2/s\n"
        "The column text wins over the variable text.\n"
        "row  value\n"
        "3    price\n"
        "4    failed: price\n"
        "unfinished: rows are still being asked"
    )
    assert "| row | value |\n| --- | --- |\n| 3 | price |\n| 4 | failed: price |" in shown["text/markdown"]
    assert Tags(shown["text/html"]).text == (
        "vllm:m" "25%" "5 of 20 rows · 1 failed · 15 left" "2/s" "The column text wins over the variable text."
        "rowvalue" "3price" "4failed: price" "unfinished: rows are still being asked"
    )  # fmt: skip


def test_the_bar_for_screen_readers() -> None:
    bar = Tags(rows_markup.live('m"<b>', under_way())["text/html"]).bar()
    del bar["style"]
    assert bar == {
        "role": "progressbar",
        "value": "5",
        "max": "20",
        "aria-valuenow": "5",
        "aria-valuemin": "0",
        "aria-valuemax": "20",
        "aria-label": 'Rows of m"<b>',
        "aria-valuetext": "5 of 20, 1 failed, 2/s",
    }


def test_a_bar_whose_end_nobody_knows_has_no_value() -> None:
    bar = Tags(rows_markup.live("m", RowsProgress(None, 7))["text/html"]).bar()
    del bar["style"]
    assert bar == {"role": "progressbar", "aria-label": "Rows of m", "aria-valuetext": "7 rows"}


@pytest.mark.parametrize(("progress", "value"), [(RowsProgress(0), ("1", "1")), (RowsProgress(3, 9), ("3", "3"))])
def test_a_bar_is_never_beyond_its_end(progress: RowsProgress, value: tuple[str, str]) -> None:
    bar = Tags(rows_markup.live("m", progress)["text/html"]).bar()
    assert (bar["value"], bar["max"]) == value


def test_what_it_waits_for_and_that_it_was_stopped() -> None:
    waiting = under_way(waiting="waits for vllm: connection refused")
    assert "\nwaits for vllm: connection refused\n" in rows_markup.live("m", waiting)["text/plain"]
    stopped = rows_markup.live("m", waiting, mark="Interrupted.")
    assert stopped["text/plain"].endswith("\nInterrupted.")
    assert all("unfinished" not in text for text in stopped.values())
    assert "\nwaits" not in stopped["text/plain"]


def test_two_amounts_of_dollars_are_no_formula() -> None:
    progress = under_way("$5 or $6", cost=0.1, cost_at_end=0.2)
    table = RowsTable([TableRow("$1 $2", "$5 or $6")], 1)
    for shown in (rows_markup.live("m", progress), rows_markup.final(table, "$1 of $2", ["$1 of $2"])):
        outside = re.sub(r'<(div|table) class="mathjax_ignore tex2jax_ignore".*?</\1>', "", shown["text/html"])
        assert [text.count("$") for text in re.findall(">([^<]*)<", outside) if text.count("$") > 1] == []
        assert "$" in shown["text/html"]
        assert "$" not in shown["text/markdown"]


@dataclass
class City:
    name: str
    people: int | None = None


def test_the_table_of_single_values() -> None:
    table = RowsTable([TableRow("a", "price"), TableRow("b", error="RefusedError: no")], 2, "", "label")
    shown = rows_markup.final(table, "m · 2 rows")
    assert shown["text/plain"] == "row  label  error\na    price\nb           RefusedError: no\nm · 2 rows"
    assert shown["text/markdown"] == (
        "| row | label | error |\n| --- | --- | --- |\n| a | price |  |\n| b |  | RefusedError: no |\n\nm · 2 rows"
    )
    tags = [(tag, attributes.get("scope")) for tag, attributes in Tags(shown["text/html"]).found if tag[0] == "t"]
    assert tags == [
        ("table", None), ("thead", None), ("tr", None), ("th", "col"), ("th", "col"), ("th", "col"),
        ("tbody", None), ("tr", None), ("th", "row"), ("td", None), ("td", None),
        ("tr", None), ("th", "row"), ("td", None), ("td", None),
    ]  # fmt: skip


def test_the_table_of_records() -> None:
    table = RowsTable([TableRow(7, City("Oslo", 700_000)), TableRow(8, City("Rome"))], 2_000, "id")
    shown = rows_markup.final(table, "", ["A note.", "A note."])
    assert shown["text/plain"] == ("id  name  people\n7   Oslo  700000\n8   Rome\n2 of 2,000 rows\nA note.")
    assert '<td style="text-align: right">700000</td>' in shown["text/html"]


def test_a_table_of_many_columns_is_cut_and_says_so() -> None:
    record = {f"field {number}": number for number in range(10_000)}
    shown = rows_markup.final(RowsTable([TableRow(0, record)], 1), "")["text/plain"]
    assert re.split(r"  +", shown.splitlines()[0])[-2:] == ["field 7", "… 9,992 more columns"]


@pytest.mark.parametrize("wide", [60, 80, 120])
def test_as_text_it_fits_a_terminal(wide: int) -> None:
    rows = [TableRow(number, {"a": "x" * 500, "b": number, "c": "日本語" * 20}) for number in range(3)]
    text = rows_markup.as_text(RowsTable([*rows, TableRow(9, error="RefusedError: no")], 4), wide=wide)
    lines = text.splitlines()
    assert max(map(rows_markup.columns_of, lines)) <= wide
    assert max(map(rows_markup.columns_of, lines)) > wide * 0.6
    assert lines[0].split() == ["row", "a", "b", "c", "error"]
    ends = [rows_markup.columns_of(line.partition("…  ")[0]) for line in lines[1:4]]
    assert len(set(ends)) == 1


def test_no_rows() -> None:
    shown = rows_markup.final(RowsTable([], 0), "m · 0 rows")
    assert shown["text/plain"] == "No rows.\nm · 0 rows"
    assert Tags(shown["text/html"]).text == "No rows.m · 0 rows"


def test_ways_to_show_it() -> None:
    table = RowsTable(
        [TableRow(1, City("Oslo", 3)), TableRow("x", float("nan")), TableRow(3, 10**5_000), TableRow(4, error="E: no")],
        4,
    )
    lines = [
        {"row": 1, "value": {"name": "Oslo", "people": 3}},
        {"row": "x", "value": "nan"},
        {"row": 3, "value": "<int>"},
        {"row": 4, "error": "E: no"},
    ]
    shown = rows_markup.final(table, "m", show="json")
    assert set(shown) == {"text/plain", "text/markdown"}
    assert [json.loads(each) for each in shown["text/plain"].splitlines()[:-1]] == lines
    assert shown["text/markdown"].startswith('```json\n{"row": 1, "value": {"name": "Oslo", "people": 3}}\n')
    assert shown["text/markdown"].endswith("\n```\n\n\nm")
    assert set(rows_markup.final(table, "m", show="text")) == {"text/plain"}
    assert set(rows_markup.final(table, "m", show="code")) == {"text/plain", "text/html", "text/markdown"}
    assert set(rows_markup.of_show(rows_markup.live("m", under_way()), "text")) == {"text/plain"}


def everything(text: str, *, show: str = "markdown") -> list[dict[str, str]]:
    """Return all outputs with a text in all places that anybody's words come to."""
    progress = under_way(text, waiting=text, failures={text: 1, f"{text}2": 1})
    rows = [TableRow(text, {text: text, "b": [text], "c": {text: text}}), TableRow(text, error=text)] * 9
    single = [TableRow(text, text)] * 10
    notes = [f"{number} {text}" for number in range(30)]
    return [
        rows_markup.live(text, progress, notes),
        rows_markup.live(text, progress, notes, mark=text),
        rows_markup.final(RowsTable(rows, 10**6, text, text), "p50 0.2 s", notes, show),
        rows_markup.final(RowsTable(single, 10**6, text, text), "p50 0.2 s", notes, show),
    ]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("show", ["markdown", "json"])
def test_nothing_acts(text: str, show: str) -> None:
    for shown in everything(text, show=show):
        if "text/html" in shown:
            tags = {tag for tag, _ in Tags(shown["text/html"]).found}
            assert tags <= {"div", "progress", "table", "thead", "tbody", "tr", "th", "td"}
            names = {name for _, attributes in Tags(shown["text/html"]).found for name in attributes}
            assert {name for name in names if not name.startswith("aria-")} <= {
                "style", "role", "value", "max", "scope", "class"
            }  # fmt: skip
            assert unsafe.COMMAND.search(shown["text/html"]) is None
        for each in shown.values():
            assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", each) is None
        assert not unsafe.acts(shown["text/markdown"]) or show == "json"  # there, in fenced code alone


@pytest.mark.parametrize("read", [commonmark, nbconvert], ids=["markdown-it", "mistune"])
@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_a_table_of_the_values_as_they_are(text: str, read: Callable[[str], str]) -> None:
    shown = rows_markup.final(RowsTable([TableRow(text, text), TableRow(1, error=text)], 2, "", text), "m", [text])
    html = read(shown["text/markdown"])
    assert off_the_list(html) == []
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    assert [len(re.findall("<t[hd]", row)) for row in rows] == [3, 3, 3]
    seen = one_line(text, 60)
    said = ["".join(Tags(row).text.split()) for row in rows]
    assert [each.replace("\u2060", "") for each in said] == [
        "".join(each.split()) for each in (f"row{one_line(text, 40)}error", f"{seen}{seen}", f"1{seen}")
    ]


WORST = ["&" * 10**6, '"' * 10**6, "\U0001f600" * 10**6, "\x9f" * 10**6, "|*" * 10**6, "<" * 10**6, " " * 10**6 + "x",
         "a\n" * 10**6]  # fmt: skip


@pytest.mark.parametrize("text", WORST, ids=[ascii(text[:2]) for text in WORST])
def test_no_output_is_larger_than_20_kb(text: str) -> None:
    for show in ("markdown", "json", "text"):
        for shown in everything(text, show=show):
            assert rows_markup.size(shown) <= 20_000


def test_no_output_is_larger_whatever_the_number_of_rows() -> None:
    progress = RowsProgress(
        10**18, 10**17, 10**16, 10**15, 10**6, 1e12, 1e9, 1e12, Usage(10**18, 10**18), 1e12, 1e12,
        {f"Some{number}Error": number for number in range(10**5)}, tuple(row_line(n, "v" * 10**6) for n in range(10)),
    )  # fmt: skip
    shown = rows_markup.live("m", progress)
    assert rows_markup.size(shown) < 6_000
    assert shown["text/html"].count("<tr>") == 6
