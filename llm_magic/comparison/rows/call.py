"""A call of `LLM.map` or `LLM.amap` with several models: a run of rows for each, waited for or awaited together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from llm_magic.background_loop import awaited
from llm_magic.comparison.rows.answers import ComparedAnswers, models_failed
from llm_magic.comparison.rows.inputs import inputs_of_each
from llm_magic.comparison.rows.run import ComparedRuns, cells_of, spending_of_each
from llm_magic.errors import InputError
from llm_magic.mapping.answers.answers import RETRY
from llm_magic.mapping.call import MapCall, ProgressCalls
from llm_magic.options.keywords_in_errors import in_python, naming_keywords

if TYPE_CHECKING:
    from llm_magic.display.rows import RowsProgress
    from llm_magic.messages import ToolCall
    from llm_magic.session import Session
    from llm_magic.session.plan import Cell


class ComparedCall:
    """One call: the runs, and what is done with their outcomes.

    Parameters
    ----------
    session, cell, value, on_confirm, on_progress, prompt
        As of `MapCall`; `value` are the inputs as the user gave them.
    models
        The names of the models.

    Raises
    ------
    InputError
        Whatever is wrong; nothing was sent.

    """

    def __init__(
        self,
        session: Session,
        cell: Cell,
        models: Sequence[str],
        value: Any,
        on_confirm: Callable[[ToolCall], bool | Awaitable[bool]] | None = None,
        *,
        on_progress: Callable[[RowsProgress], object] | None = None,
        prompt: Callable[[Any], Any] | None = None,
    ) -> None:
        from llm_magic.batches.direct_run import heed_batches

        self.session = session
        cells = cells_of(cell, models)
        spending = spending_of_each(session, cells)
        notices = session.take_notices()
        rows = inputs_of_each(value, len(models))
        self._calls = {
            model: MapCall(session, of_model, inputs, on_confirm, prompt=prompt, spending=spending[model], binds=False)
            for (model, of_model), inputs in zip(cells.items(), rows, strict=True)
        }
        for call in self._calls.values():
            heed_batches(session, call.run)
        runs = {model: call.run for model, call in self._calls.items()}
        streams = {model: call.outcomes for model, call in self._calls.items()}
        self.run = ComparedRuns(runs, session.settings, notices, streams)
        self._telling = ProgressCalls(on_progress, self.run.progress, self.run.say)

    async def answers(self) -> ComparedAnswers:
        """Ask, and return all answers.

        Raises
        ------
        RowsFailedError
            Rows failed at a model, and they are not to be kept as values.

        """
        with naming_keywords():  # for who waits elsewhere
            async with self._telling:
                found = await self.run.collect()
            answers = ComparedAnswers(
                {model: self._calls[model].repeatable(each) for model, each in found.responses.items()},
                map(in_python, self.run.take_notices()),
            )
            if (error := models_failed(answers, self.run.fails, RETRY)) is not None:
                raise error
            return answers


class ComparedAnswersToCome:
    """The answers of `LLM.amap` with several models, to be awaited, once: they are there when all rows have ended."""

    def __init__(self, call: ComparedCall) -> None:
        self._call = call
        self._is_awaited = False

    def __await__(self) -> Generator[Any, None, ComparedAnswers]:
        if self._is_awaited:
            raise InputError("The answers of this amap were awaited before.", "Call amap once more for others.")
        self._is_awaited = True
        return self._all().__await__()

    def __aiter__(self) -> NoReturn:
        raise InputError(
            "The answers of several models are awaited, and do not come one by one.",
            "Await them, or iterate over the amap of one model: async for outcome in LLM(name).amap(…).",
        )

    async def _all(self) -> ComparedAnswers:
        with naming_keywords():
            return await awaited(self._call.session.loop.submit(self._call.answers()))
