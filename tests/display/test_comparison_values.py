"""Typed values of several models as one table."""

from __future__ import annotations

import enum
from collections import namedtuple

from llm_magic.display.comparison_values import value_table
from llm_magic.errors import RefusedError


class Colour(enum.Enum):
    RED = "red"


def test_fields_of_all_are_columns_in_the_order_of_their_first_appearance() -> None:
    found = value_table({"a": {"x": 1, "y": [1, 2]}, "b": {"z": {"deep": None}, "x": 2.5}})
    assert found.heads == ("model", "x", "y", "z")
    assert found.rows == (("a", "1", "1, 2", ""), ("b", "2.5", "", '{"deep": null}'))
    assert found.right == (False, True, False, False)


def test_values_that_are_not_all_records_are_one_column() -> None:
    point = namedtuple("point", "x y")(1, 2)  # noqa: PYI024 - as notebooks make them
    found = value_table({"a": Colour.RED, "b": point, "c": [{"n": 1}], "d": None})
    assert found.heads == ("model", "value")
    assert [row[1] for row in found.rows] == ["red", '{"x": 1, "y": 2}', '[{"n": 1}]', ""]


def test_an_error_stands_in_its_place_and_says_what_happened_alone() -> None:
    found = value_table({"a": 1, "b": RefusedError("The model refused.", "Ask otherwise.")})
    assert found.heads == ("model", "value", "error")
    assert found.rows == (("a", "1", ""), ("b", "", "RefusedError: The model refused."))
    assert found.right == (False, True, False)


def test_where_all_failed_there_are_errors_alone() -> None:
    found = value_table({"a": ValueError("x"), "b": ValueError("y")})
    assert found.heads == ("model", "value", "error")
    assert [row[-1] for row in found.rows] == ["ValueError: x", "ValueError: y"]


def test_of_two_files_of_one_name_it_is_shown_where_they_lie() -> None:
    assert [row[0] for row in value_table({"/a/tiny.gguf": 1, "/b/tiny.gguf": 2}).rows] == [
        "/a/tiny.gguf",
        "/b/tiny.gguf",
    ]


def test_where_a_file_lies_is_not_shown_and_control_characters_are() -> None:
    found = value_table({"llama:/home/me/tiny.gguf": "a\x1b[2J", "b": "\u202e"})
    assert found.rows == (("llama:tiny.gguf", "a␛[2J"), ("b", "{U+202E}"))
