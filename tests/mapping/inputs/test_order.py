"""Which rows are asked first."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.errors import OptionError
from llm_magic.mapping.inputs.inputs import read_inputs
from llm_magic.mapping.inputs.order import beginning_of, by_prefix, refuse_iterator, spread
from llm_magic.messages import Image, Text
from llm_magic.prompt import Rendered


def test_a_few_rows_spread_over_all() -> None:
    assert spread(10, 4) == [0, 3, 6, 9]
    assert [spread(0, 3), spread(5, 0), spread(5, 1), spread(2, 2), spread(5, 9)] == [
        [],
        [],
        [0],
        [0, 1],
        [0, 1, 2, 3, 4],
    ]


@given(st.integers(0, 10_000), st.integers(0, 300))
def test_spread_is_even_and_has_both_ends(length: int, count: int) -> None:
    numbers = spread(length, count)
    assert len(numbers) == min(length, count)
    assert numbers == sorted(set(numbers))
    if len(numbers) > 1:
        assert (numbers[0], numbers[-1]) == (0, length - 1)
        steps = {after - before for before, after in pairwise(numbers)}
        assert max(steps) - min(steps) <= 1


@given(st.lists(st.text(st.characters(codec=None), max_size=5)))
def test_prompts_with_a_common_beginning_follow_each_other(texts: list[str]) -> None:
    order = by_prefix(texts)
    assert sorted(order) == list(range(len(texts)))
    for size in range(4):
        beginnings = [texts[number][:size] for number in order]
        blocks = [each for each, before in zip(beginnings, [None, *beginnings], strict=False) if each != before]
        assert len(blocks) == len(set(blocks))


def test_equal_prompts_keep_their_order() -> None:
    assert by_prefix(["b", "a", "b", "a", "\ud800"]) == [1, 3, 0, 2, 4]


def test_the_beginning_of_a_prompt_with_images() -> None:
    one, other = (beginning_of(Rendered((Text("a "), Image(data, "image/png"), Text(" b")))) for data in (b"1", b"2"))
    assert one != other
    assert one.startswith("a \0")
    assert beginning_of(Rendered((Image(url="https://example.org/a.png"),))) == "\0https://example.org/a.png\0"


def test_an_iterator_has_no_other_order() -> None:
    refuse_iterator(read_inputs(["a"]), "--order prefix")
    with pytest.raises(OptionError) as caught:
        refuse_iterator(read_inputs(iter("ab"), "reviews()"), "--order prefix")
    assert (caught.value.message, caught.value.hint) == (
        "--order prefix needs all rows before the first is sent, and reviews() is read as it is needed.",
        "Make a list of it first: list(reviews())",
    )
