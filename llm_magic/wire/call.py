"""One request to a model: its JSON body, what happens when it is sent, and its dry run."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llm_magic.capabilities import Api, Capabilities
from llm_magic.errors import EmptyAnswerError, Origin, ProtocolError, TimedOutError, UnsupportedError
from llm_magic.events import Event, Opened
from llm_magic.request import Request
from llm_magic.secrets import Secret, hidden, hide, masked_headers, masked_url, reveal
from llm_magic.wire import chat, completions, logs, responses
from llm_magic.wire.attempts import HttpRequest, OpenAnswer, Renew, Wait, attempts
from llm_magic.wire.connection import Connection, Patience
from llm_magic.wire.documents import BrokenOff, ErrorDocument, parse
from llm_magic.wire.error_body import one_line
from llm_magic.wire.errors import cause_of, class_names, is_malformed, translate
from llm_magic.wire.headers import check_headers, response_cost, sent_with
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
        Seconds for connecting, for the headers of the answer, and then of silence; None takes the
        client's. A server that only keeps the line open (comments, empty deltas, single bytes) is
        given up after three times as long without anything that says something (`Patience`).
    max_retries
        Further attempts after a failure; None takes the client's.
    secrets
        What the provider resolved for the client, for nothing to show it.
    renew
        Asked for other credentials where these were refused, as of `HttpRequest`.

    """

    client: AsyncOpenAI
    origin: Origin
    capabilities: Capabilities
    request: Request
    timeout: float | None = None
    max_retries: int | None = None
    secrets: tuple[Secret, ...] = ()
    renew: Renew | None = None
    content: bytes | None = None
    """The JSON body as it is sent, where that is not what `request` says: another row's."""

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
            renew=self.renew,
            content=self.content,
        )


class AnswerBody(OpenAnswer, Protocol):
    """An open answer whose body is taken as it arrives."""

    async def take(self) -> bytes | None:
        """Return what has arrived; None at the end. May be cancelled and called again."""


async def exchange(call: Call, wait: Wait = asyncio.sleep) -> AsyncGenerator[list[Event], None]:
    """Send the request and yield what happens, a list of all events that have arrived each time.

    Failed attempts come as they happen, then `Attempt` (status 200) and `Opened`, then the answer.
    It ends after `Finished` for every answer. One that breaks off before anything of it was shown is
    a failed attempt, too, and repeated; nothing of it is yielded but its attempt. Closing the
    iterator, or cancelling the task that reads it, closes the connection at once. `wait` is awaited before a further
    attempt.

    Raises
    ------
    LLMError
        Of the classes in `llm_magic.errors` only; what came before has been yielded.
        `IncompleteAnswerError`: the answer broke off. `EmptyAnswerError`: it is no text, call or
        item.

    """
    request = call.http_request()
    connection: Connection | None = None
    held: list[Event] = []  # of an answer of which nothing was shown yet
    try:
        async with aclosing(attempts(request, wait)) as made:
            async for attempt, opened in made:
                connection = opened or connection
                if opened is None:
                    yield [*held, attempt] if attempt.final else [attempt]
                    held = []
                    continue
                yield [attempt]
                yield [Opened(opened.status, opened.headers, attempt.request_id, response_cost(opened.headers))]
                answer = Answer(call.capabilities.api, call.request)
                try:
                    async with aclosing(read(call.origin, request.seconds, opened, answer)) as batches:
                        async for batch in batches:
                            if answer.shown:
                                yield [*held, *batch] if held else batch
                                held = []
                            else:
                                held += batch
                    judge(call.origin, answer, opened)
                except Exception:
                    if held:
                        yield held
                    raise
                if opened.broken is None and held:
                    yield held
    except Exception as error:  # noqa: BLE001 - translated
        known = request.known_secrets if connection is None else connection.secrets
        ours = translate(error, call.origin, known, request.body, request.proxy)
        raise ours from cause_of(ours, error)
    finally:
        if connection is not None:
            await connection.close()


def judge(origin: Origin, answer: Answer, connection: OpenAnswer) -> None:
    """Raise what is wrong with an answer that has ended; one that broke off is marked on its connection."""
    if answer.fault is not None:
        raise answer.fault
    nothing = not answer.reader.answered and not answer.shown
    if nothing and answer.events == 0 and connection.broken is None and answer.is_foreign:
        raise ErrorDocument(answer.first.decode("utf-8", "replace"), malformed=True)
    is_stream = answer.events or connection.headers.get("content-type", "").startswith("text/event-stream")
    if not answer.whole and (connection.broken is not None or not nothing or is_stream):
        why = connection.broken or "it ended with no finish reason and no end mark"
        broken = BrokenOff(str(why), answer.during)
        broken.__cause__ = connection.broken
        connection.broken = _nothing(origin, answer, connection) if nothing and connection.broken is None else broken
        connection.repeatable = not answer.shown
        return
    if nothing:
        raise _nothing(origin, answer, connection)
    cut = {"length", "content_filter", "refusal"}.intersection(answer.reasons)
    if not answer.said and not answer.reader.others and not cut:
        raise _empty(origin, answer)


def _nothing(origin: Origin, answer: Answer, connection: OpenAnswer) -> ProtocolError:
    """Return the error for what is no answer, nor an error: its beginning, where anything came."""
    began = one_line(hide(answer.first.decode("utf-8", "replace"), connection.secrets), 100)
    but = f" but {began}" if began else ""
    return ProtocolError(f"{origin} answered with nothing{but}.", "Check base_url and --api.", origin=origin)


