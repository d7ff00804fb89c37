"""Several models in a terminal: columns that stream, what stays, by a small emulation of a screen."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console
from terminal_screen import Screen

from llm_magic.display import ComparisonView
from llm_magic.display.comparison_terminal import TerminalComparisonView
from llm_magic.draft import Draft
from llm_magic.events import Event, Finished, ReasoningDelta, Restarted, TextDelta, ToolCallDelta, ToolResult
from llm_magic.response import Response

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Stage:
    """Columns on a screen, with a clock of their own."""

    def __init__(
        self,
        *titles: str,
        show: str = "markdown",
        width: int = 80,
        height: int = 14,
        streams: bool = True,
        color: bool = False,
    ) -> None:
        self.now = 0.0
        self.file = io.StringIO()
        self.console = Console(
            file=self.file,
            force_terminal=True,
            width=width,
            height=height,
            color_system="standard" if color else None,
            legacy_windows=False,
        )
        self.view = TerminalComparisonView(show, 20, streams=streams, console=self.console, clock=lambda: self.now)
        as_protocol: ComparisonView = self.view
        self.columns = as_protocol.begin(titles or ("a:one", "b:two"))
        self.drafts = [Draft(clock=lambda: self.now) for _ in self.columns]
        for draft in self.drafts:
            draft.begin_request()
        self.screen = Screen(height)

    def add(self, place: int, *events: Event | str, value: object = None) -> None:
        for event in events:
            self.drafts[place].add(TextDelta(event) if isinstance(event, str) else event)
        self.columns[place].update(self.drafts[place], None if value is None else lambda: value)

    def pass_time(self, seconds: float = 0.2) -> None:
        self.now += seconds
        self.view.tick()

    def end(self, place: int, reason: str = "stop", footer: str = "", **known: object) -> None:
        self.drafts[place].add(Finished(reason))
        self.columns[place].finish(self.drafts[place].response(**known), footer)

    @property
    def written(self) -> str:
        text = self.file.getvalue()
        self.file.seek(0)
        self.file.truncate()
        return text

    @property
    def shown(self) -> str:
        self.screen.write(self.written)
        return self.screen.text

    def column(self, place: int) -> list[str]:
        """Return the lines of one of two columns that are on screen, without empty ones."""
        lines = [line.partition("│")[2 * place].strip() for line in self.shown.splitlines()]
        return [line for line in lines if line]


def test_answers_stream_side_by_side() -> None:
    stage = Stage()
    stage.add(0, "Left answer")
    stage.add(1, "Right ")
    assert stage.shown == ""
    stage.pass_time()
    rule = "─" * 38
    assert stage.shown == f"{'a:one':38} │ b:two\n{rule} │ {rule}\n{'Left answer':38} │ Right"
    stage.add(1, "answer")
    stage.pass_time()
    stage.end(0, footer="a:one · 1 s")
    stage.end(1, footer="b:two · 2 s")
    stage.view.finish(None, "2 models")
    assert stage.column(0) == ["a:one", rule, "Left answer", "a:one · 1 s", "2 models"]
    assert stage.column(1) == ["b:two", rule, "Right answer", "b:two · 2 s"]


def test_the_echo_of_an_interrupt_begins_no_line_of_its_own() -> None:
    stage = Stage()
    stage.add(0, "Left.")
    stage.add(1, "word " * 30)
    stage.pass_time()
    assert stage.written.endswith("\r")


def test_it_repaints_no_more_often_than_it_may() -> None:
    stage = Stage()
    assert stage.view.wait == 1
    stage.add(0, "word ")
    stage.pass_time()
    stage.written  # noqa: B018 - what was painted
    for _ in range(5):
        stage.add(0, "word ")
        stage.pass_time(0.01)
    assert stage.written == ""
    assert 0.005 <= stage.view.wait <= 0.08
    stage.pass_time(0.08)
    assert stage.written
    stage.pass_time(5)
    assert stage.written == ""  # nothing is new


LONG = "# Title\n\nSome *text*.\n\n" + "".join(f"- item {number}\n" for number in range(40)) + "\nThe end.\n"


@pytest.mark.parametrize("height", [3, 5, 12, 100])
@pytest.mark.parametrize("width", [80, 50])
def test_answers_longer_than_the_screen_are_printed_once_and_whole(height: int, width: int) -> None:
    stage = Stage(height=height, width=width)
    for at in range(0, len(LONG), 9):
        for place in (0, 1):
            stage.add(place, LONG[at : at + 9])
        stage.pass_time()
        stage.shown  # noqa: B018 - the screen follows
    for place in (0, 1):
        stage.end(place, footer="the footer of one")
    stage.view.finish(None, "the footer")
    shown = stage.shown
    items = [int(number) for number in re.findall(r"item (\d+)", shown)]
    assert sorted(items) == sorted([*range(40), *range(40)])
    assert shown.count("Title") == shown.count("Some text.") == shown.count("The end.") == 2
    assert shown.count("a:one") == shown.count("b:two") == 1
    assert shown.splitlines()[-1] == "the footer"


def test_meanwhile_each_column_shows_its_end() -> None:
    stage = Stage(height=8)
    stage.add(0, LONG[: LONG.index("- item 30")])
    stage.add(1, "Short.")
    stage.pass_time()
    assert stage.column(0) == ["a:one", "─" * 38, *(f"• item {number}" for number in range(26, 30))]
    assert stage.column(1) == ["b:two", "─" * 38, "Short."]


def test_where_it_is_narrow_they_stand_below_each_other() -> None:
    stage = Stage(width=59, height=20)
    stage.add(0, "Left.")
    stage.add(1, "Right.")
    stage.pass_time()
    rule = "─" * 59
    assert stage.shown == f"a:one\n{rule}\nLeft.\n\nb:two\n{rule}\nRight."
    stage.end(0)
    stage.end(1)
    stage.view.finish(None, "")
    assert stage.shown == f"a:one\n{rule}\nLeft.\n\nb:two\n{rule}\nRight."


def test_four_models_stand_two_by_two() -> None:
    stage = Stage("m:1", "m:2", "m:3", "m:4", width=100)
    for place in range(4):
        stage.add(place, f"Answer {place + 1}.")
        stage.end(place)
    stage.view.finish(None, "")
    lines = [re.split(r" +│ +", line) for line in stage.shown.splitlines() if "─" not in line]
    assert lines == [["m:1", "m:2"], ["Answer 1.", "Answer 2."], [""], ["m:3", "m:4"], ["Answer 3.", "Answer 4."]]


@pytest.mark.parametrize("text", ["日本語の文章です。" * 9, "😀" * 60, "e\u0301" * 70, "한국어 텍스트 " * 9])
def test_wide_characters_keep_the_columns_straight(text: str) -> None:
    stage = Stage()
    for place in (0, 1):
        stage.add(place, text)
        stage.end(place)
    stage.view.finish(None, "")
    lines = stage.written.splitlines()
    assert {cell_len(line.partition("│")[0]) for line in lines} == {39}
    assert max(map(cell_len, lines)) <= 80
    left, right = ("".join(line.split("│")[place].strip() for line in lines[2:]) for place in (0, 1))
    assert left.replace(" ", "") == right.replace(" ", "") == text.replace(" ", "")


def test_after_emoji_of_which_terminals_know_no_width_the_cursor_is_put_in_its_place() -> None:
    stage = Stage()
    stage.add(0, "\U0001f469\u200d\U0001f469\u200d\U0001f467 family")
    stage.add(1, "x")
    stage.end(0)
    stage.end(1)
    stage.view.finish(None, "")
    assert re.search(r"family +\x1b\[39G │ x +$", stage.written, re.MULTILINE)


@pytest.mark.parametrize("width", [80, 62, 30])
def test_nothing_of_a_table_or_of_deep_lists_is_dropped(width: int) -> None:
    words = [f"averyveryverylongword{number}" for number in range(8)]
    table = "| a | b |\n|---|---|\n" + "".join(f"| {word} | {word.upper()} x |\n" for word in words)
    deep = "\n" + "".join(f"{'  ' * depth}- deep{depth}\n" for depth in range(30))
    quoted = f"\n{'> ' * 40}quoted\n"
    stage = Stage(width=width)
    stage.add(0, table + deep + quoted)
    stage.add(1, "x")
    stage.end(0)
    stage.end(1)
    stage.view.finish(None, "")
    left = re.sub(r"[^0-9A-Za-z]", "", "".join(stage.column(0)))
    for word in [*words, *map(str.upper, words), *(f"deep{depth}" for depth in range(30)), "quoted"]:
        assert word in left


@pytest.mark.parametrize("show", ["markdown", "text", "code", "json"])
def test_what_a_model_writes_is_no_command_for_the_terminal(show: str) -> None:
    evil = "a\x1b[2J\x1b]0;title\x07b\x9b31mc\x08\x7f\u202ed\r\rend"
    stage = Stage(evil, "b", show=show)
    stage.columns[0].note(evil)
    stage.columns[0].progress(evil)
    stage.pass_time()
    stage.add(0, ToolResult("1", evil, evil, evil), evil)
    stage.pass_time()
    stage.end(0, "length", evil)
    stage.columns[1].fail(None)
    stage.view.failed(1, evil)
    stage.view.note(evil)
    stage.view.finish(None, evil)
    written = re.sub(r"\x1b\[(?:\d*[AGK]|2K|\?25[lh])", "", stage.written)
    assert re.findall(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", written) == []
    assert set(re.findall(r"\r(?!\n)", written)) <= {"\r"}
    assert "␛[2J" in written


def test_a_carriage_return_does_not_write_over_the_other_column() -> None:
    stage = Stage()
    stage.add(0, "over\rwritten")
    stage.add(1, "x")
    stage.end(0)
    stage.end(1)
    stage.view.finish(None, "")
    assert stage.column(0)[2] == "over␍written"


def test_what_is_waited_for_gives_way() -> None:
    stage = Stage()
    stage.columns[0].progress("waiting for a:one: 2 s")
    stage.columns[1].progress("waiting for b:two: 2 s")
    stage.pass_time()
    assert stage.column(0)[2:] == ["waiting for a:one: 2 s"]
    stage.add(0, ReasoningDelta("well, then"))
    stage.add(1, ToolCallDelta(0, "1", "look", "{}"))
    stage.pass_time()
    assert stage.column(0)[2:] == ["reasoning, 0 s …"]
    assert stage.column(1)[2:] == ["calling look …"]
    stage.add(0, "Answer.")
    stage.add(1, ToolResult("1", "look", "{}", "found"))
    stage.pass_time()
    assert stage.column(0)[2:] == ["Reasoning (2 words)", "Answer."]
    stage.add(1, Restarted("tools"), "Found.")
    stage.end(0)
    stage.end(1)
    stage.view.finish(None, "")
    assert stage.column(0)[2:] == ["Reasoning (2 words)", "Answer."]
    assert stage.column(1)[2:] == ["look() → found", "look {}", "→ found", "Found."]


def test_notes_of_a_column_stand_in_it_and_those_of_all_above() -> None:
    stage = Stage()
    stage.add(0, "One.")
    stage.pass_time()
    stage.view.note("Said of all.")
    stage.columns[1].note("Said of two.")
    stage.pass_time()
    stage.end(0)
    stage.add(1, "Two.")
    stage.end(1)
    stage.view.finish(None, "")
    lines = stage.shown.splitlines()
    assert lines[0] == "Said of all."
    assert stage.column(0)[1:] == ["a:one", "─" * 38, "One."]
    assert stage.column(1)[1:] == ["─" * 38, "Said of two.", "Two."]


def test_one_that_fails_says_so_in_its_column_below_what_had_arrived() -> None:
    stage = Stage("a", "b", "c", width=99)
    stage.add(0, "Half of")
    stage.pass_time()
    stage.drafts[0].add(Finished("truncated"))
    stage.columns[0].fail(stage.drafts[0].response())
    stage.view.failed(0, "IncompleteAnswerError: cut off.\nAsk again.")
    stage.columns[1].fail(None)
    stage.view.failed(1, "No connection to b.")
    stage.pass_time()
    stage.add(2, "All is well.")
    stage.pass_time()
    assert "No connection to b." in stage.shown
    stage.end(2, footer="c · 1 s")
    stage.view.finish(None, "2 of 3 failed")
    lines = [[cell.strip() for cell in line.split("│")] for line in stage.shown.splitlines()]
    assert lines[2:] == [
        ["Half of", "No connection to b.", "All is well."],
        ["Cut off: the connection ended", "", "c · 1 s"],
        ["before the answer did.", "", ""],
        ["IncompleteAnswerError: cut off.", "", ""],
        ["Ask again.", "", ""],
        ["2 of 3 failed"],
    ]


@pytest.mark.parametrize(
    ("show", "shown"),
    [("text", ["*a*", "```", "x", "```"]), ("code", ["x"]), ("json", ["*a*", "```", "x", "```"])],
)
def test_ways_to_show_it(show: str, shown: list[str]) -> None:
    stage = Stage(show=show)
    for place in (0, 1):
        stage.add(place, "*a*\n\n```\nx\n```\n")
    stage.pass_time()
    for place in (0, 1):
        stage.end(place)
    stage.view.finish(None, "")
    assert stage.column(0)[2:] == stage.column(1)[2:] == shown


def test_shown_as_none_there_is_what_must_be_known() -> None:
    stage = Stage(show="none")
    stage.columns[0].progress("waiting for a:one: 1 s")
    stage.pass_time()
    assert stage.shown == "a:one: waiting for a:one: 1 s"
    stage.add(0, "Text.")
    stage.pass_time()
    assert stage.shown == ""
    stage.view.note("A note.")
    stage.end(0, footer="a footer")
    stage.columns[1].fail(None)
    stage.view.failed(1, "No connection.")
    stage.view.finish(None, "the footer")
    assert stage.shown == "A note.\nb:two\nNo connection."


def test_in_the_background_there_is_only_what_stays() -> None:
    stage = Stage(streams=False)
    stage.columns[0].progress("waiting")
    stage.add(0, ToolResult("1", "add", "{}", "3"), Restarted("tools"), "One.\n\nTwo.")
    stage.pass_time()
    assert stage.written == ""
    stage.end(0)
    stage.add(1, "Three.")
    stage.end(1)
    stage.view.finish(None, "the footer")
    assert stage.column(0)[2:] == ["add() → 3", "add {}", "→ 3", "One.", "Two.", "the footer"]
    assert HIDE not in stage.written


def test_what_comes_from_recordings_is_shown_once_at_the_end() -> None:
    stage = Stage()
    for place in (0, 1):
        stage.columns[place].hold()
        stage.add(place, "Recorded.")
        stage.pass_time()
        assert stage.written == ""
    for place in (0, 1):
        stage.end(place)
        stage.pass_time()
    assert stage.written == ""
    stage.view.finish(None, "")
    assert stage.column(1)[2:] == ["Recorded."]


def test_one_that_is_held_is_shown_when_it_is_complete_or_goes_on_live() -> None:
    stage = Stage()
    stage.columns[0].hold()
    stage.add(0, "Recorded.")
    stage.add(1, "Live.")
    stage.pass_time()
    assert stage.column(0) == ["a:one", "─" * 38]
    stage.columns[0].release()
    stage.add(0, " More.")
    stage.pass_time()
    assert stage.column(0)[2:] == ["Recorded. More."]


# Typed values


def typed(stage: Stage, place: int, text: str, value: object) -> None:
    stage.add(place, text, value=value)
    stage.pass_time()
    stage.end(place, footer=f"footer {place}", value=value, structured="json_schema")


def test_values_grow_in_columns_and_end_as_one_table() -> None:
    stage = Stage()
    stage.add(0, '{"city": "Os', value={"city": "Os"})
    stage.add(1, '{"ci', value={"city": "Ber"})
    stage.pass_time()
    assert stage.column(0)[2:] == ["city  Os"]
    assert stage.column(1)[2:] == ["city  Ber"]
    values = {"a:one": {"city": "Oslo", "year": 1048}, "b:two": {"city": "Bergen", "year": 70}}
    typed(stage, 0, "lo", values["a:one"])
    typed(stage, 1, "gen", values["b:two"])
    stage.view.finish(values, "the footer")
    assert stage.shown.splitlines() == [
        "model  city    year", "a:one  Oslo    1048", "b:two  Bergen    70", "footer 0", "footer 1", "the footer",
    ]  # fmt: skip


def test_what_failed_stands_in_the_table_and_what_had_arrived_below_it() -> None:
    stage = Stage()
    typed(stage, 0, "yes", "yes")
    stage.columns[1].note("A note of two.")
    stage.add(1, "no value at all", value="no")
    stage.drafts[1].add(Finished("stop"))
    stage.columns[1].fail(stage.drafts[1].response())
    stage.view.failed(1, "InvalidValueError: it is none.")
    stage.view.finish({"a:one": "yes", "b:two": ValueError("it is none.\x1b[2J")}, "")
    lines = stage.shown.splitlines()
    assert lines[:3] == ["model  value  error", "a:one  yes", "b:two         ValueError: it is none.␛[2J"]
    assert lines[3:] == ["footer 0", "b:two", "A note of two.", "no value at all"]


def test_long_cells_go_on_below_and_many_fields_stand_below_each_other() -> None:
    words = " ".join(f"word{number}" for number in range(40))
    stage = Stage(width=60)
    stage.view.finish({"a:one": {"said": words, "n": 1}, "b:two": {"said": "x", "n": 2}}, "")
    shown = stage.shown
    assert "".join(re.findall(r"word\d+", shown)) == words.replace(" ", "")
    assert max(map(len, shown.splitlines())) <= 60
    stage = Stage(width=60)
    stage.view.finish({"a:one": {f"field{number}": number for number in range(12)}, "b:two": ValueError("no")}, "")
    lines = stage.shown.splitlines()
    assert lines[:2] == ["a:one", "field0   0"]
    assert lines[-2:] == ["b:two", "ValueError: no"]


def test_values_shown_as_json_are_columns() -> None:
    stage = Stage(show="json")
    typed(stage, 0, '{"a": 1}', {"a": 1})
    typed(stage, 1, '{"a": 2}', {"a": 2})
    stage.view.finish({"a:one": {"a": 1}, "b:two": {"a": 2}}, "")
    assert stage.column(0)[2:] == ["{", '"a": 1', "}", "footer 0"]


# An interrupt


def test_what_had_arrived_stays_when_it_is_interrupted() -> None:
    stage = Stage()
    stage.add(0, "Whole.")
    stage.end(0)
    stage.add(1, "Half of")
    stage.pass_time()
    stage.drafts[1].add(Finished("interrupted"))
    stage.columns[1].fail(stage.drafts[1].response())
    stage.view.fail()
    assert stage.column(0)[2:] == ["Whole."]
    assert stage.column(1)[2:] == ["Half of", "Interrupted."]
    stage.view.fail()
    assert stage.written == ""


def test_columns_that_were_told_no_end_show_what_had_arrived_above_the_mark() -> None:
    stage = Stage()
    stage.add(0, "Half of")
    stage.view.fail("Stopped.")
    assert stage.column(0)[2:] == ["Half of", "Stopped."]


def test_where_nothing_came_there_is_the_mark_alone() -> None:
    stage = Stage()
    stage.columns[0].progress("waiting for a:one: 1 s")
    stage.pass_time()
    for column in stage.columns:
        column.fail(None)
    stage.view.fail()
    assert stage.shown == "Interrupted."


def test_an_interrupt_while_it_paints_leaves_the_cursor_and_stdout_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout
    stage = Stage()
    stage.add(0, "Half of")
    stage.pass_time()
    assert sys.stdout is not before

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    stage.add(0, " an answer")
    with monkeypatch.context() as patched:
        patched.setattr("llm_magic.display.comparison_terminal._beside_each_other", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stage.pass_time()
    stage.view.fail()
    written = stage.written
    assert sys.stdout is before
    assert written.rindex(SHOW) > written.rindex(HIDE)
    assert "Half of an answer" in written


def test_an_interrupt_as_the_live_display_begins_leaves_the_cursor_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout
    stage = Stage()
    stage.add(0, "Half of")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("rich.live.Live._enable_redirect_io", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stage.pass_time()
    stage.view.fail()
    written = stage.written
    assert sys.stdout is before
    assert SHOW in written
    assert "Half of" in written


def test_many_models_on_a_tiny_screen_are_never_longer_than_it() -> None:
    stage = Stage(*(f"m:{number}" for number in range(12)), width=40, height=6)
    for place in range(12):
        stage.add(place, f"Answer {place}.\n\nMore.")
    stage.pass_time()
    assert len(stage.shown.splitlines()) <= 4
    for place in range(12):
        stage.end(place)
    stage.view.finish(None, "")
    shown = stage.shown
    assert [shown.count(f"Answer {place}.") for place in range(12)] == [1] * 12


def test_a_long_answer_without_blocks_is_repainted_by_its_end() -> None:
    stage = Stage(height=8)
    stage.add(0, "```\n" + "".join(f"line {number}\n" for number in range(5_000)))
    stage.add(1, "x")
    stage.pass_time()
    assert stage.column(0)[2:] == [f"line {number}" for number in range(4_997, 5_000)]


def test_a_name_longer_than_a_column_is_whole_in_the_end() -> None:
    name = "provider:organisation/a-model-with-a-name-that-no-column-holds-2026-11-30"
    stage = Stage(name, "b:two")
    stage.add(0, "One.")
    stage.add(1, "Two.")
    stage.pass_time()
    assert "…" in stage.column(0)[0]
    stage.end(0)
    stage.end(1)
    stage.view.finish(None, "")
    assert "".join(stage.column(0)).startswith(name)


def test_without_colours_and_without_lines_where_the_terminal_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    view = TerminalComparisonView("markdown", 20, console=console)
    for column in view.begin(("a", "b")):
        column.finish(Response(text="**x** `y`", finish_reason="length"), "footer")
    view.failed(0, "It failed.")
    view.finish(None, "footer")
    colours = re.findall(r"\x1b\[([\d;]*)m", file.getvalue())
    assert not [
        code for code in colours for number in code.split(";") if number[:1] in {"3", "4", "9"} and len(number) > 1
    ]
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), force_terminal=True, width=80)
    view = TerminalComparisonView("markdown", 20, console=console)
    for column in view.begin(("a", "b")):
        column.finish(Response(text="x", finish_reason="stop"), "")
    view.finish(None, "")
    console.file.flush()
    assert b" | " in raw.getvalue()


def test_while_the_user_is_asked_stdout_is_the_terminal_and_how_far_it_is_stays() -> None:
    before = sys.stdout
    stage = Stage()
    stage.add(0, "I shall look.", ToolCallDelta(0, "1", "look", "{}"))
    stage.add(1, "Right")
    stage.pass_time()
    stage.add(1, " answer")
    stage.columns[0].pause()
    assert sys.stdout is before
    stage.file.write("Run look()? [y/N] y\n")  # the answer is echoed
    assert stage.column(0)[2:] == ["I shall look.", "Run look()? [y/N] y"]
    assert stage.column(1)[2:] == ["Right answer"]
    stage.add(0, ToolResult("1", "look", "{}", "found"), Restarted("tools"), "Found.")
    stage.pass_time()
    shown = stage.shown
    assert shown.count("Run look()? [y/N] y") == 1
    assert shown.count("a:one") == 2
    stage.end(0)
    stage.end(1)
    stage.view.finish(None, "")
    lines = [line.strip() for line in stage.shown.partition("[y/N] y")[2].replace("│", "\n").splitlines()]
    assert [line for line in lines if line and "─" not in line] == [
        "a:one", "b:two", "I shall look.", "Right answer", "look() → found", "look {}", "→ found", "Found.",
    ]  # fmt: skip
