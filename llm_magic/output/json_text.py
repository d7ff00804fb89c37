"""From a model's text to the one JSON document in it; where two could be meant, none is taken."""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any

from llm_magic.errors import InvalidValueError
from llm_magic.markdown.fences import code_blocks

WRAP = "value"
"""The key of the object that holds a value where an endpoint takes nothing but objects."""

_SURROGATE = re.compile(r"\\u[dD][89abABcdefCDEF]")


def loads(text: str) -> Any:
    """Read one JSON document by RFC 8259, refusing what readers usually let pass.

    Raises
    ------
    ValueError
        Not JSON, `NaN` or an infinite number, a key that appears twice, or half a surrogate pair.

    >>> loads('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}

    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite)
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
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add returns None on purpose here
        raise ValueError(f"the key {twice!r} appears twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is too large for a number")
    return number


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
    object are allowed.

    Raises
    ------
    InvalidValueError
        There is no JSON, or more than one document.

    """
    stripped = text.strip()
    if not stripped:
        raise InvalidValueError("The answer is empty; JSON was asked for.")
    inner: str | None = unfenced(text)
    if inner == stripped:
        inner = _only_object(stripped) if object_root and not stripped.startswith("{") else None
    try:
        return loads(stripped), stripped
    except ValueError as error:
        if inner is not None:
            with contextlib.suppress(ValueError):
                return loads(inner), inner
        raise InvalidValueError(f"The answer is not JSON: {error}.") from None


def _only_object(text: str) -> str | None:
    """Return the text of the only JSON object in running text; None for none or several."""
    decoder = json.JSONDecoder()
    found: list[str] = []
    position = 0
    while (position := text.find("{", position)) >= 0:
        try:
            _, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            return None  # broken, or another use of braces: to take a later one would be a guess
        found.append(text[position:end])
        position = end
    return found[0] if len(found) == 1 else None
