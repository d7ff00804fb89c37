"""A plain answer, one whole text and nothing else: its response, and what is kept of it, made without detours.

Both are what the draft and the recordings make of the same events; of many rows nearly all answers are plain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magic.draft import seen_headers
from llm_magic.events import Attempt, Event, Finished, Identified, Opened, TextDelta, Usage, UsageReport
from llm_magic.recordings.answers import attempt_data, usage_data
from llm_magic.response import Response
from llm_magic.text_buffer import whole


@dataclass(slots=True)
class PlainAnswer:
    """What the events of a plain answer say."""

    text: str
    headers: Mapping[str, str]
    request_id: str | None
    model_reported: str
    usage: Usage | None
    cost: float | None
    attempts: tuple[Attempt, ...]
    begun: bool
    """Whether the model said anything."""

    def response(self, seconds: float, first_token_seconds: float, **known: Any) -> Response:
        """Return the response; `known` sets what no event says, as of `Draft.response`."""
        return Response(
            text=self.text,
            model_reported=self.model_reported,
            finish_reason="stop",
            usage=self.usage,
            cost=self.cost,
            first_token_seconds=first_token_seconds if self.begun else None,
            seconds=seconds,
            request_id=self.request_id,
            headers=self.headers,
            attempts=self.attempts,
            **known,
        )


def plain_answer(events: Sequence[Event]) -> PlainAnswer | None:
    """Return what events say that are a plain answer; None where they may be another one, for the draft to tell.

    >>> plain_answer([TextDelta("Hello"), Finished("stop")]).text
    'Hello'
    >>> plain_answer([TextDelta("Hello"), Finished("length")])

    """
    pieces: list[str] = []
    attempts: list[Attempt] = []
    opened: Opened | None = None
    reported: UsageReport | None = None
    cost: float | None = None
    model, finished = "", False
    for event in events:
        kind = type(event)
        if kind is TextDelta and event.index == 0:  # type: ignore[attr-defined]  # the quickest of the checks: there are most of these
            pieces.append(event.text)  # type: ignore[attr-defined]  # as above
        elif isinstance(event, UsageReport):
            reported, cost = event, cost if event.cost is None else event.cost
        elif isinstance(event, Attempt):
            if event.status == 200 and event.reason:  # noqa: PLR2004 - it broke off, and stands for the one before
                return None
            attempts.append(event)
        elif isinstance(event, Finished):
            if finished or event.reason != "stop" or event.index:
                return None
            finished = True
        elif isinstance(event, Opened):
            if opened is not None:
                return None
            opened, cost = event, event.cost
        elif isinstance(event, Identified):
            model = event.model or model
        else:
            return None
    if not finished:
        return None
    return PlainAnswer(
        text=whole(pieces[0] if len(pieces) == 1 else "".join(pieces)),
        headers={} if opened is None else seen_headers(opened.headers),
        request_id=None if opened is None else opened.request_id,
        model_reported=model,
        usage=None if reported is None else reported.usage,
        cost=cost,
        attempts=tuple(attempts),
        begun=bool(pieces),
    )


def is_plain_response(response: Response) -> bool:
    """Tell whether a response is one whole text of one request, and nothing else."""
    others = (response.alternatives, response.tool_calls, response.citations, response.images, response.items)
    return (
        response.finish_reason == "stop"
        and not any(others)
        and not (response.reasoning or response.refusal or response.logprobs or response.filters or response.notes)
    )


def kept(response: Response, structured: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the response of a plain answer as plain data: what `recordings.answers.answer_of` makes of its events."""
    answer: dict[str, Any] = {
        "choices": [{"text": response.text, "finish_reason": "stop"}],
        "seconds": round(response.seconds, 6),
        "attempts": [attempt_data(attempt) for attempt in response.attempts],
    }
    if response.usage is not None:
        answer["usage"] = usage_data(response.usage)
    if response.cost is not None:
        answer["cost"] = response.cost
    if response.model_reported:
        answer["model"] = response.model_reported
    if response.request_id is not None:
        answer["request_id"] = response.request_id
    if response.first_token_seconds is not None:
        answer["first_token_seconds"] = response.first_token_seconds
    if structured:
        answer["structured"] = structured
    return answer
