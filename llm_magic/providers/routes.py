"""Model names as patterns: which route a name takes, and what a name with a wildcard becomes on its way."""

from __future__ import annotations

import re
from collections.abc import Mapping

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
    patterns = [pattern for pattern, target in routes.items() if target]
    for pattern in sorted(patterns, key=lambda item: (item != name, -len(item))):
        expression = re.escape(name) if pattern == name else "".join(map(_expression, _PARTS.split(pattern)))
        if found := re.fullmatch(expression, name, re.DOTALL):
            provider, _, model = routes[pattern].partition(":")
            return provider, _filled(model, found.groups()) if model else name
    return None


def _filled(model: str, stars: tuple[str, ...]) -> str:
    """Return a model's name with each `*` replaced by what the one of the pattern matched."""
    matched = iter(stars)
    return re.sub(r"\*", lambda _: next(matched, ""), model)


_PARTS = re.compile(r"(\*|\?|\[[^\]]+\])")


def _expression(part: str) -> str:
    """Return a part of a glob as a regular expression; what a `*` matched is remembered."""
    if part.startswith("[") and part.endswith("]"):
        inside = part[1:-1].replace("\\", r"\\").replace("[", r"\[")
        return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    return {"*": "(.*)", "?": "."}.get(part) or re.escape(part)
