"""From a regular expression's tree to GBNF, a plain pattern, or what a JSON string holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import jsonschema_rs

from llm_magic.errors import UnsupportedError
from llm_magic.output.grammar.regex import (
    MAX_CODE_POINT,
    SURROGATES,
    Alternation,
    Chars,
    Node,
    Ranges,
    Repeat,
    Sequence,
    complement,
    intersection,
    read_regex,
)

_JSON_UNSAFE: Ranges = ((0, 31), (34, 34), (92, 92), (127, 127))
_JSON_ESCAPES = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}


def in_json(node: Node, *, escapes: bool = True) -> Node:
    """Return the tree of the same text as it stands between the quotes of a JSON string.

    A set loses the characters that JSON has to escape. Where it has no others, the escape sequences
    stand for them, if `escapes`; else the set is empty, and writing it is refused.
    """
    if isinstance(node, Chars):
        safe = intersection(node.ranges, complement(_JSON_UNSAFE))
        if safe:
            return Chars(safe)
        letters = [letter for code, letter in _JSON_ESCAPES.items() if intersection(node.ranges, ((code, code),))]
        if not letters or not escapes:
            return Chars(())
        return Sequence((Chars(((92, 92),)), Chars(tuple(sorted((ord(each), ord(each)) for each in letters)))))
    if isinstance(node, Repeat):
        return Repeat(in_json(node.part, escapes=escapes), node.low, node.high)
    return type(node)(tuple(in_json(part, escapes=escapes) for part in node.parts))


def to_gbnf(node: Node) -> str:
    r"""Return the tree as the right side of a GBNF rule.

    >>> from llm_magic.output.grammar.regex import read_regex
    >>> to_gbnf(read_regex(r"v\d{1,3}"))
    '"v" [0-9]{1,3}'

    """
    return _write(node, _GBNF, top=True)


def to_regex(node: Node) -> str:
    r"""Return the tree as a plain regular expression: literals, ranges, groups, `|`, repetitions.

    >>> from llm_magic.output.grammar.regex import read_regex
    >>> to_regex(read_regex(r"(?i:v)\d+"))
    '[Vv][0-9]+'

    """
    return _write(node, _REGEX, top=True)


def matches(pattern: str, text: str) -> bool:
    r"""Tell whether a pattern, by Python's rules, matches the whole text, in a time that is linear in it.

    Python's own matcher tries ways one after the other, and a text can be made for which there are more of them than
    it will ever try. What it alone can match (look-around, references back) is an `UnsupportedError`.

    >>> matches(r"(a|aa)+", "a" * 1000 + "b"), matches(r"v\d", "v3")
    (False, True)

    """
    tree = read_regex(pattern, text=text)
    sets = list(dict.fromkeys(_sets(tree)))
    kinds: dict[tuple[bool, ...], int] = {}  # characters that no set of the pattern tells apart are one
    letters = {
        each: kinds.setdefault(tuple(_holds(ranges, ord(each)) for ranges in sets), len(kinds)) for each in set(text)
    }
    spelled = {
        ranges: tuple((_FIRST + kind,) * 2 for signature, kind in kinds.items() if signature[at])
        for at, ranges in enumerate(sets)
    }
    plain = to_regex(_respelled(tree, spelled))
    options = jsonschema_rs.RegexOptions(size_limit=_MEMORY, dfa_size_limit=_MEMORY)
    check = jsonschema_rs.validator_for({"pattern": f"^({plain})$"}, pattern_options=options)
    return bool(check.is_valid("".join(chr(_FIRST + letters[each]) for each in text)))


_MEMORY = 200_000_000
"""Bytes that a compiled pattern may take."""
_FIRST = 0x20000
"""A character that is nothing special in a pattern, and that many follow."""
_NEVER: Ranges = ((1, 1),)


def _sets(node: Node) -> Iterator[Ranges]:
    if isinstance(node, Chars):
        yield node.ranges
    else:
        for part in [node.part] if isinstance(node, Repeat) else node.parts:
            yield from _sets(part)


def _holds(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)


def _respelled(node: Node, spelled: Mapping[Ranges, tuple[tuple[int, int], ...]]) -> Node:
    """Return the tree with other characters for each set."""
    if isinstance(node, Chars):
        return Chars(spelled[node.ranges] or _NEVER)
    if isinstance(node, Repeat):
        return Repeat(_respelled(node.part, spelled), node.low, node.high)
    return type(node)(tuple(_respelled(part, spelled) for part in node.parts))


@dataclass(frozen=True, slots=True)
class _Syntax:
    quote: str
    between: str
    bar: str
    empty: str
    wide: str
    """How a code point beyond ASCII is escaped; empty: it stands for itself."""


_GBNF = _Syntax('"', " ", " | ", '""', "\\U{:08X}")
_REGEX = _Syntax("", "", "|", "()", "")


def _write(node: Node, syntax: _Syntax, *, top: bool = False) -> str:
    if isinstance(node, Chars):
        return _literal(node.ranges[0][:1], syntax) if _is_single(node) else _class(node.ranges, syntax)
    if isinstance(node, Alternation):
        text = syntax.bar.join(_write(part, syntax, top=True) for part in node.parts)
        return text if top else f"({text})"
    if isinstance(node, Repeat):
        text = _write(node.part, syntax)
        if isinstance(node.part, (Sequence, Repeat)):
            text = f"({text})"
        return text + _count(node.low, node.high)
    return _sequence(node, syntax)


def _sequence(node: Sequence, syntax: _Syntax) -> str:
    """Write parts in a row; single characters that follow each other become one literal."""
    words: list[str] = []
    for single, parts in itertools.groupby(_flat(node), _is_single):
        if single:
            words.append(_literal((part.ranges[0][0] for part in parts if isinstance(part, Chars)), syntax))
        else:
            words += [_write(part, syntax) for part in parts]
    return syntax.between.join(words) if words else syntax.empty


def _is_single(node: Node) -> bool:
    return isinstance(node, Chars) and len(node.ranges) == 1 and node.ranges[0][0] == node.ranges[0][1]


def _literal(characters: Iterable[int], syntax: _Syntax) -> str:
    text = "".join(_character(code, syntax, in_class=False) for code in characters)
    return f"{syntax.quote}{text}{syntax.quote}"


def _flat(node: Sequence) -> Iterable[Node]:
    for part in node.parts:
        yield from _flat(part) if isinstance(part, Sequence) else (part,)


def _count(low: int, high: int | None) -> str:
    counts = f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"
    return {(0, None): "*", (1, None): "+", (0, 1): "?", (1, 1): ""}.get((low, high), counts)


def _class(ranges: Ranges, syntax: _Syntax) -> str:
    if not ranges:
        raise UnsupportedError("The pattern holds a set of characters that is empty.")
    rest = complement((*ranges, *SURROGATES))
    negated = ranges[-1][1] == MAX_CODE_POINT and len(rest) < len(ranges)
    shown = rest if negated else ranges
    if not shown:
        shown, negated = ((0, MAX_CODE_POINT),), False
    members = _members(shown, syntax)
    return f"[^{members}]" if negated else f"[{'-^' if members == '^-' else members}]"


def _members(ranges: Ranges, syntax: _Syntax) -> str:
    """Write the inside of a class; `^` and `-` go to the end, where they need no escape."""
    last = ""
    text = ""
    for low, high in ranges:
        if not syntax.quote:
            last += "".join(chr(code) for code in (_HAT, _DASH) if code in (low, high))
            low += low in (_HAT, _DASH)  # noqa: PLW2901 - they are taken out of the range
            high -= high in (_HAT, _DASH) and high >= low  # noqa: PLW2901 - as above
        if low <= high:
            text += _character(low, syntax, in_class=True)
            if high > low:
                text += ("-" if high > low + 1 else "") + _character(high, syntax, in_class=True)
    return text + "".join(sorted(set(last), reverse=True))


_HAT, _DASH = ord("^"), ord("-")
_CLASS_SPECIAL = frozenset('\\]^-["')
_REGEX_SPECIAL = frozenset("\\.^$|?*+()[]{}")
_CONTROL = {9: "\\t", 10: "\\n", 13: "\\r"}


def _character(code: int, syntax: _Syntax, *, in_class: bool) -> str:
    character = chr(code)
    if code in _CONTROL:
        return _CONTROL[code]
    if code < 32 or code == 127:  # noqa: PLR2004 - control characters
        return f"\\x{code:02X}"
    if code > 126:  # noqa: PLR2004 - the last printable one of ASCII
        plain = not syntax.wide or (code <= 0xFFFF and character.isprintable())  # noqa: PLR2004 - the basic plane
        return character if plain else syntax.wide.format(code)
    if syntax.quote and not in_class:
        return f"\\{character}" if character in '"\\' else character
    if in_class and character in _CLASS_SPECIAL:
        if syntax.quote:
            return f"\\x{code:02X}"
        return f"\\{character}" if character in "\\[]" else character
    if in_class or character not in _REGEX_SPECIAL:
        return character
    # llama.cpp lets what repeats an escaped character repeat what stands before it, but not a class
    return {"^": r"[\x5E]", "]": r"[\]]", "\\": r"[\\]"}.get(character, f"[{character}]")
