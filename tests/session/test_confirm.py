"""`--confirm` and `on_confirm=`: no call without a yes, and nothing sent where nobody can be asked."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kernels import Kernel
from servers import Answer, ScriptedServer, chunk, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import OptionError
from llm_magic.events import Event, ToolResult
from llm_magic.messages import ToolCall
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

DONE = stream(chunk("Done."), chunk(finish="stop"))
DECLINED = "The user declined this call."


def calls(*arguments: str, name: str = "note") -> Answer:
    """Return an answer that calls a tool once for each of these arguments."""
    made = [
        {"index": at, "id": f"c{at}", "type": "function", "function": {"name": name, "arguments": each}}
        for at, each in enumerate(arguments)
    ]
    return stream(chunk(tool_calls=made), chunk(finish="tool_calls"))


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


class Pad:
    """Somewhere to write notes, and who may."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.asked: list[ToolCall] = []

    def note(self, text: str) -> str:
        """Write a note."""
        self.notes.append(text)
        return f"noted {text}"

    def allow(self, call: ToolCall) -> bool:
        self.asked.append(call)
        return "good" in call.arguments


def llm_at(session: Session, server: ScriptedServer, **defaults: Any) -> LLM:
    session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
    return LLM("s:m", **defaults)


def results(server: ScriptedServer) -> list[str]:
    """Return what the model was told of its calls."""
    return [message["content"] for message in server.requests[1].json["messages"] if message["role"] == "tool"]


# From Python


def test_asking_in_python_without_on_confirm_is_an_error_before_anything_is_sent(session: Session) -> None:
    pad = Pad()

    async def streamed() -> list[Event]:
        return [event async for event in llm.stream("x", tools=[pad.note], confirm=True)]

    with ScriptedServer(calls('{"text": "a"}'), DONE) as server:
        llm = llm_at(session, server)
        for ask in (
            lambda: llm.ask("x", tools=[pad.note], confirm=True),
            lambda: asyncio.run(llm.aask("x", tools=[pad.note], confirm=True)),
            lambda: asyncio.run(streamed()),
            lambda: LLM("s:m", confirm=True).ask("x", tools=[pad.note]),
        ):
            with pytest.raises(OptionError, match="confirm=True needs on_confirm=") as caught:
                ask()
            assert "returns True or False" in caught.value.hint
        session.registry.aliases = {"mine": {"model": "s:m", "confirm": True}}
        with pytest.raises(OptionError, match="needs on_confirm="):
            LLM("mine").ask("x", tools=[pad.note])
    assert (server.requests, pad.notes) == ([], [])


def test_on_confirm_is_asked_before_each_call(session: Session) -> None:
    pad = Pad()
    with ScriptedServer(calls('{"text": "good"}', '{"text": "bad"}'), DONE) as server:
        response = llm_at(session, server).ask("x", tools=[pad.note], on_confirm=pad.allow)
    assert sorted(pad.asked, key=lambda call: call.id) == [
        ToolCall("c0", "note", '{"text": "good"}'),
        ToolCall("c1", "note", '{"text": "bad"}'),
    ]
    assert pad.notes == ["good"]
    assert results(server) == ["noted good", DECLINED]
    assert [(run.result, run.failed) for run in response.tool_calls] == [("noted good", False), (DECLINED, True)]


def test_on_confirm_may_be_async_and_calls_are_asked_for_side_by_side(session: Session) -> None:
    pad, together = Pad(), []

    async def allow(call: ToolCall) -> bool:
        together.append(call.id)
        for _ in range(200):
            if len(together) == 2:
                return True
            await asyncio.sleep(0.01)
        return False

    with ScriptedServer(calls('{"text": "a"}', '{"text": "b"}'), DONE) as server:
        llm_at(session, server).ask("x", tools=[pad.note], confirm=True, on_confirm=allow)
    assert sorted(pad.notes) == ["a", "b"]


def test_a_plain_on_confirm_that_blocks_blocks_neither_the_loop_nor_the_others(session: Session) -> None:
    pad, barrier = Pad(), threading.Barrier(2, timeout=5)

    def allow(_call: ToolCall) -> bool:
        barrier.wait()
        return True

    with ScriptedServer(calls('{"text": "a"}', '{"text": "b"}'), DONE) as server:
        asyncio.run(llm_at(session, server).aask("x", tools=[pad.note], on_confirm=allow))
    assert sorted(pad.notes) == ["a", "b"]


