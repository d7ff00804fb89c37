"""A process that records is killed again and again: what it had told of is kept, and the next one goes on with it."""

from __future__ import annotations

import json
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
from numbered import NumberedServer

KILLS = 50
PARENT = """
import asyncio, os, sys
from itertools import count
import llm_magic, openai
from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session, run, screen

url, file = sys.argv[1:]

def told(number, text):
    os.write(1, f"{number} {text}\\n".encode())

def begin(mode):
    session = Session(Settings(record=mode, record_file=file), ProviderRegistry())
    session.registry.add("s", "compatible", base_url=url, max_retries=0)
    api.activate(session)

def one_by_one(mode):
    begin(mode)
    for number in count():
        told(number, LLM("s:m").ask(f"Prompt {number}").text)

def at_once(mode):
    begin(mode)
    async def one(number):
        told(number, (await LLM("s:m").aask(f"Prompt {number}")).text)
    async def work():
        for first in count(0, 8):
            await asyncio.gather(*map(one, range(first, first + 8)))
    asyncio.run(work())

for line in sys.stdin:
    how, mode = line.split()
    pid = os.fork()  # what is imported is imported once
    if pid == 0:
        try:
            {"one_by_one": one_by_one, "at_once": at_once}[how](mode)
        except BaseException as error:
            os.write(1, f"error {error!r}\\n".encode())
        os._exit(0)
    os.write(1, f"pid {pid}\\n".encode())
    os.waitpid(pid, 0)
    os.write(1, b"over\\n")
"""


@pytest.fixture
def server() -> Iterator[NumberedServer]:
    with NumberedServer() as server:
        yield server


class Recording:
    """A process that records in children of its own, each killed in the midst of its work."""

    def __init__(self, folder: Path, url: str) -> None:
        self.file = folder / "llm.jsonl"
        command = [sys.executable, "-c", PARENT, url, str(self.file)]
        self.process = subprocess.Popen(  # noqa: S603 - this Python
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=folder
        )
        self.told: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(10) == 0

    def killed(self, how: str, answers: int, seconds: float, mode: str = "once") -> dict[int, str]:
        """Record until that many further answers came, then for some seconds, and kill; return what was told of.

        In mode `only` it ends by itself, where nothing more is recorded.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{how} {mode}\n")
        pid = int(self.process.stdout.readline().split()[1])
        told: dict[int, str] = {}
        new, is_killed = 0, False
        for line in self.process.stdout:
            word, _, text = line.rstrip("\n").partition(" ")
            if word == "over":
                return told
            if word == "error":
                assert mode == "only", text
                assert text.startswith("RecordingError"), text
                continue
            new += int(word) not in self.told
            told[int(word)] = text
            if new >= answers and not is_killed and mode != "only":
                time.sleep(seconds)
                os.kill(pid, signal.SIGKILL)
                is_killed = True
        raise AssertionError("the process ended")


def whole_lines(file: Path) -> list[str]:
    """Return the texts of the answers in a file, the torn ends of killed processes left out."""
    found = []
    for line in file.read_bytes().split(b"\n"):
        try:
            found.append(json.loads(line)["answer"]["choices"][0]["text"])
        except ValueError:
            continue
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("how", ["one_by_one", "at_once"])
def test_killed_at_random_moments_only_answers_in_flight_are_lost(
    how: str, tmp_path: Path, server: NumberedServer
) -> None:
    moments = random.Random(13)  # noqa: S311 - of when to kill
    with Recording(tmp_path, server.url) as recording:
        for _ in range(KILLS // 2):
            told = recording.killed(how, moments.randrange(1, 10), moments.uniform(0, 0.03))
            for number, text in recording.told.items():
                assert told.get(number, text) == text, "a later process has the same answer"
            recording.told |= told
            kept = whole_lines(recording.file)
            assert set(recording.told.values()) <= set(kept), "what was told of is kept"
        in_flight = {"one_by_one": 1, "at_once": 8}[how]
        assert len(kept) == len(set(kept))
        assert len(server.asked) - len(kept) <= in_flight * KILLS // 2
        torn = recording.file.read_bytes().count(b"\n") - len(kept)
        assert torn <= KILLS // 2
        asked = len(server.asked)
        again = recording.killed(how, 0, 0, "only")
        assert len(server.asked) == asked
        assert set(again.values()) <= set(kept)
        assert recording.told.items() <= again.items() or how == "at_once"
