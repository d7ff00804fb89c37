"""The picker where there are no widgets: all models that all providers list, by number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_magic.errors import LLMError, OptionError
from llm_magic.picker import rows
from llm_magic.picker.backend import PATIENCE
from llm_magic.providers.model_info import ModelCard

if TYPE_CHECKING:
    from llm_magic.session import Session

MOST = 50
"""Models of one provider that are shown at most; a search finds the others."""


@dataclass(frozen=True, slots=True)
class NumberedList:
    """The page, and what its numbers stand for: `names[0]` is number 1."""

    text: str
    names: tuple[str, ...]


def listing(session: Session, search: str = "") -> NumberedList:
    """Ask all providers for their models, and number those that hold the words of `search`."""
    registry = session.registry
    answers = session.loop.run(registry.list_models(registry.names(), patience=PATIENCE))
    in_force = _in_force(session)
    lines: list[str] = []
    numbered: list[str] = []
    for provider, answer in answers.items():
        if isinstance(answer, LLMError):
            lines += [f"   {provider}: {answer.message}"] if not search else []
            continue
        found = rows.matching(answer, search, provider)
        full = [f"{provider}:{card.id}" for card in found[:MOST]]
        lines += rows.numbered(full, found[:MOST], in_force, len(numbered) + 1)
        numbered += full
        if len(found) > MOST:
            lines.append(f"   {provider}: {len(found) - MOST:,} more; %llm_picker --list WORDS searches them")
    aliases = [ModelCard(alias) for alias in registry.all_aliases()]
    shown = [card for card in aliases if all(word in card.id.lower() for word in search.lower().split())]
    names = [card.id for card in shown]
    lines += rows.numbered(names, shown, in_force, len(numbered) + 1)
    numbered += names
    if search and not numbered:
        lines.append(f"No model's name holds {search!r}.")
    lines.append(f"In force: {in_force or 'no model'}. %llm_picker NUMBER changes it for this session.")
    return NumberedList("\n".join(lines), tuple(numbered))


def chosen(number: int, names: tuple[str, ...]) -> str:
    """Return the name of a number.

    Raises
    ------
    OptionError
        The list that was shown last has no such number.

    """
    if not 1 <= number <= len(names):
        numbers = f"1 to {len(names)}" if len(names) > 1 else "1 alone"
        shown = f"The list has {numbers}." if names else "No list was shown yet."
        raise OptionError(f"There is no model number {number}.", f"{shown} %llm_picker --list shows it.")
    return names[number - 1]


def _in_force(session: Session) -> str:
    try:
        return session.registry.default_model(session.settings.model)
    except LLMError:
        return ""
