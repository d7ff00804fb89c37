"""The rows of one run, asked by offline batches: written, submitted, waited for and read, as outcomes like any others.

A row that a batch of an earlier run of the same cell has asked is not asked again: a batch that is under way is waited
for, and what a finished one has answered is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any

from llm_magic.batches.jsonl.input_file import custom_id
from llm_magic.batches.kept.record import BatchRecord, Structured, excerpt
from llm_magic.batches.remote.batches_of_run import REFUSED_TIMES, BatchesOfRun, WaitingBatch, new_record
from llm_magic.batches.remote.retrieval import Refused, no_result, results_of
from llm_magic.batches.remote.spending import BatchSpending
from llm_magic.batches.rows.bodies import RequestBodies
from llm_magic.batches.rows.equal_rows import EqualRows
from llm_magic.batches.rows.result_reader import ResultReader
from llm_magic.display.footer import counted
from llm_magic.errors import LLMError, NotAskedError, Origin
from llm_magic.mapping.answers.statistics import response_of
from llm_magic.mapping.asking.row_asker import failed
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.providers.batches import endpoint, line_url
from llm_magic.recordings.recording import key_of

if TYPE_CHECKING:
    from llm_magic.batches.jsonl.input_file import InputFile
    from llm_magic.batches.jsonl.results import RowResult
    from llm_magic.batches.remote.state import BatchState
    from llm_magic.mapping.asking.row_asker import RowAsker
    from llm_magic.mapping.engine import RunOfEngine
    from llm_magic.session.plan import BoundModel, Plan
    from llm_magic.session.run_spending import RunSpending

_AT_ONCE = 500  # rows that are rendered before others get a turn


class BatchPipeline:
    """Asks for the rows of a run by batches.

    Parameters
    ----------
    state
        Sees how far they are.
    run, asker, spending
        Of the run.
    requests
        The rows that are to be asked; read on a thread of its own.

    """

    def __init__(
        self,
        state: BatchState,
        run: RunOfEngine,
        asker: RowAsker,
        spending: RunSpending,
        requests: Iterator[RowRequest],
    ) -> None:
        self._state, self._run, self._asker, self._requests = state, run, asker, requests
        self._spending = BatchSpending(spending, state.session)
        self._identity = key_of(run.identity)
        state.say = run.say
        self._batches: BatchesOfRun[RowRequest] = BatchesOfRun(state, self._spending, self._identity, "row", run.say)
        self._ready: list[Outcome] = []
        self._news = asyncio.Event()
        self._refused_whole: list[tuple[LLMError, list[RowRequest]]] = []
        self._has_outcomes = False
        self._equal = EqualRows(asker)
        self.stopped: LLMError | None = None

    @property
    def waiting(self) -> str:
        """What all rows wait for, besides what is told of the batches."""
        return ""

    @property
    def in_flight(self) -> int:
        """Rows that a batch has, and whose results have not come."""
        return sum(len(each.lines) for each in self._batches.waiting.values())

    def put(self, outcomes: list[Outcome]) -> None:
        """Hand on outcomes, with the others."""
        self._has_outcomes = self._has_outcomes or bool(outcomes)
        self._ready += outcomes
        self._news.set()

    async def outcomes(self) -> AsyncGenerator[list[Outcome], None]:
        """Yield the outcomes as they come; leaving it stops the waiting, and the batches go on at their server.

        Raises
        ------
        LLMError
            What ended it as a whole: what is submitted is remembered, and the next run goes on with it.

        """
        work = asyncio.ensure_future(self._work())
        work.add_done_callback(lambda _: self._news.set())
        try:
            with self._batches.catching_folder_errors():
                while not work.done() or self._ready:
                    await self._news.wait()
                    self._news.clear()
                    if there := self._take_ready():
                        yield there
                work.result()
                while there := self._take_ready():
                    yield there
                self._batches.have_been_read()  # whoever took them has them
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            self._state.has_ended()
        while there := self._take_ready():  # that were put while this ended
            yield there

    def _take_ready(self) -> list[Outcome]:
        there, self._ready = self._ready, []
        if not there:
            self._news.clear()
        return there

    async def _work(self) -> None:
        bound = await self._asker.bound()
        self._state.connect(bound.provider, bound.model, bound.planned.options)
        async with AsyncExitStack() as stack:
            bodies = await RequestBodies.of(self._run.plan, bound)
            stack.push_async_callback(bodies.aclose)
            reader = ResultReader(self._state.session, self._run.plan, bound, bodies, self._asker)
            await self._submitted(bound, bodies, reader, self._requests)
            self._state.has_submitted()
            await self._all_ended(bound, bodies, reader)

    async def _submitted(
        self, bound: BoundModel, bodies: RequestBodies, reader: ResultReader, requests: Iterator[RowRequest]
    ) -> None:
        """Submit what no batch has, and go on with submissions that broke off."""
        async with self._batches.turn():
            rows = await self._asked_for(reader, requests)
            await self._batches.submit(bound.provider, bound.model, await self._written(bound, bodies, rows))

    async def _asked_for(self, reader: ResultReader, requests: Iterator[RowRequest]) -> list[RowRequest]:
        """Return the rows that no batch has: others are put aside, or wait for theirs."""
        await self._batches.look()
        asked: list[RowRequest] = []
        while rows := await asyncio.to_thread(list, islice(requests, _AT_ONCE)):
            for row in rows:
                if (outcome := await self._asker.answered_before(row)) is not None:
                    self.put([outcome])
                elif not self._equal.is_copy(row) and not self._batches.has(row.key, row):
                    asked.append(row)
        count = 0

        async def use(row: RowRequest, result: RowResult, record: BatchRecord) -> bool:
            nonlocal count
            if result.body is None:
                return False
            outcome = await reader.outcome(row, result, record, counts=False)
            if outcome.error is not None:
                return False
            outcome.known = True
            self._hand_on(outcome)
            count += 1
            return True

        asked += await self._batches.left(use)
        if count:
            are, cost = ("is", "costs") if count == 1 else ("are", "cost")
            self._run.say(
                f"{counted(count, 'row')} {are} answered by a batch of an earlier run, and {cost} nothing more "
                "(--again asks anew)."
            )
        self._say_what_is_found()
        return sorted(asked, key=lambda row: row.number)

    def _say_what_is_found(self) -> None:
        begun = [each for each in self._batches.waiting.values() if not each.record.has_reached("submitted")]
        if begun:
            rows = counted(sum(len(each.lines) for each in begun), "row")
            self._run.say(f"The submission of {rows} broke off on {begun[-1].record.made_at}: it goes on.")
        found = [each for each in self._batches.waiting.values() if each.record.has_reached("submitted")]
        if found:
            what = "A batch" if len(found) == 1 else f"{len(found)} batches"
            rows = counted(sum(len(each.lines) for each in found), "row")
            has = "has" if len(found) == 1 else "have"
            self._run.say(f"{what} of {found[-1].record.made_at} {has} {rows} of this cell: not submitted again.")

    async def _written(
        self, bound: BoundModel, bodies: RequestBodies, rows: list[RowRequest]
    ) -> list[WaitingBatch[RowRequest]]:
        """Write rows into input files, and remember these; a row that cannot be written has failed."""
        structure = bound.structure
        structured = Structured(
            dialect=None if structure is None else structure.dialect,
            nulls=structure is not None and structure.nulls,
        )

        def record_of(file: InputFile, _rows: object) -> BatchRecord:
            return record_of_rows(file, self._identity, self._run.plan, bound, structured=structured)

        by_id: dict[str, RowRequest] = {}
        with self._batches.writing(line_url(bound.capabilities)) as writer:
            for number, row in enumerate(rows):
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
                try:
                    writer.write(row.number, row.key, await bodies.body(row))
                except LLMError as error:
                    self._hand_on(failed(row.number, error))
                    continue
                by_id[custom_id(row.number, row.key)] = row
                self._spending.expect(bodies.demand(row))
            return self._batches.add(await asyncio.to_thread(writer.close), by_id, record_of)

    async def _all_ended(self, bound: BoundModel, bodies: RequestBodies, reader: ResultReader) -> None:
        """Wait for all batches, and hand on their answers; where one was refused for some rows, ask the others anew."""

        async def read(batch: WaitingBatch[RowRequest], record: BatchRecord) -> None:
            await self._read_results(batch.lines, record, reader)

        async def submit_again(rows: list[RowRequest]) -> None:
            await self._submitted(bound, bodies, reader, iter(rows))

        for row in await self._batches.all_ended(read, self._refused, submit_again):
            self._hand_on(Outcome(row.number, error=_refused_for_others(bound.provider.origin(bound.model))))
        for error, rows in self._refused_whole:
            if not self._has_outcomes:  # of no row there is anything to tell but this
                raise error
            for row in rows:
                self._hand_on(failed(row.number, error))

    async def _read_results(self, waiting: dict[str, RowRequest], record: BatchRecord, reader: ResultReader) -> None:
        """Hand on the outcomes of the rows of a batch that is fetched; those do not wait any longer."""
        failures: dict[str, RowResult] = {}
        counts = self._spending.counts(record)

        async def read(name: str, result: RowResult) -> None:
            outcome = await reader.outcome(waiting[name], result, record, counts=counts)
            response = response_of(outcome)
            if not isinstance(outcome.error, NotAskedError):  # those were no requests
                self._spending.took(record, *((None, None) if response is None else (response.usage, response.cost)))
            self._hand_on(outcome)
            del waiting[name]

        async for name, result in results_of(self._state.folder, record, waiting):
            if result.body is None:
                failures.setdefault(name, result)  # the other file may have an answer
            else:
                await read(name, result)
        for name, result in failures.items():
            if name in waiting:
                await read(name, result)
        for row in waiting.values():
            self._hand_on(Outcome(row.number, error=no_result(record)))
        waiting.clear()

    def _refused(self, batch: WaitingBatch[RowRequest], refused: Refused) -> list[RowRequest]:
        """Hand on the errors of the rows that a batch was refused for, and return its others; or of all its rows."""
        rest, rows = [], dict(batch.lines)
        batch.lines.clear()
        if refused.whole or not refused.named:
            self._refused_whole.append((refused.of_all, list(rows.values())))
            return []
        for name, row in rows.items():
            if (error := refused.error(name)) is not None:
                self._hand_on(failed(row.number, error))
            else:
                rest.append(row)
        return rest

    def _hand_on(self, outcome: Outcome) -> None:
        self.put(self._equal.outcomes(outcome))


def _refused_for_others(origin: Origin) -> LLMError:
    return NotAskedError(
        f"Not asked: {origin} refused {REFUSED_TIMES + 1} batches in a row for other rows, and this was not submitted "
        "once more.",
        "Run the cell again: only what is missing is asked.",
    )


def record_of_rows(file: InputFile, run: str, plan: Plan, bound: BoundModel, /, **further: Any) -> BatchRecord:
    """Return the record of a file of rows of a plan, as `new_record` does."""
    return new_record(
        file,
        run,
        bound.planned.target,
        base_url=str(plan.options.base_url or ""),
        model=bound.model,
        api=bound.capabilities.api,
        endpoint=endpoint(bound.capabilities),
        prompt=excerpt(plan.cell.body),
        out=plan.cell.options.out or "",
        **further,
    )
