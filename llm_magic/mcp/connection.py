"""The connection to one MCP server: started, listed and called on one event loop, and closed again.

One task owns it: the cancel scopes within the official client must be entered and left by the same task. Calls come
from any task of the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from llm_magic.control_characters import visible
from llm_magic.errors import ConfigurationError, LLMError, ToolError
from llm_magic.events import Event, Note, Progress
from llm_magic.mcp.configuration import HTTPServer, StdioServer
from llm_magic.mcp.results import ToolOutput, read_result
from llm_magic.mcp.watched_messages import WatchedMessages
from llm_magic.secrets import MASK, hide, reveal, secrets_in

if TYPE_CHECKING:
    from mcp import Client

    from llm_magic.background_loop import Emit
    from llm_magic.secrets import Secret

START = 60.0
"""Seconds in which a server must have started and said what it is: a first start may download it."""
LISTING = 30.0
"""Seconds in which a server must have listed its tools."""
CLOSING = 7.0
"""Seconds in which a server ends: the official client asks, then terminates, then kills, two seconds for each."""
MOST_PAGES = 1_000
"""Pages of a list of tools that are read."""
_CLOSED = "Connection closed"
"""What the official client says where a request by HTTP was not answered; its code is that of many errors."""
_NO_JSON = "Failed to parse"
"""How what the official client says of an answer by HTTP begins that is no JSON, or no message."""
_UNTOLD = "2026"
"""The protocol's versions from which on changes are told to subscribers only."""
_SHORTEST = 6  # characters of what is taken for a secret in a text
_TOLD_EVERY = 0.1  # seconds between two lines of progress
_LINE = 200
_ADDED = re.compile(r"Node\.js v\d|npm (error|ERR!)|A complete log of this run")
_REASON = re.compile(r"\w*Error\b( \[\w+\])?: .*|E?404 Not Found.*|EACCES.*|could not determine executable.*")
_LARGEST_LOG = 1 << 20  # bytes of a server's standard error that are kept
_REFUSED = {
    "sampling/createMessage": "an answer of a model (sampling)",
    "elicitation/create": "input of the user (elicitation)",
    "roots/list": "folders (roots)",
}
"""What a server may ask its client for, and is refused here."""


