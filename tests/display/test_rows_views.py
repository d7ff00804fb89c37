"""The views of many rows: how often they repaint, from many threads, what stays, in a terminal and in a pipe."""

from __future__ import annotations

import io
import re
import threading

import pytest
from rich.console import Console
from rows_on_stage import EVIL, Clock, notebook
from terminal_screen import Screen

from llm_magic.display.rows import RowLine, RowsProgress, RowsTable, TableRow, row_line
from llm_magic.display.rows_plain import PlainRowsView
from llm_magic.display.rows_terminal import TerminalRowsView

TABLE = RowsTable([TableRow(0, "price"), TableRow(1, error="RefusedError: no")], 2_000, "", "label")


@pytest.mark.parametrize(("repaints", "most"), [(20.0, 4), (60.0, 4), (1.0, 1), (0.5, 0.5)])
def test_a_notebook_repaints_four_times_a_second_at_most(repaints: float, most: float) -> None:
    view, outputs, clock = notebook(repaints=repaints)
    view.begin("m", 100_000)
    for number in range(100_000):  # in 100 seconds
        clock.now += 0.001
        view.update(RowsProgress(100_000, number + 1))
    assert abs(outputs.kinds.count("paint") - most * 100) <= 1
    assert set(outputs.kinds) == {"paint"}


def test_it_says_when_an_update_is_seen_and_paints_nothing_twice() -> None:
    view, outputs, clock = notebook()
    assert view.wait == 0
    view.begin("m", 9)
    assert view.wait == 0.25
    clock.now += 0.25
    assert view.wait == 0
    view.update(RowsProgress(9))
    assert outputs.kinds == ["paint"]
    assert view.wait == 0.25


def test_a_cell_of_its_own_ends_as_one_output() -> None:
    view, outputs, _ = notebook()
    view.begin("m", 2_000)
    view.note("A note.")
    view.finish(RowsProgress(2_000, 2_000), TABLE, "p50 0.2 s")
    assert outputs.kinds == ["paint", "clear", "settle"]
    assert outputs.done[-1][1]["text/plain"] == (
        "row  label  error\n0    price\n1           RefusedError: no\n2 of 2,000 rows\nA note.\nm · p50 0.2 s"
    )


def test_among_other_lines_nothing_is_cleared() -> None:
    view, outputs, _ = notebook(alone=False)
    view.begin("m", 2_000)
    view.finish(RowsProgress(2_000, 2_000), TABLE, "")
    assert outputs.kinds == ["paint", "settle"]
    assert outputs.done[-1][1]["text/plain"].endswith("m · 2,000 of 2,000 rows")


@pytest.mark.parametrize("how", [{"watched": False}, {"replaceable": False}])
def test_where_nobody_looks_there_is_the_end_alone(how: dict[str, bool]) -> None:
    view, outputs, clock = notebook(**how)
    view.begin("m", 2_000)
    view.note("A note.")
    for number in range(2_000):
        clock.now += 1
        view.update(RowsProgress(2_000, number + 1))
    view.finish(RowsProgress(2_000, 2_000), TABLE, "")
    assert outputs.kinds == ["settle"]
    assert "A note." in outputs.done[0][1]["text/plain"]


def test_what_came_stays_where_it_is_interrupted_and_what_is_said_later_stands_below() -> None:
    view, outputs, clock = notebook()
    view.begin("m", 9)
    view.fail(RowsProgress(9, 4, last=(row_line(3, "price"),)))
    clock.now += 9
    view.update(RowsProgress(9, 5))
    assert outputs.kinds == ["paint", "clear", "settle"]
    view.note("RefusedError: no\nkey")
    assert outputs.kinds == ["paint", "clear", "settle", "add"]
    assert outputs.done.pop()[1]["text/plain"] == "RefusedError: no key"
    assert outputs.done[-1][1]["text/plain"] == "m\n4 of 9 rows · 5 left\nrow  value\n3    price\nInterrupted."


