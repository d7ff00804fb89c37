"""Statistics of many rows: how many were answered, how long one took, tokens, cost, failures by class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magic.display.footer import counted, money, seconds, tokens
from llm_magic.errors import BudgetError, LLMError, NotAskedError, PromptError, RecordingError
from llm_magic.mapping.rows import Outcome
from llm_magic.metadata import Usage
from llm_magic.response import Response

_WIDTH = math.log(1.01)
"""Latencies within one percent of each other are counted together."""
_SHORTEST = 1e-6  # seconds
_NOT_SENT = (PromptError, RecordingError, BudgetError, NotAskedError)
"""Errors of rows that were not sent."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a run over many rows came to.

    Attributes
    ----------
    rows
        How many rows there are: those answered and those that failed.
    answered, failed
        How many have an answer, known ones included, and how many an error.
    known
        How many had been answered before this run. All below is of the others: of what this run sent.
    seconds
        How long the run took; it is not part of the line where nothing was sent, so that a replay says the same again.
    p50, p95
        Seconds that half of the answers took at most, and 95% of them, within one percent; None of no answers.
    usage, cost
        Tokens and US dollars, of failed rows too; None where no server told, or no price is known.
    failures
        How many rows failed, by the class of their error, the most frequent first.
    recorded
        How many of those known are from the user's recordings.

    """

    rows: int = 0
    answered: int = 0
    failed: int = 0
    known: int = 0
    seconds: float = 0.0
    p50: float | None = None
    p95: float | None = None
    usage: Usage | None = None
    cost: float | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    recorded: int = 0

    def __str__(self) -> str:
        """Return it as one line."""
        facts = [
            counted(self.rows, "row")
            if self._sent_nothing
            else f"{counted(self.rows, 'row')} in {seconds(self.seconds)}",
            f"{self.known - self.recorded:,} answered before" if self.known > self.recorded else "",
            f"{self.recorded:,} from recordings" if self.recorded else "",
            "" if self.p50 is None else f"p50 {seconds(self.p50)}",
            "" if self.p95 is None else f"p95 {seconds(self.p95)}",
            "" if self.usage is None else tokens(self.usage.input_tokens, self.usage.output_tokens),
            money(self.cost),
        ]
        line = ", ".join(filter(None, facts))
        return f"{line}; {self.failed:,} failed: {by_class(self.failures)}" if self.failed else line

    @property
    def _sent_nothing(self) -> bool:
        kept = self.known + sum(self.failures.get(kind.__name__, 0) for kind in _NOT_SENT)
        return kept == self.rows > 0


@dataclass(slots=True)
class RunningStatistics:
    """Statistics of the outcomes so far; its size does not grow with the rows.

    >>> so_far = RunningStatistics()
    >>> so_far.add(Outcome(0, Response(seconds=0.5, usage=Usage(10, 2))))
    >>> str(so_far.after(2.0))
    '1 row in 2.0 s, p50 0.5 s, p95 0.5 s, 10 → 2 tokens'

    """

    answered: int = 0
    known: int = 0
    recorded: int = 0
    usage: Usage | None = None
    cost: float | None = None
    failures: Counter[str] = field(default_factory=Counter)
    _latencies: dict[int, tuple[int, float]] = field(default_factory=dict)
    """By the logarithm of the seconds: how many took so long, and their sum."""

    def add(self, outcome: Outcome) -> None:
        """Count one row more."""
        response = response_of(outcome)
        if outcome.error is None:
            self.answered += 1
            self.known += outcome.known
            self.recorded += outcome.recorded
        else:
            self.failures[type(outcome.error).__name__] += 1
        if response is None or outcome.known or outcome.duplicate:
            return
        if response.usage is not None:
            self.usage = response.usage if self.usage is None else self.usage + response.usage
        if response.cost is not None:
            self.cost = (self.cost or 0.0) + response.cost
        if outcome.error is None and outcome.is_timed:
            place = round(math.log(max(response.seconds, _SHORTEST)) / _WIDTH)
            count, total = self._latencies.get(place, (0, 0.0))
            self._latencies[place] = count + 1, total + response.seconds

    def after(self, elapsed: float) -> Statistics:
        """Return the statistics of all rows so far, after so many seconds."""
        failed = self.failures.total()
        return Statistics(
            rows=self.answered + failed,
            answered=self.answered,
            failed=failed,
            known=self.known,
            recorded=self.recorded,
            seconds=elapsed,
            p50=self._latency(0.50),
            p95=self._latency(0.95),
            usage=self.usage,
            cost=self.cost,
            failures=dict(self.failures.most_common()),
        )

    def _latency(self, part: float) -> float | None:
        """Return the seconds that this part of the answers took at most: the mean of those counted together."""
        left = math.ceil(part * sum(count for count, _ in self._latencies.values()))
        for place in sorted(self._latencies):
            count, total = self._latencies[place]
            left -= count
            if left <= 0:
                return total / count
        return None


def statistics_of(outcomes: Iterable[Outcome], elapsed: float) -> Statistics:
    """Return the statistics of a run that took so many seconds."""
    so_far = RunningStatistics()
    for outcome in outcomes:
        so_far.add(outcome)
    return so_far.after(elapsed)


def was_sent(outcome: Outcome) -> bool:
    """Tell whether this run sent a request for a row.

    >>> was_sent(Outcome(0)), was_sent(Outcome(0, known=True)), was_sent(Outcome(0, error=PromptError("no")))
    (True, False, False)

    """
    return not outcome.known and not isinstance(outcome.error, _NOT_SENT)


def response_of(outcome: Outcome) -> Response | None:
    """Return the response of a row, of one that failed what had arrived; None where nothing had."""
    response: Any = outcome.response
    if response is None and outcome.error is not None:
        response = outcome.error.response
    return response if isinstance(response, Response) else None


def by_class(failures: Mapping[str, int]) -> str:
    """Return failures by the class of their error in words.

    >>> by_class({"RateLimitedError": 2, "InvalidValueError": 1})
    '2 RateLimitedError, 1 InvalidValueError'

    """
    return ", ".join(f"{count:,} {name}" for name, count in failures.items())


def failures_of(errors: Iterable[LLMError | None]) -> dict[str, int]:
    """Return how many rows failed, by the class of their error, the most frequent first."""
    return dict(Counter(type(error).__name__ for error in errors if error is not None).most_common())
