"""The answers that earlier runs of the same rows have left: where each stands, found out from the ends of lines."""

from __future__ import annotations

import json
import os
from binascii import Error as HexError
from binascii import unhexlify
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from llm_magic.mapping.kept import kept_runs
from llm_magic.recordings.index import MAX_LINE
from llm_magic.recordings.locked_file import read_at
from llm_magic.recordings.recording import VERSION

BEGIN = b'{"answer": {'
"""How a line begins that holds an answer."""
KEY = b', "key": "'
END = b'", "version": %d}\n' % VERSION
"""How it ends, after the key."""
_HEX = 64
_TO_KEY = len(END) + _HEX
_CHUNK = 4 * 2**20
_MOST_OPEN = 32
_BITS = 40  # of an offset, and of a length


class _Source(NamedTuple):
    """A file, as it was when it was read."""

    path: Path
    identity: tuple[int, int]
    """Device and inode."""
    size: int

    def is_unchanged(self, found: os.stat_result) -> bool:
        """Whether what the system says of a file is still of this one."""
        return ((found.st_dev, found.st_ino), found.st_size) == (self.identity, self.size)


class EarlierAnswers:
    """The answers in files of runs; up to 32 of these stay open, so that another run may remove them meanwhile."""

    def __init__(self) -> None:
        self._places: dict[bytes, int | list[int]] = {}  # numbers take a third of the room of tuples
        self._sources: list[_Source] = []
        self._open: OrderedDict[int, int] = OrderedDict()
        self.count = 0

    def read(self, path: Path, run: str) -> None:
        """Read the file of a run, of which another process may write more; what is no line of ours is passed over.

        Raises
        ------
        OSError
            It cannot be read, or is no plain file of the user.

        """
        with kept_runs.opened(path) as file:
            first = kept_runs.first_line(run)
            if read_at(file, 0, len(first)) != first:
                return  # of a newer version, or of another run whose name begins alike
            found = os.fstat(file)
            source = _Source(path, (found.st_dev, found.st_ino), found.st_size)
            number = len(self._sources)
            self._sources.append(source)
            self._scan(file, number, len(first), source.size)
            self._keep_open(number, os.dup(file))

    def _scan(self, file: int, number: int, offset: int, size: int) -> None:
        """Take note of the lines that are whole and end as ours do, from an offset to an end."""
        places, rest, is_long, taken = self._places, b"", False, number << 2 * _BITS
        while offset + len(rest) < size:
            piece = read_at(file, offset + len(rest), min(_CHUNK, size - offset - len(rest)))
            if not piece:  # it has become shorter
                return
            data, begin = rest + piece, 0
            while (end := data.find(b"\n", begin) + 1) > 0:
                key = end - _TO_KEY
                if data.endswith(END, begin, end) and data.startswith(KEY, key - len(KEY)):
                    with suppress(HexError):
                        digest = unhexlify(data[key : key + _HEX])
                        if data.startswith(BEGIN, begin) and not is_long:
                            place = taken | (offset + begin) << _BITS | end - begin
                            known = places.setdefault(digest, place)
                            if type(known) is list:
                                known.append(place)
                            elif known != place:
                                places[digest] = [known, place]  # type: ignore[list-item]  # a number
                            self.count += 1
                begin, is_long = end, False
            offset, rest = offset + begin, data[begin:]
            if len(rest) > MAX_LINE:
                offset, rest, is_long = offset + len(rest), b"", True

    def place(self, key: str, occurrence: int) -> int | None:
        """Return where the n-th answer to a key stands, from 0; None where there is none."""
        try:
            found = self._places.get(unhexlify(key))
        except (HexError, ValueError):
            return None
        if type(found) is list:
            return found[occurrence] if 0 <= occurrence < len(found) else None
        return found if occurrence == 0 else None  # type: ignore[return-value]  # a number

    def answer(self, key: str, place: int) -> dict[str, Any] | None:
        """Return the answer of a place; None where a file is gone, or was cut or written over by another program."""
        number, offset = place >> 2 * _BITS, place >> _BITS & (1 << _BITS) - 1
        try:
            line = read_at(self._file(number), offset, place & (1 << _BITS) - 1)
            found = json.loads(line)
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("key") != key or found.get("version") != VERSION:
            return None
        answer = found.get("answer")
        return answer if isinstance(answer, dict) else None

    def _file(self, number: int) -> int:
        """Return a file that is open to be read."""
        file = self._open.get(number)
        if file is not None:
            return file
        source = self._sources[number]
        with kept_runs.opened(source.path) as file:
            found = os.fstat(file)
            if (found.st_dev, found.st_ino) != source.identity:
                raise FileNotFoundError
            return self._keep_open(number, os.dup(file))

    def _keep_open(self, number: int, file: int) -> int:
        self._open[number] = file
        if len(self._open) > _MOST_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return file

    def close(self) -> None:
        """Close the files, and forget what is in them."""
        while self._open:
            with suppress(OSError):
                os.close(self._open.popitem()[1])
        self._places = {}

    def remove(self) -> None:
        """Remove the files that nobody has added to since they were read, and whose run does not go on."""
        for source in self._sources:
            kept_runs.remove(source.path, source.is_unchanged)
