"""The attempts at one HTTP request: sent by the SDK, repeated and redirected by rules of ours.

The SDK builds, signs and sends each request; its own retries and redirects are switched off, so
that each of them is seen and decided here. Nothing travels to another scheme, host or port than the
one that was asked.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import count
from random import random
from typing import Any

from llm_magic.errors import EndpointNotFoundError, OptionError, Origin
from llm_magic.events import Attempt
from llm_magic.secrets import Secret, hidden, hide, masked_url, reveal, secrets_in
from llm_magic.wire import logs
from llm_magic.wire.documents import parse_or_text
from llm_magic.wire.error_body import ErrorBody, one_line, read_error_body
from llm_magic.wire.errors import cause_of, class_names, illegal_header_error, is_illegal_header, links, translate
from llm_magic.wire.headers import answered_with, check_headers, request_id, retry_after, sent_with

SLACK = 10.0
"""Seconds over twice the timeout that one attempt may take until its headers are complete."""

MAX_RETRY_AFTER = 120.0
"""Seconds; asked to wait longer, a request is given up."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds before the first and before any repetition; doubled, and less up to a quarter by chance."""

MAX_REDIRECTS = 5
READ_AHEAD = 1 << 20
"""Bytes of a body that are read before anybody has taken them."""

_PERMANENT = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "content_filter",
        "content_policy_violation",
        "not_supported_error",
        "exceed_context_size_error",
        "context_length_exceeded",
        "invalid_request_error",
        "model_not_found",
    }
)
_PERMANENT_WORDS = re.compile(
    r"image input is not supported|mmproj|exceeds the available context size|increase the physical batch size",
    re.IGNORECASE,
)
_HOPELESS = re.compile(
    r"certificate verify failed|certificate_verify_failed|wrong_version_number|record layer failure"
    r"|name or service not known|nodename nor servname|getaddrinfo failed|no address associated",
    re.IGNORECASE,
)
"""What a failure to connect says that the next attempt would meet, too; a refused one may be a server
that starts."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request over a client of the SDK; what is not said here is as of `Call`.

    Attributes
    ----------
    path
        Below the client's base URL, or an absolute URL.
    body
        JSON; None makes it a GET.
    headers, params
        Further headers, and fields of the query, of this request.
    secrets
        What nothing may show of what the provider resolved; those of body and headers are known by their type.
    whole
        Whether an attempt has only succeeded once the body has been read, too.

    """

    client: Any
    origin: Origin
    path: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    max_retries: int | None = None
    secrets: tuple[Secret, ...] = ()
    whole: bool = False

    @property
    def seconds(self) -> float | None:
        """The timeout that holds, in seconds; None where the client has none."""
        known = getattr(self.client, "timeout", None) if self.timeout is None else self.timeout
        known = getattr(known, "read", known)
        return float(known) if isinstance(known, int | float) else None

    @property
    def known_secrets(self) -> tuple[Secret, ...]:
        """What must not be shown."""
        return (*self.secrets, *secrets_in(self.headers, self.params, self.body), *logs.learned())

    def send(self, client: Any) -> Any:
        """Send it once over `client`; return what the SDK does, an answer that is still open."""
        from openai import AsyncStream, OpenAI, Stream

        stream = (Stream if isinstance(client, OpenAI) else AsyncStream)[object]
        options: dict[str, Any] = {
            "max_retries": 0,
            "follow_redirects": False,
            "headers": reveal(self.headers),
            "security": {"bearer_auth": True},
        }
        if self.params:
            options["params"] = dict(self.params)
        if self.timeout is not None:
            options["timeout"] = self.timeout
        arguments: dict[str, Any] = {"cast_to": object, "options": options, "stream": True, "stream_cls": stream}
        if self.body is None:
            return client.get(self.path, **arguments)
        return client.post(self.path, body=reveal(self.body), **arguments)


