"""Results of tools are shown the moment each is there: the first call ends only once the second one's was seen."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel
from rich.console import Console
from servers import Answer, ScriptedServer, chunk, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.display.terminal import TerminalView
from llm_magic.errors import LLMError
from llm_magic.events import Done, Event, Restarted, ToolResult
from llm_magic.options import Options
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.plan import Cell

DONE = stream(chunk("Done."), chunk(finish="stop"))
PATIENCE = 30.0
"""Seconds after which the first call gives up: only where nothing is shown meanwhile."""


def calls(*names: str) -> Answer:
    made = [
        {"index": at, "id": f"c{at}", "type": "function", "function": {"name": name, "arguments": "{}"}}
        for at, name in enumerate(names)
    ]
    return stream(chunk(tool_calls=made), chunk(finish="tool_calls"))


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


class Gate:
    """A first call that waits until the second one's result was seen."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def first(self) -> str:
        """Wait."""
        return "first is there" if self.seen.wait(PATIENCE) else "nothing was seen"

    async def also_first(self) -> str:
        """Wait, asynchronously."""
        while not self.seen.is_set():  # noqa: ASYNC110 - set on another loop
            await asyncio.sleep(0.01)
        return "also there"

    def second(self) -> str:
        """Do not wait."""
        return "second is there"


def told(server: ScriptedServer) -> list[tuple[str, str]]:
    """Return what the model was told of its calls."""
    messages = server.requests[1].json["messages"]
    return [(each["tool_call_id"], each["content"]) for each in messages if each["role"] == "tool"]


def test_in_a_stream(session: Session) -> None:
    gate, found = Gate(), list[Event]()

    async def collect() -> None:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        async for event in LLM("s:m").stream("Go", tools=[gate.first, gate.also_first, gate.second]):
            found.append(event)
            if isinstance(event, ToolResult) and event.name == "second":
                gate.seen.set()

    with ScriptedServer(calls("first", "also_first", "second"), DONE) as server:
        asyncio.run(collect())
    results = [event for event in found if isinstance(event, ToolResult)]
    assert (results[0].id, results[0].result, results[0].place) == ("c2", "second is there", 2)
    assert {(event.id, event.place) for event in results[1:]} == {("c0", 0), ("c1", 1)}
    assert found.index(results[-1]) < found.index(Restarted("tools"))
    in_order = [("c0", "first is there"), ("c1", "also there"), ("c2", "second is there")]
    assert told(server) == in_order
    assert isinstance(found[-1], Done)
    assert [(run.id, run.result) for run in found[-1].response.tool_calls] == in_order


def test_the_order_of_several_rounds_is_kept(session: Session) -> None:
    """Each round by itself: what ended last in the first stands before the second."""
    gate = Gate()

    async def collect() -> Done:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        async for event in LLM("s:m").stream("Go", tools=[gate.first, gate.second]):
            if isinstance(event, ToolResult) and event.name == "second":
                gate.seen.set()
            if isinstance(event, Restarted):
                gate.seen.clear()
        assert isinstance(event, Done)
        return event

    with ScriptedServer(calls("first", "second"), calls("second", "first", "second"), DONE) as server:
        done = asyncio.run(collect())
    names = [(run.id, run.name) for run in done.response.tool_calls]
    assert names == [("c0", "first"), ("c1", "second"), ("c0", "second"), ("c1", "first"), ("c2", "second")]
    assert not [run for run in done.response.tool_calls if run.result == "nothing was seen"]


def test_a_result_that_came_is_kept_where_another_call_ends_the_run(session: Session) -> None:
    gate = Gate()

    def allow(call: Any) -> bool:
        if call.name == "first":
            gate.seen.wait(PATIENCE)
            raise ZeroDivisionError
        return True

    async def collect() -> None:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        async for event in LLM("s:m").stream("Go", tools=[gate.first, gate.second], on_confirm=allow):
            if isinstance(event, ToolResult):
                gate.seen.set()

    with ScriptedServer(calls("first", "second"), DONE) as server, pytest.raises(ZeroDivisionError):
        asyncio.run(collect())
    assert gate.seen.is_set()
    assert len(server.requests) == 1


class Watched(io.StringIO):
    """A terminal that tells once it shows a text."""

    def __init__(self, text: str, tell: Callable[[], None]) -> None:
        super().__init__()
        self._text, self._tell = text, tell

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._text in self.getvalue():
            self._tell()
        return written


def test_in_a_terminal(session: Session) -> None:
    gate = Gate()
    screen = Watched("second is there", gate.seen.set)
    view = TerminalView("markdown", 20, console=Console(file=screen, force_terminal=True, width=100, color_system=None))
    with ScriptedServer(calls("first", "second"), DONE) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        tools = {"first": gate.first, "second": gate.second}
        options = Options(model="s:m", once=True, tools=tuple(tools.values()))
        response = session.ask(Cell("Go", options, tools), view)
    assert [run.result for run in response.tool_calls] == ["first is there", "second is there"]
    assert screen.getvalue().index("second is there") < screen.getvalue().index("first is there")


TOOLS = """
import pathlib, time
def first() -> str:
    "Wait."
    for _ in range(1500):
        if pathlib.Path({gate!r}).exists():
            return "first is there"
        time.sleep(0.02)
    return "nothing was seen"
def second() -> str:
    "Do not wait."
    return "second is there"
"""


@pytest.mark.parametrize("options", ["", "-b"])
def test_in_a_notebook(kernel: Kernel, tmp_path: Path, options: str) -> None:
    gate = tmp_path / "seen"

    def watch(message: dict[str, Any]) -> None:
        data = message["content"].get("data", {})
        if "second() → second is there" in data.get("text/plain", ""):
            gate.touch()

    with ScriptedServer(calls("first", "second"), DONE) as server:
        kernel.run("%reload_ext llm_magic").check()
        kernel.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)")
        kernel.run(TOOLS.format(gate=str(gate))).check()
        request = (
            kernel.run(f"%%llm -m s:m --tools first,second --once {options}\nGo", on_message=watch).check().request
        )
        while not gate.exists():  # a cell in the background goes on in its own outputs
            watch(kernel.client.get_iopub_msg(timeout=PATIENCE))
        results = kernel.value("[run.result for run in (_.result() if hasattr(_, 'result') else _).tool_calls]")
        del request
    assert results == ["first is there", "second is there"]
    assert told(server) == [("c0", "first is there"), ("c1", "second is there")]


def test_a_cell_that_runs_out_of_rounds_keeps_them_in_order(session: Session) -> None:
    gate = Gate()
    gate.seen.set()
    with ScriptedServer(calls("first", "second")) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        with pytest.raises(LLMError) as caught:
            LLM("s:m").ask("Go", tools=[gate.first, gate.second], max_tool_rounds=1)
    assert caught.value.response is not None
    found = [(run.id, run.result) for run in caught.value.response.tool_calls]
    assert found == [("c0", "first is there"), ("c1", "second is there"), ("c0", None), ("c1", None)]
