"""The metadata of an answer: its tokens, why it ended, and the HTTP requests that it took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum
from typing import Literal

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "interrupted", "truncated"]
"""Why an answer ended; `truncated` is one that broke off, or that the server gave up."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counted them: input includes the cached ones, output those of the reasoning."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


def usage_in_all(usages: Iterable[Usage | None]) -> Usage | None:
    """Return the tokens of several together, of those that are known; None where none are."""
    found = [usage for usage in usages if usage is not None]
    return sum(found[1:], start=found[0]) if found else None


def cost_in_all(costs: Iterable[float | None]) -> float | None:
    """Return what several cost together, of those that are known; None where none are."""
    found = [cost for cost in costs if cost is not None]
    return fsum(found) if found else None


class Event:
    """What all events have in common: nothing but their name."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Attempt(Event):
    """One HTTP request: `status` and `reason` of its failure, or status 200. Seconds.

    `retry_after` is what the server asked to wait. A failed attempt is announced as it happens, also as an event. An
    answer that broke off is told of once more: with status 200 and the reason, in the place of the attempt before.
    """

    provider: str
    model: str
    status: int | None
    reason: str
    seconds: float
    request_id: str | None = None
    retry_after: float | None = None
    final: bool = True
    """False where another attempt follows."""
