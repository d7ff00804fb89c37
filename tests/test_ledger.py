"""Sums of usage, for answers of every kind of end."""

from __future__ import annotations

import threading

from llm_magic.events import Attempt, Usage
from llm_magic.ledger import Ledger, UsageRow
from llm_magic.response import Response


def attempt(status: int | None = 200, provider: str = "openai", model: str = "gpt-5") -> Attempt:
    return Attempt(provider, model, status, "", 0.1)


def test_answers_of_one_model_are_summed() -> None:
    ledger = Ledger()
    ledger.add(
        Response(usage=Usage(10, 5, 4, 3), seconds=1.5, cost=0.25, attempts=(attempt(429), attempt(None), attempt()))
    )
    ledger.add(Response(usage=Usage(1, 1), seconds=0.5, attempts=(attempt(),)))
    ledger.add(Response(seconds=0.25, cost=0.5, attempts=(attempt(),), finish_reason="interrupted"))
    assert ledger.rows() == (
        UsageRow("openai", "gpt-5", 3, 5, 2, 11, 6, 4, 3, uncounted=1, seconds=2.25, cost=0.75, unpriced=1),
    )


def test_a_fallback_is_entered_for_both_models() -> None:
    ledger = Ledger()
    attempts = (attempt(503), attempt(200, "vllm", "smollm2"))
    ledger.add(Response(model="best", provider="vllm", usage=Usage(2, 3), seconds=1.0, attempts=attempts))
    assert ledger.rows() == (
        UsageRow("openai", "gpt-5", requests=1, failed=1),
        UsageRow("vllm", "smollm2", 1, 1, 0, 2, 3, seconds=1.0, unpriced=1),
    )


def test_no_cost_is_not_a_cost_of_nothing() -> None:
    ledger = Ledger()
    ledger.add(Response(provider="local", model="m", text="x"))
    assert ledger.rows()[0].cost is None
    ledger.add(Response(provider="local", model="m", text="x", cost=0.0))
    assert (ledger.rows()[0].cost, ledger.rows()[0].unpriced) == (0.0, 1)


def test_what_failed_is_no_answer() -> None:
    ledger = Ledger()
    ledger.add(Response(provider="openai", model="gpt-5"))
    assert ledger.rows() == ()
    ledger.add(Response(seconds=2.0, attempts=(attempt(500), attempt(500))))
    assert ledger.rows() == (UsageRow("openai", "gpt-5", requests=2, failed=2, seconds=2.0),)


def test_reset() -> None:
    ledger = Ledger()
    ledger.add(Response(provider="a", model="m", text="x"))
    assert len(ledger.rows()) == 1
    ledger.reset()
    assert ledger.rows() == ()


def test_threads() -> None:
    ledger = Ledger()

    def work() -> None:
        for _ in range(500):
            ledger.add(Response(usage=Usage(1, 2), cost=1.0, attempts=(attempt(),)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (row,) = ledger.rows()
    assert (row.requests, row.answers, row.input_tokens, row.output_tokens, row.cost) == (
        2000,
        2000,
        2000,
        4000,
        2000.0,
    )
