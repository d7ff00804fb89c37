"""What a response and a background cell keep alive, in objects; `benchmarks/soak.py` measures the bytes."""

import gc
import json
import time
import weakref
from collections.abc import Iterator
from itertools import pairwise

import pytest
from kernels import Kernel
from servers import HANG, Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.display.plain import PlainView
from llm_magic.draft import Draft
from llm_magic.errors import LLMError
from llm_magic.events import Opened
from llm_magic.messages import Message
from llm_magic.options import Options
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.response import Response
from llm_magic.session import Session
from llm_magic.session.job import Job
from llm_magic.session.plan import Cell
from llm_magic.session.run import Run
from llm_magic.session.screen import Screen

GOOD = stream(chunk("Fine."), chunk(finish="stop"))
HANGS = stream(chunk("Begun"), HANG, done=False)


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def numbered(received: Received) -> Answer:
    """Answer with the number of messages that came, so that no two turns are equal."""
    return stream(chunk(f"Answer to {len(received.json['messages'])}."), chunk(finish="stop"))


def test_responses_hold_one_copy_of_the_conversation(session: Session) -> None:
    with ScriptedServer(numbered) as server:
        session.registry.add("s", "compatible", base_url=server.url)
        responses = [LLM("s:m").ask(f"Prompt {number}", chat="c") for number in range(12)]
        sent = server.requests[-1].json["messages"]
    for before, after in pairwise(responses):
        shared = len(before.messages) - 1  # all but its own prompt
        assert all(old is new for old, new in zip(before.messages[:shared], after.messages, strict=False))
    assert [(message.role, message.text) for message in responses[-1].messages] == [
        (message["role"], message["content"]) for message in sent
    ]
    assert sent[0] == {"role": "user", "content": "Prompt 0"}
    distinct = {id(message) for response in responses for message in response.messages}
    # 11 turns of two messages as history, and the prompt of each of the 12 as it was sent
    assert len(distinct) <= 11 * 2 + 12
    del before, after
    gc.collect()
    ours = [found for found in gc.get_objects() if isinstance(found, Message) and found.text.startswith("Answer to")]
    assert len(ours) == len({message.text for message in ours}) == 12
    texts = {response.text: response.text for response in responses}
    assert all(message.parts[0].text is texts[message.text] for message in ours)  # type: ignore[union-attr]


def test_messages_that_nobody_holds_are_gone(session: Session) -> None:
    with ScriptedServer(numbered) as server, ScriptedServer(GOOD) as other:
        session.registry.add("s", "compatible", base_url=server.url)
        session.registry.add("other", "compatible", base_url=other.url)
        responses = [LLM("s:m").ask(f"Prompt {number}", chat="c") for number in range(5)]
        gone = [weakref.ref(message) for response in responses for message in response.messages]
        del responses
        for number in range(33):
            LLM("other:m").ask(f"Another prompt {number}", chat="d")
    gc.collect()
    assert [message() for message in gone if message() is not None] == []


def test_headers_that_repeat_are_kept_once() -> None:
    responses = []
    for number in range(2):
        draft = Draft()
        headers = json.loads(f'{{"x-name": "some", "x-ratelimit-left": "{number}"}}')
        draft.add(Opened(200, headers))
        responses.append(draft.response())
    (first, second) = (list(response.headers.items()) for response in responses)
    assert (first[0], second[1]) == (("x-name", "some"), ("x-ratelimit-left", "1"))
    assert first[0][0] is second[0][0]
    assert first[0][1] is second[0][1]
    assert [response.rate_limits for response in responses] == [{"left": "0"}, {"left": "1"}]


