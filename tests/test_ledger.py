"""Sums of usage, for requests and answers of every kind of end, and the time that they took."""

from __future__ import annotations

import threading
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from llm_magic.events import Attempt, Usage
from llm_magic.ledger import Ledger, UsageRow
from llm_magic.response import Response


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def attempt(status: int | None = 200, provider: str = "openai", model: str = "gpt-5") -> Attempt:
    return Attempt(provider, model, status, "", 0.1)


def enter(
    ledger: Ledger,
    attempts: tuple[Attempt, ...],
    usage: Usage | None = None,
    cost: float | None = None,
    *,
    name: tuple[str, str] = ("openai", "gpt-5"),
    answered: bool = True,
) -> None:
    ledger.begin(*name)(attempts, usage, cost, answered=answered)


def test_requests_of_one_model_are_summed() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    enter(ledger, (attempt(429), attempt(None), attempt()), Usage(10, 5, 4, 3), 0.25)
    enter(ledger, (attempt(),), Usage(1, 1))
    enter(ledger, (attempt(),), None, 0.5)
    for _ in range(3):
        ledger.answered(Response(attempts=(attempt(),)), "openai", "gpt-5")
    assert ledger.rows() == (UsageRow("openai", "gpt-5", 3, 5, 2, 11, 6, 4, 3, uncounted=1, cost=0.75, unpriced=1),)


def test_an_end_counts_once() -> None:
    ledger = Ledger()
    end = ledger.begin("openai", "gpt-5")
    for _ in range(3):
        end((attempt(),), Usage(1, 2), 0.5)
    (row,) = ledger.rows()
    assert (row.requests, row.input_tokens, row.output_tokens, row.cost) == (1, 1, 2, 0.5)


def test_a_fallback_is_entered_for_both_models() -> None:
    ledger = Ledger(Clock())
    attempts = (attempt(503), attempt(200, "vllm", "smollm2"))
    enter(ledger, attempts[:1], answered=False)
    enter(ledger, attempts[1:], Usage(2, 3), name=("vllm", "smollm2"))
    ledger.answered(Response(model="best", provider="vllm", usage=Usage(2, 3), attempts=attempts), "vllm", "smollm2")
    assert ledger.rows() == (
        UsageRow("openai", "gpt-5", requests=1, failed=1),
        UsageRow("vllm", "smollm2", 1, 1, 0, 2, 3, unpriced=1),
    )


def test_no_cost_is_not_a_cost_of_nothing() -> None:
    ledger = Ledger()
    enter(ledger, ())
    assert ledger.rows()[0].cost is None
    enter(ledger, (), cost=0.0)
    assert (ledger.rows()[0].cost, ledger.rows()[0].unpriced) == (0.0, 1)


def test_what_failed_is_no_answer() -> None:
    ledger = Ledger(Clock())
    ledger.answered(Response(provider="openai", model="gpt-5"), "openai", "gpt-5")
    assert ledger.rows() == ()
    enter(ledger, (attempt(500), attempt(500)), answered=False)
    ledger.answered(Response(attempts=(attempt(500), attempt(500))), "openai", "gpt-5")
    assert ledger.rows() == (UsageRow("openai", "gpt-5", requests=2, failed=2),)


def test_the_total_is_that_of_all_rows() -> None:
    ledger = Ledger(Clock())
    enter(ledger, (attempt(429), attempt()), Usage(10, 5), name=("a", "x"))
    enter(ledger, (attempt(),), Usage(1, 2), 0.5, name=("b", "y"))
    for name in (("a", "x"), ("b", "y")):
        ledger.answered(Response(text="Hello"), *name)
    assert ledger.total() == UsageRow("all", "", 2, 3, 1, 11, 7, cost=0.5, unpriced=1)


def test_time_that_overlaps_is_counted_once() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    ends = [ledger.begin(*name) for name in (("a", "x"), ("a", "x"), ("b", "y"), ("b", "y"))]
    clock.now += 2
    for end in ends:
        end((attempt(),), Usage(1, 1), None)
    assert [row.seconds for row in ledger.rows()] == [2, 2]
    assert ledger.total().seconds == 2
    clock.now += 10  # nothing is under way
    end = ledger.begin("b", "y")
    clock.now += 1
    assert ledger.total().seconds == 3  # what is under way counts
    end((attempt(),), Usage(1, 1), None)
    assert [row.seconds for row in ledger.rows()] == [2, 3]


SPANS = st.lists(st.tuples(st.sampled_from(["x", "y"]), st.integers(0, 50), st.integers(1, 20)), max_size=12)


@given(SPANS)
def test_the_time_is_that_of_all_intervals_together(spans: list[tuple[str, int, int]]) -> None:
    clock = Clock()
    ledger, ends = Ledger(clock), {}
    for moment in range(80):
        clock.now = float(moment)
        for number, (model, begins, length) in enumerate(spans):
            if begins + length == moment:
                ends[number]((attempt(),), None, None)
            if begins == moment:
                ends[number] = ledger.begin("a", model)
    seconds = {
        which: len({at for model, begins, length in spans if model in which for at in range(begins, begins + length)})
        for which in ("x", "y", "xy")
    }
    assert ledger.total().seconds == seconds["xy"]
    assert {row.model: row.seconds for row in ledger.rows()} == {
        model: seconds[model] for model in dict.fromkeys(span[0] for span in sorted(spans, key=lambda each: each[1]))
    }


def test_reset() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    enter(ledger, (attempt(),), name=("a", "m"))
    end = ledger.begin("b", "m")
    clock.now += 5
    assert len(ledger.rows()) == 1
    ledger.reset()
    assert (ledger.rows(), ledger.total().seconds) == ((), 0.0)
    clock.now += 2
    end((attempt(),), Usage(1, 2), None)
    assert ledger.rows() == (UsageRow("b", "m", 0, 1, 0, 1, 2, seconds=2.0, unpriced=1),)


def test_threads() -> None:
    ledger = Ledger()

    def work() -> None:
        for _ in range(500):
            enter(ledger, (attempt(),), Usage(1, 2), 1.0)
            ledger.answered(Response(text="Hello"), "openai", "gpt-5")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (row,) = ledger.rows()
    assert replace(row, seconds=0.0) == UsageRow("openai", "gpt-5", 2000, 2000, 0, 2000, 4000, cost=2000.0)
