r"""Grammars in GBNF, the notation of llama.cpp: loaded by `--grammar`, and matched here.

The notation: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md. It is parsed
before it is sent, so that a broken one is not. The matcher is Earley's, with the nullable symbols
handled as Aycock and Horspool do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_magic.errors import OutputTypeError
from llm_magic.output.grammar.regex import MAX_CODE_POINT, MAX_REPEATS, Ranges, complement

Item = Ranges | int
"""What stands in a rule: characters, or the number of a rule."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_UNIT = re.compile(r'[A-Za-z0-9_"\[.(*+?{]')
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:\s|#[^\r\n]*)*")
_COUNTS = re.compile(r"\{\s*(\d*)\s*(,?)\s*(\d*)\s*\}")
_HEX = r"x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}"
_CHARACTER = re.compile(rf'([^\\\r\n])|\\([nrt])|\\([\\"\[\]^/-])|\\({_HEX})')
_CONTROLS = {"n": 10, "r": 13, "t": 9}


@dataclass(slots=True)
class Rule:
    """The alternatives of a rule; one that is only named so far is not `defined`."""

    alternatives: list[tuple[Item, ...]] = field(default_factory=list)
    defined: bool = False


class GBNFParser:
    """Reads the text of a grammar into rules; groups and repetitions become rules of their own.

    Attributes
    ----------
    rules
        All rules; those of the text may refer to some that are not defined.
    numbers
        Where the rules that have a name stand.

    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.rules: list[Rule] = []
        self.numbers: dict[str, int] = {}
        self._skip(_SPACE_AND_LINES)
        while self._at < len(text):
            self._rule()

    def _rule(self) -> None:
        number = self._number()
        self._skip(_SPACE)
        if not self._text.startswith("::=", self._at):
            raise self._error("`::=`")
        if self.rules[number].defined:
            raise self._error("a rule that is not defined yet")
        self._take("::=")
        self._skip(_SPACE_AND_LINES)
        self.rules[number] = Rule(self._alternatives(_SPACE), defined=True)
        if self._at < len(self._text) and self._text[self._at] not in "\r\n":
            raise self._error("the end of the line")
        self._skip(_SPACE_AND_LINES)

    def _skip(self, space: re.Pattern[str]) -> None:
        match = space.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _take(self, token: str) -> bool:
        """Move behind a token, if it comes next."""
        found = self._text.startswith(token, self._at)
        self._at += len(token) * found
        return found

    def _number(self) -> int:
        """Read a name, and return the number of its rule."""
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise self._error("the name of a rule")
        self._at = match.end()
        if match.group() not in self.numbers:
            self.numbers[match.group()] = self._new_rule()
        return self.numbers[match.group()]

    def _new_rule(self, *alternatives: tuple[Item, ...]) -> int:
        self.rules.append(Rule(list(alternatives), defined=bool(alternatives)))
        return len(self.rules) - 1

    def _alternatives(self, space: re.Pattern[str]) -> list[tuple[Item, ...]]:
        found = [self._sequence(space)]
        while self._take("|"):
            self._skip(_SPACE_AND_LINES)
            found.append(self._sequence(space))
        return found

    def _sequence(self, space: re.Pattern[str]) -> tuple[Item, ...]:
        items: list[Item] = []
        unit: list[Item] = []  # what a `*` repeats
        while _UNIT.match(self._text, self._at):
            if self._text[self._at] in "*+?{":
                if not unit:
                    raise self._error("something to repeat")
                unit = self._repeated(tuple(unit))
            else:
                items += unit
                unit = self._unit()
            self._skip(space)
        return (*items, *unit)

    def _unit(self) -> list[Item]:
        if self._take('"'):
            return self._literal()
        if self._take("["):
            return [self._class()]
        if self._take("."):
            return [((0, MAX_CODE_POINT),)]
        if not self._take("("):
            return [self._number()]
        self._skip(_SPACE_AND_LINES)
        group = self._new_rule(*self._alternatives(_SPACE_AND_LINES))
        if not self._take(")"):
            raise self._error("`)`")
        return [group]

    def _repeated(self, unit: tuple[Item, ...]) -> list[Item]:
        low, high = self._counts()
        tail: list[Item] = []
        if high is None:
            again = self._new_rule(())
            self.rules[again].alternatives.append((again, *unit))  # Earley likes left recursion
            tail = [again]
        elif high > low:
            optional = self._new_rule((), unit)
            for _ in range(high - low - 1):
                optional = self._new_rule((), (*unit, optional))
            tail = [optional]
        return [*(unit * low), *tail]

    def _counts(self) -> tuple[int, int | None]:
        for sign, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return counts
        match = _COUNTS.match(self._text, self._at)
        if match is None or not (match[1] or match[3]):
            raise self._error("repetitions as in {2,5}")
        low = int(match[1] or 0)
        high = (int(match[3]) if match[3] else None) if match[2] else low
        if low > MAX_REPEATS or (high is not None and not low <= high <= MAX_REPEATS):
            raise self._error(f"at most {MAX_REPEATS} repetitions, the smaller number first")
        self._at = match.end()
        return low, high

    def _literal(self) -> list[Item]:
        items: list[Item] = []
        while not self._take('"'):
            code = self._character()
            items.append(((code, code),))
        return items

    def _class(self) -> Ranges:
        negated = self._take("^")
        ranges = []
        while not self._take("]"):
            low = high = self._character()
            if not self._text.startswith("-]", self._at) and self._take("-"):
                high = self._character()
            ranges.append((low, high))
        return complement(tuple(ranges)) if negated else tuple(ranges)

    def _character(self) -> int:
        match = _CHARACTER.match(self._text, self._at)
        if match is None:
            broken = self._text.startswith("\\", self._at)
            raise self._error(r"an escape such as \n, \x41 or \u00e9" if broken else "the end of what was opened")
        self._at = match.end()
        plain, control, escaped, digits = match.groups()
        if digits:
            return int(digits[1:], 16)
        return _CONTROLS[control] if control else ord(plain or escaped)

    def _error(self, expected: str) -> OutputTypeError:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - self._text.rfind("\n", 0, self._at)
        rest = self._text[self._at : self._at + 20].split("\n", 1)[0]
        found = f"before {rest!r}" if rest else "at the end of the line"
        return OutputTypeError(
            f"The grammar is not GBNF: {expected} expected in line {line}, column {column}, {found}.",
            'Rules look like: root ::= "yes" | "no" [0-9]{1,3}',
        )


_State = tuple[int, tuple[Item, ...], int, int]
"""The rule it will complete, the alternative, items matched, where it began."""


class Grammar:
    """A GBNF grammar.

    Parameters
    ----------
    text
        Rules `name ::= …`; the answer is a `root`.

    Raises
    ------
    OutputTypeError
        The text is no such grammar; the message names the line.

    >>> Grammar('root ::= "yes" | "no" "!"*').accepts("no!!")
    True

    """

    def __init__(self, text: str) -> None:
        self.text = text
        parser = GBNFParser(text)
        self._rules, self._numbers = parser.rules, parser.numbers
        missing = next((name for name, number in self._numbers.items() if not self._rules[number].defined), None)
        if missing is not None or "root" not in self._numbers:
            raise OutputTypeError(
                f"The grammar has no rule {missing or 'root'!r}.", 'The answer is a "root": root ::= "yes" | "no".'
            )
        self._nullable = self._find_nullable()

    def _find_nullable(self) -> set[int]:
        nullable: set[int] = set()
        before = -1
        while before < len(nullable):
            before = len(nullable)
            for number, rule in enumerate(self._rules):
                if any(nullable.issuperset(way) for way in rule.alternatives):
                    nullable.add(number)
        return nullable

    def accepts(self, text: str) -> bool:
        """Tell whether the whole text is a `root`."""
        return self._match(text)[1]

    def reach(self, text: str) -> int:
        """Return how many characters of the text can begin a `root`."""
        return self._match(text)[0]

    def _match(self, text: str) -> tuple[int, bool]:
        """Return how far the text fits, and whether all of it is a `root`."""
        root = self._numbers["root"]
        states: list[_State] = [(root, way, 0, 0) for way in self._rules[root].alternatives]
        waiting: list[dict[int, list[_State]]] = []  # at each position, by the rule waited for
        position = 0
        for position in range(len(text) + 1):
            code = ord(text[position]) if position < len(text) else -1
            following, ended = self._step(states, code, position, waiting)
            if not following or position == len(text):
                break
            states = following
        return position, ended and position == len(text)

    def _step(
        self, states: list[_State], code: int, position: int, waiting: list[dict[int, list[_State]]]
    ) -> tuple[list[_State], bool]:
        """Complete the states of a position; return the next ones, and whether a `root` ends."""
        root = self._numbers["root"]
        seen = set(states)
        here: dict[int, list[_State]] = {}
        waiting.append(here)
        following: list[_State] = []
        ended = False
        for state in states:  # extended while it is walked
            number, way, done, began = state
            new: list[_State] = []
            if done == len(way):
                ended = ended or (number == root and began == 0)
                new = [(n, w, d + 1, b) for n, w, d, b in waiting[began].get(number, ())]
            else:
                item = way[done]
                if isinstance(item, int):
                    here.setdefault(item, []).append(state)
                    new = [(item, each, 0, position) for each in self._rules[item].alternatives]
                    if item in self._nullable:
                        new.append((number, way, done + 1, began))
                elif any(low <= code <= high for low, high in item):
                    following.append((number, way, done + 1, began))
            fresh = [each for each in dict.fromkeys(new) if each not in seen]
            seen.update(fresh)
            states += fresh
        return following, ended


def load_grammar(source: str, namespace: Mapping[str, Any]) -> tuple[str, Grammar]:
    """Return the title and the grammar that `--grammar` means: a variable, text or a file.

    Raises
    ------
    OutputTypeError
        None of these, or no GBNF.

    """
    name = source.strip()
    if isinstance(namespace.get(name), str):
        return name, Grammar(namespace[name])
    if "::=" in source:
        return "grammar", Grammar(source)
    path = Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise OutputTypeError(
            f"--grammar {source}: neither a variable that holds text nor a readable file ({reason}).",
            'The grammar is written in GBNF: root ::= "yes" | "no".',
        ) from None
    return path.name, Grammar(text)
