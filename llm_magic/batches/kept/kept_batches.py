"""The user's folder of batches: their records and files, changed whole and under a lock, and what goes with time.

A record is the file `ID.json`; beside it lie `ID.input.jsonl`, `ID.ids`, `ID.output.jsonl` and `ID.errors.jsonl`. What
lies there is not trusted: a path is made of the name of a record's file alone, links are not followed, and what is not
a plain file of the user is left out.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import re
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from llm_magic.batches.kept.record import ID, MAX_RECORD, BatchRecord, merged
from llm_magic.config.trust import printable
from llm_magic.mapping.kept import kept_runs
from llm_magic.private_files import MODE, create, replace, require_plain, sync_folder
from llm_magic.recordings.locked_file import BINARY, is_called, lock_at_once, locked, read_at, reason, unlock
from llm_magic.recordings.secrecy import of_process

MAX_AGE = 30 * 86_400
"""Seconds after which a batch that was read, or refused, is removed."""
UNREAD_AGE = 60 * 86_400
"""Seconds after which one that was not read may be: see `BatchFolder.sweep`."""
CERTAIN_AFTER = 7 * 86_400
"""Seconds between the first look that finds an unread batch too old, and its removal."""
LEFT_AFTER = 86_400
"""Seconds after which a file without a record is one of a process that was killed."""
MAX_BYTES = 10**9
"""Bytes that all batches that were read may take; beyond, the oldest go."""
_MOST_FILES = 100_000
_RECORD, _INPUT, _IDS, _OUTPUT, _ERRORS, _MARK, _LOCK = (
    ".json",
    ".input.jsonl",
    ".ids",
    ".output.jsonl",
    ".errors.jsonl",
    ".old",
    ".lock",
)
_FILES = (_INPUT, _IDS, _OUTPUT, _ERRORS, _MARK)
_ID = re.compile(ID)
_NAMED = re.compile(
    rf"({ID})({'|'.join(map(re.escape, (_RECORD, _LOCK, *_FILES)))})|\.?({ID})\.[a-z.]+\.[0-9a-f]{{8,16}}(?:\.part)?"
)
_RUN = re.compile("[0-9a-f]{64}")
_TURN = re.compile(r"[0-9a-f]{32}\.lock")
_FLAGS = BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_LAST_SECOND = 253_402_300_799
_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.5)  # seconds between looks at a lock that somebody holds

_turns: set[tuple[str, str]] = set()
_turns_lock = threading.Lock()


class _Found(NamedTuple):
    """What a look into the folder finds."""

    batches: dict[str, dict[str, os.stat_result]]
    """By id the files of each batch, by how their names end."""
    left: list[tuple[str, os.stat_result]]
    """Files that are only there while they are written."""
    turns: list[tuple[str, os.stat_result]]


class BatchFolder:
    """The batches of the user, in this process and others.

    Several threads and processes may use it. Nothing is made in it by a look.

    Parameters
    ----------
    place
        The folder; by default `llm_magic/batches` in `XDG_STATE_HOME`, or in what the system has for it.
    say
        Takes a line for the user, once for each record that cannot be read.

    Raises
    ------
    OSError
        By each method: the folder cannot be read or written, is not the user's, or others may write to it.
    ValueError
        By each method that takes an id: it is none.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = BatchFolder(Path(tempfile.mkdtemp()) / "batches")
    >>> record = BatchRecord(
    ...     id=folder.new_id(), run="ab" * 32, provider="openai", url="https://api.example.org/v1", model="small",
    ...     asked="openai:small", api="chat", endpoint="/v1/chat/completions", rows=2, size=900, digest="cd" * 32,
    ...     created=1796047332.0, step="written",
    ... )  # fmt: skip
    >>> folder.add(record)
    >>> folder.update(record, step="submitted", batch_id="batch_1").step
    'submitted'
    >>> folder.update(record, step="submitting").step
    'submitted'
    >>> [found.batch_id for found in folder.find("batch_")]
    ['batch_1']

    """

    def __init__(self, place: Path | None = None, *, say: Callable[[str], None] | None = None) -> None:
        self._place = place
        self._say = say
        self._said: set[tuple[str, str]] = set()

    @property
    def place(self) -> Path:
        """The folder, which may not be there yet."""
        return kept_runs.folder("batches") if self._place is None else self._place

    def new_id(self) -> str:
        """Return an id that no record has."""
        import secrets

        now = time.gmtime(min(max(time.time(), 0), _LAST_SECOND))
        return f"{time.strftime('%Y%m%dT%H%M%SZ', now)}-{secrets.token_hex(4)}"

    # Records

    def add(self, record: BatchRecord) -> None:
        """Remember a batch; once this returns, the record is on the disk.

        Raises
        ------
        FileExistsError
            There is one of this id, which stays as it is.

        """
        self._require(make=True)
        create(self._path(record.id, _RECORD), _document(record))
        sync_folder(self.place)

    def update(self, of: BatchRecord | str, **changes: Any) -> BatchRecord:
        """Change what is remembered of a batch, and return it: what others changed meanwhile stays.

        See `llm_magic.batches.kept.record.merged`: no step goes back. Where it fails, the old record is there. A record
        that is gone is written again where a `BatchRecord` is given and a batch's id is new: a batch that was just
        created is not forgotten.

        Raises
        ------
        FileNotFoundError
            There is no record of this id.
        OSError
            It cannot be read or written, or another program holds its lock for 10 seconds.
        AnotherBatchError
            The record has another batch: `add` a record of its own for the new one.

        """
        name = _id(of)
        path = self._path(name, _RECORD)
        given = of if isinstance(of, BatchRecord) and changes.get("batch_id") else None
        if not self._require(make=given is not None) or (given is None and not _is_there(path)):
            raise FileNotFoundError(errno.ENOENT, f"there is no batch {name}")
        with locked(self._path(name, _LOCK)):
            try:
                known = self._read(name)[0]
            except FileNotFoundError:
                if given is None:
                    raise
                known = given
            except ValueError as error:
                raise OSError(errno.EINVAL, f"the record of the batch {name} cannot be read: {error}") from None
            data = _document(merged(known, changes, min(max(time.time(), 0), _LAST_SECOND)))
            replace(path, data)
            sync_folder(self.place)
        return BatchRecord.read(data)

    def get(self, name: str) -> BatchRecord | None:
        """Return the record of an id; None where there is none, or none that can be read."""
        if not _ID.fullmatch(name) or not self._require():
            return None
        found = self._known(name)
        return None if found is None else found[0]

    def find(self, name: str) -> list[BatchRecord]:
        """Return the batches of a name, the newest first.

        It is the id of a record or of a batch at a server, else the beginning of one, which several may have.
        """
        if not name:
            return []
        records = self.all()
        same = [each for each in records if name in (each.id, each.batch_id)]
        return same or [each for each in records if each.id.startswith(name) or each.batch_id.startswith(name)]

    def all(self) -> list[BatchRecord]:
        """Return all batches, the newest first.

        A batch that claims to be made in the future, by a clock that was wrong, is as old as the last change of its
        file.
        """
        now = time.time()
        read = ((self._known(name), files) for name, files in self._scan().batches.items() if _RECORD in files)
        found = [(min(known[0].created, known[1], now), known[0].id, known[0]) for known, _ in read if known]
        return [record for _, _, record in sorted(found, key=lambda each: each[:2], reverse=True)]

    def of_run(self, run: str) -> list[BatchRecord]:
        """Return the batches of a run, the newest first."""
        return [each for each in self.all() if each.run == run]

    def _known(self, name: str) -> tuple[BatchRecord, float] | None:
        """Return a record and when its file was changed; None where it is gone or cannot be read, which is said."""
        try:
            return self._read(name)
        except FileNotFoundError:  # removed meanwhile
            return None
        except (OSError, ValueError) as error:
            why = reason(error)
            if self._say is not None and (name, why) not in self._said:
                self._said.add((name, why))
                path = printable(str(self._path(name, _RECORD)))
                self._say(f"A batch is left out, for its record cannot be read: {path}: {why}. The file stays there.")
            return None

    def _read(self, name: str) -> tuple[BatchRecord, float]:
        with kept_runs.opened(self._path(name, _RECORD)) as file:
            found = os.fstat(file)
            data = read_at(file, 0, MAX_RECORD + 1)
        record = BatchRecord.read(data)
        if record.id != name:
            raise ValueError("it is the record of another batch")
        return record, found.st_mtime

    # Files beside the records

    def input_path(self, of: BatchRecord | str) -> Path:
        """Return where the file of requests is, which goes once the batch is created."""
        return self._path(_id(of), _INPUT)

    def ids_path(self, of: BatchRecord | str) -> Path:
        """Return where the ids of the requests are: one a line, in their order."""
        return self._path(_id(of), _IDS)

    def output_path(self, of: BatchRecord | str) -> Path:
        """Return where the file of answers is, once it is fetched."""
        return self._path(_id(of), _OUTPUT)

    def errors_path(self, of: BatchRecord | str) -> Path:
        """Return where the file of failed requests is, once it is fetched."""
        return self._path(_id(of), _ERRORS)

    def part_path(self, path: Path) -> Path:
        """Return a new name for a file while it is written, which `finish` gives its own; the folder is made."""
        import secrets

        self._require(make=True)
        return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")

    def finish(self, part: Path, path: Path) -> None:
        """Give a file that was written whole its name; once this returns, both are on the disk."""
        with kept_runs.opened(part, os.O_RDWR) as file:
            os.fsync(file)
        part.replace(path)
        sync_folder(path.parent)

    @contextmanager
    def new_file(self, path: Path) -> Iterator[BinaryIO]:
        """Hold a new file open to be written, for the user alone: it has its name at the end, else nothing is left."""
        part = self.part_path(path)
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, MODE), "wb") as file:
                yield file
            self.finish(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise

    def forget_input(self, of: BatchRecord | str) -> None:
        """Remove the file of requests, in which the prompts are."""
        with suppress(FileNotFoundError):
            self.input_path(of).unlink()

    def _path(self, name: str, ending: str) -> Path:
        return self.place / f"{_id(name)}{ending}"

    # What goes

    def remove(self, of: BatchRecord | str) -> bool:
        """Forget a batch, with all its files; return whether there was one. At the server nothing changes."""
        return self._remove(_id(of))

    def _remove(self, name: str, seen: BatchRecord | None = None) -> bool:
        """Remove a batch; with `seen` only where it is as it was seen."""
        path = self._path(name, _RECORD)
        if not self._require() or not _is_there(path):
            return False
        with locked(self._path(name, _LOCK)):
            if seen is not None and self.get(name) != seen:
                return False
            try:
                path.unlink()  # the first: what is left without a record goes later
            except FileNotFoundError:
                return False
            for ending in (*_FILES, _LOCK):
                with suppress(OSError):
                    self._path(name, ending).unlink()
        return True

    def sweep(self, now: float | None = None) -> list[str]:
        """Remove what has had its time, and return the ids of the batches that went.

        - Batches that were read or refused go 30 days after their last change, the oldest of them sooner where all
          take more than 1 GB.
        - Others are kept for 60 days from their making and their last change. One look at a clock is not believed,
          which may be wrong by years: the first look that finds one too old leaves a mark, and it goes with a look at
          least a week later, if the mark is not of the future and none in between found it young.
        - Files without a record, and those of writes that were broken off, go after a day.

        Records that cannot be read stay. `now` is the time, in seconds since 1970.
        """
        now = time.time() if now is None else now
        found = self._scan()
        gone: list[str] = []
        over: list[tuple[float, BatchRecord, int]] = []
        for name, files in found.batches.items():
            if _RECORD not in files:
                for ending, told in files.items():
                    self._remove_left(f"{name}{ending}", told, now)
                continue
            known = self._known(name)
            if known is None:
                continue
            record, last = known[0], max(known[0].changed, known[1])
            if record.is_over:
                over.append((last, record, sum(each.st_size for each in files.values())))
            elif self._is_surely_old(record, max(last, record.created), now) and self._remove(name, record):
                gone.append(name)
        size = sum(each[2] for each in over)
        for last, record, own in sorted(over, key=lambda each: (each[0], each[1].id)):
            if (now - last > MAX_AGE or size > MAX_BYTES) and self._remove(record.id, record):
                gone.append(record.id)
                size -= own
        for left, told in (*found.left, *found.turns):
            self._remove_left(left, told, now)
        return gone

    def _is_surely_old(self, record: BatchRecord, last: float, now: float) -> bool:
        """Whether an unread batch is too old, and was found so at least a week ago."""
        mark = self._path(record.id, _MARK)
        if now - last <= UNREAD_AGE:
            with suppress(OSError):
                mark.unlink()
            return False
        marked = math.inf
        with suppress(OSError, ValueError), kept_runs.opened(mark) as file:
            marked = float(read_at(file, 0, 40))
        if not last < marked <= now:
            replace(mark, repr(float(now)).encode())
            return False
        return now - marked >= CERTAIN_AFTER

    def _remove_left(self, name: str, told: os.stat_result, now: float) -> None:
        """Remove a file that nobody writes any more, and that no record has."""
        path = self.place / name
        if abs(now - told.st_mtime) < LEFT_AFTER:  # one of the future is of a clock that was wrong
            return
        with suppress(OSError):
            if not name.endswith(_LOCK):
                path.unlink()
                return
            with kept_runs.opened(path, os.O_RDWR) as file:
                if lock_at_once(file) and is_called(path, file):
                    path.unlink()

    # The folder

    def _require(self, *, make: bool = False) -> bool:
        """Return whether the folder is there; OSError where another user may put batches there, or take them away."""
        place = self.place
        if not kept_runs.require_own(place, make=make):
            return False
        if os.name != "nt" and place.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OSError(errno.EPERM, "other users may write to it: take that from them with `chmod 700`", str(place))
        return True

    def _scan(self) -> _Found:
        """Return what is in the folder: plain files of ours, by their names."""
        found = _Found({}, [], [])
        try:
            scanned = os.scandir(self.place) if self._require() else None
        except FileNotFoundError:  # removed meanwhile
            scanned = None
        if scanned is None:
            return found
        with scanned:
            for entry in islice(scanned, _MOST_FILES):
                named = _NAMED.fullmatch(entry.name)
                if named is None and not _TURN.fullmatch(entry.name):
                    continue
                with suppress(OSError):  # removed meanwhile
                    told = entry.stat(follow_symlinks=False)
                    if named is None:
                        found.turns.append((entry.name, told))
                    elif named[1]:
                        found.batches.setdefault(named[1], {})[named[2]] = told
                    elif stat.S_ISREG(told.st_mode):
                        found.left.append((entry.name, told))
        return found

    # Turns

    @asynccontextmanager
    async def turn(self, run: str, *, say: Callable[[str], None]) -> AsyncIterator[None]:
        """Hold the right to submit the batches of a run, which one cell has at a time, in whatever process.

        Others wait, without holding up their event loop; `say` is told once. It ends with the process that holds it.
        Where a file system has no locks it holds within this process alone.

        Raises
        ------
        OSError
            The folder cannot be written, or something else has the name of the lock.
        ValueError
            The run is no identity.

        """
        if not _RUN.fullmatch(run):
            raise ValueError(f"This is no identity of a run: {run[:80]!r}.")
        own, said, waits = (str(self.place), run), False, iter(_PAUSES)
        while True:
            with _turns_lock:
                is_free_here = own not in _turns
                _turns.add(own)
            file = None
            if is_free_here:
                try:
                    file = self._locked_turn(self.place / f"{run[:32]}{_LOCK}")
                finally:
                    if file is None:
                        _turns.discard(own)
            if file is not None:
                break
            if not said:
                said = True
                who = "notebook" if is_free_here else "cell"
                say(f"Another {who} is submitting this batch; waiting for it.")
            await asyncio.sleep(next(waits, _PAUSES[-1]))
        try:
            yield
        finally:
            unlock(file)
            os.close(file)
            _turns.discard(own)

    def _locked_turn(self, path: Path) -> int | None:
        """Return a file open that is locked; None where somebody else holds it."""
        self._require(make=True)
        with suppress(FileNotFoundError):
            require_plain(path, path.lstat())
        file = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, MODE)
        try:
            require_plain(path, os.fstat(file))
            if lock_at_once(file) and is_called(path, file):
                os.utime(path)  # for what removes old ones
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        return None


def _id(of: BatchRecord | str) -> str:
    """Return an id that may begin the name of a file."""
    name = of.id if isinstance(of, BatchRecord) else of
    if not _ID.fullmatch(name):
        raise ValueError(f"This is no id of a batch: {name[:80]!r}.")
    return name


def _document(record: BatchRecord) -> bytes:
    return record.document(of_process().values())


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)
