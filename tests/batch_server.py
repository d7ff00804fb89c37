"""A server with Files and Batches routes that works through what it is sent, and misbehaves as its knobs say.

It reads the uploaded JSONL, moves a batch on by the polls it sees (not by time), writes output and error files, and
remembers what was uploaded, created and polled. All knobs can be turned while it runs. In a process of its own:

    python tests/batch_server.py PORT STATE_FILE

writes its address and what it remembers into the file, and takes knobs as JSON at `POST /knobs`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import random
import re
import struct
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import echo
from servers import HANG, RESET, Answer, Received, ScriptedServer, Step, document

Row = dict[str, Any]
Rows = Collection[int | str]
"""Rows by the number of their line in the input file, from 1, or by their `custom_id`."""

ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions")
ENDED = ("completed", "failed", "expired", "cancelled")
ROUTES = {
    ("POST", "files", False, ""): "upload",
    ("GET", "files", False, ""): "files",
    ("GET", "files", True, ""): "file",
    ("GET", "files", True, "content"): "content",
    ("DELETE", "files", True, ""): "delete",
    ("POST", "batches", False, ""): "create",
    ("GET", "batches", False, ""): "list",
    ("GET", "batches", True, ""): "poll",
    ("POST", "batches", True, "cancel"): "cancel",
}
"""The name of each route: method, collection, with an id, and what follows it. Any path may stand before."""


@dataclass(frozen=True)
class Failure:
    """What an `answer` returns for a row that fails."""

    message: str = "broken"
    status: int = 400
    code: str | None = None
    type: str = "invalid_request_error"
    param: str | None = None

    @property
    def error(self) -> dict[str, Any]:
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


@dataclass(frozen=True)
class Fault:
    """What befalls one request of a route (each one, where it `lasts`) in place of its answer.

    `status` None closes the connection without a word; `after`: what was asked is done before; `hang`: the client
    waits for ever; `cut`: half of the answer, then the connection is `"reset"` or `"ended"` as if that were all.
    """

    status: int | None = None
    after: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    hang: bool = False
    cut: Literal["reset", "ended", ""] = ""
    lasts: bool = False


CLOSED = Fault()
CLOSED_AFTER = Fault(after=True)
BROKEN = Fault(500)
BROKEN_AFTER = Fault(500, after=True)
SILENT = Fault(hang=True)
SILENT_AFTER = Fault(hang=True, after=True)
CUT = Fault(cut="reset")
CUT_UNSEEN = Fault(cut="ended")
NO_ROUTE = Fault(404, body={"detail": "Not Found"}, lasts=True)


def too_many(retry_after: str = "0") -> Fault:
    """Return the fault of a server that is asked too often."""
    return Fault(429, headers={"retry-after": retry_after})


def said(line: Row) -> dict[str, Any] | Failure:
    """Answer a line with what its prompt tells (`SAY Hello`), else with the prompt; `SAY FAIL` fails."""
    asked = line["body"]
    if line["url"].endswith("/embeddings"):
        return _embeddings(asked)
    prompt = echo.texts(asked if not isinstance(asked.get("input"), str) else {"prompt": asked["input"]})[-1]
    text = prompt.partition("SAY ")[2].partition("\n")[0] if "SAY " in prompt else prompt
    if text == "FAIL":
        return Failure(status=500, type="server_error")
    head = {"id": f"answer-{line['custom_id']}", "created": 1, "model": asked["model"]}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    if line["url"].endswith("/responses"):
        part = {"type": "output_text", "text": text, "annotations": []}
        item = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        used = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
        return {**head, "object": "response", "created_at": 1, "status": "completed", "output": [item], "usage": used}
    count = range(asked.get("n") or 1)
    if line["url"].endswith("/chat/completions"):
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        finish = "stop"
        if asked.get("tools") and asked.get("tool_choice") != "none":
            function = {"name": asked["tools"][0]["function"]["name"], "arguments": '{"x": 1}'}
            message |= {"content": None, "tool_calls": [{"id": "c0", "type": "function", "function": function}]}
            finish = "tool_calls"
        choices = [{"index": at, "message": message, "logprobs": None, "finish_reason": finish} for at in count]
        return {**head, "object": "chat.completion", "choices": choices, "usage": usage}
    texts = [{"index": at, "text": text, "logprobs": None, "finish_reason": "stop"} for at in count]
    return {**head, "object": "text_completion", "choices": texts, "usage": usage}


def _embeddings(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the vectors of a body's texts: each the text's length and 1."""
    inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    vectors: list[Any] = [[float(len(text)), 1.0] for text in inputs]
    if asked.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{len(each)}f", *each)).decode() for each in vectors]
    data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
    used = {"prompt_tokens": len(data), "total_tokens": len(data)}
    return {"object": "list", "data": data, "model": asked["model"], "usage": used}


