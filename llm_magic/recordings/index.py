"""The index of a file of recordings: where the answers to each key stand, found out from the ends of its lines."""

from __future__ import annotations

import json
import re
from binascii import unhexlify
from collections.abc import Iterator
from typing import NamedTuple

from llm_magic.errors import RecordingError
from llm_magic.recordings.recording import VERSION, Recording

MAX_LINE = 64 * 2**20
"""Bytes of the longest line that is read or written."""
_VERSION = str(VERSION).encode()
_BEGIN = b'{"answer": {"'
_EDITORS_MARK = b"\xef\xbb\xbf"
_END = re.compile(
    rb'"at": ?"[^"\\]{0,40}", ?(?:"cell": ?("[^"\\]*(?:\\.[^"\\]*)*"), ?)?"key": ?"([0-9a-f]{64})", ?'
    rb'(?:"replaces": ?(\d{1,9}), ?)?"version": ?(\d{1,9})\}\s*'
)
"""How a line of ours ends: what the index needs of it, without reading the whole as JSON."""
_LONGEST_END = 600
_CONFLICT = re.compile(rb"(?:<{7}|\|{7}|={7}|>{7})(?: |$)")
_KEY = re.compile("[0-9a-f]{64}")
_FOREIGN_LINES = 1_000
"""Lines after which a file of which none is ours is nobody's file of recordings."""
_FEW = 8


class Place(NamedTuple):
    """Where a recording stands in its file."""

    offset: int
    length: int
    line: int
    """The number of its line, from 1."""
    cell: str | None
    """The cell that asked."""
    replaces: int | None
    digest: bytes
    """Its key, as bytes."""


class Foreign(Exception):  # noqa: N818 - an answer to the question what a file is
    """The bytes are none of a file of recordings."""


