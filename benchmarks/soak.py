"""What thousands of cells leave behind in one kernel: `python benchmarks/soak.py`.

Three kernels, without a screen. The first runs cells of every kind, interrupts in mid-answer among them; the second
runs Python cells of the same text that return the same text, which IPython keeps in `In` and `Out`; the third asks
servers that break off, fail, refuse and never answer. Counted in each, after a collection of garbage: memory of its
own (`Private` in /proc/self/smaps_rollup), open descriptors, threads, tasks. The growth of memory is a slope over the
cells, by least squares. Ends with 1 where a bound is broken. Linux only.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import os
import re
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from jupyter_client.manager import start_new_kernel
from machine import about

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from servers import HANG, RESET, Answer, Received, ScriptedServer, chunk, document, stream

BOUND = 5.0
"""kB a cell that ours may keep more than Python's."""

JUDGED = 1_000
"""Cells from which on the growth of memory is judged: over fewer it says nothing."""

TEXT = (
    "The sky is blue because molecules of air scatter short waves of light far more than long ones, so that blue "
    "comes from everywhere. At dusk the light goes a longer way through the air, and what is left of it is red. "
)

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "openai-organization": "user-k2v9xq7d0m4t",
    "openai-project": "proj_Xq7d0m4tk2v9Lr4TzB8nWc3H",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "30000000",
    "x-ratelimit-reset-requests": "6ms",
    "x-ratelimit-reset-tokens": "0s",
    "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
    "x-content-type-options": "nosniff",
    "cf-cache-status": "DYNAMIC",
    "server": "cloudflare",
    "alt-svc": 'h3=":443"; ma=86400',
}
"""As a large provider sends them with each answer; those that change are added by `headers`."""


def reply(number: int) -> str:
    """Return the answer to a cell: 400 characters that no other cell has."""
    return f"Answer {number}. {(3 * TEXT)[number % 37 : number % 37 + 380]}"


def cities(number: int) -> str:
    """Return the typed answer to a cell."""
    return json.dumps([{"name": f"City {number}-{row}", "people": number * row} for row in range(8)])


# The server


def headers(number: int) -> dict[str, str]:
    """Return the headers of an answer."""
    return HEADERS | {
        "date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        "openai-processing-ms": str(200 + number % 700),
        "x-ratelimit-remaining-requests": str(9999 - number % 7),
        "x-ratelimit-remaining-tokens": str(29_999_999 - number),
        "x-request-id": f"req_{number:032x}",
        "cf-ray": f"{number:016x}-FRA",
        "set-cookie": f"__cf_bm={number:043x}-1.0.1.1; path=/; domain=.example.org; HttpOnly; Secure; SameSite=None",
    }


def usage(number: int) -> dict[str, Any]:
    counted = {"prompt_tokens": 900 + number % 100, "completion_tokens": 100}
    return {"choices": [], "usage": counted | {"total_tokens": sum(counted.values())}}


def streamed(text: str, number: int, *before: dict[str, Any]) -> Answer:
    """Return a text in pieces of a few words."""
    pieces = [text[at : at + 20] for at in range(0, len(text), 20)]
    chunks = [*before, *map(chunk, pieces), chunk(finish="stop"), usage(number)]
    return stream(*chunks, headers=headers(number))


