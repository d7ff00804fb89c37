"""Files and batches: what is sent, what servers tell in many ways, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import json
import math
import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import openai
import pytest
from asking import KEY, client
from servers import HANG, RESET, Answer, Received, ScriptedServer, document, page

from llm_magic import errors
from llm_magic.errors import Origin
from llm_magic.secrets import Secret
from llm_magic.wire import attempts
from llm_magic.wire.attempts import HttpRequest
from llm_magic.wire.batches import BatchRoutes, Refusal, RemoteBatch, is_ambiguous
from llm_magic.wire.file_upload import FileUpload
from llm_magic.wire.remote_batch import read_batch

BATCH = {"id": "batch_1", "object": "batch", "status": "validating", "input_file_id": "file-1"}
LINES = b'{"custom_id": "a", "response": null}\n{"custom_id": "b", "error": {"message": "no"}}\n'


@pytest.fixture(autouse=True)
def _attempts_follow_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_WAIT", 0.001)


def plain(url: str, **known: Any) -> Any:
    """Return a client that reads no certificates, which takes the longest of making one."""
    http: Any = openai.DefaultAsyncHttpxClient(verify=False)
    return client(url, http_client=http, **known)


def run(url: str, work: Callable[[BatchRoutes], Awaitable[Any]], made: Any = None, **known: Any) -> Any:
    """Do something over the routes of a server, and close the client."""

    async def do() -> Any:
        asked = made or plain(url)
        try:
            return await work(BatchRoutes(asked, Origin("there", "", url), **known))
        finally:
            closing = asked.close()
            if closing is not None:
                await closing

    return asyncio.run(do())


def created(server: ScriptedServer, made: Any = None, **known: Any) -> RemoteBatch:
    found: RemoteBatch = run(
        server.url,
        lambda routes: routes.create("file-1", "/v1/chat/completions", {"llm_magic": "d"}, key="k1"),
        **known,
    )
    return found


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"custom_id": "a"}\r\n{"custom_id": "\xc3\xa4"}\n')
    return path


def form(received: Received) -> dict[str, bytes]:
    """Return the fields of a form by their names, that of the file with the name it has."""
    boundary = received.headers["content-type"].split("boundary=")[1].encode()
    parts = received.body.split(b"--" + boundary)[1:-1]
    fields = {}
    for part in parts:
        head, _, body = part.partition(b"\r\n\r\n")
        found = re.search(rb'name="([^"]*)"(?:; filename="([^"]*)")?', head)
        assert found is not None
        fields[found[1].decode()] = (found[2] + b":" if found[2] else b"") + body[:-2]
    return fields


# upload


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_is_sent_as_a_form(lines: Path, sync: bool) -> None:
    from openai import OpenAI

    with ScriptedServer(document({"id": "file-1", "object": "file", "bytes": 5})) as server:
        made = OpenAI(base_url=server.url, api_key=KEY) if sync else None
        assert run(server.url, lambda routes: routes.upload(lines, "r 1.jsonl"), made, headers={"X-A": "1"}) == "file-1"
    received = server.requests[0]
    assert (received.method, received.path, received.headers["x-a"]) == ("POST", "/v1/files", "1")
    assert form(received) == {"purpose": b"batch", "file": b"r 1.jsonl:" + lines.read_bytes()}
    assert received.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_is_sent_again_from_its_start(lines: Path, sync: bool) -> None:
    from openai import OpenAI

    moved = Answer([], 307, {"location": "/v1/other/files"})
    busy = document({"error": {"message": "busy"}}, 503, {"retry-after-ms": "1"})
    with ScriptedServer(busy, moved, Answer([RESET]), document({"id": "file-1"})) as server:
        made = OpenAI(base_url=server.url, api_key=KEY) if sync else client(server.url)
        assert run(server.url, lambda routes: routes.upload(lines, "r"), made, max_retries=2) == "file-1"
    assert [received.path.removeprefix("/v1") for received in server.requests] == [
        "/files",
        "/files",
        "/other/files",
        "/files",
    ]
    assert len({form(received)["file"] for received in server.requests}) == 1
    assert {len(form(received)["file"]) for received in server.requests} == {len(lines.read_bytes()) + 2}


def test_a_file_goes_to_no_other_host(lines: Path) -> None:
    with ScriptedServer(document({"id": "file-1"})) as other:
        away = Answer([], 307, {"location": f"{other.url}/files"})
        with ScriptedServer(away) as server, pytest.raises(errors.EndpointNotFoundError, match="redirects from"):
            run(server.url, lambda routes: routes.upload(lines, "r"))
        assert other.connections == 0


def test_a_file_over_renewed_credentials(lines: Path) -> None:
    with ScriptedServer(document({"error": "Unauthorized"}, 401), document({"id": "file-1"})) as server:

        async def renew(old: Any) -> Any:
            return old.with_options(api_key="sk-another-key-0123456789")

        assert run(server.url, lambda routes: routes.upload(lines, "r"), renew=renew) == "file-1"
    assert [received.headers["authorization"][-10:] for received in server.requests] == [KEY[-10:], "0123456789"]
    with (
        ScriptedServer(document({"error": "Unauthorized"}, 401)) as server,
        pytest.raises(errors.AuthenticationError, match="answered 401: Unauthorized"),
    ):
        run(server.url, lambda routes: routes.upload(lines, "r"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with ScriptedServer(document({})) as server:
        with pytest.raises(errors.ConfigurationError, match=r"rows, the file .*: No such file or directory"):
            run(server.url, lambda routes: routes.upload(tmp_path / "rows", "r"))
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(errors.ConfigurationError, match="is no plain file"):
            run(server.url, lambda routes: routes.upload(tmp_path / "pipe", "r"))
        assert server.connections == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (document({"detail": "Not Found"}, 404), "it answered 404, Not Found."),
        (document({"error": {"message": "File Not Found", "code": 404}}, 404), "it answered 404, File Not Found."),
        (document({"detail": "Method Not Allowed"}, 405), "it answered 405, Method Not Allowed."),
        (document({"error": {"message": "not built"}}, 501), "it answered 501, not built."),
        (Answer([], 404), "it answered 404."),
        (page("<title>Gate</title>", 404), "it answered 404, an HTML page titled “Gate”."),
        (page("<title>Gate</title>"), "it answered 200, an HTML page titled “Gate”."),
    ],
)
def test_a_server_without_these_routes(lines: Path, answer: Answer, said: str) -> None:
    with ScriptedServer(answer) as server:
        with pytest.raises(errors.UnsupportedError) as raised:
            run(server.url, lambda routes: routes.upload(lines, "r"))
        assert raised.value.message == f"there ({server.url}) has no Files and Batches routes: {said}"
        assert raised.value.hint.startswith("--batch-file F writes the file")
        if answer.status != 200:
            with pytest.raises(errors.UnsupportedError, match="has no Files and Batches routes") as raised:
                created(server)
            assert not is_ambiguous(raised.value)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (document({"id": None}), errors.ProtocolError),
        (document({"id": ["file-1"]}), errors.ProtocolError),
        (document("file-1"), errors.ProtocolError),
        (document([]), errors.ProtocolError),
        (document({"error": {"message": "disk full"}, "id": "file-1"}), errors.ServerFailedError),
        (document({"id": "../models"}), errors.ProtocolError),
        (document({"id": f"file-{KEY}"}), errors.ProtocolError),
        (document({"error": {"message": "too large"}}, 413), errors.RequestRefusedError),
        (Answer([b"[" * 100_000]), errors.ProtocolError),
    ],
)
def test_what_is_no_file(lines: Path, answer: Answer, kind: type[errors.LLMError]) -> None:
    with ScriptedServer(answer) as server, pytest.raises(kind) as raised:
        run(server.url, lambda routes: routes.upload(lines, "r"), secrets=(Secret(KEY, key=True),))
    assert KEY not in str(raised.value)
    assert not re.search("--(dry-run|api)", str(raised.value))


def test_a_large_file_has_the_time_that_a_slow_line_takes(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with path.open("wb") as opened:
        opened.truncate(200 << 20)
    limits = [
        HttpRequest(plain("http://there.invalid"), Origin("there"), "/files", {}, timeout=seconds, file=file).longest
        for seconds in (60.0, None)
        for file in (None, FileUpload(path, "r"))
    ]
    assert limits == [130.0, 130.0 + 6400.0, 30.0, 30.0 + 6400.0]


def test_a_file_whose_sending_is_cancelled(lines: Path) -> None:
    async def work(routes: BatchRoutes) -> None:
        sending = asyncio.ensure_future(routes.upload(lines, "r"))
        while not server.requests:  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.001)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await asyncio.to_thread(server.requests[0].left.wait, 5)

    with ScriptedServer(Answer([HANG])) as server:
        run(server.url, work)


def test_azure_says_that_the_endpoint_is_wrong(lines: Path) -> None:
    answer = document({"error": {"code": "404", "message": "Resource not found"}}, 404)
    with ScriptedServer(answer) as server, pytest.raises(errors.EndpointNotFoundError, match="api_version"):
        run(server.url, lambda routes: routes.upload(lines, "r"))


def test_a_file_that_is_too_large_for_its_server(lines: Path) -> None:
    with (
        ScriptedServer(document({"error": {"message": "at most 100 MB"}}, 413)) as server,
        pytest.raises(
            errors.RequestRefusedError, match=r"413: at most 100 MB\nThis server takes smaller files: ask for"
        ),
    ):
        run(server.url, lambda routes: routes.upload(lines, "r"))


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_that_is_refused_while_it_is_sent(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "rows"
    with path.open("wb") as opened:
        opened.truncate(8 << 20)
    said = b'HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 18\r\n\r\n{"error": "large"}'
    listening = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        taken, _ = listening.accept()
        with taken:
            taken.recv(1000)
            taken.sendall(said)
            taken.shutdown(socket.SHUT_WR)
            while taken.recv(1 << 16):
                pass

    refusing = threading.Thread(target=refuse)
    refusing.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    try:
        with pytest.raises(errors.RequestRefusedError, match="answered 413: large"):
            run(
                url, lambda routes: routes.upload(path, "r"), openai.OpenAI(base_url=url, api_key=KEY) if sync else None
            )
    finally:
        refusing.join(5)
        listening.close()


MEASURE = """
import asyncio, sys
from pathlib import Path
from openai import AsyncOpenAI
from llm_magic.errors import Origin
from llm_magic.wire.batches import BatchRoutes
def most():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
async def main():
    async with AsyncOpenAI(base_url=sys.argv[1], api_key="k", max_retries=0) as client:
        routes = BatchRoutes(client, Origin("there"))
        await routes.retrieve("b")
        before = most()
        await routes.upload(Path(sys.argv[2]), "r")
        between = most()
        await routes.download("f", Path(sys.argv[3]))
        print(between - before, most() - between)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what was used at most")