def test_stopped_by_an_error_it_says_neither_that_it_goes_on_nor_why() -> None:
    view, outputs, _ = notebook()
    view.begin("m", 9)
    view.fail(RowsProgress(9, 4, 4), "")
    assert outputs.done[-1][1]["text/plain"] == "m\n4 of 9 rows · 4 failed · 5 left"


def test_shown_as_none_there_is_nothing() -> None:
    for end in ("finish", "fail"):
        view, outputs, clock = notebook("none")
        view.begin("m", 9)
        view.note("A note.")
        clock.now += 9
        view.update(RowsProgress(9, 4))
        view.finish(RowsProgress(9, 9), TABLE, "") if end == "finish" else view.fail(RowsProgress(9, 4))
        assert outputs.done == []


def test_many_threads_at_once() -> None:
    view, outputs, _ = notebook(repaints=60)
    view.begin("m", 400)
    threads = [
        threading.Thread(target=lambda: [view.update(RowsProgress(400, number)) for number in range(100)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    view.finish(RowsProgress(400, 400), TABLE, "")
    assert outputs.kinds == ["paint", "clear", "settle"]  # the clock stands still


# A terminal


class Stage:
    """The view on a screen, with a clock of its own."""

    def __init__(self, show: str = "markdown", *, width: int = 80, height: int = 12, streams: bool = True) -> None:
        self.clock = Clock()
        self.file = io.StringIO()
        self.console = Console(file=self.file, force_terminal=True, width=width, height=height, color_system=None)
        self.view = TerminalRowsView(show, 20, streams=streams, console=self.console, clock=self.clock)
        self.screen = Screen(height)

    @property
    def shown(self) -> str:
        self.screen.write(self.file.getvalue())
        self.file.seek(0)
        self.file.truncate()
        return self.screen.text


END = "row  label  error\n0    price\n1           RefusedError: no\n2 of 2,000 rows\nm · p50 0.2 s"


def test_a_terminal_shows_a_bar_and_in_the_end_the_table() -> None:
    stage = Stage()
    stage.view.begin("m", 2_000)
    stage.clock.now += 1
    stage.view.update(
        RowsProgress(2_000, 1_000, 1, rate=48, last=(RowLine("9", "no", failed=True), row_line(10, "ok")))
    )
    bar = "━" * 13 + " " * 13  # without colours only what is done is drawn
    assert stage.shown == f"m\n{bar} 1,000 of 2,000, 1 failed, 48/s\n9 failed: no\n10 ok"
    stage.view.finish(RowsProgress(2_000, 2_000), TABLE, "p50 0.2 s")
    assert stage.shown == END


@pytest.mark.parametrize(("width", "height"), [(80, 24), (20, 3), (1, 1), (200, 4)])
def test_nothing_of_the_bar_is_left_whatever_the_terminal(width: int, height: int) -> None:
    stage = Stage(width=width, height=height)
    stage.view.begin("a model with a long name " * 9, 2_000)
    for number in range(20):
        stage.clock.now += 1
        stage.view.update(
            RowsProgress(2_000, number, last=(row_line(number, "value " * 99),) * 9, waiting="waits " * 9)
        )
    stage.view.finish(RowsProgress(2_000, 2_000), RowsTable([], 0), "p50 0.2 s")
    assert "".join(stage.shown.split()).startswith("Norows.")
    assert "waits" not in stage.shown


def test_rows_that_end_at_once_leave_no_trace_of_the_bar() -> None:
    stage = Stage()
    stage.view.begin("m", 2_000)
    for number in range(2_000):
        stage.view.update(RowsProgress(2_000, number + 1))
    stage.view.finish(RowsProgress(2_000, 2_000), TABLE, "p50 0.2 s")
    assert stage.file.getvalue().count("━") <= 30
    assert stage.shown == END


def test_a_terminal_in_the_background_shows_the_end_alone() -> None:
    stage = Stage(streams=False)
    stage.view.begin("m", 2_000)
    stage.view.note("A note.")
    stage.clock.now += 9
    stage.view.update(RowsProgress(2_000, 1_000))
    stage.view.finish(RowsProgress(2_000, 2_000), TABLE, "p50 0.2 s")
    assert stage.file.getvalue().splitlines() == ["A note.", *END.splitlines()]


def test_an_end_nobody_knows_and_an_interrupt() -> None:
    stage = Stage()
    stage.view.begin("m", None)
    stage.clock.now += 1
    stage.view.update(RowsProgress(None, 7, rate=0.1))
    assert stage.shown.endswith("7 rows, 6/min")
    stage.view.fail(RowsProgress(None, 8))
    assert stage.shown == "Interrupted. 8 rows"


def test_nothing_reaches_the_terminal_as_a_command() -> None:
    stage = Stage(width=300)
    stage.view.begin(EVIL, 9)
    stage.view.note(EVIL)
    stage.clock.now += 1
    evil = RowLine(EVIL, EVIL, failed=True)
    stage.view.update(RowsProgress(9, 4, 2, failures={EVIL: 2}, last=(evil, row_line(EVIL, EVIL)), waiting=EVIL))
    rows = [TableRow(EVIL, {EVIL: EVIL}), TableRow(EVIL, error=EVIL)]
    stage.view.finish(RowsProgress(9, 9), RowsTable(rows, 9, EVIL, EVIL), EVIL)
    written = stage.file.getvalue()
    written.encode()
    assert "\x1b[2J" not in written
    assert "\u202e" not in written
    assert written.count("␛[2J<script>alert(1)</script>[red]{U+202E}\ufffd") >= 7


def test_a_terminal_that_shows_none() -> None:
    stage = Stage("none")
    stage.view.begin("m", 9)
    stage.view.note("A note.")
    stage.view.update(RowsProgress(9, 4))
    stage.view.finish(RowsProgress(9, 9), TABLE, "p50")
    stage.view.fail(RowsProgress(9, 9))
    assert stage.file.getvalue() == ""


# A pipe


def test_a_pipe_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    view = PlainRowsView("markdown", clock=clock)
    view.begin("m", 2_000)
    view.note("A note.")
    for number in range(1_200):  # in 12 seconds
        clock.now += 0.01
        view.update(RowsProgress(2_000, number + 1, waiting="waits for \x1b[2Jm" if number > 700 else ""))
    view.finish(RowsProgress(2_000, 2_000), TABLE, "p50 0.2 s")
    view.update(RowsProgress(2_000, 1))
    out, err = capsys.readouterr()
    assert out == "row  label  error\n0    price\n1           RefusedError: no\n2 of 2,000 rows\n"
    lines = err.splitlines()
    assert [lines[0], *lines[3:]] == ["A note.", "m · p50 0.2 s"]
    assert re.fullmatch(r"50\d of 2,000", lines[1])
    assert re.fullmatch(r"1,00\d of 2,000, waits for ␛\[2Jm", lines[2])


def test_a_pipe_in_the_background_an_interrupt_and_none(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    view = PlainRowsView("markdown", streams=False, clock=clock)
    view.begin("m", 9)
    clock.now += 60
    view.update(RowsProgress(9, 4))
    assert capsys.readouterr().err == ""
    view.fail(RowsProgress(9, 4, in_flight=2, seconds_left=9, waiting="waits"))
    assert capsys.readouterr() == ("", "Interrupted. 4 of 9\n")
    none = PlainRowsView("none", clock=clock)
    none.begin("m", 9)
    none.note("A note.")
    clock.now += 60
    none.update(RowsProgress(9, 4))
    none.finish(RowsProgress(9, 9), TABLE, "p50")
    none.fail(RowsProgress(9, 9))
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_json(capsys: pytest.CaptureFixture[str]) -> None:
    PlainRowsView("json").finish(RowsProgress(2, 2), TABLE, "")
    assert capsys.readouterr().out == '{"row": 0, "value": "price"}\n{"row": 1, "error": "RefusedError: no"}\n'
