"""What the quickstart and the tours show is right, live and from their recordings, which need no network."""

from __future__ import annotations

import ast
import csv
import functools
import getpass
import json
import re
import shutil
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from record_tours import NOTEBOOKS, TOURS, copied, executed, without_times

pytest.importorskip("xllamacpp", reason="needs the extra `local`")
pytest.importorskip("pandas")


def answers(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the text of each answer, in the order of the cells."""
    return [
        output.data["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "llm_magic" in output.get("metadata", {}) and "text/markdown" in output.get("data", {})
    ]


def without_seconds(text: str) -> str:
    """Return what several models answered without how long each took."""
    return re.sub(r"(tokens) · [\d.]+ s\b", r"\1", text)


def of_models(book: nbformat.NotebookNode) -> int:
    """Return how many answers a notebook shows: of a cell with several models, those of each."""
    shown = [output.get("metadata", {}).get("llm_magic") for cell in book.cells for output in cell.get("outputs", [])]
    return sum(len(each.get("models", [each])) for each in shown if each is not None)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


Live = Callable[[str], Path]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Live:
    """Returns a tour that was executed on the embedded model and recorded, in a folder with nothing else; once each."""

    @functools.cache
    def run(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        copied(folder, name)
        return executed(folder, name, "live", network=True, LLM_MAGIC_RECORD="once")

    return run


CITIES = [("Tokyo", 37.4), ("Cairo", 21.3), ("Paris", 11.1), ("Lima", 10.9)]


def records(text: str) -> list[tuple[str, float]]:
    found = ast.literal_eval(text)
    return [tuple(row.values()) for row in (found["value"] if isinstance(found, dict) else found)]


def test_the_quickstart(live: Live) -> None:
    first, row, cities, mood = answers(read(live("quickstart")))
    assert "converts carbon dioxide into organic molecules" in first
    assert "Tokyo" in row
    assert not any(city in row for city in ("Cairo", "Paris", "Lima"))
    assert records(cities) == CITIES
    assert mood == "positive"


def test_typed_outputs(live: Live) -> None:
    book = read(live("typed_outputs"))
    mood, fruit, legs, person, cities, title, day, meeting = answers(book)
    assert (mood, fruit, legs, day, meeting) == ("positive", "apple", "4", "2025-03-14", "Tuesday")
    assert ast.literal_eval(person) == {"name": "Anna", "age": 34, "city": "Oslo"}
    assert records(cities) == CITIES
    assert ast.literal_eval(title) == {"title": "Frankenstein", "author": "Mary Shelley", "year": 1818}
    assert book.cells[-2].outputs[0]["text"] == "meeting: Tuesday\nrequests: 2\n"


def test_context(live: Live) -> None:
    book = read(live("context"))
    named, error, mean, largest, long = answers(book)
    assert all(city in named for city, _ in CITIES)
    assert "ZeroDivisionError" in error
    assert "calculates the mean of a list of numbers" in mean
    assert (largest, long) == ("Tokyo", "long")
    shown = book_text(book)
    assert shown.count("These are executed cells of a Jupyter notebook") == 1
    assert "\nZeroDivisionError: division by zero\n```" in shown
    assert "outputs of 1 cell are cut" in shown


def test_side_by_side(live: Live) -> None:
    book = read(live("side_by_side"))
    cats, legs, ruled = answers(book)
    assert cats.startswith("[sober]\nA cat is a domesticated feline creature with ")
    assert "\n\n[poet]\nA cat is a creature of the night, " in cats
    assert [line.split() for line in legs.splitlines()[:3]] == [["model", "value"], ["sober", "3"], ["poet", "4"]]
    assert ruled.splitlines()[1].startswith("sober  failed: InvalidValueError: ")
    assert [line.split()[-1] for line in ruled.splitlines()[2:3]] == ["4"]
    shown = book_text(book)
    assert "{'sober': 3, 'poet': 4}" in shown
    assert "\n4\nInvalidValueError\n" in shown
    assert re.search(r"\n0 +Oslo +34 +Oslo +34\n1 +\w+ +9 +\w+ +9\n2 +Lima +71 +Lima +71\n", shown)
    assert len(re.findall(r"(?:sober|poet): [23] of 3 cities are right", shown)) == 2


def test_recordings(live: Live) -> None:
    book = read(live("recordings"))
    first, again, legs = answers(book)
    assert "evaporation, condensation, and precipitation" in first
    assert (again, legs) == (first, "8")
    (tosses,) = [cell.outputs[0].data["text/plain"] for cell in book.cells if "Toss" in cell.source]
    lines = [json.loads(line) for line in (live("recordings").parent / "recordings.llm.jsonl").read_text().splitlines()]
    assert [line["answer"]["choices"][0]["text"] for line in lines if "Toss" in str(line)] == ast.literal_eval(tosses)
    assert len(lines) == 7
    (error,) = [output for cell in book.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert error.ename == "RecordingError"
    assert re.search(r"temperature 0\b.* 0\.2", error.evalue)
    assert "7 recordings in " in str(book.cells[-2].outputs)


@pytest.mark.parametrize("name", TOURS)
def test_what_is_shown_before_it_is_run_is_what_comes(live: Live, name: str) -> None:
    """The outputs in the file are those of the cells in the file."""
    saved, asked = answers(read(NOTEBOOKS / f"{name}.ipynb")), answers(read(live(name)))
    assert list(map(without_seconds, saved)) == list(map(without_seconds, asked))


OF_ROWS = re.compile(
    r"local:smollm2 · (?P<rows>\d+ rows) in [^\n\"<\\]*|local:smollm2 · A sample of (?P<sample>\d+ rows)[^\n\"<\\]*"
)
"""What is below the table of rows that were asked: how long they took, and how many were not asked."""
OF_ROWS_BY_MODEL = re.compile(r"(2 models · sober: \d+ rows)[^\n\"<\\]*")
"""The same of several models."""


def test_many_rows(live: Live) -> None:
    """A tiny model is right far above chance, which is a third; most rows are not asked twice."""
    book = read(live("many_rows"))
    told = "\n".join(output["text"] for cell in book.cells for output in cell.get("outputs", []) if "text" in output)
    shown = book_text(book)
    right = re.search(r"(\d+) of 140 are right", told)
    assert right is not None
    assert int(right[1]) >= 110  # 124 when it was written
    assert "80 of 200, then it stopped" in told
    before = re.search(r"200 rows in .*?, (\d+) from recordings", shown)
    assert before is not None
    assert 80 <= int(before[1]) < 100
    assert "A sample of 10 rows: " in shown
    assert sum("image/png" in output.get("data", {}) for cell in book.cells for output in cell.get("outputs", [])) == 1


def test_the_rows_are_balanced_and_none_of_them_is_an_example() -> None:
    rows = reviews()
    assert len({row["text"] for row in rows}) == len(rows) == 200
    assert Counter(row["label"] for row in rows) == {"price": 67, "quality": 67, "service": 66}
    (examples,) = [
        cell.source for cell in read(NOTEBOOKS / "many_rows.ipynb").cells if cell.source.startswith("examples =")
    ]
    assert Counter(re.findall(r"is about the (\w+)\.", examples)) == {"price": 4, "quality": 4, "service": 4}
    assert [row["text"] for row in rows if row["text"] in examples] == []


def test_many_rows_shows_what_its_recordings_give(tmp_path: Path) -> None:
    """Whoever runs it without a model sees what stands in it: tables, accuracy, matrix, errors."""
    for name in ("many_rows.ipynb", "many_rows.llm.jsonl", "reviews.csv"):
        shutil.copy(NOTEBOOKS / name, tmp_path)
    replayed = book_text(read(executed(tmp_path, "many_rows", "replayed", LLM_MAGIC_RECORD="only")))
    saved = book_text(read(NOTEBOOKS / "many_rows.ipynb"))
    again = re.compile(r"local:smollm2 · ((\d+) rows), \2 from recordings( · A sample of .*)?")
    assert again.findall(replayed)
    assert again.sub(r"\1", replayed) == OF_ROWS.sub(lambda found: found["rows"] or found["sample"], saved)


def reviews() -> list[dict[str, str]]:
    with (NOTEBOOKS / "reviews.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def book_text(book: nbformat.NotebookNode) -> str:
    """Return the outputs of a notebook as text, without a dry run's, in which versions stand."""
    return "\n".join(
        output.get("data", {}).get("text/plain", output.get("text", ""))
        for cell in book.cells
        if "--dry-run" not in cell.source
        for output in cell.get("outputs", [])
    )


def beside_widgets(path: Path) -> tuple[str, list[str]]:
    """Return a notebook's file, and the lines of the widgets' states, which stand at its end in a random order."""
    text, _, widgets = without_times(path.read_text(encoding="utf-8")).partition('  "widgets": {')
    return text, sorted(line.rstrip(",") for line in widgets.splitlines())


def compared(path: Path) -> list[Any]:
    """Return the outputs of an executed tour, without what is another one where nothing was asked.

    That is: `recorded` in the metadata of an answer, or of each of several models; what was used so far, since what
    was not asked costs nothing; the line of a dry run about recordings, and of rows all of it, for it tells how many
    are to be sent; and the line of rows that says how long they took, and how many were known.
    """
    book = json.loads(without_times(path.read_text(encoding="utf-8")))
    found = []
    for cell in book["cells"]:
        source = "".join(cell["source"])
        is_other = source == "%llm_usage" or {"--each", "--dry-run"} <= set(source.split())
        outputs = [] if is_other else cell.get("outputs", [])
        for output in outputs:
            about = output.get("metadata", {}).get("llm_magic", {})
            for each in (about, *about.get("models", {}).values()):
                each.pop("recorded", None)
        text = json.dumps(outputs, ensure_ascii=False)
        text = OF_ROWS_BY_MODEL.sub(r"\1", OF_ROWS.sub(lambda of: of["rows"] or of["sample"], text))
        text = re.sub(r"local:smollm2 · (\d+ rows), \d+ from recordings(?: · A sample of [^\n\"<\\]*)?", r"\1", text)
        found.append(
            re.sub(r"It would be sent, and its answer recorded\.|It is not recorded, .*? would fail\.", "", text)
        )
    return found


@pytest.mark.parametrize("name", TOURS)
def test_a_tour_is_replayed_to_the_letter_without_a_network(live: Live, name: str) -> None:
    asked = live(name)
    one, other = (executed(asked.parent, name, output, LLM_MAGIC_RECORD="only") for output in ("one", "other"))
    assert beside_widgets(one) == beside_widgets(other)
    assert compared(one) == compared(asked)
    assert one.read_text().count('"recorded": true') == of_models(read(asked))


@pytest.mark.parametrize("name", TOURS)
def test_the_recordings_of_a_tour_are_those_of_what_it_shows(name: str, tmp_path: Path) -> None:
    """All of them lie in one folder; each tour finds its own."""
    folder = Path(shutil.copytree(NOTEBOOKS, tmp_path / "notebooks"))
    before = {path: path.read_bytes() for path in folder.glob("*.llm.jsonl")}
    replayed = executed(folder, name, "replayed", LLM_MAGIC_RECORD="only")

    def of_cells_that_ask(path: Path) -> list[Any]:
        shown = zip(read(NOTEBOOKS / f"{name}.ipynb").cells, compared(path), strict=True)
        return [
            outputs
            for cell, outputs in shown
            if "llm_magic" in str(cell.get("outputs")) and "dry-run" not in cell.source
        ]

    assert of_cells_that_ask(replayed) == of_cells_that_ask(NOTEBOOKS / f"{name}.ipynb")
    assert {path: path.read_bytes() for path in folder.glob("*.llm.jsonl")} == before
    assert not (folder / "llm.jsonl").exists()


def test_whoever_runs_the_tour_of_recordings_leaves_its_file_as_it_was(tmp_path: Path) -> None:
    for name in ("recordings.ipynb", "recordings.llm.jsonl"):
        shutil.copy(NOTEBOOKS / name, tmp_path)
    executed(tmp_path, "recordings", "again")
    assert (tmp_path / "recordings.llm.jsonl").read_bytes() == (NOTEBOOKS / "recordings.llm.jsonl").read_bytes()


def test_each_tour_has_its_recordings_and_no_two_ask_the_same() -> None:
    files = {path.name.removesuffix(".llm.jsonl"): path.read_text() for path in NOTEBOOKS.glob("*.llm.jsonl")}
    assert sorted({*files} - {"mcp_tools"}) == TOURS
    keys = [{json.loads(line)["key"] for line in text.splitlines()} for text in files.values()]
    assert sum(map(len, keys)) == len(set().union(*keys))


@pytest.mark.parametrize("name", TOURS)
def test_recordings_tell_nothing_of_the_machine(name: str) -> None:
    text = (NOTEBOOKS / f"{name}.llm.jsonl").read_text()
    told = ("127.0.0.1", "localhost", "http", "Bearer", "made-up-key", str(Path.home()), socket.gethostname())
    assert [word for word in told if word in text] == []
    assert getpass.getuser() == "root" or getpass.getuser() not in text
