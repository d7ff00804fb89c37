"""Answers stream into the panel: each by a `View` that paints escaped text a few times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from llm_magic.display.markup import MARKS
from llm_magic.picker.lines import EMPTY, answer, beside, problem, quiet, tried

if TYPE_CHECKING:
    from llm_magic.display.answer import ValueSoFar
    from llm_magic.draft import Draft
    from llm_magic.response import Response

PAUSE = 0.12
"""Seconds between two repaints."""


class Tries:
    """Shows the answers of one or several models: one as a status and an answer, several beside each other.

    `say` and `paint` are given the HTML of the status and of the answers, from any thread; `ended` is called once when
    all is over. `views` are those of the models, in their order.
    """

    def __init__(
        self,
        names: Sequence[str],
        say: Callable[[str], None],
        paint: Callable[[str], None],
        ended: Callable[[], None],
    ) -> None:
        self._lock = threading.Lock()
        self._names = names or ("",)
        self._left = len(self._names)
        self._said, self._answers = [quiet("Asking …", busy=True)] * self._left, [EMPTY] * self._left
        self._say, self._paint, self._all_ended = say, paint, ended
        self.views = [
            TryIt(partial(self._set, self._said, place), partial(self._set, self._answers, place), self._ended)
            for place in range(self._left)
        ]
        self._show()

    def _set(self, lines: list[str], place: int, html: str) -> None:
        with self._lock:
            lines[place] = html
            self._show()

    def _show(self) -> None:
        if len(self._names) == 1:
            self._say(self._said[0])
            self._paint(self._answers[0])
            return
        self._say(EMPTY)
        self._paint(beside(list(map(tried, self._names, self._answers, self._said))))

    def _ended(self) -> None:
        with self._lock:
            self._left -= 1
            over = not self._left
        if over:
            self._all_ended()


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

    def pause(self) -> None:
        """Go on: nobody is asked."""

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
