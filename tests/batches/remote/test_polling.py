"""Polling alone, on clocks of ours: how often it looks, what it survives, and when it gives a batch up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from llm_magic.batches.remote.polling import GRACE, LAST_LOOKS, LONGEST_INTERVAL, WINDOW, Polling, retried
from llm_magic.errors import (
    AuthenticationError,
    ConnectionFailedError,
    LLMError,
    Origin,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    RequestRefusedError,
    ServerFailedError,
    TimedOutError,
)
from llm_magic.wire.remote_batch import RemoteBatch

NOON = 1_796_040_000.0
YEARS = 20 * 365 * 86_400.0
HOUR = 3_600.0
ORIGIN = Origin("s", "m", "https://s.example/v1")

Look = Callable[["Time"], RemoteBatch | LLMError]


@dataclass
class Time:
    """Clocks that move only when somebody sleeps, and jump when told to."""

    now: float = 5.0
    wall: float = NOON
    naps: list[float] = field(default_factory=list)
    seen: list[RemoteBatch | LLMError] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.naps.append(seconds)
        self.now += seconds
        self.wall += seconds
        assert self.now < 100 * 86_400, "it waits for ever"
        await asyncio.sleep(0)

    def clocks(self) -> dict[str, Any]:
        return {"clock": lambda: self.now, "wall_clock": lambda: self.wall, "sleep": self.sleep}

    def polling(self, look: Look, *, created: float = NOON, every: float = 30.0) -> Polling:
        async def looked() -> RemoteBatch:
            found = look(self)
            if isinstance(found, LLMError):
                raise found
            return found

        return Polling(looked, ORIGIN, every=every, created=created, seen=self.seen.append, **self.clocks())

    def ended(self, look: Look, **known: Any) -> RemoteBatch:
        return asyncio.run(self.polling(look, **known).ended())


def batch(status: str = "in_progress", **told: Any) -> RemoteBatch:
    return RemoteBatch("batch_1", status, **told)


def in_order(*states: RemoteBatch | LLMError) -> Look:
    left = list(states)
    return lambda _: left.pop(0)


def for_ever(**told: Any) -> Look:
    return lambda _: batch(**told)


def test_it_looks_at_once_and_ends_with_the_batch() -> None:
    time = Time()
    assert time.ended(in_order(batch("completed"))).status == "completed"
    assert time.naps == []


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled", "canceled", "JOB_STATE_SUCCEEDED"])
def test_every_end_is_one(status: str) -> None:
    assert Time().ended(in_order(batch(), batch(status.lower()))).ended


@pytest.mark.parametrize("status", ["", "queued", "paused", "cancelling", "validating", "\x1b[2J", "x" * 5_000])
def test_what_is_no_end_is_waited_for(status: str) -> None:
    time = Time()
    time.ended(in_order(batch(status), batch(status), batch("completed")))
    assert time.naps == [30.0, 45.0]


def test_it_looks_more_rarely_while_nothing_changes_and_as_often_as_at_first_once_it_does() -> None:
    time = Time()
    same = [batch(completed=1)] * 10
    time.ended(in_order(*same, batch(completed=2), batch(completed=2), batch("completed")))
    assert time.naps[:5] == [30.0, 45.0, 67.5, 101.25, 151.875]
    assert time.naps[8:] == [LONGEST_INTERVAL, LONGEST_INTERVAL, 30.0, 45.0]


def test_a_poll_longer_than_the_longest_wait_is_kept() -> None:
    time = Time()
    time.ended(in_order(batch(), batch(), batch("completed")), every=1_000.0)
    assert time.naps == [1_000.0, 1_000.0]


def test_three_hours_of_validation_and_counts_that_stay_0_are_waited_for() -> None:
    time = Time()

    def look(time: Time) -> RemoteBatch:
        since = time.wall - NOON
        status = "validating" if since < 3 * HOUR else "in_progress" if since < 23 * HOUR else "completed"
        return batch(status, total=0, completed=0, failed=0, created_at=NOON, expires_at=NOON + WINDOW)

    assert time.ended(look).status == "completed"
    assert 23 * HOUR < time.now - 5 < 23 * HOUR + LONGEST_INTERVAL
    assert len(time.naps) < 200


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailedError("away"),
        TimedOutError("silent"),
        ServerFailedError("broken", status=500),
        RateLimitedError("slow down", status=429),
        ProtocolError("a page of a proxy"),
    ],
)
def test_failed_looks_are_told_and_the_next_one_goes_on(error: LLMError) -> None:
    time = Time()
    assert time.ended(in_order(batch(), error, error, batch("completed"))).status == "completed"
    assert [each for each in time.seen if isinstance(each, LLMError)] == [error, error]


@pytest.mark.parametrize(
    "error",
    [AuthenticationError("key", status=401), RequestRefusedError("gone", status=404), QuotaExceededError("no quota")],
)
def test_what_waiting_does_not_help_ends_it(error: LLMError) -> None:
    time = Time()
    with pytest.raises(type(error)):
        time.ended(in_order(batch(), error))
    assert time.naps == [30.0]


OVERDUE = WINDOW + GRACE


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"created_at": NOON},
        {"created_at": NOON, "expires_at": NOON + WINDOW},
        {"expires_at": NOON + WINDOW},
        {"created_at": NOON, "expires_at": NOON - 5},  # before it was created
        {"created_at": 1.0, "expires_at": 2.0 + WINDOW},  # of a server whose clock is of 1970
        {"created_at": NOON + YEARS, "expires_at": NOON + YEARS + WINDOW},
    ],
)
def test_a_batch_in_progress_for_ever_is_given_up_an_hour_after_its_end(told: dict[str, Any]) -> None:
    time = Time()
    with pytest.raises(TimedOutError) as raised:
        time.ended(for_ever(**told))
    assert OVERDUE < time.now - 5 < OVERDUE + 2 * LONGEST_INTERVAL + 1
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert "the batch batch_1 is in progress after 1 d 1 h" in lines[0]
    assert "%llm_batch cancel batch_1" in lines[1]
    assert "--again" in lines[1]


def test_a_window_that_a_server_makes_longer_is_waited_for_but_not_one_of_years() -> None:
    time = Time()
    with pytest.raises(TimedOutError):
        time.ended(for_ever(created_at=NOON, expires_at=NOON + 7 * WINDOW))
    assert 7 * WINDOW < time.now < 7 * WINDOW + GRACE + 2 * LONGEST_INTERVAL + 6
    time = Time()
    with pytest.raises(TimedOutError):
        time.ended(for_ever(created_at=NOON, expires_at=NOON + YEARS))
    assert 25 * WINDOW < time.now < 40 * WINDOW


def test_the_clock_of_the_server_counts_for_its_own_times() -> None:
    time = Time(wall=NOON + YEARS)  # ours is wrong, and was so when the batch was created

    def look(time: Time) -> RemoteBatch:
        now = NOON + time.now
        return batch(created_at=NOON, expires_at=NOON + WINDOW, server_time=now)

    with pytest.raises(TimedOutError):
        time.ended(look, created=NOON + YEARS)
    assert OVERDUE < time.now < OVERDUE + 2 * LONGEST_INTERVAL + 6


@pytest.mark.parametrize("jump", [YEARS, -YEARS, 30 * HOUR, -30 * HOUR])
@pytest.mark.parametrize("told", [{}, {"created_at": NOON, "expires_at": NOON + WINDOW}])
def test_a_jump_of_the_local_clock_neither_ends_nor_prolongs_it(jump: float, told: dict[str, Any]) -> None:
    time = Time()

    def look(time: Time) -> RemoteBatch:
        if len(time.naps) == 3:
            time.wall += jump
        return batch("completed") if time.now > 20 * HOUR else batch(**told)

    assert time.ended(look).status == "completed"

    time = Time()

    def never(time: Time) -> RemoteBatch:
        if len(time.naps) == 3:
            time.wall += jump
        return batch(**told)

    with pytest.raises(TimedOutError):
        time.ended(never)
    assert OVERDUE < time.now - 5 < OVERDUE + 2 * LONGEST_INTERVAL + 1


@pytest.mark.parametrize("jump", [YEARS, -YEARS])
def test_a_jump_of_the_servers_clock_is_survived(jump: float) -> None:
    time = Time()

    def look(time: Time) -> RemoteBatch:
        jumped = jump if len(time.naps) in (3, 12) else 0
        done = "completed" if time.now > 4 * HOUR else "in_progress"
        return batch(done, created_at=NOON, expires_at=NOON + WINDOW, server_time=time.wall + jumped)

    assert time.ended(look).status == "completed"


def test_a_batch_that_is_overdue_already_is_looked_at_some_more_times() -> None:
    time = Time(wall=NOON + 40 * HOUR)
    with pytest.raises(TimedOutError):
        time.ended(for_ever())
    assert LAST_LOOKS < time.now - 5 < LAST_LOOKS + 2 * LONGEST_INTERVAL
    assert len(time.naps) > 3


def test_a_network_that_never_comes_back_is_given_up_as_late() -> None:
    time = Time()
    with pytest.raises(ConnectionFailedError):
        time.ended(lambda _: ConnectionFailedError("away"))
    assert OVERDUE < time.now - 5 < OVERDUE + 2 * LONGEST_INTERVAL + 1


def test_the_network_lost_at_the_end_of_a_longer_window_is_waited_for() -> None:
    time = Time()

    def look(time: Time) -> RemoteBatch | LLMError:
        if time.now > 7 * WINDOW:
            return batch("completed")
        if time.now > WINDOW:
            return ConnectionFailedError("away")
        return batch(created_at=NOON, expires_at=NOON + 7 * WINDOW, server_time=time.wall)

    assert time.ended(look).status == "completed"


def test_one_that_is_hurried_looks_again_at_once_and_soon_after() -> None:
    time = Time()

    async def work() -> None:
        async def sleep(seconds: float) -> None:
            time.naps.append(seconds)
            if len(time.naps) != 3:
                await asyncio.sleep(0)
                return
            polling.hurry()
            await asyncio.sleep(3_600)  # is left

        async def look() -> RemoteBatch:
            return batch("cancelling" if len(time.naps) < 5 else "cancelled")

        polling = Polling(
            look,
            ORIGIN,
            every=30.0,
            created=NOON,
            seen=time.seen.append,
            clock=lambda: 0.0,
            wall_clock=lambda: NOON,
            sleep=sleep,
        )
        assert (await polling.ended()).status == "cancelled"

    asyncio.run(work())
    assert time.naps == [30.0, 45.0, 67.5, 30.0, 45.0]


def test_a_fetch_that_breaks_off_is_tried_again_for_a_while() -> None:
    time, tried = Time(), []

    async def act() -> str:
        tried.append(time.now)
        if len(tried) < 3:
            raise ConnectionFailedError("broke off")
        return "whole"

    def run() -> str:
        clocks = time.clocks()
        return asyncio.run(retried(act, seen=time.seen.append, clock=clocks["clock"], sleep=clocks["sleep"]))

    assert run() == "whole"
    assert len(time.seen) == 2

    time, tried = Time(), []

    async def never() -> str:
        tried.append(time.now)
        raise ConnectionFailedError("broke off")

    async def gone() -> str:
        tried.append(time.now)
        raise RequestRefusedError("gone", status=404)

    clocks = time.clocks()
    with pytest.raises(ConnectionFailedError):
        asyncio.run(retried(never, seen=time.seen.append, clock=clocks["clock"], sleep=clocks["sleep"]))
    assert LAST_LOOKS / 2 < time.now - 5 <= 2 * LAST_LOOKS
    assert 4 < len(tried) < 30
    tried.clear()
    with pytest.raises(RequestRefusedError):
        asyncio.run(retried(gone, seen=time.seen.append, clock=clocks["clock"], sleep=clocks["sleep"]))
    assert len(tried) == 1
