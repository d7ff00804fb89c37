"""Faults through each door: cells of a real kernel, from Python, embeddings, lists of models."""

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kernels import Kernel, Ran
from servers import HANG, RESET, Answer, ScriptedServer, Step, chunk, document, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import ConnectionFailedError, IncompleteAnswerError, LLMError, ServerFailedError, TimedOutError
from llm_magic.events import Attempt, TextDelta
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

BEGUN = b'data: {"choices":[{"index":0,"delta":{"content":"Begun"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
GOOD = stream(chunk("Fine."), chunk(finish="stop"))
CUT = "Cut off: the connection ended before the answer did."
FAULTS: dict[str, tuple[list[Step], str, str]] = {
    "closed within an event": (
        [BEGUN, b"data: {", RESET],
        "IncompleteAnswerError",
        "broke off in the midst of its answer: the connection was lost.",
    ),
    "ended": ([BEGUN], "IncompleteAnswerError", "it ended with no finish reason and no end mark."),
    "silent": ([BEGUN, HANG], "TimedOutError", "fell silent: nothing came for 1 s."),
    "a byte at a time": (
        [BEGUN, *(step for number in range(40) for step in (b"data: {"[number : number + 1] or b" ", 0.1))],
        "TimedOutError",
        "fell silent: nothing but signs of life came for 3 s.",
    ),
    "an error within": (
        [BEGUN, b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'],
        "ServerFailedError",
        "answered 500: out of memory",
    ),
    "no JSON": ([BEGUN, b"data: {not json}\n\n"], "ProtocolError", "sent what is no answer of this API: {not json}"),
}


def ask(kernel: Kernel, server: ScriptedServer, options: str = "") -> Ran:
    registry = "get_ipython()._llm_magic.registry"
    kernel.run(f"{registry}.add('odd', 'compatible', base_url={server.url!r}, max_retries=0, timeout=1)").check()
    return kernel.run(f"%%llm -m odd:m --once -o said {options}\nHi")


@pytest.mark.parametrize(("steps", "error", "message"), FAULTS.values(), ids=FAULTS)
def test_what_came_is_kept_and_marked_and_the_next_cell_works(
    kernel: Kernel, steps: list[Step], error: str, message: str
) -> None:
    with ScriptedServer(Answer(steps), GOOD) as server:
        ran = ask(kernel, server)
        assert ran.error_name == error
        assert message in ran.error
        assert len(ran.error.splitlines()) <= 2
        assert ran.seconds < 8
        assert kernel.value("(_llm.text, _llm.finish_reason)") == ("Begun", "truncated")
        assert ran.of_type("text/markdown") == ["Begun"]
        assert CUT in ran.of_type("text/plain")
        ask(kernel, server).check()
    assert kernel.value("said") == "Fine."


def test_an_answer_that_broke_off_is_no_value(kernel: Kernel) -> None:
    kernel.run("said = None").check()
    seven = b'data: {"choices":[{"index":0,"delta":{"content":"7"}}]}\n\n'
    with ScriptedServer(Answer([seven, b"data: {", RESET])) as server:
        ran = ask(kernel, server, "--as int")
    assert ran.error_name == "IncompleteAnswerError"
    assert kernel.value("(said, _llm.text, _llm.value)") == (None, "7", None)


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([b'data: {"choices":[{"delta":{"content":"Gr\xc3', b'\xbc\xff"}}]}\n\n', END], "Grü\ufffd"),
        ([b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"long " * 200_000), END], "long " * 200_000),
    ],
    ids=["bytes that are no text, and a letter cut in two", "1 MB at once"],
)
def test_what_is_odd_but_whole_is_shown(kernel: Kernel, steps: Any, text: str) -> None:
    with ScriptedServer(Answer(steps)) as server:
        ran = ask(kernel, server).check()
    assert ran.of_type("text/markdown") == [text]
    assert kernel.value("said") == text


BROKEN = Answer([BEGUN, b"data: {", RESET])
HALF_OF_CODE = Answer([b'data: {"choices":[{"index":0,"delta":{"content":"```python\\nrun(1)\\n"}}]}\n\n', RESET])


def test_code_that_broke_off_is_not_offered(kernel: Kernel) -> None:
    kernel.run("said = None").check()
    with ScriptedServer(HALF_OF_CODE) as server:
        ran = ask(kernel, server, "--code")
    assert ran.error_name == "IncompleteAnswerError"
    assert kernel.last_reply.get("payload", []) == []
    assert kernel.value("(said, _llm.text)") == (None, "```python\nrun(1)\n")


