"""The requests of many rows: a template rendered row by row, and the rows that need no request, put aside."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from llm_magic.errors import LLMError, PromptError
from llm_magic.mapping.asking.row_asker import RowAsker, failed
from llm_magic.mapping.inputs.order import beginning_of, by_prefix, spread
from llm_magic.mapping.inputs.row_prompt import RowPrompt
from llm_magic.mapping.rows import Outcome, Row, RowRequest

if TYPE_CHECKING:
    from llm_magic.mapping.inputs.inputs import Inputs
    from llm_magic.messages import Part

_READ_AT_ONCE = 50  # answers of an earlier run, before others get a turn
_MOST_READY = 100_000  # answers of an earlier run that are found before they are handed on, of an iterator
_LOOK = 0.02  # seconds until it is looked for more of them


class Taker(Protocol):
    """Who takes outcomes of rows that need no request."""

    def put(self, outcomes: list[Outcome]) -> None:
        """Take some."""


class RowRequests:
    """The requests of the rows of an input.

    Parameters
    ----------
    inputs
        The rows.
    prompt
        The template over a row.
    asker
        Knows which rows an earlier run, or a recording, has answers to.
    numbers
        The rows that are asked for; None: all.
    by_prefix
        Whether rows with like beginnings come next to each other.
    images
        Returns the images of a row; None where there are none.
    is_stopped
        Tells whether no further row is asked: then none is rendered.

    """

    def __init__(
        self,
        inputs: Inputs,
        prompt: RowPrompt,
        asker: RowAsker,
        *,
        numbers: Sequence[int] | None,
        by_prefix: bool,
        images: Callable[[Row], tuple[Part, ...]] | None,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._inputs, self._prompt, self._asker = inputs, prompt, asker
        self._numbers, self._by_prefix, self._images, self._is_stopped = numbers, by_prefix, images, is_stopped
        self._ready: deque[Outcome | tuple[RowRequest, int]] = deque()  # rows that need no request
        self._known: Iterator[Outcome | tuple[RowRequest, int]] = iter(())  # so are these, read as they are handed on
        self._known_left = 0
        self._unusable: list[RowRequest] = []  # of which an earlier run has left no answer that can be used as it is
        self._is_over = False
        self.labels: dict[int, Hashable] = {}
        """The labels of rows that are not their number."""
        self.is_looking_up = False
        """Whether answers of an earlier run are looked up now."""

    def close(self) -> None:
        """Read no further row: nobody waits for it any more."""
        self._is_over = True

    @property
    def known(self) -> int:
        """Rows with an answer of an earlier run that has not been handed on."""
        return self._known_left + sum(isinstance(each, tuple) for each in tuple(self._ready))

    def _rows(self) -> Iterator[Row]:
        return iter(self._inputs) if self._numbers is None else self._inputs.rows(self._numbers)

    def all(self) -> Iterator[RowRequest]:
        """Yield what is asked; a row that cannot be rendered has failed, and is put aside."""
        made = self._rendered(self._rows())
        if self._by_prefix:
            whole = list(made)
            made = (whole[at] for at in by_prefix([beginning_of(each) for each in whole]))
        yield from made

    def some(self, most: int) -> tuple[list[RowRequest], list[RowRequest], list[Outcome]]:
        """Return what is asked of some rows, spread over all: requests, those whose answer is known, and failures.

        Of an iterator it is the first row alone.
        """
        total = self._inputs.length if self._numbers is None else len(self._numbers)
        if self._inputs.is_iterator or total is None:
            rows: Iterator[Row] = islice(self._rows(), 1)
        elif total <= most:
            rows = self._rows()
        else:
            numbers = self._numbers if self._numbers is not None else range(total)
            rows = self._inputs.rows([numbers[place] for place in spread(total, most)])
        requests = list(self._rendered(rows))
        ready = list(self._ready)
        known = [each[0] for each in ready if isinstance(each, tuple)]
        return requests, known, [each for each in ready if isinstance(each, Outcome)]

    def _rendered(self, rows: Iterator[Row], *, looks: bool = True) -> Iterator[RowRequest]:
        """Yield what is asked of rows; `looks` whether an earlier run may have left their answers."""
        for row in rows:
            if self._is_over:  # while a thread reads what nobody waits for any more
                return
            self._label(row)
            if self._is_stopped():
                yield RowRequest(row.number, row.index, ())  # that is not asked
                continue
            try:
                parts = self._prompt.render(row).parts
                if self._images is not None:
                    parts += self._images(row)
                if not any(getattr(part, "text", "x").strip() for part in parts):
                    raise PromptError("The prompt of this row is empty.")
            except LLMError as error:
                self._ready.append(failed(row.number, error))
                continue
            key = self._asker.key(parts) if self._asker.looks_for_equal else ""
            asked = RowRequest(row.number, row.index, parts, key)
            number = self._asker.known_number(asked) if looks else None
            if number is None:
                yield asked
                continue
            self._ready.append((asked, number))
            while self._inputs.is_iterator and len(self._ready) >= _MOST_READY and not self._is_over:
                time.sleep(_LOOK)  # on the thread that reads the iterator, until they are handed on

    def _label(self, row: Row) -> None:
        if row.index != row.number:
            self.labels[row.number] = row.index

    def not_recorded(self, requests: Iterator[RowRequest]) -> Iterator[RowRequest]:
        """Yield what is not answered from recordings, which lie here and not where it is asked."""
        for request in requests:
            outcome = self._asker.recorded_outcome(request)
            if outcome is None:
                yield request
            else:
                self._ready.append(outcome)

    async def looked_up(self) -> tuple[Iterator[RowRequest], int]:
        """Return what is to be asked once it is known which rows have answers of an earlier run, and how many have."""
        self.is_looking_up = True
        if self._by_prefix or self._prompt.may_wait:  # in memory anyway; or called once for each row
            found: Iterator[RowRequest] = iter(await asyncio.to_thread(list, self.all()))
        else:
            left = await asyncio.to_thread(self._look_up)
            found = self._rendered(self._inputs.rows(left), looks=False)
        self.is_looking_up = False
        return found, self.known

    def _look_up(self) -> array[int]:
        """Return the numbers of the rows that are to be asked; of the others, set aside which answer each has.

        Of a million rows there are two numbers in memory, not their prompts: these are made once more.
        """
        left, known, places = array("q"), array("q"), array("q")
        for row in self._rows():
            if self._is_over:  # it was interrupted
                break
            place = None
            with suppress(LLMError):  # it fails once more when it is asked
                parts = self._prompt.render(row).parts
                place = self._asker.known_number(RowRequest(row.number, row.index, parts, self._asker.key(parts)))
            if place is None:
                left.append(row.number)
            else:
                known.append(row.number)
                places.append(place)
        self._prompt.forget_notes()
        self._known_left, self._known = len(known), self._rows_known(known, places)
        return left

    def _rows_known(self, known: array[int], places: array[int]) -> Iterator[Outcome | tuple[RowRequest, int]]:
        for row, place in zip(self._inputs.rows(known), places, strict=True):
            self._label(row)
            try:
                parts = self._prompt.render(row).parts
            except LLMError as error:  # though it could be rendered when it was looked up
                yield failed(row.number, error)
            else:
                yield RowRequest(row.number, row.index, parts, self._asker.key(parts)), place

    async def hand_on(self, taker: Taker) -> None:
        """Hand on what needs no request, some at a time, so that what is in flight is not held up; it has no end."""
        while True:
            if self.is_ready:
                taker.put(self.take_ready())
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(_LOOK)

    @property
    def is_ready(self) -> bool:
        """Whether there are rows that need no request."""
        return bool(self._ready) or self._known_left > 0

    def take_ready(self) -> list[Outcome]:
        """Return the next outcomes of rows that need no request; what an earlier run has left may turn out to."""
        found = []
        for _ in range(min(_READ_AT_ONCE, len(self._ready) + self._known_left)):
            if self._ready:
                each = self._ready.popleft()
            else:
                each, self._known_left = next(self._known), self._known_left - 1
            outcome = each if isinstance(each, Outcome) else self._asker.known_outcome(*each)
            if outcome is not None:
                found.append(outcome)
            elif isinstance(each, tuple):
                self._unusable.append(replace(each[0], by_run=True))
        return found

    def take_unusable(self) -> list[RowRequest]:
        """Return the rows whose answers of an earlier run could not be used: they are asked after all."""
        found, self._unusable = self._unusable, []
        return found
