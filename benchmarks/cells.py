"""Whole `%%llm` cells in a kernel, against the SDK's own loop in the same kernel: `python benchmarks/cells.py`.

A fast server in another process sends the same stream to both in turn. All figures are of one run; medians of several
rounds. Prints chunks a second, time to the first token, bytes sent to the front end, memory, typed against plain, and
how soon an interrupted request is closed at the server.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel
from machine import about
from wire import payload, serve

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

def bare(port):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    return asyncio.run_coroutine_threadsafe(_bare(port), loop).result()

def resident():
    import psutil
    return psutil.Process().memory_info().rss / 1024**2

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
"""


def plain_json(rows: int) -> tuple[bytes, int]:
    """Return an HTTP answer that streams about 1 MB of JSON records in 20,000 chunks, and its length in characters."""
    records = [
        {"name": f"name {row}", "number": row, "note": f"a note of some length, the one of row {row}"}
        for row in range(rows)
    ]
    text = json.dumps(records)
    step = max(1, len(text) // 20_000)
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": text[at : at + step]}, "finish_reason": None}]}
        for at in range(0, len(text), step)
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    ), len(text)


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


def median(values: list[float]) -> float:
    return statistics.median(values)


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
    text, length = plain_json(12_000)
    answers = {"fast": payload(chunks), "short": payload(1), "big": payload(1_000_000), "records": text}
    ports: dict[str, int] = {}
    servers = []
    for name, answer in answers.items():
        queue: Any = multiprocessing.Queue()
        server = multiprocessing.Process(target=serve, args=(answer, queue), daemon=True)
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
    sdk, cell, sent, sdk_first, first, typed = ([] for _ in range(6))
    for _ in range(rounds):
        sdk.append(kernel.value("bare(PORTS['fast'])[2]"))
        sent.append(kernel.run("%%llm -m fast:m --once\nHi")[1])
        cell.append(kernel.value("_llm.seconds"))
        sdk_first.append(kernel.value("bare(PORTS['short'])[1]"))
        kernel.run("%%llm -m short:m --once\nHi")
        first.append(kernel.value("_llm.first_token_seconds"))
        typed.append(kernel.run('%%llm -m records:m --as "list[dict[str, str | int]]" --once\nHi')[2])
    characters = kernel.value("(bare(PORTS['fast'])[0].__len__())")
    untyped = [kernel.run("%%llm -m records:m --once\nHi")[2] for _ in range(rounds)]
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
        f"| time to first token, ms | {median(sdk_first) * 1000:.1f} | {median(first) * 1000:.1f} "
        f"| +{(median(first) - median(sdk_first)) * 1000:.1f} ms |"
    )
    ratio, slower = median(sent) / characters, median(typed) / median(untyped)
    print(f"| bytes sent to the front end | | {median(sent):,.0f} for {characters:,} characters | {ratio:.1f}x |")
    plain_seconds, typed_seconds = median(untyped), median(typed)
    print(
        f"| {length / 1e6:.1f} MB of JSON: plain, typed cell, s | {plain_seconds:.2f} | {typed_seconds:.2f} "
        f"| {slower:.2f}x |"
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
    given = parser.parse_args()
    main(given.chunks, given.rounds)
