"""The Chat Completions API: a request as its body, its documents and stream chunks as events.

Source of the fields: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from llm_magic.capabilities import Capabilities
from llm_magic.events import (
    Event,
    Finished,
    FinishReason,
    Identified,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from llm_magic.messages import Image, Message, Part, Text, user
from llm_magic.request import Request, Tool
from llm_magic.wire.documents import (
    ErrorDocument,
    as_text,
    error_in,
    image_url,
    merge,
    options,
    read_filter,
    read_logprobs,
    read_usage,
    says,
)
from llm_magic.wire.items import Beside
from llm_magic.wire.reasoning import CHAT_FIELDS, ReasoningFields, Thinking, chat_fields, signatures

PATH = "/chat/completions"

FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "safety": "content_filter",
    "refusal": "refusal",
    "abort": "truncated",
    "cancelled": "truncated",
    "error": "truncated",
}
"""Finish reasons as servers write them. Another one ends the answer as `stop` does (`eos`, `end_turn`, …)."""

_NOT_SAID = frozenset({"null", "none", "undefined"})
"""What servers write for a finish reason that there is not yet."""


def body(request: Request, capabilities: Capabilities) -> dict[str, Any]:
    """Return the JSON body of `request`; raises UnsupportedError for what the endpoint does not take."""
    chosen = options(request, capabilities, "chat")
    messages = list(_messages(request.messages, capabilities))
    fields: dict[str, Any] = {"model": request.model, "messages": messages, **chosen}
    if request.tools:
        fields["tools"] = [_tool(tool, capabilities) for tool in request.tools]
        if request.tool_choice in ("auto", "none", "required"):
            fields["tool_choice"] = request.tool_choice
        elif request.tool_choice:
            fields["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice}}
    return merge(fields, request.structure, request.parameters.extra)


def _tool(tool: Tool, capabilities: Capabilities) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    strict = {"strict": True} if tool.strict and capabilities.strict_tools else {}
    return {"type": "function", "function": {**function, **strict}}


def _messages(messages: Sequence[Message], capabilities: Capabilities) -> Iterator[dict[str, Any]]:
    """Yield messages; the images of tools, whose messages take none, follow their results as a user's message."""
    images: list[Part] = []
    for message in messages:
        if images and message.role != "tool":
            yield _message(_of_tools(images), capabilities)
            images = []
        found = [part for part in message.parts if isinstance(part, Image)] if message.role == "tool" else []
        if found:
            images += found
            message = replace(message, parts=tuple(part for part in message.parts if isinstance(part, Text)))  # noqa: PLW2901 - the same without its images
        yield _message(message, capabilities)
    if images:
        yield _message(_of_tools(images), capabilities)


def _of_tools(images: list[Part]) -> Message:
    return user(f"[{'The image' if len(images) == 1 else 'The images'} of the tools' results]", *images)


def _message(message: Message, capabilities: Capabilities) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": capabilities.system_role if message.role == "system" else message.role}
    if any(isinstance(part, Image) for part in message.parts):
        fields["content"] = [
            {"type": "text", "text": part.text}
            if isinstance(part, Text)
            else {"type": "image_url", "image_url": {"url": image_url(part)}}
            for part in message.parts
        ]
    elif message.text or not message.tool_calls:
        fields["content"] = message.text
    signed: dict[str, dict[str, Any]] = {}
    if message.role == "assistant" and message.reasoning is not None:
        back, signed = chat_fields(message)
        fields |= back
    if message.tool_calls:
        fields["tool_calls"] = [
            merge(
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}},
                signed.get(call.id, {}),
            )
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    return fields


@dataclass(slots=True)
class StreamedCall:
    """A tool call so far: whether any of its arguments have come tells where the next call may begin."""

    id: str = ""
    name: str = ""
    begun: bool = False
    signatures: dict[str, Any] = field(default_factory=dict)


