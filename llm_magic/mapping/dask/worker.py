"""A run on one worker of a Dask cluster: its session, the chunks that it asks, and how outcomes go to the client.

Nothing here is part of a Dask graph but the rows themselves, sealed: what a dashboard or a log shows of a task is the
name of the run and the number of a chunk.

```
client ─run→ begin(settings, variables)      client ─task→ ask_chunk(rows) → Feed → ask(session, …) → Outcome
client ←Queue of the run─ began, rows, rows …   client ─Queue of the worker→ go, share, stop
```
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

from llm_magic.errors import LLMError
from llm_magic.mapping.dask.cluster_work import Told, control_queue
from llm_magic.mapping.dask.feed import ChunkPart, Feed
from llm_magic.mapping.dask.serialization import Sealed, opened, pack_outcome, pack_outcomes
from llm_magic.mapping.dask.variables import Variables
from llm_magic.mapping.rows import Outcome
from llm_magic.session import Session
from llm_magic.session.portable import settings_there

IDLE = 600.0
"""Seconds without a row after which a worker forgets a run: its client is gone, or will begin it anew."""

LOOK = 0.25
"""Seconds after which a thread that waits looks whether it is still wanted."""

_MOST_UNSENT = 1000
"""Outcomes on their way to the client from which on no further row is asked."""

_BATCH = 200
_GATHER = 0.02
"""Outcomes that are sent in one message, at most, and seconds in which they gather for it: a message costs the client
and the scheduler as much as many outcomes."""


class WorkerRun:
    """One run on one worker: a session of its own, one asking over all its chunks, and the way to the client."""

    def __init__(self, told: Told, share: int, worker: Any) -> None:
        self._told = told
        self._worker = worker
        self._home = asyncio.get_running_loop()  # the worker's own
        self._outgoing: deque[tuple[Outcome | list[Any], ChunkPart | None]] = deque()
        self._some = asyncio.Event()
        self._urgent = False  # whether something waits that is no outcome
        self._going: dict[int, tuple[threading.Event, list[frozenset[int] | None]]] = {}
        self._parts: set[ChunkPart] = set()
        self.stopped = threading.Event()
        self._last = time.monotonic()
        self._variables = Variables(told.variables)
        self.session = Session(*settings_there(told.settings), say=lambda _line: None)
        auto = not isinstance(told.concurrency, int)
        self._feed = Feed(float("inf") if auto else share, self._is_behind)
        self._work = self.session.loop.submit(self._ask(self._feed))
        self._tasks = [self._home.create_task(each()) for each in (self._send, self._listen, self._watch)]

    async def _ask(self, feed: Feed) -> None:
        """Ask all rows that come; runs on the session's loop."""
        told = self._told
        try:
            outcomes = told.ask(self.session, told.request, feed, concurrency=told.concurrency)
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    self._tell(outcome, feed.done(outcome.number))
                    if len(feed.in_flight) >= feed.share and isinstance(told.concurrency, int):
                        self._tell(["held", len(feed.in_flight)])
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the client raises it
            self._tell(["failed", pack_outcome(Outcome(-1, None, _as_error(error)))])

    def _is_behind(self) -> bool:
        return len(self._outgoing) > _MOST_UNSENT

    def _tell(self, what: Outcome | list[Any], part: ChunkPart | None = None) -> None:
        """Send something to the client; any thread may."""
        if not isinstance(what, Outcome):
            self._urgent = True
        self._outgoing.append((what, part))
        if self._urgent or len(self._outgoing) == 1:  # else it is awake, for the one before
            with suppress(RuntimeError):  # the worker ends
                self._home.call_soon_threadsafe(self._some.set)

    async def _send(self) -> None:
        """Send what there is, in batches: while one is under way, the next gathers."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._outgoing:
                if not self._urgent and len(self._outgoing) < _BATCH:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_GATHER):
                            await self._some.wait()
                self._some.clear()
                self._urgent = False
                batch = [self._outgoing.popleft() for _ in range(min(_BATCH, len(self._outgoing)))]
                was_behind = len(self._outgoing) + len(batch) > _MOST_UNSENT
                try:
                    await self._worker.scheduler.queue_put(
                        name=self._told.run, data=[self._worker.address, _entries([what for what, _ in batch])]
                    )
                except Exception:  # noqa: BLE001 - the client has taken the queue away, or the scheduler is gone
                    self.stop()
                    return
                for _, part in batch:
                    if part is not None:
                        part.arrived()
                if was_behind:
                    self._on_feed(Feed.look)

    async def _listen(self) -> None:
        """Do what the client says."""
        name = control_queue(self._told.run, self._worker.address)
        with suppress(Exception):  # the queue is gone, and with it the run
            while True:
                record = await self._worker.scheduler.queue_get(name=name)
                what, *rest = record["value"]
                self._last = time.monotonic()
                if what == "go":
                    chunk, arrived = rest
                    event, known = self._going.setdefault(chunk, (threading.Event(), []))
                    known.append(None if arrived is None else frozenset(arrived))
                    event.set()
                elif what == "share":
                    self._on_loop(self._set_share, rest[0])
                elif what == "end":
                    self._on_feed(Feed.end)
                    await self._end(wait=True)
                    return
                else:
                    break
        self.stop()

    def _set_share(self, share: int) -> None:
        self._feed.set_share(share)
        self._tell(["held", max(share, len(self._feed.in_flight))])

    def _on_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the session is closed
            self.session.loop.loop.call_soon_threadsafe(call, *arguments)

    def _on_feed(self, call: Callable[..., None], *arguments: Any) -> None:
        self._on_loop(call, self._feed, *arguments)

    async def _watch(self) -> None:
        """End a run that nobody goes on with."""
        while time.monotonic() - self._last < IDLE or self._feed.in_flight:  # noqa: ASYNC110 - time passes by itself
            await asyncio.sleep(IDLE / 10)
        self.stop()

    def ask(
        self, chunk: int, rows: list[tuple[int, bytes]], is_wanted: Callable[[], bool], secede: Callable[[], None]
    ) -> bool:
        """Ask the rows of a chunk, and return when their outcomes are with the client; False where it was stopped.

        Blocks the thread of its task; `secede` lets the next task begin while the last rows are under way.
        """
        self._last = time.monotonic()
        event, known = self._going.setdefault(chunk, (threading.Event(), []))
        self._tell(["began", chunk])
        while not event.wait(LOOK) or self.stopped.is_set():
            if self.stopped.is_set() or not is_wanted():
                return self._unwanted(is_wanted)
        del self._going[chunk]
        arrived = known[-1]
        if arrived is None:
            return True
        rows = [(number, data) for number, data in rows if number not in arrived]
        part = ChunkPart(len(rows))
        self._parts.add(part)
        self._on_feed(Feed.add, rows, part)
        seceded = False
        with part.changed:
            while part.left:
                if not seceded and part.is_half_sent:
                    seceded = True
                    secede()
                part.changed.wait(LOOK)
                if self.stopped.is_set() or not is_wanted():
                    return self._unwanted(is_wanted)
        self._parts.discard(part)
        self._last = time.monotonic()
        return True

    def _unwanted(self, is_wanted: Callable[[], bool]) -> bool:
        if not is_wanted():  # cancelled: the client is gone
            self._home.call_soon_threadsafe(self.stop)
        return False

    def stop(self) -> None:
        """Close the requests in flight, and forget the run; on the worker's loop."""
        if not self.stopped.is_set():
            self.stopped.set()
            self._wake()
            _ending.add(task := self._home.create_task(self._end(wait=False)))
            task.add_done_callback(_ending.discard)

    def _wake(self) -> None:
        """Wake the threads that wait for a chunk: it is over."""
        for event, _ in list(self._going.values()):
            event.set()
        for part in list(self._parts):
            part.wake()

    async def _end(self, *, wait: bool) -> None:
        if not wait:
            self._work.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await asyncio.wait_for(asyncio.wrap_future(self._work), None if wait else 2)
        self.stopped.set()
        await asyncio.to_thread(self.session.close)  # which closes what was open
        self._variables.restore()
        _runs.pop(self._told.run, None)
        self._tell(["ended"])
        with suppress(Exception):
            async with asyncio.timeout(5):
                while self._outgoing:  # noqa: ASYNC110 - it is emptied by `_send`
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.05)
        here = asyncio.current_task()
        for task in self._tasks:
            if task is not here:
                task.cancel()


