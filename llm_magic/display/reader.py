"""Reads what is new in a draft, at the cost of what is new."""

from __future__ import annotations

from llm_magic.response import Draft


class Reader:
    """Follows the text of the first answer of a draft, and counts the characters of all its answers."""

    def __init__(self) -> None:
        self._parts: list[str] = []  # the draft's own list
        self._taken = 0  # parts of it that were read
        self._latest: str | None = None  # the last of these
        self._read = 0  # characters of the first answer that were read
        self.length = 0
        """Characters of all answers."""
        self.grew = False
        """Whether the last reading found something."""

    @property
    def text(self) -> str:
        """The text that was read."""
        return "".join(self._parts)[: self._read]

    def read(self, draft: Draft) -> str:
        """Return what the first answer has more than at the last reading."""
        parts = self._parts = draft.parts(0)
        if self._taken and (len(parts) < self._taken or parts[self._taken - 1] is not self._latest):
            fresh = self.rest("".join(parts))  # the draft has joined its parts meanwhile
        else:
            fresh = "".join(parts[self._taken :])
        self._taken = len(parts)
        self._latest = parts[-1] if parts else None
        self._read += len(fresh)
        others = sum(len(part) for index in draft.indexes if index for part in draft.parts(index))
        self.grew = self._read + others != self.length
        self.length = self._read + others
        return fresh

    def rest(self, text: str) -> str:
        """Return what a whole text has more than what was read."""
        return text[self._read :]
