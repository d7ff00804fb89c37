"""Rows that have come to a worker, handed out while fewer than its share are in flight."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from llm_magic.mapping.dask.serialization import opened


class ChunkPart:
    """The rows of a chunk on this worker: those not sent yet, and those whose outcome is not at the client yet.

    The thread of the chunk's task waits for `changed`: it is told when half of the rows are sent, and when the last
    outcome has arrived.
    """

    def __init__(self, rows: int) -> None:
        self.unsent = self.left = rows
        self.changed = threading.Condition()
        self._half = rows // 2

    @property
    def is_half_sent(self) -> bool:
        """Whether at least half of the rows are sent."""
        return self.unsent <= self._half

    def sent(self) -> None:
        """Take note that a row is sent."""
        self.unsent -= 1  # by one thread alone
        if self.unsent == self._half:
            self.wake()

    def arrived(self) -> None:
        """Take note that the client has an outcome."""
        self.left -= 1  # by one thread alone
        if not self.left:
            self.wake()

    def wake(self) -> None:
        """Wake the thread that waits."""
        with self.changed:
            self.changed.notify_all()


class Feed:
    """Rows as they come from the client, handed out while fewer than `share` are in flight; many may wait for them.

    It belongs to one event loop, where all of it is called; it may be made before that runs.
    """

    def __init__(self, share: float, paused: Callable[[], bool]) -> None:
        self.share = share
        self.in_flight: dict[int, ChunkPart] = {}
        self._rows: deque[tuple[bytes, int, ChunkPart]] = deque()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._paused = paused
        self._ended = False

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Any:
        if not self._waiting and self._may_give:
            return opened(self._take())
        if self._ended and not self._rows:
            raise StopAsyncIteration
        waits = asyncio.get_running_loop().create_future()
        self._waiting.append(waits)
        row = await waits
        if row is None:
            raise StopAsyncIteration
        return opened(row)

    @property
    def _may_give(self) -> bool:
        return bool(self._rows) and len(self.in_flight) < self.share and not self._paused()

    def _take(self) -> bytes:
        data, number, part = self._rows.popleft()
        self.in_flight[number] = part
        part.sent()
        return data

    def look(self) -> None:
        """Hand out what may be handed out now."""
        while self._waiting and (self._may_give or (self._ended and not self._rows)):
            waits = self._waiting.popleft()
            if not waits.done():  # else who waited is gone
                waits.set_result(self._take() if self._rows else None)

    def add(self, rows: Iterable[tuple[int, bytes]], part: ChunkPart) -> None:
        """Take the rows of a chunk."""
        self._rows.extend((data, number, part) for number, data in rows)
        self.look()

    def set_share(self, share: int) -> None:
        """Take another share: fewer requests are begun, none is ended."""
        self.share = share
        self.look()

    def done(self, number: int) -> ChunkPart | None:
        """Take note that a row has an outcome."""
        part = self.in_flight.pop(number, None)
        self.look()
        return part

    def let_go(self) -> None:
        """Give nothing to those who wait now; rows are for whoever comes after them."""
        while self._waiting:
            waits = self._waiting.popleft()
            if not waits.done():
                waits.set_result(None)

    def end(self) -> None:
        """Take note that no further rows come."""
        self._ended = True
        self.look()
