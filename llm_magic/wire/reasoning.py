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

    __slots__ = ("_after_close", "_held", "_index", "_inside", "_said", "settled")

    def __init__(self, index: int) -> None:
        self._index = index
        self._held = ""
        self._inside = False
        self._said = False
        self._after_close = False
        self.settled = False

    def add(self, text: str, out: list[Event]) -> None:
        """Take the next piece of content."""
        if self.settled:
            out.append(TextDelta(text, self._index))
            return
        self._held += text
        if not self._inside and not self._after_close:
            self._begin(out)
        if self._inside:
            self._reason(out)
        if self._after_close:
            self._answer(out)

    def _begin(self, out: list[Event]) -> None:
        start = self._held.lstrip()
        if start.startswith(_OPEN):
            self._inside = True
            self._held = start[len(_OPEN) :]
        elif not _OPEN.startswith(start):  # also while nothing but white space has come
            self._settle(out)

    def _reason(self, out: list[Event]) -> None:
        thought, closed, rest = self._held.partition(_CLOSE)
        if closed:
            self._inside, self._after_close = False, True
            self._held = rest
        else:
            keep = next((size for size in range(len(_CLOSE) - 1, 0, -1) if thought.endswith(_CLOSE[:size])), 0)
            cut = len(thought) - keep
            blank = len(thought[:cut]) - len(thought[:cut].rstrip())  # it may stand before the closing tag
            thought, self._held = thought[: cut - blank], thought[cut - blank :]
        thought = thought.rstrip() if closed else thought
        if not self._said:
            thought = thought.lstrip()
        if thought:
            self._said = True
            out.append(ReasoningDelta(thought, self._index))

    def _answer(self, out: list[Event]) -> None:
        self._held = self._held.lstrip()
        if self._held:
            self._settle(out)

    def _settle(self, out: list[Event]) -> None:
        self.settled = True
        if self._held:
            out.append(TextDelta(self._held, self._index))
            self._held = ""

    def end(self, out: list[Event]) -> None:
        """Give out what was held back: the answer ended here."""
        if self._inside:
            self.settled = True
            if self._held.strip():
                out.append(ReasoningDelta(self._held, self._index))
            self._held = ""
        elif not self.settled:
            self._settle(out)
