"""Model names as patterns: which route a name takes, and what a name with a wildcard becomes on its way."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file of another program gives: aliases by name, routes by pattern, settings of providers by name."""

    aliases: Mapping[str, Any] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


NOTHING = Imported()

SHIPPED = {
    "gpt-*": "openai",
    "chatgpt-*": "openai",
    "o[0-9]*": "openai",
    "ft:*": "openai",
    "text-embedding-*": "openai",
}
"""The routes that hold where the configuration names no other for the same pattern."""


def route(name: str, routes: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the target of the route that a name takes, and the model's name there; None where none matches.

    The name itself comes before globs, a longer glob before a shorter one, and a glob matches the whole name. A
    target is a provider, or `provider:model` in which each `*` stands for what the one of the pattern matched.

    >>> route("gpt-4o", {"gpt-*": "openai", "gpt-4o": "eu"})
    ('eu', 'gpt-4o')
    >>> route("claude/opus", {"claude/*": "gateway:anthropic/*"})
    ('gateway', 'anthropic/opus')

    """
    patterns = sorted(
        (pattern for pattern, target in routes.items() if target), key=lambda item: (item != name, -len(item))
    )
    for pattern in patterns:
        if pattern == name:
            stars: tuple[str, ...] = ()
        else:
            found = _compile(pattern).fullmatch(name)
            if found is None:
                continue
            stars = found.groups()
        provider, _, model = routes[pattern].partition(":")
        if not model:
            return provider, name
        return provider, _filled(model, stars)
    return None


def _filled(model: str, stars: tuple[str, ...]) -> str:
    """Return a model's name with each `*` replaced by what the one of the pattern matched."""
    matched = iter(stars)
    return re.sub(r"\*", lambda _: next(matched, ""), model)


def _compile(pattern: str) -> re.Pattern[str]:
    """Return a glob as a regular expression that remembers what each `*` matched."""
    parts = re.split(r"(\*|\?|\[[^\]]+\])", pattern)
    written = {"*": "(.*)", "?": "."}
    return re.compile("".join(_part(part, written) for part in parts), re.DOTALL)


def _part(part: str, written: Mapping[str, str]) -> str:
    if part.startswith("[") and part.endswith("]"):
        inside = part[1:-1].replace("\\", r"\\").replace("[", r"\[")
        return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    return written.get(part) or re.escape(part)


def close_to(name: str, known: Iterable[str]) -> list[str]:
    """Return at most three of the known names that are close to one, with or without its provider."""
    names = sorted(set(known))
    found = difflib.get_close_matches(name, names, 3)
    tails = {item.partition(":")[2] or item: item for item in names}
    found += [tails[tail] for tail in difflib.get_close_matches(name.partition(":")[2] or name, tails, 3)]
    return list(dict.fromkeys(found))[:3]
