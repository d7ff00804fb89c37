"""Rows handed out on a worker: as many as its share, to whoever waits, whatever comes first."""

from __future__ import annotations

import asyncio
from typing import Any

from llm_magic.mapping.dask.feed import ChunkPart, Feed
from llm_magic.mapping.dask.serialization import packed


def some(*numbers: int) -> list[tuple[int, bytes]]:
    return [(number, packed(number)) for number in numbers]


def test_a_share_is_kept_and_all_who_wait_are_served() -> None:
    async def work() -> None:
        feed, part = Feed(0, lambda: False), ChunkPart(3)
        waiting = [asyncio.ensure_future(anext(feed)) for _ in range(4)]
        feed.add(some(1, 2, 3), part)
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        feed.set_share(2)
        assert await asyncio.gather(*waiting[:2]) == [1, 2]
        assert (part.unsent, sorted(feed.in_flight), waiting[2].done()) == (1, [1, 2], False)
        assert feed.done(1) is part
        assert await waiting[2] == 3
        feed.end()
        assert [type(each) for each in await asyncio.gather(waiting[3], return_exceptions=True)] == [StopAsyncIteration]
        assert [each async for each in feed] == []

    asyncio.run(work())


def test_nobody_who_has_left_takes_a_row() -> None:
    async def work() -> None:
        feed = Feed(5, lambda: False)
        left, stays = asyncio.ensure_future(anext(feed)), asyncio.ensure_future(anext(feed))
        await asyncio.sleep(0)
        left.cancel()
        feed.add(some(1), ChunkPart(1))
        assert await stays == 1

    asyncio.run(work())


def test_those_who_wait_are_let_go_and_the_row_is_for_who_comes_later() -> None:
    async def work() -> None:
        feed = Feed(5, lambda: False)
        waits = asyncio.ensure_future(anext(feed, None))
        await asyncio.sleep(0)
        feed.let_go()
        assert await waits is None
        feed.add(some(1), ChunkPart(1))
        assert await anext(feed) == 1

    asyncio.run(work())


def test_nothing_is_handed_out_while_outcomes_pile_up() -> None:
    async def work() -> None:
        behind = True
        feed = Feed(5, lambda: behind)
        feed.add(some(1), ChunkPart(1))
        waits = asyncio.ensure_future(anext(feed))
        await asyncio.sleep(0)
        assert not waits.done()
        behind = False
        feed.look()
        assert await waits == 1

    asyncio.run(work())


def test_a_feed_may_be_made_and_told_before_its_loop_runs() -> None:
    feed = Feed(0, lambda: False)
    feed.set_share(1)
    feed.add(some(1), ChunkPart(1))

    async def first() -> Any:
        return await anext(feed)

    assert asyncio.run(first()) == 1


def test_a_part_tells_when_half_is_sent_and_when_all_has_arrived() -> None:
    woken = []
    part = ChunkPart(4)
    part.wake = lambda: woken.append((part.unsent, part.left))  # type: ignore[method-assign]
    for _ in range(4):
        part.sent()
    for _ in range(4):
        part.arrived()
    assert woken == [(2, 4), (0, 0)]
