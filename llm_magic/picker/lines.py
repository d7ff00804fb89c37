"""The lines of the picker: those of the panel as HTML, escaped, and the models of a list as text.

The style of the panel is `panel.css`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib import resources

from llm_magic.display.markup import escaped
from llm_magic.providers.model_info import ModelCard

EMPTY = '<span class="llm-empty"></span>'
"""The value of a line that says nothing, and takes no room."""

_COPY = (
    "const code = this.parentNode.querySelector('pre'), button = this;"
    "const said = text => { button.textContent = text; setTimeout(() => { button.textContent = 'Copy'; }, 1500); };"
    "const mark = () => { getSelection().selectAllChildren(code); said('Selected'); };"
    "navigator.clipboard ? navigator.clipboard.writeText(code.textContent).then(() => said('Copied'), mark) : mark();"
)
_KEYS_ARE_OURS = (
    "this.closest('.llm-picker')?.addEventListener('focusin', event => {"
    "if (event.target.matches('select, button, [type=checkbox]')) event.target.setAttribute('data-lm-suppress-shortcuts', 'true');"
    "})"
)
"""JupyterLab takes arrows and letters for commands, unless the focused element says otherwise."""
MOST = 200
"""Rows that are shown at once; a search finds the others."""
_THOUSAND = 1000


@cache
def style() -> str:
    """Return the style sheet as an element, which also claims the keys for the panel."""
    text = (resources.files(__package__) / "panel.css").read_text(encoding="utf-8")
    return f'{EMPTY}<style onload="{_KEYS_ARE_OURS}">{text}</style>'


def title(models: Sequence[tuple[str, str]], source: str) -> str:
    """Return the head line: what is in force, each name with what it leads to, and where the setting comes from."""
    shown = [_named(name, leads_to) for name, leads_to in models if name]
    origin = "" if source in {"", "default"} else f' <span class="llm-quiet">({escaped(source)})</span>'
    said = ", ".join(shown) or '<span class="llm-quiet">no model</span>'
    return f'<div class="llm-title"><b>{"Models" if len(shown) > 1 else "Model"}</b><span>{said}{origin}</span></div>'


def _named(name: str, leads_to: str) -> str:
    arrow = f" → <code>{escaped(leads_to)}</code>" if leads_to and leads_to != name else ""
    return f"<code>{escaped(name)}</code>{arrow}"


def quiet(text: str, *, busy: bool = False) -> str:
    """Return a line that screen readers tell in time; `busy` shows that something goes on."""
    spin = " llm-spin" if busy else ""
    return f'<div class="llm-quiet{spin}" role="status">{escaped(text)}</div>' if text else EMPTY


def problem(text: str) -> str:
    """Return a line that is to be seen, and told at once."""
    return f'<div class="llm-problem" role="alert">{escaped(text)}</div>' if text else EMPTY


def tried(model: str, answer: str, said: str) -> str:
    """Return one of several answers, given as lines, below the name of its model."""
    return f'<div class="llm-tried"><code>{escaped(model)}</code>{answer}{said}</div>'


def beside(blocks: Sequence[str]) -> str:
    """Return blocks next to each other, where there is room."""
    return f'<div class="llm-beside">{"".join(blocks)}</div>'


def answer(text: str) -> str:
    """Return an answer as plain text: what a model writes is data."""
    return f'<div class="llm-answer">{escaped(text)}</div>' if text else EMPTY


def code(lines: str) -> str:
    """Return the code that does the same, with a button that copies it."""
    if not lines:
        return EMPTY
    button = (
        f'<button type="button" class="llm-copy" onclick="{escape(_COPY)}" aria-label="Copy the code">Copy</button>'
    )
    return f'<div class="llm-code"><pre>{escaped(lines)}</pre>{button}</div>'


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


def numbered(names: Sequence[str], cards: Sequence[ModelCard], in_force: Collection[str], start: int = 1) -> list[str]:
    """Return the lines of a plain list: number, name, facts, and a star at each model in force.

    >>> numbered(["vllm:smollm2"], [ModelCard("smollm2", 4096)], ["vllm:smollm2"])
    ['*  1  vllm:smollm2  (4,096 tokens)']

    """
    width = len(str(start + len(names) - 1)) + 2
    lines = []
    for number, (name, card) in enumerate(zip(names, cards, strict=True), start):
        told = ", ".join(facts(card))
        star = "*" if name in in_force else " "
        lines.append(f"{star}{number:>{max(width, 3)}}  {name}{f'  ({told})' if told else ''}")
    return lines
