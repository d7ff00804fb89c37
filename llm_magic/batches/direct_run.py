"""What batches of the same rows mean for a run that asks directly: fetched answers, and what is paid twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.recordings.recording import key_of

if TYPE_CHECKING:
    from llm_magic.batches.kept.record import BatchRecord
    from llm_magic.mapping.run import RowsRun
    from llm_magic.session import Session


def heed_batches(session: Session, run: RowsRun) -> None:
    """Let a run that asks directly use what was fetched of its rows, and say which batches have them.

    A folder that cannot be read is none: the rows are asked.
    """
    folder = BatchFolder(say=run.say)
    try:
        records = folder.of_run(key_of(run.identity)) if folder.place.is_dir() else []
    except OSError:
        return
    if any(each.file and each.step == "fetched" for each in records):
        from llm_magic.batches.batch_file.fetched_rows import fetched_rows

        run.fetched = fetched_rows(session, run, records, folder)
    for line in told_of(records):
        run.say(line)


def told_of(records: Iterable[BatchRecord]) -> Iterator[str]:
    """Yield in lines which batches have, or may have, rows that are asked directly."""
    for record in records:
        if record.is_over or record.file or not record.has_reached("submitting"):
            continue
        if record.has_reached("ended"):
            yield (
                f"The batch {record.batch_id} of {record.made_at} has answers to the same prompt that nobody has read. "
                "--batch reads them; what is asked here is paid once more."
            )
        elif record.has_reached("submitted"):
            yield (
                f"The batch {record.batch_id} of {record.made_at} is under way with rows of the same prompt: what it "
                "has is asked once more here, and paid twice. --batch waits for it instead; "
                f"%llm_batch cancel {record.batch_id} ends it."
            )
        else:
            yield (
                f"The submission of a batch of the same prompt broke off on {record.made_at}: it may be under way, and "
                "what is asked here be paid twice. --batch looks for it, and goes on."
            )
