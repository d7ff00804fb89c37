"""`Batch`: what offline batches answer, as a variable: `await` it, ask for its `result()`, `cancel()` it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from llm_magic.background_loop import LOOK
from llm_magic.display.batches import BatchProgress, bundle, described
from llm_magic.display.markup import Bundle
from llm_magic.errors import RowsFailedError
from llm_magic.mapping.screen import RowsInterrupted
from llm_magic.session.job import Job

if TYPE_CHECKING:
    from concurrent.futures import Future

    from llm_magic.batches.remote.state import BatchState

R = TypeVar("R")


class Counts(NamedTuple):
    """How many rows a server has answered, failed at, and has in all, as it tells; some tell it only at the end."""

    completed: int
    failed: int
    total: int


class Batch(Job[R]):
    """Rows, or texts, that offline batches answer: `await batch`, `.result()`, `.status`, `.counts`, `.cancel()`.

    It goes on at its server whatever becomes of this process: the same cell, or the same call of `LLM.batch` or
    `LLM.embed_batch`, finds it again, another day and in another kernel. The result of the former are `Answers`, that
    of the latter `Vectors`.

    Parameters
    ----------
    model
        The model as asked for.
    future
        The result.
    stop
        Stops the waiting; the batch goes on at its server.

    """

    def __init__(self, model: str, future: Future[R], stop: Callable[[], str]) -> None:
        super().__init__(model, future, stop)
        self._state: BatchState | None = None

    @classmethod
    def submitted(cls, model: str, answer: Future[R], state: BatchState) -> Self:
        """Return the batch of an answer that is worked on, once all of it is submitted.

        Raises
        ------
        LLMError
            It cannot be submitted.
        RowsInterrupted
            The user interrupted.

        """

        def stop() -> str:
            answer.cancel()
            return state.how_far()

        batch = cls(model, answer, stop)
        batch.follow(state)
        batch.until_submitted()
        return batch

    def until_submitted(self) -> None:
        """Return once all of it is submitted; what goes wrong until then is raised.

        Raises
        ------
        LLMError
            It cannot be submitted.
        RowsInterrupted
            The user interrupted.

        """
        if self._state is None:
            return
        try:
            while not self._state.submitted.wait(LOOK):
                if self._future.done():
                    break
        except KeyboardInterrupt:
            self.leave()
            raise RowsInterrupted(self._left or "nothing was submitted.") from None
        if not self._state.is_submitted:  # it has ended before
            wait([self._future])
            if self._future.cancelled() or not isinstance(self._future.exception(), RowsFailedError):
                self._future.result()

    def follow(self, state: BatchState) -> None:
        """Have what it tells from the state of its batches."""
        self._state = state

    @property
    def ids(self) -> tuple[str, ...]:
        """The server's names of its batches, of which rows beyond 50,000, or 200 MB, are several."""
        records = self._state.records if self._state is not None else ()
        return tuple(each.batch_id for each in records if each.batch_id)

    @property
    def id(self) -> str:
        """The server's name of its first batch; empty where there is none."""
        return next(iter(self.ids), "")

    @property
    def status(self) -> str:
        """How far it is, as servers call it: of several batches that of the one that is least far.

        `submitting`, `validating`, `in_progress`, `finalizing`, `completed`, `failed`, `expired`, `cancelling`,
        `cancelled`; `completed` also where no batch was needed, because all rows were answered before.
        """
        return self._state.status if self._state is not None else "completed"

    @property
    def counts(self) -> Counts:
        """How many rows its server has answered and failed at, and has in all."""
        return Counts(*self._state.counts) if self._state is not None else Counts(0, 0, 0)

    def cancel(self) -> bool:
        """Cancel it at its server; False where it has ended.

        What it has answered by then is paid, and comes as its result, in which other rows are failures.
        """
        if self.done() or self._state is None:
            return False
        if not self._state.submitted.is_set():
            return super().cancel()
        self._state.session.loop.run(self._state.cancel())
        return True

    def leave(self) -> None:
        """Stop the waiting, for this process ends; the batch goes on at its server."""
        super().cancel()

    @property
    def _progress(self) -> tuple[BatchProgress, ...]:
        return self._state.progress() if self._state is not None else ()

    @property
    def _name(self) -> str:
        """The beginning of its name here, of one batch alone."""
        names = [each.name for each in self._progress]
        return names[0] if len(names) == 1 else ""

    def __repr__(self) -> str:
        return described(self._name, self._model, self._progress)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:  # noqa: ARG002 - IPython's call
        return bundle(self._name, self._model, self._progress)
