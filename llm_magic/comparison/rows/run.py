"""One prompt over many inputs, asked of several models side by side: a run of rows for each, seen as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from math import fsum
from typing import TYPE_CHECKING, Any

from llm_magic.comparison.rows.answers import ComparedAnswers, refuse_names, told_once
from llm_magic.comparison.rows.inputs import leave
from llm_magic.comparison.run import of_model
from llm_magic.display.footer import counted
from llm_magic.display.rows import LAST_ROWS, RowLine, RowsProgress
from llm_magic.errors import OptionError
from llm_magic.mapping.pipeline import not_asked
from llm_magic.mapping.rows import Outcome
from llm_magic.model_names import led_by, shown_models
from llm_magic.session.run_spending import RunSpending

if TYPE_CHECKING:
    from llm_magic.config.settings import Settings
    from llm_magic.mapping.run import RowsRun
    from llm_magic.session import Session
    from llm_magic.session.plan import Cell

Stream = Callable[[], AsyncGenerator[list[Outcome], None]]
"""What asks for the rows of one model: the outcomes as they come."""


class ComparedRuns:
    """The runs of several models over the same rows.

    Parameters
    ----------
    runs
        The run of each model, by its name as asked for.
    settings
        `budget` counts.
    notices
        What the user should know before anything else.
    streams
        What asks for the rows of each, where it is not the run itself.

    Raises
    ------
    OptionError
        A frame has a column already that is one of the answers.

    """

    def __init__(
        self,
        runs: Mapping[str, RowsRun],
        settings: Settings,
        notices: Iterable[str] = (),
        streams: Mapping[str, Stream] | None = None,
    ) -> None:
        self.runs = dict(runs)
        self._titles = shown_models(self.runs)
        self._settings = settings
        self._streams = streams or {model: run.outcomes for model, run in self.runs.items()}
        inputs = self.first.inputs
        several = {model for model, run in self.runs.items() if run.several}
        if inputs.kind != "sequence":
            refuse_names(inputs, {model: run.plan.spec for model, run in self.runs.items()}, several)
        self._notices = list(notices)
        for run in self.runs.values():  # what one has answered is paid for: it is kept until all have
            run.is_alone = False
        self._going = set(self.runs)  # models whose runs have not ended
        self._told = False

    @property
    def first(self) -> RowsRun:
        """The run of the model that was named first."""
        return next(iter(self.runs.values()))

    @property
    def model(self) -> str:
        """The models as asked for."""
        return ", ".join(self.runs)

    @property
    def fails(self) -> tuple[str, ...]:
        """The models whose failures are no values."""
        return tuple(model for model, run in self.runs.items() if run.plan.options.on_error != "keep")

    async def collect(self) -> ComparedAnswers:
        """Ask all models, and return all answers, in the order of the rows.

        Raises
        ------
        LLMError
            What ended the run of a model as a whole, such as an input that raised; the others have gone on to their
            end, and what came is kept for the next run.

        """
        try:
            return await self._collected()
        finally:
            whole = all(run.is_whole for run in self.runs.values())
            for run in self.runs.values():
                run.end_kept(whole=whole)

    async def _collected(self) -> ComparedAnswers:
        if self._one_by_one:
            ended: list[Any] = []
            for model in self.runs:
                ended += await asyncio.gather(self._all(model), return_exceptions=True)
        else:
            ended = await asyncio.gather(*map(self._all, self.runs), return_exceptions=True)
        for each in ended:
            if isinstance(each, BaseException):
                raise each
        return self._answers(dict(zip(self.runs, ended, strict=True)))

    @property
    def _one_by_one(self) -> bool:
        """Whether a model is asked when the one before has ended: on a cluster, each run is given what budgets have."""
        if all(run.plan.options.on is None for run in self.runs.values()):
            return False
        providers = [run.plan.models[0].target.provider for run in self.runs.values()]
        return bool(self._settings.budget or any(provider.budget for provider in providers))

    async def _all(self, model: str) -> list[Outcome]:
        found: list[Outcome] = []
        try:
            async with aclosing(self._streams[model]()) as stream:
                async for batch in stream:
                    found += batch
        finally:
            self._going.discard(model)
            leave(self.runs[model].inputs)
        return found

    def _answers(self, found: Mapping[str, list[Outcome]]) -> ComparedAnswers:
        """Return the answers that outcomes make; rows that a model which stopped did not read have failed there."""
        rows = max(map(len, found.values()))
        for model, outcomes in found.items():
            stopped = self.runs[model].stopped
            if len(outcomes) < rows and stopped is not None:
                error = not_asked(stopped)
                outcomes += [Outcome(number, error=error) for number in range(len(outcomes), rows)]
        return ComparedAnswers({model: run.answers(found[model]) for model, run in self.runs.items()})

    def progress(self) -> RowsProgress:
        """Return how far all are; any thread may ask."""
        return together({self._titles[model]: run.progress() for model, run in self.runs.items()})

    def take_notes(self) -> list[str]:
        """Return those of the notes that the user has not been told.

        What is said of all models alike is told once; of one that has ended it waits for the others.
        """
        lines = [*self.take_notices()]
        ready = self._going if self._going and self._told else set(self.runs)
        self._told = True
        notes = {model: run.take_notes() for model, run in self.runs.items() if model in ready}
        if notes:
            named = [led_by(self._titles[model], note) for model, each in notes.items() for note in each]
            lines += told_once(notes) if len(notes) == len(self.runs) else named
        return lines

    def take_notices(self) -> tuple[str, ...]:
        """Return what the user should know before anything else, once."""
        notices, self._notices = self._notices, []
        return tuple(notices)

    def say(self, text: str) -> None:
        """Add a note."""
        self._notices.append(text)

    def how_far(self) -> str:
        """Return in a line how far interrupted runs came, and what is done next."""
        of = [f"{self._titles[model]} {_rows(run)}" for model, run in self.runs.items()]
        if all(run.keeps_answers for run in self.runs.values()):
            return f"stopped; {', '.join(of)} are answered, and kept: run it again to go on from there."
        return f"stopped; {', '.join(of)} were answered, and none are kept (LLMMagics.resume is off)."

    def of_sample(self, answers: ComparedAnswers) -> str:
        """Return in a line what a sample took of each model, and what all rows would."""
        return " · ".join(
            led_by(self._titles[model], run.of_sample(answers.responses[model])) for model, run in self.runs.items()
        )


def cells_of(cell: Cell, models: Iterable[str]) -> dict[str, Cell]:
    """Return the cell of each model, by its name."""
    return {model: of_model(cell, model) for model in models}


def spending_of_each(session: Session, cells: Mapping[str, Cell]) -> dict[str, RunSpending]:
    """Return what the runs of several models use: a budget that is the same for several is one for all of these.

    Raises
    ------
    InputError
        A name, an option or the configuration of one of them is wrong; or a budget of several cannot be kept.

    """
    found: dict[str, RunSpending] = {}
    by_limits: dict[tuple[tuple[str, float], ...], RunSpending] = {}
    for model, cell in cells.items():
        options = session.in_force(cell)
        if options.batch or options.batch_file is not None:
            what = "--batch" if options.batch else "--batch-file"
            raise OptionError(
                f"{what} and several models exclude each other: one model a batch.",
                f"Ask one model a run, one after the other: -m {next(iter(cells))}.",
            )
        if options.budget and options.on is not None:
            raise OptionError(
                "--budget and --on exclude each other where several models are asked: a cluster counts for one.",
                "Ask from here, a Dask frame by --each FRAME.compute(), or ask one model a cell.",
            )
        limits = tuple(sorted((options.budget or {}).items()))
        if limits not in by_limits:
            by_limits[limits] = RunSpending(session.spending, options.budget)
        found[model] = by_limits[limits]
    return found


def together(models: Mapping[str, RowsProgress]) -> RowsProgress:
    """Return how far several models are together: each of them counts an answer to each row.

    >>> both = together({"a": RowsProgress(3, 3, rate=2, cost=0.5), "b": RowsProgress(3, 1, 1, seconds_left=4)})
    >>> both.total, both.done, both.failed, both.rate, both.cost, both.seconds_left
    (6, 4, 1, 2.0, 0.5, 4)

    """
    all_of = list(models.values())
    failures: dict[str, int] = {}
    for each in all_of:
        for kind, count in each.failures.items():
            failures[kind] = failures.get(kind, 0) + count
    left = [each.seconds_left for each in all_of if each.left != 0]
    usages = [each.usage for each in all_of if each.usage is not None]
    costs = [each.cost for each in all_of if each.cost is not None]
    at_end = [each.cost_at_end for each in all_of if each.cost is not None]
    shown = max(1, LAST_ROWS // len(all_of))
    return RowsProgress(
        total=None if any(each.total is None for each in all_of) else sum(each.total or 0 for each in all_of),
        done=sum(each.done for each in all_of),
        failed=sum(each.failed for each in all_of),
        known=sum(each.known for each in all_of),
        recorded=sum(each.recorded for each in all_of),
        in_flight=sum(each.in_flight for each in all_of),
        seconds=max(each.seconds for each in all_of),
        rate=fsum(each.rate for each in all_of),
        seconds_left=None if any(each is None for each in left) else max((each or 0.0 for each in left), default=None),
        usage=sum(usages[1:], start=usages[0]) if usages else None,
        cost=fsum(costs) if costs else None,
        cost_at_end=None if not at_end or None in at_end else fsum(each or 0.0 for each in at_end),
        failures=failures,
        last=tuple(
            RowLine(f"{row.label} · {model}", row.value, row.failed)
            for model, each in models.items()
            for row in each.last[-shown:]
        ),
        waiting="; ".join(f"{model} {each.waiting}" for model, each in models.items() if each.waiting),
        models=models,
    )


def _rows(run: RowsRun) -> str:
    return counted(run.answered, "row") if run.total is None else f"{run.answered:,} of {run.total:,} rows"
