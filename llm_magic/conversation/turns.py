"""Turns: what each cell added to its conversation; their tokens, and how files write them.

Files and exports hold messages as JSON documents of OpenAI's chat API (the reference of
`POST /chat/completions`, `messages`). That is a format of files: it does not follow what the wire
sends today.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from llm_magic.errors import HistoryError
from llm_magic.messages import Citation, Image, Message, Part, Reasoning, Role, Text, ToolCall

IMAGE_TOKENS = 1000  # of one image, roughly: vendors count from 85 to 1,500, by size
MOST_IMAGE_TOKENS = 1500
_MESSAGE_TOKENS = 4  # the role and the marks around a message
_BYTES_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Turn:
    """What one cell added to a conversation."""

    cell_id: str | None
    """The front end's name of the cell; None where it has none."""
    messages: tuple[Message, ...]
    """The user's message, calls of tools with their results, and the answer; images included."""
    model: str = ""
    """The model that answered, as asked for."""
    when: float = 0.0
    """Seconds since 1970."""
    part: int = 0
    """Number of the prompt within its cell, from 0, where one run of a cell asks several times."""


def estimate(messages: Sequence[Message]) -> int:
    """Return roughly how many tokens messages take: one for four bytes, 1,000 for an image.

    That is near for English; code and other scripts may take half as much again. An exact count
    needs the tokenizer of the model.

    >>> from llm_magic.messages import user
    >>> estimate([user("four bytes a token")])
    9

    """
    tokens = 0
    for message in messages:
        text = len(message.text.encode("utf-8", "surrogatepass"))
        if message.tool_calls:
            text += sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        if message.reasoning is not None:
            text += message.reasoning.length
        tokens += _MESSAGE_TOKENS + -(-text // _BYTES_A_TOKEN) + IMAGE_TOKENS * _images(message)
    return tokens


def most_tokens(messages: Sequence[Message]) -> int:
    """Return how many tokens messages hardly exceed, whatever they hold and whoever counts them.

    That is one for each digit, mark and byte beyond ASCII, for two letters or spaces, and 1,500 for an image: about
    twice the estimate for English.

    >>> from llm_magic.messages import user
    >>> most_tokens([user("four bytes a token")]), most_tokens([user("{'a': 1}")]), most_tokens([user("今日は")])
    (13, 11, 13)

    """
    tokens = 0
    for message in messages:
        text = message.text
        if message.tool_calls:
            text = "".join((text, *(each for call in message.tool_calls for each in (call.name, call.arguments))))
        data = text.encode("utf-8", "surrogatepass")
        single = len(data.translate(None, _LETTERS))
        letters = len(data) - single + (message.reasoning.length if message.reasoning is not None else 0)
        tokens += _MESSAGE_TOKENS + single + -(-letters // 2) + MOST_IMAGE_TOKENS * _images(message)
    return tokens


def _images(message: Message) -> int:
    """Return how many images a message has."""
    return [type(part) for part in message.parts].count(Image)


_LETTERS = b" abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def window(turns: Sequence[Turn], tokens: int) -> tuple[Turn, ...]:
    """Return the latest whole turns that together take at most `tokens`, by `estimate`."""
    left = tokens
    start = len(turns)
    while start and (left := left - estimate(turns[start - 1].messages)) >= 0:
        start -= 1
    return tuple(turns[start:])


def to_document(message: Message) -> dict[str, Any]:
    """Return a message as the chat API has it; a lone text is a string, images are URLs.

    >>> from llm_magic.messages import user
    >>> to_document(user("Hello"))
    {'role': 'user', 'content': 'Hello'}

    """
    document: dict[str, Any] = {"role": message.role}
    if len(message.parts) == 1 and isinstance(message.parts[0], Text):
        document["content"] = message.parts[0].text
    elif message.parts:
        document["content"] = [
            {"type": "text", "text": part.text}
            if isinstance(part, Text)
            else {"type": "image_url", "image_url": {"url": part.as_url}}
            for part in message.parts
        ]
    else:
        document["content"] = None if message.tool_calls else ""
    if message.tool_calls:
        document["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        document["tool_call_id"] = message.tool_call_id
    if message.citations:
        document["annotations"] = [_annotation(cited) for cited in message.citations]
    if message.reasoning is not None:
        document["reasoning"] = {"sender": message.reasoning.sender, "items": list(message.reasoning.items)}
    return document


def _annotation(cited: Citation) -> dict[str, Any]:
    fields = {"url": cited.url, "title": cited.title, "file_id": cited.file_id, "filename": cited.filename}
    span = {"start_index": cited.start, "end_index": cited.end}
    told = {name: value for name, value in (fields | span).items() if value not in ("", None)}
    kind = "url_citation" if cited.url else "file_citation"
    return {"type": kind, kind: told}


def _citations(annotations: Any) -> tuple[Citation, ...]:
    """Read the citations of a message; what is none of the chat API's is passed over, as it is not sent either."""
    found = []
    for each in annotations if isinstance(annotations, list) else ():
        fields = each.get(str(each.get("type"))) if isinstance(each, dict) else None
        if isinstance(fields, dict) and (fields.get("url") or fields.get("file_id") or fields.get("filename")):
            url, title, file_id, filename = (
                str(fields.get(name) or "") for name in ("url", "title", "file_id", "filename")
            )
            start, end = (
                place if type(place := fields.get(name)) is int else None for name in ("start_index", "end_index")
            )
            found.append(Citation(url, title, start, end, file_id, filename))
    return tuple(found)


def from_document(document: Any) -> Message:
    """Read one message of the chat API; HistoryError says what is wrong with what is none."""
    try:
        role: Any = "system" if document["role"] == "developer" else document["role"]
        if role not in get_args(Role):
            raise ValueError(f"there is no role {role!r}")  # noqa: TRY301 - one message for all that is wrong
        content = document.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}] if content else None
        parts = tuple(_part_from_document(part) for part in content or ())
        calls = tuple(
            ToolCall(str(call["id"]), str(call["function"]["name"]), str(call["function"]["arguments"]))
            for call in document.get("tool_calls") or ()
        )
        call_id = document.get("tool_call_id")
        cited = _citations(document.get("annotations"))
        reasoning = _reasoning_from_document(document.get("reasoning")) if role == "assistant" else None
        return Message(
            role, parts, calls, None if call_id is None else str(call_id), citations=cited, reasoning=reasoning
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise HistoryError(
            f"This is no message of a chat: {what}.", 'Messages look like {"role": "user", "content": "…"}.'
        ) from None


def _reasoning_from_document(document: Any) -> Reasoning | None:
    """Read what a message keeps of its reasoning; None for what others call so: whose it is, nobody knows."""
    if not isinstance(document, Mapping):
        return None
    sender, items = document.get("sender"), document.get("items")
    if not isinstance(sender, str) or not isinstance(items, list):
        return None
    kept = tuple(item for item in items if isinstance(item, Mapping) and _is_shallow(item))
    return Reasoning(sender, kept) if kept else None


def _is_shallow(value: Any, levels: int = 6) -> bool:
    """Whether data is no deeper than reasoning ever is."""
    if not isinstance(value, Mapping | list):
        return True
    inner = value.values() if isinstance(value, Mapping) else value
    return levels > 0 and all(_is_shallow(each, levels - 1) for each in inner)


def _part_from_document(part: Mapping[str, Any]) -> Part:
    if part["type"] == "text":
        return Text(str(part["text"]))
    if part["type"] != "image_url":
        raise ValueError(f"a part of type {part['type']!r} cannot be kept")
    url = str(part["image_url"]["url"])
    described, comma, data = url.partition(";base64,")
    if not comma or not described.startswith("data:"):
        return Image(url=url)
    try:
        return Image(base64.b64decode(data, validate=True), described.removeprefix("data:"))
    except binascii.Error:
        raise ValueError("an image is not base64") from None
