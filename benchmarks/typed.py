"""What typed values cost: making a constraint, reading a partial document of 1 MB, validating it.

Run: python benchmarks/typed.py. Targets: a 50-field model's constraint within 5 ms; the value so far within half of
the time that 20,000 deltas take on the wire, and within 10% of a core at 20 repaints a second for 50 s.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import pydantic
from pydantic_core import from_json

from llm_magic.capabilities import Capabilities
from llm_magic.draft import Draft
from llm_magic.events import TextDelta
from llm_magic.output.dialects import apply
from llm_magic.output.json_text import PartialJSON
from llm_magic.output.spec import spec_from

RECORDS = [{"name": f"city {n} é", "people": n, "tags": ["a", None, True], "geo": {"lat": 1.5}} for n in range(14_000)]
TEXT = json.dumps(RECORDS)
CHUNKS = [TEXT[at : at + len(TEXT) // 20_000] for at in range(0, len(TEXT), len(TEXT) // 20_000)]


class Geo(pydantic.BaseModel):
    lat: float


class City(pydantic.BaseModel):
    name: str
    people: int
    tags: list[str | bool | None]
    geo: Geo


def seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """The median of the process time of some runs."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return statistics.median(times)


def constraint() -> float:
    fields: Any = {f"field_{n}": (int | None if n % 3 else list[str], ...) for n in range(50)}
    kind = pydantic.create_model("Wide", **fields)
    started = time.process_time()
    spec = spec_from(kind)
    assert spec is not None
    middle = time.process_time()
    for dialect in ("json_schema", "structured_outputs", "llama_json_schema"):
        apply(spec, Capabilities(dialects={"json": dialect}))  # type: ignore[dict-item]  # the names are of the Literal
    print(f"  three dialects of it   {1000 * (time.process_time() - middle):8.2f} ms")
    return middle - started


def fold() -> None:
    draft = Draft()
    for chunk in CHUNKS:
        draft.add(TextDelta(chunk))
    assert draft.text == TEXT


def partial(every: int) -> None:
    document = PartialJSON()
    for number, chunk in enumerate(CHUNKS):
        document.feed(chunk)
        if number % every == 0:
            document.value  # noqa: B018 - reading is what it costs
    assert document.value == RECORDS


def reread(every: int) -> None:
    text = ""
    for number, chunk in enumerate(CHUNKS):
        text += chunk
        if number % every == 0:
            from_json(text, allow_partial=True)


def main() -> None:
    print(f"{len(TEXT):,} characters in {len(CHUNKS):,} chunks")
    print(f"constraint, 50 fields    {1000 * min(constraint() for _ in range(5)):8.2f} ms")
    plain = seconds(fold)
    print(f"folding the deltas       {1000 * plain:8.1f} ms")
    for every, name in ((1, "each delta"), (20, "1,000 repaints"), (1000, "20 repaints")):
        print(f"partial, {name:<15} {1000 * seconds(lambda every=every: partial(every), 3):8.1f} ms")  # type: ignore[misc]  # a default binds the loop variable
    print(f"rereading, 1,000 times   {1000 * seconds(lambda: reread(20), 1):8.1f} ms")
    spec = spec_from(list[City])
    assert spec is not None
    print(f"validating, pydantic     {1000 * seconds(lambda: spec.parse(TEXT), 3):8.1f} ms")
    plain_data = spec_from(schema={"type": "array", "items": {"type": "object", "required": ["name"]}})
    assert plain_data is not None
    print(f"validating, JSON Schema  {1000 * seconds(lambda: plain_data.parse(TEXT), 3):8.1f} ms")


if __name__ == "__main__":
    main()
