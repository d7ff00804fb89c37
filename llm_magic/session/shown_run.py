"""One run as a view shows it: told what the run emits, batch by batch, on the thread that shows it."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llm_magic.draft import Draft
from llm_magic.errors import InputError
from llm_magic.events import Attempt, Event, Note, Progress
from llm_magic.model_names import led_by, shown_model
from llm_magic.session.run import Run
from llm_magic.session.tool_runner import Question, RunEvent

if TYPE_CHECKING:
    from collections.abc import Collection

    from llm_magic.display import View
    from llm_magic.output.json_text import PartialJSON
    from llm_magic.response import Response

_OK = 200  # the status of an answer that broke off later
PATIENCE = 1.0
"""Seconds of silence after which the view says what it waits for."""
LOOK = 0.1
"""Seconds after which it is seen that a request is prepared, where recordings were looked at first."""


class ShownRun:
    """What a view is told of one run, whose draft is read here.

    Parameters
    ----------
    run
        What runs, on the loop; it has not begun yet.
    view
        Shows it.
    asked_by
        What names the run where the user is asked whether a call may run; empty where there is one run alone.
    told
        Notes that the user was told elsewhere.

    """

    def __init__(self, run: Run, view: View, *, asked_by: str = "", told: Collection[str] = ()) -> None:
        self.run = run
        self.view = view
        self._asked_by, self._notes_told = asked_by, frozenset(told)
        self._held = run.draft.replaying
        self._draft = Draft() if self._held else run.draft
        """What is shown. From a recording all is there at once: it is told event by event, as it came."""
        if self._held:
            view.hold()  # before the run begins: what its tools print is told from what stood there before
        self._partial: PartialJSON | None = None
        self._partial_of = -1  # the generation of the draft that it reads
        self._read = 0  # the position in its text
        self._silent_since = time.perf_counter()
        self._said = 0
        self._failed = ""  # why the attempt before this one did

    @property
    def wait(self) -> float:
        """Seconds after which `show` should be called again, with or without news."""
        return LOOK if self._held else self.view.wait

    def show(self, batch: list[RunEvent]) -> None:
        """Take note of a batch and bring the view up to date; an empty batch is the passing of time."""
        if self._held:
            self._show_recorded(batch)
        else:
            self._show(batch)

    def finish(self, response: Response, *, footer: bool) -> None:
        """Show what the run gave, with the quiet line below it where it has a `footer`."""
        from llm_magic.display.footer import footer as line

        self.view.finish(response, line(response) if footer else "")

    def fail(self, error: BaseException | None = None) -> None:
        """Keep what had arrived; `error` is what ended the run, None where it was stopped."""
        response = self.run.response
        came = response is not None and response.text
        self.view.fail(None if isinstance(error, InputError) and not came else response)

    def _show(self, batch: list[RunEvent]) -> None:
        """Show what is live."""
        told = [event for event in batch if type(event) in _TOLD]
        before = False  # whether something of the answer stands before, which is shown first
        for event in batch:
            if type(event) in _TOLD:
                if before and isinstance(event, Note) and self._draft.begun:
                    self._update()
                self._tell(event)
            else:
                before = True
        if self._draft.begun:
            self._update()
        else:
            self._show_waiting(told)

    def _show_recorded(self, batch: list[RunEvent]) -> None:
        """Show what comes from a recording, without what only the moment is for; go on live where a request is sent."""
        live = not self.run.draft.replaying  # looked at first: what is live may be in the next batch only
        kind: type | None = None
        for event in batch:
            if type(event) is not kind and self._draft.begun:
                self._update()
            kind = type(event)
            if isinstance(event, Event):
                self._draft.add(event)
            if isinstance(event, (Note, Question)):
                self._tell(event)
        if self._draft.begun:
            self._update()
        if live:
            self._held, self._draft = False, self.run.draft
            self.view.release()
            self._silent_since = time.perf_counter()
            self._show([event for event in batch[-1:] if isinstance(event, Progress)])

    def _tell(self, event: RunEvent) -> None:
        """Tell an event that is seen by itself."""
        if isinstance(event, Note):
            if event.text not in self._notes_told:
                self.view.note(event.text)
        elif isinstance(event, Progress):
            self.view.progress(event.text)
        elif isinstance(event, Attempt):
            self._failed = "" if event.final else _why(event)
            if not event.final:
                self._show_attempt(event)
        elif isinstance(event, Question):
            self.view.pause()
            event.reply(_ask_user(event, self._asked_by))

    def _update(self) -> None:
        """Bring the view up to date."""
        spec = self.run.plan.spec
        typed = spec is not None and spec.kind != "grammar"  # whose text may be anything, JSON too
        self.view.update(self._draft, self._value_so_far if typed else None)

    def _show_attempt(self, attempt: Attempt) -> None:
        """Say that a request failed and is repeated, and when."""
        seconds = round(attempt.retry_after or 0.0)
        wait = f" in {seconds} s" if seconds else ""
        self.view.progress(f"{attempt.provider}: {self._failed}, trying again{wait}")
        self._silent_since, self._said = time.perf_counter() + seconds, 0

    def _value_so_far(self) -> Any:
        """Return the typed value as far as it can be read."""
        draft, spec = self._draft, self.run.plan.spec
        if self._partial is None or self._partial_of != draft.generation:
            from llm_magic.output.json_text import PartialJSON

            self._partial, self._partial_of, self._read = PartialJSON(), draft.generation, 0
        fresh, self._read = draft.buffer(0, self._partial_of).read(self._read)
        self._partial.feed(fresh)
        return spec.so_far(self._partial.value, draft.text) if spec is not None else None

    def _show_waiting(self, told: list[RunEvent]) -> None:
        """Say what the wait is for, once a second."""
        now = time.perf_counter()
        if any(isinstance(event, (Progress, Note)) for event in told):
            self._silent_since, self._said = now, 0
        waited = int(now - self._silent_since)
        if waited > self._said and waited >= PATIENCE:
            self._said = waited
            again = f" (trying again after {self._failed})" if self._failed else ""
            self.view.progress(f"waiting for {shown_model(self.run.model)}: {waited} s{again}")


_TOLD = frozenset({Note, Progress, Attempt, Question})
"""Events that the screen tells by themselves; what the others change is read from the draft."""


MOST_SHOWN = 4_000
"""Characters of a call's arguments that a question shows."""


def _why(attempt: Attempt) -> str:
    """Return in a word why an attempt failed."""
    return attempt.reason if attempt.status in (None, _OK) else str(attempt.status)


def _ask_user(question: Question, asked_by: str) -> bool:
    """Ask whether a call may run: only a yes is one, and no input (the end of a file) is a no."""
    who = led_by(_visible(asked_by), "") if asked_by else ""
    call = question.call
    arguments = _visible(call.arguments)
    more = f"… and {len(arguments) - MOST_SHOWN:,} more characters" if len(arguments) > MOST_SHOWN else ""
    try:
        answer = input(f"{who}Run {_visible(call.name)}({arguments[:MOST_SHOWN]}{more})? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in {"y", "yes"}


def _visible(text: str) -> str:
    """Return what a model wrote on one line, as it will be read, with nothing that acts on a screen or hides in it."""
    with suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), ensure_ascii=False)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
