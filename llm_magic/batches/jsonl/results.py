"""The files of results that a batch left, read line by line: of each row its answer, or why it has none.

Answers stand in the output file, failures in the error file or among the answers. The format is
https://platform.openai.com/docs/api-reference/batch/request-output; Azure's is the same
(https://learn.microsoft.com/azure/foundry/openai/how-to/batch). What differs is read here as well: a request that was
refused has its error as the body of its response (OpenAI), within `error.error` (vLLM's `run_batch`), or as the text of
an exception, without a response (llama-stack, whose bodies are JSON in a string).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from llm_magic import private_files
from llm_magic.errors import LLMError, NotAskedError, Origin, ProtocolError, TimedOutError
from llm_magic.recordings.locked_file import opened
from llm_magic.secrets import finder, hidden, hide
from llm_magic.wire.documents import error_in, parse
from llm_magic.wire.error_body import read_error_body
from llm_magic.wire.errors import translate
from llm_magic.wire.refusals import refused

MOST_LINE_BYTES = 64 * 2**20
"""Bytes of a line that is read; a longer one is passed over."""

_BUFFER = 2**18
BOM = b"\xef\xbb\xbf"
_LAST_STATUS = 599
_AGAIN = "Run the cell again: only what is missing is asked."
_NEITHER = "neither an answer nor an error"
_TOO_DEEP = "an error that is nested too deeply to be read"
_NOT_ASKED = {
    "batch_expired": "Not asked: the batch expired before this row's turn.",
    "batch_cancelled": "Not asked: the batch was cancelled before this row's turn.",
}
"""Codes of rows whose turn did not come. Source: `BatchRequestOutput` of https://github.com/openai/openai-openapi."""
_TIMED_OUT = "request_timeout"
"""The code of a row whose model did not answer in time, from the same."""


@dataclass(frozen=True, slots=True)
class ResultError:
    """Why a row has no answer, in the server's words: its `message`, `code` and `kind` (`type`), empty if it said none.

    `status` is the HTTP status of the failure: None where there was none, 2xx where what the server calls an answer is
    none. `details` is what it wrote of it, as JSON. Nothing of it is masked: `error_of` does that.
    """

    message: str = ""
    code: str = ""
    kind: str = ""
    status: int | None = None
    request_id: str | None = None
    details: Any = None


@dataclass(frozen=True, slots=True)
class RowResult:
    """What a batch says of a row: `body`, the document that answered, or an `error`; always one of them.

    `status` and `request_id` are those of the request within the batch, as far as the server names them.
    """

    custom_id: str
    body: dict[str, Any] | None
    status: int | None
    request_id: str | None
    error: ResultError | None


@dataclass(frozen=True, slots=True)
class UnreadableLine:
    """A line that is no result of any row: its `number` in the file, from 1, and the `reason` as a sentence's end.

    A reason may repeat what the server says: what shows it masks secrets.
    """

    number: int
    reason: str


def read_results(path: Path) -> Iterator[RowResult | UnreadableLine]:
    """Yield what each line of a file of results says, in the file's order; of one row there may be several.

    Nothing in the file raises.

    Raises
    ------
    OSError
        It is not there, or cannot be read; `NotPlainError`: it is no plain file.

    """
    return (result for _, result in placed_results(path))


def placed_results(path: Path) -> Iterator[tuple[tuple[int, int], RowResult | UnreadableLine]]:
    """Yield what `read_results` does, each with its place: where its line begins, in bytes, and how long that is."""
    with opened(path) as descriptor, open(descriptor, "rb", _BUFFER, closefd=False) as file:
        at = 0
        for number in count(1):
            line = file.readline(MOST_LINE_BYTES + 1)
            if not line:
                return
            place = at, len(line)
            at += len(line)
            is_whole = line.endswith(b"\n")
            if len(line) > MOST_LINE_BYTES and not is_whole:
                while rest := file.readline(_BUFFER):
                    at += len(rest)
                    if rest.endswith(b"\n"):
                        break
                yield place, UnreadableLine(number, f"it is longer than {MOST_LINE_BYTES:,} bytes")
                continue
            if number == 1:
                line = line.removeprefix(BOM)
            if not line.isspace() and line:
                yield place, _read(line, number, is_whole)


def result_at(path: Path, place: tuple[int, int]) -> RowResult | None:
    """Return the result in a place of a file that `placed_results` gave; None where it is there no more."""
    with opened(path) as descriptor, open(descriptor, "rb", 0, closefd=False) as file:
        file.seek(place[0])
        found = _read(file.read(place[1]).removeprefix(BOM), 1, is_whole=True)
    return found if isinstance(found, RowResult) else None


def hide_secrets(path: Path, known: Iterable[str]) -> None:
    """Mask secrets that a server has repeated in a file of results; one without any stays as it is.

    Raises
    ------
    OSError
        It is not there, or cannot be written anew.

    """
    known = tuple(known)
    is_held = finder(known)
    with path.open("rb", _BUFFER) as file:
        if not any(map(is_held, _texts(file))):
            return
        file.seek(0)
        with private_files.replacing(path) as masked:
            for text in _texts(file):
                masked.write((hide(text, known) if is_held(text) else text).encode("utf-8", "surrogateescape"))


