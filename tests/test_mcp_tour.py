"""The tour of MCP tools: what it shows was answered, and comes again without a model and a network; the server runs."""

from __future__ import annotations

import getpass
import re
import shutil
import socket
from pathlib import Path

import nbformat
import pytest
from record_tours import NOTEBOOKS, executed

pytest.importorskip("mcp", reason="needs the package mcp")
NAME = "mcp_tools"


def shown(book: nbformat.NotebookNode) -> list[str]:
    """Return what each cell of code that shows something shows, as text, without how long it took."""
    found = []
    for cell in book.cells:
        outputs = cell.get("outputs", [])
        texts = [str(output.get("data", {}).get("text/plain") or output.get("text")) for output in outputs]
        found += ["\n".join(texts)] if texts else []
    return [re.sub(r"(?m)^vllm:smollm2 · .*", "", text).strip() for text in found]


def test_what_it_shows() -> None:
    price, visitors, calls, age, rows = shown(nbformat.read(NOTEBOOKS / f"{NAME}.ipynb", as_version=4))
    assert price.startswith('ticket_price(age=34) → { "price": 22.0 }')
    assert price.endswith("The price of a ticket at age 34 is 22.00 euros.")
    assert visitors.endswith("The number of visitors in 2024 is 8700.")
    assert calls.startswith("[('visitors', ")
    assert age.startswith("age_of(name='Anna') → 34")
    assert [line.split(" is ")[1] for line in rows.splitlines()[1:]] == ["11.0.", "22.00 euros.", "22.00 euros."]


def test_it_is_replayed_without_a_model_and_without_a_network(tmp_path: Path) -> None:
    for ending in ("ipynb", "llm.jsonl"):
        shutil.copy(NOTEBOOKS / f"{NAME}.{ending}", tmp_path)
    replayed = executed(tmp_path, NAME, "replayed", LLM_MAGIC_RECORD="only")
    book = nbformat.read(replayed, as_version=4)
    assert shown(book) == shown(nbformat.read(NOTEBOOKS / f"{NAME}.ipynb", as_version=4))
    assert replayed.read_text().count('"recorded": true') >= 3
    recordings = (tmp_path / f"{NAME}.llm.jsonl").read_text()
    assert recordings == (NOTEBOOKS / f"{NAME}.llm.jsonl").read_text()
    told = ("127.0.0.1", "localhost", "http", "Bearer", str(Path.home()), socket.gethostname())
    assert [word for word in told if word in recordings] == []
    assert getpass.getuser() == "root" or getpass.getuser() not in recordings
