"""One event loop on one daemon thread: coroutines run there, the caller's thread waits and can be interrupted."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from llm_magic.errors import UnsupportedError

T = TypeVar("T")

LOOK = 0.2
"""Seconds after which whoever waits looks whether it was interrupted."""

ENDING = 2.0
"""Seconds in which what was interrupted closes what it had open, and keeps what came."""

_LAST_TURNS = 5
"""Turns of a loop before it stops: a connection that was closed gives its socket back a turn later."""


class BackgroundLoop:
    """An event loop on a daemon thread, started at first use; `close` cancels what runs and ends the thread.

    A process that was forked has a loop of its own: the thread stays behind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        _loops.add(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._loop.run_forever, name="llm_magic loop", daemon=True)
                thread.start()
                self._thread = thread
                self._finalizer = weakref.finalize(self, _shut_down, self._loop, thread)
            return self._loop

    def after_fork(self) -> None:
        """Begin anew in a forked process, where nothing runs any more."""
        self._lock = threading.Lock()
        if self._finalizer is not None:
            self._finalizer.detach()
            _of_the_parent.append(self._loop)
        self._loop = self._thread = self._finalizer = None

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `coroutine` on the loop and return its future; cancelling that cancels the task."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on the loop and wait for its result; an interrupt of the wait cancels it, and lets it end.

        Works inside a running event loop of the caller's, too, which waits meanwhile.

        Raises
        ------
        UnsupportedError
            It is called on this very loop, which cannot wait for itself.

        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UnsupportedError(
                "An async function that runs here cannot wait for an answer: it would wait for itself.",
                "Await it: `await llm.aask(…)`, `await llm.aembed(…)`; or make the function a plain one.",
            )
        begun, ended = threading.Event(), threading.Event()

        async def work() -> T:
            begun.set()
            try:
                return await coroutine
            finally:
                ended.set()

        future = self.submit(work())
        try:
            while True:
                try:
                    return future.result(timeout=LOOK)  # a bare wait cannot be interrupted on Windows
                except TimeoutError:
                    if future.done():
                        raise
        except KeyboardInterrupt:
            future.cancel()
            ended.wait(ENDING)
            raise
        finally:
            if not begun.is_set():
                coroutine.close()

    def cancel(self) -> None:
        """Cancel what runs, and wait until it has ended, two seconds at most."""
        if self._loop is not None:
            self.run(_cancel_all())

    def close(self) -> None:
        """Cancel what runs and end the thread; a later use starts a new one."""
        with self._lock:
            if self._finalizer is not None:
                self._finalizer()
            self._loop = self._thread = self._finalizer = None


_loops: weakref.WeakSet[BackgroundLoop] = weakref.WeakSet()
_of_the_parent: list[object] = []  # kept: what ends with them would be ended for the parent, too


def _after_fork() -> None:
    for each in list(_loops):
        each.after_fork()


if hasattr(os, "register_at_fork"):  # Windows forks no process
    os.register_at_fork(after_in_child=_after_fork)


async def awaited(future: Future[T], *, cancels: bool = True) -> T:
    """Await, on the caller's loop, what runs on another one; `cancels`: with the caller, it is cancelled there.

    The caller's loop is woken now and then: ipykernel tells it of an interrupt in a way that does not wake it, so that
    a cell that awaits a silent server would not end.
    """
    here = asyncio.wrap_future(future)
    here.add_done_callback(lambda done: done.cancelled() or done.exception())  # told also where nobody waits any more
    try:
        while not here.done():
            await asyncio.wait({here}, timeout=LOOK)
        return here.result()
    except asyncio.CancelledError:
        if cancels:
            future.cancel()
        raise


