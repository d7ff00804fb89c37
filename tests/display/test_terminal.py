"""In a terminal: what a screen of a given height shows in the end, by a small emulation of one."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console
from terminal_screen import Screen

from llm_magic.display.terminal import TerminalView
from llm_magic.draft import Draft
from llm_magic.events import Finished, ReasoningDelta, TextDelta, ToolResult
from llm_magic.response import Response


class Stage:
    """A view on a screen, with a clock of its own."""

    def __init__(self, show: str = "markdown", *, height: int = 12, streams: bool = True) -> None:
        self.now = 0.0
        self.file = io.StringIO()
        self.console = Console(file=self.file, force_terminal=True, width=60, height=height, color_system=None)
        self.view = TerminalView(show, 20, streams=streams, console=self.console, clock=lambda: self.now)
        self.draft = Draft(clock=lambda: self.now)
        self.draft.begin_request()
        self.screen = Screen(height)

    def say(self, text: str, size: int = 5, value: object = None) -> None:
        for at in range(0, len(text), size):
            self.draft.add(TextDelta(text[at : at + size]))
            self.now += 0.02
            self.view.update(self.draft, None if value is None else lambda: value)

    @property
    def shown(self) -> str:
        self.screen.write(self.file.getvalue())
        self.file.seek(0)
        self.file.truncate()
        return self.screen.text


TEXT = "# Title\n\nSome *text*.\n\n" + "".join(f"- item {number}\n" for number in range(40)) + "\nThe end.\n"


@pytest.mark.parametrize("height", [5, 12, 100])
def test_an_answer_longer_than_the_screen_is_shown_once_and_whole(height: int) -> None:
    stage = Stage(height=height)
    stage.say(TEXT)
    stage.draft.add(Finished("stop"))
    stage.view.finish(stage.draft.response(), "the footer")
    shown = stage.shown
    assert re.findall(r"item (\d+)$", shown, re.MULTILINE) == [str(number) for number in range(40)]
    assert shown.count("Title") == shown.count("Some text.") == shown.count("The end.") == 1
    assert shown.endswith("the footer")


def test_only_the_tail_is_repainted() -> None:
    stage = Stage()
    stage.say("First block.\n\nSecond")
    before = stage.shown
    assert before.startswith("First block.")
    stage.say(" block goes on.")
    stage.now += stage.view.wait
    stage.view.update(stage.draft)
    assert "First" not in stage.file.getvalue()
    assert stage.shown.endswith("Second block goes on.")


def test_lines_of_progress_and_thought_give_way() -> None:
    stage = Stage()
    stage.view.progress("waiting for m: 3 s")
    assert stage.shown == "waiting for m: 3 s"
    stage.draft.add(ReasoningDelta("well, then"))
    stage.now += 1
    stage.view.update(stage.draft)
    assert stage.shown == "reasoning, 1 s …"
    stage.say("Answer.\n\n")
    stage.view.finish(stage.draft.response(), "")
    assert stage.shown.split() == [
        "Reasoning",
        "(2",
        "words)",
        "Answer.",
        "Cut",
        "off:",
        "the",
        "connection",
        "ended",
        "before",
        "the",
        "answer",
        "did.",
    ]


def test_tool_calls_and_notes_stay_above() -> None:
    stage = Stage()
    stage.view.note("a note")
    stage.draft.add(ToolResult("1", "add", '{"a": 1}', "3"))
    stage.say("Three.")
    stage.draft.add(Finished("stop"))
    stage.view.finish(stage.draft.response(), "")
    assert [line for line in stage.shown.splitlines() if line] == [
        "a note", "add(a=1) → 3", "    add {", '      "a": 1', "    }", "    → 3", "Three.",
    ]  # fmt: skip


def test_a_value_grows_and_ends_as_a_table() -> None:
    stage = Stage()
    stage.say('{"a": "x', value={"a": "x"})
    assert stage.shown == "a  x"
    stage.view.finish(Response(text='{"a": "xy"}', value={"a": "xy"}, finish_reason="stop"), "")
    assert stage.shown == "a  xy"


@pytest.mark.parametrize(
    ("show", "shown"), [("text", "*a*\n\n```\nx\n```"), ("code", "x"), ("none", ""), ("json", "*a*\n\n```\nx\n```")]
)
def test_ways_to_show_it(show: str, shown: str) -> None:
    stage = Stage(show)
    stage.say("*a*\n\n```\nx\n```\n")
    stage.draft.add(Finished("stop"))
    stage.view.finish(stage.draft.response(), "the footer")
    assert stage.shown == (f"{shown}\nthe footer" if show != "none" else "")


def test_in_the_background_it_is_printed_when_complete() -> None:
    stage = Stage(streams=False)
    stage.say("One.\n\nTwo.")
    assert stage.shown == ""
    stage.draft.add(Finished("stop"))
    stage.view.finish(stage.draft.response(), "")
    assert stage.shown.split() == ["One.", "Two."]


def test_what_had_arrived_stays_when_it_is_interrupted() -> None:
    stage = Stage()
    stage.say("Half of")
    stage.draft.add(Finished("interrupted"))
    stage.view.fail(stage.draft.response())
    assert stage.shown == "Half of\nInterrupted."


def test_nothing_is_said_to_be_cut_off_where_nothing_came() -> None:
    stage = Stage()
    stage.view.fail(stage.draft.response())
    assert stage.shown == ""


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    view = TerminalView("markdown", 20, console=Console(file=file, force_terminal=True, width=60))
    view.note("a note")
    view.finish(Response(text="**a** `b`", finish_reason="stop"), "footer")
    colours = re.findall(r"\x1b\[([\d;]*)m", file.getvalue())
    assert not [
        code for code in colours for number in code.split(";") if number[:1] in {"3", "4", "9"} and len(number) > 1
    ]


def test_the_echo_of_an_interrupt_begins_no_line_of_its_own() -> None:
    stage = Stage()
    stage.say("A line that is as long as the terminal is wide, or nearly so.")
    assert stage.file.getvalue().endswith("\r")


@pytest.mark.parametrize("width", [60, 30])
def test_nothing_of_a_table_or_of_deep_lists_is_dropped(width: int) -> None:
    words = [f"averyveryverylongword{number}" for number in range(4)]
    table = "| a | b | c |\n|---|---|---|\n" + "".join(f"| {word} | {word.upper()} | {word}x |\n" for word in words)
    deep = "\n" + "".join(f"{'  ' * depth}- deep{depth}\n" for depth in range(30))
    stage = Stage()
    stage.console.size = (width, 12)
    stage.say(table + deep + "\n" + "> " * 40 + "quoted\n", size=5_000)
    stage.draft.add(Finished("stop"))
    stage.view.finish(stage.draft.response(), "")
    letters = re.sub(r"[^0-9A-Za-z]", "", stage.shown)
    for word in [*words, *map(str.upper, words), *(f"deep{depth}" for depth in range(30)), "quoted"]:
        assert word in letters


def test_while_the_user_is_asked_stdout_is_the_terminal() -> None:
    before = sys.stdout
    stage = Stage()
    stage.view.progress("calling look …")
    assert sys.stdout is not before
    stage.view.pause()
    assert sys.stdout is before
    stage.file.write("Run look({[bold]})? [y/N] y\n")  # the answer is echoed
    stage.say("Found.")
    stage.view.finish(Response(text="Found.", finish_reason="stop"), "")
    assert stage.shown == "Run look({[bold]})? [y/N] y\nFound."
