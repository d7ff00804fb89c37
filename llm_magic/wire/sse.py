"""Server-sent events from bytes, by the WHATWG specification: how the bytes were split never changes the events.

Everything is done on bytes, so that a character split between two reads is never seen in halves. A stream of
whole `data: …` blocks with plain line feeds, which is what every server sends, is split by `bytes.split`; the
first carriage return switches to a decoder of single lines.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re

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
        events: list[ServerEvent] = []
        for block in whole[:cut].split(b"\n\n"):
            if block[:6] == b"data: " and b"\n" not in block:
                events.append((b"", block[6:]))
            else:
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
