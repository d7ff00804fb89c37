"""The SQLite file of conversations: opened, checked to be ours, put aside where it is damaged."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from llm_magic.errors import HistoryError

APPLICATION_ID = 0x6C6C6D63  # "llmc": tells our files from other databases
VERSION = 1
_MAGIC = b"SQLite format 3\0"
_WRITTEN_BY_HAND = {".ipynb", ".py", ".md", ".txt", ".csv", ".toml", ".yaml", ".yml", ".json"}
_WAIT = 10.0  # seconds for another kernel's change to end

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
    to. Both ways to use it raise HistoryError where the file cannot be read or written, is locked
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
        is_there = self.file is not None and self._is_ours(self.file)
        if self.file is None or not (is_there or create):
            yield self._memory
            return
        with closing(_connect(self.file)) as connection:
            if not is_there:
                connection.executescript(_SCHEMA)
            yield connection

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            hint = "Check the file and its folder, or set LLMMagics.chat_file to another one."
            if "locked" in str(error):
                hint = "Another kernel is writing to it; try again."
            raise HistoryError(f"The conversations in {self.file} cannot be {done}: {error}.", hint) from error

    def _is_ours(self, file: Path) -> bool:
        """Whether there is a file of ours; a damaged one is put aside, one of others refused."""
        if not file.exists() or not (stat := file.stat()).st_size:
            return False
        if self._seen == (stat.st_dev, stat.st_ino):
            return True
        with file.open("rb") as opened:
            is_database = opened.read(len(_MAGIC)) == _MAGIC
        if not is_database and file.suffix.lower() in _WRITTEN_BY_HAND:
            raise HistoryError(
                f"{file} is no file of conversations.", "Name a new file: LLMMagics.chat_file = 'chats.sqlite'."
            )
        damage = _damage(file) if is_database else "it is no SQLite database"
        if damage:
            self._put_aside(file, damage)
            return False
        self._seen = (stat.st_dev, stat.st_ino)
        return True

    def _put_aside(self, file: Path, damage: str) -> None:
        """Rename a damaged file, with its journal, so that nothing of it is lost."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        aside = file.with_name(f"{file.name}.damaged-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = file.with_name(f"{file.name}.damaged-{stamp}-{number}")
        file.rename(aside)
        with suppress(FileNotFoundError):
            file.with_name(f"{file.name}-journal").rename(f"{aside}-journal")
        self._say(
            f"The conversations in {file} are damaged ({damage}): the file is kept as {aside.name}, "
            "and a new one is begun."
        )


def _damage(file: Path) -> str:
    """Return what is wrong with a database, empty where nothing is."""
    try:
        with closing(_connect(file)) as database:
            (application,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if application != APPLICATION_ID and tables:
                raise HistoryError(f"{file} is a database of another program.", "Name a new file.")
            if version > VERSION:
                raise HistoryError(f"{file} was written by a newer llm_magic.", "Upgrade llm_magic.")
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            return "" if found == "ok" else str(found)
    except sqlite3.OperationalError:
        raise  # locked, or not to be read: that says nothing of its content
    except sqlite3.DatabaseError as error:
        return str(error)


def _connect(name: str | Path) -> sqlite3.Connection:
    return sqlite3.connect(name, timeout=_WAIT, isolation_level=None, check_same_thread=False)
