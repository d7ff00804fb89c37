"""Answers of several models in a notebook: one output that is repainted while any of them streams.

Where nobody looks (a notebook that a program executes), or an output cannot be replaced (an `Output` widget,
`%%capture`), there is the final output alone. What is saved depends on the events alone, not on when they came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_magic.display import answer, comparison_markup, markup
from llm_magic.display.comparison_column import ComparisonColumn
from llm_magic.display.markup import Bundle
from llm_magic.display.outputs import CellOutputs
from llm_magic.model_names import led_by, shown_models

IDLE = 1.0
"""Seconds after which a repaint is welcome even with nothing new: elapsed times go on."""
LARGEST = 131_072
"""Characters of HTML of one repaint: a longer answer is shown whole at the end."""
ALLOWANCE = 262_144
"""Bytes that repaints may cost whatever the length of the answers."""
SHARE = 12.0
"""Bytes that repaints may cost for each character of the answers: each repaint is all of them."""
SECONDS_PER_BYTE = 60e-6
"""Seconds between repaints for each byte of one: a browser is to have most of its time for itself."""
SLOWEST = 0.25
"""Seconds after which it is looked again whether the answers have grown enough."""
LONGEST = 4.0
"""Seconds between repaints at most, where the bytes allow one."""
ENVELOPE = 760
"""Bytes of a message around its text."""


class NotebookComparisonView:
    """Shows the answers of several models in one cell.

    Parameters
    ----------
    outputs
        Those of the cell.
    show
        `markdown`, `text`, `code`, `json` or `none`.
    repaints
        Repaints a second, at most.
    clock
        Returns seconds.
    external_images
        Whether images of the answers may load from the web.

    """

    def __init__(
        self,
        outputs: CellOutputs,
        show: str,
        repaints: float,
        clock: Callable[[], float] = time.perf_counter,
        *,
        external_images: bool = False,
    ) -> None:
        self._outputs = outputs
        self._show = show
        self._shortest = 1 / repaints
        self._clock = clock
        self._external_images = external_images
        self._streams = show != "none" and outputs.replaceable and outputs.watched
        self._columns: list[ComparisonColumn] = []
        self._notes: list[str] = []
        self._noted = False
        self._over = False
        self._painted = float("-inf")
        self._size = 0  # of the last repaint
        self._spent = 0

    @property
    def wait(self) -> float:
        """Seconds after which `tick` should be called again, with or without news."""
        return max(0.005, self._delay(self._clock())) if self._is_dirty else IDLE

    @property
    def _is_dirty(self) -> bool:
        live = [each for each in self._columns if not each.held]
        return self._streams and not self._over and bool(live) and (self._noted or any(each.dirty for each in live))

    def _delay(self, now: float) -> float:
        """Return the seconds until a repaint is due; 0: it is."""
        length = sum(each.length for each in self._columns)
        if self._size and self._spent + self._size > ALLOWANCE + SHARE * length:
            return SLOWEST
        interval = max(self._shortest, min(self._size * SECONDS_PER_BYTE, LONGEST))
        return max(0.0, self._painted + interval - now)

    def begin(self, titles: Sequence[str]) -> Sequence[ComparisonColumn]:
        """Begin, and return the view of each column; `titles` are the models as asked for."""
        self._columns = [
            ComparisonColumn(title, shown, self._show, lambda: self.wait, external_images=self._external_images)
            for title, shown in shown_models(titles).items()
        ]
        return self._columns

    def tick(self) -> None:
        """Repaint what is new, unless it is too early for that."""
        now = self._clock()
        if self._is_dirty and self._delay(now) <= 0:
            self._paint(now)

    def note(self, text: str) -> None:
        """Show one line that stays, below all of them."""
        if self._over:
            self._outputs.add(markup.mark(text))
        else:
            self._notes.append(text)
            self._noted = True

    def failed(self, place: int, message: str) -> None:
        """Say in a column why it has no answer, below what had arrived."""
        column = self._columns[place]
        column.failure, column.ended, column.dirty = message, True, True

    def finish(self, values: Mapping[str, Any] | None, footer: str) -> None:
        """Show what stays; `values` are the typed ones by model, an error where there is none."""
        self._end(values, footer)

    def fail(self, mark: str = markup.MARKS["interrupted"]) -> None:
        """Keep what had arrived, with a mark, which may be empty; an error follows."""
        for column in self._columns:
            column.interrupt()
        said = [line["text/plain"] for column in self._columns for line in column.said]
        if mark and mark not in said:
            self._notes.append(mark)
        self._end(None, "")

    def _paint(self, now: float) -> None:
        most = LARGEST // max(1, len(self._columns))
        typed = any(each.typed for each in self._columns)
        shown = [each.so_far(most) for each in self._columns]
        lay = comparison_markup.values_by_model if typed else comparison_markup.side_by_side
        bundle = {"text/plain": markup.UNFINISHED, "text/html": lay(shown, self._notes)["text/html"]}
        self._outputs.paint(bundle)
        self._noted = False
        self._painted, self._size = now, len(bundle["text/html"].encode("utf-8", "replace")) + ENVELOPE
        self._spent += self._size

    def _end(self, values: Mapping[str, Any] | None, footer: str) -> None:
        """Replace what was painted by what stays."""
        self._over = True
        bundle, about = self._final(values, footer)
        if self._outputs.alone and self._outputs.replaceable:
            self._outputs.clear()
        if bundle is not None:
            self._outputs.settle(bundle, about)
        self._columns = []  # long texts are not kept for nothing

    def _final(self, values: Mapping[str, Any] | None, footer: str) -> tuple[Bundle | None, dict[str, Any]]:
        found = list(values.values()) if values is not None else [None] * len(self._columns)
        columns = [each.final(value) for each, value in zip(self._columns, found, strict=True)]
        about = {
            each.title: answer.metadata(each.response)["llm_magic"]
            for each in self._columns
            if each.response is not None
        }
        if self._show == "none":
            said = [
                markup.mark(led_by(column.name, line["text/plain"])) for column in columns for line in column.notes
            ] + [markup.mark(led_by(column.name, column.failure)) for column in columns if column.failure]
            said += map(markup.mark, self._notes)
            return (markup.joined(said) if said else None), {}
        lay = comparison_markup.values_by_model if values is not None else comparison_markup.side_by_side
        return lay(columns, self._notes, footer), {"llm_magic": {"models": about}}