def answered(received: Received) -> Answer:
    """Answer as the model's name says."""
    asked = received.json
    model, messages = asked["model"], asked["messages"]
    prompts = [message["content"] for message in messages if message["role"] == "user"]
    number = int(re.findall(r"Cell (\d+)", prompts[-1])[-1])
    if model == "reasons":
        thoughts = [chunk(reasoning_content=f"Let me see, step {step} … ") for step in range(10)]
        return streamed(reply(number), number, *thoughts)
    if model == "calls" and messages[-1]["role"] != "tool":
        call = {"index": 0, "id": f"call_{number}", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
        calls = [chunk(tool_calls=[call]), chunk(finish="tool_calls"), usage(number)]
        return stream(*calls, headers=headers(number))
    if model == "refuses":
        return stream(chunk(refusal="I cannot help with that."), chunk(finish="stop"), headers=headers(number))
    if model == "fails":
        said = {"message": f"max_tokens is too large: {number}.", "type": "invalid_request_error", "code": None}
        return document({"error": said}, 400, headers(number) | {"content-type": "application/json"})
    if model == "hangs":
        return stream(chunk("Let me "), chunk("think"), HANG, done=False, headers=headers(number))
    text = cities(number) if model == "json" else reply(number)
    if not asked.get("stream"):
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return document(
            {"model": model, **usage(number), "choices": [choice]},
            headers=headers(number) | {"content-type": "application/json"},
        )
    return streamed(text, number)


def hostile(received: Received) -> Answer:
    """Fail as the model's name says."""
    model = received.json["model"]
    if model == "breaks":
        return stream(chunk("Let me "), RESET, done=False)
    if model == "ends":
        return stream(chunk("Let me "), done=False)
    if model == "fails":
        return document({"error": {"message": "out of order"}}, 500)
    if model == "silent":
        return Answer([HANG], raw=True)
    if model == "stalls":
        return stream(chunk("Let me "), HANG, done=False)
    return streamed(reply(0), 0)


# The cells


@dataclass(frozen=True)
class Cell:
    """A cell of one kind, and the Python cell that it is compared with; `{n}` is its number.

    `same` is an expression of what it gives back. `expects` has the errors that it may end with, `|` between them, `*`
    for any end. It is `interrupted` when the server has begun to answer.
    """

    name: str
    code: str
    same: str = "reply({n})"
    expects: str = ""
    interrupted: bool = False

    def written(self, number: int) -> str:
        """Return the code of the cell of this number."""
        return self.code.replace("{n}", str(number))

    def reference(self, number: int) -> str:
        """Return a Python cell of the same text that returns the same text."""
        lines = [f"# {line}" for line in self.written(number).splitlines()]
        last = f"raise RuntimeError({self.same})" if self.expects else self.same
        return "\n".join([*lines, last.replace("{n}", str(number))])


PROMPT = (
    "Cell {n}: why is the sky blue? Answer in three sentences that a child of ten understands, and say how we know."
)

CELLS = (
    Cell("plain", f"%%llm -m soak:text\n{PROMPT}"),
    Cell("-o", f"%%llm -m soak:text -o answer -t 0\n{PROMPT}"),
    Cell("--as", f'%%llm -m soak:json --as "list[City]" -o found\n{PROMPT}', "cities({n})"),
    Cell("--schema", f'%%llm -m soak:json --schema "[name, people int]"\n{PROMPT}', "cities({n})"),
    Cell("--tools", f"%%llm -m soak:calls --tools weather\n{PROMPT}"),
    Cell("-c", f"%%llm -m soak:text -c aside\n{PROMPT}"),
    Cell("--once", f"%%llm -m soak:text --once\n{PROMPT}"),
    Cell("-b", f"%%llm -m soak:text -b\n{PROMPT}"),
    Cell("--no-stream", f"%%llm -m soak:text --no-stream\n{PROMPT}"),
    Cell("reasoning", f"%%llm -m soak:reasons\n{PROMPT}"),
    Cell("template", f"%%llm -m soak:text\n{{{{ notes }}}} {PROMPT}"),
    Cell("--base-url", f"%%llm -m soak:text --base-url $url\n{PROMPT}"),
    Cell("--dry-run", f"%%llm -m soak:text --dry-run\n{PROMPT}"),
    Cell("400", f"%%llm -m soak:fails\n{PROMPT}", "'soak:fails: max_tokens is too large {n}'", "RequestRefusedError"),
    Cell("refused", f"%%llm -m soak:refuses --as City\n{PROMPT}", "'soak:refuses refused to answer'", "RefusedError"),
    Cell("%llm", f"text = %llm -m soak:text {PROMPT}\ntext"),
    Cell("ask", f'LLM("soak:text").ask("{PROMPT}")'),
    Cell("ask, as", f'LLM("soak:json").ask("{PROMPT}", output_type=list[City])', "cities({n})"),
    Cell("stream", f'"".join([e.text async for e in LLM("soak:text").stream("{PROMPT}") if hasattr(e, "text")])'),
    Cell("aask", f'await LLM("soak:text").aask("{PROMPT}")'),
)
INTERRUPTED = tuple(
    Cell(f"{name}, interrupted", code, "'Let me think'", "Interrupted|KeyboardInterrupt|CancelledError", True)
    for name, code in (
        ("plain", f"%%llm -m soak:hangs\n{PROMPT}"),
        ("--as", f'%%llm -m soak:hangs --as "list[City]"\n{PROMPT}'),
        ("--tools", f"%%llm -m soak:hangs --tools weather\n{PROMPT}"),
        ("%llm", f"text = %llm -m soak:hangs {PROMPT}"),
        ("ask", f'LLM("soak:hangs").ask("{PROMPT}")'),
        ("aask", f'await LLM("soak:hangs").aask("{PROMPT}")'),
    )
)
HOSTILE = tuple(
    Cell(f"{name}{options}", f"%%llm -m {name}{options} --timeout 0.2 --retries 0\n{PROMPT}", expects="*")
    for name in ("soak:breaks", "soak:ends", "soak:fails", "soak:silent", "soak:stalls", "closed:m")
    for options in ("", " --no-stream", ' --as "list[City]"')
)

SETUP = """
import asyncio, ctypes, gc, json, os, threading, time

TEXT = {text!r}
notes = "A note of the notebook."

{functions}

async def _state():
    "What this kernel holds: kB of memory, descriptors, threads, tasks; and cells that go on in the background."
    session = get_ipython()._llm_magic.session if hasattr(get_ipython(), "_llm_magic") else None
    for _ in range(3):
        gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    with open("/proc/self/smaps_rollup") as lines:
        memory = sum(int(line.split()[1]) for line in lines if line.startswith("Private"))
    loops = [asyncio.get_running_loop(), *([session.loop.loop] if session else [])]
    tasks = sum(len(asyncio.all_tasks(loop)) for loop in loops)
    descriptors = len(os.listdir("/proc/self/fd")) - 1
    return memory, descriptors, threading.active_count(), tasks, len(session.jobs) if session else 0
"""
OURS = """
%load_ext llm_magic
import pydantic
from llm_magic import LLM

class City(pydantic.BaseModel):
    name: str
    people: int

def weather(city: str) -> str:
    "Tell the weather in a city."
    return f"Sunny in {city}, 24 degrees."

for _name, _url in URLS.items():
    get_ipython()._llm_magic.registry.add(_name, "compatible", base_url=_url)
url = URLS["soak"]
time.sleep(3)  # for what is imported meanwhile
"""
QUIET = 12.0
"""Seconds after which nothing is left of what is kept on purpose: ipykernel keeps for ten seconds the socket of a
thread that has ended, the SDK's client for five a connection that is idle."""


# The measurement


@dataclass(frozen=True)
class State:
    """What a kernel held after so many cells; memory in kB."""

    cells: int
    memory: int
    descriptors: int
    threads: int
    tasks: int


class Kernel:
    """A kernel whose cells are run one by one, as a front end with input runs them; what they show is dropped."""

    def __init__(self, urls: dict[str, str] | None = None) -> None:
        self._home = TemporaryDirectory()
        environment = {**os.environ, "IPYTHONDIR": self._home.name}
        self.manager, self.client = start_new_kernel(kernel_name="python3", startup_timeout=60, env=environment)
        functions = "\n".join(inspect.getsource(function) for function in (reply, cities))
        self.run(SETUP.format(text=TEXT, functions=functions))
        if urls is not None:
            self.run(f"URLS = {urls!r}")
            self.run(OURS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        self._home.cleanup()

    def start(self, code: str, number: int | None = None) -> str:
        """Begin to run a cell, and return the id of its request; one without a number is not kept in the history."""
        content = {
            "code": code,
            "silent": False,
            "store_history": number is not None,
            "user_expressions": {},
            "allow_stdin": True,
            "stop_on_error": False,
        }
        metadata = {"cellId": f"cell-{number}"} if number is not None else {}
        message = self.client.session.msg("execute_request", content, metadata=metadata)
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def end(self, request: str) -> tuple[str, str]:
        """Wait for the end of a cell; return the name of its error, empty for none, and what it said."""
        failed, said = "", ""
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "error":
                failed = content["ename"]
                said += content["evalue"]
            elif kind == "stream":
                said += content["text"]
            elif kind == "status" and content["execution_state"] == "idle":
                break
        while self.client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != request:
            pass
        return failed, said

    def run(self, code: str) -> str:
        """Run a cell that is not kept in the history; return what it printed."""
        failed, said = self.end(self.start(code))
        if failed:
            raise RuntimeError(f"{failed}: {said}")
        return said

    def state(self, cells: int) -> State:
        """Return what it holds after so many cells, once its background cells are done."""
        for _ in range(100):
            *found, jobs = ast.literal_eval(self.run("print(await _state())"))
            if not jobs:
                return State(cells, *found)
            time.sleep(0.1)
        raise RuntimeError("a cell in the background does not end")

    def ask_and_be_quiet(self) -> None:
        """Leave one kept connection, and wait for the end of all others and of what threads leave behind."""
        time.sleep(QUIET)
        self.run('LLM("soak:text").ask("Cell 0");')


@dataclass
class Growth:
    """The states of a kernel; `quiet` ones were taken before and after, when all that lingers was gone."""

    states: list[State] = field(default_factory=list)
    quiet: list[State] = field(default_factory=list)

    @property
    def slope(self) -> float:
        """The growth of memory in kB a cell, by least squares."""
        cells, memory = zip(*((state.cells, state.memory) for state in self.states), strict=True)
        return statistics.linear_regression(cells, memory).slope

    def broken(self) -> list[str]:
        """Return what grew and must not."""
        before, after = self.quiet
        return [
            f"{name} grew from {getattr(before, name)} to {getattr(after, name)}"
            for name in ("descriptors", "threads", "tasks")
            if getattr(after, name) > getattr(before, name)
        ]

    def row(self, name: str) -> str:
        """Return a row of the table."""
        before, after = self.quiet or (self.states[0], self.states[-1])
        counted = (f"{getattr(before, of)} → {getattr(after, of)}" for of in ("descriptors", "threads", "tasks"))
        memory = f"{before.memory / 1000:.1f} → {after.memory / 1000:.1f} MB | {self.slope:.2f} kB"
        return f"| {name} | {' | '.join(counted)} | {memory} |"


def mixed(kinds: Sequence[Cell], cells: int, interrupts: int) -> list[Cell]:
    """Return so many cells, kind after kind, and interrupted ones spread among them."""
    found, kind, interrupted = [], cycle(kinds), cycle(INTERRUPTED)
    for number in range(cells):
        if number * interrupts // cells != (number + 1) * interrupts // cells:
            found.append(next(interrupted))
        found.append(next(kind))
    return found


def ask(kernel: Kernel, server: ScriptedServer, cell: Cell, number: int) -> None:
    """Run a cell, interrupt it if it is to be, and see that it ends as it must."""
    begun = len(server.requests)
    request = kernel.start(cell.written(number), number)
    if cell.interrupted:
        wait_for(lambda: len(server.requests) > begun, f"{cell.name} asks")
        time.sleep(0.1)
        kernel.manager.interrupt_kernel()
    failed, said = kernel.end(request)
    if cell.interrupted:
        wait_for(server.requests[begun].left.is_set, f"{cell.name}: the connection is closed")
    if cell.expects != "*" and failed not in cell.expects.split("|"):
        raise RuntimeError(f"{cell.name}, cell {number}: {failed or 'no error'}: {said}")


def wait_for(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within ten seconds: {what}")
        time.sleep(0.01)


def follow(kernel: Kernel, cells: Sequence[Cell], run: Callable[[Cell, int], None], first: int) -> list[State]:
    """Run cells numbered from `first`, and return the states before, between and after."""
    states, every = [kernel.state(0)], max(1, len(cells) // 60)
    for number, cell in enumerate(cells, 1):
        run(cell, first + number)
        if number % every == 0 or number == len(cells):
            states.append(kernel.state(number))
    return states


def ours(warm: Sequence[Cell], cells: Sequence[Cell], script: Callable[[Received], Answer]) -> Growth:
    """Run cells that ask a server, in a kernel of their own."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    with (
        ScriptedServer(script) as server,
        Kernel({"soak": server.url, "closed": f"http://127.0.0.1:{closed}/v1"}) as kernel,
    ):

        def run(cell: Cell, number: int) -> None:
            ask(kernel, server, cell, number)

        for number, cell in enumerate(warm, 1):
            run(cell, number)
        kernel.ask_and_be_quiet()
        before = kernel.state(0)
        states = follow(kernel, cells, run, len(warm))
        kernel.ask_and_be_quiet()
        return Growth(states, [before, kernel.state(len(cells))])


def python_cells(warm: Sequence[Cell], cells: Sequence[Cell]) -> Growth:
    """Run the Python cells of the same text, in a kernel of their own."""
    with Kernel() as kernel:

        def run(cell: Cell, number: int) -> None:
            failed, said = kernel.end(kernel.start(cell.reference(number), number))
            if failed and not cell.expects:
                raise RuntimeError(f"{cell.name}, as Python: {failed}: {said}")

        for number, cell in enumerate(warm, 1):
            run(cell, number)
        return Growth(follow(kernel, cells, run, len(warm)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=3_000, help="cells of every kind (3,000); 0 for none")
    parser.add_argument("--interrupts", type=int, default=100, help="interrupts in mid-answer among them (100)")
    parser.add_argument("--hostile", type=int, default=200, help="cells against servers that fail (200); 0 for none")
    parser.add_argument("--only", choices=[cell.name for cell in CELLS], help="cells of this kind alone")
    asked = parser.parse_args()
    print(about("openai", "ipython", "ipykernel"))
    print("| kernel | descriptors | threads | tasks | memory | a cell |\n| --- | --- | --- | --- | --- | --- |")
    broken = []
    if asked.cells:
        kinds = [cell for cell in CELLS if asked.only in (None, cell.name)]
        warm = [*kinds, *(INTERRUPTED if asked.interrupts else ())] * (8 if asked.cells >= JUDGED else 1)
        cells = mixed(kinds, asked.cells, asked.interrupts)
        mine = ours(warm, cells, answered)
        print(mine.row(f"{asked.cells:,} cells, {asked.interrupts} interrupts"), flush=True)
        broken += mine.broken()
        if asked.cells >= JUDGED:
            python = python_cells(warm, cells)
            more = mine.slope - python.slope
            print(python.row("Python cells that return the same"))
            print(f"more than a Python cell: {more:.2f} kB a cell (at most {BOUND:g})", flush=True)
            broken += [f"memory grows by {more:.2f} kB a cell more than Python's"] if more > BOUND else []
    if asked.hostile:
        worst = ours(HOSTILE, list(islice(cycle(HOSTILE), asked.hostile)), hostile)
        print(worst.row(f"{asked.hostile} cells, servers that fail"))
        broken += worst.broken()
    for what in broken:
        print(f"BROKEN: {what}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
