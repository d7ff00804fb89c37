"""Answers as plain data: what the events of one exchange said, and the events that say it again; vectors likewise."""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from llm_magic.draft import Draft
from llm_magic.errors import RecordingError
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
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from llm_magic.messages import Citation, Image
from llm_magic.response import Alternative

_OK = 200
_USAGE = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_WHY = {
    "length": "the answer was cut at the token limit",
    "truncated": "the answer broke off",
    "interrupted": "the answer was interrupted",
    "content_filter": "the answer was cut by a content filter",
}
_KEPT_EMPTY = frozenset({"choices", "seconds", "attempts"})


def is_whole(events: Iterable[Event]) -> str:
    """Return an empty text where the answer of one exchange may be recorded, else why it may not.

    >>> is_whole([TextDelta("Hel"), Finished("length")])
    'the answer was cut at the token limit'

    """
    draft = Draft()
    draft.add_all(events)
    for alternative in draft.alternatives():
        if alternative.finish_reason in _WHY:
            return _WHY[alternative.finish_reason]
    return ""


def answer_of(
    events: Iterable[Event], *, seconds: float, first_token_seconds: float | None = None, **beside: Any
) -> dict[str, Any]:
    """Return the answer of one exchange as plain data; what is empty is left out.

    Parameters
    ----------
    events
        All that the exchange yielded, with a single request that was answered.
    seconds, first_token_seconds
        How long it took, and how long until the first token came.
    beside
        What no event says: `structured`, `sender`, `notes`, `history_turns`, a `cost` in place of the server's, ….

    """
    came = list(events)
    draft = Draft()
    draft.add_all(came)
    response = draft.response()
    alternatives = dict(zip(draft.indexes, draft.alternatives(), strict=True))
    thought = {index for index in map(_reasoning_index, came) if index is not None}
    indexes = sorted({*alternatives, *thought})
    finished = {event.index for event in came if isinstance(event, Finished)}
    choices = []
    for place, index in enumerate(indexes):
        choice = _choice(alternatives.get(index), index in finished)
        if index not in alternatives:
            choice["reasoning"] = "".join(
                event.text for event in came if isinstance(event, ReasoningDelta) and event.index == index
            )
        choice["reasoning_items"] = [dict(item) for item in draft.reasoning_items(index)]
        choice["index"] = index if index != place else None
        choices.append({name: value for name, value in choice.items() if name == "text" or not _is_empty(value)})
    answer = {
        "choices": choices,
        "refusal": response.refusal,
        "logprobs": list(response.logprobs),
        "filters": list(response.filters),
        "usage": None if response.usage is None else usage_data(response.usage),
        "cost": response.cost,
        "model": response.model_reported,
        "request_id": response.request_id,
        "seconds": seconds,
        "first_token_seconds": first_token_seconds,
        "attempts": [attempt_data(attempt) for attempt in response.attempts],
        "notes": list(response.notes),
        **{name: value for name, value in beside.items() if not _is_empty(value)},
    }
    kept = {name: value for name, value in answer.items() if name in _KEPT_EMPTY or not _is_empty(value)}
    return kept if response.request_id is None else kept | {"request_id": response.request_id}


def _reasoning_index(event: Event) -> int | None:
    """Return the number of the answer whose reasoning an event is, None where it is none."""
    if isinstance(event, ReasoningItem) or (isinstance(event, ReasoningDelta) and event.text):
        return event.index
    return None


def _is_empty(value: Any) -> bool:
    """Whether there is nothing to be kept; a zero is something."""
    return value is None or (isinstance(value, str | list | tuple | Mapping) and not value)


def _choice(alternative: Alternative | None, is_finished: bool) -> dict[str, Any]:
    if alternative is None:  # of which only reasoning came
        return {}
    return {
        "text": alternative.text,
        "finish_reason": alternative.finish_reason if is_finished else None,
        "reasoning": alternative.reasoning,
        "tool_calls": [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in alternative.tool_calls
        ],
        "citations": [_citation(cited) for cited in alternative.citations],
        "images": [image_data(image) for image in alternative.images],
        "items": [dict(item) for item in alternative.items],
    }


def _citation(cited: Citation) -> dict[str, Any]:
    fields = ("url", "title", "start", "end", "file_id", "filename", "details")
    told = {name: getattr(cited, name) for name in fields}
    return {name: value for name, value in told.items() if not _is_empty(value)}


def image_data(image: Image) -> dict[str, Any]:
    """Return an image as plain data."""
    if image.data is None:
        return {"url": image.url or ""}
    return {"data": base64.b64encode(image.data).decode(), "media_type": image.media_type}


def usage_data(usage: Usage) -> dict[str, int]:
    """Return tokens as plain data."""
    return {name: getattr(usage, name) for name in _USAGE}


