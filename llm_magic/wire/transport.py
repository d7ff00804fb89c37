"""Raw bytes over an SDK client, asynchronous or blocking: the one place that calls its `post`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from llm_magic.wire.call import Call


class Connection(Protocol):
    """An open answer: status and headers are known, the body is still to be read."""

    status: int
    headers: Mapping[str, str]

    def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body's bytes as they arrive, decompressed."""

    async def close(self) -> None:
        """Close the answer; one not read to its end closes the TCP connection."""


def is_sync(client: Any) -> bool:
    """Return whether `client` is a blocking one."""
    from openai import OpenAI

    return isinstance(client, OpenAI)


def request_options(call: Call) -> dict[str, Any]:
    """Return the options of one `post`: headers, timeout and retries of this call only."""
    options: dict[str, Any] = {"headers": dict(call.request.headers), "security": {"bearer_auth": True}}
    if call.timeout is not None:
        options["timeout"] = call.timeout
    if call.max_retries is not None:
        options["max_retries"] = call.max_retries
    return options


async def post(call: Call, body: dict[str, Any]) -> Connection:
    """Send `body` and return the open answer; raises whatever the SDK raises."""
    client: Any = call.client
    if is_sync(client):
        return await _post_blocking(call, body)
    from openai import AsyncStream

    stream = await client.post(
        call.path,
        cast_to=object,
        body=body,
        options=request_options(call),
        stream=True,
        stream_cls=AsyncStream[object],
    )
    return _Open(stream.response)


class _Open:
    """An answer of an asynchronous client."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.status = int(response.status_code)
        self.headers: Mapping[str, str] = response.headers

    def chunks(self) -> AsyncGenerator[bytes]:
        chunks: AsyncGenerator[bytes] = self._response.aiter_bytes()
        return chunks

    async def close(self) -> None:
        await self._response.aclose()


async def _post_blocking(call: Call, body: dict[str, Any]) -> Connection:
    """Run the blocking `post` on a thread; cancelled, its answer is closed as soon as it comes."""
    from openai import Stream

    client: Any = call.client

    def send() -> Any:
        return client.post(
            call.path, cast_to=object, body=body, options=request_options(call), stream=True, stream_cls=Stream[object]
        ).response

    thread = asyncio.ensure_future(asyncio.to_thread(send))
    try:
        return _OpenBlocking(await asyncio.shield(thread))
    except asyncio.CancelledError:
        thread.add_done_callback(_discard)
        raise


def _discard(thread: asyncio.Future[Any]) -> None:
    if not thread.cancelled() and thread.exception() is None:
        thread.result().close()


class _OpenBlocking:
    """An answer of a blocking client: each read waits on a thread."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.status = int(response.status_code)
        self.headers: Mapping[str, str] = response.headers
        self._ended = False

    async def chunks(self) -> AsyncGenerator[bytes]:
        reading = self._response.iter_bytes()
        while True:
            chunk = await asyncio.to_thread(next, reading, None)
            if chunk is None:
                self._ended = True
                return
            yield chunk

    async def close(self) -> None:
        if not self._ended:
            _shut(self._response)
        await asyncio.to_thread(self._response.close)


def _shut(response: Any) -> None:
    """Shut the socket under a read that still waits on it: only that ends a blocking read."""
    stream = response.extensions.get("network_stream")
    raw = stream.get_extra_info("socket") if stream is not None else None
    if raw is not None:
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
