"""A server of Chat Completions in a process of its own, as fast as can be, or slow with so many places."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

MODEL = "bench"
TEXT = "It is a fine day, and the answer is forty-two."


def document(text: str = TEXT) -> dict[str, Any]:
    """Return an answer as servers give it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 12, "completion_tokens": 12, "total_tokens": 24}
    head = {"id": "chatcmpl-0123456789", "object": "chat.completion", "created": 1_800_000_000, "model": MODEL}
    return {**head, "choices": [choice], "usage": usage}


def http(content: dict[str, Any], status: str = "200 OK") -> bytes:
    """Return a document as an HTTP answer."""
    body = json.dumps(content).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


TOO_MANY = http({"error": {"message": "Too many requests.", "type": "rate_limit"}}, "429 Too Many Requests")


@dataclass(frozen=True)
class Places:
    """A server that works on so many requests at once, each for a time between two; others wait, or are refused."""

    number: int
    shortest: float
    longest: float
    refuses: bool = False

    @property
    def capacity(self) -> float:
        """Requests a second."""
        return self.number * 2 / (self.shortest + self.longest)


class Counts:
    """What the server counts, for the process that measures."""

    def __init__(self) -> None:
        self.worked: Any = multiprocessing.Value("d", 0.0)
        """Seconds that its places have worked."""
        self.answered: Any = multiprocessing.Value("q", 0)
        self.refused: Any = multiprocessing.Value("q", 0)
        self.first: Any = multiprocessing.Value("d", 0.0)
        """`time.perf_counter()` of the first request since this was set to 0: one clock for all processes."""
        self.last: Any = multiprocessing.Value("d", 0.0)
        """That of the last answer of a slow server."""


class Work:
    """The places of the server, and who waits for one."""

    def __init__(self, answer: bytes, places: Places | None, counts: Counts) -> None:
        self._answer, self._places, self._counts = answer, places, counts
        self._random = random.Random(14)
        self._busy = 0
        self._waiting: deque[Any] = deque()

    def take(self, transport: Any) -> None:
        """Answer a request, at once or when its place has worked."""
        counts, places = self._counts, self._places
        if not counts.first.value:
            counts.first.value = time.perf_counter()
        if places is None:
            counts.answered.value += 1
            transport.write(self._answer)
        elif self._busy < places.number:
            self._begin(transport)
        elif places.refuses:
            counts.refused.value += 1
            transport.write(TOO_MANY)
        else:
            self._waiting.append(transport)

    def _begin(self, transport: Any) -> None:
        assert self._places is not None
        self._busy += 1
        seconds = self._random.uniform(self._places.shortest, self._places.longest)
        asyncio.get_running_loop().call_later(seconds, self._end, transport, seconds)

    def _end(self, transport: Any, seconds: float) -> None:
        self._busy -= 1
        self._counts.worked.value += seconds
        self._counts.answered.value += 1
        self._counts.last.value = time.perf_counter()
        transport.write(self._answer)
        while self._waiting:
            following = self._waiting.popleft()
            if not following.is_closing():
                self._begin(following)
                break


class Replies(asyncio.Protocol):
    """One connection: finds where each request ends."""

    def __init__(self, work: Work) -> None:
        self.work, self.held, self.wanted = work, b"", 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.held += data
        while self.held:
            if not self.wanted:
                head, found, _ = self.held.partition(b"\r\n\r\n")
                if not found:
                    return
                low = head.lower()
                at = low.find(b"content-length:")
                end = low.find(b"\r", at)
                length = int(low[at + 15 : end if end > 0 else None]) if at >= 0 else 0
                self.wanted = len(head) + 4 + length
            if len(self.held) < self.wanted:
                return
            self.held, self.wanted = self.held[self.wanted :], 0
            self.work.take(self.transport)


def serve(answer: bytes, places: Places | None, ports: Any, counts: Counts) -> None:
    """Serve until the process ends."""

    async def run() -> None:
        work = Work(answer, places, counts)
        server = await asyncio.get_running_loop().create_server(lambda: Replies(work), "127.0.0.1", 0, backlog=1024)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


class Server:
    """The server, in a process of its own; use it as a context manager, which gives its URL."""

    def __init__(self, text: str = TEXT, places: Places | None = None) -> None:
        self.counts = Counts()
        self._ports: Any = multiprocessing.Queue()
        work = (http(document(text)), places, self._ports, self.counts)
        self._process = multiprocessing.Process(target=serve, args=work, daemon=True)

    def __enter__(self) -> str:
        self._process.start()
        return f"http://127.0.0.1:{self._ports.get(timeout=10)}/v1"

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
