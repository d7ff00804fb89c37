"""Offline batches in words: every status, counts that servers get wrong, hostile words; how the views show them."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from rows_on_stage import EVIL, HOSTILE, Clock, Tags, notebook
from terminal_screen import Screen

from llm_magic.display import batches, rows_markup
from llm_magic.display.batches import BatchProgress
from llm_magic.display.rows import RowsProgress, RowsTable, TableRow, ended, figures, line
from llm_magic.display.rows_plain import PlainRowsView
from llm_magic.display.rows_terminal import TerminalRowsView
from llm_magic.metadata import Usage

TABLE = RowsTable([TableRow(0, "price")], 2_000, "", "label")
HARMLESS = {
    "style",
    "class",
    "role",
    "scope",
    "value",
    "max",
    "aria-label",
    "aria-valuetext",
    "aria-valuenow",
    "aria-valuemin",
    "aria-valuemax",
}
LEFT_BEHIND = "The batch goes on at the server."
GOES_ON = (
    "unfinished: the batch goes on at the server; run this cell again to go on, here or in another kernel, any day"
)


def batch(
    status: str = "in_progress", completed: int | None = 117, failed: int | None = 3, **more: Any
) -> BatchProgress:
    given: dict[str, Any] = {"total": 2_000, "rows": 2_000, "name": "3fa1b2c4", "seconds": 4_800.0, **more}
    return BatchProgress("openai:gpt-x", status=status, completed=completed, failed=failed, **given)


def of(*several: BatchProgress, **more: Any) -> RowsProgress:
    return RowsProgress(sum(each.of for each in several), batches=several, **more)


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (batch("written", size=3_100_000), "written 2,000 rows (3.1 MB)"),
        (batch("uploading", size=3_100_000), "uploading 2,000 rows (3.1 MB)"),
        (batch("uploading", rows=1), "uploading 1 row"),
        (batch("uploaded", size=900), "uploaded 2,000 rows (1 kB)"),
        (batch("submitting"), "submitting"),
        (batch("refused"), "refused"),
        (batch("validating", 0, 0, total=0), "validating"),
        (batch(), "in progress 120/2,000, 3 failed"),
        (batch(failed=0), "in progress 117/2,000"),
        (batch(completed=0, failed=0), "in progress 0/2,000"),
        (batch(completed=None, failed=None), "in progress"),
        (batch("finalizing"), "finalizing"),
        (batch("completed", 2_000, 0), "completed"),
        (batch("completed", 1_997, 3), "completed: 3 of 2,000 failed"),
        (batch("completed", None, None), "completed"),
        (batch("expired", 1_900, 0), "expired: 1,900 of 2,000 answered"),
        (batch("expired", None, None), "expired"),
        (batch("cancelling"), "cancelling 120/2,000, 3 failed"),
        (batch("cancelled"), "cancelled: 117 of 2,000 answered"),
        (batch("failed", None, None), "failed"),
        (batch("failed", 0, 0), "failed: 0 of 2,000 answered"),
        (batch("paused_by_owner"), "paused by owner 120/2,000, 3 failed"),
        (batch("", None, None), "of no status"),
        # counts that cannot be
        (batch(completed=-5, failed=0), "in progress 0/2,000"),
        (batch(completed=9_999, failed=9_999), "in progress 2,000/2,000, 2,000 failed"),
        (batch("expired", 9_999), "expired: 2,000 of 2,000 answered"),
        (batch(total=-1, rows=0), "in progress"),
        (batch(completed=5, failed=None, total=None), "in progress 5/2,000"),
    ],
)
def test_every_status(shown: BatchProgress, words: str) -> None:
    assert batches.state(shown) == words
    assert batches.line([shown]) == words
    assert batches.line([replace(shown, part=2, parts=3)]) == f"batch 2 of 3: {words}"
    assert batches.titled([shown]) == f"batch 3fa1b2c4 {words}"


def test_several_batches_are_counted_by_their_status_those_that_ended_first() -> None:
    several = [
        batch("uploading", size=2_000_000),
        batch(completed=100, failed=0, total=5_000),
        batch("completed", 2_000, 0),
        batch(completed=20, failed=0, total=5_000),
        batch("resting", None, None),
        batch("completed", 1_997, 3),
        batch("expired", 1_900, 0),
    ]
    assert batches.line(several) == (
        "7 batches: 2 completed (3 of 4,000 failed), 1 expired (1,900 of 2,000 answered), "
        "2 in progress 120/10,000, 1 uploading 2,000 rows (2.0 MB), 1 resting"
    )
    assert batches.titled(several) == batches.line(several)


@pytest.mark.parametrize(
    ("several", "said"),
    [
        ([batch()], "submitted 1 h 20 min ago"),
        ([batch("submitting", seconds=0.0)], ""),
        ([batch(unchanged=599.0)], "submitted 1 h 20 min ago"),
        ([batch(unchanged=3_600.0)], "submitted 1 h 20 min ago · unchanged for 1 h"),
        ([batch(unchanged=3_600.0), batch(unchanged=9.0)], "submitted 1 h 20 min ago"),
        ([batch(unchanged=3_600.0), batch("completed")], "submitted 1 h 20 min ago · unchanged for 1 h"),
        ([batch("completed", unchanged=3_600.0, next_look=99.0)], "submitted 1 h 20 min ago"),
        ([batch(next_look=30.0)], "submitted 1 h 20 min ago"),
        ([batch(next_look=299.0)], "submitted 1 h 20 min ago · next look in 4 min"),
        ([batch(next_look=29.0, problem="cannot be reached")], "submitted 1 h 20 min ago · next look in 29 s"),
        ([batch(seconds=math.nan, unchanged=math.inf, next_look=-math.inf)], ""),
        ([batch(seconds=-9.0, unchanged=-9.0, next_look=-9.0)], ""),  # a clock that was set back
    ],
)
def test_how_long_it_has_been(several: list[BatchProgress], said: str) -> None:
    assert batches.times(several) == said


def test_what_goes_on_without_the_kernel() -> None:
    assert batches.unfinished([batch()]) == GOES_ON
    assert batches.unfinished([batch(), batch("completed")]).startswith("unfinished: the batches go on at the server;")
    assert "being submitted" in batches.unfinished([batch(), batch("uploading")])
    assert "being fetched" in batches.unfinished([batch("completed"), batch("expired")])
    assert batches.left_behind([batch("completed")]) == ""
    assert batches.left_behind([batch("submitting")]) == ""
    assert batches.left_behind([batch(), batch("completed")]) == "1 batch goes on at the server."
    assert batches.left_behind([batch(), batch()]) == "2 batches go on at the server."


def test_problems_once_each_and_a_few() -> None:
    several = [batch(problem=f"cannot be reached: {number}") for number in (1, 1, 2, 3, 4, 5)]
    assert batches.problems([batch("completed", problem="fetching fails")]) == ["fetching fails"]
    assert batches.problems(several) == [
        "cannot be reached: 1",
        "cannot be reached: 2",
        "cannot be reached: 3",
        "… and 2 more problems",
    ]
    assert len(batches.problems([batch(problem="x" * 10**6)])[0]) == 300


# Among the figures of rows


def test_a_run_in_a_batch_promises_no_pace() -> None:
    progress = of(batch(), rate=48.0, seconds_left=16.0, in_flight=9, cost_at_end=3.0)
    assert line(progress) == "batch 3fa1b2c4 in progress 120/2,000, 3 failed, submitted 1 h 20 min ago"
    assert figures(progress) == ("batch 3fa1b2c4 in progress 120/2,000, 3 failed", "submitted 1 h 20 min ago")
    known = of(batch(problem="cannot be reached: refused, trying again"), done=12, known=12, waiting="waits")
    assert line(known) == (
        "batch 3fa1b2c4 in progress 120/2,000, 3 failed, 12 answered before, submitted 1 h 20 min ago, "
        "cannot be reached: refused, trying again, waits"
    )


def test_what_was_fetched() -> None:
    progress = of(
        batch("completed", 1_997, 3),
        done=1_500,
        failed=2,
        failures={"RefusedError": 2},
        usage=Usage(12, 34),
        cost=0.1,
    )
    assert figures(progress) == (
        "batch 3fa1b2c4 completed · 1,500 of 2,000 fetched · 2 failed: 2 RefusedError",
        "12 → 34 tokens · $0.10 · submitted 1 h 20 min ago",
    )
    assert ended("m", progress, "p50 1 s") == "m · batch 3fa1b2c4 completed · p50 1 s"
    assert ended("m", of(batch("expired", 5, 0)), "s") == "m · batch 3fa1b2c4 expired: 5 of 2,000 answered · s"


def test_the_bar_is_what_the_server_counts() -> None:
    bar = Tags(rows_markup.live("m", of(batch()))["text/html"]).bar()
    assert (bar["value"], bar["max"]) == ("120", "2000")
    assert bar["aria-valuetext"] == "batch 3fa1b2c4 in progress 120/2,000, 3 failed, submitted 1 h 20 min ago"
    before = of(batch("uploading"), batch("refused"))
    assert Tags(rows_markup.live("m", before)["text/html"]).bar()["value"] == "0"
    fetched = of(batch("completed", 2_000, 0), done=1_500)
    assert Tags(rows_markup.live("m", fetched)["text/html"]).bar()["value"] == "2000"
    known = RowsProgress(2_012, 12, known=12, batches=(batch(),))
    assert Tags(rows_markup.live("m", known)["text/html"]).bar()["value"] == "132"


# The views


def test_the_live_output() -> None:
    problem = "cannot be reached: connection refused, trying again"
    progress = of(batch(problem=problem, unchanged=1_200.0, next_look=30.0))
    assert rows_markup.live("openai:gpt-x", progress)["text/plain"] == (
        "openai:gpt-x\n"
        "batch 3fa1b2c4 in progress 120/2,000, 3 failed\n"
        "submitted 1 h 20 min ago · unchanged for 20 min · next look in 30 s\n"
        f"{problem}\n{GOES_ON}"
    )
    stopped = rows_markup.live("openai:gpt-x", progress, mark="Interrupted.")["text/plain"]
    assert stopped == (
        "openai:gpt-x\n"
        "batch 3fa1b2c4 in progress 120/2,000, 3 failed\n"
        "submitted 1 h 20 min ago · unchanged for 20 min\n"
        f"Interrupted. {LEFT_BEHIND}"
    )


def test_a_night_is_few_repaints_and_news_is_seen_at_once() -> None:
    view, outputs, clock = notebook()
    view.begin("m", 2_000)
    began, seen = clock.now, len(outputs.done)
    while (seconds := clock.now - began) < 600:
        clock.now += 0.25
        view.update(of(batch(seconds=seconds, unchanged=seconds, next_look=30 - seconds % 30)))
    assert 110 <= len(outputs.done) - seen <= 121  # every five seconds
    seen = len(outputs.done)
    for second in range(3_600, 2 * 3_600):
        clock.now += 1
        view.update(of(batch(seconds=float(second))))
    assert len(outputs.done) - seen <= 62  # a minute is the least that is seen
    view.update(of(batch(seconds=float(2 * 3_600))))
    seen = len(outputs.done)
    clock.now += 0.3
    view.update(of(batch(completed=118, seconds=float(2 * 3_600))))
    assert len(outputs.done) - seen == 1
    assert "121/2,000" in outputs.done[-1][1]["text/plain"]


def test_a_note_is_seen_although_the_batch_stands_still() -> None:
    view, outputs, clock = notebook()
    view.begin("m", 2_000)
    clock.now += 1
    view.update(of(batch()))
    clock.now += 1
    view.note("The file of prompts was deleted.")
    assert "The file of prompts was deleted." in outputs.done[-1][1]["text/plain"]


def test_executed_without_a_screen_there_is_one_output() -> None:
    view, outputs, clock = notebook(watched=False)
    view.begin("m", 2_000)
    for _ in range(99):
        clock.now += 60
        view.update(of(batch()))
    view.finish(of(batch("completed", 2_000, 0), done=2_000), TABLE, "p50 1 s")
    assert outputs.kinds == ["settle"]
    assert outputs.done[0][1]["text/plain"].endswith("m · batch 3fa1b2c4 completed · p50 1 s")


def test_a_terminal() -> None:
    clock, file = Clock(), io.StringIO()
    console = Console(file=file, force_terminal=True, width=110, height=12, color_system=None)
    view = TerminalRowsView("markdown", 20, console=console, clock=clock)
    view.begin("openai:gpt-x", 2_000)
    clock.now += 1
    view.update(of(batch(completed=1_000, failed=0)))
    screen = Screen(12)
    screen.write(file.getvalue())
    first, second, third = screen.text.splitlines()
    assert first == "openai:gpt-x"
    assert second.split(None, 1) == [
        "━" * 18,
        "batch 3fa1b2c4 in progress 1,000/2,000, submitted 1 h 20 min ago",
    ]
    assert third == GOES_ON
    written = len(file.getvalue())
    for _ in range(16):
        clock.now += 0.25
        view.update(of(batch(completed=1_000, failed=0, seconds=clock.now)))
    assert len(file.getvalue()) == written
    view.fail(of(batch(completed=1_000, failed=0)))
    screen.write(file.getvalue()[written:])
    assert screen.text.splitlines() == [
        "Interrupted. batch 3fa1b2c4 in progress 1,000/2,000, submitted 1 h 20 min ago",
        LEFT_BEHIND,
    ]


def test_a_pipe_gets_a_line_for_news_and_every_ten_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    view = PlainRowsView("markdown", clock=clock)
    view.begin("m", 2_000)
    for second in range(0, 3_600, 5):
        clock.now += 5
        view.update(of(batch(completed=0 if second < 1_800 else 900, failed=0, seconds=second + 5.0)))
    view.fail(of(batch(completed=900, failed=0)))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "batch 3fa1b2c4 in progress 0/2,000, submitted 5 s ago"
    assert "batch 3fa1b2c4 in progress 900/2,000, submitted 30 min 5 s ago" in lines
    assert len(lines) <= 9
    assert lines[-2:] == [
        "Interrupted. batch 3fa1b2c4 in progress 900/2,000, submitted 1 h 20 min ago",
        LEFT_BEHIND,
    ]


# A `Batch` as it is shown


@pytest.mark.parametrize(
    ("several", "said"),
    [
        ([batch(failed=0, completed=120)], "<Batch 3fa1b2c4 of openai:gpt-x: in progress, 120 of 2,000>"),
        ([batch("completed", 2_000, 0)], "<Batch 3fa1b2c4 of openai:gpt-x: completed>"),
        ([batch("completed", 1_999, 1)], "<Batch 3fa1b2c4 of openai:gpt-x: completed, 1 of 2,000 failed>"),
        ([batch("uploading", size=10**6)], "<Batch 3fa1b2c4 of openai:gpt-x: uploading, 2,000 rows (1.0 MB)>"),
        (
            [batch("completed", 2_000, 0), batch(completed=120, failed=0, total=10_000)],
            "<Batch 3fa1b2c4 of openai:gpt-x: 2 batches: 1 completed, 1 in progress 120/10,000>",
        ),
        ([], "<Batch 3fa1b2c4 of openai:gpt-x: nothing is asked>"),
    ],
)
def test_a_batch_in_a_line(several: list[BatchProgress], said: str) -> None:
    assert batches.described("3fa1b2c4", "openai:gpt-x", several) == said
    bundle = batches.bundle("3fa1b2c4", "openai:gpt-x", several)
    assert bundle["text/plain"] == said
    assert said[1:-1] in Tags(bundle["text/html"]).text


def test_a_batch_as_html_has_a_bar() -> None:
    shown = Tags(batches.bundle("3fa1b2c4", "m", [batch(problem="cannot be reached")])["text/html"])
    assert (shown.bar()["value"], shown.bar()["max"]) == ("120", "2000")
    goes_on = "It goes on at the server, with or without this kernel; result() waits for it."
    assert shown.text.endswith(f"submitted 1 h 20 min agocannot be reached{goes_on}")
    assert goes_on not in batches.bundle("3fa1b2c4", "m", [batch("expired")])["text/html"]


@pytest.mark.parametrize("text", [*HOSTILE, EVIL, "x" * 10**6, "_" * 10**5])
def test_whatever_a_server_says_is_text_and_short(text: str) -> None:
    evil = batch(text, problem=text, name=text)
    for bundle in (
        rows_markup.live(text, of(evil, evil)),
        rows_markup.live(text, of(evil), mark="Interrupted."),
        rows_markup.final(TABLE, ended(text, of(evil), "p50")),
        batches.bundle(text, text, [evil]),
    ):
        assert rows_markup.size(bundle) < rows_markup.LARGEST
        shown = Tags(bundle["text/html"])
        assert {tag for tag, _ in shown.found} <= {"div", "progress", "table", "thead", "tbody", "tr", "th", "td"}
        assert all(set(attributes) <= HARMLESS for _, attributes in shown.found)
        for said in bundle.values():
            said.encode()
            assert "\x1b" not in said
            assert "\u202e" not in said
