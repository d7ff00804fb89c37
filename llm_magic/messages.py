"""What a conversation is made of: frozen messages of text, images and tool calls."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal
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


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Message:
    """One message of a conversation.

    `tool_calls` only on an assistant's message; `tool_call_id` only on a tool's, whose parts are the
    result of that call.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

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


def assistant(text: str, tool_calls: tuple[ToolCall, ...] = ()) -> Message:
    """Return an assistant's message."""
    return Message("assistant", (Text(text),) if text else (), tool_calls)


def tool(call: ToolCall, result: str) -> Message:
    """Return the message that answers `call`."""
    return Message("tool", (Text(result),), tool_call_id=call.id)
