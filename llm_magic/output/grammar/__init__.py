r"""Grammars in GBNF, the notation of llama.cpp: loaded by `--grammar`, and matched here.

The notation: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md. It is parsed
before it is sent, so that a broken one is not. The matcher is Earley's, with the nullable symbols
handled as Aycock and Horspool do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_magic.errors import OutputTypeError
from llm_magic.output.grammar.gbnf_parser import GBNFParser, Item

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
