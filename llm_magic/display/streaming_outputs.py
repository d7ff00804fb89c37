"""A streamed answer as outputs of a cell: finished blocks that stay, a tail that is repainted.

Repaints are frequent while they are cheap, and cost in all no more than a multiple of the text,
however long the tail.
"""

from __future__ import annotations

import sys

from llm_magic.display.blocks import Splitter

ALLOWANCE = 32_768
"""Bytes that repaints may cost whatever the length of the text, so that short answers are smooth."""
SHARE = 1.5
"""Bytes that repaints may cost for each byte of text."""
SLOWEST = 0.25
"""Seconds between repaints of a short tail where the allowance is used up."""
SHORT = 2_048
"""Bytes of a tail that may be repainted at the slowest pace, whatever it costs."""
SECONDS_PER_BYTE = 60e-6
"""Seconds between repaints for each byte of the tail: a browser is to have most of its time for itself."""
LONGEST = 2.0
"""Seconds between repaints at most, where the bytes allow one."""
ENVELOPE = 760
"""Bytes of a message around its text: headers, ids, the signature, and the line that more will come."""
EAGER = 10
"""Outputs that blocks may become as they are finished."""
MOST = 48
"""Outputs of one cell that front ends show, less one for the tail and one for a line below."""
LARGEST = 6_144
"""Characters of finished blocks in one output: a browser renders an output in one go."""
LONG_CODE = 8_192
"""Characters of a code block that are repainted at most: of a longer one the lines so far become an output."""


def enough(outputs: int) -> int:
    """Return how many characters of finished blocks make the next output of a cell that has `outputs`.

    JupyterLab and Notebook show the first 50 outputs of a cell (`maxNumberOutputs`). So the first few blocks are
    outputs of their own, later ones wait for each other: 44 outputs hold 70,000 characters, 48 three times as many.
    """
    if outputs < EAGER:
        return 0
    if outputs < MOST - 4:
        return int(300 * 1.1 ** (outputs - EAGER))
    return 10_000 * 2 ** (outputs - MOST + 4) if outputs < MOST else sys.maxsize


class Pace:
    """Decides when a tail is due for its next repaint: at most `repaints` times a second."""

    def __init__(self, repaints: float) -> None:
        self._shortest = 1.0 / repaints
        self._spent = 0.0
        self._last = float("-inf")

    def delay(self, now: float, size: int, text: int) -> float:
        """Return the seconds until a tail of `size` bytes, of a text of `text` bytes so far, is due; 0: it is."""
        interval = max(self._shortest, min(size * SECONDS_PER_BYTE, LONGEST))
        if self._spent + size + ENVELOPE > ALLOWANCE + SHARE * text:
            if size > SHORT:
                return SLOWEST  # when the text has grown enough; ask again
            interval = max(interval, SLOWEST)
        return max(0.0, self._last + interval - now)

    def painted(self, now: float, size: int) -> None:
        """Count a repaint."""
        self._last = now
        self._spent += size + ENVELOPE


class StreamingOutputs:
    r"""Divides an answer into outputs.

    >>> flow = StreamingOutputs()
    >>> flow.feed("One.\n\nTwo.\n\nThr")
    >>> flow.settled(outputs=0), flow.tail
    (['One.\n\nTwo.\n\n'], 'Thr')
    """

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._waiting: list[str] = []  # finished blocks that are no output yet
        self._waiting_length = 0
        self._shed = 0  # characters of the tail, a long code block, that are outputs already
        self._opener = ""  # the line that opened that block, where some of it is

    def feed(self, text: str) -> None:
        """Take more text."""
        for block in self._splitter.feed(text):
            self._waiting.append(self._opener + block[self._shed :])
            self._waiting_length += len(self._waiting[-1])
            self._opener, self._shed = "", 0

    @property
    def length(self) -> int:
        """Characters of the tail."""
        return self._waiting_length + self._splitter.length - self._shed

    @property
    def tail(self) -> str:
        """What is to be repainted."""
        return "".join(self._waiting) + self._opener + self._splitter.tail[self._shed :]

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
        text = "".join([*self._waiting, self._opener, tail[self._shed : end], self._splitter.closing])
        self._waiting.clear()
        self._waiting_length = 0
        self._shed, self._opener = end, opener
        return [text]
