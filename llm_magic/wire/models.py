"""The models that an endpoint lists, all pages, as the server writes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magic.errors import LLMError, Origin, ProtocolError
from llm_magic.secrets import Secret, hidden
from llm_magic.wire.attempts import HttpRequest, Renew, fetch
from llm_magic.wire.documents import ErrorDocument, error_in
from llm_magic.wire.errors import translate

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_PAGES = 100


async def list_models(
    client: AsyncOpenAI,
    origin: Origin,
    *,
    timeout: float | None = None,  # noqa: ASYNC109 - handed to the SDK, which applies it to each attempt
    max_retries: int | None = None,
    secrets: tuple[Secret, ...] = (),
    renew: Renew | None = None,
) -> list[dict[str, Any]]:
    """Return the cards of `GET /models`, of all pages.

    `timeout`, in seconds, is that of each page; the parameters are as of `Call`.

    Raises
    ------
    ProviderError
        The endpoint cannot be reached, refuses, or answers with something else than a list of
        models.

    """
    request = HttpRequest(
        client, origin, "/models", timeout=timeout, max_retries=max_retries, secrets=secrets, renew=renew
    )
    cards: list[dict[str, Any]] = []
    after: str | None = None
    for _ in range(_PAGES):
        page = (await fetch(request if after is None else replace(request, params={"after": after}))).document
        if not isinstance(page, dict | list):
            raise _no_list(page, request)
        page = page if isinstance(page, dict) else {"data": page}
        data = page.get("data")
        data = page.get("models") if data is None else data
        if not isinstance(data, list):
            raise translate(ErrorDocument(page, malformed=not error_in(page)), origin, request.known_secrets)
        new = [card if isinstance(card, dict) else {"id": str(card)} for card in data]
        cards.extend(new)
        last = page.get("last_id") or (new[-1].get("id") if new else None)
        if not page.get("has_more") or not new or last in (None, after):
            return list(hidden(cards, request.known_secrets))
        after = str(last)
    return cards


def _no_list(page: object, request: HttpRequest) -> LLMError:
    page = hidden(page, request.known_secrets)
    said = page if isinstance(page, str) else repr(page)
    if said.lstrip().startswith("<"):
        return translate(ErrorDocument(said), request.origin)
    return ProtocolError(
        f"{request.origin} lists no models: it answered {said[:80]!r}.",
        "Check base_url: it usually ends in /v1.",
        origin=request.origin,
    )
