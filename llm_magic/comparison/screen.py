"""The screen of a comparison: one thread feeds a column for each model, and can be interrupted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from llm_magic.background_loop import BackgroundLoop, Channel
from llm_magic.comparison.responses import Comparison, hint_of
from llm_magic.comparison.run import ComparisonRun, Ended, Told
from llm_magic.errors import Interrupted, LLMError
from llm_magic.model_names import shown_models
from llm_magic.session.shown_run import ShownRun
from llm_magic.session.tool_runner import Question

if TYPE_CHECKING:
    from llm_magic.display import ComparisonView


class ComparisonInterrupted(Interrupted):
    """The user interrupted a comparison: all requests are closed, and `response` holds what had arrived."""

    def __init__(self, comparison: Comparison, kept_in: str = "_llm.responses") -> None:
        super().__init__(comparison, kept_in)

    def _render_traceback_(self) -> list[str]:
        return [f"KeyboardInterrupt: the requests were stopped; {self._kept_in} has what had arrived."]


class ComparisonScreen:
    """Follows the runs of several models on the thread that shows them.

    Parameters
    ----------
    run
        What runs, on the loop; it starts at once.
    view
        Shows it.
    loop
        Where it runs.
    notes
        What the user should know before anything else.
    finish
        Called with the comparison before it is shown; what it returns is the line below all columns, or empty.
    footer
        Whether the quiet line is shown below each answer.

    """

    def __init__(
        self,
        run: ComparisonRun,
        view: ComparisonView,
        loop: BackgroundLoop,
        notes: tuple[str, ...],
        finish: Callable[[Comparison], str],
        *,
        footer: bool,
    ) -> None:
        self.run = run
        self.view = view
        self._finish = finish
        self._footer = footer
        shared = tuple(dict.fromkeys((*notes, *run.shared_notes)))
        titles = shown_models(run.names)
        views = view.begin(run.names)
        for note in shared:
            view.note(note)
        self._columns = [
            ShownRun(each, column, asked_by=titles[name], told=shared)
            for name, each, column in zip(run.names, run.runs, views, strict=True)
        ]
        self._going = set(range(len(self._columns)))  # the places of runs that have not ended
        self._channel: Channel[Told] = Channel(loop, run.answer)

    @property
    def model(self) -> str:
        """The models as asked for."""
        return ", ".join(shown_models(self.run.names).values())

    def stop(self) -> str:
        """End the runs, and return in a line what is left of them."""
        self._channel.stop()
        return "what had arrived stays on screen"

    def follow(self) -> Comparison:
        """Show the runs until all have ended.

        Raises
        ------
        ComparisonInterrupted
            The user interrupted: all requests are closed at their servers, `response` holds what had arrived.
        CancelledError
            It was cancelled.

        """
        try:
            while (batch := self._channel.receive(self._wait)) is not None:
                self._show(batch)
            comparison: Comparison = self._channel.result()
        except KeyboardInterrupt:
            self._channel.cancel()
            self._stopped()
            raise ComparisonInterrupted(self.run.so_far()) from None
        except CancelledError:
            self._channel.cancel()
            self._stopped()
            raise
        except Exception:
            self._stopped()
            raise
        for notice in self.run.session.take_notices():
            self.view.note(notice)
        below = self._finish(comparison)
        typed = any(plan.spec is not None for plan in self.run.plans)
        self.view.finish(comparison.value if typed else None, below)
        return comparison

    @property
    def _wait(self) -> float:
        return min([self.view.wait, *(self._columns[place].wait for place in self._going)])

    def _show(self, batch: list[Told]) -> None:
        """Tell each column what its run told; to all others time has passed."""
        told: dict[int, list[Any]] = {place: [] for place in self._going}
        for place, event in batch:
            told[place].append(event)
        for place, events in told.items():
            column = self._columns[place]
            ended = events.pop() if events and isinstance(events[-1], Ended) else None
            if any(isinstance(event, Question) for event in events):
                self.view.tick()  # who is asked sees how far it is
            column.show(events)
            if ended is not None:
                self._end(place, ended)
        self.view.tick()

    def _end(self, place: int, ended: Ended) -> None:
        """Show what a run gave, or why it failed."""
        self._going.discard(place)
        column, name = self._columns[place], self.run.names[place]
        if ended.response is not None:
            column.finish(ended.response, footer=self._footer)
        elif ended.error is not None:
            column.fail(ended.error)
            self.view.failed(place, said_of(name, ended.error))

    def _stopped(self) -> None:
        """Keep what had arrived on screen."""
        for place in sorted(self._going):
            self._columns[place].fail()
        self.view.fail()


def said_of(name: str, error: LLMError) -> str:
    """Return an error as its column says it: what happened, and on a line of its own what to do next."""
    return "\n".join(filter(None, (f"{type(error).__name__}: {error.message}", hint_of(name, error))))
