"""A file fetched from a server onto the disk: whole or not at all, a little of it in memory at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from llm_magic import private_files
from llm_magic.errors import ConfigurationError, ConnectionFailedError, Origin, ProviderError, TimedOutError
from llm_magic.wire.attempts import HttpRequest, attempts
from llm_magic.wire.connection import ERROR_BODY, STRIDE, Connection, Patience
from llm_magic.wire.documents import ErrorDocument, error_in, is_cut, parse_or_text
from llm_magic.wire.errors import cause_of, class_names, translate

LARGEST_FILE = 1 << 34
"""Bytes of a file, at most (16 GiB): what is larger is a fault."""

_LONGEST_LINE = 1 << 24
_ASKED = {"Accept": "application/binary", "Accept-Encoding": "identity"}
"""Not compressed: a transport does not tell where a compressed body was cut."""


async def download(request: HttpRequest, path: Path, known_size: Callable[[], Awaitable[int | None]]) -> int:
    """Fetch JSON lines into a new file for the user alone, which takes the place of `path`; return its bytes.

    What breaks off is fetched anew, as other requests are repeated. A body whose length no header tells is whole where
    it has the size that the server knows of the file, or else where its last line is not cut.

    Parameters
    ----------
    request
        A GET.
    path
        Gets the file once it is whole and on the disk.
    known_size
        Asks for the bytes of the file; None where nobody knows.

    Raises
    ------
    ConfigurationError
        It cannot be written.
    LLMError
        As of `wire.attempts.fetch`.

    """
    request = replace(request, headers={**request.headers, **_ASKED})
    try:
        with private_files.replacing(path) as opened:
            size = await _fetched(request, opened, known_size)
            await asyncio.to_thread(_to_disk, opened)
            return size
    except (OSError, _NotWrittenError) as error:
        raise ConfigurationError(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}.",
            "Make room or set another folder, then run the cell again: the server still has the file.",
        ) from None


async def _fetched(request: HttpRequest, opened: BinaryIO, known_size: Callable[[], Awaitable[int | None]]) -> int:
    size, connection = 0, None
    try:
        async with aclosing(attempts(request)) as made:
            async for _, came in made:
                if came is not None:
                    connection = came
                    size = await _copied(request, came, opened, known_size)
    except _NotWrittenError:
        raise
    except Exception as error:  # noqa: BLE001 - translated
        ours = translate(error, request.origin, request.known_secrets, proxy=request.proxy)
        raise ours from cause_of(ours, error)
    finally:
        if connection is not None:
            await connection.close()
    return size


async def _copied(
    request: HttpRequest, connection: Connection, opened: BinaryIO, known_size: Callable[[], Awaitable[int | None]]
) -> int:
    """Write an answer's body to a file, from its start; one that broke off is marked on its connection."""
    with _on_disk():
        opened.seek(0)
        opened.truncate()
    size, progress, patience, began = 0, 0, Patience(request.seconds), b""
    try:
        while True:
            async with asyncio.timeout_at(patience.ends):
                data = await connection.take()
            if data is None:
                break
            began = began or data.lstrip()[:1]
            _write(opened, data, size)
            size += len(data)
            patience.hear(progress=size // STRIDE > progress)
            progress = size // STRIDE
    except (ErrorDocument, _NotWrittenError):
        raise
    except Exception as error:  # noqa: BLE001 - the transport's; told as a download that broke off
        connection.broken = _broken(request.origin, size, patience.words(), error)
    else:
        if began == b"<":
            raise ErrorDocument(_head(opened).decode("utf-8", "replace"), malformed=True)
        if size <= ERROR_BODY and began == b"{":
            document = parse_or_text(_head(opened))
            if isinstance(document, dict) and "custom_id" not in document and error_in(document):
                raise ErrorDocument(document)
        if not _is_framed(connection) and not _is_whole(opened, size, await known_size()):
            connection.broken = _broken(request.origin, size, "", None)
    connection.repeatable = connection.broken is not None
    return size


def _is_framed(connection: Connection) -> bool:
    """Return whether the transport itself finds out where a body was cut."""
    coded = connection.headers.get("content-encoding", "identity") != "identity"
    return not coded and bool(connection.headers.keys() & {"content-length", "transfer-encoding"})


def _is_whole(opened: BinaryIO, size: int, known: int | None) -> bool:
    """Return whether a body is whole whose end no transport tells: by the size of the file, or by its last line."""
    return size >= known if known else not is_cut(_last_line(opened, size))


def _broken(origin: Origin, size: int, silence: str, error: Exception | None) -> ProviderError:
    names = set() if error is None else class_names(error)
    kind: type[ProviderError] = ConnectionFailedError
    why = "it ended too early" if error is None else "the connection was lost"
    if names & {"TimeoutError", "TimeoutException"}:
        kind, why = TimedOutError, silence
    elif "DecodingError" in names:
        why = "what came cannot be decompressed"
    broken = kind(
        f"{origin} broke off while a file was fetched, after {size:,} bytes: {why}.",
        "Fetch it again: the server still has the file.",
        origin=origin,
    )
    broken.__cause__ = error
    return broken


class _NotWrittenError(Exception):
    """The disk did not take what came, and why."""


@contextmanager
def _on_disk() -> Iterator[None]:
    """Tell the disk's errors from those of the network."""
    try:
        yield
    except OSError as error:
        raise _NotWrittenError(error.strerror or str(error)) from error


def _write(opened: BinaryIO, data: bytes, size: int) -> None:
    """Write what came after `size` bytes."""
    if size + len(data) > LARGEST_FILE:
        raise ErrorDocument(f"a file of more than {LARGEST_FILE >> 30} GiB", malformed=True)
    with _on_disk():
        opened.write(data)


def _head(opened: BinaryIO) -> bytes:
    with _on_disk():
        opened.seek(0)
        return opened.read(ERROR_BODY)


def _last_line(opened: BinaryIO, size: int) -> bytes:
    """Return what follows the last line break of a file, of a line of ordinary length."""
    with _on_disk():
        opened.seek(max(0, size - _LONGEST_LINE))
        return opened.read(_LONGEST_LINE).rpartition(b"\n")[2]


def _to_disk(opened: BinaryIO) -> None:
    opened.flush()
    os.fsync(opened.fileno())
