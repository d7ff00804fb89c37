"""The events of a recorded answer, spread over the time that they took."""

from __future__ import annotations

import asyncio
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.draft import Draft
from llm_magic.events import (
    Attempt,
    CitationFound,
    Event,
    Finished,
    Identified,
    ImageReceived,
    Note,
    ReasoningDelta,
    Replayed,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from llm_magic.messages import Citation, Image
from llm_magic.recordings.pace import at_pace, schedule

ATTEMPT, END = Attempt("p", "m", 200, "", 0.5), [Finished("stop"), UsageReport(Usage(1, 2))]


def test_words_come_evenly_from_the_first_to_the_end() -> None:
    events = [ATTEMPT, Identified("m-1"), ReasoningDelta("Hm, well."), TextDelta("One  two.\n\nThree"), *END]
    assert schedule(events, 9.0, 1.0) == [
        (0.0, ATTEMPT),
        (0.0, Identified("m-1")),
        (1.0, ReasoningDelta("Hm, ")),
        (3.0, ReasoningDelta("well.")),
        (5.0, TextDelta("One  ")),
        (7.0, TextDelta("two.\n\n")),
        (9.0, TextDelta("Three")),
        (9.0, Finished("stop")),
        (9.0, UsageReport(Usage(1, 2))),
    ]


@pytest.mark.parametrize(
    ("events", "times"),
    [
        ([], []),
        ([ATTEMPT, *END], [0.0, 0.0, 0.0]),
        ([TextDelta("one"), *END], [1.0, 1.0, 1.0]),
        ([TextDelta(""), *END], [1.0, 1.0, 1.0]),
        ([ToolCallDelta(0, "1", "f", '{"x": [1, 2]}'), ToolCallDelta(1, "2", "g", "{}"), *END], [1.0, 9.0, 9.0, 9.0]),
        (
            [
                ImageReceived(Image(b"GIF89a", "image/gif")),
                CitationFound(Citation("https://a.example")),
                TextDelta("x"),
            ],
            [1.0, 1.0, 9.0],
        ),
        ([TextDelta("a "), Note("so"), TextDelta("b", 1)], [1.0, 1.0, 9.0]),
    ],
)
def test_what_is_no_text_comes_whole(events: list[Event], times: list[float]) -> None:
    assert [at for at, _ in schedule(events, 9.0, 1.0)] == times
    assert [event for _, event in schedule(events, 9.0, 1.0)] == events


def test_an_answer_that_came_whole_comes_whole_at_its_end() -> None:
    assert {at for at, _ in schedule([TextDelta("One two three"), *END], 2.0, 2.0)} == {2.0}


@given(
    st.lists(st.builds(TextDelta, st.text()) | st.builds(ReasoningDelta, st.text()) | st.sampled_from([ATTEMPT, *END])),
    st.floats(allow_nan=False),
    st.floats(allow_nan=False),
)
def test_nothing_is_lost_and_the_order_stays_whatever_the_file_says(
    events: list[Event], seconds: float, first: float
) -> None:
    timed = schedule(events, seconds, first)
    assert all(math.isfinite(at) and at >= 0 for at, _ in timed)
    assert all(before[0] <= after[0] for before, after in itertools.pairwise(timed))
    whole, pieces = Draft(), Draft()
    whole.add_all(events)
    pieces.add_all(event for _, event in timed)
    assert (pieces.text, pieces.reasoning, pieces.attempts) == (whole.text, whole.reasoning, whole.attempts)


@pytest.mark.parametrize(("pace", "seconds"), [(1e6, 1.0), (10.0, 0.5), (1e6, 1e308)])
def test_batches_hold_every_event_in_order(pace: float, seconds: float) -> None:
    events = [Replayed(1.0, 0.1, pace), TextDelta("word " * 300), *END]

    async def batches() -> list[list[Event]]:
        return [batch async for batch in at_pace(events, min(seconds, 1.0), 0.1, pace)]

    came = asyncio.run(batches())
    assert all(came)
    assert [event for batch in came for event in batch] == [event for _, event in schedule(events, 1.0, 0.1)]


def test_it_ends_when_it_is_cancelled() -> None:
    came: list[Event] = []

    async def follow() -> None:
        async for batch in at_pace([ATTEMPT, TextDelta("One two")], 1e308, 1e300, 1e-320):
            came.extend(batch)

    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(follow(), 0.1))
    assert came == [ATTEMPT]
