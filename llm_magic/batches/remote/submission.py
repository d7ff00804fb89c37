"""The submission of a batch: its file is uploaded, then it is created, each step remembered on disk before it is taken.

The creation is the step that is paid, so it is never repeated blindly: where it is not known whether a batch was
created, the server's list is asked for it first.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from llm_magic.batches.kept.record import NOT_CREATED, AnotherBatchError
from llm_magic.errors import (
    ConfigurationError,
    ConnectionFailedError,
    LLMError,
    ProviderError,
    QuotaExceededError,
    RateLimitedError,
    RequestRefusedError,
    UnsupportedError,
)
from llm_magic.recordings.locked_file import reason
from llm_magic.wire.batches import is_ambiguous, wait_asked

if TYPE_CHECKING:
    from llm_magic.batches.kept.kept_batches import BatchFolder
    from llm_magic.batches.kept.record import BatchRecord
    from llm_magic.wire.batches import BatchRoutes, RemoteBatch

OURS = "llm_magic"
"""The key of a batch's metadata that holds the hash of its file; `llm_magic_id` holds our name of it."""
SETTLING = 10.0
"""Seconds in which a creation that nobody heard the end of has been carried out, or never will be."""
_LOOKS = (0.1, 0.3, 0.6)  # the parts of these after which the server's list is looked at
_ATTEMPTS = 5
_WAITS = (1.0, 2.0, 5.0, 10.0)  # seconds after an attempt that was turned away
_LONGEST_WAIT = 300.0  # that a server may ask for
_CLOCKS_APART = 86_400.0  # seconds, at most, by which a server's clock differs from ours
_USELESS = frozenset({"failed", "expired", "cancelling", "cancelled"})


