"""JSON in the text of an answer: the one document in it, or its value so far while it streams.

Where two documents could be meant, none is taken.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections import Counter
from typing import Any

from pydantic_core import from_json

from llm_magic.errors import InvalidValueError
from llm_magic.markdown.fences import RUN, code_blocks

WRAP = "value"
"""The key of the object that holds a value where an endpoint takes nothing but objects."""

_SURROGATE = re.compile(r"\\u[dD][89abABcdefCDEF]")


def loads(text: str) -> Any:
    """Read one JSON document by RFC 8259, refusing what readers usually let pass.

    A `ValueError` tells of no JSON, `NaN` or an infinite number, a number of too many digits, a key
    that appears twice, or half a surrogate pair.

    >>> loads('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}

    """
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a \\u escape is half of a surrogate pair") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {_brief(repr(twice))} appears twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{_brief(digits)} is too large for a number")
    return number


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python's own limit: https://docs.python.org/3/library/stdtypes.html#int-max-str-digits
        raise ValueError(f"a number of {len(digits):,} digits is too long") from None


def _brief(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:40]}…"  # noqa: PLR2004 - a line's worth


def unfenced(text: str) -> str:
    r"""Return the content of the only fenced block of a text, or all of it, stripped.

    >>> unfenced('Here it is:\n```json\n[1]\n```\n')
    '[1]'

    """
    stripped = text.strip()
    blocks = [block for block in code_blocks(stripped) if block.closed]
    return blocks[0].code.strip() if len(blocks) == 1 else stripped


def unwrapped(data: Any) -> Any:
    """Return the value in a document: what `{"value": …}` holds, or the document itself."""
    return data[WRAP] if isinstance(data, dict) and list(data) == [WRAP] else data


def read(text: str, *, object_root: bool) -> tuple[Any, str]:
    """Return the JSON document in an answer, as plain data and as it is written there.

    White space, one code fence around it, and, where an object is expected, prose around the only
    object are allowed. No JSON, or more than one document, is an `InvalidValueError`.
    """
    stripped = text.strip()
    if not stripped:
        raise InvalidValueError("The answer is empty; JSON was asked for.")
    try:
        return loads(stripped), stripped
    except ValueError as error:
        inner = unfenced(stripped)
        if inner == stripped and object_root and not stripped.startswith("{"):
            inner = _only_object(stripped)
        if inner != stripped:
            with contextlib.suppress(ValueError):
                return loads(inner), inner
        raise InvalidValueError(f"The answer is not JSON: {error}.") from None


def _only_object(text: str) -> str:
    """Return the text of the only JSON object in running text; all of it for none or several."""
    found: list[str] = []
    position = 0
    while (position := text.find("{", position)) >= 0:
        try:
            _, end = json.JSONDecoder().raw_decode(text, position)
        except (ValueError, RecursionError):
            return text  # broken, or another use of braces: to take a later one would be a guess
        found.append(text[position:end])
        position = end
    return found[0] if len(found) == 1 else text


_FENCE = re.compile(rf"\s*(?:{RUN.pattern})[^\n]*\n\s*", re.MULTILINE)
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
        may_have_ended = self._text.endswith("]" if isinstance(self._value, list) else "}")
        if len(self._text) < _SMALL or started >= self._due or may_have_ended:
            self._value = self._read()
            now = time.perf_counter()
            self._due = now + (now - started) / _SHARE
        return self._value

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
