"""Rows asked from the workers of a Dask cluster: chunks as its tasks, outcomes as they come.

Dask places the chunks, and repeats one whose worker died: then the rows whose outcomes had arrived are left out. Limits
are divided among the workers. A worker that joins is looked at, and takes part.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llm_magic.background_loop import LOOK
from llm_magic.errors import ConfigurationError, ConnectionFailedError, LLMError, OptionError
from llm_magic.mapping.dask.probe import Probe, probe
from llm_magic.mapping.dask.shares import Concurrency, divided, rates_of
from llm_magic.mapping.dask.worker import AskRows, Sealed, Told, ask_chunk, begin, control_queue, opened, packed, sealed
from llm_magic.mapping.rows import Outcome
from llm_magic.session.portable import PortableSettings

if TYPE_CHECKING:
    from distributed import Client

CHUNK = 100
"""Rows of a task, at most."""

_CHUNK_BYTES = 4_000_000
_AHEAD = 3
"""Chunks under way for each worker: one whose last rows are asked, one that begins, one that waits; a row that takes
long holds up none of them."""

_UNREAD = 2_000
"""Outcomes that nobody has taken from which on no further chunk is sent."""

_CONNECT = 10.0
_TICK = 1.0
_ENDING = 5.0
_LOST = 5.0
_PATIENCE = 60.0
_QUEUE = 64
_EXAMPLE = "from distributed import Client; client = Client()"


def client_of(on: Any) -> Client:
    """Return the client that `on` names: "dask" (the current one), an address, or the client itself.

    Raises
    ------
    ConfigurationError
        Dask is not installed, there is no current client, or nothing answers at the address.
    OptionError
        It is none of these.

    """
    try:
        import distributed
    except ImportError:
        raise ConfigurationError(
            "Rows are asked from the workers of a Dask cluster, and dask is not installed.",
            'pip install "llm_magic[dask]"',
        ) from None
    if isinstance(on, distributed.Client):
        client = on
    elif on == "dask":
        try:
            client = distributed.get_client()
        except ValueError:
            raise ConfigurationError("There is no current Dask client.", f"Make one: {_EXAMPLE}") from None
    elif isinstance(on, str) and "://" in on:
        try:
            client = distributed.Client(on, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError, ImportError) as error:
            said = str(error).partition("\n")[0].rstrip(".")
            raise ConfigurationError(
                f"No Dask scheduler answers at {on}: {type(error).__name__}: {said}.",
                "Its address is that of the scheduler: tcp://host:8786.",
            ) from None
    else:
        raise OptionError(
            f"on= is no Dask cluster: {on!r:.60}.",
            'Say "dask" (the current client), "tcp://host:8786", or give a Client.',
        )
    if client.asynchronous:
        raise OptionError(
            "An asynchronous Dask client cannot be waited for here.", "Give one made without asynchronous=True."
        )
    if client.status != "running":
        raise ConfigurationError(f"The Dask client is {client.status}.", f"Make a new one: {_EXAMPLE}")
    return client


@dataclass(frozen=True)
class ClusterWork:
    """What is asked of a cluster.

    `settings` are `portable` ones; `ask` and `request` are called on each worker with its session; `concurrency` is
    that of the whole cluster, or "auto", of each worker by itself. `variables` are the names of those that `request`
    needs.
    """

    settings: PortableSettings
    ask: AskRows
    request: Any
    concurrency: int | str = 16
    forward_env: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    total: int | None = None
    """Rows, where that is known: few of them are spread over all workers."""
    patience: float = _PATIENCE
    """Seconds without any worker after which the run ends."""


def forwarded(names: Iterable[str]) -> dict[str, str]:
    """Return the variables to forward; raises ConfigurationError where one is not set here."""
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if not isinstance(name, str) or not os.environ.get(name):
            raise ConfigurationError(
                f"forward_env names {name!r:.60}, which is not set here.", "Name environment variables of this process."
            )
    return {name: os.environ[name] for name in names}


async def ask_on(
    client: Client,
    work: ClusterWork,
    rows: Iterable[Any],
    *,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> AsyncGenerator[Outcome, None]:
    """Ask rows from the workers of a cluster, and yield their outcomes as they come, in any order.

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

    run = _ClusterRun(client, work, iter(rows), lambda: stop.is_set() or closed.is_set(), emit, tell)
    thread = threading.Thread(target=run.work, name="llm_magic rows on Dask", daemon=True)
    thread.start()
    try:
        while (outcomes := await _next(arrived)) is not None:
            for outcome in outcomes:
                run.taken += 1
                yield outcome
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
class _Chunk:
    """A chunk under way: the rows whose outcomes have not arrived, and what was once in it."""

    number: int
    rows: dict[int, bytes]
    all: frozenset[int]
    future: Any = None
    workers: tuple[str, ...] = ()
    ended: float | None = None
    attempts: int = 0


