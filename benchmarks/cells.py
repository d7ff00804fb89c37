"""Whole `%%llm` cells in a kernel, against the SDK's own loop in the same kernel: `python benchmarks/cells.py`.

A fast server in another process sends the same stream to both in turn. All figures are of one run; medians of several
rounds. Prints chunks a second, time to the first token, bytes sent to the front end, memory, typed against plain, and
how soon an interrupted request is closed at the server. `--arriving 50` prints what showing a typed answer costs while
it arrives over 50 seconds.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import socket
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel
from machine import about
from wire import HEAD, events_of, framed, payload, serve

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

SETUP = """
import asyncio, json, resource, threading, time
%load_ext llm_magic
time.sleep(3)
import openai
for name, port in PORTS.items():
    get_ipython()._llm_magic.registry.add(name, "compatible", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)

async def _bare(port):
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    started, first, parts = time.perf_counter(), None, []
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "Hi"}], stream=True, stream_options={"include_usage": True})
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.perf_counter() - started
            parts.append(chunk.choices[0].delta.content)
    return "".join(parts), first, time.perf_counter() - started

async def _bytes_alone(port):
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    started = time.perf_counter()
    create = client.chat.completions.with_streaming_response.create
    async with create(model="m", messages=[{"role": "user", "content": "Hi"}], stream=True) as response:
        async for part in response.iter_bytes():
            pass
    return time.perf_counter() - started

def on_a_loop(work):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    return asyncio.run_coroutine_threadsafe(work, loop).result()

def bare(port):
    return on_a_loop(_bare(port))

def bytes_alone(port):
    return on_a_loop(_bytes_alone(port))

def resident():
    import psutil
    return psutil.Process().memory_info().rss / 1024**2

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

import pydantic
class Record(pydantic.BaseModel):
    name: str
    number: int
    note: str
"""
PLAIN = "%%llm -m records:m --once\nHi"
TYPES = ("list[dict[str, str | int]]", "list[Record]")
"""Of the 1.1 MB of JSON records."""


def json_text(rows: int = 12_000) -> str:
    """Return about 1 MB of JSON records."""
    return json.dumps(
        [
            {"name": f"name {row}", "number": row, "note": f"a note of some length, the one of row {row}"}
            for row in range(rows)
        ]
    )


def json_events() -> list[bytes]:
    """Return the events of an answer that streams these records in 20,000 chunks."""
    text = json_text()
    step = max(1, len(text) // 20_000)
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": text[at : at + step]}, "finish_reason": None}]}
        for at in range(0, len(text), step)
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return events_of(chunks)


def plain_json() -> bytes:
    """Return the whole HTTP answer of these records."""
    return HEAD + b"".join(map(framed, json_events())) + b"0\r\n\r\n"


class Kernel:
    """A kernel, with what its cells send counted in bytes."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3", startup_timeout=60)

    def run(self, code: str) -> tuple[str, int, float]:
        """Run a cell; return its text output, the bytes of its displays, and seconds."""
        started = time.perf_counter()
        request = self.client.execute(code)
        text, sent = "", 0
        socket = self.client.iopub_channel.socket
        while True:
            frames = socket.recv_multipart()
            _, parts = self.client.session.feed_identities(frames)
            message = self.client.session.deserialize(parts)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind in {"display_data", "update_display_data", "clear_output"}:
                sent += sum(len(frame) for frame in frames)
            elif kind == "stream":
                text += content["text"]
            elif kind == "error":
                raise RuntimeError(f"{content['ename']}: {content['evalue']}")
            elif kind == "status" and content["execution_state"] == "idle":
                return text, sent, time.perf_counter() - started

    def value(self, expression: str) -> Any:
        """Return the value of an expression of plain data."""
        return ast.literal_eval(self.run(f"print(repr({expression}))")[0])


def serving(answer: Callable[[], bytes], ports: Any) -> None:
    """Make an answer and serve it, in a process of its own: the peak memory of a process counts for its children."""
    serve(answer(), ports)


def median(values: list[float]) -> float:
    return statistics.median(values)


def serve_slowly(seconds: float, ports: Any) -> None:
    """Serve one answer after the other, each event on its own and all of them in so many seconds."""
    events = json_events()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ports.put(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection, suppress(ConnectionError):
                connection.recv(65_536)
                connection.sendall(HEAD)
                begun = time.perf_counter()
                for number, event in enumerate(events):
                    time.sleep(max(0.0, begun + seconds * number / len(events) - time.perf_counter()))
                    connection.sendall(framed(event))
                connection.sendall(b"0\r\n\r\n")


def arriving(seconds: float) -> None:
    """Print what it costs to show records that arrive slowly, as they grow, against showing their text."""
    queue: Any = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve_slowly, args=(seconds, queue), daemon=True)
    server.start()
    kernel = Kernel()
    kernel.run(f"PORTS = {{'records': {queue.get()}}}")
    kernel.run(SETUP)
    used = {}
    for name, line in {
        "plain": PLAIN,
        **{kind: PLAIN.replace("--once", f'--as "{kind}" --once') for kind in TYPES},
    }.items():
        before = kernel.value("time.process_time()")
        took = kernel.run(line)[2]
        used[name] = (kernel.value("time.process_time()") - before) / took
    print(f"1.1 MB of JSON in 20,000 chunks over {seconds:g} s: processor time of the kernel, of one core")
    for name, share in used.items():
        print(f"| {name} | {share:.1%} | {share - used['plain']:+.1%} |")
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)
    server.terminate()


