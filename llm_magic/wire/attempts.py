"""Every HTTP attempt is seen, permanent failures are not repeated, and a dry run stops before the wire.

The SDK retries by itself and tells nobody. Hooks of its HTTP client see each attempt; what they find goes to
the `Watch` of the call that runs, which they know from a context variable. Without a `Watch` they do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

from llm_magic.errors import Origin
from llm_magic.events import Attempt
from llm_magic.wire.secrets import secrets_of
from llm_magic.wire.watch import Watch

WATCH: ContextVar[Watch | None] = ContextVar("llm_magic_watch", default=None)


async def _on_request(request: Any) -> None:
    watch = WATCH.get()
    if watch is None:
        return
    watch.began(request)
    before = request.extensions.get("trace")

    async def trace(step: str, info: Any) -> None:
        watch.failed(step, info)
        if before is not None:
            await before(step, info)

    request.extensions["trace"] = trace


async def _on_response(response: Any) -> None:
    watch = WATCH.get()
    if watch is None:
        return
    if _is_redirect(response):
        watch.redirected(response)
        return
    watch.answered(response, await response.aread() if response.status_code >= HTTPStatus.BAD_REQUEST else b"")


def _on_request_sync(request: Any) -> None:
    watch = WATCH.get()
    if watch is None:
        return
    watch.began(request)
    before = request.extensions.get("trace")

    def trace(step: str, info: Any) -> None:
        watch.failed(step, info)
        if before is not None:
            before(step, info)

    request.extensions["trace"] = trace


def _on_response_sync(response: Any) -> None:
    watch = WATCH.get()
    if watch is None:
        return
    if _is_redirect(response):
        watch.redirected(response)
        return
    watch.answered(response, response.read() if response.status_code >= HTTPStatus.BAD_REQUEST else b"")


def event_hooks(*, sync: bool = False) -> dict[str, list[Callable[[Any], Any]]]:
    """Return the hooks for an HTTP client's `event_hooks`; `sync` for a blocking one.

    >>> sorted(event_hooks())
    ['request', 'response']
    """
    if sync:
        return {"request": [_on_request_sync], "response": [_on_response_sync]}
    return {"request": [_on_request], "response": [_on_response]}


def hook(client: Any, *, sync: bool) -> bool:
    """Add the hooks to an SDK client that has been made elsewhere; return whether its calls can be watched."""
    inner = getattr(client, "_client", None)
    hooks = getattr(inner, "event_hooks", None)
    if not isinstance(hooks, dict):
        return False
    ours = event_hooks(sync=sync)
    if all(ours[kind][0] in hooks.get(kind, []) for kind in ours):
        return True
    try:
        inner.event_hooks = {kind: [*hooks.get(kind, []), *ours[kind]] for kind in ours}  # type: ignore[union-attr]  # checked above
    except AttributeError:
        return False
    return True


def watch(
    client: Any, origin: Origin, max_retries: int | None, announce: Callable[[Attempt], None], **known: Any
) -> Watch:
    """Return the `Watch` of one call over `client`."""
    retries = getattr(client, "max_retries", 0) if max_retries is None else max_retries
    return Watch(origin, int(retries), announce, secrets_of(client), **known)


def _is_redirect(response: Any) -> bool:
    return (
        HTTPStatus.MULTIPLE_CHOICES <= response.status_code < HTTPStatus.BAD_REQUEST and "location" in response.headers
    )