def job_of(session: Session, answer: Answer) -> tuple[Job, list[weakref.ref[object]]]:
    """Return a background cell that is done, and what did its work."""
    others = [found for found in gc.get_objects() if isinstance(found, Run | Screen | Draft)]
    known = {id(other) for other in others}
    with ScriptedServer(answer) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        view = PlainView("none", streams=False)
        options = Options(model="s:m", once=True)
        job = session.ask_in_background(Cell("Hi", options, {}), view, lambda _: None, lambda _: None)
        while not job.done():
            time.sleep(0.01)
        made = (found for found in gc.get_objects() if isinstance(found, Run | Screen | Draft))
        working = [view, *(found for found in made if id(found) not in known)]
        return job, [weakref.ref(each) for each in working]


def alive(references: list[weakref.ref[object]]) -> list[str]:
    """Return what is alive, once the thread of the cell had the time to end."""
    for _ in range(100):
        gc.collect()
        found = [type(each).__name__ for reference in references if (each := reference()) is not None]
        if not found:
            break
        time.sleep(0.02)
    return found


def test_a_background_cell_that_is_done_keeps_its_response_alone(session: Session) -> None:
    job, working = job_of(session, GOOD)
    assert alive(working) == []
    assert isinstance(job.result(), Response)
    assert (repr(job), job.cancel(), job.result().text) == ("<Job s:m: done>", False, "Fine.")
    assert session.jobs == set()


def test_nor_does_one_that_failed_keep_the_cell_in_its_traceback(session: Session) -> None:
    job, working = job_of(session, document({"error": {"message": "no such model"}}, 400))
    assert alive(working) == []
    with pytest.raises(LLMError, match="no such model"):
        job.result()
    assert repr(job) == "<Job s:m: failed>"


def test_what_ipython_keeps_of_an_error_is_what_it_showed(kernel: Kernel) -> None:
    with ScriptedServer(document({"error": {"message": "no such model"}}, 400)) as server:
        kernel.run(f"get_ipython()._llm_magic.registry.add('bad', 'compatible', base_url={server.url!r})").check()
        ran = kernel.run("%%llm -m bad:m --once\nHi")
    assert ran.error_name == "ModelNotFoundError"
    kept = kernel.value("list(get_ipython().history_manager.exceptions.values())[-1]")
    assert kept["traceback"] == ran.outputs[-1]["traceback"]
    assert len(kept["traceback"]) <= 2


@pytest.mark.parametrize(
    "code",
    [
        "await LLM('hangs:m').aask('Hi')",
        "async for event in LLM('hangs:m').stream('Hi'): pass",
    ],
)
def test_an_interrupt_ends_a_cell_that_awaits_a_silent_server(kernel: Kernel, code: str) -> None:
    with ScriptedServer(HANGS) as server:
        kernel.run("from llm_magic import LLM").check()
        kernel.run(f"get_ipython()._llm_magic.registry.add('hangs', 'compatible', base_url={server.url!r})").check()
        request = kernel.start(code)
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.3)
        begun = time.perf_counter()
        kernel.interrupt()
        ran = kernel.collect(request, timeout=20)
        assert time.perf_counter() - begun < 5
        assert ran.status == "error"
        assert server.requests[0].left.wait(5)


def test_an_interrupt_ends_the_wait_for_a_background_cell_and_not_the_cell(kernel: Kernel) -> None:
    with ScriptedServer(stream(chunk("Begun"), 3.0, chunk(finish="stop"))) as server:
        kernel.run(f"get_ipython()._llm_magic.registry.add('slow', 'compatible', base_url={server.url!r})").check()
        kernel.run(
            "from llm_magic.options import Options\nfrom llm_magic.session.plan import Cell\n"
            "from llm_magic.display.plain import PlainView\n"
            "job = get_ipython()._llm_magic.session.ask_in_background("
            "Cell('Hi', Options(model='slow:m', once=True), {}), PlainView('none', streams=False), print, print)"
        ).check()
        request = kernel.start("await job")
        time.sleep(0.5)
        begun = time.perf_counter()
        kernel.interrupt()
        ran = kernel.collect(request, timeout=20)
        assert time.perf_counter() - begun < 2
        assert ran.status == "error"
        assert kernel.value("(job.result(10).text, repr(job))") == ("Begun", "<Job slow:m: done>")
