"""One answer streams into the panel: a `View` that paints escaped text a few times a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_magic.display.markup import MARKS
from llm_magic.picker.lines import answer, problem, quiet

if TYPE_CHECKING:
    from llm_magic.display.answer import ValueSoFar
    from llm_magic.draft import Draft
    from llm_magic.response import Response

PAUSE = 0.12
"""Seconds between two repaints."""


class TryIt:
    """Shows one answer in two lines of the panel: `say` paints the status, `paint` the answer, given HTML.

    `ended` is called once when all is over, whatever the end was.
    """

    def __init__(self, say: Callable[[str], None], paint: Callable[[str], None], ended: Callable[[], None]) -> None:
        self._say, self._paint, self._ended = say, paint, ended
        self._painted = float("-inf")
        self._text = self._model = ""
        self._notes: list[str] = []

    @property
    def wait(self) -> float:
        """Seconds after which `update` should be called again."""
        return PAUSE

    def begin(self, title: str) -> None:
        """Say who is asked."""
        self._model = title
        self._say(quiet(f"Asking {title} …", busy=True))

    def hold(self) -> None:
        """Go on: the panel is repainted."""

    def release(self) -> None:
        """Go on."""

    def progress(self, text: str) -> None:
        """Say what is waited for."""
        self._say(quiet(text, busy=True))

    def note(self, text: str) -> None:
        """Keep a line for the end."""
        self._notes.append(text)

    def update(self, draft: Draft, value: ValueSoFar | None = None) -> None:  # noqa: ARG002 - a trial has no typed value
        """Show what has arrived, unless it is too early for that."""
        now, text = time.perf_counter(), draft.text
        if now - self._painted < PAUSE or text == self._text:
            return
        if not self._text:
            self._say(quiet(f"{self._model} answers …", busy=True))
        self._painted, self._text = now, text
        self._paint(answer(text))

    def finish(self, response: Response, footer: str) -> None:
        """Show the whole answer, and what it took."""
        self._paint(answer(response.text))
        marked = MARKS.get(response.finish_reason, "")
        self._say(quiet(" ".join(filter(None, [*self._notes, marked, footer or "Done."]))))
        self._ended()

    def fail(self, response: Response | None) -> None:
        """Keep what had arrived."""
        if response is not None:
            self._paint(answer(response.text))
        self._say(quiet("Stopped."))
        self._ended()

    def error(self, error: BaseException) -> None:
        """Say what went wrong."""
        self._say(problem(str(error)))
        self._ended()
