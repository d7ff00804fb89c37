"""Many short prompts against a fast server, by each way in turn: `python benchmarks/many.py`.

One server in a process of its own answers every request with the same Chat Completions document, at once. Each way
sends the same prompts with the same number in flight; the ways take turns, and the medians of several rounds count.
Prints requests a second, ratios to the SDK's default client, and the processor time of a request, with the machine,
the versions and the date.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from machine import about

Ask = Callable[[str], Awaitable[str]]
"""Sends one prompt, returns the text of the answer."""

Way = Callable[[str, int], Any]
"""Takes the URL and the number in flight; an asynchronous context that gives an `Ask`."""

MODEL, ANSWER = "bench", "It is a fine day, and the answer is forty-two."


def document(text: str = ANSWER) -> dict[str, Any]:
    """Return an answer as servers give it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 12, "completion_tokens": 12, "total_tokens": 24}
    head = {"id": "chatcmpl-0123456789", "object": "chat.completion", "created": 1_800_000_000, "model": MODEL}
    return {**head, "choices": [choice], "usage": usage}


def http(content: dict[str, Any]) -> bytes:
    """Return a document as an HTTP answer."""
    body = json.dumps(content).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Replies(asyncio.Protocol):
    """Answers each request on a connection with the same bytes, at once or after some seconds."""

    def __init__(self, answer: bytes, seconds: Callable[[], float]) -> None:
        self.answer, self.seconds, self.held, self.wanted = answer, seconds, b"", 0

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
                start = low.index(b"content-length:") + 15
                self.wanted = (
                    len(head) + 4 + int(low[start : low.find(b"\r", start)] if b"\r" in low[start:] else low[start:])
                )
            if len(self.held) < self.wanted:
                return
            self.held, self.wanted = self.held[self.wanted :], 0
            seconds = self.seconds()
            if seconds:
                asyncio.get_running_loop().call_later(seconds, self.transport.write, self.answer)
            else:
                self.transport.write(self.answer)


def serve(answer: bytes, ports: Any, seconds: Callable[[], float] = float) -> None:
    """Serve until the process ends; `seconds` gives how long each answer takes."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Replies(answer, seconds), "127.0.0.1", 0)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


class Server:
    """The server, in a process of its own; use it as a context manager."""

    def __init__(self, answer: bytes, seconds: Callable[[], float] = float) -> None:
        self.ports: Any = multiprocessing.Queue()
        self.process = multiprocessing.Process(target=serve, args=(answer, self.ports, seconds), daemon=True)

    def __enter__(self) -> str:
        self.process.start()
        return f"http://127.0.0.1:{self.ports.get(timeout=10)}/v1"

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.join()


@asynccontextmanager
async def over_the_sdk(url: str, _flying: int, http_client: Any = None) -> AsyncGenerator[Ask]:
    """The SDK's client and its objects, as a user would."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http_client) as client:

        async def ask(prompt: str) -> str:
            messages: Any = [{"role": "user", "content": prompt}]
            answer = await client.chat.completions.create(model=MODEL, messages=messages)
            return answer.choices[0].message.content or ""

        yield ask


@asynccontextmanager
async def over_the_sdk_on_aiohttp(url: str, flying: int) -> AsyncGenerator[Ask]:
    """The same over the SDK's aiohttp client."""
    from openai import DefaultAioHttpClient

    async with over_the_sdk(url, flying, DefaultAioHttpClient()) as ask:
        yield ask


