"""`%llm_models`: every provider is asked at the same time, none is waited for long, and each failure is one line."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from llm_magic.commands.line import Command
from llm_magic.display import markup, table
from llm_magic.display.markup import Bundle
from llm_magic.errors import LLMError, TimedOutError
from llm_magic.options import Option
from llm_magic.providers.base import ModelCard, Provider

PATIENCE = 6.0
"""Seconds that a server has for its list."""
FRESH = 60.0
"""Seconds that a list counts as the one that the server has now."""
_GRACE = 2.0  # seconds that a provider may take beyond its request: for a key that is asked for, a name looked up
_WIDEST = 120

_OPTIONS = (Option("refresh", ("--refresh",), "", "ask again"),)
_listed: weakref.WeakKeyDictionary[Provider, float] = weakref.WeakKeyDictionary()


def run(command: Command) -> None:
    """Show the models."""
    line = command.read(_OPTIONS, most=1, usage="[PROVIDER[:TEXT]] [--refresh]")
    registry = command.session.registry
    if registry.problem is not None:
        raise type(registry.problem)(registry.problem.message, registry.problem.hint)
    wanted, _, pattern = (line.words[0] if line.words else "").partition(":")
    found: dict[str, Provider | LLMError] = {}
    if wanted:
        found[wanted] = registry.get(wanted)
    else:
        for name in registry.names():
            try:
                found[name] = registry.get(name)
            except LLMError as error:
                found[name] = error
    refresh = bool(line.values.get("refresh"))
    asking = ask_all({name: item for name, item in found.items() if isinstance(item, Provider)}, refresh=refresh)
    answers: dict[str, list[ModelCard] | LLMError] = {
        name: item for name, item in found.items() if not isinstance(item, Provider)
    }
    answers |= command.wait(asking, f"asking {', '.join(found)}")
    if wanted and isinstance(answer := answers[wanted], LLMError):
        raise answer
    command.show(_page({name: answers[name] for name in found}, pattern, registry.all_aliases()))


async def ask_all(providers: Mapping[str, Provider], *, refresh: bool = False) -> dict[str, list[ModelCard] | LLMError]:
    """Return what each provider lists, or why it does not; at most `PATIENCE` and a little more, whatever they do."""
    answers = await asyncio.gather(*(_ask(provider, refresh=refresh) for provider in providers.values()))
    return dict(zip(providers, answers, strict=True))


async def _ask(provider: Provider, *, refresh: bool) -> list[ModelCard] | LLMError:
    fresh = time.monotonic() - _listed.get(provider, float("-inf")) < FRESH
    try:
        asked = provider.list_models(refresh=refresh or not fresh, patience=PATIENCE)
        cards = await asyncio.wait_for(asked, PATIENCE + _GRACE)
    except TimeoutError:
        return TimedOutError(f"{provider.origin()} has not answered within {PATIENCE + _GRACE:.0f} s.")
    except LLMError as error:
        return error
    if not fresh or refresh:
        _listed[provider] = time.monotonic()
    return cards


def _page(answers: Mapping[str, list[ModelCard] | LLMError], pattern: str, aliases: Iterable[str]) -> Bundle:
    """Return a table of the models, and a line for each provider that has none to show."""
    rows: list[dict[str, Any]] = []
    lines: list[str] = []
    for name, answer in answers.items():
        if isinstance(answer, LLMError):
            lines.append(why(name, answer))
            continue
        cards = [item for item in answer if _matches(item.id, pattern)]
        rows += [_row(name, item) for item in cards]
        if not answer:
            lines.append(f"{name}: lists no models.")
        elif not cards:
            lines.append(f"{name}: none of its {len(answer):,} models has {pattern!r} in its name.")
    columns = [column for column in ("model", "context", "owner", "retires") if any(row[column] for row in rows)]
    shown = [table.shown([{column: row[column] for column in columns} for row in rows], widest=_WIDEST)] if rows else []
    if len(rows) > table.MAX_ROWS:
        lines.insert(0, "%llm_models PROVIDER:TEXT shows those with TEXT in their names.")
    if (names := list(aliases)) and not pattern:
        lines.append(f"Aliases: {', '.join(names)}")
    return markup.joined([*shown, *map(markup.quiet, lines)])


def why(name: str, error: LLMError) -> str:
    """Return why a provider was not asked, or did not answer, as one line that begins with its name."""
    said = " ".join(error.message.split())
    return said if said.startswith((f"{name} ", f"{name}:")) else f"{name}: {said}"


def _matches(model: str, pattern: str) -> bool:
    if not any(character in pattern for character in "*?["):
        return pattern.lower() in model.lower()
    return fnmatchcase(model.lower(), pattern.lower())


def _row(name: str, item: ModelCard) -> dict[str, Any]:
    return {
        "model": f"{name}:{item.id}",
        "context": item.context,
        "owner": item.owned_by or item.parent,
        "retires": item.retires,
    }
