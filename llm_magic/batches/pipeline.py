"""The rows of one run, asked by offline batches: written, submitted, waited for and read, as outcomes like any others.

A row that a batch of an earlier run of the same cell has asked is not asked again: a batch that is under way is waited
for, and what a finished one has answered is used.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llm_magic.batches.bodies import RequestBodies
from llm_magic.batches.earlier import EarlierBatches, moment
from llm_magic.batches.input_file import InputFile, InputFileWriter, custom_id, read_ids
from llm_magic.batches.reading import ResultReader
from llm_magic.batches.record import BatchRecord, Structured, excerpt
from llm_magic.batches.retrieval import Refused, asked_before, missing, results_of, retrieved
from llm_magic.batches.spending import BatchSpending
from llm_magic.config.trust import printable
from llm_magic.display.footer import counted
from llm_magic.errors import ConfigurationError, LLMError, NotAskedError, Origin, UnsupportedError
from llm_magic.mapping.answers.statistics import response_of
from llm_magic.mapping.asking.row_asker import failed
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.providers.batches import endpoint, line_url
from llm_magic.recordings.locked_file import reason
from llm_magic.recordings.recording import key_of

if TYPE_CHECKING:
    from llm_magic.batches.results import RowResult
    from llm_magic.batches.state import BatchState
    from llm_magic.mapping.asking.row_asker import RowAsker
    from llm_magic.mapping.engine import RunOfEngine
    from llm_magic.session.plan import BoundModel
    from llm_magic.session.run_spending import RunSpending

_AT_ONCE = 500  # rows that are rendered before others get a turn
_REFUSED_TIMES = 3  # batches in a row that a server refuses for some of their rows, which are left out of the next one


@dataclass(slots=True)
class _Waiting:
    """The rows of this run that a batch answers, by their custom ids there."""

    record: BatchRecord
    rows: dict[str, RowRequest] = field(default_factory=dict)


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
        self._folder = state.folder
        state.say = run.say
        self._there: list[Outcome] = []
        self._news = asyncio.Event()
        self._waiting: dict[str, _Waiting] = {}  # by our name of the batch
        self._read: list[BatchRecord] = []  # whose results have been handed on
        self._refused_whole: list[tuple[LLMError, list[RowRequest]]] = []
        self._has_outcomes = False
        self._equal: dict[str, RowRequest] = {}  # the first of equal rows, where they are asked once
        self._copies: defaultdict[int, list[int]] = defaultdict(list)  # by its number: those of the others
        self._earlier = EarlierBatches(state, self._spending, self._identity, run.say)
        self.stopped: LLMError | None = None

    @property
    def waiting(self) -> str:
        """What all rows wait for, besides what is told of the batches."""
        return ""

    @property
    def in_flight(self) -> int:
        """Rows that a batch has, and whose results have not come."""
        return sum(len(each.rows) for each in self._waiting.values())

    def put(self, outcomes: list[Outcome]) -> None:
        """Hand on outcomes, with the others."""
        self._has_outcomes = self._has_outcomes or bool(outcomes)
        self._there += outcomes
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
            while not work.done() or self._there:
                await self._news.wait()
                self._news.clear()
                if there := self._taken():
                    yield there
            work.result()
            while there := self._taken():
                yield there
            for record in self._read:  # whoever took them has them
                self._state.remember(record, step="read")
                if self._folder.get(record.id) is None:  # it was removed meanwhile: so are its files
                    self._remove_files(record)
        except OSError as error:
            raise ConfigurationError(
                f"Batches cannot be kept in {printable(str(self._folder.place))}: {reason(error)}.",
                "Make room there, or set another folder (XDG_STATE_HOME), and run the cell again: it goes on.",
            ) from None
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            self._state.settle()
        while there := self._taken():  # that were put while this ended
            yield there

    def _taken(self) -> list[Outcome]:
        there, self._there = self._there, []
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
            with suppress(OSError):
                await asyncio.to_thread(self._folder.sweep)
            await self._submitted(bound, bodies, reader, self._requests)
            self._state.has_submitted()
            await self._all_ended(bound, bodies, reader)

    async def _submitted(
        self, bound: BoundModel, bodies: RequestBodies, reader: ResultReader, requests: Iterator[RowRequest]
    ) -> None:
        """Submit what no batch has, and go on with submissions that broke off."""
        async with self._folder.turn(self._identity, say=self._run.say):
            rows = await self._asked_for(reader, requests)
            await self._submit(bound, await self._written(bound, bodies, rows))
            for waiting in list(self._waiting.values()):
                if not waiting.record.has_reached("submitted"):
                    waiting.record = await self._state.submission().submit(waiting.record)
                self._state.seen(waiting.record)
                self._folder.forget_input(waiting.record.id)

    async def _asked_for(self, reader: ResultReader, requests: Iterator[RowRequest]) -> list[RowRequest]:
        """Return the rows that no batch has: others are put aside, or wait for theirs."""
        records = await self._earlier.records()
        known = await asyncio.to_thread(asked_before, self._folder, records)
        answered: dict[str, dict[str, RowRequest]] = defaultdict(dict)
        asked: list[RowRequest] = []
        while rows := await asyncio.to_thread(list, islice(requests, _AT_ONCE)):
            for row in rows:
                if (outcome := await self._asker.answered_before(row)) is not None:
                    self.put([outcome])
                elif self._is_copy(row):
                    continue
                elif (found := known.get(row.key[:32])) and (place := found.popleft()):
                    record, name = place
                    if not record.is_over:
                        self._waiting.setdefault(record.id, _Waiting(record)).rows[name] = row
                    else:
                        answered[record.id][name] = row
                else:
                    asked.append(row)
        wanted = {name: len(waiting.rows) for name, waiting in self._waiting.items()}
        created, given_up = await self._earlier.settled(records, wanted)
        for record in created:
            self._waiting[record.id].record = record
        left = [row for record in given_up for row in self._waiting.pop(record.id).rows.values()]
        if left:
            asked = sorted((*asked, *left), key=lambda row: row.number)
        asked += await self._answered(records, answered, reader)
        if self._waiting:
            self._say_what_is_found()
        return asked

    def _is_copy(self, row: RowRequest) -> bool:
        """Whether an equal row is asked for this one, too."""
        if not self._asker.asks_equal_once or not row.key:
            return False
        first = self._equal.setdefault(row.key, row)
        if first is row:
            return False
        self._copies[first.number].append(row.number)
        return True

    async def _answered(
        self, records: list[BatchRecord], answered: dict[str, dict[str, RowRequest]], reader: ResultReader
    ) -> list[RowRequest]:
        """Hand on what finished batches have answered; return the rows that they have no good answer of."""
        count = 0
        for record in records:
            rows = answered.get(record.id, {})
            async for name, result in results_of(self._folder, record, rows):
                if result.body is None:
                    continue
                outcome = await reader.outcome(rows[name], result, record, counts=False)
                if outcome.error is None:
                    outcome.known = True
                    self._hand_on(outcome)
                    count += 1
                    del rows[name]
        if count:
            are, cost = ("is", "costs") if count == 1 else ("are", "cost")
            self._run.say(
                f"{counted(count, 'row')} {are} answered by a batch of an earlier run, and {cost} nothing more "
                "(--again asks anew)."
            )
        return [row for rows in answered.values() for row in rows.values()]

    def _say_what_is_found(self) -> None:
        begun = [each for each in self._waiting.values() if not each.record.has_reached("submitted")]
        if begun:
            rows = counted(sum(len(each.rows) for each in begun), "row")
            self._run.say(f"The submission of {rows} broke off on {moment(begun[-1].record)}: it goes on.")
        found = [each for each in self._waiting.values() if each.record.has_reached("submitted")]
        if found:
            what = "A batch" if len(found) == 1 else f"{len(found)} batches"
            rows = counted(sum(len(each.rows) for each in found), "row")
            has = "has" if len(found) == 1 else "have"
            self._run.say(f"{what} of {moment(found[-1].record)} {has} {rows} of this cell: it goes on.")

    async def _written(self, bound: BoundModel, bodies: RequestBodies, rows: list[RowRequest]) -> list[_Waiting]:
        """Write rows into input files, and remember these; a row that cannot be written has failed."""
        if not rows:
            return []
        names: list[str] = []

        def paths(_part: int) -> tuple[Path, Path]:
            names.append(self._folder.new_id())
            return self._folder.input_path(names[-1]), self._folder.ids_path(names[-1])

        writer = InputFileWriter(paths, line_url(bound.capabilities))
        by_id: dict[str, RowRequest] = {}
        try:
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
            files = await asyncio.to_thread(writer.close)
        except BaseException:
            writer.discard()
            raise
        return [self._remembered(bound, name, file, by_id) for name, file in zip(names, files, strict=True)]

    def _remembered(self, bound: BoundModel, name: str, file: InputFile, rows: dict[str, RowRequest]) -> _Waiting:
        target, options = bound.planned.target, self._run.plan.options
        cell, structure = self._run.plan.cell, bound.structure
        record = BatchRecord(
            id=name,
            run=self._identity,
            provider=target.provider.name,
            url=target.provider.origin().url,
            base_url=str(options.base_url or ""),
            model=bound.model,
            asked=target.asked,
            api=bound.capabilities.api,
            endpoint=endpoint(bound.capabilities),
            rows=file.rows,
            size=file.size,
            digest=file.digest,
            created=time.time(),
            step="written",
            prompt=excerpt(cell.body),
            out=cell.options.out or "",
            structured=Structured(
                dialect=None if structure is None else structure.dialect,
                nulls=structure is not None and structure.nulls,
            ),
        )
        self._folder.add(record)
        return _Waiting(record, {each: rows[each] for each in read_ids(file.ids_path)})

    async def _submit(self, bound: BoundModel, batches: list[_Waiting]) -> None:
        """Submit batches that are written, where the budgets allow them."""
        try:
            self._spending.reserve(bound.provider, bound.model, [each.record for each in batches])
        except LLMError:
            for each in batches:
                self._folder.remove(each.record.id)
            raise
        for each in batches:
            self._waiting[each.record.id] = each
        for each in batches:
            self._state.seen(each.record)
        for each in batches:
            try:
                each.record = await self._state.submission().submit(each.record)
            except UnsupportedError:  # there are no batches here: the prompts need not be kept
                for other in batches:
                    if not other.record.has_reached("submitted"):
                        await self._earlier.created_of(other.record)
                raise
            self._state.seen(each.record)

    async def _all_ended(self, bound: BoundModel, bodies: RequestBodies, reader: ResultReader) -> None:
        """Wait for all batches, and hand on their answers; where one was refused for some rows, ask the others anew."""
        again: list[RowRequest] = []
        for number in range(_REFUSED_TIMES + 1):
            # one that fails does not end the waiting for the others, whose answers are kept
            ended = await asyncio.gather(
                *(self._ended(each, reader) for each in self._waiting.values()), return_exceptions=True
            )
            self._waiting.clear()
            for each in ended:
                if isinstance(each, BaseException):
                    raise each
            again = [row for rows in ended if not isinstance(rows, BaseException) for row in rows]
            if not again or number == _REFUSED_TIMES:
                break
            self._run.say(
                f"{counted(len(again), 'row')} of a refused batch "
                f"{'is' if len(again) == 1 else 'are'} submitted again, without what it names."
            )
            await self._submitted(bound, bodies, reader, iter(again))
        for row in again:
            self._hand_on(Outcome(row.number, error=_refused_for_others(bound.provider.origin(bound.model))))
        for error, rows in self._refused_whole:
            if not self._has_outcomes:  # of no row there is anything to tell but this
                raise error
            for row in rows:
                self._hand_on(failed(row.number, error))

    async def _ended(self, waiting: _Waiting, reader: ResultReader) -> list[RowRequest]:
        """Wait for one batch, and hand on the outcomes of its rows; return those that another one is to ask."""
        try:
            found = await retrieved(self._state, waiting.record)
        except LLMError as error:
            if len(self._waiting) > 1:  # it is raised when the others have ended, which may take a day
                self._run.say(f"{error.message} Other batches of this run are waited for all the same.")
            raise
        if isinstance(found, Refused):
            return self._refused(waiting, found)
        await self._read_results(waiting, found, reader)
        return []

    def _remove_files(self, record: BatchRecord) -> None:
        for path in (self._folder.ids_path, self._folder.output_path, self._folder.errors_path):
            with suppress(OSError):
                path(record.id).unlink()

    async def _read_results(self, waiting: _Waiting, record: BatchRecord, reader: ResultReader) -> None:
        """Hand on the outcomes of the rows of a batch that is fetched."""
        rows = dict(waiting.rows)
        failures: dict[str, RowResult] = {}
        self._spending.begin(record)

        async def read(name: str, result: RowResult) -> None:
            outcome = await reader.outcome(rows[name], result, record)
            response = response_of(outcome)
            if not isinstance(outcome.error, NotAskedError):  # those were no requests
                self._spending.took(record, *((None, None) if response is None else (response.usage, response.cost)))
            self._hand_on(outcome)
            del rows[name], waiting.rows[name]

        async for name, result in results_of(self._folder, record, rows):
            if result.body is None:
                failures.setdefault(name, result)  # the other file may have an answer
            else:
                await read(name, result)
        for name, result in failures.items():
            if name in rows:
                await read(name, result)
        self._spending.settle(record)
        for name, row in rows.items():
            self._hand_on(Outcome(row.number, error=missing(record)))
            del waiting.rows[name]
        self._read.append(record)

    def _refused(self, waiting: _Waiting, refused: Refused) -> list[RowRequest]:
        """Hand on the errors of the rows that a batch was refused for, and return its others; or of all its rows."""
        self._spending.forget(waiting.record)
        rest, rows = [], dict(waiting.rows)
        waiting.rows.clear()
        if refused.whole or not refused.named:
            self._refused_whole.append((refused.of_all, list(rows.values())))
            return []
        for name, row in rows.items():
            if (error := refused.error(name)) is not None:
                self._hand_on(failed(row.number, error))
            else:
                rest.append(row)
        if rest:
            self._state.drop(waiting.record)
        return rest

    def _hand_on(self, outcome: Outcome) -> None:
        copies = self._copies.pop(outcome.number, ())
        self.put([outcome, *(replace(outcome, number=number, duplicate=True) for number in copies)])


def _refused_for_others(origin: Origin) -> LLMError:
    return NotAskedError(
        f"Not asked: {origin} refused {_REFUSED_TIMES + 1} batches in a row for other rows, and this was not submitted "
        "once more.",
        "Run the cell again: only what is missing is asked.",
    )
