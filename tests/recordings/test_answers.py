"""What an exchange said, as plain data, and said once more: the same response, whatever came."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.draft import Draft
from llm_magic.errors import RecordingError
from llm_magic.events import (
    Attempt,
    CitationFound,
    Event,
    FilterReport,
    Finished,
    Identified,
    ImageReceived,
    ItemReceived,
    LogprobsDelta,
    Note,
    Opened,
    Progress,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from llm_magic.messages import Citation, Image
from llm_magic.recordings.answers import (
    answer_of,
    answer_of_vectors,
    check,
    events_of,
    is_whole,
    vectors_of,
)
from llm_magic.recordings.recording import Recording
from llm_magic.response import Response

TEXTS = st.text(st.characters(codec=None), max_size=6)
INDEXES = st.integers(0, 3)
NUMBERS = st.integers(0, 10**9)
SECONDS = st.floats(0, 1e6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(st.text(max_size=4), JSON, max_size=3)
USAGES = st.builds(Usage, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
IMAGES = st.builds(Image, st.binary(max_size=4), st.sampled_from(["image/png", "image/webp"])) | st.builds(
    Image, url=st.text(max_size=5)
)
SPANS = st.none() | NUMBERS
CITATIONS = st.builds(
    Citation, st.text(max_size=4), st.text(max_size=4), SPANS, SPANS, st.text(max_size=4), st.text(max_size=4), OBJECTS
)
REASONS = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "refusal", "interrupted", "truncated"])
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        Attempt,
        st.just("vllm"),
        st.just("m"),
        st.none() | st.sampled_from([200, 429, 503]),
        st.sampled_from(["", "overloaded"]),
        SECONDS,
        st.none() | st.just("r1"),
        st.none() | SECONDS,
        st.booleans(),
    ),
    st.builds(Opened, st.just(200), st.just({}), st.none() | st.text(max_size=4), st.none() | SECONDS),
    st.builds(Identified, st.text(max_size=4)),
    st.builds(TextDelta, TEXTS, INDEXES),
    st.builds(ReasoningDelta, TEXTS, INDEXES),
    st.builds(ReasoningItem, OBJECTS, INDEXES),
    st.builds(RefusalDelta, TEXTS),
    st.builds(ToolCallDelta, NUMBERS, TEXTS, TEXTS, TEXTS, INDEXES),
    st.builds(CitationFound, CITATIONS, INDEXES),
    st.builds(ImageReceived, IMAGES, INDEXES),
    st.builds(ItemReceived, st.integers(0, 3), OBJECTS, INDEXES),
    st.builds(LogprobsDelta, st.lists(OBJECTS, max_size=2).map(tuple), INDEXES),
    st.builds(FilterReport, OBJECTS),
    st.builds(UsageReport, USAGES, st.none() | SECONDS),
    st.builds(Finished, REASONS, INDEXES),
    st.builds(Note, st.text(min_size=1, max_size=4)),
    st.builds(Progress, st.text(max_size=4)),
)


def folded(events: list[Event]) -> tuple[Response, dict[int, tuple[Any, ...]]]:
    draft = Draft(lambda: 0.0)
    draft.add_all(events)
    response = draft.response(headers={}, first_token_seconds=None, seconds=0.0)
    return response, {index: draft.reasoning_items(index) for index in range(5)}


def recorded(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer after a file had it."""
    line = Recording({"kind": "answer"}, answer).line()
    return Recording.read(line).answer  # type: ignore[return-value]


@given(st.lists(EVENTS, max_size=12))
def test_whatever_came_is_said_once_more(events: list[Event]) -> None:
    answer = recorded(answer_of(events, seconds=1.5, first_token_seconds=0.5))
    once_more = events_of(answer, "vllm", "m")
    assert repr(folded(once_more)) == repr(folded(events))
    assert folded(once_more) == folded(events)
    details = [cited.details for cited in folded(once_more)[0].citations]
    assert details == [cited.details for cited in folded(events)[0].citations]
    assert recorded(answer_of(once_more, seconds=1.5, first_token_seconds=0.5)) == answer


