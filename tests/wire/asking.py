"""What the tests of the wire share: a call over a client, and what came of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from llm_magic.capabilities import Capabilities
from llm_magic.draft import Draft
from llm_magic.errors import LLMError, Origin
from llm_magic.events import Attempt, Event, Opened
from llm_magic.messages import user
from llm_magic.request import Parameters, Request
from llm_magic.wire.call import Call, exchange

KEY = "sk-test-0123456789abcdefghij"


@dataclass
class Outcome:
    """The events in their order, folded too, and the error that ended them."""

    events: list[Event] = field(default_factory=list)
    batches: int = 0
    draft: Draft = field(default_factory=Draft)
    error: LLMError | None = None

    @property
    def answer(self) -> list[Event]:
        return [event for event in self.events if not isinstance(event, Attempt | Opened)]

    @property
    def attempts(self) -> list[Attempt]:
        return [event for event in self.events if isinstance(event, Attempt)]


def client(url: str, **known: Any) -> Any:
    from openai import AsyncOpenAI

    return AsyncOpenAI(**{"base_url": url, "api_key": KEY, "max_retries": 0, "timeout": 10.0, **known})


def call(
    made: Any,
    *,
    capabilities: Capabilities | None = None,
    timeout: float | None = None,
    retries: int | None = None,
    **asked: Any,
) -> Call:
    asked = {"model": "m", "messages": (user("hello"),), "parameters": Parameters(), **asked}
    origin = Origin("there", asked["model"], str(made.base_url).rstrip("/"))
    return Call(made, origin, capabilities or Capabilities(), Request(**asked), timeout, retries)


async def collect(asked: Call, *, close: bool = True) -> Outcome:
    outcome = Outcome()
    try:
        async for batch in exchange(asked):
            outcome.batches += 1
            outcome.events.extend(batch)
            for event in batch:
                outcome.draft.add(event)
    except LLMError as error:
        outcome.error = error
    finally:
        closing = asked.client.close() if close else None
        if closing is not None:
            await closing
    return outcome


def ask(url: str, *, made: Any = None, **asked: Any) -> Outcome:
    """Ask once on a loop of its own."""

    async def run() -> Outcome:
        return await collect(call(made or client(url), **asked))

    return asyncio.run(run())
