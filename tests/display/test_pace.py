"""Repaints are as many as were asked for while they are cheap, and a multiple of the text at most."""

from __future__ import annotations

import pytest

from llm_magic.display.streaming_outputs import ALLOWANCE, ENVELOPE, SECONDS_PER_BYTE, SHARE, SLOWEST, Pace


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
