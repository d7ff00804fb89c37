"""Rows that have come to a worker, handed out while fewer than its share are in flight."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from llm_magic.mapping.dask.serialization import opened

LOOK = 0.25
"""Seconds after which whoever waits looks whether it is still wanted."""


@dataclass(eq=False)
class ChunkPart:
    """The rows of a chunk on this worker: those not sent yet, and those whose outcome is not at the client yet."""

    unsent: int
    left: int
    changed: threading.Condition = field(default_factory=threading.Condition)


class Feed:
    """Rows as they come from the client, handed out while fewer than `share` are in flight.

    It belongs to one event loop; `add` and the others are called there.
    """

    def __init__(self, share: float, paused: Callable[[], bool]) -> None:
        self.share = share
        self.in_flight: dict[int, ChunkPart] = {}
        self._rows: deque[tuple[bytes, int, ChunkPart]] = deque()
        self._paused = paused
        self._ended = False
        self._changed = asyncio.Event()

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Any:
        while not self._rows or len(self.in_flight) >= self.share or self._paused():
            if self._ended and not self._rows:
                raise StopAsyncIteration
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._changed.wait()
        data, number, part = self._rows.popleft()
        self.in_flight[number] = part
        with part.changed:
            part.unsent -= 1
            part.changed.notify_all()
        if self._rows:
            self._changed.set()
        return opened(data)

    def add(self, rows: Iterable[tuple[int, bytes]], part: ChunkPart) -> None:
        """Take the rows of a chunk."""
        self._rows.extend((data, number, part) for number, data in rows)
        self._changed.set()

    def set_share(self, share: int) -> None:
        """Take another share: fewer requests are begun, none is ended."""
        self.share = share
        self._changed.set()

    def done(self, number: int) -> ChunkPart | None:
        """Take note that a row has an outcome."""
        self._changed.set()
        return self.in_flight.pop(number, None)

    def end(self) -> None:
        """Take note that no further rows come."""
        self._ended = True
        self._changed.set()
