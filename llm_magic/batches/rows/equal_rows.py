"""Rows that are equal to another one of their run, and have its answer where such rows are asked once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_magic.mapping.asking.row_asker import RowAsker
    from llm_magic.mapping.rows import Outcome, RowRequest


class EqualRows:
    """Which rows of a run have the outcome of an equal one; the asker of the run says whether any do."""

    def __init__(self, asker: RowAsker) -> None:
        self._asker = asker
        self._first: dict[str, int] = {}  # by key the number of the row that is asked
        self._copies: dict[int, list[int]] = {}  # by that number: those of the others

    def is_copy(self, row: RowRequest) -> bool:
        """Tell whether an equal row is asked for this one, too."""
        if not row.key or not self._asker.asks_equal_once:
            return False
        first = self._first.setdefault(row.key, row.number)
        if first != row.number:
            self._copies.setdefault(first, []).append(row.number)
        return first != row.number

    def outcomes(self, outcome: Outcome) -> list[Outcome]:
        """Return the outcome of a row, and with it those of the rows that wait for it."""
        copies = self._copies.pop(outcome.number, ())
        return [outcome, *(replace(outcome, number=number, duplicate=True) for number in copies)]
