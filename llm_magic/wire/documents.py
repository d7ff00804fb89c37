"""What the APIs share: the options each takes, parts of bodies, parts of JSON documents as events."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic_core import from_json

from llm_magic.capabilities import Api, Capabilities
from llm_magic.errors import UnsupportedError
from llm_magic.events import Event, FilterReport, LogprobsDelta, Usage, UsageReport
from llm_magic.messages import Image
from llm_magic.options.parameters import PARAMETERS
from llm_magic.request import Request

API_NAMES: dict[Api, str] = {
    "chat": "the Chat Completions API",
    "responses": "the Responses API",
    "completions": "the Completions API",
}


def options(request: Request, capabilities: Capabilities, api: Api) -> dict[str, Any]:
    """Return what a request sets besides its messages and tools, as fields of an API's body.

    Raises UnsupportedError for the first thing asked for that the endpoint cannot honour.
    """
    model = request.model or "This model"
    fields: dict[str, Any] = {"stream": True} if request.stream else {}
    if request.stream and capabilities.stream_usage and api != "responses":
        fields["stream_options"] = {"include_usage": True}
    for name, value in request.parameters.given.items():
        flag = PARAMETERS[name].flag
        if not PARAMETERS[name].fields(api):
            raise UnsupportedError(
                f"{flag} does not exist in {API_NAMES[api]}, by which {request.model} is asked.",
                f"Leave {flag} out, or choose another API with --api.",
            )
        if name not in capabilities.parameters:
            raise UnsupportedError(f"{model} does not take {flag}.", f"Leave {flag} out.")
        fields |= PARAMETERS[name].body(api, value, capabilities.max_tokens_field)
    if request.tools and not capabilities.tools:
        raise UnsupportedError(f"{model} cannot call tools at this endpoint.", "Leave --tools out.")
    if request.tool_choice not in (None, "auto", "none") and not request.tools:
        raise UnsupportedError("--tool-choice needs tools to choose from.", "Give functions with --tools.")
    if capabilities.images is False and any(isinstance(part, Image) for m in request.messages for part in m.parts):
        raise UnsupportedError(f"{model} does not take images.", "Leave --image out, or choose another --model.")
    return fields


def merge(body: dict[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    """Return `body` with the fields of `others` over it; two objects of one name are joined, not replaced."""
    for other in others:
        for name, value in other.items():
            ours = body.get(name)
            body[name] = {**ours, **value} if isinstance(ours, dict) and isinstance(value, Mapping) else value
    return body


def image_url(image: Image) -> str:
    """Return the URL of an image: its own, or a data URL of its bytes."""
    return image.as_url


class ErrorDocument(Exception):  # noqa: N818 - carried inside the wire only; `errors` makes ours of it
    """A server's error where an answer was expected, or an answer that is none: `document` is what came."""

    def __init__(self, document: object, *, malformed: bool = False) -> None:
        super().__init__()
        self.document = document
        self.malformed = malformed


class BrokenOff(Exception):  # noqa: N818 - carried inside the wire only, as above
    """An answer that ended too early: why, and in the midst of what; "" where nothing had come."""

    def __init__(self, why: str, during: str = "") -> None:
        super().__init__(why)
        self.during = during


def is_cut(data: bytes) -> bool:
    """Return whether this is the beginning of a JSON object or array that does not end.

    >>> is_cut(b'{"a": [1, "te'), is_cut(b'{"a": 1}'), is_cut(b"<html>"), is_cut(b'{"a": 1}}')
    (True, False, False, False)
    """
    return partial(data) is not None


def partial(data: bytes) -> Any:
    """Return what a JSON object or array that was cut says, its last text as far as it goes; None for any other."""
    if data.lstrip()[:1] not in (b"{", b"["):
        return None
    with suppress(ValueError):
        from_json(data)
        return None
    text = data.decode("utf-8", "replace").strip()
    with suppress(RecursionError):
        try:
            json.JSONDecoder().raw_decode(text)  # whole, though something else follows
        except ValueError:
            with suppress(ValueError):
                return from_json(text, allow_partial="trailing-strings")
    return None


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
        return _encodable(json.loads(data.decode("utf-8", "replace")))
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def parse_or_text(data: bytes) -> Any:
    """Return the JSON document in `data`, or the text that it is."""
    try:
        return parse(data)
    except ValueError:
        return data.decode("utf-8", "replace")


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


