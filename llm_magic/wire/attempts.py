"""The attempts at one HTTP request: sent by the SDK, repeated and redirected by rules of ours.

The SDK builds, signs and sends each request; its own retries and redirects are switched off, so
that each of them is seen and decided here. Nothing travels to another scheme, host or port than the
one that was asked.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from random import random
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from llm_magic.errors import EndpointNotFoundError, OptionError, Origin
from llm_magic.events import Attempt
from llm_magic.secrets import Secret, hidden, hide, masked_url, reveal, secrets_in
from llm_magic.wire import logs
from llm_magic.wire.connection import SLACK, Connection, Watch, watched
from llm_magic.wire.documents import BrokenOff, ErrorDocument, is_cut, parse_or_text
from llm_magic.wire.error_body import ErrorBody, one_line, read_error_body
from llm_magic.wire.errors import (
    cause_of,
    class_names,
    illegal_header_error,
    is_disconnected,
    is_illegal_header,
    is_malformed,
    links,
    translate,
)
from llm_magic.wire.file_upload import FileUpload
from llm_magic.wire.headers import asked_wait, check_headers, exhausted, request_id, sent_with

MAX_RETRY_AFTER = 120.0
"""Seconds; asked to wait longer, a request is given up."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds before the first and before any repetition; doubled, and less up to a quarter by chance."""

NO_ANSWER = "no answer"
"""How the reason of an attempt begins that was sent and had no answer in time: the server may have worked on it."""

MAX_REDIRECTS = 5
MAX_STALE = 20
"""Kept connections in a row that may turn out to be closed."""

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


Renew = Callable[[Any], Awaitable[Any]]
"""Takes a client whose credentials were refused, returns the one that asks for others; None where there are none."""


Wait = Callable[[float], Awaitable[object]]
"""Waits so many seconds before a further attempt."""


class OpenAnswer(Protocol):
    """An open answer, whatever HTTP client it came over; as of `Connection`."""

    status: int
    secrets: tuple[Secret, ...]
    headers: Mapping[str, str]
    broken: Exception | None
    repeatable: bool

    async def close(self) -> None:
        """Close it."""


Opened = TypeVar("Opened", bound=OpenAnswer)
Opened_co = TypeVar("Opened_co", bound=OpenAnswer, covariant=True)


