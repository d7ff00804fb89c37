"""How many requests are in flight: a fixed number, or the one at which an endpoint serves best, found meanwhile.

`auto` doubles as long as that makes answers come faster, then goes on in small steps; what stops it is that a step
gains nothing (the server queues) or that a request is refused (429). It then drops by a tenth, climbs back to just
below the level that was refused, stays there, and tries a little more from time to time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Literal

MOST = 512
"""Requests in flight that are never exceeded, whatever is said or found."""

FIRST = 16
"""Requests in flight to begin with, where the number is to be found."""

SOONEST, RAREST = 5.0, 60.0
"""Seconds at one level before a little more is tried: at first, and at most, each time that it was in vain doubling."""

_FEWEST = 48  # answers that a measurement takes at least
_WORTH = 0.4  # the part of a small step that must come back as answers a second
_WORTH_OF_LARGE = 0.2  # that of a step by half or more
_SPARE_FILES = 64  # descriptors left to everything else


def most_in_flight() -> int:
    """Return how many requests this process can have in flight: each takes a file descriptor."""
    if sys.platform == "win32":
        return MOST
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else max(1, min(MOST, soft - max(_SPARE_FILES, soft // 4)))


def share(limit: int, workers: int) -> tuple[int, ...]:
    """Return the parts of a limit for each of some workers: whole numbers, as equal as can be, whose sum it is.

    >>> share(10, 4)
    (3, 3, 2, 2)

    """
    each, more = divmod(limit, workers)
    return tuple(each + (number < more) for number in range(workers))


class InFlight:
    """One request in flight, until `end` is called."""

    __slots__ = ("_began", "_concurrency", "_ended", "_level")

    def __init__(self, concurrency: Concurrency, level: int, began: float) -> None:
        self._concurrency, self._level, self._began, self._ended = concurrency, level, began, False

    def refused(self, retry_after: float | None = None) -> None:
        """Tell at once that an attempt was refused for being one too many (429, 503), whatever follows.

        `retry_after` are the seconds that the server asked to wait: such a server counts by the minute, and fewer
        requests in flight help less.
        """
        if not self._ended:
            self._concurrency.heed_refusal(self._level, self._began, retry_after)

    def end(self, *, answered: bool = True) -> None:
        """Tell once that it ended, and whether an answer came: what failed tells nothing about speed."""
        if not self._ended:
            self._ended = True
            self._concurrency.heed_end(answered)


class Concurrency:
    """How many requests may be in flight: `allowed`, read by workers that come and go with it.

    >>> concurrency = Concurrency(2)
    >>> request = concurrency.begin()
    >>> concurrency.in_flight, concurrency.allowed
    (1, 2)
    >>> request.end()

    Parameters
    ----------
    limit
        The number, at least 1; or `"auto"`.
    most
        What is never exceeded; by default what the process can have open, at most `MOST`.
    clock
        Gives seconds.

    """

    def __init__(
        self,
        limit: int | Literal["auto"] = "auto",
        *,
        most: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._most = clock, most_in_flight() if most is None else max(1, most)
        self._is_fixed = limit != "auto"
        self.note = ""
        """What the user should know: that fewer than the number asked for are possible; empty where they are not."""
        if limit != "auto" and limit > self._most:
            self.note = f"At most {self._most:,} requests are in flight here, not {limit:,}."
        self.allowed = max(1, min(FIRST if limit == "auto" else limit, self._most))
        """How many requests may be in flight now."""
        self.in_flight = 0
        """How many are."""
        self._phase: Literal["growing", "climbing", "steady"] = "growing"
        self._kept, self._speed = self.allowed, 0.0  # the level that is known to be good, and its answers a second
        self._refused: int | None = None  # the lowest level that was refused
        self._step = 1  # by how much more is tried than that
        self._patience = SOONEST
        self._changed = self._steady_since = clock()
        self._peak = self._seen = 0  # what was in flight at most and the answers, since the level was measured last
        self._counted_from = 0.0

    def begin(self) -> InFlight:
        """Count a request that is sent now."""
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)
        return InFlight(self, self.in_flight, self._clock())

    def heed_refusal(self, level: int, began: float, retry_after: float | None) -> None:
        """Heed that a request was refused which was number `level` in flight when it began; as `InFlight.refused`."""
        if self._is_fixed:
            return
        refused = max(2, level, self._kept // 2)  # no single refusal takes more than half
        if self._refused is not None and began < self._changed:  # of the same crowd as one that was heeded
            if refused < self._refused and not retry_after:
                self._refused = refused
                self._kept = min(self._kept, _tenth_less(refused))
                self._go(min(self.allowed, self._kept), "climbing")
            return
        tried = self._phase == "climbing" and self.allowed > self._kept
        self._refused, self._step = refused, 1
        if tried:  # a little more was too much: back to what was good
            self._patience = min(self._patience * 2, RAREST)
            self._kept = min(self._kept, refused - 1)
            self._go(self._kept, "steady")
            return
        self._kept, self._speed = min(_tenth_less(refused), self.allowed), 0.0
        self._go(self._kept, "climbing")

    def heed_end(self, answered: bool) -> None:
        """Count a request that ended; where enough did at this level, choose the next one."""
        self.in_flight -= 1
        if self._is_fixed or not answered:
            return
        now = self._clock()
        self._seen += 1
        settling = self.allowed  # as many as were in flight before are not of this level
        if self._seen == settling:
            self._counted_from = now
        fine = self._phase != "growing" and self._refused is None  # small gains are to be told from chance
        counted = self._seen - settling
        if counted < max(_FEWEST, self.allowed * (4 if fine else 1)) or now <= self._counted_from:
            return
        if self._peak < self.allowed:  # something else bounds it: rows that come slowly, limits a minute
            self._measure_anew()
        else:
            self._choose(counted / (now - self._counted_from), now)

    def _choose(self, speed: float, now: float) -> None:
        if self._phase == "steady":
            self._kept, self._speed = self.allowed, speed
            if now - self._steady_since >= self._patience:
                self._try_more()
            else:
                self._measure_anew()
        elif self._refused is not None:
            self._kept, self._speed = self.allowed, speed
            if self.allowed >= self._refused:  # what was refused once is not now
                self._patience = SOONEST
                self._step *= 2
                self._refused = self.allowed + self._step
            more = min(self.allowed + max(1, self.allowed // 50), self._refused - 1, self._most)
            self._go(more, "climbing" if more > self.allowed else "steady")
        elif self.allowed == self._kept or speed >= self._speed * self._worth():
            self._kept, self._speed, self._patience = self.allowed, speed, SOONEST
            by = self.allowed if self._phase == "growing" else max(1, self.allowed // 8)
            more = min(self.allowed + by, self._most)
            self._go(more, self._phase if more > self.allowed else "steady")
        elif self._phase == "growing" and self._patience == SOONEST:
            self._go(self._kept, "climbing")
        else:
            self._patience = min(self._patience * 2, RAREST)
            self._go(self._kept, "steady")

    def _worth(self) -> float:
        """Return by how much faster answers must come for the step from the level that was kept to be worth it."""
        part = _WORTH_OF_LARGE if self._phase == "growing" else _WORTH
        return 1 + part * (self.allowed / self._kept - 1)

    def _try_more(self) -> None:
        """Try the level that was refused, or half as much again where none was."""
        if self._refused is not None:
            more = min(self._refused, self._most)
            self._go(more, "climbing" if more > self.allowed else "steady")
        else:
            more = min(self.allowed + max(1, self.allowed // 2), self._most)
            self._go(more, "growing" if more > self.allowed else "steady")

    def _go(self, level: int, phase: Literal["growing", "climbing", "steady"]) -> None:
        now = self._clock()
        if phase == "steady":
            self._steady_since = now
        if level != self.allowed:
            self._changed = now
        self.allowed, self._phase = level, phase
        self._measure_anew()

    def _measure_anew(self) -> None:
        self._seen, self._peak = 0, self.in_flight


def _tenth_less(level: int) -> int:
    return max(1, level * 9 // 10)
