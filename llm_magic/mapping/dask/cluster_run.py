"""A run over a cluster: chunks as tasks of Dask, outcomes as they come, on a thread of its own.

Dask places the chunks, and repeats one whose worker died: then the rows whose outcomes had arrived are left out. Limits
are divided among the workers. A worker that joins is looked at, and takes part.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llm_magic.background_loop import LOOK
from llm_magic.errors import ConnectionFailedError, LLMError
from llm_magic.mapping.dask.chunks import Chunk, Chunks, chunk_size
from llm_magic.mapping.dask.cluster_work import ClusterWork
from llm_magic.mapping.dask.serialization import open_outcomes, opened, packed, sealed
from llm_magic.mapping.dask.worker import ask_chunk
from llm_magic.mapping.dask.workers import Workers
from llm_magic.mapping.rows import Outcome

if TYPE_CHECKING:
    from distributed import Client

_AHEAD = 3
"""Chunks under way for each worker: one whose last rows are asked, one that begins, one that waits; a row that takes
long holds up none of them."""

_UNREAD = 2_000
"""Outcomes that nobody has taken from which on no further chunk is sent."""

_TICK = 1.0
_ENDING = 5.0
_LOST = 5.0
_QUEUE = 64


async def ask_on(
    client: Client,
    work: ClusterWork,
    rows: Iterable[Any],
    *,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> AsyncGenerator[list[Outcome], None]:
    """Ask rows from the workers of a cluster, and yield their outcomes as they come, some at a time, in any order.

    Parameters
    ----------
    client
        As `client_of` returns it.
    work
        What is asked.
    rows
        Objects with a `number`, each once, that can be pickled; read on a thread of its own, as they are needed.
    stop
        Set, it closes the requests in flight on the workers; what came is still yielded. So does closing the iterator.
    say
        Takes lines for the user: which worker cannot ask, what differs there.

    Raises
    ------
    ConfigurationError
        No worker can ask.
    ConnectionFailedError
        The scheduler, or all workers, are gone.
    Exception
        What reading the rows raised, when all rows before are answered.

    """
    here = asyncio.get_running_loop()
    arrived: asyncio.Queue[list[Outcome] | None] = asyncio.Queue()
    stop = threading.Event() if stop is None else stop
    closed = threading.Event()

    def emit(outcomes: list[Outcome] | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            here.call_soon_threadsafe(arrived.put_nowait, outcomes)

    def tell(line: str) -> None:
        with suppress(RuntimeError):
            here.call_soon_threadsafe(say, line)

    run = _ClusterRun(
        client, work, iter(rows), is_stopped=lambda: stop.is_set() or closed.is_set(), emit=emit, say=tell
    )
    thread = threading.Thread(target=run.work, name="llm_magic rows on Dask", daemon=True)
    thread.start()
    try:
        while (outcomes := await _next(arrived)) is not None:
            if outcomes:
                yield outcomes
                run.taken += len(outcomes)
    finally:
        closed.set()
        while thread.is_alive():  # noqa: ASYNC110 - a thread sets no event of this loop
            await asyncio.sleep(0.01)
    if run.error is not None:
        raise run.error


async def _next(arrived: asyncio.Queue[list[Outcome] | None]) -> list[Outcome] | None:
    """Await outcomes, with a look now and then for an interrupt that does not wake the loop."""
    try:
        async with asyncio.timeout(LOOK):
            return await arrived.get()
    except TimeoutError:
        return []


@dataclass
class _Task:
    """The task of a chunk, and the workers that may take it."""

    future: Any
    workers: tuple[str, ...]
    attempts: int = 1
    ended: float | None = None


class _ClusterRun:
    """One run over a cluster, at work on a thread of its own; only Dask's public, blocking calls are used."""

    def __init__(
        self,
        client: Any,
        work: ClusterWork,
        rows: Iterator[Any],
        *,
        is_stopped: Callable[[], bool],
        emit: Callable[[list[Outcome] | None], None],
        say: Callable[[str], None],
    ) -> None:
        self._client, self._work, self._is_stopped, self._send_on = client, work, is_stopped, emit
        self._id = f"llm_magic-rows-{uuid4().hex[:12]}"
        self._chunks = Chunks(rows, packed)
        self._tasks: dict[int, _Task] = {}
        self._over: list[Any] = []  # futures whose outcomes are all here
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._workers = Workers(client, self._id, work, say)
        self._queue: Any = None
        self._emitted = 0
        self._began = time.monotonic()
        self.taken = 0
        """Outcomes that somebody has taken."""
        self.error: BaseException | None = None
        """What it ended with."""

    def work(self) -> None:
        """Do all of it."""
        try:
            first = self._next_chunk(self._chunk_size(len(self._client.nthreads())))
            if first is not None:  # else no worker is needed
                self._begin()
                self._tasks[first.number] = self._task_of(first, 1)
                self._go_on()
            self.error = self._chunks.problem
        except (TimeoutError, OSError) as error:
            said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            self.error = ConnectionFailedError(
                f"The Dask scheduler does not answer: {said}", "Start it again, and ask for the rows that are missing."
            )
        except BaseException as error:  # noqa: BLE001 - raised where the outcomes are awaited
            self.error = error
        finally:
            try:
                self._end()
            except Exception as error:  # noqa: BLE001 - the scheduler is gone
                self.error = self.error or error
            self._send_on(None)

    def _begin(self) -> None:
        from distributed import Queue

        self._began = time.monotonic()
        self._queue = Queue(self._id, client=self._client, maxsize=_QUEUE)
        self._receiver = threading.Thread(target=self._receive, name="llm_magic outcomes", daemon=True)
        self._receiver.start()
        self._workers.begin()

    def _receive(self) -> None:
        """Hand on what workers send; ends with a word of our own."""
        try:
            while True:
                for item in (self._queue.get(), *self._queue.get(batch=True)):
                    if item is None:
                        return
                    self._inbox.put(item)
        except Exception as error:  # noqa: BLE001 - the scheduler is gone; whoever waits raises it
            self._inbox.put(error)

    def _go_on(self) -> None:
        looked = time.monotonic()
        while not self._is_stopped():
            self._submit()
            if self._chunks.finished:
                return
            self._take(0.1)
            if time.monotonic() - looked > _TICK:
                looked = time.monotonic()
                self._workers.look(takes_on=not (self._chunks.exhausted and len(self._workers)))
                self._look_at_tasks()

    def _submit(self) -> None:
        """Send chunks, as many as keep all workers busy."""
        while self._emitted - self.taken < _UNREAD:
            size = self._chunk_size(len(self._workers))
            if self._chunks.missing >= _AHEAD * size * len(self._workers):
                return
            chunk = self._next_chunk(size)
            if chunk is None:
                return
            self._tasks[chunk.number] = self._task_of(chunk, 1)

    def _chunk_size(self, workers: int) -> int:
        work = self._work
        left = None if work.total is None else max(0, work.total - self._chunks.read)
        seconds = max(1.0, time.monotonic() - self._began)
        return chunk_size(workers, left, work.concurrency, self._emitted / seconds / max(1, workers))

    def _next_chunk(self, size: int) -> Chunk | None:
        chunk = self._chunks.next(size)
        self._emit(self._chunks.take_refused())
        return chunk

    def _task_of(self, chunk: Chunk, attempt: int) -> _Task:
        """Send a chunk: Dask chooses which of the workers that can ask takes it."""
        workers = self._workers.addresses
        future = self._client.submit(
            ask_chunk, self._id, chunk.number, sealed(list(chunk.rows.items())),
            key=f"{self._id}-{chunk.number}-{attempt}", workers=list(workers),
            pure=False, priority=-chunk.number,  # first come, first asked
        )  # fmt: skip
        return _Task(future, workers, attempt)

    def _take(self, seconds: float) -> None:
        """Take what has come, waiting for the first of it."""
        outcomes: list[Outcome] = []
        try:
            item = self._inbox.get(timeout=seconds)
            while True:
                if isinstance(item, BaseException):
                    raise item
                address, entries = item
                for what, *rest in entries:
                    self._took(address, what, rest, outcomes)
                item = self._inbox.get_nowait()
        except Empty:
            pass
        finally:
            self._emit(outcomes)

    def _took(self, address: str, what: str, rest: list[Any], outcomes: list[Outcome]) -> None:
        if what == "rows":
            numbers, data = rest
            for outcome in open_outcomes(numbers, data):
                chunk = self._chunks.came(outcome.number)
                if chunk is not None:
                    outcomes.append(outcome)
                    if not chunk.rows:
                        self._over.append(self._tasks.pop(chunk.number).future)
        elif what == "began":
            chunk = self._chunks.get(rest[0])
            self._workers.tell(address, "go", rest[0], None if chunk is None else chunk.arrived())
        elif what == "held":
            self._workers.held(address, rest[0])
        elif what == "failed":
            raise opened(rest[0]).error
        elif what == "ended":
            self._workers.ended(address)

    def _emit(self, outcomes: list[Outcome]) -> None:
        if outcomes:
            self._emitted += len(outcomes)
            self._send_on(outcomes)

    def _look_at_tasks(self) -> None:
        """Send anew what was lost with all workers that might have taken it, and give up what kills them."""
        self._over = [future for future in self._over if not future.done()]  # before, it would count as cancelled
        for chunk in self._chunks:
            task = self._tasks[chunk.number]
            status = task.future.status
            if status == "error":
                self._give_up(chunk, task.future.exception())
            elif status in ("cancelled", "lost") or not set(self._workers.addresses) & set(task.workers):
                self._resend(chunk, task)
            elif status == "finished":
                task.ended = task.ended or time.monotonic()
                if task.future.result() is None:  # that worker had forgotten the run
                    self._workers.forget(task.workers)
                if task.future.result() is not True or time.monotonic() - task.ended > _LOST:
                    self._resend(chunk, task)

    def _resend(self, chunk: Chunk, task: _Task) -> None:
        """Send a chunk anew, once there is a worker."""
        if len(self._workers):
            self._client.cancel([task.future])
            self._tasks[chunk.number] = self._task_of(chunk, task.attempts + 1)

    def _give_up(self, chunk: Chunk, error: BaseException) -> None:
        said = str(error).partition("\n")[0].rstrip(".")
        why = f"{type(error).__name__}: {said}"
        self._over.append(self._tasks.pop(chunk.number).future)
        self._emit(
            [
                Outcome(number, None, LLMError(f"The Dask cluster gave row {number} up: {why}."))
                for number in self._chunks.give_up(chunk)
            ]
        )

    def _end(self) -> None:
        """End the run on all workers: nothing is in flight there when this returns."""
        if self._queue is None:
            return
        workers = self._workers
        workers.end("end" if self._chunks.finished else "stop")
        waits = time.monotonic() + _ENDING
        while time.monotonic() < waits and not workers.all_ended:
            with suppress(LLMError):
                self._take(0.1)
        self._client.cancel([*self._over, *(task.future for task in self._tasks.values())])
        workers.close()
        self._queue.put(None, timeout="2s")
        self._receiver.join(2)
        self._queue.close()
