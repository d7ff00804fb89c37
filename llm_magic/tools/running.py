"""One tool call is carried out: whatever goes wrong in it becomes its result, for the model to read."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from llm_magic.events import ToolResult
from llm_magic.messages import ToolCall
from llm_magic.tools.function import FunctionTool

MAX_RESULT_CHARS = 20_000
"""Characters of a result that the model gets to see."""


async def run(tool: FunctionTool | None, call: ToolCall, timeout: float) -> ToolResult:  # noqa: ASYNC109 - the timeout is an outcome here, not an exception
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

    def result(text: str, *, failed: bool = False) -> ToolResult:
        return ToolResult(call.id, call.name, call.arguments, text, failed, time.perf_counter() - started)

    if tool is None:
        return result(f"There is no function named {call.name}.", failed=True)
    try:
        arguments = tool.arguments(call.arguments)
    except ValueError as error:
        return result(f"{call.name} was not called: {error}", failed=True)
    try:
        async with asyncio.timeout(timeout):
            value, problem = await _outcome(tool.function, arguments)
    except TimeoutError:
        return result(f"{call.name} gave no result within {timeout:g} seconds.", failed=True)
    if problem is not None:
        return result(_cut(f"{type(problem).__name__}: {problem}"), failed=True)
    return result(_cut(_encoded(value)))


async def _outcome(function: Callable[..., Any], arguments: Mapping[str, Any]) -> tuple[Any, BaseException | None]:
    """Return what the function returns, or what it raises."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004 - asks whether it is async, not whether it is callable
        return await _awaited(function(**arguments))
    value, problem = await _on_a_thread(function, arguments)
    return await _awaited(value) if inspect.isawaitable(value) else (value, problem)


async def _awaited(awaitable: Any) -> tuple[Any, BaseException | None]:
    try:
        return await awaitable, None
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # we are cancelled, not the tool
        return None, error
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        return None, error


async def _on_a_thread(function: Callable[..., Any], arguments: Mapping[str, Any]) -> tuple[Any, BaseException | None]:
    """Call on a daemon thread of its own: one that never ends must not keep the kernel from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def settle(outcome: tuple[Any, BaseException | None]) -> None:
        if not done.done():
            done.set_result(outcome)

    def work() -> None:
        try:
            outcome: tuple[Any, BaseException | None] = (context.run(lambda: function(**arguments)), None)
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
