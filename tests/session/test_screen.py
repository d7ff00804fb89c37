"""The screen of a cell: what stands before the run begins, and an interrupt before anything is shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import HANG, Answer, ScriptedServer, chunk, stream

from llm_magic.config.settings import Settings
from llm_magic.display.plain import PlainView
from llm_magic.errors import Interrupted
from llm_magic.options import Options
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.plan import Cell

CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "clock", "arguments": "{}"}}


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    yield session
    session.close()


def test_an_interrupt_while_it_begins_closes_the_request(session: Session) -> None:
    class InterruptedView(PlainView):
        def begin(self, _title: str) -> None:
            deadline = time.monotonic() + 5
            while not server.requests and time.monotonic() < deadline:
                time.sleep(0.01)
            raise KeyboardInterrupt

    with ScriptedServer(Answer([HANG])) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        with pytest.raises(Interrupted):
            session.ask(Cell("x", Options(model="s:m", once=True)), InterruptedView("markdown"))
        assert server.requests[0].left.wait(5)


def test_a_replay_holds_its_outputs_before_it_runs(session: Session, tmp_path: Path) -> None:
    called: list[str] = []
    before: list[int] = []

    class SlowView(PlainView):
        def hold(self) -> None:
            time.sleep(0.2)
            before.append(len(called))

    def clock() -> str:
        """Tell the time."""
        called.append("clock")
        return "noon"

    session.settings.record, session.settings.record_file = "once", str(tmp_path / "r.llm.jsonl")
    cell = Cell("x", Options(model="s:m", once=True, tools=("clock",)), {"clock": clock})
    answers = [
        stream(chunk(tool_calls=[CALL]), chunk(finish="tool_calls")),
        stream(chunk("Noon."), chunk(finish="stop")),
    ]
    with ScriptedServer(*answers) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
        assert session.ask(cell, SlowView("markdown")).text == "Noon."
        session.settings.record = "only"
        again = session.ask(cell, SlowView("markdown"))
    assert (again.text, again.recorded, len(server.requests)) == ("Noon.", True, 2)
    assert (before, called) == ([0, 1], ["clock", "clock"])
