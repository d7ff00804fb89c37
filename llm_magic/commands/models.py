"""`%llm_models`: all providers asked at the same time, none for long; a failure is one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from llm_magic.commands.line import Command
from llm_magic.display import markup, table
from llm_magic.display.markup import Bundle
from llm_magic.errors import LLMError
from llm_magic.model_names import shown_model
from llm_magic.options import Option
from llm_magic.providers.model_info import ModelCard

PATIENCE = 6.0
"""Seconds that a server has for its list."""
_WIDEST = 120
_REFRESH = Option("refresh", ("--refresh",), "", "ask again")


def run(command: Command) -> None:
    """Show the models."""
    line = command.read((_REFRESH,), most=1, usage="[PROVIDER[:TEXT]] [--refresh]")
    registry = command.session.registry
    registry.raise_problem()
    wanted, _, pattern = (line.words[0] if line.words else "").partition(":")
    names = [wanted] if wanted else registry.names()
    asking = registry.list_models(names, patience=PATIENCE, refresh=bool(line.values.get("refresh")))
    answers = command.wait(lambda _: asking, f"asking {', '.join(names)}")
    if wanted and isinstance(answer := answers[wanted], LLMError):
        raise answer
    command.show(_page(answers, pattern, registry.all_aliases()))


def _page(answers: Mapping[str, list[ModelCard] | LLMError], pattern: str, aliases: Iterable[str]) -> Bundle:
    """Return a table of the models, and a line for each provider that has none to show."""
    rows: list[dict[str, object]] = []
    lines: list[str] = []
    for name, answer in answers.items():
        if isinstance(answer, LLMError):
            lines.append(why(name, answer))
            continue
        cards = [card for card in answer if _matches(card.id, pattern)]
        rows += [
            {
                "model": f"{name}:{shown_model(card.id)}",
                "context": card.context,
                "owner": card.owned_by or shown_model(card.parent),
                "retires": card.retires,
            }
            for card in cards
        ]
        if not answer:
            lines.append(f"{name}: lists no models.")
        elif not cards:
            lines.append(f"{name}: none of its {len(answer):,} models has {pattern!r} in its name.")
    columns = [column for column in (rows[0] if rows else ()) if any(row[column] for row in rows)]
    shown = [table.shown([{column: row[column] for column in columns} for row in rows], widest=_WIDEST)] if rows else []
    if len(rows) > table.MAX_ROWS:
        lines.insert(0, "%llm_models PROVIDER:TEXT shows those with TEXT in their names.")
    if (names := list(aliases)) and not pattern:
        lines.append(f"Aliases: {', '.join(names)}")
    return markup.joined([*shown, *map(markup.quiet, lines)])


def why(name: str, error: LLMError) -> str:
    """Return why a provider lists nothing, as one line that begins with its name."""
    said = " ".join(error.message.split())
    return said if said.startswith((f"{name} ", f"{name}:")) else f"{name}: {said}"


def _matches(model: str, pattern: str) -> bool:
    if not any(character in pattern for character in "*?["):
        return pattern.lower() in model.lower()
    return fnmatchcase(model.lower(), pattern.lower())
