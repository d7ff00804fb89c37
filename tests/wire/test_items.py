"""Images and items beside the text of an answer: each once, however it comes, and an answer of its own."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from asking import ask
from servers import ScriptedServer, chunk, document, stream
from test_citations import completed, done, message, read, sse, text_delta, whole

from llm_magic.capabilities import Capabilities
from llm_magic.errors import EmptyAnswerError
from llm_magic.events import ImageReceived, ItemReceived
from llm_magic.messages import Image
from llm_magic.wire.items import image_of

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
BASE64 = base64.b64encode(PNG).decode()
DATA = f"data:image/png;base64,{BASE64}"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'

KINDS: list[dict[str, Any]] = [
    {"type": "web_search_call", "action": {"type": "search", "query": "rain"}},
    {"type": "file_search_call", "queries": ["a"], "results": None},
    {"type": "code_interpreter_call", "code": "1 + 1", "outputs": [{"type": "logs", "logs": "2"}]},
    {"type": "computer_call", "action": {"type": "click", "x": 1, "y": 2}},
    {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "shell_call", "action": {"commands": ["ls"]}},
    {"type": "apply_patch_call", "operation": {"type": "delete_file", "path": "a"}},
    {"type": "mcp_list_tools", "server_label": "s", "tools": [{"name": "t"}]},
    {"type": "mcp_call", "server_label": "s", "name": "t", "arguments": "{}", "output": "x", "error": None},
    {"type": "mcp_approval_request", "server_label": "s", "name": "t", "arguments": "{}"},
    {"type": "custom_tool_call", "name": "t", "input": "x"},
    {"type": "something_new", "of": {"any": ["shape", 1, None]}},
]


def added(item: object, number: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": number, "item": item}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["type"])
def test_items_alone_are_an_answer(kind: dict[str, Any]) -> None:
    item = {"id": "item_1", "status": "completed", **kind}
    begun = {"id": "item_1", "status": "in_progress", "type": kind["type"]}
    answers = [
        stream(added(begun), done(item), completed(item), done=False),
        stream(added(begun), completed(item), done=False),
        stream(completed(item), done=False),
        stream(done(item), completed(), done=False),
        document(completed(item)["response"] | {"object": "response"}),
    ]
    for answer in answers:
        with ScriptedServer(answer) as server:
            outcome = ask(server.url, capabilities=Capabilities(api="responses"))
        assert outcome.error is None
        response = outcome.draft.response()
        assert (response.text, response.items, response.finish_reason) == ("", (item,), "stop")


def test_an_item_is_told_when_it_begins_and_when_it_changes() -> None:
    begun = {"id": "w", "type": "web_search_call", "status": "in_progress"}
    ended = {"id": "w", "type": "web_search_call", "status": "completed"}
    answer = stream(added(begun), done(ended), text_delta("Hi", 1), completed(ended, message("Hi")), done=False)
    with ScriptedServer(answer) as server:
        outcome = ask(server.url, capabilities=Capabilities(api="responses"))
    told = [event for event in outcome.events if isinstance(event, ItemReceived)]
    assert told == [ItemReceived(0, begun), ItemReceived(0, ended)]
    assert outcome.draft.response().items == (ended,)


def test_items_without_ids_or_numbers() -> None:
    one, two = {"type": "web_search_call", "n": 1}, {"type": "web_search_call", "n": 2}
    assert read(sse(completed(one, two, message("Hi"))), "responses").items == (one, two)
    assert read(sse(done(one, 0), done(two, 1), completed(one, two)), "responses").items == (one, two)
    renamed = [{**one, "id": "x"}, {**two, "id": "y"}]
    assert read(sse(done(one, 0), done(two, 1), completed(*renamed)), "responses").items == tuple(renamed)


def test_an_item_of_an_answer_that_broke_off_is_kept() -> None:
    begun = {"id": "w", "type": "mcp_call", "status": "in_progress"}
    with ScriptedServer(stream(added(begun), done=False)) as server:
        outcome = ask(server.url, capabilities=Capabilities(api="responses"))
    assert outcome.error is not None
    assert outcome.draft.response().items == (begun,)
    assert len(server.requests) == 1  # a call that the server made is not made again


def test_a_generated_image() -> None:
    call = {"id": "ig", "type": "image_generation_call", "status": "completed", "size": "1x1"}
    whole = {**call, "result": BASE64}
    partial = {"type": "response.image_generation_call.partial_image", "output_index": 0, "partial_image_b64": BASE64}
    for documents in (
        [added({**call, "result": None}), partial, done(whole), completed(whole)],
        [added({**call, "result": None}), partial, completed(whole)],
        [completed(whole)],
    ):
        with ScriptedServer(stream(*documents, done=False)) as server:
            outcome = ask(server.url, capabilities=Capabilities(api="responses"))
        assert outcome.error is None
        response = outcome.draft.response()
        assert response.images == (Image(PNG, "image/png"),)
        assert response.items == (call,)
        assert sum(isinstance(event, ImageReceived) for event in outcome.events) == 1


def test_an_image_of_the_code_interpreter() -> None:
    outputs = [{"type": "logs", "logs": "2"}, {"type": "image", "url": DATA}]
    item = {"id": "ci", "type": "code_interpreter_call", "code": "plot()", "outputs": outputs}
    response = read(sse(done(item), completed(item)), "responses")
    assert response.images == (Image(PNG, "image/png"),)
    assert response.items == ({**item, "outputs": [outputs[0], {"type": "image"}]},)


CHAT_IMAGES = {
    "OpenRouter": {"images": [{"type": "image_url", "image_url": {"url": DATA}, "index": 0}]},
    "a URL": {"images": [DATA]},
    "base64": {"images": [{"b64_json": BASE64}]},
    "parts": {"content": [{"type": "image_url", "image_url": {"url": DATA}}]},
    "an object": {"images": {"image_url": DATA}},
}


@pytest.mark.parametrize("fields", CHAT_IMAGES.values(), ids=CHAT_IMAGES)
def test_images_of_chat(fields: dict[str, Any]) -> None:
    fields = {"content": None, **fields}
    for answer in (
        document({"choices": [{"index": 0, "message": fields, "finish_reason": "stop"}]}),
        stream(chunk(**fields), chunk(**fields), chunk(finish="stop")),
    ):
        with ScriptedServer(answer) as server:
            outcome = ask(server.url)
        assert outcome.error is None
        response = outcome.draft.response()
        assert (response.text, response.images, response.items) == ("", (Image(PNG, "image/png"),), ())


def test_what_an_image_is_is_told_by_its_bytes() -> None:
    svg = base64.b64encode(SVG).decode()
    assert image_of(f"data:image/png;base64,{svg}") == Image(SVG, "image/x-unknown")
    assert image_of(f"data:image/svg+xml;base64,{svg}") == Image(SVG, "image/svg+xml")
    assert image_of(f"data:IMAGE/JPEG;base64,{BASE64[:40]}\n {BASE64[40:].rstrip('=')}") == Image(PNG, "image/png")
    assert image_of("data:image/png;base64,%%%") is None
    assert image_of("data:text/html,<script>") is None
    assert image_of("javascript:alert(1)") is None
    assert image_of("\ud800") is None
    assert image_of("") is None
    assert image_of("=" * 5_000_000 + "x") is None
    assert image_of("data:image/png;base64," + "= " * 2_000_000 + "x") is None
    assert image_of('data:image/"><script>;base64,AAAA') is None


def test_an_image_that_is_none_stays_an_item() -> None:
    call = {"id": "ig", "type": "image_generation_call", "result": "no base64!"}
    assert read(sse(completed(call)), "responses").items == (call,)
    entry = {"image_url": {"url": "javascript:x"}}
    assert read(whole(images=[entry]), "chat").items == ({"type": "images", "images": [entry]},)


def test_an_image_elsewhere_is_its_url() -> None:
    response = read(whole(images=[{"image_url": {"url": "https://e.example/i.png"}}]), "chat")
    assert response.images == (Image(url="https://e.example/i.png"),)


def test_speech_is_its_transcript_and_an_item() -> None:
    audio = {"id": "a1", "data": "UklGR", "expires_at": 5, "transcript": "Hello you"}
    pieces = [{"id": "a1", "transcript": "Hello"}, {"transcript": " you"}, {"data": "Ukl"}, {"data": "GR"}]
    streamed = sse(*(chunk(audio=piece) for piece in pieces), chunk(audio={"expires_at": 5}), chunk(finish="stop"))
    for data in (whole(content=None, audio=audio), streamed):
        response = read(data, "chat")
        assert response.text == "Hello you"
        assert response.items == ({"type": "audio", "audio": audio},)
    silent = {"id": "a", "data": "UklGR"}
    with ScriptedServer(stream(chunk(audio=silent), chunk(finish="stop"))) as server:
        outcome = ask(server.url)
    assert outcome.error is None
    assert outcome.draft.response().items == ({"type": "audio", "audio": silent},)


def test_pieces_of_sound_that_are_alike_are_all_kept() -> None:
    data = sse(*(chunk(audio={"data": "AAAA"}) for _ in range(3)), chunk(finish="stop"))
    assert read(data, "chat").items == ({"type": "audio", "audio": {"data": "AAAA" * 3}},)


def test_tools_that_a_server_ran() -> None:
    """Groq's, whose entry comes when it begins and again when it ended."""
    begun = {"index": 0, "type": "search", "arguments": '{"q": 1}', "output": None}
    ended = {**begun, "output": "rain"}
    data = sse(chunk(executed_tools=[begun]), chunk(executed_tools=[ended]), chunk("Hi"), chunk(finish="stop"))
    assert read(data, "chat").items == ({"type": "executed_tools", "executed_tools": [ended]},)


