"""`%%llm_embed` and `llm.embed`: real servers for the vectors, scripted ones for order, failures and limits."""

import asyncio
import base64
import json
import re
import threading
import time
from collections.abc import Iterator

import pytest
from kernels import Kernel
from servers import HANG, Answer, Received, ScriptedServer, document
from shown import failed, plain

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.embeddings import Vectors, texts_of
from llm_magic.embeddings.run import AT_ONCE
from llm_magic.errors import (
    AuthenticationError,
    OptionError,
    PromptError,
    ProtocolError,
    ServerFailedError,
    UnsupportedError,
)
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

DOWN = document({"error": {"message": "overloaded"}}, status=503)


def vectors(request: Received) -> Answer:
    """Answer with a vector [number in the text, 1] for each text, in reverse order."""
    texts = request.json["input"]
    rows = [{"index": at, "embedding": [float(text.split()[-1]), 1.0]} for at, text in enumerate(texts)]
    usage = {"prompt_tokens": 2 * len(texts), "total_tokens": 2 * len(texts)}
    return document({"data": rows[::-1], "model": "served", "usage": usage})


def slow(request: Received) -> Answer:
    answer = vectors(request)
    return Answer([0.05, *answer.steps], answer.status, answer.headers)


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    api.activate(None)
    session.close()


@pytest.fixture
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE_KEY", "top-secret")


