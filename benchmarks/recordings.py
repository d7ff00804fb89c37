"""What recordings cost: a replayed cell, a recorded request, a large file: `python benchmarks/recordings.py`.

- A replayed `%%llm` cell against a cell of the same kernel that prints the same text (to reach: at most 5 ms more).
- A recorded request against one that is not, by turns against the same server (at most 1 ms more).
- 16 `aask` at once of a server that takes 100 ms for each (at most 3% fewer a second); 64 at once of one that takes
  none, where the kernel's processor is the limit, by its time.
- A file of 100,000 answers, opened in a process of its own (at most 1 s, and 200 MB over a process without it).

All ratios are of one run; medians.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from cells import Kernel, serving
from machine import about
from wire import payload, reply

SETUP = """
import asyncio, os, statistics, time
os.chdir(FOLDER)
%load_ext llm_magic
time.sleep(3)
import openai
from llm_magic import LLM
session = get_ipython()._llm_magic.session
for name, port in PORTS.items():
    session.registry.add(name, "compatible", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)

def requests(mode, count, tag):
    llm, took = LLM("short:m", record=mode), []
    for number in range(count):
        begun = time.perf_counter()
        llm.ask(f"{tag} {number}: " + "some words of a prompt " * 20)
        took.append(time.perf_counter() - begun)
    return took

async def many(mode, count, tag, name, at_once):
    llm, gate = LLM(f"{name}:m", record=mode), asyncio.Semaphore(at_once)
    async def one(number):
        async with gate:
            await llm.aask(f"{tag} {number}: " + "some words of a prompt " * 20)
    begun, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*map(one, range(count)))
    return time.perf_counter() - begun, time.process_time() - used
"""
OPENING = """
import sys, time
from pathlib import Path
import psutil
from llm_magic.recordings import Recordings
before = psutil.Process().memory_info().rss
begun = time.perf_counter()
recordings = Recordings(lambda: (Path(sys.argv[1]), ()), print)
found = recordings.has({"kind": "answer", "model": "m", "provider": "s", "messages": []}, None, 0, "once")
took = time.perf_counter() - begun
print(found, took, (psutil.Process().memory_info().rss - before) / 2**20)
"""


class Both(NamedTuple):
    """Seconds, and seconds of the processor."""

    recorded: tuple[float, float]
    plain: tuple[float, float]


def median(values: list[float]) -> float:
    return statistics.median(values)


def replayed(kernel: Kernel, rounds: int) -> dict[str, Both]:
    """Return the seconds of a replayed cell and of one that prints the same text, by the length of the answer."""
    found = {}
    for name in ("short", "long"):
        code = f"%%llm -m {name}:m --once -t 0 --record once\nHi"
        kernel.run(code)
        kernel.run("said = _llm.text")
        took: dict[str, list[float]] = {code: [], "print(said)": []}
        used = dict.fromkeys(took, 0.0)
        for _ in range(rounds):
            for cell in took:
                before = kernel.value("time.process_time()")
                took[cell] += [kernel.run(cell)[2] for _ in range(10)]
                used[cell] += kernel.value("time.process_time()") - before
        assert kernel.value("_llm.recorded") is True
        pairs = [(median(took[cell]), used[cell] / rounds / 10) for cell in took]
        found[f"{kernel.value('len(said)'):,} characters"] = Both(*pairs)
    return found


def recorded(kernel: Kernel, rounds: int, count: int) -> tuple[float, float]:
    """Return the seconds of a request that is recorded, and of one that is not, asked by turns."""
    took: dict[str, list[float]] = {"once": [], "off": []}
    for number in range(rounds):
        for mode in took:
            took[mode] += kernel.value(f"requests({mode!r}, {count}, {number!r})")
    return median(took["once"]), median(took["off"])


def many(kernel: Kernel, rounds: int, count: int, name: str, at_once: int) -> list[Both]:
    """Return the seconds, and those of the processor, of many requests at once: recorded and not, in each round."""
    rounds_of = []
    for number in range(rounds):
        took: dict[str, tuple[float, float]] = {}
        for mode in ("off", "once") if number % 2 else ("once", "off"):
            kernel.run(f"told = await many({mode!r}, {count}, 'round {number}', {name!r}, {at_once})")
            took[mode] = kernel.value("told")
        rounds_of.append(Both(took["once"], took["off"]))
    return rounds_of


def serve_slowly(seconds: float, ports: Any) -> None:
    """Answer every request after some seconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ports.put(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=reply, args=(Late(connection, seconds), payload(20)), daemon=True).start()


