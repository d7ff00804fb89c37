"""Answers of several models in a terminal: columns while they stream, the whole columns printed once in the end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from llm_magic.control_characters import visible
from llm_magic.display import table
from llm_magic.display.answer import ValueSoFar
from llm_magic.display.comparison_values import value_table
from llm_magic.display.markup import one_line
from llm_magic.display.rows import INTERRUPTED
from llm_magic.display.terminal import BREATH, TO_BEGIN_OF_LINE, TerminalView, Visible
from llm_magic.draft import Draft
from llm_magic.model_names import led_by, shown_models
from llm_magic.response import Response

NARROWEST = 30
"""Cells of a column, at least: where the terminal has less for each, some stand below the others."""

_GAP = " │ "
_ASCII_GAP = " | "
_LONGEST_TAIL = 20_000  # characters of a block that are rendered while it grows; of a longer one its last lines
_LONGEST_NOTE = 1_000
_CELLS = 8  # of a column of a table, at least
_DIM = Style(dim=True)

Line = list[Segment]


class TerminalComparisonView:
    """Shows the answers of several models in one terminal.

    While they stream, each column shows as much of its end as the screen has room for; what stays is printed once, when
    all have ended. Where `show` is `none`, there are no columns: only notes, and what an answer lacks.

    Parameters
    ----------
    show
        `markdown`, `text`, `code`, `json` or `none`.
    repaints
        Repaints a second, at most.
    streams
        False: there is only what stays.
    console
        Where to print; by default what rich finds out about stdout (it honours `NO_COLOR`).
    clock
        Returns seconds.

    """

    def __init__(
        self,
        show: str,
        repaints: float,
        *,
        streams: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._console = console or Console(highlight=False)
        self._show = show
        self._streams = streams
        self._clock = clock
        self._shortest = max(BREATH, 1.0 / repaints)
        self._due = float("-inf")  # when the next repaint may be
        self._changed = False
        self._columns: list[_Column] = []
        self._live: Live | None = None
        self._running = True
        self._printed = False

    @property
    def wait(self) -> float:
        """Seconds after which `tick` should be called again."""
        return max(0.005, self._due - self._clock()) if self._changed else 1.0

    def begin(self, titles: Sequence[str]) -> Sequence[TerminalView]:
        """Begin, and return the view of each column; nothing is shown before there is something to say."""
        self._columns = [
            _Column(title, self._show, self._console, self._clock, news=self._news, pause=self._pause)
            for title in shown_models(titles).values()
        ]
        return self._columns

    def tick(self) -> None:
        """Repaint what is new, unless it is too early for that."""
        if self._changed and self._running and self._streams and self._clock() >= self._due:
            self._paint()

    def note(self, text: str) -> None:
        """Print a line that stays, above the columns."""
        self._console.print(Visible(Text(text, "yellow")))

    def failed(self, place: int, message: str) -> None:
        """Say in a column why it has no answer, below what had arrived."""
        self._columns[place].say_failed(message)

    def finish(self, values: Mapping[str, Any] | None, footer: str) -> None:
        """Print the whole columns, or the typed values as one table; `footer` is the quiet line below all."""
        self._end()
        if values is not None and self._show in {"markdown", "text"}:
            self._printed = True
            self._console.print(Visible(_ValueTable(values)))
            for column in self._columns:
                self._print_below_table(column)
        else:
            self._print_columns()
        if footer and self._show != "none":
            self._console.print(Visible(Text(footer, "dim")))

    def fail(self, mark: str = INTERRUPTED) -> None:
        """Print what had arrived in each column, and below them the mark where no column has it; an error follows."""
        self._end()
        if self._printed:
            return
        self._print_columns()
        if mark and not any(column.says(mark) for column in self._columns):
            self._console.print(Visible(Text(mark, "yellow")))

    # Printing

    def _end(self) -> None:
        """Take away what is live."""
        self._running = False
        live, self._live = self._live, None
        if live is not None:
            try:
                live.update("")
            finally:  # whatever comes in between: the terminal has its cursor back, and stdout
                try:
                    live.stop()
                except IndexError:  # interrupted as it began, before it had all that its end takes back
                    self._console.show_cursor(True)

    def _print_columns(self) -> None:
        self._printed = True
        shown = [column for column in self._columns if column.has_content]
        if not shown:
            return
        if self._show != "none":
            self._console.print(_Columns(self._columns))
            return
        for column in shown:
            self._console.print(Visible(Group(column.heading, *column.content)))

    def _print_below_table(self, column: _Column) -> None:
        """Print what a column holds beside the value: with its name where that does not stand in it."""
        beside = column.beside_value
        if beside:
            self._console.print(Visible(Group(column.heading, *beside)))
        if column.footer:
            self._console.print(Visible(Text(column.footer, "dim")))

    def _pause(self) -> None:
        """Leave on screen how far it is, and begin anew below when it goes on."""
        if self._running and self._streams:
            self._paint()
        live, self._live = self._live, None
        if live is not None:
            live.transient = False
            live.stop()

    def _news(self) -> None:
        self._changed = True

    def _paint(self) -> None:
        begun = self._clock()
        shown = self._live_content()
        self._changed = False
        if shown is None:
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
            self._live.start()
        self._live.update(shown, refresh=True)
        ended = self._clock()
        self._due = ended + max(self._shortest, 4 * (ended - begun))

    def _live_content(self) -> RenderableType | None:
        """Return what is repainted, None where all that there is to show stays."""
        going_on = [column for column in self._columns if not column.ended and not column.held]
        if self._show == "none":
            lines = [
                one_line(led_by(column.title, column.waiting), max(1, self._console.width - 1))
                for column in going_on
                if column.waiting
            ]
            return Text("\n".join(lines), "dim") if lines or self._live is not None else None
        if self._live is None and not (going_on and any(column.has_content for column in self._columns)):
            return None
        return _Columns(self._columns, max(1, self._console.height - 2))


class _Column(TerminalView):
    """The view of one model: what it prints is kept, and stands in the column when the whole is repainted."""

    def __init__(
        self,
        title: str,
        show: str,
        console: Console,
        clock: Callable[[], float],
        *,
        news: Callable[[], None],
        pause: Callable[[], None],
    ) -> None:
        super().__init__(show, 1.0, console=console, clock=clock)
        self.title = title
        self.ended = False
        self.footer = ""
        self._news = news
        self._pause = pause
        self._items: list[_Item] = []  # what stays
        self._value_items = range(0)  # those of them that are the answer where it is a value
        self._ends: list[int] = []  # and those that are the footer or the failure
        self._said: list[str] = []

    @property
    def held(self) -> bool:
        """Whether it comes from a recording, and is shown when it is complete."""
        return self._held and not self.ended

    @property
    def waiting(self) -> str:
        """The line that what follows will replace."""
        return visible(self._line)

    @property
    def heading(self) -> Text:
        """The model's name."""
        return Text(one_line(self.title, _LONGEST_NOTE), "bold")

    @property
    def content(self) -> list[RenderableType]:
        """What stays, and where the answer is still arriving its tail."""
        tail = self._growing()
        return [*self._items, *([] if tail is None else [tail])]

    @property
    def has_content(self) -> bool:
        """Whether there is anything to show below the heading."""
        return not self.held and (bool(self._items) or self._growing() is not None)

    @property
    def beside_value(self) -> list[_Item]:
        """What stays beside what is in the table: notes, reasoning, tool calls, marks, and what is no value."""
        in_table = {*self._value_items, *self._ends}
        return [item for number, item in enumerate(self._items) if number not in in_table]

    def says(self, mark: str) -> bool:
        """Return whether a mark stands in this column."""
        return mark in self._said

    def say_failed(self, message: str) -> None:
        """Say why there is no answer."""
        self._line = ""
        self.ended = True
        self._ends.append(len(self._items))
        self._print(Text(visible(message), "red"))

    @property
    def wait(self) -> float:
        """Seconds after which `update` should be called again."""
        return 1.0

    def pause(self) -> None:
        """Leave on screen what all columns have."""
        self._pause()

    def update(self, draft: Draft, value: ValueSoFar | None = None) -> None:
        """Take what is new."""
        before = self._line
        super().update(draft, value)
        if self._line != before:
            self._news()

    def finish(self, response: Response, footer: str) -> None:
        """Keep the rest of the answer, and the footer."""
        super().finish(response, footer)
        if footer and self._show != "none":
            self.footer = footer
            self._ends.append(len(self._items) - 1)
        self.ended = True

    def fail(self, response: Response | None) -> None:
        """Keep what had arrived, marked."""
        super().fail(response)
        self.ended = True
        self._value_items = range(0)  # which is no value, and stays

    def _print_answer(self, response: Response) -> None:
        before, as_it_came = len(self._items), self._by_block
        super()._print_answer(response)
        if response.structured is not None or not as_it_came:
            self._value_items = range(before, len(self._items))

    def _print(self, what: RenderableType) -> None:
        self._items.append(_Item(what))
        if isinstance(what, Text):
            self._said.append(what.plain)
        self._news()

    def _paint(self) -> None:
        self._dirty = False
        self._news()

    def _stop(self) -> None:
        """Nothing of its own is live."""

    def _growing(self) -> RenderableType | None:
        """Return what is repainted until it ends: a line that gives way, or the tail of the answer."""
        if self.ended or not (self._line or self._reader.length):
            return None
        if not self._line and self._value is None and self._by_block:
            if not self._splitter.length:
                return None
            if self._splitter.length > _LONGEST_TAIL:
                return Text(visible(self._splitter.tail[-_LONGEST_TAIL:]))
        return Text(self.waiting, "dim") if self._line else self._tail()


