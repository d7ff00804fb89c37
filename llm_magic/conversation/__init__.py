"""Conversations: turns kept by the cells that said them.

A cell run again takes its own turn's place, and later turns stay. The rules, as far as a kernel can
know them:

- A cell belongs where it first ran. Moving it in the notebook does not move its turn.
- Turns stand in the order in which they were begun, whichever answer is there first.
- A copied cell has its own id, so it is a new turn at the end. So is each run without an id.
- A cell that ran as something else (with `--once`, in another conversation, as Python) has left; going
  on in a fork is no leaving.
- A cell that was deleted, emptied or made markdown does not run, and the front end does not tell: its
  turn stays until it is dropped or the conversation reset.
- A prompt that fails or is interrupted leaves the conversation as it was.
- Several prompts of one cell are parts of one place; running the cell again replaces all of them.
- Of two runs of one cell, the later one counts, also where its answer was there first.
- A turn that was dropped is forgotten: its cell, run again, is a new turn at the end.
"""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from llm_magic.close_matches import did_you_mean
from llm_magic.conversation.database import Database
from llm_magic.conversation.export import read, write
from llm_magic.conversation.places import Begun, Places
from llm_magic.conversation.turns import Turn, estimate, from_document, most_tokens, to_document, window
from llm_magic.errors import HistoryError
from llm_magic.messages import Message, interned

