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
from llm_magic.messages import Image, Message, Part, Role, Text, ToolCall

IMAGE_TOKENS = 1000  # of one image, roughly: vendors count from 85 to 1,500, by size
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
        calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
        tokens += _MESSAGE_TOKENS + -(-(text + calls) // _BYTES_A_TOKEN)
        tokens += IMAGE_TOKENS * sum(isinstance(part, Image) for part in message.parts)
    return tokens


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
    return document


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
        return Message(role, parts, calls, None if call_id is None else str(call_id))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise HistoryError(
            f"This is no message of a chat: {what}.", 'Messages look like {"role": "user", "content": "…"}.'
        ) from None


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