def test_large_files_pass_through_little_memory(tmp_path: Path) -> None:
    large, line = tmp_path / "rows", b'{"custom_id": "a", "x": "' + b"y" * 1000 + b'"}\n'
    with large.open("wb") as opened:
        opened.truncate(64 << 20)  # a hole: nothing is written
    script = (document(BATCH), document({"id": "file-1"}), Answer([line * 1000] * 60, headers={}))
    with ScriptedServer(*script) as server:
        used = subprocess.run(  # noqa: S603 - this interpreter
            [sys.executable, "-c", MEASURE, server.url, str(large), str(tmp_path / "out")],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert max(map(int, used.stdout.split())) < 16 << 10  # KiB
    assert len(server.requests[1].body) > 64 << 20
    assert (tmp_path / "out").stat().st_size == 60_000 * len(line)


# create


def test_a_batch_is_created_once() -> None:
    with ScriptedServer(document({**BATCH, "metadata": {"llm_magic": "d"}}, headers={"date": DATE})) as server:
        batch = created(server)
    received = server.requests[0]
    assert (received.method, received.path) == ("POST", "/v1/batches")
    assert received.headers["idempotency-key"] == "k1"
    assert received.json == {
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"llm_magic": "d"},
    }
    assert batch == RemoteBatch(
        "batch_1", "validating", input_file_id="file-1", metadata={"llm_magic": "d"}, server_time=1796040639.0
    )


