"""Citations in all shapes of servers: each told once, with the span of the answer's text that it belongs to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from servers import chunk

from llm_magic.capabilities import Api
from llm_magic.draft import Draft
from llm_magic.messages import Citation, user
from llm_magic.request import Request
from llm_magic.response import Response
from llm_magic.wire.citations import read_citation
from llm_magic.wire.stream import Answer

A = {"type": "url_citation", "url": "https://a.example/1", "title": "One", "start_index": 0, "end_index": 5}
B = {"type": "url_citation", "url": "https://b.example", "title": "Two", "start_index": 6, "end_index": 9}
ONE = Citation("https://a.example/1", "One", 0, 5)
TWO = Citation("https://b.example", "Two", 6, 9)


def sse(*documents: object) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in documents)


def read(data: bytes, api: Api, stride: int = 0) -> Response:
    """Return what comes of an answer that arrives at once, or in pieces of `stride` bytes."""
    answer, draft = Answer(api, Request("m", (user("x"),))), Draft()
    for at in range(0, len(data), stride or len(data)):
        draft.add_all(answer.feed(data[at : at + (stride or len(data))]))
    draft.add_all(answer.close())
    assert answer.fault is None
    return draft.response()


def message(text: str, *annotations: object, **more: object) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [*annotations]}
    return {"id": "msg_1", "type": "message", "role": "assistant", "content": [part], **more}


def completed(*output: object) -> dict[str, Any]:
    return {"type": "response.completed", "response": {"status": "completed", "model": "m", "output": [*output]}}


def text_delta(text: str, item: int = 0, part: int = 0) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": item, "content_index": part, "delta": text}


def annotated(annotation: object, number: int = 0, item: int = 0, part: int = 0) -> dict[str, Any]:
    return {
        "type": "response.output_text.annotation.added",
        "output_index": item,
        "content_index": part,
        "annotation_index": number,
        "annotation": annotation,
    }


def done(item: object, number: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": number, "item": item}


WHOLE = message("Hello you", A, B)
STREAMS = {
    "as they come, and in each event after": sse(
        text_delta("Hello"),
        annotated(A),
        text_delta(" you"),
        annotated(B, 1),
        {"type": "response.content_part.done", "output_index": 0, "content_index": 0, "part": WHOLE["content"][0]},
        done(WHOLE),
        completed(WHOLE),
    ),
    "as they come alone": sse(text_delta("Hello you"), annotated(A), annotated(B, 1), completed(message("Hello you"))),
    "with the item alone": sse(text_delta("Hello you"), done(WHOLE), completed()),
    "at the end alone": sse(text_delta("Hello you"), completed(WHOLE)),
    "as a document": json.dumps(completed(WHOLE)["response"] | {"object": "response"}).encode(),
}


@pytest.mark.parametrize("data", STREAMS.values(), ids=STREAMS)
def test_responses(data: bytes) -> None:
    response = read(data, "responses")
    assert response.text == "Hello you"
    assert response.citations == (ONE, TWO)
    assert response.citations[0].details == A
    assert response.items == ()


def test_how_bytes_are_split_changes_nothing() -> None:
    for data in STREAMS.values():
        for stride in (1, 2, 3, 7, 64):
            assert read(data, "responses", stride).citations == (ONE, TWO)


def test_spans_count_in_the_whole_text() -> None:
    """The server counts within one part; the text of the answer is all of them."""
    second = {"type": "message", "content": [{"type": "output_text", "text": "Hello", "annotations": [A]}]}
    both = [message("First. "), {"type": "web_search_call"}, second]
    moved = Citation("https://a.example/1", "One", 7, 12)
    streamed = sse(text_delta("First. "), text_delta("Hello", 2), annotated(A, item=2), completed(*both))
    for data in (streamed, sse(completed(*both)), sse(text_delta("First. "), text_delta("Hello", 2), completed(*both))):
        response = read(data, "responses")
        assert response.citations == (moved,)
        assert response.text[7:12] == "Hello"


def test_files() -> None:
    annotations = [
        {"type": "file_citation", "file_id": "file-1", "filename": "a.txt", "index": 3},
        {"type": "file_citation", "file_id": "file-2", "filename": "", "index": 3},
        {"type": "container_file_citation", "file_id": "cfile", "container_id": "c", "start_index": 0, "end_index": 2},
        {"type": "file_path", "file_id": "file-3", "index": 1},
    ]
    response = read(sse(completed(message("Hello", *annotations))), "responses")
    assert response.citations == (
        Citation(file_id="file-1", filename="a.txt"),
        Citation(file_id="file-2"),
        Citation(file_id="cfile", start=0, end=2),
        Citation(file_id="file-3"),
    )
    assert response.citations[2].details["container_id"] == "c"


def nested(annotation: dict[str, Any]) -> dict[str, Any]:
    return {"type": "url_citation", "url_citation": {n: v for n, v in annotation.items() if n != "type"}}


def whole(*, beside: dict[str, Any] | None = None, **fields: object) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello you", **fields}}
    return json.dumps({"choices": [choice], "model": "m", **(beside or {})}).encode()


@pytest.mark.parametrize("shape", [nested, lambda annotation: annotation], ids=["nested", "flat"])
def test_chat(shape: Any) -> None:
    one, two = shape(A), shape(B)
    last = chunk(finish="stop")
    last["choices"][0]["delta"] = {"content": "", "annotations": [one, two]}
    late = chunk(annotations=[two])
    streams = [
        whole(annotations=[one, two]),
        sse(chunk("Hello you"), chunk(annotations=[one]), chunk(annotations=[one, two]), chunk(finish="stop")),
        sse(chunk("Hello you"), last, late),
        sse(chunk("Hello you", annotations=[one]), chunk(finish="stop"), late),
    ]
    for data in streams:
        response = read(data, "chat")
        assert (response.text, response.citations, response.items) == ("Hello you", (ONE, TWO), ())


URLS = ["https://a.example/1", "https://b.example", "https://c.example"]
RESULTS = [
    {"title": "Two", "url": "https://b.example", "date": "2026-01-02", "snippet": "…"},
    {"title": "Four", "url": "https://d.example", "date": None},
]
SOURCES = (
    Citation("https://a.example/1"),
    Citation("https://b.example", "Two"),
    Citation("https://c.example"),
    Citation("https://d.example", "Four"),
)


def test_a_list_of_urls_and_results_of_a_search_are_one_list() -> None:
    """Perplexity's, in each chunk; `[2]` in the text is the second URL."""
    beside = {"citations": URLS, "search_results": RESULTS}
    streamed = sse({**chunk("Hello"), **beside}, {**chunk(" you"), **beside}, {**chunk(finish="stop"), **beside})
    later = sse({**chunk("Hello you"), "citations": URLS}, {**chunk(finish="stop"), "search_results": RESULTS})
    for data in (whole(beside=beside), streamed, later):
        response = read(data, "chat")
        assert response.citations == SOURCES
        assert response.citations[1].details["date"] == "2026-01-02"
        assert response.items == ()


