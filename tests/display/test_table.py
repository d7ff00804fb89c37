"""Values as tables and fields; what a model wrote is escaped."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import pytest
from pydantic import BaseModel

from llm_magic.display import table


class City(BaseModel):
    name: str
    people: int


@dataclass
class River:
    name: str
    cities: list[City]


class Point(NamedTuple):
    x: float
    y: float


class Mood(enum.Enum):
    GOOD = "good"


@pytest.mark.parametrize(
    "records",
    [
        [City(name="Oslo", people=700_000), City(name="Rome", people=2_800_000)],
        [{"name": "Oslo", "people": 700_000}, {"name": "Rome", "people": 2_800_000}],
        ({"name": "Oslo", "people": 700_000}, {"name": "Rome", "people": 2_800_000}),
    ],
)
def test_records_are_a_table(records: object) -> None:
    shown = table.shown(records)
    assert shown["text/plain"] == "name   people\nOslo   700000\nRome  2800000"
    assert shown["text/html"].count("<tr>") == 3
    assert '<th scope="col" style="text-align: left">name</th>' in shown["text/html"]
    assert '<td style="text-align: right">700000</td>' in shown["text/html"]


def test_a_record_is_its_fields_and_records_in_it_are_tables() -> None:
    shown = table.shown(River("Tiber", [City(name="Rome", people=1)]))
    assert shown["text/plain"] == 'name    Tiber\ncities  [{"name": "Rome", "people": 1}]'
    assert shown["text/html"].count("<table>") == 2


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (42, "42"),
        ("two\nlines", "two\nlines"),
        (date(2026, 1, 2), "2026-01-02"),
        (Mood.GOOD, "good"),
        (None, ""),
        ([1, 2], "value\n    1\n    2"),
        ({"a"}, "value\na"),
        ([], ""),
        ({}, ""),
        (Point(1.0, 2.5), "x  1.0\ny  2.5"),
        ({"a": None, "b": [1, 2], "c": True}, "a\nb  1, 2\nc  True"),
        ([{"a": 1}, {"b": 2}], "a  b\n1\n   2"),
    ],
)
def test_plain_text(value: object, plain: str) -> None:
    assert "\n".join(line.rstrip() for line in table.shown(value)["text/plain"].split("\n")) == plain


@pytest.mark.parametrize(
    "value", ["<b>", ["<b>"], {"<b>": "<b>"}, [{"<b>": "<b>"}], [{"a": [{"<b>": {"<b>": 1}}]}], [{"a": {"<b>"}}]]
)
def test_everything_is_escaped(value: object) -> None:
    html = table.shown(value)["text/html"]
    assert "<b>" not in html
    assert "&lt;b&gt;" in html


def test_a_long_table_is_cut_and_says_so() -> None:
    shown = table.shown([{"n": number} for number in range(5_000)])
    assert shown["text/html"].count("<tr>") == table.MAX_ROWS + 1
    assert shown["text/html"].endswith("<p>… 5,000 rows in all</p>")
    assert shown["text/plain"].endswith("… 5,000 rows in all")


@pytest.mark.parametrize(
    ("value", "is_structured"), [("a", False), (1, False), ([], False), ([1], True), ({}, True), (Point(1, 2), True)]
)
def test_what_is_structured(value: object, is_structured: bool) -> None:
    assert table.is_structured(value) is is_structured
