"""The polling of a batch until it ends: rarer while nothing changes, on through lost networks, up to a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from llm_magic.display.footer import duration
from llm_magic.errors import (
    ConnectionFailedError,
    LLMError,
    Origin,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    ServerFailedError,
    TimedOutError,
)
from llm_magic.wire.error_body import one_line

if TYPE_CHECKING:
    from llm_magic.wire.batches import RemoteBatch

T = TypeVar("T")

INTERVAL = 30.0
"""Seconds between two looks, where `--poll` says nothing."""
LONGEST_INTERVAL = 600.0
"""Seconds between two looks at most, while nothing changes; more only where `--poll` says more."""
WINDOW = 86_400.0
"""Seconds in which a batch is done, by what is asked for (`completion_window`), where its server names no end."""
LONGEST_WINDOW = 30 * 86_400.0
"""Seconds of a window that a server names, at most: a later end is none."""
GRACE = 3_600.0
"""Seconds after that end in which it is still waited for."""
LAST_LOOKS = 600.0
"""Seconds that a batch is waited for which is beyond that already when the waiting begins."""
_MORE = 1.5  # times as long after each look that saw nothing new

TRANSIENT = (ConnectionFailedError, TimedOutError, ServerFailedError, RateLimitedError, ProtocolError)
"""Failures of a look after which another one may succeed: the batch goes on at its server meanwhile."""


@dataclass(slots=True)
class Pace:
    """When the next look is due: after `every` seconds, and longer while nothing changes.

    >>> pace = Pace(30.0)
    >>> [pace.after(changed=changed) for changed in (True, False, False, True)]
    [30.0, 45.0, 67.5, 30.0]

    """

    every: float
    wait: float = 0.0

    def after(self, *, changed: bool) -> float:
        """Return the seconds until the next look."""
        longest = max(self.every, LONGEST_INTERVAL)
        self.wait = self.every if changed or not self.wait else min(self.wait * _MORE, longest)
        return self.wait


async def retried(
    act: Callable[[], Awaitable[T]],
    *,
    seen: Callable[[LLMError], None],
    every: float = INTERVAL,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """Return what `act` does, which is tried again for 10 minutes where it fails as a look may; `seen` hears of that.

    Raises
    ------
    LLMError
        Its last failure, or one that no waiting helps.

    """
    began, pace = clock(), Pace(min(every, INTERVAL))
    while True:
        try:
            return await act()
        except TRANSIENT as error:
            if isinstance(error, QuotaExceededError) or clock() - began > LAST_LOOKS:
                raise
            seen(error)
        await sleep(pace.after(changed=False))


class Polling:
    """Looks at one batch until it has ended.

    No clock is believed that jumps: ours is read when the waiting begins, and goes on by one that only goes on; a
    server's times are compared with its own clock.

    Parameters
    ----------
    look
        Asks the server for the batch.
    origin
        What errors name.
    every
        Seconds between two looks.
    created
        When the batch was created, in Unix seconds.
    seen
        Called with each state of the batch, and with the error of a look that failed.
    clock, wall_clock, sleep
        Seconds that only go on, Unix seconds, and what waits some.

    """

    def __init__(
        self,
        look: Callable[[], Awaitable[RemoteBatch]],
        origin: Origin,
        *,
        every: float = INTERVAL,
        created: float,
        seen: Callable[[RemoteBatch | LLMError], None],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._look, self._origin, self._seen = look, origin, seen
        self._pace = Pace(every)
        self._clock, self._sleep = clock, sleep
        self._began = clock()
        self._age = max(0.0, wall_clock() - created)  # of the batch, by our clock, when the waiting begins
        self._hurried = asyncio.Event()
        self._due: float | None = None  # by our clock; None while it looks, and before and after

    @property
    def next_look(self) -> float | None:
        """Seconds until the next look; None where none is waited for."""
        return None if self._due is None else max(0.0, self._due - self._clock())

    def hurry(self) -> None:
        """Look again at once: something was done about the batch. To be called on its loop."""
        self._pace.wait = 0.0
        self._hurried.set()

    async def ended(self) -> RemoteBatch:
        """Return the batch in a state that is its last.

        Raises
        ------
        TimedOutError
            It has not ended in time; it may still end.
        LLMError
            It can no longer be looked at: the key is refused, or there is no such batch.

        """
        last: RemoteBatch | None = None
        was_overdue = False
        seen_at = self._clock()
        while True:
            changed = False
            try:
                batch = await self._look()
            except TRANSIENT as error:
                is_overdue = self._is_overdue(last, seen_at)
                if isinstance(error, QuotaExceededError) or (is_overdue and was_overdue):
                    raise
                self._seen(error)
            else:
                self._seen(batch)
                if batch.ended:
                    return batch
                changed = last is None or _progress(batch) != _progress(last)
                last, seen_at = batch, self._clock()
                is_overdue = self._is_overdue(batch, seen_at)
                if is_overdue and was_overdue:
                    raise self._timed_out(batch)
            was_overdue = is_overdue  # twice: one of a server's machines may have a clock that is wrong
            await self._wait(self._pace.after(changed=changed))

    async def _wait(self, seconds: float) -> None:
        """Wait until the next look is due, or is asked for."""
        self._due = self._clock() + seconds
        waits = {asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._hurried.wait())}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._due = None
            for each in waits:
                each.cancel()
        for each in done:
            each.result()
        self._hurried.clear()

    def _is_overdue(self, batch: RemoteBatch | None, seen_at: float) -> bool:
        """Whether a batch, last seen at a time of our clock, should have ended; not before some looks at it."""
        waited = self._clock() - self._began
        if waited <= LAST_LOOKS:
            return False
        window = WINDOW
        if batch is not None and batch.created_at and batch.expires_at and batch.expires_at > batch.created_at:
            window = min(batch.expires_at - batch.created_at, LONGEST_WINDOW)
        return max(self._age_of(batch, seen_at), waited) > window + GRACE

    def _age_of(self, batch: RemoteBatch | None, seen_at: float) -> float:
        """Return the seconds since a batch was created, by its server's clock where that is known."""
        if batch is not None and batch.created_at and batch.server_time:
            return batch.server_time - batch.created_at + self._clock() - seen_at
        return self._age + self._clock() - self._began

    def _timed_out(self, batch: RemoteBatch) -> TimedOutError:
        since = duration(max(self._age_of(batch, self._clock()), self._clock() - self._began))
        status = one_line(batch.status.replace("_", " "), 40) or "not done"
        return TimedOutError(
            f"{self._origin}: the batch {batch.id} is {status} after {since}, and overdue.",
            f"Its server may have lost it. Run the cell again to look again; %llm_batch cancel {batch.id} gives it up, "
            "--again submits the rows once more.",
            origin=self._origin,
        )


def _progress(batch: RemoteBatch) -> tuple[object, ...]:
    return batch.status, batch.completed, batch.failed
