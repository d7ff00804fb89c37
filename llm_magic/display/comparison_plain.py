"""Answers of several models without a terminal: each below its heading on stdout, in the order that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from llm_magic.control_characters import visible
from llm_magic.display import answer, markup
from llm_magic.display.answer import ValueSoFar
from llm_magic.display.comparison_values import value_table
from llm_magic.display.markup import one_line
from llm_magic.display.rows import INTERRUPTED
from llm_magic.display.rows_markup import columns_of
from llm_magic.draft import Draft
from llm_magic.model_names import led_by, shown_models
from llm_magic.response import Response

_LONGEST_NAME = 200


class PlainComparisonView:
    """Writes each answer when it and those before it are complete, typed values as one table when all are.

    Answers and failures go to stdout; notes, marks and footers to stderr. In the background (`streams` False) all is
    written in the end.
    """

    wait = 1.0

    def __init__(self, show: str, *, streams: bool = True) -> None:
        self._show = show
        self._streams = streams
        self._columns: list[_Column] = []
        self._written = 0  # columns that were
        self._running = True

    def begin(self, titles: Sequence[str]) -> Sequence[_Column]:
        """Begin, and return the view of each column."""
        self._columns = [_Column(title, self._show, self._complete) for title in shown_models(titles).values()]
        return self._columns

    def tick(self) -> None:
        """Nothing is ever repainted."""

    def note(self, text: str) -> None:
        """Write a line to stderr."""
        _say(text)

    def failed(self, place: int, message: str) -> None:
        """Take note of why a column has no answer."""
        self._columns[place].failure = message
        self._complete()

    def finish(self, values: Mapping[str, Any] | None, footer: str) -> None:
        """Write what is missing: of typed values the table."""
        self._running = False
        if values is not None and self._show in {"markdown", "text"}:
            _write(_as_text(values))
            for column in self._columns[self._written :]:
                column.write(in_table=True)
        else:
            self._write_to(len(self._columns))
        if footer and self._show != "none":
            _say(footer)

    def fail(self, mark: str = INTERRUPTED) -> None:
        """Write what had arrived in the columns that are not written, and the mark where no column has it."""
        if not self._running:
            return
        self._running = False
        self._write_to(len(self._columns))
        if mark and not any(column.mark == mark for column in self._columns):
            _say(mark)

    def _complete(self) -> None:
        """Write the columns that are complete, as far as no earlier one is missing.

        Before one has its answer nobody knows whether there will be a table.
        """
        if not self._streams or not self._running:
            return
        answered = [column for column in self._columns if column.response is not None and not column.failure]
        if any(column.is_typed for column in self._columns) or not any(column.finished for column in answered):
            return
        ready = next((at for at, column in enumerate(self._columns) if not column.is_complete), len(self._columns))
        self._write_to(ready)

    def _write_to(self, end: int) -> None:
        first, self._written = self._written, max(self._written, end)
        for column in self._columns[first : self._written]:
            column.write()


class _Column:
    """The view of one model: it keeps everything until it is written."""

    wait = 1.0

    def __init__(self, title: str, show: str, complete: Any) -> None:
        self.title = title
        self.response: Response | None = None
        self.finished = False
        self.failure = ""
        self.is_typed = False
        self._show = show
        self._complete = complete
        self._notes: list[str] = []
        self._footer = ""

    @property
    def is_complete(self) -> bool:
        """Whether nothing more will come."""
        return self.finished or bool(self.failure)

    @property
    def mark(self) -> str:
        """What is said of an answer that is not whole."""
        marked = markup.marks(self.response) if self.response is not None else None
        return marked["text/plain"] if marked is not None else ""

    @property
    def text(self) -> str:
        """The answer, or what had arrived, as it is written."""
        if self.response is None or self._show == "none":
            return ""
        return answer.as_text(self.response, self._show)

    def begin(self, title: str) -> None:
        """Begin; the name stands in the heading."""

    def hold(self) -> None:
        """Go on: all is written when it is complete."""

    def release(self) -> None:
        """Go on."""

    def pause(self) -> None:
        """Go on: nothing is repainted."""

    def progress(self, text: str) -> None:
        """Nobody watches: a line that is replaced by the next is not written."""

    def note(self, text: str) -> None:
        """Keep a line."""
        self._notes.append(text)

    def update(self, draft: Draft, value: ValueSoFar | None = None) -> None:  # noqa: ARG002 - it is told at the end
        """Take note of whether the answer will be a value."""
        self.is_typed = self.is_typed or value is not None

    def finish(self, response: Response, footer: str) -> None:
        """Take the answer."""
        self.response, self._footer, self.finished = response, footer, True
        self.is_typed = self.is_typed or response.structured is not None
        self._complete()

    def fail(self, response: Response | None) -> None:
        """Take what had arrived."""
        self.response = response if response is not None and answer.has_come(response) else None

    def write(self, *, in_table: bool = False) -> None:
        """Write all of it; where its value or failure is `in_table`, what else there is."""
        text = "" if in_table and self.finished else self.text
        failure = "" if in_table or not self.failure else f"{self.failure}\n"
        if self._show == "none":
            if failure:
                _say(led_by(self.title, self.failure))
        elif text or failure or (self.finished and not in_table):
            ended = f"{text}\n" if text and not text.endswith("\n") else text
            _write(f"[{one_line(self.title, _LONGEST_NAME)}]\n{ended}{failure}\n")
        beside = answer.beside_as_text(self.response) if self.response is not None and self._show != "none" else []
        for line in [*self._notes, *beside, self.mark]:
            if line:
                _say(led_by(self.title, line))
        if self._footer and self._show != "none":
            _say(self._footer)


def _as_text(values: Mapping[str, Any]) -> str:
    """Return the table; where a cell has several lines, these go on below it."""
    found = value_table(values)
    rows = [found.heads, *found.rows]
    cells = [[cell.splitlines() or [""] for cell in row] for row in rows]
    widths = [max(columns_of(line) for row in cells for line in row[at]) for at in range(len(found.heads))]
    lines = []
    for row in cells:
        for number in range(max(map(len, row))):
            parts = []
            for cell, width, right in zip(row, widths, found.right, strict=True):
                text = cell[number] if number < len(cell) else ""
                blank = " " * (width - columns_of(text))
                parts.append(blank + text if right else text + blank)
            lines.append("  ".join(parts).rstrip())
    return "\n".join(lines) + "\n"


def _write(text: str) -> None:
    sys.stdout.write(visible(text))
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"{visible(text)}\n")
    sys.stderr.flush()
