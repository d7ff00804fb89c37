"""The quiet line below an answer says what is known, and nothing else."""

from __future__ import annotations

import pytest

from llm_magic.display.footer import footer, seconds, tokens
from llm_magic.events import Usage
from llm_magic.response import Response


@pytest.mark.parametrize(
    ("response", "line"),
    [
        (Response(model="a:m", provider="a"), "a:m · 0.0 s"),
        (Response(model="a:", provider="a", model_reported="m", cost=0.0), "a:m · 0.0 s · $0.00"),
        (
            Response(model="m", usage=Usage(1_000, 2), seconds=1.26, cost=0.00123, history_turns=1),
            "m · 1,000 → 2 tokens · 1.3 s · $0.0012 · 1 turn of history",
        ),
    ],
)
def test_the_line(response: Response, line: str) -> None:
    assert footer(response) == line


def test_figures() -> None:
    assert (tokens(1, 2_000), seconds(1_234.56)) == ("1 → 2,000 tokens", "1,234.6 s")
