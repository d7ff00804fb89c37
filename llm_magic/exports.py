"""Exported files: each goes in the place of an earlier export that nobody has changed since, and of no other file."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from llm_magic import private_files

_LARGEST = 256 * 2**20  # bytes of a file that is looked into
_MARK = "<!-- exported by llm_magic: "


def put(path: Path, data: bytes, is_export: Callable[[str], bool]) -> None:
    """Write a file for the user alone, whole or not at all.

    `is_export` is asked of the text of a file that is there, whether it may be replaced; it may raise what reading a
    text that is none of ours raises.

    Raises
    ------
    FileExistsError
        There is something else of this name, which stays as it is.
    OSError
        It cannot be written.

    """
    if not os.path.lexists(path):
        private_files.create(path, data)
    elif _is_export(path, is_export):
        private_files.replace(path, data)
    else:
        raise FileExistsError


def _is_export(path: Path, is_export: Callable[[str], bool]) -> bool:
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    try:
        return is_export(private_files.read(path, _LARGEST)[0].decode())
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):  # whatever somebody else wrote
        return False


def hash_of(content: str) -> str:
    """Return what an export carries of what it holds, so that it is known to be as it was written."""
    return hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()


def mark_text(text: str) -> str:
    """Return the text of an export with its mark."""
    text += "\n"
    return f"{text}{_MARK}{hash_of(text)} -->\n"


def is_marked_text(text: str) -> bool:
    """Return whether a text is an export as it was written."""
    content, _, mark = text.rpartition(_MARK)
    return mark == f"{hash_of(content)} -->\n"
