r"""Grammars in GBNF, the notation of llama.cpp: loaded by `--grammar`, parsed, and matched here.

The notation: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md. It is parsed
before it is sent, so that a broken one is not. The matcher is Earley's, with the nullable symbols
handled as Aycock and Horspool do.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llm_magic.errors import InvalidValueError, OutputTypeError
from llm_magic.output.grammar.regex import MAX_CODE_POINT, MAX_REPEATS, Ranges, complement

Item = Ranges | int
"""What stands in a rule: characters, or the number of a rule."""
Rule = list[tuple[Item, ...]]
"""The alternatives of a rule; none: it is only named so far."""
_MAX_STEPS = 3_000_000
"""States that the check of one answer may go through."""
_MAX_ITEMS = 200_000
"""Characters and rules that the repetitions of a grammar may be written out to."""
_State = tuple[int, tuple[Item, ...], int, int]
"""The rule it will complete, the alternative, items matched, where it began."""


class Grammar:
    """A GBNF grammar, of the text of rules `name ::= …`; the answer is a `root`.

    A text that is no such grammar is an `OutputTypeError`, which names the line.

    >>> Grammar('root ::= "yes" | "no" "!"*').accepts("no!!")
    True

    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            parser = _GBNFParser(text)
        except RecursionError:
            raise OutputTypeError("The groups of the grammar are nested too deeply.") from None
        self._rules, numbers = parser.rules, parser.numbers
        missing = next((name for name, number in numbers.items() if not self._rules[number]), None)
        if missing is not None or "root" not in numbers:
            hint = 'The answer is a "root": root ::= "yes" | "no".'
            raise OutputTypeError(f"The grammar has no rule {missing or 'root'!r}.", hint)
        self._root = numbers["root"]
        self._nullable: set[int] = set()
        while self._nullable != (
            found := {at for at, rule in enumerate(self._rules) if any(map(self._nullable.issuperset, rule))}
        ):
            self._nullable = found

    def accepts(self, text: str) -> bool:
        """Tell whether the whole text is a `root`."""
        return self._match(text)[1]

    def reach(self, text: str) -> int:
        """Return how many characters of the text can begin a `root`."""
        return self._match(text)[0]

    def _match(self, text: str) -> tuple[int, bool]:
        """Return how far the text fits, and whether all of it is a `root`."""
        states: list[_State] = [(self._root, way, 0, 0) for way in self._rules[self._root]]
        waiting: list[dict[int, list[_State]]] = []  # at each position, by the rule waited for
        steps = itertools.count()
        for code in map(ord, text):
            following = self._step(states, code, waiting, steps)
            if not following:
                return len(waiting) - 1, False
            states = following
        self._step(states, -1, waiting, steps)
        return len(text), any((self._root, way, len(way), 0) in states for way in self._rules[self._root])

    def _step(
        self, states: list[_State], code: int, waiting: list[dict[int, list[_State]]], steps: Iterator[int]
    ) -> list[_State]:
        """Add to the states of a position what they complete and begin; return the next ones."""
        seen = set(states)
        here: dict[int, list[_State]] = {}
        waiting.append(here)
        following: list[_State] = []
        for state in states:  # extended while it is walked
            number, way, done, began = state
            new: list[_State] = []
            if done == len(way):
                new = [(n, w, d + 1, b) for n, w, d, b in waiting[began].get(number, ())]
            elif isinstance(item := way[done], int):
                here.setdefault(item, []).append(state)
                new = [(item, each, 0, len(waiting) - 1) for each in self._rules[item]]
                if item in self._nullable:
                    new.append((number, way, done + 1, began))
            elif any(low <= code <= high for low, high in item):
                following.append((number, way, done + 1, began))
            fresh = [each for each, _ in zip(dict.fromkeys(new), steps, strict=False) if each not in seen]
            if next(steps) > _MAX_STEPS:
                raise InvalidValueError("The grammar is too ambiguous for an answer of this length to be checked.")
            seen.update(fresh)
            states += fresh
        return following