class _Item:
    """Something that stays, rendered once for a width."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner
        self.is_spacer = inner == ""
        self._width = -1
        self._lines: list[Line] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines(console, options):
            yield from line
            yield Segment.line()

    def lines(self, console: Console, options: ConsoleOptions) -> list[Line]:
        """Return its lines, none longer than the width."""
        if self._width != options.max_width:
            self._lines = _lines(self._inner, console, options)
            self._width = options.max_width
        return self._lines


class _Columns:
    """Columns next to each other, as many as the width has room for, the others below.

    With a `height` each shows the end of its content, and all together have no more lines.
    """

    def __init__(self, columns: Sequence[_Column], height: int | None = None) -> None:
        self._columns = columns
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        count = len(self._columns)
        bands = -(-count // max(1, min(count, options.max_width // NARROWEST)))
        across = -(-count // bands)
        gap = _ASCII_GAP if options.ascii_only else _GAP
        width = max(1, (options.max_width - len(gap) * (across - 1)) // across)
        inner = options.update(width=width, height=None)
        room = None if self._height is None else max(2, self._height // bands - (bands > 1))
        lines: list[Line] = []
        for first in range(0, count, across):
            if first:
                lines.append([])
            found = [self._column(each, console, inner, room) for each in self._columns[first : first + across]]
            lines += _beside_each_other(found, width, gap)
        for number, line in enumerate(lines if self._height is None else lines[: self._height]):
            if number and self._height is not None:
                yield Segment.line()  # what is live has no end of line
            yield from line
            if self._height is None:
                yield Segment.line()
        if self._height is not None:
            yield TO_BEGIN_OF_LINE

    def _column(self, column: _Column, console: Console, options: ConsoleOptions, room: int | None) -> list[Line]:
        """Return the lines of one column: its heading, a rule, and its content, of which the last fit in `room`."""
        rule = Text(("-" if options.ascii_only else "─") * options.max_width, "dim")
        heading = column.heading
        if room is not None:
            heading.truncate(options.max_width, overflow="ellipsis")
        head = _lines(Group(heading, rule), console, options)
        if room is None:
            return [*head, *_below_each_other(column.content, console, options)]
        if column.held:
            return head[:room]
        head = head[:1] if room <= 2 * len(head) else head
        last: list[RenderableType] = []
        length = 0
        for item in reversed(column.content):
            last.insert(0, item)
            length += len(_lines(item, console, options))
            if length > room:
                break
        lines = _below_each_other(last, console, options)
        return [*head, *lines[max(0, len(lines) - room + len(head)) :]]


def _below_each_other(items: Sequence[RenderableType], console: Console, options: ConsoleOptions) -> list[Line]:
    """Return the lines of items; some Markdown begins with an empty line, and one is enough."""
    lines: list[Line] = []
    after_blank = True
    for item in items:
        own = _lines(item, console, options)
        first = next((number for number, line in enumerate(own) if not _is_blank(line)), len(own)) if after_blank else 0
        lines += own[first:]
        after_blank = isinstance(item, _Item) and item.is_spacer
    return lines


def _is_blank(line: Line) -> bool:
    return all(not segment.text.strip() and (segment.style is None or not segment.style.bgcolor) for segment in line)


def _lines(what: RenderableType, console: Console, options: ConsoleOptions) -> list[Line]:
    if isinstance(what, _Item):
        return what.lines(console, options)
    return console.render_lines(Visible(what), options, pad=False)


def _beside_each_other(columns: Sequence[Sequence[Line]], width: int, gap: str) -> list[Line]:
    """Return the lines of columns joined; the last one is not padded."""
    joined = []
    for number in range(max(map(len, columns))):
        line: Line = []
        for place, column in enumerate(columns):
            own = column[number] if number < len(column) else []
            if place == len(columns) - 1:
                line += own
                continue
            line += Segment.adjust_line_length(own, width)
            if any(_WIDTH_IN_DOUBT.search(segment.text) for segment in own):
                end = place * (width + len(gap)) + width
                line.append(Control((ControlType.CURSOR_MOVE_TO_COLUMN, end)).segment)
            line.append(Segment(gap, _DIM))
        joined.append(line)
    return joined


_WIDTH_IN_DOUBT = re.compile("[\u200d\ufe0f\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff]")
"""What joins emoji to one, and modifies them: terminals do not agree on how wide that is."""


class _ValueTable:
    """Typed values as a table whose long cells go on below; field by field where the terminal is too narrow for one."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found = value_table(self._values)
        if len(found.heads) * (_CELLS + 2) > options.max_width:
            titles = shown_models(self._values)
            for name, value in self._values.items():
                yield Text(one_line(titles[name], _LONGEST_NOTE), "bold")
                failed = isinstance(value, BaseException)
                shown = value_table({name: value}).rows[0][-1] if failed else table.shown(value)["text/plain"]
                yield Text(visible(shown), "red" if failed else "")
            return
        grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for head, right in zip(found.heads, found.right, strict=True):
            grid.add_column(Text(head), justify="right" if right else "left", overflow="fold")
        for row in found.rows:
            grid.add_row(*map(Text, row))
        yield grid