def test_a_bare_list_beside_annotations_tells_nothing_new() -> None:
    response = read(whole(annotations=[A, B], beside={"citations": URLS[:2]}), "chat")
    assert response.citations == (ONE, TWO)


def test_other_shapes() -> None:
    cohere = {"start": 0, "end": 5, "sources": [{"type": "document", "document": {"url": "https://e.example"}}]}
    azure = {"citations": [{"title": "Doc", "filepath": "doc.pdf", "content": "…"}], "intent": '["a"]'}
    litellm = {"citations": [[{"type": "web_search_result_location", "url": "https://f.example", "title": "F"}]]}
    zhipu = [{"link": "https://g.example", "title": "G", "refer": "ref_1"}]
    mistral = [
        {"type": "text", "text": "Hello"},
        {"type": "tool_reference", "tool": "web_search", "title": "H", "url": "https://h.example"},
        {"type": "text", "text": " you"},
    ]
    for data, expected in [
        (whole(citations=[cohere]), Citation("https://e.example")),
        (whole(context=azure), Citation("", "Doc", filename="doc.pdf")),
        (whole(provider_specific_fields=litellm), Citation("https://f.example", "F")),
        (whole(beside={"web_search": zhipu}), Citation("https://g.example", "G")),
        (whole(content=mistral), Citation("https://h.example", "H")),
        (whole(references=["https://i.example"]), Citation("https://i.example")),
    ]:
        response = read(data, "chat")
        assert response.text == "Hello you"
        assert response.citations == (expected,)
    assert read(whole(context=azure), "chat").items == ({"type": "context", "context": {"intent": '["a"]'}},)


def test_citations_of_several_answers() -> None:
    choices = [
        {"index": 0, "finish_reason": "stop", "message": {"content": "Hello", "annotations": [A]}},
        {"index": 1, "finish_reason": "stop", "message": {"content": "Hi you", "annotations": [B]}},
    ]
    response = read(json.dumps({"choices": choices}).encode(), "chat")
    assert response.citations == (ONE,)
    assert [each.citations for each in response.alternatives] == [(ONE,), (TWO,)]


JUNK = [None, 3, True, "", " ", [], {}, [None, [[[[["x"]]]]]], {"type": None}, {"type": "url_citation"}, {"url": 3}]


@pytest.mark.parametrize("junk", [*JUNK, JUNK], ids=repr)
def test_wrong_types_are_no_citations(junk: object) -> None:
    for data in (
        whole(annotations=junk),
        whole(citations=junk, beside={"citations": junk, "search_results": junk, "images": junk}),
        whole(context={"citations": junk}, images=junk, audio=junk),
        sse(chunk("Hello you", annotations=junk, audio=junk, images=junk), chunk(finish="stop")),
    ):
        response = read(data, "chat")
        assert response.text == "Hello you"
        assert [each.url for each in response.citations] == []
    for data in (
        sse(text_delta("Hello you"), annotated(junk), completed(message("Hello you") | {"content": junk})),
        sse(text_delta("Hello you"), done(message("Hello you", junk)), completed(message("Hello you", junk))),
    ):
        assert read(data, "responses").text == "Hello you"


def test_spans_that_are_none() -> None:
    for start in (None, "3", True, -1, 2**60, 1.5, [1]):
        cited = read_citation({"url": "https://a.example", "start_index": start, "end_index": start})
        assert cited == Citation("https://a.example")


def test_ten_thousand() -> None:
    many = [{"type": "url_citation", "url": f"https://{number}.example", "title": "x"} for number in range(10_000)]
    response = read(sse(text_delta("a"), done(message("a", *many)), completed(message("a", *many))), "responses")
    assert len(response.citations) == 10_000
    urls = [each["url"] for each in many]
    streamed = sse(*({**chunk("a"), "citations": urls} for _ in range(20)), chunk(finish="stop"))
    assert len(read(streamed, "chat").citations) == 10_000
