"""Offline batches at every kind of provider: what is sent where, with whose key; and what is left on the disk of it."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import pickle
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from batch_server import ENDPOINTS, NO_ROUTE, BatchServer, Failure, Fault, Row
from secrecy.canary import Canary
from servers import Received

from llm_magic import LLM, Provider, api
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.config.settings import Settings
from llm_magic.errors import LLMError, UnsupportedError
from llm_magic.events import Event
from llm_magic.mapping.answers.answers import Answers
from llm_magic.providers.azure import AzureProvider
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

SAY = "SAY {{ item }}"
KEY = "sk-of-this-test"
VERSION = "2024-10-21"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def session(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.setenv("A_KEY", KEY)
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    while opened:
        if (closing := opened.pop().close()) is not None:
            session.loop.run(closing)
    session.close()
    api.activate(None)


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer(
        validating=0, in_progress=0, finalizing=0, endpoints=(*ENDPOINTS, "/chat/completions"), one_endpoint=False
    ) as server:
        yield server


def answered(model: str, **options: Any) -> Answers:
    answers = LLM(model, poll=0.001, retries=0).batch(SAY, ["1", "2"], **options).result(30)
    assert isinstance(answers, Answers)
    return answers


def refused(model: str, **options: Any) -> LLMError:
    with pytest.raises(LLMError) as raised:
        answered(model, **options)
    return raised.value


def root(server: BatchServer) -> str:
    return server.url.removesuffix("/v1")


opened: list[Any] = []
"""Ready clients, which are the test's to close."""

Make = Callable[[Session, BatchServer, pytest.MonkeyPatch], None]


