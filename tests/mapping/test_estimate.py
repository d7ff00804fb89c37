"""What a run over many rows would take: exact figures from prompts and from samples, and the lines that say them."""

from __future__ import annotations

from typing import Any

import pytest

from llm_magic.errors import PromptError, RateLimitedError
from llm_magic.events import Usage
from llm_magic.mapping.estimate import Estimate, estimate_run, of_sample
from llm_magic.mapping.rows import Outcome
from llm_magic.messages import Image, Part, Text
from llm_magic.providers.model_info import Price
from llm_magic.response import Response
from llm_magic.session.spending import Demand

PRICE = Price(1, 10)  # a millionth of a dollar for a token in, ten for one out
PROMPT: tuple[Part, ...] = (Text("four bytes a token"),)  # 9 tokens, by the estimate


def estimated(prompts: list[tuple[Part, ...]], **options: Any) -> Estimate:
    first = options.pop("first", Demand(29, 60, 50))  # 20 tokens stand beside each prompt
    return estimate_run(prompts, first, **{"rows": len(prompts), **options})


def prompts(*texts: str) -> list[tuple[Part, ...]]:
    return [(Text(text),) for text in texts]


def test_all_rows() -> None:
    found = estimated([PROMPT] * 4 + prompts("four bytes", "four"), price=PRICE)
    assert (found.rows, found.distinct, found.asked) == (6, 3, 6)
    assert found.tokens == 4 * 29 + 27 + 25
    assert (found.most, found.cost) == (300, pytest.approx(0.000168))
    assert found.cost_at_most == pytest.approx(0.003168)
    assert found.lines() == (
        "6 rows, 3 different prompts: 6 requests to send; --dedup sends equal ones once.",
        "About 168 tokens in, at most 300 out.",
        "Price: about $0.00017 for the prompts, at most $0.0032 in all.",
    )


def test_equal_prompts_are_asked_once() -> None:
    found = estimated([PROMPT] * 99 + prompts("four"), once=True)
    assert (found.distinct, found.asked, found.tokens, found.most) == (2, 2, 29 + 25, 100)
    assert found.lines()[0] == "100 rows, 2 different prompts: 2 requests to send."


def test_rows_that_were_answered_before() -> None:
    found = estimated([PROMPT] * 3, rows=10, answered=7)
    assert found.lines()[:2] == (
        "10 rows, 7 answered before, 1 different prompt: 3 requests to send; --dedup sends equal ones once.",
        "About 87 tokens in, at most 150 out.",
    )
    nothing = estimated([], rows=10, answered=10)
    assert (nothing.asked, nothing.tokens, nothing.most) == (0, 0, 0)


def test_many_rows_are_as_some_of_them() -> None:
    found = estimated(prompts(*(f"{number:04}" for number in range(1000))), rows=100_000, price=PRICE)
    assert (found.asked, found.tokens, found.most) == (100_000, 100_000 * 25 + 400_000, 5_000_000)
    assert found.lines() == (
        "100,000 rows, 1,000 of 1,000 prompts are different: 100,000 requests to send.",
        "About 2,900,000 tokens in, as in 1,000 rows spread over all, at most 5,000,000 out.",
        "Price: about $2.90 for the prompts, at most $52.90 in all.",
    )


def test_answers_that_nothing_bounds() -> None:
    found = estimated([PROMPT] * 2, first=Demand(29, 60), price=PRICE, assumed=1000)
    assert found.most is None
    assert found.lines()[1] == "About 58 tokens in, as many out as the model writes."
    assert found.lines()[2] == (
        "Price: about $0.000058 for the prompts, $0.02 with answers of 1,000 tokens each "
        "(LLMMagics.budget_tokens_per_request); --max-tokens N bounds them."
    )


def test_no_price() -> None:
    found = estimated([PROMPT])
    assert (found.cost, found.cost_at_most) == (None, None)
    assert found.lines("No price is known. Set it.")[2] == "No price is known. Set it."
    assert len(found.lines()) == 2  # of what costs nothing


def test_no_rows_and_rows_that_nobody_has_counted() -> None:
    assert estimated([]).lines()[0] == "0 rows: there is nothing to ask."
    found = estimated([PROMPT], rows=None)
    assert found.lines() == (
        "How many rows there are is not known: what follows is of one.",
        "About 29 tokens in, at most 50 out.",
    )
    assert estimated([PROMPT], rows=1).lines()[0] == "1 row, 1 different prompt: 1 request to send."


def test_images_are_counted() -> None:
    image = Image(data=b"\x89PNG", media_type="image/png")
    assert estimated([PROMPT, (*PROMPT, image)]).tokens == 29 + 1029


# Samples


def answered(count: int, seconds: float = 2.0, cost: float | None = 0.0002, **more: Any) -> list[Outcome]:
    return [Outcome(at, Response(seconds=seconds, usage=Usage(50, 5), cost=cost), **more) for at in range(count)]


@pytest.mark.parametrize(
    ("outcomes", "total", "line"),
    [
        (answered(20), 2_000, "20 rows: $0.004, 4.1 s; all 2,000: about $0.40, 4 min 7 s at 16 at once."),
        (answered(20), 20, "20 rows: $0.004, 4.1 s; these are all rows."),
        (answered(5), 105, "5 rows: $0.001, 4.1 s; all 105: about $0.02, at least 12 s at 16 at once."),
        (answered(1), 2, "1 row: $0.0002, 4.1 s; all 2: about $0.0004, at least 2.0 s at 16 at once."),
        (
            answered(20, cost=None), 2_000,
            "20 rows: 1,000 → 100 tokens, 4.1 s; all 2,000: about 100,000 → 10,000 tokens, 4 min 7 s at 16 at once.",
        ),
        ([Outcome(0, Response(seconds=2.0))], 9, "1 row: 4.1 s; all 9: at least 2.0 s at 16 at once."),
        ([], 9, "0 rows."),
        (answered(20, known=True), 2_000, "20 rows: $0.004; all 2,000: about $0.40."),
        ([Outcome(0, Response(), known=True), Outcome(1, error=PromptError("no text"))], 9, "2 rows (1 failed)."),
        (
            [*answered(1, known=True), *answered(1)], 3,
            "2 rows: $0.0004, 4.1 s; all 3: about $0.0006, at least 2.0 s at 16 at once.",
        ),
        (
            [*answered(18), *(Outcome(at, error=RateLimitedError("slow down")) for at in (18, 19))], 2_000,
            "20 rows (2 failed): $0.0036, 4.1 s; all 2,000: about $0.40, 4 min 7 s at 16 at once.",
        ),
        ([Outcome(0, error=RateLimitedError("slow down"))], 9, "1 row (1 failed): 4.1 s."),
    ],
)  # fmt: skip
def test_a_sample(outcomes: list[Outcome], total: int, line: str) -> None:
    assert of_sample(outcomes, total, 4.1, 16) == f"A sample of {line}"


def test_what_a_failed_row_cost_counts() -> None:
    error = RateLimitedError("slow down")
    error.response = Response(cost=0.01)
    assert "all 100: about $0.55" in of_sample([*answered(1, cost=0.001), Outcome(1, error=error)], 100, 1.0, 4)
