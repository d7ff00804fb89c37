"""What many rows hold in memory, use of a slow server, gain by places, and how soon a run goes on: `many.py` prints it.

Each figure is of a process of its own, started for it: `python benchmarks/many_limits.py NAME JSON` is one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from fast_server import MODEL, Counts, Places, Server
from many import Review, session_at

MEGABYTE = 2**20
TRACED = 20_000
"""Rows up to which it is also measured with `tracemalloc`, which takes long."""
WARM = 100
"""Rows of a run before the one that goes on is measured."""
LIMITED = 64
"""Places of the slow server."""


def in_a_process(name: str, **what: Any) -> Any:
    """Return what a function of this module returns in a new process."""
    ran = subprocess.run(
        [sys.executable, __file__, name, json.dumps(what)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(ran.stdout.splitlines()[-1])


# Memory


class Highest:
    """The memory of this process, looked at every 20 ms."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._ended = threading.Event()
        self.seen: list[int] = []
        self._thread = threading.Thread(target=self._look, daemon=True)

    def now(self) -> int:
        found: int = self._process.memory_info().rss
        return found

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self.seen.append(self.now())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def inputs_of(kind: str, rows: int) -> Any:
    """Return rows as a generator, a list, or a frame whose index is text."""
    if kind == "generator":
        return (f"Prompt {number}: is it a fine day?" for number in range(rows))
    texts = [f"Prompt {number}: is it a fine day?" for number in range(rows)]
    if kind == "list":
        return texts
    import pandas as pd

    return pd.DataFrame({"text": texts}, index=[f"row {number}" for number in range(rows)])


