"""The inputs of several models: read once, whatever they are, and given to each of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from llm_magic.errors import InputError
from llm_magic.mapping.inputs.inputs import Inputs, read_inputs
from llm_magic.mapping.rows import Row


def inputs_of_each(value: Any, count: int, name: str = "inputs") -> tuple[Inputs, ...]:
    """Return the rows of what a user gave, once for each of `count` models; all get the same rows.

    What lies in memory is shared. An iterator is read as the fastest model needs it; an item is kept until the slowest
    has it. Anything else that the user's code gives is read whole, now.

    Parameters
    ----------
    value, name
        As of `read_inputs`.
    count
        How many models there are.

    Raises
    ------
    InputError
        As of `read_inputs`; or the user's code has raised while it was read.

    >>> first, second = inputs_of_each(iter("ab"), 2)
    >>> [row.names["item"] for row in first], [row.names["item"] for row in second]
    (['a', 'b'], ['a', 'b'])

    """
    inputs = read_inputs(value, name)
    if inputs.is_iterator:
        shared = _Shared(value, count)
        return tuple(read_inputs(_Reader(shared, number), name) for number in range(count))
    if inputs.may_wait:
        inputs = _ReadRows(_read_whole(inputs), inputs)
    return (inputs,) * count


def _read_whole(inputs: Inputs) -> list[Row]:
    """Return all rows that the user's code gives, on the thread that can be interrupted."""
    try:
        return list(inputs)
    except InputError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def leave(inputs: Inputs) -> None:
    """Keep no further rows for a model that reads none any more."""
    if isinstance(inputs.source, _Reader):
        inputs.source.leave()


class _ReadRows(Inputs):
    """Rows that were read from what the user's code gives."""

    def __init__(self, rows: Sequence[Row], inputs: Inputs) -> None:
        super().__init__(inputs.source, inputs.name)
        self._rows = rows
        self.length = len(rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def rows(self, numbers: Sequence[int]) -> Iterator[Row]:
        return (self._rows[number] for number in numbers)

    def has_name(self, name: str) -> bool:
        return name in self.names_in_rows() or any(name in row.names for row in self._rows)

    def without_value(self, name: str) -> int:
        del name
        return 0


class _Shared:
    """An iterator that several read, each from its first item on, and on threads of their own."""

    def __init__(self, source: Iterator[Any], count: int) -> None:
        self._source = source
        self._lock = threading.Lock()  # of the source, too: while the user's code makes an item, the others wait for it
        self._waiting: dict[int, deque[Any]] = {number: deque() for number in range(count)}
        self._end: BaseException | None = None

    def next(self, number: int) -> Any:
        """Return the next item for a reader; raises what the source raised, for each of them."""
        with self._lock:
            waiting = self._waiting.get(number)
            if waiting:
                return waiting.popleft()
            if self._end is not None:
                raise self._end
            try:
                item = next(self._source)
            except BaseException as error:
                self._end = error
                raise
            for other in tuple(self._waiting.values()):
                if other is not waiting:
                    other.append(item)
            return item

    def leave(self, number: int) -> None:
        """Keep nothing for a reader any more."""
        self._waiting.pop(number, None)  # without the lock: the user's code may take its time


class _Reader:
    """The iterator of one of several readers."""

    def __init__(self, shared: _Shared, number: int) -> None:
        self._shared, self._number = shared, number

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> Any:
        return self._shared.next(self._number)

    def leave(self) -> None:
        """Read nothing any more."""
        self._shared.leave(self._number)