class Late:
    """A connection that sends after some seconds."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._seconds = connection, seconds
        self.recv = connection.recv

    def sendall(self, data: bytes) -> None:
        time.sleep(self._seconds)
        self._connection.sendall(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def large_file(folder: Path, entries: int) -> Path:
    """Write a file of many answers of some length."""
    from llm_magic.recordings.recording import Recording

    file = folder / "large.llm.jsonl"
    text = "An answer of some words, as a small model gives it. " * 6
    answer: dict[str, Any] = {
        "choices": [{"text": text, "finish_reason": "stop"}], "model": "m", "seconds": 1.25,
        "first_token_seconds": 0.25, "usage": {"input_tokens": 40, "output_tokens": 60},
        "attempts": [{"status": 200, "seconds": 0.1}],
    }  # fmt: skip
    with file.open("wb") as opened:
        for number in range(entries):
            messages = [{"role": "user", "content": f"Row {number}: " + "the words of a row of a table, " * 8}]
            asked = {"kind": "answer", "provider": "s", "model": "m", "messages": messages}
            opened.write(Recording(asked, answer, f"cell-{number % 50}", "2026-11-29T23:59:01Z").line())
    return file


def opened(folder: Path, entries: int, rounds: int) -> tuple[float, float, int]:
    """Return the seconds and the megabytes that it takes to open a large file, and its size in bytes."""
    file, took, memory = large_file(folder, entries), [], []
    for _ in range(rounds):
        command = [sys.executable, "-c", OPENING, str(file)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        took.append(float(told[1]))
        memory.append(float(told[2]))
    return median(took), median(memory), file.stat().st_size


def main(rounds: int, entries: int) -> None:
    print(about("llm_magic", "openai", "ipykernel", "ipython"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ports, servers = {}, []
        for served, target, argument in (
            ("short", serving, partial(payload, 20)), ("long", serving, partial(payload, 2_000)),
            ("slow", serve_slowly, 0.1),
        ):  # fmt: skip
            queue: Any = multiprocessing.Queue()
            server = multiprocessing.Process(target=target, args=(argument, queue), daemon=True)
            server.start()
            servers.append(server)
            ports[served] = queue.get()
        kernel = Kernel()
        kernel.run(f"PORTS, FOLDER = {ports}, {name!r}")
        kernel.run(SETUP)
        print(f"{rounds} rounds, medians\n")
        print("| what | with recordings | without | more | to reach |")
        print("| --- | --- | --- | --- | --- |")
        for length, both in replayed(kernel, rounds).items():
            for at, what in enumerate(
                (f"a replayed cell of {length}, one that prints them", "the same, processor time")
            ):
                with_, without = both.recorded[at] * 1000, both.plain[at] * 1000
                print(f"| {what}, ms | {with_:.1f} | {without:.1f} | **{with_ - without:+.1f} ms** | 5 ms |")
        with_, without = recorded(kernel, rounds, 50)
        print(
            f"| a request, ms | {with_ * 1000:.2f} | {without * 1000:.2f} | **{(with_ - without) * 1000:+.2f} ms** "
            "| 1 ms |"
        )
        told = many(kernel, rounds, 320, "slow", 16)
        shares = [both.recorded[0] / both.plain[0] - 1 for both in told]
        rates = [320 / median([both[at][0] for both in told]) for at in (0, 1)]
        what = "16 at once of a server that takes 100 ms, a second"
        print(f"| {what} | {rates[0]:,.1f} | {rates[1]:,.1f} | **{median(shares):+.1%}** | 3% |")
        told = many(kernel, rounds, 500, "short", 64)
        used = [median([both[at][1] for both in told]) / 500 * 1000 for at in (0, 1)]
        what = "64 at once of one that takes none, processor time, ms a request"
        print(f"| {what} | {used[0]:.2f} | {used[1]:.2f} | {used[0] - used[1]:+.2f} ms | |")
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)
        for server in servers:
            server.terminate()
        took, memory, size = opened(folder, entries, rounds)
        what = f"{entries:,} answers, {size / 1e6:.0f} MB"
        print(f"| opening {what} | **{took:.2f} s** | | | 1 s |")
        print(f"| the same, memory | **{memory:.0f} MB** | | | 200 MB |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--entries", type=int, default=100_000)
    given = parser.parse_args()
    main(given.rounds, given.entries)
