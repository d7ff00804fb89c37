"""A worker of a Dask cluster that asks rows: what it is told, its session, and how outcomes go to the client.

Nothing here is part of a Dask graph but the rows themselves, sealed: what a dashboard or a log shows of a task is the
name of the run and the number of a chunk.

```
client ─run→ begin(settings, variables)      client ─task→ ask_chunk(rows) → Feed → ask(session, …) → Outcome
client ←Queue of the run─ began, row, row …   client ─Queue of the worker→ go, share, stop
```
"""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_magic.errors import ConfigurationError, LLMError
from llm_magic.mapping.rows import Outcome
from llm_magic.session import Session
from llm_magic.session.portable import PortableSettings, settings_there

LOOK = 0.25
"""Seconds after which a thread that waits looks whether it is still wanted."""

IDLE = 600.0
"""Seconds without a row after which a worker forgets a run: its client is gone, or will begin it anew."""

_MOST_UNSENT = 1000
"""Outcomes on their way to the client from which on no further row is asked."""
_BATCH = 200


class AskRows(Protocol):
    """What asks rows in one process: the rows come as they are sent here, and outcomes go as they are there.

    Each row is an object with a `number`; so has its `Outcome`. When its iterator is closed, or the task cancelled that
    iterates over it, it closes the requests in flight.
    """

    def __call__(
        self, session: Session, request: Any, rows: AsyncIterator[Any], *, concurrency: int | str
    ) -> AsyncGenerator[Outcome, None]:
        """Return the outcomes of rows, in any order."""


