"""The rows of one run, asked from the workers of a Dask cluster: seen, counted and kept as those of one process."""

from __future__ import annotations

import pickle
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from llm_magic.errors import BudgetError, ConfigurationError, LLMError
from llm_magic.mapping.dask.cluster_run import ask_on
from llm_magic.mapping.dask.cluster_work import ClusterWork
from llm_magic.mapping.dask.equal_rows import EqualRows
from llm_magic.mapping.dask.rows import PortablePlan, ask_rows
from llm_magic.mapping.dask.spending import account, of_share, with_budgets_left
from llm_magic.mapping.dask.variables import variables_of
from llm_magic.mapping.pipeline import Verdict, not_asked
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.session.portable import portable

if TYPE_CHECKING:
    from distributed import Client

    from llm_magic.session import Session
    from llm_magic.session.plan import Plan


_MOST_WAITING = 20_000  # rows without an outcome, from which on no further equal ones are read
_LOOK = 0.02


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
    equal_once
        Whether equal rows are asked once.
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
        equal_once: bool = False,
        keep: Callable[[RowRequest, Outcome], None] | None,
        say: Callable[[str], None],
    ) -> None:
        self._session, self._client, self._requests, self._rereads = session, client, requests, rereads
        self._keep, self._say = keep, say
        self._work = work_of(session, plan, concurrency=concurrency, patience=patience, total=total)
        self._has_own_budget = bool(plan.options.budget)
        self._verdict = Verdict()
        self._stop = threading.Event()
        self._equal = EqualRows() if equal_once else None
        self._copies: deque[Outcome] = deque()  # of equal rows that had ended before
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
        answers = ask_on(self._client, self._work, self._told(), stop=self._stop, say=self._say)
        async with aclosing(answers) as stream:
            async for outcomes in stream:
                found = [each for outcome in outcomes for each in self._heard(outcome)]
                found += self._taken()
                if self.stopped is not None and not isinstance(self.stopped, BudgetError):
                    self._stop.set()  # where a budget is spent, what is in flight is paid for: it is waited for
                if found:
                    yield found
        why = self.stopped
        if why is not None:
            if there := self._taken():
                yield there
            rest = self._requests if self._rereads else iter(())
            error = not_asked(why)
            self._there += [Outcome(row.number, error=error) for row in (*self._sent.values(), *rest)]
            self._sent.clear()
        while there := self._taken():  # more may be put while these are taken
            yield there

    def _taken(self) -> list[Outcome]:
        """Return what needed no request."""
        there, self._there = self._there, []
        while self._copies:
            there.append(self._copies.popleft())
            self._sent.pop(there[-1].number, None)
        return there

    def _heard(self, outcome: Outcome) -> list[Outcome]:
        """Enter what came from a worker, and return it with the outcomes of equal rows."""
        row = self._sent.pop(outcome.number, None)
        account(outcome, self._session.spending)
        if isinstance(outcome.error, BudgetError):
            outcome = replace(outcome, error=of_share(outcome.error, of_run=self._has_own_budget))
        if row is not None and outcome.error is None and self._keep is not None:
            self._keep(row, outcome)
        copies = self._equal.ended(row, outcome) if self._equal is not None and row is not None else []
        for each in copies:
            self._sent.pop(each.number, None)
        found = [outcome, *copies]
        for each in found:
            self.stopped = self.stopped or self._verdict.heard(each)
        return found

    def _told(self) -> Iterator[RowRequest | None]:
        """Yield what is sent, None where that is nothing so far; read on a thread of its own."""
        for row in self._requests:
            self._sent[row.number] = row  # also where it is not sent any more: it is told as not asked
            if self.stopped is not None:
                return
            if self._equal is None or self._equal.is_first(row):
                yield row
                continue
            if (outcome := self._equal.known(row)) is not None:
                self._copies.append(outcome)
            yield None
            while len(self._sent) > _MOST_WAITING and self.stopped is None:
                time.sleep(_LOOK)
                yield None


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
