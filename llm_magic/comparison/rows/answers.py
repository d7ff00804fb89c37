"""The answers of several models to one prompt over many inputs: a row an input, in it a value of each model."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from math import fsum
from typing import TYPE_CHECKING, Any, overload

from llm_magic.display.footer import counted, money
from llm_magic.display.rows import RowsTable, TableRow, chosen
from llm_magic.display.rows_markup import final
from llm_magic.errors import LLMError, OptionError, RowsFailedError
from llm_magic.mapping.answers.answers import CELL_AGAIN, RETRY, Answers, index_of, rows_failed, told_of_failures
from llm_magic.mapping.answers.frames import (
    ERROR,
    Data,
    columns_for,
    free_name,
    names_of,
    pandas_frame,
    plain,
    with_columns,
)
from llm_magic.metadata import Usage
from llm_magic.model_names import led_by, shown_models
from llm_magic.records import record_of

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # pandas is no dependency, its stubs even less

    from llm_magic.mapping.answers.statistics import Statistics
    from llm_magic.mapping.inputs.inputs import Inputs
    from llm_magic.output.spec import OutputSpec


class ComparedAnswers(Sequence[dict[str, Any]]):
    """The answers of several models to one prompt over many inputs, in the order of the inputs.

    `LLM.map(…, models=[…])` returns them, and `_llm` is them after a cell over rows with several models. It is a
    sequence as long as the inputs: `answers[3]` is a dict of the values for the fourth input, by the name of the model
    as it was asked for, None where that failed. A slice is `ComparedAnswers`, too. They can be pickled.

    Parameters
    ----------
    responses
        The `Answers` of each model, by its name: all as long.
    notes
        What the user should know of all of them, besides the notes of each.

    """

    def __init__(self, responses: Mapping[str, Answers], notes: Iterable[str] = ()) -> None:
        self._notes = tuple(notes)
        self.responses: dict[str, Answers] = dict(responses)
        """The `Answers` of each model, by its name as asked for: with the errors, responses and statistics of it."""
        if len({len(answers) for answers in self.responses.values()}) != 1:
            raise ValueError("The models have not answered the same rows.")

    @property
    def _first(self) -> Answers:
        return next(iter(self.responses.values()))

    @property
    def values(self) -> list[dict[str, Any]]:
        """The values of each row by model, None where it failed."""
        return list(self)

    @property
    def errors(self) -> list[dict[str, LLMError]]:
        """The errors of each row by model: of those that failed alone, so that it is empty where none did."""
        found: list[dict[str, LLMError]] = [{} for _ in self]
        for model, answers in self.responses.items():
            for place, error in enumerate(answers.errors):
                if error is not None:
                    found[place][model] = error
        return found

    @property
    def failed(self) -> list[int]:
        """The numbers of the rows, from 0, at which any model failed."""
        return [place for place, errors in enumerate(self.errors) if errors]

    @property
    def labels(self) -> list[Hashable]:
        """The labels of the rows: those of a pandas index, the keys of a mapping, else numbers from 0."""
        return self._first.labels

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the runs: what holds for one model alone begins with its name."""
        of_each = told_once({model: answers.notes for model, answers in self.responses.items()})
        return (*self._notes, *of_each)

    @property
    def seconds(self) -> float:
        """Seconds from the first request to the end of the model that took longest."""
        return max(answers.seconds for answers in self.responses.values())

    @property
    def usage(self) -> Usage | None:
        """Tokens of all models; None where no server told."""
        found = [answers.usage for answers in self.responses.values() if answers.usage is not None]
        return sum(found[1:], start=found[0]) if found else None

    @property
    def cost(self) -> float | None:
        """US dollars of all models; None where no price is known."""
        found = [answers.cost for answers in self.responses.values() if answers.cost is not None]
        return fsum(found) if found else None

    @property
    def statistics(self) -> dict[str, Statistics]:
        """Rows, latencies, tokens, cost and failures of each model, by its name."""
        return {model: answers.statistics for model, answers in self.responses.items()}

    def retry(self) -> ComparedAnswers:
        """Ask each model again for the rows at which it failed, and return the answers to all.

        Raises
        ------
        RowsFailedError
            Rows failed once more, and `on_error` is not `"keep"`.
        InputError
            What asked is gone: these answers are a part of others, were unpickled, or are not those of `LLM.map`.

        """
        found, fails = {}, []
        for model, answers in self.responses.items():
            try:
                found[model] = answers.retry()
            except RowsFailedError as error:
                found[model] = error.answers
                fails.append(model)
        made = ComparedAnswers(found, self._notes)
        if (failed := models_failed(made, fails, RETRY)) is not None:
            raise failed
        return made

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas `DataFrame` with a row an input, whose index is the labels.

        There is a column a model, called by its name; of records a column a field, `model.field`. `model.error` is
        there where any row of a model failed.

        Raises
        ------
        ConfigurationError
            pandas is not installed.

        """
        index = index_of(self._first._labels)  # noqa: SLF001 - a range stays one
        return pandas_frame(self.to_columns(), index)

    def to_columns(self, taken: Iterable[str] = ()) -> Data:
        """Return the columns of `to_frame()` by name; a name that is `taken` gets a `_` at its end."""
        data: Data = {}
        names = set(taken)
        for model, answers in self.responses.items():
            for name, column in answers.to_columns(model).items():
                data[free_name(name, {*names, *data})] = column
        return data

    def _in_prompt_(self) -> list[Any]:
        """Return what stands for them in a prompt: the values by model, records as JSON has them."""
        return [{model: plain(value) for model, value in row.items()} for row in self]

    def __len__(self) -> int:
        return len(self._first)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> ComparedAnswers: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | ComparedAnswers:
        if isinstance(place, slice):
            return ComparedAnswers({model: answers[place] for model, answers in self.responses.items()}, self._notes)
        try:
            return {model: answers[place] for model, answers in self.responses.items()}
        except TypeError:
            said = f"A row is a number, and not {place!r:.60}: the answers of a model are .responses[NAME]."
            raise TypeError(said) from None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        models = list(self.responses)
        return (dict(zip(models, values, strict=True)) for values in zip(*self.responses.values(), strict=True))

    def __repr__(self) -> str:
        failed = len(self.failed)
        of = f"{counted(len(self), 'row')} by {', '.join(shown_models(self.responses).values())}"
        return f"ComparedAnswers of {of}{f', {failed:,} failed' if failed else ''}"

    def _repr_html_(self) -> str:
        """Return the first rows as a table, and what they are of."""
        return final(table_of(self), repr(self))["text/html"]


def told_once(notes: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Return notes by model as lines: what is said of all of them once, any other after the name of its model.

    >>> told_once({"a": ["A key is missing.", "Cut."], "b": ["Cut."]})
    ('a: A key is missing.', 'Cut.')

    """
    found = {model: tuple(each) for model, each in notes.items()}
    titles, lines = shown_models(found), dict[str, None]()
    for model, each in found.items():
        for note in each:
            common = all(note in others for others in found.values())
            lines[note if common else led_by(titles[model], note)] = None
    return tuple(lines)


