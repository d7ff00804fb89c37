"""What a conversation is made of: frozen messages of text, images, tool calls, citations and reasoning."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

from llm_magic.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    """A run of text in a message."""

    text: str


DISPLAYED = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Media types of images that are shown as such: pixels. An SVG is a document, which may hold scripts."""


@dataclass(frozen=True, slots=True, repr=False)
class Image:
    """An image in a message or of an answer: its bytes with their media type, or the URL of one.

    Exactly one of `data` and `url` is set; `media_type` goes with `data`. A notebook displays it, `save` writes it to
    a file, and `--image` takes it.

    >>> Image(b"GIF89a", "image/gif"), Image(url="https://example.org/a.png")
    (Image(image/gif, 6 bytes), Image(url='https://example.org/a.png'))

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

    def save(self, path: str | Path) -> Path:
        """Write the bytes to a file, which is replaced where there is one, and return its path.

        Raises
        ------
        InputError
            The file cannot be written, or only the URL is known: an image that is elsewhere is not fetched.

        """
        if self.data is None:
            raise InputError(
                "The image is not here, only its URL is known.", f"Open it in a browser: {self.url!r:.500}"
            )
        path = Path(path).expanduser()
        try:
            path.write_bytes(self.data)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{path} cannot be written: {reason}.", "Name a file in a folder of yours.") from None
        return path

    def __repr__(self) -> str:
        if self.data is None:
            return f"Image(url={self.url!r:.200})"
        return f"Image({self.media_type}, {len(self.data):,} bytes)"

    def _repr_mimebundle_(self, **_wanted: object) -> dict[str, str]:
        """Return what a notebook displays; an image of the web is not loaded, an SVG not drawn."""
        shown = self.data is not None and self.media_type in DISPLAYED
        pixels = {self.media_type: base64.b64encode(self.data or b"").decode()} if shown else {}
        return {**pixels, "text/plain": repr(self)}


Part = Text | Image


@dataclass(frozen=True, slots=True)
class Citation:
    """A source that an answer names: a page of the web, or a file that the server keeps.

    Every text is the server's, the URL as well: nothing says that it is one.
    """

    url: str = ""
    title: str = ""
    start: int | None = None
    """Where the span of the answer's text begins that it belongs to, in characters; None where no span is told."""
    end: int | None = None
    """The first character after the span."""
    file_id: str = ""
    filename: str = ""
    details: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """All that the server says of it, as it says it: a date, a snippet, a score, …."""


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

    `tool_calls`, `citations` and `reasoning` only on an assistant's message; `tool_call_id` only on a tool's, whose
    parts are the result of that call. Citations are kept and exported, and not sent.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    citations: tuple[Citation, ...] = ()
    reasoning: Reasoning | None = None

    @property
    def text(self) -> str:
        """The text of the message, without its images."""
        parts = self.parts
        if len(parts) == 1 and type(parts[0]) is Text:
            return parts[0].text
        return "".join([part.text for part in parts if isinstance(part, Text)])


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


def assistant(
    text: str,
    tool_calls: tuple[ToolCall, ...] = (),
    reasoning: Reasoning | None = None,
    citations: tuple[Citation, ...] = (),
) -> Message:
    """Return an assistant's message."""
    parts = (Text(text),) if text else ()
    return Message("assistant", parts, tool_calls, citations=citations, reasoning=reasoning)


def tool(call: ToolCall, result: str, images: tuple[Image, ...] = ()) -> Message:
    """Return the message that answers `call`."""
    return Message("tool", (Text(result), *images), tool_call_id=call.id)
