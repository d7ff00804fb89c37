"""Files of every format that there was are read for ever: `formats` holds one of each, which never changes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from llm_magic.draft import Draft
from llm_magic.events import Usage
from llm_magic.messages import Citation, Image
from llm_magic.recordings import Recordings
from llm_magic.recordings.answers import events_of, vectors_of
from llm_magic.recordings.file import RecordingsFile
from llm_magic.response import Response, ToolRun

FIRST = Path(__file__).parent / "formats" / "1.llm.jsonl"
HI = {
    "kind": "answer",
    "provider": "vllm",
    "model": "smollm2",
    "messages": [{"role": "user", "content": "Hi"}],
}


def response(answer: Any) -> Response:
    draft = Draft()
    draft.add_all(events_of(answer, "vllm", "smollm2"))
    return draft.response()


def read() -> list[Any]:
    recordings = Recordings(lambda: (FIRST, ()), print)
    return [each.read() for each in recordings.listed()]


def test_the_file_never_changes() -> None:
    assert (
        hashlib.sha256(FIRST.read_bytes()).hexdigest()
        == "d160bd1c86f9e9daeefefbee1f6e9ba7c83f5f86e2099109610e7303eae68fa7"
    )


def test_format_1_is_read() -> None:
    file = RecordingsFile(FIRST, own=True)
    assert len(file) == 9
    assert file.take_remarks() == []
    found = read()
    assert [(each.asked["kind"], each.cell, each.at) for each in found] == [
        ("answer", "5f3c2b1a-cell", "2026-11-29T23:59:01Z"),
        ("answer", "c", "2026-11-29T23:59:01Z"),
        ("answer", "c", "2026-11-29T23:59:01Z"),
        ("answer", None, "2026-11-29T23:59:01Z"),
        ("embeddings", None, "2026-11-29T23:59:01Z"),
        ("embeddings", None, "2026-11-29T23:59:01Z"),
        ("model", None, "2026-11-29T23:59:01Z"),
        ("tool", "c", "2026-11-29T23:59:01Z"),
    ]


def test_an_answer_of_format_1_with_all_that_it_may_hold() -> None:
    answer = read()[0].answer
    said = response(answer)
    assert (said.text, said.reasoning, said.finish_reason) == ("Hello", "Think.", "tool_calls")
    assert said.tool_calls == (ToolRun("call-1", "clock", '{"zone": "UTC"}'),)
    assert said.citations == (Citation("https://example.org", "A page", 0, 3),)
    assert said.citations[0].details == {"score": 1.5}
    assert said.images == (Image(b"GIF89a", "image/gif"),)
    assert said.items == ({"type": "web_search_call"},)
    assert [other.text for other in said.alternatives] == ["Hello", "Other"]
    assert said.alternatives[1].images == (Image(url="https://example.org/a.png"),)
    assert said.logprobs == ({"token": "Hel", "logprob": -0.5},)
    assert said.filters == ({"hate": "safe"},)
    assert said.usage == Usage(3, 4, 1, 2)
    assert (said.cost, said.model_reported, said.request_id) == (0.5, "m-2026", "req-1")
    assert said.notes == ("rows cut",)
    assert [(each.status, each.seconds, each.reason, each.retry_after, each.final) for each in said.attempts] == [
        (503, 0.1, "overloaded", 1.0, False),
        (200, 0.2, "", None, True),
    ]
    told = ("seconds", "first_token_seconds", "structured", "sender", "history_turns")
    assert {name: answer[name] for name in told} == {
        "seconds": 2.0,
        "first_token_seconds": 0.25,
        "structured": {"dialect": "json_schema", "nulls": True},
        "sender": "vllm:smollm2 (chat)",
        "history_turns": 2,
    }


def test_equal_requests_of_format_1() -> None:
    recordings = Recordings(lambda: (FIRST, ()), print)
    known = [recordings.known(HI, None, 1, "only") for _ in range(3)]
    assert [each and response(each.answer).text for each in known] == ["one, anew", "two", "two"]


def test_a_refusal_vectors_a_model_and_a_result_of_format_1() -> None:
    found = read()
    refused = response(found[3].answer)
    assert (refused.refusal, refused.finish_reason) == ("I cannot.", "refusal")
    assert vectors_of(found[4].answer) == ([[0.5, 1.0], [0.25, -2.0]], Usage(3, 0))
    assert vectors_of(found[5].answer) == ([[0.1]], None)
    assert found[6].answer == {"model": "smollm2"}
    assert found[7].answer == {"result": "12:00", "seconds": 0.1}
