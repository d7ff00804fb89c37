"""The batches that are remembered, whichever kernel submitted them: looked at, fetched, cancelled, forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llm_magic.batches.batch_file.fetched_file import fetch
from llm_magic.batches.embeddings.vectors import vectors_of
from llm_magic.batches.jsonl.input_file import parse_custom_id, read_ids
from llm_magic.batches.jsonl.results import RowResult, read_results
from llm_magic.batches.jsonl.texts import text_outcome
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.remote.retrieval import fetched, no_result
from llm_magic.config.references import read
from llm_magic.errors import ConfigurationError, Origin
from llm_magic.mapping.answers.answers import Answers
from llm_magic.mapping.rows import Outcome
from llm_magic.wire.batches import BatchRoutes

if TYPE_CHECKING:
    from llm_magic.batches.kept.record import BatchRecord
    from llm_magic.embeddings import Vectors
    from llm_magic.secrets import Secret
    from llm_magic.session import Session
    from llm_magic.wire.remote_batch import RemoteBatch


class RememberedBatches:
    """The batches of the user.

    Parameters
    ----------
    session
        Whose providers are asked.
    folder
        Where batches are remembered; None: that of the user.

    """

    def __init__(self, session: Session, folder: BatchFolder | None = None) -> None:
        self._session = session
        self._kept = folder or BatchFolder(say=session.notify)

    @property
    def folder(self) -> Path:
        """Where records are kept."""
        return self._kept.place

    def list(self) -> Sequence[BatchRecord]:
        """Return all records that are kept; raises OSError."""
        return self._kept.all()

    async def refresh(self, record: BatchRecord) -> BatchRecord:
        """Ask the server how far a batch is.

        Raises
        ------
        LLMError
            It cannot be asked, or has no such batch.

        """
        return self._told(record, await (await self._routes(record)).retrieve(record.batch_id))

    async def cancel(self, record: BatchRecord) -> BatchRecord:
        """Cancel a batch at its server; raises as `refresh`."""
        return self._told(record, await (await self._routes(record)).cancel(record.batch_id))

    async def fetch(self, record: BatchRecord | Path) -> Answers | Vectors:
        """Return what a batch that has ended gives, or a file of results: vectors, or texts of a type not known here.

        Raises
        ------
        LLMError
            Its files cannot be fetched, or that is none.

        """
        if isinstance(record, Path):
            return await asyncio.to_thread(fetch, record, self._kept)
        return await self._fetch(record)

    async def _fetch(self, record: BatchRecord) -> Answers | Vectors:
        if not record.has_reached("fetched"):
            record = await fetched(self._kept, record, await self._routes(record))
        provider = self._session.registry.get(record.provider)
        if record.api == "embeddings":
            return await vectors_of(self._kept, record, provider)
        return self._answers(record, provider.origin(record.model), provider.secrets())

    def remove(self, record: BatchRecord) -> None:
        """Forget a batch here: its record and its files; raises OSError."""
        self._kept.remove(record)

    def _told(self, record: BatchRecord, batch: RemoteBatch) -> BatchRecord:
        """Remember what a server says of a batch."""
        changes = {"step": "ended"} if batch.ended and not record.has_reached("ended") else {}
        return self._kept.update(
            record,
            **changes,
            status=batch.state,
            completed=batch.completed,
            failed=batch.failed,
            expires_at=batch.expires_at,
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
        )

    async def _routes(self, record: BatchRecord) -> BatchRoutes:
        """Return the routes of the endpoint that has a batch."""
        provider = self._session.registry.get(record.provider)
        if record.base_url:
            provider = provider.at(read(record.base_url, "--base-url"))
        origin = provider.origin(record.model)
        if origin.url != record.url:
            raise ConfigurationError(
                f"The batch {record.batch_id} is at {record.url}, and {record.provider} is {origin.url} now.",
                "Set the provider's URL as it was; the cell of the batch finds it there, too.",
            )
        await provider.prepare(lambda _: None)
        return BatchRoutes(provider.client(), origin, secrets=provider.secrets(), renew=provider.renewed)

    def _answers(self, record: BatchRecord, origin: Origin, secrets: tuple[Secret, ...]) -> Answers:
        names = read_ids(self._kept.ids_path(record))
        api = "chat" if record.api == "embeddings" else record.api
        found: dict[str, Outcome] = {}
        for path in (self._kept.errors_path(record), self._kept.output_path(record)):
            with suppress(FileNotFoundError):
                for result in read_results(path):
                    if isinstance(result, RowResult):
                        outcome = text_outcome(0, result, api, origin, asked=record.asked, known=secrets)
                        if outcome.error is None or result.custom_id not in found:
                            found[result.custom_id] = outcome
        missing = Outcome(0, error=no_result(record))
        outcomes = [replace(found.get(name, missing), number=number, known=True) for number, name in enumerate(names)]
        labels = [parsed[0] if (parsed := parse_custom_id(name)) is not None else name for name in names]
        return Answers(
            outcomes, labels, notes=("These are texts, as they came. Its cell, run again, binds the values.",)
        )
