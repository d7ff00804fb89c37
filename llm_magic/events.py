"""What happens while an answer arrives: a few frozen events, the same for every API.

`index` is the number of the answer that the event belongs to, 0 but where several were asked for (`n`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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


@dataclass(frozen=True, slots=True)
class Opened(Event):
    """The server began to answer: status, headers (names in lower case), and its id of the request."""

    status: int
    headers: Mapping[str, str]
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Identified(Event):
    """The model's name as the server reports it."""

    model: str


@dataclass(frozen=True, slots=True)
class TextDelta(Event):
    """More of the answer's text."""

    text: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class ReasoningDelta(Event):
    """More of the model's reasoning, which is never part of the answer."""

    text: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class ReasoningItem(Event):
    """Reasoning as the server wants it back, whole, as plain data (see `llm_magic.messages.Reasoning`)."""

    item: Mapping[str, Any]
    index: int = 0


@dataclass(frozen=True, slots=True)
class RefusalDelta(Event):
    """More of the model's refusal."""

    text: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallDelta(Event):
    """More of a tool call: `arguments` of one `position` are appended, `id` and `name` come once."""

    position: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class ToolResult(Event):
    """A tool call that was carried out: the result sent to the model, or the error, as text."""

    id: str
    name: str
    arguments: str
    result: str
    failed: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LogprobsDelta(Event):
    """Log probabilities of further tokens, each as the server gives it."""

    tokens: tuple[Mapping[str, Any], ...]
    index: int = 0


@dataclass(frozen=True, slots=True)
class FilterReport(Event):
    """What a content filter found, as the server gives it."""

    details: Mapping[str, Any]
    index: int = 0


@dataclass(frozen=True, slots=True)
class UsageReport(Event):
    """The usage so far; a later report replaces an earlier one of the same request."""

    usage: Usage
    cost: float | None = None
    """In US dollars, where the endpoint itself reports it."""


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """One answer is complete, and why. The first one for an `index` counts."""

    reason: FinishReason
    index: int = 0


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """What the wait is for, as one line that the next event replaces: weights, a model loading, a retry."""

    text: str


@dataclass(frozen=True, slots=True)
class Note(Event):
    """Something the user should know and that stays: rows cut, a schema sent non-strict, a fallback taken."""

    text: str


@dataclass(frozen=True, slots=True)
class Restarted(Event):
    """What came so far is put aside: another round (after tools), a re-ask (invalid value), a fallback."""

    why: Literal["tools", "invalid", "fallback"]
