"""The bytes of one answer as events, with no network in sight: a stream, a document, or neither."""

from __future__ import annotations

from typing import Any, Protocol

from llm_magic.events import Event
from llm_magic.profile import Api
from llm_magic.request import Request
from llm_magic.wire import chat, completions, responses
from llm_magic.wire.documents import ErrorDocument, parse
from llm_magic.wire.sse import Decoder, EventTooLargeError, ServerEvent

_SNIFF = 1024
_PINGS = frozenset({b"ping", b"pong", b"keep-alive", b"keepalive", b"heartbeat"})


class Reader(Protocol):
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


READERS: dict[Api, Any] = {"chat": chat.Reader, "responses": responses.Reader, "completions": completions.Reader}


class Answer:
    """Bytes in, events out.

    Whether they are a stream or one JSON document is told from the first byte, not from what was asked for or
    from the content type: servers ignore `stream`, and proxies rewrite the header.

    `fault` is set when something came that ends the answer: an error of the server, or no answer at all. The
    events before it have been returned by then. `done` is true after the end mark of the stream.
    """

    def __init__(self, api: Api, request: Request) -> None:
        self._reader: Reader = READERS[api](request)
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
