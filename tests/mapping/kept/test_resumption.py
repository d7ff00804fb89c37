"""Resuming: equal rows have an answer of their own each, also where one of them turns out to be of no use."""

from __future__ import annotations

from typing import Any, cast

from llm_magic.mapping.kept.resumption import Resumption
from llm_magic.mapping.kept.store import Store


class Left:
    """What an earlier run has left: so many answers to each key."""

    def __init__(self, **answers: int) -> None:
        self._answers = answers

    def has(self, key: str, number: int = 0) -> bool:
        return number < self._answers.get(key, 0)


def resumption(**answers: int) -> Resumption:
    return Resumption(cast("Store", cast("Any", Left(**answers))))


def test_each_of_equal_rows_has_its_own_answer() -> None:
    made = resumption(a=2, b=1)
    assert [made.take(key) for key in "aabbc"] == [0, 1, 0, None, None]


def test_an_answer_that_is_given_back_is_handed_out_and_no_other_one_twice() -> None:
    made = resumption(a=3)
    assert [made.take("a") for _ in range(3)] == [0, 1, 2]
    made.give_back("a", 1)
    made.give_back("a", 0)
    assert [made.take("a") for _ in range(3)] == [0, 1, None]
