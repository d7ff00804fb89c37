"""How far an offline batch is, in words: its status as the server says it, its counts, its age, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

from llm_magic.display import markup
from llm_magic.display.footer import counted, duration, file_size
from llm_magic.display.markup import Bundle, one_line

REFUSED = "refused"
"""What is said of a batch that a server would not make."""
NOT_FOUND = "not found"
"""What is said of a batch that its server does not have."""
ENDED = ("completed", "failed", "expired", "cancelled", REFUSED)
"""Statuses in which a batch stays: those of OpenAI's and Azure's API reference (`Batch.status`), and `refused`."""
PREPARING = "preparing"
"""What is said of rows that are rendered, looked up and written: there is no batch yet."""
NOT_SUBMITTED = (PREPARING, "written", "uploading", "uploaded", "submitting")
"""Steps before a server knows the batch, in their order."""
AGAIN = "run this cell again to go on, here or in another kernel, any day"
"""What the user can do, whatever becomes of the kernel."""
UNCHANGED_SECONDS = 600.0
"""Seconds for which the server has said the same before that is said."""

_LIFE = (*ENDED, "cancelling", "finalizing", "in_progress", "validating", *reversed(NOT_SUBMITTED))
_UPLOADS = frozenset({"written", "uploading", "uploaded"})
_WITHOUT_COUNTS = frozenset({PREPARING, "submitting", "validating", "finalizing", REFUSED, NOT_FOUND})
_LONGEST_STATUS = 40
_LONGEST_PROBLEM = 300
_MOST_PROBLEMS = 3
_NAME = 40
_SOON = 60.0  # seconds; a look that is nearer is not counted down: the line would never stand still


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far one batch at a server is; a run of very many rows has several.

    Attributes
    ----------
    model
        As asked for.
    rows
        Rows in it.
    status
        As the server says it (`in_progress`), or before it was submitted one of `NOT_SUBMITTED`.
    completed, failed, total
        The server's counts; None where it tells none. `completed` are those that succeeded.
    part, parts
        Which of the batches of its run it is, from 1.
    seconds
        Since it was submitted, 0 before.
    next_look
        Seconds until the server is asked again; None where it is not.
    problem
        Why nothing is known now: `cannot be reached: connection refused, trying again`; else empty.
    unchanged
        Seconds since the server said something else than now.
    size
        Bytes of the input file, 0 where they do not matter.
    name
        The beginning of its id here, which `%llm_batch show` takes.

    """

    model: str = ""
    rows: int = 0
    status: str = ""
    completed: int | None = None
    failed: int | None = None
    total: int | None = None
    part: int = 1
    parts: int = 1
    seconds: float = 0.0
    next_look: float | None = None
    problem: str = ""
    unchanged: float = 0.0
    size: int = 0
    name: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether the server works on it no more."""
        return self.status in ENDED

    @property
    def goes_on(self) -> bool:
        """Whether it goes on at the server, with or without this kernel."""
        return not self.has_ended and self.status not in (*NOT_SUBMITTED, NOT_FOUND)

    @property
    def done(self) -> int:
        """Rows that have ended at the server, as far as it tells."""
        if self.status in NOT_SUBMITTED or self.status == REFUSED:
            return 0
        return min(_count(self.completed) + _count(self.failed), self.of)

    @property
    def of(self) -> int:
        """Rows in all: as the server counts them, else as they were written."""
        return _count(self.total) or _count(self.rows)


class RecordedBatch(Protocol):
    """What a record of a batch tells of how far it is.

    `created` is in seconds since 1970; `step` is one of `NOT_SUBMITTED`, `REFUSED`, or any other word: it is at its
    server, and `status` is what that said last, in its words.
    """

    @property
    def id(self) -> str:
        """Its id here, such as `20261130T140212Z-3fa1b2c4`."""

    @property
    def asked(self) -> str:
        """The model as it was asked for."""

    @property
    def rows(self) -> int:
        """Rows in it."""

    @property
    def size(self) -> int:
        """Bytes of its input file."""

    @property
    def created(self) -> float:
        """When it was written."""

    @property
    def step(self) -> str:
        """How far its submission is."""

    @property
    def status(self) -> str:
        """What its server said last; empty where that said nothing."""

    @property
    def completed(self) -> int | None:
        """Rows that succeeded, as its server said last."""

    @property
    def failed(self) -> int | None:
        """Rows that failed, as its server said last."""


def progress_of(record: RecordedBatch, now: float) -> BatchProgress:
    """Return how far a batch is, as its record says; `now` is in seconds since 1970.

    What the record does not tell (`problem`, `next_look`, `unchanged`, `part`) is for the caller to replace.
    """
    status = status_of(record)
    return BatchProgress(
        model=record.asked,
        rows=record.rows,
        status=status,
        completed=record.completed,
        failed=record.failed,
        seconds=0.0 if status in {*NOT_SUBMITTED, REFUSED} else max(0.0, now - record.created),
        size=record.size,
        name=short_name(record.id),
    )


def status_of(record: RecordedBatch) -> str:
    """Return what the server of a batch said last, or how far its submission is."""
    if record.step in NOT_SUBMITTED or record.step == REFUSED:
        return record.step
    return record.status or record.step


def short_name(name: str) -> str:
    """Return what follows the time in the id of a batch.

    >>> short_name("20261130T140212Z-3fa1b2c4")
    '3fa1b2c4'

    """
    return name.rpartition("-")[2]


def status_word(status: str) -> str:
    r"""Return a status as it is read, on a line.

    >>> status_word("in_progress"), status_word(""), status_word("\x1b[2Jpaused")
    ('in progress', 'of no status', '␛[2Jpaused')

    """
    return one_line(status.replace("_", " "), _LONGEST_STATUS) or "of no status"


def state(batch: BatchProgress) -> str:
    """Return what a batch does, with its counts.

    >>> state(BatchProgress(rows=2_000, status="uploading", size=3_100_000))
    'uploading 2,000 rows (3.1 MB)'
    >>> state(BatchProgress(rows=2_000, status="in_progress", completed=117, failed=3, total=2_000))
    'in progress 120/2,000, 3 failed'
    >>> state(BatchProgress(rows=2_000, status="expired", completed=1_900))
    'expired: 1,900 of 2,000 answered'

    """
    word, figures = _state(batch)
    return f"{word}{':' if batch.has_ended and figures else ''} {figures}".rstrip()


def line(batches: Sequence[BatchProgress]) -> str:
    """Return what the batches of a run do, in a line.

    >>> line([BatchProgress(status="validating")])
    'validating'
    >>> line([BatchProgress(status="in_progress", completed=120, total=10_000), BatchProgress(status="completed")])
    '2 batches: 1 completed, 1 in progress 120/10,000'

    """
    if len(batches) == 1:
        (batch,) = batches
        return f"{f'batch {batch.part:,} of {batch.parts:,}: ' if batch.parts > 1 else ''}{state(batch)}"
    said = []
    for _, alike in groupby(sorted(batches, key=_age), key=_age):
        group = list(alike)
        together = _together(group)
        word, figures = _state(together)
        if figures and together.has_ended:
            figures = f"({figures})"
        said.append(f"{len(group):,} {word} {figures}".rstrip())
    return f"{counted(len(batches), 'batch', 'batches')}: {', '.join(said)}"


def titled(batches: Sequence[BatchProgress]) -> str:
    """Return the same, a single batch with its name.

    >>> titled([BatchProgress(status="completed", name="3fa1b2c4")])
    'batch 3fa1b2c4 completed'
    >>> titled([BatchProgress(status="preparing")])
    'preparing the batch'

    """
    if [batch.status for batch in batches] == [PREPARING]:
        return f"{PREPARING} the batch"
    if len(batches) != 1 or batches[0].parts > 1:
        return line(batches)
    return " ".join(filter(None, ["batch", one_line(batches[0].name, _NAME), line(batches)]))


def since(batches: Iterable[BatchProgress]) -> str:
    """Return how long ago the first of the batches was submitted; empty where none was.

    >>> since([BatchProgress(seconds=4_800), BatchProgress()])
    'submitted 1 h 20 min ago'

    """
    ago = duration(max((batch.seconds for batch in batches if _is_time(batch.seconds)), default=0.0))
    return f"submitted {ago} ago" if ago else ""


def times(batches: Sequence[BatchProgress]) -> str:
    """Return how long the batches have been there, for how long nothing has changed, and when they are looked at again.

    >>> times([BatchProgress(status="in_progress", seconds=9_000, unchanged=7_200, next_look=240)])
    'submitted 2 h 30 min ago · unchanged for 2 h · next look in 4 min'

    """
    working = [batch for batch in batches if batch.goes_on]
    unchanged = min((batch.unchanged for batch in working if _is_time(batch.unchanged)), default=0.0)
    looks = [batch.next_look for batch in working if batch.next_look is not None and _is_time(batch.next_look)]
    look = min(looks, default=0.0)
    trying = any(batch.problem for batch in working)
    if not trying:
        look = look // _SOON * _SOON
    said = [
        since(batches),
        f"unchanged for {duration(unchanged)}" if unchanged >= UNCHANGED_SECONDS else "",
        f"next look in {duration(look)}" if duration(look) else "",
    ]
    return " · ".join(filter(None, said))


def problems(batches: Iterable[BatchProgress]) -> list[str]:
    """Return why nothing is known of some batches now, each reason once and on a line."""
    said = [one_line(batch.problem, _LONGEST_PROBLEM) for batch in batches if batch.problem]
    different = list(dict.fromkeys(said))
    more = len(different) - _MOST_PROBLEMS
    return [*different[:_MOST_PROBLEMS], f"… and {counted(more, 'more problem')}"] if more > 0 else different


def unfinished(batches: Sequence[BatchProgress]) -> str:
    """Return what stands below the bar until all rows have ended, also in a notebook that was saved in between.

    >>> unfinished([BatchProgress(status="uploading")])
    'unfinished: the rows are being submitted; run this cell again if that stops'

    """
    if any(batch.status in NOT_SUBMITTED for batch in batches):
        return "unfinished: the rows are being submitted; run this cell again if that stops"
    if not any(batch.goes_on for batch in batches):
        return f"unfinished: the answers are being fetched; {AGAIN}"
    one = len(batches) == 1
    return f"unfinished: {'the batch goes' if one else 'the batches go'} on at the server; {AGAIN}"


def left_behind(batches: Sequence[BatchProgress]) -> str:
    """Return what is to be known where a run stops: what goes on at the server. Empty where nothing does.

    >>> left_behind([BatchProgress(status="in_progress")])
    'The batch goes on at the server.'

    """
    going = sum(batch.goes_on for batch in batches)
    if not going:
        return ""
    what = "The batch" if len(batches) == 1 else counted(going, "batch", "batches")
    return f"{what} {'goes' if going == 1 else 'go'} on at the server."


def at_rest(batch: BatchProgress) -> BatchProgress:
    """Return a batch without what goes on by itself: two that are equal are news of time alone."""
    return replace(batch, seconds=0.0, unchanged=0.0, next_look=None)


def whole(batch: BatchProgress) -> BatchProgress:
    """Return a batch without counts where it is completed: what became of its rows is told by the rows."""
    return replace(batch, completed=None, failed=None) if batch.status == "completed" else batch


def described(name: str, model: str, batches: Sequence[BatchProgress]) -> str:
    """Return what stands for the batches of a run in a line: its `repr`.

    >>> described("3fa1b2c4", "openai:gpt-x", [BatchProgress(status="in_progress", completed=120, total=2_000)])
    '<Batch 3fa1b2c4 of openai:gpt-x: in progress, 120 of 2,000>'

    """
    if len(batches) == 1:
        said = ", ".join(filter(None, _state(batches[0], " of ")))
    else:
        said = line(batches) if batches else "nothing is asked"
    named = " ".join(["Batch", *filter(None, [one_line(name, _NAME)])])
    of = f" of {one_line(model, _NAME * 2)}" if model else ""
    return f"<{named}{of}: {said}>"


def bundle(name: str, model: str, batches: Sequence[BatchProgress]) -> Bundle:
    """Return the same as an output by media type: with a bar, how long it has been, and what to do next."""
    said = described(name, model, batches)
    lines = [markup.quiet(said[1:-1])]
    total = sum(batch.of for batch in batches)
    if total:
        done = sum(batch.done for batch in batches)
        bar = markup.progress_bar(done, total, f"Rows of {one_line(model, _NAME * 2)}", line(batches))
        lines.append({"text/plain": "", "text/html": bar})
    lines += [markup.quiet(text) for text in [times(batches)] if text]
    lines += map(markup.mark, problems(batches))
    if any(batch.goes_on for batch in batches):
        lines.append(markup.quiet("It goes on at the server, with or without this kernel; result() waits for it."))
    return {"text/plain": said, "text/html": "".join(each["text/html"] for each in lines)}


def _state(batch: BatchProgress, between: str = "/") -> tuple[str, str]:
    """Return the status as a word, and its figures, which may be empty."""
    word, status, done, total = status_word(batch.status), batch.status, batch.done, batch.of
    failed = min(_count(batch.failed), total)
    if status in _UPLOADS:
        return word, counted(_count(batch.rows), "row") + (f" ({file_size(batch.size)})" if batch.size > 0 else "")
    if status in _WITHOUT_COUNTS or (batch.completed is None and batch.failed is None) or not total:
        return word, ""
    if status == "completed":
        return word, f"{failed:,} of {total:,} failed" if failed else ""
    if status in ENDED:
        return word, f"{min(_count(batch.completed), total):,} of {total:,} answered"
    return word, f"{done:,}{between}{total:,}" + (f", {failed:,} failed" if failed else "")


def _together(batches: Sequence[BatchProgress]) -> BatchProgress:
    """Return batches of one status as if they were one."""
    tells = [batch for batch in batches if batch.completed is not None or batch.failed is not None]
    return replace(
        batches[0],
        rows=sum(_count(batch.rows) for batch in batches),
        completed=sum(_count(batch.completed) for batch in tells) if tells else None,
        failed=sum(_count(batch.failed) for batch in tells) if tells else None,
        total=sum(batch.of for batch in batches),
        size=sum(batch.size for batch in batches),
    )


def _age(batch: BatchProgress) -> tuple[int, str]:
    """Return how old a status is in the life of a batch, the oldest first; one that is unknown is last."""
    return _LIFE.index(batch.status) if batch.status in _LIFE else len(_LIFE), batch.status


def _count(value: int | None) -> int:
    """Return a count of a server's, 0 where it is none."""
    return value if isinstance(value, int) and value > 0 else 0


def _is_time(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds >= 0
