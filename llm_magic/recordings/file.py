"""A file of recordings: JSON Lines that are only appended to, shared by several kernels, with an index in memory."""

from __future__ import annotations

import os
import re
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from llm_magic.errors import RecordingError
from llm_magic.private_files import NotPlainError
from llm_magic.recordings.answers import check
from llm_magic.recordings.index import MAX_LINE, Foreign, Index, Place
from llm_magic.recordings.locked_file import BINARY, append_line, locked, opened, read_at, reason
from llm_magic.recordings.recording import VERSION, Recording

_CHUNK = 4 * 2**20
_SEEN = 64
"""Bytes before the end by which a file is known again."""
_SHOWN = 5  # numbers of lines that a remark names
_ANOTHER = "Name another: %config LLMMagics.record_file = …"


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
        self._index = Index()
        self._seen = b""

    def __len__(self) -> int:
        """Count the recordings in the file, replaced ones included."""
        with self._lock:
            self._refresh()
            return self._index.count

    def take_remarks(self) -> list[str]:
        """Return what the user should know of the file, and was not yet told."""
        if not self._remarks:
            return []
        with self._lock:
            taken, self._remarks = self._remarks, []
            return taken

    def find(self, key: str, before: int = 0) -> dict[int, Place]:
        """Return the current recordings of a key by their place among equal ones, in that order.

        `before` is how many equal ones are in other files: the places of this one follow.

        Raises
        ------
        RecordingError
            The file cannot be read, is none of recordings, or is of a newer format.

        """
        with self._lock:
            self._refresh()
            return self._index.find(key, before)

    def keys(self) -> list[str]:
        """Return the keys of all recordings, in the order in which each first came.

        Raises
        ------
        RecordingError
            As `find`.

        """
        with self._lock:
            self._refresh()
            return self._index.keys()

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
                if recording.key != place.digest.hex():
                    raise RecordingError("Its key is another one.")  # noqa: TRY301 - as any other damage
            except RecordingError as error:
                if not self._has_changed():
                    self._remarks.append(f"{self.path}, line {place.line} is passed over: {error.message}")
                    self._index.drop(place)
                return None
        try:
            check(recording.asked, recording.answer)
        except RecordingError as error:
            raise RecordingError(
                f"{self.path}, line {place.line}: {error.message}", "Remove that line, or record the answer anew."
            ) from None
        return recording

    def lines(self) -> Iterator[tuple[Place, bytes]]:
        """Yield all recordings, replaced ones included, as they stand in the file.

        Raises
        ------
        RecordingError
            As `find`.

        """
        with self._lock:
            self._refresh()
            places, stamp = sorted(self._index.places()), self._stamp
        if stamp is None or not places:
            return
        try:
            with opened(self.path) as file, os.fdopen(os.dup(file), "rb", buffering=_CHUNK) as lines:
                found = os.fstat(file)
                for place in places if (found.st_dev, found.st_ino) == stamp[:2] else ():
                    if lines.tell() != place.offset:
                        lines.seek(place.offset)
                    yield place, lines.read(place.length)
        except OSError as error:
            raise self._unreadable(error) from None

    def _line_at(self, place: Place) -> bytes | None:
        try:
            with opened(self.path) as file:
                found = os.fstat(file)
                if self._stamp is None or (found.st_dev, found.st_ino) != self._stamp[:2]:
                    self._stamp = None
                    return None
                line = read_at(file, place.offset, place.length)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(error) from None
        return line if len(line) == place.length else None

    def _has_changed(self) -> bool:
        """Whether the file is not as it was read: then it is read anew."""
        try:
            has_changed = self._stamp != _stamp(self.path.stat())
        except OSError:
            has_changed = True
        if has_changed:
            self._stamp = None
        return has_changed

    def append(self, recording: Recording, choose: Callable[[], int | None] | None = None) -> None:
        """Add a recording as a line of its own: once this returns, it survives the end of this process.

        `choose` is asked once nobody else can write which place it takes, in place of `recording.replaces`.

        Raises
        ------
        RecordingError
            It cannot be written; nothing of it is in the file.

        """
        with self._lock:
            try:
                with locked(self.path) as file:
                    self._refresh()
                    if choose is not None:
                        recording = replace(recording, replaces=choose())
                    line = recording.line()
                    if len(line) > MAX_LINE:
                        raise RecordingError(f"The answer is larger than {MAX_LINE // 2**20} MB.")
                    size = os.fstat(file).st_size
                    append_line(file, line)
                    self._take_own(file, line, size)
            except (OSError, ValueError) as error:
                raise self._unwritable(error) from None

    def _take_own(self, file: int, line: bytes, size: int) -> None:
        """Take a line into the index that was just appended, where all before it is there: it is not read again."""
        now = os.fstat(file)
        if self._stamp is not None and self._stamp[2] == self._index.end == size and now.st_size == size + len(line):
            self._index.read(line)
            self._seen, self._stamp = line[-_SEEN:], _stamp(now)

    def rewrite(self, keep: Callable[[str, int], bool], before: Callable[[str], int] = lambda _: 0) -> int:
        """Write the file anew with the recordings to keep alone, and return how many were left out.

        `keep` is asked of each current one with its key and its place among equal ones; what other kernels added since
        the file was last looked at stays. `before` says how many places of a key are in other files.

        Raises
        ------
        RecordingError
            It cannot be written; the file is as it was.

        """
        with self._lock:
            known = self._index.end
            try:
                with locked(self.path) as file:
                    self._refresh()
                    kept, dropped = self._kept(keep, before, known)
                    self._put(file, kept)
            except (OSError, ValueError) as error:
                raise self._unwritable(error) from None
        return dropped

    def _kept(
        self, keep: Callable[[str, int], bool], before: Callable[[str], int], known: int
    ) -> tuple[list[tuple[int, Place, bool]], int]:
        """Return the lines to keep: where they go, and whether without `replaces`; and how many are dropped.

        Those of one key are put in the order of their places, so that these need not be said any more; but for such as
        stand in the place of one in another file.
        """
        kept, dropped = [], 0
        for key in self._index.keys():  # noqa: SIM118 - no mapping
            elsewhere = before(key)
            current = self._index.find(key, elsewhere)
            stay = [(at, place) for at, place in current.items() if place.offset >= known or keep(key, at)]
            dropped += len(current) - len(stay)
            slots = sorted(place.offset for _, place in stay)
            kept += [
                (slot, place, at >= elsewhere and place.replaces is not None)
                for slot, (at, place) in zip(slots, stay, strict=True)
            ]
        return sorted(kept), dropped

    def _put(self, file: int, kept: list[tuple[int, Place, bool]]) -> None:
        """Put a new file in the place of the one that is locked."""
        import secrets

        temporary = self.path.with_name(f".{self.path.name[:100]}.{secrets.token_hex(8)}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY
        mode = stat.S_IMODE(os.fstat(file).st_mode)
        try:
            with os.fdopen(os.open(temporary, flags, mode), "r+b") as new:
                if hasattr(os, "fchmod"):  # whatever the umask
                    os.fchmod(new.fileno(), mode)
                for _, place, is_plain in kept:
                    line = read_at(file, place.offset, place.length).strip() + b"\n"
                    new.write(_without_replaces(line) if is_plain else line)
                new.flush()
                os.fsync(new.fileno())
                if sys.platform == "win32":  # no file that is open can be replaced there
                    new.seek(0)
                    os.ftruncate(file, 0)
                    while data := new.read(_CHUNK):
                        os.write(file, data)
            if sys.platform != "win32":
                temporary.replace(self.path)
        finally:
            with suppress(OSError):
                temporary.unlink()

    def _refresh(self) -> None:
        """Read what was added to the file since, or all of it where it is another one.

        Raises
        ------
        RecordingError
            The file cannot be read, is none of recordings, or is of a newer format: one that is `own`, only.

        """
        found = None
        try:
            found = self.path.stat()
            if _stamp(found) != self._stamp:
                with opened(self.path) as file:
                    self._read(file)
        except FileNotFoundError:
            self._stamp = None
            self._forget()
        except RecordingError as error:
            self._pass_over(error, found)
        except (OSError, ValueError) as error:
            self._pass_over(self._unreadable(error), found)

    def _pass_over(self, why: RecordingError, found: os.stat_result | None) -> None:
        self._stamp = None
        self._forget()
        if self.own:
            raise why from None
        self._stamp = None if found is None else _stamp(found)
        self._remarks.append(f"{why.message} It is passed over.")

    def _read(self, file: int) -> None:
        """Read the file on, or anew."""
        found = os.fstat(file)
        before, self._stamp = self._stamp, _stamp(found)
        if before is None or self._stamp[:2] != before[:2] or found.st_size <= before[2] or not self._goes_on(file):
            self._forget()
        index = self._index
        bad, conflicts = len(index.bad), len(index.conflicts)
        os.lseek(file, index.end, os.SEEK_SET)
        try:
            while chunk := os.read(file, _CHUNK):
                index.read(chunk)
            index.end_of_file()
        except Foreign:
            raise RecordingError(f"{self.path} is no file of recordings.", _ANOTHER) from None
        self._seen = _before(file, index.end)
        if index.newest > VERSION:
            raise RecordingError(
                f"{self.path} was written by a newer llm_magic, in format {index.newest}.",
                f"Update llm_magic. {_ANOTHER}",
            )
        self._remark(index.bad[bad:], index.conflicts[conflicts:])

    def _goes_on(self, file: int) -> bool:
        """Whether a file that has grown still is the one that was read."""
        return _before(file, self._index.end) == self._seen

    def _remark(self, bad: list[int], conflicts: list[int]) -> None:
        if conflicts:
            self._remarks.append(
                f"{self.path} holds the marks of a merge conflict ({_numbers(conflicts)}): both sides are read. Remove "
                "them; with the line `*.llm.jsonl merge=union` in .gitattributes there will be none."
            )
        if bad:
            self._remarks.append(f"{self.path}: no recordings, and passed over: {_numbers(bad)}.")

    def _unreadable(self, error: OSError | ValueError) -> RecordingError:
        return RecordingError(f"{self.path} cannot be read: {reason(error)}.", _ANOTHER)

    def _unwritable(self, error: OSError | ValueError) -> RecordingError:
        if isinstance(error, NotPlainError) and self.path.is_symlink() and self.path.is_file():
            return RecordingError(
                f"{self.path} cannot be written: it is a link.",
                "Name the file that it leads to: %config LLMMagics.record_file = …",
            )
        return RecordingError(f"{self.path} cannot be written: {reason(error)}.", _ANOTHER)


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _before(file: int, end: int) -> bytes:
    """Return the last bytes before a position."""
    begin = max(0, end - _SEEN)
    return read_at(file, begin, end - begin)


def _without_replaces(line: bytes) -> bytes:
    before, mark, after = line.rpartition(b'"replaces":')
    return before + re.sub(rb"^ ?\d+, ?", b"", after) if mark else line


def _numbers(lines: list[int]) -> str:
    """Return numbers of lines in words, the first few of many."""
    shown = [str(line) for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"{len(lines) - _SHOWN:,} more")
    listed = " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
    return f"line{'s' * (len(lines) > 1)} {listed}"