def attempt_data(attempt: Attempt) -> dict[str, Any]:
    """Return an HTTP request as plain data."""
    told: dict[str, Any] = {"status": attempt.status, "seconds": attempt.seconds}
    if attempt.reason:
        told["reason"] = attempt.reason
    if attempt.request_id:
        told["request_id"] = attempt.request_id
    if attempt.retry_after is not None:
        told["retry_after"] = attempt.retry_after
    if not attempt.final:
        told["final"] = False
    return told


def events_of(answer: Mapping[str, Any], provider: str, model: str) -> list[Event]:
    """Return the events that say an answer once more, in the order in which they come from a server.

    Raises
    ------
    RecordingError
        The data is no answer: a part of it has the wrong type.

    """
    read = _Reader(answer, "answer")
    events: list[Event] = []
    for attempt in read.objects("attempts"):
        told = Attempt(
            provider,
            model,
            attempt.whole("status"),
            attempt.text("reason"),
            attempt.number("seconds") or 0.0,
            attempt.text_or_none("request_id"),
            attempt.number("retry_after"),
            attempt.get("final", bool) is not False,
        )
        if told.status == _OK and told.reason:  # it broke off: told of before as well, and replaced
            events.append(Attempt(provider, model, _OK, "", told.seconds))
        events.append(told)
    cost = read.number("cost")
    events.append(Opened(_OK, {}, read.text_or_none("request_id"), cost))
    if name := read.text("model"):
        events.append(Identified(name))
    events += [Note(note) for note in read.texts("notes")]
    choices = [(choice.whole("index"), choice) for choice in read.objects("choices")]
    if not choices:
        raise RecordingError("answer.choices is missing.")
    numbered = [(place if index is None else index, choice) for place, (index, choice) in enumerate(choices)]
    for index, choice in numbered:
        events += _said(index, choice)
    if refusal := read.text("refusal"):
        events.append(RefusalDelta(refusal))
    if logprobs := read.plain_objects("logprobs"):
        events.append(LogprobsDelta(tuple(logprobs)))
    events += [FilterReport(details) for details in read.plain_objects("filters")]
    for index, choice in numbered:
        reason: Any = choice.text("finish_reason")
        if reason:
            if reason not in get_args(FinishReason):
                raise RecordingError(f"{choice.where}.finish_reason is {reason!r:.60}, which is none.")
            events.append(Finished(reason, index))
    usage = read.object("usage")
    if usage is not None:
        counts = Usage(**{name: usage.whole(name) or 0 for name in _USAGE})
        events.append(UsageReport(counts))
    read.number("seconds"), read.number("first_token_seconds"), read.whole("history_turns"), read.text("sender")
    read.object("structured")
    return events


def _said(index: int, choice: _Reader) -> Iterator[Event]:
    """Yield what one answer said, but for its end."""
    if reasoning := choice.text("reasoning"):
        yield ReasoningDelta(reasoning, index)
    for item in choice.plain_objects("reasoning_items"):
        yield ReasoningItem(item, index)
    text = choice.text_or_none("text")
    if text is not None and (text or index):
        yield TextDelta(text, index)
    for cited in choice.objects("citations"):
        spans = (cited.whole("start"), cited.whole("end"))
        details = cited.object("details")
        found = Citation(
            cited.text("url"),
            cited.text("title"),
            *spans,
            cited.text("file_id"),
            cited.text("filename"),
            {} if details is None else details.fields,
        )
        yield CitationFound(found, index)
    for image in choice.objects("images"):
        yield ImageReceived(_image_of(image), index)
    for position, item in enumerate(choice.plain_objects("items")):
        yield ItemReceived(position, item, index)
    for position, call in enumerate(choice.objects("tool_calls")):
        yield ToolCallDelta(position, call.text("id"), call.text("name"), call.text("arguments"), index)


def images_of(answer: Mapping[str, Any]) -> tuple[Image, ...]:
    """Return the images of a recorded result of a tool."""
    return tuple(map(_image_of, _Reader(answer, "answer").objects("images")))


def _image_of(image: _Reader) -> Image:
    data = image.text_or_none("data")
    if data is None:
        return Image(url=image.text("url"))
    return Image(_bytes(data, f"{image.where}.data"), image.text("media_type") or "image/png")