def _entries(batch: list[Outcome | list[Any]]) -> list[list[Any]]:
    """Return what a message says: words, and all outcomes of it in one piece."""
    outcomes = [each for each in batch if isinstance(each, Outcome)]
    packed = [["rows", [each.number for each in outcomes], pack_outcomes(outcomes)]] if outcomes else []
    return [*packed, *(each for each in batch if not isinstance(each, Outcome))]


def _as_error(error: BaseException) -> LLMError:
    if isinstance(error, LLMError):
        return error
    return LLMError(f"The worker could not ask: {type(error).__name__}: {error}")


_runs: dict[str, WorkerRun] = {}
_ending: set[asyncio.Task[None]] = set()


async def begin(told: Sealed, share: int, dask_worker: Any = None) -> None:
    """Begin a run on this worker."""
    what: Told = opened(told)
    if (before := _runs.get(what.run)) is not None:  # the client had lost sight of this worker
        before.stop()
        while what.run in _runs:  # noqa: ASYNC110 - it ends by itself
            await asyncio.sleep(0.01)
    _runs[what.run] = WorkerRun(what, share, dask_worker)


def ask_chunk(run: str, chunk: int, rows: Sealed) -> bool | None:
    """Ask the rows of a chunk: the task of a Dask graph. None where this worker does not know the run."""
    from distributed import get_worker, secede

    running = _runs.get(run)
    if running is None:
        return None
    worker = get_worker()
    key = worker.get_current_task()

    def is_wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state in ("executing", "long-running")

    return running.ask(chunk, opened(rows), is_wanted, secede)
