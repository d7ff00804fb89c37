"""Record the tours again: each runs on the embedded model; what it shows and what was answered goes to `notebooks`.

    python tests/record_tours.py [NAME…]

Run it where a tour or what its cells show has changed, and commit both files: `NAME.ipynb`, `NAME.llm.jsonl`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from offline import JUPYTER_EXECUTE_OVER_IPC, environment, without_network

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
_OTHERS = ("executed", "offline_batch", "mcp_tools")
TOURS = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb") if not path.stem.startswith(_OTHERS))
"""Those on the embedded model; a batch needs a server: `offline_batch_tour.py` runs that one.

So do tools: `python tests/record_tours.py mcp_tools`, with vLLM at its usual place, records the tour of MCP.
"""

OF_THE_RUN = re.compile(
    r"(?P<timing>\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z)"  # when a cell was executed
    r"|(?P<day>\b\d{4}-\d\d-\d\d \d\d:\d\d\b)|(?P<hour>\b\d\d:\d\d\b)"  # when a turn was, in %llm_chat
    r"|(?P<widget>(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f]))"  # ipywidgets' own random names
)


def without_times(text: str) -> str:
    """Return a notebook's text with neither times of the day nor random names of widgets, which differ in each run."""
    return OF_THE_RUN.sub(lambda found: f"<{found.lastgroup}>", text)


def executed(folder: Path, name: str, output: str, *, network: bool = False, **variables: str) -> Path:
    """Run `jupyter execute` on a notebook in a folder; without `network` where no interface is up."""
    command = [sys.executable, "-c", JUPYTER_EXECUTE_OVER_IPC, f"--output={output}", f"{name}.ipynb"]
    done = subprocess.run(  # noqa: S603 - our own Python
        command if network else without_network(command),
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / f"{output}.ipynb"


def copied(folder: Path, name: str) -> None:
    """Copy a tour into a folder, with the data that tours read."""
    for path in (NOTEBOOKS / f"{name}.ipynb", *NOTEBOOKS.glob("*.csv")):
        shutil.copy(path, folder)


def recorded(folder: Path, name: str, output: str) -> Path:
    """Run a tour on the embedded model, in a folder with nothing recorded; `NAME.llm.jsonl` is there then."""
    copied(folder, name)
    variables = {"LLM_MAGIC_RECORD": "once", "JPY_SESSION_NAME": str(folder / f"{name}.ipynb")}
    return executed(folder, name, output, network=True, **variables)


def to_be_saved(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook as it is kept: without what differs in each run, and as it is without recording."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output.data[kind] = _as_if_not_recording(data)
            if "text" in output:
                output.text = _as_if_not_recording(output.text)
    return notebook


def _as_if_not_recording(text: str) -> str:
    """The hour of all tours is the same, and their readers do not record."""
    text = re.sub(r"\b\d\d:\d\d\b", "12:34", text)
    text = re.sub(r"\b([\d,]+) from recordings\b", r"\1 answered before", text)
    return re.sub(r"\n?It would be sent, and its answer recorded\.", "", text)


def main(names: list[str]) -> None:
    for name in names or TOURS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            text = recorded(folder, name, "executed").read_text(encoding="utf-8").replace(f"{folder}{os.sep}", "")
            book: Any = nbformat.reads(text, as_version=4)
            nbformat.write(to_be_saved(book), NOTEBOOKS / f"{name}.ipynb")
            shutil.copy(folder / f"{name}.llm.jsonl", NOTEBOOKS)
            count = len((folder / f"{name}.llm.jsonl").read_bytes().splitlines())
            sys.stdout.write(f"{name}: {count} answers\n")


if __name__ == "__main__":
    main(sys.argv[1:])
