"""A list of messages in the shape of Chat Completions, read and checked; an error says which of them is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from llm_magic import images
from llm_magic.close_matches import did_you_mean
from llm_magic.errors import PromptError
from llm_magic.messages import Image, Message, Part, Reasoning, Role, Text, ToolCall

_FIELDS = {
    "system": ("role", "content"),
    "user": ("role", "content"),
    "assistant": (
        "role",
        "content",
        "tool_calls",
        "reasoning_content",
        "reasoning",
        "reasoning_details",
        "thinking_blocks",
    ),
    "tool": ("role", "content", "tool_call_id"),
}
_EXAMPLE = 'Messages look like {"role": "user", "content": "…"}.'


def read_messages(items: Sequence[Any], *, max_side: int) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """Return the messages of a conversation, and what the user should know of its images.

    Parameters
    ----------
    items
        Dicts as `POST /chat/completions` has them, the SDK's objects of such, or `Message`. `content` is text, or a
        list of parts of type `text` and `image_url`. A field that is None or an empty list is one that is not there.
        Reasoning of an assistant's message (`reasoning_content`, `reasoning`, `reasoning_details`, `thinking_blocks`)
        is sent as it came.
    max_side
        Longest side of an image in pixels; a larger one is scaled down.

    Raises
    ------
    PromptError
        Says which one is wrong, counted from 0; a field that would not be sent is wrong, too.

    >>> messages, notes = read_messages([{"role": "user", "content": "Hi"}], max_side=2048)
    >>> [(message.role, message.text) for message in messages], notes
    ([('user', 'Hi')], ())

    """
    if not items:
        raise PromptError("The list of messages is empty.", _EXAMPLE)
    read_image = _ImageReader(max_side)
    messages = tuple(_message(item, f"Message {number}", read_image) for number, item in enumerate(items))
    if all(message.role == "system" for message in messages):
        raise PromptError("The messages hold a system prompt only.", 'Add {"role": "user", "content": "…"}.')
    return messages, tuple(read_image.notes)


_CALLED = {"human": "user", "ai": "assistant", "model": "assistant", "bot": "assistant", "function": "tool"}
"""What others call the roles."""


def _meant(role: str) -> str:
    ours = _CALLED.get(role.lower())
    return f"It is called {ours} here." if ours else did_you_mean(role, get_args(Role))


class _ImageReader:
    """What reads the images of the messages, and keeps what is to be said of them."""

    def __init__(self, max_side: int) -> None:
        self._max_side = max_side
        self.notes: list[str] = []

    def __call__(self, url: str, where: str) -> Image:
        try:
            image, note = images.part(url, max_side=self._max_side)
        except PromptError as error:
            raise PromptError(f"{where}: {error.message}", error.hint) from None
        self.notes += [note] if note else []
        return image


def _message(item: Any, where: str, read_image: _ImageReader) -> Message:
    if isinstance(item, Message):
        return item
    if not isinstance(item, Mapping) and callable(getattr(item, "model_dump", None)):
        item = item.model_dump()
    if not isinstance(item, Mapping):
        raise PromptError(f"{where} is no message but {_kind(item)}.", _EXAMPLE)
    given: dict[Any, Any] = {name: value for name, value in item.items() if value is not None and value != []}
    role = given.get("role")
    role = "system" if role == "developer" else role
    if not isinstance(role, str) or role not in get_args(Role):
        hint = _meant(role) if isinstance(role, str) else ""
        what = "has no role" if role is None else f"has the role {role!r:.40}"
        raise PromptError(f"{where} {what}.", hint or f"Roles are {', '.join(get_args(Role))}.")
    for name in given:
        if name not in _FIELDS[role]:
            hint = did_you_mean(str(name), _FIELDS[role], f"It has {', '.join(_FIELDS[role])}.")
            raise PromptError(f"{where} ({role}) has a field {name!r:.40}, which would not be sent.", hint)
    calls = _calls(given.get("tool_calls", ()), where)
    if "content" not in given and not calls:
        raise PromptError(f"{where} ({role}) has no content.", _EXAMPLE)
    parts = _parts(given.get("content", ""), f"{where} ({role})", read_image)
    if role != "user" and any(not isinstance(part, Text) for part in parts):
        raise PromptError(f"{where} ({role}) has an image, and only a user's message has.", "Make it a user's message.")
    if role == "user" and not parts:
        raise PromptError(f"{where} ({role}) is empty.", "Leave it out, or write its content.")
    answered = given.get("tool_call_id")
    if role == "tool" and not (isinstance(answered, str) and answered):
        raise PromptError(f"{where} (tool) has no tool_call_id.", "It is the id of the call that it answers.")
    return Message(cast("Role", role), parts, calls, answered, reasoning=_reasoning(given, f"{where} ({role})"))


def _reasoning(given: Mapping[Any, Any], where: str) -> Reasoning | None:
    """Return the reasoning of a message, which the user sends to whom he likes: no sender is known."""
    found: dict[str, Any] = {}
    for name in ("reasoning_content", "reasoning"):
        if name in given:
            if not isinstance(given[name], str):
                raise PromptError(f"{where}: its {name} is {_kind(given[name])}, no text.", "A text is needed.")
            found[name] = given[name]
    for name in ("reasoning_details", "thinking_blocks"):
        if name in given:
            parts = given[name]
            if not isinstance(parts, list | tuple) or not all(map(_is_flat, parts)):
                raise PromptError(
                    f"{where}: its {name} is no list of parts.", f'Write {name} as it came: [{{"type": "…", …}}].'
                )
            found[name] = [dict(part) for part in parts]
    return Reasoning("", (found,)) if found else None


def _is_flat(part: Any) -> bool:
    """Whether a part of reasoning has a type, and texts and numbers beside it, as all that is sent back has."""
    return (
        isinstance(part, Mapping)
        and isinstance(part.get("type"), str)
        and all(isinstance(name, str) for name in part)
        and all(value is None or isinstance(value, str | int | float) for value in part.values())
    )


def _parts(content: Any, where: str, read_image: _ImageReader) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content),) if content else ()
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise PromptError(f"{where}: its content is {_kind(content)}, no text and no list of parts.", _EXAMPLE)
    return tuple(_part(part, f"{where}, part {number}", read_image) for number, part in enumerate(content))


def _part(part: Any, where: str, read_image: _ImageReader) -> Part:
    if isinstance(part, str):
        return Text(part)
    if not isinstance(part, Mapping):
        raise PromptError(f"{where} is {_kind(part)}, no dict.", 'Parts look like {"type": "text", "text": "…"}.')
    kind = part.get("type")
    if kind not in ("text", "image_url"):
        said = "has no type" if kind is None else f"has the type {kind!r:.40}"
        raise PromptError(f"{where} {said}.", "Parts of type text and image_url are sent.")
    value = part.get(kind)
    if kind == "text":
        if not isinstance(value, str):
            raise PromptError(f"{where}: its text is {_kind(value)}.", "A text is needed.")
        _only(part, ("type", "text"), where)
        return Text(value)
    _only(part, ("type", "image_url"), where)
    url = value.get("url") if isinstance(value, Mapping) else value
    if not isinstance(url, str) or not url.lower().startswith(("http://", "https://", "data:")):
        raise PromptError(
            f"{where} names no image.",
            '{"type": "image_url", "image_url": {"url": "…"}} takes an http(s) or data: URL.',
        )
    if isinstance(value, Mapping):
        _only(value, ("url",), where)
    return read_image(url, where)


def _only(fields: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    for name, value in fields.items():
        if name not in known and value is not None:
            raise PromptError(f"{where} has a field {name!r:.40}, which would not be sent.", "Leave it out.")


def _calls(calls: Any, where: str) -> tuple[ToolCall, ...]:
    if not isinstance(calls, list | tuple):
        raise PromptError(f"{where}: its tool_calls are {_kind(calls)}, no list.", "They are a list of dicts.")
    return tuple(_call(call, f"{where}, call {number}") for number, call in enumerate(calls))


def _call(call: Any, where: str) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise PromptError(f"{where} is no call of a function.", f"Calls look like {_CALL}.")
    arguments = function.get("arguments", "")
    if isinstance(arguments, Mapping):
        arguments = json.dumps(arguments)
    for name, value in (("id", call.get("id")), ("name", function.get("name")), ("arguments", arguments)):
        if not isinstance(value, str) or not (value or name == "arguments"):
            raise PromptError(f"{where}: its {name} is {_kind(value)}, no text.", f"Calls look like {_CALL}.")
    return ToolCall(call["id"], function["name"], arguments)


_CALL = '{"id": "…", "type": "function", "function": {"name": "…", "arguments": "{…}"}}'


def _kind(value: Any) -> str:
    """Return what a value is, in words."""
    if value is None:
        return "None"
    return "an empty text" if value == "" else type(value).__name__
