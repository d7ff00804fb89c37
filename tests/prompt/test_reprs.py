"""Functions, classes and modules of files and of notebook cells, as source; and the frames of a cell's traceback."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llm_magic.prompt.reprs import source_of


def double(x: int) -> int:
    """Return twice `x`."""
    return 2 * x


class Outer:
    class Inner:
        size = 1

        def method(self) -> int:
            return self.size


def test_functions_and_classes_of_files() -> None:
    assert source_of(double) == 'def double(x: int) -> int:\n    """Return twice `x`."""\n    return 2 * x'
    inner = "class Inner:\n    size = 1\n\n    def method(self) -> int:\n        return self.size"
    assert source_of(Outer.Inner) == inner
    assert source_of(Outer.Inner().method) == "def method(self) -> int:\n    return self.size"


def test_a_module() -> None:
    assert source_of(textwrap).startswith('"""Text wrapping and filling.\n"""\n')


def test_what_has_no_source() -> None:
    assert source_of(len) == "len(obj, /)\n\nReturn the number of items in a container."
    assert source_of(json.scanner.c_make_scanner).startswith("_json.Scanner")
    assert source_of(sys).startswith("sys\n\nThis module provides access to some objects")


CELLS = [
    "def first(x):\n    # a comment\n    return x",
    "import dataclasses\n\n@dataclasses.dataclass\nclass City:\n    name: str  # of a city\n\nother = 1",
    "class City:\n    people: int = 0",
    "square = lambda n: n * n",
    "def fails():\n    raise ValueError('here')\n\nfails()",
]
ASK = """
from llm_magic.prompt import render
from llm_magic.config.settings import Settings
import json
names = ("first", "old", "City", "square", "error", "_", "Out[1]")
parts = [render("{{ %s }}" % name, get_ipython().user_ns, settings=Settings()).parts[0].text for name in names]
open(path, "w").write(json.dumps(parts))
"""


@pytest.fixture(scope="module")
def in_a_shell(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run cells in a shell of their own and return what a prompt makes of what they define."""
    folder = tmp_path_factory.mktemp("shell")
    script = folder / "run.py"
    cells = [
        "'a ' 'text'",
        *CELLS[:2],
        "old = City",
        *CELLS[2:4],
        f"path = {str(folder / 'told.json')!r}",
        CELLS[4],
        ASK,
    ]
    script.write_text(
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "from traitlets.config import Config\n"
        "shell = InteractiveShell.instance(config=Config(HistoryManager={'enabled': False}))\n"
        f"for cell in {cells!r}:\n"
        "    shell.run_cell(cell, store_history=True)\n"
    )
    subprocess.run([sys.executable, script], check=True, capture_output=True, timeout=120, cwd=folder)  # noqa: S603 - our own script
    told = json.loads((folder / "told.json").read_text())
    assert isinstance(told, list)
    return told


def test_a_function_of_a_cell(in_a_shell: list[str]) -> None:
    assert in_a_shell[0] == CELLS[0]


def test_a_class_of_a_cell_is_the_newest_of_its_name(in_a_shell: list[str]) -> None:
    assert in_a_shell[2] == CELLS[2]


def test_an_older_class_of_the_same_name(in_a_shell: list[str]) -> None:
    assert in_a_shell[1] == "@dataclasses.dataclass\nclass City:\n    name: str  # of a city"


def test_a_lambda_of_a_cell(in_a_shell: list[str]) -> None:
    assert in_a_shell[3] == CELLS[3]


def test_the_last_exception_of_the_shell(in_a_shell: list[str]) -> None:
    lines = in_a_shell[4].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: here"
    code = [line.strip() for line in lines if line.startswith("    ") and line.strip(" ~^")]  # Python 3.13 underlines
    assert code == ["fails()", "raise ValueError('here')"]
    assert not any("interactiveshell" in line for line in lines)


def test_results_of_cells(in_a_shell: list[str]) -> None:
    assert in_a_shell[5:] == ["a text", "a text"]


def test_the_source_of_this_file_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert source_of(double).startswith("def double")
