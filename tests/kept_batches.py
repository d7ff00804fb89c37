"""In the place of what keeps offline batches and asks their servers: records of the test's own, and what was done."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from llm_magic.errors import ConnectionFailedError, RefusedError
from llm_magic.mapping.answers.answers import Answers
from llm_magic.mapping.rows import Outcome
from llm_magic.response import Response

NOON = 1_796_040_000.0  # 2026-11-30 12:00 UTC


class Refusal(NamedTuple):
    line: int | None
    message: str
    code: str


@dataclass(frozen=True)
class Record:
    id: str = "20261130T120000Z-3fa1b2c4"
    run: str = "ab" * 32
    provider: str = "openai"
    url: str = "https://api.example.org/v1"
    base_url: str = ""
    model: str = "gpt-x"
    asked: str = "openai:gpt-x"
    api: str = "chat"
    endpoint: str = "/v1/chat/completions"
    rows: int = 2_000
    size: int = 3_100_000
    created: float = NOON
    step: str = "submitted"
    batch_id: str = "batch_abc1"
    file_id: str = "file-in"
    status: str = "in_progress"
    completed: int | None = 117
    failed: int | None = 3
    output_file_id: str = ""
    error_file_id: str = ""
    expires_at: float | None = NOON + 86_400
    refusals: tuple[Refusal, ...] = ()
    prompt: str = "Is this review about price? {{ text }}"
    out: str = "labelled"
    file: str = ""
    is_answered: bool = False

    @property
    def may_be_created(self) -> bool:
        return self.step == "submitting" and not self.is_answered


@dataclass
class KeptBatches:
    """Keeps `records`; a server says `then` of the one that it is asked for."""

    records: list[Any] = field(default_factory=list)
    then: dict[str, Any] = field(default_factory=dict)
    away: bool = False
    interrupts: bool = False
    broken: OSError | None = None
    notes: tuple[str, ...] = ()
    done: list[tuple[str, Any]] = field(default_factory=list)
    folder: Path = Path("/home/me/.local/state/llm_magic/batches")

    def list(self) -> list[Any]:
        if self.broken is not None:
            raise self.broken
        return [*self.records]

    def remove(self, record: Any) -> None:
        self.done.append(("remove", record.id))
        self.records.remove(record)

    async def refresh(self, record: Any) -> Any:
        return self._asked("refresh", record)

    async def cancel(self, record: Any) -> Any:
        await self._interrupted()
        return self._asked("cancel", record)

    async def fetch(self, record: Any) -> Answers:
        self.done.append(("fetch", getattr(record, "id", record)))
        await self._interrupted()
        outcomes = [Outcome(0, Response(text="price", value="price")), Outcome(1, None, RefusedError("no"))]
        return Answers(outcomes, notes=self.notes)

    async def _interrupted(self) -> None:
        """Let the user interrupt while the server does not answer."""
        if self.interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)

    def _asked(self, what: str, record: Any) -> Any:
        self.done.append((what, record.id))
        if self.away:
            raise ConnectionFailedError("openai cannot be reached: connection refused.", "Is it running?")
        changed = replace(record, **self.then)
        self.records[self.records.index(record)] = changed
        return changed