class ToolCalls:
    """Deltas of the Chat Completions API in, `ToolCallDelta` out: id and name once, arguments in pieces.

    A call is known by its `index`. Servers that send none, or 0 for every call, begin a new call
    with a new id beside a name. A call that never got an id is given one at the end, for its result
    to refer to.
    """

    def __init__(self, answer: int) -> None:
        self._answer = answer
        self._positions: dict[int, int] = {}  # the server's index → position
        self._calls: list[StreamedCall] = []

    def read(self, deltas: list[Any], out: list[Event]) -> None:
        """Take the `tool_calls` of one delta or message."""
        for delta in deltas:
            if not isinstance(delta, dict):
                continue
            function = delta.get("function")
            custom = delta.get("custom")  # a tool whose argument is a text of its own
            if isinstance(custom, dict) and not isinstance(function, dict):
                function = {"name": custom.get("name"), "arguments": custom.get("input")}
            function = function if isinstance(function, dict) else {}
            identity, name = _word(delta.get("id")), _word(function.get("name"))
            arguments = as_text(function.get("arguments"))  # some servers send the object itself
            position = self._position(delta.get("index"), identity, name)
            call = self._calls[position]
            identity, name = "" if call.id else identity, "" if call.name else name
            call.id, call.name, call.begun = call.id or identity, call.name or name, call.begun or bool(arguments)
            if len(delta) > 2:  # noqa: PLR2004 - more than a piece of its arguments
                call.signatures |= signatures(delta)
            if identity or name or arguments:
                out.append(ToolCallDelta(position, identity, name, arguments, self._answer))

    def _position(self, index: object, identity: str, name: str) -> int:
        """Return the position of the call that a delta belongs to, which may be a new one."""
        new, last = len(self._calls), self._calls[-1] if self._calls else None
        if isinstance(index, int) and not isinstance(index, bool):
            position = self._positions.get(index, new)
            if position < new and name and identity and self._calls[position].id not in ("", identity):
                position = new
            self._positions[index] = position
        elif identity:
            position = next((place for place, call in enumerate(self._calls) if call.id == identity), new)
        else:
            position = new if last is None or (name and last.begun and name != last.name) else new - 1
        if position == new:
            self._calls.append(StreamedCall())
        return position

    def __bool__(self) -> bool:
        return any(call.name or call.begun for call in self._calls)

    @property
    def signatures(self) -> dict[str, dict[str, Any]]:
        """What goes back with each call, by its id."""
        return {call.id: call.signatures for call in self._calls if call.signatures}

    def end(self, out: list[Event]) -> None:
        """Name the calls that the server left without an id."""
        for position, call in enumerate(self._calls):
            if not call.id and (call.name or call.begun):  # Snowflake sends a call of nothing beside every answer
                call.id = f"call_{position}"
                out.append(ToolCallDelta(position, call.id, "", "", self._answer))


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


