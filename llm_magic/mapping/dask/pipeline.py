"""The rows of one run, asked from the workers of a Dask cluster: seen, counted and kept as those of one process."""

from __future__ import annotations

import pickle
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

from llm_magic.errors import ConfigurationError, LLMError
from llm_magic.mapping.dask.cluster_run import ask_on
from llm_magic.mapping.dask.cluster_work import ClusterWork
from llm_magic.mapping.dask.rows import PortablePlan, ask_rows
from llm_magic.mapping.dask.spending import account, with_budgets_left
from llm_magic.mapping.dask.variables import variables_of
from llm_magic.mapping.pipeline import Verdict, not_asked
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.session.portable import portable

if TYPE_CHECKING:
    from distributed import Client

    from llm_magic.session import Session
    from llm_magic.session.plan import Plan


class ClusterPipeline:
    """Asks for rows from the workers of a cluster, as `Pipeline` does from here.

    Parameters
    ----------
    session, plan
        Whose settings travel, and what all rows share.
    client
        That of the cluster.
    requests
        The rows; read on a thread of its own.
    rereads
        Whether the rest of them may be read where the run has stopped: not of an iterator, which may have no end.
    concurrency
        Rows in flight on all workers together; "auto" of each worker by itself.
    patience
        Seconds that an endpoint is waited for.
    total
        Rows, where that is known.
    keep
        Called with each row that is answered; None where nothing is kept.
    say
        Takes lines for the user.

    Raises
    ------
    ConfigurationError
        A setting cannot travel.

    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        client: Client,
        requests: Iterator[RowRequest],
        *,
        rereads: bool,
        concurrency: int | Literal["auto"],
        patience: float,
        total: int | None,
        keep: Callable[[RowRequest, Outcome], None] | None,
        say: Callable[[str], None],
    ) -> None:
        self._session, self._client, self._requests, self._rereads = session, client, requests, rereads
        self._keep, self._say = keep, say
        self._work = work_of(session, plan, concurrency=concurrency, patience=patience, total=total)
        self._verdict = Verdict()
        self._there: list[Outcome] = []  # that were put
        self._sent: dict[int, RowRequest] = {}  # of which no outcome has come
        self.waiting = ""
        self.stopped: LLMError | None = None
        """Why no further row is asked; None where all are."""

    @property
    def in_flight(self) -> int:
        """Rows that are on their way to workers, or back."""
        return len(self._sent)

    def put(self, outcomes: list[Outcome]) -> None:
        """Hand on what needs no request, with the others."""
        self._there += outcomes

    async def outcomes(self) -> AsyncGenerator[list[Outcome], None]:
        """Yield the outcomes as they come, some at a time; rows that are not asked come last."""
        stop = threading.Event()
        answers = ask_on(self._client, self._work, self._told(), stop=stop, say=self._say)
        async with aclosing(answers) as stream:
            async for outcomes in stream:
                for outcome in outcomes:
                    self._hear(outcome)
                if self.stopped is not None:
                    stop.set()
                there, self._there = self._there, []
                yield outcomes + there
        why = self.stopped
        if why is not None:
            rest = self._requests if self._rereads else iter(())
            error = not_asked(why)
            self._there += [Outcome(row.number, error=error) for row in (*self._sent.values(), *rest)]
            self._sent.clear()
        while self._there:  # more may be put while these are taken
            there, self._there = self._there, []
            yield there

    def _hear(self, outcome: Outcome) -> None:
        row = self._sent.pop(outcome.number, None)
        account(outcome, self._session.spending)
        if row is not None and outcome.error is None and self._keep is not None:
            self._keep(row, outcome)
        self.stopped = self.stopped or self._verdict.heard(outcome)

    def _told(self) -> Iterator[RowRequest]:
        for row in self._requests:
            self._sent[row.number] = row
            yield row


def work_of(
    session: Session, plan: Plan, *, concurrency: int | Literal["auto"], patience: float, total: int | None
) -> ClusterWork:
    """Return what is asked of a cluster; raises ConfigurationError where something of it cannot travel."""
    options = plan.options
    given: Mapping[str, Any] = {"header": dict(options.header), "param": dict(options.param)}
    try:
        settings = portable(
            session.settings,
            session.registry,
            [planned.target.asked for planned in plan.models],
            options.base_url or "",
        )
    except pickle.PicklingError as error:
        message, _, hint = str(error).partition("\n")
        raise ConfigurationError(f"Rows cannot be asked from the workers: {message}", hint) from None
    return ClusterWork(
        settings=with_budgets_left(settings, session.spending, options.budget),
        ask=ask_rows,
        request=PortablePlan.of(plan, patience=patience),
        concurrency=concurrency,
        forward_env=tuple(options.forward_env or ()),
        variables=variables_of(given),
        total=total,
    )
