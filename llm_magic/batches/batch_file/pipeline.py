"""The rows of one run, written into the file of `--batch-file`, or answered by what was fetched of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from llm_magic.batches.batch_file.fetched_rows import catching_folder_errors, have_been_read, outcome_of
from llm_magic.batches.batch_file.found_results import FoundResult, FoundResults, ids_of
from llm_magic.batches.batch_file.written_rows import RowsWritten, WrittenRows
from llm_magic.batches.jsonl.input_file import InputFileWriter, read_ids
from llm_magic.batches.kept.record import BatchRecord
from llm_magic.batches.rows.bodies import RequestBodies
from llm_magic.batches.rows.equal_rows import EqualRows
from llm_magic.batches.rows.pipeline import record_of_rows
from llm_magic.batches.rows.result_reader import ResultReader
from llm_magic.config.references import dry_run
from llm_magic.display.footer import counted
from llm_magic.errors import LLMError
from llm_magic.mapping.asking.row_asker import RowAsker, failed
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.providers.batches import line_url
from llm_magic.providers.vllm import VLLMProvider
from llm_magic.recordings.recording import key_of

if TYPE_CHECKING:
    from llm_magic.batches.batch_file.file_place import FilePlace
    from llm_magic.batches.kept.kept_batches import BatchFolder
    from llm_magic.mapping.engine import RunOfEngine
    from llm_magic.session import Session
    from llm_magic.session.plan import BoundModel

_AT_ONCE = 500  # rows that are rendered, or read, before others get a turn
_ROWS_A_TURN = 50  # rows after which others get one
_NO_LIMIT = 2**62


class BatchFilePipeline:
    """Writes the rows of a run that have no answer yet; where all have one, or a failure that is new, they are it.

    Parameters
    ----------
    session
        Whose settings and accounts these are.
    run, asker
        Of the run.
    requests
        The rows that are to be asked; read on a thread of its own.
    place
        Of the file.
    folder
        Remembers batches.
    again
        Whether all of them are asked, whatever was fetched.

    """

    stopped: LLMError | None = None
    waiting = ""
    in_flight = 0

    def __init__(
        self,
        session: Session,
        run: RunOfEngine,
        asker: RowAsker,
        requests: Iterator[RowRequest],
        *,
        place: FilePlace,
        folder: BatchFolder,
        again: bool,
    ) -> None:
        self._session, self._place, self._folder = session, place, folder
        self._run, self._asker, self._requests, self._again = run, asker, requests, again
        self._identity = key_of(run.identity)
        self._ready: list[Outcome] = []
        self._equal = EqualRows(asker)

    def put(self, outcomes: list[Outcome]) -> None:
        """Take outcomes of rows that need not be asked."""
        self._ready += outcomes

    async def outcomes(self) -> AsyncGenerator[list[Outcome], None]:
        """Yield the outcomes where all rows have one.

        Raises
        ------
        RowsWritten
            Rows were written into the file.
        LLMError
            They cannot be.

        """
        with catching_folder_errors():
            bound = await self._asker.bound()
            with dry_run():  # no key is needed for what is not sent
                bodies = await RequestBodies.of(self._run.plan, bound)
            try:
                reader = ResultReader(self._session, self._run.plan, bound, bodies, self._asker)
                async with self._folder.turn(self._identity, say=self._run.say):
                    async for some in self._answered_or_written(bound, bodies, reader):
                        yield some
            finally:
                await bodies.aclose()
        while there := self._take_ready():
            yield there

    def _take_ready(self) -> list[Outcome]:
        there, self._ready = self._ready, []
        return there

    async def _answered_or_written(
        self, bound: BoundModel, bodies: RequestBodies, reader: ResultReader
    ) -> AsyncGenerator[list[Outcome], None]:
        rows = await self._rows()
        records = [] if self._again else self._folder.of_run(self._identity)
        new, old = await asyncio.to_thread(self._found, records)
        fetched: list[tuple[RowRequest, FoundResult]] = []
        left: list[RowRequest] = []
        under_way = await asyncio.to_thread(self._under_way, records)
        elsewhere = known = earlier = 0
        for number, row in enumerate(rows):
            await _yield_now_and_then(number)
            if (found := new.take(row)) is not None:
                fetched.append((row, found))
            elif (outcome := await self._answer(reader, row, old.take(row))) is not None:
                self._hand_on(replace(outcome, known=True))
                earlier += 1
            elif row.key[:32] in under_way:
                elsewhere += 1
            else:
                left.append(row)
        if earlier:
            are = "is" if earlier == 1 else "are"
            self._run.say(f"{counted(earlier, 'row')} {are} answered by a batch of an earlier run (--again asks anew).")
        if left or elsewhere:
            for number, (row, found) in enumerate(fetched):
                await _yield_now_and_then(number)
                if await self._answer(reader, row, found) is None:
                    left.append(row)
                else:
                    known += 1
            left.sort(key=lambda row: row.number)
            self.put(self._run.take_ready())
            answered = sum(outcome.error is None for outcome in self._ready) + known
            said = WrittenRows(self._place, bound.model, 0, answered, elsewhere, is_vllm=_is_vllm(bound))
            raise RowsWritten(await self._written(said, bound, bodies, left))
        for number, (row, found) in enumerate(fetched):
            self._hand_on(await outcome_of(reader, row, found))
            await _yield_now_and_then(number)
            if number % _AT_ONCE == 0:
                yield self._take_ready()
        while there := self._take_ready():
            yield there
        have_been_read(self._folder, new.records, self._run.say)  # whoever took them has them

    async def _rows(self) -> list[RowRequest]:
        """Return the rows that no earlier run has answered, of equal ones the first where they are asked once."""
        rows: list[RowRequest] = []
        while some := await asyncio.to_thread(list, islice(self._requests, _AT_ONCE)):
            for row in some:
                if (outcome := await self._asker.answered_before(row)) is not None:
                    self.put([outcome])
                elif not self._equal.is_copy(row):
                    rows.append(row)
        return rows

    def _hand_on(self, outcome: Outcome) -> None:
        self.put(self._equal.outcomes(outcome))

    def _found(self, records: list[BatchRecord]) -> tuple[FoundResults, FoundResults]:
        """Return the results that nobody has read, and those that an earlier run has."""
        new = [each for each in records if each.step == "fetched"]
        return FoundResults(self._folder, new), FoundResults(
            self._folder, [each for each in records if each.step == "read"]
        )

    def _under_way(self, records: list[BatchRecord]) -> set[str]:
        """Return the beginnings of the keys of rows that batches at a server have."""
        found: set[str] = set()
        for record in records:
            if not record.file and not record.is_over and not record.has_reached("fetched"):
                found |= {name.partition("-")[2] for name in ids_of(self._folder, record)}
        return found

    async def _answer(self, reader: ResultReader, row: RowRequest, found: FoundResult | None) -> Outcome | None:
        """Return the outcome of a result that answers; None of any other."""
        if found is None or not found.is_answer:
            return None
        outcome = await outcome_of(reader, row, found, counts=False)
        return outcome if outcome.error is None else None

    async def _written(
        self, said: WrittenRows, bound: BoundModel, bodies: RequestBodies, rows: list[RowRequest]
    ) -> WrittenRows:
        """Write rows into the file, and remember it; return what is said of it, with them."""
        place, wrong = self._place, [each for each in self._ready if each.error is not None]
        if not rows:
            return replace(said, wrong=tuple(wrong))
        ours = [each for each in self._folder.of_run(self._identity) if each.file]
        others = {each.digest for each in self._folder.all() if each.file}
        there = await asyncio.to_thread(place.digest, {each.digest for each in ours}, others)
        name, part = self._folder.new_id(), place.part()
        writer = InputFileWriter(
            lambda _: (part, self._folder.ids_path(name)),
            line_url(bound.capabilities),
            most_rows=_NO_LIMIT,  # those of the Batch API's servers: a file of one's own has none
            most_bytes=_NO_LIMIT,
        )
        try:
            with place.written(), dry_run():
                for number, row in enumerate(rows):
                    try:
                        writer.write(row.number, row.key, await bodies.body(row))
                    except LLMError as error:
                        wrong.append(failed(row.number, error))
                    await _yield_now_and_then(number)
                files = await asyncio.to_thread(writer.close)
            if not files:
                return replace(said, wrong=tuple(wrong))
            (file,) = files
            said = replace(said, rows=file.rows, wrong=tuple(wrong))
            if file.digest == there:
                writer.discard()
                return replace(said, is_new=False)
            record = record_of_rows(file, self._identity, self._run.plan, bound, file=str(place.path))
            self._folder.add(record)
            try:
                with place.written():
                    place.put(part, replaces=there is not None)
            except BaseException:
                self._folder.remove(name)
                raise
        except BaseException:
            writer.discard()
            raise
        self._forget(ours, name)
        return said

    def _forget(self, records: list[BatchRecord], name: str) -> None:
        """Forget files of this cell whose rows all are in the new one, too."""
        waiting = [each for each in records if each.file and each.step == "written"]
        if not waiting:
            return
        there = set(read_ids(self._folder.ids_path(name)))
        for record in waiting:
            with suppress(OSError):
                if there.issuperset(ids_of(self._folder, record)):
                    self._folder.remove(record)


async def _yield_now_and_then(number: int) -> None:
    """Let others have a turn, once in some rows: an interrupt, and the cells that ask meanwhile."""
    if number % _ROWS_A_TURN == 0:
        await asyncio.sleep(0)


def _is_vllm(bound: BoundModel) -> bool:
    return isinstance(bound.provider, VLLMProvider)
