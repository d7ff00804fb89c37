"""One model being asked: who it is, what it can do, how a request reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llm_magic.config.references import read
from llm_magic.events import Event, Note, Progress, TextDelta, ToolCallDelta
from llm_magic.messages import Message, Text, system, user
from llm_magic.request import Parameters, Request
from llm_magic.session.plan import Plan, PlannedModel

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.capabilities import Capabilities
    from llm_magic.conversation import Turn
    from llm_magic.output.dialects import Structure
    from llm_magic.providers.base import Provider
    from llm_magic.wire.call import Preview


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model and its endpoint: all that the rounds of one cell share."""

    planned: PlannedModel
    provider: Provider
    model: str
    capabilities: Capabilities
    structure: Structure | None

    def compose(self, plan: Plan) -> Request:
        """Return the request of the first round: system prompt, as much of the conversation as fits, prompt."""
        options, structure = self.planned.options, self.structure
        parts = plan.parts
        if structure is not None and structure.instruction:
            parts = (*parts, Text(f"\n\n{structure.instruction}"))
        first = (system(options.system),) if options.system else ()
        prompt = user(*parts)
        turns = plan.turns and self._fitting(plan.turns, (*first, prompt))
        headers = {name: str(read(value, f"--header {name}")) for name, value in options.header.items()}
        forced = structure.tools if structure is not None else ()
        return Request(
            model=self.model,
            messages=(*first, *(message for turn in turns for message in turn.messages), prompt),
            parameters=Parameters(options.parameters, options.param),
            structure=structure.fields if structure is not None else {},
            tools=(*(tool.tool for tool in plan.tools.values()), *forced),
            tool_choice=forced[0].name if forced else options.tool_choice,
            stream=not options.no_stream,
            headers=headers,
            secrets=tuple(value for name, value in headers.items() if value != options.header[name]),
        )

    def _fitting(self, turns: tuple[Turn, ...], needed: tuple[Message, ...]) -> tuple[Turn, ...]:
        """Return the latest turns that leave room for prompt and answer, where the context is known."""
        context = self.capabilities.context
        if context is None:
            return turns
        from llm_magic.conversation import estimate, window

        answer = self.planned.options.parameters.get("max_tokens", context // 4)
        return window(turns, context - estimate(needed) - answer)

    def exchange(self, request: Request) -> AsyncGenerator[list[Event], None]:
        """Send a request and yield what comes; what a server would surely refuse is refused here, in better words."""
        options = self.planned.options
        stream = self.provider.exchange(
            request, self.capabilities, timeout=options.timeout, max_retries=options.retries
        )
        forced = self.structure is not None and self.structure.dialect == "tool_call"
        return _as_text(stream) if forced else stream


async def _as_text(stream: AsyncGenerator[list[Event], None]) -> AsyncGenerator[list[Event], None]:
    """Turn the arguments of a forced tool call, which are the answer, into its text."""
    async with aclosing(stream):
        async for batch in stream:
            yield [
                TextDelta(event.arguments, event.index) if isinstance(event, ToolCallDelta) else event
                for event in batch
            ]


async def prepare(plan: Plan, planned: PlannedModel, emit: Emit[Event]) -> BoundModel:
    """Get a model ready and learn what it can do; `emit` gets the progress."""
    target, provider = planned.target, planned.target.provider
    loop = asyncio.get_running_loop()

    def report(text: str) -> None:  # from any thread
        asyncio.run_coroutine_threadsafe(emit([Progress(text)]), loop)

    await provider.prepare(report)
    bound = _bind(plan, planned, target.model or await provider.first_model())
    if bound.structure is not None and bound.structure.notes:
        await emit([Note(note) for note in bound.structure.notes])
    return bound


async def preview(plan: Plan) -> Preview:
    """Return the first request of a plan as it would be sent; nothing is sent, started or listed."""
    planned = plan.models[0]
    provider, options = planned.target.provider, planned.options
    listed = provider.cached_models or ()
    bound = _bind(plan, planned, planned.target.model or (listed[0].id if listed else "(the first model listed)"))
    request = bound.compose(plan)
    return await provider.preview(request, bound.capabilities, timeout=options.timeout, max_retries=options.retries)


def _bind(plan: Plan, planned: PlannedModel, model: str) -> BoundModel:
    """Put together what is known of one model."""
    provider = planned.target.provider
    capabilities = provider.capabilities(model)
    if planned.options.api is not None:
        capabilities = replace(capabilities, api=planned.options.api)
    structure = None
    if plan.spec is not None:
        from llm_magic.output.dialects import apply

        structure = apply(plan.spec, capabilities)
    return BoundModel(planned, provider, model, capabilities, structure)