def load_grammar(source: str, namespace: Mapping[str, Any]) -> tuple[str, Grammar]:
    """Return the title and the grammar that `--grammar` means: a variable, text or a file.

    None of these, or no GBNF, is an `OutputTypeError`.
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
        message = f"--grammar {source}: neither a variable that holds text nor a readable file ({reason})."
        raise OutputTypeError(message, 'The grammar is written in GBNF: root ::= "yes" | "no".') from None
    return path.name, Grammar(text)


_SPACE = r"(?:[ \t]|#[^\r\n]*)*"
_SPACE_AND_LINES = r"(?:\s|#[^\r\n]*)*"
_UNIT = re.compile(r'[A-Za-z0-9_"\[.(*+?{]')
_REPEATS = r"[*+?]|\{\s*(?=[\d,\s]*\d)(?P<low>\d*)\s*(?P<comma>,?)\s*(?P<high>\d*)\s*\}"
_HEX = r"x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4}"
_CHARACTER = rf'([^\\\r\n])|\\([nrt])|\\([\\"\[\]^/-])|\\({_HEX})'
_SIGNS: Mapping[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_CONTROLS = {"n": 10, "r": 13, "t": 9}


class _GBNFParser:
    """Reads the text of a grammar into rules; groups and repetitions become rules of their own."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._items = text, 0, 0
        self.rules: list[Rule] = []
        self.numbers: dict[str, int] = {}  # of the rules that have a name
        self._take(_SPACE_AND_LINES)
        while self._at < len(text):
            self._definition()
            self._take(_SPACE_AND_LINES)

    def _definition(self) -> None:
        number = self._name()
        self._take(_SPACE)
        self._expect("::=", "`::=`")
        if self.rules[number]:
            self._at -= len("::=")
            raise self._error("a rule that is not defined yet")
        self._take(_SPACE_AND_LINES)
        self.rules[number] = self._alternatives(_SPACE)
        self._expect(r"(?=[\r\n])|\Z", "the end of the line")

    def _take(self, pattern: str) -> re.Match[str] | None:
        """Move behind what comes next, if it is this."""
        match = re.compile(pattern).match(self._text, self._at)
        self._at = match.end() if match else self._at
        return match

    def _expect(self, pattern: str, what: str) -> re.Match[str]:
        match = self._take(pattern)
        if match is None:
            raise self._error(what)
        return match

    def _name(self) -> int:
        """Read the name of a rule, and return its number."""
        name = self._expect("[A-Za-z0-9_][A-Za-z0-9_-]*", "the name of a rule")[0]
        if name not in self.numbers:
            self.numbers[name] = self._new_rule()
        return self.numbers[name]

    def _new_rule(self, *alternatives: tuple[Item, ...]) -> int:
        self.rules.append(list(alternatives))
        return len(self.rules) - 1

    def _alternatives(self, space: str) -> Rule:
        found = [self._sequence(space)]
        while self._take(r"\|"):
            self._take(_SPACE_AND_LINES)
            found.append(self._sequence(space))
        return found

    def _sequence(self, space: str) -> tuple[Item, ...]:
        items: list[Item] = []
        unit: list[Item] = []  # what a `*` repeats
        while _UNIT.match(self._text, self._at):
            if self._text[self._at] not in "*+?{":
                items += unit
                unit = self._unit()
            elif unit:
                unit = self._repeated(unit)
            else:
                raise self._error("something to repeat")
            self._take(space)
        return (*items, *unit)

    def _unit(self) -> list[Item]:
        if self._take('"'):
            codes: list[int] = []
            while not self._take('"'):
                codes.append(self._character())
            return [((code, code),) for code in codes]
        if self._take(r"\["):
            return [self._class()]
        if self._take(r"\."):
            return [((0, MAX_CODE_POINT),)]
        if not self._take(r"\("):
            return [self._name()]
        self._take(_SPACE_AND_LINES)
        group = self._new_rule(*self._alternatives(_SPACE_AND_LINES))
        self._expect(r"\)", "`)`")
        return [group]

    def _repeated(self, unit: list[Item]) -> list[Item]:
        low, high = self._counts()
        self._items += len(unit) * max(low, high or 0)
        if self._items > _MAX_ITEMS:
            raise OutputTypeError(
                f"The grammar's repetitions stand for more than {_MAX_ITEMS:,} parts.",
                "Use smaller counts, or * and +.",
            )
        tail: list[Item] = []
        if high is None:
            again = self._new_rule(())
            self.rules[again].append((again, *unit))  # Earley likes left recursion
            tail = [again]
        for _ in range((high or 0) - low):
            tail = [self._new_rule((), (*unit, *tail))]
        return [*(unit * low), *tail]

    def _counts(self) -> tuple[int, int | None]:
        start = self._at
        match = self._expect(_REPEATS, "repetitions as in {2,5}")
        if match[0] in _SIGNS:
            return _SIGNS[match[0]]
        low = int(match["low"] or 0)
        high = (int(match["high"]) if match["high"] else None) if match["comma"] else low
        if low > MAX_REPEATS or (high is not None and not low <= high <= MAX_REPEATS):
            self._at = start
            raise self._error(f"at most {MAX_REPEATS} repetitions, the smaller number first")
        return low, high

    def _class(self) -> Ranges:
        negated = self._take(r"\^")
        ranges = []
        while not self._take(r"\]"):
            low = self._character()
            ranges.append((low, self._character() if self._take(r"-(?!\])") else low))
        return complement(tuple(ranges)) if negated else tuple(ranges)

    def _character(self) -> int:
        broken = self._text.startswith("\\", self._at)
        what = r"an escape such as \n, \x41 or \u00e9" if broken else "the end of what was opened"
        plain, control, escaped, digits = self._expect(_CHARACTER, what).groups()
        if digits:
            return int(digits[1:], 16)
        return _CONTROLS[control] if control else ord(plain or escaped)

    def _error(self, expected: str) -> OutputTypeError:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - self._text.rfind("\n", 0, self._at)
        rest = self._text[self._at : self._at + 20].split("\n", 1)[0]
        found = f"before {rest!r}" if rest else "at the end of the line"
        message = f"The grammar is not GBNF: {expected} expected in line {line}, column {column}, {found}."
        return OutputTypeError(message, 'Rules look like: root ::= "yes" | "no" [0-9]{1,3}')
