"""Bytes to events for the three APIs, without a network: each fault of a stream has one outcome."""

# ruff: noqa: E501 - what servers write stays on the line on which they write it

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import chunk

from llm_magic.capabilities import Api
from llm_magic.draft import Draft
from llm_magic.events import (
    Event,
    FilterReport,
    Finished,
    Identified,
    LogprobsDelta,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from llm_magic.messages import user
from llm_magic.request import Parameters, Request
from llm_magic.wire.stream import Answer


def request(**parameters: Any) -> Request:
    return Request("m", (user("hello"),), Parameters(**parameters))


def sent(*documents: object, done: bool = True) -> bytes:
    blocks = [
        item if isinstance(item, bytes) else b"data: " + json.dumps(item).encode() + b"\n\n" for item in documents
    ]
    return b"".join(blocks) + (b"data: [DONE]\n\n" if done else b"")


def run(
    data: bytes, api: Api = "chat", asked: Request | None = None, cuts: list[int] | None = None
) -> tuple[list[Event], Answer]:
    answer = Answer(api, asked or request())
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    events: list[Event] = []
    for start, end in pairwise(places):
        events += answer.feed(data[start:end])
    return events + answer.close(), answer


def events(*documents: object, done: bool = True, api: Api = "chat", asked: Request | None = None) -> list[Event]:
    got, answer = run(sent(*documents, done=done), api, asked)
    assert answer.fault is None
    return got


NAMED = Identified("scripted")


def test_text_usage_and_the_end() -> None:
    usage = {
        "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
    }
    assert events(chunk("", role="assistant"), chunk("Hel"), chunk("lo"), chunk(finish="stop"), usage) == [
        NAMED, TextDelta("Hel"), TextDelta("lo"), Finished("stop"), UsageReport(Usage(3, 2, 1, 0)),
    ]  # fmt: skip


def test_the_first_content_may_be_null() -> None:
    first = chunk(role="assistant")
    first["choices"][0]["delta"]["content"] = None
    assert events(first, chunk("a"), chunk(finish="stop")) == [NAMED, TextDelta("a"), Finished("stop")]


def test_a_missing_or_null_delta_is_nothing() -> None:
    empty = {"model": "scripted", "choices": [{"index": 0, "delta": None}]}
    bare = {"model": "scripted", "choices": [{"index": 0}]}
    nothing = {"model": "scripted", "choices": None, "usage": None}
    assert events(empty, bare, nothing, chunk("a"), chunk(finish="stop")) == [NAMED, TextDelta("a"), Finished("stop")]


def test_usage_beside_a_choice_and_cumulative_usage() -> None:
    first, last = chunk("a"), chunk("b", finish="length")
    first["usage"] = {"prompt_tokens": 3, "completion_tokens": 1}
    last["usage"] = {"prompt_tokens": 3, "completion_tokens": 2, "completion_tokens_details": None, "cost": 0.5}
    assert events(first, last) == [
        NAMED, TextDelta("a"), UsageReport(Usage(3, 1)), TextDelta("b"), Finished("length"),
        UsageReport(Usage(3, 2), 0.5),
    ]  # fmt: skip


def test_azure_begins_without_a_choice_and_ends_after_the_end() -> None:
    safe = {"hate": {"filtered": False, "severity": "safe"}}
    found = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": True, "severity": "medium"}}
    first = {
        "choices": [],
        "id": "",
        "model": "",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": safe}],
    }
    late = {"choices": [{"index": 0, "finish_reason": None, "content_filter_results": found}], "model": ""}
    again = chunk(finish="length")
    assert events(first, chunk("a"), chunk(finish="stop"), late, again) == [
        NAMED, TextDelta("a"), Finished("stop"), FilterReport(found),
    ]  # fmt: skip


def test_a_filtered_prompt_is_reported() -> None:
    found = {"jailbreak": {"detected": True, "filtered": False}}
    first = {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": found}]}
    assert events(first, chunk("a", finish="content_filter")) == [
        FilterReport(found), NAMED, TextDelta("a"), Finished("content_filter"),
    ]  # fmt: skip


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_fields(field: str) -> None:
    assert events(chunk(**{field: "hm"}), chunk("a", **{field: None}), chunk(finish="stop")) == [
        NAMED, ReasoningDelta("hm"), TextDelta("a"), ReasoningItem({field: "hm"}), Finished("stop"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pieces", "reasoning", "text"),
    [
        (["<think>hm</think>a"], "hm", "a"),
        (["<th", "ink>", "\nh", "m\n", "</", "think", ">", "\n\n", "a"], "hm", "a"),
        (["  <think>", "h m", "  </think>a b"], "h m", "a b"),
        (["<think></think>a"], "", "a"),
        (["<think>\n\n</think>\n\na"], "", "a"),
        (["<thin", "g>"], "", "<thing>"),
        (["a <think>b</think>"], "", "a <think>b</think>"),
        (["<think>a </thin king </think>b"], "a </thin king", "b"),
        (["<think>never ends"], "never ends", ""),
        (["<think>cut </thi"], "cut </thi", ""),
        (["<thi"], "", "<thi"),
        (["   "], "", "   "),
        (["  a"], "", "  a"),
    ],
)
def test_think_tags(pieces: list[str], reasoning: str, text: str) -> None:
    got = events(*[chunk(piece) for piece in pieces], chunk(finish="stop"))
    assert "".join(event.text for event in got if isinstance(event, ReasoningDelta)) == reasoning
    assert "".join(event.text for event in got if isinstance(event, TextDelta)) == text
    assert got[-1] == Finished("stop")


@settings(deadline=None)
@given(st.text("<think>/ \na", max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_how_think_tags_are_cut_never_changes_the_text(text: str, cuts: list[int]) -> None:
    def parted(places: list[int]) -> tuple[str, str]:
        bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
        pieces = [chunk(text[a:b]) for a, b in pairwise(bounds)]
        got = events(*pieces, chunk(finish="stop"))
        return (
            "".join(event.text for event in got if isinstance(event, ReasoningDelta)),
            "".join(event.text for event in got if isinstance(event, TextDelta)),
        )

    assert parted(cuts) == parted([])


def test_a_refusal() -> None:
    assert events(chunk(refusal="I can"), chunk(refusal="not."), chunk(finish="stop")) == [
        NAMED, RefusalDelta("I can"), RefusalDelta("not."), Finished("refusal"),
    ]  # fmt: skip


def test_several_answers_at_once() -> None:
    def of(index: int, **fields: Any) -> dict[str, Any]:
        return {"model": "scripted", "choices": [{"index": index, **fields}]}

    got, answer = run(
        sent(of(0, delta={"content": "a"}), of(1, delta={"content": "b"}), of(1, delta={}, finish_reason="stop"),
             of(0, delta={}, finish_reason="length")),
        asked=request(n=2),
    )  # fmt: skip
    assert got == [NAMED, TextDelta("a"), TextDelta("b", 1), Finished("stop", 1), Finished("length")]
    assert answer.reader.complete


def test_logprobs() -> None:
    token = {"token": "a", "logprob": -0.1, "top_logprobs": []}
    with_logprobs = chunk("a")
    with_logprobs["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    assert events(with_logprobs, chunk(finish="stop")) == [
        NAMED,
        TextDelta("a"),
        LogprobsDelta((token,)),
        Finished("stop"),
    ]


def calls(*deltas: dict[str, Any]) -> list[ToolCallDelta]:
    got = events(*[chunk(tool_calls=[delta]) for delta in deltas], chunk(finish="tool_calls"))
    assert got[-1] == Finished("tool_calls")
    return [event for event in got if isinstance(event, ToolCallDelta)]


def test_tool_calls_by_index() -> None:
    assert calls(
        {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": ": 1}"}},
    ) == [
        ToolCallDelta(0, "c1", "f"), ToolCallDelta(0, "", "", '{"a"'), ToolCallDelta(1, "c2", "g", "{}"),
        ToolCallDelta(0, "", "", ": 1}"),
    ]  # fmt: skip


def test_tool_calls_without_an_index() -> None:
    assert calls(
        {"id": "c1", "function": {"name": "f", "arguments": "{"}},
        {"function": {"name": "f", "arguments": "}"}},
        {"id": "c2", "function": {"name": "f", "arguments": "{}"}},
    ) == [ToolCallDelta(0, "c1", "f", "{"), ToolCallDelta(0, "", "", "}"), ToolCallDelta(1, "c2", "f", "{}")]


def test_tool_calls_that_all_have_index_0_and_an_object_for_arguments() -> None:
    assert calls(
        {"index": 0, "id": "c1", "function": {"name": "f", "arguments": {"a": "é"}}},
        {"index": 0, "id": "c2", "function": {"name": "f", "arguments": "{}"}},
    ) == [ToolCallDelta(0, "c1", "f", '{"a": "é"}'), ToolCallDelta(1, "c2", "f", "{}")]


def test_a_name_that_is_repeated_comes_once_and_a_missing_id_is_made() -> None:
    assert calls(
        {"index": 0, "function": {"name": "f", "arguments": "{"}},
        {"index": 0, "function": {"name": "f", "arguments": "}"}},
    ) == [ToolCallDelta(0, "", "f", "{"), ToolCallDelta(0, "", "", "}"), ToolCallDelta(0, "call_0")]


def test_the_old_function_call() -> None:
    got = events(chunk(function_call={"name": "f", "arguments": "{}"}), chunk(finish="function_call"))
    assert got == [NAMED, ToolCallDelta(0, "", "f", "{}"), ToolCallDelta(0, "call_0"), Finished("tool_calls")]


@pytest.mark.parametrize(
    "noise",
    [b"data:\n\n", b"event: ping\n\n", b"retry: 10\n\n", b"id: 7\n\n", b": keep-alive\n\n", b"data: ping\n\n",
     b"event: ping\ndata: {}\n\n", b"data: null\n\n", b"\n\n\n"],
)  # fmt: skip
def test_blocks_that_say_nothing(noise: bytes) -> None:
    assert events(noise, chunk("a"), noise, chunk(finish="stop"), noise) == [NAMED, TextDelta("a"), Finished("stop")]


def test_no_end_mark_and_no_last_blank_line() -> None:
    data = sent(chunk("a"), chunk("b", finish="stop"), done=False)
    assert run(data)[0] == [NAMED, TextDelta("a"), TextDelta("b"), Finished("stop")]
    assert run(data[:-1])[0] == run(data[:-2])[0] == run(data)[0]


def test_cut_inside_json_keeps_what_came_and_has_no_end() -> None:
    data = sent(chunk("a"), chunk("b"), done=False)[:-30]
    got, answer = run(data)
    assert got == [NAMED, TextDelta("a")]
    assert answer.fault is None
    assert answer.reader.answered
    assert not answer.reader.complete


@pytest.mark.parametrize("end", [True, False])
def test_no_finish_reason(end: bool) -> None:
    got, answer = run(sent(chunk("a"), done=end))
    assert got == [NAMED, TextDelta("a"), *([Finished("stop")] if end else [])]
    assert answer.done is answer.whole is end


@pytest.mark.parametrize(
    "bad",
    [
        b'data: {"error": {"message": "boom", "code": 500}}\n\n',
        b'data: {"error": "boom"}\n\n',
        b'event: error\ndata: {"message": "boom"}\n\n',
        b"event: error\ndata: boom\n\n",
        b'data: {"object": "error", "message": "boom"}\n\n',
        b'data: {"detail": "boom"}\n\n',
    ],
)
def test_an_error_in_mid_stream_comes_after_what_came_before(bad: bytes) -> None:
    got, answer = run(sent(chunk("a"), bad, chunk("b")))
    assert got == [NAMED, TextDelta("a")]
    assert answer.fault is not None
    assert not answer.fault.malformed
    assert "boom" in str(answer.fault.document)


@pytest.mark.parametrize("bad", [b"data: {broken\n\n", b"data: 12\n\n", b"data: [1]\n\n", b"data: <html>\n\n", b'data: {"choices": [{"index": {}, "delta": 3}], "model": [], "usage": 3, "prompt_filter_results": 4}\n\ndata: {"choices": 5}\n\n'])  # fmt: skip
def test_what_is_no_chunk_is_a_fault_of_protocol(bad: bytes) -> None:
    got, answer = run(sent(chunk("a"), bad, chunk("b")))
    assert got == [NAMED, TextDelta("a")]
    assert answer.fault is not None
    assert answer.fault.malformed


WHOLE = {
    "model": "scripted",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello", "refusal": None}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}  # fmt: skip


@pytest.mark.parametrize("before", [b"", b"  \n", b"\xef\xbb\xbf"])
def test_a_document_is_read_as_one_whatever_was_asked_for(before: bytes) -> None:
    data = before + json.dumps(WHOLE, indent=1).encode()
    expected = [NAMED, TextDelta("hello"), Finished("stop"), UsageReport(Usage(1, 1))]
    assert run(data)[0] == expected
    assert run(data, cuts=list(range(len(data))))[0] == expected


@pytest.mark.parametrize(
    ("data", "malformed"),
    [
        (b"<!doctype html><title>Hi</title>", True),
        (b'{"error": {"message": "no"}}', False),
        (b'{"id": "x", "choices": null}', True),
        (b"[]", True),
        (b'{"half": ', None),  # broke off
        (b"", None),
        (b"   ", None),
        (b"data: [DONE]\n\n", None),
    ],
)
def test_what_is_no_answer(data: bytes, malformed: bool | None) -> None:
    got, answer = run(data)
    assert got == []
    assert not answer.reader.answered or answer.fault is not None
    assert (answer.fault.malformed if answer.fault else None) is malformed


def test_invalid_utf8_and_half_surrogates_are_replaced_not_fatal() -> None:
    bad = b'data: {"model":"scripted","choices":[{"index":0,"delta":{"content":"a\xff"}}]}\n\n'
    half = b'data: {"model":"scripted","choices":[{"index":0,"delta":{"content":"b\\ud83d"}}]}\n\n'
    assert events(bad, half, chunk(finish="stop")) == [NAMED, TextDelta("a�"), TextDelta("b�"), Finished("stop")]


def test_a_megabyte_in_one_delta() -> None:
    text = "é" * 1_000_000
    data = sent(chunk(text), chunk(finish="stop"))
    assert run(data, cuts=list(range(0, len(data), 65_536)))[0] == [NAMED, TextDelta(text), Finished("stop")]


def test_content_in_parts() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}]
    assert events(chunk(content=parts), chunk(finish="stop")) == [
        NAMED,
        ReasoningDelta("hm"),
        TextDelta("a"),
        Finished("stop"),
    ]  # type: ignore[arg-type]  # documents of any shape


LEGACY = [
    {"model": "scripted", "choices": [{"index": 0, "text": "Hel", "logprobs": {"tokens": ["Hel"], "token_logprobs": [-0.5], "top_logprobs": [{"Hel": -0.5, "Hi": -1.5}]}}]},
    {"model": "scripted", "choices": [{"index": 0, "text": "lo", "finish_reason": "length"}]},
    {"model": "scripted", "choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}},
]  # fmt: skip


def test_the_legacy_completions() -> None:
    row = {
        "token": "Hel",
        "logprob": -0.5,
        "top_logprobs": [{"token": "Hel", "logprob": -0.5}, {"token": "Hi", "logprob": -1.5}],
    }
    assert events(*LEGACY, api="completions") == [
        NAMED, TextDelta("Hel"), LogprobsDelta((row,)), TextDelta("lo"), Finished("length"), UsageReport(Usage(4, 2)),
    ]  # fmt: skip


def named(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


USAGE = {"input_tokens": 5, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 2}, "output_tokens_details": {"reasoning_tokens": 1}}  # fmt: skip


def ended(kind: str = "response.completed", **response: Any) -> bytes:
    return named(kind, response={"model": "scripted", "status": "completed", "usage": USAGE, "output": [], "incomplete_details": None, **response})  # fmt: skip


TOLD = UsageReport(Usage(5, 4, 2, 1))


def test_responses_text_and_reasoning() -> None:
    got = events(
        named("response.created", response={"model": "scripted", "status": "in_progress"}),
        named("response.reasoning_summary_text.delta", delta="one", output_index=0, summary_index=0),
        named("response.reasoning_summary_text.delta", delta="two", output_index=0, summary_index=1),
        named("response.output_text.delta", delta="Hel", output_index=1, content_index=0, logprobs=[]),
        named("response.output_text.delta", delta="lo", output_index=1, content_index=0),
        named("response.output_text.done", text="Hello", output_index=1, content_index=0),
        ended(output=[{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]),
        done=False,
        api="responses",
    )
    assert got == [
        NAMED, ReasoningDelta("one"), ReasoningDelta("\n\ntwo"), TextDelta("Hel"), TextDelta("lo"), TOLD, Finished("stop"),
    ]  # fmt: skip


def test_responses_tool_calls() -> None:
    item = {"type": "function_call", "id": "fc1", "call_id": "c1", "name": "f", "arguments": ""}
    got = events(
        named("response.output_item.added", output_index=0, item=item),
        named("response.function_call_arguments.delta", output_index=0, item_id="fc1", delta='{"a":'),
        named("response.function_call_arguments.delta", output_index=0, item_id="fc1", delta=" 1}"),
        named("response.function_call_arguments.done", output_index=0, item_id="fc1", arguments='{"a": 1}'),
        named("response.output_item.done", output_index=0, item={**item, "arguments": '{"a": 1}'}),
        ended(output=[{**item, "arguments": '{"a": 1}'}]),
        api="responses",
    )
    assert got == [
        ToolCallDelta(0, "c1", "f"), ToolCallDelta(0, "", "", '{"a":'), ToolCallDelta(0, "", "", " 1}"), NAMED, TOLD,
        Finished("tool_calls"),
    ]  # fmt: skip


def test_responses_arguments_that_come_only_whole() -> None:
    item = {"type": "function_call", "id": "fc1", "call_id": "c1", "name": "f", "arguments": ""}
    got = events(
        named("response.output_item.added", output_index=0, item=item),
        named("response.function_call_arguments.done", output_index=0, item_id="fc1", arguments="{}"),
        ended(output=[{**item, "arguments": "{}"}]),
        api="responses",
    )
    assert got == [ToolCallDelta(0, "c1", "f"), ToolCallDelta(0, "", "", "{}"), NAMED, TOLD, Finished("tool_calls")]


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (
            ended("response.incomplete", status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            "length",
        ),
        (ended(status="incomplete", incomplete_details={"reason": "max_output_tokens"}), "length"),
        (
            ended("response.incomplete", status="incomplete", incomplete_details={"reason": "content_filter"}),
            "content_filter",
        ),
        (ended("response.cancelled", status="cancelled"), "truncated"),
        (named("response.completed", response={"model": "scripted", "status": "completed", "usage": USAGE}), "length"),
    ],
)
def test_responses_that_were_cut(last: bytes, reason: str) -> None:
    delta = named("response.output_text.delta", delta="a", output_index=0, content_index=0)
    assert events(delta, last, api="responses", asked=request(max_tokens=4)) == [
        TextDelta("a"), NAMED, TOLD, Finished(reason),  # type: ignore[arg-type]  # documents of any shape
    ]  # fmt: skip


def test_a_refusal_in_responses() -> None:
    assert events(named("response.refusal.delta", delta="No."), ended(), api="responses") == [
        RefusalDelta("No."), NAMED, TOLD, Finished("refusal"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        named("error", code="server_error", message="boom", param=None),
        named("response.failed", response={"status": "failed", "error": {"code": "server_error", "message": "boom"}}),
        b'event: error\ndata: {"error": {"message": "boom"}}\n\n',
        b'data: {"error": {"message": "boom"}}\n\n',
    ],
)
def test_errors_in_responses(bad: bytes) -> None:
    delta = named("response.output_text.delta", delta="a", output_index=0, content_index=0)
    got, answer = run(sent(delta, bad), "responses")
    assert got == [TextDelta("a")]
    assert answer.fault is not None
    assert "boom" in str(answer.fault.document)


def test_a_whole_response() -> None:
    response = {
        "object": "response", "model": "scripted", "status": "completed", "usage": USAGE, "incomplete_details": None,
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "Hello", "logprobs": [{"token": "Hello"}]}]},
            {"type": "function_call", "id": "fc1", "call_id": "c1", "name": "f", "arguments": "{}"},
        ],
    }  # fmt: skip
    got, _ = run(json.dumps(response).encode(), "responses")
    assert got == [
        NAMED, ReasoningDelta("hm"), TextDelta("Hello"), LogprobsDelta(({"token": "Hello"},)),
        ToolCallDelta(0, "c1", "f", "{}"),
        ReasoningItem({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}),
        ReasoningItem({"type": "message", "length": 5}), ReasoningItem({"type": "function_call"}),
        TOLD, Finished("tool_calls"),
    ]  # fmt: skip


STREAMS: list[tuple[Api, bytes]] = [
    ("chat", sent(chunk("", role="assistant"), b": keep-alive\n\n", chunk("<think>h"), chunk("m</think>\n"), chunk("né€😀"),
                  chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]),
                  chunk(finish="stop"), {"choices": [], "usage": {"prompt_tokens": 1}})),
    ("chat", sent(chunk("a"), b'data: {"error": {"message": "boom"}}\n\n')),
    ("chat", b"\xef\xbb\xbf" + sent(chunk("é"), done=False).replace(b"\n", b"\r\n")),
    ("chat", json.dumps(WHOLE).encode()),
    ("completions", sent(*LEGACY)),
    ("responses", sent(named("response.output_text.delta", delta="né", output_index=0, content_index=0), ended(), done=False)),
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 100_000), max_size=12), st.integers(0, 100_000))
def test_how_bytes_are_split_never_changes_the_events(stream: tuple[Api, bytes], cuts: list[int], cut_off: int) -> None:
    api, data = stream
    data = data[: cut_off % (2 * len(data))]  # half of the time whole, else broken off anywhere
    whole, first = run(data, api)
    split, second = run(data, api, cuts=cuts)
    assert split == whole
    assert (first.fault is None) == (second.fault is None)
    assert first.reader.answered == second.reader.answered


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(STREAMS), st.binary(max_size=20), st.integers(0, 100_000))
def test_no_garbage_raises_anything_but_a_fault(stream: tuple[Api, bytes], garbage: bytes, place: int) -> None:
    api, data = stream
    place %= len(data)
    run(data[:place] + garbage + data[place:], api)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "delta", "content", "index", "message", "usage", "error", "tool_calls", "function", "id",
                         "finish_reason", "logprobs", "output", "item", "type", "response", "text", "model", "status"]),
        inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["chat", "responses", "completions"]), st.lists(st.dictionaries(st.sampled_from(["choices", "type", "error", "usage", "output", "item", "response", "delta", "model"]), JSON | st.sampled_from(["response.completed", "response.output_item.added", "response.output_text.delta"])), max_size=4))  # fmt: skip
def test_no_document_raises_anything_but_a_fault(api: Api, documents: list[dict[str, Any]]) -> None:
    got, _ = run(sent(*documents), api)
    draft = Draft()
    draft.add_all(got)
    response = draft.response()
    f"{response.text}{response.reasoning}{response.refusal}{response.model_reported}".encode()
    "".join(call.id + call.name + call.arguments for call in response.tool_calls).encode()
