"""Recordings: answers that were received once are kept in a file, and given again where the same is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

from llm_magic.errors import RecordingError
from llm_magic.options import Record
from llm_magic.recordings.file import RecordingsFile
from llm_magic.recordings.index import Place
from llm_magic.recordings.nearest import explain
from llm_magic.recordings.recording import Recording, key_of
from llm_magic.recordings.secrecy import of_process, secret_in

_MOST_ASKING = 10_000
"""Requests that are asked at once; of others, which failed, nothing is remembered."""
_MOST_RUNS = 3
"""Runs of one cell that go on side by side, in the background."""
_MOST_FILES = 100
_TIMES = 100
"""How often a recording is looked for that is found and, when it is read, is not there any more."""


@dataclass(slots=True)
class LookUp:
    """A request that was looked up: the recording that answers it, else the place that its answer will have."""

    asked: Mapping[str, Any]
    key: str
    cell_id: str | None
    recording: Recording | None
    place: int
    replaces: bool = False
    """Whether the answer takes the place of a recording that is there."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A current recording of a file."""

    file: Path
    key: str
    place: int
    """Its place among the answers to equal requests."""
    used: bool
    """Whether this session gave or recorded it."""
    read: Callable[[], Recording | None]
    """Reads it; None where it is not there any more."""


@dataclass(slots=True)
class _Taken:
    """The places of one key that somebody had in this session: all below `lowest`, and `others`."""

    lowest: int = 0
    others: frozenset[int] = frozenset()

    def take(self, place: int) -> None:
        if place >= self.lowest:
            self.others |= {place}
        while self.lowest in self.others:
            self.others -= {self.lowest}
            self.lowest += 1

    def __contains__(self, place: int) -> bool:
        return place < self.lowest or place in self.others

    @property
    def last(self) -> int:
        return max(self.others, default=self.lowest - 1)


class _Equal:
    """The current recordings of one key in all files, by their place: those of other files first."""

    def __init__(self, own: RecordingsFile, others: tuple[RecordingsFile, ...], key: str) -> None:
        self._own = own
        self._before = [(file, place) for file in others for place in file.find(key).values()]
        self._places = own.find(key, len(self._before))

    def __contains__(self, at: int) -> bool:
        return at in self._places or 0 <= at < len(self._before)

    def __getitem__(self, at: int) -> tuple[RecordingsFile, Place]:
        place = self._places.get(at)
        return self._before[at] if place is None else (self._own, place)

    @property
    def last(self) -> int:
        """The last place; -1 where there is none."""
        return max(len(self._before) - 1, next(reversed(self._places), -1))

    def __iter__(self) -> Iterator[int]:
        if not self._before:
            return iter(self._places)
        return iter(sorted({*range(len(self._before)), *self._places}))

    def of_cell(self, cell_id: str) -> list[int]:
        """Return the places of the answers that a cell had when they were recorded."""
        return [at for at in self if self[at][1].cell == cell_id]

    def first_without(self, taken: _Taken) -> int:
        """Return the first place that nobody had; where all are taken the one after the last."""
        if taken.lowest in self:
            return taken.lowest
        after = max(self.last, taken.last) + 1
        return after if taken.lowest > self.last else next((at for at in self if at not in taken), after)


