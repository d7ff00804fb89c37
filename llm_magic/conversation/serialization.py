"""Messages as JSON documents of OpenAI's chat API, and back; what files and exports hold.

It is a format of files, so it does not follow what the wire sends today. Shape: the reference of
`POST /chat/completions`, `messages`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, get_args

from llm_magic.errors import HistoryError
from llm_magic.messages import Image, Message, Part, Role, Text, ToolCall


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
        document["content"] = [_part_to_document(part) for part in message.parts]
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


def image_url(image: Image) -> str:
    """Return the URL of an image: its own, else a data: URL."""
    if image.data is None:
        return image.url or ""
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"


def _part_to_document(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": image_url(part)}}


def from_document(document: Any) -> Message:
    """Read one message of the chat API.

    Raises
    ------
    HistoryError
        It is no such message; the error says what is wrong with it.

    """
    try:
        role = document["role"]
        if role == "developer":
            role = "system"
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
