"""The pace of a recorded answer that is replayed: its events spread over the time that they took."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace

from llm_magic.events import (
    Event,
    ImageReceived,
    ItemReceived,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)

SHORTEST = 0.02
"""Seconds between two batches, at least."""
LONGEST = 1e9
"""Seconds that an answer may take: what a file says may be anything."""
_WORD = re.compile(r"\s*\S+\s*|\s+")
_TAKES_TIME = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta, ImageReceived, ItemReceived)
"""What the model wrote; the rest comes with what stands before it."""


def schedule(events: Iterable[Event], seconds: float, first: float) -> list[tuple[float, Event]]:
    """Return events with the seconds after which each comes: words evenly from the first one to the end.

    Parameters
    ----------
    events
        The events of one answer, its text in pieces of any size.
    seconds
        Seconds that the answer took.
    first
        Of these, the seconds to its first token.

    >>> for at, event in schedule([TextDelta("One two three")], 5.0, 1.0):
    ...     print(at, repr(event.text))
    1.0 'One '
    3.0 'two '
    5.0 'three'

    """
    seconds = min(max(seconds, 0.0), LONGEST)
    first = min(max(first, 0.0), seconds)
    pieces = [piece for event in events for piece in _pieces(event)]
    steps = max(1, sum(isinstance(piece, _TAKES_TIME) for piece in pieces) - 1)
    at, step, timed = 0.0, 0, []
    for piece in pieces:
        if isinstance(piece, _TAKES_TIME):
            at = first + (seconds - first) * step / steps
            step += 1
        timed.append((at, piece))
    return timed


async def at_pace(
    events: Iterable[Event], seconds: float, first: float, pace: float
) -> AsyncGenerator[list[Event], None]:
    """Yield the events of one answer in batches, `pace` times as fast as they came; for the rest as `schedule`."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    timed = schedule(events, min(seconds / pace, LONGEST), min(first / pace, LONGEST))
    sent = 0
    while sent < len(timed):
        due, now = sent, loop.time() - begun
        while due < len(timed) and timed[due][0] <= now:
            due += 1
        if due > sent:
            yield [event for _, event in timed[sent:due]]
            sent = due
        if sent < len(timed):
            await asyncio.sleep(max(SHORTEST, timed[sent][0] - (loop.time() - begun)))


def _pieces(event: Event) -> list[Event]:
    """Return an event in pieces: a text word by word."""
    if not isinstance(event, TextDelta | ReasoningDelta | RefusalDelta):
        return [event]
    return [replace(event, text=word) for word in _WORD.findall(event.text)] or [event]
