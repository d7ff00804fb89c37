"""The models that an endpoint lists, all pages, as the server writes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from llm_magic.errors import Origin, ProtocolError
from llm_magic.wire.documents import ErrorDocument, error_in
from llm_magic.wire.errors import translate
from llm_magic.wire.secrets import secrets_of
from llm_magic.wire.transport import is_sync
from llm_magic.wire.watched import watched

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_PAGES = 100


async def list_models(
    client: AsyncOpenAI,
    origin: Origin,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - handed to the SDK, which applies it to each attempt
    max_retries: int | None = None,
) -> list[dict[str, Any]]:
    """Return the cards of `GET /models`, of all pages.

    Parameters
    ----------
    client, origin
        As for `Call`.
    timeout
        Seconds for each page; None takes the client's.
    max_retries
        Further attempts after a failure; None takes the client's.

    Raises
    ------
    ProviderError
        The endpoint cannot be reached, refuses, or answers with something else than a list of models.

    """
    cards: list[dict[str, Any]] = []
    after: str | None = None
    for _ in range(_PAGES):
        page = await _page(client, origin, after, timeout, max_retries)
        data = page.get("data")
        if data is None and isinstance(page.get("models"), list):
            data = page["models"]
        if not isinstance(data, list):
            fault = ErrorDocument(page, malformed=not error_in(page))
            raise translate(fault, origin, secrets_of(client))
        new = [card if isinstance(card, dict) else {"id": str(card)} for card in data]
        cards.extend(new)
        last = page.get("last_id") or (new[-1].get("id") if new else None)
        if not page.get("has_more") or not new or last in (None, after):
            return cards
        after = str(last)
    return cards


async def _page(
    client: Any, origin: Origin, after: str | None, seconds: float | None, max_retries: int | None
) -> dict[str, Any]:
    options: dict[str, Any] = {"security": {"bearer_auth": True}}
    if after is not None:
        options["params"] = {"after": after}
    if seconds is not None:
        options["timeout"] = seconds
    if max_retries is not None:
        options["max_retries"] = max_retries

    async def get() -> Any:
        if is_sync(client):
            return await asyncio.to_thread(client.get, "/models", cast_to=object, options=options)
        return await client.get("/models", cast_to=object, options=options)

    page = await watched(client, origin, max_retries, get)
    if isinstance(page, dict):
        return page
    if isinstance(page, list):
        return {"data": page}
    said = page if isinstance(page, str) else repr(page)
    if said.lstrip().startswith("<"):
        raise translate(ErrorDocument(said), origin)
    raise ProtocolError(
        f"{origin} lists no models: it answered {said[:80]!r}.",
        "Check base_url: it usually ends in /v1.",
        origin=origin,
    )
