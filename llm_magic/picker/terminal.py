"""The picker where there are no widgets: all models that all providers list, by number."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from llm_magic.errors import LLMError, OptionError
from llm_magic.picker.backend import PATIENCE
from llm_magic.picker.lines import matching, numbered
from llm_magic.providers.model_info import ModelCard

if TYPE_CHECKING:
    from llm_magic.session import Session

MOST = 50
"""Models of one provider that are shown at most; a search finds the others."""


def listing(session: Session, search: str = "") -> tuple[str, tuple[str, ...]]:
    """Ask all providers for their models, and number those that hold the words of `search`.

    Returns the page, and the names that its numbers stand for, of number 1 first.
    """
    registry = session.registry
    answers = session.loop.run(registry.list_models(registry.names(), patience=PATIENCE))
    in_force: tuple[str, ...] = ()
    with suppress(LLMError):
        in_force = registry.models_asked(registry.default_model(session.settings.model))
    lines: list[str] = []
    names: list[str] = []
    for provider, answer in answers.items():
        if isinstance(answer, LLMError):
            lines += [f"   {provider}: {answer.message}"] if not search else []
            continue
        found = matching(answer, search, provider)
        full = [f"{provider}:{card.id}" for card in found[:MOST]]
        lines += numbered(full, found[:MOST], in_force, len(names) + 1)
        names += full
        if len(found) > MOST:
            lines.append(f"   {provider}: {len(found) - MOST:,} more; %llm_picker --list WORDS searches them")
    wanted = search.lower().split()
    aliases = [alias for alias in registry.all_aliases() if all(word in alias.lower() for word in wanted)]
    lines += numbered(aliases, [ModelCard(alias) for alias in aliases], in_force, len(names) + 1)
    names += aliases
    if search and not names:
        lines.append(f"No model's name holds {search!r}.")
    lines.append(
        f"In force: {', '.join(in_force) or 'no model'}. %llm_picker NUMBER changes it for this session, "
        "several NUMBERS compare."
    )
    return "\n".join(lines), tuple(names)


def chosen(session: Session, numbers: Sequence[int], names: tuple[str, ...]) -> str:
    """Return what `LLMMagics.model` says of the models with these numbers: their names, with commas.

    Raises
    ------
    OptionError
        The list that was shown last has no such number, one is given twice, or a name holds a comma.

    """
    for number in numbers:
        if not 1 <= number <= len(names):
            there = f"1 to {len(names)}" if len(names) > 1 else "1 alone"
            shown = f"The list has {there}." if names else "No list was shown yet."
            raise OptionError(f"There is no model number {number}.", f"{shown} %llm_picker --list shows it.")
    found = tuple(names[number - 1] for number in numbers)
    text = ",".join(found)
    if session.registry.models_asked(text) != found:
        name = next(name for name in found if "," in name)
        raise OptionError(f"The comma of {name!r} would separate models.", "Choose it by an alias without one.")
    return text
