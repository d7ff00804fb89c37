"""The Responses API: a request as its body, its documents and stream events as ours.

Source of the fields: https://platform.openai.com/docs/api-reference/responses and …/responses-streaming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from llm_magic.capabilities import Capabilities
from llm_magic.events import (
    Event,
    Finished,
    FinishReason,
    Identified,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from llm_magic.messages import Image, Message, Text
from llm_magic.request import Request
from llm_magic.wire.citations import Citations
from llm_magic.wire.documents import (
    ErrorDocument,
    as_text,
    count,
    error_in,
    image_url,
    merge,
    options,
    read_filter,
    read_logprobs,
    read_usage,
    says,
)
from llm_magic.wire.items import Items
from llm_magic.wire.reasoning import Thinking, answer_items, marked_items

PATH = "/responses"
_SAYS_NOTHING = frozenset({"keepalive", "ping", "response.in_progress", "response.queued"})
"""Events of a server that is alive."""

_INCOMPLETE: dict[object, FinishReason] = {"max_output_tokens": "length", "content_filter": "content_filter"}


def body(request: Request, capabilities: Capabilities) -> dict[str, Any]:
    """Return the JSON body of `request`; raises UnsupportedError for what the API has not."""
    chosen = options(request, capabilities, "responses")
    instructions = "\n\n".join(message.text for message in request.messages if message.role == "system")
    fields: dict[str, Any] = {"model": request.model}
    if instructions:
        fields["instructions"] = instructions
    fields["input"] = [item for message in request.messages if message.role != "system" for item in _items(message)]
    if capabilities.store is not None:
        fields["store"] = capabilities.store
    fields |= chosen
    extra = dict(request.parameters.extra)
    wanted = [_ENCRYPTED] if capabilities.encrypted_reasoning else []
    if (wanted or "include" in fields) and isinstance(extra.get("include", []), list):
        fields["include"] = list(dict.fromkeys([*fields.get("include", []), *extra.pop("include", []), *wanted]))
    if request.tools:
        fields["tools"] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
                "strict": tool.strict and capabilities.strict_tools,  # left out it means true here
            }
            for tool in request.tools
        ]
        if request.tool_choice in ("auto", "none", "required"):
            fields["tool_choice"] = request.tool_choice
        elif request.tool_choice:
            fields["tool_choice"] = {"type": "function", "name": request.tool_choice}
    return merge(fields, request.structure, extra)


_ENCRYPTED = "reasoning.encrypted_content"


def _items(message: Message) -> list[dict[str, Any]]:
    """Return a message as items of the input: a tool's result and each tool call are items of their own."""
    has_images = any(isinstance(part, Image) for part in message.parts)
    if message.role == "tool":
        output = _content(message) if has_images else message.text
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": output}]
    calls: list[dict[str, Any]] = [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
    if message.role == "assistant" and not has_images:
        return list(answer_items(message, calls))
    return [{"role": message.role, "content": _content(message) if has_images else message.text}, *calls]


def _content(message: Message) -> list[dict[str, Any]]:
    """Return the text and the images of a message."""
    return [
        {"type": "input_text", "text": part.text}
        if isinstance(part, Text)
        else {"type": "input_image", "image_url": image_url(part), "detail": "auto"}
        for part in message.parts
    ]


def _key(document: dict[str, Any]) -> object:
    """Return what names the item that an event is about."""
    return document.get("output_index", document.get("item_id"))


def _parts(content: object) -> list[dict[str, Any]]:
    """Return the parts of an item's content, which some servers send as a text."""
    if isinstance(content, str):
        return [{"text": content}]
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _said_of_reasoning(items: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Return how much items say: their number, and how many of them are encrypted."""
    encrypted = [bool(item.get("encrypted_content")) for item in items]
    return len(encrypted), sum(encrypted)


class ResponsesReader:
    """Stream events or one document in, our events out: dispatch by the event's type, in a table."""

    def __init__(self, request: Request) -> None:
        self._cap = request.parameters.max_tokens
        self._model = ""
        self._thinking = Thinking(0)
        self._citations = Citations()
        self._items = Items()
        self._positions: dict[object, int] = {}  # of function calls, by output index or item id
        self._written: set[int] = set()  # positions whose arguments came in pieces
        self._texts: set[object] = set()  # parts whose text came in pieces
        self._summary: object = None
        self._thought: set[object] = set()  # reasoning items whose text came
        self._done: dict[object, Any] = {}  # whole items, by output index or item id
        self._refused = False
        self._seen: set[tuple[object, ...]] = set()  # what events without a delta were about
        self.complete = False
        self.answered = False
        self.others: set[str] = set()
        """Types of output items that are no text, reasoning or call."""
        self.status = ""
        """That of the response, where it is one that has no answer yet."""

    @property
    def all_finished(self) -> bool:
        """Whether the response said that it ended."""
        return self.complete

    def read(self, document: dict[str, Any], name: str, out: list[Event]) -> None:
        """Add the events of `document` to `out`; raises ErrorDocument, after adding, for an error."""
        if self.complete:
            return
        kind = document.get("type") or name
        if kind in ("error", "response.error") or (not kind and error_in(document)):
            raise ErrorDocument(document)
        if kind == "response.output_text.delta":  # by far the most frequent one
            self._text(document, out)
            return
        reader = self._READERS.get(kind)
        if reader is not None:
            self.answered = True
            reader(self, document, out)
        elif document.get("object") == "response" or "output" in document:
            self._whole(document, out)
        elif not kind:
            raise ErrorDocument(document, malformed=not error_in(document))

    def _text(self, document: dict[str, Any], out: list[Event]) -> None:
        self.answered = True
        part = (document.get("output_index"), document.get("content_index"))
        self._texts.add(part)
        delta = document.get("delta")
        if delta and isinstance(delta, str):
            self._citations.text(part, len(delta))
            if self._thinking.settled:
                out.append(TextDelta(delta))
            else:
                self._thinking.add(delta, out)
        read_logprobs({"content": document.get("logprobs")}, 0, out)

    def _text_done(self, document: dict[str, Any], out: list[Event]) -> None:
        if (document.get("output_index"), document.get("content_index")) not in self._texts:
            self._text({**document, "delta": document.get("text")}, out)

    def _refusal(self, document: dict[str, Any], out: list[Event]) -> None:
        self._refused = True
        if delta := as_text(document.get("delta")):
            out.append(RefusalDelta(delta))

    def _reasoning(self, document: dict[str, Any], out: list[Event]) -> None:
        part = (document.get("output_index"), document.get("summary_index"), document.get("content_index"))
        gap = "\n\n" if self._summary not in (None, part) else ""
        self._summary = part
        self._thought.add(document.get("output_index"))
        if delta := as_text(document.get("delta")):
            out.append(ReasoningDelta(gap + delta))

    def _thoughts(self, key: object, item: dict[str, Any], out: list[Event]) -> None:
        """Take the text of a whole reasoning item, unless it came in pieces."""
        if key in self._thought or None in self._thought:
            return
        for place, part in enumerate([*_parts(item.get("summary")), *_parts(item.get("content"))]):
            self._reasoning({"delta": part.get("text"), "output_index": key, "content_index": place}, out)

    def _item_done(self, document: dict[str, Any], out: list[Event]) -> None:
        self._item(document, out)
        item = document.get("item")
        if isinstance(item, dict):
            self._done[document.get("output_index", item.get("id", len(self._done)))] = item
            if item.get("type") == "reasoning" and "output_index" in document:
                self._thoughts(document["output_index"], item, out)

    def _return(self, output: object, out: list[Event]) -> None:
        """Add what goes back: of the items as they were streamed, or of the output where that says more of them."""
        outputs = [list(self._done.values()), output if isinstance(output, list) else []]
        out.extend(map(ReasoningItem, max(map(marked_items, outputs), key=_said_of_reasoning)))

    def _item(self, document: dict[str, Any], out: list[Event]) -> None:
        item = document.get("item") or {}
        if item.get("type") == "function_call":
            self._call(document.get("output_index", item.get("id")), item, out)
        else:
            self._note_item(item)
            self._beside(document.get("output_index"), item, out)

    def _beside(self, number: object, item: object, out: list[Event]) -> None:
        """Take what an output item holds beside text, reasoning and calls of ours."""
        if not isinstance(item, dict):
            return
        if item.get("type") == "message":
            content = item.get("content")
            for place, part in enumerate(content if isinstance(content, list) else ()):
                self._part((number, place), part, out)
        elif item.get("type") not in ("reasoning", "function_call"):
            self._items.item(item, out, item.get("id"), number)

    def _part(self, place: tuple[object, object], part: object, out: list[Event]) -> None:
        """Take the citations of a part of a message, or the part itself where it is no text."""
        if not isinstance(part, dict):
            return
        found = part.get("annotations")
        for rest, other in enumerate(self._citations.add_all(found, out, self._citations.begin(place))):
            self._items.item(other, out, f"{place} {rest}")
        if not isinstance(part.get("text"), str) and part.get("type") != "refusal" and says(part):
            self._items.item(part, out, f"{place}")

    def _part_done(self, document: dict[str, Any], out: list[Event]) -> None:
        self._part((document.get("output_index"), document.get("content_index")), document.get("part"), out)

    def _annotation(self, document: dict[str, Any], out: list[Event]) -> None:
        place = (document.get("output_index"), document.get("content_index"))
        for other in self._citations.add_all(document.get("annotation"), out, self._citations.begin(place)):
            self._items.item(other, out, f"{place} {document.get('annotation_index')}")

    def _note_item(self, item: dict[str, Any]) -> None:
        kind = item.get("type")
        if isinstance(kind, str) and kind not in ("message", "reasoning", "function_call"):
            self.others.add(kind)

    def _arguments_done(self, document: dict[str, Any], out: list[Event]) -> None:
        self._call(_key(document), {**document, "id": document.get("item_id")}, out)

    def _arguments(self, document: dict[str, Any], out: list[Event]) -> None:
        if _key(document) not in self._positions:  # the item was never announced
            self._arguments_done({**document, "call_id": None, "arguments": ""}, out)
        if delta := as_text(document.get("delta")):
            position = self._positions[_key(document)]
            self._written.add(position)
            out.append(ToolCallDelta(position, "", "", delta))

    def _call(self, key: object, item: dict[str, Any], out: list[Event]) -> None:
        """Take a function call as an item: at its beginning, at its end, or both."""
        arguments = as_text(item.get("arguments"))
        known = key in self._positions
        position = self._positions.setdefault(key, len(self._positions))
        if not known:
            identity = as_text(item.get("call_id")) or as_text(item.get("id")) or f"call_{position}"
            out.append(ToolCallDelta(position, identity, as_text(item.get("name")), arguments))
        elif arguments and position not in self._written:
            out.append(ToolCallDelta(position, "", "", arguments))
        if arguments:
            self._written.add(position)

    def _identify(self, document: dict[str, Any], out: list[Event]) -> None:
        model = (document.get("response") or document).get("model")
        if model and model != self._model and isinstance(model, str):
            self._model = model
            out.append(Identified(model))

    def _whole(self, document: dict[str, Any], out: list[Event]) -> None:
        """Take the whole response: what no delta brought, the usage, and why it ended."""
        self._identify(document, out)
        response = document.get("response") or document
        if response.get("error") or response.get("status") == "failed":
            raise ErrorDocument(response)
        self.answered = True
        said = bool(self._texts) or self._refused
        output = response.get("output")
        for key, item in enumerate(output) if output else list(self._done.items()):
            self._output(key, item, out, said)
        if says(moderated := response.get("moderation")):
            self._items.item({"type": "moderation", "moderation": moderated}, out, "moderation")
        self._thinking.end(out)
        self._return(output, out)
        usage = response.get("usage")
        out.extend(read_usage(usage))
        for result in response.get("content_filters") or []:  # Azure
            read_filter(result.get("content_filter_results"), out)
        self.complete = True
        out.append(Finished(self._reason(response, usage)))

    def _output(self, number: object, item: dict[str, Any], out: list[Event], said: bool) -> None:
        """Take an item of the whole response; `said`: the text came in pieces before."""
        kind = item.get("type")
        self._note_item(item)
        if kind == "function_call":
            if item.get("id") not in self._positions:
                self._call(number, item, out)
        elif kind == "reasoning":
            self._thoughts(number, item, out)
        elif kind == "message" and not said:
            for place, part in enumerate(_parts(item.get("content"))):
                if part.get("type") == "refusal":
                    self._refusal({"delta": part.get("refusal")}, out)
                else:
                    text = as_text(part.get("text"))
                    self._citations.text((number, place), len(text))
                    self._thinking.add(text, out)
                    read_logprobs({"content": part.get("logprobs")}, 0, out)
        self._beside(number, item, out)

    def _reason(self, response: dict[str, Any], usage: object) -> FinishReason:
        status = response.get("status")
        if status == "incomplete":
            why = (response.get("incomplete_details") or {}).get("reason")
            return _INCOMPLETE.get(why, "truncated")
        if status in ("cancelled", "in_progress", "queued"):
            self.status = status
            return "truncated"
        if self._cap and (count(usage, "output_tokens") or 0) >= self._cap + ("incomplete_details" in response):
            return "length"  # llama.cpp, also behind a proxy, calls that completed
        if self._positions:
            return "tool_calls"
        return "refusal" if self._refused else "stop"

    def said_more(self, document: dict[str, Any]) -> bool:
        """Return whether an event that gave no text says something: a delta that is not empty, or something new."""
        if "delta" in document:
            return says(document["delta"])
        if document.get("type") in _SAYS_NOTHING:
            return False
        about = tuple(str(document.get(name)) for name in ("type", "output_index", "item_id", "content_index"))
        new = about not in self._seen
        self._seen.add(about)
        return new

    def cut(self) -> None:
        """Take note that what was read was not whole."""
        self.complete = False

    def end(self, out: list[Event], *, whole: bool) -> None:
        """Add what was held back; a response that is `whole` without saying so has stopped."""
        self._thinking.end(out)
        if whole and not self.complete and self.answered:
            self.complete = True
            self._return(None, out)
            out.append(Finished("tool_calls" if self._positions else "refusal" if self._refused else "stop"))

    _READERS: ClassVar[dict[object, Callable[[ResponsesReader, dict[str, Any], list[Event]], None]]] = {
        "response.created": _identify,
        "response.in_progress": _identify,
        "response.output_text.done": _text_done,
        "response.output_text.annotation.added": _annotation,
        "response.content_part.done": _part_done,
        "response.refusal.delta": _refusal,
        "response.reasoning_text.delta": _reasoning,
        "response.reasoning.delta": _reasoning,
        "response.reasoning_summary_text.delta": _reasoning,
        "response.output_item.added": _item,
        "response.output_item.done": _item_done,
        "response.function_call_arguments.delta": _arguments,
        "response.function_call_arguments.done": _arguments_done,
        "response.completed": _whole,
        "response.incomplete": _whole,
        "response.failed": _whole,
        "response.cancelled": _whole,
    }
