"""A file of recordings: JSON Lines that are only appended to, shared by several kernels, with an index in memory."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from llm_magic.errors import RecordingError
from llm_magic.private_files import NotPlainError, require_plain
from llm_magic.recordings.answers import check
from llm_magic.recordings.recording import VERSION, Recording

MAX_LINE = 64 * 2**20
"""Bytes of the longest line that is read or written."""
_CHUNK = 4 * 2**20
_PATIENCE = 10.0  # seconds for another kernel's lock: it is held for a write, or while the file is rewritten
_ANOTHER = "Name another: LLMMagics.record_file = …"
_BEGIN = b'{"answer":'
_MARKS = re.compile(rb"(?:<{7}|\|{7}|={7}|>{7})(?: |\r?$)")
_END = re.compile(rb'"key": ?"([0-9a-f]{64})", ?(?:"replaces": ?(\d{1,9}), ?)?"version": ?(\d{1,9})\}\s*')
_CELL = re.compile(rb'"cell": ?("(?:[^"\\]|\\.)*"), ?')
_LONGEST_END = 160
_LONGEST_CELL = 400
_FEW = 8
_FOREIGN_LINES = 1_000
"""Lines after which a file of which none is ours is nobody's file of recordings."""
_SEEN = 64  # bytes before the end by which a file is known again


class Place(NamedTuple):
    """Where a recording stands in its file."""

    offset: int
    length: int
    line: int
    """The number of its line, from 1."""
    cell: str | None
    """The cell that asked."""
    replaces: int | None


