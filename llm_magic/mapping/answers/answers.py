"""The answers to one prompt over many inputs: a sequence as long as the inputs, in which failures are values, too."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, overload

from llm_magic.close_matches import did_you_mean
from llm_magic.display.footer import counted
from llm_magic.display.table import shown
from llm_magic.errors import (
    BudgetError,
    ConfigurationError,
    InputError,
    LLMError,
    NotAskedError,
    OptionError,
    RecordingError,
    RowsFailedError,
    UnsupportedError,
    error_line,
)
from llm_magic.mapping.answers.frames import (
    AnswerColumns,
    Data,
    columns_for,
    filled,
    in_order,
    pandas_frame,
    plain,
)
from llm_magic.mapping.answers.statistics import Statistics, by_class, failures_of, response_of, statistics_of
from llm_magic.mapping.rows import Outcome
from llm_magic.metadata import Usage, cost_in_all, usage_in_all
from llm_magic.output.columns import ANY
from llm_magic.output.spec import OutputSpec
from llm_magic.response import Response

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # pandas is no dependency, its stubs even less

CELL_AGAIN = "run the cell again to ask for those"
"""What to do about rows of a cell that failed."""
RETRY = "answers.retry() asks for those"
"""What to do about rows of `LLM.map` that failed."""
_WITH_BUDGET = "run the cell again with a larger budget to ask for those"
_CALL_WITH_BUDGET = "call it again with a larger budget to ask for those"
VALUE = "value"
"""The column of values that are no records."""

_ROWS_SHOWN = 10
_COLUMNS_SHOWN = 30
_LONGEST_CELL = 300  # characters
_OF_ONE = frozenset({*(field.name for field in fields(Response)), "rate_limits", "frame"})
"""What a response has; its own attributes are found before."""


class NoSuchAttributeError(InputError, AttributeError):
    """The answers to many rows have no such attribute; one response may have it."""


class Answers(Sequence[Any]):
    """The answers to one prompt over many inputs, in the order of the inputs.

    `LLM.map` returns them, and `_llm` is them after a cell over rows. It is a sequence of the values, as long as the
    inputs: `answers[3]` is the value of the fourth input, None where that failed. A slice is `Answers`, too. Two are
    equal only where they are the same object; they can be pickled.

    Parameters
    ----------
    outcomes
        One for each row, in any order.
    labels
        The label of each row; None: their numbers.
    spec
        The output type, None for plain text: it says what the columns of `to_frame()` are.
    several
        Whether a value is a list of several answers (`n`).
    seconds
        How long all of it took.
    retry
        What asks again for the rows that failed and returns answers to all; None where nothing can.
    notes
        What the user should know of the run, such as that answers could not be kept.

    """

    def __init__(
        self,
        outcomes: Iterable[Outcome],
        labels: Sequence[Hashable] | None = None,
        *,
        spec: OutputSpec | None = None,
        several: bool = False,
        seconds: float = 0.0,
        retry: Callable[[], Answers] | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        self._outcomes = in_order(outcomes)
        self._labels: Sequence[Hashable] = range(len(self._outcomes)) if labels is None else labels
        if len(self._labels) != len(self._outcomes):
            raise ValueError("There is not exactly one label for each row.")
        self._columns = columns_for(spec, VALUE, several=several)
        self._is_typed = spec is not None
        self._retry = retry
        self.seconds = seconds
        """Seconds from the first request to the end."""
        self.notes: tuple[str, ...] = tuple(notes)
        """What is to be known of the run as a whole: answers that are not kept, values that were cut."""

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of each row."""
        return self._outcomes

    def retry_with(self, retry: Callable[[], Answers]) -> None:
        """Set what asks again for the rows that failed."""
        self._retry = retry

    def replaced(self, outcomes: Iterable[Outcome], seconds: float, notes: Iterable[str] = ()) -> Answers:
        """Return these answers with other outcomes in the place of some, after so many seconds more."""
        others = {outcome.number: outcome for outcome in outcomes}
        made = self[:]
        found = [others.get(outcome.number, outcome) for outcome in self._outcomes]
        told = tuple(dict.fromkeys((*self.notes, *notes)))
        vars(made).update(_outcomes=found, seconds=self.seconds + seconds, notes=told)
        return made

    @property
    def values(self) -> list[Any]:
        """The values, None where a row failed."""
        return [outcome.value for outcome in self._outcomes]

    @property
    def errors(self) -> list[LLMError | None]:
        """The errors, None where a row was answered."""
        return [outcome.error for outcome in self._outcomes]

    @property
    def responses(self) -> list[Response | None]:
        """The responses: of a row that failed what had arrived, None where nothing had."""
        return [response_of(outcome) for outcome in self._outcomes]

    @property
    def labels(self) -> list[Hashable]:
        """The labels of the rows: those of a pandas index, the keys of a mapping, else numbers from 0."""
        return list(self._labels)

    @property
    def failed(self) -> list[int]:
        """The numbers of the rows that failed, from 0: `[inputs[i] for i in answers.failed]`, `frame.iloc[failed]`."""
        return [number for number, outcome in enumerate(self._outcomes) if outcome.error is not None]

    @property
    def usage(self) -> Usage | None:
        """Tokens of all rows, failed ones and those answered before included; None where no server told."""
        return usage_in_all(response.usage for response in self.responses if response is not None)

    @property
    def cost(self) -> float | None:
        """US dollars of all rows, failed ones and those answered before included; None where no price is known."""
        return cost_in_all(response.cost for response in self.responses if response is not None)

    @property
    def statistics(self) -> Statistics:
        """Rows, latencies, tokens, cost and failures of the run; `print` shows them as a line."""
        return statistics_of(self._outcomes, self.seconds)

    def retry(self) -> Answers:
        """Ask again for the rows that failed, and return the answers to all; these here where none did.

        Raises
        ------
        InputError
            What asked is gone: these answers are a part of others, were unpickled, or are not those of `LLM.map`.

        """
        if not self.failed:
            return self
        if self._retry is None:
            raise InputError(
                "These answers do not know how they were asked for: they are a part of others, or were unpickled.",
                "Ask for the inputs that failed: llm.map(prompt, [inputs[i] for i in answers.failed]).",
            )
        return self._retry()

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas `DataFrame` with a row an input, whose index is the labels.

        The fields of a record are a column each, other values are the column `value`; `error` is there if any row
        failed. The dtypes are those of the output type.

        Raises
        ------
        ConfigurationError
            pandas is not installed.

        """
        return pandas_frame(self.to_columns(), index_of(self._labels))

    def to_columns(self, of: str = "") -> Data:
        """Return the columns of `to_frame()` by name: the type of each, and its values.

        Of one among several models they are called by its name: `of` where values are no records, else `of.field`.
        """
        data = filled(self._outcomes, self._made())
        if not of:
            return data
        whole = None if self.has_fields else VALUE
        return {of if name == whole else f"{of}.{name}": column for name, column in data.items()}

    @property
    def has_fields(self) -> bool:
        """Whether the values are records, whose fields are a column each."""
        return self._made().is_record

    def _made(self) -> AnswerColumns:
        """Return the columns: those of the output type, or without one the fields of values that are records."""
        if self._is_typed or any(isinstance(value, str) for value in self):
            return self._columns
        records = [plain(value) for value in self if value is not None]
        if not records or not all(isinstance(record, dict) for record in records):
            return self._columns
        return AnswerColumns(dict.fromkeys((name for record in records for name in record), ANY), is_record=True)

    def __getattr__(self, name: str) -> Any:
        """Say that there is no such attribute, and of what one response has, where that is."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        what = f"These are the answers to {counted(len(self), 'row')}, and have no {name}"
        if name in _OF_ONE:
            raise NoSuchAttributeError(
                f"{what}: each response has its own.",
                f"Of the first row: .responses[0].{name}; of all rows, .values has the values, .to_frame() a table.",
            )
        public = [each for each in dir(self) if not each.startswith("_")]
        raise NoSuchAttributeError(f"{what}.", did_you_mean(name, public, f"They have {', '.join(public)}."))

    def _in_prompt_(self) -> list[Any]:
        """Return what stands for them in a prompt: their values, records as JSON has them."""
        return [plain(value) for value in self]

    def __len__(self) -> int:
        return len(self._outcomes)

    @overload
    def __getitem__(self, place: int) -> Any: ...

    @overload
    def __getitem__(self, place: slice) -> Answers: ...

    def __getitem__(self, place: int | slice) -> Any:
        if not isinstance(place, slice):
            return self._outcomes[operator.index(place)].value
        part = object.__new__(Answers)
        vars(part).update(vars(self), _retry=None)
        part._outcomes, part._labels = self._outcomes[place], self._labels[place]
        return part

    def __iter__(self) -> Iterator[Any]:
        return (outcome.value for outcome in self._outcomes)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_retry": None}

    def __repr__(self) -> str:
        failed = len(self.failed)
        return f"Answers of {counted(len(self), 'row')}{f', {failed:,} failed' if failed else ''}"

    def _repr_html_(self) -> str:
        """Return the first rows as a table, and what they are of."""
        if not self._outcomes:
            return f"<p>{self!r}</p>"
        data = filled(self._outcomes[:_ROWS_SHOWN], self._made())
        names = list(data)
        if len(names) > _COLUMNS_SHOWN:
            names = names[: _COLUMNS_SHOWN - 1] + names[-1:]
        rows = [
            {"": _cell(label)} | {_cut(name): _cell(data[name][1][number]) for name in names}
            for number, label in enumerate(self._labels[:_ROWS_SHOWN])
        ]
        less = len(data) - len(names)
        said = f"{self!r}{', the first shown' if len(rows) < len(self) else ''}"
        said += f", {counted(less, 'column')} not shown" if less else ""
        return f"{shown(rows)['text/html']}<p>{said}</p>"


