"""The server of the tests of batches, asked by the SDK's own client."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from batch_server import (
    BROKEN_AFTER,
    CLOSED,
    CLOSED_AFTER,
    CUT,
    CUT_UNSEEN,
    NO_ROUTE,
    SILENT_AFTER,
    BatchServer,
    Failure,
    too_many,
)

CHAT = "/v1/chat/completions"


def lines(*prompts: str, url: str = CHAT) -> bytes:
    """Return an input file of these prompts, their `custom_id`s a, b, c."""
    bodies = [{"model": "m", "messages": [{"role": "user", "content": each}]} for each in prompts]
    if url == "/v1/responses":
        bodies = [{"model": "m", "input": each} for each in prompts]
    if url == "/v1/embeddings":
        bodies = [{"model": "m", "input": [each]} for each in prompts]
    rows = [
        {"custom_id": name, "method": "POST", "url": url, "body": body}
        for name, body in zip("abcdefgh", bodies, strict=False)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def client(server: BatchServer, **options: Any) -> openai.OpenAI:
    """Return a client that asks once."""
    return openai.OpenAI(**{"base_url": server.url, "api_key": "k", "max_retries": 0, **options})


def created(asking: openai.OpenAI, content: bytes, url: Any = CHAT, **options: Any) -> str:
    """Upload and create; return the batch's id."""
    file = asking.files.create(file=("in.jsonl", content), purpose="batch")
    made = asking.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h", **options)
    return made.id


def statuses(asking: openai.OpenAI, name: str, polls: int = 4) -> list[str]:
    """Return what so many polls tell."""
    return [asking.batches.retrieve(name).status for _ in range(polls)]


def output(asking: openai.OpenAI, name: str, which: str = "output_file_id") -> list[Any]:
    """Return the lines of a file of a batch."""
    told = getattr(asking.batches.retrieve(name), which)
    return [json.loads(line) for line in asking.files.content(told).text.splitlines()]


def texts(found: list[Any]) -> dict[str, str]:
    """Return the texts of chat results by `custom_id`."""
    return {each["custom_id"]: each["response"]["body"]["choices"][0]["message"]["content"] for each in found}


def test_a_batch_goes_through_its_statuses_and_answers() -> None:
    with BatchServer() as server, client(server) as asking:
        name = created(asking, lines("one", "SAY two"), metadata={"ours": "x"})
        assert statuses(asking, name) == ["validating", "in_progress", "finalizing", "completed"]
        assert texts(output(asking, name)) == {"a": "one", "b": "two"}
        told = asking.batches.retrieve(name)
        assert told.request_counts is not None
        assert (told.request_counts.completed, told.error_file_id, told.metadata) == (2, None, {"ours": "x"})
        assert [each.body["metadata"] for each in server.created] == [{"ours": "x"}]
        assert (server.uploads[0].filename, server.uploads[0].purpose) == ("in.jsonl", "batch")
        assert asking.files.delete(server.uploads[0].id).deleted
        with pytest.raises(openai.NotFoundError):
            asking.files.content(server.uploads[0].id)


@pytest.mark.parametrize("url", ["/v1/responses", "/v1/embeddings"])
def test_other_endpoints(url: str) -> None:
    with BatchServer(validating=0, in_progress=0, finalizing=0) as server, client(server) as asking:
        name = created(asking, lines("one", url=url), url)
        body = output(asking, name)[0]["response"]["body"]
    if url == "/v1/responses":
        assert body["output"][0]["content"][0]["text"] == "one"
    else:
        assert body["data"][0]["embedding"] == [3.0, 1.0]


def test_lines_are_validated_and_chosen_ones_fail() -> None:
    with BatchServer(invalid={"b": {"message": "no"}}) as server, client(server) as asking:
        name = created(asking, lines("one", "two") + b"{bad\n" + lines("again"))
        assert statuses(asking, name, 2) == ["validating", "failed"]
        errors = asking.batches.retrieve(name).errors
        assert errors is not None
        assert errors.data is not None
        told = [(each.line, each.code) for each in errors.data]
        assert told == [(2, "invalid_request"), (3, "invalid_json_line"), (4, "duplicate_custom_id")]


@pytest.mark.parametrize("shape", ["openai", "llama-stack", "vllm", "vllm-text"])
def test_failed_rows_in_the_shapes_of_three_servers(shape: Any) -> None:
    knobs = {"failures": {2: Failure("too long", code="long")}, "failed_rows": shape, "finalizing": 0}
    with BatchServer(**knobs, validating=0, in_progress=0) as server, client(server) as asking:
        name = created(asking, lines("one", "two"))
        if shape.startswith("vllm"):
            line = output(asking, name)[1]
            told = line["error"] if shape == "vllm-text" else line["error"]["error"]["message"]
            assert (line["response"]["body"], told) == (None, "too long")
            return
        [line] = output(asking, name, "error_file_id")
        if shape == "llama-stack":
            assert (line.get("response"), line["error"]["message"]) == (None, "too long")
        else:
            assert line["response"]["body"]["error"]["code"] == "long"


