"""An MCP server for tests, of the official package: `python mcp_server.py [--http PORT] [what it does wrong]`.

Over HTTP it listens at 127.0.0.1, and prints its URL first; port 0 takes a free one. Where what it does at its start is
wrong, the options say: `--dies` (with words on stderr), `--hangs`, `--garbage` (on stdout, before the first message).
"""

import argparse
import base64
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context, Elicit, ElicitationResult, Image, MCPServer, Resolve, Sample
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    CreateMessageResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)
from pydantic import BaseModel

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
STDOUT = os.dup(1)  # serving over stdio takes 1 away from what would print

server = MCPServer("tests", version="1", log_level="ERROR")


class Point(BaseModel):
    """A place."""

    x: float
    y: float


class Answer(BaseModel):
    """What a user is asked for."""

    answer: str


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def echo(text: str) -> str:
    """Return the text."""
    return text


@server.tool()
async def slow(seconds: float) -> str:
    """Take some time."""
    await anyio.sleep(seconds)
    return "done"


@server.tool()
async def progress(steps: int, ctx: Context) -> str:
    """Tell of each step."""
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
    return f"{steps} steps"


@server.tool()
def image() -> Image:
    """Return a picture of one pixel."""
    return Image(data=PNG, format="png")


@server.tool()
def structured(x: float, y: float) -> Point:
    """Return a place."""
    return Point(x=x, y=y)


@server.tool()
def error(reason: str) -> str:
    """Fail, and say why."""
    raise ToolError(reason)


@server.tool()
def crash() -> str:
    """Fail with an exception that the tool did not expect."""
    raise ValueError("a secret of the server's")


@server.tool()
def huge(megabytes: int) -> str:
    """Return that much text."""
    return "x" * (megabytes * 10**6)


@server.tool(structured_output=False)
def blocks() -> CallToolResult:
    """Return a content block of each kind, two of them lies."""
    link = {"uri": "file:///data/report.pdf", "name": "report", "mime_type": "application/pdf"}
    written = TextResourceContents(uri="note://1", text="A note.", mime_type="text/plain")
    binary = BlobResourceContents(uri="data://2", blob=base64.b64encode(b"\0\1").decode(), mime_type="application/zip")
    return CallToolResult(
        content=[
            TextContent(text="See:"),
            ImageContent(data=base64.b64encode(PNG).decode(), mime_type="image/jpeg"),
            ImageContent(data=base64.b64encode(SVG).decode(), mime_type="image/png"),
            AudioContent(data=base64.b64encode(b"RIFF").decode(), mime_type="audio/wav"),
            ResourceLink(**link),
            EmbeddedResource(resource=written),
            EmbeddedResource(resource=binary),
        ]
    )


@server.tool()
def die() -> str:
    """End the server in the middle of the call."""
    os.write(2, b"the disk is gone\n")
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


@server.tool()
def garbage() -> str:
    """Print what is no message to stdout, and answer then."""
    os.write(STDOUT, b'\x1b[31mloading\xff...\n{"jsonrpc": 1}\n[]\n')
    return "after garbage"


def ask() -> Elicit[Answer]:
    return Elicit("Your password?", Answer)


def ask_model() -> Sample:
    message = SamplingMessage(role="user", content=TextContent(text="Say hello"))
    return Sample([message], max_tokens=5)


@server.tool()
def elicit(said: Annotated[ElicitationResult[Answer], Resolve(ask)]) -> str:
    """Ask the user for something, as the protocol's version has it."""
    return f"the user's part ended with {said.action}"


@server.tool()
async def elicit_directly(ctx: Context) -> str:
    """Ask the user for something by a request, which newer versions of the protocol have no more."""
    said = await ctx.elicit("Your password?", Answer)
    return f"the user's part ended with {said.action}"


@server.tool()
def sample(said: Annotated[CreateMessageResult, Resolve(ask_model)]) -> str:
    """Ask the client's model for something, as the protocol's version has it."""
    return f"the model said {said.content}"


@server.tool()
async def roots(ctx: Context) -> str:
    """Ask the client for its folders."""
    return str(await ctx.session.list_roots())


@server.tool()
async def grow(ctx: Context, name: str = "grown") -> str:
    """Offer one more tool from now on, and tell the client."""

    def grown(word: str) -> str:
        return word.upper()

    server.add_tool(grown, name=name, description="Return the word in capitals.")
    await ctx.session.send_tool_list_changed()
    await ctx.notify_tools_changed()
    return f"now there is {name}"


@server.tool()
def environment(name: str) -> str:
    """Return a variable of the server's environment."""
    return os.environ.get(name, "(not set)")


@server.tool()
def header(name: str, ctx: Context) -> str:
    """Return a header of the request, over HTTP."""
    return str((ctx.headers or {}).get(name.lower(), "(not sent)"))


@server.tool()
def process() -> dict[str, Any]:
    """Return the number and the folder of the server's process."""
    return {"pid": os.getpid(), "folder": str(Path.cwd())}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int, metavar="PORT")
    parser.add_argument("--dies", action="store_true")
    parser.add_argument("--hangs", action="store_true")
    parser.add_argument("--garbage", action="store_true")
    parser.add_argument("--also", help="further arguments, taken and not used")
    given = parser.parse_args()
    if given.dies:
        sys.exit("no database at localhost:5432")
    if given.hangs:
        signal.pause()
    if given.garbage:
        os.write(STDOUT, b"Welcome to the server!\n\xff\xfe\n")
    if given.http is None:
        server.run("stdio")
        return
    import uvicorn

    listening = socket.create_server(("127.0.0.1", given.http))
    os.write(1, f"http://127.0.0.1:{listening.getsockname()[1]}/mcp\n".encode())
    uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning")).run([listening])


if __name__ == "__main__":
    main()
