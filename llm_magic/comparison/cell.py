"""A cell with several models: what it shows side by side, what it binds, and the error of models that failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_magic.comparison.responses import Comparison, models_failed
from llm_magic.comparison.run import ComparisonRun
from llm_magic.comparison.screen import ComparisonScreen
from llm_magic.errors import LLMError
from llm_magic.model_names import led_by, shown_models

if TYPE_CHECKING:
    from llm_magic.display import ComparisonView
    from llm_magic.options import Options
    from llm_magic.session import Session
    from llm_magic.session.plan import Cell


class ComparisonCell:
    """A cell with several models.

    Parameters
    ----------
    session
        Whose settings, providers and accounts these are.
    cell
        The prompt, its options, and the variables that it may name.
    models
        The names of the models, as asked for.

    Raises
    ------
    InputError
        Whatever is wrong with a model, the prompt or the options; nothing was sent to any of them.

    """

    def __init__(self, session: Session, cell: Cell, models: Sequence[str]) -> None:
        self._session = session
        self._out = cell.options.out or ""
        self.run = ComparisonRun(session, cell, models)

    @property
    def options(self) -> Options:
        """The options in force for the model that was named first: they say how all is shown."""
        return self.run.plans[0].options

    def show_requests(self) -> None:
        """Show what each model would be sent, and of one that cannot be asked why; nothing is sent."""
        from llm_magic import display

        outcome = display.nothing_sent(self._out)
        titles = shown_models(self.run.names)
        for name, plan in zip(self.run.names, self.run.plans, strict=True):
            try:
                display.show_preview(self._session.preview_of(plan), outcome, titles[name])
            except LLMError as error:
                display.show_lines([led_by(titles[name], f"{type(error).__name__}: {error}"), outcome], ())
        self._session.tell()

    def screen(self, view: ComparisonView, bind: Callable[[str, Any], None]) -> ComparisonScreen:
        """Begin to ask, and return what shows it.

        Parameters
        ----------
        view
            Where it is shown.
        bind
            Binds a variable of the notebook: `_llm`, and the one of `--out`.

        """
        return ComparisonScreen(
            self.run,
            view,
            self._session.loop,
            self._session.begin_apart(self.run.plans[0]),
            partial(self._bound, bind),
            footer=self._session.settings.footer,
        )

    def _bound(self, bind: Callable[[str, Any], None], comparison: Comparison) -> str:
        """Bind what the models give, and return the line below them."""
        bind("_llm", comparison)
        if self._out:
            bind(self._out, comparison.value)
        return self._session.about_no_turn(self.run.plans[0]) if self._session.settings.footer else ""

    def fail(self, comparison: Comparison) -> None:
        """Raise the error of models that failed, where these are not to be kept as values."""
        error = models_failed(comparison, self.run.keeps)
        if error is not None:
            raise error
