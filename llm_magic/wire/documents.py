"""JSON from the wire as plain Python, and the pieces of it that all APIs share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from llm_magic.events import Event, FilterReport, FinishReason, ReasoningDelta, TextDelta, Usage, UsageReport

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


class ErrorDocument(Exception):  # noqa: N818 - carried inside the wire only; `faults` makes the error of it
    """A server's error where an answer was expected, or an answer that is none: `document` is what came."""

    def __init__(self, document: object, *, malformed: bool = False) -> None:
        super().__init__()
        self.document = document
        self.malformed = malformed


def parse(data: bytes) -> Any:
    """Return the JSON document in `data`; raises ValueError where there is none.

    What is not quite UTF-8 or JSON is still read: invalid bytes become U+FFFD, and so do halves of surrogate
    pairs, which no later step could encode.
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


def finish_reason(reason: object) -> FinishReason:
    """Return our word for a server's finish reason."""
    return FINISH.get(str(reason).lower(), "stop")


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


def add_text(text: object, index: int, out: list[Event]) -> None:
    """Add a delta of the answer's text, where there is any."""
    if isinstance(text, str) and text:
        out.append(TextDelta(text, index))