def numbered(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


def test_vectors_of_a_real_server(kernel: Kernel, llamacpp_embeddings_url: str) -> None:
    kernel.run(f"%llm_provider add emb --base-url {llamacpp_embeddings_url}").check()
    ran = kernel.run("%%llm_embed -m emb: -o found\nthe sea is blue\n\n  the sky is blue \nstocks fell\n")
    (said,) = plain(ran).splitlines()
    assert said.startswith("3 vectors of 576 dimensions · emb: · ")
    assert kernel.value("(isinstance(found, list), len(found), len(found[0]), type(found[0][0]).__name__)") == (
        True,
        3,
        576,
        "float",
    )
    kernel.run(
        "cosine = lambda a, b: sum(x * y for x, y in zip(a, b)) / (sum(x*x for x in a) * sum(y*y for y in b))**.5"
    )
    assert kernel.value("cosine(found[0], found[1]) > cosine(found[0], found[2])")
    kernel.run("from llm_magic import LLM\nagain = LLM('emb:').embed(['the sky is blue'])").check()
    assert kernel.value("max(abs(a - b) for a, b in zip(found[1], again[0])) < 1e-3")
    assert plain(kernel.run("%llm_usage")).splitlines()[1].split()[-5:-3] == ["2", "2"]


def test_an_array_of_an_expression(kernel: Kernel, llamacpp_embeddings_url: str) -> None:
    pytest.importorskip("numpy")
    kernel.run(f"%llm_provider add emb --base-url {llamacpp_embeddings_url}").check()
    kernel.run("docs = {'a': 'one', 'b': 'two'}").check()
    kernel.run("x = %llm_embed --each docs.values() -m emb: --as ndarray").check()
    assert kernel.value("(x.shape, str(x.dtype))") == ((2, 576), "float32")
    ran = kernel.run("%llm_embed --each [text.upper() for text in docs.values()] -m emb:")
    assert plain(ran).splitlines()[-1] == "<Vectors 2 × 576 of emb:>"


def test_the_embedded_model_embeds(kernel: Kernel) -> None:
    pytest.importorskip("xllamacpp", reason="needs the extra `local`")
    kernel.run("%%llm_embed -m local -o found\nhello").check()
    assert kernel.value("(len(found), len(found[0]))") == (1, 576)
    name, text = failed(kernel, "%llm_embed -m local --each ['word ' * 3000]")
    assert name == "ContextOverflowError"
    assert "Split the long texts: the longest one here has 15,000 characters." in text


def test_a_server_without_embeddings_is_named(kernel: Kernel, vllm_url: str, llamacpp_url: str) -> None:
    for command, cls in ((vllm_url, "vllm"), (llamacpp_url, "compatible")):
        kernel.run(f"%llm_provider add there --class {cls} --base-url {command}").check()
        name, text = failed(kernel, "%llm_embed -m there: --each ['a']")
        assert name == "EndpointNotFoundError"
        assert text.endswith("Ask a model that embeds (%llm_models there), and check base_url.")


def test_what_the_server_said_beside_the_vectors(session: Session) -> None:
    def counted(request: Received) -> Answer:
        answer = vectors(request)
        first = request.json["input"][0]
        return Answer(answer.steps, 200, {"x-request-id": f"id of {first}", "x-ratelimit-remaining-tokens": "90"})

    with ScriptedServer(counted) as server:
        session.registry.add("there", base_url=server.url)
        found = LLM("there:m").embed(numbered(3), batch=2)
    assert (found.request_id, found.rate_limits) == ("id of text 2", {"remaining-tokens": "90"})
    assert found.headers["x-request-id"] == "id of text 2"
    assert (Vectors().headers, Vectors().rate_limits, Vectors().request_id) == ({}, {}, None)


def test_the_cost_that_the_endpoint_reports(session: Session) -> None:
    def priced(request: Received) -> Answer:
        rows = [{"embedding": [1.0, 0.0]} for _ in request.json["input"]]
        return document({"data": rows, "usage": {"total_tokens": 3, "cost": 0.25}})

    with ScriptedServer(priced) as server:
        session.registry.add("there", base_url=server.url, prices={"m": {"input": 1000, "output": 0}})
        found = LLM("there:m").embed(numbered(3), batch=2)
    assert (found.cost, found.usage.input_tokens if found.usage else None) == (0.5, 6)


def test_bytes_that_a_server_sends_for_vectors_in_a_cell(kernel: Kernel) -> None:
    row = {"index": 0, "embedding": base64.b64encode(bytes([130, 7, 200, 126])).decode()}
    with ScriptedServer(document({"data": [row]}, headers={"x-request-id": "r1"})) as server:
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        kernel.run("%%llm_embed -m there:m -p encoding_format=base64_int8 -o found\nhello").check()
    assert kernel.value("(list(found), found.request_id)") == ([[-126.0, 7.0, -56.0, 126.0]], "r1")


def test_batches_go_a_few_at_once_and_come_back_in_order(session: Session) -> None:
    with ScriptedServer(slow) as server:
        session.registry.add("there", base_url=server.url, prices={"m": {"input": 1000, "output": 0}})
        found = LLM("there:m").embed(numbered(50), batch=4)
        sizes = sorted(len(request.json["input"]) for request in server.requests)
        assert server.connections == AT_ONCE
    assert [vector[0] for vector in found] == list(range(50))
    assert sizes == [2] + [4] * 12
    assert (found.dimensions, found.usage.input_tokens, found.model_reported, found.provider) == (
        2,
        100,
        "served",
        "there",
    )
    assert found.cost == pytest.approx(0.1)
    (row,) = session.ledger.rows()
    assert (row.provider, row.model, row.answers, row.requests, row.input_tokens) == ("there", "m", 1, 13, 100)
    assert row.cost == pytest.approx(0.1)


def test_what_is_sent(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADER", "from-the-environment")
    with ScriptedServer(vectors) as server:
        session.registry.aliases = {"small": {"model": "there:m", "param": {"user": "me"}}}
        session.registry.add("there", base_url=server.url)
        LLM("small").embed(["text 1"], dimensions=2, param={"encoding_format": "float"}, header={"X-A": "env:HEADER"})
        (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/embeddings")
    assert request.json == {
        "model": "m",
        "input": ["text 1"],
        "user": "me",
        "encoding_format": "float",
        "dimensions": 2,
    }
    assert request.headers["x-a"] == "from-the-environment"


def test_a_deployment_of_azure(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EU_KEY", "secret")
    with ScriptedServer(vectors) as server:
        session.registry.add(
            "eu", "azure", azure_endpoint=server.host, api_version="2024-10-21", api_key_env="EU_KEY",
            deployments={"mine": "text-embedding-3-small"},
        )  # fmt: skip
        LLM("eu:text-embedding-3-small").embed(["text 1"])
        (request,) = server.requests
    assert request.path == "/openai/deployments/mine/embeddings?api-version=2024-10-21"
    assert request.headers["api-key"] == "secret"


def test_the_model_for_embeddings_is_a_setting(session: Session) -> None:
    with ScriptedServer(vectors) as server:
        session.registry.add("there", base_url=server.url)
        session.settings.model = "there:chat"
        LLM().embed(["text 1"])
        session.settings.embedding_model = "there:embed"
        LLM().embed(["text 1"])
        assert [request.json["model"] for request in server.requests] == ["chat", "embed"]


def test_what_came_before_a_failure_is_not_paid_for_twice(session: Session) -> None:
    batches = AT_ONCE + 2
    texts = numbered(2 * batches)
    broken = True

    def last_fails(request: Received) -> Answer:  # which is asked for when two others have come
        return DOWN if broken and texts[-1] in request.json["input"] else vectors(request)

    with ScriptedServer(last_fails) as server:
        session.registry.add("there", base_url=server.url, max_retries=0)
        with pytest.raises(ServerFailedError) as caught:
            LLM("there:m").embed(texts, batch=2)
        kept = len(session.unfinished)
        assert 2 <= kept < batches
        assert caught.value.hint.endswith(
            f"{2 * kept} of {len(texts)} vectors came before and are kept for the next run."
        )
        broken = False
        found = LLM("there:m").embed(texts, batch=2, header={"X-Run": "second"})
        assert [request.headers.get("x-run") for request in server.requests].count("second") == batches - kept
    assert [vector[0] for vector in found] == list(range(len(texts)))
    assert session.unfinished == {}
    (row,) = session.ledger.rows()
    assert (row.failed, row.input_tokens) == (1, 2 * len(texts))


def test_no_text_means_no_request(session: Session) -> None:
    session.registry.add("there", base_url="http://127.0.0.1:9/v1")
    found = LLM("there:m").embed([])
    assert (found, found.dimensions) == ([], 0)
    assert found.to_numpy().shape == (0, 0)


def test_inside_a_running_loop_and_awaited(session: Session) -> None:
    async def both() -> tuple[Vectors, Vectors]:
        llm = LLM("there:m")
        return llm.embed(["text 1"]), await llm.aembed(["text 2"])

    with ScriptedServer(vectors) as server:
        session.registry.add("there", base_url=server.url)
        blocking, awaited = asyncio.run(both())
    assert (blocking[0][0], awaited[0][0]) == (1.0, 2.0)
    assert json.loads(json.dumps(awaited)) == [[2.0, 1.0]]


def test_cancelling_closes_the_request(session: Session) -> None:
    async def cancelled() -> None:
        task = asyncio.ensure_future(LLM("there:m").aembed(["text 1"]))
        await asyncio.to_thread(asked.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asked = threading.Event()

    def hang(_request: Received) -> Answer:
        asked.set()
        return Answer([HANG])

    with ScriptedServer(hang) as server:
        session.registry.add("there", base_url=server.url)
        asyncio.run(cancelled())
        assert server.requests[0].left.wait(2)


@pytest.mark.parametrize(
    ("answer", "options", "error", "message"),
    [
        (vectors, {"dimensions": 7}, UnsupportedError, "gave vectors of 2 dimensions, not of the 7 asked for"),
        (
            document({"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]}),
            {},
            ProtocolError,
            "vectors of different lengths: 1, 2",
        ),
        (document({"data": [{"embedding": [1.0]}]}), {}, ProtocolError, "1 vectors for 2 inputs"),
        (document({"error": {"message": "bad key top-secret"}}, status=401), {}, AuthenticationError, "bad key ***"),
        (vectors, {"batch": 0}, OptionError, "batch must be a whole number of at least 1"),
        (vectors, {"temperature": 0}, OptionError, "embed has no option temperature"),
        (vectors, {"timeout": -1}, OptionError, "timeout must be"),
        (vectors, {"param": {"input": "x"}}, OptionError, 'param={"input": …}'),
    ],
)
@pytest.mark.usefixtures("_key")
def test_what_is_wrong(
    session: Session, answer: Answer, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with ScriptedServer(answer) as server:
        session.registry.add("there", base_url=server.url, api_key_env="THERE_KEY")
        with pytest.raises(error, match=re.escape(message)) as caught:
            LLM("there:m").embed(["text 1", "text 2"], **options)
    assert "top-secret" not in str(caught.value)


def test_an_alias_for_answers_is_refused(session: Session) -> None:
    session.registry.aliases = {"chatty": {"model": "vllm:m", "temperature": 0.5}}
    with pytest.raises(OptionError, match="The alias chatty sets temperature, which embeddings do not take"):
        LLM("chatty").embed(["a"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("one", "x is one text, not a list of texts."),
        ({"a": "b"}, "x is a dict, not a list of texts."),
        (3, "x is no list of texts but int."),
        (["a", None], "x: item 1 is no text but NoneType None."),
        (["a", ""], "x: item 1 is an empty text, which has no embedding."),
    ],
)
def test_what_are_no_texts(value: object, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        texts_of(value, "x")
    assert caught.value.message == message


def test_columns_and_arrays_are_texts() -> None:
    pandas = pytest.importorskip("pandas")
    numpy = pytest.importorskip("numpy")
    frame = pandas.DataFrame({"text": ["a", "b"]})
    assert (
        texts_of(frame["text"], "x")
        == texts_of(numpy.array(["a", "b"]), "x")
        == texts_of(iter("ab"), "x")
        == ["a", "b"]
    )
    with pytest.raises(PromptError, match="x is a table"):
        texts_of(frame, "x")


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("%%llm_embed\n", "PromptError", "There is nothing to embed."),
        ("%llm_embed --each dcos", "PromptError", "name 'dcos' is not defined.\nDid you mean docs"),
        ("%llm_embed --each 1/0", "PromptError", "ZeroDivisionError"),
        ("%llm_embed --each (", "PromptError", "SyntaxError"),
        ("%llm_embed --each []", "PromptError", "[] has no texts to embed."),
        ("%llm_embed --each docs --as arry", "OptionError", "--as takes list or ndarray."),
        ("%llm_embed --each docs --batch none", "OptionError", "--batch takes a whole number of at least 1."),
        ("%llm_embed --each docs -t 0", "OptionError", "%llm_embed has no option -t."),
        ("%llm_embed --each docs words", "OptionError", "takes no words besides options, not 1"),
        ("%%llm_embed --each docs\ntext", "OptionError", "--each and the lines below exclude each other."),
        ("%llm_embed --each docs -m nobody", "ModelNotFoundError", "No provider answers to the model 'nobody'."),
        ("%llm_embed --each docs -o 1x", "OptionError", "-o takes the name of a variable."),
    ],
)
def test_what_is_wrong_with_a_cell(kernel: Kernel, code: str, error: str, message: str) -> None:
    kernel.run("docs = ['a']").check()
    name, text = failed(kernel, code)
    assert name == error
    assert message in text


def test_an_array_without_numpy_is_refused_before_anything_is_sent(kernel: Kernel) -> None:
    with ScriptedServer(vectors) as server:
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        kernel.run("import sys; known = sys.modules.get('numpy'); sys.modules['numpy'] = None").check()
        name, text = failed(kernel, "%llm_embed -m there:m --each ['text 1'] --as ndarray")
        kernel.run("if known is None: del sys.modules['numpy']\nelse: sys.modules['numpy'] = known").check()
        assert server.requests == []
    assert name == "ConfigurationError"
    assert "pip install numpy" in text


def test_interrupting_stops_the_requests_and_keeps_what_came(kernel: Kernel) -> None:
    seen: list[float] = []

    def some_hang(request: Received) -> Answer:
        return Answer([HANG]) if hanging and "text 9" in request.json["input"] else vectors(request)

    def interrupt(message: dict[str, object]) -> None:
        data = message["content"].get("data", {})
        if not seen and "9 of 10 texts" in str(data.get("text/plain", "")):
            seen.append(time.perf_counter())
            kernel.interrupt()

    hanging = True
    with ScriptedServer(some_hang) as server:
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        cell = "%llm_embed -m there:m --batch 1 -o found --each [f'text {n}' for n in range(10)]"
        ran = kernel.run(cell, on_message=interrupt)
        took = time.perf_counter() - seen[0]
        assert (ran.status, took < 0.5) == ("error", True)
        (hung,) = [request for request in server.requests if request.json["input"] == ["text 9"]]
        assert hung.left.wait(2)
        assert kernel.value("'found' in globals() and len(found) == 10") is False
        hanging, before = False, len(server.requests)
        kernel.run(cell).check()
        assert len(server.requests) - before == 1
    assert kernel.value("[vector[0] for vector in found]") == [float(number) for number in range(10)]