__all__ = ["Begun", "Conversation", "Conversations", "Summary", "Turn", "estimate", "most_tokens", "window"]

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

    def __init__(self, name: str, database: Database, places: Places) -> None:
        if not name.strip() or not name.isprintable():
            raise HistoryError(f"{name!r} is no name for a conversation.", "Take letters, digits and the like.")
        self.name = name
        self._database = database
        self._places = places

    def __len__(self) -> int:
        return len(self.turns())

    def turns(self) -> tuple[Turn, ...]:
        """Return all turns, in order."""
        with self._database.reading() as rows:
            return _select(rows, "chat = ? ORDER BY place, part", self.name)

    def before(self, cell_id: str | None, limit: int, *, part: int = 0, run: int | None = None) -> tuple[Turn, ...]:
        """Return the turns that a cell's prompt follows: those before its own, or all.

        At most `limit` turns, the latest ones. `part` is the number of the prompt within one run of
        its cell, from 0; with `run`, turns of other runs of the cell are not among those that it follows.
        """
        with self._database.reading() as rows:
            earlier = "chat = ? AND (place, part) < (?, ?) ORDER BY place DESC, part DESC LIMIT ?"
            place = self._place(rows, cell_id)
            if run is not None and not self._places.is_kept(self.name, cell_id, run):
                part = 0
            return _select(rows, earlier, self.name, place, part, max(limit, 0))[::-1]

    def begin(self, cell_id: str | None, *, part: int = 0, run: int = 0) -> Begun:
        """Hold the place of a turn that is about to be asked for, until `end`; parameters as for `before`."""
        with self._database.reading() as rows:
            begun = Begun(self.name, cell_id, part, run, self._place(rows, cell_id))
            self._places.hold(begun, has_turns=self._own_place(rows, cell_id) is not None)
            return begun

    def end(self, begun: Begun) -> None:
        """Hold the place no longer, whether there was a turn for it or not."""
        self._places.release(begun)

    def record(self, turn: Turn, begun: Begun | None = None) -> None:
        """Keep a turn in the place where it was `begun`, in place of what earlier runs of its cell left there.

        Nothing is kept where a later run of the cell, or its absence, has made it out of date. Without `begun` the
        place is the cell's, else the end, and later parts there go.
        """
        with self._database.writing() as rows:
            if begun is None:
                place = self._place(rows, turn.cell_id)
                same_or_later = (self.name, place, turn.part)
                rows.execute("DELETE FROM turns WHERE chat = ? AND place = ? AND part >= ?", same_or_later)
                self._insert(rows, place, turn)
            elif not begun.dropped:
                self._replace(rows, turn, begun)

    def _replace(self, rows: sqlite3.Connection, turn: Turn, begun: Begun) -> None:
        """Put a turn where it was begun; what another kernel put there meanwhile stands behind it."""
        cell_id = begun.cell_id
        begun.place = self._own_place(rows, cell_id) or begun.place
        theirs = rows.execute(
            "SELECT 1 FROM turns WHERE chat = ? AND place = ? AND (cell_id IS NULL OR cell_id IS NOT ?)",
            (self.name, begun.place, cell_id),
        )
        if theirs.fetchone():
            self._places.shift(begun)
            later = (self.name, begun.place)
            rows.execute("UPDATE turns SET place = -1 - place WHERE chat = ? AND place >= ?", later)
            rows.execute("UPDATE turns SET place = -place WHERE chat = ? AND place < 0", (self.name,))
        if cell_id is not None:
            others = not self._places.is_kept(self.name, cell_id, begun.run)
            own = (self.name, cell_id, begun.part, others)
            rows.execute("DELETE FROM turns WHERE chat = ? AND cell_id = ? AND (part = ? OR ?)", own)
        self._insert(rows, begun.place, turn)
        self._places.keep(begun)

    def append(self, turns: Sequence[Turn]) -> None:
        """Put turns at the end, those of one cell in one place."""
        with self._database.writing() as rows:
            place = self._place(rows, None) - 1
            for last, turn in pairwise((Turn(None, ()), *turns)):
                same_cell = turn.cell_id is not None and turn.cell_id == last.cell_id
                place += not (same_cell and turn.part > last.part)
                self._insert(rows, place, turn)

    def drop(self, numbers: Collection[int]) -> None:
        """Forget the turns of these numbers, counted from 1; others that are not there are passed over."""
        with self._database.writing() as rows:
            found = rows.execute("SELECT id FROM turns WHERE chat = ? ORDER BY place, part", (self.name,)).fetchall()
            gone = [row for number, row in enumerate(found, 1) if number in numbers]
            rows.executemany("DELETE FROM turns WHERE id = ?", gone)

    def reset(self) -> int:
        """Forget all turns, those on their way, too, and return how many there were."""
        self._places.forget(self.name)
        if not len(self):  # no file is made for it
            return 0
        with self._database.writing() as rows:
            return rows.execute("DELETE FROM turns WHERE chat = ?", (self.name,)).rowcount

    def fork(self, new: str) -> Conversation:
        """Copy this conversation to a new one; neither changes with the other from then on."""
        child = Conversation(new, self._database, self._places)
        if len(child) or new == self.name:
            raise HistoryError(f"There is a conversation {new!r} already.", "Take another name, or reset that one.")
        with self._database.writing() as rows:
            rows.execute(
                f"INSERT INTO turns (chat, {_COLUMNS}) "  # noqa: S608 - columns of this file
                f"SELECT ?, {_COLUMNS} FROM turns WHERE chat = ? ORDER BY place, part",
                (new, self.name),
            )
        self._places.fork(self.name, new)
        return child

    def export(self, path: str | Path) -> Path:
        """Write a file and return its path: `.json` (messages of the chat API), `.md` or `.ipynb`.

        An earlier export is replaced, once the new one is written, unless it was changed since. HistoryError where
        another file has the name, the name ends otherwise, the conversation is empty, or the file cannot be written.
        """
        return write(Path(path).expanduser(), self.name, self.turns())

    def _place(self, rows: sqlite3.Connection, cell_id: str | None) -> int:
        """Return the place of a cell's turns, for a cell without turns the one after the last."""
        place = self._own_place(rows, cell_id) or self._places.of_cell(self.name, cell_id)
        if place is not None:
            return place
        (last,) = rows.execute("SELECT coalesce(max(place), 0) FROM turns WHERE chat = ?", (self.name,)).fetchone()
        return 1 + max(int(last), self._places.last(self.name))

    def _own_place(self, rows: sqlite3.Connection, cell_id: str | None) -> int | None:
        """Return the place of the turns that a cell has, counted from 1; None where it has none."""
        own = rows.execute("SELECT place FROM turns WHERE chat = ? AND cell_id = ? LIMIT 1", (self.name, cell_id))
        return next((int(place) for (place,) in own), None)

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
        self._places = Places()
        self.file = self._database.file
        """The file that keeps the conversations."""

    def names(self, *further: str) -> list[str]:
        """Return the names that have turns, and `main` and `further` ones also without turns."""
        with self._database.reading() as rows:
            names = [name for (name,) in rows.execute("SELECT chat FROM turns GROUP BY chat ORDER BY min(id)")]
        return [name for name in dict.fromkeys((MAIN, *further)) if name not in names] + names

    def get(self, name: str = "") -> Conversation:
        """Return a conversation, by default `main`; it may have no turns yet."""
        return Conversation(name or MAIN, self._database, self._places)

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

    def are_empty(self) -> bool:
        """Tell whether nothing was said in any of them."""
        with self._database.reading() as rows:
            return rows.execute("SELECT 1 FROM turns LIMIT 1").fetchone() is None

    def leave(self, cell_id: str, run: int, stays_in: frozenset[str]) -> None:
        """Forget a cell's turns, those on their way, too, in all conversations but those that its `run` belongs to."""
        self._places.leave(cell_id, run, stays_in)
        with self._database.reading() as rows:
            found = rows.execute("SELECT DISTINCT chat FROM turns WHERE cell_id = ?", (cell_id,)).fetchall()
        others = [chat for (chat,) in found if chat not in stays_in]
        left = [(chat, cell_id) for chat in others if self._places.has_left(chat, cell_id, run, stays_in)]
        if left:
            with self._database.writing() as rows:
                rows.executemany("DELETE FROM turns WHERE chat = ? AND cell_id = ?", left)

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
