"""Reasoning on the wire: `<think>…</think>` in a text, and what goes back to the server with the answer.

What goes back is written by the same functions that read it, field by field: whatever a file of conversations holds,
no other field of a request comes of it. `<think>` in the text itself is not sent back: templates of chat drop it, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_magic.events import Event, ReasoningDelta, ReasoningItem, TextDelta
from llm_magic.messages import Message
from llm_magic.text_buffer import whole

_OPEN, _CLOSE = "<think>", "</think>"


class Thinking:
    r"""The text of one answer, parted into reasoning and answer.

    `settled` is true once nothing but text can follow: the caller may then pass by. White space
    around the tags belongs to them, so that the answer is the answer alone.

    >>> thinking, events = Thinking(0), []
    >>> for piece in ("<thi", "nk>\nhm</th", "ink>\n\nParis", " it is"): thinking.add(piece, events)
    >>> events
    [ReasoningDelta(text='hm', index=0), TextDelta(text='Paris', index=0), TextDelta(text=' it is', index=0)]
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._held = ""
        self._opened = self._closed = self._said = False
        self.settled = False

    def add(self, text: str, out: list[Event]) -> None:
        """Take the next piece of content."""
        if self.settled:
            out.append(TextDelta(text, self._index))
            return
        held = self._held + text
        if not self._opened:
            start = held.lstrip()
            self._opened = start.startswith(_OPEN)
            self.settled = not _OPEN.startswith(start) and not self._opened
            held = start[len(_OPEN) :] if self._opened else held
        if self._opened and not self._closed:
            held = self._reason(held, out)
        if self._closed:
            held = held.lstrip()
            self.settled = bool(held)
        if self.settled:
            out.append(TextDelta(held, self._index))
        self._held = "" if self.settled else held

    def _reason(self, held: str, out: list[Event]) -> str:
        """Give out the reasoning; return what may belong to the closing tag, or stands after it."""
        thought, closed, rest = held.partition(_CLOSE)
        self._closed = bool(closed)
        if not closed:
            cut = next((size for size in range(len(_CLOSE) - 1, 0, -1) if held.endswith(_CLOSE[:size])), 0)
            thought = held[: len(held) - cut]
            rest = held[len(thought.rstrip()) :]  # white space may stand before the closing tag
        thought = thought.rstrip() if self._said else thought.strip()
        if thought:
            self._said = True
            out.append(ReasoningDelta(thought, self._index))
        return rest

    def end(self, out: list[Event]) -> None:
        """Give out what was held back: the answer ended here."""
        inside = self._opened and not self._closed
        if self._held.strip() if inside else self._held:
            out.append((ReasoningDelta if inside else TextDelta)(self._held, self._index))
        self._held, self.settled = "", True


# Chat: fields of a message, and of its calls

_TEXTS = ("reasoning_content", "reasoning")
_LISTS = ("reasoning_details", "thinking_blocks")
_GROWING = ("text", "summary", "thinking", "data", "signature")
"""Texts of one part that a stream sends in pieces."""
_ONCE = frozenset({"data", "signature"})
"""Of these, what some servers send again as a whole."""
_SIGNATURES = frozenset({"thought_signature", "extra_content", "provider_specific_fields"})
CHAT_FIELDS = _SIGNATURES.union(_TEXTS, _LISTS)
"""Fields of a delta or message of the Chat Completions API that go back as they came."""