def test_what_stands_beside_the_choices() -> None:
    beside = {"images": [{"image_url": "https://e.example/i.png"}], "related_questions": ["Why?"]}
    assert read(whole(beside=beside), "chat").items == (
        {"type": "images", "images": beside["images"]},
        {"type": "related_questions", "related_questions": ["Why?"]},
    )


def test_sources_without_an_address_are_items() -> None:
    """Perplexity's, of a file that went with the prompt: it has a title alone."""
    attached = {"title": "notes.docx", "url": "", "source": "attachment", "snippet": "Ready."}
    beside = {"search_results": [{"title": "A", "url": "https://a.example"}, attached, {}, {"url": ""}]}
    kept = {"type": "search_results", "search_results": [attached]}
    for data in (whole(beside=beside), sse({**chunk("Hello"), **beside}, {**chunk(" you", finish="stop"), **beside})):
        response = read(data, "chat")
        assert [each.url for each in response.citations] == ["https://a.example"]
        assert response.items == (kept,)


def test_what_was_moderated_is_an_item() -> None:
    found = {"input": {"flagged": False, "category_scores": {"violence": 0.25}}, "output": None}
    item = {"type": "moderation", "moderation": found}
    for data in (whole(beside={"moderation": found}), sse(chunk("Hello you", finish="stop"), {"moderation": found})):
        assert read(data, "chat").items == (item,)
    ended = completed(message("Hello you"))
    ended["response"]["moderation"] = found
    for data in (sse(text_delta("Hello you"), ended), json.dumps(ended["response"] | {"object": "response"}).encode()):
        assert read(data, "responses").items == (item,)


