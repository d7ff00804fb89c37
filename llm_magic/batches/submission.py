"""The submission of a batch: its file is uploaded, then it is created, each step remembered on disk before it is taken.

The creation is the step that is paid, so it is never repeated blindly: where it is not known whether a batch was
created, the server's list is asked for it first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from llm_magic.errors import (
    ConnectionFailedError,
    EndpointNotFoundError,
    LLMError,
    ProviderError,
    RateLimitedError,
    UnsupportedError,
)
from llm_magic.wire.batches import is_ambiguous

if TYPE_CHECKING:
    from llm_magic.batches.kept_batches import BatchFolder
    from llm_magic.batches.record import BatchRecord
    from llm_magic.wire.batches import BatchRoutes, RemoteBatch

OURS = "llm_magic"
"""The key of a batch's metadata that holds the hash of its file; `llm_magic_id` holds our name of it."""
SETTLING = 10.0
"""Seconds in which a creation that was under way when its process ended has been carried out, or never will be."""
_ATTEMPTS = 5
_WAITS = (1.0, 2.0, 5.0, 10.0)  # seconds after an attempt that failed


class Submission:
    """Submits batches that are written.

    Parameters
    ----------
    routes
        Those of the endpoint.
    folder
        Remembers each step.
    wall_clock, sleep
        Unix seconds, and what waits some.

    """

    def __init__(
        self,
        routes: BatchRoutes,
        folder: BatchFolder,
        *,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._routes, self._folder, self._clock, self._sleep = routes, folder, wall_clock, sleep

    async def submit(self, record: BatchRecord) -> BatchRecord:
        """Take the steps that are left until the batch is created, and return what is remembered of it then.

        Raises
        ------
        LLMError
            A step failed: run again, it goes on with that one.
        OSError
            A step cannot be remembered; it was not taken.

        """
        was_submitting = record.step == "submitting"
        if record.step in ("written", "uploading"):
            self._folder.update(record.id, step="uploading")
            file_id = await self._routes.upload(self._folder.input_path(record.id), f"llm_magic-{record.id}.jsonl")
            record = self._folder.update(record.id, step="uploaded", file_id=file_id)
        if record.step == "uploaded":
            record = self._folder.update(record.id, step="submitting", submitting_at=self._clock())
        if record.step == "submitting":
            batch = await self._found_later(record) if was_submitting else None
            if batch is None:
                batch = await self._created(record)
            record = self._folder.update(
                record,
                step="submitted",
                batch_id=batch.id,
                status=batch.state,
                expires_at=batch.expires_at,
            )
        self._folder.forget_input(record.id)
        return record

    async def _created(self, record: BatchRecord) -> RemoteBatch:
        """Create the batch, or find it where an attempt may have done so."""
        metadata = {OURS: record.digest, f"{OURS}_id": record.id}
        for number in range(_ATTEMPTS):
            try:
                return await self._routes.create(record.file_id, record.endpoint, metadata, key=record.id)
            except LLMError as error:
                ambiguous = is_ambiguous(error)
                passing = ambiguous or isinstance(error, RateLimitedError | ConnectionFailedError)
                if not passing or (number + 1 == _ATTEMPTS and not ambiguous):
                    raise
                await self._sleep(_WAITS[min(number, len(_WAITS) - 1)])
                if ambiguous and (batch := await self._find(record)) is not None:
                    return batch
                if number + 1 == _ATTEMPTS:
                    raise
        raise AssertionError  # the last attempt returns or raises

    async def _found_later(self, record: BatchRecord) -> RemoteBatch | None:
        """Return the batch that a process has created which ended before it could remember that; None where none is."""
        batch = await self._find(record)
        since = self._clock() - record.submitting_at
        if batch is None and 0 <= since < SETTLING:
            await self._sleep(SETTLING - since)
            batch = await self._find(record)
        return batch

    async def _find(self, record: BatchRecord) -> RemoteBatch | None:
        try:
            return await self._routes.find(lambda batch: is_of(batch, record))
        except (UnsupportedError, EndpointNotFoundError) as error:
            raise ProviderError(
                f"It is not known whether a batch was created: {error.message}",
                "Look at the list of batches of your provider. %llm_batch remove "
                f"{record.id} forgets this one; then, or with --again, the cell submits its rows once more.",
            ) from error


def is_of(batch: RemoteBatch, record: BatchRecord) -> bool:
    """Tell whether a batch at a server is that of a record: by our name of it, else by its file, which no other has."""
    named = batch.metadata.get(f"{OURS}_id")
    return named == record.id if named else bool(record.file_id) and batch.input_file_id == record.file_id
