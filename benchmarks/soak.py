"""What stays behind after thousands of cells in one kernel: `python benchmarks/soak.py`.

Three kernels of one run, without a screen. The first runs cells of every kind, among them interrupts in mid-answer; the
second runs Python cells of the same text that return the same text, which IPython keeps in `In` and `Out`; the third asks
servers that break off, fail, refuse and never answer. In each are counted, after a collection of garbage: memory of its
own (`Private` of /proc/self/smaps_rollup), open descriptors, threads, tasks. Growth of memory is a slope over the cells
by least squares. Ends with 1 where a bound is broken. Linux only.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.manager import start_new_kernel
from machine import about

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from servers import HANG, RESET, Answer, Received, ScriptedServer, chunk, document, stream

BOUND = 5.0
"""kB a cell that ours may keep more than Python's."""

JUDGED = 1_000
"""Cells from which on the growth of memory is judged: over fewer it says nothing."""

WORDS = (
    "The sky is blue because molecules of air scatter short waves of light far more than long ones, so that blue "
    "comes from everywhere. At dusk the light goes a longer way through the air, and what is left of it is red. "
).split(" ")

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
    return f"Answer {number}. " + " ".join(islice(cycle(WORDS), number % 37, number % 37 + 70))


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
        whole = {"model": model, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **usage(0)}
        whole["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return document(whole, headers=headers(number) | {"content-type": "application/json"})
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
    return stream(chunk("Let me "), HANG, done=False)


# The cells


@dataclass(frozen=True)
class Cell:
    """A cell of one kind, and the Python cell that it is compared with.

    `expects` is the name of the error that it must end with. `interrupted` where it is, once the server answers.
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
        failed = f"raise RuntimeError({self.same})" if self.expects or self.interrupted else self.same
        return "\n".join([*lines, failed.replace("{n}", str(number))])


PROMPT = "Cell {n}: why is the sky blue? Answer in three sentences that a child of ten understands, and say how we know."

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
    Cell("400", f"%%llm -m soak:fails\n{PROMPT}", expects="RequestRefusedError"),
    Cell("refused", f'%%llm -m soak:refuses --as "list[City]"\n{PROMPT}', expects="RefusedError"),
    Cell("%llm", f"text = %llm -m soak:text {PROMPT}\ntext"),
    Cell("ask", f'LLM("soak:text").ask("{PROMPT}")'),
    Cell("ask, as", f'LLM("soak:json").ask("{PROMPT}", output_type=list[City])', "cities({n})"),
    Cell("aask", f'await LLM("soak:text").aask("{PROMPT}")'),
)
INTERRUPTED = tuple(
    Cell(f"{name}, interrupted", code, "'Let me think {n}'", interrupted=True)
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
import asyncio, ctypes, gc, json, os, threading
from itertools import cycle, islice

WORDS = {words!r}
notes = "A note of the notebook."

{functions}

class _State:
    '''What the kernel holds now: memory of its own in kB, descriptors, threads, tasks.'''

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def __call__(self):
        gc.collect()
        gc.collect()
        if self.trim is not None:
            self.trim(0)
        with open("/proc/self/smaps_rollup") as lines:
            private = sum(int(line.split()[1]) for line in lines if line.startswith("Private"))
        descriptors = len(os.listdir("/proc/self/fd")) - 1
        session = getattr(getattr(get_ipython(), "_llm_magic", None), "session", None)
        jobs = len(session.jobs) if session else 0
        loops = [session.loop.loop] if session else []
        tasks = sum(len(asyncio.all_tasks(loop)) for loop in [*loops, asyncio.get_running_loop()])
        return private, descriptors, threading.active_count(), tasks, jobs

async def _state():
    return _State()()
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
"""


@dataclass
class State:
    """What a kernel held after so many cells; memory in kB."""

    cells: int
    memory: int
    descriptors: int
    threads: int
    tasks: int


@dataclass
class Measured:
    """The states of one kernel, and the cells by what became of them."""

    states: list[State] = field(default_factory=list)

    @property
    def slope(self) -> float:
        """Growth of memory in kB a cell, by least squares."""
        cells = [float(state.cells) for state in self.states]
        if len(cells) < 3:
            return float("nan")
        return statistics.linear_regression(cells, [float(state.memory) for state in self.states]).slope


class Kernel:
    """A kernel whose cells are run one by one, as a front end with input does it; what they show is dropped."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3", startup_timeout=60)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()

    def start(self, code: str, number: int | None = None) -> str:
        """Begin to run a cell, and return the id of its request."""
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
        """Wait for the end of a cell; return the name of its error, empty for none, and what it printed."""
        failed, text = "", ""
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "error":
                failed = content["ename"]
                text += content["evalue"]
            elif kind == "stream":
                text += content["text"]
            elif kind == "status" and content["execution_state"] == "idle":
                break
        while self.client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != request:
            pass
        return failed, text

    def run(self, code: str) -> str:
        """Run a cell that is not kept in the history; return what it printed."""
        failed, text = self.end(self.start(code))
        if failed:
            raise RuntimeError(f"{failed}: {text}")
        return text

    def state(self, cells: int) -> State:
        """Return what it holds after so many cells, once its background cells are done."""
        for _ in range(100):
            *found, jobs = ast.literal_eval(self.run("print(await _state())"))
            if not jobs:
                return State(cells, *found)
            time.sleep(0.1)
        raise RuntimeError("a cell in the background does not end")


def mixed(cells: int, interrupts: int) -> Iterator[Cell]:
    """Yield so many cells, the interrupted ones spread among them."""
    kinds, broken = cycle(CELLS), cycle(INTERRUPTED)
    for number in range(cells):
        if interrupts and number * interrupts // cells != (number + 1) * interrupts // cells:
            yield next(broken)
        yield next(kinds)


def set_up(kernel: Kernel, urls: dict[str, str] | None = None) -> None:
    import inspect

    functions = "\n".join(inspect.getsource(function) for function in (reply, cities))
    kernel.run(SETUP.format(words=WORDS, functions=functions))
    if urls is not None:
        kernel.run(f"URLS = {urls!r}")
        kernel.run(OURS)
        kernel.run("import time; time.sleep(3)  # what is imported in the background")


def run_ours(kernel: Kernel, server: ScriptedServer, cell: Cell, number: int) -> None:
    """Run a cell, interrupt it if it is to be, and hold it to its end."""
    begun = len(server.requests)
    request = kernel.start(cell.written(number), number)
    if cell.interrupted:
        wait_for(lambda: len(server.requests) > begun)
        time.sleep(0.1)
        kernel.manager.interrupt_kernel()
    failed, said = kernel.end(request)
    expected = "KeyboardInterrupt" if cell.interrupted else cell.expects
    if cell.interrupted and failed in {"KeyboardInterrupt", "Interrupted", "CancelledError"}:
        wait_for(server.requests[-1].left.is_set)
    elif failed != expected and not (failed and expected == "*"):
        raise RuntimeError(f"{cell.name}, cell {number}: {failed or 'no error'}: {said}")


def wait_for(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.01)
    raise RuntimeError("what was waited for does not happen")


def measured(kernel: Kernel, cells: list[Cell], run: Callable[[Cell, int], None], first: int, name: str) -> Measured:
    """Run cells; take the state before, after, and now and then between."""
    found = Measured([kernel.state(0)])
    every = max(1, len(cells) // 60)
    for number, cell in enumerate(cells, 1):
        run(cell, first + number)
        if number % every == 0 or number == len(cells):
            found.states.append(kernel.state(number))
        if sys.stderr.isatty():
            print(f"\r{name}: {number} of {len(cells)}", end="", file=sys.stderr)
    return found


def ours(cells: list[Cell], warm: list[Cell], script: Callable[[Received], Answer], name: str) -> Measured:
    """Run cells against a server, in a kernel of their own."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    kernel = Kernel()
    try:
        with ScriptedServer(script) as server:
            set_up(kernel, {"soak": server.url, "closed": f"http://127.0.0.1:{closed}/v1"})
            run = lambda cell, number: run_ours(kernel, server, cell, number)  # noqa: E731
            for number, cell in enumerate(warm, 1):
                run(cell, number)
            return measured(kernel, cells, run, len(warm), name)
    finally:
        kernel.close()


def reference(cells: list[Cell], warm: list[Cell]) -> Measured:
    """Run the Python cells of the same text, in a kernel of their own."""

    def run(cell: Cell, number: int) -> None:
        kernel.end(kernel.start(cell.reference(number), number))

    kernel = Kernel()
    try:
        set_up(kernel)
        for number, cell in enumerate(warm, 1):
            run(cell, number)
        return measured(kernel, cells, run, len(warm), "reference")
    finally:
        kernel.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=3000, help="cells of every kind (3,000)")
    parser.add_argument("--interrupts", type=int, default=100, help="interrupts in mid-answer among them (100)")
    parser.add_argument("--hostile", type=int, default=200, help="cells against servers that fail (200)")
    parser.add_argument("--only", help="cells of this kind alone")
    given = parser.parse_args()
    global CELLS
    if given.only:
        CELLS = tuple(cell for cell in CELLS if cell.name == given.only)
    cells = list(mixed(given.cells, given.interrupts))
    warm = [*CELLS, *INTERRUPTED] * (1 if given.cells < JUDGED else 8)
    mine = ours(cells, warm, answered, "ours")
    theirs = reference(cells, warm)
    print(about("openai", "ipython", "ipykernel"))
    print(mine.slope, theirs.slope, mine.slope - theirs.slope)
    for m in (mine, theirs):
        print(m.states[0], m.states[len(m.states) // 2], m.states[-1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
