"""The notebook's file: where it is, and how many answers of earlier kernels stand in it above a cell."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_magic import private_files

_LARGEST = 32 * 2**20  # bytes of a file that is looked into


def notebook_file(namespace: Mapping[str, Any]) -> Path | None:
    """Return the file of the running notebook, where Jupyter's server or VS Code tell it; else None."""
    told = namespace.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME", "")
    return Path(told) if isinstance(told, str) and told.endswith(".ipynb") and "\0" not in told else None


def answers_above(file: Path, cell_id: str | None, code: str) -> int:
    """Return how many cells above this one show an answer of a conversation, in the file as it was saved.

    An answer of a cell that failed or was interrupted was no turn, and does not count.
    The cell is known by its id, else by its code; where the file does not have it, all cells count. A file that is
    no notebook, cannot be read or is larger than 32 MB counts as one without answers.
    """
    try:
        data, _ = private_files.read(file, _LARGEST + 1)
        if len(data) > _LARGEST or b'"llm_magic"' not in data:
            return 0
        cells = json.loads(data)["cells"]
        here = _number(cells, cell_id, code)
        return sum(map(_has_answer, cells[:here]))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):  # whatever lies there
        return 0


def _number(cells: list[Any], cell_id: str | None, code: str) -> int:
    """Return the number of a cell, counted from 0; where it is not there, of all cells."""
    for number, cell in enumerate(cells):
        if cell_id is not None and cell.get("id") == cell_id:
            return number
    for number, cell in enumerate(cells):
        if _source(cell).strip() == code.strip():
            return number
    return len(cells)


def _has_answer(cell: Any) -> bool:
    outputs = cell["outputs"] if cell["cell_type"] == "code" else ()
    shown = any(isinstance(output.get("metadata", {}).get("llm_magic"), dict) for output in outputs)
    source = _source(cell)
    failed = source.lstrip().startswith("%%llm") and any(output.get("output_type") == "error" for output in outputs)
    once = any("%llm" in line and "--once" in line.split() for line in source.splitlines())
    return shown and not failed and not once


def _source(cell: Any) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
