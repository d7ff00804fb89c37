"""A tool of an MCP server, as a model sees it, and what is called where the model wants it called."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_magic.close_matches import did_you_mean
from llm_magic.control_characters import visible
from llm_magic.errors import InvalidValueError, LLMError, ToolError
from llm_magic.mcp.results import ToolOutput
from llm_magic.output.schema import validator
from llm_magic.output.schema.keywords import without_nulls
from llm_magic.output.schema.strict import strict
from llm_magic.request import Tool
from llm_magic.tools import read_arguments

Call = Callable[[str, str, Mapping[str, Any]], Awaitable[ToolOutput]]
"""Carries out a call: the server's name, the tool's as the server knows it, the arguments."""

LONGEST_DESCRIPTION = 4_000
"""Characters of a description that a model gets to see."""
LARGEST_SCHEMA = 100_000
"""Characters of a schema of arguments; a tool with a larger one is left out."""
_LONGEST_NAME = 64  # what the APIs take
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class MCPTool:
    """A tool of an MCP server that a model may call."""

    tool: Tool
    """What the model sees."""
    server: str
    """The name of its server, as it is configured."""
    own_name: str
    """What the server calls it."""
    schema: Mapping[str, Any]
    """The schema of its arguments, as the server says it."""
    call: Call
    timeout: float | None = None
    """Seconds for each call, where the server has an own limit."""

    @property
    def name(self) -> str:
        """The name that the model calls it by."""
        return self.tool.name

    def named(self, name: str) -> MCPTool:
        """Return the tool under another name."""
        return replace(self, tool=replace(self.tool, name=name))

    def arguments(self, text: str) -> dict[str, Any]:
        """Return the arguments of a call, checked by the schema; what does not fit is a `ValueError` for the model."""
        data = without_nulls(read_arguments(text, self.schema), dict(self.schema))
        try:
            validator(json.dumps(self.schema))(data)
        except InvalidValueError as error:
            raise ValueError(f"the arguments do not fit: {error.message}") from None
        return dict(data)

    async def function(self, /, **arguments: Any) -> ToolOutput:
        """Carry out a call at the server."""
        return await self.call(self.server, self.own_name, arguments)


def tools_of(
    server: str,
    listed: Sequence[Mapping[str, Any]],
    call: Call,
    only: Sequence[str] = (),
    *,
    timeout: float | None = None,
) -> tuple[tuple[MCPTool, ...], tuple[str, ...]]:
    """Return the tools that a server lists, and notes on those that cannot be used.

    Parameters
    ----------
    server
        The name of the server.
    listed
        `name`, `description` and `parameters` of each tool, as the server says them.
    call
        Carries out a call.
    only
        The tools that are wanted, by the server's names; empty: all.
    timeout
        Seconds for each call, where the server has an own limit.

    Raises
    ------
    ToolError
        The server has no such tool, or one that is wanted cannot be used.

    """
    known = {str(each["name"]): each for each in listed}
    for name in only:
        if name not in known:
            some = ", ".join(list(known)[:_SOME]) + (", …" if len(known) > _SOME else "")
            hint = did_you_mean(name, known, f"It has {some}." if known else "It has none.")
            raise ToolError(f"The MCP server {server} has no tool {_line(name)}.", hint)
    tools: list[MCPTool] = []
    notes = [] if known else [f"The MCP server {server} has no tools."]
    for name, each in known.items():
        if only and name not in only:
            continue
        try:
            tools.append(replace(_tool(server, name, each, call), timeout=timeout))
        except ToolError as error:
            if only:
                raise
            notes.append(f"{error.message} It is left out.")
    return tuple(tools), tuple(notes)


_SOME = 20


def _tool(server: str, name: str, listed: Mapping[str, Any], call: Call) -> MCPTool:
    where = f"The tool {_line(name)} of the MCP server {server} cannot be used"
    schema = {key: value for key, value in dict(listed.get("parameters") or {}).items() if key != "$schema"}
    schema = {"type": "object", "properties": {}, **schema}
    if schema["type"] != "object":
        raise ToolError(f"{where}: its arguments are no JSON object.")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{where}: the schema of its arguments is none that can be sent ({error}).") from None
    if len(text) > LARGEST_SCHEMA:
        raise ToolError(f"{where}: the schema of its arguments has {len(text):,} characters.")
    try:
        validator(text)
        closed = strict(schema).schema
    except RecursionError:
        raise ToolError(f"{where}: the schema of its arguments is nested too deeply.") from None
    except LLMError as error:
        raise ToolError(f"{where}: the schema of its arguments is wrong{_joined(error.message)}") from None
    given = visible(str(listed.get("description") or "").strip())
    if len(given) > LONGEST_DESCRIPTION:
        given = f"{given[:LONGEST_DESCRIPTION]} [cut: the first {LONGEST_DESCRIPTION:,} of {len(given):,} characters]"
    offered = Tool(valid_name(name), given, closed or schema, strict=closed is not None)
    return MCPTool(offered, server, name, schema, call)


def _joined(message: str) -> str:
    return f"{message if message.startswith(' ') else f': {message}'}".rstrip(".") + "."


def _line(name: str) -> str:
    return " ".join(visible(name[:_LONGEST_NAME]).split())


def valid_name(name: str) -> str:
    """Return a name as the APIs take it: letters, digits, `_` and `-`, 64 of them at most.

    >>> valid_name("files.read/all"), valid_name("")
    ('files_read_all', 'tool')

    """
    return _NOT_IN_A_NAME.sub("_", name)[:_LONGEST_NAME] or "tool"


def with_own_names(tools: Sequence[MCPTool], taken: Sequence[str]) -> dict[str, MCPTool]:
    """Return tools by the names that a model calls them by, each once: where two are alike, the server's stands before.

    `taken` are names of functions, which keep theirs.
    """
    names = [tool.name for tool in tools]
    found: dict[str, MCPTool] = {}
    for tool in tools:
        name = tool.name
        if name in taken or names.count(name) > 1:
            name = valid_name(f"{tool.server}_{tool.name}")
        first, number = name, 2
        while name in taken or name in found:
            ending = f"_{number}"
            name, number = f"{first[: _LONGEST_NAME - len(ending)]}{ending}", number + 1
        found[name] = tool if name == tool.name else tool.named(name)
    return found
