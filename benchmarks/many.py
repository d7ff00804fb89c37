"""One prompt over many rows, by each way in turn against the same server: `python benchmarks/many.py`.

    python benchmarks/many.py speed typed       # requests a second, of text and of records of five fields
    python benchmarks/many.py memory            # 100,000 rows: what is held besides the answers
    python benchmarks/many.py capacity          # a server with 64 places that take 100 to 400 ms
    python benchmarks/many.py resume            # 99,000 of 100,000 rows answered before
    python benchmarks/many.py slots             # 40 rows on the embedded model, one at a time and eight at once
    python benchmarks/many.py dask              # two workers of a Dask cluster here, against one process

A server in a process of its own answers. The ways take turns, in another order each round, and the medians of several
rounds count. Prints requests a second, ratios to the SDK's default client and the part of what bare aiohttp does,
both of the same run, and the processor time of a row in the process that asks: that one is felt least on a busy
machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fast_server import MODEL, TEXT, Server
from machine import about
from pydantic import BaseModel

Ask = Callable[[str], Awaitable[Any]]
"""Sends one prompt, returns the value of the answer."""


class Review(BaseModel):
    """What `typed` asks for."""

    title: str
    stars: int
    price: float
    tags: list[str]
    sold: bool


RECORD = {"title": "A fine day", "stars": 4, "price": 19.5, "tags": ["dry", "warm"], "sold": True}
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "Review", "schema": Review.model_json_schema()}}


class Task(NamedTuple):
    """What is asked, of whom."""

    url: str
    prompts: list[str]
    flying: int
    typed: bool

    @property
    def expected(self) -> Any:
        return Review(**RECORD) if self.typed else TEXT


class Took(NamedTuple):
    """Seconds, and those of the processor in the process that asked."""

    seconds: float
    busy: float


@contextmanager
def measured(found: list[Took]) -> Iterator[None]:
    """Append what the body took."""
    began, busy = time.perf_counter(), time.process_time()
    yield
    found.append(Took(time.perf_counter() - began, time.process_time() - busy))


# One prompt after the other, 64 at once


@asynccontextmanager
async def over_the_sdk(task: Task, http_client: Any = None) -> AsyncGenerator[Ask]:
    """The SDK's client and its objects, as a user would; of a record pydantic makes the value."""
    from openai import AsyncOpenAI

    more: Any = {"response_format": SCHEMA} if task.typed else {}
    async with AsyncOpenAI(base_url=task.url, api_key="none", max_retries=0, http_client=http_client) as client:

        async def ask(prompt: str) -> Any:
            messages: Any = [{"role": "user", "content": prompt}]
            answer = await client.chat.completions.create(model=MODEL, messages=messages, **more)
            text = answer.choices[0].message.content or ""
            return Review.model_validate_json(text) if task.typed else text

        yield ask


@asynccontextmanager
async def over_the_sdk_on_aiohttp(task: Task) -> AsyncGenerator[Ask]:
    """The same over the SDK's aiohttp client."""
    from openai import DefaultAioHttpClient

    async with over_the_sdk(task, DefaultAioHttpClient()) as ask:
        yield ask


@asynccontextmanager
async def over_bare_aiohttp(task: Task) -> AsyncGenerator[Ask]:
    """What aiohttp and `json` need by themselves: nobody over aiohttp can be faster."""
    import aiohttp

    more = {"response_format": SCHEMA} if task.typed else {}
    connector = aiohttp.TCPConnector(limit=task.flying)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer none"}) as session:

        async def ask(prompt: str) -> Any:
            body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}
            async with session.post(f"{task.url}/chat/completions", json=body) as response:
                text = json.loads(await response.read())["choices"][0]["message"]["content"]
                return Review.model_validate_json(text) if task.typed else text

        yield ask


@asynccontextmanager
async def over_a_prepared_request(task: Task, *, why: str = "") -> AsyncGenerator[Ask]:
    """A request prepared once, its answers folded into a `Response` each, as many rows are asked."""
    from llm_magic.draft import Draft
    from llm_magic.messages import user
    from llm_magic.providers.compatible import CompatibleProvider
    from llm_magic.request import Parameters, Request

    provider = CompatibleProvider(name="bench", base_url=task.url, max_retries=0)
    request = Request(MODEL, (user("MARK"),), Parameters(), stream=False)
    prepared = await provider.prepare_request(request, provider.capabilities(MODEL))
    assert prepared is not None
    prepared.why_the_sdk_sends = why
    async with prepared:
        template = await prepared.template("MARK")
        assert template is not None

        async def ask(prompt: str) -> str:
            events: list[Any] = []
            await prepared.exchange(template.body(prompt), request, events)
            draft = Draft()
            draft.add_all(events)
            return draft.response().text

        yield ask
    await provider.aclose()


