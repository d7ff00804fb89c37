r"""A regular expression as a tree of sets of characters, sequences, alternatives and repetitions.

Python's own parser reads the pattern; what no grammar can say (look-around, references back, word
boundaries) is refused. A character class becomes a set that Python agrees with: `\w` in a
constraint is narrower than Python's, never wider.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from re import _constants as codes  # type: ignore[attr-defined]  # not in typeshed
from re import _parser  # type: ignore[attr-defined]  # not in typeshed; 3.11's name of sre_parse, the same in 3.14
from typing import Any

from llm_magic.errors import UnsupportedError

MAX_REPEATS = 2000
"""llama.cpp refuses more repetitions than this."""

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
    return complement(complement(tuple(pair for ranges in sets for pair in ranges)))


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
SURROGATES: Ranges = ((0xD800, 0xDFFF),)

_CATEGORIES: dict[Any, Ranges] = {
    codes.CATEGORY_DIGIT: _ASCII_DIGITS,
    codes.CATEGORY_NOT_DIGIT: ((0, 47), (58, 0x65F), *_LETTERS[-4:], (0x1F300, 0x1F64F)),
    codes.CATEGORY_SPACE: ((9, 13), (32, 32)),
    codes.CATEGORY_NOT_SPACE: complement((*_SPACES, *SURROGATES)),
    codes.CATEGORY_WORD: (*_ASCII_WORDS, *_LETTERS),
    codes.CATEGORY_NOT_WORD: (*complement((*_ASCII_WORDS, (0x80, MAX_CODE_POINT))), (0x2010, 0x2027), (0x2030, 0x203E)),
}
_ASCII_CATEGORIES = _CATEGORIES | {
    codes.CATEGORY_NOT_DIGIT: complement((*_ASCII_DIGITS, *SURROGATES)),
    codes.CATEGORY_WORD: _ASCII_WORDS,
    codes.CATEGORY_NOT_WORD: complement((*_ASCII_WORDS, *SURROGATES)),
}
_PAIRS = (
    (codes.CATEGORY_DIGIT, codes.CATEGORY_NOT_DIGIT),
    (codes.CATEGORY_SPACE, codes.CATEGORY_NOT_SPACE),
    (codes.CATEGORY_WORD, codes.CATEGORY_NOT_WORD),
)
_OPPOSITE = dict([*_PAIRS, *((no, yes) for yes, no in _PAIRS)])


def _categories_in(text: str) -> dict[Any, Ranges]:
    """Return the classes as Python has them, of the characters of a text."""
    present = sorted(set(text))
    holds: dict[Any, Callable[[str], bool]] = {
        codes.CATEGORY_DIGIT: str.isdecimal,
        codes.CATEGORY_SPACE: str.isspace,
        codes.CATEGORY_WORD: lambda each: each.isalnum() or each == "_",
    }
    found = {kind: tuple((ord(each), ord(each)) for each in present if test(each)) for kind, test in holds.items()}
    return found | {_OPPOSITE[kind]: complement((*ranges, *SURROGATES)) for kind, ranges in found.items()}


_ANY: Ranges = complement(((10, 10), *SURROGATES))


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of a set of code points."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Sequence:
    """One part after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """One of several parts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part several times; `high` None has no limit."""

    part: Node
    low: int
    high: int | None


Node = Chars | Sequence | Alternation | Repeat

_NESTED = frozenset({codes.BRANCH, codes.SUBPATTERN})
"""Items whose own parts are read with `first` and `last`, and open their ends themselves."""
_REFUSED = {
    **dict.fromkeys((codes.ASSERT, codes.ASSERT_NOT), "look-ahead and look-behind"),
    codes.AT: "boundaries within the text",
    codes.GROUPREF: "references back to a group",
    codes.GROUPREF_EXISTS: "conditional groups",
    codes.ATOMIC_GROUP: "atomic groups",
    codes.POSSESSIVE_REPEAT: "possessive repetition",
}


