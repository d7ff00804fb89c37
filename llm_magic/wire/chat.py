"""The Chat Completions API: a request as its body, its documents and stream chunks as events.

Source of the fields: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
from typing import Any

from llm_magic.capabilities import Capabilities
from llm_magic.events import Event, FinishReason, RefusalDelta, ToolCallDelta
from llm_magic.messages import Message, Text
from llm_magic.request import Request
from llm_magic.wire.documents import (
    ChoicesReader,
    check,
    image_url,
    joined_text,
    merge,
    parameter_fields,
    read_logprobs,
    read_parts,
)

PATH = "/chat/completions"


def body(request: Request, capabilities: Capabilities) -> dict[str, Any]:
    """Return the JSON body of `request`; raises UnsupportedError for what the endpoint does not take."""
    check(request, capabilities, "chat")
    fields: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message, capabilities) for message in request.messages],
    }
    if request.stream:
        fields["stream"] = True
        if capabilities.stream_usage:
            fields["stream_options"] = {"include_usage": True}
    fields |= parameter_fields(request, capabilities, "chat")
    if request.tools:
        fields["tools"] = [
            _tool(tool.name, tool.description, tool.parameters, tool.strict, capabilities) for tool in request.tools
        ]
        if request.tool_choice in ("auto", "none", "required"):
            fields["tool_choice"] = request.tool_choice
        elif request.tool_choice:
            fields["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice}}
    return merge(fields, request.structure, request.parameters.extra)


def _tool(name: str, description: str, parameters: Any, strict: bool, capabilities: Capabilities) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name, "description": description, "parameters": dict(parameters)}
    if strict and capabilities.strict_tools:
        function["strict"] = True
    return {"type": "function", "function": function}


def _message(message: Message, capabilities: Capabilities) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": capabilities.system_role if message.role == "system" else message.role}
    text = joined_text(message.parts)
    if text is None:
        fields["content"] = [
            {"type": "text", "text": part.text}
            if isinstance(part, Text)
            else {"type": "image_url", "image_url": {"url": image_url(part)}}
            for part in message.parts
        ]
    elif text or not message.tool_calls:
        fields["content"] = text
    if message.tool_calls:
        fields["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    return fields


class ToolCalls:
    """Deltas of the Chat Completions API in, `ToolCallDelta` out: id and name once, arguments in pieces.

    A call is known by its `index`. Servers that send none, or 0 for every call, begin a new call
    with a new id beside a name. A call that never got an id is given one at the end, for its result
    to refer to.
    """

    def __init__(self, answer: int) -> None:
        self._answer = answer
        self._positions: dict[int, int] = {}  # the server's index → position
        self._ids: list[str] = []
        self._names: list[str] = []
        self._begun: list[bool] = []  # whether arguments have come

    def read(self, deltas: list[Any], out: list[Event]) -> None:
        """Take the `tool_calls` of one delta or message."""
        for delta in deltas:
            if not isinstance(delta, dict):
                continue
            function = delta.get("function")
            function = function if isinstance(function, dict) else {}
            identity, name = _word(delta.get("id")), _word(function.get("name"))
            arguments = function.get("arguments")
            if isinstance(arguments, dict | list):  # some servers send the object itself
                arguments = json.dumps(arguments, ensure_ascii=False)
            arguments = arguments if isinstance(arguments, str) else ""
            position = self._position(delta.get("index"), identity, name)
            new_id = identity if identity and not self._ids[position] else ""
            new_name = name if name and not self._names[position] else ""
            self._ids[position] = self._ids[position] or identity
            self._names[position] = self._names[position] or name
            self._begun[position] = self._begun[position] or bool(arguments)
            if new_id or new_name or arguments:
                out.append(ToolCallDelta(position, new_id, new_name, arguments, self._answer))

    def _position(self, index: object, identity: str, name: str) -> int:
        if isinstance(index, int) and not isinstance(index, bool):
            known = self._positions.get(index)
            if known is not None and not (name and identity and self._ids[known] not in ("", identity)):
                return known
            position = self._positions[index] = self._new()
            return position
        if identity:
            return self._ids.index(identity) if identity in self._ids else self._new()
        last = len(self._ids) - 1
        if last < 0 or (name and self._begun[last] and name != self._names[last]):
            return self._new()
        return last

    def _new(self) -> int:
        self._ids.append("")
        self._names.append("")
        self._begun.append(False)
        return len(self._ids) - 1

    def end(self, out: list[Event]) -> None:
        """Name the calls that the server left without an id."""
        for position, identity in enumerate(self._ids):
            if not identity:
                self._ids[position] = f"call_{position}"
                out.append(ToolCallDelta(position, self._ids[position], "", "", self._answer))


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


class ChatReader(ChoicesReader):
    """Documents of one answer in, events out; a stream's chunk and a whole completion are read alike."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._calls: dict[int, ToolCalls] = {}
        self._refused: set[int] = set()

    def read_part(self, choice: dict[str, Any], index: int, out: list[Event]) -> None:
        """Add the events of a delta, or of a whole message."""
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            content = delta.get("content")
            if len(delta) > 1 or not content:
                self.read_reasoning(delta, index, out)
            if content:  # the first delta's is empty or null
                text = content if isinstance(content, str) else read_parts(content, index, out)
                self.add_text(text, index, out)
            if len(delta) > 1 or not content:
                self._read_rest(delta, index, out)
        logprobs = choice.get("logprobs")
        if logprobs:
            read_logprobs(logprobs, index, out)

    def _read_rest(self, delta: dict[str, Any], index: int, out: list[Event]) -> None:
        refusal = delta.get("refusal")
        if refusal and isinstance(refusal, str):
            self._refused.add(index)
            out.append(RefusalDelta(refusal, index))
        calls, legacy = delta.get("tool_calls"), delta.get("function_call")
        calls = calls if isinstance(calls, list) else []
        if legacy and isinstance(legacy, dict):
            calls = [*calls, {"index": 0, "function": legacy}]
        if calls:
            self._calls.setdefault(index, ToolCalls(index)).read(calls, out)

    def finish_reason(self, reason: object, index: int) -> FinishReason:
        """Return our word for a server's finish reason; after a refusal it did not simply stop."""
        ours = super().finish_reason(reason, index)
        return "refusal" if ours == "stop" and index in self._refused else ours

    def flush(self, index: int, out: list[Event]) -> None:
        """Add what was held back of one answer, which has ended."""
        super().flush(index, out)
        if index in self._calls:
            self._calls[index].end(out)

    def end(self, out: list[Event]) -> None:
        """Add what was held back, for answers that the stream broke off."""
        for index in sorted({*self._thinking, *self._calls} - self._finished):
            self.flush(index, out)
