"""What the APIs share: the parameters each takes, parts of bodies, JSON documents as events.

What an endpoint does not take is refused before sending.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from llm_magic.capabilities import Api, Capabilities
from llm_magic.errors import UnsupportedError
from llm_magic.events import (
    Event,
    FilterReport,
    Finished,
    FinishReason,
    Identified,
    LogprobsDelta,
    ReasoningDelta,
    TextDelta,
    Usage,
    UsageReport,
)
from llm_magic.messages import Image, Text
from llm_magic.options.parameters import PARAMETERS
from llm_magic.request import Request
from llm_magic.wire.reasoning import Thinking

API_NAMES: dict[Api, str] = {
    "chat": "the Chat Completions API",
    "responses": "the Responses API",
    "completions": "the Completions API",
}


def check(request: Request, capabilities: Capabilities, api: Api) -> None:
    """Raise UnsupportedError for the first thing asked for that the endpoint cannot honour."""
    for name in request.parameters.given:
        flag = PARAMETERS[name].flag
        if not PARAMETERS[name].fields(api):
            raise UnsupportedError(
                f"{flag} does not exist in {API_NAMES[api]}, by which {request.model} is asked.",
                f"Leave {flag} out, or choose another API with --api.",
            )
        if name not in capabilities.parameters:
            raise UnsupportedError(f"{request.model or 'This model'} does not take {flag}.", f"Leave {flag} out.")
    if request.tools and not capabilities.tools:
        raise UnsupportedError(
            f"{request.model or 'This model'} cannot call tools at this endpoint.", "Leave --tools out."
        )
    if request.tool_choice not in (None, "auto", "none") and not request.tools:
        raise UnsupportedError("--tool-choice needs tools to choose from.", "Give functions with --tools.")
    if capabilities.images is False and any(isinstance(part, Image) for m in request.messages for part in m.parts):
        raise UnsupportedError(
            f"{request.model or 'This model'} does not take images.", "Leave --image out, or choose another --model."
        )


def parameter_fields(request: Request, capabilities: Capabilities, api: Api) -> dict[str, Any]:
    """Return the parameters of a request as fields of an API's body."""
    fields: dict[str, Any] = {}
    for name, value in request.parameters.given.items():
        fields |= PARAMETERS[name].body(api, value, capabilities.max_tokens_field)
    return fields


