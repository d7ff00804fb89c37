"""What goes back of reasoning: joined from pieces, in its order, and nothing besides."""

import json
from typing import Any

import pytest
from servers import chunk

from llm_magic.capabilities import Api, Capabilities
from llm_magic.draft import Draft
from llm_magic.events import ReasoningItem
from llm_magic.messages import Reasoning, ToolCall, assistant, user
from llm_magic.request import Request
from llm_magic.wire import chat, responses
from llm_magic.wire.reasoning import CHAT_FIELDS
from llm_magic.wire.stream import Answer


def read(*documents: dict[str, Any], api: Api = "chat") -> tuple[list[Any], Draft]:
    """Return what a stream gives back, and the draft."""
    answer = Answer(api, Request("m", (user("x"),)))
    events = []
    for document in documents:
        events += answer.feed(f"data: {json.dumps(document)}\n\n".encode())
    events += answer.feed(b"data: [DONE]\n\n") + answer.close()
    assert answer.fault is None
    draft = Draft()
    draft.add_all(events)
    return [event.item for event in events if isinstance(event, ReasoningItem)], draft


def details(*parts: dict[str, Any]) -> dict[str, Any]:
    return chunk(reasoning_details=list(parts))


TEXT = {"type": "reasoning.text"}
ENCRYPTED = {"type": "reasoning.encrypted"}


@pytest.mark.parametrize(
    ("pieces", "joined"),
    [
        ([{**TEXT, "text": "a", "index": 0}, {**TEXT, "text": "b", "index": 0}], [{**TEXT, "text": "ab", "index": 0}]),
        (  # two at once
            [{**TEXT, "text": "a", "index": 0}, {**TEXT, "text": "c", "index": 1}, {**TEXT, "text": "b", "index": 0}],
            [{**TEXT, "text": "ab", "index": 0}, {**TEXT, "text": "c", "index": 1}],
        ),
        (  # one index, two types
            [{**TEXT, "text": "a", "index": 0}, {**ENCRYPTED, "data": "x", "index": 0}],
            [{**TEXT, "text": "a", "index": 0}, {**ENCRYPTED, "data": "x", "index": 0}],
        ),
        (  # one index, two ids
            [{**ENCRYPTED, "data": "x", "id": "1", "index": 0}, {**ENCRYPTED, "data": "y", "id": "2", "index": 0}],
            [{**ENCRYPTED, "data": "x", "id": "1", "index": 0}, {**ENCRYPTED, "data": "y", "id": "2", "index": 0}],
        ),
        (  # encrypted, in pieces
            [{**ENCRYPTED, "data": "x", "id": "1", "index": 0}, {**ENCRYPTED, "data": "y", "index": 0}],
            [{**ENCRYPTED, "data": "xy", "id": "1", "index": 0}],
        ),
        (  # the signature comes last, twice
            [{**TEXT, "text": "a", "signature": None, "index": 0}, *[{**TEXT, "signature": "s", "index": 0}] * 2],
            [{**TEXT, "text": "a", "signature": "s", "index": 0}],
        ),
        ([{**TEXT, "text": "a"}, {**TEXT, "text": "b"}], [{**TEXT, "text": "ab"}]),
        (  # without an index a signature ends what it signs
            [{**TEXT, "text": "a"}, {**TEXT, "signature": "s"}, {**TEXT, "text": "b"}],
            [{**TEXT, "text": "a", "signature": "s"}, {**TEXT, "text": "b"}],
        ),
        ([{**ENCRYPTED, "data": "x"}] * 2, [{**ENCRYPTED, "data": "x"}] * 2),
        ([{**TEXT, "text": "a", "index": [1]}, {"text": "no type"}, 3, None], [{**TEXT, "text": "a"}]),
    ],
)  # fmt: skip
def test_details_in_pieces(pieces: list[Any], joined: list[Any]) -> None:
    found, _ = read(*[details(piece) for piece in pieces], chunk("Hi.", finish="stop"))
    assert found == [{"reasoning_details": joined}]
    assert read(details(*pieces), chunk("Hi.", finish="stop"))[0] == found