def index_of(labels: Sequence[Hashable]) -> pd.Index:
    """Return the labels of rows as a pandas index; ConfigurationError where pandas is not installed."""
    try:
        import pandas as pd
    except ImportError:
        raise ConfigurationError("pandas is not installed.", "Install it: %pip install pandas") from None
    return pd.RangeIndex(len(labels)) if isinstance(labels, range) else pd.Index(list(labels))


def summary_of_failures(outcomes: Iterable[Outcome], again: str = CELL_AGAIN) -> str:
    """Return how many rows failed, of how many, with what, and what to do; empty where none did.

    >>> summary_of_failures([Outcome(0), Outcome(1, error=LLMError("no"))])
    '1 of 2 failed: 1 LLMError; run the cell again to ask for those'

    """
    return _summary([outcome.error for outcome in outcomes], again)


def _summary(errors: Sequence[LLMError | None], again: str) -> str:
    told = told_of_failures(errors)
    return f"{told}; {again}" if told else ""


def told_of_failures(errors: Sequence[LLMError | None]) -> str:
    """Return how many rows failed, of how many, with what; empty where none did."""
    failures = failures_of(errors)
    return f"{sum(failures.values()):,} of {len(errors):,} failed: {by_class(failures)}" if failures else ""


_MISTAKES = (OptionError, UnsupportedError, ConfigurationError)
"""Errors of what all rows share."""


