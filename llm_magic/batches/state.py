"""The state of the batches of one run: what is remembered of each, what its server last said, and their cancelling."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llm_magic.batches.kept_batches import BatchFolder
from llm_magic.batches.polling import EVERY
from llm_magic.batches.record import merged
from llm_magic.batches.submission import Submission
from llm_magic.config.references import mark_secrets, read
from llm_magic.errors import LLMError
from llm_magic.recordings.locked_file import reason
from llm_magic.wire.batches import BatchRoutes
from llm_magic.wire.remote_batch import RemoteBatch

if TYPE_CHECKING:
    from llm_magic.batches.record import BatchRecord
    from llm_magic.session import Session
    from llm_magic.session.plan import BoundModel

_ORDER = (
    "submitting", "validating", "in_progress", "finalizing", "cancelling",
    "failed", "expired", "cancelled", "completed",
)  # fmt: skip
"""States of a batch, the least far first."""


class BatchState:
    """What is known of the batches of one run; any thread may ask.

    Parameters
    ----------
    session
        Whose settings and accounts these are.
    folder
        Remembers batches; None: that of the user.
    clocks
        Clocks and sleep of the polling, where they are not the system's.

    """

    def __init__(
        self, session: Session, folder: BatchFolder | None = None, clocks: Mapping[str, Any] | None = None
    ) -> None:
        self.session = session
        self.say: Callable[[str], object] = str
        """Takes a line for the user."""
        self.folder = folder or BatchFolder(say=self._tell)
        self.clocks: Mapping[str, Any] = clocks or {}
        self.every = EVERY
        """Seconds between two looks at a batch."""
        self.again = False
        """Whether all rows are submitted anew, whatever batches have them."""
        self.submitted = threading.Event()
        """Set once nothing is left to be submitted, or the run has ended."""
        self._records: dict[str, BatchRecord] = {}
        self._states: dict[str, RemoteBatch] = {}
        self._problem = ""
        self._bound: BoundModel | None = None
        self._lock = threading.Lock()

    def _tell(self, line: str) -> None:
        self.say(line)

    def routes(self, bound: BoundModel) -> BatchRoutes:
        """Return the routes of the endpoint of a model."""
        self._bound = bound
        options, provider = bound.planned.options, bound.provider
        return BatchRoutes(
            provider.client(),
            provider.origin(bound.model),
            headers={name: read(value, f"--header {name}") for name, value in mark_secrets(options.header).items()},
            timeout=options.timeout,
            max_retries=options.retries,
            secrets=provider.secrets(),
            renew=provider.renewed,
        )

    def submission(self, bound: BoundModel) -> Submission:
        """Return what submits batches of a model."""
        return Submission(self.routes(bound), self.folder, say=self.say)

    def remember(self, of: BatchRecord, **changes: Any) -> BatchRecord:
        """Change what is remembered of a batch that is submitted; where that cannot be, it is known here alone.

        It may have been removed meanwhile, or the disk be full: the batch is waited for all the same.
        """
        with self._lock:
            of = self._records.get(of.id, of)
        try:
            record = self.folder.update(of.id, **changes)
        except (OSError, ValueError) as error:
            record = merged(of, changes, of.changed)
            if not isinstance(error, FileNotFoundError):
                self.say(f"The batch {of.batch_id} goes on, but how far it is cannot be written: {reason(error)}.")
        self.seen(record)
        return record

    def seen(self, record: BatchRecord) -> None:
        """Take note of a batch of this run, or of a step of it."""
        with self._lock:
            self._records[record.id] = record

    def saw(self, name: str, state: RemoteBatch | LLMError) -> None:
        """Take note of a state of a batch at its server, or of a look that failed."""
        with self._lock:
            if isinstance(state, LLMError):
                self._problem = state.message
                return
            self._problem = ""
            before = self._states.get(name)
            self._states[name] = state
        if before is None or (before.status, before.completed, before.failed) != (
            state.status,
            state.completed,
            state.failed,
        ):
            self.remember(
                self._records[name],
                status=state.status,
                completed=state.completed,
                failed=state.failed,
                expires_at=state.expires_at,
            )

    def has_submitted(self) -> None:
        """Take note that nothing is left to be submitted."""
        self.submitted.set()

    def settle(self) -> None:
        """Take note that the run has ended."""
        self.submitted.set()

    @property
    def records(self) -> tuple[BatchRecord, ...]:
        """The batches of this run."""
        with self._lock:
            return tuple(self._records.values())

    @property
    def status(self) -> str:
        """The status of the batch that is least far; `completed` where there is none."""
        said = [each.status or "submitting" for each in self.records]
        return min(said, key=lambda each: _ORDER.index(each) if each in _ORDER else len(_ORDER), default="completed")

    @property
    def counts(self) -> tuple[int, int, int]:
        """Rows that are completed, that failed, and all of them."""
        records = self.records
        return (
            sum(each.completed or 0 for each in records),
            sum(each.failed or 0 for each in records),
            sum(each.rows for each in records),
        )

    @property
    def line(self) -> str:
        """How far the batches are."""
        return ", ".join(each.status or each.step for each in self.records) + (
            f"; {self._problem}" if self._problem else ""
        )

    def how_far(self) -> str:
        """Return in a line how far an interrupted run came; empty where nothing was submitted."""
        records = [each for each in self.records if each.step not in ("written", "refused", "read")]
        if not records:
            return ""
        names = ", ".join(each.batch_id or each.id for each in records)
        goes = "goes" if len(records) == 1 else "go"
        return (
            f"the waiting has stopped, and the batch {names} {goes} on at {records[0].provider}: run the cell again, "
            "here or in another kernel, any day, and it goes on; %llm_batch cancel ends it."
        )

    async def cancel(self) -> None:
        """Cancel the batches at their server: what is answered is paid, and is fetched."""
        bound = self._bound
        if bound is None:
            return
        for record in self.records:
            if record.step == "submitted" and record.batch_id:
                self.saw(record.id, await self.routes(bound).cancel(record.batch_id))
