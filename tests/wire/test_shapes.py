"""Every shape in which servers write an answer: read right, whole or however its bytes are split."""

# ruff: noqa: E501 - what servers write stays on the line on which they write it

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from asking import ask
from servers import Answer as Served
from servers import ScriptedServer, chunk

from llm_magic import errors
from llm_magic.capabilities import Api
from llm_magic.draft import Draft
from llm_magic.events import Usage
from llm_magic.messages import user
from llm_magic.request import Parameters, Request
from llm_magic.wire.stream import Answer

Call = tuple[int, str, str]
"""The number of the answer, the function, its arguments."""


@dataclass(frozen=True)
class Read:
    """What an answer says."""

    texts: tuple[str, ...] = ("",)
    finish: tuple[str, ...] = ("stop",)
    calls: tuple[Call, ...] = ()
    reasoning: str = ""
    refusal: str = ""
    usage: Usage | None = None
    cost: float | None = None
    filters: tuple[Any, ...] = ()
    tokens: tuple[str, ...] = ()
    fault: str = ""
    malformed: bool = False
    whole: bool = True


@dataclass(frozen=True)
class Shape:
    data: bytes
    read: Read
    api: Api = "chat"
    n: int | None = None
    asked: dict[str, Any] = field(default_factory=dict)


def read(shape: Shape, cuts: Sequence[int] = ()) -> tuple[Read, bytes]:
    """Return what an answer says whose bytes come in pieces, and how it began."""
    given = {"n": shape.n, **shape.asked} if shape.n else shape.asked
    answer = Answer(shape.api, Request("m", (user("hello"),), Parameters(given)))
    draft = Draft()
    for start, end in pairwise([0, *cuts, len(shape.data)]):
        draft.add_all(answer.feed(shape.data[start:end]))
    draft.add_all(answer.close())
    fault, response = answer.fault, draft.response()
    alternatives = response.alternatives or draft.alternatives()
    return Read(
        texts=tuple(one.text for one in alternatives),
        finish=tuple(one.finish_reason for one in alternatives),
        calls=tuple((index, run.name, run.arguments) for index, one in enumerate(alternatives) for run in one.tool_calls),
        reasoning=response.reasoning,
        refusal=response.refusal,
        usage=response.usage,
        cost=response.cost,
        filters=response.filters,
        tokens=tuple(str(token["token"]) for token in response.logprobs),
        fault="" if fault is None else str(fault.document),
        malformed=fault is not None and fault.malformed,
        whole=answer.whole,
    ), answer.first  # fmt: skip


def sent(*documents: object, done: bool = True, end: str = "\n\n") -> bytes:
    blocks = [
        item if isinstance(item, bytes) else f"data: {json.dumps(item, ensure_ascii=False)}{end}".encode()
        for item in documents
    ]
    return b"".join(blocks) + (f"data: [DONE]{end}".encode() if done else b"")


def whole(*choices: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps(
        {"id": "c", "object": "chat.completion", "model": "scripted", "choices": choices, **fields}
    ).encode()


def message(content: object, finish: str | None = "stop", **fields: Any) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish, **fields}


