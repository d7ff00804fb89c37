"""The pipeline of many rows: workers take rows, ask, and hand outcomes on as they come, with bounded memory.

When the first rows that end fail alike, or the endpoint does not come back, no further row is taken.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Protocol

from llm_magic.errors import (
    AnswerError,
    AuthenticationError,
    BudgetError,
    ConnectionFailedError,
    LLMError,
    NotAskedError,
    ProviderError,
    QuotaExceededError,
    RecordingError,
)
from llm_magic.mapping.concurrency import Concurrency, InFlight
from llm_magic.mapping.rows import Outcome, RowRequest

ALIKE = 10
"""Rows that end one after the other, fail alike, and are then the last: the first ones, or where nothing helps."""

HOPELESS = (AuthenticationError, QuotaExceededError)
"""Failures that the next row would meet, too, though rows before it were answered."""

AHEAD = 1024
"""Outcomes that are there before anybody has taken them."""

FIRST_LOOK, LONGEST_LOOK = 0.5, 5.0
"""Seconds after which an endpoint that stopped answering is asked again, at first and at most."""

_AT_ONCE = 64  # rows that are taken from what lies in memory
_REST_AT_ONCE = 10_000  # rows that are not asked
_GONE = frozenset({502, 503, 504})  # of a proxy whose server is gone (RFC 9110, 15.6)


class Source(Protocol):
    """Where rows come from."""

    async def next(self) -> RowRequest | None:
        """Return the next row, None after the last; raises what the input raises, once all rows before are taken."""

    def stop(self) -> None:
        """Give no more rows, and let go of whoever waits for one."""

    def rest(self) -> AsyncGenerator[list[RowRequest], None]:
        """Yield the rows that nobody took, some at a time."""


class RowSource:
    """Rows as they are needed: from memory at once, from an iterator of the user's on a thread, for it may wait.

    What has been read is given at once: the iterator may wait for the answer to a row before it yields the next one.

    Parameters
    ----------
    rows
        The rows.
    waits
        Whether the next row may take time: a generator that reads a file, a query.
    ends
        Whether the rest may be read where the rows are asked no more: not of an iterator, which may have no end.

    """

    def __init__(self, rows: Iterator[RowRequest], *, waits: bool, ends: bool = True) -> None:
        self._rows = rows
        self._waits = waits
        self._ends = ends
        self._ready: deque[RowRequest] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._is_wanted = False  # somebody waits for the row that is read now
        self._is_stopped = False
        self._giving = threading.Lock()  # between a row that is read and the stop
        self._reading: asyncio.Future[None] | None = None
        self._ended = False
        self._raised: BaseException | None = None

    async def next(self) -> RowRequest | None:
        """Return the next row, None after the last; raises what the input raises, once all rows before are taken."""
        while not self._is_stopped:
            if self._ready:
                return self._ready.popleft()
            if self._ended:
                if self._raised is not None:
                    raise self._raised
                return None
            if self._waits:
                await self._read_on()
            else:
                self._read(_AT_ONCE)
        return None

    async def _read_on(self) -> None:
        """Have rows read, and wait until one is there, or the end."""
        loop = asyncio.get_running_loop()
        if self._reading is None or self._reading.done():
            self._reading = loop.create_future()
            work = partial(contextvars.copy_context().run, self._read_aside, loop, self._reading)
            # a process may end while the user's iterator waits: nobody waits for a daemon
            threading.Thread(target=work, name="llm_magic rows", daemon=True).start()
        self._is_wanted = True
        if self._ready or self._ended:  # since it was looked for
            return
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            self._wake()  # what it was woken for is there for another
            raise

    def _read_aside(self, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._wake)

        def end() -> None:
            if not done.done():
                done.set_result(None)
            self._wake()

        try:
            self._read(_AT_ONCE, tell)
        finally:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(end)

    def _read(self, most: int, tell: Callable[[], None] | None = None) -> None:
        """Read the next rows, or what the input raises after them."""
        try:
            for row in islice(self._rows, most):
                with self._giving:
                    if self._is_stopped and not self._ends:
                        return  # as if it had not been read: its place is after all that were
                    self._ready.append(row)
                    most -= 1
                if tell is not None and self._is_wanted:
                    self._is_wanted = False
                    tell()
                if self._is_stopped:
                    return
        except BaseException as error:  # noqa: BLE001 - raised once the rows before are taken
            self._raised = error
            self._ended = True
            return
        self._ended = most > 0

    def _wake(self) -> None:
        """Wake as many as there are rows for, all at the end; whoever waits needs a thread that reads."""
        self._is_wanted = bool(self._waiters)  # before it is counted what is there
        reads = self._reading is not None and not self._reading.done()
        number = len(self._ready) if reads and not self._is_stopped else len(self._waiters)
        for _ in range(min(number, len(self._waiters))):
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def stop(self) -> None:
        """Give no more rows, and let go of whoever waits for one."""
        with self._giving:
            self._is_stopped = True
        self._wake()

    async def rest(self) -> AsyncGenerator[list[RowRequest], None]:
        """Yield the rows that nobody took, some at a time; of an iterator only those that were read already."""
        if self._ends and self._reading is not None:
            await self._reading
        if self._ready:
            yield list(self._ready)
            self._ready.clear()
        if not self._ends:
            return
        if self._raised is not None:
            raise self._raised
        while rows := await asyncio.to_thread(list, islice(self._rows, _REST_AT_ONCE)):
            yield rows


class Pipeline:
    """Asks for rows, as many at once as allowed.

    Parameters
    ----------
    source
        The rows.
    ask
        Asks for one and returns its outcome; it raises nothing but what ends the whole run. It tells the request in
        flight that it is given of each refusal.
    concurrency
        How many rows are in flight.
    patience
        Seconds that an endpoint is waited for which has answered before and cannot be reached any more.

    """

    def __init__(
        self,
        source: Source,
        ask: Callable[[RowRequest, InFlight], Awaitable[Outcome]],
        concurrency: Concurrency,
        patience: float = 60.0,
    ) -> None:
        self._source = source
        self._ask = ask
        self._concurrency = concurrency
        self._patience = patience
        self._clock = time.perf_counter
        self._workers: set[asyncio.Task[None]] = set()
        self._there: list[Outcome] = []  # that nobody has taken
        self._news = asyncio.Event()
        self._taken = asyncio.Event()
        self._broken: BaseException | None = None  # what ends the whole run
        self._verdict = Verdict()
        self._answered = False
        self._outage: _Outage | None = None
        self.stopped: LLMError | None = None
        """Why no further row is taken; None where all are."""

    @property
    def in_flight(self) -> int:
        """Rows that are asked for now."""
        return self._concurrency.in_flight

    @property
    def waiting(self) -> str:
        """What all rows wait for, as a line; empty where they do not."""
        return "" if self._outage is None else self._outage.line

    async def outcomes(self) -> AsyncGenerator[list[Outcome], None]:
        """Yield the outcomes as they come, some at a time; rows that are not asked come last.

        Leaving it closes what is in flight.

        Raises
        ------
        Exception
            What the input raised, after the outcomes of the rows before.

        """
        try:
            self._spawn()
            while True:
                if self._workers and not self._there:  # the news of both may have been heard with what came before
                    await self._news.wait()
                self._news.clear()
                there = self._take()
                if there:
                    yield there
                if not (self._workers or self._there):  # they may have ended while the last ones were taken
                    break
            if self._broken is not None:
                raise self._broken
            if self.stopped is not None:
                error = not_asked(self.stopped)  # one for all: there may be a million
                async for rows in self._source.rest():
                    yield [Outcome(row.number, error=error) for row in rows]
            while there := self._take():  # that were put while the last ones were taken
                yield there
        finally:
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)

    def _take(self) -> list[Outcome]:
        there, self._there = self._there, []
        self._taken.set()
        return there

    def put(self, outcomes: list[Outcome]) -> None:
        """Hand on outcomes of rows that need not be asked, with the others."""
        self._there += outcomes
        self._news.set()

    def _spawn(self) -> None:
        while len(self._workers) < self._concurrency.allowed:
            worker = asyncio.ensure_future(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._end_worker)

    def _end_worker(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()) is not None:
            self._broken = self._broken or error
        self._news.set()

    async def _work(self) -> None:
        while self.stopped is None and self._broken is None and len(self._workers) <= self._concurrency.allowed:
            row = await self._source.next()
            if row is None:
                return
            outcome = await self._outcome(row)
            self._there.append(outcome)
            self._news.set()
            while len(self._there) >= AHEAD:
                self._taken.clear()
                await self._taken.wait()

    async def _outcome(self, row: RowRequest) -> Outcome:
        """Ask for a row; where the endpoint is not there any more, wait for it."""
        while True:
            outage = self._outage
            if outage is not None:
                async with outage.turn:  # one row at a time asks whether it is back
                    if self._outage is outage and (asked := await self._look(outage, row)) is not None:
                        return asked
                continue
            outcome = await self._asked(row)
            if not self._answered or not is_gone(outcome.error) or self.stopped is not None:
                return outcome
            self._outage = self._outage or _Outage(self._clock())
            self._outage.error = outcome.error

    async def _look(self, outage: _Outage, row: RowRequest) -> Outcome | None:
        """Ask until the endpoint answers, or patience ends."""
        while True:
            left = outage.began + self._patience - self._clock()
            if self.stopped is not None or left <= 0:
                self._stop(self.stopped or _with_patience(outage.error, self._patience))
                return Outcome(row.number, error=outage.error)
            await asyncio.sleep(min(outage.wait(), left))
            outcome = await self._asked(row)
            if not is_gone(outcome.error):
                self._outage = None
                return outcome
            outage.error = outcome.error

    async def _asked(self, row: RowRequest) -> Outcome:
        request, answered = self._concurrency.begin(), False
        try:
            outcome = await self._ask(row, request)
            answered = not outcome.known and (outcome.error is None or isinstance(outcome.error, AnswerError))
        finally:
            request.end(answered=answered)
        if outcome.known:
            return outcome
        self._answered = self._answered or answered
        self._spawn_more()
        self._judge(outcome)
        return outcome

    def _spawn_more(self) -> None:
        if len(self._workers) < self._concurrency.allowed and self.stopped is None and self._broken is None:
            self._spawn()

    def _judge(self, outcome: Outcome) -> None:
        if (why := self._verdict.heard(outcome)) is not None:
            self._stop(why)

    def _stop(self, why: LLMError) -> None:
        """Take no further row."""
        self.stopped = self.stopped or why
        self._source.stop()


class Verdict:
    """Whether further rows are asked: not where a budget is spent, the first fail alike, or none can be answered."""

    def __init__(self) -> None:
        self._alike: tuple[str, int] = "", 0  # how the last rows failed, and how many alike
        self._first_alike = True  # whether no row has ended otherwise so far

    def heard(self, outcome: Outcome) -> LLMError | None:
        """Take note of a row that ended; return why no further one is asked, None where they are."""
        error = outcome.error
        if outcome.known or isinstance(error, RecordingError):  # nothing was sent for it
            return None
        if error is None:
            self._alike, self._first_alike = ("", 0), False
            return None
        kind, number = _kind(error), self._alike[1]
        if kind != self._alike[0]:
            self._first_alike = self._first_alike and number == 0
            number = 0
        self._alike = kind, number + 1
        hopeless = isinstance(error, BudgetError) or (
            self._alike[1] >= ALIKE and (self._first_alike or isinstance(error, HOPELESS))
        )
        return error if hopeless else None


class _Outage:
    """A time in which the endpoint does not answer."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.error: LLMError | None = None
        self.turn = asyncio.Lock()
        self._wait = FIRST_LOOK / 2

    def wait(self) -> float:
        """Return the seconds until it is asked again."""
        self._wait = min(self._wait * 2, LONGEST_LOOK)
        return self._wait

    @property
    def line(self) -> str:
        return f"waits for an answer again: {self.error.message}" if self.error is not None else ""


def is_gone(error: LLMError | None) -> bool:
    """Tell whether an error says that the endpoint is not there: no connection, or a proxy without its server."""
    return isinstance(error, ConnectionFailedError) or (
        isinstance(error, ProviderError) and getattr(error, "status", None) in _GONE
    )


def _kind(error: LLMError) -> str:
    """Return what two failures have in common that are alike: class and words, without numbers and identifiers."""
    return f"{type(error).__name__} {re.sub(r'[0-9a-fA-F-]{8,}|[0-9]+', '#', error.message)}"


def _with_patience(error: LLMError | None, patience: float) -> LLMError:
    message = error.message.rstrip(".") if error is not None else "the endpoint does not answer"
    return ConnectionFailedError(
        f"{message}, and not within {patience:g} s after that.", "--patience SECONDS waits longer."
    )


def not_asked(why: LLMError) -> NotAskedError:
    """Return the error of rows that are not asked."""
    return NotAskedError(f"Not asked: {why.message}", why.hint)
