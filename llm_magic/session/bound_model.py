"""One model being asked: who it is, what it can do, how a request reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llm_magic.events import Event, Note, Progress, TextDelta, ToolCallDelta
from llm_magic.session.plan import Plan, PlannedModel, compose

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.capabilities import Capabilities
    from llm_magic.output.dialects import Structure
    from llm_magic.providers.base import Provider
    from llm_magic.request import Request
    from llm_magic.wire.call import Preview


@dataclass(frozen=True, slots=True)
class BoundModel:
    """A model and its endpoint: all that the rounds of one cell share."""

    choice: PlannedModel
    provider: Provider
    model: str
    capabilities: Capabilities
    structure: Structure | None

    def first_request(self, plan: Plan) -> Request:
        """Return the request that a plan begins with."""
        return compose(plan, self.choice, self.model, self.capabilities, self.structure)

    def exchange(self, request: Request) -> AsyncGenerator[list[Event], None]:
        """Send a request and yield what comes; what a server would surely refuse is refused here, in better words."""
        options = self.choice.options
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


async def prepare(plan: Plan, choice: PlannedModel, emit: Emit[Event]) -> BoundModel:
    """Get a model ready and learn what it can do; `emit` gets the progress."""
    target, provider = choice.target, choice.target.provider
    loop = asyncio.get_running_loop()

    def report(text: str) -> None:  # from any thread
        asyncio.run_coroutine_threadsafe(emit([Progress(text)]), loop)

    await provider.prepare(report)
    asked = _asked(plan, choice, target.model or await provider.first_model())
    if asked.structure is not None and asked.structure.notes:
        await emit([Note(note) for note in asked.structure.notes])
    return asked


async def preview(plan: Plan) -> Preview:
    """Return the first request of a plan as it would be sent; nothing is sent, started or listed."""
    choice = plan.choices[0]
    provider = choice.target.provider
    listed = provider.cached_models or ()
    asked = _asked(plan, choice, choice.target.model or (listed[0].id if listed else "(the first model listed)"))
    options = choice.options
    request = asked.first_request(plan)
    return await provider.preview(request, asked.capabilities, timeout=options.timeout, max_retries=options.retries)


def _asked(plan: Plan, choice: PlannedModel, model: str) -> BoundModel:
    """Put together what is known of one model."""
    provider = choice.target.provider
    capabilities = provider.capabilities(model)
    if choice.options.api is not None:
        capabilities = replace(capabilities, api=choice.options.api)
    structure = None
    if plan.spec is not None:
        from llm_magic.output.dialects import apply

        structure = apply(plan.spec, capabilities)
    return BoundModel(choice, provider, model, capabilities, structure)
