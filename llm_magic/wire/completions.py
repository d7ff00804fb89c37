"""The legacy Completions API: a prompt text as a body, its documents and stream chunks as events.

Source of the fields: https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magic.capabilities import Capabilities
from llm_magic.errors import UnsupportedError
from llm_magic.events import Event, Finished, LogprobsDelta, ReasoningDelta, TextDelta
from llm_magic.messages import Image, Message
from llm_magic.request import Request
from llm_magic.wire.documents import ChoicesReader, check, finish_reason, merge, parameter_fields, read_filter
from llm_magic.wire.reasoning import Thinking

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

    One message is sent as it stands: whatever template it needs has been applied to it. Several become a
    labelled dialogue that ends where the assistant begins to speak.
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

    def read_choice(self, choice: dict[str, Any], index: int, out: list[Event]) -> None:
        """Add the events of a piece of text."""
        reasoning = choice.get("reasoning_content") or choice.get("reasoning")
        if reasoning and isinstance(reasoning, str):
            out.append(ReasoningDelta(reasoning, index))
        text = choice.get("text")
        if text and isinstance(text, str):
            thinking = self._thinking.get(index)
            if thinking is None:
                thinking = self._thinking[index] = Thinking(index)
            if thinking.settled:
                out.append(TextDelta(text, index))
            else:
                thinking.add(text, out)
        if choice.get("logprobs"):
            _read_logprobs(choice["logprobs"], index, out)
        read_filter(choice.get("content_filter_results"), out, index)
        reason = choice.get("finish_reason")
        if reason and index not in self._finished:
            self._finished.add(index)
            if index in self._thinking:
                self._thinking[index].end(out)
            out.append(Finished(finish_reason(reason), index))

    def end(self, out: list[Event]) -> None:
        """Add what was held back, for an answer that the stream broke off."""
        for index, thinking in sorted(self._thinking.items()):
            if index not in self._finished:
                thinking.end(out)


def _read_logprobs(logprobs: Any, index: int, out: list[Event]) -> None:
    """Add the log probabilities in the shape of the Chat Completions API, which this API's columns are turned into."""
    if not isinstance(logprobs, dict):
        return
    if isinstance(logprobs.get("content"), list):  # llama.cpp sends that shape here, too
        out.append(LogprobsDelta(tuple(logprobs["content"]), index))
        return
    tokens = logprobs.get("tokens") or []
    values = logprobs.get("token_logprobs") or []
    tops = logprobs.get("top_logprobs") or []
    rows: list[Mapping[str, Any]] = []
    for place, token in enumerate(tokens):
        top = tops[place] if place < len(tops) else None
        rows.append(
            {
                "token": token,
                "logprob": values[place] if place < len(values) else None,
                "top_logprobs": [{"token": name, "logprob": value} for name, value in (top or {}).items()],
            }
        )
    if rows:
        out.append(LogprobsDelta(tuple(rows), index))