@asynccontextmanager
async def over_bare_aiohttp(url: str, flying: int) -> AsyncGenerator[Ask]:
    """What aiohttp and `json` need by themselves: nobody over aiohttp can be faster."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=flying)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer none"}) as session:

        async def ask(prompt: str) -> str:
            body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                found: str = json.loads(await response.read())["choices"][0]["message"]["content"]
                return found

        yield ask


@asynccontextmanager
async def over_a_prepared_request(url: str, _flying: int, *, why: str = "") -> AsyncGenerator[Ask]:
    """A request prepared once, its answers folded into a `Response` each, as many rows are asked."""
    from llm_magic.draft import Draft
    from llm_magic.messages import user
    from llm_magic.providers.compatible import CompatibleProvider
    from llm_magic.request import Parameters, Request

    provider = CompatibleProvider(name="bench", base_url=url, max_retries=0)
    request = Request(MODEL, (user("MARK"),), Parameters(), stream=False)
    prepared = await provider.prepare_request(request, provider.capabilities(MODEL))
    assert prepared is not None
    prepared.why_the_sdk_sends = why
    async with prepared:
        template = await prepared.template("MARK")
        assert template is not None

        async def ask(prompt: str) -> str:
            events: list[Any] = []
            await prepared.exchange(template.body(prompt), request, events)
            draft = Draft()
            draft.add_all(events)
            return draft.response().text

        yield ask
    await provider.aclose()


@asynccontextmanager
async def over_a_prepared_request_without_aiohttp(url: str, flying: int) -> AsyncGenerator[Ask]:
    """The same where aiohttp is not installed."""
    from llm_magic.wire import prepared

    known = prepared.has_aiohttp
    prepared.has_aiohttp = lambda: False
    try:
        async with over_a_prepared_request(url, flying) as ask:
            yield ask
    finally:
        prepared.has_aiohttp = known


@asynccontextmanager
async def over_a_prepared_request_by_the_sdk(url: str, flying: int) -> AsyncGenerator[Ask]:
    """The same where the SDK's own client has to send: behind a proxy, for one."""
    async with over_a_prepared_request(url, flying, why="it is measured") as ask:
        yield ask


WAYS: dict[str, Way] = {
    "the SDK's default client": over_the_sdk,
    "the SDK on aiohttp": over_the_sdk_on_aiohttp,
    "bare aiohttp": over_bare_aiohttp,
    "prepared request": over_a_prepared_request,
    "prepared request, no aiohttp": over_a_prepared_request_without_aiohttp,
    "prepared request, by the SDK": over_a_prepared_request_by_the_sdk,
}


async def timed(way: Way, url: str, prompts: list[str], flying: int) -> tuple[float, float]:
    """Return the seconds, and those of this process's processor, that one way needs for all prompts."""
    free = asyncio.Semaphore(flying)
    async with way(url, flying) as ask:

        async def one(prompt: str) -> None:
            async with free:
                assert await ask(prompt) == ANSWER

        await asyncio.gather(*map(one, prompts[: 2 * flying]))
        started, busy = time.perf_counter(), time.process_time()
        await asyncio.gather(*map(one, prompts))
        return time.perf_counter() - started, time.process_time() - busy


def compared(count: int, flying: int, rounds: int, chosen: list[str]) -> None:
    """Print what each way does in a second."""
    prompts = [f"Prompt {number}: is it a fine day?" for number in range(count)]
    ways = {name: way for name, way in WAYS.items() if not chosen or any(each in name for each in chosen)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with Server(http(document())) as url:
        for _ in range(rounds):
            for name, way in ways.items():
                found[name].append(asyncio.run(timed(way, url, prompts, flying)))
    print(f"{count:,} prompts, {flying} in flight, medians of {rounds} rounds")
    print(f"{'':32}{'requests/s':>12}{'against the SDK':>17}{'processor, ms each':>20}")
    first = next(iter(ways))
    reference = statistics.median(seconds for seconds, _ in found[first])
    for name, measured in found.items():
        seconds, busy = (statistics.median(each) for each in zip(*measured, strict=True))
        print(f"{name:32}{count / seconds:12,.0f}{reference / seconds:16.1f}x{1000 * busy / count:20.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=2_000, help="prompts of a round (default %(default)s)")
    parser.add_argument("--flying", type=int, default=64, help="requests in flight (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default %(default)s)")
    parser.add_argument(
        "--ways", nargs="*", default=[], help="words in the names of the ways to measure (default: all)"
    )
    options = parser.parse_args()
    print(about("openai", "aiohttp"))
    sys.exit(compared(options.prompts, options.flying, options.rounds, options.ways))
