"""A cell with `--each` and several models: each of them is asked for every row, and one table shows what they said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_magic.comparison.rows.answers import ComparedAnswers, bound, rows_failed_by_model, statistics_line
from llm_magic.comparison.rows.inputs import inputs_of_each
from llm_magic.comparison.rows.run import ComparedRuns, cells_of, spending_of_each
from llm_magic.comparison.rows.screen import ComparedRowsScreen
from llm_magic.mapping.inputs.expression import evaluate, refuse_out
from llm_magic.mapping.inputs.inputs import is_dask
from llm_magic.mapping.run import RowsRun
from llm_magic.model_names import shown_models

if TYPE_CHECKING:
    from llm_magic.display import RowsView
    from llm_magic.options import Options
    from llm_magic.session import Session
    from llm_magic.session.plan import Cell


class ComparedRowsCell:
    """A cell with `--each` and several models.

    Parameters
    ----------
    session
        Whose settings, providers and accounts these are.
    cell
        The prompt, its options, and the variables that it may name.
    models
        The names of the models, as asked for.
    each
        The expression of `--each`.

    Raises
    ------
    InputError
        Whatever is wrong with a model, the prompt, the options or the input; nothing was sent to any of them.

    """

    def __init__(self, session: Session, cell: Cell, models: Sequence[str], each: str) -> None:
        self._session = session
        self._out = cell.options.out or ""
        spending = spending_of_each(session, cells_of(cell, models))
        if self._out:
            refuse_out(each, self._out)
        value = evaluate(each, cell.namespace)
        if is_dask(value):
            from llm_magic.mapping.dask.inputs import gathered

            value, cell = gathered(value, cell)
            spending = spending_of_each(session, cells_of(cell, models))
        notices = session.take_notices()
        rows = inputs_of_each(value, len(models), each)
        self.run = ComparedRuns(
            {
                model: RowsRun(session, of_model, inputs, spending=spending[model], binds=False)
                for (model, of_model), inputs in zip(cells_of(cell, models).items(), rows, strict=True)
            },
            session.settings,
            notices,
        )

    @property
    def options(self) -> Options:
        """The options in force for the model that was named first: they say how all is shown."""
        return self.run.first.plan.options

    def show_requests(self) -> None:
        """Show the first request to each model, and what all would take; nothing is sent."""
        from llm_magic import display

        titles = shown_models(self.run.runs)
        for model, run in self.run.runs.items():
            preview = self._session.loop.run(run.preview())
            told = replace(preview, notes=(*self.run.take_notices(), *preview.notes))
            display.show_preview(told, display.nothing_sent(self._out), titles[model])

    def screen(self, view: RowsView, bind: Callable[[str, Any], None]) -> ComparedRowsScreen:
        """Begin to ask, and return what shows it.

        Parameters
        ----------
        view
            Where it is shown.
        bind
            Binds a variable of the notebook: `_llm`, and the one of `--out`.

        """
        from llm_magic.batches.direct_run import heed_batches

        for run in self.run.runs.values():
            heed_batches(self._session, run)
        return ComparedRowsScreen(self.run, view, self._session.loop, partial(self._bound, bind))

    def _bound(self, bind: Callable[[str, Any], None], answers: ComparedAnswers) -> str:
        """Bind what the rows give, and return the line below them."""
        bind("_llm", answers)
        if self.options.sample is not None:
            unbound = [f"{self._out} is not bound."] if self._out else []
            return " ".join([self.run.of_sample(answers), *unbound])
        if self._out:
            bind(self._out, bound(self.run.first.inputs, answers))
        return statistics_line(answers)

    def fail(self, answers: ComparedAnswers) -> None:
        """Raise the error of models of which rows failed, where these are not to be kept as values."""
        error = rows_failed_by_model(answers, self.run.fails)
        if error is not None:
            raise error
