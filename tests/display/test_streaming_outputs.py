"""Outputs, put together, are the text, and never more than a front end shows; repaints are a multiple of the text."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.display.streaming_outputs import (
    ALLOWANCE,
    EAGER,
    ENVELOPE,
    LARGEST,
    LONG_CODE,
    MOST,
    SECONDS_PER_BYTE,
    SHARE,
    SLOWEST,
    Pace,
    StreamingOutputs,
    enough,
)

PIECES = st.lists(
    st.sampled_from(
        ["One line.\n\n", "- a\n", "\n", "```python\n", "x = 1\n" * 300, "```\n", "word " * 40, "# T\n", "\n\n\n"]
    ),
    max_size=30,
)


def run(pieces: list[str], *, every: int = 1) -> tuple[list[str], str]:
    flow = StreamingOutputs()
    texts: list[str] = []
    for number, piece in enumerate(pieces):
        flow.feed(piece)
        assert flow.length <= len(flow.tail)
        if number % every == 0:
            texts += flow.settled(len(texts))
    return texts, flow.tail


@given(PIECES, st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_nothing_is_lost(pieces: list[str], every: int) -> None:
    """Long code is cut between lines, and each part is fenced again: without the fences it is all there, in order."""
    texts, tail = run(pieces, every=every)
    shown = "".join([*texts, tail]).replace("```python\n", "").replace("```\n", "").replace("```", "")
    assert shown == "".join(pieces).replace("```python\n", "").replace("```\n", "").replace("```", "")


def test_small_blocks_share_an_output_and_large_ones_do_not() -> None:
    small, large = "Small.\n\n", "x" * LARGEST + "\n\n"
    assert run([small * 3 + large * 2 + "tail"]) == ([small * 3, large, large], "tail")


def test_long_code_becomes_outputs_of_whole_lines() -> None:
    line = "print('something of some length')\n"
    texts, tail = run(["Look:\n\n", "````py\n", *[line] * 2000, "````\n", "Done.\n\n"])
    assert texts[0] == "Look:\n\n"
    assert tail == "Done.\n\n"  # the eleventh output waits for more
    parts = texts[1:]
    assert all(part.startswith("````py\n") and part.endswith("````\n") for part in parts)
    assert "".join(part.removeprefix("````py\n").removesuffix("````\n") for part in parts) == line * 2000
    assert max(len(part) for part in parts) < LONG_CODE * 2


def test_a_megabyte_of_code_in_one_piece() -> None:
    code = "```\n" + "0123456789\n" * 100_000
    texts, tail = run([code, "```\n"])
    assert "".join(text.removeprefix("```\n").removesuffix("```\n") for text in texts) == "0123456789\n" * 100_000
    assert tail == ""


def test_never_more_outputs_than_are_shown() -> None:
    texts, tail = run([f"Paragraph {number} of the long answer, which says {number}.\n\n" for number in range(6_000)])
    assert len(texts) <= MOST
    assert "".join([*texts, tail]).count("\n\n") == 6_000


def test_how_many_characters_make_an_output() -> None:
    assert [enough(number) for number in range(EAGER)] == [0] * EAGER
    sizes = [enough(number) for number in range(MOST)]
    assert sizes == sorted(sizes)
    assert 70_000 < sum(sizes[: MOST - 4]) < 80_000
    assert enough(MOST) == sys.maxsize


def test_a_short_answer_is_repainted_as_often_as_asked_for() -> None:
    pace = Pace(20)
    assert pace.delay(0, 100, 100) == 0
    pace.painted(0, 100)
    assert pace.delay(0.01, 110, 110) == pytest.approx(0.04)
    assert pace.delay(0.05, 110, 110) == pytest.approx(0)


def test_a_long_tail_is_repainted_less_often() -> None:
    pace = Pace(20)
    pace.painted(0, 10_000)
    assert pace.delay(0, 10_000, 10_000) == pytest.approx(10_000 * SECONDS_PER_BYTE)


def test_when_the_allowance_is_used_up_short_tails_go_on_slowly() -> None:
    pace = Pace(20)
    pace.painted(0, ALLOWANCE)
    assert pace.delay(0, 500, 100) == SLOWEST
    assert pace.delay(SLOWEST, 500, 100) == 0


@pytest.mark.parametrize("speed", [1_000, 100_000, 10_000_000])
def test_what_repaints_cost_is_linear_in_the_text(speed: int) -> None:
    """One tail that only grows, the worst case: a line without an end."""
    pace, now, text, spent, painted = Pace(20), 0.0, 0, 0, 0
    while text < 1_000_000:
        now += 0.01
        text += speed // 100
        if pace.delay(now, text, text) <= 0:
            pace.painted(now, text)
            spent += text + ENVELOPE
            painted += 1
    assert spent <= ALLOWANCE + SHARE * text
    assert painted >= 3 or speed > 1_000_000