def memory(url: str, rows: int, kind: str, *, kept: bool, traced: bool, typed: bool = False) -> dict[str, float]:
    """Return in MB what a run of so many rows takes: at most, and in the end."""
    from llm_magic import LLM

    session_at(url, resume=True)
    llm = LLM(f"bench:{MODEL}", **({"output_type": Review} if typed else {}))
    prompt = "{{ text }}" if kind == "frame" else "{{ item }}"

    async def iterate(inputs: Any) -> None:
        async for _ in llm.amap(prompt, inputs, concurrency=64):
            pass

    def run(inputs: Any) -> Any:
        return llm.map(prompt, inputs, concurrency=64) if kept else asyncio.run(iterate(inputs))

    run(inputs_of(kind, 2_000))
    inputs = inputs_of(kind, rows)
    gc.collect()
    if traced:
        tracemalloc.start()
        answers = run(inputs)
        gc.collect()
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        found = {"most": most, "held": held}
    else:
        with Highest() as highest:
            before = highest.now()
            answers = run(inputs)
        gc.collect()
        found = {"most": max(highest.seen) - before, "held": highest.now() - before}
        for part in (25, 50, 75):
            found[f"at {part}%"] = highest.seen[len(highest.seen) * part // 100] - before
    if kept:
        found["results"] = size_of(answers.outcomes)
    return {name: value / MEGABYTE for name, value in found.items()}


def size_of(outcomes: Any) -> int:
    """Return the bytes of the same results where nothing was asked: a copy through `pickle`."""
    packed = pickle.dumps(outcomes)
    gc.collect()
    tracemalloc.start()
    made = pickle.loads(packed)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(made) == len(outcomes)
    return held


def print_memory(rows: int) -> None:
    """Print what is held besides the answers."""
    print(f"\n{rows:,} rows, resume on, MB more than before the run (inputs exist already)\n")
    print("| what | at most | a quarter through | half | three quarters | held in the end | the results alone |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    cases = {
        "llm.amap over a generator, nothing kept": {"kind": "generator", "kept": False},
        "llm.amap over a list, nothing kept": {"kind": "list", "kept": False},
        "llm.amap over a frame, nothing kept": {"kind": "frame", "kept": False},
        "llm.map over a list": {"kind": "list", "kept": True},
        "llm.map over a frame": {"kind": "frame", "kept": True},
    }
    with Server() as url:
        for name, case in cases.items():
            for traced in (False, True) if rows <= TRACED else (False,):
                found = in_a_process("memory", url=url, rows=rows, traced=traced, **case)
                cells = [found.get(key) for key in ("most", "at 25%", "at 50%", "at 75%", "held", "results")]
                told = " | ".join("" if cell is None else f"{cell:,.1f}" for cell in cells)
                print(f"| {name}, {'traced' if traced else 'of the process'} | {told} |", flush=True)


# The capacity of a slow server


def keep_asking(url: str, concurrency: int | str, seconds: float) -> int:
    """Ask without end for so many seconds; returns how many rows failed."""
    from llm_magic import LLM

    session = session_at(url, resume=False, max_retries=2)
    until = time.perf_counter() + seconds

    def prompts() -> Iterator[str]:
        number = 0
        while time.perf_counter() < until:
            number += 1
            yield f"Prompt {number}: is it a fine day?"

    answers = LLM(f"bench:{MODEL}").map("{{ item }}", prompts(), concurrency=concurrency, on_error="keep")
    failed = len(answers.failed)
    session.close()
    return failed


def used(places: Places, concurrency: int | str, seconds: float, after: float) -> tuple[float, float, int, int]:
    """Return the part of a server's capacity that is used: of all the time until the last answer, and from a time on.

    Also how many requests were refused, and how many rows failed.
    """
    server = Server(places=places)
    counts: Counts = server.counts
    with server as url:
        what = json.dumps({"url": url, "concurrency": concurrency, "seconds": seconds})
        asking = subprocess.Popen(
            [sys.executable, __file__, "keep_asking", what],
            stdout=subprocess.PIPE,
            text=True,
        )
        while not counts.first.value:
            time.sleep(0.001)
        began = counts.first.value
        time.sleep(max(0.0, began + after - time.perf_counter()))
        worked_before, middle = counts.worked.value, time.perf_counter()
        time.sleep(max(0.0, began + seconds - 1 - time.perf_counter()))
        worked, late = counts.worked.value, time.perf_counter()
        said, _ = asking.communicate()
        whole = counts.worked.value / (places.number * (counts.last.value - began))
        part = (worked - worked_before) / (places.number * (late - middle))
        return whole, part, counts.refused.value, int(said.splitlines()[-1])


def print_capacity(seconds: float) -> None:
    """Print the part of a slow server's capacity that fixed numbers and `auto` use."""
    print(f"\nA server with {LIMITED} places that take 100 to 400 ms: the part of its capacity used; ", end="")
    print("`auto` from 30 s on, the others from 2 s on\n")
    print("| beyond its places it | in flight | from then on | of the whole run | refused | rows failed |")
    print("| --- | --- | --- | --- | --- | --- |")
    for refuses in (False, True):
        places = Places(LIMITED, 0.1, 0.4, refuses=refuses)
        for concurrency in (48, 64, 96, "auto"):
            warm = 30.0 if concurrency == "auto" else 2.0
            whole, part, refused, failed = used(places, concurrency, seconds + warm, warm)
            told = f"{part:.1%} | {whole:.1%} | {refused:,} | {failed:,}"
            print(f"| {'refuses (429)' if refuses else 'queues'} | {concurrency} | {told} |", flush=True)


# Going on


def begin_rows(url: str, rows: int, answered: int, kind: str) -> int:
    """Ask for rows until so many are answered, and stop."""
    from llm_magic import LLM

    session = session_at(url, resume=True)
    prompt = "{{ text }}" if kind == "frame" else "{{ item }}"

    async def some() -> int:
        count = 0
        stream = LLM(f"bench:{MODEL}").amap(prompt, inputs_of(kind, rows), concurrency=64)
        async for _ in stream:
            count += 1
            if count >= answered:
                break
        await stream.aclose()
        return count

    found = asyncio.run(some())
    session.close()
    return found


def go_on(url: str, rows: int, kind: str) -> dict[str, float]:
    """Run the same rows again; returns when that was, the seconds that it took, and how many were known."""
    from llm_magic import LLM

    session = session_at(url, resume=True)
    prompt = "{{ text }}" if kind == "frame" else "{{ item }}"
    inputs = inputs_of(kind, rows)
    LLM(f"bench:{MODEL}").map("{{ item }}!", range(WARM))
    began = time.perf_counter()
    with Highest() as highest:
        before = highest.now()
        answers = LLM(f"bench:{MODEL}").map(prompt, inputs, concurrency=64)
    took = time.perf_counter() - began
    session.close()
    more = (max(highest.seen) - before) / MEGABYTE
    return {"began": began, "took": took, "known": answers.statistics.known, "memory": more}


def print_resume(rows: int, rounds: int) -> None:
    """Print how soon a run goes on that was stopped when 99 of 100 rows were answered."""
    print(f"\n{rows * 99 // 100:,} of {rows:,} rows answered before: medians of {rounds} rounds\n")
    print("| input | first new request after, s | whole run, s | answered before | MB at most |")
    print("| --- | --- | --- | --- | --- |")
    for kind in ("list", "frame", "generator"):
        found = [gone_on(rows, kind) for _ in range(rounds)]
        first, took, known, more = map(statistics.median, zip(*found, strict=True))
        print(f"| {kind} | {first:.2f} | {took:.1f} | {known:,.0f} | {more:,.0f} |", flush=True)


def gone_on(rows: int, kind: str) -> tuple[float, float, float, float]:
    """Return the seconds until the first new request and to the end, the rows that were known, and MB."""
    server = Server()
    with server as url:
        in_a_process("begin_rows", url=url, rows=rows, answered=rows * 99 // 100, kind=kind)
        begun = server.counts.answered.value
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(first_after, server.counts, begun + WARM)
            ran = in_a_process("go_on", url=url, rows=rows, kind=kind)
            return first.result(60) - ran["began"], ran["took"], ran["known"], ran["memory"]


def first_after(counts: Counts, answered: int) -> float:
    """Return when the first request came after so many were answered."""
    while counts.answered.value < answered:
        time.sleep(0.001)
    counts.first.value = 0.0
    while not counts.first.value:
        time.sleep(0.001)
    first: float = counts.first.value
    return first


# Places of the embedded model

PLACES = (1, 8)
"""Rows in flight; the embedded model has 8 places."""
REVIEWED = 40
TOKENS = (5, 40)
"""Tokens of an answer, at most: few, so that reading the prompts takes the time, and many, so that writing does."""


def print_slots(rounds: int) -> None:
    """Print what it gains to ask the embedded model for several rows at once: by turns, each prompt read anew."""
    from llm_magic import LLM

    llm = LLM("local:smollm2", temperature=0)
    llm.ask("Hello!", max_tokens=1)  # it is started
    print(f"\n{REVIEWED} rows on the embedded model: medians of {rounds} rounds\n")
    print("| tokens of an answer, at most | in flight | seconds | rows/s | against one at a time |")
    print("| --- | --- | --- | --- | --- |")
    count = 0
    for tokens in TOKENS:
        found: dict[int, list[float]] = {places: [] for places in PLACES}
        for number in range(rounds):
            for places in PLACES if number % 2 == 0 else PLACES[::-1]:
                prompts = [
                    f"{count + row}: write a story about a town of {count + row} people." for row in range(REVIEWED)
                ]
                count += REVIEWED
                began = time.perf_counter()
                answers = llm.map("{{ item }}", prompts, concurrency=places, max_tokens=tokens)
                found[places].append(time.perf_counter() - began)
                assert len(answers) == REVIEWED
        alone = statistics.median(found[PLACES[0]])
        for places, took in found.items():
            seconds = statistics.median(took)
            print(
                f"| {tokens} | {places} | {seconds:.1f} ({min(took):.1f} to {max(took):.1f}) "
                f"| {REVIEWED / seconds:.1f} | {alone / seconds:.2f}x |",
                flush=True,
            )


def measure(part: str, given: Any) -> None:
    """Print one part."""
    if part == "memory":
        print_memory(given.rows)
    elif part == "capacity":
        print_capacity(given.seconds)
    elif part == "resume":
        print_resume(given.rows, given.rounds)
    elif part == "slots":
        print_slots(given.rounds)


STEPS: dict[str, Callable[..., Any]] = {
    "memory": memory,
    "keep_asking": keep_asking,
    "begin_rows": begin_rows,
    "go_on": go_on,
}

if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](**json.loads(sys.argv[2]))))
