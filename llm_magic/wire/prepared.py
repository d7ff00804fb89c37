"""A request prepared once and sent many times with other bodies, for one whole JSON document each.

The SDK stays the authority on what is sent: method, URL and headers are those of a request that it built and that was
caught before it left. What sends them is a pool of ours where the client is plainly ours to replace: over aiohttp where
it is installed, else over the SDK's HTTP library, slower; and the SDK's own client in all other cases. Attempts,
redirects, renewed credentials, limits and errors are the same over each.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from llm_magic.errors import LLMError, UnsupportedError
from llm_magic.events import Attempt, Event, Opened
from llm_magic.request import Request
from llm_magic.secrets import Secret, reveal, secrets_in
from llm_magic.wire import call as wire
from llm_magic.wire import logs
from llm_magic.wire.attempts import MAX_REDIRECTS, MAX_STALE, HttpRequest, Wait, attempts, in_a_circle, redirected
from llm_magic.wire.body_template import BodyTemplate
from llm_magic.wire.call import Call
from llm_magic.wire.errors import cause_of, translate
from llm_magic.wire.headers import response_cost, sent_with
from llm_magic.wire.plain_document import plain_events
from llm_magic.wire.stream import Answer
from llm_magic.wire.target import StaleError, Target, asked_key
from llm_magic.wire.transport_pool import PooledAnswer, TransportPool

if TYPE_CHECKING:
    from openai import APIStatusError

    from llm_magic.wire.aiohttp_pool import DocumentAnswer
    from llm_magic.wire.aiohttp_pool import Pool as AiohttpPool

    Pool = AiohttpPool | TransportPool
    PoolAnswer = DocumentAnswer | PooledAnswer

KEPT = 5.0
"""Seconds that a connection without a request is kept, as by the SDK's own client."""

_DECODED = ("gzip", "deflate", "identity")
"""Content codings that aiohttp reads, whatever is installed."""

_UNSENT = frozenset({"content-length", "transfer-encoding"})
"""Headers that follow from the body."""


def why_the_sdk_sends(client: Any, *, ours: bool, http_client: str, settings: Mapping[str, Any], proxy: str) -> str:
    """Return why requests go over the SDK's own HTTP client; empty where a pool of ours takes its place.

    Parameters
    ----------
    client
        The SDK's client.
    ours
        Whether we made it.
    http_client, settings
        As of the provider's `http_client` and `http_client_kwargs`.
    proxy
        The proxy that it goes through; empty where there is none.

    """
    from openai import AsyncAzureOpenAI, AsyncOpenAI

    given = sorted(name for name, value in settings.items() if value is not None)
    plain = type(client) in (AsyncOpenAI, AsyncAzureOpenAI) and not any(
        getattr(client, name, None) is not None for name in ("workload_identity", "_provider_runtime")
    )
    if not ours:
        return "the client is a ready one"
    if http_client not in ("", "aiohttp"):
        return f"http_client is {http_client}"
    if given:
        return f"http_client_kwargs sets {', '.join(given)}"
    if not plain:
        return f"the client is a {type(client).__name__} that sends in its own way"
    if proxy:
        return f"it goes through the proxy {proxy}"
    return ""


def has_aiohttp() -> bool:
    """Return whether aiohttp is installed."""
    return importlib.util.find_spec("aiohttp") is not None


