"""Turns: what each cell added to its conversation; their tokens, and a window of the latest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_magic.messages import Image, Message

IMAGE_TOKENS = 1000  # of one image, roughly: vendors count from 85 to 1,500, by size
_MESSAGE_TOKENS = 4  # the role and the marks around a message
_BYTES_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Turn:
    """What one cell added to a conversation.

    Attributes
    ----------
    cell_id
        The front end's name of the cell; None where it has none.
    messages
        The user's message, calls of tools with their results, and the answer; images included.
    model
        The model, as asked for.
    when
        Seconds since 1970.
    part
        Number of the prompt within its cell, from 0, where one run of a cell asks several times.

    """

    cell_id: str | None
    messages: tuple[Message, ...]
    model: str = ""
    when: float = 0.0
    part: int = 0


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
