"""A replayed cell in JupyterLab: it looks as it did, is there at once, and the file beside the notebook answers it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from servers import Answer, ScriptedServer, chunk, stream

LOAD = """%load_ext llm_magic
get_ipython()._llm_magic.registry.add("s", "compatible", base_url="URL")
%config LLMMagics.model = "s:m"
%config LLMMagics.record = "once"
def clock(zone: str) -> str:
    "Tell the time."
    return "noon\""""
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "x"}'}}
HEAR = """() => {
    window.heard = [];
    const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    kernel.iopubMessage.connect((_, message) => window.heard.push(message.header.msg_type));
}"""


def rounds(text: str) -> list[Answer]:
    """Return a call of a tool after some reasoning, and a text as it streams."""
    first = stream(
        chunk(reasoning_content="I should look at the clock. " * 6), 0.1, chunk("Let me see."), 0.2,
        chunk(tool_calls=[CALL]), chunk(finish="tool_calls"),
    )  # fmt: skip
    steps: list[Any] = []
    for at in range(0, len(text), 40):
        steps += [chunk(text[at : at + 40]), 0.02]
    usage = {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 345}}
    return [first, stream(*steps, chunk(finish="stop"), usage)]


def shown(page: Any, number: int) -> bytes:
    """Return a picture of the outputs of a cell, when all is drawn."""
    page.page.wait_for_timeout(1000)
    picture: bytes = page.cell(number).screenshot()
    return picture


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_it_looks_as_it_did_and_is_there_at_once(
    request: pytest.FixtureRequest, browser: Any, folder: Path, pictures: Path, app: str
) -> None:
    import lab
    import replay

    url = request.getfixturevalue("jupyterlab" if app == "lab" else "notebook7")
    with ScriptedServer() as server:
        server.script[:] = rounds(replay.TEXTS["warm"])
        cells = [LOAD.replace("URL", server.url), "%%llm --once --tools clock\nWhat time is it?"]
        with lab.Page(browser, url, folder, cells, app=app) as page:
            page.run(1)
            page.run(2)
            live, picture = page.saved().cells[2].outputs, shown(page, 2)
            assert len(server.requests) == 2
            assert page.path.with_suffix(".llm.jsonl").exists()
            page.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
            page.ready()
            page.run(0)
            page.run(1)
            page.page.evaluate(HEAR)
            page.watch(2)
            page.run(2)
            again = page.saved().cells[2].outputs
            assert shown(page, 2) == picture
            page.page.screenshot(path=pictures / f"replayed-{app}.png")
            heard = page.page.evaluate("window.heard")
            assert [kind for kind in heard if kind not in {"status", "execute_input"}] == ["display_data"] * 3
            assert page.seen()["outputs"] == 3
            assert without_mark(again) == json.loads(json.dumps(live))
            assert len(server.requests) == 2
            assert page.faults == [] or app == "notebook"  # which has faults of its own


def without_mark(outputs: Any) -> Any:
    """Return outputs without what tells that they come from a recording."""
    outputs = copy.deepcopy(json.loads(json.dumps(outputs)))
    marks = [each["metadata"]["llm_magic"].pop("recorded") for each in outputs if "llm_magic" in each["metadata"]]
    assert marks == [True]
    return outputs


def test_at_the_recorded_pace_it_grows(browser: Any, jupyterlab: str, folder: Path) -> None:
    import lab
    import replay

    with ScriptedServer() as server:
        server.script[:] = rounds(replay.TEXTS["warm"])[1:]
        setup = LOAD.replace("URL", server.url)
        cells = [setup, "%%llm --once\nWrite.", "%config LLMMagics.replay_pace = 1"]
        with lab.Page(browser, jupyterlab, folder, cells) as page:
            for number in (1, 2, 3):
                page.run(number)
            live = page.saved().cells[2].outputs
            page.page.evaluate(HEAR)
            page.run(2)
            assert without_mark(page.saved().cells[2].outputs) == json.loads(json.dumps(live))
            heard = page.page.evaluate("window.heard")
            assert heard.count("update_display_data") > 3
            assert heard.count("clear_output") == 1
            assert len(server.requests) == 1
            assert page.faults == []
