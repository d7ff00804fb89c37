"""What becomes of a batch that is submitted: it is looked at until it ends, and its files are fetched and read."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from llm_magic.batches.jsonl.input_file import read_ids
from llm_magic.batches.jsonl.results import RowResult, hide_secrets, read_results
from llm_magic.batches.kept.record import MAX_REFUSALS, BatchRecord, BatchRefusal
from llm_magic.batches.remote.polling import TRANSIENT, Polling, retried
from llm_magic.errors import (
    AuthenticationError,
    ConfigurationError,
    InputError,
    LLMError,
    NotAskedError,
    Origin,
    ProtocolError,
    ProviderError,
    QuotaExceededError,
    RequestRefusedError,
    TimedOutError,
)
from llm_magic.recordings.locked_file import reason
from llm_magic.secrets import secrets_in
from llm_magic.wire import logs
from llm_magic.wire.error_body import one_line
from llm_magic.wire.refusals import refused
from llm_magic.wire.remote_batch import RemoteBatch

if TYPE_CHECKING:
    from llm_magic.batches.kept.kept_batches import BatchFolder
    from llm_magic.batches.remote.state import BatchState
    from llm_magic.wire.batches import BatchRoutes, Refusal

_AT_ONCE = 500  # results that are read before others get a turn
_AGAIN = "Run the cell again: only what is missing is asked."
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Refused:
    """A batch that its server did not begin: for lines of its file, which are `named` by their custom ids, or `whole`.

    Lines that are not named were not judged, where others are: another batch may ask for them.
    """

    named: Mapping[str, Refusal]
    whole: tuple[Refusal, ...]
    told: tuple[Refusal, ...]
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
        return self.of_all

    @property
    def of_all(self) -> ProviderError:
        """The error of all lines, where the server names none of them; of the class that its code means."""
        origin, told = self.origin, self.whole or self.told
        said = "; ".join(dict.fromkeys(each.message for each in told[:3]))
        what = one_line(f"{origin} refused the batch{f': {said}' if said else ', and says not why'}", 600).rstrip(".")
        words = {"message": said, "code": told[0].code if told else None}
        found = refused({"error": words}, 400, origin)
        hint = found.hint if type(found) is not RequestRefusedError else ""
        hint = hint or "Nothing was asked. Change what it names, or wait, and run the cell again: it submits anew."
        return type(found)(f"{what}.", hint, origin=origin, body=words)


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
            return await state.routes().retrieve(record.batch_id)  # over a client that was renewed since

        polling = Polling(
            look,
            routes.origin,
            every=state.every,
            created=record.created,
            seen=lambda said: state.note_status(record.id, said),
            **state.clocks,
        )
        with state.polled(record.id, polling), _hinting_at_the_batch(state, record):
            batch = await polling.ended()
        if batch.state == "failed" and not (batch.output_file_id or batch.error_file_id):
            return _refused(state, record, batch, routes.origin)
        record = state.update(
            record,
            step="ended",
            status=batch.state,
            completed=batch.completed,
            failed=batch.failed,
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            refusals=_refusals(batch),
        )
    if not record.has_reached("fetched") or not _has_files(folder, record):

        async def fetch() -> None:
            await _download(folder, record, routes)

        clocks = {name: clock for name, clock in state.clocks.items() if name != "wall_clock"}
        with state.tried(record.id), _hinting_at_the_results(record):
            await retried(fetch, seen=lambda error: state.note_status(record.id, error), every=state.every, **clocks)
        record = state.update(record, step="fetched")
    return record


async def fetched(folder: BatchFolder, record: BatchRecord, routes: BatchRoutes) -> BatchRecord:
    """Fetch both files of a batch that has ended; raises LLMError."""
    await _download(folder, record, routes)
    return folder.update(record.id, step="fetched")


async def _download(folder: BatchFolder, record: BatchRecord, routes: BatchRoutes) -> None:
    for file_id, path in (
        (record.output_file_id, folder.output_path(record.id)),
        (record.error_file_id, folder.errors_path(record.id)),
    ):
        if file_id:
            await routes.download(file_id, path)
            known = (*routes.secrets, *secrets_in(routes.headers or {}), *logs.learned())
            await asyncio.to_thread(hide_secrets, path, known)


@contextmanager
def _hinting_at_the_batch(state: BatchState, record: BatchRecord) -> Iterator[None]:
    """Let an error of the waiting say that the batch goes on, and what to do."""
    at = f"{record.batch_id} goes on at {record.provider}"
    try:
        yield
    except AuthenticationError as error:
        _add_hint(error, f"The batch {at}: with a key that is taken, run the cell again, and it is waited for.")
        raise
    except TRANSIENT as error:
        if isinstance(error, QuotaExceededError):
            _add_hint(error, f"The batch {at}: run the cell again, and it is waited for.")
        elif not isinstance(error, TimedOutError) or "%llm_batch" not in error.hint:
            error.hint = ""
            _add_hint(error, f"The batch {at}, and is overdue: run the cell again to look again; --again submits anew.")
        raise
    except LLMError as error:
        if gone := _hint_where_gone(error):
            state.note_lost(record)
        _add_hint(error, gone or f"The batch {at}: run the cell again, and it is waited for.")
        raise


@contextmanager
def _hinting_at_the_results(record: BatchRecord) -> Iterator[None]:
    """Let an error of the fetching say where the results are, and what to do."""
    step = f"The results of {record.batch_id} are at {record.provider}: "
    try:
        yield
    except AuthenticationError as error:
        _add_hint(error, f"{step}with a key that is taken, run the cell again, and they are fetched.")
        raise
    except InputError:  # of the disk: it says what to do
        raise
    except LLMError as error:
        if isinstance(error, TRANSIENT) and not isinstance(error, QuotaExceededError):
            error.hint = ""
        _add_hint(error, _hint_where_gone(error) or f"{step}run the cell again, and they are fetched.")
        raise


def _hint_where_gone(error: LLMError) -> str:
    """Return what to do about a batch, or a file of one, that its server does not have; empty for other errors."""
    is_gone = isinstance(error, ProviderError) and error.status == _NOT_FOUND
    return "Run the cell again where it is to be found; --again submits its rows anew." if is_gone else ""


def _add_hint(error: LLMError, step: str) -> None:
    """Add the next step to the hint of an error."""
    if step not in error.hint:
        error.hint = f"{error.hint} {step}".strip()
        error.args = (error.message, error.hint)


def _refusals(batch: RemoteBatch) -> tuple[BatchRefusal, ...]:
    return tuple(BatchRefusal(each.line, each.message, each.code) for each in batch.refusals[:MAX_REFUSALS])


def _has_files(folder: BatchFolder, record: BatchRecord) -> bool:
    """Whether the files of results are here."""
    found = (
        (record.output_file_id, folder.output_path(record.id)),
        (record.error_file_id, folder.errors_path(record.id)),
    )
    return all(path.exists() for file_id, path in found if file_id)


def _refused(state: BatchState, record: BatchRecord, batch: RemoteBatch, origin: Origin) -> Refused:
    try:
        ids = read_ids(state.folder.ids_path(record.id))
    except OSError:  # removed meanwhile
        ids = []
    state.update(record, step="refused", status=batch.state, refusals=_refusals(batch))
    state.folder.forget_input(record.id)
    named = {ids[each.line - 1]: each for each in batch.refusals if each.line and 0 < each.line <= len(ids)}
    whole = tuple(each for each in batch.refusals if each.line is None)
    return Refused(named, whole, batch.refusals, origin)


def asked_before(folder: BatchFolder, records: Iterable[BatchRecord]) -> dict[str, deque[tuple[BatchRecord, str]]]:
    """Return the rows that batches have asked, by the beginnings of their keys: for each the batches and custom ids.

    Those that are under way come first.
    """
    known: defaultdict[str, deque[tuple[BatchRecord, str]]] = defaultdict(deque)
    for record in sorted(records, key=lambda each: each.is_over):
        if record.step != "refused":
            for name in _ids(folder, record):
                known[name.partition("-")[2]].append((record, name))
    return known


def _ids(folder: BatchFolder, record: BatchRecord) -> list[str]:
    """Return the custom ids of a batch; ConfigurationError where these are gone, and its rows may be paid."""
    path = folder.ids_path(record.id)
    try:
        return read_ids(path)
    except OSError as error:
        if record.is_over or not record.has_reached("submitting"):
            return []
        raise ConfigurationError(
            f"It is not known which rows the batch {record.batch_id or record.id} has: {path}: {reason(error)}.",
            f"%llm_batch remove {record.id} forgets it; then the cell submits all rows anew.",
        ) from None


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


def no_result(record: BatchRecord) -> LLMError:
    """Return the error of a row for which a batch has no result."""
    if record.file:
        return NotAskedError(
            "Not asked: what was fetched has no result for this row.",
            "Run the cell again: only what is missing is asked.",
        )
    state = RemoteBatch(record.batch_id, record.status).state
    if state == "completed":
        origin = Origin(record.provider, record.model, record.url)
        return ProtocolError(
            f"{origin}: the batch {record.batch_id} is completed, and has no result for this row.",
            _AGAIN,
            origin=origin,
        )
    ended = {"expired": "expired", "cancelled": "was cancelled"}.get(state, "failed")
    said = f" ({record.refusals[0].message.rstrip('.')})" if record.refusals else ""
    return NotAskedError(f"Not asked: the batch {ended} before this row's turn{said}.", _AGAIN)
