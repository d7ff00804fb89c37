"""One request over the SDK's client: its auth, paths and retries are kept, the bytes are read here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_magic.capabilities import Api, Capabilities
from llm_magic.errors import Origin, ProtocolError, TimedOutError
from llm_magic.events import Event, Opened
from llm_magic.request import Request
from llm_magic.wire import chat, completions, responses
from llm_magic.wire.embeddings import Embedded, embed
from llm_magic.wire.errors import translate
from llm_magic.wire.models import list_models
from llm_magic.wire.opening import Opening
from llm_magic.wire.preview import Preview, preview
from llm_magic.wire.secrets import check_headers, request_id
from llm_magic.wire.stream import Answer
from llm_magic.wire.transport import Connection
from llm_magic.wire.watch import Watch

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Call", "Embedded", "Preview", "embed", "exchange", "list_models", "preview"]

LINGER = 5.0
"""Seconds that the usage, which follows the end of an answer, is waited for."""

DRAIN = 0.1
"""Seconds that the body's end is waited for after the stream's end mark, so that the connection can be kept."""

_APIS: dict[Api, Any] = {"chat": chat, "responses": responses, "completions": completions}


@dataclass(frozen=True)
class Call:
    """One request to one endpoint.

    Attributes
    ----------
    client
        An `AsyncOpenAI` or `AsyncAzureOpenAI`; a blocking `OpenAI` or `AzureOpenAI` works too, on a thread.
    origin
        What errors name.
    capabilities
        What the endpoint can do; `capabilities.api` chooses the API.
    request
        What is asked.
    timeout
        Seconds for connecting, for the first bytes, and then for each further event; None takes the client's.
        Comments and parts of events do not count as events: a server that only keeps the line open times out.
    max_retries
        Further attempts after a failure; None takes the client's.

    """

    client: AsyncOpenAI
    origin: Origin
    capabilities: Capabilities
    request: Request
    timeout: float | None = None
    max_retries: int | None = None

    def body(self) -> dict[str, Any]:
        """Return the JSON body that will be sent."""
        fields: dict[str, Any] = _APIS[self.capabilities.api].body(self.request, self.capabilities)
        return fields

    @property
    def path(self) -> str:
        """The path of the API below the base URL."""
        path: str = _APIS[self.capabilities.api].PATH
        return path

    def check_headers(self) -> None:
        """Raise OptionError for a header of this request that HTTP does not allow."""
        check_headers(self.request.headers)

    def seconds(self) -> float | None:
        """Return the timeout that holds, in seconds; None where the client has none."""
        if self.timeout is not None:
            return self.timeout
        known = getattr(self.client, "timeout", None)
        known = getattr(known, "read", known)
        return float(known) if isinstance(known, int | float) else None


async def exchange(call: Call) -> AsyncGenerator[list[Event], None]:
    """Send the request and yield what happens, one list of events a network read.

    Failed attempts come as they happen, then `Attempt` (status 200) and `Opened`, then the answer. It ends
    after `Finished` for every answer, or without one when the stream broke off. Closing the iterator, or
    cancelling the task that reads it, closes the connection at once.

    Raises
    ------
    LLMError
        Of the classes in `llm_magic.errors` only; what came before has been yielded.

    """
    body = call.body()
    call.check_headers()
    watched: Watch | None = None
    try:
        answer = Answer(call.capabilities.api, call.request)
        async with Opening(call, body) as opening:
            watched = opening.watch
            async with aclosing(opening.attempts()) as news:
                async for attempts in news:
                    yield attempts
            connection = opening.connection
            yield [_opened(connection)]
            async with aclosing(connection.chunks()) as chunks, aclosing(_read(call, chunks, answer)) as batches:
                async for batch in batches:
                    yield batch
        if answer.fault is not None:
            raise answer.fault  # noqa: TRY301 - translated below, with everything else
        if not answer.answered:
            raise ProtocolError(  # noqa: TRY301 - likewise
                f"{call.origin} answered with nothing.", "Check base_url and --api.", origin=call.origin
            )
    except Exception as error:
        raise translate(error, call.origin, watched.secrets if watched else (), body) from error


def _opened(connection: Connection) -> Opened:
    headers = {name.lower(): value for name, value in connection.headers.items()}
    return Opened(connection.status, headers, request_id(headers))


async def _read(call: Call, chunks: AsyncIterator[bytes], answer: Answer) -> AsyncGenerator[list[Event]]:
    """Yield the events of the body, read by read, until it ends, breaks, or has nothing more to say."""
    seconds = call.seconds()
    loop = asyncio.get_running_loop()
    alive, since = 0, loop.time()
    while True:
        limit = seconds
        if answer.complete:
            limit = LINGER if seconds is None else min(seconds, LINGER)
        try:
            async with asyncio.timeout_at(None if limit is None else since + limit):
                chunk = await anext(chunks, None)
        except TimeoutError as error:
            if answer.complete:
                return
            raise TimedOutError(
                f"{call.origin} fell silent: nothing whole came for {seconds:g} s.",
                "Allow more with --timeout SECONDS, or ask again.",
                origin=call.origin,
            ) from error
        except Exception as error:
            batch = answer.close()
            if batch:
                yield batch
            if answer.answered or answer.fault is not None:
                return  # broken off: what came stands, and has no finish reason
            raise translate(error, call.origin) from error
        batch = answer.close() if chunk is None else answer.feed(chunk)
        if batch:
            yield batch
        if chunk is None or answer.fault is not None:
            return
        if answer.done:
            with suppress(Exception):
                async with asyncio.timeout(DRAIN):
                    while await anext(chunks, None) is not None:
                        pass
            yield answer.close()
            return
        if answer.alive != alive:
            alive, since = answer.alive, loop.time()
