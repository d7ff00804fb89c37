"""Many rows in a terminal: a bar with its figures while they are asked, a table in the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from llm_magic.display import batches, rows_markup
from llm_magic.display.batches import BatchProgress
from llm_magic.display.markup import one_line
from llm_magic.display.rows import (
    INTERRUPTED,
    LONGEST_PRINTED,
    REPAINT_SECONDS,
    RowsProgress,
    RowsTable,
    RowsThrottle,
    ended,
    ended_rows,
    line,
    of_models,
    stopped,
)

_LINES = 3  # rows that ended last
_BAR = 40  # columns of the bar at most


class TerminalRowsView:
    """Shows the rows of one cell; any thread may call it.

    Parameters
    ----------
    show
        `markdown`, `text`, `code`, `json` or `none`.
    repaints
        Repaints a second, at most, where that is less than four.
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
        self._streams = streams and show != "none"
        self._clock = clock
        self._throttle = RowsThrottle(max(REPAINT_SECONDS, 1 / repaints))
        self._lock = threading.RLock()
        self._title = ""
        self._live: Live | None = None
        self._running = False

    @property
    def wait(self) -> float:
        """Seconds until an `update` may be seen."""
        return self._throttle.wait(self._clock())

    def begin(self, title: str, total: int | None, in_batches: tuple[BatchProgress, ...] = ()) -> None:
        """Show that rows are asked: `title` is the model, `total` the number of rows, None where nobody knows."""
        with self._lock:
            self._title, self._running = title, True
            self._paint(RowsProgress(total, batches=in_batches))

    def note(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        with self._lock:
            if self._show != "none":
                self._console.print(Text(one_line(text, LONGEST_PRINTED), "yellow"))

    def update(self, progress: RowsProgress) -> None:
        """Show how far it is, unless it is too early for that."""
        with self._lock:
            if self._running and self._throttle.is_due(progress, self._clock()):
                self._paint(progress)

    def finish(self, progress: RowsProgress, table: RowsTable, statistics: str) -> None:
        """Print the table of the first rows, and the line of statistics, in the place of the bar."""
        with self._lock:
            self._stop()
            if self._show != "none":
                shown = rows_markup.as_text(table, self._show, self._console.width)
                self._console.print(Text(shown), soft_wrap=True)
                self._console.print(Text(ended(self._title, progress, statistics), "dim"))

    def fail(self, progress: RowsProgress, mark: str = INTERRUPTED) -> None:
        """Print how far it came, with a mark, which may be empty; an error follows."""
        with self._lock:
            self._stop()
            if self._show != "none":
                self._console.print(
                    Text(f"{one_line(mark, LONGEST_PRINTED)} {line(stopped(progress))}".strip(), "yellow")
                )
                if said := batches.left_behind(progress.batches):
                    self._console.print(Text(said, "yellow"))

    def _paint(self, progress: RowsProgress) -> None:
        if not self._streams:
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
            self._live.start()
        self._live.update(self._rendered(progress), refresh=True)
        self._throttle.showed(progress, self._clock())

    def _rendered(self, progress: RowsProgress) -> RenderableType:
        """Return lines that are no longer than the terminal is wide, so that they can be replaced."""
        wide = max(1, self._console.width - 1)
        lines = [Text(one_line(self._title, wide), "dim")] if self._title else []
        bar = ProgressBar(
            total=None if progress.total is None else max(progress.total, 1),
            completed=ended_rows(progress) if progress.total else 0,
            width=min(_BAR, wide // 3),
            pulse=progress.total is None,
            animation_time=progress.seconds,
        )
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row(bar, Text(line(progress)))
        last = [
            Text(
                one_line(f"{row.label}  {'failed: ' if row.failed else ''}{row.value}", wide),
                "red" if row.failed else "dim",
                no_wrap=True,
                overflow="ellipsis",
            )
            for row in progress.last[-_LINES:]
        ]
        models = [
            Text(one_line(f"{name}  {said}", wide), "dim", no_wrap=True, overflow="ellipsis")
            for name, said in of_models(progress).items()
        ]
        last = [*models, *last]
        if progress.batches:
            last.append(Text(one_line(batches.unfinished(progress.batches), wide), "dim"))
        room = max(0, self._console.height - 3)
        return Group(*lines, grid, *last[:room])

    def _stop(self) -> None:
        self._running = False
        live, self._live = self._live, None
        if live is not None:
            try:
                live.update("")
            finally:  # whatever comes in between: the terminal has its cursor back, and stdout
                live.stop()