@dataclass(kw_only=True)
class Knobs:
    """How the server behaves; as built, it does everything right."""

    answer: Callable[[Row], dict[str, Any] | Failure] = said
    """What becomes of a line."""
    direct: Callable[[Received], Answer] = echo.answer
    """What answers a request to any other route."""

    validating: int = 1
    in_progress: int = 1
    finalizing: int = 1
    cancelling: int = 1
    """The polls that a batch stays in each status."""
    clock: Callable[[], float] = time.time
    """Unix time, of the headers, too."""
    window: int = 86_400
    """Seconds until a batch expires, by the clock."""
    says_expiry: bool = True
    ends: Literal["completed", "expired", "cancelled", "failed", "never"] = "completed"
    """What comes after the polls in progress; `"never"`: it stays there for ever."""
    rows_done: int | None = None
    """The rows that an expired, cancelled or failed batch has results of; all by default."""
    lists_undone: bool = True
    """Whether the error file names the rows without results."""

    invalid: dict[int | str, dict[str, Any]] = field(default_factory=dict)
    """Rows that fail the validation of the whole batch: `code`, `message`, `param`, all optional."""
    failures: dict[int | str, Failure] = field(default_factory=dict)
    """Rows that fail, whatever `answer` says."""
    failed_rows: Literal["openai", "llama-stack", "vllm", "vllm-text"] = "openai"
    """Whose shape a failed row has; vLLM's stand in the output file, their error an object or a mere text."""
    string_bodies: bool = False
    output_file: Literal["needed", "none", "blank"] = "needed"
    error_file: Literal["needed", "always", "never", "blank"] = "needed"
    """`"none"`, `"never"`: its id is null, whatever there is; `"blank"`: `""` where there is nothing to tell."""
    counts: Literal["true", "late", "zero", "null"] = "true"
    order: Literal["asked", "reversed", "shuffled"] = "asked"
    twice: Rows = ()
    missing: Rows = ()
    torn: Rows = ()
    """Rows whose line breaks off in its middle."""
    unknown: Collection[str] = ()
    """`custom_id`s that nobody sent, each with a result."""
    edit: Callable[[bytes], bytes] = bytes
    """What is done to each output file at the end."""

    endpoints: Collection[str] = ENDPOINTS
    """What a batch may be created for."""
    one_endpoint: bool = True
    """Whether its lines have to name the same; Azure's name their own API."""
    metadata: Literal["kept", "dropped", "null"] = "kept"
    page_size: int = 20
    keys: Collection[str] | None = None
    """The keys that are taken; None: any, or none."""
    hidden: Collection[str] = ()
    """Files and batches of another account."""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    """What befalls the next requests of a route (see `ROUTES`), one after the other."""
    slow: float = 0.0
    """Seconds before each answer."""


@dataclass
class Upload:
    """One file that was uploaded."""

    id: str
    filename: str
    purpose: str
    size: int
    fields: dict[str, str]
    headers: dict[str, str] = field(repr=False)


@dataclass
class Created:
    """One batch that was created."""

    id: str
    body: dict[str, Any]
    headers: dict[str, str] = field(repr=False)


@dataclass
class File:
    """A file that the server has."""

    content: bytes = field(repr=False)
    about: dict[str, Any]


@dataclass
class _Batch:
    about: dict[str, Any]
    rows: list[Row]
    polls: int = 0
    """The polls it has seen in its present status."""


