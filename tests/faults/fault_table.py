"""The table of faults: what a server does, and the one outcome that it must have, for each API.

A row is a name, what the server answers (a function of the API: one `Answer` a request, the last one repeated), and the
outcome. `requests` is how many requests the server sees where each failure may be repeated once; `modes` says whether
the answer was asked for as a stream, as a whole, or once each.
"""

# ruff: noqa: E501, ARG005 - a fault stands on one line; some are the same for each API
# fmt: off

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import repeat
from typing import Any

from fault_apis import DONE, USAGE, Chat, event
from servers import HANG, RESET, Answer, Step

from llm_magic import errors

BOTH, STREAM, WHOLE = ("stream", "whole"), ("stream",), ("whole",)
WITH_TOOLS = ("chat", "responses")
SECRET = "sk-fault-0123456789abcdefghij"


@dataclass(frozen=True)
class Outcome:
    """What comes of it: the text, and the finish reason or the class of the error and words of its message."""

    text: str = ""
    finish: str = "stop"
    error: type[errors.LLMError] | None = None
    words: tuple[str, ...] = ()
    reasoning: str = ""
    usage: tuple[int, int] | None = None


def answers(text: str = "Hello", finish: str = "stop", **more: Any) -> Outcome:
    """Return the outcome of an answer that counts."""
    return Outcome(text, finish, **more)


def fails(error: type[errors.LLMError], *words: str, text: str = "", reasoning: str = "") -> Outcome:
    """Return the outcome of a failure; `text` had come by then."""
    return Outcome(text, "", error, words, reasoning)


@dataclass(frozen=True)
class Fault:
    """A row of the table."""

    name: str
    script: Callable[[Any], list[Answer]]
    outcome: Outcome
    requests: int = 1
    modes: tuple[str, ...] = STREAM
    apis: tuple[str, ...] = ("chat", "responses", "completions")
    seconds: float = 5.0
    options: dict[str, Any] = field(default_factory=dict)
    tls: str = ""
    """`server`: it speaks TLS; `client`: only the URL says so; `plain client`: the URL does not say so."""
    warm: bool = False
    """Whether a good answer came over the same connection before."""


class Steps:
    """Steps that can be gone through by one request after another; `more` has no end."""

    def __init__(self, steps: tuple[Step, ...], more: Iterable[Step] = ()) -> None:
        self.steps, self.more = steps, more

    def __iter__(self) -> Iterator[Step]:
        yield from self.steps
        yield from self.more


def sse(*steps: Step, more: Iterable[Step] = (), headers: dict[str, str] | None = None) -> Answer:
    """Return a stream of these steps."""
    return Answer(Steps(steps, more), headers={"content-type": "text/event-stream", **(headers or {})})


def raw(*steps: Step, more: Iterable[Step] = ()) -> Answer:
    """Return bytes on the wire, after which the connection ends."""
    return Answer(Steps(steps, more), raw=True)


def doc(content: object, status: int = 200, **headers: str) -> Answer:
    """Return a JSON document, or bytes as they are."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Answer([data], status, {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}})


def slow(*steps: Step, more: Iterable[Step] = ()) -> Answer:
    """Return a JSON document in these steps."""
    return sse(*steps, more=more, headers={"content-type": "application/json"})


def good(a: Chat) -> Answer:
    """Return a good answer."""
    return sse(a.begin(), a.text("Hello"), a.end(), DONE)


def sized(data: bytes, length: int | str | None = None, *extra: bytes) -> bytes:
    """Return an HTTP answer with a length that may be wrong."""
    lines = [b"HTTP/1.1 200 OK", b"content-type: application/json", f"content-length: {len(data) if length is None else length}".encode(), *extra]
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


def whole(a: Chat, text: str = "Hello") -> bytes:
    """Return the bytes of a whole document."""
    return json.dumps(a.document(text)).encode()


def error(message: str = "boom", **more: Any) -> dict[str, Any]:
    """Return an error document."""
    return {"error": {"message": message, **more}}


def http(a: Chat, *lines: bytes) -> bytes:
    """Return a good answer with further lines in its head."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"content-type: text/event-stream", b"connection: close", *lines]) + b"\r\n\r\n" + a.text("Hello") + a.end() + DONE


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def framed(*parts: bytes) -> bytes:
    """Return the head of a chunked answer and these chunks, without the last one."""
    return CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


def half(a: Chat) -> bytes:
    """Return a document that was cut in the midst of its text."""
    return whole(a).partition(b'lo"')[0]


LOST, TIMED, BAD, EMPTY, CUT, SERVER = (errors.ConnectionFailedError, errors.TimedOutError, errors.ProtocolError, errors.EmptyAnswerError, errors.IncompleteAnswerError, errors.ServerFailedError)
GZIP = {"content-encoding": "gzip"}
CLOSED, MALFORMED, NOT_PACKED = "closed the connection before it answered", "sent a malformed HTTP answer", "cannot be decompressed"
BROKE, SILENT = "broke off in the midst of its answer", "fell silent"

