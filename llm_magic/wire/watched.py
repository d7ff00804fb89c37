"""A call of the SDK that gives one document, with its attempts watched and its errors ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from llm_magic.errors import EndpointNotFoundError, LLMError, Origin
from llm_magic.events import Attempt
from llm_magic.wire.attempts import WATCH, hook, watch
from llm_magic.wire.errors import Unconnected, translate
from llm_magic.wire.secrets import masked_url
from llm_magic.wire.transport import is_sync
from llm_magic.wire.watch import Halt, Watch


async def watched(
    client: Any,
    origin: Origin,
    max_retries: int | None,
    work: Callable[[], Awaitable[Any]],
    body: Any = None,
    *,
    announce: Callable[[Attempt], None] = lambda _: None,
    secrets: tuple[str, ...] = (),
) -> Any:
    """Return what `work`, a call over `client`, returns; permanent failures are not repeated.

    `announce` hears of each attempt; `secrets` are masked in errors, besides those of the client.

    Raises
    ------
    LLMError
        Of the classes in `llm_magic.errors` only.

    """
    hook(client, sync=is_sync(client))
    seen = watch(client, origin, max_retries, announce)
    seen.secrets += secrets
    token = WATCH.set(seen)
    try:
        return await work()
    except Halt:
        raise halted(seen) from seen.cause
    except Exception as error:
        raise translate(error, origin, seen.secrets, body) from error
    finally:
        WATCH.reset(token)


def halted(watch: Watch) -> LLMError:
    """Return the error for a request that a hook has ended: no attempt could succeed, or it was sent elsewhere."""
    if watch.cause is not None:
        return translate(Unconnected(watch.cause), watch.origin, watch.secrets)
    return EndpointNotFoundError(
        f"{watch.origin} redirects to {masked_url(watch.redirect)}.",
        "Set base_url to where the API really is.",
        origin=watch.origin,
    )
