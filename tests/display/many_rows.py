"""In a kernel or a terminal: drives the view of many rows as a run does, without a model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from IPython import get_ipython

from llm_magic import display
from llm_magic.config.settings import Settings
from llm_magic.display.batches import BatchProgress
from llm_magic.display.rows import (
    RowLine,
    RowsProgress,
    RowsTable,
    TableRow,
    chosen,
    row_line,
)
from llm_magic.errors import error_line
from llm_magic.metadata import Usage

FAILED = ValueError("not a <label>")


def label(number: int) -> str:
    """Return the value of a row."""
    return ("price", "quality", "service")[number % 3]


def drive(
    total: int = 20,
    *,
    pause: float = 0.0,
    show: str = "markdown",
    known: bool = True,
    failed: tuple[int, ...] = (3,),
    stop: int | None = None,
    value: Callable[[int], Any] = label,
    waiting: str = "",
    notes: tuple[str, ...] = (),
    background: bool = False,
) -> None:
    """Show rows that end `pause` seconds after each other; at row `stop` they are interrupted."""
    view = display.choose_rows_view(get_ipython(), Settings(), show, background=background)
    view.begin("vllm:m", total if known else None)
    for note in notes:
        view.note(note)
    last: tuple[RowLine, ...] = ()
    progress = RowsProgress(total if known else None)
    for number in range(total):
        wrong = number in failed
        last = (*last[-9:], row_line(number, None if wrong else value(number), FAILED if wrong else None))
        count = sum(each <= number for each in failed)
        progress = RowsProgress(
            total if known else None,
            number + 1,
            count,
            in_flight=min(8, total - number - 1),
            seconds=(number + 1) / 10,
            rate=10.0,
            seconds_left=(total - number - 1) / 10 if known else None,
            usage=Usage(20 * number, 5 * number),
            cost=number * 1e-4,
            cost_at_end=total * 1e-4,
            failures={"ValueError": count} if count else {},
            last=last,
            waiting=waiting,
        )
        view.update(progress)
        try:
            if stop == number:
                raise KeyboardInterrupt  # noqa: TRY301 - as a user's would come
            time.sleep(pause)
        except KeyboardInterrupt:
            view.fail(progress)
            raise
    rows = [
        TableRow(at, error=error_line(FAILED)) if at in failed else TableRow(at, value(at))
        for at in chosen(total, failed)
    ]
    view.finish(progress, RowsTable(rows, total, "", "label"), f"{total:,} rows, p50 0.20 s, p95 0.41 s")


def drive_batch(pause: float = 0.0, *, stop: bool = False, problem: str = "", later: bool = False) -> None:
    """Show rows that are in a batch at a server, `pause` seconds for each thing that it says."""
    view = display.choose_rows_view(get_ipython(), Settings(), background=later)
    view.begin("openai:gpt-x", 2_000)
    batch = BatchProgress("openai:gpt-x", 2_000, "uploading", size=3_100_000, name="3fa1b2c4")
    progress = RowsProgress(2_000, batches=(batch,))
    for status, count in (("uploading", None), ("validating", 0), ("in_progress", 120), ("in_progress", 1_200)):
        batch = replace(batch, status=status, completed=count, failed=3 if count else 0, total=2_000, problem=problem)
        batch = replace(batch, seconds=0.0 if count is None else 4_800.0 + count, unchanged=1_200.0, next_look=30.0)
        progress = RowsProgress(2_000, batches=(batch,))
        time.sleep(pause)
        view.update(progress)
    if stop:
        view.fail(progress)
        return
    rows = [TableRow(at, label(at)) for at in chosen(2_000, ())]
    batch = replace(batch, status="completed", completed=1_997, problem="")
    view.finish(RowsProgress(2_000, 2_000, batches=(batch,)), RowsTable(rows, 2_000, "", "label"), "p50 3 h 2 min")


def drive_later(**how: Any) -> threading.Thread:
    """Show rows from a thread of its own, in the cell that began it, with whose view it is chosen."""
    began = threading.Event()
    view = display.choose_rows_view(get_ipython(), Settings(), background=True)

    def run() -> None:
        total = how.get("total", 20)
        view.begin("vllm:m", total)
        began.set()
        for number in range(total):
            view.update(RowsProgress(total, number + 1, last=(row_line(number, label(number)),)))
            time.sleep(how.get("pause", 0.0))
        rows = [TableRow(number, label(number)) for number in chosen(total, ())]
        view.finish(RowsProgress(total, total), RowsTable(rows, total, "", "label"), "")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    began.wait(10)
    return thread


def load_ipython_extension(shell: Any) -> None:
    """Register `%%llm`, so that a cell is one as a front end sees it: its line is the arguments of `drive`."""

    def llm(line: str, _cell: str | None = None) -> None:
        eval(f"drive({line})", {"drive": drive, **shell.user_ns})  # noqa: S307 - our own cells

    shell.register_magic_function(llm, "line_cell")