class Submission:
    """Submits batches that are written.

    Parameters
    ----------
    routes
        Those of the endpoint.
    folder
        Remembers each step.
    say
        Takes a line for the user.
    wall_clock, sleep
        Unix seconds, and what waits some.

    """

    def __init__(
        self,
        routes: BatchRoutes,
        folder: BatchFolder,
        *,
        say: Callable[[str], object] = str,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._routes, self._folder, self._say, self._clock, self._sleep = routes, folder, say, wall_clock, sleep

    async def submit(self, record: BatchRecord) -> BatchRecord:
        """Take the steps that are left until the batch is created, and return what is remembered of it then.

        Raises
        ------
        LLMError
            A step failed: run again, it goes on with that one.
        OSError
            A step cannot be remembered; it was not taken.

        """
        goes_on = record.has_reached("uploaded")
        if record.step == "submitting" and (found := await self._found_later(record)) is not None:
            return self._submitted(record, found)
        if not goes_on:
            record = await self._uploaded(record)
        try:
            batch = await self._created(record)
        except RequestRefusedError as error:
            if not (goes_on and self._is_without_file(error, record)):
                raise
            record = await self._uploaded(record)  # the server has it no longer
            batch = await self._created(record)
        return self._submitted(record, batch)

    async def adopted(self, record: BatchRecord) -> BatchRecord | None:
        """Return what is remembered of a batch whose creation was under way; None where the server has none.

        Raises
        ------
        LLMError
            The server does not tell.

        """
        batch = await self._found_later(record)
        return None if batch is None else self._submitted(record, batch)

    async def _uploaded(self, record: BatchRecord) -> BatchRecord:
        """Send the input file."""
        self._folder.update(record.id, step="uploading")
        file_id = await self._routes.upload(self._folder.input_path(record.id), f"llm_magic-{record.id}.jsonl")
        return self._folder.update(record.id, step="submitting" if record.file_id else "uploaded", file_id=file_id)

    def _is_without_file(self, error: RequestRefusedError, record: BatchRecord) -> bool:
        """Whether a server refuses a batch because it has not the file, and that is here to be sent again."""
        return record.file_id in error.message and self._folder.input_path(record.id).exists()

    async def _created(self, record: BatchRecord) -> RemoteBatch:
        """Create the batch, or find it where an attempt may have done so."""
        metadata = {OURS: record.digest, f"{OURS}_id": record.id}
        for number in range(_ATTEMPTS):
            self._folder.update(record.id, step="submitting", submitting_at=self._clock())
            try:
                return await self._routes.create(record.file_id, record.endpoint, metadata, key=record.id)
            except LLMError as error:
                is_last = number + 1 == _ATTEMPTS
                if is_ambiguous(error):
                    if (batch := await self._carried_out(record)) is not None:
                        return batch
                    if is_last:
                        raise
                    continue
                passes = isinstance(error, RateLimitedError | ConnectionFailedError)
                wait = max(wait_asked(error) or 0.0, _WAITS[min(number, len(_WAITS) - 1)])
                if is_last or not passes or isinstance(error, QuotaExceededError) or wait > _LONGEST_WAIT:
                    with suppress(OSError):  # the server has answered: nothing is under way that is to be waited for
                        self._folder.update(record.id, submitting_at=NOT_CREATED)
                    raise
                await self._sleep(wait)
        raise AssertionError  # the last attempt returns or raises

    async def _carried_out(self, record: BatchRecord) -> RemoteBatch | None:
        """Return the batch that a creation has made whose answer is not known; None where it has made none."""
        for part in _LOOKS:
            await self._sleep(part * SETTLING)
            if (batch := await self._find(record)) is not None:
                return batch
        return None

    async def _found_later(self, record: BatchRecord) -> RemoteBatch | None:
        """Return the batch that a process has created which ended before it could remember that; None where none is."""
        batch = await self._find(record)
        since = max(0.0, self._clock() - record.submitting_at)
        if batch is None and since < SETTLING:
            await self._sleep(SETTLING - since)
            batch = await self._find(record)
        return batch

    async def _find(self, record: BatchRecord) -> RemoteBatch | None:
        """Return the batch of a record in the server's list; None where it has none."""
        try:
            first = await self._routes.find(lambda batch: is_of(batch, record))
        except UnsupportedError as error:
            raise ProviderError(
                f"It is not known whether a batch was created: {error.message}",
                "Look at the list of batches of your provider. %llm_batch remove "
                f"{record.id} forgets this one; then the cell submits its rows once more.",
            ) from error
        except LLMError as error:
            looks = "A batch may have been created: run the cell again, it looks for that before it creates one."
            error.hint = f"{error.hint} {looks}".strip()
            raise
        if first is None:
            return None
        found = [first]
        with suppress(LLMError):  # the first will do
            await self._find_others(record, found)
        chosen = min(reversed(found), key=lambda batch: (batch.state in _USELESS, batch.created_at or 0.0))
        self._remember_others(record, chosen, [batch for batch in found if batch is not chosen])
        return chosen

    async def _find_others(self, record: BatchRecord, found: list[RemoteBatch]) -> None:
        """Find further batches of a record: a proxy may have repeated its creation."""
        oldest = record.created - _CLOCKS_APART

        def is_new(batch: RemoteBatch) -> bool:
            return is_of(batch, record) and all(batch.id != each.id for each in found)

        def ends(batch: RemoteBatch) -> bool:
            return is_new(batch) or (batch.created_at is not None and batch.created_at < oldest)

        while (other := await self._routes.find(ends)) is not None and is_new(other):
            found.append(other)

    def _remember_others(self, record: BatchRecord, chosen: RemoteBatch, others: list[RemoteBatch]) -> None:
        """Remember batches of the same rows that nobody asked for, by records of their own, and tell of them."""
        others = [each for each in others if each.state not in _USELESS]
        if others:
            names = {each.batch_id for each in self._folder.all()}
            for each in others:
                if each.id not in names:
                    self._remember_other(record, each.id, each.status)
            ids, cancels = (
                " and ".join(f"{before}{each.id}" for each in others) for before in ("", "%llm_batch cancel ")
            )
            self._say(
                f"The server has this batch {len(others) + 1} times: {chosen.id} is waited for; {ids} would be paid, "
                f"too: {cancels} ends that."
            )

    def _remember_other(self, record: BatchRecord, batch_id: str, status: str) -> None:
        other = replace(
            record,
            id=self._folder.new_id(),
            run=hashlib.sha256(f"{record.run} {batch_id}".encode()).hexdigest(),  # no cell waits for it
            step="submitted",
            batch_id=batch_id,
            status=status,
            out="",
        )
        with suppress(OSError, ValueError):  # it is told of in any case
            with self._folder.new_file(self._folder.ids_path(other)) as file:
                file.write(self._folder.ids_path(record).read_bytes())
            self._folder.add(other)

    def _submitted(self, record: BatchRecord, batch: RemoteBatch) -> BatchRecord:
        """Remember that the batch is created; its input file is no longer needed."""
        try:
            record = self._folder.update(
                record,
                step="submitted",
                batch_id=batch.id,
                status=batch.state,
                expires_at=batch.expires_at,
            )
        except AnotherBatchError:  # of a process that no lock kept from it
            known = self._folder.get(record.id)
            if known is None:
                raise
            self._remember_others(record, replace(batch, id=known.batch_id), [batch])
            record = known
        except OSError as error:
            raise ConfigurationError(
                f"The batch {batch.id} is created, and that cannot be remembered in {self._folder.place}: "
                f"{reason(error)}.",
                "Make room, then run the cell again: it finds the batch in the list of its server, and goes on.",
            ) from None
        self._folder.forget_input(record.id)
        return record


def is_of(batch: RemoteBatch, record: BatchRecord) -> bool:
    """Tell whether a batch at a server is that of a record: by our name of it, else by its file, which no other has."""
    named = batch.metadata.get(f"{OURS}_id")
    return named == record.id if named else bool(record.file_id) and batch.input_file_id == record.file_id
