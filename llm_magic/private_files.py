"""Files for the user alone: made whole or not at all, over nothing that is there, and read only where they are plain.

Everything here works on plain files: a folder, pipe, socket, device or link of the name is an error, and none makes
a caller wait.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

MODE = 0o600
FOLDER_MODE = 0o700


class NotPlainError(OSError):
    """The name belongs to a folder, a pipe, a socket or a device; for what is to be written, also to a link."""


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, for the user alone; the others stay as they are.

    Raises
    ------
    OSError
        It cannot be made, or something else has its name.

    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):  # of another kernel, meanwhile
        folder.mkdir(mode=FOLDER_MODE)
        folder.chmod(FOLDER_MODE)  # whatever the umask


def read(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """Return the first `limit` bytes of a plain file, and what the system says of the very file that was read.

    Raises
    ------
    NotPlainError
        It is none.
    OSError
        It is not there, or cannot be read.

    """
    # a pipe that nobody writes to would block, a terminal become that of this process
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    require_plain(path, os.stat(path))  # noqa: PTH116 - opening a device may already do something
    with os.fdopen(os.open(path, flags), "rb") as opened:
        found = os.fstat(opened.fileno())
        require_plain(path, found)
        return opened.read(limit), found


def require_plain(path: Path, found: os.stat_result) -> None:
    """Raise NotPlainError for what is no plain file."""
    if not stat.S_ISREG(found.st_mode):
        raise NotPlainError(f"{path} is no plain file")


def create(path: Path, data: bytes) -> None:
    """Make a new file that holds `data`: at no time is there a part of it under its name.

    Raises
    ------
    FileExistsError
        There is something of this name, which stays as it is.
    OSError
        It cannot be written.

    """
    temporary = _written(path, data)
    try:
        os.link(temporary, path)  # unlike a rename, this fails where there is something
    except FileExistsError:
        raise
    except OSError:  # file systems without hard links
        with suppress(OSError):
            temporary.unlink()
        _write(path, data, MODE)
    finally:
        with suppress(OSError):
            temporary.unlink()


def replace(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Put `data` in the place of a plain file, whose mode stays, or make it: the old one is there, or the new one.

    `mode` is given to an old one, too.

    Raises
    ------
    NotPlainError
        Something else has the name.
    OSError
        It cannot be written.

    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        kept = MODE
    else:
        require_plain(path, found)
        kept = stat.S_IMODE(found.st_mode)
    temporary = _written(path, data, kept if mode is None else mode)
    try:
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk, where the system can tell.

    Raises
    ------
    OSError
        They could not be written there.

    """
    if os.name == "nt":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EROFS}:
            raise
    finally:
        os.close(opened)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a new file to write to, and to read from; where nothing is raised meanwhile, it takes the place of `path`.

    That is then a file for the user alone, whole and on the disk; else what was there stays, and nothing is left.

    Raises
    ------
    NotPlainError
        What has the name is no plain file.
    OSError
        It cannot be written.

    """
    with suppress(FileNotFoundError):
        require_plain(path, path.lstat())
    temporary = _beside(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, MODE)
    try:
        with os.fdopen(descriptor, "w+b") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _written(path: Path, data: bytes, mode: int = MODE) -> Path:
    """Return a new file beside `path` that holds `data`."""
    temporary = _beside(path)
    _write(temporary, data, mode)
    return temporary


def _beside(path: Path) -> Path:
    """Return a name that nothing has."""
    import secrets

    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")


def _write(path: Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(path, flags, MODE), "wb") as opened:
            if hasattr(os, "fchmod"):  # whatever the umask; Windows has neither
                os.fchmod(opened.fileno(), mode)
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
    except FileExistsError:
        raise
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
