"""A pool of connections to one endpoint over aiohttp: requests that the SDK prepared, sent at a fraction of its cost.

What goes wrong is raised as the SDK raises it over its own HTTP client, so that nobody else needs to know which one
it was: `APIConnectionError`, `APITimeoutError`, `APIStatusError`, with the cause that it would have.
"""

from __future__ import annotations

import asyncio
import errno
import io
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import aiohttp
from yarl import URL

from llm_magic.secrets import Secret
from llm_magic.wire.connection import ERROR_BODY
from llm_magic.wire.headers import answered_with
from llm_magic.wire.target import StaleError, Target

HEAD = 100 * 1024
"""Bytes of one line of an answer's head at most, as of the SDK's own transport."""

SENT_AT_ONCE = 1 << 16
"""Bytes of a body that a socket takes at once: a larger one may take its time to leave."""

_COPIED = 1 << 20  # bytes from which on aiohttp wants a file in place of bytes

_FIRST_ERROR = 300


class _Connector(aiohttp.TCPConnector):
    """Knows which tasks have got a kept connection."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._used: WeakSet[Any] = WeakSet()
        self.reusing: set[Any] = set()
        """Tasks whose request goes over a connection that was used before."""

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - aiohttp's signature
        """Return a connection, kept or new."""
        connection = await super().connect(req, traces, timeout)
        if connection.protocol in self._used:
            self.reusing.add(asyncio.current_task())
        else:
            self._used.add(connection.protocol)
        return connection


class Pool:
    """The session; as many connections as there are requests at once. It belongs to the loop on which it was made.

    Parameters
    ----------
    tls
        What a secure connection is verified with; None where there is none.
    keep
        Seconds that a connection without a request is kept.

    """

    def __init__(self, tls: Any, keep: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._connector = _Connector(limit=0, ssl=True if tls is None else tls, keepalive_timeout=keep)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            max_line_size=HEAD,
            max_field_size=HEAD,
            trust_env=False,
        )
        self._headers = _Headers()
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[tuple[float | None, float | None], aiohttp.ClientTimeout] = {}

    def use(self, target: Target) -> None:
        """Send the headers of `target` with each request from here on."""
        self._session.headers.clear()
        self._session.headers.extend(target.headers)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def send(
        self, target: Target, headers: Mapping[str, str] | None, body: bytes, secrets: tuple[Secret, ...]
    ) -> DocumentAnswer:
        """Send a body; return the open answer, whose headers show none of the `secrets`.

        `headers` are further ones, or others, than those in `use`.

        Raises
        ------
        StaleError
            The connection was a kept one, and closed.
        Exception
            What the SDK would raise.

        """
        failed: Exception | None = None
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(_deadline(target, len(body))):
                response = await self._session.request(
                    target.method,
                    self._url(target.url),
                    data=body if len(body) < _COPIED else io.BytesIO(body),
                    headers=headers,
                    timeout=self._timeout(target),
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                raise
            failed = _raised(target, error)
            if task in self._connector.reusing and _is_stale(error):
                failed = StaleError(failed)
        finally:
            self._connector.reusing.discard(task)
        if failed is not None:  # out of the handler: what aiohttp raised holds the request's headers
            raise failed
        if response.status >= _FIRST_ERROR:
            raise await _refusal(target, response)
        return DocumentAnswer(target, response, self._headers.read(target, response.raw_headers, secrets), secrets)

    def _url(self, url: str) -> URL:
        if url not in self._urls:
            self._urls.clear()  # one, but where a server redirects
            self._urls[url] = URL(url, encoded=True)
        return self._urls[url]

    def _timeout(self, target: Target) -> aiohttp.ClientTimeout:
        known = (target.connect, target.seconds)
        if known not in self._timeouts:
            connect, seconds = known
            self._timeouts[known] = aiohttp.ClientTimeout(
                total=None, sock_connect=connect, sock_read=seconds, ceil_threshold=float("inf")
            )
        return self._timeouts[known]


def _deadline(target: Target, size: int) -> float | None:
    """Return the seconds after which the headers must have come, however slowly they drip in."""
    if target.seconds is None:
        return None
    leaving = 0.5 if size <= SENT_AT_ONCE else target.seconds + 10.0
    return (target.connect or target.seconds) + leaving + target.seconds


def _is_stale(error: BaseException) -> bool:
    """Return whether a connection ended before a byte of an answer came."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)  # else what had come of an answer
    return isinstance(error, aiohttp.ClientOSError) and not isinstance(error, aiohttp.ClientConnectorError)


def _raised(target: Target, error: BaseException) -> Exception:
    """Return what the SDK raises where its own HTTP client cannot send, by what aiohttp raised."""
    from openai import APIConnectionError, APITimeoutError

    cause = _as_of_the_library(target, error)
    request = cause.request
    late = isinstance(cause, target.library.TimeoutException)
    raised = APITimeoutError(request=request) if late else APIConnectionError(request=request)
    raised.__cause__ = cause
    return raised


_CLOSED = "Server disconnected without sending a response."
_CUT = "peer closed connection without sending complete message body"


