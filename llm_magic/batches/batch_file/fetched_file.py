"""A file of results that a program wrote, such as vLLM's `run_batch`: read, and kept with the batches of its rows.

Rows are found by their custom ids, never by their order. What it has are texts; the cell that wrote the rows knows
their type, and finds them when it is run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_magic.batches.batch_file.file_place import is_request
from llm_magic.batches.batch_file.found_results import FoundResult, ids_of, results_of
from llm_magic.batches.jsonl.input_file import parse_custom_id
from llm_magic.batches.jsonl.results import (
    BOM,
    MOST_LINE_BYTES,
    RowResult,
    UnreadableLine,
    placed_results,
    result_at,
)
from llm_magic.batches.jsonl.texts import text_outcome
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.remote.retrieval import no_result
from llm_magic.config.trust import printable
from llm_magic.display.footer import counted
from llm_magic.errors import LLMError, OptionError, Origin
from llm_magic.mapping.answers.answers import Answers
from llm_magic.mapping.asking.row_asker import failed
from llm_magic.mapping.rows import Outcome
from llm_magic.recordings.locked_file import opened as opened_file
from llm_magic.recordings.locked_file import read_at, reason
from llm_magic.recordings.secrecy import of_process
from llm_magic.secrets import hide

if TYPE_CHECKING:
    from llm_magic.batches.kept.record import BatchRecord
    from llm_magic.capabilities import Api

_SHOWN = 3
_LONGEST = 200


class _Line(NamedTuple):
    """A result in the file, and where."""

    custom_id: str
    place: tuple[int, int]
    is_answer: bool


def fetch(path: Path, folder: BatchFolder | None = None) -> Answers:
    """Read a file of results, keep it with the batches that its rows are of, and return their texts.

    Parameters
    ----------
    path
        The file.
    folder
        Remembers batches; None: that of the user.

    Returns
    -------
    Answers
        The texts, in the order of the rows, labelled with their numbers; failures in place. `notes` say what to do
        next. Of rows that no batch here has asked they are all that there is.

    Raises
    ------
    OptionError
        It is no file of results, or it has those of no cell.
    LLMError
        It cannot be read, or not be kept.

    """
    folder = folder or BatchFolder()
    named = printable(str(path))
    lines, unreadable = _lines(path, named)
    try:
        batches = _batches_of(folder, {each.custom_id for each in lines})
    except OSError as error:
        raise _not_kept(error) from None
    if not batches:
        return _untyped(path, lines, unreadable)
    owners: dict[str, BatchRecord] = {}
    for record, names in batches:
        for name in names:
            owners.setdefault(name, record)
    found: list[FoundResult] = []
    try:
        for record, _ in batches:
            own = {name for name, owner in owners.items() if owner is record}
            _keep(folder, record, path, [each for each in lines if each.custom_id in own])
            found += results_of(folder, record).values()
    except OSError as error:
        raise _not_kept(error) from None
    apis = {record.id: record for record, _ in batches}
    outcomes = [_outcome(each, apis[each.record.id]) for each in sorted(found, key=lambda each: each.number)]
    strangers = sum(each.custom_id not in owners for each in lines)
    outs = dict.fromkeys(record.out for record, _ in batches if record.out)
    binds = f" and binds {', '.join(outs)}" if outs else ""
    notes = [f"These are texts; the cell that wrote the rows, run again, has them as values of its type{binds}."]
    if strangers:
        notes.append(f"{counted(strangers, 'line')} of rows that no batch here has asked {_is(strangers)} left out.")
    notes += _on(unreadable)
    return _answers(outcomes, [each.number for each in sorted(found, key=lambda each: each.number)], notes)


def _lines(path: Path, named: str) -> tuple[list[_Line], list[UnreadableLine]]:
    lines: list[_Line] = []
    unreadable: list[UnreadableLine] = []
    try:
        with opened_file(path) as file, open(file, "rb", closefd=False) as read:
            first = read.readline(MOST_LINE_BYTES)
        if is_request(first):
            raise OptionError(
                f"{named} has the rows that are to be asked, no results.",
                "Have a program such as vLLM's run_batch read it, and fetch the file which that writes.",
            )
        for place, result in placed_results(path):
            if isinstance(result, RowResult):
                lines.append(_Line(result.custom_id, place, result.body is not None))
            else:
                unreadable.append(result)
    except OSError as error:
        raise OptionError(f"{named} cannot be read: {reason(error)}.", "Name the file that run_batch wrote.") from None
    if not lines:
        what = (
            "is empty"
            if not unreadable
            else f"is no file of results: line {unreadable[0].number}: {_why(unreadable[0])}"
        )
        raise OptionError(f"{named} {what}.", "Name the file that run_batch wrote, once it has ended.")
    if not any(parse_custom_id(each.custom_id) for each in lines):
        names = ", ".join(repr(printable(each.custom_id)[:40]) for each in lines[:_SHOWN])
        more = ", …" if len(lines) > _SHOWN else ""
        raise OptionError(
            f"{named} has no row of a cell; its {counted(len(lines), 'line')} are called {names}{more}.",
            "It answers a file that something else wrote.",
        )
    return lines, unreadable


def _why(line: UnreadableLine) -> str:
    return hide(line.reason, of_process().values())[:_LONGEST]


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _on(unreadable: list[UnreadableLine]) -> list[str]:
    if not unreadable:
        return []
    first = unreadable[0]
    count = len(unreadable)
    return [f"{counted(count, 'line')} {_is(count)} no result, the first line {first.number}: {_why(first)}."]


def _batches_of(folder: BatchFolder, names: set[str]) -> list[tuple[BatchRecord, set[str]]]:
    """Return the batches in files that have asked some of these rows, the newest first, each with those of it."""
    found, left = [], set(names)
    for record in folder.all():
        if not left:
            break
        if record.file and (own := left.intersection(ids_of(folder, record))):
            found.append((record, own))
            left -= own
    return found


def _keep(folder: BatchFolder, record: BatchRecord, path: Path, lines: list[_Line]) -> None:
    """Keep lines as the output of a batch; what was fetched before stays, where it is not answered now."""
    kept = folder.output_path(record)
    answered = {each.custom_id for each in lines if each.is_answer}
    before = []
    if kept.exists():
        before = [
            place
            for place, result in placed_results(kept)
            if isinstance(result, RowResult) and result.custom_id not in answered
        ]
    with folder.new_file(kept) as file:
        for source, places in ((kept, before), (path, [each.place for each in lines])):
            if not places:
                continue
            with opened_file(source) as opened:
                for at, length in places:
                    line = read_at(opened, at, min(length, MOST_LINE_BYTES))
                    file.write(line.removeprefix(BOM).rstrip(b"\n") + b"\n")
    count = sum(result.is_answer for result in results_of(folder, record).values())
    folder.update(record, step="fetched", status="completed", completed=count, failed=record.rows - count)


def _outcome(found: FoundResult, record: BatchRecord) -> Outcome:
    result = found.read()
    if result is None:
        return failed(found.number, no_result(record))
    api = "chat" if record.api == "embeddings" else record.api
    return _text_outcome(found.number, result, api, Origin(record.provider, record.model, record.url))


def _text_outcome(number: int, result: RowResult, api: Api, origin: Origin) -> Outcome:
    return text_outcome(number, result, api, origin, known=of_process().values())


def _untyped(path: Path, lines: list[_Line], unreadable: list[UnreadableLine]) -> Answers:
    """Return the texts of rows that no batch here has asked."""
    best: dict[str, _Line] = {}
    for line in lines:
        if parse_custom_id(line.custom_id) and not (line.custom_id in best and best[line.custom_id].is_answer):
            best[line.custom_id] = line
    numbered = sorted(((parse_custom_id(name) or (0, ""))[0], line) for name, line in best.items())
    outcomes = []
    for number, line in numbered:
        result = result_at(path, line.place)
        if result is not None:
            outcomes.append(_text_outcome(number, result, _api(result.body), Origin(path.name)))
    note = (
        "No batch that is kept here has asked for these rows: they are texts, of a cell of another computer or of a "
        "batch that was removed, and no cell finds them here."
    )
    return _answers(outcomes, [number for number, _ in numbered], [note, *_on(unreadable)])


def _api(body: Mapping[str, Any] | None) -> Api:
    """Return the API that an answer is of."""
    kind = (body or {}).get("object")
    return "responses" if kind == "response" else "completions" if kind == "text_completion" else "chat"


def _answers(outcomes: list[Outcome], labels: list[int], notes: list[str]) -> Answers:
    for place, outcome in enumerate(outcomes):
        outcome.number = place
    return Answers(outcomes, None if labels == list(range(len(labels))) else labels, notes=notes)


def _not_kept(error: OSError) -> LLMError:
    where = f"{printable(str(error.filename))}: " if error.filename else ""
    return LLMError(
        f"The results cannot be kept: {where}{reason(error)}.", "XDG_STATE_HOME names another place for them."
    )
