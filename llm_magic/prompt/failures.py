"""Exceptions as a prompt shows them: the traceback of the user's own frames, and which exception was the last one."""

from __future__ import annotations

import sys
import traceback
from typing import Final

from llm_magic.errors import LLMError

_MACHINERY: Final = ("/IPython/core/", "/ipykernel/", "\\IPython\\core\\", "\\ipykernel\\")

_kept: list[BaseException] = []  # the last failure that was not ours, while a later one of ours hides it


def last_error() -> BaseException | None:
    """Return the last exception of the notebook; our own only where there is no other.

    A `%%llm` cell that asks about an error and fails on a typing mistake is run again: it means the same error.
    """
    note_last_error()
    if _kept:
        return _kept[0]
    last: BaseException | None = getattr(sys, "last_value", None)
    return last


def note_last_error() -> None:
    """Remember the notebook's last exception, so that one of ours that follows does not hide it."""
    last = getattr(sys, "last_value", None)
    if last is not None and not isinstance(last, LLMError):
        _kept[:] = [last]
    elif last is None:
        _kept.clear()


def traceback_text(error: BaseException) -> str:
    """Return an exception with its traceback, without the frames of IPython that ran the cell."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    seen: traceback.TracebackException | None = told
    while seen is not None:
        own = [frame for frame in seen.stack if not any(part in frame.filename for part in _MACHINERY)]
        if own:
            seen.stack[:] = own
        seen = seen.__cause__ or seen.__context__
    return "".join(told.format()).rstrip("\n")
