"""Rows on the workers of a cluster: the plan as it travels, and the asking there, which is that of one process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llm_magic.mapping.asking.row_asker import RowAsker
from llm_magic.mapping.concurrency import Concurrency
from llm_magic.mapping.pipeline import Pipeline
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.session.plan import Cell, Plan

if TYPE_CHECKING:
    from llm_magic.conversation import Turn
    from llm_magic.mapping.dask.feed import Feed
    from llm_magic.messages import Part
    from llm_magic.output.spec import OutputSpec
    from llm_magic.session import Session
    from llm_magic.tools import CallableTool


@dataclass(frozen=True)
class PortablePlan:
    """What all rows share, without the models, which each worker looks up in settings of its own."""

    cell: Cell
    spec: OutputSpec | None
    tools: Mapping[str, CallableTool]
    turns: tuple[Turn, ...]
    context: tuple[Part, ...]
    tool_timeout: float
    patience: float

    @classmethod
    def of(cls, plan: Plan, *, patience: float) -> PortablePlan:
        """Return what travels of a plan: the variables of the notebook do not, for all that they gave is resolved."""
        there: Any = {"on": None, "forward_env": None}
        cell = replace(
            plan.cell,
            options=replace(plan.cell.options, **there),
            defaults=replace(plan.cell.defaults, **there),
            namespace={},
            run=None,
            cell_id=None,
            notes=(),
            cannot_confirm=None,
        )
        return cls(cell, plan.spec, dict(plan.tools), plan.turns, plan.context, plan.tool_timeout, patience)

    def plan(self, session: Session) -> Plan:
        """Return the plan again, with the models of a session there."""
        return Plan(
            cell=self.cell,
            models=session.models(self.cell),
            parts=(),
            spec=self.spec,
            tools=self.tools,
            turns=self.turns,
            context=self.context,
            tool_timeout=self.tool_timeout,
        )


class StreamSource:
    """Rows as the client sends them."""

    def __init__(self, rows: Feed) -> None:
        self._rows = rows
        self._is_stopped = False
        self._left: list[RowRequest] = []  # that came when no more were to be given

    async def next(self) -> RowRequest | None:
        """Return the next row, None after the last."""
        row = None if self._is_stopped else await anext(self._rows, None)
        if row is not None and self._is_stopped:
            self._left.append(row)
            return None
        return row

    def stop(self) -> None:
        """Give no more rows, and let go of whoever waits for one."""
        self._is_stopped = True
        self._rows.let_go()

    async def rest(self) -> AsyncGenerator[list[RowRequest], None]:
        """Yield the rows that nobody took, as they come."""
        yield self._left
        async for row in self._rows:
            yield [row]


async def ask_rows(
    session: Session, request: PortablePlan, rows: Feed, *, concurrency: int | str
) -> AsyncGenerator[Outcome, None]:
    """Ask rows on a worker; how many are in flight there, the client says by sending no more."""
    asker = RowAsker(session, request.plan(session), session.spending, None)
    number: Any = concurrency
    pipeline = Pipeline(StreamSource(rows), asker.ask, Concurrency(number), request.patience)
    try:
        async with aclosing(pipeline.outcomes()) as stream:
            async for batch in stream:
                for outcome in batch:
                    yield outcome
    finally:
        await asker.aclose()
