"""A cell that goes on in the background: a thread of its own follows the answer into the cell's own outputs."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from llm_magic.errors import LLMError

if TYPE_CHECKING:
    from llm_magic.display import View
    from llm_magic.response import Response
    from llm_magic.session import Session
    from llm_magic.session.plan import Cell
    from llm_magic.session.run import Run


class Job:
    """An answer that is on its way: `await job`, `job.result()`, `job.cancel()`, `job.done()`.

    Parameters
    ----------
    session, cell, run
        What runs.
    view
        Shows it, in the cell that began it.
    remember
        Called with the response when it is complete, before the job is done: it binds the variable.

    """

    def __init__(
        self, session: Session, cell: Cell, run: Run, view: View, remember: Callable[[Response], None]
    ) -> None:
        self._run = run
        self._shown_in: int | None = None  # as of a Response
        self._future: Future[Response] = Future()
        self._model = run.plan.choices[0].target.asked

        def work() -> None:
            try:
                response = session.show(cell, run, view)
                remember(response)
            except BaseException as error:  # noqa: BLE001 - whatever it is belongs to whoever asks for the result
                session.jobs.discard(self)
                if isinstance(error, LLMError):
                    view.note(f"{type(error).__name__}: {error}")
                if not self._future.cancelled():
                    self._future.set_exception(error)
            else:
                session.jobs.discard(self)
                if not self._future.cancelled():
                    self._future.set_result(response)

        session.jobs.add(self)
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), name="llm_magic job", daemon=True).start()

    def done(self) -> bool:
        """Tell whether the answer is complete, failed or cancelled."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Response:
        """Wait for the response, `timeout` seconds at most.

        Raises
        ------
        LLMError
            What went wrong.
        TimeoutError
            It is not there yet.
        concurrent.futures.CancelledError
            It was cancelled.

        """
        return self._future.result(timeout)

    def cancel(self) -> bool:
        """Close the request at the server; what had arrived stays on screen. False where it was done already."""
        if not self._future.cancel():
            return False
        self._run.stop()
        return True

    def __await__(self) -> Generator[Any, None, Response]:
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()

    def __repr__(self) -> str:
        if not self.done():
            state = "running"
        elif self._future.cancelled():
            state = "cancelled"
        else:
            state = "failed" if self._future.exception() else "done"
        return f"<Job {self._model}: {state}>"
