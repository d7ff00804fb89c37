"""The dry run: the exact request as it would be sent, caught before the wire, secrets masked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llm_magic.errors import UnsupportedError
from llm_magic.wire.attempts import WATCH, hook, watch
from llm_magic.wire.documents import parse
from llm_magic.wire.errors import translate
from llm_magic.wire.secrets import masked_headers, masked_url, secrets_of
from llm_magic.wire.transport import is_sync, post
from llm_magic.wire.watch import Halt

if TYPE_CHECKING:
    from llm_magic.wire.call import Call

_HIDDEN = "hidden-in-a-dry-run"


@dataclass(frozen=True, slots=True)
class Preview:
    """A request that was not sent: `headers` in the order of sending, secrets as `***`; `body` as JSON."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any


async def preview(call: Call) -> Preview:
    """Return the exact request of `call`; nothing leaves, and no token is asked for.

    Raises
    ------
    UnsupportedError
        An option that the endpoint cannot honour, or a client whose requests cannot be caught.

    """
    body = call.body()
    call.check_headers()
    client, secrets = call.client, (*secrets_of(call.client), *call.request.secrets)
    if not hook(client, sync=is_sync(client)):
        raise UnsupportedError(
            f"The client of {call.origin} cannot be stopped before it sends, so --dry-run cannot show its request.",
            "Leave --dry-run out, or give the provider an OpenAI client.",
        )
    watched = watch(client, call.origin, 0, lambda _: None, preview=True)
    token = WATCH.set(watched)
    try:
        await _stopped(call, body)
    except Exception as error:
        raise translate(error, call.origin, secrets, body) from error
    finally:
        WATCH.reset(token)
    request = watched.captured
    return Preview(
        str(request.method),
        masked_url(str(request.url), secrets),
        masked_headers(dict(request.headers), (*secrets, _HIDDEN)),
        parse(bytes(request.content)),
    )


async def _stopped(call: Call, body: dict[str, Any]) -> None:
    hidden = replace(call, client=_without_tokens(call.client))
    with suppress(Halt):
        await post(hidden, body)
        raise AssertionError("a dry run was sent")  # the hook stops every request of this task


def _without_tokens(client: Any) -> Any:
    """Return the client, or a copy that asks no callable for a key or token but holds a mark in their place."""
    known: dict[str, Any] = {}
    if getattr(client, "_api_key_provider", None) is not None:
        known["api_key"] = _HIDDEN
    if getattr(client, "_azure_ad_token_provider", None) is not None:
        known["azure_ad_token_provider"] = lambda: _HIDDEN
    return client.copy(**known) if known else client
