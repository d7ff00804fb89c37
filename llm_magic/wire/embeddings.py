"""The Embeddings API: texts in, vectors out, in the order of the texts."""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llm_magic.errors import Origin
from llm_magic.events import Attempt, Usage
from llm_magic.secrets import Secret, reveal
from llm_magic.wire.attempts import HttpRequest, fetch
from llm_magic.wire.documents import ErrorDocument, error_in, read_usage
from llm_magic.wire.errors import translate
from llm_magic.wire.headers import check_headers, response_cost

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of floats, one for each input and in their order, and what the server counted."""

    vectors: list[list[float]]
    usage: Usage | None
    model_reported: str
    cost: float | None = None
    """In US dollars, where the endpoint reports it."""


async def embed(
    client: AsyncOpenAI,
    origin: Origin,
    model: str,
    inputs: Sequence[str],
    *,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - handed to the SDK, which applies it to each attempt
    max_retries: int | None = None,
    announce: Callable[[Attempt], None] = lambda _: None,
    secrets: tuple[Secret, ...] = (),
) -> Embedded:
    """Return the embeddings of `inputs`, in one request.

    `inputs` are texts, at least one; `extra` are further fields of the body, such as `dimensions`;
    `announce` is called with each HTTP request when it has ended, failed ones included; `secrets`
    are as of `Call`, and so are the others.

    Raises
    ------
    LLMError
        Of the classes in `llm_magic.errors` only.

    """
    check_headers(reveal(headers or {}))
    request = HttpRequest(
        client,
        origin,
        "/embeddings",
        {"model": model, "input": list(inputs), **(extra or {})},
        headers or {},
        timeout=timeout,
        max_retries=max_retries,
        secrets=secrets,
    )
    costs: list[float | None] = []
    document = await fetch(request, announce, lambda answered: costs.append(response_cost(answered)))
    try:
        found = _read(document, len(inputs))
        return found if found.cost is not None else replace(found, cost=costs[-1])
    except ErrorDocument as fault:
        raise translate(fault, origin, request.known_secrets, request.body) from None


def _read(document: Any, expected: int) -> Embedded:
    rows = document.get("data") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise ErrorDocument(document, malformed=not (isinstance(document, dict) and error_in(document)))
    if len(rows) != expected or not all(isinstance(row, dict) for row in rows):
        raise ErrorDocument(f"{len(rows)} vectors for {expected} inputs", malformed=True)
    places = [row["index"] if isinstance(row.get("index"), int) else place for place, row in enumerate(rows)]
    ordered = [row for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])]
    report = next(iter(read_usage(document.get("usage"))), None)
    model = document.get("model")
    vectors = [_vector(row.get("embedding")) for row in ordered]
    usage, cost = (None, None) if report is None else (report.usage, report.cost)
    return Embedded(vectors, usage, model if isinstance(model, str) else "", cost)


def _vector(value: Any) -> list[float]:
    if isinstance(value, str):  # base64 of little-endian 32-bit floats
        try:
            packed = b64decode(value, validate=True)
            return list(struct.unpack(f"<{len(packed) // 4}f", packed))
        except (ValueError, struct.error):
            raise ErrorDocument(value, malformed=True) from None
    if isinstance(value, list) and value and isinstance(value[0], list):  # llama.cpp without pooling: one per token
        raise ErrorDocument("a vector for every token, not for the text: the server pools none", malformed=True)
    if not isinstance(value, list) or not all(isinstance(number, int | float) for number in value):
        raise ErrorDocument(value, malformed=True)
    return [float(number) for number in value]