def _bytes(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RecordingError(f"{where} is not base64.") from None


class _Reader:
    """An object of a recording, whose fields have to be of their types."""

    def __init__(self, fields: Any, where: str) -> None:
        if not isinstance(fields, Mapping):
            raise RecordingError(f"{where} is no object.")
        self.fields = fields
        self.where = where

    def get(self, name: str, kind: type) -> Any:
        value = self.fields.get(name)
        if value is not None and type(value) is not kind:
            raise RecordingError(f"{self.where}.{name} is no {_NAMES[kind]}.")
        return value

    def text(self, name: str) -> str:
        return self.get(name, str) or ""

    def text_or_none(self, name: str) -> str | None:
        value: str | None = self.get(name, str)
        return value

    def whole(self, name: str) -> int | None:
        value: int | None = self.get(name, int)
        if value is not None and not 0 <= value < _LARGEST:
            raise RecordingError(f"{self.where}.{name} is no number that can be.")
        return value

    def number(self, name: str) -> float | None:
        value = self.fields.get(name)
        number: float | None = float(value) if type(value) is int and abs(value) < _LARGEST else self.get(name, float)
        if number is not None and not 0 <= number < _LARGEST:  # no notebook can hold NaN, or what has no end
            raise RecordingError(f"{self.where}.{name} is no number that can be.")
        return number

    def object(self, name: str) -> _Reader | None:
        value = self.get(name, dict)
        return None if value is None else _Reader(value, f"{self.where}.{name}")

    def objects(self, name: str) -> list[_Reader]:
        return [_Reader(item, f"{self.where}.{name}[{place}]") for place, item in enumerate(self.get(name, list) or ())]

    def plain_objects(self, name: str) -> list[Mapping[str, Any]]:
        return [item.fields for item in self.objects(name)]

    def texts(self, name: str) -> list[str]:
        found = self.get(name, list) or []
        if not all(isinstance(item, str) for item in found):
            raise RecordingError(f"{self.where}.{name} is no list of texts.")
        return list(found)


_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "object", list: "list"}
_LARGEST = 2**63


def answer_of_vectors(
    vectors: Sequence[Sequence[float]],
    *,
    usage: Usage | None = None,
    model: str = "",
    cost: float | None = None,
    **beside: Any,
) -> dict[str, Any]:
    """Return vectors as plain data: base64 of little-endian 32-bit floats where these hold them exactly, else of 64.

    >>> sorted(answer_of_vectors([[0.5, 1.0]]).items())
    [('dimensions', 2), ('dtype', 'float32'), ('vectors', 'AAAAPwAAgD8=')]

    """
    numbers = [number for vector in vectors for number in vector]
    packed, dtype = array("d", numbers), "float64"
    short = array("f", numbers)
    if short.tolist() == packed.tolist():
        packed, dtype = short, "float32"
    if sys.byteorder == "big":
        packed.byteswap()
    lengths = [len(vector) for vector in vectors]
    answer = {
        "vectors": base64.b64encode(packed.tobytes()).decode(),
        "dtype": dtype,
        "dimensions": lengths[0] if lengths and lengths[0] and len(set(lengths)) == 1 else lengths,
        "usage": None if usage is None else usage_data(usage),
        "model": model,
        "cost": cost,
        **beside,
    }
    kept = {"vectors", "dtype", "dimensions"}
    return {name: value for name, value in answer.items() if name in kept or not _is_empty(value)}


def vectors_of(answer: Mapping[str, Any]) -> tuple[list[list[float]], Usage | None]:
    """Return the vectors of an answer, and the tokens that were counted for them.

    Raises
    ------
    RecordingError
        The data is no such answer.

    """
    read = _Reader(answer, "answer")
    code = {"float32": "f", "float64": "d"}.get(read.text("dtype"))
    if code is None:
        raise RecordingError("answer.dtype is neither float32 nor float64.")
    packed: array[float] = array(code)
    data = _bytes(read.text("vectors"), "answer.vectors")
    if len(data) % packed.itemsize:
        raise RecordingError("answer.vectors is no whole number of floats.")
    packed.frombytes(data)
    if sys.byteorder == "big":
        packed.byteswap()
    lengths: Any = answer.get("dimensions")
    if type(lengths) is int and lengths > 0:
        lengths = [lengths] * (len(packed) // lengths)
    if (
        not isinstance(lengths, list)
        or not all(type(length) is int and length >= 0 for length in lengths)
        or sum(lengths) != len(packed)
    ):
        raise RecordingError("answer.dimensions is not that of answer.vectors.")
    usage = read.object("usage")
    read.number("cost"), read.text("model"), read.text_or_none("request_id")
    counts = None if usage is None else Usage(**{name: usage.whole(name) or 0 for name in _USAGE})
    vectors: list[list[float]] = []
    begin = 0
    for length in lengths:
        vectors.append(packed[begin : begin + length].tolist())
        begin += length
    return vectors, counts


def check(asked: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Raise RecordingError where an answer cannot be one to what was asked."""
    kind, read = asked.get("kind"), _Reader(answer, "answer")
    if kind == "answer":
        events_of(answer, "", "")
    elif kind == "embeddings":
        vectors, texts = vectors_of(answer)[0], asked.get("input")
        if not isinstance(texts, list) or len(texts) != len(vectors):
            raise RecordingError("answer.vectors are not as many as the texts.")
    elif kind == "model" and not read.text("model"):
        raise RecordingError("answer.model is missing.")
    elif kind == "tool":
        if read.text_or_none("result") is None:
            raise RecordingError("answer.result is missing.")
        images_of(answer)
    elif kind == "server_tools":
        tools = answer.get("tools")
        known = {"name": str, "description": str, "parameters": dict}
        if not isinstance(tools, list) or not all(
            isinstance(each, dict) and all(isinstance(each.get(name), of) for name, of in known.items())
            for each in tools
        ):
            raise RecordingError("answer.tools is no list of tools.")
