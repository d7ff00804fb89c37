"""Server-sent events from bytes, by the WHATWG specification: how the bytes were split never changes the events.

Everything is done on bytes, so that a character split between two reads is never seen in halves,
and with `bytes.split`, so that it is fast. Carriage returns, alone or before a line feed, are made
line feeds first.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

from typing import Any

from llm_magic.capabilities import Api
from llm_magic.events import Event
from llm_magic.request import Request
from llm_magic.wire import chat, completions, responses
from llm_magic.wire.documents import ErrorDocument, parse, parse_or_text

_BOM = b"\xef\xbb\xbf"
LIMIT = 1 << 28
"""Bytes of one event at most (256 MiB): what is larger is no event, but a fault."""

ServerEvent = tuple[bytes, bytes]
"""The `event:` name (empty where none was given) and the data, its lines joined by line feeds."""


class EventTooLargeError(ValueError):
    """One event is larger than `LIMIT`."""


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
                if self._size > LIMIT:
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
    return (name, b"\n".join(data)) if data else None


_PINGS = frozenset({b"ping", b"pong", b"keep-alive", b"keepalive", b"heartbeat"})


READERS: dict[Api, Any] = {
    "chat": chat.ChatReader,
    "responses": responses.ResponsesReader,
    "completions": completions.CompletionsReader,
}


class Answer:
    """Bytes in, events out.

    Whether they are a stream or one JSON document is told from the first byte, not from what was
    asked for or from the content type: servers ignore `stream`, and proxies rewrite the header.

    `fault` is set when something came that ends the answer: an error of the server, or no answer at
    all. The events before it have been returned by then. `done` is true after the end mark of the
    stream.
    """

    def __init__(self, api: Api, request: Request) -> None:
        self.reader: chat.ChatReader | responses.ResponsesReader = READERS[api](request)
        """Knows whether anything was `answered`, and whether every answer asked for is `complete`."""
        self._ends_itself = api == "responses"  # its last event is the end mark, others follow with [DONE]
        self._decoder: Decoder | None = None  # once it is known to be a stream
        self._is_document = False  # once that is known
        self._held: list[bytes] = []  # of a document, or while neither is known
        self.fault: ErrorDocument | None = None
        self.done = False
        self.alive = 0
        """Counts what has come whole: server-sent events, not comments, not bytes."""

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes."""
        out: list[Event] = []
        if self.fault is not None or self.done:
            return out
        decoder = self._decoder or self._sniff(data)
        if decoder is None:
            return out
        if self._held:
            data, self._held = b"".join(self._held), []
        try:
            self._read(decoder.feed(data), out)
        except ErrorDocument as error:
            self.fault = error
        except EventTooLargeError:
            self.fault = ErrorDocument("an event of more than 256 MiB", malformed=True)
        return out

    def close(self) -> list[Event]:
        """Return the last events, the bytes having ended (well or not)."""
        out: list[Event] = []
        if self.fault is not None:
            return out
        try:
            if self._decoder is not None and not self.done:
                self._read(self._decoder.close(), out, cut=True)
            elif any(self._held):
                data = b"".join(self._held).removeprefix(_BOM)
                self._read([(b"", data)], out)
                if not self.reader.answered:
                    self.fault = ErrorDocument(parse_or_text(data), malformed=True)
        except ErrorDocument as error:
            self.fault = error
        self.reader.end(out)
        return out

    def _sniff(self, data: bytes) -> Decoder | None:
        """Hold `data` back; return the decoder once the first byte that is not blank tells of a stream."""
        self._held.append(data)
        if not self._is_document:
            start = b"".join(self._held).removeprefix(_BOM).lstrip()[: len(_BOM)]
            if start and start not in (_BOM[:1], _BOM[:2]):
                self._is_document = start[:1] in (b"{", b"[", b"<")
                self._decoder = None if self._is_document else Decoder()
        return self._decoder

    def _read(self, events: list[ServerEvent], out: list[Event], *, cut: bool = False) -> None:
        """Read the events; `cut` ones, which no blank line ended, count only where they are whole."""
        self.alive += len(events)
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
            try:
                self.reader.read(document, name.decode("utf-8", "replace") if name else "", out)
            except (AttributeError, TypeError, KeyError, IndexError):
                raise ErrorDocument(document, malformed=True) from None
        if self._ends_itself and self.reader.complete:
            self.done = True
