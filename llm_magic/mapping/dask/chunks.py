"""The chunks of a run's rows: which are under way, whose outcomes are missing, which outcome was there before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from llm_magic.errors import LLMError
from llm_magic.mapping.rows import Outcome

CHUNK = 100
"""Rows of a chunk, at most."""

CHUNK_BYTES = 4_000_000
"""Bytes of a chunk from which on no further row is added."""


def chunk_size(workers: int, total: int | None, concurrency: int | str) -> int:
    """Return the rows of a chunk: few rows are spread over all workers, and no worker has many times its share.

    >>> chunk_size(2, None, 64), chunk_size(2, 8, 64), chunk_size(2, None, 4), chunk_size(4, 1, "auto")
    (100, 2, 8, 1)

    """
    workers = max(1, workers)
    spread = CHUNK if total is None else -(-total // (2 * workers))
    share = CHUNK if not isinstance(concurrency, int) else 4 * -(-concurrency // workers)
    return max(1, min(CHUNK, spread, share))


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
