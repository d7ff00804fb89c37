"""Batches that are under way while rows of the same prompt are asked directly: what the user is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.recordings.recording import key_of

if TYPE_CHECKING:
    from llm_magic.mapping.run import RowsRun


def under_way(run: RowsRun) -> list[str]:
    """Return in lines which batches have, or may have, rows of a run that asks for them directly."""
    folder = BatchFolder()
    try:
        records = folder.of_run(key_of(run.identity)) if folder.place.is_dir() else []
    except OSError:  # of those that ask for no batch, nobody needs the folder
        return []
    lines = []
    for record in records:
        if record.is_over or record.file or not record.has_reached("submitting"):
            continue
        if record.has_reached("ended"):
            lines.append(
                f"The batch {record.batch_id} of {record.made_at} has answers to the same prompt that nobody has read. "
                "--batch reads them; what is asked here is paid once more."
            )
        elif record.has_reached("submitted"):
            lines.append(
                f"The batch {record.batch_id} of {record.made_at} is under way with rows of the same prompt: what it "
                "has is asked once more here, and paid twice. --batch waits for it instead; "
                f"%llm_batch cancel {record.batch_id} ends it."
            )
        else:
            lines.append(
                f"The submission of a batch of the same prompt broke off on {record.made_at}: it may be under way, and "
                "what is asked here be paid twice. --batch looks for it, and goes on."
            )
    return lines