class Recordings:
    """What the cells of one session share of their recordings: files, and which answer each cell had.

    Equal requests keep their answers in order. The n-th equal request of a run of a cell gets the answer that this cell
    had for its n-th: in this session, else by the name of the cell in the file; else the first that nobody had in this
    session. It may be used from several threads.

    Parameters
    ----------
    files
        Returns the file that is written, and further ones that are read; asked anew for each request.
    say
        Takes a line for the user: a file that is passed over, marks of a merge conflict.

    """

    def __init__(self, files: Callable[[], tuple[Path, tuple[Path, ...]]], say: Callable[[str], None]) -> None:
        self._files = files
        self._say = say
        self._lock = threading.RLock()
        self._open: dict[Path, RecordingsFile] = {}
        self._said: set[str] = set()
        self._used: set[tuple[str, int]] = set()
        self._forget()

    def _forget(self) -> None:
        """Forget which answer each cell had."""
        self._runs: dict[str, dict[int, dict[str, int]]] = {}  # by cell, run and key: how many equal ones there were
        self._had: dict[tuple[str, str], list[int]] = {}  # by cell and key: the places of its first, second … request
        self._taken: dict[str, _Taken] = {}
        self._asking: dict[tuple[str | None, int, str], list[tuple[int, int, bool]]] = {}

    def known(self, asked: Mapping[str, Any], cell_id: str | None, run_number: int, mode: Record) -> Recording | None:
        """Return the recording that answers a request, None where it has to be asked: `add` then records the answer.

        `run_number` is another one for each run of a cell. Equal requests that run at once keep the order in which
        they were asked where each has a mapping of its own, which is given to `add`.

        Raises
        ------
        RecordingError
            The file to write is none of recordings, or is of a newer format.

        """
        with self._lock:
            found = self.look_up(asked, cell_id, run_number, mode)
            if found.recording is None and mode != "only":
                waiting = self._asking.setdefault((cell_id, run_number, found.key), [])
                waiting.append((id(asked), found.place, found.replaces))
                while len(self._asking) > _MOST_ASKING:  # those that failed
                    del self._asking[next(iter(self._asking))]
            return found.recording

    def add(
        self,
        asked: Mapping[str, Any],
        answer: Mapping[str, Any],
        cell_id: str | None,
        run_number: int,
        mode: Record,
        *,
        secrets: Iterable[str] = (),
    ) -> str:
        """Record the answer to a request that was not known; return an empty text, or why it is not recorded."""
        try:
            key = key_of(asked)
            with self._lock:
                waiting = self._asking.pop((cell_id, run_number, key), [])
                if waiting:
                    which = next((at for at, (each, *_) in enumerate(waiting) if each == id(asked)), 0)
                    _, place, replaces = waiting.pop(which)
                    found = LookUp(asked, key, cell_id, None, place, replaces)
                    if waiting:
                        self._asking[cell_id, run_number, key] = waiting
                else:
                    found = self.look_up(asked, cell_id, run_number, "new")
                    found.replaces = found.replaces and mode == "new"
        except RecordingError as error:
            return f"Not recorded: {error.message}"
        return self.keep(found, answer, secrets)

    def has(self, asked: Mapping[str, Any], cell_id: str | None, run_number: int, mode: Record) -> bool:
        """Tell whether a recording would answer a request that came now; arguments and errors as of `known`."""
        key = key_of(asked)
        with self._lock:
            there = self._equal(key)
            number = self._runs.get(cell_id or "", {}).get(run_number, {}).get(key, 0)
            at_its_place = self._place_of(key, cell_id, number, there) in there
            return mode != "new" and (
                at_its_place or (there.last >= 0 and (mode == "only" or _is_deterministic(asked)))
            )

    def latest(self, asked: Mapping[str, Any]) -> Recording | None:
        """Return the last recording of equal requests, whoever had it; None where there is none."""
        key = key_of(asked)
        with self._lock:
            for _ in range(_TIMES):
                there = self._equal(key)
                if there.last < 0:
                    break
                recording = self._read(*there[there.last])
                if recording is not None:
                    self._used.add((key, there.last))
                    return recording
            return None

    def look_up(self, asked: Mapping[str, Any], cell_id: str | None, run_number: int, mode: Record) -> LookUp:
        """Find the recording of a request, or the place of its answer, which `keep` then records.

        Raises
        ------
        RecordingError
            As `known`.

        """
        key = key_of(asked)
        with self._lock:
            number = self._count(key, cell_id, run_number)
            for _ in range(_TIMES):
                there, recording = self._equal(key), None
                place = self._place_of(key, cell_id, number, there)
                if mode == "new":
                    break
                if place not in there and there.last >= 0 and (mode == "only" or _is_deterministic(asked)):
                    place = there.last
                if place not in there or (recording := self._read(*there[place])) is not None:
                    break
            if recording is not None or mode != "only":
                self._take(key, cell_id, number, place)
            if recording is not None:
                self._used.add((key, place))
            return LookUp(asked, key, cell_id, recording, place, replaces=mode == "new" and place in there)

    def _count(self, key: str, cell_id: str | None, run_number: int) -> int:
        """Return how many equal requests there were before in this run of the cell."""
        if cell_id is None:
            return 0
        runs = self._runs.setdefault(cell_id, {})
        counts = runs.setdefault(run_number, {})
        while len(runs) > _MOST_RUNS:
            del runs[next(iter(runs))]
        number = counts.get(key, 0)
        counts[key] = number + 1
        return number

    def _place_of(self, key: str, cell_id: str | None, number: int, there: _Equal) -> int:
        """Return the place of the n-th equal request of a cell, which need not be there yet."""
        if cell_id is not None:
            had = self._had.get((cell_id, key), ())
            if number < len(had):
                return had[number]
            own = there.of_cell(cell_id)
            if number < len(own):
                return own[number]
        return there.first_without(self._taken.get(key, _Taken()))

    def _take(self, key: str, cell_id: str | None, number: int, place: int) -> None:
        self._taken.setdefault(key, _Taken()).take(place)
        if cell_id is not None:
            had = self._had.setdefault((cell_id, key), [])
            if number == len(had):
                had.append(place)
            elif number < len(had):
                had[number] = place

    def _equal(self, key: str) -> _Equal:
        own, others = self._files_now()
        try:
            return _Equal(own, others, key)
        finally:
            self._tell((own, *others))

    def _files_now(self) -> tuple[RecordingsFile, tuple[RecordingsFile, ...]]:
        try:
            path, others = self._files()
        except OSError as error:  # the working folder is gone
            raise RecordingError(
                f"There is no file of recordings: {error.strerror or error}.",
                "Name one: %config LLMMagics.record_file = …",
            ) from None
        if len(self._open) > _MOST_FILES:  # of folders that were left
            self._open = {known: file for known, file in self._open.items() if known == path or known in others}
        return self._opened(path, own=True), tuple(self._opened(other, own=False) for other in others if other != path)

    def _opened(self, path: Path, *, own: bool) -> RecordingsFile:
        known = self._open.get(path)
        if known is None or known.own != own:
            known = self._open[path] = RecordingsFile(path, own=own)
        return known

    def _read(self, file: RecordingsFile, place: Place) -> Recording | None:
        recording = file.read(place)
        self._tell((file,))
        return recording

    def _tell(self, files: Iterable[RecordingsFile]) -> None:
        for file in files:
            for remark in file.take_remarks():
                if remark not in self._said:
                    self._said.add(remark)
                    self._say(remark)

    def keep(self, found: LookUp, answer: Mapping[str, Any], secrets: Iterable[str] = ()) -> str:
        """Record the answer to a request that was looked up; return an empty text, or why it is not recorded."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        recording = Recording(found.asked, answer, found.cell_id, now, known_key=found.key)
        try:
            held = secret_in(recording, secrets)
            if held:
                return f"Not recorded: the answer, or what was asked, holds {held}."
            with self._lock:
                own, others = self._files_now()
                place = found.place

                def choose() -> int | None:
                    nonlocal place
                    there = _Equal(own, others, found.key)
                    after = there.last + 1
                    if found.replaces or (place not in there and place != after):
                        return place
                    place = after
                    return None

                try:
                    own.append(recording, choose)
                finally:
                    self._tell((own, *others))
                self._move(found, place)
                self._used.add((found.key, place))
        except RecordingError as error:
            return f"Not recorded: {error.message}"
        return ""

    def _move(self, found: LookUp, place: int) -> None:
        """Take note of the place that an answer has in the end: another kernel may have been first."""
        if place == found.place:
            return
        self._taken.setdefault(found.key, _Taken()).take(place)
        if found.cell_id is not None:
            had = self._had.get((found.cell_id, found.key), [])
            had[:] = [place if at == found.place else at for at in had]

    def nearest(self, asked: Mapping[str, Any], secrets: Iterable[str] = ()) -> str:
        """Return what differs from the nearest request that is recorded, in a line; or that none is.

        What is asked is shown without `secrets`, and without those of the environment.
        """
        with self._lock:
            own, others = self._files_now()
        lines = (line for file in (own, *others) for _, line in file.lines())
        return explain(asked, lines, (*secrets, *of_process().values())) or f"{own.path} holds no recordings."

    def listed(self) -> list[Listed]:
        """Return the current recordings of all files, in the order in which they stand there.

        Raises
        ------
        RecordingError
            As `known`.

        """
        with self._lock:
            own, others = self._files_now()
            keys = dict.fromkeys(key for file in (*others, own) for key in file.keys())  # noqa: SIM118 - no mapping
            order = {file: number for number, file in enumerate((*others, own))}
            found = []
            for key in keys:
                there = _Equal(own, others, key)
                places = [there[at] for at in there]
                slots = sorted((order[file], place.offset) for file, place in places)
                for slot, at, (file, place) in zip(slots, there, places, strict=True):
                    found.append((slot, Listed(file.path, key, at, (key, at) in self._used, _Reader(file, place))))
            self._tell((own, *others))
            return [listed for _, listed in sorted(found, key=itemgetter(0))]

    @property
    def path(self) -> Path:
        """The file that is written."""
        with self._lock:
            return self._files_now()[0].path

    def export(self, path: Path) -> int:
        """Write all current recordings to a .jsonl file, or as Markdown to read, and return how many there are.

        Raises
        ------
        RecordingError
            There are none, or the file cannot be written: it would go in the place of something else.

        """
        from llm_magic.recordings.export import write

        with self._lock:
            own, others = self._files_now()
            for file in (own, *others):
                if _are_one(path, file.path):
                    raise RecordingError(f"{path} is the file of recordings itself.", "Name another file.")
            found = [recording for each in self.listed() if (recording := each.read()) is not None]
        write(path, found)
        return len(found)

    def clear(self, *, unused: bool = False) -> tuple[Path, int, int]:
        """Remove the recordings of the file that is written; return it, how many went, and how many stay.

        With `unused` those alone that this session neither gave nor recorded.

        Raises
        ------
        RecordingError
            Nothing was used in this session yet, or the file cannot be written.

        """
        with self._lock:
            own, others = self._files_now()
            if unused and not self._used:
                raise RecordingError(
                    "No recording was used in this session yet, so that all would go.",
                    "Run the notebook's cells first, or clear without --unused.",
                )
            if not len(own):
                return own.path, 0, 0

            def before(key: str) -> int:
                return sum(len(file.find(key)) for file in others)

            gone = own.rewrite(lambda key, at: unused and (key, at) in self._used, before)
            self._forget()
            elsewhere = {(key, at) for key, at in self._used if at < before(key)}
            kept = {(key, at) for key in own.keys() for at in own.find(key, before(key))}  # noqa: SIM118 - no mapping
            self._used = elsewhere | kept if unused else elsewhere
            return own.path, gone, len(kept)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one recording."""

    file: RecordingsFile
    place: Place

    def __call__(self) -> Recording | None:
        return self.file.read(self.place)


def _are_one(path: Path, other: Path) -> bool:
    """Whether two names are of one file."""
    try:
        return path.samefile(other)
    except (OSError, ValueError):  # one of them is not there
        return False


def _is_deterministic(asked: Mapping[str, Any]) -> bool:
    """Whether a server is asked to answer equal requests alike."""
    parameters = asked.get("parameters")
    if asked.get("kind") != "answer":
        return asked.get("kind") != "tool"  # vectors, and what a name leads to
    return isinstance(parameters, Mapping) and (
        parameters.get("temperature") == 0 or parameters.get("seed") is not None
    )
