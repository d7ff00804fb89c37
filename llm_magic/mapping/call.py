"""A call of `LLM.map` or `LLM.amap`: a run over rows without a screen, waited for, awaited, or iterated over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from llm_magic.background_loop import Emit, arriving, awaited
from llm_magic.errors import InputError
from llm_magic.mapping.answers.answers import RETRY, Answers, rows_failed
from llm_magic.mapping.inputs.row_names import said_of
from llm_magic.mapping.run import RowsRun
from llm_magic.mapping.screen import RowsInterrupted
from llm_magic.options.keywords_in_errors import in_python, name_keywords, naming_keywords

if TYPE_CHECKING:
    from llm_magic.display.rows import RowsProgress
    from llm_magic.errors import LLMError
    from llm_magic.mapping.engine import Engine
    from llm_magic.mapping.inputs.inputs import Inputs
    from llm_magic.mapping.rows import Outcome
    from llm_magic.messages import ToolCall
    from llm_magic.session import Session
    from llm_magic.session.plan import Cell
    from llm_magic.session.run_spending import RunSpending

AHEAD = 2_000
"""Outcomes that an iteration over `LLM.amap` has not taken, at most: they are as large as the answers."""

PROGRESS_SECONDS = 0.25
"""Seconds between two calls of `on_progress`, at most."""


R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class ProgressCalls:
    """Calls a user's function with how far a run is, from time to time and at the end.

    Parameters
    ----------
    function
        The user's; None: nobody asks.
    progress
        Returns how far it is.
    say
        Takes a note where the function raised: it is not called again, and costs no answer.

    """

    def __init__(
        self,
        function: Callable[[RowsProgress], object] | None,
        progress: Callable[[], RowsProgress],
        say: Callable[[str], None],
    ) -> None:
        self._function, self._progress, self._say = function, progress, say
        self._telling: asyncio.Future[None] | None = None

    async def __aenter__(self) -> None:
        self._telling = asyncio.ensure_future(self._tell()) if self._function is not None else None

    async def __aexit__(self, *_: object) -> None:
        if self._telling is not None:
            self._telling.cancel()
        self._call()

    async def _tell(self) -> None:
        while self._function is not None:
            await asyncio.sleep(PROGRESS_SECONDS)
            self._call()

    def _call(self) -> None:
        if self._function is None:
            return
        try:
            self._function(self._progress())
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything; SystemExit would end the loop
            self._function = None
            self._say(f"on_progress raised {said_of(error)}, and is not called again.")


class MapCall:
    """One call: the run, and what is done with its outcomes.

    Parameters
    ----------
    session, cell, inputs, on_confirm, prompt, numbers, engine, spending, binds
        As of `RowsRun`; rows that are asked for again are asked from here.
    on_progress
        Called with how far it is, from time to time and at the end; None: nobody asks.

    Raises
    ------
    InputError
        Whatever is wrong; nothing was sent.

    """

    def __init__(
        self,
        session: Session,
        cell: Cell,
        inputs: Inputs,
        on_confirm: Callable[[ToolCall], bool | Awaitable[bool]] | None = None,
        on_progress: Callable[[RowsProgress], object] | None = None,
        *,
        prompt: Callable[[Any], Any] | None = None,
        numbers: Sequence[int] | None = None,
        engine: Engine | None = None,
        spending: RunSpending | None = None,
        binds: bool = True,
    ) -> None:
        self.session = session
        self.run = RowsRun(
            session,
            cell,
            inputs,
            on_confirm,
            prompt=prompt,
            numbers=numbers,
            engine=engine,
            spending=spending,
            binds=binds,
        )
        self._again = partial(MapCall, session, cell, inputs, on_confirm, on_progress, prompt=prompt, binds=binds)
        self._telling = ProgressCalls(on_progress, self.run.progress, self.run.say)
        self.fails = self.run.plan.options.on_error != "keep"

    async def outcomes(self) -> AsyncGenerator[list[Outcome], None]:
        """Ask, and yield outcomes as they come."""
        async with self._telling:
            named: LLMError | None = None
            async with aclosing(self.run.outcomes()) as stream:
                async for batch in stream:
                    for outcome in batch:
                        if outcome.error is not None and outcome.error is not named:
                            named = outcome.error
                            name_keywords(named)
                    yield batch

    async def answers(self) -> Answers:
        """Ask, and return all answers.

        Raises
        ------
        RowsFailedError
            Rows failed, and they are not to be kept as values.

        """
        with naming_keywords():  # for who waits elsewhere
            return self.judged(self.run.answers(await self.all()))

    async def all(self) -> list[Outcome]:
        """Ask, and return all outcomes, in any order."""
        found: list[Outcome] = []
        async with aclosing(self.outcomes()) as stream:
            async for batch in stream:
                found += batch
        return found

    def judged(self, answers: Answers) -> Answers:
        """Return answers that can be asked for again; raises RowsFailedError where rows failed and are no values."""
        answers = self.repeatable(answers)
        error = rows_failed(answers, again=RETRY) if self.fails else None
        if error is not None:
            raise error
        return answers

    def repeatable(self, answers: Answers) -> Answers:
        """Return answers that can be asked for again, whatever failed."""
        answers.notes = tuple(map(in_python, answers.notes))
        answers.retry_with(partial(self._retry, answers))
        return answers

    def _retry(self, answers: Answers) -> Answers:
        """Ask again for the rows that failed."""
        call = self._again(numbers=answers.failed)
        asked = self.session.loop.run(call.all())
        return call.judged(answers.replaced(asked, call.run.seconds, call.run.notes))


class AnswersToCome(AsyncIterator["Outcome"]):
    """The answers of `LLM.amap`: `await` them all, or `async for outcome in …` as they come. Once, either way."""

    def __init__(self, call: MapCall) -> None:
        self._call = call
        self._stream: AsyncGenerator[Outcome, None] | None = None
        self._is_awaited = False

    def __await__(self) -> Generator[Any, None, Answers]:
        self._begin()
        self._is_awaited = True
        return self._all().__await__()

    def _begin(self) -> None:
        """Refuse to ask all rows a second time."""
        if self._is_awaited or self._stream is not None:
            what = "awaited" if self._is_awaited else "iterated over"
            raise InputError(f"The answers of this amap were {what} before.", "Call amap once more for others.")

    async def _all(self) -> Answers:
        from llm_magic.options.keywords_in_errors import naming_keywords

        with naming_keywords():
            return await awaited(self._call.session.loop.submit(self._call.answers()))

    def __aiter__(self) -> AsyncGenerator[Outcome, None]:
        if self._stream is None:
            self._begin()
            self._stream = self._as_they_come()
        return self._stream

    async def __anext__(self) -> Outcome:
        return await anext(self.__aiter__())

    async def aclose(self) -> None:
        """Close what is in flight."""
        if self._stream is not None:
            await self._stream.aclose()

    async def _as_they_come(self) -> AsyncGenerator[Outcome, None]:
        self._call.run.keeps_labels = False
        taken, loop = asyncio.Event(), self._call.session.loop

        async def work(emit: Emit[Outcome]) -> None:
            async with aclosing(self._call.outcomes()) as stream:
                async for batch in stream:
                    taken.clear()
                    await emit(batch)
                    if batch:  # a run of which nobody took the last answers has not ended whole: they are kept
                        await taken.wait()

        async with aclosing(arriving(loop, work, AHEAD)) as batches:
            async for batch in batches:
                for outcome in batch:
                    yield outcome
                loop.loop.call_soon_threadsafe(taken.set)


class RunOfCall(Protocol):
    """What a call of `LLM.map` runs, as far as it is waited for."""

    def how_far(self) -> str:
        """Return in a line how far it came where it was interrupted."""


class RowsCall(Protocol[R_co]):
    """A call of `LLM.map`, of one model or of several."""

    session: Session

    @property
    def run(self) -> RunOfCall:
        """What runs."""

    async def answers(self) -> R_co:
        """Ask, and return all answers."""


def wait_for(call: RowsCall[R]) -> R:
    """Wait for all answers of a call.

    Raises
    ------
    LLMError
        As `LLM.map`.
    RowsInterrupted
        The user interrupted.

    """
    try:
        return call.session.loop.run(call.answers())
    except KeyboardInterrupt:
        raise RowsInterrupted(call.run.how_far()) from None
    finally:
        call.session.tell()
