"""One request to a model: its JSON body, what happens when it is sent, and its dry run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_magic.capabilities import Api, Capabilities
from llm_magic.errors import Origin, ProtocolError, TimedOutError, UnsupportedError
from llm_magic.events import Event, Opened
from llm_magic.request import Request
from llm_magic.secrets import Secret, hidden, masked_headers, masked_url, reveal
from llm_magic.wire import chat, completions, logs, responses
from llm_magic.wire.attempts import Connection, HttpRequest, attempts
from llm_magic.wire.documents import parse
from llm_magic.wire.errors import cause_of, translate
from llm_magic.wire.headers import check_headers, sent_with
from llm_magic.wire.stream import Answer

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LINGER = 5.0
"""Seconds that the usage, which follows the end of an answer, is waited for."""

DRAIN = 0.1
"""Seconds that the body's end is waited for after the end mark: then the connection can be kept."""

_APIS: dict[Api, Any] = {"chat": chat, "responses": responses, "completions": completions}


@dataclass(frozen=True)
class Call:
    """One request to one endpoint.

    Attributes
    ----------
    client
        An `AsyncOpenAI` or `AsyncAzureOpenAI`; a blocking `OpenAI` or `AzureOpenAI` works too, on a
        thread.
    origin
        What errors name.
    capabilities
        What the endpoint can do; `capabilities.api` chooses the API.
    request
        What is asked.
    timeout
        Seconds for connecting, for the first bytes, and then for each further event; None takes the
        client's. Comments and parts of events do not count as events: a server that only keeps the
        line open times out.
    max_retries
        Further attempts after a failure; None takes the client's.
    secrets
        What the provider resolved for the client, for nothing to show it.

    """

    client: AsyncOpenAI
    origin: Origin
    capabilities: Capabilities
    request: Request
    timeout: float | None = None
    max_retries: int | None = None
    secrets: tuple[Secret, ...] = ()

    def http_request(self) -> HttpRequest:
        """Return what will be sent; raises OptionError for a header that HTTP does not allow."""
        if self.request.headers:
            check_headers(reveal(self.request.headers))
        api = _APIS[self.capabilities.api]
        return HttpRequest(
            self.client,
            self.origin,
            api.PATH,
            api.body(self.request, self.capabilities),
            self.request.headers,
            timeout=self.timeout,
            max_retries=self.max_retries,
            secrets=self.secrets,
        )


async def exchange(call: Call) -> AsyncGenerator[list[Event], None]:
    """Send the request and yield what happens, a list of all events that have arrived each time.

    Failed attempts come as they happen, then `Attempt` (status 200) and `Opened`, then the answer.
    It ends after `Finished` for every answer, or without one when the stream broke off. Closing the
    iterator, or cancelling the task that reads it, closes the connection at once.

    Raises
    ------
    LLMError
        Of the classes in `llm_magic.errors` only; what came before has been yielded.

    """
    request = call.http_request()
    answer = Answer(call.capabilities.api, call.request)
    connection: Connection | None = None
    try:
        async with aclosing(attempts(request)) as made:
            async for attempt, connection in made:
                yield [attempt]
                if connection is not None:
                    yield [Opened(connection.status, connection.headers, attempt.request_id)]
                    async with aclosing(_read(call.origin, request.seconds, connection, answer)) as batches:
                        async for batch in batches:
                            yield batch
        if answer.fault is not None:
            raise answer.fault  # noqa: TRY301 - translated below, with everything else
        if not answer.reader.answered:
            raise ProtocolError(  # noqa: TRY301 - likewise
                f"{call.origin} answered with nothing.", "Check base_url and --api.", origin=call.origin
            )
    except Exception as error:  # noqa: BLE001 - translated
        known = request.known_secrets if connection is None else connection.secrets
        ours = translate(error, call.origin, known, request.body)
        raise ours from cause_of(ours, error)
    finally:
        if connection is not None:
            await connection.close()


