"""What happens while an answer arrives: a few frozen events, the same for every API.

`LLM.stream` yields them in this order, and `Done` always last:

1. `Attempt` for each HTTP request: those that failed (`final` is False where another one follows), then one of status
   200, and `Opened` and `Identified` as the server begins to answer. Of an answer that comes from a recording,
   `Replayed` stands first, then what was recorded of these and of 2 and 3.
2. `ReasoningDelta`, `TextDelta`, `RefusalDelta`, `ToolCallDelta`, `CitationFound`, `ImageReceived`, `ItemReceived`,
   `ReasoningItem`, `LogprobsDelta`, `FilterReport`: the answer as it arrives, in the server's own order.
3. `Finished` for each answer, then `UsageReport` where the server counts; some servers report usage meanwhile, too,
   and what a content filter found may come after the end.
4. Where the model called tools: a `ToolResult` as soon as each call is carried out, `Restarted("tools")`, and 1 to 3
   again. Where the value is invalid: a `Note` that says why, `Restarted("invalid")`, and 1 to 3 again. Where a model
   cannot be reached and has a fallback: `Restarted("fallback")`, a `Note`, and 1 to 3 of the next model.
5. `Done`, once, with the `Response`: the validated value, the tokens of all requests, everything. An answer that fails
   raises its error in the place of `Done`; the error's `response` holds what had come.

`Note` and `Progress` may come anywhere before `Done`. What came before a `Restarted` is no part of the answer. `index`
is the number of the answer that an event belongs to, 0 but where several were asked for (`n`).

>>> import asyncio
>>> from llm_magic import LLM
>>> from llm_magic.events import Done, Restarted, TextDelta
>>> async def answer(prompt):
...     said = ""
...     async for event in LLM("local:smollm2", temperature=0, max_tokens=8).stream(prompt):
...         if isinstance(event, TextDelta):
...             said += event.text
...         elif isinstance(event, Restarted):
...             said = ""
...         elif isinstance(event, Done):
...             return said == event.response.text, event.response.usage.output_tokens
>>> asyncio.run(answer("Count to ten."))  # doctest: +SKIP
(True, 8)

"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llm_magic.messages import Citation, Image
from llm_magic.metadata import Attempt, Event, FinishReason, Usage
from llm_magic.response import Response

__all__ = [
    "Attempt",
    "CitationFound",
    "Done",
    "Event",
    "FilterReport",
    "FinishReason",
    "Finished",
    "Identified",
    "ImageReceived",
    "ItemReceived",
    "LogprobsDelta",
    "Note",
    "Opened",
    "Progress",
    "ReasoningDelta",
    "ReasoningItem",
    "RefusalDelta",
    "Replayed",
    "Restarted",
    "TextDelta",
    "ToolCallDelta",
    "ToolResult",
    "Usage",
    "UsageReport",
]


@dataclass(frozen=True, slots=True)
class Replayed(Event):
    """The answer to a request comes from a recording: nothing was sent."""

    seconds: float
    """From the first request of the cell to the end of this answer, as recorded: tools and rounds included."""
    first_token_seconds: float | None = None
    """From the sending of the request that answered first to its first token, as recorded."""
    pace: float = 0.0
    """How many times as fast as recorded the events of this answer come; 0: all at once."""


@dataclass(frozen=True, slots=True)
class Opened(Event):
    """The server began to answer: status, headers (names in lower case), and its id of the request."""

    status: int
    headers: Mapping[str, str]
    request_id: str | None = None
    cost: float | None = None
    """In US dollars, where a header says it."""


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
    place: int = 0
    """The call's place among those of its turn, from 0: results come as they are there."""
    images: tuple[Image, ...] = ()
    """The images of the result; the model gets them beside the text."""


@dataclass(frozen=True, slots=True)
class CitationFound(Event):
    """A source of the answer. Another of the same URL, file and span replaces it: then its title is known, too."""

    citation: Citation
    index: int = 0


@dataclass(frozen=True, slots=True)
class ImageReceived(Event):
    """An image that the model made: its bytes, or the URL of one that is elsewhere."""

    image: Image
    index: int = 0


@dataclass(frozen=True, slots=True)
class ItemReceived(Event):
    """What else an answer holds, as the server gives it: a call of a tool of the server's own, an approval, ….

    `position` numbers the items of one answer; a later item of the same position replaces it, for it goes on: begun,
    completed. Its `type` says what it is. Bytes of images are left out: they are an `ImageReceived`.
    """

    position: int
    item: Mapping[str, Any]
    index: int = 0


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
    """In US dollars, where the endpoint itself reports it, or a price is known."""


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


@dataclass(frozen=True, slots=True)
class Done(Event):
    """The last event of a stream: the whole `Response`, its value validated. `LLM.stream` alone yields it."""

    response: Response
