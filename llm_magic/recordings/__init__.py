"""Recordings: answers that were received once are kept in a file, and given again where the same is asked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from llm_magic.errors import RecordingError
from llm_magic.recordings.file import RecordingsFile
from llm_magic.recordings.index import Place
from llm_magic.recordings.nearest import explain
from llm_magic.recordings.recording import Recording, key_of
from llm_magic.secrets import Secret, holds, is_secret_name
from llm_magic.secrets.spellings import SHORTEST

Mode = Literal["off", "once", "only", "new"]
"""`once`: what is recorded is given, all else asked and recorded; `only`: nothing is asked; `new`: all is asked."""
_MOST_OPEN = 10_000
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
class _CellRun:
    """The latest run of a cell: how many equal requests there were so far, by key."""

    number: int
    counts: dict[str, int]


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
        self._forget()

    def _forget(self) -> None:
        self._runs: dict[str, _CellRun] = {}
        self._had: dict[tuple[str, str], list[int]] = {}  # by cell and key: the places of its first, second … request
        self._taken: dict[str, set[int]] = {}  # by key: the places that somebody had in this session
        self._used: set[tuple[str, int]] = set()
        self._asking: dict[tuple[str | None, int, str], list[LookUp]] = {}

    def known(self, asked: Mapping[str, Any], cell_id: str | None, run_number: int, mode: Mode) -> Recording | None:
        """Return the recording that answers a request, None where it has to be asked: `add` then records the answer.

        `run_number` is another one for each run of a cell. Of equal requests that run at once, `look_up` and `keep`
        keep the order in which they were asked.

        Raises
        ------
        RecordingError
            The file to write is none of recordings, or is of a newer format.

        """
        with self._lock:
            found = self.look_up(asked, cell_id, run_number, mode)
            if found.recording is None:
                self._asking.setdefault((cell_id, run_number, found.key), []).append(found)
                while len(self._asking) > _MOST_OPEN:  # of those that failed
                    del self._asking[next(iter(self._asking))]
            return found.recording

    def add(
        self,
        asked: Mapping[str, Any],
        answer: Mapping[str, Any],
        cell_id: str | None,
        run_number: int,
        mode: Mode,
        *,
        secrets: Iterable[str] = (),
    ) -> str:
        """Record the answer to a request that was not known; return an empty text, or why it is not recorded."""
        with self._lock:
            key = key_of(asked)
            waiting = self._asking.get((cell_id, run_number, key))
            if waiting:
                found = waiting.pop(0)
                if not waiting:
                    del self._asking[cell_id, run_number, key]
            else:
                found = self.look_up(asked, cell_id, run_number, "new" if mode == "new" else "once")
        return self.keep(found, answer, secrets)

    @property
    def file(self) -> Path:
        """The file that is written."""
        return self._files()[0]

    def has(self, asked: Mapping[str, Any]) -> bool:
        """Tell whether an answer to equal requests is recorded, whoever had it."""
        with self._lock:
            return bool(self._places(key_of(asked)))

    def latest(self, asked: Mapping[str, Any]) -> Recording | None:
        """Return the last recording of equal requests, whoever had it; None where there is none."""
        key = key_of(asked)
        with self._lock:
            there = self._places(key)
            if not there:
                return None
            place = max(there)
            self._used.add((key, place))
            return self._read(*there[place])

    def look_up(self, asked: Mapping[str, Any], cell_id: str | None, run_number: int, mode: Mode) -> LookUp:
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
                there = self._places(key)
                place = self._place_of(key, cell_id, number, {at: found[1] for at, found in there.items()})
                if mode == "new":
                    recording = None
                    break
                if place not in there and there and (mode == "only" or _is_deterministic(asked)):
                    place = max(there)
                recording = self._read(*there[place]) if place in there else None
                if recording is not None or place not in there:
                    break
            self._take(key, cell_id, number, place)
            if recording is not None:
                self._used.add((key, place))
            return LookUp(asked, key, cell_id, recording, place, replaces=mode == "new" and place in there)

    def _count(self, key: str, cell_id: str | None, run_number: int) -> int:
        """Return how many equal requests there were before in this run of the cell."""
        if cell_id is None:
            return 0
        run = self._runs.get(cell_id)
        if run is None or run.number != run_number:
            run = self._runs[cell_id] = _CellRun(run_number, {})
        number = run.counts.get(key, 0)
        run.counts[key] = number + 1
        return number

    def _place_of(self, key: str, cell_id: str | None, number: int, there: Mapping[int, Place]) -> int:
        """Return the place of the n-th equal request of a cell, which need not be there yet."""
        taken = self._taken.get(key, set())
        if cell_id is not None:
            had = self._had.get((cell_id, key), ())
            if number < len(had):
                return had[number]
            own = [at for at, place in there.items() if place.cell == cell_id]
            if number < len(own):
                return own[number]
        free = next((at for at in there if at not in taken), None)
        return max((*there, *taken), default=-1) + 1 if free is None else free

    def _take(self, key: str, cell_id: str | None, number: int, place: int) -> None:
        self._taken.setdefault(key, set()).add(place)
        if cell_id is not None:
            had = self._had.setdefault((cell_id, key), [])
            if number == len(had):
                had.append(place)
            elif number < len(had):
                had[number] = place

    def _places(self, key: str) -> dict[int, tuple[RecordingsFile, Place]]:
        """Return the current recordings of a key in their order: those of other files first."""
        own, others = self._files_now()
        before = [(file, place) for file in others for place in file.find(key).values()]
        there = dict(enumerate(before)) | {at: (own, place) for at, place in own.find(key, before=len(before)).items()}
        self._tell((own, *others))
        return dict(sorted(there.items()))

    def _files_now(self) -> tuple[RecordingsFile, tuple[RecordingsFile, ...]]:
        path, others = self._files()
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
        recording = Recording(found.asked, answer, found.cell_id, now)
        try:
            held = _secret_in(recording, secrets)
            if held:
                return f"Not recorded: the answer, or what was asked, holds {held}."
            with self._lock:
                own, others = self._files_now()
                place = found.place

                def choose() -> int | None:
                    nonlocal place
                    before = sum(len(file.find(found.key)) for file in others)
                    there = own.find(found.key, before)
                    top = max((before - 1, *there))
                    is_free = place >= before and place not in there
                    if found.replaces or (is_free and place != top + 1):
                        return place
                    place = top + 1
                    return None

                own.append(recording, choose)
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
        self._taken.setdefault(found.key, set()).add(place)
        if found.cell_id is not None:
            had = self._had.get((found.cell_id, found.key), [])
            had[:] = [place if at == found.place else at for at in had]

    def nearest(self, asked: Mapping[str, Any]) -> str:
        """Return what differs from the nearest request that is recorded, in a line; empty where none is."""
        return explain(asked, (recording.asked for _, recording in self._all()))

    def _all(self) -> Iterator[tuple[RecordingsFile, Recording]]:
        with self._lock:
            own, others = self._files_now()
        for file in (*others, own):
            for _, line in file.lines():
                try:
                    yield file, Recording.read(line)
                except RecordingError:
                    continue

    def listed(self) -> list[Listed]:
        """Return the current recordings of all files, in the order in which they stand there.

        Raises
        ------
        RecordingError
            As `known`.

        """
        with self._lock:
            own, others = self._files_now()
            found: list[tuple[int, int, Listed]] = []
            for number, file in enumerate((*others, own)):
                for key in file.keys():  # noqa: SIM118 - not a mapping
                    for at, (of, place) in self._places(key).items():
                        if of is file:
                            reader = _Reader(file, place)
                            used = (key, at) in self._used
                            found.append((number, place.offset, Listed(file.path, key, at, used, reader)))
            return [listed for *_, listed in sorted(found, key=lambda each: each[:2])]

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
            return own.path, gone, len(own)


@dataclass(frozen=True, slots=True)
class _Reader:
    file: RecordingsFile
    place: Place

    def __call__(self) -> Recording | None:
        return self.file.read(self.place)


def _is_deterministic(asked: Mapping[str, Any]) -> bool:
    """Whether a server is asked to answer equal requests alike."""
    parameters = asked.get("parameters")
    if asked.get("kind") != "answer":
        return True  # vectors, and what a name leads to
    return isinstance(parameters, Mapping) and (
        parameters.get("temperature") == 0 or parameters.get("seed") is not None
    )


def _secret_in(recording: Recording, known: Iterable[str]) -> str:
    """Return in words which known secret a recording holds, in any spelling; empty where it holds none.

    What merely looks like a key is none: `hf_hub_download` would be one.
    """
    answer = {name: value for name, value in recording.answer.items() if name != "vectors"}
    text = Recording(recording.asked, answer).line().decode()
    if holds(text, known):
        return "a key"
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and _is_secret_name(name) and holds(text, (Secret(value),)):
            return f"the value of the environment variable {name}"
    return ""


_is_secret_name = lru_cache(maxsize=4096)(is_secret_name)
