"""What a server's error document says, out of the many shapes in which servers write one."""

from __future__ import annotations

import html
import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_LONGEST = 400
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LITELLM = re.compile(r"^litellm\.(?:\w+Error: (?:litellm\.)?)+(?:\w+Exception - )?")
_LITELLM_TAIL = re.compile(
    r"\n+(?:model=\S+ context_window_fallbacks|LiteLLM: model group|Received Model Group).*", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error document, read: `code`, `kind` and `param` in the server's words, empty where it said nothing.

    `inner` is the error object itself, for what only one kind of server adds.
    """

    message: str = ""
    code: str = ""
    kind: str = ""
    param: str = ""
    page: bool = False
    """Whether it was a page for people, not a document."""
    inner: dict[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> frozenset[str]:
        """Code and kind, in lower case, to be compared with known ones."""
        return frozenset({self.code.lower(), self.kind.lower()} - {""})


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Return `text` as one line of at most `longest` characters, without control characters."""
    line = " ".join(_CONTROL.sub(" ", text).split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def read_error_body(document: object) -> ErrorBody:
    """Return what an error document of any shape says.

    >>> read_error_body({"error": {"message": "no", "code": 400}}).code
    '400'
    >>> read_error_body({"detail": "Not Found"}).message
    'Not Found'
    """
    if isinstance(document, bytes):
        document = document.decode("utf-8", "replace")
    if isinstance(document, str):
        if not document.lstrip().startswith("<"):
            return ErrorBody(one_line(document))
        title = _TITLE.search(document)
        titled = f" titled “{one_line(html.unescape(title[1]), 80)}”" if title else ""
        return ErrorBody(f"an HTML page{titled}", page=True)
    if isinstance(document, list) and document and isinstance(document[0], dict):
        return read_error_body(document[0])
    if not isinstance(document, dict):
        return ErrorBody()
    error = document.get("error")
    if error is None and isinstance(document.get("response"), dict):
        return read_error_body(document["response"])
    if isinstance(error, str):
        description = document.get("error_description") or document.get("message")
        said = f"{error}: {description}" if isinstance(description, str) else error
        return ErrorBody(one_line(said), _word(document.get("code")), inner=document)
    if isinstance(error, list):
        error = next((item for item in error if isinstance(item, dict)), {"message": error})
    inner = error if isinstance(error, dict) else document
    message: object = inner.get("message") or inner.get("detail") or inner.get("msg") or inner.get("errors")
    nested = inner.get("metadata")  # OpenRouter: the words of the server behind it
    if isinstance(nested, dict) and isinstance(nested.get("raw"), str):
        message = f"{_text(message)}: {_text(nested['raw'])}"
    return ErrorBody(
        one_line(_text(message) or _as_json(inner)),
        _word(inner.get("code")) or _word(inner.get("status")),
        _word(inner.get("type")) if inner.get("type") != "error" else "",
        _word(inner.get("param")),
        inner=inner,
    )


def _text(message: object) -> str:
    if isinstance(message, str) and message.lstrip().startswith("{"):  # a document in a document
        with suppress(ValueError, RecursionError):
            message = json.loads(message)
    if isinstance(message, dict):
        inner = message.get("error", message)
        said = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
        return said if isinstance(said, str) and said else _as_json(message)
    if isinstance(message, str):  # the proxy LiteLLM wraps the words of the server behind it
        return _LITELLM_TAIL.sub("", _LITELLM.sub("", message)) if message.startswith("litellm.") else message
    if isinstance(message, list):  # FastAPI: [{"loc": ["body", "temperature"], "msg": "…"}]
        return "; ".join(_validation(item) for item in message)
    return "" if message is None else str(message)


def _as_json(document: dict[str, Any]) -> str:
    """Return a document of no known shape as it is; nothing for an empty one."""
    with suppress(ValueError, TypeError, RecursionError):
        return json.dumps(document, ensure_ascii=False) if document else ""
    return ""


def _validation(item: object) -> str:
    if not isinstance(item, dict):
        return str(item)
    location = ".".join(str(step) for step in item.get("loc") or () if step != "body")
    said = str(item.get("msg") or item.get("message") or "")
    return f"'{location}': {said}" if location else said


def _word(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
