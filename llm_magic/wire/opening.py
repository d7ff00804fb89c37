"""The way to an open connection: a task of its own, so that failed attempts are told while others follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from llm_magic.errors import TimedOutError
from llm_magic.events import Attempt, Event
from llm_magic.wire.attempts import WATCH, hook, watch
from llm_magic.wire.transport import Connection, is_sync, post
from llm_magic.wire.watch import Halt
from llm_magic.wire.watched import halted

if TYPE_CHECKING:
    from llm_magic.wire.call import Call


SLACK = 10.0
"""Seconds over twice the timeout that one attempt may take until its headers are complete."""


class Opening:
    """The way to an open connection: a task of its own, so that failed attempts are told while others follow."""

    def __init__(self, call: Call, body: dict[str, Any]) -> None:
        self._call = call
        self._body = body
        self._news: asyncio.Queue[Attempt] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Connection] | None = None
        self._stop: asyncio.TimerHandle | None = None
        self._late = False
        self._hooked = False
        self.watch = watch(
            call.client,
            call.origin,
            call.max_retries,
            self._announce,
            timeout=call.seconds(),
            deadline=self._set_deadline,
        )
        self.watch.secrets += call.request.secrets

    def _announce(self, attempt: Attempt) -> None:
        self._loop.call_soon_threadsafe(self._news.put_nowait, attempt)

    def _set_deadline(self, seconds: float | None) -> None:
        self._loop.call_soon_threadsafe(self._arm, seconds)

    def _arm(self, seconds: float | None) -> None:
        """Bound an attempt whose bytes trickle: longer than connecting and a first byte may take together."""
        if self._stop is not None:
            self._stop.cancel()
            self._stop = None
        if seconds is not None:
            self._stop = self._loop.call_later(2 * seconds + SLACK, self._expire)

    def _expire(self) -> None:
        self._late = True
        if self._task is not None:
            self._task.cancel()

    async def __aenter__(self) -> Self:
        self._hooked = hook(self._call.client, sync=is_sync(self._call.client))
        token = WATCH.set(self.watch)
        try:
            self._task = asyncio.ensure_future(post(self._call, self._body))
        finally:
            WATCH.reset(token)
        return self

    async def attempts(self) -> AsyncGenerator[list[Event]]:
        """Yield the attempts as they end, until the connection is open; raise what opening it raised."""
        assert self._task is not None  # noqa: S101 - set on entering
        while not self._task.done():
            news = asyncio.ensure_future(self._news.get())
            try:
                await asyncio.wait({self._task, news}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not news.done():
                    news.cancel()
            if news.done() and not news.cancelled():
                yield [news.result()]
        error = self._failure()
        if not self._hooked:
            self.watch.unseen(error)
        elif error is not None:
            self.watch.lost("" if not self._late else "no answer in time", final=True)
        await asyncio.sleep(0)  # what has been announced from hooks is in the queue after this
        last: list[Event] = []
        while not self._news.empty():
            last.append(self._news.get_nowait())
        if last:
            yield last
        if error is not None:
            raise error

    def _failure(self) -> Exception | None:
        assert self._task is not None  # noqa: S101 - set on entering
        if self._task.cancelled():
            return TimedOutError(
                f"{self._call.origin} did not answer in time.",
                "Allow more with --timeout SECONDS.",
                origin=self._call.origin,
            )
        error = self._task.exception()
        if isinstance(error, Halt):
            return halted(self.watch)
        if error is not None and not isinstance(error, Exception):
            raise error
        return error

    @property
    def connection(self) -> Connection:
        """The open connection."""
        assert self._task is not None  # noqa: S101 - set on entering
        return self._task.result()

    async def __aexit__(self, *_: object) -> None:
        self._arm(None)
        task = self._task
        if task is None:
            return
        if not task.done():
            task.cancel()
            with suppress(BaseException):
                await task
        if task.done() and not task.cancelled() and task.exception() is None:
            await task.result().close()