DATE = "Mon, 30 Nov 2026 12:10:39 GMT"


@pytest.mark.parametrize(
    ("answer", "ambiguous"),
    [
        (document({"error": {"message": "busy"}}, 500), True),
        (document({"error": {"message": "busy"}}, 502), True),
        (document({"error": {"message": "late"}}, 408), True),
        (document({"error": {"message": "in progress"}}, 409), True),
        (page("<html>", 503), True),
        (page("<html>"), True),
        (Answer([RESET]), True),
        (Answer([b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{"], raw=True), True),
        (Answer([b"no HTTP at all\r\n\r\n"], raw=True), True),
        (Answer([HANG]), True),
        (Answer([], 303, {"location": "/v1/batches/1"}), True),
        (document({}), True),
        (document([BATCH]), True),
        (document({"id": "../x", "status": "validating"}), True),
        (document({"error": {"message": "something"}}), True),
        (document({"error": {"message": "bad line"}}, 400), False),
        (document({"error": "Unauthorized"}, 401), False),
        (document({"error": {"message": "no"}}, 403), False),
        (document({"error": {"message": "wait"}}, 429), False),
        (document({"error": {"message": "quota", "code": "insufficient_quota"}}, 429), False),
        (document({"detail": "Not Found"}, 404), False),
        (document({"error": {"message": "no such model: m"}}, 404), False),
    ],
)
def test_whether_a_batch_may_have_been_created(answer: Answer, ambiguous: bool) -> None:
    with ScriptedServer(answer) as server:
        with pytest.raises(errors.LLMError) as raised:
            created(server, plain(server.url, max_retries=3), timeout=0.2)
        assert is_ambiguous(raised.value) is ambiguous
        assert len(server.requests) == 1  # whatever the client's own retries


def test_where_nobody_listens_nothing_is_created() -> None:
    with ScriptedServer(document({})) as server:
        pass
    with pytest.raises(errors.ConnectionFailedError) as raised:
        created(server)
    assert not is_ambiguous(raised.value)
    assert is_ambiguous(KeyboardInterrupt())
    assert is_ambiguous(asyncio.CancelledError())


def test_a_batch_is_not_created_twice_over_a_connection_that_was_kept(lines: Path) -> None:
    async def work(routes: BatchRoutes) -> None:
        await routes.upload(lines, "r")
        await routes.create("file-1", "/v1/embeddings", {}, key="k")

    with ScriptedServer(document({"id": "file-1"}), Answer([RESET], raw=True), document(BATCH)) as server:
        with pytest.raises(errors.ConnectionFailedError) as raised:
            run(server.url, work)
        assert server.connections == 1
        assert len(server.requests) == 2
    assert is_ambiguous(raised.value)
    assert "metadata" not in server.requests[1].json


def test_a_batch_is_created_with_renewed_credentials() -> None:
    async def renew(old: Any) -> Any:
        return old.with_options(api_key="sk-another-key-0123456789")

    with ScriptedServer(document({"error": "expired"}, 401), document(BATCH)) as server:
        assert created(server, renew=renew).id == "batch_1"
    assert [received.headers["idempotency-key"] for received in server.requests] == ["k1", "k1"]


@pytest.mark.parametrize("said", ["No such File object: file-1", "Cannot find file.", "The file has expired"])
def test_a_batch_of_a_file_that_is_gone(said: str) -> None:
    with (
        ScriptedServer(document({"error": {"message": said}}, 404)) as server,
        pytest.raises(errors.RequestRefusedError) as raised,
    ):
        created(server)
    assert raised.value.message == f"there ({server.url}) has no file file-1: it answered 404, {said}"
    assert raised.value.status == 404
    assert not is_ambiguous(raised.value)


def test_a_secret_that_a_server_repeats_is_masked() -> None:
    secret = Secret("s3cret-value-of-mine")
    answer = {**BATCH, "status": "failed", "errors": {"data": [{"message": "key s3cret-value-of-mine"}]}}
    with ScriptedServer(document(answer), document({"error": {"message": "s3cret-value-of-mine"}}, 400)) as server:
        assert created(server, secrets=(secret,)).refusals == (Refusal("key ***"),)
        with pytest.raises(errors.RequestRefusedError) as raised:
            created(server, secrets=(secret,), headers={"X-Key": secret})
    assert "s3cret" not in str(raised.value)
    assert server.requests[1].headers["x-key"] == "s3cret-value-of-mine"


# what a batch is


def test_a_batch_as_its_server_tells_of_it() -> None:
    told = {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "model": "m",
        "errors": {
            "object": "list",
            "data": [{"code": "invalid_json", "line": 1733, "message": "Not  JSON.\n", "param": "body"}],
        },
        "input_file_id": "file-1",
        "completion_window": "24h",
        "status": "FAILED",
        "output_file_id": None,
        "error_file_id": "",
        "created_at": 1796040639,
        "expires_at": 1796127039,
        "request_counts": {"total": 5, "completed": 4, "failed": 1},
        "metadata": {"llm_magic": "d", "n": 3, "none": None},
    }
    batch = read_batch(told, headers={"date": DATE})
    assert batch == RemoteBatch(
        "batch_1",
        "failed",
        5,
        4,
        1,
        "file-1",
        "",
        "",
        (Refusal("Not JSON.", 1733, "invalid_json", "body"),),
        "/v1/chat/completions",
        "m",
        1796040639.0,
        1796127039.0,
        {"llm_magic": "d", "n": "3"},
        1796040639.0,
    )
    assert batch.ended


@pytest.mark.parametrize(
    ("status", "state"),
    [
        *((word, word) for word in ("validating", "in_progress", "finalizing", "cancelling")),
        *((word, word) for word in ("completed", "failed", "expired", "cancelled")),
        ("Canceled", "cancelled"),
        ("JOB_STATE_SUCCEEDED", "completed"),
        ("TIMEOUT_EXCEEDED", "expired"),
        ("In Progress", "in_progress"),
        ("error", "failed"),
        ("queued", "in_progress"),
        ("", "in_progress"),
        ("\ud800", "in_progress"),
    ],
)
def test_where_a_batch_stands(status: str, state: str) -> None:
    batch = read_batch({"id": "b", "object": "batch", "status": status})
    assert batch is not None
    assert (batch.state, batch.ended) == (state, state in ("completed", "failed", "expired", "cancelled"))


@pytest.mark.parametrize("wrong", [None, "x", -1, True, math.nan, math.inf, 1e300, 10**400, [], {}, [[]], {"data": {}}])
def test_wrong_types_say_nothing(wrong: Any) -> None:
    names = ("output_file_id", "error_file_id", "endpoint", "model", "created_at", "expires_at", "metadata", "errors")
    told = {"id": "b", "status": "completed", **dict.fromkeys(names, wrong)}
    batch = read_batch({**told, "request_counts": {"total": wrong, "completed": wrong, "failed": wrong}})
    assert batch is not None
    assert (batch.total, batch.completed, batch.failed, batch.created_at, batch.expires_at) == (None,) * 5
    assert batch.metadata == {}
    assert {batch.output_file_id, batch.endpoint} <= {"", "x", "-1", str(10**400)}
    assert read_batch({**told, "request_counts": wrong}) is not None
    assert read_batch({"id": wrong, "status": wrong}) is None or wrong in ("x", -1, 10**400)


@pytest.mark.parametrize(
    ("errors_told", "expected"),
    [
        ({"data": [{"message": None, "code": "bad", "line": "7"}]}, Refusal("bad", None, "bad")),
        ([{"message": "no", "line": True}], Refusal("no")),
        ("quota", Refusal("quota")),
        ({"message": "no", "type": "t"}, Refusal("no", None, "t")),
    ],
)
def test_refusals_in_other_shapes(errors_told: object, expected: Refusal) -> None:
    batch = read_batch({"id": "b", "status": "failed", "errors": errors_told})
    assert batch is not None
    assert batch.refusals == (expected,)
    alone = read_batch({"id": "b", "status": "failed", "error": errors_told})
    assert alone is not None
    assert alone.refusals == (expected,)


def test_many_refusals_are_bounded() -> None:
    batch = read_batch({"id": "b", "status": "failed", "errors": {"data": [{"message": "x" * 9000}] * 50_000}})
    assert batch is not None
    assert (len(batch.refusals), len(batch.refusals[0].message)) == (1000, 1000)


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 99999 12:10:39 GMT", "\x00"])
def test_a_date_that_is_none(date: str) -> None:
    batch = read_batch(BATCH, headers={"date": date})
    assert batch is not None
    assert batch.server_time is None


# retrieve, cancel, find, delete


def test_a_batch_keeps_the_id_that_it_is_asked_by() -> None:
    with ScriptedServer(document({**BATCH, "id": "behind_the_proxy"})) as server:
        assert run(server.url, lambda routes: routes.retrieve("batch_1")).id == "batch_1"
    assert (server.requests[0].method, server.requests[0].path) == ("GET", "/v1/batches/batch_1")


IDS = ["a?b=c", "a#b", "a b", "a%2e", "a%2Fb", "a;b", "a\\b", "ä", "batches/a", "a" * 1000, "a/b/content", "\ud800"]


@pytest.mark.parametrize("identity", IDS)
def test_an_id_is_one_step_of_the_path(identity: str, tmp_path: Path) -> None:
    with ScriptedServer(document(BATCH), document(BATCH), Answer([LINES]), document({})) as server:

        async def work(routes: BatchRoutes) -> None:
            await routes.retrieve(identity)
            await routes.cancel(identity)
            await routes.download(identity, tmp_path / "out")
            await routes.delete_file(identity)

        if identity == "\ud800":
            with pytest.raises(errors.ProtocolError):
                run(server.url, work)
            return
        run(server.url, work)
    paths = [received.path.split("/") for received in server.requests]
    assert [len(path) for path in paths] == [4, 5, 5, 4]
    assert {unquote(path[3]) for path in paths} == {identity}
    assert [received.method for received in server.requests] == ["GET", "POST", "GET", "DELETE"]


@pytest.mark.parametrize(
    "identity", ["", " ", ".", "..", "../models", "a/../b", "..\\x", "a//b", "/a", "a/", "a" * 10_000, "a\nb", "a\0"]
)
def test_what_can_be_no_id(identity: str, tmp_path: Path) -> None:
    with ScriptedServer(document(BATCH)) as server:
        for work in (
            lambda routes: routes.retrieve(identity),
            lambda routes: routes.cancel(identity),
            lambda routes: routes.download(identity, tmp_path / "out"),
            lambda routes: routes.delete_file(identity),
        ):
            with pytest.raises(errors.ProtocolError, match="no file or batch can have this id") as raised:
                run(server.url, work)
            assert len(str(raised.value)) < 300
        assert server.connections == 0


@pytest.mark.parametrize("route", ["retrieve", "cancel", "download"])
def test_what_is_gone(route: str, tmp_path: Path) -> None:
    with ScriptedServer(document({"error": {"message": "No such thing: x1"}}, 404)) as server:
        more = (tmp_path / "out",) if route == "download" else ()
        with pytest.raises(errors.RequestRefusedError) as raised:
            run(server.url, lambda routes: getattr(routes, route)("x1", *more))
    what = "file" if route == "download" else "batch"
    assert raised.value.message == f"there ({server.url}) has no {what} x1: it answered 404, No such thing: x1"
    assert raised.value.status == 404
    assert "of another account, project or key" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_batch_is_cancelled() -> None:
    with ScriptedServer(Answer([], 308, {"location": "/v1/c"}), document({**BATCH, "status": "cancelling"})) as server:
        assert run(server.url, lambda routes: routes.cancel("batch_1")).state == "cancelling"
    assert [(received.method, received.path) for received in server.requests] == [
        ("POST", "/v1/batches/batch_1/cancel"),
        ("POST", "/v1/c"),
    ]
    with ScriptedServer(Answer([], 302, {"location": "/v1/c"})) as server, pytest.raises(errors.EndpointNotFoundError):
        run(server.url, lambda routes: routes.cancel("batch_1"))


def test_a_batch_that_has_ended_is_cancelled_no_more() -> None:
    refused = document({"error": {"message": "Cannot cancel a completed batch."}}, 409)
    with ScriptedServer(refused, document({**BATCH, "status": "completed"})) as server:
        assert run(server.url, lambda routes: routes.cancel("batch_1")).state == "completed"
    with (
        ScriptedServer(refused, document(BATCH)) as server,
        pytest.raises(errors.RequestRefusedError, match="Cannot cancel"),
    ):
        run(server.url, lambda routes: routes.cancel("batch_1"))


def listed(*names: str, **more: Any) -> Answer:
    return document({"object": "list", "data": [{**BATCH, "id": name} for name in names], **more})


@pytest.mark.parametrize(
    ("pages", "paths"),
    [
        (
            [listed("a", "b", has_more=True, last_id="b"), listed("c", has_more=False)],
            ["limit=100", "limit=100&after=b"],
        ),
        ([listed("a", has_more=True), listed("c")], ["limit=100", "limit=100&after=a"]),
        ([listed("a"), listed("c")], ["limit=100", "limit=100&after=a"]),
        ([document([{**BATCH, "id": "a"}, {**BATCH, "id": "c"}])], ["limit=100"]),
        ([listed("a", last_id=7, has_more=None), listed("c")], ["limit=100", "limit=100&after=a"]),
        ([document({"data": [None, 3, {}, {"id": ""}, {**BATCH, "id": "c"}]})], ["limit=100"]),
    ],
)
def test_a_batch_is_found(pages: list[Answer], paths: list[str]) -> None:
    with ScriptedServer(*pages) as server:
        assert run(server.url, lambda routes: routes.find(lambda batch: batch.id == "c")).id == "c"
    assert [received.path for received in server.requests] == [f"/v1/batches?{path}" for path in paths]


@pytest.mark.parametrize(
    ("pages", "asked"),
    [
        ([listed()], 1),
        ([listed("a", has_more=False)], 1),
        ([listed("a")], 2),  # the same page again and again
        ([listed("a", has_more=True, last_id="a")], 2),
        ([document({"data": None})], 1),
        ([document([])], 1),
        ([listed("a" * 9000, has_more=True)], 1),
    ],
)
def test_a_batch_that_is_not_found(pages: list[Answer], asked: int) -> None:
    with ScriptedServer(*pages) as server:
        assert run(server.url, lambda routes: routes.find(lambda _: False)) is None
    assert len(server.requests) == asked


def test_a_list_that_never_ends_is_left() -> None:
    def endless(received: Received) -> Answer:
        first = int((re.findall(r"after=(\d+)", received.path) or ["0"])[0])
        return listed(*map(str, range(first + 1, first + 101)), has_more=True)

    with ScriptedServer(endless) as server:
        assert run(server.url, lambda routes: routes.find(lambda _: False, most=250)) is None
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (document({"detail": "Method Not Allowed"}, 405), errors.UnsupportedError),
        (document({"detail": "Not Found"}, 404), errors.UnsupportedError),
        (Answer([], 302, {"location": "https://elsewhere.example/f"}), errors.EndpointNotFoundError),
        (document({"hello": 1}), errors.ProtocolError),
        (page("<html>"), errors.ProtocolError),
        (document({"error": {"message": "no"}, "data": None}), errors.ServerFailedError),
        (listed("../x"), errors.ProtocolError),
    ],
)
def test_what_is_no_list(answer: Answer, kind: type[Exception]) -> None:
    with ScriptedServer(answer) as server, pytest.raises(kind):
        run(server.url, lambda routes: routes.find(lambda _: True))


def test_a_file_is_deleted() -> None:
    gone = document({"error": {"message": "No such File object"}}, 404)
    with ScriptedServer(document({"id": "f", "deleted": True}), gone, document({}, 403)) as server:
        run(server.url, lambda routes: routes.delete_file("f"))
        run(server.url, lambda routes: routes.delete_file("f"))
        with pytest.raises(errors.AuthenticationError):
            run(server.url, lambda routes: routes.delete_file("f"))
    assert {(received.method, received.path) for received in server.requests} == {("DELETE", "/v1/files/f")}


# download


def fetched(server: ScriptedServer, path: Path, made: Any = None, **known: Any) -> int:
    size: int = run(server.url, lambda routes: routes.download("file-2", path), made, **known)
    return size


JSONL = {"content-type": "application/jsonl"}


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_is_fetched(tmp_path: Path, sync: bool) -> None:
    from openai import OpenAI

    path = tmp_path / "out.jsonl"
    path.write_text("old")
    path.chmod(0o644)
    with ScriptedServer(Answer([LINES], headers=JSONL)) as server:
        made = OpenAI(base_url=server.url, api_key=KEY) if sync else None
        assert fetched(server, path, made) == len(LINES)
    assert path.read_bytes() == LINES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["out.jsonl"]
    assert (server.requests[0].path, server.requests[0].headers["accept-encoding"]) == (
        "/v1/files/file-2/content",
        "identity",
    )


def test_an_empty_file_is_one(tmp_path: Path) -> None:
    with ScriptedServer(Answer([], headers={"content-length": "0", **JSONL}, chunked=False)) as server:
        assert fetched(server, tmp_path / "out") == 0
    assert (tmp_path / "out").read_bytes() == b""


HEAD = b"HTTP/1.1 200 OK\r\n%b\r\n"
CUT = LINES[:-10]
BROKEN = {
    "shorter than its length": Answer([HEAD % b"content-length: 900\r\n", LINES], raw=True),
    "no last chunk": Answer([HEAD % b"transfer-encoding: chunked\r\n", b"3\r\n{\n}\r\n"], raw=True),
    "reset": Answer([LINES, RESET], headers=JSONL),
    "no chunk": Answer([HEAD % b"transfer-encoding: chunked\r\n", b"zz\r\n"], raw=True),
    "no gzip": Answer([LINES], headers={"content-encoding": "gzip"}),
    "silence": Answer([LINES, HANG], headers=JSONL),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("sync", [False, True])
def test_a_file_that_breaks_off_is_fetched_anew(tmp_path: Path, name: str, sync: bool) -> None:
    from openai import OpenAI

    busy = document({"error": {"message": "busy"}}, 500, {"retry-after-ms": "1"})
    path = tmp_path / "out"
    with ScriptedServer(BROKEN[name], Answer([LINES], headers=JSONL)) as server:
        made = OpenAI(base_url=server.url, api_key=KEY) if sync else None
        assert fetched(server, path, made, max_retries=1, timeout=0.2) == len(LINES)
    assert path.read_bytes() == LINES
    path.unlink()
    with ScriptedServer(BROKEN[name]) as server:
        made = OpenAI(base_url=server.url, api_key=KEY) if sync else None
        with pytest.raises((errors.ConnectionFailedError, errors.TimedOutError, errors.ProtocolError)) as raised:
            fetched(server, path, made, max_retries=0, timeout=0.2)
    assert "broke off while a file was fetched" in raised.value.message
    assert list(tmp_path.iterdir()) == []
    with ScriptedServer(busy, Answer([LINES], headers=JSONL)) as server:
        assert fetched(server, path, max_retries=1) == len(LINES)


@pytest.mark.parametrize(
    ("told", "is_whole"),
    [
        (document({"id": "f", "bytes": len(LINES)}), True),
        (document({"id": "f", "bytes": len(LINES) + 1}), False),
        (document({"id": "f", "bytes": None}), True),
        (document({"detail": "Not Found"}, 404), True),
    ],
)
def test_a_file_whose_end_no_transport_tells(tmp_path: Path, told: Answer, is_whole: bool) -> None:
    unframed = Answer([LINES], headers=JSONL, chunked=False)
    with ScriptedServer(unframed, told) as server:
        if is_whole:
            assert fetched(server, tmp_path / "out") == len(LINES)
        else:
            with pytest.raises(errors.ConnectionFailedError, match="it ended too early"):
                fetched(server, tmp_path / "out")
    assert [received.path for received in server.requests] == ["/v1/files/file-2/content", "/v1/files/file-2"]


def test_a_file_whose_last_line_is_cut(tmp_path: Path) -> None:
    nothing = document({"detail": "Not Found"}, 404)
    with (
        ScriptedServer(Answer([CUT], headers=JSONL, chunked=False), nothing) as server,
        pytest.raises(errors.ConnectionFailedError, match="it ended too early"),
    ):
        fetched(server, tmp_path / "out")
    packed = gzip.compress(LINES)[:-12]
    with (
        ScriptedServer(Answer([packed], headers={"content-encoding": "gzip"}), nothing) as server,
        pytest.raises(errors.ConnectionFailedError, match="it ended too early"),
    ):
        fetched(server, tmp_path / "out")
    with ScriptedServer(Answer([CUT], headers=JSONL)) as server:  # whole, as its server has it
        assert fetched(server, tmp_path / "out") == len(CUT)


def test_a_file_that_is_compressed_nevertheless(tmp_path: Path) -> None:
    with ScriptedServer(
        Answer([gzip.compress(LINES)], headers={"content-encoding": "gzip"}), document({"bytes": len(LINES)})
    ) as server:
        assert fetched(server, tmp_path / "out") == len(LINES)
    assert (tmp_path / "out").read_bytes() == LINES


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (page("<title>Log in</title>"), errors.ProtocolError),
        (document({"error": {"message": "not yet"}}), errors.ServerFailedError),
        (document({"error": {"message": "gone"}}, 400), errors.RequestRefusedError),
        (Answer([], 302, {"location": "https://elsewhere.example/f"}), errors.EndpointNotFoundError),
    ],
)
def test_what_is_no_content(tmp_path: Path, answer: Answer, kind: type[Exception]) -> None:
    with ScriptedServer(answer) as server, pytest.raises(kind):
        fetched(server, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_of_a_file_whose_fetching_is_cancelled(tmp_path: Path) -> None:
    async def work(routes: BatchRoutes) -> None:
        fetching = asyncio.ensure_future(routes.download("f", tmp_path / "out"))
        while not any(found.stat().st_size for found in tmp_path.iterdir()):  # noqa: ASYNC110, ASYNC240 - of the disk
            await asyncio.sleep(0.001)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching

    with ScriptedServer(Answer([LINES * 3000, HANG], headers=JSONL)) as server:
        run(server.url, work)
        assert server.requests[0].left.wait(5)
    assert list(tmp_path.iterdir()) == []


def test_one_row_that_failed_is_content(tmp_path: Path) -> None:
    with ScriptedServer(document({"custom_id": "a", "error": {"message": "no"}})) as server:
        assert fetched(server, tmp_path / "out") > 0


def test_a_disk_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_magic.wire import file_download

    with ScriptedServer(Answer([LINES], headers=JSONL)) as server:
        with pytest.raises(errors.ConfigurationError, match=r"no/out cannot be written: No such file"):
            fetched(server, tmp_path / "no" / "out")
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(errors.ConfigurationError, match="is no plain file"):
            fetched(server, tmp_path / "pipe")
        (tmp_path / "pipe").unlink()
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(errors.ConfigurationError, match="is no plain file"):
            fetched(server, tmp_path / "link")
        (tmp_path / "link").unlink()
        monkeypatch.setattr(file_download, "LARGEST_FILE", 10)
        with pytest.raises(errors.ProtocolError, match="a file of more than"):
            fetched(server, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["write", "truncate", "flush"])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    from llm_magic import private_files

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(descriptor: int, mode: str) -> Any:
        made = io.BufferedRandom(io.FileIO(descriptor, "r+"))  # type: ignore[arg-type]  # as os.fdopen makes it
        setattr(made, step, full)
        return made

    monkeypatch.setattr(private_files.os, "fdopen", opened)
    with (
        ScriptedServer(Answer([LINES * 2000], headers=JSONL)) as server,
        pytest.raises(errors.ConfigurationError, match=r"out cannot be written: No space left on device"),
    ):
        fetched(server, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# Azure


@pytest.mark.parametrize("deployment", [None, "d1"])
def test_azures_classic_client(lines: Path, tmp_path: Path, deployment: str | None) -> None:
    from openai import AsyncAzureOpenAI

    async def work(routes: BatchRoutes) -> None:
        await routes.upload(lines, "r")
        await routes.create("file-1", "/chat/completions", {"model": "m"}, key="k")
        await routes.find(lambda _: True)
        await routes.cancel("b")
        await routes.download("f", tmp_path / "out")
        await routes.delete_file("f")

    script = (document({"id": "file-1"}), document(BATCH), listed("a"), document(BATCH), Answer([LINES]), document({}))
    with ScriptedServer(*script) as server:
        made = AsyncAzureOpenAI(
            azure_endpoint=server.host, azure_deployment=deployment, api_version="2024-10-21", api_key=KEY
        )
        run(server.url, work, made)
    assert [received.path for received in server.requests] == [
        "/openai/files?api-version=2024-10-21",
        "/openai/batches?api-version=2024-10-21",
        "/openai/batches?api-version=2024-10-21&limit=100",
        "/openai/batches/b/cancel?api-version=2024-10-21",
        "/openai/files/f/content?api-version=2024-10-21",
        "/openai/files/f?api-version=2024-10-21",
    ]
    assert {received.headers["api-key"] for received in server.requests} == {KEY}


# real servers


def test_a_real_batch(batches_url: str, tmp_path: Path) -> None:
    row = {"method": "POST", "url": "/v1/chat/completions"}
    body = {"model": "lc/smollm2", "max_tokens": 4, "messages": [{"role": "user", "content": "Say hello."}]}
    path, mark = tmp_path / "rows.jsonl", f"{os.getpid()}-{time.time_ns()}"
    path.write_text("".join(json.dumps({"custom_id": f"{n}", **row, "body": body}) + "\n" for n in range(2)))

    async def work(routes: BatchRoutes) -> None:
        file_id = await routes.upload(path, "rows.jsonl")
        assert await routes.download(file_id, tmp_path / "back") == path.stat().st_size
        assert (tmp_path / "back").read_bytes() == path.read_bytes()
        batch = await routes.create(file_id, "/v1/chat/completions", {"llm_magic": mark}, key=mark)
        assert batch.input_file_id == file_id
        found = await routes.find(lambda each: each.metadata.get("llm_magic") == mark)
        assert found is not None
        assert found.id == batch.id
        assert found.server_time is not None
        assert abs(found.server_time - time.time()) < 60
        while not (batch := await routes.retrieve(batch.id)).ended:  # noqa: ASYNC110 - the server says it to who asks
            await asyncio.sleep(0.1)
        assert (batch.state, batch.total, batch.completed, batch.failed) == ("completed", 2, 2, 0)
        await routes.download(batch.output_file_id, tmp_path / "out")
        rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
        assert {row["custom_id"] for row in rows} == {"0", "1"}
        assert (await routes.cancel(batch.id)).state == "completed"
        await routes.delete_file(file_id)
        await routes.delete_file(file_id)
        with pytest.raises(errors.RequestRefusedError, match="has no file"):
            await routes.download(file_id, tmp_path / "back")
        with pytest.raises(errors.RequestRefusedError, match="has no batch batch_nope"):
            await routes.retrieve("batch_nope")

    run(batches_url, work)


def test_real_servers_without_these_routes(
    vllm_url: str, llamacpp_url: str, litellm_url: str, litellm_key: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-4o"}}\n'
    )
    for url, key in ((vllm_url, "EMPTY"), (llamacpp_url, "EMPTY"), (litellm_url, litellm_key)):
        with pytest.raises(errors.UnsupportedError, match=f"{re.escape(url)}.* has no Files and Batches routes"):
            run(url, lambda routes: routes.upload(path, "rows.jsonl"), client(url, api_key=key))
