"""Sets of characters as ranges of code points, and the classes of regular expressions as such sets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from re import _constants as codes  # type: ignore[attr-defined]  # not in typeshed
from typing import Any

from llm_magic.errors import OutputTypeError

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


MAX_REPEATS = 2000
"""llama.cpp refuses more repetitions than this."""

Item = Ranges | int
"""What stands in a rule: characters, or the number of a rule."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*|[0-9][A-Za-z0-9_-]*")
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:\s|#[^\r\n]*)*")
_COUNTS = re.compile(r"\{\s*(\d*)\s*(,?)\s*(\d*)\s*\}")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-", "^": "^", "/": "/"}
_HEX = {"x": 2, "u": 4, "U": 8}


@dataclass(slots=True)
class Rule:
    """The alternatives of a rule; one that is only named so far is not `defined`."""

    alternatives: list[tuple[Item, ...]] = field(default_factory=list)
    defined: bool = False


class GBNFReader:
    """Reads the text of a grammar into rules; groups and repetitions become rules of their own."""

    def __init__(self, text: str, rules: list[Rule], numbers: dict[str, int]) -> None:
        self._text, self._rules, self._numbers = text, rules, numbers
        self._at = 0

    def read(self) -> None:
        """Read the whole text."""
        self._skip(_SPACE_AND_LINES)
        while self._at < len(self._text):
            number = self._number(self._name("the name of a rule"))
            self._skip(_SPACE)
            if not self._text.startswith("::=", self._at):
                raise self._error("`::=`")
            if self._rules[number].defined:
                raise self._error("a rule that is not defined yet")
            self._at += 3
            self._skip(_SPACE_AND_LINES)
            self._rules[number] = Rule(self._alternatives(nested=False), defined=True)
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                raise self._error("the end of the line")
            self._skip(_SPACE_AND_LINES)

    def _skip(self, what: re.Pattern[str]) -> None:
        match = what.match(self._text, self._at)
        assert match is not None  # noqa: S101 - these patterns match the empty text
        self._at = match.end()

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self._rules)
            self._rules.append(Rule())
        return self._numbers[name]

    def _new_rule(self, alternatives: list[tuple[Item, ...]]) -> int:
        self._rules.append(Rule(alternatives, defined=True))
        return len(self._rules) - 1

    def _name(self, what: str) -> str:
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise self._error(what)
        self._at = match.end()
        return match.group()

    def _alternatives(self, *, nested: bool) -> list[tuple[Item, ...]]:
        space = _SPACE_AND_LINES if nested else _SPACE
        found = [self._sequence(space)]
        while self._text.startswith("|", self._at):
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            found.append(self._sequence(space))
        return found

    def _sequence(self, space: re.Pattern[str]) -> tuple[Item, ...]:
        items: list[Item] = []
        last = 0  # where the item that a `*` repeats begins
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in "*+?{":
                if last == len(items):
                    raise self._error("something to repeat")
                items[last:] = self._repeated(tuple(items[last:]))
            elif character == '"':
                last = len(items)
                items.extend(((code, code),) for code in self._literal())
            elif character == "[":
                last = len(items)
                items.append(self._class())
            elif character == ".":
                last = len(items)
                self._at += 1
                items.append(((0, MAX_CODE_POINT),))
            elif character == "(":
                last = len(items)
                self._at += 1
                self._skip(_SPACE_AND_LINES)
                items.append(self._new_rule(self._alternatives(nested=True)))
                if not self._text.startswith(")", self._at):
                    raise self._error("`)`")
                self._at += 1
            elif _NAME.match(self._text, self._at):
                last = len(items)
                items.append(self._number(self._name("a name")))
            else:
                break
            self._skip(space)
        return tuple(items)

    def _repeated(self, items: tuple[Item, ...]) -> list[Item]:
        low, high = self._counts()
        unit: tuple[Item, ...] = items
        tail: list[Item] = []
        if high is None:
            again = self._new_rule([()])
            self._rules[again].alternatives.append((again, *unit))  # left recursion is what Earley's matcher likes
            tail = [again]
        elif high > low:
            optional = self._new_rule([(), unit])
            for _ in range(high - low - 1):
                optional = self._new_rule([(), (*unit, optional)])
            tail = [optional]
        return [*(unit * low), *tail]

    def _counts(self) -> tuple[int, int | None]:
        character = self._text[self._at]
        if character != "{":
            self._at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[character]
        match = _COUNTS.match(self._text, self._at)
        if match is None or not (match[1] or match[3]):
            raise self._error("repetitions as in {2,5}")
        low = int(match[1] or 0)
        high = (int(match[3]) if match[3] else None) if match[2] else low
        if low > MAX_REPEATS or (high or 0) > MAX_REPEATS or (high is not None and high < low):
            raise self._error(f"at most {MAX_REPEATS} repetitions, the smaller number first")
        self._at = match.end()
        return low, high

    def _literal(self) -> list[int]:
        self._at += 1
        codes = []
        while not self._text.startswith('"', self._at):
            codes.append(self._character())
        self._at += 1
        return codes

    def _class(self) -> Ranges:
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        ranges = []
        while not self._text.startswith("]", self._at):
            low = high = self._character()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                high = self._character()
            ranges.append((low, high))
        self._at += 1
        return complement(tuple(ranges)) if negated else tuple(ranges)

    def _character(self) -> int:
        if self._at >= len(self._text) or self._text[self._at] in "\r\n":
            raise self._error("the end of what was opened")
        character = self._text[self._at]
        self._at += 1
        if character != "\\":
            return ord(character)
        escape = self._text[self._at : self._at + 1]
        self._at += 1
        if escape in _HEX:
            digits = self._text[self._at : self._at + _HEX[escape]]
            self._at += len(digits)
            if (
                len(digits) == _HEX[escape]
                and re.fullmatch("[0-9a-fA-F]+", digits)
                and int(digits, 16) <= MAX_CODE_POINT
            ):
                return int(digits, 16)
        elif escape in _ESCAPES:
            return ord(_ESCAPES[escape])
        raise self._error(r"an escape such as \n, \x41 or \u00e9")

    def _error(self, expected: str) -> OutputTypeError:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - self._text.rfind("\n", 0, self._at)
        rest = self._text[self._at : self._at + 20].split("\n", 1)[0]
        found = f"before {rest!r}" if rest else "at the end of the line"
        return OutputTypeError(
            f"The grammar is not GBNF: {expected} expected in line {line}, column {column}, {found}.",
            'Rules look like: root ::= "yes" | "no" [0-9]{1,3}',
        )
