"""Conversations: turns kept by the cells that said them.

A cell run again takes its own turn's place, and later turns stay. The rules, as far as a kernel can
know them:

- A cell belongs where it first ran. Moving it in the notebook does not move its turn.
- A copied cell has its own id, so it is a new turn at the end. So is each run without an id.
- A deleted cell's turn stays until the reset: the front end does not tell of the deletion.
- A cell that fails or is interrupted leaves the conversation as it was.
- Several prompts of one cell are parts of one place; running the cell again replaces all of them.
"""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from llm_magic.close_matches import did_you_mean
from llm_magic.conversation.database import Database
from llm_magic.conversation.export import read, write
from llm_magic.conversation.turns import Turn, estimate, from_document, to_document, window
from llm_magic.errors import HistoryError
from llm_magic.messages import Message, interned

__all__ = ["Conversation", "Conversations", "Summary", "Turn", "estimate", "window"]

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of `%llm_chat list`; `tokens` is an estimate, `last` in seconds since 1970."""

    name: str
    turns: int
    tokens: int
    model: str
    last: float | None


class Conversation:
    """One conversation: a name, and the turns that the database has under it, which may be none.

    Each method is one transaction, and raises HistoryError where the file of the conversations
    cannot be read or written; what it held is unchanged then.
    """

    def __init__(self, name: str, database: Database) -> None:
        if not name.strip() or not name.isprintable():
            raise HistoryError(f"{name!r} is no name for a conversation.", "Take letters, digits and the like.")
        self.name = name
        self._database = database

    def __len__(self) -> int:
        return len(self.turns())

    def turns(self) -> tuple[Turn, ...]:
        """Return all turns, in order."""
        with self._database.reading() as rows:
            return _select(rows, "chat = ? ORDER BY place, part", self.name)

    def before(self, cell_id: str | None, limit: int, *, part: int = 0) -> tuple[Turn, ...]:
        """Return the turns that a cell's prompt follows: those before its own, or all.

        At most `limit` turns, the latest ones. `part` is the number of the prompt within one run of
        its cell, from 0.
        """
        with self._database.reading() as rows:
            earlier = "chat = ? AND (place, part) < (?, ?) ORDER BY place DESC, part DESC LIMIT ?"
            place = self._place(rows, cell_id)
            return _select(rows, earlier, self.name, place, part, max(limit, 0))[::-1]

    def record(self, turn: Turn) -> None:
        """Keep a turn in its cell's place, else at the end; later parts there go with their run."""
        with self._database.writing() as rows:
            place = self._place(rows, turn.cell_id)
            same_or_later = (self.name, place, turn.part)
            rows.execute("DELETE FROM turns WHERE chat = ? AND place = ? AND part >= ?", same_or_later)
            self._insert(rows, place, turn)

    def append(self, turns: Sequence[Turn]) -> None:
        """Put turns at the end, those of one cell in one place."""
        with self._database.writing() as rows:
            place = self._place(rows, None) - 1
            for last, turn in pairwise((Turn(None, ()), *turns)):
                same_cell = turn.cell_id is not None and turn.cell_id == last.cell_id
                place += not (same_cell and turn.part > last.part)
                self._insert(rows, place, turn)

    def reset(self) -> int:
        """Forget all turns, and return how many there were."""
        if not len(self):  # no file is made for it
            return 0
        with self._database.writing() as rows:
            return rows.execute("DELETE FROM turns WHERE chat = ?", (self.name,)).rowcount

    def fork(self, new: str) -> Conversation:
        """Copy this conversation to a new one; neither changes with the other from then on."""
        child = Conversation(new, self._database)
        if len(child) or new == self.name:
            raise HistoryError(f"There is a conversation {new!r} already.", "Take another name, or reset that one.")
        with self._database.writing() as rows:
            rows.execute(
                f"INSERT INTO turns (chat, {_COLUMNS}) "  # noqa: S608 - columns of this file
                f"SELECT ?, {_COLUMNS} FROM turns WHERE chat = ? ORDER BY place, part",
                (new, self.name),
            )
        return child

    def export(self, path: str | Path) -> Path:
        """Write a file and return its path: `.json` (messages of the chat API), `.md` or `.ipynb`.

        An earlier export is replaced, once the new one is written, unless it was changed since. HistoryError where
        another file has the name, the name ends otherwise, the conversation is empty, or the file cannot be written.
        """
        return write(Path(path).expanduser(), self.name, self.turns())

    def _place(self, rows: sqlite3.Connection, cell_id: str | None) -> int:
        """Return the place of a cell's turns, for a cell without turns the one after the last."""
        (place,) = rows.execute(
            "SELECT coalesce((SELECT place FROM turns WHERE chat = ? AND cell_id = ? LIMIT 1), max(place) + 1, 1) "
            "FROM turns WHERE chat = ?",
            (self.name, cell_id, self.name),
        ).fetchone()
        return int(place)

    def _insert(self, rows: sqlite3.Connection, place: int, turn: Turn) -> None:
        _LATEST.extend(map(interned, turn.messages))
        messages = json.dumps([to_document(message) for message in turn.messages])
        rows.execute(
            f"INSERT INTO turns (chat, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - columns of this file
            (self.name, place, turn.part, turn.cell_id, turn.model, turn.when, messages),
        )


