"""Server-sent events from bytes, by the WHATWG specification: how the bytes were split never changes the events.

Everything is done on bytes, so that a character split between two reads is never seen in halves. A stream of
whole `data: …` blocks with plain line feeds, which is what every server sends, is split by `bytes.split`; the
first carriage return switches to a decoder of single lines.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from llm_magic.capabilities import Api
from llm_magic.events import Event
from llm_magic.request import Request
from llm_magic.wire import chat, completions, responses
from llm_magic.wire.documents import ErrorDocument, parse

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
LIMIT = 1 << 28
"""Bytes of one event at most (256 MiB): what is larger is no event, but a fault."""

ServerEvent = tuple[bytes, bytes]
"""The `event:` name (empty where none was given) and the data, its lines joined by line feeds."""


class EventTooLargeError(ValueError):
    """One event is larger than `LIMIT`."""


class Decoder:
    r"""Bytes in, whole events out.

    Comments, `id:` and `retry:` are passed over; an event without any `data:` line is dropped, as the
    specification has it, and one whose data is empty is handed on with empty data.

    >>> decoder = Decoder()
    >>> decoder.feed(b": hello\n\nevent: a\ndata: 1\nda"), decoder.feed(b"ta: 2\n\n")
    ([], [(b'a', b'1\n2')])
    >>> decoder.feed(b"data: last"), decoder.close()
    ([], [(b'', b'last')])
    """

    def __init__(self) -> None:
        self._tail: list[bytes] = []  # bytes after the last whole block (or line, once a carriage return came)
        self._size = 0
        self._begun = False
        self._lines: _Lines | None = None

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that `data` completes."""
        if not self._begun:
            data = b"".join((*self._tail, data))
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._tail = [data]
                return []
            self._tail, self._begun = [], True
            data = data.removeprefix(_BOM)
        if self._lines is not None:
            return self._lines.feed(data)
        if b"\r" in data:
            self._lines = _Lines()
            whole, self._tail = b"".join((*self._tail, data)), []
            return self._lines.feed(whole)
        tail = self._tail
        if not tail:
            whole = data
        elif b"\n\n" in data or (data[:1] == b"\n" and tail[-1][-1:] == b"\n"):
            tail.append(data)
            whole = b"".join(tail)
        else:  # joined only when a block ends: a long event costs no more than its length
            if data:
                tail.append(data)
                self._size += len(data)
                if self._size > LIMIT:
                    raise EventTooLargeError
            return []
        cut = whole.rfind(b"\n\n")
        if cut < 0:
            self._tail, self._size = ([whole] if whole else []), len(whole)
            return []
        rest = whole[cut + 2 :]
        self._tail, self._size = ([rest] if rest else []), len(rest)
        whole = whole[:cut]
        if whole[:6] == b"data: ":
            lines = whole[6:].split(b"\n\ndata: ")
            if whole.count(b"\n") == 2 * (len(lines) - 1):  # nothing but events of one line, as nearly always
                return [(b"", line) for line in lines]
        events: list[ServerEvent] = []
        for block in whole.split(b"\n\n"):
            _read_block(block.split(b"\n"), events)
        return events

    def close(self) -> list[ServerEvent]:
        """Return the event that was not ended by a blank line, if there is one.

        The specification drops it; here it is handed on, for a server that forgets the last blank line.
        """
        if self._lines is not None:
            return self._lines.close()
        rest = b"".join(self._tail)
        if not self._begun:
            rest = b""  # a piece of a byte order mark
        self._tail, self._size = [], 0
        events: list[ServerEvent] = []
        _read_block(rest.split(b"\n"), events)
        return events


class _Block:
    """The fields of the event that is being read."""

    __slots__ = ("data", "name", "size")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.name = b""
        self.data: list[bytes] = []
        self.size = 0

    def line(self, line: bytes) -> None:
        field, colon, value = line.partition(b":")
        if colon and value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            self.data.append(value)
            self.size += len(value)
            if self.size > LIMIT:
                raise EventTooLargeError
        elif field == b"event":
            self.name = value

    def end(self, events: list[ServerEvent]) -> None:
        if self.data:
            events.append((self.name, b"\n".join(self.data)))
        self.clear()


def _read_block(lines: list[bytes], events: list[ServerEvent]) -> None:
    block = _Block()
    for line in lines:
        block.line(line)
    block.end(events)


class _Lines:
    """The decoder of single lines, for any mixture of CR, LF and CRLF."""

    def __init__(self) -> None:
        self._block = _Block()
        self._partial: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, data: bytes) -> list[ServerEvent]:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        if not data:
            return []
        self._after_cr = data.endswith(b"\r")
        first, *others = _LINE_END.split(data)
        self._partial.append(first)
        self._size += len(first)
        if self._size > LIMIT:
            raise EventTooLargeError
        if not others:
            return []
        events: list[ServerEvent] = []
        self._line(b"".join(self._partial), events)
        for line in others[:-1]:
            self._line(line, events)
        self._partial, self._size = [others[-1]], len(others[-1])
        return events

    def _line(self, line: bytes, events: list[ServerEvent]) -> None:
        if line:
            self._block.line(line)
        else:
            self._block.end(events)

    def close(self) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        self._line(b"".join(self._partial), events)
        self._block.end(events)
        self._partial, self._size = [], 0
        return events


