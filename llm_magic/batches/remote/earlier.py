"""The batches of earlier runs of the same: which are gone on with, which go on beside a new one, which are given up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from llm_magic.errors import LLMError

if TYPE_CHECKING:
    from llm_magic.batches.kept.record import BatchRecord
    from llm_magic.batches.remote.spending import BatchSpending
    from llm_magic.batches.remote.state import BatchState


class EarlierBatches:
    """The batches that earlier runs have left.

    Parameters
    ----------
    state, spending
        Of the run.
    identity
        What all runs of the same share, 64 hexadecimal digits.

    """

    def __init__(self, state: BatchState, spending: BatchSpending, identity: str) -> None:
        self._state, self._spending, self._identity = state, spending, identity
        self._left_under_way: set[str] | None = None

    async def records(self) -> list[BatchRecord]:
        """Return them, the newest first; where all is submitted anew, those of before are told of and left alone.

        Raises
        ------
        OSError
            The folder cannot be read.

        """
        found = await asyncio.to_thread(self._state.folder.of_run, self._identity)
        records = [each for each in found if not each.is_with_user]
        if self._state.again and self._left_under_way is None:
            self._left_under_way = {each.id for each in records}
            await self._leave_under_way(records)
        return [each for each in records if each.id not in (self._left_under_way or ())]

    async def _leave_under_way(self, records: Iterable[BatchRecord]) -> None:
        """Tell of the batches that go on beside those that are submitted anew; what was never submitted goes."""
        for record in records:
            if record.is_over:
                continue
            known: BatchRecord | None = record
            if not record.has_reached("submitted"):
                try:
                    known = await self.find_created(record)
                except LLMError as error:
                    self._state.say(f"A batch of {record.made_at} may go on beside this one. {error.message}")
                    continue
            if known is not None and not known.has_reached("ended"):
                self._state.say(
                    f"The batch {known.batch_id} of {known.made_at} is of this cell, too, and goes on beside the new "
                    f"one: %llm_batch cancel {known.batch_id} ends it."
                )

    async def find_created(self, record: BatchRecord) -> BatchRecord | None:
        """Return what is known of a batch whose submission broke off; None where none was created: it is forgotten.

        Raises
        ------
        LLMError
            Its server does not tell.

        """
        if record.step == "submitting" and (found := await self._state.submission().adopted(record)) is not None:
            return found
        self._state.folder.remove(record.id)
        self._spending.release(record)
        return None

    async def resolve(
        self, records: Iterable[BatchRecord], wanted: Mapping[str, int]
    ) -> tuple[list[BatchRecord], list[BatchRecord]]:
        """Give up submissions that broke off and cannot go on as they are.

        Parameters
        ----------
        records
            Of batches of earlier runs.
        wanted
            How many of the rows of each are wanted now, by its id; none where it is not there.

        Returns
        -------
        tuple
            Those of which a batch turned out to be created, and those that were given up, of those that are wanted.

        """
        created, given_up = [], []
        for record in records:
            if record.is_over or record.has_reached("submitted"):
                continue
            count = wanted.get(record.id, 0)
            if count == record.rows and self._can_go_on(record):
                continue
            found = await self.find_created(record)
            if count and found is not None:
                created.append(found)
            elif count:
                given_up.append(record)
        return created, given_up

    def _can_go_on(self, record: BatchRecord) -> bool:
        """Whether what is left of a submission can be done: its input file is there as long as it is to be sent."""
        if record.has_reached("uploaded"):
            return True
        try:
            return self._state.folder.input_path(record.id).lstat().st_size == record.size
        except OSError:
            return False
