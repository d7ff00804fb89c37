"""One HTTP answer under way: its request watched while it is sent, its body read ahead, both bounded in time and size.

What the HTTP client below the SDK tells is heard through its public event hooks and the `trace` extension of httpcore:
https://www.encode.io/httpcore/extensions/#trace. A client that has neither works, less closely watched.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping
from contextlib import aclosing, suppress
from contextvars import ContextVar
from typing import Any

from llm_magic.secrets import Secret
from llm_magic.wire.headers import answered_with, sent_with

READ_AHEAD = 1 << 20
"""Bytes of a body that are read before anybody has taken them."""

ERROR_BODY = 1 << 18
"""Bytes of an error's body that are read: its words stand at the beginning."""

LARGEST = 1 << 28
"""Bytes of one document, or of one event, at most (256 MiB): what is larger is a fault."""

ENDING = 1.0
"""Seconds in which the reader of a closed connection ends by itself."""

EXTENSION = 3
"""An answer that gives signs of life but says nothing is given up after so many times the timeout."""

SLACK = 10.0
"""Seconds over twice the timeout that one attempt may take to connect and to send its request; the headers
of the answer may then take the timeout."""

STRIDE = 1 << 16
"""Bytes of one large document or event that count as progress: it is long, not silent."""

FIRST_ERROR = 300
"""The least status that is no answer."""


class Patience:
    """How long more of an answer is waited for, by one law for streams and documents.

    It ends after `seconds` (None: never) in which nothing at all came, and after three times as long in which what came
    said nothing: comments and pings of a server that queues, empty deltas, pieces of an event.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._clock = asyncio.get_running_loop().time
        self._heard = self._progressed = self._clock()

    def hear(self, *, progress: bool) -> None:
        """Take note that something came, and whether it said something."""
        self._heard = self._clock()
        if progress:
            self._progressed = self._heard

    @property
    def ends(self) -> float | None:
        """The time of the loop's clock at which it ends."""
        if self.seconds is None:
            return None
        return min(self._heard + self.seconds, self._progressed + EXTENSION * self.seconds)

    def words(self) -> str:
        """Return what the wait was for."""
        limit = self.seconds or 0.0
        if self._heard - self._progressed > limit / 2:
            return f"nothing but signs of life came for {EXTENSION * limit:g} s"
        return f"nothing came for {limit:g} s"


class Watch:
    """What the transport tells of one request while it is sent: the deadline of its answer's headers follows from it.

    Parameters
    ----------
    seconds
        What the server may take from the end of the request to the end of its headers, and then for the body of an
        error; None for ever.
    limit
        Is rescheduled; what was set at first holds until the request has been sent.

    """

    def __init__(self, seconds: float | None, limit: asyncio.Timeout) -> None:
        self.seconds = seconds
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._told = self._connected = self._answered = False

    @property
    def reused(self) -> bool:
        """Whether it went over a kept connection and not one byte of an answer is known to have come."""
        return self._told and not self._connected and not self._answered

    def _hear(self, name: str) -> None:
        self._told = True
        if "connect_" in name or "start_tls" in name:
            self._connected = True
        elif name.endswith("send_request_body.complete"):
            self._postpone()
        elif name.endswith("receive_response_headers.complete"):
            self._answered = True

    def answered(self) -> None:
        """Take note that the headers have come: an error's body has a deadline of its own."""
        self._answered = True
        self._loop.call_soon_threadsafe(self._reschedule, None)

    def _postpone(self) -> None:
        if self.seconds is not None:  # a little more than the client's own timeout, which tells of silence
            self._loop.call_soon_threadsafe(self._reschedule, self._loop.time() + self.seconds + 0.5)

    def _reschedule(self, when: float | None) -> None:
        with suppress(RuntimeError):  # it is over
            self._limit.reschedule(when)

    async def trace(self, name: str, _info: Mapping[str, Any]) -> None:
        """Hear httpcore's asynchronous clients."""
        self._hear(name)

    def trace_blocking(self, name: str, _info: Mapping[str, Any]) -> None:
        """Hear its blocking ones."""
        self._hear(name)


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


class watched:  # noqa: N801 - reads as the context that it is
    """A context in which requests of `client` are told to `watch`; other requests of that client are not touched."""

    def __init__(self, client: Any, watch: Watch, *, blocking: bool) -> None:
        hooks = getattr(getattr(client, "_client", None), "event_hooks", None)
        ours = (_begin_blocking, _bound_blocking) if blocking else (_begin, _bound)
        for event, hook in zip(("request", "response"), ours, strict=True):
            if isinstance(hooks, dict) and hook not in hooks.get(event, [hook]):
                hooks[event].append(hook)
        self._watch = watch

    def __enter__(self) -> None:
        self._token = _watch.set(self._watch)

    def __exit__(self, *_: object) -> None:
        _watch.reset(self._token)


async def _begin(request: Any) -> None:
    if (watch := _watch.get()) is not None:
        request.extensions["trace"] = watch.trace


def _begin_blocking(request: Any) -> None:
    if (watch := _watch.get()) is not None:
        request.extensions["trace"] = watch.trace_blocking


async def _bound(response: Any) -> None:
    """Read an error's body here, before the SDK would read all of it, however large or slow."""
    watch = _watch.get()
    if watch is None:
        return
    watch.answered()
    if response.status_code >= FIRST_ERROR:
        await bound(response, watch)


async def bound(response: Any, watch: Watch) -> None:
    """Read an error's body as far as it tells why, and let it be read once more from memory."""
    content = bytearray()
    with suppress(Exception):  # what has come of it is enough
        async with asyncio.timeout(watch.seconds), aclosing(response.aiter_raw()) as parts:
            async for part in parts:
                content += part
                if len(content) > ERROR_BODY:
                    break
    with suppress(Exception):
        await response.aclose()
    _refill(response, content)


