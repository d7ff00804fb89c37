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
import asyncio, sys
from llm_magic.mcp.configuration import read_server
from llm_magic.mcp.connection import ServerConnection

async def silent(events):
    pass

async def hold():
    settings = {{"command": sys.executable, "args": [{SCRIPTED!r}], "env": {{"SCRIPTED_LOG": sys.argv[1]}}}}
    await ServerConnection(read_server("s", settings)).tools(silent)
    print("listed", flush=True)
    await asyncio.Event().wait()

asyncio.run(hold())
"""


def test_a_server_ends_with_a_process_that_is_killed(server_log: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(server_log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        assert process.stdout.readline() == "listed\n"
        assert not has_ended(process_of(server_log), 0)
        process.kill()
    assert has_ended(process_of(server_log))


NPM = """npm error code ENOTCACHED
npm error request to https://registry.example/x failed: cache mode is 'only-if-cached'
npm error A complete log of this run can be found in: /root/.npm/_logs/x.log"""
UNREACHABLE = """npm error FetchError: request to https://registry.example/x failed, reason: connect ECONNREFUSED
npm error     at ClientRequest.<anonymous> (/usr/lib/node_modules/npm/x.js:130:14) {
npm error   code: 'ECONNREFUSED',
npm error }
npm error A complete log of this run can be found in: /root/.npm/_logs/x.log"""
UNKNOWN = """npm error code E404
npm error 404 Not Found - GET https://registry.example/x - Not found
npm error 404
npm error A complete log of this run can be found in: /root/.npm/_logs/x.log"""
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
