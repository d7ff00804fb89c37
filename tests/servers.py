"""A small HTTP server that misbehaves as scripted, and remembers what it received and when the client left.

Each request takes the next `Answer` of the script; the last one is repeated. Only the standard library is used.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

HANG = "hang"
"""Say nothing more and keep the connection open until the client leaves."""

RESET = "reset"
"""Cut the connection at once, in the midst of the answer."""

Step = bytes | float | str
"""Bytes to send at once, seconds to wait, `HANG` or `RESET`."""


@dataclass
class Answer:
    """One answer: its status, headers and steps.

    `chunked` False sends the bytes with no length, the end being the end of the connection; `raw` sends the
    steps alone, with no status line.
    """

    steps: Iterable[Step] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})
    chunked: bool = True
    raw: bool = False


@dataclass
class Received:
    """One request as it arrived. Header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    header_lines: tuple[str, ...] = ()
    at: float = 0.0
    closed_at: float | None = None
    """`time.perf_counter()` when the client was seen to have left in the midst of the answer."""
    left: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Script = Answer | Callable[[Received], Answer]


def stream(*documents: object, done: bool = True, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """Return an answer that streams these documents as server-sent events (`bytes` as they stand)."""
    steps: list[Step] = [
        item if isinstance(item, bytes | float | str) else f"data: {json.dumps(item)}\n\n".encode()
        for item in documents
    ]
    if done:
        steps.append(b"data: [DONE]\n\n")
    return Answer(steps, status, {"content-type": "text/event-stream", **(headers or {})})


def document(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """Return an answer that is one JSON document."""
    return Answer([json.dumps(content).encode()], status, {"content-type": "application/json", **(headers or {})})


def page(text: str, status: int = 200) -> Answer:
    """Return an answer that is an HTML page."""
    return Answer([text.encode()], status, {"content-type": "text/html"})


def chunk(content: str | None = None, *, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """Return a chunk of a Chat Completions stream."""
    if content is not None:
        delta["content"] = content
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


class ScriptedServer:
    """The server, on a thread of its own; use it as a context manager."""

    def __init__(self, *script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script: list[Script] = list(script)
        self.requests: list[Received] = []
        self.connections = 0
        self.port = 0
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scripted server", daemon=True)

    @property
    def host(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.host}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(5), "the scripted server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            self._listening.close()
            self._loop.run_until_complete(_end_all())
            self._loop.close()

    async def _listen(self) -> None:
        self._listening = await asyncio.start_server(self._connection, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            pushed = b""
            while True:
                received = await self._receive(reader, pushed)
                if received is None:
                    writer.write(b"HTTP/1.1 400 Scripted\r\nconnection: close\r\n\r\n")
                    return
                self.requests.append(received)
                pushed_or_none = await self._answer(received, self._next(received), reader, writer)
                if pushed_or_none is None:
                    return
                pushed = pushed_or_none
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _next(self, received: Received) -> Answer:
        script = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return script(received) if callable(script) else script

    async def _receive(self, reader: asyncio.StreamReader, pushed: bytes) -> Received | None:
        try:
            if not pushed:
                pushed = await reader.readexactly(1)
                if pushed == b"\x16":  # a TLS greeting
                    return None
            head = pushed + await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = await _chunks(reader)
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Received(method, path, headers, body, tuple(lines), time.perf_counter())

    async def _answer(
        self, received: Received, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        """Send the answer; return what the client has sent meanwhile, or None where the connection is over."""
        watcher = asyncio.ensure_future(reader.read(1))

        def left() -> None:
            if received.closed_at is None:
                received.closed_at = time.perf_counter()
                received.left.set()

        def read(_: object) -> None:
            if not watcher.cancelled() and (watcher.exception() is not None or watcher.result() == b""):
                left()

        watcher.add_done_callback(read)
        try:
            ended = await self._send(answer, watcher, writer)
            if not ended or not answer.chunked or answer.raw:
                return None
            return await watcher or None
        except ConnectionError:  # seen in writing before it is seen in reading
            left()
            raise
        finally:
            watcher.cancel()

    async def _send(self, answer: Answer, watcher: asyncio.Future[bytes], writer: asyncio.StreamWriter) -> bool:
        if not answer.raw:
            headers = dict(answer.headers)
            headers |= {"transfer-encoding": "chunked"} if answer.chunked else {"connection": "close"}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"HTTP/1.1 {answer.status} Scripted\r\n{lines}\r\n".encode("latin-1"))
            await writer.drain()
        for step in answer.steps:
            if step == RESET:
                writer.transport.abort()
                return False
            if isinstance(step, str | float):
                await asyncio.wait({watcher}, timeout=None if isinstance(step, str) else step)
                if watcher.done():
                    return False
                continue
            framed = b"%x\r\n%b\r\n" % (len(step), step) if answer.chunked and not answer.raw else step
            if step:
                writer.write(framed)
                await writer.drain()
        if answer.chunked and not answer.raw:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return True


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """Return a body that comes in chunks of announced lengths."""
    chunks = []
    while length := int((await reader.readline()).partition(b";")[0], 16):
        chunks.append(await reader.readexactly(length))
        await reader.readline()
    await reader.readline()
    return b"".join(chunks)


async def _end_all() -> None:
    """End all connections, those that came in the last moment, too, and let them close."""
    await _turns()
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await _turns()


async def _turns() -> None:
    """Let what is ready run: an accepted connection takes a few turns of the loop to become a task."""
    for _ in range(5):
        await asyncio.sleep(0)