def _bound_blocking(response: Any) -> None:
    watch = _watch.get()
    if watch is None:
        return
    watch.answered()
    if response.status_code < FIRST_ERROR:
        return
    content, ends = bytearray(), time.monotonic() + (watch.seconds or float("inf"))
    with suppress(Exception):
        for part in response.iter_raw():
            content += part
            if len(content) > ERROR_BODY or time.monotonic() > ends:
                break
    with suppress(Exception):
        response.close()
    _refill(response, content)


def _refill(response: Any, content: bytearray) -> None:
    """Let a response be read once more: from memory, decompressed as far as it can be."""
    if response.headers.get("content-encoding", "").lower() in ("gzip", "x-gzip", "deflate"):
        content = _inflated(content)
        del response.headers["content-encoding"]
    library = sys.modules[type(response).__module__.partition(".")[0]]  # httpx or httpx2
    response.stream = library.ByteStream(bytes(content[:ERROR_BODY]))
    response.is_stream_consumed = response.is_closed = False


def _inflated(content: bytearray) -> bytearray:
    for form in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # gzip or zlib by its header; deflate without any
        with suppress(zlib.error):
            return bytearray(zlib.decompressobj(form).decompress(content, ERROR_BODY))
    return bytearray()


class Connection:
    """An open answer: status and headers are known; the body is read ahead by a task of its own.

    Real servers send each event as an HTTP chunk of its own. They are not handed on one by one:
    `take` returns all that has arrived since the last time, and a single one at once.
    """

    def __init__(self, response: Any, known: tuple[Secret, ...] = (), *, blocking: bool = False) -> None:
        self._response = response
        self._blocking = blocking
        self.status = int(response.status_code)
        self.secrets = (*known, *sent_with(response))
        """What nothing may show of what comes."""
        self.headers: Mapping[str, str] = answered_with(response.headers, self.secrets)
        self.content = b""
        """The whole body, once `read`."""
        self.broken: Exception | None = None
        """Set by who reads the answer: it broke off, and why."""
        self.repeatable = False
        """Whether it broke off before anything of it was shown."""
        self._parts: list[bytes] = []
        self._size = 0
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._fault: Exception | None = None

    async def take(self) -> bytes | None:
        """Return what has arrived, decompressed; wait for it if there is nothing. None at the body's end.

        Raises what reading it raised, after all that came before. May be cancelled and called
        again.
        """
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_ahead())
        while not self._parts:
            if self._reader.done():
                if self._fault is not None:
                    raise self._fault
                return None
            self._arrived.clear()
            await self._arrived.wait()
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._taken.set()
        return data

    async def read(self, seconds: float | None) -> None:
        """Read the whole body into `content`, as long as it goes on, and close.

        Raises
        ------
        TimeoutError
            By the law of `Patience`.
        ValueError
            It is larger than `LARGEST`.

        """
        parts, size, strides, patience = [], 0, 0, Patience(seconds)
        try:
            while True:
                async with asyncio.timeout_at(patience.ends):
                    data = await self.take()
                if data is None:
                    break
                parts.append(data)
                size += len(data)
                if size > LARGEST:
                    raise ValueError(f"a document of more than {LARGEST >> 20} MiB")
                patience.hear(progress=size // STRIDE > strides)
                strides = size // STRIDE
            self.content = b"".join(parts)
        finally:
            await self.close()

    async def _read_ahead(self) -> None:
        response, parts, arrived = self._response, self._parts, self._arrived
        if self._blocking:
            chunks: AsyncIterable[bytes] = self._chunks_of_thread()
        elif response.is_stream_consumed or response.headers.get("content-encoding", "identity") != "identity":
            chunks = response.aiter_bytes()
        else:
            chunks = response.stream  # what `aiter_bytes` would pass on unchanged, at half the time
        try:
            async for part in chunks:
                parts.append(part)
                arrived.set()
                self._size += len(part)
                if self._size > READ_AHEAD:
                    self._taken.clear()
                    await self._taken.wait()
        except Exception as error:  # noqa: BLE001 - raised where the body is taken, if anybody still does
            self._fault = error
        finally:
            arrived.set()

    async def _chunks_of_thread(self) -> AsyncGenerator[bytes]:
        reading: Iterator[bytes] = self._response.iter_bytes()
        while (part := await asyncio.to_thread(next, reading, None)) is not None:
            yield part

    async def close(self) -> None:
        """Close the answer; one not read to its end closes the TCP connection.

        A task of its own does it: one that is cancelled meanwhile would leave the connection open with httpcore 1.
        """
        if self._closing is None or self._closing.done():
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._blocking:
            stream = None if self._response.is_closed else self._response.extensions.get("network_stream")
            raw = None if stream is None else stream.get_extra_info("socket")
            if raw is not None:
                with suppress(OSError):  # only shutting the socket under it ends a blocking read
                    raw.shutdown(socket.SHUT_RDWR)
            await asyncio.to_thread(self._response.close)
        try:
            if not self._blocking:
                await self._response.aclose()
        finally:
            await self._end_reader()

    async def _end_reader(self) -> None:
        """Let the reader of a closed connection end, which it does by itself, having nothing more to read.

        Cancelled at once, it might be about to close the connection after a timeout of its own, and httpcore 1 would
        leave that open for good.
        """
        if self._reader is not None and not self._reader.done():
            if self._size <= READ_AHEAD:  # else it waits until somebody takes what there is
                await asyncio.wait({self._reader}, timeout=ENDING)
            self._reader.cancel()
            await asyncio.wait({self._reader})
