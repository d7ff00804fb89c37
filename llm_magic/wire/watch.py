"""One call, watched: what became of each of its attempts, which failures are not repeated, where keys may not go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

from llm_magic.errors import Origin
from llm_magic.events import Attempt
from llm_magic.wire.documents import parse
from llm_magic.wire.error_body import ErrorBody, one_line, read_error_body
from llm_magic.wire.secrets import hide, illegal_header, is_secret, request_id, retry_after

MAX_RETRY_AFTER = 120.0
"""Seconds; asked to wait longer, a request is given up. openai 3 does so itself, openai 2 would not wait."""

_PERMANENT = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "content_filter",
        "content_policy_violation",
        "not_supported_error",
        "exceed_context_size_error",
        "context_length_exceeded",
        "invalid_request_error",
        "model_not_found",
    }
)
_HOPELESS = (
    "certificate verify failed",
    "certificate_verify_failed",
    "wrong_version_number",
    "record layer failure",
    "name or service not known",
    "nodename nor servname",
    "getaddrinfo failed",
    "no address associated",
)
"""What a failure to connect says when the next attempt would fail alike. A refused one may be a server that starts."""

_PERMANENT_WORDS = (
    "image input is not supported",
    "mmproj",
    "exceeds the available context size",
    "increase the physical batch size",
)


class Halt(BaseException):
    """Ends a request from inside a hook. Not an Exception: the SDK retries and wraps those."""


@dataclass
class Watch:
    """One call, watched by the hooks: what it may do, and what became of its attempts."""

    origin: Origin
    max_retries: int
    announce: Callable[[Attempt], None]
    secrets: tuple[str, ...] = ()
    preview: bool = False
    timeout: float | None = None
    deadline: Callable[[float | None], None] = lambda _: None
    captured: Any = None
    redirect: str = ""
    """Where the server sent a request that cannot follow."""
    cause: Exception | None = None
    """Why no attempt can succeed, found out before or while connecting."""
    attempts: list[Attempt] = field(default_factory=list)
    _started: float | None = None
    _host: tuple[str, str] | None = None
    _hop: bool = False
    _taken: int = 0

    def began(self, request: Any) -> None:
        """Take note of a request that is about to be sent."""
        if self.preview:
            self.captured = request
            raise Halt
        url = urlsplit(str(request.url))
        if self._host is None:
            self._host = (url.scheme, url.netloc)
        elif (url.scheme, url.netloc) != self._host:
            for name in list(request.headers):
                if is_secret(name) or name.lower().startswith("openai-"):
                    del request.headers[name]
        if self._hop:
            self._hop = False
            return
        self.lost("")
        self._taken = int(request.headers.get("x-stainless-retry-count") or 0)
        self._started = time.perf_counter()
        for name, value in request.headers.items():
            if illegal_header(name, value) is not None:
                self._started = None
                self.cause = ValueError("Illegal header value")
                raise Halt
        self.deadline(self.timeout)

    def failed(self, step: str, info: Any) -> None:
        """Take note of a step of the connection that failed, as the `trace` of the HTTP client tells it."""
        error = info.get("exception") if step.endswith(".failed") else None
        if not isinstance(error, Exception) or self._started is None:
            return
        slow = "Timeout" in type(error).__name__
        reason = "" if slow else one_line(str(error), 200)
        hopeless = not slow and any(words in str(error).lower() for words in _HOPELESS)
        self.lost(reason, final=hopeless or self._taken >= self.max_retries)
        if hopeless:
            self.cause = error
            raise Halt

    def lost(self, reason: str, *, final: bool = False) -> None:
        """Take note that the attempt under way got no answer."""
        if self._started is None:
            return
        seconds = time.perf_counter() - self._started
        if not reason:
            slow = self.timeout is not None and seconds >= self.timeout
            reason = f"no answer within {self.timeout:g} s" if slow else "no connection"
        self._note(None, reason, None, None, final=final)

    def unseen(self, error: Exception | None) -> None:
        """Take note of how a call ended whose client cannot be hooked: as one attempt, however many there were."""
        status = 200 if error is None else getattr(error, "status_code", None)
        self._note(
            status, "" if error is None else one_line(hide(str(error), self.secrets), 200), None, None, final=True
        )

    def answered(self, response: Any, body: bytes) -> None:
        """Take note of an answer's status; a permanent failure is marked so that the SDK does not repeat it."""
        self.deadline(None)
        status = int(response.status_code)
        if status < HTTPStatus.BAD_REQUEST:
            self._note(status, "", request_id(response.headers), None, final=True)
            return
        complaint = read_error_body(_document(body))
        wait = retry_after(response.headers)
        if is_permanent(status, complaint) or (wait is not None and wait > MAX_RETRY_AFTER):
            response.headers["x-should-retry"] = "false"
        again = _retries(status, response.headers, wait) and self._taken < self.max_retries
        reason = hide(complaint.message or f"HTTP {status}", self.secrets)
        self._note(status, one_line(reason, 200), request_id(response.headers), wait, final=not again)

    def redirected(self, response: Any) -> None:
        """Follow a redirect on the same host that keeps the method; end the request at any other."""
        url = str(response.request.url)
        target = urljoin(url, response.headers["location"])
        keeps = response.status_code in (307, 308) or response.request.method == "GET"
        if keeps and urlsplit(target).hostname == urlsplit(url).hostname:
            self._hop = True
            return
        self.redirect = target
        self._note(int(response.status_code), "redirected elsewhere", request_id(response.headers), None, final=True)
        raise Halt

    def _note(self, status: int | None, reason: str, identity: str | None, wait: float | None, *, final: bool) -> None:
        seconds = 0.0 if self._started is None else time.perf_counter() - self._started
        self._started = None
        attempt = Attempt(self.origin.provider, self.origin.model, status, reason, seconds, identity, wait, final)
        self.attempts.append(attempt)
        self.announce(attempt)


def is_permanent(status: int, complaint: ErrorBody) -> bool:
    """Return whether sending the same request again cannot help, though the status says that it might."""
    if status == HTTPStatus.NOT_IMPLEMENTED:  # llama.cpp: not switched on
        return True
    if complaint.words & _PERMANENT:
        return True
    said = complaint.message.lower()
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR and any(words in said for words in _PERMANENT_WORDS)


def _retries(status: int, headers: Any, wait: float | None) -> bool:
    """Return whether the SDK repeats after this answer, as its own rule has it."""
    if wait is not None and wait > MAX_RETRY_AFTER:
        return False
    said = headers.get("x-should-retry")
    if said in ("true", "false"):
        return bool(said == "true")
    return status in (408, 409, 429) or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _document(body: bytes) -> object:
    try:
        return parse(body)
    except ValueError:
        return body