def count(document: object, *names: str) -> int | None:
    """Return the first of these fields that holds a number of tokens; None where none does.

    Servers also send `NaN`, `1e999`, strings, nulls and negative numbers: these say nothing.
    """
    fields = document if isinstance(document, dict) else {}
    for name in names:
        value = _amount(fields.get(name))
        if value is not None:
            return int(value)
    return None


def _amount(value: object) -> int | float | None:
    """Return a number that can be an amount."""
    if type(value) is int:  # by far the most frequent one
        return value if 0 <= value <= _MOST else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= _MOST and math.isfinite(value) else None


_MOST = 2**53


def as_text(value: object) -> str:
    """Return a text as it is, an object or array as its JSON, and nothing for what is neither.

    >>> as_text("a"), as_text({"city": "Paris"}), as_text(None)
    ('a', '{"city": "Paris"}', '')
    """
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value if isinstance(value, str) else ""


def read_usage(usage: object) -> list[UsageReport]:
    """Return a report of the tokens counted in a `usage` object of any of the APIs; none where it counts none."""
    if not isinstance(usage, dict):
        return []
    read = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    written = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
    cost = usage.get("cost")
    cost = _amount(cost.get("total_cost") if isinstance(cost, dict) else cost)  # Perplexity has an object
    sent, answered = count(usage, "prompt_tokens", "input_tokens"), count(usage, "completion_tokens", "output_tokens")
    cached = count(read, "cached_tokens") or count(usage, "prompt_cache_hit_tokens")
    reasoned = count(written, "reasoning_tokens")
    if sent is None and answered is None:  # of embeddings some count the sum alone
        sent = count(usage, "total_tokens")
    if cost is None and sent is None and answered is None and cached is None and reasoned is None:
        return []
    told = Usage(sent or 0, answered or 0, cached or 0, reasoned or 0)
    return [UsageReport(told, None if cost is None else float(cost))]


def found_by_filter(details: object) -> bool:
    """Return whether a content filter found anything, in Azure's `content_filter_results`."""
    found = details.values() if isinstance(details, dict) else ()
    lists = [item if isinstance(item, list) else [item] for item in found]  # there can be several blocklists
    return any(
        isinstance(item, dict)
        and (item.get("filtered") or item.get("detected") or item.get("severity") not in (None, "safe"))
        for results in lists
        for item in results
    )


def read_filter(details: object, out: list[Event], index: int = 0) -> None:
    """Add a report of a content filter's results, where it found something."""
    if isinstance(details, dict) and found_by_filter(details):
        out.append(FilterReport(details, index))


def read_logprobs(logprobs: object, index: int, out: list[Event]) -> None:
    """Add the log probabilities in a `content` of the Chat Completions API."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    tokens = tuple(token for token in content if isinstance(token, dict)) if isinstance(content, list) else ()
    if tokens:
        out.append(LogprobsDelta(tokens, index))


_NAMES_ONLY = frozenset({"role", "type", "id", "index", "object", "name", "format", "status"})
"""Fields of a delta that say nothing by themselves."""


def says(value: object, depth: int = 4) -> bool:
    """Return whether a piece of a document holds any content, whatever it is: a text, a number.

    >>> says({"role": "assistant", "content": ""}), says({"audio": {"id": "a", "data": "UklG"}})
    (False, True)
    """
    if isinstance(value, dict):
        return depth > 0 and any(says(item, depth - 1) for name, item in value.items() if name not in _NAMES_ONLY)
    if isinstance(value, list):
        return depth > 0 and any(says(item, depth - 1) for item in value)
    return bool(value)