def signatures(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the signatures of thoughts in a message or call: of Gemini, as Google's endpoint and LiteLLM write them.

    >>> signatures({"id": "c", "extra_content": {"google": {"thought_signature": "Ab+=", "other": 1}}})
    {'extra_content': {'google': {'thought_signature': 'Ab+='}}}
    """
    found: dict[str, Any] = {}
    if _said(document.get("thought_signature")):
        found["thought_signature"] = document["thought_signature"]
    extra = document.get("extra_content")
    google = extra.get("google") if isinstance(extra, Mapping) else None
    if isinstance(google, Mapping) and _said(google.get("thought_signature")):
        found["extra_content"] = {"google": {"thought_signature": google["thought_signature"]}}
    fields = document.get("provider_specific_fields")
    if isinstance(fields, Mapping):
        one, several = fields.get("thought_signature"), fields.get("thought_signatures")
        kept: dict[str, Any] = {"thought_signature": one} if _said(one) else {}
        if isinstance(several, list) and several and all(map(_said, several)):
            kept["thought_signatures"] = list(several)
        if kept:
            found["provider_specific_fields"] = kept
    function = document.get("function")
    if isinstance(function, Mapping) and (inner := signatures({**function, "function": None})):
        found["function"] = inner
    return found


def _said(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _parts(value: object) -> list[dict[str, Any]]:
    """Return the parts in a list of reasoning, each of texts and numbers; what is none is left out."""
    parts = value if isinstance(value, list) else ()
    return [
        {name: inner for name, inner in part.items() if not isinstance(inner, dict | list)}
        for part in parts
        if isinstance(part, Mapping) and isinstance(part.get("type"), str)
    ]


class PartsInPieces:
    """Parts of reasoning, each joined from what a stream sends of it: pieces of one have its type and index.

    Where parts have no index, a piece goes on with the last one, unless that is of another type or signed: a signature
    ends what it signs.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[dict[str, Any], dict[str, list[str]]]] = []  # fields, and texts in pieces
        self._places: dict[tuple[str, str], int] = {}  # by type and index

    def add(self, piece: dict[str, Any], *, whole: bool) -> None:
        """Take a piece, or a part that is `whole`."""
        index = piece.get("index")
        key = (piece["type"], "" if index is None else str(index))
        place = self._places.get(key, -1)
        if whole or place < 0 or not self._goes_on(place, piece):
            self._places[key] = len(self._parts)
            self._parts.append(({}, {}))
            place = -1
        fields, texts = self._parts[place]
        for name, value in piece.items():
            if name in _GROWING and isinstance(value, str):
                pieces = texts.setdefault(name, [])
                if name not in _ONCE or pieces != [value]:
                    pieces.append(value)
            if value is not None or name not in fields:
                fields[name] = value

    def _goes_on(self, place: int, piece: Mapping[str, Any]) -> bool:
        before, texts = self._parts[place]
        if None not in (before.get("id"), piece.get("id")) and before["id"] != piece["id"]:
            return False
        is_last = place == len(self._parts) - 1
        return piece.get("index") is not None or (
            is_last and "data" not in piece and not any(texts.get("signature", ()))
        )

    def joined(self) -> list[dict[str, Any]]:
        """Return the parts."""
        return [
            fields | {name: whole("".join(pieces)) for name, pieces in texts.items()} for fields, texts in self._parts
        ]


class ReasoningFields:
    """The fields of one answer of the Chat Completions API that go back, joined from the pieces of a stream.

    >>> fields = ReasoningFields()
    >>> fields.read({"reasoning_details": [{"type": "reasoning.text", "text": "Hm", "index": 0}]}, whole=False)
    'Hm'
    >>> fields.read({"reasoning_details": [{"type": "reasoning.text", "signature": "x", "index": 0}]}, whole=False)
    ''
    >>> fields.joined()
    {'reasoning_details': [{'type': 'reasoning.text', 'text': 'Hm', 'index': 0, 'signature': 'x'}]}
    """

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._lists: dict[str, PartsInPieces] = {}
        self._signatures: dict[str, Any] = {}

    def read(self, delta: Mapping[str, Any], *, whole: bool) -> str:
        """Take a delta, or a `whole` message, whose parts are not pieces of one another.

        Returns the text of its parts, where no text of reasoning came beside them.
        """
        said: list[str] = []
        for name in _TEXTS:
            if isinstance(delta.get(name), str):
                pieces = self._texts.setdefault(name, [])
                if delta[name]:
                    pieces.append(delta[name])
        for name in _LISTS:
            for part in _parts(delta.get(name)):
                self._lists.setdefault(name, PartsInPieces()).add(part, whole=whole)
                said += [part[kind] for kind in ("text", "summary", "thinking") if _said(part.get(kind))]
        self._signatures |= signatures({**delta, "function": None})
        return "" if any(self._texts.values()) else ("\n\n" if whole else "").join(said)

    def joined(self) -> dict[str, Any]:
        """Return the fields."""
        texts = {name: whole("".join(pieces)) for name, pieces in self._texts.items()}
        return {**texts, **{name: parts.joined() for name, parts in self._lists.items()}, **self._signatures}

    def end(self, calls: Mapping[str, dict[str, Any]], index: int, out: list[Event], *, calling: bool) -> None:
        """Add what goes back, with the signatures of calls by their ids.

        A text that came and is empty goes back where tools are called: DeepSeek demands the field there.
        """
        fields = self.joined()
        if not calling:
            fields = {name: value for name, value in fields.items() if value}
        if calls:
            fields["tool_calls"] = dict(calls)
        if fields:
            out.append(ReasoningItem(fields, index))