WHOLE: list[Event] = [
    Attempt("vllm", "m", 503, "overloaded", 0.1, "r0", 1.0, final=False),
    Attempt("vllm", "m", 200, "", 0.2),
    Opened(200, {"server": "x"}, "req-1", 0.5),
    Identified("m-2026"),
    ReasoningDelta("Think."),
    ReasoningItem({"type": "reasoning", "encrypted": "x"}),
    TextDelta("Hel"),
    TextDelta("lo"),
    TextDelta("Other", 1),
    CitationFound(Citation("https://example.org", "A page", 0, 3, details={"score": 1.5})),
    ImageReceived(Image(b"GIF89a", "image/gif")),
    ImageReceived(Image(url="https://example.org/a.png"), 1),
    ItemReceived(0, {"type": "web_search_call"}),
    ToolCallDelta(0, "call-1", "clock", '{"zone"'),
    ToolCallDelta(0, arguments=': "UTC"}'),
    LogprobsDelta(({"token": "Hel", "logprob": -0.5},)),
    FilterReport({"hate": "safe"}),
    UsageReport(Usage(3, 4, 1, 2)),
    Finished("tool_calls"),
    Finished("stop", 1),
]
ANSWER = {
    "attempts": [
        {
            "status": 503,
            "seconds": 0.1,
            "reason": "overloaded",
            "request_id": "r0",
            "retry_after": 1.0,
            "final": False,
        },
        {"status": 200, "seconds": 0.2},
    ],
    "choices": [
        {
            "text": "Hello",
            "finish_reason": "tool_calls",
            "reasoning": "Think.",
            "reasoning_items": [{"type": "reasoning", "encrypted": "x"}],
            "tool_calls": [{"id": "call-1", "name": "clock", "arguments": '{"zone": "UTC"}'}],
            "citations": [
                {"url": "https://example.org", "title": "A page", "start": 0, "end": 3, "details": {"score": 1.5}}
            ],
            "images": [{"data": "R0lGODlh", "media_type": "image/gif"}],
            "items": [{"type": "web_search_call"}],
        },
        {"text": "Other", "finish_reason": "stop", "images": [{"url": "https://example.org/a.png"}]},
    ],
    "logprobs": [{"token": "Hel", "logprob": -0.5}],
    "filters": [{"hate": "safe"}],
    "usage": {"input_tokens": 3, "output_tokens": 4, "cached_tokens": 1, "reasoning_tokens": 2},
    "cost": 0.5,
    "model": "m-2026",
    "request_id": "req-1",
    "seconds": 2.0,
    "first_token_seconds": 0.25,
    "structured": {"dialect": "json_schema", "nulls": True},
}


def test_an_answer_as_it_stands_in_the_file() -> None:
    answer = answer_of(
        WHOLE, seconds=2.0, first_token_seconds=0.25, structured={"dialect": "json_schema", "nulls": True}, sender=""
    )
    assert answer == ANSWER


def test_headers_are_not_kept() -> None:
    assert "server" not in json.dumps(answer_of(WHOLE, seconds=2.0))


def test_what_the_session_knows_stands_over_the_servers() -> None:
    answer = answer_of(WHOLE, seconds=2.0, cost=0.0, history_turns=0, notes=("rows cut",))
    assert (answer["cost"], answer["history_turns"], answer["notes"]) == (0.0, 0, ("rows cut",))


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([TextDelta("Hello"), Finished("stop")], ""),
        ([RefusalDelta("No."), Finished("refusal")], ""),
        ([ToolCallDelta(0, "c", "f", "{}"), Finished("tool_calls")], ""),
        ([TextDelta("Hel"), Finished("length")], "the answer was cut at the token limit"),
        ([TextDelta("Hel"), Finished("truncated")], "the answer broke off"),
        ([TextDelta("Hel")], "the answer broke off"),
        ([TextDelta("Hel"), Finished("content_filter")], "the answer was cut by a content filter"),
        ([TextDelta("Hel"), Finished("interrupted")], "the answer was interrupted"),
        ([TextDelta("a"), Finished("stop"), TextDelta("b", 1)], "the answer broke off"),
        ([TextDelta("a"), Finished("stop"), Finished("length", 2)], "the answer was cut at the token limit"),
        ([], "the answer broke off"),
    ],
)
def test_only_what_is_whole_is_recorded(events: list[Event], why: str) -> None:
    assert is_whole(events) == why


# --- data that others wrote


