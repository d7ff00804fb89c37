"""Text that grows by many small pieces, and that readers on any thread follow at the cost of what is new."""

from __future__ import annotations

import threading

_MANY = 1024
"""Pieces that are kept as they came; more are packed, for a short string takes several times its text."""
_CODEC = ("utf-8", "surrogatepass")


class TextBuffer:
    """Text to which is only added.

    What is packed is one block of memory that grows in place, so that it leaves no holes behind: of ten million
    characters in a million pieces the process keeps little more than ten million bytes, and gives them back.

    >>> buffer = TextBuffer()
    >>> buffer.append("Hel")
    >>> fresh, position = buffer.read(0)
    >>> buffer.append("lo")
    >>> fresh, buffer.read(position)[0], str(buffer), len(buffer)
    ('Hel', 'lo', 'Hello', 5)
    """

    __slots__ = ("_begins", "_length", "_lock", "_packed", "_pieces", "_text")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._text = ""  # what was asked for as a whole
        self._begins = 0  # its bytes: where what is packed begins
        self._packed = bytearray()  # what follows it
        self._pieces: list[str] = []  # and what follows that
        self._length = 0

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
                fresh = bytearray(self._text.encode(*_CODEC)[position:]) + self._packed
            return fresh.decode(*_CODEC), self._begins + len(self._packed)

    def __len__(self) -> int:
        with self._lock:
            self._pack()
            return self._length

    def __str__(self) -> str:
        with self._lock:
            self._pack()
            if self._packed:
                self._text += self._packed.decode(*_CODEC)
                self._begins += len(self._packed)
                self._packed = bytearray()
            return self._text

    def _pack(self) -> None:
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces.clear()
            self._length += len(text)
            self._packed += text.encode(*_CODEC)
