"""The chunks of a run's rows: which are under way, whose outcomes are missing, which outcome was there before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from llm_magic.errors import LLMError
from llm_magic.mapping.rows import Outcome

CHUNK = 100
"""Rows of a chunk, at most, unless they take less than a quarter of a second."""

MOST = 500
"""Rows of a chunk, however fast they are."""

CHUNK_BYTES = 4_000_000
"""Bytes of a chunk from which on no further row is added."""

_QUICK = 0.25


def chunk_size(workers: int, left: int | None, concurrency: int | str, rate: float = 0.0) -> int:
    """Return the rows of a chunk: some times what a worker asks at once, fewer towards the end, so that all end alike.

    Parameters
    ----------
    workers
        How many take part.
    left
        Rows that are in no chunk so far; None where nobody knows.
    concurrency
        Rows in flight on all of them together.
    rate
        Rows that each worker has answered in a second: of fast ones a chunk holds more, for it costs something itself.

    >>> chunk_size(2, None, 64), chunk_size(2, 8, 64), chunk_size(2, None, 4), chunk_size(4, 1, "auto")
    (100, 4, 8, 1)
    >>> chunk_size(2, None, 64, 1000.0), chunk_size(2, 400, 64, 1000.0)
    (250, 100)

    """
    workers = max(1, workers)
    share = -(-concurrency // workers) if isinstance(concurrency, int) else CHUNK // 4
    most = min(MOST, max(min(CHUNK, 4 * share), int(rate * _QUICK)))
    if left is not None:
        most = min(most, max(-(-left // (2 * workers)), min(-(-left // workers), share // 2)))
    return max(1, most)


@dataclass(eq=False)
class Chunk:
    """A chunk under way."""

    number: int
    rows: dict[int, bytes]
    """The rows whose outcomes are missing."""
    all: frozenset[int]
    """The numbers of all that were in it."""

    def arrived(self) -> list[int]:
        """Return the numbers of the rows whose outcomes are here."""
        return sorted(self.all - self.rows.keys())


class Chunks:
    """The rows of a run as chunks, and which of them are under way; one thread uses it.

    Parameters
    ----------
    rows
        Objects with a `number`, each once.
    pack
        Makes bytes of one; raises LLMError where it cannot.

    """

    def __init__(self, rows: Iterator[Any], pack: Callable[[Any], bytes]) -> None:
        self._rows = rows
        self._pack = pack
        self._under_way: dict[int, Chunk] = {}
        self._chunk_of: dict[int, Chunk] = {}
        self._made = 0
        self.read = 0
        """Rows that are read."""
        self.exhausted = False
        """Whether all rows are read."""
        self.problem: BaseException | None = None
        """What reading the rows raised; to be raised when the rows before have their outcomes."""
        self.refused: list[Outcome] = []
        """Outcomes of rows that cannot travel, until somebody takes them."""

    def __iter__(self) -> Iterator[Chunk]:
        return iter(list(self._under_way.values()))

    @property
    def missing(self) -> int:
        """Rows under way whose outcomes are missing."""
        return len(self._chunk_of)

    @property
    def finished(self) -> bool:
        """Whether all rows are read, and all outcomes here."""
        return self.exhausted and not self._under_way

    def get(self, number: int) -> Chunk | None:
        """Return the chunk of a number while it is under way."""
        return self._under_way.get(number)

    def next(self, most: int) -> Chunk | None:
        """Return the next rows as a chunk, which is under way from now on; None where there are none."""
        rows: dict[int, bytes] = {}
        size = 0
        while not self.exhausted and len(rows) < most and size < CHUNK_BYTES:
            try:
                row = next(self._rows)
            except StopIteration:
                self.exhausted = True
                break
            except BaseException as error:  # noqa: BLE001 - raised when the rows before have their outcomes
                self.exhausted, self.problem = True, error
                break
            self.read += 1
            try:
                rows[row.number] = self._pack(row)
            except LLMError as error:
                self.refused.append(Outcome(row.number, None, error))
                continue
            size += len(rows[row.number])
        if not rows:
            return None
        self._made += 1
        chunk = Chunk(self._made, rows, frozenset(rows))
        self._under_way[chunk.number] = chunk
        self._chunk_of.update(dict.fromkeys(rows, chunk))
        return chunk

    def came(self, number: int) -> Chunk | None:
        """Take note of the outcome of a row, and return its chunk; None where it was here before."""
        chunk = self._chunk_of.pop(number, None)
        if chunk is not None:
            del chunk.rows[number]
            if not chunk.rows:
                del self._under_way[chunk.number]
        return chunk

    def give_up(self, chunk: Chunk) -> list[int]:
        """Let go of a chunk, and return the numbers of the rows whose outcomes are missing."""
        numbers = list(chunk.rows)
        for number in numbers:
            self.came(number)
        return numbers

    def take_refused(self) -> list[Outcome]:
        """Return the outcomes of rows that cannot travel, once."""
        refused, self.refused = self.refused, []
        return refused
