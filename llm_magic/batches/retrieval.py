"""What becomes of a batch that is submitted: it is looked at until it ends, and its files are fetched and read."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from llm_magic.batches.input_file import read_ids
from llm_magic.batches.polling import Polling
from llm_magic.batches.record import MAX_REFUSALS, BatchRecord, BatchRefusal
from llm_magic.batches.results import RowResult, read_results
from llm_magic.errors import LLMError, NotAskedError, Origin, ProtocolError, RequestRefusedError

if TYPE_CHECKING:
    from llm_magic.batches.kept_batches import BatchFolder
    from llm_magic.batches.state import BatchState
    from llm_magic.wire.batches import BatchRoutes, Refusal, RemoteBatch

_AT_ONCE = 500  # results that are read before others get a turn


@dataclass(frozen=True, slots=True)
class Refused:
    """A batch that its server did not begin: for lines of its file, which are `named` by their custom ids, or `whole`.

    Lines that are not named were not judged, where others are: another batch may ask for them.
    """

    named: Mapping[str, Refusal]
    whole: tuple[Refusal, ...]
    origin: Origin

    def error(self, name: str) -> LLMError | None:
        """Return the error of a line; None where it may be asked by another batch."""
        origin, refusal = self.origin, self.named.get(name)
        if refusal is not None:
            return RequestRefusedError(
                f"{origin} refused the batch for this row (line {refusal.line}): {refusal.message}", origin=origin
            )
        if self.named and not self.whole:
            return None
        said = "; ".join(each.message for each in self.whole[:3]) or "it says not why"
        hint = "%llm_batch show has all that it says."
        return RequestRefusedError(f"{origin} refused the batch: {said}", hint, origin=origin)


async def retrieved(state: BatchState, record: BatchRecord) -> BatchRecord | Refused:
    """Wait for a batch that is submitted, and fetch both its files, whatever its end was; return its record then.

    Raises
    ------
    LLMError
        It cannot be waited for any longer, or a file cannot be fetched: the next run goes on there.

    """
    routes, folder = state.routes(), state.folder
    if not record.has_reached("ended"):

        async def look() -> RemoteBatch:
            return await routes.retrieve(record.batch_id)

        polling = Polling(
            look,
            routes.origin,
            every=state.every,
            created=record.created,
            seen=lambda said: state.saw(record.id, said),
            **state.clocks,
        )
        batch = await polling.ended()
        if batch.state == "failed" and not batch.output_file_id:
            return _refused(folder, record, batch, routes.origin)
        record = folder.update(
            record.id,
            step="ended",
            status=batch.state,
            completed=batch.completed,
            failed=batch.failed,
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
        )
    if not record.has_reached("fetched"):
        record = await fetched(folder, record, routes)
    return record


async def fetched(folder: BatchFolder, record: BatchRecord, routes: BatchRoutes) -> BatchRecord:
    """Fetch both files of a batch that has ended; raises LLMError."""
    for file_id, path in (
        (record.output_file_id, folder.output_path(record.id)),
        (record.error_file_id, folder.errors_path(record.id)),
    ):
        if file_id:
            await routes.download(file_id, path)
    return folder.update(record.id, step="fetched")


def _refused(folder: BatchFolder, record: BatchRecord, batch: RemoteBatch, origin: Origin) -> Refused:
    ids = read_ids(folder.ids_path(record.id))
    kept = tuple(BatchRefusal(each.line, each.message, each.code) for each in batch.refusals[:MAX_REFUSALS])
    folder.update(record.id, step="read", status=batch.state, refusals=kept)  # it has no results, and is over
    folder.forget_input(record.id)
    named = {ids[each.line - 1]: each for each in batch.refusals if each.line and 0 < each.line <= len(ids)}
    return Refused(named, tuple(each for each in batch.refusals if each.line is None), origin)


def asked_before(folder: BatchFolder, records: Iterable[BatchRecord]) -> dict[str, deque[tuple[BatchRecord, str]]]:
    """Return the rows that batches have asked, by the beginnings of their keys: for each the batches and custom ids.

    Those that are under way come first.
    """
    known: defaultdict[str, deque[tuple[BatchRecord, str]]] = defaultdict(deque)
    for record in sorted(records, key=lambda each: each.is_over):
        if record.step != "refused":
            for name in read_ids(folder.ids_path(record.id)):
                known[name.partition("-")[2]].append((record, name))
    return known


async def results_of(
    folder: BatchFolder, record: BatchRecord, wanted: Collection[str], at_once: int = _AT_ONCE
) -> AsyncGenerator[tuple[str, RowResult], None]:
    """Yield the results of a batch that is fetched, of the custom ids that are `wanted` at that time.

    Answers come first: a row may stand in both files, and in one of them twice. So many are in memory `at_once`.
    """
    for path in (folder.output_path(record.id), folder.errors_path(record.id)):
        if not wanted or not path.exists():
            continue
        results = (each for each in read_results(path) if isinstance(each, RowResult) and each.custom_id in wanted)
        while some := await asyncio.to_thread(list, islice(results, at_once)):
            for result in some:
                if result.custom_id in wanted:
                    yield result.custom_id, result


def missing(record: BatchRecord) -> LLMError:
    """Return the error of a row for which a batch has no result."""
    if record.status == "completed":
        return ProtocolError(
            f"The batch {record.batch_id} is completed, and has no result for this row.",
            "Run the cell again: only what is missing is asked.",
        )
    ended = {"expired": "expired", "cancelled": "was cancelled"}.get(record.status, f"ended as {record.status}")
    return NotAskedError(
        f"Not asked: the batch {ended} before this row's turn.", "Run the cell again: only what is missing is asked."
    )
