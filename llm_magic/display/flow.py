"""Text that arrives becomes outputs that stay, as few as a front end shows, and a tail that is repainted."""

from __future__ import annotations

from llm_magic.display.blocks import Splitter
from llm_magic.display.pace import enough

LARGEST = 6_144
"""Characters of finished blocks in one output: a browser renders an output in one go."""
LONG_CODE = 8_192
"""Characters of a code block that are repainted at most: of a longer one the lines so far become an output."""


class Flow:
    r"""Divides an answer into outputs.

    >>> flow = Flow()
    >>> flow.feed("One.\n\nTwo.\n\nThr")
    >>> flow.settled(outputs=0), flow.tail
    (['One.\n\nTwo.\n\n'], 'Thr')
    """

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._waiting: list[str] = []  # finished blocks that are no output yet
        self._waiting_length = 0
        self._shed = 0  # characters of the tail, a long code block, that are outputs already
        self._opener = ""  # the line that opened that block

    def feed(self, text: str) -> None:
        """Take more text."""
        for block in self._splitter.feed(text):
            rest = block
            if self._shed:
                rest = self._opener + block[self._shed :]
                self._shed = 0
            self._waiting.append(rest)
            self._waiting_length += len(rest)

    @property
    def length(self) -> int:
        """Characters of the tail."""
        return self._waiting_length + self._splitter.length - self._shed

    @property
    def tail(self) -> str:
        """What is to be repainted."""
        tail = self._splitter.tail
        rest = self._opener + tail[self._shed :] if self._shed else tail
        return "".join(self._waiting) + rest

    def settled(self, outputs: int) -> list[str]:
        """Return the texts of the next outputs that stay, where the cell has so many.

        Small blocks share an output. Blocks that are too little for one wait, as part of the tail.
        """
        texts: list[str] = []
        first = 0
        length = 0
        for number, block in enumerate(self._waiting):
            if length and length + len(block) > LARGEST and length >= enough(outputs + len(texts)):
                texts.append("".join(self._waiting[first:number]))
                first, length = number, 0
            length += len(block)
        if length and length >= enough(outputs + len(texts)):
            texts.append("".join(self._waiting[first:]))
            first, length = len(self._waiting), 0
        del self._waiting[:first]
        self._waiting_length = length
        return texts + self._lines_of_long_code(outputs + len(texts))

    def _lines_of_long_code(self, outputs: int) -> list[str]:
        """Return the lines so far of a code block that is too long to be repainted as a whole."""
        opener = self._splitter.opener
        if opener is None or self._splitter.length - self._shed < max(LONG_CODE, enough(outputs)):
            return []
        tail = self._splitter.tail
        end = tail.rfind("\n") + 1
        if end <= max(self._shed, len(opener)):
            return []
        begun = self._opener if self._shed else ""
        text = "".join(self._waiting) + begun + tail[self._shed : end] + self._splitter.closing
        self._waiting.clear()
        self._waiting_length = 0
        self._shed, self._opener = end, opener
        return [text]
