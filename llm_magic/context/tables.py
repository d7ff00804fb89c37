"""Tables that cells show, written as in prompts while they are there: all that is displayed is text, later on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_magic.prompt.values import Limits, Rendering

MOST_TABLES = 100
"""Tables of one cell that are kept: the last ones."""


class ShownTables:
    """Keeps DataFrames and Series as prompts show them, by the plain text with which a cell showed them.

    Parameters
    ----------
    formatter
        The shell's display formatter, which is listened to until `close`.
    limits
        How much of a table is shown, as in prompts.
    number
        Returns the execution count of the running cell, None where none runs.

    """

    def __init__(self, formatter: Any, limits: Limits, number: Callable[[], int | None]) -> None:
        self._formatter, self._limits, self._number = formatter, limits, number
        self._of_cells: dict[int, dict[str, Rendering]] = {}
        self._format = formatter.format
        self._listener = formatter.format = self._formatted

    def close(self) -> None:
        """Let the formatter be as it was; one that somebody has changed since stays as it is."""
        if self._formatter.__dict__.get("format") is self._listener:
            del self._formatter.format
        self._of_cells.clear()

    def forget(self, number: int) -> None:
        """Drop the tables of a cell: it has run again."""
        self._of_cells.pop(number, None)

    def shown_as(self, number: int, text: object) -> Rendering | None:
        """Return the table that a cell showed with this plain text."""
        return self._of_cells.get(number, {}).get(text) if isinstance(text, str) else None

    def _formatted(self, obj: Any, *given: Any, **named: Any) -> Any:
        found = self._format(obj, *given, **named)
        with suppress(Exception):  # whatever it is, the cell shows it
            self._note(obj, found[0].get("text/plain"))
        return found

    def _note(self, value: Any, text: object) -> None:
        from llm_magic.prompt.tables import library_of
        from llm_magic.prompt.values import to_prompt

        number = self._number()
        if number is None or not isinstance(text, str) or not library_of(value):
            return
        tables = self._of_cells.setdefault(number, {})
        tables.pop(text, None)
        tables[text] = to_prompt(value, self._limits)
        while len(tables) > MOST_TABLES:
            del tables[next(iter(tables))]
