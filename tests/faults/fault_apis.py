"""The three APIs as a server writes them: pieces of a stream, and whole documents, under the same names."""

# ruff: noqa: ARG002 - the same names for each API

from __future__ import annotations

import json
from typing import Any

DONE = b"data: [DONE]\n\n"
CALL = {"name": "area", "arguments": '{"width": 3}'}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


def event(document: object) -> bytes:
    """Return a document as a server-sent event."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


class Chat:
    """The Chat Completions API."""

    name = "chat"

    def _chunk(self, index: int = 0, finish: str | None = None, **delta: Any) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return event({"id": "c", "object": "chat.completion.chunk", "model": "scripted", "choices": [choice]})

    def begin(self) -> bytes:
        """Return what a server says before it answers."""
        return self._chunk(role="assistant", content="")

    def text(self, text: str, index: int = 0) -> bytes:
        """Return a piece of the text."""
        return self._chunk(index, content=text)

    def raw_text(self, text: bytes) -> bytes:
        """Return a piece of the text whose bytes stand in the JSON as they are."""
        return self.text("<>").replace(b"<>", text)

    def reasoning(self, text: str) -> bytes:
        """Return a piece of the reasoning."""
        return self._chunk(reasoning_content=text)

    def call(self, arguments: str, *, begins: bool = True) -> bytes:
        """Return a piece of a tool call."""
        names = {"id": "c1", "type": "function"} if begins else {}
        function = {"name": "area", "arguments": arguments} if begins else {"arguments": arguments}
        return self._chunk(tool_calls=[{"index": 0, **names, "function": function}])

    def nothing(self) -> bytes:
        """Return an event that says nothing."""
        return self._chunk()

    def end(self, reason: str | None = "stop", usage: Any = None, index: int = 0) -> bytes:
        """Return the last events, but for the end mark."""
        counted = b"" if usage is None else event({"choices": [], "usage": usage})
        return (self._chunk(index, reason) if reason else b"") + counted

    def logprobs(self, text: str, value: float) -> bytes:
        """Return a piece of the text with the log probability of its token."""
        choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [{"token": text, "logprob": value}]}}
        return event({"choices": [choice]})

    def error(self, message: str, code: object = "server_error") -> bytes:
        """Return an error in the midst of the stream."""
        return event({"error": {"message": message, "code": code}})

    def document(self, text: str | None, reason: str | None = "stop", usage: Any = None, **message: Any) -> Any:
        """Return a whole answer."""
        choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
        return {"object": "chat.completion", "model": "scripted", "choices": [choice], "usage": usage}


class Completions(Chat):
    """The legacy Completions API."""

    name = "completions"

    def _chunk(self, index: int = 0, finish: str | None = None, **delta: Any) -> bytes:
        choice = {"index": index, "text": delta.get("content", ""), "finish_reason": finish}
        if "reasoning_content" in delta:
            choice["reasoning_content"] = delta["reasoning_content"]
        return event({"id": "c", "object": "text_completion", "model": "scripted", "choices": [choice]})

    def logprobs(self, text: str, value: float) -> bytes:
        """Return a piece of the text with the log probability of its token."""
        logprobs = {"tokens": [text], "token_logprobs": [value], "top_logprobs": None}
        return event({"choices": [{"index": 0, "text": text, "logprobs": logprobs}]})

    def document(self, text: str | None, reason: str | None = "stop", usage: Any = None, **message: Any) -> Any:
        """Return a whole answer."""
        choice = {"index": 0, "text": text, "finish_reason": reason, **message}
        return {"object": "text_completion", "model": "scripted", "choices": [choice], "usage": usage}


class Responses(Chat):
    """The Responses API."""

    name = "responses"

    def begin(self) -> bytes:
        """Return what a server says before it answers."""
        response = {"id": "r", "object": "response", "model": "scripted", "status": "in_progress", "output": []}
        return event({"type": "response.created", "response": response}) + event(
            {"type": "response.in_progress", "response": response}
        )

    def _delta(self, kind: str, delta: str, **more: Any) -> bytes:
        where = {"output_index": 0, "content_index": 0, "item_id": "i"}
        return event({"type": f"response.{kind}.delta", **where, "delta": delta, **more})

    def text(self, text: str, index: int = 0) -> bytes:
        """Return a piece of the text."""
        return self._delta("output_text", text)

    def reasoning(self, text: str) -> bytes:
        """Return a piece of the reasoning."""
        return self._delta("reasoning_text", text)

    def call(self, arguments: str, *, begins: bool = True) -> bytes:
        """Return a piece of a tool call."""
        item = {"type": "function_call", "id": "i", "call_id": "c1", "name": "area", "arguments": ""}
        added = event({"type": "response.output_item.added", "output_index": 0, "item": item}) if begins else b""
        return added + self._delta("function_call_arguments", arguments)

    def nothing(self) -> bytes:
        """Return an event that says nothing."""
        return self._delta("output_text", "")

    def end(self, reason: str | None = "stop", usage: Any = None, index: int = 0) -> bytes:
        """Return the last event, which is the end mark, too."""
        if reason is None:
            return b""
        response = {"id": "r", "object": "response", "model": "scripted", "output": [], **self._status(reason)}
        counted = {} if usage is None else {"usage": self._usage(usage)}
        return event({"type": f"response.{response['status']}", "response": {**response, **counted}})

    @staticmethod
    def _usage(usage: Any) -> Any:
        names = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
        names |= {f"{old}_details": f"{new}_details" for old, new in names.items()}
        return {names.get(name, name): value for name, value in usage.items()} if isinstance(usage, dict) else usage

    @staticmethod
    def _status(reason: str | None) -> dict[str, Any]:
        if reason in ("length", "content_filter"):
            why = "max_output_tokens" if reason == "length" else reason
            return {"status": "incomplete", "incomplete_details": {"reason": why}}
        return {"status": "cancelled" if reason == "abort" else "completed"}

    def logprobs(self, text: str, value: float) -> bytes:
        """Return a piece of the text with the log probability of its token."""
        return self._delta("output_text", text, logprobs=[{"token": text, "logprob": value}])

    def error(self, message: str, code: object = "server_error") -> bytes:
        """Return an error in the midst of the stream."""
        return event({"type": "error", "message": message, "code": code})

    def document(self, text: str | None, reason: str | None = "stop", usage: Any = None, **message: Any) -> Any:
        """Return a whole answer."""
        output: list[Any] = []
        if reasoning := message.get("reasoning_content"):
            output.append({"type": "reasoning", "content": [{"type": "reasoning_text", "text": reasoning}]})
        if text is not None:
            output.append({"type": "message", "content": [{"type": "output_text", "text": text}]})
        known = {"object": "response", "model": "scripted", "output": output, "usage": self._usage(usage)}
        return {**known, **self._status(reason)}


APIS: tuple[Chat, ...] = (Chat(), Responses(), Completions())
