"""Answers to rows of a run that asks now, which were fetched: `%llm_batch fetch` has read them out of a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_magic.batches.batch_file.found_results import FoundResult, FoundResults
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.kept.record import BatchRecord
from llm_magic.batches.remote.retrieval import no_result
from llm_magic.batches.rows.bodies import RequestBodies
from llm_magic.batches.rows.result_reader import ResultReader
from llm_magic.config.references import dry_run
from llm_magic.config.trust import printable
from llm_magic.errors import LLMError
from llm_magic.mapping.asking.row_asker import RowAsker, failed
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.recordings.locked_file import reason

if TYPE_CHECKING:
    from llm_magic.mapping.run import RowsRun
    from llm_magic.session import Session


class FetchedRows:
    """The answers to rows of a run that asks now, which a batch of an earlier run of the same has fetched.

    Parameters
    ----------
    session
        Whose settings and accounts these are.
    run
        The run.
    found
        What was fetched.
    folder
        Remembers batches.

    """

    def __init__(self, session: Session, run: RowsRun, found: FoundResults, folder: BatchFolder) -> None:
        self._session, self._run, self._found, self._folder = session, run, found, folder
        self._reader: ResultReader | None = None
        self._asker: RowAsker | None = None
        self._bodies: RequestBodies | None = None
        self._preparing = asyncio.Lock()

    async def outcome(self, row: RowRequest, asker: RowAsker) -> Outcome | None:
        """Return the outcome of a row; None where it is to be asked."""
        with catching_folder_errors():
            found = self._found.take(row, "" if row.key else asker.key(row.parts), keep=asker.asks_equal_once)
            if found is None or found.place is None:
                return None
            async with self._preparing:
                reader = self._reader or await self._prepared()
            return await outcome_of(reader, row, found)

    async def _prepared(self) -> ResultReader:
        plan = self._run.plan
        first = plan.models[0]
        options = replace(first.options, retries_invalid=0)  # what is invalid was asked elsewhere
        plan = replace(plan, models=(replace(first, options=options),))
        self._asker = asker = self._run.asker_of(plan)
        bound = await asker.bound()
        with dry_run():
            self._bodies = await RequestBodies.of(plan, bound)
        self._reader = ResultReader(self._session, plan, bound, self._bodies, asker)
        return self._reader

    async def ended(self) -> None:
        """Take note that the run has ended, and its user has what was fetched."""
        have_been_read(self._folder, self._found.records, self._run.say)

    async def aclose(self) -> None:
        """Close what was opened."""
        if self._bodies is not None:
            await self._bodies.aclose()
        if self._asker is not None:
            await self._asker.aclose()


def fetched_rows(
    session: Session, run: RowsRun, records: Iterable[BatchRecord], folder: BatchFolder
) -> FetchedRows | None:
    """Return what a file of this run's rows has as answers that nobody has read; None where there is nothing.

    What cannot be looked at is none: the rows are asked.
    """
    options = run.plan.options
    if options.again or options.on is not None or run.plan.tools or run.plan.mcp:
        return None
    try:
        found = [each for each in records if each.file and each.step == "fetched"]
        return FetchedRows(session, run, FoundResults(folder, found), folder) if found else None
    except OSError:
        return None


async def outcome_of(reader: ResultReader, row: RowRequest, found: FoundResult, *, counts: bool = True) -> Outcome:
    """Return the outcome of a row that was fetched; `counts` as of `ResultReader.outcome`."""
    result = found.read()
    if result is None:
        return failed(row.number, no_result(found.record))
    return await reader.outcome(row, result, found.record, counts=counts)


def have_been_read(folder: BatchFolder, records: Iterable[BatchRecord], say: Callable[[str], None]) -> None:
    """Take note that the user has what was fetched; where that fails, the next run has it once more."""
    try:
        for record in records:
            folder.update(record.id, step="read")
    except OSError as error:
        say(f"It cannot be noted that this was read, and the next run has it once more: {reason(error)}.")


@contextmanager
def catching_folder_errors() -> Iterator[None]:
    """Raise what the system says of the folder of batches as an error of ours."""
    try:
        yield
    except OSError as error:
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        raise LLMError(
            f"The batches that are kept cannot be reached: {where}{reason(error)}.",
            "XDG_STATE_HOME names another place for them.",
        ) from None
