"""Exceptions without secrets: what one holds and shows, and all that led to it, masked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from traceback import clear_frames
from typing import Any

from llm_magic.secrets import MASK, hidden, masked_headers, masked_url


def scrub(error: BaseException, known: Iterable[str] = ()) -> None:
    """Mask secrets in an exception and in all that led to it: arguments, attributes, requests and answers it holds.

    Local variables of the frames that it has left are let go: reports with variables would show them.
    """
    known, waiting, seen = tuple(known), [error], set[int]()
    while waiting:
        link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        _scrub_one(link, known)
        if link.__traceback__ is not None:
            clear_frames(link.__traceback__.tb_next)  # the first one is where it was caught, and may go on
        inner = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
        waiting += [cause for cause in (link.__cause__, link.__context__, *inner) if cause is not None]


def _scrub_one(error: BaseException, known: tuple[str, ...]) -> None:
    with suppress(Exception):  # an exception that cannot be changed keeps what it says
        error.args = hidden(error.args, known)
    if isinstance(error, UnicodeEncodeError):  # of a header, as a rule
        error.object = MASK * len(error.object)
        error.args = (error.encoding, error.object, *error.args[2:])
    for name, value in list(getattr(error, "__dict__", {}).items()):
        masked = None
        with suppress(Exception):  # what cannot be masked is not kept
            masked = _masked_attribute(value, known)
        if masked is not value:
            with suppress(Exception):
                setattr(error, name, masked)


def _masked_attribute(value: Any, known: tuple[str, ...]) -> Any:
    """Return what an exception holds, masked; what is neither text nor part of an exchange is returned itself."""
    if isinstance(value, str | bytes | Mapping | list | tuple):
        masked = hidden(value, known)
        return value if masked == value and type(masked) is type(value) else masked
    if hasattr(value, "method") and hasattr(value, "url") and hasattr(value, "headers"):
        return _masked_request(value, known)
    if hasattr(value, "status_code") and hasattr(value, "headers"):
        return _masked_answer(value, known)
    return value


def _masked_request(request: Any, known: tuple[str, ...]) -> Any:
    """Return a request of the HTTP client without what it carried."""
    headers = masked_headers(dict(request.headers), known)
    return type(request)(request.method, masked_url(str(request.url), known), headers=headers)


def _masked_answer(answer: Any, known: tuple[str, ...]) -> Any:
    """Return an answer of the HTTP client, its headers and what has been read of its body masked."""
    content = b""
    with suppress(Exception):  # not read
        content = hidden(answer.content, known)
    framing = {"content-encoding", "content-length", "transfer-encoding"}
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in framing}
    request = None
    with suppress(Exception):
        request = _masked_request(answer.request, known)
    return type(answer)(answer.status_code, headers=masked_headers(headers, known), content=content, request=request)
