"""A cell's outputs while an answer streams: those that stay, and below them one that is repainted."""

from __future__ import annotations

import uuid

from llm_magic.display.cell import Bundle, Cell


class Outputs:
    """The outputs of one cell.

    Parameters
    ----------
    cell
        The cell.
    repaints
        False where an output cannot be replaced: then there are only outputs that stay.

    """

    def __init__(self, cell: Cell, *, repaints: bool = True) -> None:
        self._cell = cell
        self._repaints = repaints
        self._slot: str | None = None
        self._holds_line = False
        self.count = 0
        """Outputs so far."""

    @property
    def answers(self) -> bool:
        """Whether the output that is repainted holds some of the answer."""
        return self._slot is not None and not self._holds_line

    def paint(self, bundle: Bundle, *, line: bool = False) -> None:
        """Replace what is repainted; a `line` is only about the wait and gives way to whatever follows."""
        if not self._repaints:
            return
        self._holds_line = line
        if self._slot is not None:
            self._cell.update(bundle, slot=self._slot)
            return
        self._slot = uuid.uuid4().hex
        self._cell.show(bundle, slot=self._slot)
        self.count += 1

    def settle(self, bundle: Bundle, metadata: Bundle | None = None) -> None:
        """Make this an output that stays, in the place of what was repainted."""
        if self._slot is not None:
            self._cell.update(bundle, metadata, slot=self._slot)
            self._slot = None
            return
        self._cell.show(bundle, metadata)
        self.count += 1

    def add(self, bundle: Bundle) -> None:
        """Add an output that stays and is not part of the answer."""
        if self._slot is not None and self._holds_line:
            self.settle(bundle)
            return
        self._cell.show(bundle)
        self.count += 1

    def drop_line(self) -> None:
        """Empty a line that nothing came to replace."""
        if self._slot is not None and self._holds_line:
            self._cell.update({"text/plain": ""}, slot=self._slot)
            self._slot = None

    def leave(self) -> None:
        """Let what was repainted stay as it is."""
        if not self._holds_line:
            self._slot = None

    def clear(self) -> None:
        """Remove all outputs as soon as there is a new one."""
        self._cell.clear(wait=True)
        self._slot = None
        self.count = 0
