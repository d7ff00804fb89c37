"""A batch of requests as its server tells of it: read from documents that servers fill in differently.

Source: https://platform.openai.com/docs/api-reference/batch/object
"""

from __future__ import annotations

import email.utils
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from llm_magic.secrets import hidden
from llm_magic.wire.documents import count, error_in
from llm_magic.wire.error_body import one_line

STATES = (
    "validating",
    "in_progress",
    "finalizing",
    "cancelling",
    "completed",
    "failed",
    "expired",
    "cancelled",
)
"""The words of OpenAI for where a batch stands; the last four end it."""

_ENDED = frozenset(STATES[-4:])

_OTHER_WORDS = {
    "canceled": "cancelled",
    "canceling": "cancelling",
    "cancellation_requested": "cancelling",
    "error": "failed",
    "succeeded": "completed",
    "success": "completed",
    "done": "completed",
    "ended": "completed",
    "timeout_exceeded": "expired",
}
"""What other servers write, among them Mistral, Fireworks and those that pass on the words of Google's jobs."""

_MOST_REFUSALS = 1000
_MOST_METADATA = 64
_MOST_SHOWN = 4000
"""Characters of a text that are looked at for secrets; a message is shown up to a quarter of them."""

_LEAST_MILLISECONDS = 1e11
"""A time that is no smaller is in milliseconds: as seconds it would lie beyond the year 5000."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a batch was refused, or one line of its input file.

    `line` is counted from 1, None where it is about no line; `parameter` is a field of the line or of the batch.
    """

    message: str
    line: int | None = None
    code: str = ""
    parameter: str = ""


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as its server tells of it; texts are empty, and numbers None, where it tells nothing that is one.

    Attributes
    ----------
    id
        As the server names it.
    status
        As the server writes it, in lower case; `state` is what it means.
    total, completed, failed
        Numbers of requests. Some servers tell 0 until all is done.
    input_file_id, output_file_id, error_file_id
        The files at the server.
    refusals
        Why it failed as a whole: what the server found wrong with the batch or with lines of its file; at most 1,000.
    endpoint, model
        What is asked, such as `/v1/chat/completions`.
    created_at, expires_at
        Unix seconds.
    metadata
        What was given when it was created.
    server_time
        Unix seconds of the server's clock when it told this.

    """

    id: str
    status: str = ""
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    input_file_id: str = ""
    output_file_id: str = ""
    error_file_id: str = ""
    refusals: tuple[Refusal, ...] = ()
    endpoint: str = ""
    model: str = ""
    created_at: float | None = None
    expires_at: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    server_time: float | None = None

    @property
    def state(self) -> str:
        """One of `STATES`; a status that is none of them, nor a known spelling of one, is "in_progress".

        >>> RemoteBatch("b", "JOB_STATE_CANCELLED".lower()).state, RemoteBatch("b", "queued").state
        ('cancelled', 'in_progress')
        """
        word = self.status.replace("-", "_").replace(" ", "_").removeprefix("job_state_").removeprefix("batch_")
        word = _OTHER_WORDS.get(word, word)
        return word if word in STATES else "in_progress"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen: it completed, failed, expired or was cancelled."""
        return self.state in _ENDED


def read_batch(
    document: object, *, asked: str = "", headers: Mapping[str, str] | None = None, secrets: Iterable[str] = ()
) -> RemoteBatch | None:
    """Return the batch that a document tells of; None where it is none.

    Parameters
    ----------
    document
        What the server sent.
    asked
        The id that it was asked for, which it keeps: proxies answer with that of the server behind them.
    headers
        Of the answer, names in lower case: `date` is the server's clock.
    secrets
        Masked in all but the ids.

    """
    if not isinstance(document, dict):
        return None
    told, status, kind = (_text(document.get(name)) for name in ("id", "status", "object"))
    if not told or (kind and "batch" not in kind.lower()) or (not status and error_in(document)):
        return None
    counts = document.get("request_counts")
    texts = {
        "refusals": _listed(document.get("errors") or document.get("error")),
        "metadata": _metadata(document.get("metadata")),
        "endpoint": _text(document.get("endpoint"))[:_MOST_SHOWN],
        "model": _text(document.get("model"))[:_MOST_SHOWN],
    }
    shown = hidden(texts, tuple(secrets))
    return RemoteBatch(
        id=asked or told,
        status=status.strip().lower(),
        total=count(counts, "total"),
        completed=count(counts, "completed"),
        failed=count(counts, "failed"),
        input_file_id=_text(document.get("input_file_id")),
        output_file_id=_text(document.get("output_file_id")),
        error_file_id=_text(document.get("error_file_id")),
        refusals=tuple(_refusal(*texts) for texts in shown["refusals"]),
        endpoint=shown["endpoint"],
        model=shown["model"],
        created_at=_moment(document.get("created_at")),
        expires_at=_moment(document.get("expires_at")),
        metadata=shown["metadata"],
        server_time=_date(headers or {}),
    )


def _text(value: object) -> str:
    """Return a text, or a whole number as one; nothing for what is neither."""
    return str(value) if isinstance(value, str) or type(value) is int else ""


def _listed(errors: object) -> list[tuple[str, int | None, str, str]]:
    """Return message, line, code and parameter of each error that a batch lists; texts not longer than is shown."""
    listed = errors.get("data", errors) if isinstance(errors, dict) else errors
    rows = listed if isinstance(listed, list) else [listed]
    found = []
    for row in rows[:_MOST_REFUSALS]:
        if not row:
            continue
        fields = row if isinstance(row, dict) else {"message": str(row)}
        line = fields.get("line")
        code = _text(fields.get("code")) or _text(fields.get("type"))
        parameter = _text(fields.get("param")) or _text(fields.get("parameter"))
        message = _text(fields.get("message")) or code or str(row)
        line = line if type(line) is int and line >= 0 else None
        found.append((message[:_MOST_SHOWN], line, code[:_MOST_SHOWN], parameter[:_MOST_SHOWN]))
    return found


def _refusal(message: str, line: int | None, code: str, parameter: str) -> Refusal:
    return Refusal(one_line(message, _MOST_SHOWN // 4), line, one_line(code, 100), one_line(parameter, 100))


def _moment(value: object) -> float | None:
    """Return Unix seconds out of a number of seconds or milliseconds, or of a moment of RFC 3339.

    >>> _moment(1796040639), _moment("1796040639000"), _moment("2026-11-30T12:10:39Z"), _moment(0)
    (1796040639.0, 1796040639.0, 1796040639.0, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    with suppress(ValueError, OverflowError):
        seconds = float(value[:64] if isinstance(value, str) else value)
        seconds = seconds / 1000 if seconds >= _LEAST_MILLISECONDS else seconds
        return seconds if math.isfinite(seconds) and 0 < seconds < _LEAST_MILLISECONDS else None
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(str(value)[:64])
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return moment.timestamp() if moment.timestamp() > 0 else None
    return None


def _date(headers: Mapping[str, str]) -> float | None:
    """Return the Unix seconds in an answer's `date`; None where there is none, or no calendar has it."""
    with suppress(ValueError, TypeError, OverflowError):
        return email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    return None


def _metadata(value: object) -> dict[str, str]:
    fields = value if isinstance(value, dict) else {}
    few = list(fields.items())[:_MOST_METADATA]
    return {name[:_MOST_SHOWN]: _text(item)[:_MOST_SHOWN] for name, item in few if _text(item)}
