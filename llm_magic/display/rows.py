"""How far one prompt over many rows is: its figures in words, the rows that came last, the rows shown in the end."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from llm_magic.display import batches, table
from llm_magic.display.batches import BatchProgress
from llm_magic.display.footer import counted, duration, money, tokens
from llm_magic.display.markup import one_line
from llm_magic.errors import error_line
from llm_magic.metadata import Usage

MOST_ROWS = 10
"""Rows of the table in the end, at most."""
FAILED_ROWS = 3
"""Of these, rows that failed where none of the first did, at most."""
LAST_ROWS = 5
"""Rows that came last that are shown meanwhile, at most."""
INTERRUPTED = "Interrupted."
"""What stands below a run that was stopped by its user."""
LONGEST_PRINTED = 1_000
"""Characters of a line that is printed by itself, at most."""
REPAINT_SECONDS = 0.25
"""Seconds between two repaints, at least."""
TICK_SECONDS = 5.0
"""Seconds between two repaints of batches of which there is no news but that time goes on, at least."""

_LONGEST_VALUE = 300
_LONGEST_LABEL = 60
_LONGEST_LINE = 400
_MOST_CLASSES = 3  # of errors, by name
_IN_FULL = 10  # a pace from here on has no decimals
_SLOWEST = 0.1  # rows an hour that are a pace
_MINUTE, _HOUR = 60, 3_600


@dataclass(frozen=True, slots=True)
class RowLine:
    """A row that has ended, in words: its label, and its value or its error."""

    label: str
    value: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class RowsProgress:
    """How far a run over many rows is.

    Attributes
    ----------
    total
        Rows of the input; None where it is a generator, of which nobody knows.
    done
        Rows that have ended: those that `failed` and those that were `known` are among them.
    failed
        Rows that ended with an error.
    known
        Rows that were answered before: by a run that was interrupted or failed, or in recordings.
    in_flight
        Rows that are asked now.
    seconds
        Since the run began.
    rate
        Rows that end in a second, those that were known not counted.
    seconds_left
        Until the end, None where it cannot be told.
    usage, cost, cost_at_end
        Tokens so far, US dollars so far and in all; None where nobody knows.
    failures
        How many rows failed, by the class of the error.
    last
        The rows that ended last, the last one last.
    waiting
        What all rows wait for, as a line: `waits for vllm: connection refused`; else empty.
    recorded
        Rows among those `known` that are from the user's recordings.
    batches
        The batches at a server that the rows are in; empty where the rows are asked one by one. Nothing is
        promised of these: no pace, no time left.
    models
        Where several models are asked the same rows, how far each is, by its name: the other figures are those of all
        of them together, and count an answer for each model.

    """

    total: int | None
    done: int = 0
    failed: int = 0
    known: int = 0
    in_flight: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    seconds_left: float | None = None
    usage: Usage | None = None
    cost: float | None = None
    cost_at_end: float | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    last: tuple[RowLine, ...] = ()
    waiting: str = ""
    recorded: int = 0
    batches: tuple[BatchProgress, ...] = ()
    models: Mapping[str, RowsProgress] = field(default_factory=dict)

    @property
    def left(self) -> int | None:
        """Rows that have not ended; None where nobody knows."""
        return None if self.total is None else max(0, self.total - self.done)


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of the table in the end: its label, and its value, or its error as a line."""

    label: Hashable
    value: Any = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class RowsTable:
    """The rows that are shown in the end, `MOST_ROWS` of them at most, of `total`.

    `label` heads the labels, the name of a frame's index; `value` heads values that are no records.
    """

    rows: Sequence[TableRow]
    total: int
    label: str = ""
    value: str = "value"


