"""What is kept of runs over many rows, to go on with: a line that says it, and its removal."""

from __future__ import annotations

from pathlib import Path

from llm_magic.config.trust import printable
from llm_magic.display.footer import counted, file_size
from llm_magic.errors import RecordingError
from llm_magic.mapping.kept import kept_runs
from llm_magic.recordings.locked_file import reason

_CLEAR = "%llm_recordings clear --rows"


def kept_rows(*, keeps: bool) -> str:
    """Return in a line what there is, where, and how that is changed; `keeps` is `LLMMagics.resume`."""
    place = None
    try:
        place = kept_runs.folder()
        kept = kept_runs.kept(place)
    except OSError as error:
        return f"{_cannot(place, error)} LLMMagics.resume = False does without."
    there = f"{_runs(kept.runs)}, {file_size(kept.size)}, in {printable(str(place))}"
    if not keeps:
        more = f" There are {there}: {_CLEAR} removes them." if kept.runs else ""
        return f"Answers of runs over many rows are not kept: LLMMagics.resume = False.{more}"
    if not kept.runs:
        there = f"nothing now, in {printable(str(place))}"
    clear = f"{_CLEAR} removes them, " if kept.runs else ""
    return (
        f"Kept of runs over many rows that did not end whole, for 30 days and up to 1 GB: {there}. "
        f"{clear}LLMMagics.resume = False keeps none."
    )


def clear_rows() -> str:
    """Remove all that is kept, and return a sentence of it.

    Raises
    ------
    RecordingError
        The folder cannot be read.

    """
    place = None
    try:
        place = kept_runs.folder()
        gone = kept_runs.clear(place)
    except OSError as error:
        raise RecordingError(_cannot(place, error)) from None
    held = f" {_runs(gone.held)} that cannot be removed, or go on now, stay." if gone.held else ""
    if not gone.runs:
        return f"Nothing of runs over many rows was removed from {printable(str(place))}.{held}"
    return f"{_runs(gone.runs)}, {file_size(gone.size)}, removed from {printable(str(place))}.{held}"


def _cannot(place: Path | None, error: OSError) -> str:
    named = "the user's folder" if place is None else printable(str(place))
    return f"Runs over many rows cannot be kept, to go on with: {named}: {reason(error)}."


def _runs(number: int) -> str:
    return f"{counted(number, 'run')} over many rows"
