"""`-b` where nobody reads what comes after a cell (no input is allowed): in the foreground, and it says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels import Kernel
from servers import Received, ScriptedServer, chunk, document, stream

SAID = "-b: ran in the foreground, for this notebook is executed by a program, which reads no late outputs."


def slow(request: Received) -> Any:
    """Answer in half a second."""
    said = request.json["messages"][-1]["content"]
    return stream(chunk("answer "), 0.25, chunk(f"to {said}"), 0.25, chunk(finish="stop"))


@pytest.fixture
def server(kernel: Kernel) -> Iterator[ScriptedServer]:
    with ScriptedServer(slow) as server:
        kernel.run("%reload_ext llm_magic").check()
        kernel.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)")
        kernel.run("%config LLMMagics.model = 's:m'").check()
        yield server


def plain(outputs: list[Any]) -> list[str]:
    return [output["data"]["text/plain"] for output in outputs if "data" in output]


def test_the_cell_holds_the_whole_answer_and_one_line_about_it(kernel: Kernel, server: ScriptedServer) -> None:
    ran = kernel.run("%%llm -b -o x --once\nA", allow_stdin=False).check()
    answer, note, footer = ran.outputs
    assert answer["data"] == {"text/plain": "answer to A", "text/markdown": "answer to A"}
    assert answer["metadata"]["llm_magic"]["finish_reason"] == "stop"
    assert note["data"]["text/plain"] == SAID
    assert footer["data"]["text/plain"].startswith("s:m · ")
    assert kernel.value("(x, _llm.text)") == ("answer to A", "answer to A")


def test_the_result_is_a_job_as_in_the_background(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("job = %llm -b --once A", allow_stdin=False).check()
    assert kernel.value("(repr(job), job.done(), job.cancel())") == ("<Job s:m: done>", True, False)
    assert kernel.value("(job.result().text, job.result(0) is _llm)") == ("answer to A", True)
    kernel.run("again = (await job).text", allow_stdin=False).check()
    assert kernel.value("again") == "answer to A"


def test_a_cell_that_fails_fails(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [document({"error": {"message": "melted"}}, status=503)]
    ran = kernel.run("%%llm -b --once -o never\nA", allow_stdin=False)
    assert (ran.status, ran.error_name) == ("error", "ServerFailedError")
    assert "melted" in ran.error
    assert plain(ran.outputs) == [SAID]
    assert kernel.value("'never' in globals()") is False


def test_what_is_wrong_with_it_is_all_that_is_said(kernel: Kernel, server: ScriptedServer) -> None:
    ran = kernel.run("%%llm -b --once\n{{ nothing_like_it }}", allow_stdin=False)
    assert [output["output_type"] for output in ran.outputs] == ["error"]
    assert ran.error_name == "PromptError"


def test_options_that_go_with_it(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [stream(chunk("7"), chunk(finish="stop"))]
    kernel.run("%%llm -b --as int -o seven --once\nA", allow_stdin=False).check()
    assert kernel.value("seven") == 7
    server.script[:] = [stream(chunk("```python\nx = 1\n```\n"), chunk(finish="stop"))]
    ran = kernel.run("%%llm -b --code --once\nA", allow_stdin=False).check()
    assert kernel.last_reply["payload"] == []
    assert ran.stdout == "--code: nobody reads a next cell here, so this is the code:\nx = 1\n"
    server.script[:] = [slow]
    kernel.run("%%llm -b -c talk\nA", "a", allow_stdin=False).check()
    kernel.run("%%llm -b -c talk\nB", "b", allow_stdin=False).check()
    assert [each["content"] for each in server.requests[-1].json["messages"]] == ["A", "answer to A", "B"]
    assert plain(kernel.run("%%llm -b --show none --once\nA", allow_stdin=False).check().outputs) == [SAID]


def test_an_interrupt_stops_it(kernel: Kernel, server: ScriptedServer) -> None:
    seen: list[str] = []

    def interrupt(message: dict[str, Any]) -> None:
        if not seen and "answer" in str(message["content"].get("data", "")):
            seen.append("an answer")
            kernel.interrupt()

    ran = kernel.run("%%llm -b --once\nA", allow_stdin=False, on_message=interrupt)
    assert (ran.status, ran.error_name) == ("error", "Interrupted")
    assert server.requests[0].left.wait(2)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[tuple[Path, ScriptedServer]]:
    """A folder with a configuration of its own, and the server that it names."""
    with ScriptedServer(slow) as server:
        (tmp_path / "notebook").mkdir()
        cells = [
            "%load_ext llm_magic",
            f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)",
            "%%llm -m s:m -b -o first\nA",
            "%%llm -m s:m -b\nB",
        ]
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in cells])
        nbformat.write(book, tmp_path / "notebook" / "asks.ipynb")
        yield tmp_path / "notebook", server


def test_nbconvert_keeps_every_answer(folder: tuple[Path, ScriptedServer]) -> None:
    path, _ = folder
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "done", "asks.ipynb"]
    done = subprocess.run(command, cwd=path, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 - our own command
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(path / "done.ipynb", as_version=4).cells
    for number, said in ((2, "A"), (3, "B")):
        answer, note, _footer = plain(cells[number].outputs)
        assert (answer, note) == (f"answer to {said}", SAID)
        (shown,) = [each for each in cells[number].outputs if "text/markdown" in each.get("data", {})]
        assert shown["metadata"]["llm_magic"]["finish_reason"] == "stop"


def test_nbclient_keeps_every_answer_and_stops_at_a_failure(folder: tuple[Path, ScriptedServer]) -> None:
    import nbclient

    path, server = folder
    book = nbformat.read(path / "asks.ipynb", as_version=4)
    nbclient.NotebookClient(book, timeout=60, resources={"metadata": {"path": str(path)}}).execute()
    assert [plain(cell.outputs)[0] for cell in book.cells[2:]] == ["answer to A", "answer to B"]
    server.script[:] = [document({"error": {"message": "melted"}}, status=503)]
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="melted"):
        nbclient.NotebookClient(book, timeout=60, resources={"metadata": {"path": str(path)}}).execute()