@asynccontextmanager
async def over_a_prepared_request_by_the_sdk(task: Task) -> AsyncGenerator[Ask]:
    """The same where the SDK's own client has to send: behind a proxy, for one."""
    async with over_a_prepared_request(task, why="it is measured") as ask:
        yield ask


async def prompt_by_prompt(way: Callable[[Task], Any], task: Task) -> Took:
    """Return what one way needs for all prompts."""
    free = asyncio.Semaphore(task.flying)
    found: list[Took] = []
    expected = task.expected
    async with way(task) as ask:

        async def one(prompt: str) -> None:
            async with free:
                assert await ask(prompt) == expected

        await asyncio.gather(*map(one, task.prompts[: 2 * task.flying]))
        with measured(found):
            await asyncio.gather(*map(one, task.prompts))
    return found[0]


# All rows by one call


def session_at(url: str, *, resume: bool, max_retries: int = 0) -> Any:
    """Return a session of its own with the server as a provider, active."""
    from llm_magic import api
    from llm_magic.config.settings import Settings
    from llm_magic.providers.registry import ProviderRegistry
    from llm_magic.session import Session

    settings = Settings()
    settings.resume = resume
    session = Session(settings, ProviderRegistry())
    session.registry.add("bench", "compatible", base_url=url, max_retries=max_retries)
    api.activate(session)
    return session


@contextmanager
def without_aiohttp(which: bool) -> Iterator[None]:
    """Act as where aiohttp is not installed."""
    from llm_magic.wire import prepared

    known = prepared.has_aiohttp
    prepared.has_aiohttp = (lambda: False) if which else known
    try:
        yield
    finally:
        prepared.has_aiohttp = known


def by_map(task: Task, *, resume: bool = False, extra: bool = True, iterated: bool = False) -> Took:
    """`llm.map`, or `llm.amap` iterated over; connections are opened within what is measured."""
    from llm_magic import LLM

    options: Any = {"concurrency": task.flying} | ({"output_type": Review} if task.typed else {})
    found: list[Took] = []

    async def iterate() -> int:
        count = 0
        async for outcome in LLM(f"bench:{MODEL}").amap("{{ item }}", task.prompts, **options):
            count += outcome.value == task.expected
        return count

    session = session_at(task.url, resume=resume)
    try:
        with without_aiohttp(not extra):
            LLM(f"bench:{MODEL}").map("{{ item }}", task.prompts[: 2 * task.flying], **options)
            with measured(found):
                if iterated:
                    right = asyncio.run(iterate())
                else:
                    answers = LLM(f"bench:{MODEL}").map("{{ item }}", task.prompts, **options)
            if not iterated:
                right = sum(value == task.expected for value in answers)
            assert right == len(task.prompts)
    finally:
        session.close()
    return found[0]


KERNEL = """
%load_ext llm_magic
import time
from pydantic import BaseModel
get_ipython()._llm_magic.registry.add("bench", "compatible", base_url={url!r}, max_retries=0)
prompts = {prompts!r}
few = prompts[:{few}]
class Review(BaseModel):
    title: str
    stars: int
    price: float
    tags: list[str]
    sold: bool
"""


class Cells:
    """A kernel whose cells ask for all rows, its display included; started with the first one."""

    def __init__(self) -> None:
        self._kernel: Any = None

    def run(self, task: Task, *, resume: bool = True) -> Took:
        """Return what a cell took, seen from the front end, and the kernel's processor."""
        if self._kernel is None:
            from cells import Kernel

            self._kernel = Kernel()
            self._kernel.run(KERNEL.format(url=task.url, prompts=task.prompts, few=2 * task.flying))
        kernel, kind = self._kernel, " --as Review" if task.typed else ""
        kernel.run(f"%config LLMMagics.resume = {resume}")
        kernel.run(f"%%llm -m bench:{MODEL} --each few --concurrency {task.flying}{kind} -o answers\n{{{{ item }}}}")
        before = kernel.value("time.process_time()")
        line = f"%%llm -m bench:{MODEL} --each prompts --concurrency {task.flying}{kind} -o answers"
        _, sent, seconds = kernel.run(f"{line}\n{{{{ item }}}}")
        busy = kernel.value("time.process_time()") - before
        assert sent > 0
        assert kernel.value("[len(answers), len(answers.failed)]") == [len(task.prompts), 0]
        return Took(seconds, busy)

    def close(self) -> None:
        if self._kernel is not None:
            self._kernel.client.stop_channels()
            self._kernel.manager.shutdown_kernel(now=True)


