"""The draft of a response: events are folded in while they arrive, and it builds the `Response`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

from llm_magic.events import (
    Attempt,
    CitationFound,
    Event,
    FilterReport,
    Finished,
    FinishReason,
    Identified,
    ImageReceived,
    ItemReceived,
    LogprobsDelta,
    Note,
    Opened,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    Replayed,
    Restarted,
    TextDelta,
    ToolCallDelta,
    ToolResult,
    Usage,
    UsageReport,
)
from llm_magic.messages import Citation, Image, ToolCall
from llm_magic.response import Alternative, Response, ToolRun
from llm_magic.text_buffer import TextBuffer, whole

_OK = 200


@lru_cache(maxsize=128)
def _seen(text: str) -> str:
    """Return an equal text that was seen lately, else this one: most headers of a server are always the same."""
    return text


def seen_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers whose texts are in memory once, however many answers have the same."""
    return {_seen(name): _seen(value) for name, value in headers.items()}


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
        self._begun: float | None = None  # the first request
        self._sent = clock()  # the request that runs now, and of it the latest attempt
        self._fixed: float | None = None  # the seconds, while they do not go on
        self._fixed_at = 0.0  # the moment from which they will
        self._replayed: Replayed | None = None  # where the answer that comes now is recorded
        self._replayed_from = 0.0  # the seconds at its begin
        self._replays = 0  # answers that came from a recording
        self._lives = False  # whether a request was sent
        self._shows_all = False  # whether something came that is shown as it comes
        self.replaying = False
        """Whether all so far comes from a recording, at once: it is shown when it is complete. Where that is looked for
        first, the run says so before it begins."""
        self.first_token_seconds: float | None = None
        self.begun = False
        """Whether some answer has begun: reasoning, text or a call has come."""
        self.attempts: list[Attempt] = []
        self.tool_runs: list[ToolRun] = []  # as they ended
        self._run_places: list[tuple[int, int]] = []  # of each: its round, and its place among the calls of that
        self.headers: Mapping[str, str] = {}
        self.request_id: str | None = None
        self.model_reported = ""
        self.filters: list[Mapping[str, Any]] = []
        self.notes: list[str] = []
        self._spent: Usage | None = None  # of earlier requests of this cell
        self._usage: Usage | None = None  # of the request that runs now
        self._cost_before: float | None = None  # of earlier requests
        self.cost_of_request: float | None = None
        """US dollars of the request that runs now, as last reported."""
        self._rounds: list[dict[int, TextBuffer]] = []
        self._citations: dict[tuple[object, ...], tuple[int, Citation]] = {}
        self._images: list[tuple[int, Image]] = []
        self._items: dict[tuple[int, int, int], Mapping[str, Any]] = {}  # by generation, answer, position
        self._kept = (0, 0, 0)  # how many of these are of rounds that ended in tool calls
        self._reasoning: dict[int, TextBuffer] = {0: TextBuffer()}  # of all rounds
        self._reasoning_ends: list[int] = []  # of the first answer, at each restart
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
        self._runs_before = len(self.tool_runs)

    def begin_request(self, at: float | None = None) -> None:
        """Start the clocks: a request is sent now, or was sent `at` a moment. No wait before one counts in any time.

        Where an answer came from a recording, or was settled, the seconds go on from there.
        """
        self.go_live()
        if self._replayed is not None and self._fixed is None:  # it never ended
            self.settle()
        self._lives, self._replayed = True, None
        if self._fixed is not None:
            begun = self._begun is not None or self._replays > 0
            self._begun, self._fixed = self._fixed_at - self._fixed if begun else None, None
        self._sent_at(self._clock() if at is None else at)

    def go_live(self) -> None:
        """Take note that what follows is shown as it comes: a request is prepared, and comes from no recording."""
        self.replaying, self._shows_all = False, True

    def settle(self, seconds: float | None = None) -> float:
        """Fix the seconds at what they are now, or at those given, until the next request is sent, and return them."""
        self._fixed = self.seconds if seconds is None else seconds
        self._fixed_at = self._clock()
        return self._fixed

    def _sent_at(self, moment: float) -> None:
        self._sent = moment
        if self._begun is None:
            self._begun = moment

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
        self._begin(index)
        self._text[index].append(text)

    def _begin(self, index: int) -> None:
        """Take note of an answer, of which there may never be a text."""
        if index not in self._text:
            self._text[index] = TextBuffer()

    def _add_other_text(self, event: TextDelta) -> None:
        self._add_text(event.text, event.index)

    def _begin_answer(self) -> None:
        """Take note that the model has begun to answer."""
        self.begun = True
        if self.first_token_seconds is None:
            recorded = self._replayed
            self.first_token_seconds = recorded.first_token_seconds if recorded else self._clock() - self._sent

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
        self._begin(event.index)
        place = (event.index, event.position)
        known = self._calls.get(place)
        if known is None:
            self._calls[place] = event
            self._call_arguments[place] = [event.arguments]
            return
        self._calls[place] = replace(known, id=known.id or event.id, name=known.name or event.name)
        self._call_arguments[place].append(event.arguments)

    def _add_tool_result(self, event: ToolResult) -> None:
        self._run_places.append((self.generation, event.place))
        self.tool_runs.append(ToolRun(event.id, event.name, event.arguments, event.result, event.failed, event.images))

    def _add_citation(self, event: CitationFound) -> None:
        cited = event.citation
        same = (event.index, cited.url, cited.file_id, cited.filename, cited.start, cited.end)
        self._citations[same] = (event.index, cited)

    def _add_image(self, event: ImageReceived) -> None:
        self._add_text("", event.index)
        self._images.append((event.index, event.image))

    def _add_item(self, event: ItemReceived) -> None:
        self._add_text("", event.index)
        self._items[self.generation, event.index, event.position] = event.item

    def _add_logprobs(self, event: LogprobsDelta) -> None:
        if event.index == 0:
            self._logprobs.extend(event.tokens)

    def _add_filter(self, event: FilterReport) -> None:
        self.filters.append(event.details)

    def _add_usage(self, event: UsageReport) -> None:
        self._usage = event.usage
        self.cost_of_request = self.cost_of_request if event.cost is None else event.cost

    def _add_replayed(self, event: Replayed) -> None:
        since = 0.0 if self._fixed is None else self._clock() - self._fixed_at  # a tool has run
        self._replayed_from = self.seconds + since * event.pace
        self._replayed = event
        self._replays += 1
        if event.pace:
            self.go_live()
            self._fixed, self._begun = None, self._clock()
            return
        self.replaying = not self._shows_all
        self.settle(event.seconds)
        if self.first_token_seconds is None:
            self.first_token_seconds = event.first_token_seconds

    def _add_finished(self, event: Finished) -> None:
        if self._replayed is not None:
            self.settle(self._replayed.seconds)
        self._begin(event.index)
        self._finished.setdefault(event.index, event.reason)

    def _add_opened(self, event: Opened) -> None:
        self.headers = seen_headers(event.headers)
        self.request_id = event.request_id
        self.cost_of_request = event.cost

    def _add_identified(self, event: Identified) -> None:
        self.model_reported = event.model or self.model_reported

    def _add_attempt(self, event: Attempt) -> None:
        if self.first_token_seconds is None and self._replayed is None:
            self._sent_at(self._clock() - event.seconds)
        if event.status == _OK and event.reason and self.attempts and not self.attempts[-1].reason:
            self.attempts.pop()  # the same request, whose answer broke off
        self.attempts.append(event)

    def _restart(self, event: Restarted) -> None:
        self._reasoning_ends.append(len(self._reasoning[0]))
        if event.why == "tools":
            self._keep_round()
        cited, images, items = self._kept
        self._citations = dict(list(self._citations.items())[:cited])
        self._images = self._images[:images]
        self._items = dict(list(self._items.items())[:items])
        if event.why == "fallback":
            self._reasoning = {0: TextBuffer()}
        if self._usage is not None:
            self._spent = self._usage + (self._spent or Usage())
            self._usage = None
        self._cost_before, self.cost_of_request = self.cost, None
        self._clear_answer()

    def _keep_round(self) -> None:
        """Keep what a round of tools brought; spans of its text are no spans of the answer's."""
        cited = [(index, replace(each, start=None, end=None)) for index, each in self._citations.values()]
        self._citations = {
            (index, each.url, each.file_id, each.filename, None, None): (index, each) for index, each in cited
        }
        self._kept = (len(self._citations), len(self._images), len(self._items))

    def _add_note(self, event: Note) -> None:
        self.notes.append(event.text)

    _FOLDS: ClassVar[dict[type, Callable[[Draft, Any], None]]] = {
        TextDelta: _add_other_text,
        ReasoningDelta: _add_reasoning,
        ReasoningItem: _add_reasoning_item,
        RefusalDelta: _add_refusal,
        ToolCallDelta: _add_tool_call,
        ToolResult: _add_tool_result,
        CitationFound: _add_citation,
        ImageReceived: _add_image,
        ItemReceived: _add_item,
        LogprobsDelta: _add_logprobs,
        FilterReport: _add_filter,
        UsageReport: _add_usage,
        Finished: _add_finished,
        Opened: _add_opened,
        Identified: _add_identified,
        Attempt: _add_attempt,
        Replayed: _add_replayed,
        Restarted: _restart,
        Note: _add_note,
    }

    @property
    def generation(self) -> int:
        """The number of restarts: a display that sees it change puts aside what it shows and begins anew."""
        return len(self._rounds) - 1

    def generation_of_run(self, number: int) -> int:
        """Return the generation in which the tool of `tool_runs[number]` was called."""
        return self._run_places[number][0]

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

    def reasoning_until(self, generation: int) -> str:
        """Return the reasoning up to the end of a generation."""
        reasoning, ends = self.reasoning, self._reasoning_ends
        return reasoning[: ends[generation]] if generation < len(ends) else reasoning

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
        return self._calls_of(self.calling)

    def _calls_of(self, answer: int) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(call.id, whole(call.name), whole("".join(self._call_arguments[index, position])))
            for (index, position), call in sorted(list(self._calls.items()))  # noqa: C414 - as above
            if index == answer
        )

    def _not_run(self, answer: int) -> tuple[ToolRun, ...]:
        """Return the calls of one answer of this round that were not carried out: not yet, or not offered here."""
        done = {run.id for run in self.tool_runs[self._runs_before :]}
        return tuple(
            ToolRun(call.id, call.name, call.arguments) for call in self._calls_of(answer) if call.id not in done
        )

    @property
    def items(self) -> tuple[Mapping[str, Any], ...]:
        """What else the first answer holds so far, as the server gives it."""
        return tuple(item for (_, index, _), item in list(self._items.items()) if index == 0)

    def _beside(self, index: int) -> dict[str, Any]:
        """Return the citations, images and items of one answer, as fields."""
        return {
            "citations": tuple(cited for of, cited in list(self._citations.values()) if of == index),
            "images": tuple(image for of, image in list(self._images) if of == index),
            "items": tuple(item for (_, of, _), item in list(self._items.items()) if of == index),
        }

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
    def cost(self) -> float | None:
        """US dollars of all requests of this cell so far, where the endpoint reports them."""
        if self.cost_of_request is None or self._cost_before is None:
            return self._cost_before if self.cost_of_request is None else self.cost_of_request
        return self._cost_before + self.cost_of_request

    @property
    def seconds(self) -> float:
        """Seconds since the first request was sent, 0.0 where none was; from a recording, the recorded ones."""
        fixed, begun, replayed = self._fixed, self._begun, self._replayed
        if fixed is not None:
            return fixed
        passed = 0.0 if begun is None else self._clock() - begun
        if replayed is None:
            return passed
        return min(self._replayed_from + passed * replayed.pace, replayed.seconds)

    @property
    def recorded(self) -> bool:
        """Whether there is an answer, and it and all before came from a recording: nothing was sent."""
        return self._replays > 0 and not self._lives

    def alternatives(self) -> tuple[Alternative, ...]:
        """Return all answers so far, by their number."""
        return tuple(
            Alternative(
                str(self._text[index]),
                self._finished.get(index, "truncated"),
                tool_calls=self._not_run(index),
                **self._beside(index),
                reasoning=str(self._reasoning.get(index, "")),
            )
            for index in self.indexes
        )

    def _runs_in_order(self) -> list[ToolRun]:
        """Return the tool calls with their results in the model's order, whichever ended first."""
        runs = list(self.tool_runs)  # copied: another thread may add to it
        return [runs[number] for number in sorted(range(len(runs)), key=self._run_places.__getitem__)]

    def response(self, **known: Any) -> Response:
        """Return the `Response` so far; `known` sets the fields that no event carries (model, provider, messages…)."""
        alternatives = self.alternatives() if len(self.indexes) > 1 else ()  # of many rows each has but one
        fields: dict[str, Any] = {
            "text": self.text,
            "reasoning": self.reasoning,
            "refusal": self.refusal,
            "tool_calls": (*self._runs_in_order(), *self._not_run(0)),
            **self._beside(0),
            "model_reported": self.model_reported,
            "finish_reason": self._finished.get(0, "truncated"),
            "usage": self.usage,
            "cost": self.cost,
            "first_token_seconds": self.first_token_seconds,
            "seconds": self.seconds,
            "request_id": self.request_id,
            "headers": self.headers,
            "logprobs": tuple(self._logprobs),
            "alternatives": alternatives,
            "attempts": tuple(self.attempts),
            "filters": tuple(self.filters),
            "notes": tuple(self.notes),
            "recorded": self.recorded,
        }
        return Response(**(fields | known))