_LATEST: deque[Message] = deque(maxlen=64)
"""What cells said last: held until the next ones send it, so that it is not in memory once more, as read."""

_COLUMNS = "place, part, cell_id, model, at, messages"


def _select(rows: sqlite3.Connection, condition: str, *values: object) -> tuple[Turn, ...]:
    selected = rows.execute(f"SELECT {_COLUMNS} FROM turns WHERE {condition}", values)  # noqa: S608 - a condition of this file
    try:
        return tuple(
            Turn(cell_id, tuple(interned(from_document(each)) for each in json.loads(messages)), model, at, part)
            for _, part, cell_id, model, at, messages in selected
        )
    except ValueError as error:
        raise HistoryError(f"A turn in the file of conversations is damaged: {error}.", "%llm_chat reset") from error


class Conversations:
    """All conversations of a notebook.

    A `file` keeps them across restarts of the kernel, and kernels that name the same one share
    them; without one they are in memory. `say` takes a sentence that the user should see.

    >>> from llm_magic.messages import assistant, user
    >>> chats = Conversations()
    >>> chats.get("main").record(Turn("cell-1", (user("Hi"), assistant("Hello"))))
    >>> chats.get("main").fork("idea").record(Turn("cell-2", (user("More"), assistant("…"))))
    >>> len(chats.get("main")), len(chats.get("idea"))
    (1, 2)

    """

    def __init__(self, file: str | Path | None = None, say: Callable[[str], None] = warnings.warn) -> None:
        self._database = Database(file, say)
        self.file = self._database.file
        """The file that keeps the conversations."""

    def names(self, *further: str) -> list[str]:
        """Return the names that have turns, and `main` and `further` ones also without turns."""
        with self._database.reading() as rows:
            names = [name for (name,) in rows.execute("SELECT chat FROM turns GROUP BY chat ORDER BY min(id)")]
        return [name for name in dict.fromkeys((MAIN, *further)) if name not in names] + names

    def get(self, name: str = "") -> Conversation:
        """Return a conversation, by default `main`; it may have no turns yet."""
        return Conversation(name or MAIN, self._database)

    def find(self, name: str, *further: str) -> Conversation:
        """Return a conversation that is among the `names`; HistoryError names close ones."""
        names = self.names(*further)
        if name not in names:
            hint = did_you_mean(name, names, f"There are {', '.join(names)}.")
            raise HistoryError(f"There is no conversation {name!r}.", hint)
        return self.get(name)

    def list(self, *further: str) -> list[Summary]:
        """Return one line for each of the `names`."""
        lines = []
        for name in self.names(*further):
            turns = self.get(name).turns()
            tokens = sum(estimate(turn.messages) for turn in turns)
            last = max((turn.when for turn in turns), default=None)
            lines.append(Summary(name, len(turns), tokens, turns[-1].model if turns else "", last))
        return lines

    def load(self, path: str | Path, name: str = "") -> Conversation:
        """Read an exported `.json` file, or messages of the chat API, as a new conversation.

        Its name is by default the file's without the ending. Nothing that the file names is opened: an image of which
        it holds only the address becomes text. HistoryError where the file cannot be
        read or is none of these, or there is a conversation of this name.
        """
        path = Path(path).expanduser()
        conversation = self.get(name or path.stem)
        turns = read(path)
        if len(conversation):
            raise HistoryError(f"There is a conversation {conversation.name!r} already.", "Take another name.")
        conversation.append(turns)
        return conversation
