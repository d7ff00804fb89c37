"""The calls of one turn: carried out side by side, each one answered, whatever becomes of it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticSerializationError, to_json

from llm_magic.events import Event, Note, ToolResult
from llm_magic.mcp.results import ToolOutput
from llm_magic.messages import Image, Message, ToolCall, tool
from llm_magic.tools import CallableTool, telling

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.session.recorder import RecordedResults


@dataclass(frozen=True, slots=True)
class Question:
    """Something that only the user can answer, in the cell's thread: may this call run? `reply` takes the answer."""

    call: ToolCall
    reply: Callable[[bool], None]


RunEvent = Event | Question
"""What a run emits."""


@dataclass(frozen=True, slots=True)
class ToolRunner:
    """Carries out calls.

    `timeout` is in seconds, for each call; with `confirm` each call is asked for first: `on_confirm` is called, and
    where there is none, a `Question` is emitted.
    """

    tools: Mapping[str, CallableTool]
    timeout: float
    confirm: bool
    emit: Emit[RunEvent]
    on_confirm: Callable[[ToolCall], bool | Awaitable[bool]] | None = None
    results: RecordedResults | None = None
    """Results that are recorded, and take the place of calls; None where each call is carried out."""

    async def carry_out(self, calls: tuple[ToolCall, ...]) -> list[Message]:
        """Carry the calls out side by side, and tell each result the moment it is there.

        Returns
        -------
        list of Message
            A tool's message for each call, in the order of the calls.

        """
        running = [asyncio.ensure_future(self._told(call, place)) for place, call in enumerate(calls)]
        try:
            results = await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
        return [tool(call, result.result, result.images) for call, result in zip(calls, results, strict=True)]

    async def _told(self, call: ToolCall, place: int) -> ToolResult:
        known = None if self.results is None else self.results.known(call)
        result = replace(known or await self._result(call), place=place)
        events: list[RunEvent] = [result]
        if known is None and self.results is not None and (reason := self.results.keep(call, result)):
            events.append(Note(f"{call.name}: {reason}"))
        await self.emit(events)
        return result

    async def _result(self, call: ToolCall) -> ToolResult:
        bound = self.tools.get(call.name)
        if bound is None:
            return _failed(call, f"There is no tool {call.name}; there are {', '.join(self.tools)}.")
        if self.confirm and not await self._confirmed(call):
            return _failed(call, "The user declined this call.")

        telling.set(self.emit)  # for this call alone: each is a task of its own
        return await run(bound, call, timeout=self.timeout if bound.timeout is None else bound.timeout)

    async def _confirmed(self, call: ToolCall) -> bool:
        if self.on_confirm is not None:
            return await confirmed(self.on_confirm, call)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()

        def settle(allowed: bool) -> None:
            if not answer.done():  # else the run was cancelled while the user thought
                answer.set_result(allowed)

        def reply(allowed: bool) -> None:
            loop.call_soon_threadsafe(settle, allowed)

        await self.emit([Question(call, reply)])
        return await answer


async def confirmed(on_confirm: Callable[[ToolCall], bool | Awaitable[bool]], call: ToolCall) -> bool:
    """Return what a function says of a call: an async one is awaited here, a plain one runs on a thread of its own.

    Raises
    ------
    TypeError
        It gave something else than True or False.
    Exception
        What it raises itself; a `RuntimeError` for what would end the loop: `SystemExit` and its like.

    """
    said, problem = await _outcome(on_confirm, call)
    if isinstance(problem, Exception):
        raise problem
    if problem is not None:
        raise RuntimeError(f"on_confirm raised {type(problem).__name__}") from problem
    if not isinstance(said, bool):
        raise TypeError(f"on_confirm returned {said!r:.80}, which is neither True nor False")
    return said


def _failed(call: ToolCall, why: str) -> ToolResult:
    return ToolResult(call.id, call.name, call.arguments, why, failed=True)


MAX_RESULT_CHARS = 20_000
"""Characters of a result that the model gets to see."""


async def run(tool: CallableTool | None, call: ToolCall, timeout: float) -> ToolResult:  # noqa: ASYNC109 - the timeout is an outcome here, not an exception
    """Carry out one call and return its result; nothing that a tool does wrong is raised.

    Parameters
    ----------
    tool
        The tool of that name; None where there is none.
    call
        The call, its arguments as the model wrote them.
    timeout
        Seconds after which the model is told that there is no result. An async function is cancelled then; a plain one
        runs on a thread of its own, which cannot be stopped, and is left to itself.

    Returns
    -------
    ToolResult
        A `str` as it is, anything else as JSON (what JSON cannot say as its `str`), cut to `MAX_RESULT_CHARS`.

    """
    started = time.perf_counter()

    def result(text: str, *, failed: bool = False, images: tuple[Image, ...] = ()) -> ToolResult:
        seconds = time.perf_counter() - started
        return ToolResult(call.id, call.name, call.arguments, text, failed, seconds, images=images)

    if tool is None:
        return result(f"There is no function named {call.name}.", failed=True)
    try:
        arguments = tool.arguments(call.arguments)
    except ValueError as error:
        return result(f"{call.name} was not called: {error}", failed=True)
    try:
        async with asyncio.timeout(timeout):
            value, problem = await _outcome(tool.function, **arguments)
    except TimeoutError:
        return result(f"{call.name} gave no result within {timeout:g} seconds.", failed=True)
    if problem is not None:
        return result(_cut(f"{type(problem).__name__}: {problem}"), failed=True)
    if isinstance(value, ToolOutput):
        return result(_cut(value.text), failed=value.failed, images=value.images)
    return result(_cut(_encoded(value)))


async def _outcome(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> tuple[Any, BaseException | None]:
    """Return what the function returns, or what it raises."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004 - asks whether it is async, not whether it is callable
        return await _awaited(function(*arguments, **named))
    value, problem = await _on_a_thread(function, *arguments, **named)
    return await _awaited(value) if inspect.isawaitable(value) else (value, problem)


async def _awaited(awaitable: Any) -> tuple[Any, BaseException | None]:
    try:
        return await awaitable, None
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # we are cancelled, not the tool
        return None, error
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything; SystemExit would end the loop
        return None, error


async def _on_a_thread(
    function: Callable[..., Any], /, *arguments: Any, **named: Any
) -> tuple[Any, BaseException | None]:
    """Call on a daemon thread of its own: one that never ends must not keep the kernel from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def settle(outcome: tuple[Any, BaseException | None]) -> None:
        if not done.done():
            done.set_result(outcome)

    def work() -> None:
        try:
            outcome: tuple[Any, BaseException | None] = (context.run(lambda: function(*arguments, **named)), None)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a tool is its failure, too
            outcome = (None, error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=work, name=f"llm_magic tool {getattr(function, '__name__', '')}", daemon=True).start()
    return await done


def _encoded(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return to_json(value, fallback=str, inf_nan_mode="strings").decode()
    except (PydanticSerializationError, ValueError, RecursionError):
        return repr(value)


def _cut(text: str) -> str:
    if len(text) <= MAX_RESULT_CHARS:
        return text
    return f"{text[:MAX_RESULT_CHARS]}\n[cut: the first {MAX_RESULT_CHARS} of {len(text)} characters]"
