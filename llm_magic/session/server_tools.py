"""Tools of MCP servers for a plan: listed on the loop before its first request, or taken from a recording."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magic.errors import OptionError, RecordingError, ToolError
from llm_magic.events import Note

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.mcp.servers import MCPServers
    from llm_magic.mcp.tool import MCPTool
    from llm_magic.session.plan import Plan
    from llm_magic.session.recorder import Recorder

MOST_TOOLS = 128
"""Tools of one request: more are refused by OpenAI, and are no help to any model."""


async def with_server_tools(
    plan: Plan, servers: MCPServers | None, emit: Emit[Any], recorder: Recorder | None = None
) -> Plan:
    """Return a plan with the tools of the MCP servers that it names, side by side with its functions.

    Parameters
    ----------
    plan
        What was planned without a look at any server.
    servers
        Those of the session; they are started where they do not run.
    emit
        Gets progress and notes.
    recorder
        Where it replays, the list of tools is the recorded one, and no server is started for it.

    Raises
    ------
    InputError
        A server is not configured, does not start or has no such tool; there are too many; or `--tool-choice` names
        none of them.

    """
    if not plan.mcp or servers is None:
        return plan
    from llm_magic.mcp.tool import with_own_names

    wanted: dict[str, list[str]] = {}
    for reference in plan.mcp:
        server, _, tool = reference.partition(".")
        names = wanted.setdefault(server, [])
        names += [tool] if tool not in names else []
    found: list[MCPTool] = []
    for server, names in wanted.items():
        found += await _tools(server, () if "" in names else tuple(names), servers, emit, recorder)
    count = len(found) + len(plan.tools)
    if count > MOST_TOOLS:
        most = max(wanted, key=lambda server: sum(tool.server == server for tool in found))
        names = [tool.own_name for tool in found if tool.server == most]
        raise ToolError(
            f"{count} tools are offered, and a request may have {MOST_TOOLS}: the MCP server {most} has {len(names)}.",
            f"Name those that are needed: {', '.join(f'mcp:{most}.{name}' for name in names[:2])}, ….",
        )
    tools = {**plan.tools, **with_own_names(found, tuple(plan.tools))}
    choice = plan.models[0].given.tool_choice
    if choice is not None and choice not in {"auto", "none", "required", *tools}:
        raise OptionError(
            f"--tool-choice {choice} is not one of the tools.",
            f"Say auto, none, required or {', '.join(list(tools)[:20])}{', …' if len(tools) > 20 else ''}.",  # noqa: PLR2004 - a few names
        )
    return replace(plan, tools=tools, mcp=())


async def _tools(
    server: str, only: tuple[str, ...], servers: MCPServers, emit: Emit[Any], recorder: Recorder | None
) -> tuple[MCPTool, ...]:
    """Return the tools of one server, as they were recorded or as it lists them."""
    from llm_magic.mcp.tool import tools_of

    recorded = recorder.server_tools(server, only) if recorder is not None else None
    if recorded is None and recorder is not None and recorder.mode == "only":
        raise RecordingError(
            f"The tools of the MCP server {server} are not recorded, and {recorder.only} starts no server.",
            "Run it once with --record once.",
        )
    listed = recorded if recorded is not None else await servers.listed(server, emit)
    tools, notes = tools_of(server, listed, servers.call, only, timeout=servers.timeout(server))
    if notes:
        await emit([Note(note) for note in notes])
    if recorder is not None and recorded is None:
        names = {tool.own_name for tool in tools}
        reason = recorder.keep_server_tools(server, only, [each for each in listed if each["name"] in names])
        if reason:
            await emit([Note(reason)])
    return tools