def rows_failed(answers: Answers, again: str = CELL_AGAIN) -> LLMError | None:
    """Return the error of a run of which rows failed; None where none did.

    Where nothing could be sent for any row, it is that of them all: it does not help to ask for them again.

    Parameters
    ----------
    answers
        All of them.
    again
        What to do about those rows.

    """
    errors = answers.errors
    number, first = next(((number, error) for number, error in enumerate(errors) if error is not None), (0, None))
    if first is None:
        return None
    others = [error for error in errors if type(error) is not NotAskedError]
    if type(first) in _MISTAKES and all(type(each) is type(first) and str(each) == str(first) for each in others):
        return first
    said = f"The first of them, row {_cut(str(answers.labels[number]), 40)}: {error_line(first)}"
    hint = next((error.hint for error in errors if isinstance(error, NotAskedError)), first.hint)
    hint = (hint or "").replace("_llm.text", f"_llm.responses[{number}].text")  # what came of one row of a cell
    if isinstance(first, RecordingError) and hint:  # to run it again would find as little
        again, hint = f"{hint[0].lower()}{hint[1:].rstrip('.')} to ask for those", ""
    elif any(isinstance(error, BudgetError) for error in errors):
        again = _WITH_BUDGET if again == CELL_AGAIN else _CALL_WITH_BUDGET
    return RowsFailedError(
        f"{_summary(errors, again)}.",
        f"{said.rstrip('.')}. {hint}" if hint else said,
        answers=answers,
    )


def _cell(value: Any) -> Any:
    """Return a value as a cell of a table shows it: numbers as they are, text cut where it is long."""
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 10**30):
        return value
    if isinstance(value, (list, dict)):
        return _cut(shown({"": value})["text/plain"].strip())
    return _cut(str(value))


def _cut(text: str, longest: int = _LONGEST_CELL) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