def _empty(origin: Origin, answer: Answer) -> EmptyAnswerError:
    """Return the error for an answer that is none, with what came in its place."""
    status = getattr(answer.reader, "status", "")
    if status:
        return EmptyAnswerError(f"{origin} gave no answer yet: its response is {status}.", "Ask without `background`.")
    used = answer.usage
    if answer.shown or (used is not None and used.reasoning_tokens):
        spent = f"all of its {used.output_tokens:,} tokens" if used is not None and used.output_tokens else "all of it"
        return EmptyAnswerError(
            f"{origin} gave reasoning and no answer: {spent} went into its reasoning.",
            "Ask again: --max-tokens N allows more, --reasoning-effort low asks for less reasoning.",
        )
    counted = f", {used.input_tokens:,} tokens in and {used.output_tokens:,} out" if used is not None else ""
    reason = answer.reasons[0] if answer.reasons else "none"
    return EmptyAnswerError(
        f"{origin} gave an empty answer: no text and no call came (finish reason {reason}{counted}).",
        "Ask again, or reword the prompt; --dry-run shows what is sent.",
    )


async def read(
    origin: Origin, seconds: float | None, connection: AnswerBody, answer: Answer
) -> AsyncGenerator[list[Event]]:
    """Yield the events as they arrive, until the body ends, breaks, or has nothing more to say."""
    loop = asyncio.get_running_loop()
    patience, progress, completed = Patience(seconds), 0, 0.0
    while True:
        ends = patience.ends
        if answer.reader.complete:
            completed = completed or loop.time()
            ends = min(completed + LINGER, ends or float("inf"))
        try:
            async with asyncio.timeout_at(ends):
                data = await connection.take()
        except Exception as error:
            if isinstance(error, TimeoutError) and answer.reader.complete:
                yield answer.close()
                return
            if not answer.reader.complete and class_names(error) & {"TimeoutError", "TimeoutException"}:
                yield answer.close(lost=True)
                raise TimedOutError(
                    f"{origin} fell silent: {patience.words()}.",
                    "Allow more with --timeout SECONDS, or ask again.",
                    origin=origin,
                ) from error
            yield answer.close(lost=True)
            if "DecodingError" in class_names(error) and not answer.whole and not answer.shown:
                raise
            if not answer.whole:
                connection.broken = BrokenOff(_lost(error))
                connection.broken.__cause__ = error
            return
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
        patience.hear(progress=answer.progress != progress)
        progress = answer.progress


def _lost(error: Exception) -> str:
    """Return in words why an answer ended."""
    if "DecodingError" in class_names(error):
        return "what followed cannot be decompressed"
    return "what followed is no HTTP" if is_malformed(error) else "the connection was lost"


@dataclass(frozen=True, slots=True)
class Preview:
    """A request that was not sent: headers in their order, secrets as `***`; the body as JSON.

    `added` are the names of those headers that the SDK and its HTTP client add by themselves; `notes` is what the user
    should know of it, a line each.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any
    added: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    estimate: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request will take, roughly: tokens of the prompt, and of the answer at most; US dollars for both.

    None where nothing bounds the answer (`most`, `cost_at_most`), or no price is known.
    """

    tokens: int
    most: int | None = None
    cost: float | None = None
    cost_at_most: float | None = None


class _Stopped(Exception):  # noqa: N818 - ends a dry run, is no fault
    """The request has been built, and is not sent."""


HIDDEN = "hidden-in-a-dry-run"
"""Stands where a function would be asked for a key or token."""


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
        caught = await catch(request, hooks["request"])
    except Exception as error:  # noqa: BLE001 - translated
        ours = translate(error, call.origin, request.known_secrets, request.body)
        raise ours from cause_of(ours, error)
    known = (*request.known_secrets, *sent_with(caught), HIDDEN)
    named = {name.lower() for name in (*call.request.headers, *getattr(call.client, "_custom_headers", ()))}
    return Preview(
        str(caught.method),
        masked_url(str(caught.url), known),
        masked_headers(dict(caught.headers), known) | _missing(caught.headers),
        hidden(parse(bytes(caught.content)), known),
        frozenset(name for name in caught.headers if _ADDED.fullmatch(name) and name.lower() not in named),
    )


_ADDED = re.compile(r"accept|accept-.*|connection|content-(type|length)|host|user-agent|x-stainless-.*", re.IGNORECASE)


_NOT_SET = re.compile(r"(?:[A-Za-z]+ )?env:[^\s()]+ \(not set\)")


def _missing(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that say in words which variable is not set: those hold no secret."""
    return {name: value for name, value in headers.items() if _NOT_SET.fullmatch(value)}


async def catch(request: HttpRequest, hooks: list[Any]) -> Any:
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
    """Return the client, or one just like it with a mark where a callable would be asked for a key or token."""
    asked = [name for name in _ASKED if getattr(client, name, None) is not None]
    if not asked:
        return client
    alike = copy(client)  # not the SDK's own copy, which would read the environment once more
    for name in asked:
        if name == "_api_key_provider":
            alike.api_key, alike._api_key_provider = HIDDEN, None  # noqa: SLF001 - the SDK has no other way
        else:
            setattr(alike, name, lambda: HIDDEN)
    return alike


_ASKED = ("_api_key_provider", "_azure_ad_token_provider")
