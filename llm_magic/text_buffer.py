"""Text that grows by many small pieces, and that readers on any thread follow at the cost of what is new."""

from __future__ import annotations

import re
import threading

_MANY = 1024
"""Pieces that are kept as they came; more are packed, for a short string takes several times its text."""
_HALF = re.compile("[\ud800-\udfff]")
"""Half of a character beyond U+FFFF, as UTF-16 and the escapes of JSON have it."""
_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"


def whole(text: str) -> str:
    r"""Return text whose halves of characters are joined to one where two belong together, and else replaced.

    What is left over can be neither sent, shown nor saved: it has no UTF-8.

    >>> whole("\ud83d\ude00 \ud800") == "\U0001f600 \ufffd"
    True

    """
    if _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class TextBuffer:
    """Text to which is only added, `whole`: a half of a character waits for the other.

    What is packed is one block of memory that grows in place, so that it leaves no holes behind: of ten million
    characters in a million pieces the process keeps little more than ten million bytes, and gives them back.

    >>> buffer = TextBuffer()
    >>> buffer.append("Hel")
    >>> fresh, position = buffer.read(0)
    >>> buffer.append("lo")
    >>> fresh, buffer.read(position)[0], str(buffer), len(buffer)
    ('Hel', 'lo', 'Hello', 5)
    """

    __slots__ = ("_begins", "_half", "_length", "_lock", "_packed", "_pieces", "_text")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._text = ""  # what was asked for as a whole
        self._begins = 0  # its bytes: where what is packed begins
        self._packed = bytearray()  # what follows it
        self._pieces: list[str] = []  # and what follows that
        self._length = 0
        self._half = ""  # the first half of a character, of which the second may come

    def append(self, piece: str) -> None:
        """Add to the end."""
        with self._lock:
            self._pieces.append(piece)
            if len(self._pieces) >= _MANY:
                self._pack()

    def read(self, position: int) -> tuple[str, int]:
        """Return the text from a position on, and the position after it; 0 is the beginning.

        The work is on what is returned. A position means something to this buffer only: it counts bytes.
        """
        with self._lock:
            self._pack()
            if position >= self._begins:
                fresh = self._packed[position - self._begins :]
            else:
                fresh = bytearray(self._text.encode()[position:]) + self._packed
            return fresh.decode(), self._begins + len(self._packed)

    def __len__(self) -> int:
        with self._lock:
            self._pack()
            return self._length

    def __str__(self) -> str:
        with self._lock:
            self._pack()
            if self._packed:
                self._text += self._packed.decode()
                self._begins += len(self._packed)
                self._packed = bytearray()
            return self._text + _NO_CHARACTER if self._half else self._text

    def _pack(self) -> None:
        if self._pieces:
            text = self._half + "".join(self._pieces)
            self._pieces.clear()
            self._half = text[-1] if "\ud800" <= text[-1:] <= "\udbff" else ""
            text = whole(text[:-1] if self._half else text)
            self._length += len(text)
            self._packed += text.encode()
