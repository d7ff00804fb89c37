"""`LLM` as an object, and wherever it is used: threads, loops, forked processes, after the extension is gone."""

from __future__ import annotations

import _thread
import asyncio
import copy
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kernels import Kernel
from servers import HANG, Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.display.plain import PlainView
from llm_magic.embeddings.run import EmbeddingInterrupted
from llm_magic.errors import ConfigurationError, Interrupted, PromptError
from llm_magic.options import Options
from llm_magic.providers import registry as registry_module
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.plan import Cell

DOWN = document({"error": {"message": "overloaded"}}, status=503)
BEGUN = [b'data: {"choices":[{"index":0,"delta":{"content":"Half"}}]}\n\n', HANG]


def answer(text: str) -> Answer:
    return stream(chunk(text), chunk(finish="stop"))


def echo(request: Received) -> Answer:
    return answer(f"you said {request.json['messages'][-1]['content']}")


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def llm_at(session: Session, server: ScriptedServer, name: str = "s", **settings: object) -> LLM:
    session.registry.add(name, "compatible", base_url=server.url, max_retries=0, **settings)
    return LLM(f"{name}:m")


def tool_of_a_module(text: str) -> str:
    """Give it back."""
    return text


def test_its_repr_says_what_it_asks_and_no_secret() -> None:
    llm = LLM("local:smollm2", temperature=0, header={"X-Api-Key": "hidden-value"}, system="word " * 100)
    assert repr(llm).startswith("LLM('local:smollm2', temperature=0, header={'X-Api-Key': '***'}, system='word word")
    assert len(repr(llm)) < 200
    assert repr(LLM()) == "LLM('')"


def test_copies_and_pickles_ask_the_same(session: Session) -> None:
    with ScriptedServer(echo) as server:
        session.registry.add("s", "compatible", base_url=server.url)
        llm = LLM("s:m", temperature=0, header={"X-B": "env:HOME"}, param={"min_p": 0.1}, tools=[tool_of_a_module])
        for made in (copy.copy(llm), copy.deepcopy(llm), pickle.loads(pickle.dumps(llm))):  # noqa: S301 - our own
            assert made is not llm
            assert repr(made) == repr(llm)
            assert made.ask("Hi").text == "you said Hi"
    bodies = [request.json for request in server.requests]
    assert bodies == [bodies[0]] * 3
    assert bodies[0]["min_p"] == 0.1


def test_a_secret_is_not_pickled_and_the_error_says_what_to_do() -> None:
    with pytest.raises(
        pickle.PicklingError, match=r"A secret is not pickled: name an environment variable \(env:NAME\)"
    ):
        pickle.dumps(LLM("s:m", header={"X-Api-Key": "hidden-value"}))


def test_without_a_model_the_error_shows_the_line_that_sets_one(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "find_spec", lambda _name: None)
    llm = LLM()  # which is no error yet: a model may be configured later
    for ask in (llm.ask, lambda text: asyncio.run(llm.aask(text))):
        with pytest.raises(ConfigurationError) as caught:
            ask("Hi")
        assert "LLMMagics.model" in str(caught.value)
        assert str(caught.value).count("\n") <= 1


# Threads and loops


def test_the_first_use_in_several_threads_makes_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    apply_project = ProviderRegistry.apply_project

    def slowly(self: ProviderRegistry, *arguments: Any) -> None:
        time.sleep(0.1)
        apply_project(self, *arguments)

    monkeypatch.setattr(ProviderRegistry, "apply_project", slowly)
    api.activate(None)
    with ThreadPoolExecutor(10) as pool:
        sessions = {id(session) for session in pool.map(lambda _: api.active_session(), range(10))}
        ledgers = {id(ledger) for ledger in pool.map(lambda _: api.active_session().ledger, range(10))}
    api.active_session().close()
    api.activate(None)
    assert (len(sessions), len(ledgers)) == (1, 1)


