"""When to repaint: often while it is cheap, and in all no more than a multiple of the text, however long the tail."""

from __future__ import annotations

import sys

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
ENVELOPE = 700
"""Bytes of a message around its text: headers, ids, the signature."""
EAGER = 10
"""Outputs that blocks may become as they are finished."""
MOST = 48
"""Outputs of one cell that front ends show, less one for the tail and one for a line below."""


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
    """Decides when a tail is due for its next repaint.

    Parameters
    ----------
    repaints
        Repaints a second, at most.

    """

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

    def wait(self, now: float) -> None:
        """Count from now, for something else has just been painted."""
        self._last = now
