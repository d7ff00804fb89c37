"""Rows that are asked once for all that are equal to them, on whichever worker."""

from __future__ import annotations

import threading
from dataclasses import replace

from llm_magic.mapping.rows import Outcome, RowRequest

MOST = 10_000
"""Rows that equal ones are looked for among."""


class EqualRows:
    """Which rows wait for the outcome of an equal one; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[int]] = {}
        self._outcomes: dict[str, Outcome] = {}

    def is_first(self, row: RowRequest) -> bool:
        """Tell whether a row is to be asked; else its outcome comes with, or came before, that of an equal one."""
        if not row.key:
            return True
        with self._lock:
            if row.key in self._waiting:
                self._waiting[row.key].append(row.number)
                return False
            if row.key in self._outcomes:
                return False
            self._waiting[row.key] = []
            return True

    def known(self, row: RowRequest) -> Outcome | None:
        """Return the outcome of a row whose equal one has ended; None where it is still asked."""
        with self._lock:
            outcome = self._outcomes.get(row.key)
        return None if outcome is None else _of(outcome, row.number)

    def ended(self, row: RowRequest, outcome: Outcome) -> list[Outcome]:
        """Take note of an outcome, and return those of the rows that have waited for it."""
        with self._lock:
            waiting = self._waiting.pop(row.key, None)
            if waiting is None:
                return []
            if len(self._outcomes) >= MOST:
                for key in list(self._outcomes)[: MOST // 2]:
                    del self._outcomes[key]
            self._outcomes[row.key] = outcome
        return [_of(outcome, number) for number in waiting]


def _of(outcome: Outcome, number: int) -> Outcome:
    return replace(outcome, number=number, duplicate=True)
