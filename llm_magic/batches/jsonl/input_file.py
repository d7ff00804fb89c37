"""The input file of a batch: a request a line, each checked and written as it comes, in as many files as limits ask.

A line is `{"custom_id": …, "method": "POST", "url": …, "body": …}`, by
https://platform.openai.com/docs/api-reference/batch/request-input.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EFBIG
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json

from llm_magic import private_files
from llm_magic.errors import PromptError
from llm_magic.wire.errors import half_of_a_pair

MOST_ROWS = 50_000
"""Requests that a file may hold. Source: https://platform.openai.com/docs/api-reference/batch/create."""
MOST_EMBEDDED = 50_000
"""Texts that all requests of a file for embeddings may have together. Source: the same."""
MOST_BYTES = 200_000_000
"""Bytes that it may have. Source: the same."""

_KEY = 32
_CUSTOM_ID = re.compile(r"(0|[1-9][0-9]{0,14})-([0-9a-f]{32})")
_BUFFER = 2**20
_MOST_BYTES_OF_IDS = 64 * 2**20
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

# Legal within a JSON text, and yet an end of a line to readers that split by what Unicode calls one.
_LINE_ENDS = (
    ("\x85".encode(), b"\\u0085"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def custom_id(number: int, key: str) -> str:
    """Return the name of a row in its batch: its number in the input and the beginning of its key.

    >>> custom_id(7, "0123456789abcdef" * 4)
    '7-0123456789abcdef0123456789abcdef'
    """
    return f"{number}-{key[:_KEY]}"


def parse_custom_id(text: object) -> tuple[int, str] | None:
    """Return the number and the beginning of the key in the name of a row; None for what is none of ours.

    >>> parse_custom_id("7-0123456789abcdef0123456789abcdef")
    (7, '0123456789abcdef0123456789abcdef')
    >>> parse_custom_id("request-1")
    """
    found = _CUSTOM_ID.fullmatch(text) if isinstance(text, str) else None
    return (int(found[1]), found[2]) if found else None


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that is written whole: `rows` requests in `size` bytes.

    `ids_path` has their custom ids, one a line in the same order; `digest` is the SHA-256 of the file, in hexadecimal.
    """

    path: Path
    ids_path: Path
    rows: int
    size: int
    digest: str


@dataclass(slots=True)
class _Part:
    """A file while it is written."""

    path: Path
    ids_path: Path
    file: BinaryIO
    ids: BinaryIO
    rows: int = 0
    inputs: int = 0
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class InputFileWriter:
    """Writes requests as input files of a batch, for the user alone; a new one begins before a limit would be passed.

    What `write` was given stays in memory only up to a buffer. Whoever makes one calls `close` or `discard`.

    Parameters
    ----------
    path_of
        The path of a file and that of its ids, by the number of the file, from 0. Both are made, and must not be there.
    url
        The path that each request is for, such as `/v1/chat/completions`.
    most_rows, most_bytes
        What a file may hold: requests, or what these ask for where one asks for several things; and bytes.

    """

    def __init__(
        self,
        path_of: Callable[[int], tuple[Path, Path]],
        url: str,
        *,
        most_rows: int = MOST_ROWS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._path_of = path_of
        self._to_body = b'","method":"POST","url":' + json.dumps(url).encode() + b',"body":'
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._part: _Part | None = None
        self._files: list[InputFile] = []
        self._made: list[Path] = []
        self._ended = False

    def write(self, number: int, key: str, body: bytes, *, inputs: int = 1) -> None:
        """Add a row: its number in the input, its key (SHA-256, in hexadecimal), and the JSON object of its request.

        `inputs` is for how many it counts by the limit of rows: a request for embeddings for as many as it has texts.

        Raises
        ------
        PromptError
            The request cannot stand in such a file. Nothing was written, and others can be.
        OSError
            It cannot be written: the disk is full, or there is something of the file's name. What this wrote is
            removed, and the writer ended.

        """
        self._require_open()
        name = custom_id(number, key)
        if parse_custom_id(name) is None:
            raise ValueError(f"no number of a row, or no key of one: {name!r}")
        line = self._line(name, body)
        try:
            part = self._part
            if part is not None and (
                part.inputs + inputs > self._most_rows or part.size + len(line) > self._most_bytes
            ):
                self._finish(part)
                part = None
            if part is None:
                part = self._part = self._begin()
            part.file.write(line)
            part.ids.write(name.encode() + b"\n")
        except BaseException:
            self.discard()
            raise
        part.digest.update(line)
        part.size += len(line)
        part.rows += 1
        part.inputs += inputs

    def _line(self, name: str, body: bytes) -> bytes:
        """Return the line of a row."""
        escaped = body
        for end, escape in _LINE_ENDS:
            escaped = escaped.replace(end, escape)
        line = b"".join((b'{"custom_id":"', name.encode(), self._to_body, escaped, b"}\n"))
        if len(line) > self._most_bytes:
            raise PromptError(
                f"The request has {len(line):,} bytes, and a whole file of a batch holds {self._most_bytes:,}.",
                "Shorten the prompt, name its images by URL, or ask without --batch.",
            )
        require_request(body)
        return line

    def _begin(self) -> _Part:
        path, ids_path = self._path_of(len(self._files))
        file = self._create(path)
        try:
            return _Part(path, ids_path, file, self._create(ids_path))
        except BaseException:
            _close(file)
            raise

    def _create(self, path: Path) -> BinaryIO:
        file = os.fdopen(os.open(path, _FLAGS, private_files.MODE), "wb", _BUFFER)
        self._made.append(path)  # from here on it is ours to remove
        if hasattr(os, "fchmod"):  # whatever the umask; Windows has neither
            try:
                os.fchmod(file.fileno(), private_files.MODE)
            except BaseException:
                _close(file)
                raise
        return file

    def _finish(self, part: _Part) -> None:
        for file in (part.file, part.ids):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self._files.append(InputFile(part.path, part.ids_path, part.rows, part.size, part.digest.hexdigest()))
        self._part = None

    def close(self) -> list[InputFile]:
        """Return the files, whole and on the disk; none where there was no row.

        Raises
        ------
        OSError
            One cannot be written. All are removed.

        """
        self._require_open()
        try:
            if self._part is not None:
                self._finish(self._part)
        except BaseException:
            self.discard()
            raise
        self._ended = True
        return list(self._files)

    def discard(self) -> None:
        """Remove all that was written, also after `close`."""
        self._ended = True
        if self._part is not None:
            _close(self._part.file)
            _close(self._part.ids)
            self._part = None
        while self._made:
            with suppress(OSError):
                self._made.pop().unlink()
        self._files = []

    def _require_open(self) -> None:
        if self._ended:
            raise ValueError("the writer is closed")


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # of what could not be written
        file.close()


def require_request(body: bytes) -> None:
    r"""Raise PromptError for a request that would fail its whole batch elsewhere: all but a JSON object on one line.

    >>> require_request(b'{"temperature": NaN}')
    Traceback (most recent call last):
    llm_magic.errors.PromptError: The request is no JSON: expected value at line 1 column 17.
    --dry-run shows what would be sent.
    """
    hint = "--dry-run shows what would be sent."
    if b"\n" in body or b"\r" in body:
        raise PromptError("The request is not on one line, as a file of a batch needs it.", hint)
    try:
        document = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        if "hex escape" in str(error):
            raise half_of_a_pair() from None
        raise PromptError(f"The request is no JSON: {error}.", hint) from None
    if type(document) is not dict:
        raise PromptError("The request is no JSON object.", hint)


def read_ids(path: Path) -> list[str]:
    """Return the custom ids in a file of them, in the order of the rows in their input file.

    Line n of the input file is `read_ids(…)[n - 1]`. A line that was damaged counts, and is no custom id of ours.

    Raises
    ------
    OSError
        It is not there, cannot be read, or is none of ours by its size; `NotPlainError`: it is no plain file.

    """
    data, _ = private_files.read(path, _MOST_BYTES_OF_IDS + 1)
    if len(data) > _MOST_BYTES_OF_IDS:
        raise OSError(EFBIG, "too large for the custom ids of a batch", str(path))
    return data.decode("utf-8", "replace").removesuffix("\n").split("\n") if data else []
