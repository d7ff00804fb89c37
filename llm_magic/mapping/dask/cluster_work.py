"""What is asked of a cluster, and what each worker is told of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_magic.mapping.dask.feed import Feed
from llm_magic.mapping.rows import Outcome
from llm_magic.session import Session
from llm_magic.session.portable import PortableSettings

PATIENCE = 60.0
"""Seconds without any worker after which a run ends."""


class AskRows(Protocol):
    """What asks rows in one process: the rows come as they are sent here, and outcomes go as they are there.

    Each row is an object with a `number`; so has its `Outcome`. When its iterator is closed, or the task cancelled that
    iterates over it, it closes the requests in flight.
    """

    def __call__(
        self, session: Session, request: Any, rows: Feed, *, concurrency: int | str
    ) -> AsyncGenerator[Outcome, None]:
        """Return the outcomes of rows, in any order."""


@dataclass(frozen=True)
class ClusterWork:
    """What is asked of a cluster.

    `settings` are `portable` ones; `ask` and `request` are called on each worker with its session; `concurrency` is
    that of the whole cluster, or "auto", of each worker by itself. `variables` are the names of those that `request`
    needs.
    """

    settings: PortableSettings
    ask: AskRows
    request: Any
    concurrency: int | str = 16
    forward_env: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    total: int | None = None
    """Rows, where that is known: few of them are spread over all workers."""
    patience: float = PATIENCE
    """Seconds without any worker after which the run ends."""


@dataclass(frozen=True)
class Told:
    """What a worker is told of a run; it travels sealed, and only `variables` hold secrets."""

    run: str
    settings: PortableSettings
    ask: AskRows
    request: Any
    concurrency: int | str
    variables: dict[str, str] = field(default_factory=dict, repr=False)


def control_queue(run: str, worker: str) -> str:
    """Return the name of the queue that tells one worker what to do."""
    return f"{run}-{worker}"