class Sendable(Protocol[Opened_co]):
    """What can be sent, again and again, whatever HTTP client sends it; as of `HttpRequest`."""

    @property
    def origin(self) -> Origin:
        """What errors name."""

    @property
    def seconds(self) -> float | None:
        """The timeout that holds, in seconds."""

    @property
    def known_secrets(self) -> tuple[Secret, ...]:
        """What must not be shown."""

    @property
    def retries(self) -> int:
        """Further attempts after a failure."""

    @property
    def host(self) -> str:
        """The host that is connected to; empty where it is not known."""

    @property
    def renews(self) -> bool:
        """Whether there may be other credentials after a 401."""

    def check(self) -> None:
        """Refuse what HTTP does not allow."""

    async def open(self) -> Opened_co:
        """Send it once; raise what the SDK raises."""

    async def renewed(self) -> Self | None:
        """Return it with other credentials; None where there are none."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request over a client of the SDK; what is not said here is as of `Call`.

    Attributes
    ----------
    path
        Below the client's base URL, or an absolute URL.
    body
        JSON; None makes it a GET.
    content
        The JSON as it is sent, where that is not what the SDK makes of `body`.
    method
        GET, POST or DELETE; empty: POST with a body, GET without.
    file
        Is sent as a form, of which `body` has the other fields.
    once
        Whether it is not sent again over another connection where a kept one turns out to be closed: nobody can know
        whether the server had read it.
    headers, params
        Further headers, and fields of the query, of this request.
    secrets
        What nothing may show of what the provider resolved; those of body and headers are known by their type.
    whole
        Whether an attempt has only succeeded once the body has been read, too.
    renew
        Asked once, after a 401, for other credentials: a token may have expired. With these the request is sent once
        more, at once and whatever the number of retries.

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
    renew: Renew | None = None
    content: bytes | None = None
    method: str = ""
    file: FileUpload | None = None
    once: bool = False

    @property
    def verb(self) -> str:
        """The method of HTTP."""
        return self.method or ("GET" if self.body is None else "POST")

    @property
    def retries(self) -> int:
        """Further attempts after a failure."""
        return int(getattr(self.client, "max_retries", 0)) if self.max_retries is None else self.max_retries

    @property
    def renews(self) -> bool:
        """Whether there may be other credentials after a 401."""
        return self.renew is not None

    @property
    def host(self) -> str:
        """The host that is connected to: the proxy's, where there is one; empty where it is not known."""
        try:
            return urlsplit(self.proxy).hostname or str(self.client.base_url.host)
        except AttributeError:  # no client of the SDK
            return ""

    def check(self) -> None:
        """Refuse headers of the client that HTTP does not allow: not every transport does, and some show the value."""
        try:
            check_headers({**self.client.default_headers, "api-key": self.client.api_key or "none"})
        except OptionError:
            raise illegal_header_error(self.origin) from None

    async def open(self) -> Connection:
        """Send it, and once more for each kept connection that turns out to be closed; return the open answer."""
        return await _open_fresh(self)

    async def renewed(self) -> HttpRequest | None:
        """Return it over a client with other credentials; None where there are none."""
        client = None if self.renew is None else await self.renew(self.client)
        return None if client is None else replace(self, client=client, renew=None)

    @property
    def seconds(self) -> float | None:
        """The timeout that holds, in seconds; None where the client has none."""
        known = getattr(self.client, "timeout", None) if self.timeout is None else self.timeout
        known = getattr(known, "read", known)
        return float(known) if isinstance(known, int | float) else None

    @property
    def proxy(self) -> str:
        """The proxy that it goes through, without its credentials; empty where there is none."""
        try:
            pool = self.client._client._transport_for_url(self.client.base_url)._pool  # noqa: SLF001 - said nowhere else
            return bytes(pool._proxy_url).decode().rstrip("/")  # noqa: SLF001 - as above
        except Exception:  # noqa: BLE001 - another transport
            return ""

    @property
    def known_secrets(self) -> tuple[Secret, ...]:
        """What must not be shown."""
        return (*self.secrets, *secrets_in(self.headers, self.params, self.body), *logs.learned())

    @property
    def longest(self) -> float | None:
        """Seconds in which it is connected and sent; None for ever."""
        seconds = self.seconds
        return None if seconds is None else 2 * seconds + SLACK + (0.0 if self.file is None else self.file.longest)

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
        if self.file is not None:
            return self.file.post(client, self.path, reveal(self.body or {}), arguments)
        if self.method == "DELETE":
            return client.request(object, delete_options(self.path, options), stream=True, stream_cls=stream)
        if self.body is None:
            return (client.post if self.method == "POST" else client.get)(self.path, **arguments)
        # not as bytes: the classic client of Azure finds the deployment's name in the document
        body = reveal(self.body) if self.content is None else json.loads(self.content)
        return client.post(self.path, body=body, **arguments)


def delete_options(path: str, options: dict[str, Any]) -> Any:
    """Return what makes a DELETE of the SDK whose answer stays open: its own `delete` reads all of it."""
    from openai._models import FinalRequestOptions

    return FinalRequestOptions.construct(method="delete", url=path, **options)