class BatchServer(Knobs, ScriptedServer):
    """The server; use it as a context manager. Keyword arguments are its knobs, attributes of the same names.

    Lines and files are validated as OpenAI's reference describes (https://platform.openai.com/docs/api-reference/batch).
    """

    def __init__(self, port: int = 0, **knobs: Any) -> None:
        ScriptedServer.__init__(self, self._respond)
        Knobs.__init__(self, **knobs)
        self.port = port
        self.files: dict[str, File] = {}
        self.batches: dict[str, _Batch] = {}
        self.uploads: list[Upload] = []
        self.created: list[Created] = []
        self.polls: list[str] = []
        self.fetched: list[str] = []
        self.cancelled: list[str] = []
        self.deleted: list[str] = []
        self.asked: list[str] = []
        """The route of every request, those that failed, too; `"direct"` for any other."""
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Refuse every connection meanwhile, and end those that are open."""
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(5)
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)

    async def _leave(self) -> None:
        self._listening.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    def recorded(self) -> dict[str, Any]:
        """Return all that it remembers, as JSON."""
        lists = {name: getattr(self, name) for name in ("polls", "fetched", "cancelled", "deleted", "asked")}
        made = {name: [asdict(each) for each in getattr(self, name)] for name in ("uploads", "created")}
        return {"url": self.url, **made, **lists, "batches": [each.about for each in self.batches.values()]}

    def rows(self, batch_id: str) -> list[Row]:
        """Return the lines that a batch was created of."""
        return self.batches[batch_id].rows

    # Requests

    def _respond(self, received: Received) -> Answer:
        answer = self._faulty(received)
        if self.slow:
            answer.steps = [self.slow, *answer.steps]
        answer.headers = {"date": formatdate(self.clock(), usegmt=True), **answer.headers}
        return answer

    def _faulty(self, received: Received) -> Answer:
        path = urlsplit(received.path).path
        found = re.search(r"/(files|batches)(?:/([^/]+))?(?:/(content|cancel))?$", path)
        parts = found.groups(default="") if found else ("", "", "")
        route = ROUTES.get((received.method, parts[0], bool(parts[1]), parts[2]), "direct")
        self.asked.append(route)
        key = received.headers.get("authorization", "").removeprefix("Bearer ") or received.headers.get("api-key")
        if self.keys is not None and key not in self.keys:
            return _refused(401, "Incorrect API key provided.", "invalid_api_key")
        waiting = self.faults.get(route)
        fault = (waiting[0] if waiting[0].lasts else waiting.pop(0)) if waiting else None
        if fault and not fault.after and not fault.cut:
            return _failing(fault)
        answer = self.direct(received) if route == "direct" else getattr(self, f"_{route}")(received, parts[1])
        if fault and fault.cut:
            whole = b"".join(step for step in answer.steps if isinstance(step, bytes))
            half: list[Step] = [whole[: len(whole) // 2]]
            return Answer(
                [*half, RESET] if fault.cut == "reset" else half, 200, answer.headers, chunked=fault.cut == "reset"
            )
        return _failing(fault) if fault else answer

    def _upload(self, received: Received, _: str) -> Answer:
        fields, filename, content = multipart(received)
        made = self._keep(content, filename, fields.get("purpose", ""))
        headers = received.headers
        self.uploads.append(Upload(made["id"], filename, made["purpose"], len(content), fields, headers))
        return document(made)

    def _keep(self, content: bytes, filename: str, purpose: str) -> dict[str, Any]:
        about: dict[str, Any] = {
            "id": f"file-{next(self._numbers)}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(self.clock()),
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
        }
        self.files[about["id"]] = File(content, about)
        return about

    def _files(self, received: Received, _: str) -> Answer:
        return self._page(received, [each.about for each in self.files.values()])

    def _file(self, _: Received, file_id: str) -> Answer:
        return document(self.files[file_id].about) if self._has(file_id) else _no_file(file_id)

    def _content(self, _: Received, file_id: str) -> Answer:
        if not self._has(file_id):
            return _no_file(file_id)
        self.fetched.append(file_id)
        return Answer([self.files[file_id].content], headers={"content-type": "application/octet-stream"})

    def _delete(self, _: Received, file_id: str) -> Answer:
        if not self._has(file_id):
            return _no_file(file_id)
        del self.files[file_id]
        self.deleted.append(file_id)
        return document({"id": file_id, "object": "file", "deleted": True})

    def _create(self, received: Received, _: str) -> Answer:
        asked = received.json
        file_id = str(asked.get("input_file_id"))
        if not self._has(file_id):
            return _no_file(file_id, 400)
        if asked.get("endpoint") not in self.endpoints or asked.get("completion_window") != "24h":
            return _refused(400, "Invalid endpoint or completion_window.", "invalid_value")
        told = asked.get("metadata") or {}
        texts = all(isinstance(text, str) and len(text) <= 512 for text in told.values())
        if len(told) > 16 or not texts or any(len(name) > 64 for name in told):
            return _refused(400, "Invalid metadata.", "invalid_metadata")
        rows, errors = self._read_input(self.files[file_id].content, asked["endpoint"])
        now = int(self.clock())
        about: dict[str, Any] = {
            "id": f"batch_{next(self._numbers)}",
            "object": "batch",
            "endpoint": asked["endpoint"],
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": file_id,
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + self.window,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": asked.get("metadata"),
        }
        self.batches[about["id"]] = _Batch(about, rows)
        self.created.append(Created(about["id"], asked, received.headers))
        return document(self._shown(about))

    def _list(self, received: Received, _: str) -> Answer:
        shown = [self._shown(each.about) for each in reversed(self.batches.values())]
        return self._page(received, [about for about in shown if about["id"] not in self.hidden])

    def _poll(self, _: Received, batch_id: str) -> Answer:
        self.polls.append(batch_id)
        if not self._has(batch_id):
            return _no_batch(batch_id)
        self._move(self.batches[batch_id])
        return document(self._shown(self.batches[batch_id].about))

    def _cancel(self, _: Received, batch_id: str) -> Answer:
        if not self._has(batch_id):
            return _no_batch(batch_id)
        batch = self.batches[batch_id]
        if batch.about["status"] in ENDED:
            return _refused(409, f"Cannot cancel a batch with status '{batch.about['status']}'.", "invalid_state")
        self.cancelled.append(batch_id)
        self._enter(batch, "cancelling")
        batch.polls = 0
        return document(self._shown(batch.about))

    def _has(self, name: str) -> bool:
        return (name in self.files or name in self.batches) and name not in self.hidden

    def _page(self, received: Received, entries: list[dict[str, Any]]) -> Answer:
        query = dict(parse_qsl(urlsplit(received.path).query))
        ids = [each["id"] for each in entries]
        first = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
        last = first + min(int(query.get("limit", self.page_size)), self.page_size)
        part = entries[first:last]
        ends = {"first_id": part[0]["id"], "last_id": part[-1]["id"]} if part else {"first_id": None, "last_id": None}
        return document({"object": "list", "data": part, **ends, "has_more": last < len(entries)})

    def _shown(self, about: dict[str, Any]) -> dict[str, Any]:
        """Return a batch as the knobs have it told."""
        shown = dict(about)
        if self.metadata == "dropped":
            del shown["metadata"]
        elif self.metadata == "null":
            shown["metadata"] = None
        if not self.says_expiry:
            shown["expires_at"] = None
        if self.counts == "null":
            shown["request_counts"] = None
        elif self.counts == "zero" or (self.counts == "late" and about["status"] not in ENDED):
            shown["request_counts"] = {"total": 0, "completed": 0, "failed": 0}
        return shown

    # Batches

    def _read_input(self, content: bytes, endpoint: str) -> tuple[list[Row], list[dict[str, Any]]]:
        """Return the lines of an input file, and what is wrong with them."""
        rows: list[Row] = []
        errors: list[dict[str, Any]] = []
        seen: dict[str, int] = {}
        for number, line in enumerate(content.splitlines(), 1):
            row, wrong = _read_line(line, endpoint if self.one_endpoint else None)
            name = row.get("custom_id", "")
            if not wrong and name in seen:
                wrong = (
                    "duplicate_custom_id",
                    f"The custom_id '{name}' stands in line {seen[name]}, too.",
                    "custom_id",
                )
            if not wrong and rows and rows[0]["body"].get("model") != row["body"].get("model"):
                wrong = ("mismatched_model", "All lines must name the same model.", "body.model")
            if chosen := self.invalid.get(number) or self.invalid.get(name):
                default = ("invalid_request", "This line is invalid.", None)
                wrong = tuple(
                    chosen.get(at, value) for at, value in zip(("code", "message", "param"), default, strict=True)
                )
            if wrong:
                errors.append({"code": wrong[0], "line": number, "message": wrong[1], "param": wrong[2]})
            seen.setdefault(name, number)
            rows.append({"url": "", "body": {}, **row})
        if not rows or len(rows) > 50_000:
            errors.append({"code": "invalid_size", "line": None, "message": "1 to 50,000 lines.", "param": None})
        return rows, errors

    def _move(self, batch: _Batch) -> None:
        """Count a poll, and put the batch into the status it has by now."""
        batch.polls += 1
        about = batch.about
        late = self.clock() >= about["expires_at"] and self.ends != "never"
        if late and about["status"] not in (*ENDED, "cancelling"):
            self._finish(batch, "expired")
        while about["status"] not in ENDED and batch.polls > getattr(self, about["status"]):
            match about["status"]:
                case "validating" if about["errors"]:
                    about["failed_at"] = int(self.clock())
                    self._enter(batch, "failed")
                case "validating":
                    self._enter(batch, "in_progress")
                    about["request_counts"] = {"total": len(batch.rows), "completed": 0, "failed": 0}
                case "in_progress" if self.ends == "never":
                    return
                case "in_progress" if self.ends == "completed":
                    self._enter(batch, "finalizing")
                case "cancelling":
                    self._finish(batch, "cancelled")
                case _:
                    self._finish(batch, self.ends if self.ends != "never" else "completed")

    def _enter(self, batch: _Batch, status: str) -> None:
        batch.about |= {"status": status, f"{status}_at": int(self.clock())}
        batch.polls = 1

    def _finish(self, batch: _Batch, status: str) -> None:
        """Write the files of a batch that ends so."""
        self._enter(batch, status)
        about = batch.about
        undone = {"completed": "", "expired": "batch_expired"}.get(status, "batch_cancelled")
        done = len(batch.rows) if status == "completed" or self.rows_done is None else self.rows_done
        output: list[bytes] = []
        errors: list[bytes] = []
        failed = 0
        for number, row in enumerate(batch.rows, 1):
            if number > done and not self.lists_undone:
                continue
            chosen = Failure("This request was not executed.", 0, undone) if number > done else None
            result = chosen or _of(self.failures, number, row) or self.answer(row)
            failed += isinstance(result, Failure)
            if self._is(self.missing, number, row):
                continue
            line = json.dumps(self._result(number, row["custom_id"], result)).encode()
            if self._is(self.torn, number, row):
                line = line[: len(line) // 2]
            inside = isinstance(result, dict) or (self.failed_rows.startswith("vllm") and not chosen)
            (output if inside else errors).extend([line] * (1 + self._is(self.twice, number, row)))
        strangers = [self._result(0, name, self.answer({**batch.rows[0], "custom_id": name})) for name in self.unknown]
        output += [json.dumps(line).encode() for line in strangers]
        if self.order == "reversed":
            output.reverse()
        elif self.order == "shuffled":
            random.Random(0).shuffle(output)  # noqa: S311 - not for a secret
        total = len(batch.rows)
        about["request_counts"] = {"total": total, "completed": min(done, total) - failed, "failed": failed}
        if undone:
            about["request_counts"]["completed"] = sum(b'"error": null' in line for line in output)
        content = self.edit(b"".join(line + b"\n" for line in output))
        if content and self.output_file == "needed":
            about["output_file_id"] = self._keep(content, f"{about['id']}_output.jsonl", "batch_output")["id"]
        elif self.output_file == "blank":
            about["output_file_id"] = ""
        content = b"".join(line + b"\n" for line in errors)
        if self.error_file == "always" or (content and self.error_file != "never"):
            about["error_file_id"] = self._keep(content, f"{about['id']}_error.jsonl", "batch_output")["id"]
        elif self.error_file == "blank":
            about["error_file_id"] = ""

    def _is(self, rows: Rows, number: int, row: Row) -> bool:
        return number in rows or row["custom_id"] in rows

    def _result(self, number: int, name: str, result: dict[str, Any] | Failure) -> Row:
        """Return a row's line in the output or the error file."""
        line: Row = {"id": f"batch_req_{number}", "custom_id": name}
        if isinstance(result, dict):
            body: Any = json.dumps(result) if self.string_bodies else result
            return {
                **line,
                "response": {"status_code": 200, "request_id": f"req_{number}", "body": body},
                "error": None,
            }
        if not result.status:  # never asked
            return {**line, "response": None, "error": {"code": result.code, "message": result.message}}
        if self.failed_rows == "llama-stack":
            return {**line, "error": {"type": result.type, "message": result.message}}
        body = {"error": result.error}
        response = {"status_code": result.status, "request_id": f"req_{number}", "body": body}
        if self.failed_rows.startswith("vllm"):
            error = body if self.failed_rows == "vllm" else result.message
            return {**line, "response": {**response, "body": None}, "error": error}
        return {
            **line,
            "response": {**response, "body": json.dumps(body) if self.string_bodies else body},
            "error": None,
        }


