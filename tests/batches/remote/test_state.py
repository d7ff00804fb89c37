"""What is told of the batches of one run while they are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from batch_records import record

from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.remote.polling import Polling
from llm_magic.batches.remote.state import BatchState
from llm_magic.config.settings import Settings
from llm_magic.display.batches import line, times
from llm_magic.errors import ConnectionFailedError, Origin
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.wire.remote_batch import RemoteBatch

BATCH = record(
    step="submitted", batch_id="batch_1", file_id="file-1", status="validating", rows=20, changed=1767268800.0
)
NOON = BATCH.created


class Clock:
    """Stands still until it is moved."""

    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(tmp_path: Path, clock: Clock) -> Iterator[BatchState]:
    session = Session(Settings(), ProviderRegistry())
    found = BatchState(session, BatchFolder(tmp_path / "batches"), {"wall_clock": clock, "clock": clock})
    found.folder.add(BATCH)
    found.note(BATCH)
    yield found
    session.close()


def said(status: str, completed: int | None = None, failed: int | None = None) -> RemoteBatch:
    return RemoteBatch(id="batch_1", status=status, completed=completed, failed=failed)


def test_what_is_known_of_each_batch(state: BatchState, clock: Clock) -> None:
    clock.now += 90
    (batch,) = state.progress()
    assert (batch.model, batch.rows, batch.status, batch.seconds, batch.name) == (
        "openai:small", 20, "validating", 90, "00000001",
    )  # fmt: skip
    assert (batch.part, batch.parts, batch.next_look, batch.problem, batch.unchanged) == (1, 1, None, "", 90)
    state.note_status(BATCH.id, said("in_progress", 3, 1))
    assert line(state.progress()) == "in progress 4/20, 1 failed"
    state.note(record(2, step="uploading", rows=5))
    assert [(each.part, each.parts, each.status) for each in state.progress()] == [
        (1, 2, "in_progress"),
        (2, 2, "uploading"),
    ]


def test_a_look_that_failed_is_told_until_one_succeeds(state: BatchState) -> None:
    state.note_status(BATCH.id, ConnectionFailedError("openai cannot be reached: connection refused."))
    assert [each.problem for each in state.progress()] == ["openai cannot be reached: connection refused; trying again"]
    state.note_status(BATCH.id, said("validating"))
    assert [each.problem for each in state.progress()] == [""]


def test_what_says_the_same_again_has_not_changed(state: BatchState, clock: Clock) -> None:
    """It is not written again either: a long batch is looked at thousands of times."""
    before = (state.folder.place / f"{BATCH.id}.json").stat().st_mtime_ns
    clock.now += 3_600
    state.note_status(BATCH.id, said("validating"))
    assert [each.unchanged for each in state.progress()] == [3_600]
    assert times(state.progress()) == "submitted 1 h ago · unchanged for 1 h"
    assert (state.folder.place / f"{BATCH.id}.json").stat().st_mtime_ns == before


def test_the_next_look_is_told_while_it_is_waited_for(state: BatchState, clock: Clock) -> None:
    waits: list[float | None] = []
    answers = iter([said("validating"), said("in_progress"), said("completed")])

    async def look() -> RemoteBatch:
        waits.append(state.progress()[0].next_look)
        return next(answers)

    async def sleep(seconds: float) -> None:
        waits.append(state.progress()[0].next_look)
        clock.now += seconds / 3
        waits.append(state.progress()[0].next_look)

    polling = Polling(
        look,
        Origin("openai", url="https://api.example.org/v1"),
        every=300,
        created=NOON,
        seen=lambda told: state.note_status(BATCH.id, told),
        clock=clock,
        wall_clock=clock,
        sleep=sleep,
    )
    with state.polled(BATCH.id, polling):
        asyncio.run(polling.ended())
    assert waits == [None, 300, 200, None, 300, 200, None]
    assert state.progress()[0].next_look is None


def test_a_batch_that_was_fetched_does_not_go_on(state: BatchState) -> None:
    state.note(replace(BATCH, step="read", status="completed", completed=20))
    assert [each.goes_on for each in state.progress()] == [False]
    assert state.how_far() == ""
