r"""A regular expression as a tree of characters, sequences, alternatives and repetitions, and that tree as text.

Python's own parser reads the pattern; what no grammar can say (look-around, references back, word boundaries) is
refused. A character class becomes a set that Python agrees with: `\w` in a constraint is narrower than Python's, never
wider.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import reduce
from re import _constants as codes  # type: ignore[attr-defined]  # not in typeshed
from re import _parser  # type: ignore[attr-defined]  # not in typeshed; 3.11's name of sre_parse, the same in 3.14
from typing import Any

from llm_magic.errors import UnsupportedError
from llm_magic.output.grammar.gbnf_parser import (
    ANY,
    ASCII_CATEGORIES,
    CATEGORIES,
    MAX_REPEATS,
    OPPOSITE,
    SURROGATES,
    Ranges,
    complement,
    intersection,
    union,
)


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

_REFUSED = {
    codes.ASSERT: "look-ahead and look-behind",
    codes.ASSERT_NOT: "look-ahead and look-behind",
    codes.GROUPREF: "references back to a group",
    codes.GROUPREF_EXISTS: "conditional groups",
    codes.ATOMIC_GROUP: "atomic groups",
    codes.POSSESSIVE_REPEAT: "possessive repetition",
}


def read_regex(pattern: str, *, search: bool = False) -> Node:
    r"""Return the tree of a pattern that has to match a whole text.

    Parameters
    ----------
    pattern
        A regular expression by Python's rules.
    search
        Whether it may match anywhere in the text, with ASCII classes, as a JSON Schema's `pattern` does: text may then
        stand before it where `^` does not, and behind it where `$` does not.

    Raises
    ------
    UnsupportedError
        It uses what a grammar cannot say, or it does not compile.

    >>> read_regex("a?") == Repeat(Chars(((97, 97),)), 0, 1)
    True

    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of possible nested sets: they mean what Python makes of them
            tree = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UnsupportedError(f"The pattern {pattern!r} is no regular expression: {error}.") from None
    reader = _RegexParser(pattern, tree.state.flags | (re.ASCII if search else 0), open_ended=search)
    return reader.sequence(list(tree), first=True, last=True)


class _RegexParser:
    def __init__(self, pattern: str, flags: int, *, open_ended: bool) -> None:
        self._pattern, self._flags, self._open = pattern, flags, open_ended

    def sequence(self, items: list[Any], *, first: bool, last: bool) -> Node:
        """Read items in a row; `first` and `last`: nothing precedes or follows them in the pattern."""
        start, end = 0, len(items)
        while first and start < end and self._is_edge(items[start], codes.AT_BEGINNING, codes.AT_BEGINNING_STRING):
            start += 1
        while last and start < end and self._is_edge(items[end - 1], codes.AT_END, codes.AT_END_STRING):
            end -= 1
        inner = items[start:end]
        leading = first and start == 0 and self._open and not (inner and self._anchors_itself(inner[0]))
        trailing = last and end == len(items) and self._open and not (inner and self._anchors_itself(inner[-1]))
        parts = [
            self._node(
                operator,
                argument,
                first=first and start == 0 and at == 0,
                last=last and end == len(items) and at == len(inner) - 1,
            )
            for at, (operator, argument) in enumerate(inner)
        ]
        anything = Repeat(Chars(ANY), 0, None)
        if leading:
            parts.insert(0, anything)
        if trailing:
            parts.append(anything)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _is_edge(self, item: Any, *kinds: Any) -> bool:
        return bool(item[0] is codes.AT and item[1] in kinds and not self._flags & re.MULTILINE)

    @staticmethod
    def _anchors_itself(item: Any) -> bool:
        """Tell whether an item's own parts are read with `first` and `last`, and open their ends themselves."""
        return item[0] in (codes.BRANCH, codes.SUBPATTERN)

    def _node(self, operator: Any, argument: Any, *, first: bool, last: bool) -> Node:
        if operator is codes.LITERAL:
            return Chars(self._both_cases(((argument, argument),)))
        if operator is codes.NOT_LITERAL:
            return Chars(complement((*self._both_cases(((argument, argument),)), *SURROGATES)))
        if operator is codes.ANY:
            return Chars(complement(SURROGATES) if self._flags & re.DOTALL else ANY)
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
            return Repeat(
                self.sequence(list(inner), first=False, last=False), min(low, MAX_REPEATS), None if unlimited else high
            )
        what = _REFUSED.get(operator, "boundaries within the text" if operator is codes.AT else str(operator).lower())
        raise UnsupportedError(
            f"The pattern {self._pattern!r} uses {what}, which no grammar can say.",
            "Write it without, and check that part of the value in Python.",
        )

    def _set(self, items: list[Any]) -> Ranges:
        negated = items[0][0] is codes.NEGATE
        categories = ASCII_CATEGORIES if self._flags & re.ASCII else CATEGORIES
        sets: list[Ranges] = []
        for operator, argument in items[negated:]:
            if operator is codes.CATEGORY:
                sets.append(categories[OPPOSITE[argument] if negated else argument])
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
        letters = {code for low, high in ranges for code in range(low, high + 1)}
        swapped = {
            ord(other) for code in letters for other in (chr(code).lower(), chr(code).upper()) if len(other) == 1
        }
        return union([ranges, tuple((code, code) for code in swapped)])


def width(node: Node) -> tuple[int, int | None]:
    """Return how many characters the tree matches at least and at most; None is no limit.

    >>> width(read_regex("ab?c{2,5}"))
    (3, 7)

    """
    if isinstance(node, Chars):
        return 1, 1
    if isinstance(node, Repeat):
        least, most = width(node.part)
        return least * node.low, None if most is None or node.high is None else most * node.high
    widths = [width(part) for part in node.parts]
    leasts, mosts = [least for least, _ in widths], [most for _, most in widths]
    join = sum if isinstance(node, Sequence) else (lambda values: max(values, default=0))
    known = [most for most in mosts if most is not None]
    return (
        sum(leasts) if isinstance(node, Sequence) else min(leasts, default=0),
        join(known) if len(known) == len(mosts) else None,
    )
