"""The bookkeeping of chunks: whatever comes, twice or never, each row is missing until its outcome is here."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.errors import ConfigurationError
from llm_magic.mapping.dask import chunks as dask_chunks
from llm_magic.mapping.dask.chunks import Chunks, chunk_size


def rows(*numbers: int) -> Iterator[Any]:
    return (SimpleNamespace(number=number) for number in numbers)


def pack(row: Any) -> bytes:
    if row.number < 0:
        raise ConfigurationError("It does not travel.")
    return b"x" * row.number


def test_chunks_hold_the_rows_in_their_order() -> None:
    chunks = Chunks(rows(1, 2, 3), pack)
    first, second = chunks.next(2), chunks.next(2)
    assert first is not None
    assert second is not None
    assert (first.number, first.rows) == (1, {1: b"x", 2: b"xx"})
    assert (second.number, second.rows) == (2, {3: b"xxx"})
    assert (chunks.missing, list(chunks), chunks.exhausted) == (3, [first, second], True)
    assert chunks.next(2) is None
    assert (chunks.get(1), chunks.get(3)) == (first, None)


def test_an_outcome_counts_once() -> None:
    chunks = Chunks(rows(1, 2), pack)
    chunk = chunks.next(3)
    assert chunk is not None
    assert chunks.came(2) is chunk
    assert (chunks.came(2), chunks.came(7)) == (None, None)
    assert (chunk.arrived(), list(chunk.rows), chunks.missing, chunks.finished) == ([2], [1], 1, False)
    assert chunks.came(1) is chunk
    assert (chunks.get(1), chunks.missing, chunks.finished) == (None, 0, True)


def test_a_chunk_that_is_given_up_has_no_missing_rows() -> None:
    chunks = Chunks(rows(1, 2, 3), pack)
    chunk = chunks.next(5)
    assert chunk is not None
    chunks.came(2)
    assert chunks.give_up(chunk) == [1, 3]
    assert chunks.finished
    assert chunks.came(1) is None


def test_a_row_that_does_not_travel_is_an_outcome_of_its_own() -> None:
    chunks = Chunks(rows(1, -2, 3), pack)
    chunk = chunks.next(5)
    assert chunk is not None
    assert list(chunk.rows) == [1, 3]
    (refused,) = chunks.take_refused()
    assert (refused.number, str(refused.error)) == (-2, "It does not travel.")
    assert chunks.take_refused() == []
    assert Chunks(rows(-1), pack).next(5) is None


def test_what_the_rows_raise_is_kept_until_the_rows_before_are_here() -> None:
    def broken() -> Iterator[Any]:
        yield from rows(1)
        raise SystemExit("of the user's")

    chunks = Chunks(broken(), pack)
    assert chunks.next(5) is not None
    assert isinstance(chunks.problem, SystemExit)
    assert (chunks.exhausted, chunks.finished) == (True, False)
    chunks.came(1)
    assert chunks.finished


def test_no_more_rows_are_read_than_a_chunk_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def noted() -> Iterator[Any]:
        for number in range(10, 100):
            read.append(number)
            yield SimpleNamespace(number=number)

    chunks = Chunks(noted(), pack)
    chunks.next(3)
    assert read == [10, 11, 12]
    monkeypatch.setattr(dask_chunks, "CHUNK_BYTES", 20)
    chunks.next(100)
    assert read == [10, 11, 12, 13, 14]


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 7))
def test_whatever_comes_what_is_missing_and_what_is_here_are_all(numbers: list[int], most: int) -> None:
    chunks, here = Chunks(rows(*range(20)), pack), set[int]()
    for number in numbers:
        chunks.next(most)
        if chunks.came(number) is not None:
            assert number not in here
            here.add(number)
        missing = {each for chunk in chunks for each in chunk.rows}
        assert not missing & here
        assert chunks.missing == len(missing)
        assert all(set(chunk.arrived()) <= here for chunk in chunks)
    while chunks.next(most):
        pass
    for chunk in chunks:
        for number in tuple(chunk.rows):
            chunks.came(number)
            here.add(number)
    assert chunks.finished
    assert here == set(range(20))


@given(
    st.integers(0, 200),
    st.none() | st.integers(0, 100_000),
    st.just("auto") | st.integers(1, 1000),
    st.floats(0, 1e6),
)
def test_a_chunk_has_between_one_row_and_the_most(
    workers: int, left: int | None, concurrency: int | str, rate: float
) -> None:
    assert 1 <= chunk_size(workers, left, concurrency) <= dask_chunks.CHUNK
    assert 1 <= chunk_size(workers, left, concurrency, rate) <= dask_chunks.MOST


def test_the_last_chunks_are_small_so_that_all_workers_end_alike() -> None:
    left, sizes = 100, []
    while left:
        sizes.append(chunk_size(2, left, 16))
        left -= sizes[-1]
    assert sizes == [25, 19, 14, 11, 8, 6, 5, 4, 4, 2, 1, 1]
