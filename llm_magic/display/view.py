"""The protocol of a view, which shows an answer, and how a view reads a draft: only what is new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from llm_magic.draft import Draft
from llm_magic.response import Response
from llm_magic.text_buffer import TextBuffer

ValueSoFar = Callable[[], Any]
"""Returns the typed value as far as it can be read, None before it begins; call it only to paint."""


class View(Protocol):
    """Shows one answer in one cell. Calls come from one thread, not always the cell's own."""

    @property
    def wait(self) -> float:
        """Seconds after which `update` should be called again, with or without news."""

    def begin(self, title: str) -> None:
        """Begin; `title` is the model as asked for."""

    def progress(self, text: str) -> None:
        """Show one line that what follows will replace."""

    def note(self, text: str) -> None:
        """Show one line that stays."""

    def update(self, draft: Draft, value: ValueSoFar | None = None) -> None:
        """Show what is new; `value` gives the typed value so far, None where the answer is text."""

    def finish(self, response: Response, footer: str) -> None:
        """Show the final outputs; `footer` is the quiet line below them, or empty."""

    def fail(self, response: Response | None) -> None:
        """Keep what had arrived, marked; an error follows."""


class DraftReader:
    """Follows the text of the first answer of a draft, and counts characters of all answers."""

    def __init__(self) -> None:
        self._buffer: TextBuffer | None = None  # that of the draft, once it is read
        self._position = 0  # in it
        self._read = 0  # characters of it
        self.length = 0
        """Characters of all answers."""
        self.grew = False
        """Whether the last call of `read` found something."""

    @property
    def text(self) -> str:
        """The text of the first answer, after a restart still the one that was read."""
        return str(self._buffer or "")

    def read(self, draft: Draft) -> str:
        """Return what the first answer has more than at the last call."""
        buffer = draft.buffer()
        if self._buffer is not None and buffer is not self._buffer:
            return ""  # another round has begun meanwhile: the view begins anew at its next update
        self._buffer = buffer
        fresh, self._position = buffer.read(self._position)
        self._read += len(fresh)
        length = draft.length
        self.grew, self.length = length != self.length, length
        return fresh

    def rest(self, text: str) -> str:
        """Return what a whole text has more than what was read."""
        return text[self._read :]