def merge(body: dict[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """Return `body` with the fields of `others` over it; two objects of one name are joined, not replaced."""
    for other in others:
        for name, value in other.items():
            ours = body.get(name)
            both = isinstance(ours, dict) and isinstance(value, Mapping)
            body[name] = {**ours, **value} if both and ours else value
    return body


def image_url(image: Image) -> str:
    """Return the URL of an image: its own, or a data URL of its bytes."""
    return image.as_url


def joined_text(parts: tuple[Text | Image, ...]) -> str | None:
    """Return the text of the parts, or None where an image is among them."""
    texts = [part.text for part in parts if isinstance(part, Text)]
    return "".join(texts) if len(texts) == len(parts) else None


FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "safety": "content_filter",
    "refusal": "refusal",
    "abort": "truncated",
    "cancelled": "truncated",
    "error": "truncated",
}
"""Finish reasons as servers write them. Another one ends the answer as `stop` does (`eos`, `end_turn`, …)."""


class ErrorDocument(Exception):  # noqa: N818 - carried inside the wire only; `errors` makes ours of it
    """A server's error where an answer was expected, or an answer that is none: `document` is what came."""

    def __init__(self, document: object, *, malformed: bool = False) -> None:
        super().__init__()
        self.document = document
        self.malformed = malformed


def parse(data: bytes) -> Any:
    """Return the JSON document in `data`; raises ValueError where there is none.

    What is not quite UTF-8 or JSON is still read: invalid bytes become U+FFFD, and so do halves of
    surrogate pairs, which no later step could encode.
    """
    try:
        return from_json(data)
    except ValueError:
        pass
    try:
        document = json.loads(data.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    return _encodable(document)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return value


def error_in(document: Mapping[str, Any]) -> bool:
    """Return whether a document is an error and not (part of) an answer."""
    if document.get("error"):
        return True
    if "choices" in document or "output" in document or "response" in document or "data" in document:
        return False
    kind = document.get("type") or document.get("object")
    return kind == "error" or (
        ("message" in document or "detail" in document) and "delta" not in document and "item" not in document
    )


def count(document: Mapping[str, Any], *names: str) -> int:
    """Return the first of these fields that holds a number, as an integer; else 0."""
    for name in names:
        value = document.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return int(value)
    return 0


def read_usage(usage: object, out: list[Event]) -> None:
    """Add a report of the tokens counted in a `usage` object of any of the APIs."""
    if not isinstance(usage, dict) or not usage:
        return
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    made = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    cost = usage.get("cost")
    out.append(
        UsageReport(
            Usage(
                count(usage, "prompt_tokens", "input_tokens"),
                count(usage, "completion_tokens", "output_tokens"),
                count(details, "cached_tokens") or count(usage, "prompt_cache_hit_tokens"),
                count(made, "reasoning_tokens"),
            ),
            float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) else None,
        )
    )


def found_by_filter(details: object) -> bool:
    """Return whether a content filter found anything, in Azure's `content_filter_results`."""
    if not isinstance(details, dict):
        return False
    return any(
        isinstance(item, dict)
        and (item.get("filtered") or item.get("detected") or item.get("severity") not in (None, "safe"))
        for item in details.values()
    )


def read_filter(details: object, out: list[Event], index: int = 0) -> None:
    """Add a report of a content filter's results, where it found something."""
    if isinstance(details, dict) and found_by_filter(details):
        out.append(FilterReport(details, index))


def read_parts(content: object, index: int, out: list[Event]) -> str:
    """Return the text of a content that is a list of parts, as some servers send; reasoning parts go to `out`."""
    if not isinstance(content, list):
        return ""
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            if part.get("thinking"):
                thought = part["thinking"]
                text = thought if isinstance(thought, str) else read_parts(thought, index, out)
                out.append(ReasoningDelta(text, index))
            elif isinstance(part.get("text"), str):
                texts.append(part["text"])
    return "".join(texts)


def read_logprobs(logprobs: object, index: int, out: list[Event]) -> None:
    """Add the log probabilities in a `content` of the Chat Completions API."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    tokens = tuple(token for token in content if isinstance(token, dict)) if isinstance(content, list) else ()
    if tokens:
        out.append(LogprobsDelta(tokens, index))


class ChoicesReader(ABC):
    """Documents of `choices` in, events out; a stream's chunk and a whole completion are read alike."""

    def __init__(self, request: Request) -> None:
        self._expected = request.parameters.n or 1
        self._model = ""
        self._thinking: dict[int, Thinking] = {}
        self._settled: set[int] = set()  # answers past their reasoning: their text passes straight through
        self._finished: set[int] = set()
        self.answered = False

    @property
    def complete(self) -> bool:
        """Whether every answer asked for has ended."""
        return len(self._finished) >= self._expected

    def read(self, document: dict[str, Any], name: str, out: list[Event]) -> None:
        """Add the events of `document` to `out`; raises ErrorDocument, after adding, for an error."""
        choices = document.get("choices")
        if document.get("error") or name == "error" or (choices is None and error_in(document)):
            raise ErrorDocument(document)
        model = document.get("model")
        if model and model != self._model and isinstance(model, str):
            self._model = model
            out.append(Identified(model))
        if choices:
            for choice in choices:
                if isinstance(choice, dict):
                    index = choice.get("index") or 0
                    self.read_choice(choice, index if type(index) is int else 0, out)
        usage = document.get("usage")
        if usage:
            read_usage(usage, out)
        prompt_filter = document.get("prompt_filter_results")  # Azure; `choices` is empty beside it
        for result in prompt_filter if isinstance(prompt_filter, list) else ():
            if isinstance(result, dict):
                read_filter(result.get("content_filter_results"), out)
        self.answered = self.answered or choices is not None or bool(usage)

    def read_choice(self, choice: dict[str, Any], index: int, out: list[Event]) -> None:
        """Add the events of one answer's part."""
        self.read_part(choice, index, out)
        if choice.get("content_filter_results"):
            read_filter(choice["content_filter_results"], out, index)
        reason = choice.get("finish_reason")
        if reason and index not in self._finished:  # chunks may follow it, with another reason or none
            if isinstance(choice.get("error"), dict):  # OpenRouter's error in mid-stream
                raise ErrorDocument(choice)
            self._finished.add(index)
            self.flush(index, out)
            out.append(Finished(self.finish_reason(reason, index), index))

    @abstractmethod
    def read_part(self, choice: dict[str, Any], index: int, out: list[Event]) -> None:
        """Add the events of what is new in one answer."""

    def finish_reason(self, reason: object, index: int) -> FinishReason:  # noqa: ARG002 - for those that override it
        """Return our word for a server's finish reason."""
        return FINISH.get(str(reason).lower(), "stop")

    def read_reasoning(self, part: dict[str, Any], index: int, out: list[Event]) -> None:
        """Add the reasoning that stands in a field of its own."""
        reasoning = part.get("reasoning_content") or part.get("reasoning")
        if reasoning and isinstance(reasoning, str):
            out.append(ReasoningDelta(reasoning, index))

    def add_text(self, text: str, index: int, out: list[Event]) -> None:
        """Add a piece of the answer's text, which may begin with its reasoning."""
        if index in self._settled:
            out.append(TextDelta(text, index))
            return
        thinking = self._thinking.get(index)
        if thinking is None:
            thinking = self._thinking[index] = Thinking(index)
        thinking.add(text, out)
        if thinking.settled:
            self._settled.add(index)

    def flush(self, index: int, out: list[Event]) -> None:
        """Add what was held back of one answer, which has ended."""
        if index in self._thinking:
            self._thinking[index].end(out)
            self._settled.add(index)

    def end(self, out: list[Event]) -> None:
        """Add what was held back, for answers that the stream broke off."""
        for index in sorted(set(self._thinking) - self._finished):
            self.flush(index, out)
