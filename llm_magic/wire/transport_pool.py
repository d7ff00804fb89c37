"""A pool of connections to one endpoint over the SDK's HTTP library alone, one transport each.

The library's own pool looks at each of its connections for each request; of 64 that takes a third of the time. Here a
request takes any transport that is free, and puts it back. Raised is what the SDK raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from llm_magic.secrets import Secret
from llm_magic.wire.connection import FIRST_ERROR, SLACK, Connection, Watch, bound
from llm_magic.wire.errors import is_disconnected
from llm_magic.wire.target import StaleError, Target


class PooledAnswer(Connection):
    """An open answer, which gives its transport back when it is closed."""

    def __init__(self, response: Any, known: tuple[Secret, ...], transport: Any, free: list[Any]) -> None:
        super().__init__(response, known)
        self._transport, self._free = transport, free

    async def whole(self) -> None:
        """Return None: the body is taken as it arrives."""

    async def close(self) -> None:
        """Close it."""
        await super().close()
        if self._transport is not None:
            self._free.append(self._transport)
            self._transport = None


class TransportPool:
    """As many transports as there are requests at once; what is not said here is as of `aiohttp_pool.Pool`."""

    def __init__(self, target: Target, tls: Any, keep: float) -> None:
        library = target.library
        limits = library.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=keep)
        self._settings = {"verify": False if tls is None else tls, "trust_env": False, "limits": limits}
        self._free: list[Any] = []
        self._all: list[Any] = []

    def use(self, target: Target) -> None:
        """Do nothing: each request has its own headers."""

    async def close(self) -> None:
        """Close all connections."""
        transports, self._all, self._free = self._all, [], []
        for transport in transports:
            await transport.aclose()

    async def send(
        self, target: Target, headers: Mapping[str, str] | None, body: bytes, secrets: tuple[Secret, ...]
    ) -> PooledAnswer:
        """Send a body; return the open answer. Errors as of `aiohttp_pool.Pool.send`."""
        library, seconds, free = target.library, target.seconds, self._free
        if free:
            transport = free.pop()
        else:
            transport = library.AsyncHTTPTransport(**self._settings)
            self._all.append(transport)
        timeouts = {"connect": target.connect, "read": seconds, "write": seconds, "pool": seconds}
        asked = {name.lower() for name in headers or ()}
        named = [*(pair for pair in target.headers if pair[0].lower() not in asked), *(headers or {}).items()]
        answer: PooledAnswer | None = None
        failed: Exception | None = None
        try:
            async with asyncio.timeout(None if seconds is None else 2 * seconds + SLACK) as limit:
                watch = Watch(seconds, limit)
                extensions = {"timeout": timeouts, "trace": watch.trace}
                request = library.Request(target.method, target.url, headers=named, content=body, extensions=extensions)
                try:
                    response = await transport.handle_async_request(request)
                except library.TransportError as error:
                    failed = _raised(library, error, request)
                    if watch.reused and is_disconnected(failed):
                        failed = StaleError(failed)
                else:
                    response.request = request
                    watch.answered()
                    if response.status_code >= FIRST_ERROR:
                        failed = await _refusal(target, response, watch)
                    else:
                        answer = PooledAnswer(response, secrets, transport, free)
        finally:
            if answer is None:
                free.append(transport)
        if failed is not None or answer is None:
            raise failed or RuntimeError("no answer")
        return answer


def _raised(library: Any, error: Exception, request: Any) -> Exception:
    """Return what the SDK raises for an exception of its HTTP library."""
    from openai import APIConnectionError, APITimeoutError

    late = isinstance(error, library.TimeoutException)
    raised = APITimeoutError(request=request) if late else APIConnectionError(request=request)
    raised.__cause__ = error
    return raised


async def _refusal(target: Target, response: Any, watch: Watch) -> Exception:
    await bound(response, watch)
    with suppress(Exception):
        await response.aread()
    error: Exception = target.client._make_status_error_from_response(response)  # noqa: SLF001 - its own errors, word by word
    return error
