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