async def _read(
    origin: Origin, seconds: float | None, connection: Connection, answer: Answer
) -> AsyncGenerator[list[Event]]:
    """Yield the events as they arrive, until the body ends, breaks, or has nothing more to say."""
    loop = asyncio.get_running_loop()
    alive, since = 0, loop.time()
    while True:
        limit = seconds
        if answer.reader.complete:
            limit = LINGER if seconds is None else min(seconds, LINGER)
        try:
            async with asyncio.timeout_at(None if limit is None else since + limit):
                data = await connection.take()
        except TimeoutError as error:
            if answer.reader.complete:
                return
            raise TimedOutError(
                f"{origin} fell silent: nothing whole came for {seconds:g} s.",
                "Allow more with --timeout SECONDS, or ask again.",
                origin=origin,
            ) from error
        except Exception:
            batch = answer.close()
            if batch:
                yield batch
            if answer.reader.answered or answer.fault is not None:
                return  # broken off: what came stands, and has no finish reason
            raise
        batch = answer.close() if data is None else answer.feed(data)
        if batch:
            yield batch
        if data is None or answer.fault is not None:
            return
        if answer.done:
            with suppress(Exception):
                async with asyncio.timeout(DRAIN):
                    while await connection.take() is not None:
                        pass
            yield answer.close()
            return
        if answer.alive != alive:
            alive, since = answer.alive, loop.time()


@dataclass(frozen=True, slots=True)
class Preview:
    """A request that was not sent: headers in their order, secrets as `***`; the body as JSON."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any


class _Stopped(Exception):  # noqa: N818 - ends a dry run, is no fault
    """The request has been built, and is not sent."""


_HIDDEN = "hidden-in-a-dry-run"


async def preview(call: Call) -> Preview:
    """Return the exact request of `call`; nothing leaves, and no token is asked for.

    Raises
    ------
    UnsupportedError
        An option that the endpoint cannot honour, or a client whose requests cannot be caught.

    """
    request = call.http_request()
    hooks = getattr(getattr(call.client, "_client", None), "event_hooks", None)
    if not isinstance(hooks, dict):
        raise UnsupportedError(
            f"The client of {call.origin} cannot be stopped before it sends, so --dry-run cannot show its request.",
            "Leave --dry-run out, or give the provider an OpenAI client.",
        )
    logs.guard(request.known_secrets)  # the SDK logs what it builds
    try:
        caught = await _caught(request, hooks["request"])
    except Exception as error:  # noqa: BLE001 - translated
        ours = translate(error, call.origin, request.known_secrets, request.body)
        raise ours from cause_of(ours, error)
    known = (*request.known_secrets, *sent_with(caught), _HIDDEN)
    return Preview(
        str(caught.method),
        masked_url(str(caught.url), known),
        masked_headers(dict(caught.headers), known),
        hidden(parse(bytes(caught.content)), known),
    )


async def _caught(request: HttpRequest, hooks: list[Any]) -> Any:
    """Let the SDK send a request, stopped by a hook of the HTTP client that this task alone meets."""
    from openai import OpenAI

    here, caught = (threading.get_ident(), asyncio.current_task()), []

    def stop(built: Any) -> None:
        if here[0] == threading.get_ident() and here[1] is asyncio.current_task():
            caught.append(built)
            raise _Stopped

    async def stop_async(built: Any) -> None:
        stop(built)

    client = _without_tokens(request.client)
    hook = stop if isinstance(client, OpenAI) else stop_async
    hooks.append(hook)
    try:
        await request.send(client)
    except Exception:
        if not caught:
            raise
    finally:
        hooks.remove(hook)
    return caught[0]


def _without_tokens(client: Any) -> Any:
    """Return the client, or a copy with a mark where a callable would be asked for a key or token."""
    known: dict[str, Any] = {}
    if getattr(client, "_api_key_provider", None) is not None:
        known["api_key"] = _HIDDEN
    if getattr(client, "_azure_ad_token_provider", None) is not None:
        known["azure_ad_token_provider"] = lambda: _HIDDEN
    return client.copy(**known) if known else client