PROMPTS: dict[str, Callable[[Task], Any]] = {
    "the SDK's default client": over_the_sdk,
    "the SDK on aiohttp": over_the_sdk_on_aiohttp,
    "bare aiohttp": over_bare_aiohttp,
    "prepared request": over_a_prepared_request,
    "prepared request, by the SDK": over_a_prepared_request_by_the_sdk,
}
"""Ways that send one prompt after the other. The first one is what the others are compared with."""
FLOOR = "bare aiohttp"
UNTYPED = ("prepared request", "prepared request, by the SDK")


def ways_of(cells: Cells) -> dict[str, Callable[[Task], Took]]:
    """Return all ways by their names."""
    single = {
        name: lambda task, way=way: asyncio.run(prompt_by_prompt(way, task))  # type: ignore[misc]
        for name, way in PROMPTS.items()
    }
    return {
        **single,
        "llm.map": by_map,
        "llm.map, resume": lambda task: by_map(task, resume=True),
        "llm.amap, iterated": lambda task: by_map(task, iterated=True),
        "llm.map, no aiohttp": lambda task: by_map(task, extra=False),
        "%%llm --each, no resume": lambda task: cells.run(task, resume=False),
        "%%llm --each": cells.run,
    }


def speed(count: int, flying: int, rounds: int, chosen: list[str], *, typed: bool) -> None:
    """Print what each way does in a second."""
    cells = Cells()
    ways = {
        name: way
        for name, way in ways_of(cells).items()
        if (not chosen or any(each in name for each in chosen)) and not (typed and name in UNTYPED)
    }
    prompts = [f"Prompt {number}: is it a fine day?" for number in range(count)]
    found: dict[str, list[Took]] = {name: [] for name in ways}
    loads = []
    with Server(json.dumps(RECORD) if typed else TEXT) as url:
        for number in range(rounds):
            names = list(ways)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                loads.append(os.getloadavg()[0])
                found[name].append(ways[name](Task(url, prompts, flying, typed)))
    cells.close()
    what = "a record of five fields, validated" if typed else "text"
    print(f"\n{count:,} prompts for {what}, {flying} in flight, medians of {rounds} rounds", end="; ")
    print(f"load {min(loads):.1f} to {max(loads):.1f}\n")
    print("| way | requests/s | against the SDK | of bare aiohttp | processor, ms a row | against the SDK |")
    print("| --- | --- | --- | --- | --- | --- |")
    medians = {name: Took(*map(statistics.median, zip(*took, strict=True))) for name, took in found.items()}
    first, floor = medians[next(iter(ways))], medians.get(FLOOR)
    for name, (seconds, busy) in medians.items():
        part = f"{floor.seconds / seconds:.0%}" if floor else ""
        print(
            f"| {name} | {count / seconds:,.0f} | {first.seconds / seconds:.1f}x | {part} "
            f"| {1000 * busy / count:.2f} | {first.busy / busy:.1f}x |"
        )


PARTS = ("speed", "typed", "memory", "capacity", "resume", "slots", "dask")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)} (default: speed)")
    parser.add_argument("--prompts", type=int, default=2_000, help="prompts of a round (default %(default)s)")
    parser.add_argument("--flying", type=int, default=64, help="requests in flight (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default %(default)s)")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of memory and resume (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each way of capacity (default %(default)s)")
    parser.add_argument("--ways", nargs="*", default=[], help="words in the names of the ways to measure")
    given = parser.parse_args()
    parts = given.parts or ["speed"]
    if wrong := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(wrong)}")
    print(about("openai", "aiohttp"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        os.environ["PYTHONPATH"] = f"{Path(__file__).parent.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        for part in parts:
            if part in ("speed", "typed"):
                speed(given.prompts, given.flying, given.rounds, given.ways, typed=part == "typed")
            elif part == "dask":
                import many_on_dask

                many_on_dask.print_dask(min(given.rows, 20_000), given.rounds)
            else:
                import many_limits

                many_limits.measure(part, given)


if __name__ == "__main__":
    sys.exit(main())