async def attempts(request: HttpRequest) -> AsyncGenerator[tuple[Attempt, Connection | None]]:
    """Yield each attempt as it ends; the last one, if it succeeded, with the open connection.

    Raises
    ------
    ConfigurationError
        The client has a header that HTTP does not allow.
    EndpointNotFoundError
        The server redirects to another place, or in a circle.
    Exception
        What the SDK raised at the last attempt, or before anything was sent.

    """
    try:  # not every transport refuses what HTTP does not allow, and some show the value
        check_headers({**request.client.default_headers, "api-key": request.client.api_key or "none"})
    except OptionError:
        raise illegal_header_error(request.origin) from None
    retries = getattr(request.client, "max_retries", 0) if request.max_retries is None else request.max_retries
    for number in count():
        started = time.perf_counter()
        try:
            connection = await _open(request)
        except Exception as error:
            attempt = _failed(error, request, time.perf_counter() - started)
            if attempt is None:
                raise
            attempt = replace(attempt, final=attempt.final or number >= retries)
            yield attempt, None
            if attempt.final:
                raise
            await asyncio.sleep(_wait(number, attempt.retry_after))
        else:
            seconds = time.perf_counter() - started
            names = (request.origin.provider, request.origin.model)
            identity = request_id(connection.headers)
            yield Attempt(*names, connection.status, "", seconds, identity), connection
            return


async def fetch(request: HttpRequest, announce: Callable[[Attempt], None] = lambda _: None) -> Any:
    """Return the JSON document that answers `request`; text where it is none.

    `announce` hears of each attempt as it ends.

    Raises
    ------
    LLMError
        Of the classes in `llm_magic.errors` only.

    """
    content = b""
    try:
        async with aclosing(attempts(replace(request, whole=True))) as made:
            async for attempt, connection in made:
                announce(attempt)
                content = b"" if connection is None else connection.content
    except Exception as error:  # noqa: BLE001 - translated
        ours = translate(error, request.origin, request.known_secrets, request.body)
        raise ours from cause_of(ours, error)
    return parse_or_text(content)


async def _open(request: HttpRequest) -> Connection:
    """Send it, following redirects; the headers of all of them must come in time."""
    from openai import APIStatusError, OpenAI

    logs.guard(request.known_secrets)

    seconds, blocking = request.seconds, isinstance(request.client, OpenAI)
    async with asyncio.timeout(None if seconds is None else 2 * seconds + SLACK):
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = await (_send_on_thread(request) if blocking else request.send(request.client))
                break
            except APIStatusError as error:
                request = _redirected(request, error)
        else:
            raise EndpointNotFoundError(
                f"{request.origin} redirects in a circle, at last to "
                f"{masked_url(request.path, request.known_secrets)}.",
                "Set base_url to where the API really is.",
                origin=request.origin,
            )
    connection = Connection(answer.response, request.known_secrets, blocking=blocking)
    if request.whole:
        await connection.read()
    return connection


async def _send_on_thread(request: HttpRequest) -> Any:
    thread = asyncio.ensure_future(asyncio.to_thread(request.send, request.client))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:  # the thread cannot be: its answer is closed as soon as it comes
        thread.add_done_callback(_discard)
        raise


def _discard(thread: asyncio.Future[Any]) -> None:
    if not thread.cancelled() and thread.exception() is None:
        thread.result().close()


def _redirected(request: HttpRequest, error: Any) -> HttpRequest:
    """Return the request that a redirect asks for; raise `error` where it is none.

    Followed is only what keeps method and body, and stays at the same scheme, host and port.
    """
    location = error.response.headers.get("location")
    if error.status_code >= HTTPStatus.BAD_REQUEST or location is None:
        raise error
    here, there = error.request.url, None
    with suppress(Exception):  # a URL that cannot be read is another place
        there = here.join(location)  # by the parser of the HTTP client that would send it
    kept = request.body is None or error.status_code in (307, 308)
    same = there is not None and all(getattr(here, of) == getattr(there, of) for of in ("scheme", "host", "port"))
    if kept and there is not None and same and there.userinfo in (b"", here.userinfo):  # else another account
        plain = there.copy_with(query=None, fragment=None, userinfo=here.userinfo)
        return replace(request, path=str(plain), params={**request.params, **there.params})
    known = (*request.known_secrets, *sent_with(error))
    urls = [masked_url(str(url), known) for url in (here, there or location)]
    raise EndpointNotFoundError(
        f"{request.origin} redirects from {urls[0]} to {urls[1]}.",
        "Set base_url to where the API really is.",
        origin=request.origin,
        status=error.status_code,
        request_id=hide(request_id(error.response.headers) or "", known) or None,
    ) from error