def test_a_provider_is_made_once_however_many_ask_for_it(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    build = ProviderRegistry._build

    def slowly(self: ProviderRegistry, *arguments: Any) -> Any:
        time.sleep(0.05)
        return build(self, *arguments)

    monkeypatch.setattr(ProviderRegistry, "_build", slowly)
    session.registry.add("s", "compatible", base_url="http://127.0.0.1:1/v1")
    session.registry._drop("s")
    with ThreadPoolExecutor(10) as pool:
        found = {id(provider) for provider in pool.map(lambda _: session.registry.get("s"), range(10))}
    assert len(found) == 1


def test_ten_threads_ask_at_once(session: Session) -> None:
    with ScriptedServer(echo) as server:
        llm = llm_at(session, server)
        with ThreadPoolExecutor(10) as pool:
            texts = list(pool.map(lambda number: llm.ask(f"{number}").text, range(30)))
    assert texts == [f"you said {number}" for number in range(30)]
    (row,) = session.ledger.rows()
    assert (row.requests, row.answers) == (30, 30)


def test_fifty_are_awaited_at_once_and_one_that_fails_is_one(session: Session) -> None:
    def some(request: Received) -> Answer:
        return DOWN if request.json["messages"][-1]["content"] == "13" else echo(request)

    async def ask() -> list[Any]:
        llm = llm_at(session, server)
        return await asyncio.gather(*(llm.aask(f"{number}") for number in range(50)), return_exceptions=True)

    with ScriptedServer(some) as server:
        found = asyncio.run(ask())
    assert [number for number, each in enumerate(found) if isinstance(each, Exception)] == [13]
    assert [str(each) for each in found[:3]] == ["you said 0", "you said 1", "you said 2"]


def test_of_those_awaited_together_the_others_are_closed_where_one_fails(session: Session) -> None:
    def some(request: Received) -> Answer:
        return DOWN if request.json["messages"][-1]["content"] == "0" else Answer(BEGUN)

    async def ask() -> None:
        llm = llm_at(session, server)
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(llm.aask(f"{number}"))

    with ScriptedServer(some) as server:
        with pytest.raises(ExceptionGroup, match="unhandled errors"):
            asyncio.run(ask())
        others = [request for request in server.requests if request.json["messages"][-1]["content"] != "0"]
        assert all(request.left.wait(5) for request in others)


def call_of(name: str) -> Answer:
    made = {"index": 0, "id": "c1", "type": "function", "function": {"name": name, "arguments": "{}"}}
    return stream(chunk(tool_calls=[made]), chunk(finish="tool_calls"))


def test_an_async_tool_that_waits_for_an_answer_is_told_to_await_it(session: Session) -> None:
    """It runs on the very loop that it would wait for."""

    async def blocking() -> str:
        """Ask."""
        return LLM("s:m").ask("inner").text

    async def embedding() -> str:
        """Embed."""
        return str(LLM("s:m").embed(["inner"]))

    for tool in (blocking, embedding):
        with ScriptedServer(call_of(tool.__name__), answer("Done.")) as server:
            response = llm_at(session, server).ask("Go", tools=[tool])
        session.registry.remove("s")
        assert response.text == "Done."
        (run,) = response.tool_calls
        assert run.failed
        assert "await llm.aask(…)" in (run.result or "")


def test_a_tool_may_ask_and_stream(session: Session) -> None:
    async def awaiting() -> str:
        """Ask."""
        said = (await LLM("s:m").aask("inner")).text
        async for event in LLM("s:m").stream("inner"):
            said += getattr(event, "text", "")
        return said

    def plain() -> str:
        """Ask."""
        return LLM("s:m").ask("inner").text

    for tool, expected in ((awaiting, "in in "), (plain, "in ")):
        script = [call_of(tool.__name__), *[answer("in ")] * len(expected.split()), answer("Done.")]
        with ScriptedServer(*script) as server:
            response = llm_at(session, server).ask("Go", tools=[tool])
        session.registry.remove("s")
        assert [run.result for run in response.tool_calls] == [expected]
        assert response.text == "Done."


def test_an_interrupted_ask_closes_the_request_and_keeps_what_came(session: Session) -> None:
    def interrupt(_: Received) -> Answer:
        def steps() -> Iterator[Any]:
            yield BEGUN[0]
            yield 0.3
            _thread.interrupt_main()
            yield HANG

        return Answer(steps())

    with ScriptedServer(interrupt) as server:
        llm = llm_at(session, server)
        with pytest.raises(Interrupted) as caught:
            llm.ask("Hi")
        assert server.requests[0].left.wait(5)
        server.script[:] = [echo]
        assert llm.ask("again").text == "you said again"
    assert (caught.value.response.text, caught.value.response.finish_reason) == ("Half", "interrupted")
    assert caught.value.response.value is None
    assert caught.value._render_traceback_() == [
        "KeyboardInterrupt: the request was stopped; its `response` has what had arrived."
    ]


def test_an_interrupted_embed_closes_its_requests_and_goes_on_where_it_was(session: Session) -> None:
    def first(request: Received) -> Answer:
        if "b" in request.json["input"]:
            threading.Timer(0.3, _thread.interrupt_main).start()
            return Answer([HANG], headers={"content-type": "application/json"})
        rows = [{"index": at, "embedding": [1.0]} for at in range(len(request.json["input"]))]
        return document({"data": rows})

    with ScriptedServer(first) as server:
        llm = llm_at(session, server)
        with pytest.raises(EmbeddingInterrupted) as caught:
            llm.embed(["a", "b"], batch=1)
        assert [request.left.wait(5) for request in server.requests if "b" in request.json["input"]] == [True]
        assert "it goes on where it was" in caught.value._render_traceback_()[0]
        server.script[:] = [document({"data": [{"index": 0, "embedding": [2.0]}]})]
        assert list(llm.embed(["a", "b"], batch=1)) == [[1.0], [2.0]]
    assert [request.json["input"] for request in server.requests[2:]] == [["b"]]


@pytest.mark.parametrize(
    ("code", "name", "line"),
    [
        ("llm.ask('Hi')", "Interrupted", "the request was stopped; its `response` has what had arrived."),
        ("llm.embed(['Hi'])", "EmbeddingInterrupted", "the requests were stopped; run it again, and it goes on"),
    ],
)
def test_an_interrupt_of_a_cell_that_asks_is_one_line(kernel: Kernel, code: str, name: str, line: str) -> None:
    with ScriptedServer(Answer([HANG])) as server:
        kernel.run("%reload_ext llm_magic\nfrom llm_magic import LLM, registry").check()
        kernel.run(f"registry().add('s', 'compatible', base_url={server.url!r}, max_retries=0)").check()
        kernel.run("llm = LLM('s:m')").check()
        request = kernel.start(code)
        while not server.requests:
            time.sleep(0.01)
        kernel.interrupt()
        ran = kernel.collect(request, timeout=20)
        assert server.requests[0].left.wait(5)
    assert ran.error_name == name
    (shown,) = ran.outputs
    (said,) = shown["traceback"]
    assert said.startswith(f"KeyboardInterrupt: {line}")


FORKED = """
import multiprocessing, sys
from llm_magic import LLM, registry

registry().add("s", "compatible", base_url=sys.argv[1], max_retries=0)
llm = LLM("s:m")
print(llm.ask("parent").text, flush=True)

def ask(number):
    return llm.ask(f"child {number}").text

with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*pool.map(ask, range(4)), sep="\\n", flush=True)
print(llm.ask("parent again").text)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_forked_processes_ask_over_connections_of_their_own() -> None:
    with ScriptedServer(echo) as server:
        command = [sys.executable, "-c", FORKED, server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own words
    assert done.stdout.splitlines() == [
        "you said parent",
        *(f"you said child {number}" for number in range(4)),
        "you said parent again",
    ], done.stderr
    assert done.stderr == ""
    asked = [request.json["messages"][-1]["content"] for request in server.requests]
    assert sorted(asked) == ["child 0", "child 1", "child 2", "child 3", "parent", "parent again"]


def test_it_works_before_and_after_the_extension_is_gone(kernel: Kernel) -> None:
    with ScriptedServer(echo) as server:
        kernel.run("%reload_ext llm_magic\nfrom llm_magic import LLM, registry").check()
        kernel.run(f"registry().add('s', 'compatible', base_url={server.url!r}, max_retries=0)").check()
        kernel.run("llm = LLM('s:m')").check()
        assert kernel.value("llm.ask('a').text") == "you said a"
        kernel.run("%unload_ext llm_magic").check()
        assert kernel.run("llm.ask('b')").error_name == "ModelNotFoundError"  # the provider went with it
        kernel.run(f"registry().add('s', 'compatible', base_url={server.url!r}, max_retries=0)").check()
        assert kernel.value("llm.ask('c').text") == "you said c"
        kernel.run("%load_ext llm_magic").check()


# The model that answered


def test_the_model_that_answered_is_named_wherever_a_model_is(session: Session) -> None:
    with ScriptedServer(DOWN) as down, ScriptedServer(answer("Hello")) as up:
        llm_at(session, down, "a")
        llm_at(session, up, "b")
        session.registry.aliases = {"spare": "b:m", "both": {"model": "a:m", "fallbacks": ["spare"]}}
        response = LLM("both").ask("Hi", chat="talk")
    assert (response.model, response.provider, response.model_reported) == ("spare", "b", "scripted")
    (note,) = response.notes
    assert note.startswith("both failed (")
    assert note.endswith("asking the next model.")
    (turn,) = session.conversations.get("talk").turns()
    assert turn.model == "spare"
    assert [(row.provider, row.answers) for row in session.ledger.rows()] == [("a", 0), ("b", 1)]


def test_the_metadata_and_the_footer_of_a_cell_name_it(kernel: Kernel) -> None:
    with ScriptedServer(DOWN) as down, ScriptedServer(answer("Hello")) as up:
        kernel.run("%reload_ext llm_magic\nfrom llm_magic import registry").check()
        for name, server in (("a", down), ("b", up)):
            kernel.run(f"registry().add({name!r}, 'compatible', base_url={server.url!r}, max_retries=0)").check()
        kernel.run("registry().aliases = {'both': {'model': 'a:m', 'fallbacks': ['b:m']}}").check()
        for options in ("", "-b"):
            ran = kernel.run(f"job = %llm -m both {options} -c talk Hi", "one").check()
            kernel.run("response = job.result() if hasattr(job, 'result') else job").check()
            assert kernel.value("(response.model, response.provider)") == ("b:m", "b")
            messages = [each for each in kernel.heard if each["parent_header"].get("msg_id") == ran.request]
            metadata = [each["content"].get("metadata", {}).get("llm_magic") for each in messages]
            (kept,) = [each for each in metadata if each]
            assert (kept["model"], kept["provider"]) == ("b:m", "b")
            shown = " ".join(each["content"].get("data", {}).get("text/plain", "") for each in messages)
            assert "both failed" in shown
            assert "b:m · " in shown


# The background


def test_a_job_is_awaited_and_holds_the_response(session: Session) -> None:
    with ScriptedServer(echo) as server:
        llm_at(session, server)
        options = Options(model="s:m", once=True)
        cell = Cell("Hi", options)
        job = session.ask_in_background(cell, PlainView("none", streams=False), lambda _: None, lambda _: None)

        async def wait() -> Any:
            return await job

        assert asyncio.run(wait()).text == "you said Hi"
        assert job.result(5).text == "you said Hi"


STREAMING_TOOL = """
from llm_magic import LLM
from llm_magic.events import Done
async def inner() -> str:
    "Ask in a stream."
    async for event in LLM("s:m").stream("inner"):
        if isinstance(event, Done):
            return event.response.text
"""


def test_a_stream_inside_of_a_background_cell(kernel: Kernel) -> None:
    with ScriptedServer(call_of("inner"), answer("from inside"), answer("Done.")) as server:
        kernel.run("%reload_ext llm_magic\nfrom llm_magic import registry").check()
        kernel.run(f"registry().add('s', 'compatible', base_url={server.url!r}, max_retries=0)").check()
        kernel.run(STREAMING_TOOL).check()
        kernel.run("job = %llm -m s:m --tools inner -b --once Go").check()
        kernel.run("response = await job").check()
        assert kernel.value("(response.text, [run.result for run in response.tool_calls])") == (
            "Done.",
            ["from inside"],
        )


def test_embed_takes_texts_of_a_class_of_their_own_by_their_value(session: Session) -> None:
    import enum

    class Colour(str, enum.Enum):  # noqa: UP042 - whose text is another than its value
        RED = "red"

    with ScriptedServer(document({"data": [{"index": 0, "embedding": [1.0]}]})) as server:
        llm_at(session, server).embed([Colour.RED])
        assert server.requests[0].json["input"] == ["red"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "texts is no list of texts but NoneType.\nGive a list, a column or an array of texts."),
        ("one text", "texts is one text, not a list of texts.\nWrite [texts] for a list of one."),
        (5, "texts is no list of texts but int."),
        (b"bytes", "texts is bytes, not a list of texts.\nWrite [texts.decode()] for a list of one."),
        (["a", None], "texts: item 1 is no text but NoneType None."),
        (["a", ""], "texts: item 1 is an empty text, which has no embedding.\nLeave it out."),
        (["a", float("nan")], "texts: item 1 is no text but float nan."),
        ([["a"]], "texts: item 0 is no text but list ['a']."),
        ({"a": "b"}, "texts is a dict, not a list of texts.\nDid you mean texts.values()?"),
    ],
)
def test_what_cannot_be_embedded_is_said_before_anything_is_sent(session: Session, value: Any, message: str) -> None:
    with ScriptedServer(DOWN) as server:
        llm = llm_at(session, server)
        for embed in (llm.embed, lambda texts: asyncio.run(llm.aembed(texts))):
            with pytest.raises(PromptError) as caught:
                embed(value)
            assert str(caught.value).startswith(message)
    assert server.requests == []


def test_what_can_be_embedded(session: Session) -> None:
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas")

    def vectors(request: Received) -> Answer:
        return document({"data": [{"index": at, "embedding": [1.0]} for at in range(len(request.json["input"]))]})

    texts = ["a", "b"]
    given = [texts, tuple(texts), (text for text in texts), pd.Series(texts, index=[7, 7]), np.array(texts)]
    with ScriptedServer(vectors) as server:
        llm = llm_at(session, server)
        for value in [*given, pd.Series(texts, dtype="string")]:
            assert len(llm.embed(value)) == 2
        assert list(llm.embed([])) == []
        assert [request.json["input"] for request in server.requests] == [texts] * 6
        with pytest.raises(PromptError, match="half of a surrogate pair"):
            llm.embed(["\ud800 alone"])


def test_cancelled_embeddings_close_their_requests(session: Session) -> None:
    async def give_up() -> None:
        await asyncio.wait_for(llm_at(session, server).aembed(["a", "b"], batch=1), 0.5)

    with ScriptedServer(Answer([HANG], headers={"content-type": "application/json"})) as server:
        with pytest.raises(TimeoutError):
            asyncio.run(give_up())
        assert len(server.requests) == 2
        assert all(request.left.wait(5) for request in server.requests)
