"""Which models of a long list are shown, and how: pure, and quick with thousands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from llm_magic.providers.model_info import ModelCard

MOST = 200
"""Rows that are shown at once; a search finds the others."""
_THOUSAND = 1000


def matching(cards: Sequence[ModelCard], search: str, provider: str = "") -> list[ModelCard]:
    """Return the cards whose names hold every word of the search, sorted; the provider's counts.

    >>> [card.id for card in matching([ModelCard("b/Llama-3-8b"), ModelCard("a/llama-3")], "LLAMA 3")]
    ['a/llama-3', 'b/Llama-3-8b']

    """
    wanted = search.lower().split()
    found = [card for card in cards if all(word in f"{provider}:{card.id}".lower() for word in wanted)]
    return sorted(found, key=lambda card: card.id.lower())


def label(card: ModelCard) -> str:
    """Return a row: the name, and what the server tells of it.

    >>> label(ModelCard("smollm2", 4096)), label(ModelCard("gpt-x", 128_000, "2020-01-31"))
    ('smollm2 · 4,096 tokens', 'gpt-x · 128k tokens · retired 2020-01-31')

    """
    return " · ".join([card.id, *facts(card)])


def facts(card: ModelCard) -> list[str]:
    """Return what the server tells of a model: its context, the day it retires, its base."""
    told = []
    if card.context:
        whole = card.context >= 10 * _THOUSAND and card.context % _THOUSAND == 0
        told.append(f"{card.context // _THOUSAND}k tokens" if whole else f"{card.context:,} tokens")
    if card.retires:
        past = card.retires < datetime.now(UTC).date().isoformat()
        told.append(f"{'retired' if past else 'retires'} {card.retires}")
    if card.parent:
        told.append(f"on {card.parent}")
    return told


def numbered(names: Sequence[str], cards: Sequence[ModelCard], in_force: str, start: int = 1) -> list[str]:
    """Return the lines of a plain list: number, name, facts, and a star at the model in force.

    >>> numbered(["vllm:smollm2"], [ModelCard("smollm2", 4096)], "vllm:smollm2")
    ['*  1  vllm:smollm2  (4,096 tokens)']

    """
    width = len(str(start + len(names) - 1)) + 2
    lines = []
    for number, (name, card) in enumerate(zip(names, cards, strict=True), start):
        told = ", ".join(facts(card))
        star = "*" if name == in_force else " "
        lines.append(f"{star}{number:>{max(width, 3)}}  {name}{f'  ({told})' if told else ''}")
    return lines
