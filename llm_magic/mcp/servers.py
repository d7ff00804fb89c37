"""The MCP servers of a session: each one is connected at its first use, and all are closed with the session."""

from __future__ import annotations

import asyncio
import atexit
import os
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from llm_magic.errors import LLMError
from llm_magic.mcp.configuration import find_server
from llm_magic.mcp.connection import CLOSING, ServerConnection
from llm_magic.tools import telling

if TYPE_CHECKING:
    from llm_magic.background_loop import Emit
    from llm_magic.config.settings import Settings
    from llm_magic.mcp.results import ToolOutput


class MCPServers:
    """The servers that are configured, and the connections to those that were used; for one event loop.

    Parameters
    ----------
    settings
        Has `mcp_servers`, which may change.
    waiting
        Returns the names of those that wait for trust.

    """

    def __init__(self, settings: Settings, waiting: Callable[[], Collection[str]] = tuple) -> None:
        self._settings = settings
        self._waiting = waiting
        self._connections: dict[str, ServerConnection] = {}
        self._process = os.getpid()
        self._at_exit: Callable[[], None] | None = None

    def running(self) -> tuple[str, ...]:
        """Return the names of the servers that are connected now."""
        return tuple(name for name, each in self._connections.items() if each.is_open and self._process == os.getpid())

    def may_have_changed(self, names: Iterable[str]) -> bool:
        """Tell whether one of these servers runs, and may list other tools than before."""
        return any(name in self._connections and self._connections[name].may_have_changed for name in names)

    def offered(self) -> dict[str, tuple[str, ...]]:
        """Return the tools of the servers that are connected now, by the servers' names, as these listed them last."""
        known = list(self._connections.items()) if self._process == os.getpid() else []
        return {name: each.offered for name, each in known if each.is_open}

    def timeout(self, name: str) -> float | None:
        """Return the seconds that a call at a server may take; None where it has no own limit, or is not configured."""
        with suppress(LLMError):
            return find_server(name, self._settings.mcp_servers).timeout
        return None

    async def listed(self, name: str, emit: Emit[Any]) -> list[dict[str, Any]]:
        """Return what a server lists as its tools now, as plain data; it is started where it does not run.

        Raises
        ------
        ConfigurationError
            It is not configured, or wrongly.
        ToolError
            It does not start, or does not list them.

        """
        return await (await self._connection(name)).tools(emit)

    async def call(self, server: str, tool: str, arguments: Mapping[str, Any]) -> ToolOutput:
        """Carry out a call; whatever goes wrong is its output."""
        return await (await self._connection(server)).call(tool, arguments, telling.get())

    async def aclose(self) -> None:
        """Close all connections, which ends the programs that were started."""
        if self._process != os.getpid():  # they are the parent's
            return
        if self._at_exit is not None:
            atexit.unregister(self._at_exit)
            self._at_exit = None
        connections, self._connections = list(self._connections.values()), {}
        await asyncio.gather(*(each.aclose() for each in connections))

    async def _connection(self, name: str) -> ServerConnection:
        """Return the connection to a server as it is configured now."""
        if self._process != os.getpid():  # a forked process has its own
            self._connections, self._process, self._at_exit = {}, os.getpid(), None
        server = find_server(name, self._settings.mcp_servers, self._waiting())
        known = self._connections.get(name)
        if known is not None and known.server == server:
            return known
        if self._at_exit is None:  # now that the loop runs: what is registered last is called first
            self._at_exit = partial(_close_at_exit, weakref.ref(self), asyncio.get_running_loop())
            atexit.register(self._at_exit)
        self._connections[name] = made = ServerConnection(server)
        if known is not None:
            await known.aclose()
        return made

    def is_of(self, process: int) -> bool:
        """Tell whether the connections are those of a process."""
        return self._process == process


def _close_at_exit(known: weakref.ref[MCPServers], loop: asyncio.AbstractEventLoop) -> None:
    """End the programs that nobody closed: one that does not read its input would run on without its kernel."""
    servers = known()
    if servers is None or not servers.is_of(os.getpid()) or not loop.is_running():
        return
    with suppress(Exception):
        asyncio.run_coroutine_threadsafe(servers.aclose(), loop).result(CLOSING + 1)
