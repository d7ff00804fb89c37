"""The state of the batches of one run: what is remembered of each, what its server last said, and their cancelling."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.kept.record import merged
from llm_magic.batches.remote.polling import INTERVAL, Polling
from llm_magic.batches.remote.submission import Submission
from llm_magic.config.references import mark_secrets, read
from llm_magic.display.batches import NOT_FOUND, PREPARING, BatchProgress, progress_of
from llm_magic.errors import LLMError
from llm_magic.recordings.locked_file import reason
from llm_magic.wire.batches import BatchRoutes
from llm_magic.wire.remote_batch import RemoteBatch

if TYPE_CHECKING:
    from llm_magic.batches.kept.record import BatchRecord
    from llm_magic.options import Options
    from llm_magic.providers.base import Provider
    from llm_magic.session import Session

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
        self.say: Callable[[str], object] = session.notify
        """Takes a line for the user."""
        self.folder = folder or BatchFolder(say=self._tell)
        self.clocks: Mapping[str, Any] = clocks or {}
        self.every = INTERVAL
        """Seconds between two looks at a batch."""
        self.again = False
        """Whether all rows are submitted anew, whatever batches have them."""
        self.submitted = threading.Event()
        """Set once nothing is left to be submitted, or the run has ended."""
        self.is_submitted = False
        """Whether nothing was left to be submitted before the run ended."""
        self._pollings: dict[str, Polling] = {}
        self._records: dict[str, BatchRecord] = {}
        self._problems: dict[str, str] = {}  # of what failed and is tried again, by our names of the batches
        self._lost: set[str] = set()  # our names of batches that their server does not have
        self._endpoint: tuple[Provider, str, Options] | None = None
        self._lock = threading.Lock()

    def _tell(self, line: str) -> None:
        self.say(line)

    def connect(self, provider: Provider, model: str, options: Options) -> None:
        """Take note of the endpoint that the batches are at."""
        self._endpoint = provider, model, options

    def routes(self) -> BatchRoutes:
        """Return the routes of the endpoint."""
        if self._endpoint is None:
            raise ValueError("no endpoint is known yet")
        provider, model, options = self._endpoint
        return BatchRoutes(
            provider.client(),
            provider.origin(model),
            headers={name: read(value, f"--header {name}") for name, value in mark_secrets(options.header).items()},
            timeout=options.timeout,
            max_retries=options.retries,
            secrets=provider.secrets(),
            renew=provider.renewed,
        )

    def submission(self) -> Submission:
        """Return what submits batches."""
        return Submission(self.routes(), self.folder, say=self.say)

    def update(self, of: BatchRecord, **changes: Any) -> BatchRecord:
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
        self.note(record)
        return record

    @contextmanager
    def polled(self, name: str, polling: Polling) -> Iterator[None]:
        """Know a polling meanwhile: it tells when it looks again, and what is done about its batch hurries it."""
        self._pollings[name] = polling
        try:
            with self.tried(name):
                yield
        finally:
            del self._pollings[name]

    @contextmanager
    def tried(self, name: str) -> Iterator[None]:
        """Know meanwhile what fails at a batch and is tried again."""
        try:
            yield
        finally:
            with self._lock:
                self._problems.pop(name, None)

    def note_lost(self, record: BatchRecord) -> None:
        """Take note that the server does not have a batch."""
        with self._lock:
            self._lost.add(record.id)

    def drop(self, record: BatchRecord) -> None:
        """Tell no more of a batch, in the place of which there is another one."""
        with self._lock:
            self._records.pop(record.id, None)

    def note(self, record: BatchRecord) -> None:
        """Take note of a batch of this run, or of a step of it."""
        with self._lock:
            self._records[record.id] = record

    def note_status(self, name: str, state: RemoteBatch | LLMError) -> None:
        """Take note of a state of a batch at its server, or of a look that failed."""
        with self._lock:
            if isinstance(state, LLMError):
                self._problems[name] = f"{state.message.rstrip('.')}; trying again"
                return
            self._problems.pop(name, None)
            known = self._records.get(name)
        if known is None:
            return
        told = {
            "status": state.state,
            "completed": state.completed,
            "failed": state.failed,
            "expires_at": state.expires_at,
        }
        changes = {field: value for field, value in told.items() if value not in (None, "", getattr(known, field))}
        if changes:
            self.update(known, **changes)

    def has_submitted(self) -> None:
        """Take note that nothing is left to be submitted."""
        self.is_submitted = True
        self.submitted.set()

    def has_ended(self) -> None:
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
        said = [_status(each) or "submitting" for each in self.records]
        return min(said, key=_ORDER.index, default="completed")

    @property
    def counts(self) -> tuple[int, int, int]:
        """Rows that are completed, that failed, and all of them."""
        records = self.records
        return (
            sum(min(each.completed or 0, each.rows) for each in records),
            sum(min(each.failed or 0, each.rows) for each in records),
            sum(each.rows for each in records),
        )

    def _progress_of(self, record: BatchRecord, now: float) -> BatchProgress:
        progress = progress_of(record, now)
        return replace(progress, status=NOT_FOUND) if record.id in self._lost else progress

    def progress(self) -> tuple[BatchProgress, ...]:
        """Return how far each batch is, in the order in which they were written; none is where nothing is asked."""
        now, records = float(self.clocks.get("wall_clock", time.time)()), self.records
        if not records and not self.submitted.is_set():
            return (BatchProgress(status=PREPARING),)
        return tuple(
            replace(
                self._progress_of(record, now),
                part=part,
                parts=len(records),
                problem=self._problems.get(record.id, ""),
                next_look=polling.next_look if (polling := self._pollings.get(record.id)) is not None else None,
                unchanged=max(0.0, now - record.changed) if record.changed else 0.0,
            )
            for part, record in enumerate(records, 1)
        )

    def where(self) -> str:
        """Return where the batches are that go on at their server; empty where none does."""
        records = [each for each in self.records if each.step in {"uploading", "uploaded", "submitting", "submitted"}]
        if not records:
            return ""
        names = ", ".join(each.batch_id or each.id for each in records)
        many = len(records) > 1
        return (
            f"{'the batches' if many else 'the batch'} {names} {'go' if many else 'goes'} on at {records[0].provider}"
        )

    def how_far(self) -> str:
        """Return in a line how far an interrupted run came; empty where nothing was submitted."""
        where = self.where()
        return where and (
            f"the waiting has stopped, and {where}: run the cell again, here or in another kernel, any day, and it "
            "goes on; %llm_batch cancel ends it."
        )

    async def cancel(self) -> None:
        """Cancel the batches at their server: what is answered is paid, and is fetched.

        Raises
        ------
        LLMError
            One cannot be cancelled; all were tried.

        """
        if self._endpoint is None:
            return
        routes, failed = self.routes(), None
        for record in self.records:
            if record.step != "submitted" or not record.batch_id:
                continue
            try:
                self.note_status(record.id, await routes.cancel(record.batch_id))
            except LLMError as error:
                failed = failed or error
            if (polling := self._pollings.get(record.id)) is not None:
                polling.hurry()
        if failed is not None:
            raise failed


def _status(record: BatchRecord) -> str:
    """Return the status of a batch as one of those that are known; empty where it has none."""
    return RemoteBatch(record.batch_id, record.status).state if record.status else ""
