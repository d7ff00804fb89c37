"""The results of fetched batches, found by row: where the line of each is, of which only that is in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llm_magic.batches.jsonl.input_file import parse_custom_id, read_ids
from llm_magic.batches.jsonl.results import RowResult, placed_results, result_at

if TYPE_CHECKING:
    from llm_magic.batches.kept.kept_batches import BatchFolder
    from llm_magic.batches.kept.record import BatchRecord
    from llm_magic.mapping.rows import RowRequest

_KEY = 32


@dataclass(frozen=True, slots=True)
class FoundResult:
    """Where the result of a row is: in `path`, at `place`; both are None where its batch has none for it."""

    record: BatchRecord
    number: int
    """Of the row, when it was asked."""
    is_answer: bool
    path: Path | None = None
    place: tuple[int, int] | None = None

    def read(self) -> RowResult | None:
        """Return the result; None where there is none.

        Raises
        ------
        OSError
            The file cannot be read.

        """
        return None if self.path is None or self.place is None else result_at(self.path, self.place)


class FoundResults:
    """The results of some batches; of several to one row the answers come first, then those of the batch named first.

    Parameters
    ----------
    folder
        Where they are kept.
    records
        The batches, which are fetched.

    Raises
    ------
    OSError
        A file cannot be read.

    """

    def __init__(self, folder: BatchFolder, records: Iterable[BatchRecord]) -> None:
        self.records = list(records)
        self._found: defaultdict[str, list[FoundResult]] = defaultdict(list)
        for record in self.records:
            for name, found in results_of(folder, record).items():
                self._found[name.partition("-")[2]].append(found)

    def take(self, row: RowRequest, key: str = "", *, keep: bool = False) -> FoundResult | None:
        """Return the result of a row, once; None where no batch has asked for it.

        `key` is the row's, where the row itself has none; `keep` leaves the result for equal rows.
        """
        name = (row.key or key)[:_KEY]
        found = self._found.get(name)
        if not found:
            return None
        best = min(found, key=lambda each: (not each.is_answer, each.path is None, each.number != row.number))
        if not keep:
            found.remove(best)
        return best


def results_of(folder: BatchFolder, record: BatchRecord) -> dict[str, FoundResult]:
    """Return what a batch has for each of its rows, by their custom ids in the order of its file."""
    found: dict[str, FoundResult] = {}
    for name in ids_of(folder, record):
        if (row := parse_custom_id(name)) is not None:
            found[name] = FoundResult(record, row[0], is_answer=False)
    for path in (folder.output_path(record), folder.errors_path(record)):
        if not path.exists():
            continue
        for place, result in placed_results(path):
            if not isinstance(result, RowResult) or result.custom_id not in found:
                continue
            if not (known := found[result.custom_id]).is_answer:
                is_answer = result.body is not None
                found[result.custom_id] = FoundResult(record, known.number, is_answer, path, place)
    return found


def ids_of(folder: BatchFolder, record: BatchRecord) -> list[str]:
    """Return the custom ids of a batch, in the order of its file; none where they were removed."""
    try:
        return read_ids(folder.ids_path(record))
    except FileNotFoundError:
        return []
