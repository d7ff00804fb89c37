"""`<think>…</think>` at the start of an answer is reasoning, wherever the stream cuts the tags."""

from __future__ import annotations

from llm_magic.events import Event, ReasoningDelta, TextDelta

_OPEN, _CLOSE = "<think>", "</think>"


class Thinking:
    r"""The text of one answer, parted into reasoning and answer.

    `settled` is true once nothing but text can follow: the caller may then pass by. White space
    around the tags belongs to them, so that the answer is the answer alone.

    >>> thinking, events = Thinking(0), []
    >>> for piece in ("<thi", "nk>\nhm</th", "ink>\n\nParis", " it is"): thinking.add(piece, events)
    >>> events
    [ReasoningDelta(text='hm', index=0), TextDelta(text='Paris', index=0), TextDelta(text=' it is', index=0)]
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._held = ""
        self._opened = self._closed = self._said = False
        self.settled = False

    def add(self, text: str, out: list[Event]) -> None:
        """Take the next piece of content."""
        if self.settled:
            out.append(TextDelta(text, self._index))
            return
        held = self._held + text
        if not self._opened:
            start = held.lstrip()
            self._opened = start.startswith(_OPEN)
            self.settled = not _OPEN.startswith(start) and not self._opened
            held = start[len(_OPEN) :] if self._opened else held
        if self._opened and not self._closed:
            held = self._reason(held, out)
        if self._closed:
            held = held.lstrip()
            self.settled = bool(held)
        if self.settled:
            out.append(TextDelta(held, self._index))
        self._held = "" if self.settled else held

    def _reason(self, held: str, out: list[Event]) -> str:
        """Give out the reasoning; return what may belong to the closing tag, or stands after it."""
        thought, closed, rest = held.partition(_CLOSE)
        self._closed = bool(closed)
        if not closed:
            cut = next((size for size in range(len(_CLOSE) - 1, 0, -1) if held.endswith(_CLOSE[:size])), 0)
            thought = held[: len(held) - cut]
            rest = held[len(thought.rstrip()) :]  # white space may stand before the closing tag
        thought = thought.rstrip() if self._said else thought.strip()
        if thought:
            self._said = True
            out.append(ReasoningDelta(thought, self._index))
        return rest

    def end(self, out: list[Event]) -> None:
        """Give out what was held back: the answer ended here."""
        inside = self._opened and not self._closed
        if self._held.strip() if inside else self._held:
            out.append((ReasoningDelta if inside else TextDelta)(self._held, self._index))
        self._held, self.settled = "", True
