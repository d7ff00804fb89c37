"""`%llm_recordings`: the answers that are recorded, as a table; cleared, and written to a file of their own."""

from __future__ import annotations

import os
from collections import deque
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_magic.commands.kept_rows import clear_rows
from llm_magic.commands.line import Command, Subcommand
from llm_magic.display import markup, table
from llm_magic.display.footer import counted
from llm_magic.display.markup import Bundle
from llm_magic.errors import OptionError, RecordingError
from llm_magic.model_names import shown_model
from llm_magic.options import Option
from llm_magic.options.reader import Line

if TYPE_CHECKING:
    from llm_magic.recordings import Listed

_ROWS = 50
_TEXT = 60
_MOST_WORDS = 1_000


def run(command: Command) -> None:
    """Carry out a sub-command."""
    command.run(_SUBCOMMANDS)


def _list(command: Command, line: Line) -> Bundle | str:
    recordings, wanted = command.session.recordings, " ".join(line.words)
    listed = recordings.listed()
    if not listed:
        return f'Nothing is recorded in {recordings.path}. %config LLMMagics.record = "once" records from now on.'
    last: deque[dict[str, Any]] = deque(maxlen=_ROWS)
    found = 0
    if not wanted:
        found = len(listed)
        last += [_row(number, each)[0] for number, each in list(enumerate(listed, 1))[-_ROWS:]]
    else:
        for number, each in enumerate(listed, 1):
            row, text = _row(number, each)
            if wanted.casefold() in text.casefold():
                found += 1
                last.append(row)
    if not found:
        return f"None of {counted(len(listed), 'recording')} holds {wanted!r:.{_TEXT}}."
    rows = list(last)
    if len({row["file"] for row in rows}) == 1:
        rows = [{name: value for name, value in row.items() if name != "file"} for row in rows]
    files = ", ".join(str(path) for path in dict.fromkeys(each.file for each in listed))
    remarks = [f"{counted(found, 'recording')} in {files}."]
    if found > len(rows):
        remarks.insert(0, f"The last {len(rows)} of {found:,}; %llm_recordings list TEXT finds others.")
    return markup.joined([table.shown(rows, widest=_TEXT), *map(markup.quiet, remarks)])


def _row(number: int, listed: Listed) -> tuple[dict[str, Any], str]:
    """Return a row of the table, and the text that is looked through."""
    from llm_magic.recordings.readable import answered_text, asked_text, model_of

    model, asked, answered, when = "", "", "", ""
    try:
        recording = listed.read()
        if recording is not None:
            model, when = shown_model(model_of(recording.asked)), _when(recording.at)
            asked, answered = asked_text(recording.asked), answered_text(recording.asked, recording.answer)
    except RecordingError as error:
        answered = error.message.removeprefix(f"{listed.file}, ")
    row = {
        "": number,
        "model": markup.shortened(model, _TEXT),
        "asked": markup.shortened(asked, _TEXT),
        "answered": markup.shortened(answered, _TEXT),
        "when": when,
        "used": "yes" if listed.used else "",
        "file": listed.file.name,
    }
    return row, f"{model}\n{asked}\n{answered}"


def _when(told: str) -> str:
    """Return a time as it is read here; what is none as it stands."""
    try:
        return f"{datetime.fromisoformat(told).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):
        return markup.shortened(told, 20)


def _clear(command: Command, line: Line) -> str:
    if line.values.get("rows"):
        if line.values.get("unused"):
            raise OptionError("--unused is of recordings, and --rows of runs over many rows.", "Give one of them.")
        return clear_rows()
    recordings = command.session.recordings
    path, gone, stay = recordings.clear(unused=bool(line.values.get("unused")))
    others = {each.file.name: None for each in recordings.listed() if each.file != path}
    left = f"; {counted(stay, 'recording')} {'stays' if stay == 1 else 'stay'}" if stay else ""
    said = (
        f"{counted(gone, 'recording')} removed from {path}{left}."
        if gone or stay
        else f"Nothing is recorded in {path}."
    )
    return f"{said} What is in {', '.join(others)} stays: it is read, and not written." if others else said


def _export(command: Command, line: Line) -> str:
    path = Path(os.path.expanduser(line.words[0]))  # noqa: PTH111 - Path's one may raise
    return f"{counted(command.session.recordings.export(path), 'recording')} written to {path}."


_UNUSED = Option("unused", ("--unused",), "", "those alone that this session did not use")
_ROWS_ALONE = Option("rows", ("--rows",), "", "what runs over many rows left to go on with, and no recordings")
_SUBCOMMANDS = {
    "list": Subcommand(_list, "[TEXT]", most=_MOST_WORDS),
    "clear": Subcommand(_clear, "[--unused | --rows]", options=(_UNUSED, _ROWS_ALONE)),
    "export": Subcommand(_export, "FILE", 1, 1),
}
