"""Reads what is new in a draft, at the cost of what is new."""

from __future__ import annotations

from llm_magic.buffer import TextBuffer
from llm_magic.draft import Draft


class Reader:
    """Follows the text of the first answer of a draft, and counts the characters of all its answers."""

    def __init__(self) -> None:
        self._buffer = TextBuffer()  # that of the draft
        self._position = 0  # in it
        self._read = 0  # characters of it
        self.length = 0
        """Characters of all answers."""
        self.grew = False
        """Whether the last reading found something."""

    @property
    def text(self) -> str:
        """The text of the first answer, after a restart still the one that was read."""
        return str(self._buffer)

    def read(self, draft: Draft) -> str:
        """Return what the first answer has more than at the last reading."""
        self._buffer = draft.buffer()
        fresh, self._position = self._buffer.read(self._position)
        self._read += len(fresh)
        length = draft.length
        self.grew, self.length = length != self.length, length
        return fresh

    def rest(self, text: str) -> str:
        """Return what a whole text has more than what was read."""
        return text[self._read :]