class PreparedRequest:
    """One endpoint's request, ready to be sent with one body after another, also many at once.

    It belongs to the event loop that sends with it first, and is closed there: `async with`, or `aclose`.

    Parameters
    ----------
    call
        The request of one row, which `stream` does not ask to stream; its body is a row's, for `template`.
    why_the_sdk_sends
        Why the SDK's own HTTP client sends; empty: a pool of ours does.
    explain
        Completes an error before it is raised, by what the provider knows.

    """

    def __init__(
        self,
        call: Call,
        why_the_sdk_sends: str = "",
        explain: Callable[[LLMError, Request], None] = lambda _error, _request: None,
    ) -> None:
        if call.request.stream:
            call = replace(call, request=replace(call.request, stream=False))
        self.call = call
        self.why_the_sdk_sends = why_the_sdk_sends
        self._explain = explain
        self.http = call.http_request()
        """The request over the SDK."""
        self.target: Target | None = None
        """What is sent over a pool, once it is known."""
        self._pool: Pool | None = None
        self._preparing = asyncio.Lock()

    @property
    def slower_because(self) -> str:
        """Why requests take longer than they need to; empty where nothing makes them."""
        missing = "" if has_aiohttp() else 'aiohttp is not installed (pip install "llm_magic[many]")'
        return self.why_the_sdk_sends or missing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; the next request opens others."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def body(self, request: Request | None = None) -> bytes:
        """Return the body of a request, as the SDK writes it; that of the prepared one without any.

        Nothing is sent, and no key is asked for.

        Raises
        ------
        LLMError
            The request cannot be sent: an option that the endpoint does not take, half of a surrogate pair.

        """
        call = self.call if request is None else replace(self.call, request=replace(request, stream=False))
        http = call.http_request()
        try:
            text = json.dumps(reveal(http.body), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            return text.encode()
        except (TypeError, ValueError):  # what the SDK makes of other objects, or says of them
            return bytes((await _caught(http)).content)

    async def template(self, marker: str) -> BodyTemplate | None:
        """Return the template of bodies that differ in one text; None where `marker` does not stand for it once."""
        return BodyTemplate.split(await self.body(), marker)

    async def exchange(
        self,
        body: bytes,
        request: Request,
        events: list[Event],
        *,
        on_attempt: Callable[[Attempt], None] = lambda _attempt: None,
        wait: Wait = asyncio.sleep,
    ) -> None:
        """Send one body, and read its answer into `events`: those that `wire.call.exchange` yields.

        Cancelling closes the connection at once; what had come stands in `events`, whatever the end.

        Parameters
        ----------
        body
            JSON, as `template` or `body` give it.
        request
            What it asks: answers are read by it.
        events
            Gets what happens.
        on_attempt
            Hears of each attempt as it ends.
        wait
            Awaited before a further attempt, with the seconds.

        Raises
        ------
        LLMError
            As of `wire.call.exchange`.

        """
        try:
            if self.why_the_sdk_sends:
                await self._over_the_sdk(body, request, events, on_attempt, wait)
            else:
                await self._over_a_pool(body, request, events, on_attempt, wait)
        except LLMError as error:
            self._explain(error, request)
            raise

    async def _over_the_sdk(
        self, body: bytes, request: Request, events: list[Event], on_attempt: Callable[[Attempt], None], wait: Wait
    ) -> None:
        call = replace(self.call, request=request, content=body)
        async with aclosing(wire.exchange(call, wait)) as batches:
            async for batch in batches:
                events += batch
                for event in batch:
                    if isinstance(event, Attempt):
                        on_attempt(event)

    async def _over_a_pool(
        self, body: bytes, request: Request, events: list[Event], on_attempt: Callable[[Attempt], None], wait: Wait
    ) -> None:
        row = _Row(self, *await self._prepare(), body)
        answered: PoolAnswer | None = None
        held: list[Event] = []  # of an answer that broke off before anything of it was shown
        try:
            async with aclosing(attempts(row, wait)) as made:
                async for attempt, opened in made:
                    if opened is None:
                        events += [*held, attempt] if attempt.final else [attempt]
                        held = []
                        on_attempt(attempt)
                        continue
                    answered = opened
                    events.append(attempt)
                    on_attempt(attempt)
                    cost = response_cost(opened.headers)
                    events.append(Opened(opened.status, opened.headers, attempt.request_id, cost))
                    held = await self._read(opened, request, events)
        except Exception as error:  # noqa: BLE001 - translated
            ours = translate(error, self.call.origin, row.known_secrets, row.http.body)
            raise ours from cause_of(ours, error)
        finally:
            if answered is not None:
                await answered.close()

    async def _read(self, opened: PoolAnswer, request: Request, events: list[Event]) -> list[Event]:
        """Read an answer into `events`; return what came of one that is asked for again."""
        origin, api = self.call.origin, self.call.capabilities.api
        data = await opened.whole()
        if data is not None and api == "chat" and (plain := plain_events(data)) is not None:
            events += plain
            return []
        answer = Answer(api, request)
        came: list[Event] = []
        held = False
        try:
            if data is not None:
                came += answer.feed(data)
                if answer.fault is None:
                    came += answer.close()
            else:
                async with aclosing(wire.read(origin, self.http.seconds, opened, answer)) as batches:
                    async for batch in batches:
                        came += batch
            wire.judge(origin, answer, opened)
            held = opened.broken is not None and not answer.shown
        finally:
            if not held:
                events += came
        return came if held else []

    async def _prepare(self) -> tuple[Target, Pool]:
        """Return what is sent and what sends it, made once."""
        target, pool = self.target, self._pool
        if target is None or pool is None:
            async with self._preparing:
                target = self.target or await self.send_over(self.call.client)
                pool = self._pool = self._pool or await self._opened(target)
        return target, pool

    async def _opened(self, target: Target) -> Pool:
        secure = target.url.startswith("https:")
        tls = await asyncio.to_thread(target.library.create_ssl_context) if secure else None
        if not has_aiohttp():
            return TransportPool(target, tls, KEPT)
        from llm_magic.wire.aiohttp_pool import Pool as AiohttpPool

        pool = AiohttpPool(tls, KEPT)
        pool.use(target)
        return pool

    async def send_over(self, client: Any) -> Target:
        """Send from here on what the SDK builds over `client`, and return it."""
        http = replace(self.call, client=client).http_request()
        http.check()
        caught = await _caught(http)
        headers = _headers(caught)
        self.target = target = Target(
            client,
            sys.modules[type(caught).__module__.partition(".")[0]],
            str(caught.method),
            str(caught.url.copy_with(userinfo=b"")),  # a header says the same
            headers,
            http.seconds,
            http.timeout if http.timeout is not None else getattr(client.timeout, "connect", http.seconds),
            (*http.secrets, *secrets_in(http.headers, http.params, http.body), *_sent_with(caught)),
            asked_key(client, headers, wire.HIDDEN),
        )
        self.http = http
        if self._pool is not None:
            self._pool.use(target)
        return target


async def _caught(http: HttpRequest) -> Any:
    """Return the request of the SDK's HTTP library that would be sent; nothing is sent."""
    hooks = getattr(getattr(http.client, "_client", None), "event_hooks", None)
    if not isinstance(hooks, dict):
        raise UnsupportedError(f"The client of {http.origin} cannot be stopped before it sends.", "Give another one.")
    logs.guard(http.known_secrets)  # the SDK logs what it builds
    try:
        return await wire.catch(http, hooks["request"])
    except Exception as error:  # noqa: BLE001 - translated
        ours = translate(error, http.origin, http.known_secrets, http.body)
        raise ours from cause_of(ours, error)


def _headers(caught: Any) -> tuple[tuple[str, str], ...]:
    """Return the headers of a caught request in their order and spelling: without what follows from the body."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in caught.headers.raw]
    return tuple(
        (name, _codings(value) if name.lower() == "accept-encoding" else value)
        for name, value in pairs
        if name.lower() not in _UNSENT
    )


def _codings(accepted: str) -> str:
    """Return those of the accepted content codings that can be read."""
    return ", ".join(each for each in map(str.strip, accepted.split(",")) if each in _DECODED) or "identity"


def _sent_with(caught: Any) -> tuple[Secret, ...]:
    """Return the secrets that a caught request carries: not what stands in the place of a key."""
    return tuple(secret for secret in sent_with(caught) if wire.HIDDEN not in secret.reveal())


def _status_error() -> type[APIStatusError]:
    from openai import APIStatusError

    return APIStatusError


class _Row:
    """One body, to be sent by `attempts`."""

    __slots__ = ("_pool", "_prepared", "_target", "body", "http", "origin", "renews", "retries", "seconds")

    def __init__(self, prepared: PreparedRequest, target: Target, pool: Pool, body: bytes) -> None:
        self._prepared, self._pool, self._target, self.body = prepared, pool, target, body
        self.http = http = prepared.http
        self.origin, self.seconds = http.origin, target.seconds
        self.retries, self.renews = http.retries, http.renew is not None

    @property
    def known_secrets(self) -> tuple[Secret, ...]:
        """What must not be shown."""
        learned = logs.learned()
        return (*self._target.secrets, *learned) if learned else self._target.secrets

    @property
    def host(self) -> str:
        """The host that is connected to."""
        return self.http.host

    def check(self) -> None:
        """Refuse nothing: what the headers hold was looked at when they were prepared."""

    async def open(self) -> PoolAnswer:
        """Send it, and once more for each kept connection that turns out to be closed; return the open answer."""
        self._target = target = self._prepared.target or self._target
        logs.guard(self.known_secrets)
        http, stale, redirects = self.http, 0, 0
        while True:
            failed: Exception
            try:
                headers = None if target.key is None else await target.key.headers()
                secrets = target.secrets if headers is None else self.known_secrets
                return await self._pool.send(target, headers, self.body, secrets)
            except StaleError as error:
                failed, stale = error.error, stale + 1
            except _status_error() as error:
                http, redirects = redirected(http, error), redirects + 1
                failed = in_a_circle(http)
                url = (await _caught(http)).url.copy_with(userinfo=b"")
                target = replace(target, url=str(url))
            if stale > MAX_STALE or redirects > MAX_REDIRECTS:
                raise failed

    async def renewed(self) -> _Row | None:
        """Return it with other credentials; None where there are none."""
        prepared, refused = self._prepared, self._target
        if prepared.target is refused and self.http.renew is not None:
            client = await self.http.renew(refused.client)
            if client is None:
                return None
            if client is not refused.client and prepared.target is refused:
                await prepared.send_over(client)
        other = _Row(prepared, prepared.target or refused, self._pool, self.body)
        other.renews = False
        return other
