import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from llm_magic import background_loop
from llm_magic.background_loop import BackgroundLoop, Channel, Emit, arriving, awaited


@pytest.fixture
def loop():
    loop = BackgroundLoop()
    yield loop
    loop.close()


async def three(emit: Emit[int]) -> None:
    for number in range(3):
        await emit([number])
        await asyncio.sleep(0.01)


def drain(channel: Channel[int]) -> list[int]:
    received: list[int] = []
    while (batch := channel.receive(1)) is not None:
        received += batch
    return received


def test_a_channel_delivers_everything_in_order_then_ends(loop: BackgroundLoop) -> None:
    channel = Channel(loop, three)
    assert drain(channel) == [0, 1, 2]
    assert channel.receive(1) is None


def test_an_error_comes_after_what_was_sent_before_it(loop: BackgroundLoop) -> None:
    async def failing(emit: Emit[int]) -> None:
        await emit([1])
        raise ValueError("broken")

    channel = Channel(loop, failing)
    assert channel.receive(1) == [1]
    with pytest.raises(ValueError, match="broken"):
        channel.receive(1)


def test_nothing_within_the_timeout_is_an_empty_batch(loop: BackgroundLoop) -> None:
    async def slow(emit: Emit[int]) -> None:
        await asyncio.sleep(0.2)
        await emit([1])

    channel = Channel(loop, slow)
    assert channel.receive(0.01) == []
    assert drain(channel) == [1]


def test_cancel_waits_until_the_work_has_cleaned_up(loop: BackgroundLoop) -> None:
    cleaned = threading.Event()

    async def endless(emit: Emit[int]) -> None:
        try:
            await emit([1])
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            cleaned.set()

    channel = Channel(loop, endless)
    assert channel.receive(1) == [1]
    channel.cancel()
    assert cleaned.is_set()


def test_a_fast_producer_waits_for_a_slow_consumer(loop: BackgroundLoop) -> None:
    sent = 0

    async def flood(emit: Emit[int]) -> None:
        nonlocal sent
        for _ in range(30):
            await emit([0] * 10_000)
            sent += 10_000

    channel = Channel(loop, flood)
    time.sleep(0.1)
    assert sent <= 60_000
    assert len(drain(channel)) == 300_000


def test_run_inside_a_running_loop(loop: BackgroundLoop) -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def caller() -> int:
        return loop.run(answer())

    assert asyncio.run(caller()) == 42


def test_a_timeout_of_the_work_itself_is_raised(loop: BackgroundLoop) -> None:
    async def late() -> None:
        raise TimeoutError("late")

    with pytest.raises(TimeoutError, match="late"):
        loop.run(late())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "llm_magic loop"]


def test_the_thread_ends_with_close_and_with_the_object() -> None:
    loop = BackgroundLoop()
    loop.run(asyncio.sleep(0))
    assert len(threads()) == 1
    loop.close()
    assert threads() == []
    loop.run(asyncio.sleep(0))
    assert len(threads()) == 1
    del loop
    gc.collect()
    assert threads() == []


def test_what_runs_is_cancelled_and_has_ended_and_the_loop_goes_on(loop: BackgroundLoop) -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    running = loop.submit(work())
    loop.run(asyncio.sleep(0.01))
    loop.cancel()
    assert (ended, running.cancelled()) == ([True], True)
    assert loop.run(asyncio.sleep(0, "on")) == "on"


def test_a_loop_that_was_never_used_is_not_started_to_cancel() -> None:
    loop = BackgroundLoop()
    before = threading.active_count()
    loop.cancel()
    assert threading.active_count() == before


@pytest.mark.parametrize("cancels", [True, False])
def test_who_awaits_may_leave_and_takes_the_work_along_or_not(cancels: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def leave() -> None:
        future: Future[int] = Future()
        waiting = asyncio.create_task(awaited(future, cancels=cancels))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert future.cancelled() is cancels
        if not cancels:
            future.set_exception(ValueError("nobody waits any more"))
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    gc.collect()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_what_is_awaited_is_there_at_once_and_so_is_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_loop, "LOOK", 60.0)

    async def wait(end: Callable[[Future[int]], None]) -> int:
        future: Future[int] = Future()
        asyncio.get_running_loop().call_later(0.05, end, future)
        return await awaited(future)

    begun = time.perf_counter()
    assert asyncio.run(wait(lambda future: future.set_result(7))) == 7
    with pytest.raises(ValueError, match="no"):
        asyncio.run(wait(lambda future: future.set_exception(ValueError("no"))))
    assert time.perf_counter() - begun < 30


def test_work_is_no_further_ahead_of_a_slow_reader_than_said(loop: BackgroundLoop) -> None:
    sent: list[int] = []

    async def work(emit: Emit[int]) -> None:
        for number in range(40):
            sent.append(number)
            await emit([number])

    async def read() -> list[int]:
        received, furthest = [], 0
        async for batch in arriving(loop, work, 3):
            received += batch
            await asyncio.sleep(0.03)
            furthest = max(furthest, len(sent) - len(received))
        assert furthest <= 4
        return received

    assert asyncio.run(read()) == list(range(40))
