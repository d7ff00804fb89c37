"""Many rows without a terminal: a line on stderr now and then, the table on stdout in the end."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from llm_magic.display import batches, rows_markup
from llm_magic.display.batches import BatchProgress
from llm_magic.display.markup import one_line
from llm_magic.display.rows import (
    INTERRUPTED,
    LONGEST_PRINTED,
    RowsProgress,
    RowsTable,
    RowsThrottle,
    ended,
    line,
    of_models,
    stopped,
)
from llm_magic.model_names import led_by

SECONDS = 5.0
"""Between two lines, at least."""
TICK_SECONDS = 600.0
"""Between two lines of batches of which there is no news but that time goes on, at least."""


class PlainRowsView:
    """Writes lines that stay; any thread may call it. A background run (`streams` False) writes none meanwhile."""

    def __init__(self, show: str, *, streams: bool = True, clock: Callable[[], float] = time.perf_counter) -> None:
        self._show = show
        self._streams = streams and show != "none"
        self._clock = clock
        self._throttle = RowsThrottle(SECONDS, TICK_SECONDS)
        self._lock = threading.RLock()
        self._title = ""
        self._progress: RowsProgress | None = None  # None before the beginning and after the end

    @property
    def wait(self) -> float:
        """Seconds until an `update` may be seen."""
        return self._throttle.wait(self._clock())

    def begin(self, title: str, total: int | None, in_batches: tuple[BatchProgress, ...] = ()) -> None:
        """Begin: the first line is due a while later."""
        with self._lock:
            self._title, self._progress = title, RowsProgress(total, batches=in_batches)
            self._throttle.showed(self._progress, self._clock())

    def note(self, text: str) -> None:
        """Write a line to stderr."""
        with self._lock:
            self._say(text)

    def update(self, progress: RowsProgress) -> None:
        """Write how far it is, where the last line was written a while ago."""
        with self._lock:
            if self._progress is not None and self._streams and self._throttle.is_due(progress, self._clock()):
                told = [led_by(name, said) for name, said in of_models(progress).items()]
                self._say(" · ".join([line(progress), *told]))
                self._throttle.showed(progress, self._clock())

    def finish(self, progress: RowsProgress, table: RowsTable, statistics: str) -> None:
        """Write the table of the first rows to stdout, the line of statistics to stderr."""
        with self._lock:
            self._progress = None
            if self._show != "none":
                sys.stdout.write(f"{rows_markup.as_text(table, self._show)}\n")
                sys.stdout.flush()
                self._say(ended(self._title, progress, statistics))

    def fail(self, progress: RowsProgress, mark: str = INTERRUPTED) -> None:
        """Write how far it came, with a mark, which may be empty; an error follows."""
        with self._lock:
            self._progress = None
            self._say(f"{mark} {line(stopped(progress))}".strip())
            self._say(batches.left_behind(progress.batches))

    def _say(self, text: str) -> None:
        if text and self._show != "none":
            sys.stderr.write(f"{one_line(text, LONGEST_PRINTED)}\n")
            sys.stderr.flush()