def _of(failures: dict[int | str, Failure], number: int, row: Row) -> Failure | None:
    return failures.get(number) or failures.get(row["custom_id"])


def _read_line(line: bytes, endpoint: str | None) -> tuple[Row, tuple[Any, ...]]:
    """Return a line of an input file, and what is wrong with it: code, message, parameter, or nothing."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}, ("invalid_json_line", "This line is not parseable as valid JSON.", None)
    if not isinstance(row, dict) or not isinstance(row.get("body"), dict):
        return {}, ("missing_required_parameter", "Missing required parameter: 'body'.", "body")
    if not isinstance(row.get("custom_id"), str):
        return row, ("missing_required_parameter", "Missing required parameter: 'custom_id'.", "custom_id")
    if row.get("method") != "POST" or (endpoint and row.get("url") != endpoint):
        return row, ("invalid_url", "The URL must be the batch's endpoint, the method POST.", "url")
    if row["body"].get("stream"):
        return row, ("invalid_request", "A batch cannot stream.", "body.stream")
    return row, ()


def at_once(server: BatchServer) -> Callable[[Received], Answer]:
    """Return what answers a request as the same line of a batch is answered."""

    def answer(received: Received) -> Answer:
        url = "/v1" + received.path.partition("?")[0].rpartition("/v1")[2]
        found = server.answer({"custom_id": "0", "url": url, "body": received.json})
        return document({"error": found.error}, found.status) if isinstance(found, Failure) else document(found)

    return answer


def multipart(received: Received) -> tuple[dict[str, str], str, bytes]:
    """Return a form's fields, and the name and the content of its file."""
    boundary = re.search(r'boundary="?([^";]+)', received.headers["content-type"])
    assert boundary, received.headers["content-type"]
    fields: dict[str, str] = {}
    filename, content = "", b""
    for part in (b"\r\n" + received.body).split(b"\r\n--" + boundary[1].encode())[1:-1]:
        head, _, body = part.partition(b"\r\n\r\n")
        names = dict(re.findall(r'(\bname|filename)="([^"]*)"', head.decode()))
        if names["name"] == "file":
            filename, content = names.get("filename", ""), body
        else:
            fields[names["name"]] = body.decode()
    return fields, filename, content


