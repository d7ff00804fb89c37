"""The legacy Completions API: a prompt text as a body, its documents and stream chunks as events.

Source of the fields: https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from llm_magic.capabilities import Capabilities
from llm_magic.errors import UnsupportedError
from llm_magic.events import Event
from llm_magic.messages import Image, Message
from llm_magic.request import Request
from llm_magic.wire.chat import ChatReader
from llm_magic.wire.documents import merge, options

PATH = "/completions"
_LABELS = {"user": "User", "assistant": "Assistant"}


def body(request: Request, capabilities: Capabilities) -> dict[str, Any]:
    """Return the JSON body of `request`; raises UnsupportedError for what the API has not."""
    chosen = options(request, capabilities, "completions")
    if request.tools:
        raise UnsupportedError("The Completions API knows no tools.", "Leave --tools out, or use --api chat.")
    fields = {"model": request.model, "prompt": prompt(request.messages), **chosen}
    return merge(fields, request.structure, request.parameters.extra)


def prompt(messages: tuple[Message, ...]) -> str:
    """Return the messages as one text to be continued.

    One message is sent as it stands: whatever template it needs has been applied to it. Several
    become a labelled dialogue that ends where the assistant begins to speak.
    """
    for message in messages:
        if any(isinstance(part, Image) for part in message.parts):
            raise UnsupportedError("The Completions API takes no images.", "Leave --image out, or use --api chat.")
        if message.role == "tool" or message.tool_calls:
            raise UnsupportedError(
                "The Completions API takes no tool calls, and this conversation holds some.",
                "Use --api chat or --once.",
            )
    if len(messages) == 1:
        return messages[0].text
    turns = [
        message.text if message.role == "system" else f"{_LABELS[message.role]}: {message.text}" for message in messages
    ]
    return "\n\n".join([*turns, "Assistant:"])


class CompletionsReader(ChatReader):
    """Documents of one answer in, events out: choices as of the Chat Completions API, each with its text."""

    def read_part(self, choice: dict[str, Any], index: int, out: list[Event]) -> None:
        """Add the events of a piece of text, which is read as a delta of the Chat Completions API."""
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict) and "content" not in logprobs:  # llama.cpp sends chat's shape here, too
            logprobs = {"content": _rows(logprobs)}
        text = choice.get("text")
        if text is None and ("message" in choice or "delta" in choice):  # a gateway that answers as chat does
            super().read_part({**choice, "logprobs": logprobs}, index, out)
            return
        reasoning = choice.get("reasoning_content") or choice.get("reasoning")
        super().read_part({"delta": {"reasoning": reasoning, "content": text}, "logprobs": logprobs}, index, out)


def _rows(logprobs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return this API's columns of log probabilities as the rows of the Chat Completions API."""
    values, tops = logprobs.get("token_logprobs") or [], logprobs.get("top_logprobs") or []
    return [
        {
            "token": token,
            "logprob": value,
            "top_logprobs": [{"token": name, "logprob": each} for name, each in (top or {}).items()],
        }
        for token, value, top in zip_longest(logprobs.get("tokens") or [], values, tops)
        if token is not None
    ]
