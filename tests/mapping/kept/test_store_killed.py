"""Processes that keep answers are killed again and again: what each had told of is given to the next."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

KILLS = 50
ROWS = 1_000_000
PARENT = """
import os, sys
from hashlib import sha256
from llm_magic.mapping.kept.store import Store

def told(line):
    os.write(1, f"{line}\\n".encode())

def key(row):
    return sha256(str(row).encode()).hexdigest()

def work(first, size, again):
    run = Store.open({"model": "m"}, say=lambda line: told(f"said {line}"), again=again)
    told(f"knew {len(run)}")
    for row in range(first, 1_000_000):
        known = run.known(key(row))
        if known is None:
            if not run.keep(key(row), {"choices": [{"text": f"{row} " * size}]}):
                told(f"error {row}")
            told(f"kept {row}")
        elif known != {"choices": [{"text": f"{row} " * (len(known["choices"][0]["text"]) // len(f"{row} "))}]}:
            told(f"error {row}")

for line in sys.stdin:
    first, size, processes, again = map(int, line.split())
    pids = []
    for number in range(processes):
        pid = os.fork()  # what is imported is imported once
        if pid == 0:
            try:
                work(first, size, bool(again))
            except BaseException as error:
                told(f"error {error!r}")
            os._exit(0)
        pids.append(pid)
    told("pids " + " ".join(map(str, pids)))
    for pid in pids:
        os.waitpid(pid, 0)
    told("over")
"""


class Keeping:
    """A process that keeps answers in children of its own, which are killed in the midst of their work."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", PARENT]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)  # noqa: S603 - this Python

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(10) == 0

    def killed(
        self, first: int, rows: int, seconds: float, *, size: int = 3, processes: int = 1, again: bool = False
    ) -> tuple[list[int], list[int]]:
        """Keep from a row on, at least so many and then for some seconds; return what was known, and what was kept."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{first} {size} {processes} {int(again)}\n")
        pids: list[int] = []
        knew: list[int] = []
        kept: list[int] = []
        is_killed = False
        for line in self.process.stdout:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "over":
                return knew, kept
            assert word in {"pids", "knew", "kept"}, line
            if word == "pids":
                pids = [int(pid) for pid in rest.split()]
            else:
                (knew if word == "knew" else kept).append(int(rest))
            if not is_killed and len(kept) >= rows and len(pids) == processes == len(knew):
                time.sleep(seconds)
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                is_killed = True
        raise AssertionError("the process ended")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.fixture
def keeping() -> Iterator[Keeping]:
    with Keeping() as keeping:
        yield keeping


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("size", [3, 20_000])
def test_killed_at_random_moments_only_what_was_in_flight_is_lost(size: int, keeping: Keeping) -> None:
    moments = random.Random(14)  # noqa: S311 - of when to kill
    told: set[int] = set()
    for _ in range(KILLS):
        (knew,), kept = keeping.killed(0, moments.randrange(20), moments.uniform(0, 0.02), size=size)
        assert told.isdisjoint(kept), "what was told of is known"
        assert len(told) <= knew <= len(told) + 1, "at most one was kept and not told of"
        told |= set(kept) | set(range(knew))
        assert told == set(range(len(told)))
    (knew,), _ = keeping.killed(0, 1, 0, again=True)
    assert knew == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_two_at_once_killed_lose_nothing_of_each_other(keeping: Keeping) -> None:
    moments = random.Random(15)  # noqa: S311 - as above
    told: set[int] = set()
    for _ in range(KILLS // 5):
        _, kept = keeping.killed(0, moments.randrange(2, 40), moments.uniform(0, 0.01), processes=2)
        assert told.isdisjoint(kept)
        told |= set(kept)
    (knew,), kept = keeping.killed(0, 1, 0)
    assert told.isdisjoint(kept)
    assert knew >= len(told)
