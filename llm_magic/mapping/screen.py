"""The screen of a run over rows: a thread follows it, keeps the view current, and can be interrupted."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from llm_magic.background_loop import ENDING
from llm_magic.display.rows import RowsTable, TableRow, chosen
from llm_magic.errors import Interrupted, error_line
from llm_magic.model_names import shown_model

if TYPE_CHECKING:
    from llm_magic.background_loop import BackgroundLoop
    from llm_magic.display import RowsView
    from llm_magic.display.rows import RowsProgress
    from llm_magic.mapping.answers.answers import Answers
    from llm_magic.mapping.run import RowsRun

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

LOOK = 0.1
"""Seconds between two looks at how far it is, at most."""


class RowsInterrupted(Interrupted):
    """The user interrupted a run over rows; what was answered is kept for the next one."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self._line = line

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: {self._line}"]


class RunOfScreen(Protocol[R_co]):
    """A run over rows, as far as a screen has to know it: `RowsRun`, or those of several models together."""

    @property
    def model(self) -> str:
        """The model as asked for."""

    async def collect(self) -> R_co:
        """Ask, and return all answers."""

    def progress(self) -> RowsProgress:
        """Return how far it is; any thread may ask."""

    def take_notes(self) -> list[str]:
        """Return those of the notes that the user has not been told."""

    def how_far(self) -> str:
        """Return in a line how far an interrupted run came, and what is done next."""


class RunScreen(ABC, Generic[R]):
    """Follows a run over rows on the thread that shows it.

    Parameters
    ----------
    run
        What runs, on the loop; it starts at once.
    view
        Shows it.
    loop
        Where it runs.
    finish
        Called with the answers before they are shown; what it returns is the line below the table.

    """

    def __init__(self, run: RunOfScreen[R], view: RowsView, loop: BackgroundLoop, finish: Callable[[R], str]) -> None:
        self._run = run
        self.view = view
        self._finish = finish
        self._has_ended = threading.Event()
        self._future = loop.submit(self._work())

    @abstractmethod
    def table(self, answers: R) -> RowsTable:
        """Return the rows that are shown in the end."""

    @property
    def title(self) -> str:
        """What is asked, as the view shows it."""
        return shown_model(self.model)

    async def _work(self) -> R:
        try:
            return await self._run.collect()
        finally:
            self._has_ended.set()

    @property
    def model(self) -> str:
        """The model as asked for."""
        return self._run.model

    def stop(self) -> str:
        """End the run: what is in flight is closed; return in a line how far it came."""
        self._future.cancel()
        return self._run.how_far()

    def follow(self) -> R:
        """Show the run until it ends.

        Raises
        ------
        LLMError
            What ended it as a whole; of rows that failed the answers hold the errors.
        RowsInterrupted
            The user interrupted.
        CancelledError
            It was cancelled.

        """
        run, view = self._run, self.view
        try:
            begun = run.progress()
            view.begin(self.title, begun.total, begun.batches)
            answers = self._awaited()
        except KeyboardInterrupt:
            try:
                self._end()
            finally:  # interrupted once more, it lets go of the screen, too
                view.fail(run.progress())
            raise RowsInterrupted(run.how_far()) from None
        except CancelledError:
            try:
                self._end()
            finally:
                view.fail(run.progress())
            raise
        except Exception:
            self._tell()
            view.fail(run.progress(), "")
            raise
        self._tell()
        below = self._finish(answers)
        view.finish(run.progress(), self.table(answers), below)
        return answers

    def _awaited(self) -> R:
        while True:
            self._tell()
            self.view.update(self._run.progress())
            try:
                return self._future.result(min(LOOK, self.view.wait or LOOK))
            except TimeoutError:
                if self._future.done():
                    raise

    def _tell(self) -> None:
        for note in self._run.take_notes():
            self.view.note(note)

    def _end(self) -> None:
        self._future.cancel()
        self._has_ended.wait(ENDING)


class RowsScreen(RunScreen["Answers"]):
    """Follows the run of one model; parameters as of `RunScreen`, without `finish` the statistics stand below."""

    def __init__(
        self, run: RowsRun, view: RowsView, loop: BackgroundLoop, finish: Callable[[Answers], str] | None = None
    ) -> None:
        self.run = run
        super().__init__(run, view, loop, finish or (lambda _: str(run.statistics())))

    def table(self, answers: Answers) -> RowsTable:
        """Return the first rows, and some that failed."""
        return table_of(self.run, answers)


def table_of(run: RowsRun, answers: Answers) -> RowsTable:
    """Return the rows that are shown in the end."""
    errors, values, labels = answers.errors, answers.values, answers.labels
    rows = []
    for place in chosen(len(answers), answers.failed):
        error = errors[place]
        rows.append(TableRow(labels[place], values[place], "" if error is None else error_line(error)))
    return RowsTable(rows, len(answers), run.label, run.column)
