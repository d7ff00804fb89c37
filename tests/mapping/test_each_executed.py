"""`%%llm --each` in notebooks that a program executes (nbclient, nbconvert, papermill), and the pages made of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from servers import Answer, Received, ScriptedServer, document

nbclient = pytest.importorskip("nbclient", reason="needs nbclient: the extra `demo`")

WELL = "%%llm --each range(30) -o numbers\nSay {{ item }}"
FAILS = "%%llm --each range(30) -o parts\nTry {{ item }}"
KEPT = "%%llm --each range(30) --on-error keep -o kept\nKeep {{ item }}"
FRAME = "%%llm --each frame -o labelled\nSay {{ text }}"
REFUSED = "4 of 30 failed: 4 RequestRefusedError; run the cell again to ask for those."


def answer(request: Received) -> Answer:
    """Answer after a moment; of what is tried or kept, every eighth row is refused."""
    said = str(request.json["messages"][-1]["content"])
    if said.startswith(("Try", "Keep")) and int(said.rsplit(maxsplit=1)[-1]) % 8 == 3:
        return document({"error": {"message": "too <long>"}}, status=400)
    choice = {"index": 0, "message": {"role": "assistant", "content": f"<i>{said}</i> | $x$"}, "finish_reason": "stop"}
    made = document({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    made.steps = [0.1, *made.steps]
    return made


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(answer) as server:
        yield server


def notebook(server: ScriptedServer, *sources: str) -> Any:
    first = (
        "%load_ext llm_magic\n"
        f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)\n"
        "%config LLMMagics.model = 's:m'\n"
        "import pandas as pd\n"
        'frame = pd.DataFrame({"text": ["good", "bad"]}, index=["a<b", "c|d"])'
    )
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(source) for source in (first, *sources)]
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def written(book: Any, folder: Path) -> Path:
    path = folder / "rows.ipynb"
    nbformat.write(book, path)
    return path


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own notebook
        [sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def check(cells: list[Any]) -> None:
    """See that each cell of many rows holds one output of its rows, nothing of what was on its way, and its error."""
    kinds = [[output["output_type"] for output in cell.outputs] for cell in cells]
    assert kinds == [["display_data"], ["display_data", "error"], ["display_data"], ["display_data"]]
    for cell, rows in zip(cells, (30, 30, 30, 2), strict=True):
        data = cell.outputs[0]["data"]
        assert set(data) == {"text/plain", "text/html", "text/markdown"}
        assert data["text/plain"].splitlines()[-1].startswith(f"s:m · {rows} rows in ")
        assert not re.search("unfinished|progress|in flight", str(cell.outputs))
    error = cells[1].outputs[1]
    assert (error["ename"], error["evalue"].splitlines()[0]) == ("RowsFailedError", REFUSED)
    assert len(error["traceback"]) <= 2
    assert "in ask" not in str(error["traceback"])
    assert cells[3].outputs[0]["data"]["text/plain"].splitlines()[1:3] == [
        "a<b  <i>Say good</i> | $x$",
        "c|d  <i>Say bad</i> | $x$",
    ]


def test_a_row_that_fails_ends_the_execution(server: ScriptedServer, tmp_path: Path) -> None:
    book = notebook(server, WELL, FAILS, "after = 1")
    with pytest.raises(nbclient.exceptions.CellExecutionError) as caught:
        nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (caught.value.ename, caught.value.evalue.splitlines()[0]) == ("RowsFailedError", REFUSED)
    assert [len(cell.outputs) for cell in book.cells] == [0, 1, 2, 0]


def test_errors_that_are_allowed_or_kept(server: ScriptedServer, tmp_path: Path) -> None:
    book = notebook(server, WELL, FAILS, KEPT, FRAME, "len(numbers), len(parts.failed), kept.failed, labelled.shape")
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=120, allow_errors=True, resources=resources).execute()
    check(book.cells[1:5])
    assert book.cells[5].outputs[0]["data"]["text/plain"] == "(30, 4, [3, 11, 19, 27], (2, 2))"


def test_a_cell_may_be_said_to_raise(server: ScriptedServer, tmp_path: Path) -> None:
    book = notebook(server, FAILS, "len(parts.failed)")
    book.cells[1].metadata["tags"] = ["raises-exception"]
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert book.cells[2].outputs[0]["data"]["text/plain"] == "4"


def test_executed_again_only_the_rows_that_failed_are_asked(server: ScriptedServer, tmp_path: Path) -> None:
    for _ in range(2):
        book = notebook(server, FAILS)
        resources = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(book, timeout=120, allow_errors=True, resources=resources).execute()
    assert len(server.requests) == 30 + 4
    assert "26 of 30 answered before; asking for the rest" in book.cells[1].outputs[0]["data"]["text/plain"]
    assert len(book.cells[1].outputs) == 2


def test_nbconvert_executes_it_and_makes_a_page_of_it(server: ScriptedServer, tmp_path: Path) -> None:
    pytest.importorskip("nbconvert", reason="needs nbconvert: the extra `demo`")
    path = written(notebook(server, WELL, FAILS, KEPT, FRAME), tmp_path)
    refused = program("nbconvert", "--to=notebook", "--execute", "--output=refused", str(path))
    assert refused.returncode
    assert REFUSED in refused.stderr
    assert "Traceback (most recent call last)" in refused.stderr  # of nbconvert
    assert "llm_magic/" not in refused.stderr  # not of ours
    ran = program("nbconvert", "--to=notebook", "--execute", "--allow-errors", "--inplace", str(path))
    assert ran.returncode == 0, ran.stderr
    cells = nbformat.read(path, as_version=4).cells[1:]
    assert "26 of 30 answered before" in cells[1].outputs[0]["data"]["text/plain"]
    for kind in ("html", "markdown"):
        assert program("nbconvert", f"--to={kind}", str(path)).returncode == 0
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    tables = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert [table.count("<tr>") for table in tables] == [11, 11, 11, 3]
    assert "&lt;i&gt;Say good&lt;/i&gt; | $x$" in tables[3]
    assert "<i>" not in "".join(tables)
    assert 'scope="row"' in tables[3]
    assert "a&lt;b" in tables[3]
    assert "too &lt;long&gt;" in tables[1]
    assert "<progress" not in page
    assert REFUSED in page
    marked = path.with_suffix(".md").read_text(encoding="utf-8")
    assert marked.count("s:m · 30 rows") == 3


def test_papermill_executes_it(server: ScriptedServer, tmp_path: Path) -> None:
    papermill = pytest.importorskip("papermill", reason="needs papermill: the extra `test`")
    book = notebook(server, "count = 5", "%%llm --each range(count) -o numbers\nSay {{ item }}", FAILS, "after = 1")
    book.cells[1].metadata["tags"] = ["parameters"]
    made = tmp_path / "made.ipynb"
    with pytest.raises(papermill.exceptions.PapermillExecutionError, match="4 of 30 failed: 4 RequestRefusedError"):
        papermill.execute_notebook(
            written(book, tmp_path), made, {"count": 12}, progress_bar=False, cwd=str(tmp_path), log_output=False
        )
    cells = [cell for cell in nbformat.read(made, as_version=4).cells if cell.source.startswith("%%llm")]
    assert [len(cell.outputs) for cell in cells] == [1, 2]
    assert "10 of 12 rows" in cells[0].outputs[0]["data"]["text/plain"]
    assert "unfinished" not in str(cells)