WRONG: list[Any] = [
    None,
    True,
    -1,
    1.5,
    2**70,
    "x",
    [],
    [1],
    [[]],
    [None],
    {},
    {"a": 1},
    {"text": 1},
    math.inf,
    "\ud800",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        found += [deeper for name in value for deeper in places(value[name], (*path, name))]
    if isinstance(value, list):
        found += [deeper for at, item in enumerate(value) for deeper in places(item, (*path, at))]
    return found


def with_wrong(answer: Any, path: tuple[Any, ...], wrong: Any) -> Any:
    changed = copy.deepcopy(answer)
    if not path:
        return wrong
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = wrong
    return changed


@pytest.mark.parametrize("path", places(ANSWER), ids=lambda path: ".".join(map(str, path)) or "answer")
def test_a_wrong_type_is_an_error_of_ours_or_none(path: tuple[Any, ...]) -> None:
    for wrong in WRONG:
        try:
            events = events_of(with_wrong(ANSWER, path, wrong), "vllm", "m")
        except RecordingError as error:
            assert error.message.startswith("answer")  # noqa: PT017 - or none
        else:
            repr(folded(events))
            json.dumps(answer_of(events, seconds=1.0))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"choices": [{"text": 1}]}, "answer.choices[0].text is no text."),
        ({"choices": {"text": "x"}}, "answer.choices is no list."),
        ({"choices": ["x"]}, "answer.choices[0] is no object."),
        (
            {"choices": [{"text": "x", "finish_reason": "stopp"}]},
            "answer.choices[0].finish_reason is 'stopp', which is none.",
        ),
        ({"choices": [{}], "usage": {"input_tokens": "3"}}, "answer.usage.input_tokens is no whole number."),
        ({"choices": [{"images": [{"data": "ä"}]}]}, "answer.choices[0].images[0].data is not base64."),
        ({"choices": [{"text": "x", "index": -1}]}, "answer.choices[0].index is no number that can be."),
        ({"choices": [{}], "seconds": "1"}, "answer.seconds is no number."),
    ],
)
def test_what_is_wrong_is_named(answer: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordingError) as caught:
        events_of(answer, "vllm", "m")
    assert caught.value.message == message


# --- vectors


@given(st.lists(st.lists(st.floats(allow_nan=False), max_size=3), max_size=3))
def test_vectors_come_back_exactly(vectors: list[list[float]]) -> None:
    answer = recorded(answer_of_vectors(vectors, usage=Usage(3, 0), model="m"))
    assert vectors_of(answer) == (vectors, Usage(3, 0))


@given(st.integers(1, 4), st.lists(st.floats(allow_nan=False, width=32), min_size=4, max_size=4))
def test_what_32_bits_hold_takes_32_bits(count: int, vector: list[float]) -> None:
    answer = answer_of_vectors([vector] * count)
    assert (answer["dtype"], answer["dimensions"]) == ("float32", 4)
    assert len(answer["vectors"]) == -(-16 * count // 3) * 4


def test_what_they_do_not_hold_takes_64() -> None:
    assert answer_of_vectors([[0.1, 1e300]])["dtype"] == "float64"


VECTORS = answer_of_vectors([[0.5, 1.0], [0.25, 2.0]], usage=Usage(3, 0), model="m", cost=0.5)


@pytest.mark.parametrize("path", places(VECTORS), ids=lambda path: ".".join(map(str, path)) or "answer")
def test_wrong_vectors_are_an_error_of_ours_or_none(path: tuple[Any, ...]) -> None:
    for wrong in [*WRONG, "AAAA", "float64", [1, 3], 2, 4]:
        try:
            vectors, _ = vectors_of(with_wrong(VECTORS, path, wrong))
        except RecordingError as error:
            assert error.message.startswith("answer")  # noqa: PT017 - or none
        else:
            assert all(type(number) is float for vector in vectors for number in vector)


@pytest.mark.parametrize(
    ("asked", "right", "wrong", "message"),
    [
        ({"kind": "answer"}, ANSWER, {}, "answer.choices is missing."),
        ({"kind": "answer"}, ANSWER, VECTORS, "answer.choices is missing."),
        ({"kind": "embeddings", "input": ["a", "b"]}, VECTORS, ANSWER, "answer.dtype is neither float32 nor float64."),
        (
            {"kind": "embeddings", "input": ["a", "b"]},
            VECTORS,
            answer_of_vectors([[1.0]]),
            "answer.vectors are not as many as the texts.",
        ),
        ({"kind": "model"}, {"model": "smollm2"}, {"model": 1}, "answer.model is no text."),
        ({"kind": "model"}, {"model": "smollm2"}, {}, "answer.model is missing."),
        ({"kind": "tool"}, {"result": ""}, {}, "answer.result is missing."),
    ],
)
def test_an_answer_is_checked_as_what_was_asked_for(
    asked: dict[str, Any], right: dict[str, Any], wrong: dict[str, Any], message: str
) -> None:
    check(asked, right)
    with pytest.raises(RecordingError) as caught:
        check(asked, wrong)
    assert caught.value.message == message
