"""The screen of one cell: its thread follows the answer on the loop, keeps the view current, and can be interrupted."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from llm_magic.background_loop import BackgroundLoop, Channel, Emit
from llm_magic.errors import Interrupted
from llm_magic.model_names import shown_model
from llm_magic.response import Response
from llm_magic.session.run import Run
from llm_magic.session.shown_run import ShownRun
from llm_magic.session.tool_runner import RunEvent

if TYPE_CHECKING:
    from llm_magic.display import View


class Screen:
    """Follows one run on the thread that shows it.

    Parameters
    ----------
    run
        What runs, on the loop; its draft is read here.
    view
        Shows it.
    loop, answer
        Where the run's coroutine goes, and the function that makes it: it starts at once.
    footer
        Whether the quiet line is shown below the answer.

    """

    def __init__(
        self,
        run: Run,
        view: View,
        loop: BackgroundLoop,
        answer: Callable[[Emit[RunEvent]], Coroutine[Any, Any, Response]],
        *,
        footer: bool,
    ) -> None:
        self.run = run
        self.view = view
        self._shown = ShownRun(run, view)
        self.channel: Channel[RunEvent] = Channel(loop, answer)
        self._footer = footer

    @property
    def model(self) -> str:
        """The model as asked for."""
        return self.run.plan.models[0].target.asked

    def stop(self) -> str:
        """End the run, and return in a line what is left of it."""
        self.channel.stop()
        return "what had arrived stays on screen"

    def follow(self) -> Response:
        """Show the run until it ends.

        Raises
        ------
        LLMError
            What went wrong; the view keeps what had arrived, and the error's `response` holds it.
        Interrupted
            The user interrupted: the request is closed at the server, `response` holds what had arrived.
        CancelledError
            The run was cancelled.

        """
        shown = self._shown
        try:
            self.view.begin(shown_model(self.model))
            while (batch := self.channel.receive(shown.wait)) is not None:
                self._show(batch)
            response: Response = self.channel.result()
        except KeyboardInterrupt:
            self.channel.cancel()
            shown.fail()
            raise Interrupted(self.run.response) from None
        except CancelledError:
            self.channel.cancel()
            shown.fail()
            raise
        except Exception as error:
            shown.fail(error)
            raise
        shown.finish(response, footer=self._footer)
        return response

    def _show(self, batch: list[RunEvent]) -> None:
        """Show a batch; an empty one is the passing of time."""
        self._shown.show(batch)
