"""A file that several programs append to: opened with care, and locked by itself while one of them writes."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llm_magic.private_files import NotPlainError, require_plain

_PATIENCE = 10.0  # seconds for another program's lock: it is held for a write, or while the file is rewritten
_PAUSE = 0.002
BINARY = getattr(os, "O_BINARY", 0)
_CAREFUL = BINARY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Hold a plain file open to be read.

    Raises
    ------
    OSError
        It is not there, or cannot be read; `NotPlainError`: it is none.

    """
    require_plain(path, os.stat(path))  # noqa: PTH116 - opening a device may already do something
    file = os.open(path, os.O_RDONLY | _CAREFUL)
    try:
        require_plain(path, os.fstat(file))
        yield file
    finally:
        os.close(file)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold a plain file open to be read and appended to, by nobody else; it is made where it is missing.

    Raises
    ------
    OSError
        It cannot be written, or stays locked by another program; `NotPlainError`: it is none, or a link.

    """
    until = time.monotonic() + _PATIENCE
    while True:
        file = _open_to_append(path)
        try:
            _lock(file, until)
            if not is_called(path, file):  # replaced while this waited: what is written to it would be lost
                if time.monotonic() > until:
                    raise OSError(errno.EAGAIN, "another program replaces it again and again")
                continue
            yield file
        finally:
            unlock(file)
            os.close(file)
        return


def _open_to_append(path: Path) -> int:
    with suppress(FileNotFoundError):
        require_plain(path, path.lstat())
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | _CAREFUL | getattr(os, "O_NOFOLLOW", 0)
    file = os.open(path, flags, 0o666)  # the umask decides, as it does of the notebook beside it
    try:
        require_plain(path, os.fstat(file))
    except BaseException:
        os.close(file)
        raise
    return file


def is_called(path: Path, file: int) -> bool:
    """Whether a name still is that of the file that is open."""
    try:
        found, own = path.lstat(), os.fstat(file)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def read_at(file: int, offset: int, length: int) -> bytes:
    """Return bytes of a file, fewer where it ends before."""
    os.lseek(file, offset, os.SEEK_SET)
    pieces = []
    while length > 0 and (piece := os.read(file, length)):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def append_line(file: int, line: bytes) -> None:
    """Append a line whole or not at all, after the end of one that somebody left torn.

    Raises
    ------
    OSError
        It cannot be written.

    """
    size = os.fstat(file).st_size
    if size and read_at(file, size - 1, 1) != b"\n":
        line = b"\n" + line
    written = 0
    try:
        while written < len(line):  # once, unless the disk is full
            written += os.write(file, line[written:])
    except BaseException:
        with suppress(OSError):
            os.ftruncate(file, size)
        raise


def reason(error: OSError | ValueError) -> str:
    """Return in words why a file could not be opened, read or written."""
    if isinstance(error, NotPlainError) or (isinstance(error, OSError) and error.errno == errno.ELOOP):
        return "it is no plain file"
    return getattr(error, "strerror", None) or str(error)


if sys.platform == "win32":
    import msvcrt

    _FAR = 2**40  # what is locked nobody else can read: a byte that there never is

    def _try_to_lock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _unlock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_to_lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)


def lock_at_once(file: int) -> bool:
    """Lock a file that is open, until it is closed, without waiting; return whether nobody else holds it.

    Where a file system has no locks nobody does.
    """
    try:
        _try_to_lock(file)
    except OSError as error:
        return error.errno in _NO_LOCKS
    return True


def unlock(file: int) -> None:
    """Free a file that was locked, before it is closed: another process that was forked may hold it open, too."""
    with suppress(OSError):
        _unlock(file)


_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_BUSY = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})


def _lock(file: int, until: float) -> None:
    """Wait for the lock; where a file system has none nothing is locked: a line is one write there, too."""
    while True:
        try:
            _try_to_lock(file)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return
            if error.errno not in _BUSY:
                raise
        else:
            return
        if time.monotonic() > until:
            raise OSError(errno.EAGAIN, "another program has locked it")
        time.sleep(_PAUSE)
