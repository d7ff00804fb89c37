"""A server of the OpenAI protocol that keeps every byte it receives; also a forward proxy, and with TLS."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Seen:
    """One request: `raw` is the whole of it, `headers` have names in lower case, `peer` is the client's address."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    peer: str
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def _chat(model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hello"}
    return {
        "id": "c1",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }


def _chunks(model: str) -> bytes:
    delta = {"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    documents = [{"id": "c1", "model": model, "choices": [choice]} for choice in (delta, last)]
    return b"".join(b"data: " + json.dumps(item).encode() + b"\n\n" for item in documents) + b"data: [DONE]\n\n"


def _responses(model: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": "Hello", "annotations": []}]
    return {
        "id": "r1",
        "object": "response",
        "status": "completed",
        "model": model,
        "output": [{"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": content}],
        "usage": {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        raw = self.requestline.encode() + b"\r\n" + bytes(self.headers) + body
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.recorder.requests.append(Seen(self.command, self.path, headers, body, self.client_address[0], raw))
        if self.path.startswith("http://"):
            self._forward(body)
            return
        status, kind, content = self.server.recorder.answer(self.path, body)
        self._send(status, kind, content)

    def _forward(self, body: bytes) -> None:
        headers = {
            k: v for k, v in self.headers.items() if k.lower() not in {"host", "proxy-authorization", "connection"}
        }
        request = urllib.request.Request(self.path, data=body or None, headers=headers, method=self.command)  # noqa: S310 - a server of our own
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
            self._send(response.status, response.headers["content-type"], response.read())

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in self.server.recorder.headers.items():
            self.send_header(name, value)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    recorder: Recorder

    def handle_error(self, *_: object) -> None:
        """A client that leaves is no failure of a test."""


class Recorder:
    """The server, on a thread of its own; use it as a context manager.

    `models` is what it lists; `headers` go with every answer; `fixed` answers every request with one status and
    document.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.requests: list[Seen] = []
        self.models: list[dict[str, Any]] = [{"id": "alpha", "object": "model", "owned_by": "test"}]
        self.headers: dict[str, str] = {}
        self.fixed: tuple[int, str, bytes] | None = None
        self._server = _Server((host, 0), _Handler)
        self._server.recorder = self
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def root(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def received(self) -> bytes:
        """Every byte of every request."""
        return b"".join(seen.raw for seen in self.requests)

    @property
    def last(self) -> Seen:
        return self.requests[-1]

    def answer(self, path: str, body: bytes) -> tuple[int, str, bytes]:
        if self.fixed is not None:
            return self.fixed
        where = path.partition("?")[0]
        asked = json.loads(body) if body else {}
        model = asked.get("model", "")
        if where.endswith("/models"):
            document: Any = {"object": "list", "data": self.models}
        elif where.endswith("/tokenize"):
            document = {"count": len(str(asked).split())}
        elif where.endswith("/responses"):
            document = _responses(model)
        elif where.endswith("/chat/completions"):
            if asked.get("stream"):
                return 200, "text/event-stream", _chunks(model)
            document = _chat(model)
        elif where.endswith("/completions"):
            choice = {"index": 0, "text": "Hello", "finish_reason": "stop"}
            document = {"id": "c1", "object": "text_completion", "model": model, "choices": [choice]}
        elif where.endswith("/embeddings"):
            rows = [{"object": "embedding", "index": i, "embedding": [0.5]} for i in range(len(asked["input"]))]
            document = {"object": "list", "data": rows, "model": model}
        else:
            return 404, "application/json", b'{"error": {"message": "Not Found"}}'
        return 200, "application/json", json.dumps(document).encode()