class RecordingsFile:
    """A file of recordings, which may not be there yet.

    Parameters
    ----------
    path
        The file.
    own
        Whether it is written, or was named: then it has to be a file of recordings that this program can read. One
        that was merely found is passed over where it is none, and `take_remarks` says so.

    """

    def __init__(self, path: Path, *, own: bool) -> None:
        self.path = path
        self.own = own
        self._lock = threading.RLock()
        self._stamp: tuple[int, int, int, int] | None = None  # device, inode, size, time of change
        self._remarks: list[str] = []
        self._forget()

    def _forget(self) -> None:
        self._index: dict[bytes, list[Place]] = {}
        self._folds: dict[tuple[bytes, int], tuple[int, dict[int, Place]]] = {}
        self._cells: dict[bytes, str | None] = {}
        self._end = 0  # bytes that were read
        self._seen = b""  # the last of them
        self._line = 0  # lines that were read
        self._count = 0
        self._bad: list[int] = []
        self._conflicts: list[int] = []
        self._newest = 0
        self._is_ours = False
        self._passed_over = False

    def __len__(self) -> int:
        """Count the recordings in the file, replaced ones included."""
        with self._lock:
            self._refresh()
            return self._count

    def take_remarks(self) -> list[str]:
        """Return what the user should know of the file, and was not yet told."""
        with self._lock:
            taken, self._remarks = self._remarks, []
            return taken

    def find(self, key: str, before: int = 0) -> Mapping[int, Place]:
        """Return the current recordings of a key by their place among equal ones, in that order.

        Without `replaces` a line takes the place after the last, of which `before` are in other files.

        Raises
        ------
        RecordingError
            The file cannot be read, is none of recordings, or is of a newer format.

        """
        with self._lock:
            self._refresh()
            return self._folded(bytes.fromhex(key), before)

    def _folded(self, digest: bytes, before: int) -> dict[int, Place]:
        lines = self._index.get(digest, [])
        done, places = self._folds.get((digest, before), (0, {}))
        if done == len(lines):
            return places
        top = max(places, default=before - 1)
        for place in lines[done:]:
            at = top + 1 if place.replaces is None else place.replaces
            top = max(top, at)
            places[at] = place
        places = dict(sorted(places.items()))
        if len(lines) > _FEW:  # these are folded at once
            self._folds[digest, before] = (len(lines), places)
        return places

    def keys(self) -> list[str]:
        """Return the keys of all recordings, in the order in which each first came."""
        with self._lock:
            self._refresh()
            return [digest.hex() for digest in self._index]

    def read(self, place: Place) -> Recording | None:
        """Return the recording of a place; None where it is not there any more, or is none: then that is remarked.

        Raises
        ------
        RecordingError
            The file cannot be read, or the answer of the recording is none: the message names file and line.

        """
        with self._lock:
            line = self._line_at(place)
            if line is None:
                return None
            try:
                recording = Recording.read(line)
            except RecordingError as error:
                self._remarks.append(f"{self.path}, line {place.line}, is passed over: {error.message}")
                self._drop(place)
                return None
        try:
            check(recording.asked, recording.answer)
        except RecordingError as error:
            raise RecordingError(
                f"{self.path}, line {place.line}: {error.message}", "Remove that line, or record the answer anew."
            ) from None
        return recording

    def lines(self) -> Iterator[tuple[Place, bytes]]:
        """Yield all recordings, replaced ones included, as they stand in the file."""
        with self._lock:
            self._refresh()
            places = sorted(place for places in self._index.values() for place in places)
        for place in places:
            line = self._line_at(place)
            if line is not None:
                yield place, line

    def _line_at(self, place: Place) -> bytes | None:
        try:
            with _opened(self.path) as opened:
                found = os.fstat(opened)
                if self._stamp is None or (found.st_dev, found.st_ino) != self._stamp[:2]:
                    return None
                os.lseek(opened, place.offset, os.SEEK_SET)
                line = _read(opened, place.length)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from None
        return line if len(line) == place.length else None

    def _drop(self, place: Place) -> None:
        """Take a line out of the index."""
        for digest, places in self._index.items():
            if place in places:
                places.remove(place)
                self._folds = {known: fold for known, fold in self._folds.items() if known[0] != digest}
                return

    def append(self, recording: Recording, choose: Callable[[], int | None] | None = None) -> None:
        """Add a recording as a line of its own: once this returns, it survives the end of this process.

        `choose` is asked once nobody else can write which place it takes, in place of `recording.replaces`.

        Raises
        ------
        RecordingError
            It cannot be written.

        """
        with self._lock, self._locked() as opened:
            self._refresh()
            if choose is not None:
                recording = replace(recording, replaces=choose())
            line = recording.line()
            if len(line) > MAX_LINE:
                raise RecordingError(f"The answer is larger than {MAX_LINE // 2**20} MB.")
            try:
                size = os.fstat(opened).st_size
                if size:
                    os.lseek(opened, size - 1, os.SEEK_SET)
                    if os.read(opened, 1) != b"\n":  # torn
                        line = b"\n" + line
                _write(opened, line, size)
            except OSError as error:
                raise self._unwritable(error) from None
            self._refresh()

    def rewrite(self, keep: Callable[[str, int, Place], bool], before: Callable[[str], int] = lambda _: 0) -> int:
        """Write the file anew with the recordings to keep alone, and return how many were left out.

        `keep` is asked of each current one with its key and place; what other kernels added meanwhile stays. `before`
        says how many places of a key are in other files.

        Raises
        ------
        RecordingError
            It cannot be written.

        """
        with self._lock:
            known = self._end
            with self._locked() as opened:
                self._refresh()
                kept, dropped = self._kept(keep, before, known)
                try:
                    self._put(opened, kept)
                except OSError as error:
                    raise self._unwritable(error) from None
            self._refresh()
        return dropped

    def _kept(
        self, keep: Callable[[str, int, Place], bool], before: Callable[[str], int], known: int
    ) -> tuple[list[tuple[int, Place, bool]], int]:
        """Return the lines to keep: where they go, and whether they lose their `replaces`; and how many go."""
        kept, dropped = [], 0
        for digest in self._index:
            key = digest.hex()
            elsewhere = before(key)
            current = self._folded(digest, elsewhere)
            stay = [(at, place) for at, place in current.items() if place.offset >= known or keep(key, at, place)]
            dropped += len(current) - len(stay)
            slots = sorted(place.offset for _, place in stay)
            kept += [
                (slot, place, at >= elsewhere and place.replaces is not None)
                for slot, (at, place) in zip(slots, stay, strict=True)
            ]
        return sorted(kept), dropped

    def _put(self, opened: int, kept: list[tuple[int, Place, bool]]) -> None:
        """Put a new file in the place of the one that is locked."""
        import secrets

        temporary = self.path.with_name(f".{self.path.name[:100]}.{secrets.token_hex(8)}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY
        mode = stat.S_IMODE(os.fstat(opened).st_mode)
        try:
            with os.fdopen(os.open(temporary, flags, mode), "r+b") as new:
                if hasattr(os, "fchmod"):  # whatever the umask
                    os.fchmod(new.fileno(), mode)
                for _, place, is_plain in kept:
                    os.lseek(opened, place.offset, os.SEEK_SET)
                    line = _read(opened, place.length).rstrip(b"\r\n") + b"\n"
                    new.write(_without_replaces(line) if is_plain else line)
                new.flush()
                os.fsync(new.fileno())
                if sys.platform == "win32":  # no file that is open can be replaced there
                    new.seek(0)
                    os.ftruncate(opened, 0)
                    while data := new.read(_CHUNK):
                        os.write(opened, data)
            if sys.platform != "win32":
                temporary.replace(self.path)
        finally:
            with suppress(OSError):
                temporary.unlink()

    # --- what other kernels do to the file

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the file, which is made where it is missing, open and locked."""
        until = time.monotonic() + _PATIENCE
        while True:
            opened = -1
            try:
                opened = _open_to_write(self.path)
                _lock(opened, until)
                if _is_same(self.path, opened):
                    break
            except OSError as error:
                if opened >= 0:
                    os.close(opened)
                raise self._unwritable(error) from None
            except BaseException:
                if opened >= 0:
                    os.close(opened)
                raise
            os.close(opened)  # replaced while this waited
        try:
            yield opened
        finally:
            _unlock(opened)
            os.close(opened)

    def _refresh(self) -> None:
        """Read what was added to the file since, or all of it where it is another one.

        Raises
        ------
        RecordingError
            The file cannot be read, is none of recordings, or is of a newer format; one of its own only.

        """
        try:
            found = self.path.stat()
            if _stamp(found) == self._stamp:
                return
            require_plain(self.path, found)
            with _opened(self.path) as opened:
                self._scan(opened)
        except FileNotFoundError:
            self._stamp = None
            self._forget()
        except RecordingError as error:
            if self.own:
                self._stamp = None
                self._forget()
                raise
            self._pass_over(error.message, found)
        except (OSError, ValueError) as error:
            self._stamp = None
            self._forget()
            problem = self._unreadable(error)
            if self.own:
                raise problem from None
            self._pass_over(problem.message, None)

    def _pass_over(self, why: str, found: os.stat_result | None) -> None:
        remark = f"{why} It is passed over."
        self._forget()
        self._stamp = None if found is None else _stamp(found)
        if remark not in self._remarks:
            self._remarks.append(remark)

    def _scan(self, opened: int) -> None:
        found = os.fstat(opened)
        require_plain(self.path, found)
        before, self._stamp = self._stamp, _stamp(found)
        if before is None or self._stamp[:2] != before[:2] or found.st_size <= before[2] or not self._goes_on(opened):
            self._forget()
        bad, conflicts = len(self._bad), len(self._conflicts)
        os.lseek(opened, self._end, os.SEEK_SET)
        rest, is_long = b"", False
        while chunk := os.read(opened, _CHUNK):
            if self._line == 0 and not self._count and b"\0" in chunk:
                raise self._not_ours()
            data, position = rest + chunk, 0
            while (end := data.find(b"\n", position)) >= 0:
                if is_long:
                    self._line += 1
                    self._bad.append(self._line)
                    is_long = False
                else:
                    self._take(data, position, end + 1, self._end)
                self._end += end + 1 - position
                position = end + 1
            rest = data[position:]
            if len(rest) > MAX_LINE:
                self._end += len(rest)
                rest, is_long = b"", True
            if not self._is_ours and (len(self._bad) >= _FOREIGN_LINES or is_long):
                raise self._not_ours()
        if rest and self._is_line(rest):  # the last one, without its end
            self._take(rest, 0, len(rest), self._end)
            self._end += len(rest)
            rest = b""
        self._seen = _before(opened, self._end)
        if not self._is_ours and (self._bad or (rest and not _is_begun(rest))):
            raise self._not_ours()
        if self._newest > VERSION:
            raise RecordingError(
                f"{self.path} was written by a newer llm_magic, in format {self._newest}.",
                f"Update llm_magic. {_ANOTHER}",
            )
        self._remark(self._bad[bad:], self._conflicts[conflicts:])

    def _goes_on(self, opened: int) -> bool:
        """Whether a file that has grown still is the one that was read."""
        return _before(opened, self._end) == self._seen

    def _take(self, data: bytes, begin: int, end: int, offset: int) -> None:
        """Enter one line into the index."""
        self._line += 1
        key_at = data.rfind(b'"key":', max(begin, end - _LONGEST_END), end)
        told = _END.fullmatch(data, key_at, end) if key_at >= 0 else None
        if told is not None:
            key, number, version = told.groups()
            cell = self._cell(data, begin, key_at)
            self._enter(
                _Told(key.decode(), cell, None if number is None else int(number), int(version)), offset, end - begin
            )
            return
        line = data[begin:end].strip()
        if not line or (self._line == 1 and line == b"\xef\xbb\xbf"):
            return
        if _MARKS.match(line):
            self._conflicts.append(self._line)
        elif (told_otherwise := _in_other_order(line)) is not None:
            self._enter(told_otherwise, offset, end - begin)
        else:
            self._is_ours = self._is_ours or _is_begun(line)
            self._bad.append(self._line)

    def _enter(self, told: _Told, offset: int, length: int) -> None:
        self._is_ours = True
        self._count += 1
        self._newest = max(self._newest, told.version)
        place = Place(offset, length, self._line, told.cell, told.replaces)
        self._index.setdefault(bytes.fromhex(told.key), []).append(place)

    def _cell(self, data: bytes, begin: int, end: int) -> str | None:
        at = data.rfind(b'"cell":', max(begin, end - _LONGEST_CELL), end)
        found = _CELL.fullmatch(data, at, end) if at >= 0 else None
        if found is None:
            return None
        written = found[1]
        if written not in self._cells:
            try:
                self._cells[written] = json.loads(written)
            except ValueError:
                self._cells[written] = None
        return self._cells[written]

    def _is_line(self, line: bytes) -> bool:
        try:
            Recording.read(line)
        except RecordingError:
            return False
        return True

    def _remark(self, bad: list[int], conflicts: list[int]) -> None:
        if conflicts:
            self._remarks.append(
                f"{self.path} holds the marks of a merge conflict ({_numbers(conflicts)}): both sides are read. Remove "
                "them; with the line `*.llm.jsonl merge=union` in .gitattributes there will be none."
            )
        if bad:
            self._remarks.append(f"{self.path}: no recordings, and passed over: {_numbers(bad)}.")

    def _not_ours(self) -> RecordingError:
        return RecordingError(f"{self.path} is no file of recordings.", _ANOTHER)

    def _unreadable(self, error: OSError | ValueError) -> RecordingError:
        return RecordingError(f"{self.path} cannot be read: {_reason(error)}.", _ANOTHER)

    def _unwritable(self, error: OSError) -> RecordingError:
        return RecordingError(f"{self.path} cannot be written: {_reason(error)}.", _ANOTHER)


_BINARY = getattr(os, "O_BINARY", 0)
_CAREFUL = _BINARY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Hold a file open to be read."""
    opened = os.open(path, os.O_RDONLY | _CAREFUL)
    try:
        yield opened
    finally:
        os.close(opened)


def _open_to_write(path: Path) -> int:
    with suppress(FileNotFoundError):
        require_plain(path, path.lstat())  # opening a device may already do something
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | _CAREFUL | getattr(os, "O_NOFOLLOW", 0)
    opened = os.open(path, flags, 0o666)  # the umask decides, as of the notebook beside it
    try:
        require_plain(path, os.fstat(opened))
    except BaseException:
        os.close(opened)
        raise
    return opened


def _is_same(path: Path, opened: int) -> bool:
    """Whether a name still is that of the file that is open."""
    try:
        found, own = path.lstat(), os.fstat(opened)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read(opened: int, length: int) -> bytes:
    pieces = []
    while length > 0 and (piece := os.read(opened, length)):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def _before(opened: int, end: int) -> bytes:
    """Return the last bytes before a position."""
    begin = max(0, end - _SEEN)
    os.lseek(opened, begin, os.SEEK_SET)
    return _read(opened, end - begin)


def _write(opened: int, line: bytes, size: int) -> None:
    """Append a line whole, or not at all."""
    written = 0
    try:
        while written < len(line):  # once, but on a full disk
            written += os.write(opened, line[written:])
    except BaseException:
        with suppress(OSError):
            os.ftruncate(opened, size)
        raise


def _is_begun(line: bytes) -> bool:
    """Whether a line that is not whole is the beginning of one of ours."""
    line = line.removeprefix(b"\xef\xbb\xbf")
    return line.startswith(_BEGIN) or _BEGIN.startswith(line)


class _Told(NamedTuple):
    """What the end of a line tells."""

    key: str
    cell: str | None
    replaces: int | None
    version: int


def _in_other_order(line: bytes) -> _Told | None:
    """Return what a recording tells whose fields a program has put in another order; None for what is none."""
    if b'"asked"' not in line or b'"answer"' not in line:
        return None
    try:
        found = json.loads(line)
        told = _Told(found["key"], found.get("cell"), found.get("replaces"), found["version"])
        is_one = _KEY.fullmatch(told.key) and type(told.version) is int and told.version > 0
        is_one = is_one and isinstance(told.cell, str | None) and type(told.replaces) in {int, type(None)}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    return told if is_one else None


_KEY = re.compile("[0-9a-f]{64}")


def _without_replaces(line: bytes) -> bytes:
    at = line.rfind(b'"replaces":', max(0, len(line) - _LONGEST_END))
    return line if at < 0 else line[:at] + re.sub(rb'"replaces": ?\d+, ?', b"", line[at:], count=1)


def _numbers(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:5]))
    more = f" and {len(lines) - 5:,} more" if len(lines) > 5 else ""  # noqa: PLR2004
    return f"line{'s' * (len(lines) > 1)} {shown}{more}"


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, NotPlainError) or (isinstance(error, OSError) and error.errno == errno.ELOOP):
        return "it is a link, or no plain file"
    return getattr(error, "strerror", None) or str(error)


if sys.platform == "win32":
    import msvcrt

    _FAR = 2**40  # a lock keeps others from reading what is locked

    def _try_lock(opened: int) -> None:
        os.lseek(opened, _FAR, os.SEEK_SET)
        msvcrt.locking(opened, msvcrt.LK_NBLCK, 1)

    def _unlock(opened: int) -> None:
        os.lseek(opened, _FAR, os.SEEK_SET)
        msvcrt.locking(opened, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(opened: int) -> None:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(opened: int) -> None:
        fcntl.flock(opened, fcntl.LOCK_UN)


def _lock(opened: int, until: float) -> None:
    """Wait for the lock of an open file; a file system that has none is written without: a line is one write."""
    while True:
        try:
            _try_lock(opened)
        except OSError as error:
            if error.errno in {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}:
                return
            if error.errno not in {errno.EAGAIN, errno.EACCES, errno.EDEADLK}:
                raise
        else:
            return
        if time.monotonic() > until:
            raise OSError(errno.EAGAIN, "another program has locked it")
        time.sleep(0.002)