def chat_fields(message: Message) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the fields that go back on a message of the Chat Completions API, and those of its calls by their ids."""
    fields: dict[str, Any] = {}
    calls: dict[str, dict[str, Any]] = {}
    for item in message.reasoning.items if message.reasoning is not None else ():
        if "type" in item:  # of the Responses API
            continue
        fields |= {name: item[name] for name in _TEXTS if isinstance(item.get(name), str)}
        fields |= {name: parts for name in _LISTS if (parts := _parts(item.get(name)))}
        fields |= signatures({**item, "function": None})
        of_calls = item.get("tool_calls")
        for identity, found in of_calls.items() if isinstance(of_calls, Mapping) else ():
            if isinstance(found, Mapping) and (kept := signatures(found)):
                calls[identity] = kept
    return fields, calls


# Responses: items among the others of an answer


def marked_items(output: list[Any]) -> list[Mapping[str, Any]]:
    """Return the reasoning items of an output, and marks where messages and calls stood between them.

    A message's mark has the characters of its text, and its `phase` where it has one. None are returned where neither
    reasoning nor a phase came.
    """
    items = [item for item in output if isinstance(item, dict)]
    if not any(item.get("type") == "reasoning" or _phase(item) for item in items):
        return []
    marked: list[Mapping[str, Any]] = []
    for item in items:
        kind = item.get("type")
        if kind == "reasoning":
            lists = {name: _parts(value) for name, value in item.items() if isinstance(value, list)}
            marked.append({name: value for name, value in item.items() if not isinstance(value, dict)} | lists)
        elif kind == "function_call":
            marked.append({"type": kind})
        elif kind == "message":
            content = item.get("content")
            parts = content if isinstance(content, list) else ()
            texts = [part.get("text") for part in parts if isinstance(part, dict)]
            length = sum(len(text) for text in texts if isinstance(text, str))
            marked.append({"type": kind, "length": length, **_phase(item)})
    return marked


def reasoning_item(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a reasoning item as it goes back; None where the server could make nothing of it.

    Without its id: what is not stored there (`store: false`) is not found by it, and Azure refuses it. A summary alone
    is no reasoning.
    """
    back: dict[str, Any] = {"type": "reasoning", "summary": _parts(item.get("summary"))}
    if content := _parts(item.get("content")):
        back["content"] = content
    if _said(item.get("encrypted_content")):
        back["encrypted_content"] = item["encrypted_content"]
    return back if len(back) > 2 else None  # noqa: PLR2004 - more than its type and summary


def answer_items(message: Message, calls: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what a model said as items of an input: reasoning, texts and `calls`, in the order in which they came."""
    marks = message.reasoning.items if message.reasoning is not None else ()
    texts = _divided(message.text, [mark for mark in marks if mark.get("type") == "message"])
    if not texts and not calls:
        texts = [_text_item("")]
    waiting, texts = iter(calls), texts[::-1]
    for mark in marks:
        kind = mark.get("type")
        back = reasoning_item(mark) if kind == "reasoning" else None
        if kind == "message" and texts:
            back = texts.pop()
        elif kind == "function_call":
            back = next(waiting, None)
        if back is not None:
            yield back
    yield from filter(None, reversed(texts))
    yield from waiting


def _divided(text: str, marks: list[Mapping[str, Any]]) -> list[dict[str, Any] | None]:
    """Return a text as the messages that it came in, None for an empty one; one, where no mark says how to divide."""
    lengths: list[Any] = [mark.get("length") for mark in marks]
    told = all(isinstance(length, int) and length >= 0 for length in lengths)
    if len(marks) < 2 or not told or sum(lengths) != len(text):  # noqa: PLR2004 - one needs no division
        return [_text_item(text, marks[-1] if marks else {})] if text else []
    items: list[dict[str, Any] | None] = []
    begin = 0
    for mark in marks:
        end = begin + mark["length"]
        items.append(_text_item(text[begin:end], mark) if end > begin else None)
        begin = end
    return items


_PHASES = frozenset({"commentary", "final_answer"})


def _text_item(text: str, mark: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a text as a message of the model: written out, as llama.cpp takes no other form of it."""
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return item | _phase({"type": "message"} | dict(mark or {}))


def _phase(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the phase of a message, whose model wants it back; as a field, or none."""
    phase = item.get("phase") if item.get("type") == "message" else None
    return {"phase": phase} if isinstance(phase, str) and phase in _PHASES else {}
