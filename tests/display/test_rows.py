"""How far many rows are, in words: exact lines, whatever the figures."""

from __future__ import annotations

import pytest

from llm_magic.display import rows
from llm_magic.display.rows import RowLine, RowsProgress, chosen, figures, line, row_line
from llm_magic.metadata import Usage

INFINITE, NO_NUMBER = float("inf"), float("nan")
UNDER_WAY = RowsProgress(
    total=2_000,
    done=1_234,
    failed=3,
    known=1_000,
    in_flight=16,
    seconds=4.9,
    rate=48.4,
    seconds_left=16.2,
    usage=Usage(12_345, 6_789),
    cost=0.12,
    cost_at_end=0.2,
    failures={"InvalidValueError": 1, "RateLimitedError": 2},
    last=(RowLine("1,233", "price"),),
    waiting="waits for vllm: connection refused",
)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (RowsProgress(2_000), "0 of 2,000"),
        (RowsProgress(None), "0 rows"),
        (RowsProgress(None, 1_234, 1, rate=48), "1,234 rows, 1 failed, 48/s"),
        (RowsProgress(0), "0 of 0"),
        (RowsProgress(2_000, 1_234, 3, rate=48, seconds_left=16, cost=0.12),
         "1,234 of 2,000, 3 failed, 48/s, 16 s left, $0.12"),
        (RowsProgress(2_000, 2_000, rate=48, seconds_left=16, cost=0.0), "2,000 of 2,000, 48/s, $0.00"),
        (RowsProgress(9, 1, rate=NO_NUMBER, seconds_left=INFINITE, seconds=NO_NUMBER), "1 of 9"),
        (RowsProgress(9, 1, rate=-1, seconds_left=-3), "1 of 9"),
        (UNDER_WAY, f"1,234 of 2,000, 3 failed, 1,000 answered before, 48/s, 16 s left, $0.12, {UNDER_WAY.waiting}"),
    ],
)  # fmt: skip
def test_a_line(progress: RowsProgress, expected: str) -> None:
    assert line(progress) == expected


def test_all_figures() -> None:
    assert figures(UNDER_WAY) == (
        (
            "1,234 of 2,000 rows · 3 failed: 2 RateLimitedError, 1 InvalidValueError · 766 left · 16 in flight · "
            "1,000 answered before"
        ),
        "48/s · 12,345 → 6,789 tokens · $0.12 so far, about $0.20 in all · 4 s · 16 s left",
    )
    assert figures(RowsProgress(None)) == ("0 rows", "")
    assert figures(RowsProgress(2, 2, cost=0.5, cost_at_end=0.5)) == ("2 of 2 rows", "$0.50")


def test_more_rows_than_were_said() -> None:
    more = RowsProgress(3, 5, seconds_left=9)
    assert (line(more), more.left) == ("5 of 3", 0)


def test_failures_of_many_classes_are_counted_together() -> None:
    failures = {f"Class{number}Error": number for number in range(1, 8)}
    assert rows.failures(RowsProgress(99, 50, 28, failures=failures)) == (
        "28 failed: 7 Class7Error, 6 Class6Error, 5 Class5Error, 10 of other kinds"
    )
    assert rows.failures(RowsProgress(99, 50, 28)) == "28 failed"


@pytest.mark.parametrize(
    ("total", "failed", "expected"),
    [
        (0, [], []),
        (1, [0], [0]),
        (10, [9], list(range(10))),
        (11, [10], [*range(9), 10]),
        (2_000, [], list(range(10))),
        (2_000, [1, 2, 3], list(range(10))),
        (2_000, [9], list(range(10))),
        (2_000, [8, 9, 50], list(range(10))),
        (2_000, [50, 60, 70, 80], [*range(7), 50, 60, 70]),
        (2_000, range(2_000), list(range(10))),
        (2_000, range(5, 2_000), list(range(10))),
        (12, range(12), list(range(10))),
    ],
)
def test_which_rows_are_in_the_table(total: int, failed: list[int], expected: list[int]) -> None:
    assert chosen(total, failed) == expected


def test_a_row_as_a_line() -> None:
    assert row_line(("a", 1), [1, 2]) == RowLine("('a', 1)", "1, 2")
    assert row_line(0, None) == RowLine("0", "")
    assert row_line(0, "two\nlines\r\nand \x1b[31mred\x1b[0m \u202eturned") == RowLine(
        "0", "two lines and ␛[31mred␛[0m {U+202E}turned"
    )
    assert row_line("\ud800", "\ud83d\ude00 \udfff") == RowLine("\ufffd", "\U0001f600 \ufffd")
    assert row_line(1, error=KeyError()) == RowLine("1", "KeyError", failed=True)
    long = row_line("l" * 10**6, "v" * 10**6)
    assert (len(long.label), len(long.value), long.value[-2:]) == (60, 300, "v…")


def test_a_value_that_is_nested_too_deeply() -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = {"a": deep}
    assert row_line(1, deep).value == "<dict>"
    while isinstance(deep, dict):  # taken apart, for its own end would be a recursion, too
        deep = deep.pop("a")
