"""The cell's own thread: it takes events as they come, keeps the screen current, and can be interrupted."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from llm_magic.background_loop import BackgroundLoop, Channel
from llm_magic.draft import Draft
from llm_magic.errors import InputError
from llm_magic.events import Attempt, Note, Progress, Restarted, TextDelta
from llm_magic.response import Response
from llm_magic.session.run import Run
from llm_magic.session.tool_runner import Question, RunEvent

if TYPE_CHECKING:
    from llm_magic.display import View
    from llm_magic.output.partial import PartialJSON

PATIENCE = 1.0
"""Seconds of silence after which the view says what it waits for."""


def follow(run: Run, view: View, loop: BackgroundLoop) -> Response:
    """Run a plan and show it until it ends.

    Raises
    ------
    LLMError
        What went wrong; the view keeps what had arrived, and the error's `response` holds it.
    KeyboardInterrupt
        The user interrupted: the request is closed at the server, `run.response` holds what had arrived.

    """
    channel: Channel[RunEvent] = Channel(loop, run.answer)
    run.stop, stopped = channel.stop, run.stopped
    if stopped:
        channel.stop()
    screen = _Screen(run, view)
    try:
        while (batch := channel.receive(view.wait)) is not None:
            screen.show(batch)
    except (KeyboardInterrupt, CancelledError):
        channel.cancel()
        view.fail(run.response)
        raise
    except Exception as error:
        view.fail(None if isinstance(error, InputError) else run.response)
        raise
    assert run.response is not None  # noqa: S101 - set by every end of `answer`
    return run.response


class _Screen:
    """What the cell's thread knows of the answer so far, and the view that shows it."""

    def __init__(self, run: Run, view: View) -> None:
        self._run = run
        self._view = view
        self._draft = Draft()
        self._growing = self._new_growing()
        self._grown = 0  # the position up to which it knows the text
        self._silent_since = time.perf_counter()
        self._said = 0
        self._failed = ""  # why the attempt before this one did

    def _new_growing(self) -> PartialJSON | None:
        spec = self._run.plan.spec
        if spec is None or spec.kind != "json":
            return None
        from llm_magic.output.partial import PartialJSON

        return PartialJSON()

    def show(self, batch: list[RunEvent]) -> None:
        """Fold a batch in and bring the view up to date; an empty batch is the passing of time."""
        for event in batch:
            if type(event) is TextDelta:  # which is faster than isinstance
                self._draft.add(event)
            elif isinstance(event, Question):
                event.reply(_ask_user(event))
            else:
                self._show_other(event)
        if self._draft.first_token_seconds is None:
            self._show_waiting(batch)
        else:
            self._view.update(self._draft, self._value_so_far if self._growing is not None else None)

    def _show_other(self, event: Any) -> None:
        self._draft.add(event)
        if isinstance(event, Note):
            self._view.note(event.text)
        elif isinstance(event, Progress):
            self._view.progress(event.text)
        elif isinstance(event, Attempt):
            self._show_attempt(event)
        elif isinstance(event, Restarted):
            self._growing, self._grown = self._new_growing(), 0

    def _show_attempt(self, attempt: Attempt) -> None:
        """Say that a request failed and is repeated, and when."""
        if attempt.final:
            self._failed = ""
            return
        self._failed = str(attempt.status or attempt.reason)
        seconds = round(attempt.retry_after or 0.0)
        wait = f" in {seconds} s" if seconds else ""
        self._view.progress(f"{attempt.provider}: {self._failed}, trying again{wait}")
        self._silent_since, self._said = time.perf_counter() + seconds, 0

    def _value_so_far(self) -> Any:
        """Return the typed value as far as it can be read."""
        spec = self._run.plan.spec
        assert self._growing is not None  # noqa: S101 - only then is this handed out
        assert spec is not None  # noqa: S101 - likewise
        fresh, self._grown = self._draft.buffer().read(self._grown)
        self._growing.feed(fresh)
        return spec.unwrapped(self._growing.value)

    def _show_waiting(self, batch: list[RunEvent]) -> None:
        """Say what the wait is for, once a second."""
        now = time.perf_counter()
        if any(isinstance(event, (Progress, Note)) for event in batch):
            self._silent_since, self._said = now, 0
        waited = int(now - self._silent_since)
        if waited > self._said and waited >= PATIENCE:
            self._said = waited
            again = f" (trying again after {self._failed})" if self._failed else ""
            self._view.progress(f"waiting for {self._run.asks}: {waited} s{again}")


def _ask_user(question: Question) -> bool:
    """Ask whether a call may run; in a front end without input that is an error."""
    call = question.call
    return input(f"Run {call.name}({call.arguments})? [y/N] ").strip().lower() in {"y", "yes"}