async def attempts(
    request: Sendable[Opened], wait: Wait = asyncio.sleep
) -> AsyncGenerator[tuple[Attempt, Opened | None]]:
    """Yield each attempt as it ends; one that succeeded with the open connection.

    `wait` is awaited before a further attempt.

    Who reads the answer sets `broken` of the connection, and `repeatable`, where the answer broke off: the attempt is
    then told once more, as one that failed, and another one follows where that may help.

    Raises
    ------
    ConfigurationError
        The client has a header that HTTP does not allow.
    EndpointNotFoundError
        The server redirects to another place, or in a circle.
    Exception
        What the SDK raised at the last attempt, or before anything was sent.

    """
    request.check()
    number, retries = 0, request.retries
    while True:
        started = time.perf_counter()
        try:
            connection = await request.open()
        except Exception as error:
            attempt = _failed(error, request, time.perf_counter() - started)
            if attempt is None:
                raise
            failed = time.perf_counter()
            limit = min(retries, 1) if _refused_here(error, request.host) else retries
            attempt = replace(attempt, final=attempt.final or number >= limit)
            if attempt.status == HTTPStatus.UNAUTHORIZED and attempt.final and request.renews:
                try:
                    other = await request.renewed()
                except Exception:
                    yield attempt, None
                    raise
                if other is not None:
                    yield replace(attempt, final=False), None
                    request = other
                    request.check()
                    continue
            yield attempt, None
            if attempt.final:
                raise
        else:
            names = (request.origin.provider, request.origin.model)
            identity = request_id(connection.headers)
            yield Attempt(*names, connection.status, "", time.perf_counter() - started, identity), connection
            if connection.broken is None:
                return
            final = number >= retries or not connection.repeatable
            said = getattr(connection.broken, "message", None) or str(connection.broken)
            failed, reason = time.perf_counter(), one_line(hide(said, connection.secrets), 200)
            attempt = Attempt(*names, connection.status, reason, failed - started, identity, None, final)
            await connection.close()
            yield attempt, None
            if final:
                raise connection.broken
        waited = time.perf_counter() - failed  # by who reads: for a turn
        await wait(max(0.0, _wait(number, attempt.retry_after) - waited))
        number += 1


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer: the JSON document that it is, or else its text; its headers, names in lower case."""

    document: Any
    headers: Mapping[str, str]
    request_id: str | None


async def fetch(request: HttpRequest, announce: Callable[[Attempt], None] = lambda _: None) -> Fetched:
    """Return what answers `request`, read to its end.

    `announce` hears of each attempt as it ends.

    Raises
    ------
    LLMError
        Of the classes in `llm_magic.errors` only.

    """
    content, headers = b"", {}
    try:
        async with aclosing(attempts(replace(request, whole=True))) as made:
            async for attempt, connection in made:
                announce(attempt)
                if connection is not None:
                    content, headers = connection.content, dict(connection.headers)
    except Exception as error:  # noqa: BLE001 - translated
        ours = translate(error, request.origin, request.known_secrets, request.body, request.proxy)
        raise ours from cause_of(ours, error)
    return Fetched(parse_or_text(content), headers, request_id(headers))


async def _open_fresh(request: HttpRequest) -> Connection:
    """Open it; over a kept connection that the server had closed meanwhile, at once another time, uncounted.

    That is safe, though a POST: on a connection that was used before, not one byte of an answer came, so the server had
    given it up before it read the request (RFC 9112, 9.3.1). On a fresh connection the same is a failed attempt.
    """
    stale = 0
    while True:
        watch, came = await _tried(request)
        if isinstance(came, Connection):
            return came
        stale += 1
        fresh = watch is None or not watch.reused or not is_disconnected(came)
        if stale > MAX_STALE or fresh or request.once:
            raise came


async def _tried(request: HttpRequest) -> tuple[Watch | None, Connection | Exception]:
    """Send it, following redirects; return what was seen, and the open answer or what went wrong."""
    from openai import APIStatusError, OpenAI

    logs.guard(request.known_secrets)
    seconds, blocking, watch = request.seconds, isinstance(request.client, OpenAI), None
    try:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                async with asyncio.timeout(request.longest) as limit:
                    watch = Watch(seconds, limit)
                    with watched(request.client, watch, blocking=blocking):
                        answer = await (_send_on_thread(request) if blocking else request.send(request.client))
                break
            except APIStatusError as error:
                request = redirected(request, error)
        else:
            raise in_a_circle(request)  # noqa: TRY301 - returned as any other
        connection = Connection(answer.response, request.known_secrets, blocking=blocking)
        if request.whole:
            await _read_whole(connection, seconds)
    except Exception as error:  # noqa: BLE001 - raised by the caller, or not at all
        return watch, error
    return watch, connection


async def _read_whole(connection: Connection, seconds: float | None) -> None:
    try:
        await connection.read(seconds)
    except ValueError as error:
        raise ErrorDocument(str(error), malformed=True) from None
    if is_cut(connection.content):
        raise BrokenOff("the JSON document is not whole")


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


def in_a_circle(request: HttpRequest) -> EndpointNotFoundError:
    """Return the error for a request that was redirected once too often."""
    return EndpointNotFoundError(
        f"{request.origin} redirects in a circle, at last to {masked_url(request.path, request.known_secrets)}.",
        "Set base_url to where the API really is.",
        origin=request.origin,
    )


def redirected(request: HttpRequest, error: Any) -> HttpRequest:
    """Return the request that a redirect asks for; raise `error` where it is none.

    Followed is only what keeps method and body, and stays at the same scheme, host and port.
    """
    location = error.response.headers.get("location")
    if error.status_code >= HTTPStatus.BAD_REQUEST or location is None:
        raise error
    here, there = error.request.url, None
    with suppress(Exception):  # a URL that cannot be read is another place
        there = here.join(location)  # by the parser of the HTTP client that would send it
    kept = request.verb == "GET" or error.status_code in (307, 308)
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


def _failed(error: Exception, request: Sendable[OpenAnswer], seconds: float) -> Attempt | None:
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
        status, wait, identity = error.status_code, asked_wait(headers), request_id(headers)
        if status == HTTPStatus.TOO_MANY_REQUESTS and wait is None:
            wait = exhausted(headers, MAX_RETRY_AFTER)
        reason = server_error.message or f"HTTP {status}"
        final = not _repeatable(status, server_error, headers, wait)
    elif isinstance(error, EndpointNotFoundError):
        status, identity, reason = error.status, error.request_id, "redirected elsewhere"
    elif isinstance(error, TimeoutError):
        reason = f"{NO_ANSWER} in time"
    elif isinstance(error, BrokenOff):
        reason, final = str(error), False
    else:
        names = class_names(error)
        if is_illegal_header(error) or not names & {"APIConnectionError", "TransportError", "DecodingError"}:
            return None
        reason = str(error.__cause__ or error) or "no connection"
        final = (
            is_malformed(error) or "DecodingError" in names or any(_HOPELESS.search(str(link)) for link in links(error))
        )
        if "TimeoutException" in names:
            limit = request.seconds
            late = limit is not None and seconds >= limit
            reason, final = f"{NO_ANSWER} within {limit:g} s" if late else "no connection", False
    reason = one_line(hide(reason, known), 200)
    identity = hide(identity, known) if identity else None
    return Attempt(request.origin.provider, request.origin.model, status, reason, seconds, identity, wait, final)


def _refused_here(error: BaseException, host: str) -> bool:
    """Return whether this very machine refused the connection: nothing listens, and waiting does not change that."""
    try:
        here = ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        here = host == "localhost" or host.endswith(".localhost")
    return here and any(
        getattr(link, "errno", None) == errno.ECONNREFUSED or "refused" in str(link).lower() for link in _causes(error)
    )


def _causes(error: BaseException) -> list[BaseException]:
    """Return the chain of an exception, those inside of groups included: one for each address that was tried."""
    found = list(links(error))
    return found + [each for link in found if isinstance(link, BaseExceptionGroup) for each in link.exceptions]


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
