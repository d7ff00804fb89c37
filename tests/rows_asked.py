"""What asks rows on a worker of a Dask cluster in tests: each by an `LLM`, side by side; the workers import it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from llm_magic import LLM, LLMError
from llm_magic.mapping.rows import Outcome
from llm_magic.session import Session


@dataclass(frozen=True)
class Asked:
    """A row: its number and its prompt."""

    number: int
    prompt: str


async def ask_rows(
    session: Session, request: Any, rows: AsyncIterator[Any], *, concurrency: int | str
) -> AsyncGenerator[Outcome, None]:
    """Ask rows side by side."""
    llm = LLM(request["model"], **request.get("options", {}))
    llm._session = lambda: session
    done: asyncio.Queue[Outcome | None] = asyncio.Queue()

    async def work() -> None:
        async for row in rows:
            try:
                done.put_nowait(Outcome(row.number, await llm.aask(row.prompt)))
            except LLMError as error:
                done.put_nowait(Outcome(row.number, error.response, error))

    async def work_all() -> None:
        number = concurrency if isinstance(concurrency, int) else 8
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(number):
                    group.create_task(work())
        finally:
            done.put_nowait(None)

    working = asyncio.ensure_future(work_all())
    try:
        while (outcome := await done.get()) is not None:
            yield outcome
        await working
    finally:
        working.cancel()
        await asyncio.wait({working})