def _shut_down(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Cancel every task of `loop`, let them end, stop the loop and join its thread."""

    async def drain() -> None:
        await _cancel_all()
        await loop.shutdown_asyncgens()
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)
        loop.stop()

    if not loop.is_running():
        return
    asyncio.run_coroutine_threadsafe(drain(), loop)
    if thread is not threading.current_thread():
        thread.join(timeout=3)
        if not thread.is_alive():
            loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=2)


Emit = Callable[[list[T]], Coroutine[Any, Any, None]]
"""What a producer hands its batches to; awaiting it makes the producer wait for a slow consumer."""

AHEAD = 50_000
"""Items that a producer may be ahead of its consumer: bounds the memory, not the speed."""


class Channel(Generic[T]):
    """Batches of items on their way from a coroutine on the loop to a thread that waits for them.

    Parameters
    ----------
    loop
        Where `work` runs; it starts at once.
    work
        A coroutine function that takes an `Emit`.

    """

    def __init__(self, loop: BackgroundLoop, work: Callable[[Emit[T]], Coroutine[Any, Any, Any]]) -> None:
        self._queue: SimpleQueue[list[T] | None] = SimpleQueue()
        self._sent = self._received = 0
        self._closed = False
        self._future = loop.submit(self._produce(work))

    async def _produce(self, work: Callable[[Emit[T]], Coroutine[Any, Any, Any]]) -> Any:
        try:
            return await work(self._emit)
        finally:
            self._queue.put(None)

    async def _emit(self, batch: list[T]) -> None:
        self._sent += len(batch)
        self._queue.put(batch)
        while self._sent - self._received > AHEAD:  # noqa: ASYNC110 - the consumer is a thread, and sets no event
            await asyncio.sleep(0.002)

    def receive(self, timeout: float | None) -> list[T] | None:
        """Return what has arrived, waiting for the first of it.

        Returns
        -------
        list or None
            `[]` after `timeout` seconds without an item, None at the end.

        Raises
        ------
        Exception
            What `work` raised, once all items before it were received.

        """
        items: list[T] = []
        try:
            batch = None if self._closed else self._queue.get(timeout=timeout)
            while batch is not None:
                items += batch
                self._received += len(batch)
                batch = self._queue.get_nowait()
        except Empty:
            return items
        self._closed = True
        if items:
            return items
        self._future.result()
        return None

    def result(self) -> Any:
        """Return what the work returned, once `receive` has said that it is over."""
        return self._future.result()

    def stop(self) -> None:
        """Cancel the work, from any thread, and do not wait: `receive` raises CancelledError when it has ended."""
        self._future.cancel()

    def cancel(self, timeout: float = 2.0) -> None:
        """Cancel the work and wait until it has closed what it had open; what it still sends is dropped."""
        self._future.cancel()
        while not self._closed:
            try:
                self._closed = self._queue.get(timeout=timeout) is None
            except Empty:
                return


async def arriving(
    loop: BackgroundLoop, work: Callable[[Emit[T]], Coroutine[Any, Any, Any]], ahead: int
) -> AsyncGenerator[list[T], None]:
    """Iterate, on the caller's loop, over batches that `work` emits on another one; leaving it early cancels the work.

    `ahead` items are there, at most, before anybody has taken them.

    Raises
    ------
    Exception
        What `work` raised, once all that it had emitted was received.

    """
    here = asyncio.get_running_loop()
    arrived: asyncio.Queue[list[T] | None] = asyncio.Queue()
    sent = received = 0

    def put(batch: list[T] | None) -> None:
        here.call_soon_threadsafe(arrived.put_nowait, batch)

    async def emit(batch: list[T]) -> None:
        nonlocal sent
        sent += len(batch)
        with suppress(RuntimeError):
            put(batch)
        while sent - received > ahead and not here.is_closed():  # noqa: ASYNC110 - the reader is on another loop
            await asyncio.sleep(LOOK / 20)
        if here.is_closed():  # nobody will hear of it
            raise asyncio.CancelledError

    async def produce() -> None:
        try:
            await work(emit)
        finally:
            with suppress(RuntimeError):
                put(None)

    asked = _Abandonable(loop.submit(produce()))
    try:
        while (batch := await _next(arrived)) is not None:
            received += len(batch)
            if batch:
                yield batch
        await awaited(asked.future)
    finally:
        asked.future.cancel()


class _Abandonable:
    """What runs on the loop for a stream; ends with it where the stream is dropped and its own loop is closed."""

    def __init__(self, future: Future[None]) -> None:
        self.future = future

    def __del__(self) -> None:
        self.future.cancel()


async def _next(arrived: asyncio.Queue[list[T] | None]) -> list[T] | None:
    """Await a batch, with a look now and then for an interrupt, as `awaited` does."""
    try:
        async with asyncio.timeout(LOOK):
            return await arrived.get()
    except TimeoutError:
        return []
