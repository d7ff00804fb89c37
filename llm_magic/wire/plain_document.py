"""A whole Chat Completions document that is one plain text: its events, read at once.

They are those that `Answer` gives for the same bytes. Of many rows nearly all answers are such, and reading them is
a good part of a row's time.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from llm_magic.events import Event, Finished, Identified, TextDelta
from llm_magic.wire.documents import read_usage
from llm_magic.wire.items import IN_DOCUMENT

_LARGE = 2**20  # bytes of a document that is read only once, whatever it is
_ELSE = ("error", "prompt_filter_results", "x_groq")
"""Fields of a document that say more than an answer, where they hold something."""
_OF_A_CHOICE = ("logprobs", "content_filter_results", "error", "delta")
"""The same of a choice."""


def plain_events(data: bytes) -> list[Event] | None:
    r"""Return the events of a document; None where it may be more than a plain text, for `Answer` to read.

    >>> plain_events(b'{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}')
    [TextDelta(text='Hi', index=0), Finished(reason='stop', index=0)]
    >>> plain_events(b'{"choices": [{"message": {"content": "Hi"}, "finish_reason": "length"}]}')

    """
    if len(data) > _LARGE:
        return None
    try:
        document: Any = from_json(data)
    except ValueError:
        return None
    if type(document) is not dict or any(map(document.get, _ELSE)) or not IN_DOCUMENT.isdisjoint(document):
        return None
    choices = document.get("choices")
    choice = choices[0] if type(choices) is list and len(choices) == 1 else None
    if type(choice) is not dict or choice.get("finish_reason") != "stop" or any(map(choice.get, _OF_A_CHOICE)):
        return None
    text = _text(choice.get("message")) if not choice.get("index") else ""
    if not text:
        return None
    model = document.get("model")
    events: list[Event] = [Identified(model)] if model and type(model) is str else []
    events += TextDelta(text), Finished("stop")
    events += read_usage(document.get("usage"))
    return events


def _text(message: Any) -> str:
    """Return the text of a message that holds nothing else, and no reasoning before it; empty of any other."""
    if type(message) is not dict:
        return ""
    text = message.get("content")
    if type(text) is not str or text.lstrip()[:1] in ("", "<"):
        return ""
    return "" if any(value for name, value in message.items() if name not in ("content", "role")) else text