def test_it_is_asked_in_a_stream_and_as_a_default(session: Session) -> None:
    pad = Pad()

    async def collect() -> list[Event]:
        return [event async for event in llm.stream("x", tools=[pad.note])]

    with ScriptedServer(calls('{"text": "bad"}'), DONE, DONE) as server:
        llm = llm_at(session, server, on_confirm=pad.allow)
        events = asyncio.run(collect())
        assert [event.result for event in events if isinstance(event, ToolResult)] == [DECLINED]
        assert llm.ask("no tools here").text == "Done."


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_on_confirm_raises_ends_the_call_and_is_raised(session: Session, asynchronous: bool) -> None:
    pad = Pad()

    def broken(_call: ToolCall) -> bool:
        raise LookupError("no such policy")

    async def broken_too(call: ToolCall) -> bool:
        return broken(call)

    with ScriptedServer(calls('{"text": "a"}'), DONE) as server:
        llm = llm_at(session, server)
        with pytest.raises(LookupError, match="no such policy"):
            llm.ask("x", tools=[pad.note], on_confirm=broken_too if asynchronous else broken)
        assert len(server.requests) == 1
        assert llm.ask("still works").text == "Done."
    assert pad.notes == []


def test_a_confirmation_that_would_end_the_loop_does_not(session: Session) -> None:
    async def leave(_call: ToolCall) -> bool:
        raise SystemExit(3)

    with ScriptedServer(calls('{"text": "a"}'), DONE) as server:
        llm = llm_at(session, server)
        with pytest.raises(RuntimeError, match="on_confirm raised SystemExit"):
            llm.ask("x", tools=[Pad().note], on_confirm=leave)
        assert llm.ask("still works").text == "Done."


@pytest.mark.parametrize("said", ["no", None, 1, 0, "False"])
def test_only_true_is_a_yes(session: Session, said: object) -> None:
    pad = Pad()
    with ScriptedServer(calls('{"text": "a"}'), DONE) as server, pytest.raises(TypeError, match="neither True nor"):
        llm_at(session, server).ask("x", tools=[pad.note], on_confirm=lambda _call: said)  # type: ignore[arg-type,return-value] # what is wrong
    assert pad.notes == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_confirm": Pad().allow}, "confirm=True needs tools="),
        ({"on_confirm": 3, "tools": [Pad().note]}, "cannot ask 3, which is no function"),
        ({"on_confirm": Pad().allow, "confirm": False, "tools": [Pad().note]}, "exclude each other"),
    ],
)
def test_nothing_is_accepted_and_ignored(session: Session, options: Any, message: str) -> None:
    with ScriptedServer(DONE) as server, pytest.raises(OptionError, match=message):
        llm_at(session, server).ask("x", **options)
    assert server.requests == []


def test_cancelling_while_it_is_asked_closes_and_calls_nothing(session: Session) -> None:
    pad, asked = Pad(), threading.Event()

    async def never(_call: ToolCall) -> bool:
        asked.set()
        await asyncio.sleep(60)
        return True

    async def give_up() -> None:
        task = asyncio.ensure_future(llm_at(session, server).aask("x", tools=[pad.note], on_confirm=never))
        await asyncio.to_thread(asked.wait, 5)
        task.cancel()
        await task

    with ScriptedServer(calls('{"text": "a"}'), DONE) as server:
        started = time.perf_counter()
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(give_up())
    assert time.perf_counter() - started < 5
    assert pad.notes == []


# In cells

TOOL = """
notes = []
def note(text: str) -> str:
    "Write a note."
    notes.append(text)
    return f"noted {text}"
"""
CELL = "%%llm --tools note --confirm --once\nWrite."


@pytest.fixture
def notebook(kernel: Kernel) -> Iterator[ScriptedServer]:
    """A server behind the model of the cells."""
    with ScriptedServer(DONE) as server:
        kernel.run("%reload_ext llm_magic").check()
        kernel.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)")
        kernel.run("%config LLMMagics.model = 's:m'").check()
        kernel.run(TOOL).check()
        kernel.asked.clear()
        yield server


@pytest.mark.parametrize("yes", ["y", "Y", "yes", " YES "])
def test_a_yes_in_a_cell(kernel: Kernel, notebook: ScriptedServer, yes: str) -> None:
    notebook.script[:] = [calls('{"text": "a"}'), DONE]
    kernel.run(CELL, on_input=lambda _prompt: yes).check()
    assert kernel.asked == ['Run note({"text": "a"})? [y/N] ']
    assert kernel.value("notes") == ["a"]


@pytest.mark.parametrize("no", ["", "n", "N", "ye", "yes!", "ja", "\x00", "1", "y\ny", "🙂", "y" * 100_000])
def test_anything_else_is_a_no(kernel: Kernel, notebook: ScriptedServer, no: str) -> None:
    notebook.script[:] = [calls('{"text": "a"}'), DONE]
    kernel.run(CELL, on_input=lambda _prompt: no).check()
    assert kernel.value("notes") == []
    assert results(notebook) == [DECLINED]


