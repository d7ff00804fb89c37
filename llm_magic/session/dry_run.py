"""A dry run: the first request of a plan as it would be sent, and what it would take, roughly; nothing leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magic.config.references import dry_run
from llm_magic.events import Note, Usage
from llm_magic.session.neutral_request import NeutralRequest
from llm_magic.session.plan import Plan, bind
from llm_magic.session.spending import Demand, Spending, demand, left
from llm_magic.wire.call import Estimate

if TYPE_CHECKING:
    from llm_magic.mcp.servers import MCPServers
    from llm_magic.providers.base import Price
    from llm_magic.session.recorder import Recorder
    from llm_magic.wire.call import Preview


async def with_tools(plan: Plan, servers: MCPServers | None, recorder: Recorder | None = None) -> Plan:
    """Return a plan with the tools of the MCP servers that it names, which list them; what is noted is in its notes."""
    if servers is None:
        return plan
    from llm_magic.session.server_tools import with_server_tools

    told: list[str] = []

    async def take(batch: list[Any]) -> None:
        told.extend(event.text for event in batch if isinstance(event, Note))

    known = None if recorder is None else replace(recorder, keeps=False)
    found = await with_server_tools(plan, servers, take, known)
    return replace(found, notes=(*found.notes, *told))


async def preview(plan: Plan, spending: Spending, recorder: Recorder | None = None) -> Preview:
    """Return the first request of a plan as it would be sent; nothing is sent, started, listed or downloaded.

    `recorder` is what would answer it, where it is recorded: that is said. Where it would be sent, what is left of the
    budgets in `spending` is among the notes.

    What the environment lacks, a key or the variable of a header, stands there in words.
    """
    planned = plan.models[0]
    provider, options = planned.target.provider, planned.options
    listed = provider.cached_models or ()
    with dry_run():
        model = provider.listed_model(planned.target.model) or (listed[0].id if listed else "(the first model listed)")
        bound = bind(plan, planned, model)
        request = bound.compose(plan)
        shown = await provider.preview(
            request, bound.capabilities, timeout=options.timeout, max_retries=options.retries
        )
    asked, price = demand(request), provider.price(bound.model)
    recorded = recorder is not None and is_recorded(plan, recorder)
    sent = recorder is None or not (recorded or recorder.mode == "only")
    others = ", ".join(other.target.asked for other in plan.models[1:])
    return replace(
        shown,
        notes=(
            *plan.notes,
            *bound.notes,
            *([f"Where that fails, these are asked: {others}."] if others else []),
            *([_about_recording(recorded, recorder)] if recorder is not None else []),
            *(left(spending, provider, bound.model, asked) if sent else ()),
        ),
        estimate=_estimate(asked, price),
    )


def is_recorded(plan: Plan, recorder: Recorder) -> bool:
    """Return whether the answer of one of the models is recorded."""
    for planned in plan.models:
        name = planned.target.model or recorder.model(planned.target.provider.name, planned.options.base_url)
        if recorder.has(NeutralRequest(plan, planned).data(name)):
            return True
    return False


def _about_recording(recorded: bool, recorder: Recorder) -> str:
    """Return in a line what the recordings would do."""
    if recorded:
        return "It is recorded: the answer would come from the recordings, and nothing be sent."
    if recorder.mode == "only":
        return f"It is not recorded, and {recorder.only} sends nothing: the cell would fail."
    return "It would be sent, and its answer recorded."


def _estimate(asked: Demand, price: Price | None) -> Estimate:
    """Return what a request will take, roughly."""
    tokens, most = asked.estimated, asked.answer
    if price is None:
        return Estimate(tokens, most)
    return Estimate(tokens, most, price.of(Usage(tokens, 0)), price.of(Usage(tokens, most or 0)) if most else None)