@dataclass
class _Worker:
    """A worker that takes part: the queue that tells it what to do, and the place of its share of the limits."""

    control: Any
    slot: int = 0
    ended: bool = False


@dataclass
class _ClusterRun:
    """One run over a cluster, at work on a thread of its own; only Dask's public, blocking calls are used."""

    client: Any
    spec: ClusterWork
    rows: Iterator[Any]
    is_stopped: Callable[[], bool]
    emit: Callable[[list[Outcome] | None], None]
    say: Callable[[str], None]
    error: BaseException | None = None
    taken: int = 0
    _id: str = field(default_factory=lambda: f"llm_magic-rows-{uuid4().hex[:12]}")
    _inbox: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    _workers: dict[str, _Worker] = field(default_factory=dict)
    _unable: set[str] = field(default_factory=set)
    _chunks: dict[int, _Chunk] = field(default_factory=dict)
    _number_of: dict[int, int] = field(default_factory=dict)
    _whole: list[Any] = field(default_factory=list)
    _told: list[Sealed] = field(default_factory=list)
    _free: list[tuple[float, int]] = field(default_factory=list)
    _read: int = 0
    _emitted: int = 0
    _exhausted: bool = False
    _problem: BaseException | None = None
    _alone: float | None = None
    _concurrency: Concurrency | None = None
    _queue: Any = None

    def work(self) -> None:
        """Do all of it; `error` is what it ended with."""
        try:
            self._begin()
            self._go_on()
            self.error = self._problem
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
            self.emit(None)

    def _begin(self) -> None:
        from distributed import Queue

        spec = self.spec
        values = forwarded(spec.forward_env)
        settings = spec.settings.with_magics(record="off", chat_file="")  # only the client writes files
        self._say_unencrypted(values)
        found = self._probe(settings, values)
        count = len(found.able)
        whole = spec.concurrency if isinstance(spec.concurrency, int) else None
        for limit in (whole, *rates_of(settings).values()):
            count = count if limit is None else min(count, limit)
        if count < len(found.able):
            self.say(f"{count} of {len(found.able)} workers ask: the limits are too low to be divided among more.")
        self._concurrency = Concurrency(whole) if whole is not None else None
        self._told = [
            sealed(Told(self._id, part, spec.ask, spec.request, spec.concurrency, values))
            for part in divided(settings, count)
        ]
        self._free = [(0.0, slot) for slot in range(count)]
        self._values = values
        self._settings = settings
        self._queue = Queue(self._id, client=self.client, maxsize=_QUEUE)
        self._receiver = threading.Thread(target=self._receive, name="llm_magic outcomes", daemon=True)
        self._receiver.start()
        self._take_on(found.able)

    def _probe(
        self, settings: PortableSettings, values: Mapping[str, str], workers: Iterable[str] | None = None
    ) -> Probe:
        found = probe(self.client, settings, self.spec.variables, values, workers)
        for line in found.lines:
            self.say(line)
        return found

    def _say_unencrypted(self, values: Mapping[str, str]) -> None:
        address = self.client.scheduler.address
        local = address.startswith(("tls://", "inproc://", "tcp://127.", "tcp://localhost", "tcp://[::1]"))
        if values and not local:
            self.say(f"{', '.join(values)}: sent to {address} unencrypted; a cluster at tls:// encrypts it.")

    def _take_on(self, addresses: Iterable[str]) -> None:
        """Begin the run on workers that can ask, as far as there are shares for them."""
        from distributed import Queue

        for address in addresses:
            slot = self._free_slot()
            if slot is None:
                break
            control = Queue(control_queue(self._id, address), client=self.client)
            try:
                self.client.run(begin, self._told[slot], 0, workers=[address])
            except Exception as error:  # noqa: BLE001 - whatever it is, others may ask
                control.close()
                self._unable.add(address)
                self.say(f"{address} cannot ask: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
                self._free.append((0.0, slot))
                continue
            self._workers[address] = _Worker(control, slot)
        self._divide()

    def _has_room(self) -> bool:
        """Whether one more worker could have a share of every limit."""
        if self._concurrency is not None and len(self._workers) >= self._concurrency.total:
            return False
        is_free = any(since <= time.monotonic() for since, _ in self._free)
        return is_free or not (rates_of(self._settings) or self._has_budget())

    def _free_slot(self) -> int | None:
        """Return the place of a share of the limits, which nobody else has then; None where there is none."""
        if not self._has_room():
            return None
        free = next((item for item in self._free if item[0] <= time.monotonic()), None)
        if free is None:
            return 0
        self._free.remove(free)
        return free[1]

    def _has_budget(self) -> bool:
        magics = self._settings.magics
        return any(spec.get("budget") for spec in self._settings.providers.values()) or (
            "budget" in magics and bool(magics["budget"].value)
        )

    def _divide(self) -> None:
        """Tell those workers their share whose share has changed."""
        if self._concurrency is not None:
            for address, share in self._concurrency.divide(self._workers).items():
                self._workers[address].control.put(["share", share])

    def _receive(self) -> None:
        """Hand on what workers send; ends with a word of our own."""
        try:
            while True:
                item = self._queue.get()
                if item is None:
                    return
                self._inbox.put(item)
        except Exception as error:  # noqa: BLE001 - the scheduler is gone; whoever waits raises it
            self._inbox.put(error)

    def _go_on(self) -> None:
        looked = time.monotonic()
        while not self.is_stopped():
            self._submit()
            if self._exhausted and not self._chunks:
                return
            self._take(0.1)
            if time.monotonic() - looked > _TICK:
                looked = time.monotonic()
                self._look_at_workers()
                self._look_at_chunks()

    def _submit(self) -> None:
        """Send chunks, as many as keep all workers busy."""
        most = _AHEAD * self._chunk_size() * len(self._workers)
        while len(self._number_of) < most and self._emitted - self.taken < _UNREAD:
            chunk = self._next_chunk()
            if chunk is None:
                return
            self._chunks[chunk.number] = chunk
            self._number_of.update(dict.fromkeys(chunk.rows, chunk.number))
            self._send(chunk)

    def _chunk_size(self) -> int:
        workers = max(1, len(self._workers))
        spread = CHUNK if self.spec.total is None else -(-self.spec.total // (2 * workers))
        whole = self.spec.concurrency
        share = CHUNK if not isinstance(whole, int) else 4 * -(-whole // workers)
        return max(1, min(CHUNK, spread, share))

    def _next_chunk(self) -> _Chunk | None:
        rows: dict[int, bytes] = {}
        size, most = 0, self._chunk_size()
        while not self._exhausted and len(rows) < most and size < _CHUNK_BYTES:
            try:
                row = next(self.rows)
            except StopIteration:
                self._exhausted = True
                break
            except BaseException as error:  # noqa: BLE001 - raised when the rows before have their outcomes
                self._exhausted, self._problem = True, error
                break
            try:
                rows[row.number] = packed(row)
            except LLMError as error:
                self._emit([Outcome(row.number, None, error)])
                continue
            size += len(rows[row.number])
        if not rows:
            return None
        self._read += 1
        return _Chunk(self._read, rows, frozenset(rows))

    def _send(self, chunk: _Chunk) -> None:
        """Send a chunk: Dask chooses which of the workers that can ask takes it."""
        chunk.attempts += 1
        chunk.ended = None
        chunk.workers = tuple(self._workers)
        chunk.future = self.client.submit(
            ask_chunk, self._id, chunk.number, sealed(list(chunk.rows.items())),
            key=f"{self._id}-{chunk.number}-{chunk.attempts}", workers=list(chunk.workers),
            pure=False, priority=-chunk.number,  # first come, first asked
        )  # fmt: skip

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
        worker = self._workers.get(address)
        if what == "row":
            number, data = rest
            chunk = self._chunks.get(self._number_of.get(number, -1))
            if chunk is not None and chunk.rows.pop(number, None) is not None:
                del self._number_of[number]
                outcomes.append(opened(data))
                if not chunk.rows:
                    self._finish(chunk)
        elif what == "began" and worker is not None:
            chunk = self._chunks.get(rest[0])
            arrived = sorted(chunk.all - chunk.rows.keys()) if chunk is not None else None
            worker.control.put(["go", rest[0], arrived])
        elif what == "held" and self._concurrency is not None:
            self._concurrency.held(address, rest[0])
            self._divide()
        elif what == "failed":
            error = opened(rest[0]).error
            raise error
        elif what == "ended" and worker is not None:
            worker.ended = True

    def _emit(self, outcomes: list[Outcome]) -> None:
        if outcomes:
            self._emitted += len(outcomes)
            self.emit(outcomes)

    def _finish(self, chunk: _Chunk) -> None:
        del self._chunks[chunk.number]
        self._whole.append(
            chunk.future
        )  # released when its task has ended: before, the worker would take it as cancelled

    def _look_at_workers(self) -> None:
        """Let go of workers that are gone, and take on those that have joined."""
        present = set(self.client.nthreads())
        for gone in set(self._workers) - present:
            worker = self._workers.pop(gone)
            worker.control.close()
            self._free.append((time.monotonic() + 60, worker.slot))
        self._unable &= present
        joined = present - set(self._workers) - self._unable
        if joined and self._has_room() and not (self._exhausted and self._workers):
            found = Probe(())
            try:
                found = self._probe(self._settings, self._values, joined)
            except ConfigurationError as error:
                self.say(str(error).replace("\n", " "))
            self._unable |= joined - set(found.able)
            self._take_on(found.able)
        self._divide()
        if self._workers:
            self._alone = None
            return
        self._alone = self._alone or time.monotonic()
        if time.monotonic() - self._alone > self.spec.patience:
            raise ConnectionFailedError(
                f"No worker of the Dask cluster is left that can ask, for {self.spec.patience:.0f} s.",
                "Start workers, and run it again.",
            )

    def _look_at_chunks(self) -> None:
        """Send anew what was lost with all workers that might have taken it, and give up what kills them."""
        self._whole = [future for future in self._whole if not future.done()]
        for chunk in list(self._chunks.values()):
            status = chunk.future.status
            if status == "error":
                self._give_up(chunk, chunk.future.exception())
            elif status in ("cancelled", "lost") or not self._workers.keys() & set(chunk.workers):
                if self._workers:
                    self._resend(chunk)
            elif status == "finished":
                chunk.ended = chunk.ended or time.monotonic()
                if chunk.future.result() is None:  # that worker had forgotten the run
                    self._forget(chunk)
                if chunk.future.result() is not True or time.monotonic() - chunk.ended > _LOST:
                    self._resend(chunk)

    def _forget(self, chunk: _Chunk) -> None:
        for address in chunk.workers:
            if (worker := self._workers.pop(address, None)) is not None:
                worker.control.close()
                self._free.append((0.0, worker.slot))
        self._divide()

    def _resend(self, chunk: _Chunk) -> None:
        self.client.cancel([chunk.future])
        if self._workers:
            self._send(chunk)

    def _give_up(self, chunk: _Chunk, error: BaseException) -> None:
        said = str(error).partition("\n")[0].rstrip(".")
        for number in chunk.rows:
            self._number_of.pop(number, None)
        self._emit(
            [
                Outcome(
                    number, None, LLMError(f"The Dask cluster gave row {number} up: {type(error).__name__}: {said}.")
                )
                for number in chunk.rows
            ]
        )
        chunk.rows.clear()
        self._finish(chunk)

    def _end(self) -> None:
        """End the run on all workers: nothing is in flight there when this returns."""
        if self._queue is None:
            return
        finished = self._exhausted and not self._chunks
        for worker in self._workers.values():
            worker.control.put(["end" if finished else "stop"])
        waits = time.monotonic() + _ENDING
        while time.monotonic() < waits and not all(worker.ended for worker in self._workers.values()):
            with suppress(LLMError):
                self._take(0.1)
        self.client.cancel([*self._whole, *(chunk.future for chunk in self._chunks.values())])
        for worker in self._workers.values():
            worker.control.close()
        self._queue.put(None, timeout="2s")
        self._receiver.join(2)
        self._queue.close()
