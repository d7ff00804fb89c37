"""A connection to a server: what it tells of a server that ended, and what becomes of one that nobody can close."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mcp_processes import has_ended, process_of

from llm_magic.mcp import connection

SCRIPTED = str(Path(__file__).parent / "scripted_server.py")
HOLDS = f"""
import sys
import mcp.client.stdio
from llm_magic import background_loop
from llm_magic.config.settings import Settings
from llm_magic.mcp.servers import MCPServers

async def silent(events):
    pass

async def at_once():
    pass

mcp.client.stdio.PROCESS_TERMINATION_TIMEOUT = 0.01
background_loop._cancel_all = at_once  # else its own two seconds are what a server has to end
log, *words = sys.argv[1:]
server = {{"command": sys.executable, "args": [{SCRIPTED!r}, *words], "env": {{"SCRIPTED_LOG": log}}}}
servers, loop = MCPServers(Settings(mcp_servers={{"s": server}})), background_loop.BackgroundLoop()
loop.run(servers.listed("s", silent))
print("listed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("end", "words"), [("killed", []), ("at its end", ["deaf"])], ids=["killed", "deaf"])
def test_a_server_ends_with_the_process_that_started_it(end: str, words: list[str], server_log: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(server_log), *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "listed\n"
        assert not has_ended(process_of(server_log), 0)
        if end == "killed":
            process.kill()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert has_ended(process_of(server_log))


NPM = """npm error code ENOTCACHED
npm error request to https://registry.example/x failed: cache mode is 'only-if-cached'
npm error A complete log of this run can be found in: /home/user/.npm/_logs/x.log"""
UNREACHABLE = """npm error FetchError: request to https://registry.example/x failed, reason: connect ECONNREFUSED
npm error     at ClientRequest.<anonymous> (/usr/lib/node_modules/npm/x.js:130:14) {
npm error   code: 'ECONNREFUSED',
npm error }
npm error A complete log of this run can be found in: /home/user/.npm/_logs/x.log"""
UNKNOWN = """npm error code E404
npm error 404 Not Found - GET https://registry.example/x - Not found
npm error 404
npm error A complete log of this run can be found in: /home/user/.npm/_logs/x.log"""
NODE = """node:internal/modules/cjs/loader:1210
  throw err;

Error: Cannot find module '/x.js'
    at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15) {
  code: 'MODULE_NOT_FOUND'
}

Node.js v20.20.2
"""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("Traceback (most recent call last):\n  ...\nModuleNotFoundError: No module named 'x'\n\n", None),
        (NODE, "Error: Cannot find module '/x.js'"),
        (UNREACHABLE, "FetchError: request to https://registry.example/x failed, reason: connect ECONNREFUSED"),
        (UNKNOWN, "404 Not Found - GET https://registry.example/x - Not found"),
        (NPM, "npm error request to https://registry.example/x failed: cache mode is 'only-if-cached'"),
        ("Node.js v20.20.2", "Node.js v20.20.2"),
    ],
)
def test_the_line_of_a_log_that_tells_most(log: str, line: str | None) -> None:
    told = "ModuleNotFoundError: No module named 'x'" if line is None else line
    assert connection.telling_line(log) == told
