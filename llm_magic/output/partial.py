"""A JSON document that grows: each character is read once, and the value so far is there at any time.

Text is only kept when it arrives; it is read when the value is asked for, so that whole records go through the C reader
of `json`. What stands open (objects, arrays, one string) is kept open, and never read again from its beginning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from llm_magic.markdown.fences import RUN

_BETWEEN = re.compile(r"[\s,]*")
_COLON = re.compile(r"\s*:\s*")
_WORD = re.compile(r"[-+.0-9A-Za-z]+")
_INSIDE = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_OPEN_ESCAPE = re.compile(r"\\u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\|\\u[0-9a-fA-F]{0,3})?)$")
_FENCE = re.compile(rf"\s*(?:{RUN})[^\n]*\n\s*", re.MULTILINE)
_CLOSING = {"{": "}", "[": "]"}
_MAX_DEPTH = 100

_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(strict=False).scan_once  # type: ignore[attr-defined]  # public, but not in typeshed
"""Reads one value at a place; `raw_decode` would count all lines before an error."""


class PartialJSON:
    """The value of a JSON text of which more may come.

    >>> growing = PartialJSON()
    >>> growing.feed('[{"name": "Ul')
    >>> growing.value
    [{'name': 'Ul'}]
    >>> growing.feed('m", "people": 12')
    >>> growing.value
    [{'name': 'Ulm'}]

    """

    def __init__(self) -> None:
        self._new: list[str] = []
        self._rest = ""
        self._root: Any = None
        self._begun = False
        self._ended = False
        self._open: list[Any] = []  # containers, outermost first
        self._key: str | None = None  # of the member whose value comes next
        self._string: list[str] | None = None  # the string that stands open, in pieces
        self._stalled = False
        self._shown = True  # whether the open string stands in its container as far as it is known

    def feed(self, text: str) -> None:
        """Take more of the text; costs the same whatever came before."""
        self._new.append(text)

    @property
    def value(self) -> Any:
        """The value so far; None before it begins.

        It is the same object each time, and grows: read it, do not change or keep it. A number or a key appears when it
        is complete, a string as it arrives. Text that is no JSON ends the growth.
        """
        if self._new:
            self._rest += "".join(self._new)
            self._new.clear()
            if not self._ended:
                self._read()
        if self._string is not None and not self._shown:
            self._show("".join(self._string))
            self._shown = True
        return self._root

    @property
    def complete(self) -> bool:
        """Whether the document has ended, or broken off in what is no JSON."""
        return self._ended

    def _read(self) -> None:
        """Read what can be read of the rest."""
        text, at = self._rest, 0
        if not self._begun:
            start = self._beginning(text)
            if start is None:
                return
            at = start
            self._begun = True
        self._stalled = False
        while not (self._ended or self._stalled):
            if self._string is None:
                at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
                if at == len(text):
                    break
                at = self._next(text, at)
            else:
                at = self._more_of_string(text, at)
        self._rest = text[at:]

    def _wait(self, at: int) -> int:
        """Stop at `at` until there is more text."""
        self._stalled = True
        return at

    def _give_up(self, at: int) -> int:
        """Stop for good: what stands at `at` is no JSON."""
        self._ended = True
        return at

    @staticmethod
    def _beginning(text: str) -> int | None:
        """Return where the document begins: behind a fence or prose, where there is any; None: not to be told yet."""
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

    def _next(self, text: str, at: int) -> int:
        """Read a key, a value or a closing bracket at `at`; return where to go on."""
        character = text[at]
        if self._open:
            container = self._open[-1]
            if character in "}]":
                self._open.pop()
                self._ended = not self._open
                return at + 1
            if type(container) is dict and self._key is None:
                return self._member(text, at)
        if character in "{[":
            return self._container(text, at)
        if character == '"':
            return self._begin_string(text, at)
        word = _WORD.match(text, at)
        if word is None:
            return self._give_up(at)
        if word.end() == len(text):
            return self._wait(at)
        try:
            value, end = _scan(text, at)
        except (StopIteration, ValueError):
            return self._give_up(at)
        self._attach(value)
        return end

    def _member(self, text: str, at: int) -> int:
        if text[at] != '"':
            return self._give_up(at)
        end = _INSIDE.match(text, at + 1).end()  # type: ignore[union-attr]  # it matches nothing, too
        colon = _COLON.match(text, end + 1) if end < len(text) else None
        if colon is None or colon.end() == len(text):
            return self._wait(at)
        self._key = _decoded(text[at + 1 : end])
        return colon.end()

    def _container(self, text: str, at: int) -> int:
        character = text[at]
        if text.find(_CLOSING[character], at) > 0:
            try:
                value, end = _scan(text, at)
            except (StopIteration, ValueError, RecursionError):
                pass
            else:
                self._attach(value)
                return end
        if len(self._open) == _MAX_DEPTH:
            return self._give_up(at)
        inner: Any = {} if character == "{" else []
        self._attach(inner, opens=True)
        self._open.append(inner)
        return at + 1

    def _begin_string(self, text: str, at: int) -> int:
        self._string = []
        self._attach("", opens=True, keep_key=True)
        return self._more_of_string(text, at + 1)

    def _more_of_string(self, text: str, at: int) -> int:
        assert self._string is not None  # noqa: S101 - the callers see to it
        end = _INSIDE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        closed = end < len(text) and text[end] == '"'
        if not closed:
            held = _OPEN_ESCAPE.search(text, max(at, end - 12), end)
            end = held.start() if held else end
        if end > at:
            self._string.append(_decoded(text[at:end]))
            self._shown = False
        if not closed:
            return self._wait(end)
        self._show("".join(self._string))
        self._string = None
        self._key = None
        self._ended = not self._open
        return end + 1

    def _show(self, text: str) -> None:
        """Put the open string where it belongs."""
        if not self._open:
            self._root = text
        elif type(self._open[-1]) is dict:
            self._open[-1][self._key] = text
        else:
            self._open[-1][-1] = text

    def _attach(self, value: Any, *, opens: bool = False, keep_key: bool = False) -> None:
        """Put a value where it belongs; `opens`: more of it comes."""
        if not self._open:
            self._root = value
            self._ended = not opens
        elif type(self._open[-1]) is dict:
            self._open[-1][self._key] = value
            if not keep_key:
                self._key = None
        else:
            self._open[-1].append(value)


def _decoded(raw: str) -> str:
    """Return the text of the inside of a JSON string."""
    if "\\" not in raw:
        return raw
    try:
        return str(json.loads(f'"{raw}"', strict=False))
    except ValueError:
        return raw