class ServerConnection:
    """A connection to one server, opened when it is first needed, and opened anew where the server has ended.

    Parameters
    ----------
    server
        The program, or the URL.

    """

    def __init__(self, server: StdioServer | HTTPServer) -> None:
        self.server = server
        """The program or the URL, as it is configured."""
        self._started = server
        self._changed = False  # whether it has said that its tools have changed, since they were listed
        self.offered: tuple[str, ...] = ()
        """The names of its tools, as it listed them last."""
        self._ready: asyncio.Future[Client] | None = None
        self._owner: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._cancel: Callable[[], None] = _nothing
        self._alive = False
        self._waiting = 0
        self._log: Any = None
        self._said = ""  # what it had said last when it ended
        self._garbage = ""
        self._refused = ""  # the status of the last answer by HTTP, where it is one of an error
        self._told_of_garbage = False
        self._calls: set[_Call] = set()

    @property
    def name(self) -> str:
        """The name of the server, as it is configured."""
        return self.server.name

    @property
    def is_open(self) -> bool:
        """Whether the server has started, and not ended."""
        return self._alive

    @property
    def may_have_changed(self) -> bool:
        """Whether a server that runs may list other tools than before: it said so, or says nothing of it unasked."""
        ready = self._ready
        if not self._alive or ready is None or not ready.done():
            return False
        return self._changed or ready.result().protocol_version >= _UNTOLD

    async def tools(self, emit: Emit[Any]) -> list[dict[str, Any]]:
        """Return the tools that the server lists now: name, description and schema of each, as it says them.

        Raises
        ------
        ToolError
            It does not start, or does not list them.

        """
        known = self._alive
        try:
            found = await self._listed(await self._open(emit))
        except ToolError:
            if not known or (self._alive and isinstance(self.server, StdioServer)):
                raise
            self._alive = False  # it has ended unseen; one at a URL may have been started anew, and know nothing of us
            self._over.set()
            found = await self._listed(await self._open(emit))
        self.offered = tuple(each["name"] for each in found)
        if self._garbage and not self._told_of_garbage:
            self._told_of_garbage = True
            line = f"The MCP server {self.name} prints what is no message of the protocol, and is passed over"
            await emit([Note(f"{line}: {self._garbage}")])
        return found

    async def _listed(self, client: Client) -> list[dict[str, Any]]:
        """Return what a server lists, page by page."""
        self._changed = False
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        try:
            async with asyncio.timeout(LISTING):
                for _ in range(MOST_PAGES):
                    page = await client.list_tools(cursor=cursor, cache_mode="refresh")
                    found += [
                        {"name": each.name, "description": each.description or "", "parameters": each.input_schema}
                        for each in page.tools
                    ]
                    cursor = page.next_cursor
                    if not cursor:
                        break
        except TimeoutError:
            raise self._error(f"did not list its tools within {LISTING:g} seconds") from None
        except Exception as error:
            raise self._error(f"did not list its tools: {self._reason(error)}") from error
        if cursor:
            raise self._error(f"lists its tools without an end: {len(found):,} so far")
        return found

    async def call(self, tool: str, arguments: Mapping[str, Any], emit: Emit[Any]) -> ToolOutput:
        """Carry out a call and return what came of it; where it fails, that is the output, and nothing is raised.

        Cancelling the call cancels it at the server. `emit` gets the progress.
        """
        call = _Call(tool, emit)
        try:
            client = await self._open(emit)
        except LLMError as error:
            return ToolOutput(f"{error.message} {error.hint}".strip(), failed=True)
        self._calls.add(call)
        try:
            output = read_result(await client.call_tool(tool, dict(arguments), progress_callback=call.progress))
        except Exception as error:  # noqa: BLE001 - whatever a server does wrong is the result of the call
            output = ToolOutput(self._failure(tool, error), failed=True)
        finally:
            self._calls.discard(call)
        output = replace(output, text=self._without_secrets(output.text))
        if not call.refused:
            return output
        said = f"The MCP server {self.name} asked for {' and '.join(call.refused)}, which it does not get here."
        await emit([Note(said)])
        return ToolOutput(f"{output.text}\n[{said}]".strip(), output.images, output.failed)

    def _failure(self, tool: str, error: Exception) -> str:
        """Return what the model is told of a call that failed."""
        if isinstance(self.server, HTTPServer) and str(error) == _CLOSED:
            self._alive = False
            self._over.set()
        if not self._alive:
            said = self._last_line()
            return f"The MCP server {self.name} ended during the call{said}. The next call starts it again."
        return f"{tool} failed: {self._reason(error)}"

    async def aclose(self) -> None:
        """Close the connection, which ends a program that was started, and wait for that."""
        owner = self._owner
        if owner is None or owner.done():
            return
        self._over.set()
        if self._ready is not None and not self._ready.done():
            self._cancel()
        await asyncio.wait({owner}, timeout=CLOSING)

    # Opening

    async def _open(self, emit: Emit[Any]) -> Client:
        """Return the client of a server that runs, which is started where it does not."""
        if self._is_over and self._owner is not None and not self._owner.done():
            self._over.set()
            await asyncio.wait({self._owner}, timeout=CLOSING)
        if self._is_over:  # still: nobody else has begun meanwhile
            self._begin()
        ready = self._ready
        assert ready is not None  # noqa: S101 - for the type checker: it was just made
        if not ready.done():
            await emit([Progress(f"starting the MCP server {self.name}")])
        self._waiting += 1
        try:
            return await asyncio.shield(ready)
        except asyncio.CancelledError:
            if self._waiting == 1 and not ready.done():  # nobody else waits for it
                self._cancel()
            raise
        finally:
            self._waiting -= 1

    @property
    def _is_over(self) -> bool:
        """Whether nothing was started, or what was has ended."""
        return self._ready is None or (self._ready.done() and not self._alive)

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        self._ready.add_done_callback(lambda done: done.cancelled() or done.exception())  # may be awaited by nobody
        self._over = asyncio.Event()
        self._alive = False
        self._owner = loop.create_task(self._own(self._ready, self._over), name=f"MCP server {self.name}")

    async def _own(self, ready: asyncio.Future[Client], over: asyncio.Event) -> None:
        """Hold the connection from its beginning to its end, in one task."""
        try:
            for module in ("mcp", "jsonschema"):  # takes a second, in which answers go on streaming
                await asyncio.to_thread(import_module, module)
            import anyio
            from mcp import Client
        except ImportError:
            ready.set_exception(ConfigurationError("MCP servers need the package mcp.", 'pip install "llm_magic[mcp]"'))
            return
        for logger in ("mcp", "client"):  # else a server's garbage is a traceback on the notebook's standard error
            if not logging.getLogger(logger).handlers:
                logging.getLogger(logger).addHandler(logging.NullHandler())
        scope, late = anyio.CancelScope(), False
        try:
            self._started = self.server.with_variables()
        except LLMError as error:
            ready.set_exception(error)
            return

        def stop_waiting() -> None:
            nonlocal late
            if not ready.done():
                late = True
                ready.set_exception(self._not_started(None, late=True))
                scope.cancel()

        self._cancel = scope.cancel
        timer = asyncio.get_running_loop().call_later(START, stop_waiting)
        problem: BaseException | None = None
        try:
            with scope:
                async with Client(self._transport(over)) as client:
                    timer.cancel()
                    self._alive = True
                    if not ready.done():
                        ready.set_result(client)
                    await over.wait()
        except BaseException as error:  # noqa: BLE001 - the transports raise groups of whatever went wrong
            problem = error
        finally:
            timer.cancel()
            self._alive = False
            if not ready.done():
                ready.set_exception(self._not_started(problem, late=late))
        if isinstance(problem, asyncio.CancelledError):
            raise problem

    def _not_started(self, problem: BaseException | None, *, late: bool) -> ToolError:
        if late:
            garbage = f"; it printed {self._garbage}" if self._garbage else ""
            return self._error(f"gave no answer within {START:g} seconds{garbage}")
        if isinstance(problem, FileNotFoundError) and isinstance(self.server, StdioServer):
            folder = self._started.cwd if isinstance(self._started, StdioServer) else None
            there = folder is None or Path(reveal(folder)).is_dir()
            missing = f"program {self.server.command}" if there else f"folder {folder}"
            hint = f"{'Install' if there else 'Make'} it, or correct LLMMagics.mcp_servers[{self.name!r}]."
            return ToolError(f"The MCP server {self.name} cannot be started: there is no {missing}.", hint)
        if problem is None or isinstance(problem, asyncio.CancelledError):
            return self._error("was stopped before it had started")
        if isinstance(self.server, HTTPServer):
            return self._error(f"cannot be reached at {self.server.shown}: {self._reason(problem)}")
        return self._error(f"did not start: {self._reason(problem)}".replace(_CLOSED, "it ended"))

    def _error(self, what: str) -> ToolError:
        there = f"LLMMagics.mcp_servers[{self.name!r}]"
        hint = f"Check {there}, or run it by hand."
        if isinstance(self.server, HTTPServer):
            hint = f"Check {there}, and whether it runs."
            if self._refused.startswith(("401", "403")):
                hint = f"Check the headers in {there}: they say who asks."
        return ToolError(f"The MCP server {self.name} {what}{self._last_line()}.", hint)

    def _reason(self, problem: BaseException) -> str:
        """Return in a line why something failed: of a group of exceptions, the first one."""
        while isinstance(problem, BaseExceptionGroup):
            problem = problem.exceptions[0]
        if isinstance(problem, OSError) and problem.strerror:
            said = problem.strerror
        elif self._refused and isinstance(self.server, HTTPServer):
            said = f"HTTP {self._refused}"
        elif str(problem).startswith(_NO_JSON):
            said = "its answer is no message of the protocol"
        elif isinstance(problem, ValidationError):
            wrong = problem.errors(include_url=False, include_input=False)[0]
            said = f"what it sent is no valid message: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"
        else:
            said = str(problem) or type(problem).__name__
        return self._shown(said).rstrip(".")

    @property
    def _secrets(self) -> tuple[Secret, ...]:
        """What is secret in what the server was given."""
        server = self._started
        return secrets_in(
            [*server.args, server.env] if isinstance(server, StdioServer) else [server.url, server.headers]
        )

    def _shown(self, text: str) -> str:
        """Return what a server says on one line, without secrets that it was given."""
        known = [secret.reveal() for secret in self._secrets]
        line = " ".join(visible(hide(text[: 10 * _LINE], known)).split())
        return line if len(line) <= _LINE else f"{line[: _LINE - 1]}…"

    def _without_secrets(self, text: str) -> str:
        """Return what a tool gave, without the secrets that its server was given: it is sent, shown and recorded."""
        for secret in self._secrets:
            plain = secret.reveal()
            for each in (plain, plain.rpartition(" ")[2]):  # with the scheme of an authorization, and without
                text = text.replace(each, MASK) if len(each) >= _SHORTEST else text
        return text

    def _last_line(self) -> str:
        """Return what the server said last on its standard error, to be added to a sentence."""
        if self._log is None:
            return self._said
        with suppress(OSError, ValueError):
            size = os.fstat(self._log.fileno()).st_size
            end = os.pread(self._log.fileno(), 4_096, max(0, size - 4_096)).decode(errors="replace")
            line = telling_line(end.replace("\0", ""))
            return f" (it said: {self._shown(line)})" if line else ""
        return ""

    # The transport

    @asynccontextmanager
    async def _transport(self, over: asyncio.Event) -> AsyncGenerator[tuple[Any, Any], None]:
        """Connect, and look at each message that comes."""
        server = self._started
        if isinstance(server, HTTPServer):
            from mcp.client.streamable_http import streamable_http_client
            from mcp.shared._httpx_utils import create_mcp_http_client

            headers = {name: str(reveal(value)) for name, value in server.headers.items()}
            http = create_mcp_http_client(headers=headers)
            http.event_hooks["response"].append(self._answered)
            async with (
                http,
                streamable_http_client(str(reveal(server.url)), http_client=http) as (read, write),
            ):
                yield WatchedMessages(read, self._see, self._ended(over)), write
            return
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client

        parameters = StdioServerParameters(
            command=server.command,
            args=[str(reveal(each)) for each in server.args],
            env={name: str(reveal(value)) for name, value in server.env.items()} or None,
            cwd=None if server.cwd is None else str(reveal(server.cwd)),
            encoding_error_handler="replace",
        )
        with tempfile.TemporaryFile("w+", encoding="utf-8") as log:  # sys.stderr of a kernel is no file
            self._log = log
            try:
                async with stdio_client(parameters, errlog=log) as (read, write):
                    yield WatchedMessages(read, self._see, self._ended(over)), write
            finally:
                self._said, self._log = self._last_line(), None

    async def _answered(self, response: Any) -> None:
        """Remember the status of an answer to a message, which the official client does not always say."""
        if response.request.method == "POST":
            self._refused = f"{response.status_code} {response.reason_phrase}".strip() if response.is_error else ""

    def _ended(self, over: asyncio.Event) -> Callable[[], None]:
        def ended() -> None:
            if over is self._over:
                self._alive = False
            over.set()

        return ended

    def _see(self, item: Any) -> None:
        """Look at what came from the server, before the client does."""
        if isinstance(item, Exception):
            given = getattr(item, "errors", None)
            with suppress(Exception):
                line = str(given()[0].get("input")) if callable(given) else str(item)
                self._garbage = self._garbage or repr(self._shown(line))
            return
        message = getattr(item, "message", None)
        method = getattr(message, "method", "")
        if method == "notifications/tools/list_changed":
            self._changed = True
        asked = [method] if method in _REFUSED else []
        result = getattr(message, "result", None)
        if isinstance(result, Mapping) and isinstance(wanted := result.get("inputRequests"), Mapping):
            asked = [str(each.get("method")) for each in wanted.values() if isinstance(each, Mapping)]
        for call in self._calls:
            call.refused |= dict.fromkeys(_REFUSED[each] for each in asked if each in _REFUSED)


