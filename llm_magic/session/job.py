"""A cell that goes on in the background: a thread of its own follows the answer into the cell's own outputs."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import traceback
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeVar

from llm_magic.background_loop import awaited
from llm_magic.model_names import shown_model

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Screen(Protocol[R_co]):
    """Shows one cell at work, on the thread that follows it: `session.screen` an answer, `mapping.screen` rows."""

    @property
    def model(self) -> str:
        """The model as asked for."""

    def follow(self) -> R_co:
        """Show what happens until it ends, and return what came of it."""

    def stop(self) -> str:
        """End the work, and return in a line what is left of it."""


class JobCancelledError(CancelledError, asyncio.CancelledError):
    """A job was cancelled, and has no answer; it is what waits on a thread and what awaits on a loop catch."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class JobTimeoutError(TimeoutError):
    """A job is not done yet."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class Job(Generic[R]):
    """An answer that is on its way, or here: `await job`, `job.result()`, `job.cancel()`, `job.done()`.

    Parameters
    ----------
    model
        The model as asked for.
    future
        The answer.
    stop
        Ends the work on it.

    """

    def __init__(self, model: str, future: Future[R], stop: Callable[[], str]) -> None:
        self._model = shown_model(model)
        self._future = future
        self._stop = stop
        self._left = ""  # of a job that was cancelled

    @classmethod
    def begin(
        cls,
        screen: Screen[R],
        bind: Callable[[R], None],
        tell: Callable[[Exception], None],
        running: set[Job[Any]],
    ) -> Self:
        """Return the job of an answer that arrives on a thread of its own.

        Parameters
        ----------
        screen
            Shows what runs, in the cell that began it.
        bind
            Called with the response when it is complete, before the job is done: it binds the variable.
        tell
            Called with the error where there is none.
        running
            The jobs that run; this one is among them until it is done.

        """
        job = cls(screen.model, Future(), screen.stop)
        running.add(job)
        work = partial(contextvars.copy_context().run, job._work, screen, bind, tell, running)
        threading.Thread(target=work, name="llm_magic job", daemon=True).start()
        return job

    @classmethod
    def ended(cls, model: str, result: R) -> Job[R]:
        """Return the job of an answer that is complete: what `-b` gives where it ran in the foreground."""
        future: Future[R] = Future()
        future.set_result(result)
        return cls(model, future, _nothing)

    def _work(
        self,
        screen: Screen[R],
        bind: Callable[[R], None],
        tell: Callable[[Exception], None],
        running: set[Job[Any]],
    ) -> None:
        try:
            response = screen.follow()
            bind(response)
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to whoever asks for the result
            running.discard(self)
            if isinstance(error, Exception) and not isinstance(error, CancelledError):
                tell(error)
            _forget(error)
            if not self._future.cancelled():
                self._future.set_exception(error)
        else:
            running.discard(self)
            if not self._future.cancelled():
                self._future.set_result(response)
        finally:
            self._stop = _nothing
            del screen, bind, tell  # the traceback of an error keeps this frame

    def done(self) -> bool:
        """Tell whether the answer is complete, failed or cancelled."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> R:
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
        try:
            return self._future.result(timeout)
        except CancelledError:
            raise self._cancelled() from None
        except TimeoutError:
            if self._future.done():
                raise
            raise JobTimeoutError(f"{self!r} has no answer yet, after {timeout:g} s; it goes on.") from None

    def cancel(self) -> bool:
        """Close the request at the server; what had arrived stays on screen. False where it was done already."""
        if self._future.done() or not self._future.cancel():
            return False
        self._left = self._stop()
        return True

    def leave(self) -> None:
        """Stop what this process does for it, which ends."""
        self.cancel()

    def _cancelled(self) -> JobCancelledError:
        return JobCancelledError(f"{self!r} has no answer{': ' * bool(self._left)}{self._left.rstrip('.')}.")

    def __await__(self) -> Generator[Any, None, R]:
        return self._awaited().__await__()

    async def _awaited(self) -> R:
        try:
            return await awaited(self._future, cancels=False)
        except asyncio.CancelledError:
            if not self._future.cancelled():
                raise  # who awaits is cancelled, and the job goes on
            raise self._cancelled() from None

    def __repr__(self) -> str:
        if not self.done():
            state = "running"
        elif self._future.cancelled():
            state = "cancelled"
        else:
            state = "failed" if self._future.exception() else "done"
        return f"<Job {self._model}: {state}>"


def _nothing() -> str:
    """Stop what has ended."""
    return ""


def _forget(error: BaseException | None) -> None:
    """Empty the frames that an error came from: `Out` may keep it, and with them the whole cell and its connection."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