class Sealed:
    """Bytes on their way to a worker, of which logs and dashboards show the size alone."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __repr__(self) -> str:
        return f"<{len(self.data):,} bytes>"

    def __reduce__(self) -> tuple[type[Sealed], tuple[bytes]]:
        return Sealed, (self.data,)

    def __sizeof__(self) -> int:
        return len(self.data)

    def __dask_tokenize__(self) -> int:
        return id(self)


def sealed(value: object) -> Sealed:
    """Return a value as bytes; what the notebook defines (types, functions) goes along by value.

    Raises
    ------
    ConfigurationError
        It cannot travel.

    """
    return Sealed(packed(value))


def packed(value: object) -> bytes:
    """Return a value as bytes, as `sealed`."""
    import cloudpickle  # type: ignore[import-untyped]

    try:
        data: bytes = cloudpickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - whatever a class of the user's raises
        said = str(error).partition("\n")
        raise ConfigurationError(
            f"This cannot be sent to the workers: {said[0]}",
            said[2] or "Use types and functions of a module, or plain ones.",
        ) from None
    return data


def opened(value: Sealed | bytes) -> Any:
    """Return what was packed or sealed."""
    return pickle.loads(value.data if isinstance(value, Sealed) else value)  # noqa: S301 - of this cluster, whose tasks run any code


def pack_outcome(outcome: Outcome) -> bytes:
    """Return an outcome as bytes; of one that cannot travel, the error that says so is in its place."""
    try:
        return packed(outcome)
    except LLMError as error:
        response = outcome.response
        if response is not None:
            response.value = None
        failed = LLMError(f"The value cannot come back from the worker: {error.message}", error.hint)
        with suppress(LLMError):
            return packed(Outcome(outcome.number, response, failed))
        return packed(Outcome(outcome.number, None, failed))


@dataclass(frozen=True)
class Told:
    """What a worker is told of a run; it travels sealed, and only `variables` hold secrets."""

    run: str
    settings: PortableSettings
    ask: AskRows
    request: Any
    concurrency: int | str
    variables: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(eq=False)
class _Part:
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
        self.in_flight: dict[int, _Part] = {}
        self._rows: deque[tuple[bytes, int, _Part]] = deque()
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

    def add(self, rows: Iterable[tuple[int, bytes]], part: _Part) -> None:
        """Take the rows of a chunk."""
        self._rows.extend((data, number, part) for number, data in rows)
        self._changed.set()

    def set_share(self, share: int) -> None:
        """Take another share: fewer requests are begun, none is ended."""
        self.share = share
        self._changed.set()

    def done(self, number: int) -> _Part | None:
        """Take note that a row has an outcome."""
        self._changed.set()
        return self.in_flight.pop(number, None)

    def end(self) -> None:
        """Take note that no further rows come."""
        self._ended = True
        self._changed.set()


class WorkerRun:
    """One run on one worker: a session of its own, one asking over all its chunks, and the way to the client."""

    def __init__(self, told: Told, share: int, worker: Any) -> None:
        self._told = told
        self._worker = worker
        self._home = asyncio.get_running_loop()  # the worker's own
        self._outgoing: deque[tuple[list[Any], _Part | None]] = deque()
        self._some = asyncio.Event()
        self._going: dict[int, tuple[threading.Event, list[frozenset[int] | None]]] = {}
        self._parts: set[_Part] = set()
        self.stopped = threading.Event()
        self._last = time.monotonic()
        self._variables = Variables(told.variables)
        self.session = Session(*settings_there(told.settings), say=lambda _line: None)
        auto = not isinstance(told.concurrency, int)
        self._feed: Feed | None = None
        self._ready = threading.Event()
        self._work = self.session.loop.submit(self._ask(float("inf") if auto else share))
        self._tasks = [self._home.create_task(each()) for each in (self._send, self._listen, self._watch)]

    async def _ask(self, share: float) -> None:
        """Ask all rows that come; runs on the session's loop."""
        told = self._told
        self._feed = feed = Feed(share, lambda: len(self._outgoing) > _MOST_UNSENT)
        self._ready.set()
        try:
            outcomes = told.ask(self.session, told.request, feed, concurrency=told.concurrency)
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    part = feed.done(outcome.number)
                    self._tell(["row", outcome.number, pack_outcome(outcome)], part)
                    self._tell_held(feed)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the client raises it
            self._tell(["failed", pack_outcome(Outcome(-1, None, _as_error(error)))])

    def _tell_held(self, feed: Feed) -> None:
        if len(feed.in_flight) >= feed.share and isinstance(self._told.concurrency, int):
            self._tell(["held", len(feed.in_flight)])

    def _tell(self, entry: list[Any], part: _Part | None = None) -> None:
        self._outgoing.append((entry, part))
        with suppress(RuntimeError):  # the worker ends
            self._home.call_soon_threadsafe(self._some.set)

    async def _send(self) -> None:
        """Send what there is, in batches: while one is under way, the next gathers."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._outgoing:
                batch = [self._outgoing.popleft() for _ in range(min(_BATCH, len(self._outgoing)))]
                data = [self._worker.address, [entry for entry, _ in batch]]
                try:
                    await self._worker.scheduler.queue_put(name=self._told.run, data=data)
                except Exception:  # noqa: BLE001 - the client has taken the queue away, or the scheduler is gone
                    self.stop()
                    return
                for _, part in batch:
                    if part is not None:
                        with part.changed:
                            part.left -= 1
                            part.changed.notify_all()

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
                    self.session.loop.loop.call_soon_threadsafe(self._set_share, rest[0])
                elif what == "end":
                    self._on_feed(Feed.end)
                    await self._end(wait=True)
                    return
                else:
                    break
        self.stop()

    def _set_share(self, share: int) -> None:
        feed = self._feed
        if feed is not None:
            feed.set_share(share)
            self._tell(["held", max(share, len(feed.in_flight))])

    def _on_feed(self, call: Callable[..., None], *arguments: Any) -> None:
        self._ready.wait(5)
        if self._feed is not None:
            self.session.loop.loop.call_soon_threadsafe(call, self._feed, *arguments)

    async def _watch(self) -> None:
        """End a run that nobody goes on with."""
        while time.monotonic() - self._last < IDLE or (  # noqa: ASYNC110 - time passes by itself
            self._feed is not None and self._feed.in_flight
        ):
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
        part = _Part(len(rows), len(rows))
        self._parts.add(part)
        self._on_feed(Feed.add, rows, part)
        seceded = False
        with part.changed:
            while part.left:
                if not seceded and part.unsent <= max(1, len(rows) // 2):
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
            with part.changed:
                part.changed.notify_all()

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


class Variables:
    """Environment variables that a client forwards, for the time of its run.

    Their values are put back when it ends, unless somebody has changed them meanwhile.
    """

    def __init__(self, values: dict[str, str]) -> None:
        self._before = {name: os.environ.get(name) for name in values}
        self._values = values
        os.environ.update(values)

    def restore(self) -> None:
        """Put back what was there before."""
        for name, before in self._before.items():
            if os.environ.get(name) != self._values[name]:
                continue
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


def _as_error(error: BaseException) -> LLMError:
    if isinstance(error, LLMError):
        return error
    return LLMError(f"The worker could not ask: {type(error).__name__}: {error}")


def control_queue(run: str, worker: str) -> str:
    """Return the name of the queue that tells one worker what to do."""
    return f"{run}-{worker}"


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
