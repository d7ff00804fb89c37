"""What a conversation is made of: frozen messages of text, images, tool calls and reasoning."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakValueDictionary

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    """A run of text in a message."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a message: its bytes with their media type, or the URL of one.

    Exactly one of `data` and `url` is set; `media_type` goes with `data`.
    """

    data: bytes | None = None
    media_type: str = "image/png"
    url: str | None = None

    @property
    def as_url(self) -> str:
        """Its own URL, else a data: URL of its bytes."""
        if self.url is not None:
            return self.url
        return f"data:{self.media_type};base64,{base64.b64encode(self.data or b'').decode()}"


Part = Text | Image


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called: `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Reasoning as a server sent it beside a message: it goes back with the message to who sent it, and to nobody else.

    `sender` names provider, model and API. `items` are plain data of that API: of Responses its reasoning items,
    with marks (`message`, `function_call`) where these stood between them; of chat one item with fields of the message
    (`reasoning_content`, `reasoning_details`, …) and, in `tool_calls`, those of each call by its id.
    """

    sender: str
    items: tuple[Mapping[str, Any], ...] = field(hash=False, repr=False)

    @property
    def text(self) -> str:
        r"""What can be read of it, paragraphs apart; encrypted reasoning cannot.

        >>> Reasoning("", ({"type": "reasoning", "summary": [{"text": "One."}, {"text": "Two."}]},)).text
        'One.\n\nTwo.'

        """
        return "\n\n".join(text for item in self.items for text in _texts(item))

    @property
    def length(self) -> int:
        """Characters of all texts in it, encrypted ones included."""
        return sum(map(_length, self.items))


def _texts(item: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of one item: of fields that say the same, one."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(item.get(name), str) and item[name]:
            yield item[name]
            return
    for name in ("reasoning_details", "thinking_blocks", "summary", "content"):
        parts = item.get(name)
        found = [
            part[kind]
            for part in (parts if isinstance(parts, list) else ())
            for kind in ("text", "summary", "thinking")
            if isinstance(part, Mapping) and isinstance(part.get(kind), str) and part[kind]
        ]
        if found:
            yield from found
            return


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return sum(map(_length, inner))


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Message:
    """One message of a conversation.

    `tool_calls` and `reasoning` only on an assistant's message; `tool_call_id` only on a tool's, whose parts are
    the result of that call.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning: Reasoning | None = None

    @property
    def text(self) -> str:
        """The text of the message, without its images."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


_IN_USE: WeakValueDictionary[int, Message] = WeakValueDictionary()


def interned(message: Message) -> Message:
    """Return the message, or in its place an equal one that is in use: what many responses hold is in memory once.

    >>> first = interned(user("Hi"))
    >>> interned(user("Hi")) is first
    True

    """
    known = _IN_USE.setdefault(hash(message), message)
    return known if known == message else message


def system(text: str) -> Message:
    """Return a system message."""
    return Message("system", (Text(text),))


def user(*parts: Part | str) -> Message:
    """Return a user's message of these parts; a `str` is a text part."""
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def assistant(text: str, tool_calls: tuple[ToolCall, ...] = (), reasoning: Reasoning | None = None) -> Message:
    """Return an assistant's message."""
    return Message("assistant", (Text(text),) if text else (), tool_calls, reasoning=reasoning)


def tool(call: ToolCall, result: str) -> Message:
    """Return the message that answers `call`."""
    return Message("tool", (Text(result),), tool_call_id=call.id)
