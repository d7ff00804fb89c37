"""The conversations of a notebook, by name: continue, switch, fork, reset, import, export."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from llm_magic.conversation.export import read, write
from llm_magic.conversation.store import Store
from llm_magic.conversation.turns import Turn, estimate, window
from llm_magic.errors import HistoryError

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of `%llm_chat list`; `tokens` is an estimate, `last` the latest turn in seconds since 1970."""

    name: str
    turns: int
    tokens: int
    model: str
    last: float | None
    current: bool


class Conversation:
    """One conversation: a name, and the turns that its store has under it."""

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self._store = store

    def __repr__(self) -> str:
        return f"Conversation({self.name!r}, {len(self)} turns)"

    def __len__(self) -> int:
        return len(self.turns())

    def turns(self) -> tuple[Turn, ...]:
        """Return all turns, in order."""
        return self._store.turns(self.name)

    def before(self, cell_id: str | None, limit: int, *, part: int = 0, tokens: int | None = None) -> tuple[Turn, ...]:
        """Return the turns that a cell's prompt follows.

        Parameters
        ----------
        cell_id
            The front end's name of the cell. A cell that has a turn gets those before it; one that has none, all.
        limit
            Turns at most, the latest ones; 0 gives none.
        part
            Number of the prompt within one run of its cell, from 0.
        tokens
            Tokens that the turns may take, by `estimate`; None for no such limit.

        Raises
        ------
        HistoryError
            The file of the conversations cannot be read.

        """
        turns = self._store.before(self.name, cell_id, part, limit)
        return turns if tokens is None else window(turns, tokens)

    def record(self, turn: Turn) -> None:
        """Keep a turn: in its cell's place where that has one, else at the end.

        Raises
        ------
        HistoryError
            The file of the conversations cannot be written; what it held is unchanged.

        """
        self._store.record(self.name, turn)


class Conversations:
    """All conversations of a notebook.

    Parameters
    ----------
    file
        A file that keeps them across restarts of the kernel; None keeps them in memory. Kernels that name the same file
        share its conversations.
    say
        Takes a sentence that the user should see; by default it becomes a warning.

    Examples
    --------
    >>> from llm_magic.messages import assistant, user
    >>> chats = Conversations()
    >>> chats.get("main").record(Turn("cell-1", (user("Hi"), assistant("Hello"))))
    >>> chats.fork("idea").record(Turn("cell-2", (user("More"), assistant("…"))))
    >>> len(chats.get("main")), len(chats.get("idea"))
    (1, 2)

    """

    def __init__(self, file: str | Path | None = None, say: Callable[[str], None] = warnings.warn) -> None:
        self._store = Store(file, say)
        self.current = MAIN
        """The conversation of cells that name none."""

    @property
    def file(self) -> Path | None:
        """The file that keeps the conversations."""
        return self._store.file

    def names(self) -> list[str]:
        """Return the names of the conversations that have turns, and of `main` and the current one."""
        names = self._store.names()
        return [name for name in dict.fromkeys((MAIN, self.current)) if name not in names] + names

    def get(self, name: str = "") -> Conversation:
        """Return a conversation, which may have no turns yet; without a name the current one."""
        return Conversation(_checked(name) if name else self.current, self._store)

    def find(self, name: str = "") -> Conversation:
        """Return a conversation that there is.

        Raises
        ------
        HistoryError
            There is none of this name; the error names close ones.

        """
        if name and name not in self.names():
            raise _unknown(name, self.names())
        return self.get(name)

    def switch(self, name: str, *, create: bool = False) -> Conversation:
        """Make a conversation the current one.

        Raises
        ------
        HistoryError
            There is none of this name, and it is not to be created.

        """
        conversation = self.get(name) if create else self.find(name)
        self.current = conversation.name
        return conversation

    def fork(self, new: str, source: str = "") -> Conversation:
        """Copy a conversation, by default the current one; neither changes with the other from then on.

        Raises
        ------
        HistoryError
            There is a conversation `new` already, or none named `source`.

        """
        child, parent = self.get(_checked(new)), self.find(source)
        if new in self._store.names() or new == parent.name:
            raise HistoryError(f"There is a conversation {new!r} already.", "Take another name, or reset that one.")
        self._store.copy(parent.name, new)
        return child

    def reset(self, name: str = "") -> int:
        """Forget the turns of a conversation, by default the current one, and return how many there were."""
        conversation = self.find(name)
        return self._store.reset(conversation.name) if len(conversation) else 0

    def list(self) -> list[Summary]:
        """Return one line for each conversation."""
        lines = []
        for name in self.names():
            turns = self._store.turns(name)
            tokens = sum(estimate(turn.messages) for turn in turns)
            last = max((turn.when for turn in turns), default=None)
            model = turns[-1].model if turns else ""
            lines.append(Summary(name, len(turns), tokens, model, last, name == self.current))
        return lines

    def export(self, path: str | Path, name: str = "") -> Path:
        """Write a conversation to a file: `.json` (messages of the chat API), `.md` or `.ipynb` (to read).

        Parameters
        ----------
        path
            The file; one that is there is replaced, once the new one is written.
        name
            The conversation, by default the current one.

        Returns
        -------
        Path
            The file written.

        Raises
        ------
        HistoryError
            The name ends otherwise, the conversation is empty or unknown, or the file cannot be written.

        """
        conversation = self.find(name)
        turns = conversation.turns()
        if not turns:
            raise HistoryError(f"The conversation {conversation.name!r} has no turns to export.")
        return write(Path(path).expanduser(), conversation.name, turns)

    def load(self, path: str | Path, name: str = "") -> Conversation:
        """Read an exported `.json` file, or any list of messages of the chat API, into a new conversation.

        Parameters
        ----------
        path
            The file.
        name
            The conversation to make, by default the file's name without its ending.

        Raises
        ------
        HistoryError
            The file cannot be read or is none of these, or there is a conversation of this name.

        """
        path = Path(path).expanduser()
        conversation = self.get(name or path.stem)
        turns = read(path)
        if len(conversation):
            raise HistoryError(f"There is a conversation {conversation.name!r} already.", "Take another name.")
        self._store.append(conversation.name, turns)
        return conversation


def _checked(name: str) -> str:
    if not name.strip() or not name.isprintable():
        raise HistoryError(f"{name!r} is no name for a conversation.", "Take letters, digits and the like.")
    return name


def _unknown(name: str, names: list[str]) -> HistoryError:
    close = get_close_matches(name, names, n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"There are {', '.join(names)}."
    return HistoryError(f"There is no conversation {name!r}.", hint)