CONNECTION = [
    Fault("closed at once", lambda a: [raw()], fails(LOST, CLOSED), 2, BOTH),
    Fault("reset at once", lambda a: [raw(RESET)], fails(LOST, CLOSED), 2, BOTH),
    Fault("closed at once, then a good answer", lambda a: [raw(), good(a)], answers(), 2, BOTH),
    Fault("reset at once, then a good answer", lambda a: [raw(RESET), good(a)], answers(), 2),
    Fault("says nothing", lambda a: [raw(HANG)], fails(TIMED, "did not answer in time"), 2, BOTH, seconds=12),
    Fault("half a status line", lambda a: [raw(b"HTTP/1.1 20")], fails(LOST, CLOSED), 2),
    Fault("half the headers", lambda a: [raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/ev")], fails(LOST, CLOSED), 2),
    Fault("half the headers, then silence", lambda a: [raw(b"HTTP/1.1 200 OK\r\ncontent-", HANG)], fails(TIMED, "did not answer in time"), 2),
    Fault("headers byte by byte", lambda a: [raw(*[step for byte in b"HTTP/1.1 200 OK\r\nx-a: " + b"b" * 90 for step in (bytes([byte]), 0.1)])], fails(TIMED, "did not answer in time"), 1, BOTH),
    Fault("headers line by line without end", lambda a: [raw(b"HTTP/1.1 200 OK\r\n", more=(step for _ in repeat(0) for step in (b"x-a: b\r\n", 0.05)))], fails(TIMED, "did not answer in time"), 1),
    Fault("headers without end", lambda a: [raw(b"HTTP/1.1 200 OK\r\n", more=repeat(b"x-a: " + b"b" * 1000 + b"\r\n"))], fails(BAD, MALFORMED), 1),
    Fault("one header without end", lambda a: [raw(b"HTTP/1.1 200 OK\r\nx-a: ", more=repeat(b"b" * 1000))], fails(BAD, MALFORMED), 1),
    Fault("a kept connection that was closed", lambda a: [good(a), raw(), good(a)], answers(), 3, BOTH, warm=True),
    Fault("a kept connection that was closed, without retries", lambda a: [good(a), raw(), good(a)], answers(), 3, options={"retries": 0}, warm=True),
    Fault("a kept connection that was reset, without retries", lambda a: [good(a), raw(RESET), good(a)], answers(), 3, options={"retries": 0}, warm=True),
    Fault("a kept connection, and a server that died", lambda a: [good(a), raw()], fails(LOST, CLOSED), 4, warm=True),
    Fault("a kept connection that is silent", lambda a: [good(a), raw(HANG)], fails(TIMED, "did not answer in time"), 2, options={"retries": 0}, warm=True),
    Fault("TLS with a certificate of nobody", lambda a: [good(a)], fails(LOST, "No secure connection", "certificate"), 0, tls="server"),
    Fault("TLS asked of a plain server", lambda a: [good(a)], fails(LOST, "No secure connection"), 0, tls="client"),
    Fault("a plain request to a server of TLS", lambda a: [good(a)], fails(LOST, CLOSED, "https://"), 0, tls="plain client"),
    Fault("an alert of TLS", lambda a: [raw(b"\x15\x03\x03\x00\x02\x02\x16\r\n\r\n")], fails(BAD, MALFORMED, "https://"), 1),
]

HEAD = [
    Fault("a header without a colon", lambda a: [raw(http(a, b"SERVER nginx"))], fails(BAD, MALFORMED, "server's"), 1, BOTH),
    Fault("a header's name with a space", lambda a: [raw(http(a, b"SER VER: x"))], fails(BAD, MALFORMED)),
    Fault("a header's name of bad bytes", lambda a: [raw(http(a, b"\xff\xfe: x"))], fails(BAD, MALFORMED)),
    Fault("a header's value with a NUL", lambda a: [raw(http(a, b"server: a\x00b"))], fails(BAD, MALFORMED)),
    Fault("a header's value with a control character", lambda a: [raw(http(a, b"server: a\x01\x1b[31mb"))], answers()),
    Fault("a request's id with a control character", lambda a: [raw(b"HTTP/1.1 400 x\r\nx-request-id: a\x01\x1b[31mb\r\ncontent-length: 0\r\n\r\n")], fails(errors.RequestRefusedError, "[request a [31mb]"), 1),
    Fault("a header's value beyond ASCII", lambda a: [raw(http(a, "server: nginx é".encode()))], answers()),
    Fault("a header that is echoed with the key", lambda a: [raw(http(a, f"Bearer {SECRET} x".encode()))], fails(BAD, MALFORMED)),
    Fault("no HTTP", lambda a: [raw(b"HELLO THERE\r\n\r\n")], fails(BAD, MALFORMED), 1, BOTH),
    Fault("HTTP/0.9", lambda a: [raw(whole(a))], fails(LOST, CLOSED), 2),
    Fault("the greeting of SSH", lambda a: [raw(b"SSH-2.0-OpenSSH_9.6\r\n", HANG)], fails(TIMED, "did not answer in time"), 2),
    Fault("the greeting of a mail server", lambda a: [raw(b"220 mx.example ESMTP\r\n")], fails(LOST, CLOSED), 2),
    Fault("frames of HTTP/2", lambda a: [raw(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18)], fails(BAD, MALFORMED)),
    Fault("a status of four digits", lambda a: [raw(b"HTTP/1.1 2000 OK\r\n\r\n")], fails(BAD, MALFORMED)),
    Fault("a status in words", lambda a: [raw(b"HTTP/1.1 OK OK\r\n\r\n")], fails(BAD, MALFORMED)),
    Fault("two lengths", lambda a: [raw(sized(whole(a), None, b"content-length: 5"))], fails(BAD, MALFORMED), 1, BOTH),
    Fault("a negative length", lambda a: [raw(sized(whole(a), -5))], fails(BAD, MALFORMED)),
    Fault("a length in words", lambda a: [raw(sized(whole(a), "ten"))], fails(BAD, MALFORMED)),
    Fault("an unknown transfer coding", lambda a: [raw(sized(whole(a), None, b"transfer-encoding: rot13"))], fails(BAD, MALFORMED)),
    Fault("100 Continue before the answer", lambda a: [raw(b"HTTP/1.1 100 Continue\r\n\r\n" + http(a))], answers()),
    Fault("early hints before the answer", lambda a: [raw(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 20 + http(a))], answers()),
    Fault("100 Continue without end", lambda a: [raw(more=(step for _ in repeat(0) for step in (b"HTTP/1.1 100 Continue\r\n\r\n", 0.05)))], fails(TIMED, "did not answer in time"), 1),
    Fault("100 Continue in a flood", lambda a: [raw(more=repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 100))], fails(TIMED, "did not answer in time"), 1, seconds=12),
]

BODY = [
    Fault("204", lambda a: [raw(b"HTTP/1.1 204 No Content\r\n\r\n")], fails(BAD, "answered with nothing"), 1, BOTH),
    Fault("200 and nothing", lambda a: [raw(sized(b""))], fails(BAD, "answered with nothing"), 1, BOTH),
    Fault("less than the length, all there", lambda a: [raw(sized(whole(a), 99_999))], answers(), 1, BOTH),
    Fault("less than the length", lambda a: [raw(sized(half(a), 99_999))], fails(CUT, BROKE, text="Hel"), 2, BOTH),
    Fault("less than the length, then a good answer", lambda a: [raw(sized(half(a), 99_999)), good(a)], answers(), 2, BOTH),
    Fault("more than the length", lambda a: [raw(sized(whole(a), len(half(a))))], fails(CUT, BROKE, text="Hel"), 2, WHOLE),
    Fault("a document cut, with no length", lambda a: [Answer([half(a)], headers={"content-type": "application/json"}, chunked=False)], fails(CUT, BROKE, text="Hel"), 2, BOTH),
    Fault("a document cut before its text", lambda a: [raw(sized(b'{"id": "x", "mod', 999))], fails(LOST, CLOSED), 2, BOTH),
    Fault("a document and no last chunk", lambda a: [raw(framed(whole(a)))], answers(), 1, BOTH),
    Fault("half a document and no last chunk", lambda a: [raw(framed(half(a)))], fails(CUT, BROKE, text="Hel"), 2, BOTH),
    Fault("a document that stops half-way", lambda a: [slow(half(a), HANG)], fails(TIMED, SILENT, text="Hel"), 1, BOTH),
    Fault("a document byte by byte without end", lambda a: [slow(b'{"a": "', more=more_of(b"x", 0.05))], fails(TIMED, SILENT), 1, BOTH),
    Fault("a slow document that lives", lambda a: [slow(whole(a)[:20], 0.25, whole(a)[20:40], 0.25, whole(a)[40:])], answers(), 1, BOTH),
    Fault("a long slow document", lambda a: [slow(b'{"pad": "', *[b"x" * 70_000, 0.25] * 6, b'", ', whole(a)[1:])], answers(), 1, WHOLE),
    Fault("a document without end", lambda a: [slow(b"[", more=repeat(b"1," * 5000))], fails(BAD, "more than"), 1, BOTH),
    Fault("white space, then a document", lambda a: [slow(*[b"\n" * 400, 0.15] * 4, whole(a))], answers(), 1, BOTH),
    Fault("white space without end", lambda a: [slow(more=more_of(b"\n" * 10, 0.05))], fails(TIMED, SILENT), 1, BOTH),
    Fault("white space in a flood", lambda a: [slow(more=repeat(b"\n" * 5000))], fails(TIMED, SILENT), 1, seconds=12),
    Fault("packed", lambda a: [sse(gzip.compress(a.text("Hello") + a.end() + DONE), headers=GZIP)], answers(), 1, BOTH),
    Fault("not packed as it says", lambda a: [sse(a.text("Hello") + a.end(), headers=GZIP)], fails(BAD, NOT_PACKED), 1, BOTH),
    Fault("not deflated as it says", lambda a: [sse(b"\xff" * 50, headers={"content-encoding": "deflate"})], fails(BAD, NOT_PACKED), 1, BOTH),
    Fault("packed by a method that nobody knows", lambda a: [sse(b"\x8b\x03\x80abc", headers={"content-encoding": "rot13"})], fails(BAD, "no answer of this API"), 1),
    Fault("packed and cut", lambda a: [sse(flushed(a.text("Hel")), RESET, headers=GZIP)], fails(CUT, BROKE, text="Hel"), 1),
    Fault("packed and damaged after a while", lambda a: [sse(flushed(a.text("Hel")), 0.05, b"\xff" * 50, headers=GZIP)], fails(CUT, BROKE, "decompressed", text="Hel"), 1),
    Fault("packed so that it bursts", lambda a: [doc(gzip.compress(b'{"a": "' + b"0" * 20_000_000), content_encoding="gzip")], fails(BAD, "more than"), 1, BOTH, seconds=12),
    Fault("a chunk whose size is no number", lambda a: [raw(CHUNKED + b"zz\r\n")], fails(LOST, "what followed is no HTTP"), 2),
    Fault("a chunk whose size is no number, after text", lambda a: [raw(framed(a.text("Hel")) + b"zz\r\n")], fails(CUT, BROKE, "no HTTP", text="Hel")),
    Fault("a chunk larger than what comes", lambda a: [raw(framed(a.text("Hel")) + b"ffffff\r\nda")], fails(CUT, BROKE, text="Hel")),
    Fault("a chunk of a size without end", lambda a: [raw(CHUNKED, more=repeat(b"1" * 100))], fails(LOST, "no HTTP"), 2),
    Fault("a page", lambda a: [Answer([b"<!doctype html><title>Sign in &amp; go</title>"], headers={"content-type": "text/html"})], fails(BAD, "Sign in & go"), 1, BOTH),
    Fault("a page that is cut", lambda a: [raw(sized(b"<html><title>Sign", 999))], fails(BAD, "HTML page"), 1, BOTH),
    Fault("plain text", lambda a: [Answer([b"OK"], headers={"content-type": "text/plain"})], fails(BAD, "no answer of this API: OK"), 1, BOTH),
    Fault("UTF-16", lambda a: [doc(whole(a).decode().encode("utf-16"))], fails(BAD, "no answer of this API"), 1, BOTH),
    Fault("a byte order mark", lambda a: [doc(b"\xef\xbb\xbf" + whole(a))], answers(), 1, BOTH),
    Fault("a list", lambda a: [doc([])], fails(BAD, "no answer of this API"), 1, BOTH),
    Fault("a document of something else", lambda a: [doc({"hello": "world"})], fails(BAD, "hello"), 1, BOTH),
    Fault("JSON that is none", lambda a: [doc(b'{"a": nope}')], fails(BAD, "nope"), 1, BOTH),
    Fault("JSON nested without end", lambda a: [doc(b"[" * 50_000 + b"]" * 50_000)], fails(BAD, "no answer of this API"), 1, BOTH),
    Fault("two documents", lambda a: [doc(whole(a) + b"\n" + whole(a))], fails(BAD, "no answer of this API"), 1, BOTH),
    Fault("a document and a brace", lambda a: [doc(whole(a) + b"}")], fails(BAD, "no answer of this API"), 1, BOTH),
    Fault("null", lambda a: [doc(b"null")], fails(BAD, "no answer of this API"), 1, BOTH),
    Fault("an error with status 200", lambda a: [doc(error("Rate limit reached", code="rate_limit_exceeded"))], fails(errors.RateLimitedError, "Rate limit reached"), 1, BOTH),
]

STATUS = [
    *[Fault(f"status {status}", lambda a, status=status: [doc(error("boom"), status)], fails(kind, "boom" if status != 404 else ""), requests ) for status, kind, requests in [  # type: ignore[misc]  # a lambda with a default
        (400, errors.RequestRefusedError, 1), (401, errors.AuthenticationError, 1), (402, errors.QuotaExceededError, 1), (403, errors.AuthenticationError, 1), (404, errors.EndpointNotFoundError, 1),
        (405, errors.EndpointNotFoundError, 1), (408, TIMED, 2), (409, errors.RequestRefusedError, 2), (413, errors.RequestRefusedError, 1), (415, errors.RequestRefusedError, 1), (422, errors.RequestRefusedError, 1),
        (429, errors.RateLimitedError, 2), (451, errors.RequestRefusedError, 1), (499, errors.RequestRefusedError, 1), (500, SERVER, 2), (501, errors.EndpointNotFoundError, 1), (502, SERVER, 2), (503, SERVER, 2),
        (504, TIMED, 2), (520, SERVER, 2), (529, SERVER, 2), (599, SERVER, 2)]],
    Fault("503, then a good answer", lambda a: [doc(error(), 503), good(a)], answers(), 2),
    Fault("429, then a good answer", lambda a: [doc(error(), 429, retry_after_ms="1"), good(a)], answers(), 2),
    Fault("503 that is not to be repeated", lambda a: [doc(error(), 503, x_should_retry="false")], fails(SERVER, "boom"), 1),
    Fault("no quota left", lambda a: [doc(error("You exceeded your current quota", code="insufficient_quota"), 429)], fails(errors.QuotaExceededError, "quota"), 1),
    Fault("too long a prompt", lambda a: [doc(error("maximum context length is 10 tokens", code="context_length_exceeded"), 400)], fails(errors.ContextOverflowError, "too long"), 1),
    Fault("a blocked prompt", lambda a: [doc(error("no", code="content_filter"), 400)], fails(errors.ContentFilteredError, "content filter"), 1),
    *[Fault(f"Retry-After: {value or 'nothing'}", lambda a, value=value: [doc(error(), 429, retry_after=value)], fails(errors.RateLimitedError, words), requests) for value, words, requests in [  # type: ignore[misc]  # likewise
        ("-5", "Wait a little", 2), ("0", "Wait a little", 2), ("nan", "Wait a little", 2), ("1e999", "Wait a little", 2), ("soon", "Wait a little", 2), ("", "Wait a little", 2),
        ("Mon, 99 Foo 2024 99:99:99 GMT", "Wait a little", 2), (formatdate(1_000_000_000, usegmt=True), "Wait a little", 2), ("259200", "Wait 3 days", 1), (formatdate(time.time() + 86_400 * 9, usegmt=True), "Wait 9 days", 1),
        ("Fri, 31 Dec 999999 23:59:59 GMT", "Wait a little", 2), ("0.05", "Wait 1 s", 2)]],
    Fault("an error of nothing", lambda a: [raw(b"HTTP/1.1 500 \r\ncontent-length: 0\r\n\r\n")], fails(SERVER, "answered 500"), 2),
    Fault("an error that never ends", lambda a: [Answer(repeat(b'{"error": {"message": "boom"}}' + b" " * 5000), 500)], fails(SERVER, "answered 500", "boom"), 2),
    Fault("an error byte by byte", lambda a: [Answer([step for byte in json.dumps(error("b" * 400)).encode() for step in (bytes([byte]), 0.1)], 500)], fails(SERVER, "answered 500"), 2),
    Fault("an error that hangs", lambda a: [Answer([b'{"error": ', HANG], 500)], fails(SERVER, "answered 500"), 2),
    Fault("an error that is cut", lambda a: [Answer([b'{"error": {"message": "bo', RESET], 400)], fails(errors.RequestRefusedError, "answered 400"), 1),
    Fault("an error that bursts", lambda a: [doc(gzip.compress(b"0" * 20_000_000), 400, content_encoding="gzip")], fails(errors.RequestRefusedError, "answered 400"), 1, seconds=12),
    Fault("an error that is not packed as it says", lambda a: [doc(error(), 400, content_encoding="gzip")], fails(errors.RequestRefusedError, "answered 400"), 1),
    Fault("an error that is packed", lambda a: [doc(gzip.compress(json.dumps(error()).encode()), 400, content_encoding="gzip")], fails(errors.RequestRefusedError, "answered 400: boom"), 1),
    Fault("an error of bytes", lambda a: [doc(b"\xff\xfe\x00\x1b[31m" * 50, 400)], fails(errors.RequestRefusedError, "answered 400"), 1),
    Fault("an error that is null", lambda a: [doc(None, 400)], fails(errors.RequestRefusedError, "answered 400"), 1),
    Fault("an error that is a list", lambda a: [doc([error("boom")], 400)], fails(errors.RequestRefusedError, "boom"), 1),
    Fault("an error nested without end", lambda a: [doc(b"[" * 50_000, 400)], fails(errors.RequestRefusedError, "answered 400"), 1),
    Fault("an error of numbers", lambda a: [doc({"error": 5}, 400)], fails(errors.RequestRefusedError, "answered 400"), 1),
    Fault("an error's text of NaN", lambda a: [doc(b'{"error": {"message": NaN, "code": 1e999}}', 400)], fails(errors.RequestRefusedError, "answered 400"), 1),
    Fault("an error that echoes the key", lambda a: [doc(error(f"bad key {SECRET}"), 401)], fails(errors.AuthenticationError, "bad key ***"), 1),
    Fault("a page with 502", lambda a: [Answer([b"<html><title>502 Bad Gateway</title>"], 502, {"content-type": "text/html"})], fails(SERVER, "502 Bad Gateway"), 2),
    Fault("a redirect elsewhere", lambda a: [Answer([], 307, {"location": "http://127.0.0.2:9/v1/x"})], fails(errors.EndpointNotFoundError, "redirects from"), 1),
    Fault("a redirect in a circle", lambda a: [Answer([], 307, {"location": "?a=b"})], fails(errors.EndpointNotFoundError, "circle"), 6),
    Fault("a redirect to nowhere", lambda a: [Answer([], 307)], fails(errors.LLMError, "307"), 1),
    Fault("a redirect to what is no URL", lambda a: [Answer([], 307, {"location": "http://[::1/x"})], fails(errors.LLMError), 1),
    Fault("a redirect that would lose the body", lambda a: [Answer([], 303, {"location": "/v1/y"})], fails(errors.EndpointNotFoundError, "redirects from"), 1),
    Fault("304", lambda a: [raw(b"HTTP/1.1 304 Not Modified\r\n\r\n")], fails(errors.LLMError, "304"), 1),
]

BROKEN_OFF = [
    Fault("ended after the headers", lambda a: [sse()], fails(BAD, "answered with nothing"), 2),
    Fault("reset after the headers", lambda a: [sse(0.02, RESET)], fails(LOST, CLOSED), 2, BOTH),
    Fault("reset after the headers, then a good answer", lambda a: [sse(0.02, RESET), good(a)], answers(), 2, BOTH),
    Fault("ended after the headers, then a good answer", lambda a: [sse(), good(a)], answers(), 2),
    Fault("ended after the first events", lambda a: [sse(a.begin())], fails(LOST, CLOSED), 2),
    Fault("reset after the first events", lambda a: [sse(a.begin(), 0.02, RESET)], fails(LOST, CLOSED), 2),
    Fault("ended after the first events, then a good answer", lambda a: [sse(a.begin()), good(a)], answers(), 2),
    Fault("reset after the first events, then a good answer", lambda a: [sse(a.begin(), 0.02, RESET), good(a)], answers(), 2),
    Fault("ended after the first events, without retries", lambda a: [sse(a.begin())], fails(LOST, CLOSED), 1, options={"retries": 0}),
    Fault("ended after a comment", lambda a: [sse(b": hello\n\n")], fails(BAD, "answered with nothing"), 2),
    Fault("ended after text", lambda a: [sse(a.begin(), a.text("Hel"))], fails(CUT, BROKE, "no finish reason", text="Hel")),
    Fault("ended after text, asked as a whole", lambda a: [sse(a.begin(), a.text("Hel"))], fails(CUT, BROKE, text="Hel"), 1, WHOLE),
    Fault("reset after text", lambda a: [sse(a.begin(), a.text("Hel"), 0.02, RESET)], fails(CUT, BROKE, "connection was lost", text="Hel")),
    Fault("reset within an event", lambda a: [sse(a.text("Hel"), a.text("lo")[:30], 0.02, RESET)], fails(CUT, BROKE, text="Hel")),
    Fault("ended within an event", lambda a: [sse(a.text("Hel"), a.text("lo")[:30])], fails(CUT, BROKE, text="Hel")),
    Fault("no last chunk after text", lambda a: [raw(framed(a.text("Hel")))], fails(CUT, BROKE, text="Hel")),
    Fault("reset after the usage", lambda a: [sse(a.text("Hel"), event({"choices": [], "usage": USAGE}), 0.02, RESET)], fails(CUT, BROKE, text="Hel"), apis=("chat", "completions")),
    Fault("reset after reasoning", lambda a: [sse(a.begin(), a.reasoning("hm"), 0.02, RESET)], fails(CUT, "in the midst of its reasoning", reasoning="hm")),
    Fault("ended after reasoning", lambda a: [sse(a.begin(), a.reasoning("hm"))], fails(CUT, "in the midst of its reasoning", reasoning="hm")),
    Fault("reset within a tag of reasoning", lambda a: [sse(a.text("<thi"), 0.02, RESET)], fails(CUT, BROKE, text="<thi"), 2),
    Fault("reset within a tool call", lambda a: [sse(a.begin(), a.call('{"wid'), 0.02, RESET)], fails(CUT, "in the midst of a tool call"), apis=WITH_TOOLS),
    Fault("ended within a tool call", lambda a: [sse(a.begin(), a.call('{"width": 3}'))], fails(CUT, "in the midst of a tool call"), apis=WITH_TOOLS),
    Fault("one of two answers breaks off", lambda a: [sse(a.text("a"), a.text("b", 1), a.end(), 0.02, RESET)], fails(CUT, BROKE, text="a"), apis=("chat", "completions"), options={"n": 2}),
    Fault("text of a type breaks off", lambda a: [sse(a.text("4"))], fails(CUT, BROKE, text="4"), apis=WITH_TOOLS, options={"output_type": int}),
    Fault("given up by the server", lambda a: [sse(a.text("Hel"), a.end("abort"), DONE)], fails(CUT, "broke off", text="Hel")),
    Fault("no finish reason and an end mark", lambda a: [sse(a.text("Hello"), DONE)], answers()),
    Fault("an end mark with no blank line", lambda a: [sse(a.text("Hello"), b"data: [DONE]")], answers()),
    Fault("a finish reason and no end mark", lambda a: [sse(a.text("Hello"), a.end())], answers()),
    Fault("reset after the finish reason", lambda a: [sse(a.text("Hello"), a.end(), 0.02, RESET)], answers()),
    Fault("reset after the end mark", lambda a: [sse(a.text("Hello"), a.end(), DONE, 0.02, RESET)], answers()),
    Fault("silent after the finish reason", lambda a: [sse(a.text("Hello"), a.end(), HANG)], answers()),
    Fault("silent after the end mark", lambda a: [sse(a.text("Hello"), a.end(), DONE, HANG)], answers()),
    Fault("no last chunk after the end mark", lambda a: [raw(framed(a.text("Hello"), a.end(), DONE))], answers()),
    Fault("a document whose finish reason is empty", lambda a: [doc(a.document("Hello", ""))], answers(), 1, BOTH),
    Fault("a document whose finish reason is null", lambda a: [doc(a.document("Hello", None))], answers(), 1, BOTH),
    Fault("a document where a stream was asked for", lambda a: [doc(a.document("Hello", usage=USAGE))], answers(usage=(3, 2))),
    Fault("a stream where a document was asked for", lambda a: [good(a)], answers(), 1, WHOLE),
    Fault("cut at the limit of tokens", lambda a: [sse(a.text("Hel"), a.end("length"), DONE)], answers("Hel", "length")),
    Fault("cut by a filter", lambda a: [sse(a.text("Hel"), a.end("content_filter"), DONE)], answers("Hel", "content_filter")),
]

SILENCE = [
    Fault("silent after the headers", lambda a: [sse(HANG)], fails(TIMED, SILENT), 1, BOTH),
    Fault("silent after the first events", lambda a: [sse(a.begin(), HANG)], fails(TIMED, SILENT)),
    Fault("silent after text", lambda a: [sse(a.text("Hel"), HANG)], fails(TIMED, SILENT, "nothing came for 0.4 s", text="Hel")),
    Fault("silent after reasoning", lambda a: [sse(a.reasoning("hm"), HANG)], fails(TIMED, SILENT, reasoning="hm")),
    Fault("silent within an event", lambda a: [sse(a.text("Hel"), a.text("lo")[:30], HANG)], fails(TIMED, SILENT, text="Hel")),
    Fault("empty deltas without end", lambda a: [sse(a.begin(), more=more_of(a.nothing(), 0.05))], fails(TIMED, SILENT, "signs of life")),
    Fault("empty deltas without end after text", lambda a: [sse(a.text("Hel"), more=more_of(a.nothing(), 0.05))], fails(TIMED, SILENT, "signs of life", text="Hel")),
    Fault("empty deltas in a flood", lambda a: [sse(more=repeat(a.nothing() * 20))], fails(TIMED, SILENT), seconds=12),
    Fault("the first events without end", lambda a: [sse(more=more_of(a.begin(), 0.05))], fails(TIMED, SILENT)),
    Fault("the same usage without end", lambda a: [sse(more=more_of(event({"choices": [], "usage": USAGE}), 0.05))], fails(TIMED, SILENT), apis=("chat", "completions")),
    Fault("comments without end", lambda a: [sse(more=more_of(b": keep-alive\n\n", 0.05))], fails(TIMED, SILENT, "signs of life")),
    Fault("comments without end after text", lambda a: [sse(a.text("Hel"), more=more_of(b": keep-alive\n\n", 0.05))], fails(TIMED, SILENT, text="Hel")),
    Fault("comments in a flood", lambda a: [sse(more=repeat(b": keep-alive\n\n" * 50))], fails(TIMED, SILENT), seconds=12),
    Fault("pings without end", lambda a: [sse(more=more_of(b"data: ping\n\n", 0.05))], fails(TIMED, SILENT)),
    Fault("blank lines without end", lambda a: [sse(a.text("Hel"), more=more_of(b"\n\n", 0.05))], fails(TIMED, SILENT, text="Hel")),
    Fault("an event byte by byte", lambda a: [sse(a.text("Hel"), *[step for byte in b"data: " + b" " * 90 for step in (bytes([byte]), 0.05)])], fails(TIMED, SILENT, text="Hel")),
    Fault("comments for longer than the timeout, then the answer", lambda a: [sse(*[b": OPENROUTER PROCESSING\n\n", 0.1] * 6, a.text("Hello"), a.end(), DONE)], answers()),
    Fault("a stream slower than the timeout in all", lambda a: [sse(*[step for text in "Hello" for step in (a.text(text), 0.15)], a.end(), DONE)], answers()),
    Fault("a long event that comes slowly", lambda a: [sse(b"data: ", *[step for _ in range(5) for step in (b" " * 70_000, 0.3)], a.text("Hello")[6:], a.end(), DONE)], answers()),
]

EVENTS = [
    Fault("text after the finish reason", lambda a: [sse(a.text("Hello"), a.end(), a.text(" there"), DONE)], answers()),
    Fault("text in the read that has the finish reason", lambda a: [sse(a.text("Hello") + a.end() + a.text(" there") + DONE)], answers()),
    Fault("reasoning after the finish reason", lambda a: [sse(a.text("Hello"), a.end(), a.reasoning("hm"), DONE)], answers()),
    Fault("another finish reason", lambda a: [sse(a.text("Hello"), a.end(), a.end("length"), DONE)], answers()),
    Fault("usage after the finish reason", lambda a: [sse(a.text("Hello"), a.end("stop", USAGE), DONE)], answers(usage=(3, 2))),
    Fault("an error after the finish reason", lambda a: [sse(a.text("Hello"), a.end(), DONE, a.error("boom"))], answers()),
    Fault("empty data", lambda a: [sse(b"data:\n\n", b"data: \n\n", a.text("Hello"), a.end(), DONE)], answers()),
    Fault("events with a name and no data", lambda a: [sse(b"event: x\n\n", b"retry: 5\n\n", b"id: 7\n\n", a.text("Hello"), a.end(), DONE)], answers()),
    Fault("null as an event", lambda a: [sse(b"data: null\n\n", a.text("Hello"), a.end(), DONE)], answers()),
    Fault("lines that end in CR LF", lambda a: [sse((a.begin() + a.text("Hello") + a.end() + DONE).replace(b"\n", b"\r\n"))], answers()),
    Fault("lines that end in CR", lambda a: [sse((a.begin() + a.text("Hello") + a.end() + DONE).replace(b"\n", b"\r"))], answers()),
    Fault("a byte order mark before a stream", lambda a: [sse(b"\xef\xbb\xbf" + a.text("Hello"), a.end(), DONE)], answers()),
    Fault("no space after the colon", lambda a: [sse((a.text("Hello") + a.end() + DONE).replace(b"data: ", b"data:"))], answers()),
    Fault("data over several lines", lambda a: [sse(a.text("Hello").replace(b", ", b",\ndata: "), a.end(), DONE)], answers()),
    Fault("cut at each byte", lambda a: [sse(*[bytes([byte]) for byte in a.text("Hé") + a.end() + DONE])], answers("Hé")),
    Fault("bytes that are no UTF-8", lambda a: [sse(a.raw_text(b"H\xff\xfe"), a.end(), DONE)], answers("H\ufffd\ufffd")),
    Fault("half a surrogate pair", lambda a: [sse(a.raw_text(b"H\\ud83d"), a.end(), DONE)], answers("H\ufffd")),
    Fault("UTF-16 as a stream", lambda a: [sse((a.text("Hello") + DONE).decode().encode("utf-16"))], fails(BAD, "no answer of this API")),
    Fault("NUL in the text", lambda a: [sse(a.text("H\x00"), a.end(), DONE)], answers("H\x00")),
    Fault("an event that is no JSON", lambda a: [sse(a.text("Hel"), b"data: {nope}\n\n")], fails(BAD, "nope", text="Hel")),
    Fault("an event that is a list", lambda a: [sse(a.text("Hel"), b"data: [1]\n\n")], fails(BAD, "[1]", text="Hel")),
    Fault("an event that is a text", lambda a: [sse(a.text("Hel"), b'data: "hi"\n\n')], fails(BAD, "hi", text="Hel")),
    Fault("an event nested without end", lambda a: [sse(a.text("Hel"), b"data: " + b"[" * 50_000 + b"\n\n")], fails(BAD, "no answer of this API", text="Hel")),
    Fault("an event without end", lambda a: [sse(a.text("Hel"), b"data: ", more=repeat(b"x" * 50_000))], fails(BAD, "an event of more than", text="Hel")),
    Fault("lines of an event without end", lambda a: [sse(a.text("Hel"), more=repeat(b"data: " + b"x" * 50_000 + b"\n"))], fails(BAD, "an event of more than", text="Hel")),
    Fault("a comment without end", lambda a: [sse(a.text("Hel"), b":", more=repeat(b"x" * 50_000))], fails(BAD, "an event of more than", text="Hel")),
    Fault("an event of a megabyte", lambda a: [sse(a.text("x" * 1_000_000), a.end(), DONE)], answers("x" * 1_000_000)),
    Fault("an error in mid-stream", lambda a: [sse(a.text("Hel"), a.error("CUDA out of memory"))], fails(SERVER, "failed while answering: CUDA out of memory", text="Hel")),
    Fault("an error with a status in mid-stream", lambda a: [sse(a.text("Hel"), a.error("slow down", 429))], fails(errors.LLMError, "slow down", text="Hel")),
    Fault("an error before any text", lambda a: [sse(a.begin(), a.error("overloaded"))], fails(SERVER, "overloaded")),
    Fault("an error as a text", lambda a: [sse(a.text("Hel"), event({"error": "boom"}))], fails(SERVER, "boom", text="Hel")),
    Fault("an error as the name of an event", lambda a: [sse(a.text("Hel"), b'event: error\ndata: {"message": "boom"}\n\n')], fails(SERVER, "boom", text="Hel")),
    Fault("an error as the name of an event, in words", lambda a: [sse(a.text("Hel"), b"event: error\ndata: boom\n\n")], fails(SERVER, "boom", text="Hel")),
    Fault("an error as the name of a line", lambda a: [sse(a.text("Hel"), b'error: {"message": "boom"}\n\n')], fails(SERVER, "boom", text="Hel")),
    Fault("an error with the usage", lambda a: [sse(a.text("Hel"), event({"error": {"message": "boom"}, "usage": USAGE}))], fails(SERVER, "boom", text="Hel"), apis=("chat", "completions")),
    Fault("an error that echoes the key in mid-stream", lambda a: [sse(a.text("Hel"), a.error(f"bad key {SECRET}"))], fails(SERVER, "bad key ***", text="Hel")),
    Fault("an error of many lines with control characters", lambda a: [sse(a.error("a\n\x1b[31mb\n" * 500))], fails(SERVER, "a [31mb")),
    Fault("a number where a text should be", lambda a: [sse(a.raw_text(b"<>").replace(b'"<>"', b"5"), a.text("Hello"), a.end(), DONE)], answers()),
    Fault("choices that are none", lambda a: [sse(event({"choices": 5}))], fails(BAD, "no answer of this API"), apis=("chat", "completions")),
    Fault("choices of nulls", lambda a: [sse(event({"choices": [None]}), a.text("Hello"), a.end(), DONE)], answers(), apis=("chat", "completions")),
    Fault("a call of nothing beside the answer", lambda a: [doc(a.document("Hello", function_call={"name": "", "arguments": ""}))], answers(), 1, BOTH, apis=("chat",)),
    Fault("an empty delta beside the message", lambda a: [doc({"choices": [{"index": 0, "message": {"content": "Hello"}, "delta": {}, "finish_reason": "stop"}]})], answers(), 1, BOTH, apis=("chat",)),
    Fault("NaN among the log probabilities", lambda a: [sse(a.logprobs("Hello", float("nan")), a.end(), DONE)], answers()),
    Fault("a response that failed", lambda a: [sse(a.text("Hel"), event({"type": "response.failed", "response": {"status": "failed", "error": {"message": "boom"}}}))], fails(SERVER, "boom", text="Hel"), apis=("responses",)),
    Fault("an output of nulls", lambda a: [doc({**a.document("Hello"), "output": [None]})], fails(BAD, "no answer of this API"), apis=("responses",)),
]

EMPTINESS = [
    Fault("no text", lambda a: [sse(a.begin(), a.end(), DONE)], fails(EMPTY, "empty answer", "finish reason stop")),
    Fault("no text and the usage", lambda a: [sse(a.begin(), a.end("stop", {"prompt_tokens": 3, "completion_tokens": 1}), DONE)], fails(EMPTY, "3 tokens in and 1 out")),
    Fault("no text and an end mark alone", lambda a: [sse(a.begin(), DONE)], fails(EMPTY, "empty answer")),
    Fault("an end mark alone", lambda a: [sse(DONE)], fails(BAD, "answered with nothing")),
    Fault("a document of null", lambda a: [doc(a.document(None))], fails(EMPTY, "empty answer"), 1, BOTH),
    Fault("a document of no text", lambda a: [doc(a.document(""))], fails(EMPTY, "empty answer"), 1, BOTH),
    Fault("reasoning alone", lambda a: [sse(a.reasoning("hm"), a.end("stop", USAGE), DONE)], fails(EMPTY, "all of its 2 tokens went into its reasoning", reasoning="hm")),
    Fault("reasoning alone, as a whole", lambda a: [doc(a.document(None, usage=USAGE, reasoning_content="hm"))], fails(EMPTY, "went into its reasoning", reasoning="hm"), 1, WHOLE),
    Fault("reasoning in tags alone", lambda a: [sse(a.text("<think>hm</think>"), a.end(), DONE)], fails(EMPTY, "went into its reasoning", reasoning="hm")),
    Fault("hidden reasoning alone", lambda a: [sse(a.begin(), a.end("stop", {**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}), DONE)], fails(EMPTY, "went into its reasoning")),
    Fault("a finish reason for calls, and no call", lambda a: [sse(a.begin(), a.end("tool_calls"), DONE)], fails(EMPTY, "no call came"), apis=("chat",)),
    Fault("no text at the limit of tokens", lambda a: [sse(a.begin(), a.end("length"), DONE)], answers("", "length")),
    Fault("no text by a filter", lambda a: [sse(a.begin(), a.end("content_filter"), DONE)], answers("", "content_filter")),
    Fault("white space alone", lambda a: [sse(a.text(" "), a.end(), DONE)], answers(" ")),
    Fault("choices of none", lambda a: [doc({"choices": [], "usage": USAGE})], fails(EMPTY, "empty answer"), 1, BOTH, apis=("chat", "completions")),
    Fault("a response that waits", lambda a: [doc({**a.document(None), "status": "queued"})], fails(EMPTY, "queued"), 1, WHOLE, apis=("responses",)),
    Fault("an item and no text", lambda a: [doc({**a.document(None), "output": [{"type": "image_generation_call", "result": "aGk="}]})], answers(""), 1, WHOLE, apis=("responses",)),
]

NUMBERS = {"NaN": "NaN", "1e999": "1e999", "a text": '"12"', "null": "null", "negative": "-5", "true": "true", "a list": "[1]", "an object": '{"a": 1}', "a number without end": "9" * 400, "a fraction": "2.0"}
ODD_USAGE = [
    *[Fault(f"usage that is {name}", lambda a, value=value: [sse(a.text("Hello"), a.end("stop", {**USAGE, "completion_tokens": "<>"}).replace(b'"<>"', value.encode()), DONE)], answers(usage=(3, 2 if name == "a fraction" else 0))) for name, value in NUMBERS.items()],  # type: ignore[misc]  # as above
    *[Fault(f"usage that is {name}, as a whole", lambda a, value=value: [doc(json.dumps(a.document("Hello", usage={"prompt_tokens": "<>", "completion_tokens": "<>"})).replace('"<>"', value).encode())], answers(usage=(2, 2) if name == "a fraction" else None), 1, WHOLE) for name, value in NUMBERS.items()],  # type: ignore[misc]  # as above
    Fault("a usage that is a list", lambda a: [doc(a.document("Hello", usage=[1]))], answers(), 1, BOTH),
    Fault("a usage that is a text", lambda a: [doc(a.document("Hello", usage="many"))], answers(), 1, BOTH),
    Fault("details of the usage that are lists", lambda a: [sse(a.text("Hello"), a.end("stop", {**USAGE, "prompt_tokens_details": [1], "completion_tokens_details": "x"}), DONE)], answers(usage=(3, 2))),
    Fault("a cost that is NaN", lambda a: [sse(a.text("Hello"), a.end("stop", {**USAGE, "cost": float("nan")}), DONE)], answers(usage=(3, 2))),
    Fault("a cost that is negative", lambda a: [sse(a.text("Hello"), a.end("stop", {**USAGE, "cost": -1}), DONE)], answers(usage=(3, 2))),
]


def more_of(data: bytes, seconds: float) -> Iterable[Step]:
    """Return a step again and again, with a pause after each."""
    return (step for _ in repeat(0) for step in (data, seconds))


def flushed(data: bytes) -> bytes:
    """Return a beginning of packed data that can be unpacked at once."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)


FAULTS: tuple[Fault, ...] = (*CONNECTION, *HEAD, *BODY, *STATUS, *BROKEN_OFF, *SILENCE, *EVENTS, *EMPTINESS, *ODD_USAGE)
