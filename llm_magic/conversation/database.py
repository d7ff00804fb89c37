"""The SQLite file of conversations: made, checked to be ours before it is opened, put aside where it is damaged.

What is not ours is never touched. Ours is what says so in its header (`application_id`, bytes 68 to 71:
https://sqlite.org/fileformat2.html#application_id), which is read as bytes: opening a database, SQLite may already
write to it.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from llm_magic import private_files
from llm_magic.errors import HistoryError

APPLICATION_ID = 0x6C6C6D63  # "llmc": tells our files from other databases
VERSION = 1
_HEADER = 100  # bytes
_MAGIC = b"SQLite format 3\0"
_FRACTIONS = b"\x40\x20\x20"  # bytes 21 to 23 of every database
_JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
_BESIDE = {
    "-journal": (b"", _JOURNAL, bytes(8)),
    "-wal": (b"", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
    "-shm": None,
}
"""What SQLite keeps beside a database, and how that begins: https://sqlite.org/fileformat2.html, 3 and 4.1."""
_WAIT = 10.0  # seconds for another kernel's change to end
_NEW = "Name a new file: LLMMagics.chat_file = 'chats.sqlite'."

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS turns (
    id INTEGER PRIMARY KEY,
    chat TEXT NOT NULL,
    place INTEGER NOT NULL,
    part INTEGER NOT NULL,
    cell_id TEXT,
    model TEXT NOT NULL,
    at REAL NOT NULL,
    messages TEXT NOT NULL,
    UNIQUE (chat, place, part)
);
CREATE INDEX IF NOT EXISTS cells ON turns (chat, cell_id);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""