def calling(name: str, arguments: str, **fields: Any) -> dict[str, Any]:
    return {"id": f"call of {name}", "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


def choice(index: int, **fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "choices": [{"index": index, **fields}]}


def growing(said: str, piece: str, finish: str | None = None) -> dict[str, Any]:
    """A chunk of Perplexity: beside the delta the whole message so far."""
    both = {"message": {"role": "assistant", "content": said}, "delta": {"role": "assistant", "content": piece}}
    return choice(0, **both, finish_reason=finish)


def output(*items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "object": "response",
        "model": "scripted",
        "status": "completed",
        "output": items,
        "incomplete_details": None,
        **fields,
    }


def named(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}


SAID = {"type": "message", "content": [{"type": "output_text", "text": "né"}]}
EMPTY_CALL = {"name": "", "arguments": ""}
BLOCKED = {"hate": {"filtered": False, "severity": "safe"}, "custom_blocklists": [{"filtered": True, "id": "ours"}]}
DETECTED = {"protected_material_text": {"detected": True, "filtered": False}}
TWO = Read(("", ""), ("tool_calls", "tool_calls"), ((0, "f", "{}"), (1, "g", '{"a": 1}')))
KEEP_ALIVE = b"\n         " * 150

SHAPES: dict[str, Shape] = {
    # whole documents
    "a document": Shape(whole(message("né€😀")), Read(("né€😀",))),
    "a document beneath a byte order mark": Shape(b"\xef\xbb\xbf" + whole(message("a")), Read(("a",))),
    "a kilobyte of white space first": Shape(KEEP_ALIVE + whole(message("a")), Read(("a",))),
    "Perplexity's document": Shape(
        whole(message("a", delta={"role": "assistant", "content": ""}), citations=["https://a.example"]), Read(("a",))
    ),
    "Cloudflare's JSON mode": Shape(whole(message({"type": "cat", "legs": 4, "né": None})), Read(('{"type": "cat", "legs": 4, "né": null}',))),
    "a list in JSON mode": Shape(whole(message([{"legs": 4}, 1])), Read(('[{"legs": 4}, 1]',))),
    "Mistral's parts": Shape(
        whole(message([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}, {"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "b"}])),
        Read(("ab",), reasoning="hm"),
    ),
    "one part alone": Shape(whole(message({"type": "text", "text": "a"})), Read(("a",))),
    "Snowflake's call of nothing": Shape(
        whole({"index": 0, "message": {"content": "a", "function_call": EMPTY_CALL}, "finish_reason": ""}), Read(("a",))
    ),
    "Snowflake's call of nothing beside calls": Shape(
        whole({"index": 0, "message": {"content": "", "function_call": EMPTY_CALL, "tool_calls": [calling("f", "{}")]}, "finish_reason": ""}),
        Read(calls=((0, "f", "{}"),), finish=("tool_calls",)),
    ),
    "the old function call": Shape(
        whole({"index": 0, "message": {"content": None, "function_call": {"name": "f", "arguments": "{}"}}, "finish_reason": "function_call"}),
        Read(calls=((0, "f", "{}"),), finish=("tool_calls",)),
    ),
    "the same call in the old and the new way": Shape(
        whole({"index": 0, "message": {"function_call": {"name": "f", "arguments": "{}"}, "tool_calls": [calling("f", "{}")]}, "finish_reason": "tool_calls"}),
        Read(calls=((0, "f", "{}"),), finish=("tool_calls",)),
    ),
    "a call of a custom tool": Shape(
        whole({"index": 0, "message": {"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "sum", "input": "4 + 4"}}]}, "finish_reason": "tool_calls"}),
        Read(calls=((0, "sum", "4 + 4"),), finish=("tool_calls",)),
    ),
    "calls in both of two answers": Shape(
        whole(
            {"index": 0, "message": {"tool_calls": [calling("f", "{}")]}, "finish_reason": "tool_calls"},
            {"index": 1, "message": {"tool_calls": [calling("g", '{"a": 1}')]}, "finish_reason": "tool_calls"},
        ),
        TWO, n=2,
    ),
    "two answers, one of nothing": Shape(whole(message("a"), {"index": 1, "message": {"content": ""}, "finish_reason": "length"}), Read(("a", ""), ("stop", "length")), n=2),
    "no finish reason": Shape(whole(message("a", None)), Read(("a",))),
    "half of a character": Shape(b'{"choices": [{"message": {"content": "a\\ud83d b\\ud83d\\ude00"}, "finish_reason": "stop"}]}', Read(("a\ufffd b😀",))),
    "usage that is no number": Shape(
        b'{"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": NaN, "completion_tokens": 1e999, "total_tokens": "7", "cost": null}}',
        Read(("a",)),
    ),
    "usage of which half is a number": Shape(whole(message("a"), usage={"prompt_tokens": "3", "completion_tokens": 2}), Read(("a",), usage=Usage(0, 2))),
    "usage that is a list": Shape(whole(message("a"), usage=[1]), Read(("a",))),
    "the sum of tokens alone": Shape(whole(message("a"), usage={"total_tokens": 7}), Read(("a",), usage=Usage(7))),
    "Perplexity's cost": Shape(whole(message("a"), usage={"prompt_tokens": 1, "completion_tokens": 1, "cost": {"total_cost": 0.25, "request_cost": 0.2}}), Read(("a",), usage=Usage(1, 1), cost=0.25)),
    "Azure's blocklists": Shape(whole(message("a", content_filter_results=BLOCKED)), Read(("a",), filters=(BLOCKED,))),
    "Azure's blocklists that found nothing": Shape(whole(message("a", content_filter_results={"custom_blocklists": [{"filtered": False}]})), Read(("a",))),
    "an error beside half an answer": Shape(
        whole(message("a"), usage={"prompt_tokens": 4, "completion_tokens": 1}, error={"message": "boom"}),
        Read(("a",), usage=Usage(4, 1), fault=str(json.loads(whole(message("a"), usage={"prompt_tokens": 4, "completion_tokens": 1}, error={"message": "boom"})))),
    ),
    "an HTML page": Shape(b"<!doctype html><title>Hi</title>", Read(finish=("truncated",), fault="<!doctype html><title>Hi</title>", malformed=True, whole=False)),
    "a document that broke off": Shape(whole(message("né and more")).partition(b" more")[0], Read(("né and",), ("truncated",), whole=False)),
    # streams
    "a stream": Shape(
        sent(chunk("", role="assistant"), chunk("n"), chunk("é€😀"), chunk(finish="stop"), {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
        Read(("né€😀",), usage=Usage(3, 2)),
    ),
    "a stream by carriage returns": Shape(sent(chunk("é"), chunk(finish="stop"), end="\r\n\r\n"), Read(("é",))),
    "a stream by carriage returns alone": Shape(sent(chunk("é"), chunk(finish="stop"), end="\r\r"), Read(("é",))),
    "a stream beneath a byte order mark": Shape(b"\xef\xbb\xbf" + sent(chunk("é"), chunk(finish="stop")), Read(("é",))),
    "OpenRouter's comments": Shape(b": OPENROUTER PROCESSING\n\n" * 3 + sent(chunk("a"), b": OPENROUTER PROCESSING\n\n", chunk(finish="stop")), Read(("a",))),
    "white space, then a stream": Shape(b"\n\n  \n" + sent(chunk("a"), chunk(finish="stop")), Read(("a",))),
    "no blank line at the end": Shape(sent(chunk("a"), chunk("b", finish="stop"), done=False)[:-2], Read(("ab",))),
    "no end mark, no finish reason": Shape(sent(chunk("a"), done=False), Read(("a",), ("truncated",), whole=False)),
    "a finish reason that is none yet": Shape(sent(chunk("a", finish="null"), chunk("b", finish="length")), Read(("ab",), ("length",))),
    "an empty finish reason": Shape(sent(chunk("a", finish=""), chunk("b", finish="")), Read(("ab",))),
    "think tags": Shape(sent(chunk("<thi"), chunk("nk>h"), chunk("é\n</thi"), chunk("nk>\n\na"), chunk(finish="stop")), Read(("a",), reasoning="hé")),
    "Perplexity's stream": Shape(sent(growing("a", "a"), growing("ab", "b"), growing("ab", "", "stop")), Read(("ab",))),
    "messages for deltas": Shape(sent(choice(0, message={"content": "a"}), choice(0, message={"content": "b"}, finish_reason="stop")), Read(("ab",))),
    "a whole document as the only event": Shape(sent(json.loads(whole(message("a", delta={})))), Read(("a",))),
    "Groq's usage": Shape(sent(chunk("a"), {**chunk(finish="stop"), "x_groq": {"id": "r", "usage": {"prompt_tokens": 5, "completion_tokens": 6}}}), Read(("a",), usage=Usage(5, 6))),
    "Groq's error": Shape(sent(chunk("a"), {**chunk(), "x_groq": {"id": "r", "error": "over capacity"}}), Read(("a",), ("truncated",), fault="{'id': 'r', 'error': 'over capacity'}", whole=False)),
    "GPUStack's error": Shape(sent(chunk("a"), b'error: {"error": {"message": "boom"}}\n\n'), Read(("a",), ("truncated",), fault="{'error': {'message': 'boom'}}", whole=False)),
    "an error with usage and the last of the text": Shape(
        sent(chunk("a"), {"error": {"message": "boom"}, "choices": [{"index": 0, "delta": {"content": "b"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}),
        Read(("ab",), ("truncated",), usage=Usage(3, 1), fault=str({"error": {"message": "boom"}, "choices": [{"index": 0, "delta": {"content": "b"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}), whole=False),
    ),
    "an error of a choice": Shape(sent(chunk("a"), choice(0, delta={}, error={"message": "boom"})), Read(("a",), ("truncated",), fault="{'index': 0, 'delta': {}, 'error': {'message': 'boom'}}", whole=False)),
    "Azure's verdicts": Shape(
        sent(
            {"choices": [], "model": "", "id": "", "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]},
            chunk("a"), chunk(finish="stop"),
            choice(0, content_filter_results=DETECTED, content_filter_offsets={"start_offset": 0}, finish_reason=None),
        ),
        Read(("a",), filters=(DETECTED,)),
    ),
    "calls in both of two streamed answers": Shape(
        sent(
            choice(0, delta={"tool_calls": [calling("f", "", index=0)]}),
            choice(1, delta={"tool_calls": [calling("g", '{"a"', index=0)]}),
            choice(0, delta={"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}, finish_reason="tool_calls"),
            choice(1, delta={"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}, finish_reason="tool_calls"),
        ),
        TWO, n=2,
    ),
    "nothing but a word": Shape(b"method=POST pathname=/v1", Read(finish=("truncated",), whole=False)),
    # the Completions API
    "a text": Shape(json.dumps({"choices": [{"text": "né", "index": 0, "finish_reason": "stop", "logprobs": {"tokens": ["n", "é"], "token_logprobs": [-1, -2], "top_logprobs": None}}]}).encode(), Read(("né",), tokens=("n", "é")), "completions"),
    "messages from the Completions API": Shape(whole(message("a")), Read(("a",)), "completions"),
    "a text that is an object": Shape(b'{"choices": [{"text": {"a": 1}, "finish_reason": "stop"}]}', Read(('{"a": 1}',)), "completions"),
    # the Responses API
    "a response": Shape(json.dumps(output(thought("one"), thought("two"), SAID, thought("three"))).encode(), Read(("né",), reasoning="one\n\ntwo\n\nthree"), "responses"),
    "a refusal, then text": Shape(json.dumps(output({"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}, SAID)).encode(), Read(("né",), ("refusal",), refusal="No."), "responses"),
    "content as a text": Shape(json.dumps(output({"type": "message", "content": "né"})).encode(), Read(("né",)), "responses"),
    "arguments as an object": Shape(json.dumps(output({"type": "function_call", "id": 5, "call_id": None, "name": "f", "arguments": {"a": 1}})).encode(), Read(calls=((0, "f", '{"a": 1}'),), finish=("tool_calls",)), "responses"),
    "items that only come when they are done": Shape(
        named("response.output_item.done", output_index=0, item=thought("hm")) + named("response.output_item.done", output_index=1, item=SAID) + named("response.completed", response=output()),
        Read(("né",), reasoning="hm"), "responses",
    ),
    "a stream of a response": Shape(
        named("response.created", response={"model": "scripted"}) + named("response.output_text.delta", delta="n", output_index=0, content_index=0) + named("response.output_text.delta", delta="é", output_index=0, content_index=0)
        + named("response.output_text.done", text="né", output_index=0, content_index=0) + named("response.completed", response=output(SAID, usage={"input_tokens": 1, "output_tokens": 2})),
        Read(("né",), usage=Usage(1, 2)), "responses",
    ),
    "a response that is queued": Shape(json.dumps(output(status="queued")).encode(), Read(finish=("truncated",)), "responses"),
    "a response that was cut": Shape(named("response.incomplete", response=output(SAID, status="incomplete", incomplete_details={"reason": "max_output_tokens"})), Read(("né",), ("length",)), "responses"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_read_right(name: str) -> None:
    assert read(SHAPES[name])[0] == SHAPES[name].read


@pytest.mark.parametrize("name", SHAPES)
def test_how_its_bytes_are_split_changes_nothing(name: str) -> None:
    shape = SHAPES[name]
    size = len(shape.data)
    at_once = read(shape)
    assert read(shape, range(1, size)) == at_once, "byte by byte"
    for cut in range(1, size):
        assert read(shape, [cut]) == at_once, f"at {cut}: {shape.data[:cut][-20:]!r} | {shape.data[cut:][:20]!r}"


@pytest.mark.parametrize("name", SHAPES)
def test_broken_off_anywhere_it_is_read_alike_in_pieces(name: str) -> None:
    shape = SHAPES[name]
    for size in range(0, len(shape.data), 7):
        cut = Shape(shape.data[:size], shape.read, shape.api, shape.n, shape.asked)
        assert read(cut, range(1, size)) == read(cut), f"the first {size} bytes"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "answered with nothing."),
        (b" \n ", "answered with nothing."),
        (b'data: {"value": "Sure"}\n\ndata: {"value": ","}\n\n', 'answered with nothing but data: {"value": "Sure"} data: {"value": ","}.'),
        (b"method=POST pathname=/v1", "sent what is no answer of this API: method=POST pathname=/v1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pieces", [False, True])
def test_what_came_in_place_of_an_answer_is_said(data: bytes, said: str, pieces: bool) -> None:
    steps = [step for byte in data for step in (bytes([byte]), 0.001)] if pieces else [data]
    with ScriptedServer(Served(steps, headers={"content-type": "text/plain"})) as server:
        outcome = ask(server.url)
    assert type(outcome.error) is errors.ProtocolError
    assert outcome.error.message.endswith(said)