class Throttle:
    """Tells when something may be shown again: so many seconds after the last time.

    >>> throttle = Throttle(0.25)
    >>> throttle.wait(10.0), throttle.passed(10.0), throttle.wait(10.1) > 0, throttle.wait(10.25)
    (0.0, None, True, 0.0)

    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._last = float("-inf")

    def wait(self, now: float) -> float:
        """Return the seconds until it may be shown, 0 where it may now."""
        return max(0.0, self._last + self._interval - now)

    def passed(self, now: float) -> None:
        """Take note that it was shown."""
        self._last = now


class RowsThrottle(Throttle):
    """Tells when a run is to be shown again: news soon, of batches that time goes on every now and then.

    `tick` is how many seconds apart the latter is.
    """

    def __init__(self, interval: float, tick: float = TICK_SECONDS) -> None:
        super().__init__(interval)
        self._tick = max(tick, interval)
        self._shown: RowsProgress | None = None

    def is_due(self, progress: RowsProgress, now: float) -> bool:
        """Tell whether this is to be shown now."""
        if self.wait(now) > 0:
            return False
        return not progress.batches or now - self._last >= self._tick or _at_rest(progress) != self._shown

    def showed(self, progress: RowsProgress, now: float) -> None:
        """Take note that this was shown."""
        self.passed(now)
        self._shown = _at_rest(progress) if progress.batches else None


def row_line(label: Hashable, value: Any = None, error: Exception | None = None) -> RowLine:
    r"""Return a row that has ended as a line, cut to what is ever shown.

    >>> row_line(17, {"city": "Oslo", "people": 700_000})
    RowLine(label='17', value='{"city": "Oslo", "people": 700000}', failed=False)
    >>> row_line("a", error=ValueError("too\nlong"))
    RowLine(label='a', value='ValueError: too long', failed=True)

    """
    said = text_of(value) if error is None else error_line(error)
    return RowLine(one_line(str(label), _LONGEST_LABEL), one_line(said, _LONGEST_VALUE), error is not None)


def text_of(value: Any) -> str:
    """Return a value as text, of one that is nested too deeply its kind."""
    try:
        return table.cell_text(value)
    except (ValueError, RecursionError):
        return f"<{type(value).__name__}>"


def chosen(total: int, failed: Iterable[int]) -> list[int]:
    """Return the places of the rows for the table in the end: the first ones.

    Where none of these failed, but later ones did, a few of those stand in the place of the last.
    `failed` are the places of the rows that failed, in their order.

    >>> chosen(4, []), chosen(2_000, [1_733])
    ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7, 8, 1733])

    """
    later = list(islice(failed, FAILED_ROWS))
    if not later or later[0] < MOST_ROWS:
        return list(range(min(total, MOST_ROWS)))
    return [*range(MOST_ROWS - len(later)), *later]


def line(progress: RowsProgress) -> str:
    """Return how far a run is, in one line.

    >>> line(RowsProgress(2_000, 1_234, 3, rate=48, seconds_left=16, cost=0.12))
    '1,234 of 2,000, 3 failed, 48/s, 16 s left, $0.12'
    >>> line(RowsProgress(None, 1)), line(RowsProgress(2_000, 1_300, known=1_234, waiting="waits for vllm"))
    ('1 row', '1,300 of 2,000, 1,234 answered before, waits for vllm')
    >>> line(RowsProgress(2_000, batches=(BatchProgress(rows=2_000, status="validating", seconds=90),)))
    'batch validating, submitted 1 min 30 s ago'

    """
    if progress.batches:
        return ", ".join(filter(None, _of_batches(progress)))
    return ", ".join(
        filter(
            None,
            [
                _done(progress),
                f"{progress.failed:,} failed" if progress.failed else "",
                _before(progress),
                rate(progress.rate),
                _left(progress),
                money(progress.cost),
                "" if progress.models else one_line(progress.waiting, _LONGEST_VALUE),  # said of its model
            ],
        )
    )


def figures(progress: RowsProgress) -> tuple[str, str]:
    """Return all figures of a run in two lines: its rows; its pace, tokens, dollars and time.

    >>> for text in figures(
    ...     RowsProgress(9, 4, 1, 1, 2, 3.0, 1.5, 2.0, Usage(12, 34), 0.1, 0.2, {"RefusedError": 1})
    ... ):
    ...     print(text)
    4 of 9 rows · 1 failed: 1 RefusedError · 5 left · 2 in flight · 1 answered before
    1.5/s · 12 → 34 tokens · $0.10 so far, about $0.20 in all · 3 s · 2 s left

    """
    if progress.batches:
        spent_so_far = [_tokens(progress), money(progress.cost), batches.times(progress.batches)]
        return " · ".join(filter(None, _of_batches(progress, times=False))), " · ".join(filter(None, spent_so_far))
    left = progress.left
    rows = [
        _counted(progress),
        failures(progress),
        f"{left:,} left" if left else "",
        f"{progress.in_flight:,} in flight" if progress.in_flight else "",
        _before(progress),
    ]
    spent = money(progress.cost)
    if spent and left != 0:
        in_all = money(progress.cost_at_end)
        spent = f"{spent} so far, about {in_all} in all" if in_all else f"{spent} so far"
    pace = [
        rate(progress.rate),
        _tokens(progress),
        spent,
        duration(progress.seconds),
        _left(progress),
    ]
    return " · ".join(filter(None, rows)), " · ".join(filter(None, pace))


def stopped(progress: RowsProgress) -> RowsProgress:
    """Return how far a run came that was stopped: nothing of it is to be expected any more."""
    left = tuple(replace(batch, problem="", next_look=None) for batch in progress.batches)
    return replace(progress, in_flight=0, seconds_left=None, cost_at_end=None, waiting="", batches=left)


def ended(title: str, progress: RowsProgress, statistics: str) -> str:
    """Return the quiet line below the table in the end: the model, and the statistics, without these the figures.

    >>> ended("vllm:smollm2", RowsProgress(3, 3, seconds=2), "")
    'vllm:smollm2 · 3 of 3 rows · 2 s'

    """
    said = [statistics] if statistics else figures(progress)
    if statistics and progress.batches:
        said = [batches.titled(tuple(map(batches.whole, progress.batches))), statistics]
    longest = _LONGEST_LINE * max(1, len(progress.models))
    return one_line(" · ".join(filter(None, [one_line(title, _LONGEST_LABEL), *said])), longest)


def of_models(progress: RowsProgress) -> dict[str, str]:
    """Return how far each model is, as a line, by its name as it is shown; empty where there is one model.

    >>> of_models(RowsProgress(6, 3, models={"a": RowsProgress(3, 2, rate=4), "b": RowsProgress(3, 1)}))
    {'a': '2 of 3, 4/s', 'b': '1 of 3'}

    """
    return {one_line(name, _LONGEST_LABEL): line(each) for name, each in progress.models.items()}


def failures(progress: RowsProgress) -> str:
    """Return how many rows failed, and of what, the most frequent first; empty where none did.

    >>> failures(RowsProgress(9, 5, 3, failures={"RateLimitedError": 1, "InvalidValueError": 2}))
    '3 failed: 2 InvalidValueError, 1 RateLimitedError'

    """
    if not progress.failed:
        return ""
    by_count = sorted(progress.failures.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count:,} {one_line(name, _LONGEST_LABEL)}" for name, count in by_count[:_MOST_CLASSES]]
    if more := sum(count for _, count in by_count[_MOST_CLASSES:]):
        named.append(f"{more:,} of other kinds")
    return f"{progress.failed:,} failed" + (f": {', '.join(named)}" if named else "")


def ended_rows(progress: RowsProgress) -> int:
    """Return the rows that have ended, here or at a server that has not sent them yet.

    >>> ended_rows(RowsProgress(10, 2, known=2, batches=(BatchProgress(rows=8, completed=3),)))
    5

    """
    there = sum(batch.done for batch in progress.batches)
    return max(progress.done, progress.known + there) if there else progress.done


def rate(rows_a_second: float) -> str:
    """Return a pace, by the second, the minute or the hour; empty where there is none.

    >>> rate(4_800), rate(4.81), rate(0.5), rate(0.01), rate(0), rate(float("nan"))
    ('4,800/s', '4.8/s', '30/min', '36/h', '', '')

    """
    if not math.isfinite(rows_a_second) or rows_a_second <= 0:
        return ""
    for seconds, unit in ((1, "s"), (_MINUTE, "min")):
        if (paced := rows_a_second * seconds) >= 1:
            return f"{paced:,.0f}/{unit}" if paced >= _IN_FULL else f"{paced:.2g}/{unit}"
    return f"{rows_a_second * _HOUR:.2g}/h" if rows_a_second * _HOUR >= _SLOWEST else ""


def _of_batches(progress: RowsProgress, *, times: bool = True) -> list[str]:
    """Return what is said of rows that are in batches, the batches first; some of it may be empty."""
    fetched = progress.done > progress.known
    said = [
        batches.titled(tuple(map(batches.whole, progress.batches)) if fetched else progress.batches),
        f"{_done(progress)} fetched" if fetched else "",
        failures(progress),
        _before(progress),
    ]
    if times:
        said += [
            batches.since(progress.batches),
            *batches.problems(progress.batches),
            one_line(progress.waiting, _LONGEST_VALUE),
        ]
    return said


def _tokens(progress: RowsProgress) -> str:
    usage = progress.usage
    return tokens(usage.input_tokens, usage.output_tokens) if usage is not None else ""


def _at_rest(progress: RowsProgress) -> RowsProgress:
    """Return a run without what goes on by itself."""
    return replace(
        progress, seconds=0.0, rate=0.0, seconds_left=None, batches=tuple(map(batches.at_rest, progress.batches))
    )


def _before(progress: RowsProgress) -> str:
    before = progress.known - progress.recorded
    said = [f"{before:,} answered before" if before else ""]
    said += [f"{progress.recorded:,} from recordings" if progress.recorded else ""]
    return ", ".join(filter(None, said))


def _counted(progress: RowsProgress) -> str:
    """Return how many rows have ended, with what is counted: of several models the answers of each."""
    if progress.models:
        what = _done(progress) if progress.total is not None else f"{progress.done:,}"
        return f"{what} answers of {counted(len(progress.models), 'model')}"
    return f"{_done(progress)} rows" if progress.total is not None else _done(progress)


def _done(progress: RowsProgress) -> str:
    if progress.total is None:
        return counted(progress.done, "row")
    return f"{progress.done:,} of {progress.total:,}"


def _left(progress: RowsProgress) -> str:
    left = duration(progress.seconds_left or 0.0) if progress.left != 0 else ""
    return f"{left} left" if left else ""
