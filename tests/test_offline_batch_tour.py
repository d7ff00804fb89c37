"""The tour of offline batches at a real server: submitted in one kernel, found and fetched in the next."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from offline_batch_tour import PATH, executed

pytest.importorskip("pandas")


def shown(book: nbformat.NotebookNode) -> list[str]:
    """Return what each cell of code shows, as text."""
    return [
        "\n".join(
            output.get("data", {}).get("text/plain") or output.get("text") or "\n".join(output.get("traceback", ()))
            for output in cell.outputs
        )
        for cell in book.cells
        if cell.cell_type == "code"
    ]


def check(book: nbformat.NotebookNode) -> None:
    submitted, listed, batch, *rest = shown(book)[3:]
    name = re.search(r"\nbatch ([0-9a-f]{8}) ", submitted)
    assert name is not None
    assert re.search(rf"\n{name[1]} .* 6 .* Extract the person: ", listed)
    assert batch.startswith(f"<Batch {name[1]} of offline:")
    found, people, _, again, whole, types, both = rest[3:]
    assert re.search(r"A batch of .* has 6 rows of this cell: not submitted again\.", found)
    assert f"batch {name[1]} completed" in found
    assert "RowsFailedError: 1 of 6 failed: 1 ContextOverflowError" in found
    assert "ContextOverflowError" in people
    assert re.search(r"\b5 of 6 answered before", again)
    rows = [line.split()[1:] for line in whole.splitlines()[1:]]
    assert rows[0] == ["Anna", "34", "Oslo"]
    assert [row[0] for row in rows] == ["Anna", "Bruno", "Carla", "Greta", "Emil", "Fatima"]
    assert re.search(r"\bage +Int64\b|\bage +int64\b", types)
    assert len(re.findall(r"(?m)^[0-9a-f]{8} .* completed ", both)) == 2


def test_what_it_shows_is_what_was_run() -> None:
    check(nbformat.read(PATH, as_version=4))


def test_the_tour(batches_url: str, batches_model: str, tmp_path: Path) -> None:
    check(executed(batches_url, batches_model, XDG_STATE_HOME=str(tmp_path)))
