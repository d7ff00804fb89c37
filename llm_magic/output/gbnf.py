"""The text of a GBNF grammar becomes rules; a place where it is none is named by line and column."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from llm_magic.errors import OutputTypeError
from llm_magic.output.charset import MAX_CODE_POINT, Ranges, complement

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


class Reader:
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
