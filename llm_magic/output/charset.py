"""Sets of characters as ranges of code points, and the classes of regular expressions as such sets."""

from __future__ import annotations

from collections.abc import Iterable
from re import _constants as codes  # type: ignore[attr-defined]  # not in typeshed
from typing import Any

MAX_CODE_POINT = 0x10FFFF

Ranges = tuple[tuple[int, int], ...]
"""Characters, as ranges of code points, both ends included."""


def complement(ranges: Ranges) -> Ranges:
    """Return all characters but these, as sorted ranges.

    >>> complement(((0, 64), (66, 0x10FFFF)))
    ((65, 65),)

    """
    result = []
    low = 0
    for first, last in sorted(ranges):
        if first > low:
            result.append((low, first - 1))
        low = max(low, last + 1)
    if low <= MAX_CODE_POINT:
        result.append((low, MAX_CODE_POINT))
    return tuple(result)


def union(sets: Iterable[Ranges]) -> Ranges:
    """Return the characters of all sets, as sorted ranges that do not touch."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(pair for ranges in sets for pair in ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], high))
        else:
            result.append((low, high))
    return tuple(result)


def intersection(one: Ranges, other: Ranges) -> Ranges:
    """Return the characters that both sets hold."""
    return tuple(sorted((max(a, c), min(b, d)) for a, b in one for c, d in other if max(a, c) <= min(b, d)))


_ASCII_DIGITS: Ranges = ((48, 57),)
_ASCII_WORDS: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_LETTERS: Ranges = (
    (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x24F), (0x391, 0x3A1), (0x3A3, 0x3F5), (0x400, 0x481), (0x48A, 0x52F),
    (0x5D0, 0x5EA), (0x620, 0x64A), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
)  # fmt: skip
"""Letters in long runs: enough for most languages, and short enough for a grammar."""
_SPACES: Ranges = (
    (9, 13), (28, 32), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
    (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000),
)  # fmt: skip
_ASCII_SPACES: Ranges = ((9, 13), (32, 32))
_NO_WORDS: Ranges = (*complement((*_ASCII_WORDS, (0x80, MAX_CODE_POINT))), (0x2010, 0x2027), (0x2030, 0x203E))
_NO_DIGITS: Ranges = ((0, 47), (58, 0x65F), *_LETTERS[-4:], (0x1F300, 0x1F64F))
SURROGATES: Ranges = ((0xD800, 0xDFFF),)

CATEGORIES: dict[Any, Ranges] = {
    codes.CATEGORY_DIGIT: _ASCII_DIGITS,
    codes.CATEGORY_NOT_DIGIT: _NO_DIGITS,
    codes.CATEGORY_SPACE: _ASCII_SPACES,
    codes.CATEGORY_NOT_SPACE: complement((*_SPACES, *SURROGATES)),
    codes.CATEGORY_WORD: (*_ASCII_WORDS, *_LETTERS),
    codes.CATEGORY_NOT_WORD: _NO_WORDS,
}
ASCII_CATEGORIES: dict[Any, Ranges] = {
    **CATEGORIES,
    codes.CATEGORY_NOT_DIGIT: complement((*_ASCII_DIGITS, *SURROGATES)),
    codes.CATEGORY_WORD: _ASCII_WORDS,
    codes.CATEGORY_NOT_WORD: complement((*_ASCII_WORDS, *SURROGATES)),
}
OPPOSITE = {
    codes.CATEGORY_DIGIT: codes.CATEGORY_NOT_DIGIT, codes.CATEGORY_NOT_DIGIT: codes.CATEGORY_DIGIT,
    codes.CATEGORY_SPACE: codes.CATEGORY_NOT_SPACE, codes.CATEGORY_NOT_SPACE: codes.CATEGORY_SPACE,
    codes.CATEGORY_WORD: codes.CATEGORY_NOT_WORD, codes.CATEGORY_NOT_WORD: codes.CATEGORY_WORD,
}  # fmt: skip
ANY: Ranges = complement(((10, 10), *SURROGATES))