def test_fields_that_say_nothing_are_no_items() -> None:
    noise = {
        "annotations": [],
        "audio": None,
        "images": [],
        "executed_tools": [],
        "reasoning_details": [{"type": "reasoning.text", "text": "x"}],
        "provider_specific_fields": {"refusal": None, "reasoning_content": "x"},
        "sender_name": "Model",
        "extra_content": {"google": {"thought_signature": "x"}},
        "tool_calls": None,
    }
    assert read(whole(**noise), "chat").items == ()
    assert read(sse(chunk("Hello you", **noise), chunk(finish="stop")), "chat").items == ()


def test_citations_alone_are_no_answer() -> None:
    with ScriptedServer(document({"choices": [{"message": {"content": ""}}], "citations": ["https://a.example"]})) as s:
        outcome = ask(s.url)
    assert isinstance(outcome.error, EmptyAnswerError)
    assert [each.url for each in outcome.draft.response().citations] == ["https://a.example"]


def test_fifty_megabytes() -> None:
    large = base64.b64encode(PNG + bytes(38_000_000)).decode()
    call = {"id": "ig", "type": "image_generation_call", "result": large}
    response = read(sse(done(call), completed(call)), "responses", 1 << 20)
    assert [len(image.data or b"") for image in response.images] == [38_000_000 + len(PNG)]
    assert len(json.dumps(response.items)) < 200
    assert len(repr(response)) < 2_000


def test_nested_deeply() -> None:
    deep: Any = {"url": DATA}
    for _ in range(150):
        deep = {"in": [deep]}
    item = {"type": "something", "deep": deep}
    assert read(sse(completed(item)), "responses").items == (item,)