def test_a_whole_message_is_taken_as_it_is() -> None:
    parts = [{**TEXT, "text": "a", "index": 0}, {**TEXT, "text": "b", "index": 0}]
    message = {"role": "assistant", "content": "Hi.", "reasoning_details": parts}
    found, _ = read({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert found == [{"reasoning_details": parts}]


@pytest.mark.parametrize(
    ("beside", "text"),
    [({}, "ab"), ({"reasoning": None}, "ab"), ({"reasoning": "x"}, "xx"), ({"reasoning_content": ""}, "ab")],
)  # fmt: skip
def test_reasoning_that_stands_in_details_alone_is_read(beside: dict[str, Any], text: str) -> None:
    pieces = [chunk(reasoning_details=[{**TEXT, "text": letter, "index": 0}], **beside) for letter in "ab"]
    assert read(*pieces, chunk("Hi.", finish="stop"))[1].reasoning == text


def test_an_answer_of_signatures_alone_is_none() -> None:
    answer = Answer("chat", Request("m", (user("x"),)))
    signed = chunk(extra_content={"google": {"thought_signature": "s"}}, thinking_blocks=[{"type": "x", "data": "y"}])
    answer.feed(f"data: {json.dumps(signed)}\n\ndata: [DONE]\n\n".encode())
    answer.close()
    assert (answer.said, answer.reader.others) == (False, set())


def test_an_empty_text_goes_back_where_tools_are_called() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    assert read(chunk(reasoning_content="", tool_calls=[call]), chunk(finish="tool_calls"))[0] == [
        {"reasoning_content": ""}
    ]
    assert read(chunk("Hi.", reasoning_content=""), chunk(finish="stop"))[0] == []


def test_signatures_of_calls_that_have_no_ids() -> None:
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    call = {"index": 0, "id": "", "function": {"name": "f", "arguments": "{}"}, **signed}
    found, draft = read(chunk(tool_calls=[call]), chunk(finish="tool_calls"))
    assert found == [{"tool_calls": {"call_0": signed}}]
    message = assistant("", draft.tool_calls, Reasoning("", tuple(found)))
    (sent,) = chat.body(Request("m", (message,)), Capabilities())["messages"][0]["tool_calls"]
    assert sent == {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{}"}, **signed}


@pytest.mark.parametrize(
    "wrong", [3, None, [], {}, "x", [3], {"google": 3}, {"google": {"thought_signature": 3}}, [[]]]
)
@pytest.mark.parametrize("name", sorted(CHAT_FIELDS))
def test_wrong_types_are_no_fault(name: str, wrong: Any) -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}", name: wrong}, name: wrong}
    found, draft = read(chunk("Hi.", **{name: wrong}, tool_calls=[call]), chunk(finish="tool_calls"))
    assert draft.text == "Hi."
    assert draft.tool_calls == (ToolCall("c", "f", "{}"),)
    assert all(name in {"reasoning_content", "reasoning", "thought_signature"} for _ in found)


def test_a_long_reasoning_in_single_letters_is_joined_in_linear_time() -> None:
    letters = [details({**TEXT, "text": "x", "index": number % 2}) for number in range(20_000)]
    found, _ = read(*letters, chunk("Hi.", finish="stop"))
    assert [len(part["text"]) for part in found[0]["reasoning_details"]] == [10_000, 10_000]


WRONG_ITEMS: list[Any] = [
    {"type": "reasoning", "summary": "x", "content": 3, "encrypted_content": ["x"]},
    {"type": "reasoning", "summary": [3, None, {"text": 3}, {"type": "summary_text"}], "content": [[]]},
    {"type": "reasoning"},
]


@pytest.mark.parametrize("item", WRONG_ITEMS)
def test_wrong_items_are_no_fault(item: Any) -> None:
    said = {"type": "message", "content": [{"type": "output_text", "text": "Hi."}]}
    whole = {"object": "response", "status": "completed", "output": [item, said]}
    done = {"type": "response.output_item.done", "output_index": 0, "item": item}
    for documents in ([whole], [done, {"type": "response.completed", "response": whole}]):
        found, draft = read(*documents, api="responses")
        assert draft.text == "Hi."
        message = assistant(draft.text, reasoning=Reasoning("", tuple(found)))
        sent = responses.body(Request("m", (message,)), Capabilities(api="responses"))["input"]
        assert [each["type"] for each in sent] == ["message"]


@pytest.mark.parametrize(
    ("marks", "texts"),
    [
        ([3, 3], ["One", "Two"]), ([0, 6], ["OneTwo"]), ([6], ["OneTwo"]), ([1], ["OneTwo"]), ([3, 4], ["OneTwo"]),
        ([-1, 7], ["OneTwo"]), ([None, "x"], ["OneTwo"]), ([], ["OneTwo"]),
    ],
)  # fmt: skip
def test_a_text_is_divided_as_it_came(marks: list[Any], texts: list[str]) -> None:
    items = tuple({"type": "message", "length": length} for length in marks)
    message = assistant("OneTwo", reasoning=Reasoning("", items))
    sent = responses.body(Request("m", (message,)), Capabilities(api="responses"))["input"]
    assert [each["content"][0]["text"] for each in sent] == texts


def test_what_one_api_sent_is_nothing_to_another() -> None:
    of_chat = Reasoning("", ({"reasoning_content": "hm"},))
    of_responses = Reasoning("", ({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},))
    sent = responses.body(Request("m", (assistant("a", reasoning=of_chat),)), Capabilities(api="responses"))
    assert sent["input"] == [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}
    ]
    sent = chat.body(Request("m", (assistant("a", reasoning=of_responses),)), Capabilities())
    assert sent["messages"] == [{"role": "assistant", "content": "a"}]