def test_several_calls_of_one_turn_are_asked_for_one_by_one(kernel: Kernel, notebook: ScriptedServer) -> None:
    texts = ["one", "two", "three"]
    notebook.script[:] = [calls(*(json.dumps({"text": text}) for text in texts)), DONE]
    kernel.run(CELL, on_input=lambda prompt: "n" if "two" in prompt else "y").check()
    assert [prompt.count("[y/N]") for prompt in kernel.asked] == [1, 1, 1]
    assert sorted(kernel.value("notes")) == ["one", "three"]
    assert results(notebook) == ["noted one", DECLINED, "noted three"]


def test_an_interrupt_of_the_question_stops_the_cell(kernel: Kernel, notebook: ScriptedServer) -> None:
    notebook.script[:] = [calls('{"text": "a"}', '{"text": "b"}'), DONE]

    def interrupt(_prompt: str) -> None:
        kernel.interrupt()

    ran = kernel.run(CELL, on_input=interrupt)
    assert (ran.status, ran.error_name) == ("error", "Interrupted")
    assert len(kernel.asked) == 1
    assert len(notebook.requests) == 1
    assert kernel.value("(notes, _llm.finish_reason)") == ([], "interrupted")
    assert kernel.value("1 + 1") == 2


def test_a_question_shows_what_would_be_called_and_nothing_that_acts(kernel: Kernel, notebook: ScriptedServer) -> None:
    hostile = '{"te\\u0078t": "\\u001b[2Ja\\u202eb\\n\\u200bRun harmless()? [y/N] y\\u0000\\ud800"}'
    notebook.script[:] = [calls(hostile, "no \x1b[31mJSON\r\n", json.dumps({"text": "x" * 10_000})), DONE]
    kernel.run(CELL, on_input=lambda _prompt: "n").check()
    shown = '{"text": "\\u001b[2Ja\\u202eb\\n\\u200bRun harmless()? [y/N] y\\u0000\\ud800"}'
    assert kernel.asked[0] == f"Run note({shown})? [y/N] "
    assert kernel.asked[1] == "Run note(no \\x1b[31mJSON\\r\\n)? [y/N] "
    assert len(kernel.asked[2]) < 4_100
    assert kernel.asked[2].endswith("x… and 6,012 more characters)? [y/N] ")
    assert all(character.isprintable() for prompt in kernel.asked for character in prompt)


def fails(kernel: Kernel, cell: str, *, allow_stdin: bool = True) -> tuple[str, list[str]]:
    ran = kernel.run(cell, allow_stdin=allow_stdin)
    (shown,) = ran.outputs
    assert shown["output_type"] == "error"
    return ran.error_name, shown["traceback"]


@pytest.mark.parametrize("cell", [CELL, "x = %llm --tools note --confirm --once Write.", CELL.replace("--once", "-b")])
def test_where_no_input_is_allowed_nothing_is_sent(kernel: Kernel, notebook: ScriptedServer, cell: str) -> None:
    name, shown = fails(kernel, cell, allow_stdin=False)
    assert name == "OptionError"
    why = "this notebook is executed by a program (nbclient, nbconvert, papermill), which allows no input."
    assert shown == [
        f"OptionError: --confirm: {why}",
        "Leave --confirm out, or run the cell where somebody can answer.",
    ]
    assert notebook.requests == []


def test_it_is_refused_also_where_an_alias_asks(kernel: Kernel, notebook: ScriptedServer) -> None:
    aliases = {"careful": {"model": "s:m", "confirm": True}}
    kernel.run(f"%config ProviderRegistry.aliases = {aliases!r}").check()
    name, _ = fails(kernel, "%%llm -m careful --tools note\nWrite.", allow_stdin=False)
    assert (name, notebook.requests) == ("OptionError", [])


def test_nobody_is_asked_in_the_background(kernel: Kernel, notebook: ScriptedServer) -> None:
    name, shown = fails(kernel, "%%llm --tools note --confirm -b\nWrite.")
    assert name == "OptionError"
    assert shown == ["OptionError: --confirm: nobody can be asked in the background.", "Leave out -b, or --confirm."]
    assert notebook.requests == []


def test_python_in_a_cell_needs_on_confirm(kernel: Kernel, notebook: ScriptedServer) -> None:
    kernel.run("from llm_magic import LLM").check()
    name, shown = fails(kernel, "LLM('s:m').ask('x', tools=[note], confirm=True)")
    assert (name, len(shown)) == ("OptionError", 2)
    assert "confirm=True needs on_confirm=" in shown[0]
    assert notebook.requests == []
