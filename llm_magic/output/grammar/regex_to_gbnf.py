"""The tree of a regular expression is written down: as GBNF, as a plain pattern, or as what stands in a JSON string."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llm_magic.errors import UnsupportedError
from llm_magic.output.grammar.gbnf_parser import MAX_CODE_POINT, SURROGATES, Ranges, complement, intersection, union
from llm_magic.output.grammar.regex import Alternation, Chars, Node, Repeat, Sequence

_JSON_UNSAFE: Ranges = ((0, 31), (34, 34), (92, 92), (127, 127))
_JSON_ESCAPES = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}


def in_json(node: Node, *, escapes: bool = True) -> Node:
    """Return the tree of the same text as it stands between the quotes of a JSON string.

    A set loses the characters that JSON has to escape. Where it has no others, the escape sequences stand for them, if
    `escapes`; else the set is empty, and writing it is refused.
    """
    if isinstance(node, Chars):
        safe = intersection(node.ranges, complement(_JSON_UNSAFE))
        if safe:
            return Chars(safe)
        letters = [
            letter for code, letter in _JSON_ESCAPES.items() if any(low <= code <= high for low, high in node.ranges)
        ]
        if not letters or not escapes:
            return Chars(())
        return Sequence((Chars(((92, 92),)), Chars(union(((ord(each), ord(each)),) for each in letters))))
    if isinstance(node, Repeat):
        return Repeat(in_json(node.part, escapes=escapes), node.low, node.high)
    return type(node)(tuple(in_json(part, escapes=escapes) for part in node.parts))


def to_gbnf(node: Node) -> str:
    r"""Return the tree as the right side of a GBNF rule.

    >>> from llm_magic.output.grammar.regex import read_regex
    >>> to_gbnf(read_regex(r"v\d{1,3}"))
    '"v" [0-9]{1,3}'

    """
    return _written(node, _GBNF, top=True)


def to_regex(node: Node) -> str:
    r"""Return the tree as a plain regular expression: literals, classes of ranges, groups, `|`, `*`, `+`, `?`, `{m,n}`.

    >>> from llm_magic.output.grammar.regex import read_regex
    >>> to_regex(read_regex(r"(?i:v)\d+"))
    '[Vv][0-9]+'

    """
    return _written(node, _REGEX, top=True)


_BASIC_PLANE = 0xFFFF


@dataclass(frozen=True, slots=True)
class _Notation:
    quote: str
    between: str
    bar: str
    empty: str
    wide: str
    """How a code point beyond ASCII is escaped; empty: it stands for itself."""


_GBNF = _Notation('"', " ", " | ", '""', "\\U{:08X}")
_REGEX = _Notation("", "", "|", "()", "")


def _written(node: Node, notation: _Notation, *, top: bool = False) -> str:
    if isinstance(node, Chars):
        return _class(node.ranges, notation)
    if isinstance(node, Alternation):
        text = notation.bar.join(_written(part, notation, top=True) for part in node.parts)
        return text if top else f"({text})"
    if isinstance(node, Repeat):
        text = _written(node.part, notation)
        if isinstance(node.part, (Sequence, Repeat)):
            text = f"({text})"
        return text + _count(node.low, node.high)
    return _sequence(node, notation)


def _sequence(node: Sequence, notation: _Notation) -> str:
    words: list[str] = []
    literal = ""
    for part in _flat(node):
        single = isinstance(part, Chars) and len(part.ranges) == 1 and part.ranges[0][0] == part.ranges[0][1]
        if single:
            assert isinstance(part, Chars)  # noqa: S101 - `single` says so, for the type checker
            literal += _character(part.ranges[0][0], notation, in_class=False)
            continue
        if literal:
            words.append(f"{notation.quote}{literal}{notation.quote}")
            literal = ""
        words.append(_written(part, notation))
    if literal:
        words.append(f"{notation.quote}{literal}{notation.quote}")
    return notation.between.join(words) if words else notation.empty


def _flat(node: Sequence) -> Iterable[Node]:
    for part in node.parts:
        if isinstance(part, Sequence):
            yield from _flat(part)
        else:
            yield part


def _count(low: int, high: int | None) -> str:
    plain = {(0, None): "*", (1, None): "+", (0, 1): "?", (1, 1): ""}.get((low, high))
    if plain is not None:
        return plain
    return f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"


def _class(ranges: Ranges, notation: _Notation) -> str:
    if not ranges:
        raise UnsupportedError("The pattern holds a set of characters that is empty.")
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return f"{notation.quote}{_character(ranges[0][0], notation, in_class=False)}{notation.quote}"
    rest = complement((*ranges, *SURROGATES))
    negated = ranges[-1][1] == MAX_CODE_POINT and len(rest) < len(ranges)
    shown = rest if negated else ranges
    if not shown:
        shown, negated = ((0, MAX_CODE_POINT),), False
    members = _members(shown, notation)
    return f"[^{members}]" if negated else f"[{'-^' if members == '^-' else members}]"


def _members(ranges: Ranges, notation: _Notation) -> str:
    """Write what stands between the brackets of a class; `^` and `-` go to the end, where they need no escape."""
    last = ""
    text = ""
    for low, high in ranges:
        if not notation.quote:
            last += "".join(chr(code) for code in (_HAT, _DASH) if code in (low, high))
            low += low in (_HAT, _DASH)  # noqa: PLW2901 - they are taken out of the range
            high -= high in (_HAT, _DASH) and high >= low  # noqa: PLW2901 - as above
        if low <= high:
            text += _character(low, notation, in_class=True)
            if high > low:
                text += ("-" if high > low + 1 else "") + _character(high, notation, in_class=True)
    return text + "".join(sorted(set(last), reverse=True))


_HAT, _DASH = ord("^"), ord("-")
_CLASS_SPECIAL = frozenset('\\]^-["')
_REGEX_SPECIAL = frozenset("\\.^$|?*+()[]{}")
_CONTROL = {9: "\\t", 10: "\\n", 13: "\\r"}


def _character(code: int, notation: _Notation, *, in_class: bool) -> str:
    character = chr(code)
    if code in _CONTROL:
        return _CONTROL[code]
    if code < 32 or code == 127:  # noqa: PLR2004 - control characters
        return f"\\x{code:02X}"
    if code > 126:  # noqa: PLR2004 - the last printable one of ASCII
        return (
            notation.wide.format(code)
            if notation.wide and (code > _BASIC_PLANE or not character.isprintable())
            else character
        )
    if notation.quote and not in_class:
        return f"\\{character}" if character in '"\\' else character
    if in_class and character in _CLASS_SPECIAL:
        if notation.quote:
            return f"\\x{code:02X}"
        return f"\\{character}" if character in "\\[]" else character
    if in_class or character not in _REGEX_SPECIAL:
        return character
    # llama.cpp would let what repeats an escaped character repeat what stands before it, too; not so with a class
    return {"^": r"[\x5E]", "]": r"[\]]", "\\": r"[\\]"}.get(character, f"[{character}]")