def _texts(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a file, of longer ones their pieces."""
    while line := file.readline(MOST_LINE_BYTES):
        yield line.decode("utf-8", "surrogateescape")


def _read(line: bytes, number: int, is_whole: bool) -> RowResult | UnreadableLine:
    try:
        document = parse(line)
    except ValueError:
        return UnreadableLine(number, "it is no JSON" if is_whole else "the file ends in the midst of it")
    if not isinstance(document, dict):
        return UnreadableLine(number, "it is no JSON object")
    custom_id = document.get("custom_id")
    if isinstance(custom_id, str) and custom_id:
        return _row(custom_id, document)
    said = read_error_body(document).message if document.get("error") else ""
    return UnreadableLine(number, f"it names no row; it says: {said}" if said else "it names no row")


def _row(custom_id: str, document: dict[str, Any]) -> RowResult:
    response, error = _unpacked(document.get("response")), _unpacked(document.get("error"))
    status = request_id = None
    body = response
    if isinstance(response, dict) and ("body" in response or "status_code" in response):
        status = _status(response.get("status_code"))
        body = _unpacked(response.get("body"))
        named = response.get("request_id")
        request_id = named if isinstance(named, str) and named else None
    if _says_nothing(error):
        if isinstance(body, dict) and _is_answer(body, status):
            return RowResult(custom_id, body, status, request_id, None)
        error = body
        if _is_good(status) and not (isinstance(body, dict) and error_in(body)):
            unusable = ResultError(_unusable(body), "", "", status, request_id, body)
            return RowResult(custom_id, None, status, request_id, unusable)
    failure = _failure(error, None if _is_good(status) else status, request_id)
    return RowResult(custom_id, None, status if status is not None else failure.status, request_id, failure)


def _unpacked(value: Any) -> Any:
    """Return a JSON object that stands in a string; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] != "{":
        return value
    try:
        document = parse(value.encode("utf-8", "replace"))
    except ValueError:
        return value
    return document if isinstance(document, dict) else value


def _status(value: object) -> int | None:
    """Return an HTTP status, also of a string; None for what is none."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{3}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and HTTPStatus.CONTINUE <= value <= _LAST_STATUS else None


def _is_good(status: int | None) -> bool:
    return status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


def _is_answer(body: dict[str, Any], status: int | None) -> bool:
    return bool(body) and (status is None or _is_good(status)) and not error_in(body)


def _says_nothing(error: Any) -> bool:
    """Return whether an `error` is there in name only, as `null`, `""`, or an object of nulls."""
    return not any(error.values()) if isinstance(error, dict) else not error


def _unusable(body: Any) -> str:
    """Return what is wrong with a body that came with a good status."""
    if not body:
        return _NEITHER
    return read_error_body(body).message if isinstance(body, str) else "no JSON object"


def _failure(details: Any, status: int | None, request_id: str | None) -> ResultError:
    told, document = _told(details)
    said = read_error_body(document)
    outer = read_error_body(details)
    code = said.code or outer.code
    if status is None:
        status = told or (_status(code) if not _is_good(_status(code)) else None)
    return ResultError(said.message, code, said.kind or outer.kind, status, request_id, details)


_TOLD = re.compile(r"Error code: ([1345][0-9]{2}) - (.*)", re.DOTALL)
"""How the SDK that asked for the server writes an error of the one behind it."""
_FIELD = re.compile(r"""'(message|type|param|code)': (?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([0-9]+))""", re.DOTALL)
"""A field of a document that was written as Python writes it."""


def _told(details: Any) -> tuple[int | None, Any]:
    """Return the status and the document of an error that was told as the text of an exception; else None and itself.

    >>> _told({"type": "request_failed", "message": "Error code: 429 - {'error': {'message': 'Slow down'}}"})
    (429, {'error': {'message': 'Slow down'}})
    """
    text = details
    for name in ("error", "message"):
        text = text.get(name, text) if isinstance(text, dict) else text
    found = _TOLD.match(text) if isinstance(text, str) else None
    if found is None:
        return None, details
    words = _unpacked(found[2])
    if isinstance(words, str) and words.startswith("{"):
        fields: dict[str, str] = {}
        for name, single, double, digits in _FIELD.findall(words):
            fields.setdefault(name, re.sub(r"\\(?:n|t|(.))", lambda each: each[1] or " ", single or double or digits))
        words = {"error": fields} if fields else words
    return int(found[1]), words


def error_of(result_error: ResultError, origin: Origin, *, known: Iterable[str] = (), body: Any = None) -> LLMError:
    """Return our exception for a row that has no answer, of the class that the same refusal has outside a batch.

    `known` are secrets to be masked, `body` is what was sent, for the error to name the option behind a field.
    """
    status, request_id, known = result_error.status, result_error.request_id, tuple(known)
    code = result_error.code.lower()
    if code in _NOT_ASKED:
        return NotAskedError(_NOT_ASKED[code], _AGAIN)
    try:
        details = hidden(result_error.details, known)  # before anything is cut: half a key is one, too
    except RecursionError:
        details = {"message": _TOO_DEEP, "code": result_error.code, "type": result_error.kind}
    document = _told(details)[1]
    said = read_error_body(document).message
    if code == _TIMED_OUT:
        what = f"{origin} did not answer this row in time: {said}"
        late = TimedOutError(what, _AGAIN, origin=origin, status=status, request_id=request_id, body=details)
        return translate(late, origin, known)
    if _is_good(status) or not (status or said):
        what = f"{origin} wrote a result of this row that is no answer: {_unusable(details)}"
        hint = f"The fault is the server's. {_AGAIN}"
        unusable = ProtocolError(what, hint, origin=origin, status=status, request_id=request_id, body=details)
        return translate(unusable, origin, known)
    headers = {"x-request-id": request_id} if request_id else {}
    error = refused(document, status, origin, headers=headers, known=known, body=body)
    if "--retries" in error.hint:  # which are those of requests from here
        error.hint = _AGAIN
    return error
