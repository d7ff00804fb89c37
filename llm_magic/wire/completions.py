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
from llm_magic.wire.documents import ChoicesReader, check, merge, parameter_fields, read_logprobs

PATH = "/completions"
_LABELS = {"user": "User", "assistant": "Assistant"}


def body(request: Request, capabilities: Capabilities) -> dict[str, Any]:
    """Return the JSON body of `request`; raises UnsupportedError for what the API has not."""
    check(request, capabilities, "completions")
    if request.tools:
        raise UnsupportedError("The Completions API knows no tools.", "Leave --tools out, or use --api chat.")
    fields: dict[str, Any] = {"model": request.model, "prompt": prompt(request.messages)}
    if request.stream:
        fields["stream"] = True
        if capabilities.stream_usage:
            fields["stream_options"] = {"include_usage": True}
    fields |= parameter_fields(request, capabilities, "completions")
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


class CompletionsReader(ChoicesReader):
    """Documents of one answer in, events out; a stream's chunk and a whole completion are read alike."""

    def read_part(self, choice: dict[str, Any], index: int, out: list[Event]) -> None:
        """Add the events of a piece of text."""
        self.read_reasoning(choice, index, out)
        text = choice.get("text")
        if text and isinstance(text, str):
            self.add_text(text, index, out)
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict):
            # llama.cpp sends the shape of the Chat Completions API here, too
            read_logprobs(logprobs if "content" in logprobs else {"content": _rows(logprobs)}, index, out)


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
