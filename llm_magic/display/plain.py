"""An answer without a terminal: its text on stdout as it arrives, everything else on stderr."""

from __future__ import annotations

import sys

from llm_magic.control_characters import visible
from llm_magic.display import answer, markup
from llm_magic.display.answer import DraftReader, ValueSoFar
from llm_magic.draft import Draft
from llm_magic.response import Response


class PlainView:
    """Writes text with control characters as pictures; as it arrives where it `streams` and is shown as it is."""

    wait = 1.0

    def __init__(self, show: str, *, streams: bool = True) -> None:
        self._show = show
        self._streams = streams and show in {"markdown", "text"}
        self._reader = DraftReader()
        self._ends_line = True
        self._held: list[str] = []  # notes that came within a line of the answer

    def begin(self, title: str) -> None:
        """Begin; the name of the model is in the footer."""

    def hold(self) -> None:
        """Go on: what is written stays anyway."""

    def release(self) -> None:
        """Go on."""

    def pause(self) -> None:
        """Go on: nothing is repainted."""

    def progress(self, text: str) -> None:
        """Nobody watches: a line that is replaced by the next is not written."""

    def note(self, text: str) -> None:
        """Write a line to stderr: within a line of the answer, when that ends."""
        if self._ends_line:
            sys.stderr.write(f"{visible(text)}\n")
        else:
            self._held.append(text)

    def update(self, draft: Draft, value: ValueSoFar | None = None) -> None:
        """Write what is new, unless it will be a value or one of several answers."""
        self._streams = self._streams and value is None and len(draft.indexes) <= 1
        if not self._streams:
            return
        while self._reader.generation != draft.generation:
            self._write(self._reader.read(draft))
            self._end_line()
            self._reader = DraftReader(self._reader.generation + 1)
        self._write(self._reader.read(draft))

    def finish(self, response: Response, footer: str) -> None:
        """Write what is missing of the answer, or its value."""
        self._answer(response)
        if footer:
            self.note(footer)

    def fail(self, response: Response | None) -> None:
        """Write what had arrived, marked; nothing where nothing had."""
        if response is not None and answer.has_come(response):
            self._answer(response)
        self._end_line()

    def _answer(self, response: Response) -> None:
        if self._show != "none":
            if self._streams and answer.is_text(response):
                self._write(self._reader.rest(response.text))
            else:
                self._end_line()
                self._write(answer.as_text(response, self._show))
            self._end_line()
            for line in answer.beside_as_text(response):
                self.note(line)
        marked = markup.marks(response)
        if marked is not None:
            self.note(marked["text/plain"])

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(visible(text))
            sys.stdout.flush()
            self._ends_line = text.endswith("\n")
            if self._ends_line and self._held:
                held, self._held = self._held, []
                for line in held:
                    self.note(line)

    def _end_line(self) -> None:
        if not self._ends_line:
            self._write("\n")
