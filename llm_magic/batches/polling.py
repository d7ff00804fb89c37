"""The polling of a batch until it ends: rarer while nothing changes, on through lost networks, up to a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from llm_magic.wire.batches import RemoteBatch

EVERY = 30.0
"""Seconds between two looks, where `--poll` says nothing."""
LONGEST = 600.0
"""Seconds between two looks at most, while nothing changes; more only where `--poll` says more."""
WINDOW = 86_400.0
"""Seconds in which a batch is done, by what is asked for (`completion_window`), where its server names no end."""
BEYOND = 3_600.0
"""Seconds after that end in which it is still waited for."""
LAST_LOOKS = 600.0
"""Seconds that a batch is waited for which is beyond that already when the waiting begins."""
_MORE = 1.5  # times as long after each look that saw nothing new

PASSING = (ConnectionFailedError, TimedOutError, ServerFailedError, RateLimitedError, ProtocolError)
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
        longest = max(self.every, LONGEST)
        self.wait = self.every if changed or not self.wait else min(self.wait * _MORE, longest)
        return self.wait


class Polling:
    """Looks at one batch until it has ended.

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
        every: float = EVERY,
        created: float,
        seen: Callable[[RemoteBatch | LLMError], None],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._look, self._origin, self._created, self._seen = look, origin, created, seen
        self._pace = Pace(every)
        self._clock, self._wall_clock, self._sleep = clock, wall_clock, sleep
        self._due: float | None = None  # by the clock; None while it looks, and before and after

    @property
    def next_look(self) -> float | None:
        """Seconds until the next look; None where none is waited for."""
        return None if self._due is None else max(0.0, self._due - self._clock())

    async def ended(self) -> RemoteBatch:
        """Return the batch in a state that is its last.

        Raises
        ------
        TimedOutError
            It has not ended in time; it may still end.
        LLMError
            It can no longer be looked at: the key is refused, or there is no such batch.

        """
        began, last = self._clock(), None
        while True:
            try:
                batch = await self._look()
            except PASSING as error:
                if isinstance(error, QuotaExceededError):
                    raise
                self._seen(error)
                state = last
                if self._is_overdue(None) and self._clock() - began > LAST_LOOKS:
                    raise
            else:
                self._seen(batch)
                if batch.ended:
                    return batch
                state = (batch.status, batch.completed, batch.failed)
                if self._is_overdue(batch) and self._clock() - began > LAST_LOOKS:
                    raise self._timed_out(batch)
            wait = self._pace.after(changed=state != last)
            last = state
            self._due = self._clock() + wait
            await self._sleep(wait)
            self._due = None

    def _is_overdue(self, batch: RemoteBatch | None) -> bool:
        """Whether a batch should have ended, by its server's own clock where that is known."""
        begun = (batch.created_at if batch is not None else None) or self._created
        end = batch.expires_at if batch is not None else None
        if end is None or end < begun:
            end = begun + WINDOW
        now = (batch.server_time if batch is not None else None) or self._wall_clock()
        return now > end + BEYOND

    def _timed_out(self, batch: RemoteBatch) -> TimedOutError:
        now = batch.server_time or self._wall_clock()
        since = duration(now - (batch.created_at or self._created))
        return TimedOutError(
            f"{self._origin}: the batch {batch.id} is {batch.status.replace('_', ' ')} after {since}, and overdue.",
            f"Its server may have lost it. Run the cell again to look again; %llm_batch cancel {batch.id} gives it up, "
            "--again submits the rows once more.",
            origin=self._origin,
        )
