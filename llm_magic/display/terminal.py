"""An answer in a terminal: finished blocks are printed once, only the tail is repainted."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.text import Text

from llm_magic.control_characters import visible
from llm_magic.display import answer, items, markup, table
from llm_magic.display.answer import DraftReader, ValueSoFar
from llm_magic.display.blocks import Splitter
from llm_magic.draft import Draft
from llm_magic.response import Response

TO_BEGIN_OF_LINE = Control(ControlType.CARRIAGE_RETURN).segment
"""Ends what is live: the `^C` that a terminal echoes there must not begin a line of its own, or one more would stay."""
BREATH = 0.08
"""Seconds between repaints, at least; a long tail is repainted less often."""


class TerminalView:
    """Shows one answer in a terminal.

    Parameters
    ----------
    show
        `markdown`, `text`, `code`, `json` or `none`.
    repaints
        Repaints a second, at most.
    streams
        False: the answer is printed when it is complete.
    console
        Where to print; by default what rich finds out about stdout (it honours `NO_COLOR`).

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
        self._held = False
        self._clock = clock
        self._shortest = max(BREATH, 1.0 / repaints)
        self._live: Live | None = None
        self._line = ""
        self._runs = 0
        self._due = float("-inf")  # when the next repaint may be
        self._begin_answer(0)

    def _begin_answer(self, generation: int) -> None:
        self._reader = DraftReader(generation)
        self._splitter = Splitter()
        self._by_block = self._show in {"markdown", "text"}
        self._printed = False
        self._reasoned = False
        self._dirty = False
        self._value: ValueSoFar | None = None

    @property
    def wait(self) -> float:
        """Seconds after which `update` should be called again."""
        return max(0.005, self._due - self._clock()) if self._dirty else 1.0

    def begin(self, title: str) -> None:
        """Begin; nothing is shown before there is something to say."""

    def hold(self) -> None:
        """From here on print what stays, and repaint nothing."""
        self._held = True

    def release(self) -> None:
        """Show what follows as it comes."""
        self._held = False

    def pause(self) -> None:
        """Take away what is repainted: what is printed and typed meanwhile is the terminal's own."""
        self._stop()

    def progress(self, text: str) -> None:
        """Show a line that what follows will replace."""
        self._line = text
        if self._streams and not self._held:
            self._paint()

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._print(Text(visible(text), "yellow"))

    def update(self, draft: Draft, value: ValueSoFar | None = None) -> None:
        """Show what is new."""
        if not self._streams:
            return
        while self._reader.generation != draft.generation:
            rest = self._reader.read(draft)
            for block in self._splitter.feed(rest) if self._by_block and value is None else ():
                self._print_block(block)
            self._print_tail()
            self._begin_answer(self._reader.generation + 1)
        for run in draft.tool_runs[self._runs :]:
            lines = [markup.tool_run(run)["text/plain"], *map(items.image_line, run.images, count())]
            self._print(Text(visible("\n".join(lines)), "dim"))
            self._runs += 1
        fresh = self._reader.read(draft)
        self._line = "" if self._reader.length else answer.called(draft)
        if not self._reader.length and not self._line and draft.reasoning_of_round:
            self._line = f"reasoning, {draft.seconds:.0f} s …"
        if self._show == "none" or (not self._reader.length and not self._line):
            return
        self._dirty = self._dirty or self._reader.grew or bool(self._line)
        if self._reader.length and draft.reasoning_of_round and not self._reasoned:
            self._reasoned = True
            self._print(Text(markup.reasoning_line(draft.reasoning_of_round), "dim"))
        self._value = value
        if value is not None or len(draft.indexes) > 1:
            self._by_block = False
        if self._by_block:
            for block in self._splitter.feed(fresh):
                self._print_block(block)
        if self._clock() >= self._due and not self._held:
            self._paint()

    def finish(self, response: Response, footer: str) -> None:
        """Print the rest of the answer, and the footer."""
        self._end(response)
        if footer and self._show != "none":
            self._print(Text(footer, "dim"))

    def fail(self, response: Response | None) -> None:
        """Print what had arrived, marked; nothing where nothing had."""
        self._end(response if response is not None and answer.has_come(response) else None)

    # Printing

    def _end(self, response: Response | None) -> None:
        self._line = ""
        if response is not None and self._show != "none":
            self._print_answer(response)
            for line in answer.beside_as_text(response):
                self._print(Text(visible(line), "dim"))
        self._stop()
        marked = markup.marks(response) if response is not None else None
        if marked is not None:
            self._print(Text(visible(marked["text/plain"]), "yellow"))

    def _print_answer(self, response: Response) -> None:
        """Print what is missing of the answer, or the whole where it was not printed as it came."""
        if self._by_block and self._reader.length and answer.is_text(response):
            for block in self._splitter.feed(self._reader.rest(response.text)):
                self._print_block(block)
            self._print_tail()
            return
        self._stop()
        text = answer.as_text(response, self._show)
        whole = self._show == "markdown" and answer.is_text(response) and response.structured is None
        self._print(rendered(text) if whole else Text(visible(text).removesuffix("\n")))

    def _print_block(self, block: str) -> None:
        if not block.strip():
            return
        if self._show == "text":
            self._print(Text(visible(block).removesuffix("\n")))
            return
        if self._printed:
            self._print("")
        self._printed = True
        self._print(rendered(block))

    def _print_tail(self) -> None:
        tail = self._splitter.tail
        self._splitter = Splitter()
        self._stop()
        self._print_block(tail)

    def _print(self, what: RenderableType) -> None:
        """Print above what is live."""
        if self._live is not None:
            self._live.update("")  # or the old tail would be repainted below its own block
        self._console.print(Visible(what))

    def _paint(self) -> None:
        """Repaint the tail, or the line that says what the wait is for."""
        begun = self._clock()
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
            self._live.start()
        self._live.update(_Window(Visible(self._tail())), refresh=True)
        ended = self._clock()
        self._due = ended + max(self._shortest, 4 * (ended - begun))
        self._dirty = False

    def _tail(self) -> RenderableType:
        if self._line:
            return Text(visible(self._line), "dim")
        value = self._value() if self._value is not None else None
        if value is not None:
            return Text(visible(table.shown(value)["text/plain"]))
        if not self._by_block:
            return Text(f"{self._reader.length:,} characters …", "dim")
        tail = self._splitter.tail
        if self._show == "text":
            return Text(visible(tail))
        return Group("", rendered(tail)) if self._printed else rendered(tail)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.update("")
            self._live.stop()
            self._live = None


