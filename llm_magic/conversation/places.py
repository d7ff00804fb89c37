"""Places of turns that were begun and have not ended: the order of a conversation is that of the beginnings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Begun:
    """A prompt on its way: where its turn will stand, unless it is `dropped` meanwhile.

    `run` is the number of the cell's run, of which a later one has a higher number; prompts of one run share it.
    """

    chat: str
    cell_id: str | None
    part: int
    run: int
    place: int
    dropped: bool = False


class Places:
    """The places that are held for turns on their way, and the run that each cell's kept turns are of.

    This is of one kernel. Turns are begun and end on one thread; others may look meanwhile.
    """

    def __init__(self) -> None:
        self._held: tuple[Begun, ...] = ()
        self._kept: dict[tuple[str, str], int] = {}
        self._again: dict[str, int] = {}
        self._forked_from: dict[str, str] = {}

    def hold(self, begun: Begun, *, has_turns: bool) -> None:
        """Keep a place for a turn; `has_turns` where its cell has turns in the conversation already."""
        self._held = (*self._held, begun)
        if has_turns and begun.cell_id is not None and not self.is_kept(begun.chat, begun.cell_id, begun.run):
            self._again[begun.cell_id] = begun.run

    def release(self, begun: Begun) -> None:
        """Give up a place."""
        self._held = tuple(held for held in self._held if held is not begun)

    def of_cell(self, chat: str, cell_id: str | None) -> int | None:
        """Return the place that is held for a cell, None where none is."""
        places = (begun.place for begun in self._of(chat) if cell_id is not None and begun.cell_id == cell_id)
        return next(places, None)

    def last(self, chat: str) -> int:
        """Return the last place that is held, 0 where none is."""
        return max((begun.place for begun in self._of(chat)), default=0)

    def shift(self, own: Begun) -> None:
        """Move what is held at a place, and after it, one on: another kernel has taken that place."""
        for begun in self._of(own.chat):
            if begun.place >= own.place and begun is not own:
                begun.place += 1

    def is_kept(self, chat: str, cell_id: str | None, run: int) -> bool:
        """Tell whether the turns that a cell has are of this very run."""
        return cell_id is not None and self._kept.get((chat, cell_id)) == run

    def keep(self, begun: Begun) -> None:
        """Take note that a turn of this run is kept; what earlier runs of the cell still bring is dropped."""
        if begun.cell_id is None:
            return
        self._kept[begun.chat, begun.cell_id] = begun.run
        self._drop(begun.cell_id, begun.run, {begun.chat})

    def fork(self, chat: str, new: str) -> None:
        """Take note that a conversation is a copy of another."""
        self._forked_from[new] = self._forked_from.get(chat, chat)

    def has_left(self, chat: str, cell_id: str, run: int, stays_in: frozenset[str]) -> bool:
        """Tell whether a cell that ran in the conversations `stays_in` has left this one for them.

        A cell that had turns there already may be in a copy here, of this kernel or an earlier one, which stays.
        """
        if self._again.get(cell_id) != run or not stays_in:
            return True
        family = {self._forked_from.get(each, each) for each in stays_in}
        return (chat, cell_id) in self._kept and self._forked_from.get(chat, chat) not in family

    def leave(self, cell_id: str, run: int, stays_in: frozenset[str]) -> None:
        """Drop what earlier runs of a cell still bring to conversations that it is not in any more."""
        self._drop(cell_id, run, {begun.chat for begun in self._held} - stays_in)

    def forget(self, chat: str) -> None:
        """Drop all that is on its way to a conversation."""
        for begun in self._of(chat):
            begun.dropped = True

    def _drop(self, cell_id: str, run: int, chats: set[str]) -> None:
        for begun in self._held:
            if begun.cell_id == cell_id and begun.run < run and begun.chat in chats:
                begun.dropped = True

    def _of(self, chat: str) -> list[Begun]:
        return [begun for begun in self._held if begun.chat == chat and not begun.dropped]
