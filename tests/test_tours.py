"""What the quickstart and the tours show is right: they are executed, and what the model answered is compared."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytest.importorskip("xllamacpp", reason="needs the extra `local`")
pytest.importorskip("pandas")

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def answers(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the text of each answer, in the order of the cells."""
    return [
        output.data["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "llm_magic" in output.get("metadata", {}) and "text/markdown" in output.get("data", {})
    ]


def executed(name: str) -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    return notebook


CITIES = [("Tokyo", 37.4), ("Cairo", 21.3), ("Paris", 11.1), ("Lima", 10.9)]


def records(text: str) -> list[tuple[str, float]]:
    found = ast.literal_eval(text)
    return [tuple(row.values()) for row in (found["value"] if isinstance(found, dict) else found)]


def test_the_quickstart() -> None:
    first, row, cities, mood = answers(executed("quickstart.ipynb"))
    assert "converts carbon dioxide into organic molecules" in first
    assert "Tokyo" in row
    assert not any(city in row for city in ("Cairo", "Paris", "Lima"))
    assert records(cities) == CITIES
    assert mood == "positive"


def test_typed_outputs() -> None:
    mood, fruit, legs, person, cities, book, day, days = answers(executed("typed_outputs.ipynb"))
    assert (mood, fruit, legs, day) == ("positive", "apple", "4", "2025-03-14")
    assert ast.literal_eval(days) == {"value": 7}  # the text that came: it was no even number
    assert ast.literal_eval(person) == {"name": "Anna", "age": 34, "city": "Oslo"}
    assert records(cities) == CITIES
    assert ast.literal_eval(book) == {"title": "Frankenstein", "author": "Mary Shelley", "year": 1818}


@pytest.mark.parametrize("name", ["quickstart.ipynb", "typed_outputs.ipynb"])
def test_what_is_shown_before_it_is_run_is_what_comes(name: str) -> None:
    """The outputs in the file are those of the cells in the file."""
    saved = nbformat.read(NOTEBOOKS / name, as_version=4)
    assert answers(saved) == answers(executed(name))