def test_an_answer_that_broke_off_is_no_turn(kernel: Kernel) -> None:
    with ScriptedServer(BROKEN, GOOD) as server:
        ask(kernel, server)  # adds the provider
        server.script[:] = [BROKEN, GOOD]
        ran = kernel.run("%%llm -m odd:m -c broken\nFirst")
        kernel.run("%%llm -m odd:m -c broken\nSecond").check()
        assert ran.error_name == "IncompleteAnswerError"
        assert [message["content"] for message in server.requests[-1].json["messages"]] == ["Second"]


def test_a_line_that_broke_off_binds_nothing(kernel: Kernel) -> None:
    kernel.run("x = None").check()
    with ScriptedServer(BROKEN) as server:
        ask(kernel, server)
        ran = kernel.run("x = %llm -m odd:m --once Hi")
    assert ran.error_name == "IncompleteAnswerError"
    assert kernel.value("(x, _llm.text)") == (None, "Begun")


def test_in_the_background_it_is_told_of(kernel: Kernel) -> None:
    kernel.run("said = None").check()
    with ScriptedServer(BROKEN) as server:
        ask(kernel, server)
        request = kernel.client.execute("job = %llm -m odd:m --once -b -o said Hi", allow_stdin=True)
        kernel.collect(request).check()
        kernel.run("import time\nwhile not job.done(): time.sleep(0.01)\ntime.sleep(0.2)").check()
    assert kernel.value("(said, _llm.text, type(job._future.exception()).__name__)") == (
        None,
        "Begun",
        "IncompleteAnswerError",
    )
    assert "broke off in the midst of its answer" in "".join(kernel.outputs_of(request, "text/plain"))


def test_what_broke_off_before_anything_was_shown_is_asked_for_again(kernel: Kernel) -> None:
    with ScriptedServer(Answer([0.02, RESET]), GOOD) as server:
        kernel.run(
            f"get_ipython()._llm_magic.registry.add('again', 'compatible', base_url={server.url!r}, max_retries=1)"
        )
        kernel.run("%%llm -m again:m --once -o said\nHi").check()
    assert kernel.value("(said, [(a.status, a.reason, a.final) for a in _llm.attempts])") == (
        "Fine.",
        [(200, "the connection was lost", False), (200, "", True)],
    )


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def llm_at(session: Session, server: ScriptedServer, **settings: Any) -> LLM:
    session.registry.add("s", "compatible", base_url=server.url, **{"max_retries": 0, **settings})
    return LLM("s:m")


def test_a_stream_of_events_raises_after_what_came(session: Session) -> None:
    events = []

    async def collect() -> None:
        async for event in llm_at(session, server).stream("Hi"):
            events.append(event)  # noqa: PERF401 - kept also where it raises

    with ScriptedServer(BROKEN) as server, pytest.raises(IncompleteAnswerError):
        asyncio.run(collect())
    assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta("Begun")]
    assert [(event.status, event.reason) for event in events if isinstance(event, Attempt)] == [
        (200, ""),
        (200, "the connection was lost"),
    ]


def call_of(arguments: str) -> dict[str, Any]:
    function = {"name": "note", "arguments": arguments}
    return chunk(tool_calls=[{"index": 0, "id": "c1", "type": "function", "function": function}])


def test_a_call_that_broke_off_is_not_carried_out(session: Session) -> None:
    ran = []

    def note(text: str) -> str:
        """Write it down."""
        ran.append(text)
        return "done"

    whole_call = stream(call_of('{"text": "a"}'), chunk(finish="tool_calls"))
    with ScriptedServer(stream(call_of('{"text": "a"}'), done=False)) as server, pytest.raises(IncompleteAnswerError):
        llm_at(session, server).ask("Hi", tools=[note])
    assert ran == []
    with (
        ScriptedServer(whole_call, stream(chunk("Begun"), done=False)) as server,
        pytest.raises(IncompleteAnswerError) as caught,
    ):
        llm_at(session, server).ask("Hi", tools=[note], chat="tools")
    assert ran == ["a"]
    assert caught.value.response.text == "Begun"
    assert [run.result for run in caught.value.response.tool_calls] == ["done"]
    assert session.conversations.get("tools").turns() == ()


