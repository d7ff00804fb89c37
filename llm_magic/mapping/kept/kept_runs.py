"""The user's folder of runs that did not end whole: whose it is, which of its files are runs, and their removal.

A file is of one run of one process, which holds a lock on it while it goes on. Nothing in the folder is followed as a
link, and nothing is removed that is not a file of ours, by its owner, its name and how it begins.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from llm_magic.private_files import MODE, make_folder, require_plain
from llm_magic.recordings.locked_file import BINARY, is_called, lock_at_once, read_at
from llm_magic.recordings.recording import VERSION

MAX_AGE = 30 * 86_400
"""Seconds after which a run that nobody went on with is removed."""
MAX_BYTES = 10**9
"""Bytes that all runs may take; beyond, the oldest go."""
_MOST_FILES = 100_000
_TIMES = 10
_EMPTY_FOR = 3_600  # seconds after which a file without its first line is one of a process that was killed
_NAME = re.compile(r"([0-9a-f]{32})-\d{8}T\d{6}Z-\d{1,10}-[0-9a-f]{8}\.jsonl")
_BEGIN = b'{"answers_of": "rows", "run": "'
_FLAGS = BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


class RunFile(NamedTuple):
    """A file whose name is that of a run."""

    path: Path
    run: str
    """The beginning of the run's identity."""
    size: int
    changed: float


class Kept(NamedTuple):
    """What there is in the folder, or what was removed from it."""

    runs: int
    size: int
    """In bytes."""
    held: int = 0
    """Runs that go on, in this process or another."""


def folder(name: str = "rows") -> Path:
    """Return the folder: `llm_magic/rows` in `XDG_STATE_HOME`, or in what the system has for it.

    `name` is that of another folder beside `rows`.

    Raises
    ------
    OSError
        The user has no home.

    """
    try:
        if sys.platform == "win32":
            place = os.environ.get("LOCALAPPDATA", "")
            default = Path.home() / "AppData" / "Local"
        else:
            place = os.environ.get("XDG_STATE_HOME", "")
            default = Path.home() / ("Library/Application Support" if sys.platform == "darwin" else ".local/state")
    except RuntimeError:
        raise OSError("there is no home folder") from None
    return (Path(place) if os.path.isabs(place) else default) / "llm_magic" / name  # noqa: PTH117 - relative ones are void


def require_own(place: Path, *, make: bool = False) -> bool:
    """Return whether the folder is there; with `make` it is made where it is missing, for the user alone.

    Raises
    ------
    OSError
        It cannot be made, is none, or belongs to another user, who could put other answers there.

    """
    if make:
        make_folder(place)
    for each in (place.parent, place):
        try:
            found, named = each.stat(), each.lstat()
        except FileNotFoundError:
            if each.is_symlink():
                raise OSError("it is a link that leads nowhere") from None
            return False
        if not stat.S_ISDIR(found.st_mode):
            raise OSError(f"{'it' if each == place else 'what it is in'} is no folder")
        if not (_is_own(found) and _is_own(named)):
            raise OSError(f"it belongs to another user (uid {found.st_uid if not _is_own(found) else named.st_uid})")
    return True


def _is_own(found: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def files(place: Path, run: str = "") -> list[RunFile]:
    """Return the files that are named as runs, or as those of one identity, the oldest first.

    Raises
    ------
    OSError
        The folder cannot be read, or is not the user's.

    """
    found: list[RunFile] = []
    try:
        scanned = os.scandir(place) if require_own(place) else None
    except FileNotFoundError:  # removed meanwhile
        scanned = None
    if scanned is None:
        return found
    with scanned:
        for entry in islice(scanned, _MOST_FILES):
            named = _NAME.fullmatch(entry.name)
            if named is None or not named[1].startswith(run[:32]):
                continue
            with suppress(OSError):  # removed meanwhile
                told = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(told.st_mode) and (sys.platform == "win32" or _is_own(told)):
                    found.append(RunFile(Path(entry.path), named[1], told.st_size, told.st_mtime))
    return sorted(found, key=attrgetter("changed", "path"))


def _new_name(run: str) -> str:
    """Return the name of a new file of a run."""
    import secrets

    return f"{run[:32]}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"


def first_line(run: str) -> bytes:
    """Return the first line of a file of a run, by which it is known to be one."""
    return b'%s%s", "version": %d}\n' % (_BEGIN, run.encode("ascii"), VERSION)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Hold a plain file of the user open.

    Raises
    ------
    OSError
        It is not there, cannot be opened, or is none.

    """
    require_plain(path, path.lstat())
    file = os.open(path, flags | _FLAGS)
    try:
        found = os.fstat(file)
        require_plain(path, found)
        if not _is_own(found):
            raise OSError("it belongs to another user")
        yield file
    finally:
        with suppress(OSError):
            os.close(file)


def created(place: Path, run: str) -> tuple[Path, int]:
    """Make a new file of a run, and its folder, for the user alone; lock it, and return it open to be appended to.

    Raises
    ------
    OSError
        It cannot be made.

    """
    for left in reversed(range(_TIMES)):
        require_own(place, make=True)
        path = place / _new_name(run)
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | _FLAGS, MODE)
            break
        except FileNotFoundError:  # somebody has removed the folder meanwhile
            if not left:
                raise
    for _ in range(_TIMES):  # another process may look at it, whether it is one that was left
        if lock_at_once(file):
            break
        time.sleep(0.002)
    return path, file


def remove(path: Path, is_same: Callable[[os.stat_result], bool] = lambda _: True) -> bool:
    """Remove a file of a run that does not go on; return whether it is gone.

    `is_same` tells of the very file whether it is the one to be removed.
    """
    try:
        with opened(path, os.O_RDWR) as file:
            found = os.fstat(file)
            if not (is_same(found) and lock_at_once(file) and is_called(path, file)):
                return False
            begin = read_at(file, 0, len(_BEGIN))
            if begin != _BEGIN and (begin or time.time() - found.st_mtime < _EMPTY_FOR):
                return False
            if sys.platform == "win32":  # where nothing is removed that is open
                os.close(file)
            path.unlink()
    except OSError:
        return False
    return True


def sweep(place: Path, spare: str = "") -> None:
    """Remove runs that are too old, and the oldest beyond the size that all may take, but for those that go on.

    Of the identity `spare` only what is too old is removed.

    Raises
    ------
    OSError
        The folder cannot be read, or is not the user's.

    """
    found, now = files(place), time.time()
    size = sum(each.size for each in found)
    for each in found:
        is_beyond = size > MAX_BYTES and not (spare and each.run == spare[:32])
        if (now - each.changed > MAX_AGE or is_beyond) and remove(each.path):
            size -= each.size


def kept(place: Path) -> Kept:
    """Return what there is.

    Raises
    ------
    OSError
        The folder cannot be read, or is not the user's.

    """
    found = files(place)
    return Kept(len({each.run for each in found}), sum(each.size for each in found))


def clear(place: Path) -> Kept:
    """Remove all runs but those that go on, and return what was removed.

    Raises
    ------
    OSError
        The folder cannot be read, or is not the user's.

    """
    found = files(place)
    gone = [each for each in found if remove(each.path)]
    held = {each.run for each in found} - {each.run for each in gone}
    return Kept(len({each.run for each in gone}), sum(each.size for each in gone), len(held))