def _failing(fault: Fault) -> Answer:
    if fault.hang:
        return Answer([HANG], raw=True)
    if fault.status is None:
        return Answer([RESET], raw=True)
    body = {"error": {"message": "scripted", "type": "server_error"}} if fault.body is None else fault.body
    return document(body, fault.status, dict(fault.headers))


def _refused(status: int, message: str, code: str) -> Answer:
    told = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return document({"error": told}, status)


def _no_file(file_id: str, status: int = 404) -> Answer:
    return _refused(status, f"No such File object: {file_id}", "not_found")


def _no_batch(batch_id: str) -> Answer:
    return _refused(404, f"No batch found with id '{batch_id}'.", "not_found")


def turn(server: BatchServer, knobs: dict[str, Any]) -> None:
    """Turn knobs that came as JSON: faults and failures as objects, a clock as the time at which it stands."""
    for name, value in knobs.items():
        assert hasattr(server, name), name
        match name:
            case "faults":
                turned: Any = {route: [Fault(**each) for each in faults] for route, faults in value.items()}
            case "failures":
                turned = {_number(row): Failure(**each) for row, each in value.items()}
            case "invalid":
                turned = {_number(row): each for row, each in value.items()}
            case "clock":
                turned = lambda value=value: value  # noqa: E731
            case _:
                turned = value
        setattr(server, name, turned)


def _number(row: str) -> int | str:
    return int(row) if row.isdecimal() else row


def main(port: int, state: Path) -> None:
    """Serve until the process is ended."""
    server = BatchServer(port)
    scripted = server.script.pop()
    assert callable(scripted)

    def respond(received: Received) -> Answer:
        if received.path == "/knobs":
            turn(server, received.json)
            answer = document({})
        else:
            answer = scripted(received)
        write()
        return answer

    def write() -> None:
        written = state.with_suffix(".part")
        written.write_text(json.dumps(server.recorded()))
        written.replace(state)

    server.script.append(respond)
    with server:
        write()
        server._thread.join()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