def _as_of_the_library(target: Target, error: BaseException) -> Any:
    """Return the exception of the SDK's HTTP library for one of aiohttp's; its cause is that of the machine."""
    library, said, below = target.library, str(error), getattr(error, "os_error", None)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        kind, said = library.ConnectTimeout, ""
    elif isinstance(error, TimeoutError):
        kind, said = library.ReadTimeout, ""
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        kind, below = library.ConnectError, error.certificate_error
        said = str(below)
    elif isinstance(error, aiohttp.ClientConnectorError):
        refused = getattr(below, "errno", None) == errno.ECONNREFUSED
        below = below if below is None or below.__cause__ is None else below.__cause__
        kind, said = library.ConnectError, "All connection attempts failed" if refused else str(below)
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        kind, said = library.RemoteProtocolError, _CLOSED
    elif isinstance(error, aiohttp.ClientResponseError):
        kind, said = library.RemoteProtocolError, error.message
    elif isinstance(error, aiohttp.ClientPayloadError):
        kind = library.RemoteProtocolError
        if "ContentEncodingError" in said or isinstance(error.__cause__, aiohttp.http_exceptions.ContentEncodingError):
            kind = library.DecodingError
        elif "not completed" in said:
            said = _CUT
    elif isinstance(error, aiohttp.InvalidURL):
        kind = library.UnsupportedProtocol
    else:
        kind, below = library.ReadError, OSError(*error.args)
    made = kind(said, request=_sent(target)) if issubclass(kind, library.RequestError) else kind(said)
    made.__cause__ = below
    return made


def _sent(target: Target) -> Any:
    """Return the request as an object of the SDK's HTTP library."""
    return target.library.Request(target.method, target.url, headers=list(target.headers))


async def _refusal(target: Target, response: Any) -> Exception:
    """Return the error for an answer that is none, with as much of its body as tells why."""
    content = bytearray()
    try:
        with suppress(Exception):  # what has come of it is enough
            async with asyncio.timeout(target.seconds):
                while data := await response.content.readany():
                    content += data
                    if len(content) > ERROR_BODY:
                        break
    finally:
        response.close()
    headers = [each for each in response.raw_headers if each[0].lower() not in _OF_THE_BODY]
    answer = target.library.Response(
        response.status, headers=headers, content=bytes(content[:ERROR_BODY]), request=_sent(target)
    )
    error: Exception = target.client._make_status_error_from_response(answer)  # noqa: SLF001 - its own errors, word by word
    return error


_OF_THE_BODY = (b"content-encoding", b"content-length", b"transfer-encoding")


class DocumentAnswer:
    """An open answer over aiohttp; what is not said here is as of `Connection`."""

    __slots__ = ("_fault", "_pieces", "_response", "_target", "broken", "headers", "repeatable", "secrets", "status")

    def __init__(self, target: Target, response: Any, headers: Mapping[str, str], secrets: tuple[Secret, ...]) -> None:
        self._target, self._response = target, response
        self._pieces: list[bytes] = []
        self._fault: Exception | None = None
        self.status: int = response.status
        self.secrets = secrets
        self.headers = headers
        self.broken: Exception | None = None
        self.repeatable = False

    async def whole(self) -> bytes | None:
        """Return the body where all of it came with the first piece; None where it is taken piece by piece."""
        content = self._response.content
        try:
            data: bytes = content.read_nowait() if content.is_eof() else await content.readany()
        except (aiohttp.ClientError, OSError) as error:
            self._fail(error)
            return None
        if content.at_eof():
            return data
        self._pieces.append(data)
        return None

    async def take(self) -> bytes | None:
        """Return what has arrived, decompressed; wait for it if there is nothing. None at the body's end."""
        if not self._pieces and self._fault is None:
            try:
                return await self._response.content.readany() or None
            except (aiohttp.ClientError, OSError) as error:
                self._fail(error)
        if self._pieces:
            return self._pieces.pop()
        if self._fault is not None:
            raise self._fault
        return None

    def _fail(self, error: Exception) -> None:
        """Keep a fault for when all that came before it has been taken: aiohttp raises it before that."""
        self._fault = _as_of_the_library(self._target, error)
        content = self._response.content
        data = b"".join(getattr(content, "_buffer", ()))[getattr(content, "_buffer_offset", 0) :]
        if data:
            self._pieces.append(data)

    async def close(self) -> None:
        """Close the answer; one not read to its end closes the connection."""
        content = self._response.content
        if not content.at_eof() or content.exception() is not None:  # else the connection has gone back already
            self._response.close()


class _Headers:
    """Reads the headers of answers as the SDK's HTTP library does, secrets masked; most are always the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], tuple[str, str]] = {}
        self._secrets: tuple[Secret, ...] = ()

    def read(self, target: Target, raw: Iterable[tuple[bytes, bytes]], secrets: tuple[Secret, ...]) -> dict[str, str]:
        """Return headers by their names in lower case; several of one name are joined."""
        if secrets != self._secrets or len(self._known) > _MOST_KNOWN:
            self._known, self._secrets = {}, secrets
        found: dict[str, str] = {}
        for pair in raw:
            if pair not in self._known:
                self._known[pair] = next(iter(answered_with(target.library.Headers([pair]), secrets).items()))
            name, value = self._known[pair]
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found


_MOST_KNOWN = 1_000
