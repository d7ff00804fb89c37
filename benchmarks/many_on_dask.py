"""Two workers of a Dask cluster on this machine against one process: `python benchmarks/many.py dask` prints it.

The fast server shows what a row costs: it, the scheduler, the client and the workers share the processors of this
machine. The slow one has places that take 100 to 200 ms: there the part of its capacity counts.
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from fast_server import MODEL, Places, Server
from machine import about
from many import session_at

LIMIT = 64
"""Rows in flight, and places of the slow server."""


class Ran(NamedTuple):
    """What a run took: seconds, and processor seconds of this process and of the workers."""

    seconds: float
    client: float
    workers: float


def run(prompts: list[str], client: Any = None) -> Ran:
    """Ask for all prompts from here, or from the workers of a client."""
    from llm_magic import LLM

    more: Any = {} if client is None else {"on": client}

    def busy_there() -> float:
        return 0.0 if client is None else sum(client.run(time.process_time).values())

    there, began, busy = busy_there(), time.perf_counter(), time.process_time()
    answers = LLM(f"bench:{MODEL}").map("{{ item }}", prompts, concurrency=LIMIT, **more)
    ran = Ran(time.perf_counter() - began, time.process_time() - busy, 0.0)
    assert len(answers) == len(prompts)
    assert not answers.failed
    return ran._replace(workers=busy_there() - there)


def most_in_flight(places: Places, prompts: list[str], client: Any) -> tuple[Ran, Ran, float]:
    """Return what one process and the workers take of a slow server, and what its places alone would."""
    with Server(places=places) as url:
        session = session_at(url, resume=False)
        try:
            run(prompts[:LIMIT])
            run(prompts[:LIMIT], client)
            return run(prompts), run(prompts, client), len(prompts) / places.capacity
        finally:
            session.close()


def print_dask(rows: int, rounds: int) -> None:
    """Print all."""
    import distributed
    from distributed.deploy.subprocess import SubprocessCluster  # its scheduler is no part of this process

    print(about("openai", "aiohttp", "distributed"))
    prompts = [f"Prompt {number}: is it a fine day?" for number in range(rows)]
    with (
        SubprocessCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        print(f"\n{rows:,} short rows, {LIMIT} in flight, fast server, medians of {rounds} rounds\n")
        with Server() as url:
            session = session_at(url, resume=False)
            run(prompts[:LIMIT])
            start = min(run(prompts[:1], client).seconds for _ in range(5))
            found = [(run(prompts), run(prompts, client)) for _ in range(rounds)]
            session.close()
        print("| how | rows/s | processor of the client, µs a row | of the workers |")
        print("| --- | --- | --- | --- |")
        for at, name in enumerate(("one process", "two workers")):
            ran = sorted(each[at] for each in found)[rounds // 2]
            client_busy, workers_busy = (1e6 * each / rows for each in ran[1:])
            print(f"| {name} | {rows / ran.seconds:,.0f} | {client_busy:,.0f} | {workers_busy:,.0f} |")
        print(f"\nA run of one row: {start:.2f} s. Load: {os.getloadavg()[0]:.1f}\n")
        print(f"A server with {LIMIT} places that take 100 to 200 ms, {LIMIT} in flight: the part of its capacity\n")
        print("| rows | one process | two workers | ratio |")
        print("| --- | --- | --- | --- |")
        for number in (rows // 10, rows // 2):
            one, two, least = most_in_flight(Places(LIMIT, 0.1, 0.2), prompts[:number], client)
            parts = f"{least / one.seconds:.1%} | {least / two.seconds:.1%} | {one.seconds / two.seconds:.2f}"
            print(f"| {number:,} | {parts} |", flush=True)
