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


def edit(page: Any, number: int, source: str) -> None:
    page.page.evaluate(
        "([number, source]) => jupyterapp.shell.currentWidget.content.widgets[number]"
        ".model.sharedModel.setSource(source)",
        [number, source],
    )


def restart(page: Any) -> None:
    page.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.ready()


def test_a_cell_that_became_something_else_leaves_no_turn(browser: Any, jupyterlab: str, folder: Path) -> None:
    import lab

    with ScriptedServer(echo) as server:
        cells = [LOAD.replace("URL", server.url), "%%llm\na", "%%llm\nb", "%%llm\nc", "%%llm\nd"]
        with lab.Page(browser, jupyterlab, folder, cells) as page:
            for number in (1, 2, 3, 4):
                page.run(number)
            for number, source in ((2, "print('a')"), (3, "%%llm -c other\nb"), (4, "%%llm --once\nc")):
                edit(page, number, source)
                page.run(number)
                page.run(5)
                assert (
                    sent(server) == ["a", "answer to a", "b", "answer to b", "c", "answer to c", "d"][2 * number - 2 :]
                )
            edit(page, 2, "%llm_chat list")
            page.run(2)
            listed = page.saved().cells[2].outputs[0]["data"]["text/plain"].splitlines()
            assert [line.replace("→", " ").split()[:2] for line in listed[1:3]] == [["other", "1"], ["main", "1"]]
            assert page.faults == []


def test_a_restart_is_said_in_the_first_cell_that_it_concerns(browser: Any, jupyterlab: str, folder: Path) -> None:
    import lab

    with ScriptedServer(echo) as server:
        cells = [LOAD.replace("URL", server.url), "%%llm\na", "%%llm\nb", "%%llm\nc"]
        with lab.Page(browser, jupyterlab, folder, cells) as page:
            for again in (False, True):
                for number in (1, 2, 3, 4):  # Run All
                    page.run(number)
                    assert len(page.saved().cells[number].outputs) == 2 * (number > 1), again
                restart(page)
            page.run(1)
            page.run(4)
            _, note, _ = page.saved().cells[4].outputs
            assert note["data"]["text/plain"] == (
                "The kernel was started anew: the model does not know the 2 answers above. Run those cells again; "
                "LLMMagics.chat_file keeps conversations over restarts."
            )
            assert sent(server) == ["c"]
            page.run(3)
            assert len(page.saved().cells[3].outputs) == 2
            assert page.faults == []