def read_regex(pattern: str, *, search: bool = False, text: str | None = None) -> Node:
    r"""Return the tree of a pattern that has to match a whole text.

    With `search` it may match anywhere in the text, with ASCII classes, as a JSON Schema's
    `pattern` does: text may then stand before it where `^` does not, and behind it where `$` does
    not. With `text` the tree is to be held against it, so a class such as `\w` holds all of its
    characters that Python counts in. What a grammar cannot say, does not compile, or stands for
    more than `MAX_PARTS` characters in a row, is an `UnsupportedError`.

    >>> read_regex("a?") == Repeat(Chars(((97, 97),)), 0, 1)
    True

    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of nested sets: they mean what Python makes of them
            tree = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UnsupportedError(f"The pattern {_brief(pattern)} is no regular expression: {error}.") from None
    reader = _RegexParser(pattern, tree.state.flags | (re.ASCII if search else 0), open_ended=search)
    if text is not None:
        reader.categories = _categories_in(text)
    try:
        node = reader.sequence(list(tree), first=True, last=True)
        parts = size(node)
    except RecursionError:
        raise UnsupportedError(f"The pattern {_brief(pattern)} is nested too deeply.") from None
    if parts > MAX_PARTS:
        raise UnsupportedError(
            f"The pattern {_brief(pattern)} stands for {_amount(parts)} parts once its repetitions are written out; "
            f"at most {MAX_PARTS:,} can be.",
            "Use smaller counts, or * and +.",
        )
    return node


MAX_PARTS = 20_000
"""Characters that a pattern may stand for: servers and checks write repetitions out, nested ones multiplied."""


def size(node: Node) -> int:
    """Return how many sets of characters a tree is made of, repetitions written out.

    >>> size(read_regex("(ab{2,3}){10}"))
    40

    """
    if isinstance(node, Chars):
        return 1
    if isinstance(node, Repeat):
        return size(node.part) * max(1, node.low + 1 if node.high is None else node.high)
    return sum(map(size, node.parts))


def _amount(number: int) -> str:
    return f"{number:,}" if number < 10**12 else "a million million and more"


def _brief(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 60 else f"{pattern[:50]}…")  # noqa: PLR2004 - a line's worth


class _RegexParser:
    def __init__(self, pattern: str, flags: int, *, open_ended: bool) -> None:
        self._pattern, self._flags, self._open = pattern, flags, open_ended
        self.categories = _CATEGORIES

    def sequence(self, items: list[Any], *, first: bool, last: bool) -> Node:
        """Read items in a row; `first` and `last`: nothing precedes or follows them."""
        start, end = 0, len(items)
        while first and start < end and self._is_edge(items[start], codes.AT_BEGINNING, codes.AT_BEGINNING_STRING):
            start += 1
        while last and start < end and self._is_edge(items[end - 1], codes.AT_END, codes.AT_END_STRING):
            end -= 1
        inner = items[start:end]
        first, last = first and start == 0, last and end == len(items)
        parts = [
            self._node(*item, first=first and at == 0, last=last and at == len(inner) - 1)
            for at, item in enumerate(inner)
        ]
        anything = Repeat(Chars(_ANY), 0, None)
        if self._open and first and not (inner and inner[0][0] in _NESTED):
            parts.insert(0, anything)
        if self._open and last and not (inner and inner[-1][0] in _NESTED):
            parts.append(anything)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _is_edge(self, item: Any, *kinds: Any) -> bool:
        return bool(item[0] is codes.AT and item[1] in kinds and not self._flags & re.MULTILINE)

    def _node(self, operator: Any, argument: Any, *, first: bool, last: bool) -> Node:
        if operator is codes.LITERAL:
            return Chars(self._both_cases(((argument, argument),)))
        if operator is codes.NOT_LITERAL:
            return Chars(complement((*self._both_cases(((argument, argument),)), *SURROGATES)))
        if operator is codes.ANY:
            return Chars(complement(SURROGATES) if self._flags & re.DOTALL else _ANY)
        if operator is codes.IN:
            return Chars(self._set(argument))
        if operator is codes.BRANCH:
            return Alternation(tuple(self.sequence(list(way), first=first, last=last) for way in argument[1]))
        if operator is codes.SUBPATTERN:
            _, added, removed, inner = argument
            kept, self._flags = self._flags, (self._flags | added) & ~removed
            try:
                return self.sequence(list(inner), first=first, last=last)
            finally:
                self._flags = kept
        if operator in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            low, high, inner = argument
            unlimited = high is codes.MAXREPEAT or high > MAX_REPEATS
            part = self.sequence(list(inner), first=False, last=False)
            return Repeat(part, min(low, MAX_REPEATS), None if unlimited else high)
        what = _REFUSED.get(operator, str(operator).lower())
        hint = "Write it without, and check that part of the value in Python."
        raise UnsupportedError(f"The pattern {_brief(self._pattern)} uses {what}, which no grammar can say.", hint)

    def _set(self, items: list[Any]) -> Ranges:
        negated = items[0][0] is codes.NEGATE
        categories = _ASCII_CATEGORIES if self._flags & re.ASCII else self.categories
        sets: list[Ranges] = []
        for operator, argument in items[negated:]:
            if operator is codes.CATEGORY:
                sets.append(categories[_OPPOSITE[argument] if negated else argument])
            else:
                low, high = (argument, argument) if operator is codes.LITERAL else argument
                ranges = self._both_cases(((low, high),))
                sets.append(complement(ranges) if negated else ranges)
        if negated:
            return reduce(intersection, sets, complement(SURROGATES))
        return union(sets)

    def _both_cases(self, ranges: Ranges) -> Ranges:
        if not self._flags & re.IGNORECASE:
            return ranges
        size = sum(high - low + 1 for low, high in ranges)
        if size > 1000:  # noqa: PLR2004 - a range that wide holds both cases of what it is about
            return ranges
        letters = (chr(code) for low, high in ranges for code in range(low, high + 1))
        cases = {other for letter in letters for other in (letter.lower(), letter.upper()) if len(other) == 1}
        return union([ranges, tuple((ord(other), ord(other)) for other in cases)])


def width(node: Node) -> tuple[int, float]:
    """Return how many characters the tree matches at least and at most, which may be infinite.

    >>> width(read_regex("ab?c{2,5}"))
    (3, 7)

    """
    if isinstance(node, Chars):
        return 1, 1
    if isinstance(node, Repeat):
        least, most = width(node.part)
        high = math.inf if node.high is None else node.high
        return least * node.low, most * high if most and high else 0
    widths = [width(part) for part in node.parts]
    leasts, mosts = [least for least, _ in widths], [most for _, most in widths]
    return (sum(leasts), sum(mosts)) if isinstance(node, Sequence) else (min(leasts), max(mosts))