def interrupted(rounds: int, kernel: Kernel) -> list[float]:
    """Return the seconds from the interrupt to the closed connection, by round."""
    from servers import HANG, Answer, ScriptedServer

    took = []
    with ScriptedServer(Answer([b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n', HANG])) as server:
        kernel.run(f"get_ipython()._llm_magic.registry.add('hangs', 'compatible', base_url={server.url!r})")
        for _ in range(rounds):
            count = len(server.requests)
            kernel.client.execute("%%llm -m hangs:m --once\nHi")
            while len(server.requests) == count:
                time.sleep(0.005)
            time.sleep(0.3)
            begun = time.perf_counter()
            kernel.manager.interrupt_kernel()
            server.requests[-1].left.wait(10)
            took.append((server.requests[-1].closed_at or 0.0) - begun)
            time.sleep(0.3)
    return took


def main(chunks: int, rounds: int) -> None:
    length = len(json_text())
    answers: dict[str, Callable[[], bytes]] = {
        "fast": partial(payload, chunks),
        "short": partial(payload, 1),
        "big": partial(payload, 1_000_000),
        "records": plain_json,
    }
    ports: dict[str, int] = {}
    servers = []
    for name, answer in answers.items():
        queue: Any = multiprocessing.Queue()
        server = multiprocessing.Process(target=serving, args=(answer, queue), daemon=True)
        server.start()
        servers.append(server)
        ports[name] = queue.get()
    kernel = Kernel()
    kernel.run(f"PORTS = {ports}")
    kernel.run(SETUP)
    kernel.run("%%llm -m short:m --once\nHi")
    before = kernel.value("resident()")
    kernel.run("%%llm -m big:m --once\nHi")
    size = kernel.value("len(_llm.text)")
    after = kernel.value("peak()")
    kernel.run("%%llm -m fast:m --once --show none\nHi")
    kernel.value("bare(PORTS['fast'])[2]")
    sdk, read, cell, sent, sdk_first, first, untyped = ([] for _ in range(7))
    typed: dict[str, list[float]] = {kind: [] for kind in TYPES}
    for _ in range(rounds):
        sdk.append(kernel.value("bare(PORTS['fast'])[2]"))
        read.append(kernel.value("bytes_alone(PORTS['fast'])"))
        sent.append(kernel.run("%%llm -m fast:m --once\nHi")[1])
        cell.append(kernel.value("_llm.seconds"))
        sdk_first.append(kernel.value("bare(PORTS['short'])[1]"))
        kernel.run("%%llm -m short:m --once\nHi")
        first.append(kernel.value("_llm.first_token_seconds"))
        untyped.append(kernel.run(PLAIN)[2])
        for kind, took in typed.items():
            took.append(kernel.run(PLAIN.replace("--once", f'--as "{kind}" --once'))[2])
    characters = kernel.value("(bare(PORTS['fast'])[0].__len__())")
    closed = interrupted(rounds, kernel)
    print(about("llm_magic", "openai", "ipykernel", "ipython"))
    print(f"{rounds} rounds, medians\n")
    print("| what | SDK's own loop | %%llm cell | ratio |")
    print("| --- | --- | --- | --- |")
    print(
        f"| {chunks:,} chunks, chunks a second | {chunks / median(sdk):,.0f} | {chunks / median(cell):,.0f} "
        f"| {median(sdk) / median(cell):.1f}x |"
    )
    print(
        f"| the same, seconds, against reading the bytes alone | {median(read):.3f} | {median(cell):.3f} "
        f"| {median(cell) / median(read):.2f}x |"
    )
    print(
        f"| time to first token, ms | {median(sdk_first) * 1000:.1f} | {median(first) * 1000:.1f} "
        f"| +{(median(first) - median(sdk_first)) * 1000:.1f} ms |"
    )
    ratio = median(sent) / characters
    print(f"| bytes sent to the front end | | {median(sent):,.0f} for {characters:,} characters | {ratio:.1f}x |")
    for kind, took in typed.items():
        print(
            f"| {length / 1e6:.1f} MB of JSON: plain cell, and as `{kind}`, s | {median(untyped):.2f} "
            f"| {median(took):.2f} | {median(took) / median(untyped):.2f}x |"
        )
    print(f"| peak over the memory before, while {size / 1e6:.1f} MB streamed, MB | | {after - before:.0f} | |")
    best, worst = median(closed) * 1000, max(closed) * 1000
    print(f"| interrupt to closed connection, ms: median, worst | | {best:.0f}, {worst:.0f} | |")
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)
    for server in servers:
        server.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arriving", type=float, help="instead: seconds over which typed records arrive")
    given = parser.parse_args()
    if given.arriving is None:
        main(given.chunks, given.rounds)
    else:
        arriving(given.arriving)
