"""Tools of MCP servers for a plan: listed on the loop before its first request, or taken from a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llm_magic.errors import OptionError, RecordingError, ToolError
from llm_magic.events import Note

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.mcp.servers import MCPServers
    from llm_magic.mcp.tool import MCPTool
    from llm_magic.session.plan import Plan
    from llm_magic.session.recorder import Recorder
    from llm_magic.tools import CallableTool

MOST_TOOLS = 128
"""Tools of one request: more are refused by OpenAI, and are no help to any model."""


async def with_server_tools(
    plan: Plan,
    servers: MCPServers | None,
    emit: Emit[Any],
    recorder: Recorder | None = None,
    *,
    changed: ListedAgain | None = None,
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
    changed
        Where a round of calls may have changed the tools: what they were before.

    Raises
    ------
    InputError
        A server is not configured, does not start or has no such tool; there are too many; or `--tool-choice` names
        none of them.

    """
    if not plan.mcp or servers is None:
        return plan
    from llm_magic.mcp.tool import with_own_names

    wanted = servers_named(plan.mcp)
    found: list[MCPTool] = []
    for server, names in wanted.items():
        found += await _tools(server, names, servers, emit, recorder, changed=changed)
    _check_number(len(plan.tools), found)
    tools = {**plan.tools, **with_own_names(found, tuple(plan.tools))}
    choice = plan.models[0].given.tool_choice
    if choice is not None and choice not in {"auto", "none", "required", *tools} and changed is None:
        some = ", ".join(list(tools)[:_SOME]) + (", …" if len(tools) > _SOME else "")
        raise OptionError(f"--tool-choice {choice} is not one of the tools.", f"Say auto, none, required or {some}.")
    return replace(plan, tools=tools, mcp=())


@dataclass(frozen=True, slots=True)
class ListedAgain:
    """Why tools are listed once more: calls of theirs were carried out."""

    tools: Mapping[str, CallableTool]
    """The tools before."""
    after: str
    """The key of the request whose answer called them."""
    live: bool
    """Whether that answer came from a server; else no MCP server is asked either."""


def servers_named(references: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the servers that are named, each with the tools that are wanted; none of these: all.

    >>> servers_named(("files.read", "docs", "files.list", "docs.search"))
    {'files': ('read', 'list'), 'docs': ()}

    """
    wanted: dict[str, list[str]] = {}
    for reference in references:
        server, _, tool = reference.partition(".")
        wanted.setdefault(server, []).append(tool)
    return {server: () if "" in names else tuple(names) for server, names in wanted.items()}


def _check_number(functions: int, found: list[MCPTool]) -> None:
    """Refuse more tools than a request may have, and say how some are picked."""
    count = functions + len(found)
    if count <= MOST_TOOLS:
        return
    by_server: dict[str, list[str]] = {}
    for tool in found:
        by_server.setdefault(tool.server, []).append(tool.own_name)
    most, names = max(by_server.items(), key=lambda each: len(each[1]), default=("", []))
    raise ToolError(
        f"{count} tools are offered, and a request may have {MOST_TOOLS}: the MCP server {most} has {len(names)}.",
        f"Name those that are needed: {', '.join(f'mcp:{most}.{name}' for name in names[:2])}, ….",
    )


_SOME = 20


async def _tools(
    server: str,
    only: tuple[str, ...],
    servers: MCPServers,
    emit: Emit[Any],
    recorder: Recorder | None,
    *,
    changed: ListedAgain | None,
) -> tuple[MCPTool, ...]:
    """Return the tools of one server, as they were recorded or as it lists them."""
    from llm_magic.mcp.tool import MCPTool, tools_of

    after = "" if changed is None else changed.after
    recorded = recorder.server_tools(server, only, after) if recorder is not None else None
    if recorded is None and changed is not None and not changed.live:
        return tuple(tool for tool in changed.tools.values() if isinstance(tool, MCPTool) and tool.server == server)
    if recorded is None and recorder is not None and recorder.mode == "only":
        raise RecordingError(
            f"The tools of the MCP server {server} are not recorded, and {recorder.only} starts no server.",
            "Run it once with --record once.",
        )
    listed = recorded if recorded is not None else await servers.listed(server, emit)
    tools, notes = tools_of(server, listed, servers.call, only, timeout=servers.timeout(server))
    if notes and changed is None:
        await emit([Note(note) for note in notes])
    if recorder is not None and recorded is None and (changed is None or _differ(server, tools, changed)):
        names = {tool.own_name for tool in tools}
        kept = [each for each in listed if each["name"] in names]
        if reason := recorder.keep_server_tools(server, only, after, kept):
            await emit([Note(reason)])
    return tools


def _differ(server: str, tools: tuple[MCPTool, ...], changed: ListedAgain) -> bool:
    """Tell whether a server lists other tools than before, whatever a model calls them."""
    from llm_magic.mcp.tool import MCPTool

    before = [tool for tool in changed.tools.values() if isinstance(tool, MCPTool) and tool.server == server]
    now, then = ([(tool.own_name, tool.tool.description, tool.schema) for tool in each] for each in (tools, before))
    return now != then
