"""Turns in and out of the database: a cell has one place in a conversation, and its turns stand there."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from llm_magic.conversation.serialization import from_document, to_document
from llm_magic.conversation.turns import Turn
from llm_magic.errors import HistoryError


class Store:
    """The turns of all conversations; each method is one transaction, and raises HistoryError where the file fails.

    Parameters
    ----------
    file, say
        As `Database` takes them.

    """

    def __init__(self, file: str | Path | None = None, say: Callable[[str], None] = warnings.warn) -> None:
        self._database = Database(file, say)
        self.file = self._database.file

    def names(self) -> list[str]:
        """Return the conversations that have turns, in the order of their first ones."""
        with self._database.reading() as database:
            rows = database.execute("SELECT chat FROM turns GROUP BY chat ORDER BY min(id)") if database else ()
            return [name for (name,) in rows]

    def turns(self, chat: str) -> tuple[Turn, ...]:
        """Return all turns of a conversation, in order."""
        with self._database.reading() as database:
            return _read(database, "chat = ? ORDER BY place, part", (chat,)) if database else ()

    def before(self, chat: str, cell_id: str | None, part: int, limit: int) -> tuple[Turn, ...]:
        """Return the last `limit` turns before a cell's own; before the end where it has none."""
        with self._database.reading() as database:
            if database is None or limit <= 0:
                return ()
            place = _place(database, chat, cell_id)
            condition, values = "chat = ?", (chat,)
            earlier: tuple[object, ...] = () if place is None else (place, part)
            if earlier:
                condition += " AND (place, part) < (?, ?)"
            latest = " ORDER BY place DESC, part DESC LIMIT ?"
            return _read(database, condition + latest, (*values, *earlier, limit))[::-1]

    def record(self, chat: str, turn: Turn) -> None:
        """Put a turn in its cell's place, else at the end; parts that follow it there are an earlier run's, and go."""
        with self._database.writing() as database:
            place = _place(database, chat, turn.cell_id)
            if place is None:
                place = _last_place(database, chat) + 1
            else:
                same_or_later = (chat, place, turn.part)
                database.execute("DELETE FROM turns WHERE chat = ? AND place = ? AND part >= ?", same_or_later)
            _insert(database, chat, place, turn)

    def append(self, chat: str, turns: Sequence[Turn]) -> None:
        """Put turns at the end of a conversation, those of one cell in one place."""
        with self._database.writing() as database:
            place = _last_place(database, chat)
            last: Turn | None = None
            for turn in turns:
                together = last is not None and turn.cell_id is not None and turn.cell_id == last.cell_id
                if not (together and last is not None and turn.part > last.part):
                    place += 1
                last = turn
                _insert(database, chat, place, turn)

    def reset(self, chat: str) -> int:
        """Remove all turns of a conversation, and return how many there were."""
        with self._database.writing() as database:
            return database.execute("DELETE FROM turns WHERE chat = ?", (chat,)).rowcount

    def copy(self, source: str, target: str) -> None:
        """Copy the turns of one conversation to another one, which has none."""
        with self._database.writing() as database:
            database.execute(
                "INSERT INTO turns (chat, place, part, cell_id, model, at, messages) "
                "SELECT ?, place, part, cell_id, model, at, messages FROM turns WHERE chat = ? ORDER BY place, part",
                (target, source),
            )


def _place(database: sqlite3.Connection, chat: str, cell_id: str | None) -> int | None:
    if cell_id is None:
        return None
    row = database.execute("SELECT place FROM turns WHERE chat = ? AND cell_id = ? LIMIT 1", (chat, cell_id)).fetchone()
    return None if row is None else int(row[0])


def _last_place(database: sqlite3.Connection, chat: str) -> int:
    row = database.execute("SELECT coalesce(max(place), 0) FROM turns WHERE chat = ?", (chat,)).fetchone()
    return int(row[0])


def _insert(database: sqlite3.Connection, chat: str, place: int, turn: Turn) -> None:
    messages = json.dumps([to_document(message) for message in turn.messages])
    database.execute(
        "INSERT INTO turns (chat, place, part, cell_id, model, at, messages) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (chat, place, turn.part, turn.cell_id, turn.model, turn.when, messages),
    )


def _read(database: sqlite3.Connection, condition: str, values: tuple[object, ...]) -> tuple[Turn, ...]:
    rows = database.execute(
        f"SELECT cell_id, messages, model, at, part FROM turns WHERE {condition}",  # noqa: S608 - a condition of this file
        values,
    )
    try:
        return tuple(
            Turn(cell_id, tuple(from_document(document) for document in json.loads(messages)), model, at, part)
            for cell_id, messages, model, at, part in rows
        )
    except ValueError as error:
        raise HistoryError(f"A turn in the file of conversations is damaged: {error}.", "%llm_chat reset") from error


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
    """A table of turns, see `_SCHEMA`: `place` is a cell's place in its conversation, `part` counts within a cell.

    Parameters
    ----------
    file
        The file; None for memory. It is made when it is first written to.
    say
        Takes a sentence that the user should see: that a damaged file was put aside, and where it is now.

    """

    def __init__(self, file: str | Path | None, say: Callable[[str], None]) -> None:
        self.file = Path(os.path.expanduser(file)).absolute() if file else None  # noqa: PTH111 - Path's one may raise
        self._say = say
        self._lock = threading.RLock()
        self._seen: tuple[int, int] | None = None  # the file that was looked at, should another take its name
        self._memory: sqlite3.Connection | None = None
        if self.file is None:
            self._memory = _connect(":memory:")
            self._memory.executescript(_SCHEMA)
            weakref.finalize(self, self._memory.close)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """Give a connection to read from; None where there is no file yet.

        Raises
        ------
        HistoryError
            The file cannot be read, is locked for long, or is not ours.

        """
        with self._lock, self._errors("read"):
            if self.file is None:
                yield self._memory
            elif not self._look(self.file):
                yield None
            else:
                with closing(_connect(self.file)) as database:
                    yield database

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection within a transaction, which an exception undoes.

        Raises
        ------
        HistoryError
            The file cannot be written, is locked for long, or is not ours.

        """
        with self._lock, self._errors("written"):
            if self._memory is not None:
                with _transaction(self._memory):
                    yield self._memory
            elif self.file is not None:
                known = self._look(self.file)
                with closing(_connect(self.file)) as database:
                    if not known:
                        database.executescript(_SCHEMA)
                    with _transaction(database):
                        yield database

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            hint = "Check the file and its folder, or set LLMMagics.chat_file to another one."
            if "locked" in str(error):
                hint = "Another kernel is writing to it; try again."
            raise HistoryError(f"The conversations in {self.file} cannot be {done}: {error}.", hint) from error

    def _look(self, file: Path) -> bool:
        """Return whether there is a file of ours; a damaged one is put aside, a foreign one refused."""
        if not file.exists() or not file.stat().st_size:
            return False
        stat = file.stat()
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
        """Rename a damaged file, with the journal that belongs to it, so that nothing of it is lost."""
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


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
