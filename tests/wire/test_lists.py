"""Models and embeddings: one document each, from servers that write it differently."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import struct
from typing import Any

import pytest
from asking import KEY, client
from servers import RESET, Answer, ScriptedServer, document, page

from llm_magic import errors
from llm_magic.errors import Origin
from llm_magic.events import Attempt, Usage
from llm_magic.wire.embeddings import Embedded, embed
from llm_magic.wire.models import list_models


def models(server: ScriptedServer, made: Any = None, **known: Any) -> list[dict[str, Any]]:
    async def run() -> list[dict[str, Any]]:
        asked = made or client(server.url)
        try:
            return await list_models(asked, Origin("there", "", server.url), **known)
        finally:
            closing = asked.close()
            if closing is not None:
                await closing

    return asyncio.run(run())


def vectors(server: ScriptedServer, inputs: list[str], made: Any = None, **known: Any) -> Embedded:
    async def run() -> Embedded:
        asked = made or client(server.url)
        try:
            return await embed(asked, Origin("there", "m", server.url), "m", inputs, **known)
        finally:
            closing = asked.close()
            if closing is not None:
                await closing

    return asyncio.run(run())


@pytest.mark.parametrize("sync", [False, True])
def test_all_pages(sync: bool) -> None:
    from openai import OpenAI

    first = document({"object": "list", "data": [{"id": "a"}, {"id": "b"}], "has_more": True})
    second = document({"object": "list", "data": [{"id": "c", "max_model_len": 4096}], "has_more": False})
    with ScriptedServer(first, second) as server:
        cards = models(server, OpenAI(base_url=server.url, api_key=KEY) if sync else None)
    assert cards == [{"id": "a"}, {"id": "b"}, {"id": "c", "max_model_len": 4096}]
    assert [received.path for received in server.requests] == ["/v1/models", "/v1/models?after=b"]


def test_pages_that_never_end_are_left() -> None:
    with ScriptedServer(document({"data": [{"id": "a"}], "has_more": True})) as server:
        assert models(server) == [{"id": "a"}, {"id": "a"}]


@pytest.mark.parametrize(
    "answer", [document([{"id": "a"}]), document({"models": [{"id": "a"}]}), document({"data": ["a"]})]
)
def test_other_shapes(answer: Answer) -> None:
    with ScriptedServer(answer) as server:
        assert models(server) == [{"id": "a"}]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (page("<html>hello</html>"), errors.ProtocolError),
        (document({"hello": 1}), errors.ProtocolError),
        (document("text"), errors.ProtocolError),
        (document({"error": {"message": "no"}}), errors.ServerFailedError),
        (document({"error": "Unauthorized"}, 401), errors.AuthenticationError),
        (document({"detail": "Not Found"}, 404), errors.EndpointNotFoundError),
        (Answer([], 302, {"location": "https://elsewhere.example/"}), errors.EndpointNotFoundError),
    ],
)
def test_no_list(answer: Answer, kind: type[Exception]) -> None:
    with ScriptedServer(answer) as server, pytest.raises(kind):
        models(server, max_retries=0)


def row(index: int, *numbers: float) -> dict[str, Any]:
    return {"index": index, "embedding": list(numbers)}


@pytest.mark.parametrize("sync", [False, True])
def test_embeddings_in_the_order_of_the_inputs(sync: bool) -> None:
    from openai import OpenAI

    answer = document({"data": [row(1, 3, 4), row(0, 1, 2)], "model": "em", "usage": {"prompt_tokens": 5}})
    with ScriptedServer(answer) as server:
        made = OpenAI(base_url=server.url, api_key=KEY) if sync else None
        found = vectors(server, ["x", "y"], made, extra={"dimensions": 2}, headers={"X-A": "1"})
    assert found == Embedded([[1.0, 2.0], [3.0, 4.0]], Usage(5), "em")
    received = server.requests[0]
    assert (received.path, received.headers["x-a"]) == ("/v1/embeddings", "1")
    assert received.json == {"model": "m", "input": ["x", "y"], "dimensions": 2}


def test_embeddings_in_base64() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    with ScriptedServer(document({"data": [{"index": 0, "embedding": packed}]})) as server:
        assert vectors(server, ["x"]) == Embedded([[0.5, -2.0]], None, "")


def base64_of(packed: bytes) -> Answer:
    return document({"data": [{"index": 0, "embedding": base64.b64encode(packed).decode()}]})


FLOATS = struct.pack("<2f", 0.5, -2.0)
WILD = bytes([130, 7, 200, 126, 255, 0, 127, 128])
"""Whole numbers of one byte: as floats they are larger than any number of a vector."""


@pytest.mark.parametrize(
    ("packed", "extra", "expected"),
    [
        (WILD, {}, [-126, 7, -56, 126, -1, 0, 127, -128]),  # Perplexity sends them without being asked
        (WILD[:3], {}, [-126, 7, -56]),
        (bytes(8), {"dimensions": 8}, [0] * 8),
        (bytes(8), {"dimensions": 2}, [0] * 2),
        (FLOATS, {"encoding_format": "base64_int8"}, [0, 0, 0, 63, 0, 0, 0, -64]),
        (FLOATS, {"encoding_format": "base64", "output_dtype": "int8"}, [0, 0, 0, 63, 0, 0, 0, -64]),
        (FLOATS, {"encoding_format": "base64", "output_dtype": "uint8"}, [0, 0, 0, 63, 0, 0, 0, 192]),
        (FLOATS, {"encoding_format": "base64", "output_dtype": None}, [0.5, -2.0]),
        (FLOATS, {"encoding_format": "base64"}, [0.5, -2.0]),
        (FLOATS, {}, [0.5, -2.0]),
    ],
)  # fmt: skip
def test_what_base64_holds(packed: bytes, extra: dict[str, Any], expected: list[float]) -> None:
    with ScriptedServer(base64_of(packed)) as server:
        assert vectors(server, ["x"], extra=extra).vectors == [expected]


@pytest.mark.parametrize(
    ("packed", "extra", "said"),
    [
        (WILD[:3], {"encoding_format": "base64"}, "sent what is no answer of this API: ggfI"),
        (WILD, {"encoding_format": "base64_binary"}, "bits that are packed, not numbers: ask for float or int8"),
        (
            struct.pack("<2f", 1, math.nan),
            {"encoding_format": "base64"},
            "a vector that holds NaN or an infinite number",
        ),
    ],
)
def test_base64_that_holds_no_vector(packed: bytes, extra: dict[str, Any], said: str) -> None:
    with ScriptedServer(base64_of(packed)) as server, pytest.raises(errors.ProtocolError, match=re.escape(said)):
        vectors(server, ["x"], extra=extra)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"embedding": [1]}, {"embedding": [2]}], [[1], [2]]),
        ([{"embedding": [1], "index": None}, {"embedding": [2], "index": None}], [[1], [2]]),
        ([{"embedding": [1], "index": 0}, {"embedding": [2], "index": 0}], [[1], [2]]),
        ([{"embedding": [2], "index": 2}, {"embedding": [1], "index": 1}], [[1], [2]]),
        ([{"embedding": [[1]], "index": 0}, {"embedding": [[2]], "index": 1}], [[1], [2]]),  # one vector in a list
    ],
)
def test_rows_of_embeddings(rows: list[object], expected: list[list[float]]) -> None:
    with ScriptedServer(document({"data": rows})) as server:
        assert vectors(server, ["x", "y"]).vectors == expected


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (document({"data": [row(0, 1), {"embedding": [2]}]}), "whose order is unknown: their index is 0, None"),
        (document({"data": [{"embedding": [1]}]}), "1 vectors for 2 inputs"),
        (document({"data": [{"embedding": [1]}, 3]}), "2 vectors for 2 inputs"),
        (document({"data": [{"embedding": [math.nan]}, {"embedding": [1]}]}), "a vector that holds NaN"),
        (Answer([b'{"data": [{"embedding": [1e999]}, {"embedding": [1]}]}']), "an infinite number"),
        (document({"data": [{"embedding": [10**400]}, {"embedding": [1]}]}), "an infinite number"),
        (document({"data": [{"embedding": [True]}, {"embedding": [1]}]}), "no answer of this API: [True]"),
        (document({"data": [{"embedding": ["1"]}, {"embedding": [1]}]}), "no answer of this API: ['1']"),
        (document({"data": [{"embedding": None}, {"embedding": [1]}]}), "no answer of this API: None"),
        (document({"data": [{"embedding": [[1], [2]]}, {"embedding": [1]}]}), "a vector for every token"),
        (document({"data": [{}, {}]}), "no answer of this API: None"),
        (Answer([]), "answered with nothing."),
        (Answer([b"  \n"]), "answered with nothing."),
    ],
)  # fmt: skip
def test_embeddings_that_are_none(answer: Answer, said: str) -> None:
    with ScriptedServer(answer) as server, pytest.raises(errors.ProtocolError, match=re.escape(said)):
        vectors(server, ["x", "y"])


def test_what_comes_beside_embeddings() -> None:
    usage = {"total_tokens": 12, "cost": {"currency": "USD", "total_cost": 0.5}}
    body = json.dumps({"data": [row(0, 1)], "usage": usage}).encode()
    with ScriptedServer(
        Answer([body], headers={"X-Request-Id": "r1", "x-ratelimit-remaining-requests": "9"})
    ) as server:
        found = vectors(server, ["x"])  # of no content type
    assert (found.usage, found.cost, found.request_id) == (Usage(12), 0.5, "r1")
    assert found.headers["x-ratelimit-remaining-requests"] == "9"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (document({"data": [row(0, 1)]}), "1 vectors for 2 inputs"),
        (document({"data": [row(0, 1), {"index": 1, "embedding": None}]}), "no answer of this API"),
        (document({"data": [row(0, 1), {"index": 1, "embedding": [[1, 2], [3, 4]]}]}), "pools none"),
        (document({"data": [row(0, 1), {"index": 1, "embedding": "%%"}]}), "no answer of this API"),
        (document({"choices": []}), "no answer of this API"),
        (page("<html>"), "HTML page"),
    ],
)
def test_what_is_no_embedding(answer: Answer, words: str) -> None:
    with ScriptedServer(answer) as server, pytest.raises(errors.ProtocolError, match=words):
        vectors(server, ["x", "y"])


def test_a_bad_header_is_refused_before_sending() -> None:
    with ScriptedServer(document({})) as server:
        with pytest.raises(errors.OptionError):
            vectors(server, ["x"], headers={"a b": "c"})
        assert server.connections == 0


@pytest.mark.parametrize("sync", [False, True])
def test_a_document_that_breaks_off_is_asked_for_again(sync: bool) -> None:
    from openai import OpenAI

    broken = Answer([b'{"data": [', 0.02, RESET], headers={"content-type": "application/json"})
    told: list[Attempt] = []
    with ScriptedServer(broken, document({"data": [row(0, 1)]})) as server:
        made = OpenAI(base_url=server.url, api_key=KEY) if sync else None
        found = vectors(server, ["x"], made, max_retries=1, announce=told.append)
    assert found.vectors == [[1.0]]
    assert [(attempt.status, attempt.final) for attempt in told] == [(None, False), (200, True)]


def test_a_redirect_of_a_list_is_followed_at_home_only() -> None:
    with ScriptedServer(Answer([], 302, {"location": "/models?page=2"}), document({"data": [{"id": "a"}]})) as server:
        assert models(server) == [{"id": "a"}]
        assert [received.path for received in server.requests] == ["/v1/models", "/models?page=2"]
    with ScriptedServer(document({"data": []})) as other:
        away = Answer([], 302, {"location": f"{other.host}/v1/models"})
        with ScriptedServer(away) as server, pytest.raises(errors.EndpointNotFoundError, match=f"to {other.host}/v1"):
            models(server)
        assert other.connections == 0