def test_an_expired_batch_keeps_what_was_done() -> None:
    now = [1000.0]
    with BatchServer(clock=lambda: now[0], rows_done=1) as server, client(server) as asking:
        name = created(asking, lines("one", "two"))
        now[0] += 90_000
        assert statuses(asking, name, 1) == ["expired"]
        assert texts(output(asking, name)) == {"a": "one"}
        assert output(asking, name, "error_file_id")[0]["error"]["code"] == "batch_expired"


def test_a_cancelled_batch() -> None:
    with BatchServer(rows_done=0, lists_undone=False) as server, client(server) as asking:
        name = created(asking, lines("one"))
        assert asking.batches.cancel(name).status == "cancelling"
        assert statuses(asking, name, 2) == ["cancelling", "cancelled"]
        assert asking.batches.retrieve(name).output_file_id is None
        with pytest.raises(openai.ConflictError):
            asking.batches.cancel(name)


def test_knobs_of_the_files() -> None:
    ready = {"validating": 0, "in_progress": 0, "finalizing": 0, "ends": "completed"}
    knobs = {"order": "reversed", "twice": [1], "missing": ["b"], "unknown": ["x"], "error_file": "blank"}
    with BatchServer(**ready, **knobs, string_bodies=True, counts="zero") as server, client(server) as asking:
        name = created(asking, lines("one", "two", "three"))
        found = output(asking, name)
        assert [each["custom_id"] for each in found] == ["x", "c", "a", "a"]
        assert isinstance(found[0]["response"]["body"], str)
        told = asking.batches.retrieve(name)
        assert told.request_counts is not None
        assert (told.error_file_id, told.request_counts.total) == ("", 0)


@pytest.mark.parametrize("fault", [BROKEN_AFTER, CLOSED_AFTER, SILENT_AFTER])
def test_a_create_that_fails_after_having_created(fault: Any) -> None:
    with BatchServer(faults={"create": [fault]}) as server, client(server, timeout=0.2) as asking:
        with pytest.raises((openai.APIConnectionError, openai.InternalServerError)):
            created(asking, lines("one"))
        assert len(server.created) == 1
        assert [each.id for each in asking.batches.list()] == [server.created[0].id]


def test_faults_befall_the_next_requests_alone() -> None:
    faults = {"create": [CLOSED], "poll": [too_many("7")], "list": [NO_ROUTE], "content": [CUT, CUT_UNSEEN]}
    with BatchServer(faults=faults, validating=0, in_progress=0, finalizing=0) as server, client(server) as asking:
        with pytest.raises(openai.APIConnectionError):
            created(asking, lines("one"))
        assert server.created == []
        name = created(asking, lines("one", "two"))
        with pytest.raises(openai.RateLimitError) as limited:
            asking.batches.retrieve(name)
        assert limited.value.response.headers["retry-after"] == "7"
        for _ in range(2):
            with pytest.raises(openai.NotFoundError):
                asking.batches.list()
        file = asking.batches.retrieve(name).output_file_id
        assert file is not None
        with pytest.raises(Exception, match=r"peer closed|incomplete|reset|Connection"):
            asking.files.content(file)
        assert len(asking.files.content(file).content) == len(asking.files.content(file).content) // 2


def test_keys_other_accounts_and_pages() -> None:
    with BatchServer(page_size=2, metadata="null") as server, client(server) as asking:
        names = [created(asking, lines("one"), metadata={"a": "b"}) for _ in range(5)]
        assert [each.id for each in asking.batches.list()] == names[::-1]
        assert asking.batches.retrieve(names[0]).metadata is None
        server.hidden = {names[0]}
        with pytest.raises(openai.NotFoundError):
            asking.batches.retrieve(names[0])
        server.keys = {"new"}
        with pytest.raises(openai.AuthenticationError):
            asking.batches.retrieve(names[1])
        with client(server, api_key="new") as renewed:
            assert renewed.batches.retrieve(names[1]).id == names[1]


def test_a_server_that_is_away() -> None:
    with BatchServer() as server, client(server) as asking:
        name = created(asking, lines("one"))
        with server.away(), pytest.raises(openai.APIConnectionError):
            asking.batches.retrieve(name)
        assert asking.batches.retrieve(name).status == "validating"


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    program = Path(__file__).with_name("batch_server.py")
    with subprocess.Popen([sys.executable, program, "0", state]) as process:  # noqa: S603 - our own program
        try:
            while not state.exists():
                assert process.poll() is None
                time.sleep(0.01)
            url = json.loads(state.read_text())["url"]
            with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as asking:
                asking.post(f"{url.removesuffix('/v1')}/knobs", body={"faults": {"create": [{}]}}, cast_to=object)
                with pytest.raises(openai.APIConnectionError):
                    created(asking, lines("one"))
                name = created(asking, lines("one"))
            assert [each["id"] for each in json.loads(state.read_text())["created"]] == [name]
        finally:
            process.terminate()


def test_a_torn_line_and_an_edited_end() -> None:
    knobs = {"validating": 0, "in_progress": 0, "finalizing": 0, "torn": ["a"], "edit": lambda content: content[:-5]}
    with BatchServer(**knobs) as server, client(server) as asking:
        name = created(asking, lines("one", "two"))
        file = asking.batches.retrieve(name).output_file_id
        assert file is not None
        read = asking.files.content(file).content.split(b"\n")
    assert len(read) == 2
    for line in read:
        with pytest.raises(ValueError, match=r"delimiter|Unterminated|Expecting"):
            json.loads(line)
