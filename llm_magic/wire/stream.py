"""Server-sent events from bytes, by the WHATWG specification: how the bytes were split never changes the events.

Everything is done on bytes, so that a character split between two reads is never seen in halves,
and with `bytes.split`, so that it is fast. Carriage returns, alone or before a line feed, are made
line feeds first.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pydantic_core import from_json

from llm_magic.capabilities import Api
from llm_magic.events import (
    Event,
    FilterReport,
    Finished,
    FinishReason,
    ImageReceived,
    ItemReceived,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from llm_magic.request import Request
from llm_magic.wire import chat, completions, responses
from llm_magic.wire.connection import LARGEST, STRIDE
from llm_magic.wire.documents import ErrorDocument, parse, parse_or_text, partial

_BOM = b"\xef\xbb\xbf"

ServerEvent = tuple[bytes, bytes]
"""The `event:` name (empty where none was given) and the data, its lines joined by line feeds."""


_BEGINNING = 200
"""Bytes of an answer's beginning that are kept, to say what came where it is none."""


class EventTooLargeError(ValueError):
    """One event is larger than `LARGEST`."""


class Decoder:
    r"""Bytes in, whole events out.

    Comments, `id:` and `retry:` are passed over; an event without any `data:` line is dropped, as
    the specification has it, and one whose data is empty is handed on with empty data.

    >>> decoder = Decoder()
    >>> decoder.feed(b": hello\n\nevent: a\ndata: 1\nda"), decoder.feed(b"ta: 2\n\n")
    ([], [(b'a', b'1\n2')])
    >>> decoder.feed(b"data: last"), decoder.close()
    ([], [(b'', b'last')])
    """

    def __init__(self) -> None:
        self._tail: list[bytes] = []  # bytes after the last whole block
        self._size = 0
        self._begun = False
        self._after_cr = False

    @property
    def held(self) -> int:
        """Bytes of the event that is not whole."""
        return self._size

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that `data` completes."""
        if not self._begun:
            data = b"".join((*self._tail, data))
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._tail = [data]
                return []
            self._tail, self._begun = [], True
            data = data.removeprefix(_BOM)
        if self._after_cr and data:
            data, self._after_cr = data.removeprefix(b"\n"), False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._tail and b"\n\n" not in data and not (data[:1] == b"\n" and self._tail[-1][-1:] == b"\n"):
            if data:  # joined only when a block ends: a long event costs no more than its length
                self._tail.append(data)
                self._size += len(data)
                if self._size > LARGEST:
                    raise EventTooLargeError
            return []
        whole = b"".join((*self._tail, data)) if self._tail else data
        cut = whole.rfind(b"\n\n") + 2
        rest = whole[cut:] if cut > 1 else whole
        self._tail, self._size = ([rest] if rest else []), len(rest)
        return _events(whole[: cut - 2]) if cut > 1 else []

    def close(self) -> list[ServerEvent]:
        """Return the event that was not ended by a blank line, if there is one.

        The specification drops it; here it is handed on, for a server that forgets the last blank
        line.
        """
        rest = b"".join(self._tail) if self._begun else b""  # not a piece of a byte order mark
        self._tail, self._size = [], 0
        return _events(rest)


def _events(blocks: bytes) -> list[ServerEvent]:
    """Return the events of whole blocks, parted by blank lines."""
    if blocks[:6] == b"data: ":
        lines = blocks[6:].split(b"\n\ndata: ")
        if blocks.count(b"\n") == 2 * (len(lines) - 1):  # nothing but events of one line, as nearly always
            return [(b"", line) for line in lines]
    return [event for block in blocks.split(b"\n\n") if (event := _event(block)) is not None]


def _event(block: bytes) -> ServerEvent | None:
    name, data = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif field == b"error" and value:  # GPUStack's
            return b"error", value
    return (name, b"\n".join(data)) if data else None


_FIELDS = (b":", b"data", b"event", b"id", b"retry", b"error")
_PINGS = frozenset({b"ping", b"pong", b"keep-alive", b"keepalive", b"heartbeat"})


READERS: dict[Api, Any] = {
    "chat": chat.ChatReader,
    "responses": responses.ResponsesReader,
    "completions": completions.CompletionsReader,
}


_SAID: frozenset[type] = frozenset({TextDelta, RefusalDelta, ToolCallDelta, ImageReceived, ItemReceived})
"""Events that are an answer."""

_SHOWN = _SAID | {ReasoningDelta}
"""Events that are seen."""

_REPEATED: frozenset[type] = frozenset({UsageReport, FilterReport})
"""Events that a server may send again and again without saying anything new."""


class Answer:
    """Bytes in, events out.

    Whether they are a stream or one JSON document is told from the first byte, not from what was
    asked for or from the content type: servers ignore `stream`, and proxies rewrite the header.

    `fault` is set when something came that ends the answer: an error of the server, or no answer at
    all. The events before it have been returned by then. `done` is true after the end mark of the
    stream, `whole` once nothing is missing: after an end mark, a finish reason of each answer, or a
    whole document.
    """

    def __init__(self, api: Api, request: Request) -> None:
        self.reader: chat.ChatReader | responses.ResponsesReader = READERS[api](request)
        """Knows whether anything was `answered`, and whether every answer asked for is `complete`."""
        self._ends_itself = api == "responses"  # its last event is the end mark, others follow with [DONE]
        self._decoder: Decoder | None = None  # once it is known to be a stream
        self._is_document = False  # once that is known
        self._held: list[bytes] = []  # of a document, or while neither is known
        self._size = 0  # of what is held
        self._pending = 0  # bytes of an event or document that is not whole
        self._last_report: Event | None = None
        self.fault: ErrorDocument | None = None
        self.done = False
        self.whole = False
        self.first = b""
        """How it began."""
        self.events = 0
        """Server-sent events that came."""
        self.progress = 0
        """Counts what says something: not comments, not empty deltas, not single bytes."""
        self.shown = False
        """Whether anything came that is seen: a text, reasoning, a refusal, a tool call."""
        self.said = False
        """Whether anything but reasoning did."""
        self.during = ""
        """What came last, in words."""
        self.reasons: list[FinishReason] = []
        """Why answers ended that said nothing."""
        self.usage: Usage | None = None
        """What was counted for them."""

    @property
    def is_foreign(self) -> bool:
        """Whether it began as no server-sent event begins."""
        return bool(self.first) and not self.first.removeprefix(_BOM).startswith(_FIELDS)

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes."""
        out: list[Event] = []
        if self.fault is not None or self.done:
            return out
        if len(self.first) < _BEGINNING:
            self.first += (data if self.first else data.lstrip())[: _BEGINNING - len(self.first)]
        decoder = self._decoder or self._sniff(data)
        if decoder is None:
            return out
        if self._held:
            data, self._held = b"".join(self._held), []
        try:
            events = decoder.feed(data)
            if events:
                self._pending = 0
                self._read(events, out)
            else:
                self._wait_for_more(decoder.held)
        except ErrorDocument as error:
            self.fault = error
        except EventTooLargeError:
            self.fault = ErrorDocument(f"an event of more than {LARGEST >> 20} MiB", malformed=True)
        if out:
            self._note(out)
        return out

    def close(self, *, lost: bool = False) -> list[Event]:
        """Return the last events, the bytes having ended: well, or with a `lost` connection."""
        out: list[Event] = []
        if self.fault is not None:
            return out
        try:
            if self._decoder is not None and not self.done:
                self._read(self._decoder.close(), out, cut=True)
            elif document := b"".join(self._held).removeprefix(_BOM).strip():
                self._close_document(document, out)
        except ErrorDocument as error:
            self.fault = error
        self.whole = self.whole or self.done or (self.reader.complete if lost else self.reader.all_finished)
        self.reader.end(out, whole=self.whole)
        if self.whole and out:
            self._note(out)
        elif out:  # was not shown, and is not before it is known that it will not be asked for again
            self.during = _words_for(out) or self.during
        return out

    def _close_document(self, data: bytes, out: list[Event]) -> None:
        document: Any = None
        try:
            document, cut = from_json(data), None
        except ValueError:
            cut = partial(data)
        if cut is None:
            if type(document) is dict:  # read once: of many small documents that is half of the time
                self.events += 1
                self._read_document(document, b"", out)
                self.done = self.done or (self._ends_itself and self.reader.complete)
            else:
                self._read([(b"", data)], out)
            if not self.reader.answered:
                raise ErrorDocument(parse_or_text(data), malformed=True)
            self.whole = True
            return
        self.events += 1
        with suppress(ErrorDocument, ValueError, AttributeError, TypeError, KeyError, IndexError):
            self.reader.read(cut, "", out)  # nothing that was received is thrown away
        self.reader.cut()
        out[:] = [event for event in out if type(event) is not Finished]  # its reason may stand before its text

    def _note(self, out: list[Event]) -> None:
        """Take note of what the events say, all together."""
        if type(out[-1]) in _SHOWN or any(self._is_new(event) for event in out):
            self.progress += 1
        self.during = _words_for(out) or self.during
        if not self.said:
            kinds = {type(event) for event in out}
            self.said = not kinds.isdisjoint(_SAID)
            self.shown = self.shown or not kinds.isdisjoint(_SHOWN)
            self.reasons += [event.reason for event in out if isinstance(event, Finished)]
            self.usage = next((event.usage for event in reversed(out) if isinstance(event, UsageReport)), self.usage)

    def _is_new(self, event: Event) -> bool:
        if type(event) not in _REPEATED:
            return True
        new, self._last_report = event != self._last_report, event
        return new

    def _wait_for_more(self, size: int) -> None:
        """Take note of the bytes so far of one large event or document: each stride of them is progress."""
        before, self._pending = self._pending, size
        self.progress += size // STRIDE > before // STRIDE

    def _sniff(self, data: bytes) -> Decoder | None:
        """Hold `data` back; return the decoder once the first byte that is not blank tells of a stream."""
        if not self._is_document and self._held and not data.strip():
            data = b""  # more of the white space before an answer
        self._held.append(data)
        self._size += len(data)
        if self._size > LARGEST:
            self.fault = ErrorDocument(f"a document of more than {LARGEST >> 20} MiB", malformed=True)
            self._held = []
            return None
        if not self._is_document:
            start = b"".join(self._held).removeprefix(_BOM).lstrip()[: len(_BOM)]
            if start and start not in (_BOM[:1], _BOM[:2]):
                self._is_document = start[:1] in (b"{", b"[", b"<")
                self._decoder = None if self._is_document else Decoder()
        if self._is_document:
            self._wait_for_more(self._size)
        return self._decoder

    def _read(self, events: list[ServerEvent], out: list[Event], *, cut: bool = False) -> None:
        """Read the events; `cut` ones, which no blank line ended, count only where they are whole."""
        self.events += len(events)
        for name, data in events:
            try:
                document = parse(data)
            except ValueError:
                text = data.strip()
                if text == b"[DONE]":
                    self.done = True
                    return
                if text and not cut and text.lower() not in _PINGS and name.lower() not in _PINGS:
                    said = text.decode("utf-8", "replace")
                    raise ErrorDocument(said, malformed=name != b"error") from None
                continue
            if document is None:
                continue
            if type(document) is not dict:
                raise ErrorDocument(document, malformed=name != b"error")
            before = len(out)
            self._read_document(document, name, out)
            if (len(out) == before or type(out[-1]) not in _SHOWN) and self.reader.said_more(document):
                self.progress += 1
        if self._ends_itself and self.reader.complete:
            self.done = True

    def _read_document(self, document: dict[str, Any], name: bytes, out: list[Event]) -> None:
        try:
            self.reader.read(document, name.decode("utf-8", "replace") if name else "", out)
        except (AttributeError, TypeError, KeyError, IndexError, ValueError, ArithmeticError, RecursionError):
            raise ErrorDocument(document, malformed=True) from None


_DURING: dict[type, str] = {
    TextDelta: "its answer",
    ReasoningDelta: "its reasoning",
    RefusalDelta: "its refusal",
    ToolCallDelta: "a tool call",
    ImageReceived: "an image",
    ItemReceived: "a call of a tool of the server's",
}


def _words_for(out: list[Event]) -> str:
    """Return what the last of the events that are seen belongs to."""
    return next((_DURING[type(event)] for event in reversed(out) if type(event) in _SHOWN), "")
