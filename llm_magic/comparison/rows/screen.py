"""The screen of several models over many rows: how far each is, and in the end one table of what they said."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_magic.comparison.rows.answers import ComparedAnswers, table_of
from llm_magic.display.footer import counted
from llm_magic.mapping.screen import RunScreen

if TYPE_CHECKING:
    from llm_magic.background_loop import BackgroundLoop
    from llm_magic.comparison.rows.run import ComparedRuns
    from llm_magic.display import RowsView
    from llm_magic.display.rows import RowsTable


class ComparedRowsScreen(RunScreen[ComparedAnswers]):
    """Follows the runs of several models; parameters as of `RunScreen`."""

    def __init__(
        self, run: ComparedRuns, view: RowsView, loop: BackgroundLoop, finish: Callable[[ComparedAnswers], str]
    ) -> None:
        self.run = run
        super().__init__(run, view, loop, finish)

    @property
    def title(self) -> str:
        """How many models are asked: their names stand beside how far each is."""
        return counted(len(self.run.runs), "model")

    def table(self, answers: ComparedAnswers) -> RowsTable:
        """Return the first rows, and some that failed."""
        return table_of(answers, self.run.first.label)