def openai_from_the_environment(_session: Session, server: BatchServer, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("OPENAI_BASE_URL", server.url)
    patch.setenv("OPENAI_API_KEY", KEY)
    patch.setenv("OPENAI_ORG_ID", "org-1")
    patch.setenv("OPENAI_PROJECT_ID", "project-1")


def azure(**traits: Any) -> Make:
    def make(session: Session, server: BatchServer, _: pytest.MonkeyPatch) -> None:
        session.registry.add("a", "azure", azure_endpoint=root(server), api_key_env="A_KEY", **traits)

    return make


def compatible(**traits: Any) -> Make:
    def make(session: Session, server: BatchServer, _: pytest.MonkeyPatch) -> None:
        session.registry.add("a", "compatible", base_url=server.url, api_key_env="A_KEY", **traits)

    return make


def ready(kind: str, **arguments: Any) -> Make:
    def make(session: Session, server: BatchServer, _: pytest.MonkeyPatch) -> None:
        where = {"azure_endpoint": root(server)} if "Azure" in kind else {"base_url": server.url}
        client = getattr(openai, kind)(**where, api_key=KEY, **arguments)
        session.registry.register("a", client=client)
        opened.append(client)

    return make


def alias(session: Session, server: BatchServer, patch: pytest.MonkeyPatch) -> None:
    compatible()(session, server, patch)
    session.registry.aliases = {"night": {"model": "a:deep", "temperature": 0.5, "fallbacks": ["a:other"]}}


def route(session: Session, server: BatchServer, patch: pytest.MonkeyPatch) -> None:
    compatible()(session, server, patch)
    session.registry.routes = {"deep*": "a"}


def litellm(session: Session, server: BatchServer, patch: pytest.MonkeyPatch) -> None:
    costs = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    of_batches = {"input_cost_per_token_batches": 5e-7, "output_cost_per_token_batches": 1e-6}
    given = {"model": "openai/deep", "api_base": server.url, "api_key": "os.environ/A_KEY", **costs, **of_batches}
    file = Path(os.environ["XDG_STATE_HOME"]).with_name("config.yaml")
    file.write_text(json.dumps({"model_list": [{"model_name": "night", "litellm_params": given}]}))
    session.registry.litellm_config = str(file)


@pytest.mark.parametrize(
    ("make", "model", "asked", "url", "endpoint"),
    [
        (openai_from_the_environment, "openai:deep", "/v1", "/v1/chat/completions", "/v1/chat/completions"),
        (compatible(), "a:deep", "/v1", "/v1/chat/completions", "/v1/chat/completions"),
        (compatible(http_client="aiohttp"), "a:deep", "/v1", "/v1/chat/completions", "/v1/chat/completions"),
        (compatible(http_client_kwargs={"trust_env": False}), "a:deep", "/v1", *["/v1/chat/completions"] * 2),
        (azure(), "a:deep", "/openai/v1", "/v1/chat/completions", "/chat/completions"),
        (azure(api="responses"), "a:deep", "/openai/v1", "/v1/responses", "/chat/completions"),
        (azure(api_version=VERSION), "a:deep", "/openai", "/chat/completions", "/chat/completions"),
        (azure(deployments={"deep": "gpt-4o"}), "a:gpt-4o", "/openai/v1", "/v1/chat/completions", "/chat/completions"),
        (ready("AsyncOpenAI"), "a:deep", "/v1", "/v1/chat/completions", "/v1/chat/completions"),
        (ready("OpenAI"), "a:deep", "/v1", "/v1/chat/completions", "/v1/chat/completions"),
        (ready("AsyncAzureOpenAI", api_version=VERSION), "a:deep", "/openai", *["/chat/completions"] * 2),
        (ready("AzureOpenAI", api_version=VERSION), "a:deep", "/openai", *["/chat/completions"] * 2),
        (alias, "night", "/v1", "/v1/chat/completions", "/v1/chat/completions"),
        (route, "deep", "/v1", "/v1/chat/completions", "/v1/chat/completions"),
        (litellm, "night", "/v1", "/v1/chat/completions", "/v1/chat/completions"),
    ],
    ids=[
        "openai", "compatible", "aiohttp", "http settings", "azure", "azure responses", "azure classic", "deployment",
        "ready", "blocking", "ready azure", "blocking azure", "alias", "route", "litellm",
    ],
)  # fmt: skip
def test_all_routes_of_a_provider(  # noqa: PLR0917 - a row of the table
    session: Session,
    server: BatchServer,
    monkeypatch: pytest.MonkeyPatch,
    make: Make,
    model: str,
    asked: str,
    url: str,
    endpoint: str,
) -> None:
    make(session, server, monkeypatch)
    answers = answered(model)
    assert answers.values == ["1", "2"]
    assert [created.body["endpoint"] for created in server.created] == [endpoint]
    (name,) = server.batches
    assert {row["url"] for row in server.rows(name)} == {url}
    assert {row["body"]["model"] for row in server.rows(name)} == {"deep"}
    for request in server.requests:
        path, _, query = request.path.partition("?")
        assert path.startswith((f"{asked}/files", f"{asked}/batches"))
        assert query == (f"api-version={VERSION}" if asked == "/openai" else "")
        sent = request.headers
        assert KEY in {sent.get("authorization", "").removeprefix("Bearer "), sent.get("api-key")}
        if model.startswith("openai"):
            assert (sent["openai-organization"], sent["openai-project"]) == ("org-1", "project-1")
    if model == "night" and make is alias:
        assert server.rows(name)[0]["body"]["temperature"] == 0.5
        assert answers.notes == ("Fallbacks are not asked by a batch: all its rows are those of one model.",)
    elif make is litellm:
        assert answers.responses[0] is not None
        assert answers.responses[0].cost == pytest.approx(3 * 5e-7 + 2 * 1e-6), "that of batches"
    else:
        assert answers.notes == ()


def test_headers_go_with_all_requests_and_into_no_file(
    session: Session, server: BatchServer, monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    monkeypatch.setenv("B_KEY", "hushed-header")
    compatible(default_headers={"X-A": "1"}, headers_env={"X-B": "Bearer B_KEY"})(session, server, monkeypatch)
    answers = answered("a:deep", header={"X-C": "env:B_KEY", "X-D": "4"})
    assert answers.values == ["1", "2"]
    assert len(server.requests) == 4
    for request in server.requests:
        sent = [request.headers[f"x-{letter}"] for letter in "abcd"]
        assert sent == ["1", "Bearer hushed-header", "hushed-header", "4"]
    nowhere(state, server, "hushed-header", KEY)


def nowhere(state: Path, server: BatchServer, *secrets: str) -> None:
    """Assert that a secret stands in no file of ours, here or at the server."""
    kept = {path.name: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    kept |= {upload.filename: server.files[upload.id].content for upload in server.uploads}
    assert len(kept) > 2
    for secret in secrets:
        assert not [name for name, content in kept.items() if secret.encode() in content or secret in name]


@pytest.mark.usefixtures("session")
def test_base_url_of_a_call(server: BatchServer, state: Path) -> None:
    assert answered("compatible:m", base_url=server.url).values == ["1", "2"]
    (record,) = BatchFolder().all()
    assert (record.base_url, record.url, record.asked) == (server.url, server.url, "compatible:m")
    assert str(state) in str(BatchFolder().place)


def test_a_token_is_asked_for_at_each_request(session: Session, server: BatchServer) -> None:
    for version in "", VERSION:
        tokens = iter(f"token-{number}" for number in range(100))

        async def token(tokens: Iterator[str] = tokens) -> str:
            return next(tokens)

        server.requests.clear()
        session.registry.register(
            f"a{version}",
            provider=AzureProvider(
                name=f"a{version}", azure_endpoint=root(server), azure_ad_token_provider=token, api_version=version
            ),
        )
        assert answered(f"a{version}:deep").values == ["1", "2"]
        assert [request.headers["authorization"] for request in server.requests] == [
            f"Bearer token-{number}" for number in range(4)
        ]


class Rotating:
    """Keys of which another one holds after some requests: then it stands in the environment, too."""

    def __init__(self, patch: pytest.MonkeyPatch, requests: int) -> None:
        self.patch, self.left, self.seen = patch, requests, [""]

    def __contains__(self, key: object) -> bool:
        self.seen.append(str(key))
        self.left -= 1
        if self.left == 0:
            self.patch.setenv("A_KEY", "sk-new")
        return key == (KEY if self.left > 0 else "sk-new")


@pytest.mark.parametrize("requests", range(1, 7))
def test_a_key_that_is_replaced_on_the_way(
    session: Session, server: BatchServer, monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    server.in_progress = 2
    keys: Any = Rotating(monkeypatch, requests)
    server.keys = keys
    compatible()(session, server, monkeypatch)
    assert answered("a:deep").values == ["1", "2"]
    assert len(server.created) == 1
    assert keys.seen.count("sk-new") == 7 - requests
    assert keys.seen.count(KEY) <= requests + 1, "the one before is tried again once at most, not at each look"


# Who has none


class Own(Provider):
    """A backend of an author's own."""

    kind = "own"

    async def exchange(self, *_: Any, **__: Any) -> AsyncGenerator[list[Event], None]:
        yield []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda session: session.registry.register("a", provider=Own(name="a")), "by code of its own"),
        (lambda session: session.registry.add("a", "vllm", base_url="http://127.0.0.1:9/v1"), "no offline batches"),
        (lambda session: session.registry.add("a", "compatible", base_url="http://x/v1", batches=False), "says so"),
    ],
    ids=["own", "vllm", "said"],
)
def test_who_is_known_to_have_none_is_not_asked(session: Session, state: Path, make: Any, says: str) -> None:
    make(session)
    error = refused("a:m")
    assert isinstance(error, UnsupportedError)
    assert says in error.message
    assert "LLM.map asks now" in error.hint
    assert not list(state.rglob("*.jsonl"))


@pytest.mark.parametrize("fault", [NO_ROUTE, Fault(405, lasts=True)], ids=["404", "405"])
def test_who_has_none_says_so(
    session: Session, server: BatchServer, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    compatible()(session, server, monkeypatch)
    server.faults["upload"] = [fault]
    error = refused("a:m")
    assert isinstance(error, UnsupportedError)
    assert "no Files and Batches routes" in error.message
    assert "LLM.map asks now" in error.hint
    assert server.asked == ["upload"]


def test_a_refusal_of_the_batch_names_no_field_of_the_rows(
    session: Session, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compatible()(session, server, monkeypatch)
    told = {"message": "Invalid value", "param": "completion_window", "code": "invalid_value"}
    server.faults["create"] = [Fault(400, body={"error": told})]
    assert "param" not in refused("a:m").hint


# Secrets


def test_a_secret_among_the_fields_is_refused_before_anything_is_written(
    session: Session, server: BatchServer, monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    compatible()(session, server, monkeypatch)
    for param in {"who": "env:A_KEY"}, {"deep": [{"x": "env:A_KEY"}]}:
        error = refused("a:m", param=param)
        assert isinstance(error, UnsupportedError)
        assert str(error) == (
            "A batch writes its fields into a file, and one of them is a secret (env:…).\n"
            'Leave it out, or send it as a header: header={"NAME": "env:VARIABLE"} goes with the requests about the '
            "batch."
        )
    assert server.requests == []
    assert not list(state.rglob("*.jsonl"))


def told_by(canary: Canary) -> Callable[[Row], dict[str, Any] | Failure]:
    """Return what fails each row, repeating a secret."""
    said = " ".join(canary.spellings())
    return lambda _: Failure(f"no: {said}", 401, canary.value, param=canary.value)


@pytest.mark.parametrize("failed_rows", ["openai", "llama-stack", "vllm", "vllm-text"])
@pytest.mark.parametrize("whole", [False, True], ids=["rows", "refused"])
def test_a_server_that_repeats_the_key(  # noqa: PLR0917 - a fixture each
    session: Session,
    server: BatchServer,
    monkeypatch: pytest.MonkeyPatch,
    state: Path,
    failed_rows: Any,
    whole: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    canary = Canary()
    monkeypatch.setenv("A_KEY", canary.value)
    compatible()(session, server, monkeypatch)
    server.failed_rows, server.answer = failed_rows, told_by(canary)
    if whole:
        server.invalid = {1: {"message": " ".join(canary.spellings()), "code": canary.value, "param": canary.value}}
    batch = LLM("a:m", poll=0.001, retries=0).batch(SAY, ["1", "2"], on_error="keep")
    answers = batch.result(30)
    shown = [repr(batch), repr(answers), *answers.notes, str(answers.statistics)]
    for error in filter(None, answers.errors):
        shown += [str(error), repr(error), repr(vars(error)), repr(error.response)]
    assert any(answers.errors)
    shown += [path.name for path in state.rglob("*")]
    shown += [path.read_text() for path in state.rglob("*") if path.is_file()]
    shown += [server.files[upload.id].content.decode() for upload in server.uploads]
    shown += capfd.readouterr()
    assert [found for text in shown for found in canary.found_in(text)] == []
    assert any(canary.arrived_in(_without_body(request)) for request in server.requests)


def _without_body(request: Received) -> Received:
    return Received(request.method, request.path, request.headers, b"", request.header_lines)


# Where it is called


def test_in_a_running_loop_and_in_threads(
    session: Session, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compatible()(session, server, monkeypatch)

    async def awaited() -> Any:
        one = LLM("a:m", poll=0.001).batch("SAY a{{ item }}", ["1", "2"])
        other = LLM("a:m", poll=0.001).batch("SAY b{{ item }}", ["1", "2"])
        return [each.values for each in await asyncio.gather(one, other)]

    assert asyncio.run(awaited()) == [["a1", "a2"], ["b1", "b2"]]
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        found[number] = LLM("a:m", poll=0.001).batch(f"SAY {number}{{{{ item }}}}", ["1", "2"]).result(30).values

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert found == {number: [f"{number}1", f"{number}2"] for number in range(3)}


def _there(pickled: bytes, pipe: Any) -> None:
    llm = pickle.loads(pickled)  # noqa: S301 - our own
    pipe.send(llm.batch(SAY, ["1", "2"]).result(30).values)


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # a fork beside threads, which is what is tried
def test_in_another_process(
    session: Session, server: BatchServer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    compatible()(session, server, monkeypatch)
    llm = LLM("a:m", poll=0.001)
    assert llm.batch("SAY here{{ item }}", ["1"]).result(30).values == ["here1"], "a loop and clients are there"
    context: Any = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=_there, args=(pickle.dumps(llm), theirs))
    process.start()
    assert ours.poll(30)
    assert ours.recv() == ["1", "2"]
    process.join(30)
    assert process.exitcode == 0
    assert llm.batch(SAY, ["1", "2"]).result(30).values == ["1", "2"], "what the other one was given is given here"
    assert len(server.created) == 2
