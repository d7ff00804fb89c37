"""Recordings as a file of their own: the lines as they are, or Markdown to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from llm_magic import exports
from llm_magic.errors import RecordingError
from llm_magic.markdown.fences import fence_for
from llm_magic.markdown.sanitize import sanitize
from llm_magic.model_names import shown_model
from llm_magic.recordings.readable import answered_text, asked_text, model_of
from llm_magic.recordings.recording import Recording


def write(path: Path, recordings: Sequence[Recording]) -> Path:
    """Write recordings as the file's ending says; the file appears whole or not at all.

    It goes in the place of an earlier export that nobody has changed since, of a file of recordings all of which are
    among these, and of no other file.

    Raises
    ------
    RecordingError
        There is nothing to write, the ending is another one, or it cannot be written.

    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise RecordingError(
            f"Recordings are not written as {path.suffix or path.name!r}.", "End it in .jsonl, or in .md to read."
        )
    if not recordings:
        raise RecordingError("There are no recordings to export.")
    data = kind.written(recordings)
    try:
        exports.put(path, data, lambda text: kind.may_replace(text, data))
    except FileExistsError:
        raise RecordingError(
            f"{path} is there already, and holds something else.", "Name another file, or remove that one first."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordingError(f"{path} cannot be written: {reason}.", "Name a file in a folder of yours.") from None
    return path


def _as_lines(recordings: Sequence[Recording]) -> bytes:
    return b"".join(replace(recording, replaces=None).line() for recording in recordings)


def _are_among(text: str, data: bytes) -> bool:
    """Whether all lines of a file are among those that take its place."""
    return set(text.encode().splitlines()) <= set(data.splitlines())


def _as_markdown(recordings: Sequence[Recording]) -> bytes:
    lines = ["# Recordings", ""]
    for number, recording in enumerate(recordings, 1):
        asked, when = recording.asked, recording.at.replace("T", " ").replace("Z", " UTC")
        whom = shown_model(model_of(asked))
        lines += [_line(f"## {number}. {', '.join(filter(None, (whom, when)))}"), ""]
        if parameters := asked.get("parameters"):
            lines += [_line(f"`{json.dumps(parameters, ensure_ascii=False).replace('`', '')}`"), ""]
        lines += [f"**{_who(asked)}**", "", _said(asked, asked_text(asked)), ""]
        lines += ["**Answer**", "", answered_text(asked, recording.answer), ""]
    text = sanitize("\n".join(lines), bounded=False).encode("utf-8", "replace").decode()
    return exports.mark_text(text).encode()


def _line(text: str) -> str:
    return " ".join(text.split())


def _who(asked: Mapping[str, Any]) -> str:
    messages = asked.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    role = last.get("role") if isinstance(last, Mapping) else None
    return {"user": "Prompt", "tool": "Result of a tool"}.get(str(role), "Asked")


def _said(asked: Mapping[str, Any], text: str) -> str:
    """Return what was asked: results and calls of tools as code."""
    if _who(asked) == "Prompt":
        return text
    fence = fence_for(text)
    return f"{fence}\n{text}\n{fence}"


class _Kind(NamedTuple):
    """A kind of file: how recordings are written, and which file of this kind may be replaced by them."""

    written: Callable[[Sequence[Recording]], bytes]
    may_replace: Callable[[str, bytes], bool]


_KINDS: dict[str, _Kind] = {
    ".jsonl": _Kind(_as_lines, _are_among),
    ".md": _Kind(_as_markdown, lambda text, _: exports.is_marked_text(text)),
}