def table_of(answers: ComparedAnswers, label: str = "") -> RowsTable:
    """Return the rows that are shown in the end: the value of each model, or its error in its place.

    `label` heads the labels, the name of a frame's index.
    """
    labels, titles = answers.labels, shown_models(answers.responses)
    rows = []
    places = chosen(len(answers), answers.failed)
    names = {model: _names(each, places) for model, each in answers.responses.items()}
    for place in places:
        cells: dict[str, Any] = {}
        for model, each in answers.responses.items():
            outcome, title = each.outcomes[place], titles[model]
            if not names[model]:
                cells[title] = outcome.value if outcome.error is None else outcome.error
                continue
            fields = record_of(outcome.value) or {}
            cells |= {f"{title}.{name}": fields.get(name) for name in names[model]}
            if each.failed:
                cells[f"{title}.{ERROR}"] = outcome.error
        rows.append(TableRow(labels[place], cells))
    return RowsTable(rows, len(answers), label)


def _names(answers: Answers, places: Iterable[int]) -> list[str]:
    """Return the fields of the values of a model; empty where they are no records."""
    if not answers.has_fields:
        return []
    return list(dict.fromkeys(name for place in places for name in record_of(answers[place]) or ()))


def refuse_names(inputs: Inputs, specs: Mapping[str, OutputSpec | None], several: Collection[str] = ()) -> None:
    """Raise `OptionError` where a column of the answers would have the name of a column that is there.

    Parameters
    ----------
    inputs
        The rows.
    specs
        The output type of each model, by its name.
    several
        The models whose values are lists of several answers (`--n`).

    """
    there = {name[0] if isinstance(name, tuple) and not any(name[1:]) else name for name in inputs.labels}
    titles = shown_models(specs)
    for model, spec in specs.items():
        made = columns_for(spec, model, several=model in several)
        names = [f"{model}.{name}" for name in made.columns] if made.is_record else [model]
        twice = next((name for name in (*names, f"{model}.{ERROR}") if name in there), None)
        if twice is not None:
            raise OptionError(
                f"The input has a column {twice!r} already, where the answers of {titles[model]} are to be.",
                "Rename that column, or leave it out of the input.",
            )


def bound(inputs: Inputs, answers: ComparedAnswers) -> Any:
    """Return what a variable is bound to: the input's DataFrame with the columns of each model, else the answers."""
    if inputs.kind == "sequence":
        return answers
    columns = answers.to_columns(names_of(inputs.source, inputs.kind))
    return with_columns(inputs.source, inputs.kind, columns)


def statistics_line(answers: ComparedAnswers) -> str:
    """Return the statistics of all models in a line: what they cost together, and those of each."""
    statistics = answers.statistics
    costs = [each.cost for each in statistics.values() if each.cost is not None]
    in_all = money(fsum(costs)) if costs else ""
    titles = shown_models(statistics)
    each = [led_by(titles[model], str(said)) for model, said in statistics.items()]
    return " · ".join([*([f"{in_all} in all"] if in_all else []), *each])


def models_failed(answers: ComparedAnswers, fails: Collection[str], again: str = CELL_AGAIN) -> RowsFailedError | None:
    """Return the error of models of which rows failed; None where none did.

    Parameters
    ----------
    answers
        All of them.
    fails
        The models whose errors are not to be kept as values.
    again
        What to do about those rows.

    """
    of_each = {model: rows_failed(answers.responses[model], again) for model in answers.responses if model in fails}
    found = {model: error for model, error in of_each.items() if error is not None}
    if not found:
        return None
    titles, hints = shown_models(answers.responses), []
    for model, error in found.items():
        said = (
            error.hint
            if isinstance(error, RowsFailedError)
            else f"{type(error).__name__}: {error.message} {error.hint}"
        )
        place = f"_llm.responses[{model!r}].responses["
        hints.append(led_by(titles[model], said.strip()).replace("_llm.responses[", place))
    told = {model: told_of_failures(answers.responses[model].errors) for model in found}
    asks = [
        error.message.removeprefix(told[model]).strip("; .")
        for model, error in found.items()
        if isinstance(error, RowsFailedError)
    ]
    asks.sort(key=lambda each: each == again)  # what is said of a budget holds for all
    lines = [led_by(titles[model], each) for model, each in told.items()]
    return RowsFailedError(f"{'; '.join([*lines, *asks[:1]])}.", " ".join(hints), answers=answers)
