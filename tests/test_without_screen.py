"""Every magic in a notebook that a program executes (nbclient): nothing asks, or fails for want of a front end."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from servers import Answer, Received, ScriptedServer, chunk, document, stream


def endpoint(request: Received) -> Answer:
    if request.path.endswith("/models"):
        return document({"data": [{"id": "m"}]})
    if request.path.endswith("/embeddings"):
        return document({"data": [{"index": 0, "embedding": [1.0, 2.0]}], "model": "m"})
    return stream(chunk("Hello"), chunk(finish="stop"))


CELLS = {
    "%llm_picker": "Model picker: s:m. It works in JupyterLab and Notebook while the kernel runs.",
    "%llm_picker --list": "1  s:m",
    "%llm_picker 1": "LLMMagics.model = 's:m'",
    "%llm_models s": "s:m",
    "%llm_config model": "'s:m'",
    "%llm_provider": "compatible",
    "%llm_provider test s": "s answers",
    "%llm_chat": "main",
    "%%llm\nHi": "Hello",
    "%llm Are you there?": "Hello",
    "%llm_chat show": "Are you there?",
    "%llm_chat reset": "forgotten",
    "%%llm -b\nHi": "Hello",
    "%%llm --code\nHi": "Hello",
    "%%llm --dry-run\nHi": "POST http://127.0.0.1",
    "%%llm --help": "--confirm",
    "%%llm_embed\nsea": "1 vector of 2 dimensions",
    "%llm_usage": "requests",
    "%%capture caught\n%llm Hi": "",
    "caught.show()": "Hello",
    "from llm_magic import LLM\nprint(LLM('s:m').ask('x').text)": "Hello",
    "(await LLM('s:m').aask('x')).text": "Hello",
    "%reload_ext llm_magic": "",
    "%unload_ext llm_magic": "",
}


def test_each_magic(tmp_path: Any) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: the extra `demo`")
    with ScriptedServer(endpoint) as server:
        add = f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)"
        first = ["%load_ext llm_magic", add, "%config LLMMagics.model = 's:m'"]
        cells = [nbformat.v4.new_code_cell(each) for each in [*first, *CELLS]]
        book = nbformat.v4.new_notebook(cells=cells)
        nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell, (source, expected) in zip(book.cells[len(first) :], CELLS.items(), strict=True):
        shown = "\n".join(each.get("text") or each["data"]["text/plain"] for each in cell.outputs)
        assert cell.source == source
        assert expected in shown
        assert bool(shown) is bool(expected)
        assert "unfinished" not in str(cell.outputs)
        assert not any(each.get("name") == "stderr" for each in cell.outputs)


SEVERAL = {
    "%%llm -m s:m,s:n\nHi": "[s:m]\nHello",
    "%%llm -m s:m,s:n --choices Hello,Bye\nHi": "s:n    Hello",
    "%%llm -m s:m,s:n --each [1,2] -o both\n{{ item }}": "row  s:m    s:n",
    "x = 6\nprint(x * 7)": "42",
    "%%llm --context 1 --once\nHi": "Hello",
    "%%llm -m s:m,s:n --context x\nHi": "[s:n]\nHello",
}


def text_or_value(request: Received) -> Answer:
    text = '{"value": "Hello"}' if "Bye" in str(request.json) else "Hello"
    return stream(*(chunk(each) for each in text), chunk(finish="stop"))


def test_several_models_and_context_are_one_output_each_and_replayed_as_they_were(tmp_path: Any) -> None:
    """Nothing is repainted, neither when it is asked nor when it is replayed; two replays are the same to the byte."""
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: the extra `demo`")

    class Heard(nbclient.NotebookClient):  # type: ignore[misc]  # an optional package
        def process_message(self, message: Any, cell: Any, index: int) -> Any:
            heard[index].append(message["msg_type"])
            return super().process_message(message, cell, index)

    found = []
    with ScriptedServer(text_or_value) as server:
        for mode in ("once", "only", "only"):
            add = f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)"
            settings = f"%config LLMMagics.model = 's:m'\n%config LLMMagics.record = {mode!r}"
            sources = [f"%load_ext llm_magic\n{add}\n{settings}", *SEVERAL]
            cells = [nbformat.v4.new_code_cell(each) for each in sources]
            for number, cell in enumerate(cells):
                cell.id = f"cell-{number}"
            book = nbformat.v4.new_notebook(cells=cells)
            heard: list[list[str]] = [[] for _ in cells]
            Heard(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
            for cell, kinds, (source, expected) in zip(cells[1:], heard[1:], SEVERAL.items(), strict=True):
                shown = "\n".join(each.get("text") or each["data"]["text/plain"] for each in cell.outputs)
                assert expected in shown
                assert "update_display_data" not in kinds
                assert len(cell.outputs) == (2 if "--once" in source else 1)  # an answer and its footer
                assert kinds.count("display_data") == 1 or "-m" not in source
            found.append([cell.outputs for cell in cells[2:] if "--each" not in cell.source])
    assert found[1] == found[2]
    assert len(server.requests) == 11
