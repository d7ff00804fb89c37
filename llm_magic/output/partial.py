"""Partial JSON: the value so far of a document that is still being written."""

from __future__ import annotations

import re
import time
from typing import Any

from pydantic_core import from_json

_FENCE = re.compile(r"\s*(?:```|~~~)[^\n]*\n\s*")
_SMALL = 32_768
"""Characters that are read within a fraction of a millisecond."""
_SHARE = 0.1
"""Of the time, what goes into reading a longer text again and again, at most."""


class PartialJSON:
    """The value of a JSON text of which more may come.

    >>> partial = PartialJSON()
    >>> partial.feed('[{"name": "Ul')
    >>> partial.value
    [{'name': 'Ul'}]
    >>> partial.feed('m", "people": 12')
    >>> partial.value
    [{'name': 'Ulm'}]

    """

    def __init__(self) -> None:
        self._text = ""
        self._new: list[str] = []
        self._start: int | None = None  # where the document begins
        self._value: Any = None
        self._due = 0.0  # when a long text may be read again

    def feed(self, text: str) -> None:
        """Take more of the text; costs the same whatever came before."""
        self._new.append(text)

    @property
    def value(self) -> Any:
        """The value so far; None before it begins.

        A number appears when it is complete, a string as it arrives; what is no JSON, and all
        behind it, does not. The text is read from its beginning, so a long one may be known as it
        was a moment ago, until it ends.
        """
        if not self._new:
            return self._value
        self._text += "".join(self._new)
        self._new.clear()
        started = time.perf_counter()
        if len(self._text) < _SMALL or started >= self._due or self._may_have_ended():
            self._value = self._read()
            now = time.perf_counter()
            self._due = now + (now - started) / _SHARE
        return self._value

    def _may_have_ended(self) -> bool:
        return self._text.endswith("]" if isinstance(self._value, list) else "}")

    def _read(self) -> Any:
        if self._start is None:
            self._start = _beginning(self._text)
        if self._start is None:
            return None
        document = self._text[self._start :].encode(errors="replace")
        value = _parsed(document)
        before_number = document.rstrip(b"+-.0123456789eE")
        unfinished = len(before_number) < len(document) and isinstance(_last(value), (int, float))
        return _parsed(before_number) if unfinished else value


def _beginning(text: str) -> int | None:
    """Return where the document begins, behind a fence or prose; None: not to be told yet."""
    fence = _FENCE.match(text)
    if fence:
        return fence.end()
    stripped = text.lstrip()
    if not stripped or "```".startswith(stripped[:3]):
        return None
    if stripped[0] in '{["-0123456789':
        return len(text) - len(stripped)
    found = re.search(r"[{[]", text)
    return found.start() if found else None


def _parsed(document: bytes) -> Any:
    """Return the value of the beginning of a document, as far as it is JSON."""
    try:
        return from_json(document, allow_partial="trailing-strings", cache_strings="keys")
    except ValueError as error:
        line, column = map(int, re.findall(r"\d+", str(error))[-2:])
    end = sum(len(before) + 1 for before in document.split(b"\n")[: line - 1]) + column - 1
    return _parsed(document[:end]) if 0 < end < len(document) else None


def _last(value: Any) -> Any:
    """Return the scalar that was written last."""
    while value and isinstance(value, (dict, list)):
        value = value[next(reversed(value))] if isinstance(value, dict) else value[-1]
    return value
