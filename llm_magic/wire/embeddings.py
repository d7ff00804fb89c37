"""The Embeddings API: texts in, vectors out, in the order of the texts."""

from __future__ import annotations

import math
import struct
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llm_magic.errors import Origin, ProtocolError
from llm_magic.events import Attempt, Usage
from llm_magic.secrets import Secret, reveal
from llm_magic.wire.attempts import HttpRequest, Renew, fetch
from llm_magic.wire.documents import ErrorDocument, error_in, read_usage
from llm_magic.wire.errors import translate
from llm_magic.wire.headers import check_headers, response_cost

if TYPE_CHECKING:
    from openai import AsyncOpenAI


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of floats, one for each input and in their order, and what the server said beside them.

    `cost` is in US dollars, where the endpoint itself reports it.
    """

    vectors: list[list[float]]
    usage: Usage | None
    model_reported: str
    cost: float | None = None
    """In US dollars, where the endpoint reports it."""
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)
    request_id: str | None = field(default=None, compare=False)


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
    renew: Renew | None = None,
) -> Embedded:
    """Return the embeddings of `inputs`, in one request.

    `inputs` are texts, at least one; `extra` are further fields of the body, such as `dimensions`;
    `announce` is called with each HTTP request when it has ended, failed ones included; `secrets`
    and `renew` are as of `Call`, and so are the others.

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
        renew=renew,
    )
    fetched = await fetch(request, announce)
    if isinstance(fetched.document, str) and not fetched.document.strip():
        raise ProtocolError(f"{origin} answered with nothing.", "Check base_url.", origin=origin)
    read = read_embeddings(fetched.document, len(inputs), request.body or {}, origin, request.known_secrets)
    cost = response_cost(fetched.headers) if read.cost is None else read.cost
    return replace(read, cost=cost, headers=fetched.headers, request_id=fetched.request_id)


def read_embeddings(
    document: Any, expected: int, asked: Mapping[str, Any], origin: Origin, known: Iterable[str] = ()
) -> Embedded:
    """Return the embeddings in a document that answered a request.

    Parameters
    ----------
    document
        Parsed JSON, or a text that is none.
    expected
        Number of inputs.
    asked
        The body of the request.
    origin
        What errors name.
    known
        Secrets to be masked.

    Raises
    ------
    LLMError
        It is no answer, or has not one vector of numbers for each input.

    """
    try:
        return _read(document, expected, asked)
    except ErrorDocument as fault:
        raise translate(fault, origin, tuple(known), dict(asked)) from None


def _read(document: Any, expected: int, asked: Mapping[str, Any]) -> Embedded:
    rows = document.get("data") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise ErrorDocument(document, malformed=not (isinstance(document, dict) and error_in(document)))
    if len(rows) != expected or not all(isinstance(row, dict) for row in rows):
        raise ErrorDocument(f"{len(rows)} vectors for {expected} inputs", malformed=True)
    report = next(iter(read_usage(document.get("usage"))), None)
    model = document.get("model")
    return Embedded(
        [_vector(row.get("embedding"), asked) for row in _in_order(rows)],
        None if report is None else report.usage,
        model if isinstance(model, str) else "",
        None if report is None else report.cost,
    )


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows by their `index`; as they came where it is missing, or the same one for all."""
    places = [row.get("index") for row in rows]
    known = [place for place in places if type(place) is int]
    if len(set(known)) == len(rows):
        return sorted(rows, key=lambda row: int(row["index"]))
    if len(set(map(str, places))) == 1:
        return rows
    raise ErrorDocument(f"vectors whose order is unknown: their index is {', '.join(map(str, places))}", malformed=True)


def _vector(value: Any, asked: Mapping[str, Any]) -> list[float]:
    if isinstance(value, str):
        return _unpacked(value, asked)
    if isinstance(value, list) and value and all(isinstance(inner, list) for inner in value):
        if len(value) > 1:  # llama.cpp without pooling
            raise ErrorDocument("a vector for every token, not for the text: the server pools none", malformed=True)
        value = value[0]
    if not isinstance(value, list) or not all(type(number) in (int, float) for number in value):
        raise ErrorDocument(value, malformed=True)
    return _finite(value)


def _finite(numbers: Sequence[float]) -> list[float]:
    try:
        vector = [float(number) for number in numbers]
    except OverflowError:
        vector = [math.inf]
    if not all(map(math.isfinite, vector)):
        raise ErrorDocument("a vector that holds NaN or an infinite number", malformed=True)
    return vector


_INT8, _UINT8, _BITS = frozenset({"int8", "base64_int8"}), frozenset({"uint8"}), frozenset({"binary", "ubinary"})
"""What requests of Voyage (`output_dtype`) and Perplexity (`encoding_format`) ask for in place of floats."""
_LARGEST_FLOAT = 1e6
"""No number of a vector is larger; whole numbers of one byte, read as floats, nearly always are."""


def _unpacked(value: str, asked: Mapping[str, Any]) -> list[float]:
    """Return the numbers in base64: little-endian 32-bit floats, or whole numbers of one byte.

    Perplexity sends the latter without being asked to. Then the length decides where it is known, else whether the
    bytes make any sense as floats.
    """
    try:
        packed = b64decode(value, validate=True)
    except ValueError:
        raise ErrorDocument(value, malformed=True) from None
    kinds = {str(asked.get("output_dtype")), str(asked.get("encoding_format"))}
    if any(kind.removeprefix("base64_") in _BITS for kind in kinds):
        raise ErrorDocument("bits that are packed, not numbers: ask for float or int8", malformed=True)
    if kinds & _UINT8:
        return [float(byte) for byte in packed]
    whole = not len(packed) % 4
    floats = struct.unpack(f"<{len(packed) // 4}f", packed) if whole else ()
    unasked = not kinds & {"base64", "float"}
    sized = asked.get("dimensions") == len(packed) or not all(abs(number) < _LARGEST_FLOAT for number in floats)
    if kinds & _INT8 or (unasked and (not whole or sized)):
        return [float(byte) for byte in struct.unpack(f"{len(packed)}b", packed)]
    if not whole:
        raise ErrorDocument(value, malformed=True)
    return _finite(floats)