class _Call:
    """A call under way: what the server asks for meanwhile, and how far it says it is."""

    def __init__(self, tool: str, emit: Emit[Any]) -> None:
        self.refused: dict[str, None] = {}
        self._tool = tool
        self._emit = emit
        self._told = 0.0

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """Tell how far the call is, ten times a second at most."""
        now = time.monotonic()
        if now - self._told < _TOLD_EVERY:
            return
        self._told = now
        far = f"{progress:g} of {total:g}" if total else f"{progress:g}"
        said = f"{far}: {message}" if message else far
        events: list[Event] = [Progress(" ".join(visible(f"{self._tool}: {said}"[: 2 * _LINE]).split())[:_LINE])]
        await self._emit(events)


def telling_line(log: str) -> str:
    r"""Return the line of a log that tells best why a program ended; empty where there is none.

    It is the last one, or the reason that stands before what npm and Node add.

    >>> telling_line("Error: Cannot find module 'x'\n    at load (node:internal:1)\n\nNode.js v20.1.0")
    "Error: Cannot find module 'x'"

    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if lines and _ADDED.match(lines[-1]):
        reasons = (found[0] for line in lines if (found := _REASON.search(line)))
        return next(reasons, lines[-2:][0])
    return lines[-1] if lines else ""


def _nothing() -> None:
    """Do nothing."""