def rendered(text: str) -> RenderableType:
    """Return Markdown as it is printed."""
    from rich.markdown import Markdown  # which takes longer to import than all the rest

    shown = visible(text)
    markdown = Markdown(shown, hyperlinks=False)  # a link's address is seen
    if any(token.level >= _DEEPEST for token in markdown.parsed):
        return Text(shown.removesuffix("\n"))
    return _Uncut(markdown, shown) if _MAY_BE_CUT.search(shown) else markdown


_MAY_BE_CUT = re.compile(r"\||^[ \t]{8}|^[ \t]*(?:>[ \t]*){3}", re.MULTILINE)
"""Markdown of which rich drops what does not fit: cells of tables, and what is nested deeply."""
_DEEPEST = 18
"""The level of what is nested in lists and quotes near to which the parser of Markdown drops what is deeper."""
_WIDE = 10_000
"""Columns in which everything fits."""


class _Uncut:
    """Markdown where all of it fits; where something would be dropped, its text as it stands."""

    def __init__(self, markdown: RenderableType, text: str) -> None:
        self._markdown, self._text = markdown, text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._markdown, options, pad=False)
        wide = options.update(width=max(options.max_width, min(4 * len(self._text) + 200, _WIDE)))
        if _letters(lines) == _letters(console.render_lines(self._markdown, wide, pad=False)):
            for line in lines:
                yield from line
                yield Segment.line()
        else:
            yield Text(self._text.removesuffix("\n"))


def _letters(lines: Iterable[Iterable[Segment]]) -> Counter[str]:
    return Counter(letter for line in lines for segment in line for letter in segment.text if letter.isalnum())


class Visible:
    """Something in which control characters are seen: what a model wrote is not to reach the terminal as a command."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class _Window:
    """The last lines of something, as many as the screen has: what is live must never be longer."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._inner, options, pad=False)
        for number, line in enumerate(lines[-max(1, console.height - 2) :]):
            if number:
                yield Segment.line()
            yield from line
        yield TO_BEGIN_OF_LINE
