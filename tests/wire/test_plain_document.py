"""A plain document read at once: the same events as `Answer` gives, or none at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.events import Event, Finished, Identified, TextDelta, Usage, UsageReport
from llm_magic.messages import user
from llm_magic.request import Parameters, Request
from llm_magic.wire.plain_document import plain_events
from llm_magic.wire.stream import Answer

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def document(message: Any = None, choice: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a document as OpenAI writes it, with other fields."""
    said = {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []} | (message or {})
    chosen = {"index": 0, "message": said, "logprobs": None, "finish_reason": "stop"} | (choice or {})
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [chosen], "usage": USAGE} | fields


def by_answer(data: bytes) -> tuple[list[Event], Answer]:
    answer = Answer("chat", Request("m", (user("hello"),), Parameters(), stream=False))
    return answer.feed(data) + answer.close(), answer


def test_a_plain_document_is_read_at_once() -> None:
    events = plain_events(json.dumps(document()).encode())
    assert events == [Identified("m"), TextDelta("Hi"), Finished("stop"), UsageReport(Usage(12, 3))]


@pytest.mark.parametrize(
    "other",
    [
        document({"content": ""}),
        document({"content": " \n"}),
        document({"content": "<think>so</think>Hi"}),
        document({"content": [{"type": "text", "text": "Hi"}]}),
        document({"reasoning_content": "so"}),
        document({"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}),
        document({"refusal": "no"}),
        document({"annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.example"}}]}),
        document({"provider_specific_fields": {"thought_signature": "x"}}),
        document(choice={"finish_reason": "length"}),
        document(choice={"finish_reason": None}),
        document(choice={"index": 1}),
        document(choice={"error": "x"}),
        document(choice={"delta": {"content": "Hi"}}),
        document(choice={"logprobs": {"content": [{"token": "Hi", "logprob": -0.1}]}}),
        document(choice={"content_filter_results": {"hate": {"filtered": True}}}),
        document(error={"message": "no"}),
        document(choices=[]),
        document(choices=document()["choices"] * 2),
        document(citations=["https://a.example"]),
        document(x_groq={"error": "x"}),
        document(prompt_filter_results=[{"content_filter_results": {"hate": {"filtered": True}}}]),
        [document()],
        "Hi",
        None,
    ],
)
def test_whatever_says_more_is_read_by_the_whole_reader(other: Any) -> None:
    assert plain_events(json.dumps(other).encode()) is None


@pytest.mark.parametrize("data", [b"", b"{", b"\xef\xbb\xbf{}", b"data: {}\n\n", b"<html>", b"\xff"])
def test_what_is_no_document_is_read_by_the_whole_reader(data: bytes) -> None:
    assert plain_events(data) is None


_VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, -1, 2.5, 1e400, "", "stop", "Hi", " <think>", "<b>", "\ud800", "m"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(["content", "text", "url", "cost", "prompt_tokens", "thought_signature"]), inner, max_size=2
        ),
    ),
    max_leaves=4,
)
_OF_A_MESSAGE = ["content", "role", "refusal", "tool_calls", "reasoning", "reasoning_details", "audio", "images", "a"]
_OF_A_MESSAGE += ["provider_specific_fields", "thought_signature", "extra_content", "thinking", "function_call"]
_OF_A_CHOICE = ["index", "finish_reason", "logprobs", "content_filter_results", "error", "delta", "message", "a"]
_OF_ALL = ["model", "usage", "error", "citations", "x_groq", "prompt_filter_results", "images", "type", "choices", "a"]


def _some(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), _VALUES, max_size=3)


@settings(max_examples=500, deadline=None)
@given(_some(_OF_A_MESSAGE), _some(_OF_A_CHOICE), _some(_OF_ALL))
def test_its_events_are_those_of_the_whole_reader(
    message: dict[str, Any], choice: dict[str, Any], fields: dict[str, Any]
) -> None:
    data = json.dumps(document(message, choice, **fields)).encode()
    plain = plain_events(data)
    if plain is not None:
        events, answer = by_answer(data)
        assert plain == events
        assert answer.fault is None
        assert answer.whole
        assert answer.said
