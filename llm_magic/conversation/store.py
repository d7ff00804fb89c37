"""Turns in and out of the database: a cell has one place in a conversation, and its turns stand there."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from llm_magic.conversation.database import Database
from llm_magic.conversation.turns import Turn
from llm_magic.conversation.wording import from_document, to_document
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
