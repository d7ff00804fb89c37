"""The draft of a response: events are folded in while they arrive, and it builds the `Response`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

from llm_magic.events import (
    Attempt,
    Event,
    FilterReport,
    Finished,
    FinishReason,
    Identified,
    LogprobsDelta,
    Note,
    Opened,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    Restarted,
    TextDelta,
    ToolCallDelta,
    ToolResult,
    Usage,
    UsageReport,
)
from llm_magic.messages import ToolCall
from llm_magic.response import Alternative, Response, ToolRun
from llm_magic.text_buffer import TextBuffer, whole

_OK = 200


@lru_cache(maxsize=128)
def _seen(text: str) -> str:
    """Return an equal text that was seen lately, else this one: most headers of a server are always the same."""
    return text


class Draft:
    """A `Response` so far: `add` events, read the fields, take the `response`.

    One thread adds; others may read what has come meanwhile. Adding costs the same for the first and the millionth
    delta.

    >>> draft = Draft()
    >>> draft.add(TextDelta("Hel")); draft.add(TextDelta("lo")); draft.add(Finished("stop"))
    >>> draft.text, draft.finish_reason
    ('Hello', 'stop')
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.started = clock()
        self.first_token_seconds: float | None = None
        self.attempts: list[Attempt] = []
        self.tool_runs: list[ToolRun] = []
        self.headers: Mapping[str, str] = {}
        self.request_id: str | None = None
        self.model_reported = ""
        self.filters: list[Mapping[str, Any]] = []
        self.notes: list[str] = []
        self.cost: float | None = None
        self._spent: Usage | None = None  # of earlier requests of this cell
        self._usage: Usage | None = None  # of the request that runs now
        self._rounds: list[dict[int, TextBuffer]] = []
        self._reasoning: dict[int, TextBuffer] = {0: TextBuffer()}  # of all rounds
        self._clear_answer()

    def _clear_answer(self) -> None:
        self._text: dict[int, TextBuffer] = {0: TextBuffer()}
        self._reasoning_before = {index: len(text) for index, text in self._reasoning.items()}
        self._reasoning_items: dict[int, list[Mapping[str, Any]]] = {}
        self._refusal: list[str] = []
        self._calls: dict[tuple[int, int], ToolCallDelta] = {}  # by the number of the answer and the call's position
        self._call_arguments: dict[tuple[int, int], list[str]] = {}
        self._logprobs: list[Mapping[str, Any]] = []
        self._finished: dict[int, FinishReason] = {}
        self._rounds.append(self._text)

    def add_all(self, events: Iterable[object]) -> None:
        """Fold a batch of events in; what only the moment is for (progress, questions) is passed over."""
        pieces: list[str] = []
        for event in events:
            if type(event) is TextDelta and event.index == 0:  # by far the most frequent one
                pieces.append(event.text)
                continue
            if pieces:
                self._add_text("".join(pieces), 0)
                pieces = []
            fold = self._FOLDS.get(type(event))
            if fold is not None:
                fold(self, event)
        if pieces:
            self._add_text("".join(pieces), 0)

    def add(self, event: Event) -> None:
        """Fold one event in."""
        self.add_all((event,))

    def _add_text(self, text: str, index: int) -> None:
        self._begin_answer()
        if index not in self._text:
            self._text[index] = TextBuffer()
        self._text[index].append(text)

    def _add_other_text(self, event: TextDelta) -> None:
        self._add_text(event.text, event.index)

    def _begin_answer(self) -> None:
        """Take note that the model has begun to answer."""
        if self.first_token_seconds is None:
            self.first_token_seconds = self._clock() - self.started

    def _add_reasoning(self, event: ReasoningDelta) -> None:
        self._begin_answer()
        if event.index not in self._reasoning:
            self._reasoning[event.index] = TextBuffer()
        reasoning = self._reasoning[event.index]
        if 0 < len(reasoning) == self._reasoning_before.get(event.index):
            reasoning.append("\n\n")
            self._reasoning_before[event.index] += 2
        reasoning.append(event.text)

    def _add_reasoning_item(self, event: ReasoningItem) -> None:
        self._reasoning_items.setdefault(event.index, []).append(event.item)

    def _add_refusal(self, event: RefusalDelta) -> None:
        self._refusal.append(event.text)

    def _add_tool_call(self, event: ToolCallDelta) -> None:
        self._begin_answer()
        place = (event.index, event.position)
        known = self._calls.get(place)
        if known is None:
            self._calls[place] = event
            self._call_arguments[place] = [event.arguments]
            return
        self._calls[place] = replace(known, id=known.id or event.id, name=known.name or event.name)
        self._call_arguments[place].append(event.arguments)

    def _add_tool_result(self, event: ToolResult) -> None:
        self.tool_runs.append(ToolRun(event.id, event.name, event.arguments, event.result, event.failed))

    def _add_logprobs(self, event: LogprobsDelta) -> None:
        if event.index == 0:
            self._logprobs.extend(event.tokens)

    def _add_filter(self, event: FilterReport) -> None:
        self.filters.append(event.details)

    def _add_usage(self, event: UsageReport) -> None:
        self._usage = event.usage
        if event.cost is not None:
            self.cost = event.cost + (self.cost or 0.0)

    def _add_finished(self, event: Finished) -> None:
        self._finished.setdefault(event.index, event.reason)

    def _add_opened(self, event: Opened) -> None:
        self.headers = {_seen(name): _seen(value) for name, value in event.headers.items()}
        self.request_id = event.request_id

    def _add_identified(self, event: Identified) -> None:
        self.model_reported = event.model or self.model_reported

    def _add_attempt(self, event: Attempt) -> None:
        if event.status == _OK and event.reason and self.attempts and not self.attempts[-1].reason:
            self.attempts.pop()  # the same request, whose answer broke off
        self.attempts.append(event)

    def _restart(self, event: Restarted) -> None:
        if event.why == "fallback":
            self._reasoning = {0: TextBuffer()}
        if self._usage is not None:
            self._spent = self._usage + (self._spent or Usage())
            self._usage = None
        self._clear_answer()

    def _add_note(self, event: Note) -> None:
        self.notes.append(event.text)

    _FOLDS: ClassVar[dict[type, Callable[[Draft, Any], None]]] = {
        TextDelta: _add_other_text,
        ReasoningDelta: _add_reasoning,
        ReasoningItem: _add_reasoning_item,
        RefusalDelta: _add_refusal,
        ToolCallDelta: _add_tool_call,
        ToolResult: _add_tool_result,
        LogprobsDelta: _add_logprobs,
        FilterReport: _add_filter,
        UsageReport: _add_usage,
        Finished: _add_finished,
        Opened: _add_opened,
        Identified: _add_identified,
        Attempt: _add_attempt,
        Restarted: _restart,
        Note: _add_note,
    }

    @property
    def generation(self) -> int:
        """The number of restarts: a display that sees it change puts aside what it shows and begins anew."""
        return len(self._rounds) - 1

    def buffer(self, index: int = 0, generation: int = -1) -> TextBuffer:
        """Return the text of one answer, to be followed: of the latest generation, or of an earlier one."""
        return self._rounds[generation][index]

    @property
    def length(self) -> int:
        """Characters of all answers so far."""
        return sum(len(text) for text in list(self._text.values()))

    @property
    def text(self) -> str:
        """The text of the first answer so far."""
        return str(self._text[0])

    @property
    def reasoning(self) -> str:
        """The reasoning so far: of all rounds, and where a value was asked for again."""
        return str(self._reasoning[0])

    @property
    def reasoning_of_round(self) -> str:
        """The reasoning since the last restart."""
        return self.reasoning[self._reasoning_before[0] :]

    def reasoning_items(self, index: int = 0) -> tuple[Mapping[str, Any], ...]:
        """Return what the server wants back of the reasoning of one answer."""
        return tuple(self._reasoning_items.get(index, ()))

    @property
    def refusal(self) -> str:
        """The refusal so far."""
        return whole("".join(self._refusal))

    @property
    def indexes(self) -> list[int]:
        """The numbers of the answers that have begun."""
        return sorted(list(self._text))  # noqa: C414 - copied at once: another thread may add to it

    @property
    def calling(self) -> int:
        """The number of the first answer that calls tools: of several (`n`), the one that a round goes on with."""
        return min((index for index, _ in list(self._calls)), default=0)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of this round so far, in the model's order."""
        return tuple(
            ToolCall(call.id, whole(call.name), whole("".join(self._call_arguments[index, position])))
            for (index, position), call in sorted(list(self._calls.items()))  # noqa: C414 - as above
            if index == self.calling
        )

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first answer ended; None while it has not."""
        return self._finished.get(0)

    @property
    def usage_of_request(self) -> Usage | None:
        """The tokens of the request that runs now, as last reported."""
        return self._usage

    @property
    def usage(self) -> Usage | None:
        """The tokens of all requests of this cell so far."""
        if self._usage is None or self._spent is None:
            return self._usage or self._spent
        return self._usage + self._spent

    @property
    def seconds(self) -> float:
        """Seconds since the cell began to send."""
        return self._clock() - self.started

    def alternatives(self) -> tuple[Alternative, ...]:
        """Return all answers so far, by their number."""
        return tuple(
            Alternative(
                str(self._text[index]),
                self._finished.get(index, "truncated"),
                reasoning=str(self._reasoning.get(index, "")),
            )
            for index in self.indexes
        )

    def response(self, **known: Any) -> Response:
        """Return the `Response` so far; `known` sets the fields that no event carries (model, provider, messages…)."""
        alternatives = self.alternatives()
        fields: dict[str, Any] = {
            "text": self.text,
            "reasoning": self.reasoning,
            "refusal": self.refusal,
            "tool_calls": tuple(self.tool_runs),
            "model_reported": self.model_reported,
            "finish_reason": self._finished.get(0, "truncated"),
            "usage": self.usage,
            "cost": self.cost,
            "first_token_seconds": self.first_token_seconds,
            "seconds": self.seconds,
            "request_id": self.request_id,
            "headers": self.headers,
            "logprobs": tuple(self._logprobs),
            "alternatives": alternatives if len(alternatives) > 1 else (),
            "attempts": tuple(self.attempts),
            "filters": tuple(self.filters),
            "notes": tuple(self.notes),
        }
        return Response(**(fields | known))
