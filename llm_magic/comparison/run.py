"""One prompt asked of several models at the same time: a run for each, all on the one loop, and what came of each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_magic.comparison.responses import Comparison
from llm_magic.errors import LLMError
from llm_magic.session.run import Run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from llm_magic.background_loop import Emit
    from llm_magic.messages import ToolCall
    from llm_magic.response import Response
    from llm_magic.session import Session
    from llm_magic.session.plan import Cell, Plan
    from llm_magic.session.tool_runner import RunEvent


@dataclass(frozen=True, slots=True)
class Ended:
    """A model's run has ended: with its response, or an error."""

    response: Response | None = None
    error: LLMError | None = None


class Told(NamedTuple):
    """What one of the runs tells: its place, and the event."""

    place: int
    event: RunEvent | Ended


class ComparisonRun:
    """One prompt, planned for each of several models: await `answer`.

    Parameters
    ----------
    session
        The session that is asked through.
    cell
        What is asked; it belongs to no conversation, but what its conversation holds is sent along.
    names
        The models, as asked for.
    on_confirm
        As for a `Run`.

    Raises
    ------
    InputError
        Whatever is wrong with the cell or a name; nothing was sent.

    """

    def __init__(
        self,
        session: Session,
        cell: Cell,
        names: Sequence[str],
        on_confirm: Callable[[ToolCall], bool | Awaitable[bool]] | None = None,
    ) -> None:
        self.session = session
        self.names = tuple(names)
        self.plans: tuple[Plan, ...] = session.plan_each([of_model(cell, name) for name in names])
        try:
            recorders = [session.recorder(plan.options, plan.cell) for plan in self.plans]
        except LLMError:
            session.tell()
            raise
        self.runs = tuple(
            Run(plan, session.spending, on_confirm, recorder, servers=session.servers_of(plan))
            for plan, recorder in zip(self.plans, recorders, strict=True)
        )
        self._errors: dict[str, LLMError] = {}

    @property
    def keeps(self) -> tuple[str, ...]:
        """The models whose errors are to be kept as values."""
        each = zip(self.names, self.plans, strict=True)
        return tuple(name for name, plan in each if plan.options.on_error == "keep")

    @property
    def shared_notes(self) -> tuple[str, ...]:
        """What is to be known of the prompt, whoever is asked."""
        first, *others = self.plans
        return tuple(note for note in first.notes if all(note in plan.notes for plan in others))

    async def answer(self, emit: Emit[Told]) -> Comparison:
        """Ask all models at the same time, and emit what each tells; a model that fails is an error of its own.

        Raises
        ------
        Exception
            What is no `LLMError`, such as one of `on_confirm`; the other runs are cancelled then.

        """
        try:
            async with asyncio.TaskGroup() as group:
                for place in range(len(self.runs)):
                    group.create_task(self._one(place, emit))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return self.so_far()

    async def _one(self, place: int, emit: Emit[Told]) -> None:
        async def tell(batch: list[Any]) -> None:
            await emit([Told(place, event) for event in batch])

        try:
            response = await self.session.answer_apart(self.runs[place], tell)
        except LLMError as error:
            self._errors[self.names[place]] = error
            await tell([Ended(error=error)])
        else:
            await tell([Ended(response)])

    def so_far(self) -> Comparison:
        """Return what has come; of a run that was stopped, or goes on, what it has."""
        responses = {
            name: run.response or run.so_far(finish_reason="interrupted")
            for name, run in zip(self.names, self.runs, strict=True)
        }
        errors = {name: self._errors[name] for name in self.names if name in self._errors}
        return Comparison(responses, errors, self.names)


def of_model(cell: Cell, name: str) -> Cell:
    """Return a cell as it is asked of one of several models."""
    return replace(cell, options=replace(cell.options, model=name))