class Index:
    """Where recordings stand in the bytes of a file, which are read in pieces, and once.

    >>> line = Recording({"kind": "model", "provider": "vllm"}, {"model": "smollm2"}).line()
    >>> index = Index()
    >>> index.read(line + line[:40]); index.end_of_file()
    >>> index.count, index.end == len(line)
    (1, True)

    """

    def __init__(self) -> None:
        self._places: dict[bytes, list[Place]] = {}
        self._folds: dict[tuple[bytes, int], tuple[int, dict[int, Place]]] = {}
        self._cells: dict[bytes | None, str | None] = {None: None}
        self._rest = b""
        self._is_long = False
        self.end = 0
        """Bytes that were read, up to the end of a line."""
        self.lines = 0
        self.newest = 0
        """The highest version of the format."""
        self.bad: list[int] = []
        """The numbers of lines that are no recordings."""
        self.conflicts: list[int] = []
        """The numbers of lines that are marks of a merge conflict."""

    @property
    def count(self) -> int:
        """Recordings, replaced ones included."""
        return sum(map(len, self._places.values()))

    def read(self, piece: bytes) -> None:
        """Read on.

        Raises
        ------
        Foreign
            This is no file of recordings.

        """
        if not self.lines and b"\0" in piece:
            raise Foreign
        data, self._rest = self._rest + piece, b""
        taken = self._read_lines(data)
        self.end += taken
        if len(data) - taken > MAX_LINE:
            self.end, self._is_long = self.end + len(data) - taken, True
        else:
            self._rest = data[taken:]
        if not self._places and (len(self.bad) >= _FOREIGN_LINES or self._is_long):
            raise Foreign

    def end_of_file(self) -> None:
        """Take note that the file ends here for now; of a line that is not whole nothing is kept.

        Raises
        ------
        Foreign
            This is no file of recordings.

        """
        rest, self._rest = self._rest, b""
        if rest and _is_whole(rest):  # but for its end
            self.lines += 1
            self._read_line(rest, self.end)
            self.end += len(rest)
            rest = b""
        if not self._places and (self.bad or self.conflicts or not _is_begun(rest)):
            raise Foreign

    def _read_lines(self, data: bytes) -> int:
        """Read the lines that are whole; return how many bytes these are."""
        places, cells, begin = self._places, self._cells, 0
        while (end := data.find(b"\n", begin) + 1) > 0:
            self.lines += 1
            at = data.rfind(b'"at":', max(begin, end - _LONGEST_END), end)
            told = _END.fullmatch(data, at, end) if at >= 0 and not self._is_long else None
            if told is None:
                self._read_line(data[begin:end], self.end + begin)
            else:  # nearly all are: the time of opening a file goes into these lines
                written, key, number, version = told.groups()
                if written not in cells:
                    cells[written] = _text(written)
                replaces = None if number is None else int(number)
                digest = unhexlify(key)
                place = Place(self.end + begin, end - begin, self.lines, cells[written], replaces, digest)
                if digest in places:
                    places[digest].append(place)
                else:
                    places[digest] = [place]
                if version != _VERSION:
                    self.newest = max(self.newest, int(version))
            begin = end
        return begin

    def _read_line(self, line: bytes, offset: int) -> None:
        """Read a line that does not end as ours do, or is longer than any."""
        is_long, self._is_long = self._is_long, False
        told = None if is_long else _in_other_order(line)
        stripped = line.strip()
        if told is not None:
            self.newest = max(self.newest, told.version)
            digest = bytes.fromhex(told.key)
            place = Place(offset, len(line), self.lines, told.cell, told.replaces, digest)
            self._places.setdefault(digest, []).append(place)
        elif _CONFLICT.match(stripped) and not is_long:
            self.conflicts.append(self.lines)
        elif is_long or stripped.removeprefix(_EDITORS_MARK):
            self.bad.append(self.lines)

    def find(self, key: str, before: int = 0) -> dict[int, Place]:
        """Return the current recordings of a key by their place among equal ones, in that order.

        Without `replaces` a line takes the place after the last, of which `before` are in other files; with it, it
        takes that place, whether there is one or not.
        """
        digest = bytes.fromhex(key)
        lines = self._places.get(digest, [])
        done, found = self._folds.get((digest, before), (0, {}))
        if done == len(lines):
            return found
        top = max(found, default=before - 1)
        for place in lines[done:]:
            at = top + 1 if place.replaces is None else place.replaces
            top = max(top, at)
            found[at] = place
        if any(place.replaces is not None for place in lines[done:]):
            found = dict(sorted(found.items()))
        if len(lines) > _FEW:  # these are folded at once
            self._folds[digest, before] = (len(lines), found)
        return found

    def keys(self) -> list[str]:
        """Return the keys of all recordings, in the order in which each first came."""
        return [digest.hex() for digest in self._places]

    def places(self) -> Iterator[Place]:
        """Yield the places of all recordings, replaced ones included, in no order."""
        for places in self._places.values():
            yield from places

    def drop(self, place: Place) -> None:
        """Take one out."""
        digest = place.digest
        self._places[digest] = [known for known in self._places.get(digest, ()) if known != place]
        self._folds = {known: fold for known, fold in self._folds.items() if known[0] != digest}


def _is_whole(line: bytes) -> bool:
    try:
        Recording.read(line)
    except RecordingError:
        return _in_other_order(line) is not None  # of a newer version, or changed by hand
    return True


def _is_begun(line: bytes) -> bool:
    """Whether a line that has no end is empty, or the beginning of one of ours."""
    line = line.strip().removeprefix(_EDITORS_MARK)
    if not line.startswith(_BEGIN):
        return _BEGIN.startswith(line)
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False  # it is whole


def _text(written: bytes) -> str | None:
    """Return a text of JSON."""
    try:
        text = json.loads(written)
    except ValueError:
        return None
    return str(text)


class _Told(NamedTuple):
    """What a line tells the index."""

    key: str
    cell: str | None
    replaces: int | None
    version: int


def _in_other_order(line: bytes) -> _Told | None:
    """Return what a recording tells whose fields a program has put in another order; None for what is none."""
    if b'"asked"' not in line or b'"answer"' not in line:
        return None
    try:
        found = json.loads(line.removeprefix(_EDITORS_MARK))
        told = _Told(found["key"], found.get("cell"), found.get("replaces"), found["version"])
        is_one = _KEY.fullmatch(told.key) and type(told.version) is int and told.version > 0
        is_one = is_one and isinstance(told.cell, str | None) and type(told.replaces) in {int, type(None)}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    return told if is_one else None
