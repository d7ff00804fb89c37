"""Many rows in a notebook: one output that is repainted while they are asked, and is the table in the end.

Where nobody looks, in a notebook that a program executes, there is that table alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from llm_magic.display import rows_markup
from llm_magic.display.batches import BatchProgress
from llm_magic.display.markup import Bundle
from llm_magic.display.outputs import CellOutputs
from llm_magic.display.rows import INTERRUPTED, REPAINT_SECONDS, RowsProgress, RowsTable, RowsThrottle, ended


class NotebookRowsView:
    """Shows the rows of one cell; any thread may call it.

    Parameters
    ----------
    outputs
        Those of the cell.
    show
        `markdown`, `text`, `code`, `json` or `none`.
    repaints
        Repaints a second, at most, where that is less than four.
    clock
        Returns seconds.

    """

    def __init__(
        self, outputs: CellOutputs, show: str, repaints: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._outputs = outputs
        self._show = show
        self._clock = clock
        self._streams = show != "none" and outputs.replaceable and outputs.watched
        self._throttle = RowsThrottle(max(REPAINT_SECONDS, 1 / repaints))
        self._lock = threading.RLock()
        self._title = ""
        self._notes: list[str] = []
        self._progress: RowsProgress | None = None  # None before the beginning and after the end
        self._painted: Bundle | None = None
        self._over = False

    @property
    def wait(self) -> float:
        """Seconds until an `update` may be seen."""
        return self._throttle.wait(self._clock())

    def begin(self, title: str, total: int | None, in_batches: tuple[BatchProgress, ...] = ()) -> None:
        """Show that rows are asked: `title` is the model, `total` the number of rows, None where nobody knows."""
        with self._lock:
            self._title, self._progress = title, RowsProgress(total, batches=in_batches)
            self._paint(self._progress)

    def note(self, text: str) -> None:
        """Add a line that stays; one that comes after the end stands below."""
        with self._lock:
            if self._over:
                if self._show != "none":
                    self._outputs.add(rows_markup.of_show(rows_markup.noted(text), self._show))
                return
            self._notes.append(text)
            if self._progress is not None and self.wait <= 0:
                self._paint(self._progress)

    def update(self, progress: RowsProgress) -> None:
        """Show how far it is, unless it is too early for that."""
        with self._lock:
            if self._progress is None:
                return
            self._progress = progress
            if self._throttle.is_due(progress, self._clock()):
                self._paint(progress)

    def finish(self, progress: RowsProgress, table: RowsTable, statistics: str) -> None:
        """Show the table of the first rows, and the line of statistics, in the place of what was repainted."""
        with self._lock:
            below = ended(self._title, progress, statistics)
            self._end(rows_markup.final(table, below, self._notes, self._show))

    def fail(self, progress: RowsProgress, mark: str = INTERRUPTED) -> None:
        """Leave how far it came, with a mark, which may be empty; an error follows."""
        with self._lock:
            self._end(self._live(progress, mark))

    def _live(self, progress: RowsProgress, mark: str | None = None) -> Bundle:
        return rows_markup.of_show(rows_markup.live(self._title, progress, self._notes, mark), self._show)

    def _paint(self, progress: RowsProgress) -> None:
        if not self._streams:
            return
        bundle = self._live(progress)
        if bundle != self._painted:
            self._outputs.paint(bundle)
            self._painted = bundle
        self._throttle.showed(progress, self._clock())

    def _end(self, bundle: Bundle) -> None:
        self._progress, self._over = None, True
        if self._show == "none":
            return
        if self._painted is not None and self._outputs.alone:  # a console knows no updates
            self._outputs.clear()
        self._outputs.settle(bundle)
