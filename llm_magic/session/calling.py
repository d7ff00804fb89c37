"""The calls of one turn: carried out side by side, each one answered, whatever becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_magic.events import Event, ToolResult
from llm_magic.messages import Message, ToolCall, tool

if TYPE_CHECKING:
    from llm_magic.loop import Emit
    from llm_magic.tools import FunctionTool


@dataclass(frozen=True, slots=True)
class Question:
    """Something that only the user can answer, in the cell's thread: may this call run? `reply` takes the answer."""

    call: ToolCall
    reply: Callable[[bool], None]


Happening = Event | Question
"""What a run emits."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Carries out calls.

    `timeout` is in seconds, for each call; with `confirm` the user is asked before each.
    """

    tools: Mapping[str, FunctionTool]
    timeout: float
    confirm: bool
    emit: Emit[Happening]

    async def carry_out(self, calls: tuple[ToolCall, ...]) -> list[Message]:
        """Carry the calls out side by side; tell the results, and return a tool's message for each, in their order."""
        running = [asyncio.ensure_future(self._result(call)) for call in calls]
        messages = []
        try:
            for call, task in zip(calls, running, strict=True):
                result = await task
                await self.emit([result])
                messages.append(tool(call, result.result))
        finally:
            for task in running:
                task.cancel()
        return messages

    async def _result(self, call: ToolCall) -> ToolResult:
        bound = self.tools.get(call.name)
        if bound is None:
            return _failed(call, f"There is no tool {call.name}; there are {', '.join(self.tools)}.")
        if self.confirm and not await self._confirmed(call):
            return _failed(call, "The user declined this call.")
        from llm_magic import tools

        return await tools.run(bound, call, timeout=self.timeout)

    async def _confirmed(self, call: ToolCall) -> bool:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()

        def reply(allowed: bool) -> None:
            loop.call_soon_threadsafe(answer.set_result, allowed)

        await self.emit([Question(call, reply)])
        return await answer


def _failed(call: ToolCall, why: str) -> ToolResult:
    return ToolResult(call.id, call.name, call.arguments, why, failed=True)