class Database:
    """A table of turns, see `_SCHEMA`: `place` is that of a cell, `part` counts within a cell.

    Threads and kernels may share it. The file, None for memory, is made when it is first written
    to, for the user alone. Both ways to use it raise HistoryError where the file cannot be read or written, is locked
    for long, or is not ours; `say` is told where a damaged one was put aside.
    """

    def __init__(self, file: str | Path | None, say: Callable[[str], None] = warnings.warn) -> None:
        self.file = Path(os.path.expanduser(file)).absolute() if file else None  # noqa: PTH111 - Path's one may raise
        self._say = say
        self._lock = threading.RLock()
        self._seen: tuple[int, int] | None = None  # device and inode: another may take its name
        self._memory = _connect(":memory:")  # empty where there is a file
        self._memory.executescript(_SCHEMA)
        weakref.finalize(self, self._memory.close)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection to read from; an empty database where there is no file yet."""
        with self._lock, self._errors("read"), self._connection(create=False) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection within a transaction, which an exception undoes."""
        with self._lock, self._errors("written"), self._connection(create=True) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def _connection(self, *, create: bool) -> Iterator[sqlite3.Connection]:
        if self.file is None:
            yield self._memory
            return
        is_there = self._is_ours(self.file)
        if not is_there and create:
            self._create(self.file)
        elif not is_there:
            yield self._memory
            return
        with closing(_open(_real(self.file))) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            if application not in {0, APPLICATION_ID}:  # 0: known by its schema, on a disk that cannot be written
                raise _of_others(self.file)
            yield connection

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            hint = "Check the file and its folder, or set LLMMagics.chat_file to another one."
            if "locked" in str(error):
                hint = "Another kernel is writing to it; try again."
            said = getattr(error, "strerror", None) or error
            raise HistoryError(f"The conversations in {self.file} cannot be {done}: {said}.", hint) from error

    def _create(self, file: Path) -> None:
        real = _real(file)
        _require_way(real)
        private_files.make_folder(real.parent)
        try:
            private_files.create(real, _new())
        except FileExistsError:
            if not self._is_ours(file):  # else another kernel has made it meanwhile
                raise

    def _is_ours(self, file: Path) -> bool:
        """Whether there is a file of ours; a damaged one is put aside. HistoryError where it is anything else."""
        try:
            found = file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        linked, real = stat.S_ISLNK(found.st_mode), _real(file)
        if linked and not real.exists():
            raise HistoryError(f"{file} is a link that leads nowhere.", _NEW)
        try:
            header, found = private_files.read(real, _HEADER)
        except private_files.NotPlainError:
            raise HistoryError(f"{file} is no plain file.", _NEW) from None
        self._check_header(file, header)
        if _is_planted(real, found):
            raise HistoryError(f"{file} was put there by another user (uid {found.st_uid}).", _NEW)
        _require_way(real)
        identity = found.st_dev, found.st_ino
        if self._seen != identity:
            if (damage := _damage(real)) and linked:
                raise HistoryError(f"{real} is damaged: {damage}.", f"{file} is a link to it: move what it leads to.")
            if damage:
                self._put_aside(real, identity, damage)
                return False
            self._seen = identity
        return True

    def _check_header(self, file: Path, header: bytes) -> None:
        """Raise HistoryError for the header of a file that is not ours; one of ours without the mark gets it."""
        if not header:
            raise HistoryError(f"{file} is an empty file, and not of llm_magic.", f"Remove it, or {_NEW.lower()}")
        if len(header) < _HEADER or not header.startswith(_MAGIC) or header[21:24] != _FRACTIONS:
            raise HistoryError(f"{file} is no file of conversations.", _NEW)
        application, version = int.from_bytes(header[68:72]), int.from_bytes(header[60:64])
        if application == 0 and version <= VERSION and self._has_our_schema(_real(file)):
            _require_way(_real(file))
            with suppress(sqlite3.OperationalError), closing(_open(_real(file))) as database:  # may be read-only
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            return
        if application != APPLICATION_ID:
            raise _of_others(file)
        if version > VERSION:
            raise HistoryError(f"{file} was written by a newer llm_magic.", "Upgrade llm_magic.")

    def _has_our_schema(self, real: Path) -> bool:
        """Whether a database is whole and made as ours are; it is read without what SQLite keeps beside it."""
        try:
            with closing(_open(real, "ro&immutable=1")) as database:
                whole = database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
                return whole and _schema(database) == _schema(self._memory)
        except sqlite3.Error:
            return False

    def _put_aside(self, real: Path, identity: tuple[int, int], damage: str) -> None:
        """Rename a damaged file, with its journal, so that nothing of it is lost."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        aside = real.with_name(f"{real.name}.damaged-{stamp}")
        number = 1
        while os.path.lexists(aside):
            number += 1
            aside = real.with_name(f"{real.name}.damaged-{stamp}-{number}")
        found = real.lstat()
        if (found.st_dev, found.st_ino) != identity:  # another kernel has begun a new one
            return
        real.rename(aside)
        for ending in ("", *_BESIDE):
            moved = Path(f"{aside}{ending}")
            with suppress(OSError):
                if ending:
                    Path(f"{real}{ending}").rename(moved)
                moved.chmod(private_files.MODE)
        self._say(
            f"The conversations in {real} are damaged ({damage}): the file is kept as {aside.name}, "
            "and a new one is begun."
        )


def _real(file: Path) -> Path:
    """Return the path without links, as SQLite itself will take it."""
    return Path(os.path.realpath(file))


def _of_others(file: Path) -> HistoryError:
    return HistoryError(f"{file} is a database of another program.", _NEW)


def _is_planted(real: Path, found: os.stat_result) -> bool:
    """Whether a file is of another user in a folder where anybody may make one, such as /tmp.

    As the kernel's own rule for these folders:
    https://docs.kernel.org/admin-guide/sysctl/fs.html#protected-regular
    """
    folder = real.parent.stat()
    for_all = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
    return bool(for_all) and hasattr(os, "geteuid") and found.st_uid not in {os.geteuid(), folder.st_uid}


def _require_way(real: Path) -> None:
    """Raise HistoryError where SQLite would write over, or delete, what is not its own beside the database."""
    for ending, beginnings in _BESIDE.items():
        beside = Path(f"{real}{ending}")
        try:
            private_files.require_plain(beside, beside.lstat())
            free = beginnings is None or private_files.read(beside, len(beginnings[-1]))[0] in beginnings
            free = free and not (ending == "-journal" and _names_a_file(beside))
        except FileNotFoundError:  # or gone meanwhile
            continue
        except private_files.NotPlainError:
            free = False
        if not free:
            raise HistoryError(f"{beside} is in the way: SQLite would write over it.", _NEW)


def _names_a_file(journal: Path) -> bool:
    """Whether a journal ends with the name of a super-journal, which SQLite would delete: ours never do."""
    with journal.open("rb") as opened:
        opened.seek(0, os.SEEK_END)
        opened.seek(-min(opened.tell(), len(_JOURNAL)), os.SEEK_END)
        return opened.read() == _JOURNAL


def _schema(database: sqlite3.Connection) -> list[tuple[str, ...]]:
    rows = database.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name")
    return [tuple(" ".join(text.split()) for text in row) for row in rows]


def _damage(real: Path) -> str:
    """Return what is wrong with a database of ours, empty where nothing is."""
    try:
        with closing(_open(real)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'turns'").fetchone()
    except sqlite3.OperationalError:
        raise  # locked, or not to be read: that says nothing of its content
    except sqlite3.DatabaseError as error:
        return str(error)
    if found != "ok":
        return " ".join(str(found).split())
    return "" if tables else "there is no table of turns"


def _new() -> bytes:
    """Return a database without turns."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "new.sqlite")
        with closing(_connect(file)) as database:
            database.executescript(_SCHEMA)
        return file.read_bytes()


def _open(real: Path, mode: str = "rw") -> sqlite3.Connection:
    """Open a file that is there; SQLite makes none. Nothing in its schema is trusted to run functions."""
    posix = real.as_posix()
    name = quote(os.fsencode(posix if posix.startswith("/") else f"/{posix}"), safe="/:")
    connection = _connect(f"file://{name}?mode={mode}", uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _connect(name: str | Path, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(name, timeout=_WAIT, isolation_level=None, check_same_thread=False, uri=uri)
