"""Run the tour of offline batches at a real server, its kernel killed in between; or record it again.

    python tests/offline_batch_tour.py BASE_URL MODEL

Run the latter where the tour or what its cells show has changed, and commit `notebooks/offline_batch.ipynb`.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nbformat
from kernels import Kernel

PATH = Path(__file__).parents[1] / "notebooks" / "offline_batch.ipynb"
URL, MODEL = "http://127.0.0.1:8321/v1", "lc/smollm2"
"""Those in the notebook."""
SUBMITTED = re.compile("batch [0-9a-f]{8} (?!uploading|written|uploaded|submitting)")
_LONGEST = 240.0


def executed(url: str, model: str, **environment: str) -> nbformat.NotebookNode:
    """Return the tour as it is after it was run: up to the restart in one kernel, from there on in another.

    The first kernel is killed once its batch is submitted. What a cell showed until then is kept.
    """
    book = nbformat.read(PATH, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    second = next(n for n, cell in enumerate(cells) if n and cell.source == cells[0].source)
    for part in cells[:second], cells[second:]:
        with Kernel(**environment) as kernel:
            requests = []
            for count, cell in enumerate(part, 1):
                source = cell.source.replace(URL, url).replace(MODEL, model)
                ran = kernel.run(source, cell.id, timeout=_LONGEST)
                requests.append(ran.request)
                cell.execution_count = count
                if "--batch" in source and "--wait" not in source:
                    _until(kernel, lambda here=kernel, of=ran.request: bool(SUBMITTED.search(str(_shown(here, of)))))
            for cell, request in zip(part, requests, strict=True):
                cell.outputs = _shown(kernel, request, cell.execution_count)
    return book


def _until(kernel: Kernel, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LONGEST
    while not condition():
        assert time.monotonic() < deadline, "the batch is not submitted"
        kernel.run("", timeout=30)  # hears what came late
        time.sleep(0.1)


def _shown(kernel: Kernel, request: str, count: int = 0) -> list[nbformat.NotebookNode]:
    """Return the outputs of a cell, late ones included, as a front end folds them."""
    return folded((each for each in kernel.heard if each["parent_header"].get("msg_id") == request), count)


def folded(messages: Iterable[dict[str, Any]], count: int) -> list[nbformat.NotebookNode]:
    """Return the outputs that messages of one cell make; `count` numbers its result."""
    outputs: list[nbformat.NotebookNode] = []
    displays: dict[str, nbformat.NotebookNode] = {}
    for message in messages:
        kind, content = message["msg_type"], message["content"]
        if kind == "update_display_data":
            displays[content["transient"]["display_id"]].data = nbformat.from_dict(content["data"])
        elif kind == "clear_output":
            outputs.clear()  # what replaces it is there already, or comes
        elif kind in {"display_data", "execute_result", "stream", "error"}:
            output = nbformat.v4.output_from_msg(message)
            if kind == "execute_result":
                output.execution_count = count
            outputs.append(output)
            if identifier := content.get("transient", {}).get("display_id"):
                displays[identifier] = output
    return outputs


def main(url: str, model: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        book = executed(url, model)
    text = nbformat.writes(book).replace(url, URL).replace(model, MODEL)
    PATH.write_text(f"{text.rstrip()}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