_SNIFF = 1024
_PINGS = frozenset({b"ping", b"pong", b"keep-alive", b"keepalive", b"heartbeat"})


class DocumentReader(Protocol):
    """What each API offers: documents in, events out."""

    answered: bool
    """Whether anything of an answer has come."""

    @property
    def complete(self) -> bool:
        """Whether every answer asked for has ended."""

    def read(self, document: dict[str, Any], name: str, out: list[Event]) -> None:
        """Add the events of `document`; raises ErrorDocument."""

    def end(self, out: list[Event]) -> None:
        """Add what was held back when the stream broke off."""


READERS: dict[Api, Any] = {
    "chat": chat.ChatReader,
    "responses": responses.ResponsesReader,
    "completions": completions.CompletionsReader,
}


class Answer:
    """Bytes in, events out.

    Whether they are a stream or one JSON document is told from the first byte, not from what was asked for or
    from the content type: servers ignore `stream`, and proxies rewrite the header.

    `fault` is set when something came that ends the answer: an error of the server, or no answer at all. The
    events before it have been returned by then. `done` is true after the end mark of the stream.
    """

    def __init__(self, api: Api, request: Request) -> None:
        self._reader: DocumentReader = READERS[api](request)
        self._ends_itself = api == "responses"  # its last event is the end mark, others follow with [DONE]
        self._decoder: Decoder | None = None
        self._head: list[bytes] = []
        self._document: list[bytes] | None = None
        self.fault: ErrorDocument | None = None
        self.done = False
        self.alive = 0
        """Counts what has come whole: server-sent events, not comments, not bytes."""

    @property
    def complete(self) -> bool:
        """Whether every answer asked for has ended."""
        return self._reader.complete

    @property
    def answered(self) -> bool:
        """Whether anything of an answer has come."""
        return self._reader.answered

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes."""
        out: list[Event] = []
        if self.fault is not None or self.done:
            return out
        try:
            if self._decoder is None:
                if self._document is not None:
                    self._document.append(data)
                    return out
                head = self._sniffed(data)
                if head is None:
                    return out
                data = head
            assert self._decoder is not None  # noqa: S101 - set by _sniffed
            self._events(self._decoder.feed(data), out)
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
            if self._document is not None:
                self._whole(b"".join(self._document), out)
            elif self._decoder is not None:
                if not self.done:
                    self._last(self._decoder.close(), out)
            elif any(self._head):
                self._whole(b"".join(self._head), out)
        except ErrorDocument as error:
            self.fault = error
        self._reader.end(out)
        return out

    def _sniffed(self, data: bytes) -> bytes | None:
        """Return all bytes so far once they are known to be a stream."""
        self._head.append(data)
        head = b"".join(self._head)
        start = head[: _SNIFF + 3].removeprefix(b"\xef\xbb\xbf").lstrip()
        if (not start and len(head) < _SNIFF) or start in (b"\xef", b"\xef\xbb"):
            self._head = [head]
            return None
        self._head = []
        if start[:1] in (b"{", b"[", b"<"):
            self._document = [head]
            return None
        self._decoder = Decoder()
        return head

    def _events(self, events: list[ServerEvent], out: list[Event]) -> None:
        read = self._reader.read
        self.alive += len(events)
        for name, data in events:
            try:
                document = parse(data)
            except ValueError:
                if self._odd(name, data):
                    return
                continue
            if type(document) is dict:
                try:
                    read(document, name.decode("utf-8", "replace") if name else "", out)
                except (AttributeError, TypeError, KeyError, IndexError):
                    raise ErrorDocument(document, malformed=True) from None
            elif document is not None:
                raise ErrorDocument(document, malformed=name != b"error")
        if self._ends_itself and self._reader.complete:
            self.done = True

    def _odd(self, name: bytes, data: bytes) -> bool:
        """Pass over what is no JSON and no harm; return whether the stream is done."""
        text = data.strip()
        if text == b"[DONE]":
            self.done = True
            return True
        if not text or text.lower() in _PINGS or name.lower() in _PINGS:
            return False
        raise ErrorDocument(text.decode("utf-8", "replace"), malformed=name != b"error")

    def _last(self, events: list[ServerEvent], out: list[Event]) -> None:
        """Read the event that no blank line ended: whole JSON counts, a piece of it does not."""
        for name, data in events:
            try:
                parse(data)
            except ValueError:
                if data.strip() == b"[DONE]":
                    self.done = True
                continue
            self._events([(name, data)], out)

    def _whole(self, data: bytes, out: list[Event]) -> None:
        try:
            document = parse(data.removeprefix(b"\xef\xbb\xbf"))
        except ValueError:
            raise ErrorDocument(data.decode("utf-8", "replace"), malformed=True) from None
        if not isinstance(document, dict):
            raise ErrorDocument(document, malformed=True)
        self.alive += 1
        try:
            self._reader.read(document, "", out)
        except (AttributeError, TypeError, KeyError, IndexError):
            raise ErrorDocument(document, malformed=True) from None
        if not self._reader.answered:
            raise ErrorDocument(document, malformed=True)