def _failed(error: Exception, request: HttpRequest, seconds: float) -> Attempt | None:
    """Return the attempt that `error` ended, final where another one would not help; None if nothing was sent."""
    from openai import APIStatusError

    status: int | None = None
    wait: float | None = None
    identity: str | None = None
    known = (*request.known_secrets, *sent_with(error))
    final = True
    if isinstance(error, APIStatusError):
        document = hidden(parse_or_text(error.response.content), known)
        headers, server_error = error.response.headers, read_error_body(document)
        status, wait, identity = error.status_code, retry_after(headers), request_id(headers)
        reason = server_error.message or f"HTTP {status}"
        final = not _repeatable(status, server_error, headers, wait)
    elif isinstance(error, EndpointNotFoundError):
        status, identity, reason = error.status, error.request_id, "redirected elsewhere"
    elif isinstance(error, TimeoutError):
        reason = "no answer in time"
    else:
        names = class_names(error)
        if is_illegal_header(error) or not names & {"APIConnectionError", "TransportError"}:
            return None
        reason = str(error.__cause__ or error) or "no connection"
        final = any(_HOPELESS.search(str(link)) for link in links(error))
        if "TimeoutException" in names:
            limit = request.seconds
            late = limit is not None and seconds >= limit
            reason, final = f"no answer within {limit:g} s" if late else "no connection", False
    reason = one_line(hide(reason, known), 200)
    identity = hide(identity, known) if identity else None
    return Attempt(request.origin.provider, request.origin.model, status, reason, seconds, identity, wait, final)


def _repeatable(status: int, server_error: ErrorBody, headers: Mapping[str, str], wait: float | None) -> bool:
    """Return whether it may succeed later, by the SDK's rule and what that does not know."""
    failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if (
        status == HTTPStatus.NOT_IMPLEMENTED  # llama.cpp: not switched on
        or server_error.words & _PERMANENT
        or (failed and _PERMANENT_WORDS.search(server_error.message))
        or (wait is not None and wait > MAX_RETRY_AFTER)
    ):
        return False
    asked = headers.get("x-should-retry")
    return asked == "true" if asked in ("true", "false") else failed or status in (408, 409, 429)


def _wait(number: int, asked: float | None) -> float:
    """Return the seconds after attempt `number`, from 0; `asked` is what the server asked for."""
    if asked is not None and 0 < asked <= MAX_RETRY_AFTER:
        return asked
    return min(FIRST_WAIT * 2.0 ** min(number, 10), LONGEST_WAIT) * (1 - random() / 4)  # noqa: S311 - no secret


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
        self._parts: list[bytes] = []
        self._size = 0
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._broken: Exception | None = None

    async def take(self) -> bytes | None:
        """Return what has arrived, decompressed; wait for it if there is nothing. None at the body's end.

        Raises what reading it raised, after all that came before. May be cancelled and called
        again.
        """
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_ahead())
        while not self._parts:
            if self._reader.done():
                if self._broken is not None:
                    raise self._broken
                return None
            self._arrived.clear()
            await self._arrived.wait()
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._taken.set()
        return data

    async def read(self) -> None:
        """Read the whole body into `content`, and close."""
        try:
            self.content = await (asyncio.to_thread(self._response.read) if self._blocking else self._response.aread())
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
            self._broken = error
        finally:
            arrived.set()

    async def _chunks_of_thread(self) -> AsyncGenerator[bytes]:
        reading = self._response.iter_bytes()
        while (part := await asyncio.to_thread(next, reading, None)) is not None:
            yield part

    async def close(self) -> None:
        """Close the answer; one not read to its end closes the TCP connection."""
        if self._blocking:
            stream = None if self._response.is_closed else self._response.extensions.get("network_stream")
            raw = None if stream is None else stream.get_extra_info("socket")
            if raw is not None:
                with suppress(OSError):  # only shutting the socket under it ends a blocking read
                    raw.shutdown(socket.SHUT_RDWR)
            await asyncio.to_thread(self._response.close)
        if self._reader is not None and not self._reader.done():
            self._reader.cancel()
            await asyncio.wait({self._reader})
        if not self._blocking:
            await self._response.aclose()