class ChatReader:
    """Documents of one answer in, events out; a stream's chunk and a whole completion are read alike."""

    def __init__(self, request: Request) -> None:
        self._expected = request.parameters.n or 1
        self._model = ""
        self._thinking: dict[int, Thinking | None] = {}  # None: the text passes straight through
        self._calls: dict[int, ToolCalls] = {}
        self._beside: dict[int, Beside] = {}
        self._back: dict[int, ReasoningFields] = {}
        self._refused: set[int] = set()
        self._begun: set[int] = set()
        self._by_delta: set[int] = set()  # answers that come in deltas, though messages stand beside them
        self._finished: set[int] = set()
        self.complete = False
        self.answered = False
        self.others: set[str] = set()
        """Fields of an answer, by their names, that hold something which is no text, reasoning or call."""

    @property
    def all_finished(self) -> bool:
        """Whether each answer that has begun said why it ended, be they as many as were asked for or not."""
        return bool(self._finished) and self._begun <= self._finished

    def read(self, document: dict[str, Any], name: str, out: list[Event]) -> None:
        """Add the events of `document` to `out`; raises ErrorDocument, after adding, for an error."""
        choices = document.get("choices")
        if document.get("error") or name == "error" or (choices is None and error_in(document)):
            with suppress(AttributeError, TypeError, ValueError):  # what stands beside an error has come, too
                self._read_answer(document, choices, out)
            raise ErrorDocument(document)
        self._read_answer(document, choices, out)
        prompt_filter = document.get("prompt_filter_results")  # Azure; `choices` is empty beside it
        for result in prompt_filter if isinstance(prompt_filter, list) else ():
            if isinstance(result, dict):
                read_filter(result.get("content_filter_results"), out)
        self.answered = self.answered or choices is not None or bool(document.get("usage"))

    def _read_answer(self, document: dict[str, Any], choices: Any, out: list[Event]) -> None:
        model = document.get("model")
        if model and model != self._model and isinstance(model, str):
            self._model = model
            out.append(Identified(model))
        if choices:
            for choice in choices:
                if isinstance(choice, dict):
                    index = choice.get("index") or 0
                    self._read_choice(choice, index if type(index) is int else 0, out)
        self._beside_of(0).read_document(document, out)
        groq = document.get("x_groq")
        usage = document.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None)
        if usage:
            out.extend(read_usage(usage))
        if isinstance(groq, dict) and groq.get("error"):
            raise ErrorDocument(groq)

    def _read_choice(self, choice: dict[str, Any], index: int, out: list[Event]) -> None:
        """Add the events of one answer's part; a text that follows its end is no part of it."""
        if index not in self._finished:
            self._begun.add(index)
            self.read_part(choice, index, out)
        elif isinstance(late := choice.get("delta"), dict):
            self._beside_of(index).read({**late, "content": None, "audio": None}, out)
        if choice.get("content_filter_results"):
            read_filter(choice["content_filter_results"], out, index)
        if choice.get("error") and isinstance(choice["error"], dict | str):  # OpenRouter's error in mid-stream
            raise ErrorDocument(choice)
        reason = choice.get("finish_reason")
        if reason and index not in self._finished:  # chunks may follow it, with another reason or none
            said = str(reason).lower()
            if said in _NOT_SAID:
                return
            self._finished.add(index)
            self.complete = len(self._finished) >= self._expected
            self._end_of(index, out)
            ours = FINISH.get(said, "stop")
            out.append(Finished("refusal" if ours == "stop" and index in self._refused else ours, index))

    def read_part(self, choice: dict[str, Any], index: int, out: list[Event]) -> None:
        """Add the events of a delta, or of a whole message."""
        delta = choice.get("delta")
        if "message" in choice:  # Perplexity has both: in a stream a message that grows, in a document an empty delta
            if index in self._by_delta or (delta and says(delta)):
                self._by_delta.add(index)
            else:
                delta = choice["message"]
        if isinstance(delta, dict):
            content = delta.get("content")
            more = (
                len(delta) > 1 or not content or type(content) is not str
            )  # a delta of text alone is by far the most frequent one
            if more:
                reasoning = delta.get("reasoning_content") or delta.get("reasoning")
                if not CHAT_FIELDS.isdisjoint(delta):
                    back = self._back.setdefault(index, ReasoningFields())
                    reasoning = back.read(delta, whole=delta is not choice.get("delta")) or reasoning
                if reasoning and isinstance(reasoning, str):
                    out.append(ReasoningDelta(reasoning, index))
            if content:  # the first delta's is empty or null
                self.add_text(content if isinstance(content, str) else read_content(content, index, out), index, out)
            if more:
                refusal = delta.get("refusal")
                if refusal and isinstance(refusal, str):
                    self._refused.add(index)
                    out.append(RefusalDelta(refusal, index))
                calls, legacy = delta.get("tool_calls"), delta.get("function_call")
                calls = calls if isinstance(calls, list) else []
                if legacy and isinstance(legacy, dict) and not calls:  # some send both
                    calls = [{"index": 0, "function": legacy}]
                if calls:
                    self._calls.setdefault(index, ToolCalls(index)).read(calls, out)
                self._beside_of(index).read(delta, out)
        logprobs = choice.get("logprobs")
        if logprobs:
            read_logprobs(logprobs, index, out)

    def add_text(self, text: str, index: int, out: list[Event]) -> None:
        """Add a piece of the answer's text, which may begin with its reasoning."""
        if index not in self._thinking:
            start = text.lstrip()[:1]
            self._thinking[index] = Thinking(index) if start in ("", "<") else None
        thinking = self._thinking[index]
        if thinking is None:
            out.append(TextDelta(text, index))
        else:
            thinking.add(text, out)
            self._thinking[index] = None if thinking.settled else thinking

    def _beside_of(self, index: int) -> Beside:
        if index not in self._beside:
            self._beside[index] = Beside(index)
        return self._beside[index]

    def _end_of(self, index: int, out: list[Event]) -> None:
        """Add what was held back of one answer, which has ended."""
        for held in (self._thinking.get(index), self._calls.get(index), self._beside.get(index)):
            if held is not None:
                held.end(out)
        calls, back = self._calls.get(index), self._back.get(index, ReasoningFields())
        back.end({} if calls is None else calls.signatures, index, out, calling=bool(calls))

    def said_more(self, document: dict[str, Any]) -> bool:
        """Return whether a document that gave no text says something, and take note of it: audio, images, items."""
        more = False
        for choice in document.get("choices") or ():
            for part in (choice.get("delta"), choice.get("message")) if isinstance(choice, dict) else ():
                for name, value in part.items() if isinstance(part, dict) else ():
                    if says({name: value}):
                        more = True
                        if name not in _KNOWN:
                            self.others.add(name)
        return more

    def cut(self) -> None:
        """Take note that what was read was not whole: no answer in it has ended."""
        self.complete = False
        self._finished.clear()

    def end(self, out: list[Event], *, whole: bool) -> None:
        """Add what was held back; an answer that is `whole` without saying why it ended, has stopped."""
        for beside in self._beside.values():
            beside.end(out)
        for index in sorted(self._begun - self._finished):
            self._end_of(index, out)
            if whole:
                self._finished.add(index)
                ours: FinishReason = "refusal" if index in self._refused else "stop"
                out.append(Finished("tool_calls" if self._calls.get(index) else ours, index))


_KNOWN = CHAT_FIELDS | {"content", "thinking", "tool_calls", "function_call", "refusal", "role"}
"""Fields of a delta that are read as text, reasoning and calls."""


def read_content(content: object, index: int, out: list[Event]) -> str:
    """Return the text of a content that is none: of a list of parts theirs, of other lists and objects their JSON.

    Reasoning parts go to `out`.

    >>> read_content({"a": 1}, 0, []), read_content([{"type": "text", "text": "b"}, {"type": "reference"}], 0, [])
    ('{"a": 1}', 'b')
    """
    if not isinstance(content, list) or not all(
        isinstance(part, str) or (isinstance(part, dict) and isinstance(part.get("type"), str)) for part in content
    ):
        if isinstance(content, dict) and content.get("type") == "text" and isinstance(content.get("text"), str):
            return str(content["text"])
        return as_text(content)  # Cloudflare's JSON mode
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif part.get("thinking"):
            thought = part["thinking"]
            text = thought if isinstance(thought, str) else read_content(thought, index, out)
            out.append(ReasoningDelta(text, index))
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
    return "".join(texts)