def test_a_round_that_broke_off_before_anything_was_shown_is_repeated(session: Session) -> None:
    def note(text: str) -> str:
        """Write it down."""
        return text

    rounds = [stream(call_of('{"text": "a"}'), chunk(finish="tool_calls")), Answer([0.02, RESET]), GOOD]
    with ScriptedServer(*rounds) as server:
        response = llm_at(session, server, max_retries=1).ask("Hi", tools=[note])
    assert response.text == "Fine."
    assert [(attempt.status, attempt.reason) for attempt in response.attempts] == [
        (200, ""),
        (200, "the connection was lost"),
        (200, ""),
    ]


def test_the_next_model_is_asked_where_nothing_had_come(session: Session) -> None:
    with ScriptedServer(Answer([0.02, RESET])) as down, ScriptedServer(GOOD) as up:
        llm_at(session, down)
        session.registry.add("t", "compatible", base_url=up.url)
        session.registry.aliases = {"both": {"model": "s:m", "fallbacks": ["t:m"]}}
        assert LLM("both").ask("Hi").text == "Fine."


def test_a_refused_connection_to_this_machine_is_tried_once_more(session: Session) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for host in ("127.0.0.1", "localhost"):
        session.registry.add("s", "compatible", base_url=f"http://{host}:{port}/v1")
        started = time.perf_counter()
        with pytest.raises(ConnectionFailedError, match="the connection was refused") as caught:
            LLM("s:m").ask("Hi")
        assert time.perf_counter() - started < 5
        assert [attempt.final for attempt in caught.value.response.attempts] == [False, True]


def test_a_handshake_that_never_ends(session: Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/v1"
        session.registry.add("s", "compatible", base_url=url, max_retries=0, timeout=0.3)
        started = time.perf_counter()
        with pytest.raises(TimedOutError, match="did not answer in time"):
            LLM("s:m").ask("Hi")
    assert time.perf_counter() - started < 3


HALF_OF_VECTORS = b'{"object": "list", "data": [{"index": 0, "embedding": [0.5, 0.2'
VECTORS = document({"data": [{"index": 0, "embedding": [0.5, 0.25]}], "usage": {"prompt_tokens": float("nan")}})
DOCUMENTS: dict[str, Answer] = {
    "reset": Answer([HALF_OF_VECTORS, 0.02, RESET]),
    "less than its length": Answer([b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n" + HALF_OF_VECTORS], raw=True),
    "no last chunk": Answer(
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n40\r\n" + HALF_OF_VECTORS], raw=True
    ),
    "no length": Answer([HALF_OF_VECTORS], chunked=False),
}


@pytest.mark.parametrize("broken", DOCUMENTS.values(), ids=DOCUMENTS)
def test_embeddings_that_broke_off_are_asked_for_again(session: Session, broken: Answer) -> None:
    with ScriptedServer(broken, VECTORS) as server:
        vectors = llm_at(session, server, max_retries=1).embed(["a"])
        assert len(server.requests) == 2
    assert list(vectors) == [[0.5, 0.25]]
    with ScriptedServer(broken) as server, pytest.raises(ConnectionFailedError, match="closed the connection before"):
        llm_at(session, server, max_retries=0).embed(["b"])


@pytest.mark.parametrize("broken", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_list_of_models_that_broke_off_is_asked_for_again(session: Session, broken: Answer) -> None:
    with ScriptedServer(broken, document({"data": [{"id": "a"}]})) as server:
        llm_at(session, server, max_retries=1)
        found = session.loop.run(session.registry.get("s").list_models(refresh=True))
        assert len(server.requests) == 2
    assert [card.id for card in found] == ["a"]


@pytest.mark.parametrize("data", [b"[1,", b"\n"], ids=["without end", "blank"])
def test_documents_have_an_end(session: Session, data: bytes) -> None:
    steps = (step for _ in range(200) for step in (data, 0.05))
    with ScriptedServer(Answer(steps)) as server:
        started = time.perf_counter()
        with pytest.raises(LLMError):
            llm_at(session, server, timeout=0.3).embed(["a"])
    assert time.perf_counter() - started < 3


def test_an_error_that_never_ends_is_an_error_of_embeddings_too(session: Session) -> None:
    endless = (b'{"error": {"message": "boom"}}' + b" " * 9000 for _ in iter(int, 1))
    with ScriptedServer(Answer(endless, 500)) as server, pytest.raises(ServerFailedError, match="boom"):
        llm_at(session, server).embed(["a"])
