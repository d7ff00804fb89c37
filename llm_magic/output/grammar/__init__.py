r"""A grammar in GBNF, the notation of llama.cpp: read here, so that a broken one is not sent, and matched here.

The notation: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md. The matcher is Earley's, with the
nullable symbols handled as Aycock and Horspool do.
"""

from __future__ import annotations

from llm_magic.errors import OutputTypeError
from llm_magic.output.grammar.gbnf_parser import GBNFReader, Item, Rule


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
        self._rules: list[Rule] = []
        self._numbers: dict[str, int] = {}
        GBNFReader(text, self._rules, self._numbers).read()
        missing = next((name for name, number in self._numbers.items() if not self._rules[number].defined), None)
        if missing is not None or "root" not in self._numbers:
            raise OutputTypeError(
                f"The grammar has no rule {missing or 'root'!r}.", 'The answer is a "root": root ::= "yes" | "no".'
            )
        self._nullable = self._find_nullable()

    def _find_nullable(self) -> frozenset[int]:
        nullable: set[int] = set()
        grown = True
        while grown:
            grown = False
            for number, rule in enumerate(self._rules):
                if number not in nullable and any(all(item in nullable for item in way) for way in rule.alternatives):
                    nullable.add(number)
                    grown = True
        return frozenset(nullable)

    def accepts(self, text: str) -> bool:
        """Tell whether the whole text is a `root`."""
        return self._match(text)[1]

    def reach(self, text: str) -> int:
        """Return how many characters of the text can begin a `root`."""
        return self._match(text)[0]

    def _match(self, text: str) -> tuple[int, bool]:
        """Return how far the text fits, and whether all of it is a `root`."""
        root = self._numbers["root"]
        # A state is (what it will complete, the alternative, items matched, where it began).
        start: list[tuple[int, tuple[Item, ...], int, int]] = [
            (root, way, 0, 0) for way in self._rules[root].alternatives
        ]
        waiting: list[dict[int, list[tuple[int, tuple[Item, ...], int, int]]]] = []
        for position in range(len(text) + 1):
            states = list(start)
            seen = set(states)
            here: dict[int, list[tuple[int, tuple[Item, ...], int, int]]] = {}
            waiting.append(here)
            start = []
            code = ord(text[position]) if position < len(text) else -1
            ended = False
            for state in states:  # grows while it is walked
                number, way, done, began = state
                new: list[tuple[int, tuple[Item, ...], int, int]] = []
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
                        start.append((number, way, done + 1, began))
                for each in new:
                    if each not in seen:
                        seen.add(each)
                        states.append(each)
            if position == len(text):
                return position, ended
            if not start:
                return position, False
        raise AssertionError  # the loop returns at its last position
