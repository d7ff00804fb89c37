"""The files of recordings: the one that is named, else beside the notebook, else those of the working folder."""

from __future__ import annotations

import os
from pathlib import Path

from llm_magic.errors import RecordingError

SUFFIX = ".llm.jsonl"
"""How the files of notebooks end."""
UNNAMED = "llm.jsonl"
"""The file that is written where the notebook's name is not known."""


def record_files(named: str, notebook: Path | None) -> tuple[Path, tuple[Path, ...]]:
    """Return the file to record in, and the others that are read, too.

    Parameters
    ----------
    named
        `LLMMagics.record_file`; empty where it is not set.
    notebook
        The notebook's file; then what was recorded where its name was not known is read, too. None: every file of the
        working folder is read.

    Raises
    ------
    RecordingError
        The working folder is gone, and no other is named.

    """
    try:
        if named:
            return Path(os.path.abspath(os.path.expanduser(named))), ()  # noqa: PTH100, PTH111 - Path's one may raise
        folder = Path(os.path.abspath("."))  # noqa: PTH100 - as above
    except FileNotFoundError:
        raise RecordingError(
            "The working folder is gone, so that there is no place for recordings.",
            "Go to another (os.chdir), or name a file: %config LLMMagics.record_file = …",
        ) from None
    if notebook is not None:
        known = notebook.parent.is_dir() and notebook.is_absolute()
        beside = notebook.parent if known else folder
        return beside / f"{notebook.stem}{SUFFIX}", (beside / UNNAMED,) if (beside / UNNAMED).exists() else ()
    return folder / UNNAMED, tuple(folder / name for name in sorted(os.listdir(folder)) if name.endswith(SUFFIX))  # noqa: PTH208 - for each request: a glob takes ten times as long
