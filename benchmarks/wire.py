"""The wire against the SDK's own loop, and against reading bytes alone: `python benchmarks/wire.py`.

One server of our own on one thread of another process sends the same Chat Completions stream to each of them in turn;
the best of several rounds counts. Prints ratios, with the machine, the versions and the date.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import multiprocessing
import platform
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any


def payload(chunks: int) -> bytes:
    """Return the whole HTTP answer, each event a chunk of the transfer coding of its own, as real servers send them."""
    head = {"id": "chatcmpl-0123456789", "object": "chat.completion.chunk", "created": 1_800_000_000, "model": "bench"}
    events = [{**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}]
    events += [
        {
            **head,
            "choices": [{"index": 0, "delta": {"content": f"word{number} "}, "logprobs": None, "finish_reason": None}],
        }
        for number in range(chunks)
    ]
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 10, "completion_tokens": chunks, "total_tokens": chunks + 10}
    events.append({**head, "choices": [], "usage": usage})
    return HEAD + b"".join(map(framed, events_of(events))) + b"0\r\n\r\n"


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def events_of(documents: list[dict[str, Any]]) -> list[bytes]:
    """Return documents as server-sent events, with the mark of the end."""
    return [b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents] + [b"data: [DONE]\n\n"]


def framed(event: bytes) -> bytes:
    """Return an event as a chunk of the transfer coding."""
    return b"%x\r\n%b\r\n" % (len(event), event)


def serve(answer: bytes, ports: Any) -> None:
    """Answer every request on every connection with the same bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ports.put(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=reply, args=(connection, answer), daemon=True).start()


def reply(connection: socket.socket, answer: bytes) -> None:
    """Answer the requests of one connection."""
    data = b""
    with connection, suppress(ConnectionError):
        while received := connection.recv(65_536):
            data += received
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                continue
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if len(rest) >= int(lengths[0].split(b":")[1]):
                data = b""
                connection.sendall(answer)


def client(url: str) -> Any:
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=url, api_key="none", max_retries=0)


async def with_the_sdk(url: str) -> int:
    """The SDK's own loop over its chunk objects, the text put together as a user would."""
    async with client(url) as made:
        stream = await made.chat.completions.create(
            model="bench",
            messages=[{"role": "user", "content": "go"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    return len("".join(parts))


async def with_the_wire(url: str) -> int:
    """Our exchange, its events folded into a response as a cell does."""
    from llm_magic.capabilities import Capabilities
    from llm_magic.draft import Draft
    from llm_magic.errors import Origin
    from llm_magic.messages import user
    from llm_magic.request import Request
    from llm_magic.wire.call import Call, exchange

    draft = Draft()
    async with client(url) as made:
        call = Call(made, Origin("bench", "bench", url), Capabilities(), Request("bench", (user("go"),)))
        async for batch in exchange(call):
            for event in batch:
                draft.add(event)
    assert draft.finish_reason == "stop"
    return len(draft.text)


async def with_bytes_alone(url: str) -> int:
    """What the HTTP client itself needs to hand the bytes over: nobody can be faster."""
    size = 0
    async with client(url) as made:
        create = made.chat.completions.with_streaming_response.create
        async with create(model="bench", messages=[{"role": "user", "content": "go"}], stream=True) as response:
            async for part in response.iter_bytes():
                size += len(part)
    return size


async def best(run: Callable[[str], Awaitable[int]], url: str, rounds: int) -> float:
    """Return the seconds of the fastest of `rounds`, after one to warm up."""
    await run(url)
    fastest = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        await run(url)
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


def alone(chunks: int, rounds: int) -> float:
    """Return the seconds from bytes to events with no network at all, in reads of 64 KiB."""
    from llm_magic.messages import user
    from llm_magic.request import Request
    from llm_magic.wire.stream import Answer

    framed = payload(chunks).partition(b"\r\n\r\n")[2]
    body = b"".join(part for part in framed.split(b"\r\n") if part.startswith(b"data:"))
    fastest = float("inf")
    for _ in range(rounds):
        answer = Answer("chat", Request("bench", (user("go"),)))
        started = time.perf_counter()
        for place in range(0, len(body), 65_536):
            answer.feed(body[place : place + 65_536])
        answer.close()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


async def main(chunks: int, rounds: int) -> None:
    ports: Any = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(payload(chunks), ports), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ports.get(timeout=10)}/v1"
    try:
        sizes = {await with_the_sdk(url), await with_the_wire(url)}
        assert len(sizes) == 1, "both give the same text"
        sdk = await best(with_the_sdk, url, max(2, rounds // 3))
        wire = await best(with_the_wire, url, rounds)
        reading = await best(with_bytes_alone, url, rounds)
    finally:
        server.terminate()
        server.join()
    parsing = alone(chunks, rounds)
    print(f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}, {platform.platform()}, {multiprocessing.cpu_count()} cores,")
    print(f"Python {platform.python_version()}, openai {version('openai')}, pydantic-core {version('pydantic-core')}")
    print(f"one answer of {chunks:,} chunks, the best of {rounds} rounds")
    print(f"{'':28}{'seconds':>9}{'chunks/s':>12}{'against the SDK':>17}{'of the bytes alone':>20}")
    for name, seconds in (
        ("the SDK's async for loop", sdk),
        ("llm_magic.wire, with Draft", wire),
        ("reading the bytes alone", reading),
        ("bytes to events, no network", parsing),
    ):
        rate = f"{seconds:9.3f}{chunks / seconds:12,.0f}"
        print(f"{name:28}{rate}{sdk / seconds:16.1f}x{seconds / reading:19.2f}x")
    micro = 1e6 / chunks
    print(f"the wire: {wire * micro:.1f} microseconds a chunk, of which {parsing * micro:.1f} from bytes to events")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=20_000, help="chunks of the answer (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, the best of which counts (default %(default)s)")
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options.chunks, options.rounds)))
