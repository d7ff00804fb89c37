"""Statistics of many rows: exact sums, latencies within a percent, bounded memory, one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.errors import (
    BudgetError,
    InvalidValueError,
    LLMError,
    NotAskedError,
    PromptError,
    RateLimitedError,
    RecordingError,
)
from llm_magic.mapping.answers.statistics import RunningStatistics, Statistics, failures_of, statistics_of
from llm_magic.mapping.rows import Outcome
from llm_magic.metadata import Usage
from llm_magic.response import Response


def answered(number: int, seconds: float = 0.5, *, known: bool = False, **more: object) -> Outcome:
    return Outcome(number, Response(seconds=seconds, **more), known=known)  # type: ignore[arg-type]


def test_the_line() -> None:
    outcomes = [answered(number, 0.9, usage=Usage(200, 6), cost=0.000155) for number in range(1_997)]
    outcomes += [Outcome(1_997 + number, error=RateLimitedError("no")) for number in range(2)]
    outcomes.append(Outcome(1_999, error=InvalidValueError("no", response=Response(seconds=9, usage=Usage(600, 18)))))
    assert str(statistics_of(outcomes, 41.04)) == (
        "2,000 rows in 41.0 s, p50 0.9 s, p95 0.9 s, 400,000 → 12,000 tokens, $0.31; "
        "3 failed: 2 RateLimitedError, 1 InvalidValueError"
    )


@pytest.mark.parametrize(
    ("outcomes", "line"),
    [
        ([answered(0, known=True), answered(1, known=True)], "2 rows, 2 answered before"),
        (
            [answered(0, known=True), Outcome(1, error=PromptError("no text"))],
            "2 rows, 1 answered before; 1 failed: 1 PromptError",
        ),
        ([Outcome(0, error=RecordingError("not recorded"))], "1 row; 1 failed: 1 RecordingError"),
        ([Outcome(0, error=BudgetError("no")), Outcome(1, error=NotAskedError("no"))], None),
        ([answered(0, known=True), Outcome(1, error=RateLimitedError("no"))], "2 rows in 41.0 s, 1 answered before; "),
    ],
)
def test_a_run_that_sent_nothing_tells_no_time(outcomes: list[Outcome], line: str | None) -> None:
    """What is replayed says the same again, however long it takes."""
    found = str(statistics_of(outcomes, 41.04))
    assert found.startswith(line or "2 rows; 2 failed: ")
    assert ("41.0 s" in found) is (" in " in (line or ""))


def test_all_of_it() -> None:
    outcomes = [answered(0, 1.0, usage=Usage(1, 2, 3, 4)), answered(1, 2.0, cost=0.5), Outcome(2, error=LLMError("no"))]
    assert statistics_of(outcomes, 3.0) == Statistics(
        rows=3, answered=2, failed=1, known=0, seconds=3.0, p50=1.0, p95=2.0, usage=Usage(1, 2, 3, 4), cost=0.5,
        failures={"LLMError": 1},
    )  # fmt: skip


def test_rows_that_were_answered_before_cost_nothing_now() -> None:
    outcomes = [answered(0, 100.0, known=True, usage=Usage(5, 5), cost=1.0), answered(1, 1.0, usage=Usage(1, 1))]
    found = statistics_of(outcomes, 1.0)
    assert (found.rows, found.answered, found.known) == (2, 2, 1)
    assert (found.p50, found.p95, found.usage, found.cost) == (1.0, 1.0, Usage(1, 1), None)
    assert str(found) == "2 rows in 1.0 s, 1 answered before, p50 1.0 s, p95 1.0 s, 1 → 1 tokens"


@pytest.mark.parametrize(
    ("outcomes", "line"),
    [
        ([], "0 rows in 0.0 s"),
        ([Outcome(0, error=LLMError("no"))], "1 row in 0.0 s; 1 failed: 1 LLMError"),
        ([Outcome(0)], "1 row in 0.0 s"),
        ([answered(0, 0.0)], "1 row in 0.0 s, p50 0.0 s, p95 0.0 s"),
        ([answered(0, cost=0.0)], "1 row in 0.0 s, p50 0.5 s, p95 0.5 s, $0.00"),
    ],
)
def test_lines_of_little(outcomes: list[Outcome], line: str) -> None:
    assert str(statistics_of(outcomes, 0.0)) == line


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=200))
@settings(max_examples=100, deadline=None)
def test_latencies_are_right_within_a_percent(seconds: list[float]) -> None:
    found = statistics_of((answered(number, each) for number, each in enumerate(seconds)), 1.0)
    ordered = sorted(seconds)
    for part, got in ((0.5, found.p50), (0.95, found.p95)):
        exact = ordered[-(-len(seconds) * round(part * 100) // 100) - 1]
        assert got == pytest.approx(exact, rel=0.0101, abs=2e-6)


def test_its_size_does_not_grow_with_the_rows() -> None:
    def rows(count: int) -> Iterator[Outcome]:
        return (answered(number, 0.001 * (1 + number % 60_000), usage=Usage(1, 1)) for number in range(count))

    so_far = RunningStatistics()
    for outcome in rows(120_000):
        so_far.add(outcome)
    places = so_far._latencies
    assert len(places) < 1_200
    assert sys.getsizeof(places) < 100_000
    assert so_far.after(60.0).p50 == pytest.approx(30.0, rel=0.01)


def test_the_most_frequent_failure_comes_first() -> None:
    errors = [LLMError("a"), None, RateLimitedError("b"), RateLimitedError("c")]
    assert list(failures_of(errors).items()) == [("RateLimitedError", 2), ("LLMError", 1)]


def test_a_response_of_another_kind_is_not_counted() -> None:
    error = LLMError("no")
    error.response = {"usage": "none of ours"}
    assert statistics_of([Outcome(0, error=error)], 1.0).usage is None
