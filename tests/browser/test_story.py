"""Whole stories in JupyterLab: a conversation whose first cell runs again, and five cells that stream at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from servers import Answer, Received, ScriptedServer, chunk, stream

LOAD = """%load_ext llm_magic
get_ipython()._llm_magic.registry.add("s", "compatible", base_url="URL")
%config LLMMagics.model = "s:m\""""


def echo(request: Received) -> Answer:
    """Answer with what was asked last."""
    return stream(chunk(f"answer to {request.json['messages'][-1]['content']}"), chunk(finish="stop"))


def slow(request: Received) -> Answer:
    """Take two seconds over twenty words."""
    name = request.json["messages"][-1]["content"]
    steps: list[Any] = []
    for number in range(20):
        steps += [chunk(f"{name}{number} "), 0.1]
    return stream(*steps, chunk(finish="stop"))


def sent(server: ScriptedServer) -> list[str]:
    return [message["content"] for message in server.requests[-1].json["messages"]]


def test_a_cell_run_again_replaces_its_own_turn(browser: Any, jupyterlab: str, folder: Path) -> None:
    import lab

    with ScriptedServer(echo) as server:
        cells = [LOAD.replace("URL", server.url), "%%llm\na", "%%llm\nb", "%%llm\nc"]
        with lab.Page(browser, jupyterlab, folder, cells) as page:
            for number in (1, 2, 3, 4):
                page.run(number)
            assert sent(server) == ["a", "answer to a", "b", "answer to b", "c"]
            page.run(2)
            assert sent(server) == ["a"]
            page.run(4)
            assert sent(server) == ["a", "answer to a", "b", "answer to b", "c"]
            outputs = page.saved().cells[4].outputs
            assert outputs[0]["data"]["text/markdown"] == "answer to c"
            assert "2 turns of history" in outputs[1]["data"]["text/plain"]
            assert page.faults == []


def test_five_cells_stream_at_once_while_a_sixth_computes(browser: Any, jupyterlab: str, folder: Path) -> None:
    import lab

    names = "abcde"
    with ScriptedServer(slow) as server:
        cells = [
            LOAD.replace("URL", server.url),
            *(f"%%llm -b --once -o {name}_\n{name}" for name in names),
            "sum(range(1000))",
            "import time\nwhile not all(name + '_' in globals() for name in 'abcde'): time.sleep(0.05)\nprint('all')",
        ]
        with lab.Page(browser, jupyterlab, folder, cells) as page:
            for number in range(1, 7):
                page.run(number)
            page.run(7)
            assert "499500" in page.saved().cells[7].outputs[0]["data"]["text/plain"]
            assert not any("19 " in str(cell.outputs) for cell in page.saved().cells[2:7])  # all still stream
            assert page.printed(8) == "all\n"
            page.page.wait_for_timeout(500)
            saved = page.saved()
            for number, name in enumerate(names, start=2):
                text = "".join(f"{name}{word} " for word in range(20))
                assert saved.cells[number].outputs[0]["data"]["text/plain"] == text
            assert page.faults == []
