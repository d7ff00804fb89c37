"""From a model's text to the one JSON document in it; where two could be meant, none is taken."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from llm_magic.errors import InvalidValueError
from llm_magic.markdown.fences import code_blocks

_SURROGATE = re.compile(r"\\u[dD][89abABcdefCDEF]")


def loads(text: str) -> Any:
    """Read one JSON document by RFC 8259, refusing what readers usually let pass.

    Raises
    ------
    ValueError
        Not JSON, `NaN` or an infinite number, a key that appears twice, or half of a surrogate pair.

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
    r"""Return the text without the code fence around it: the content of its only fenced block, or all of it, stripped.

    >>> unfenced('Here it is:\n```json\n[1]\n```\n')
    '[1]'

    """
    stripped = text.strip()
    blocks = [block for block in code_blocks(stripped) if block.closed]
    return blocks[0].code.strip() if len(blocks) == 1 else stripped


def find_object(text: str) -> str | None:
    """Return the only JSON object that stands in running text, as it is written there; None for none or several."""
    decoder = json.JSONDecoder()
    found: list[str] = []
    position = 0
    while (position := text.find("{", position)) >= 0:
        try:
            _, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            return None  # an object that is broken, or another use of braces: taking a later one would be a guess
        found.append(text[position:end])
        position = end
    return found[0] if len(found) == 1 else None


def candidates(text: str, *, object_root: bool) -> Iterator[str]:
    """Yield the readings of an answer as one JSON document, the most literal one first."""
    stripped = text.strip()
    yield stripped
    inner = unfenced(text)
    if inner != stripped:
        yield inner
    elif object_root and not stripped.startswith("{"):
        found = find_object(stripped)
        if found is not None:
            yield found


def read(text: str, *, object_root: bool) -> tuple[Any, str]:
    """Return the JSON document in an answer, as plain data and as it is written there.

    White space, one code fence around it, and, where an object is expected, prose around the only object are allowed.

    Raises
    ------
    InvalidValueError
        There is no JSON, or more than one document.

    """
    if not text.strip():
        raise InvalidValueError("The answer is empty; JSON was asked for.")
    first: ValueError | None = None
    for candidate in candidates(text, object_root=object_root):
        try:
            return loads(candidate), candidate
        except ValueError as error:
            first = first or error
    raise InvalidValueError(f"The answer is not JSON: {first}.")
