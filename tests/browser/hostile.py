"""A server that answers with payloads, in all the places where the OpenAI protocol has text, and cells that ask it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator

from channels import HARMLESS
from payloads import payloads, written
from servers import Answer, Received, chunk, document, page, stream

NUMBERS = range(0, len(list(written())), 4)
"""Payloads that are sent as answers; in other places one in six of them."""
FEW = NUMBERS[::6]
TOGETHER = 10
"""Payloads in one long answer."""

OPTIONS = {
    "answer": "",
    "code": "--show code",
    "json": "--show json",
    "text": "--show text",
    "reasoning": "",
    "name": "--tools echo",
    "arguments": "--tools echo",
    "result": "--tools echo",
    "refusal": "",
    "error": "--retries 0",
    "page": "--retries 0",
    "late": "--retries 0",
    "two": "--n 2",
    "typed": '--as "list[dict[str, str]]"',
    "fields": '--as "dict[str, str]"',
    "invalid": "--as int --retries-invalid 0",
    "reported": "",
    "cut": "",
    "citations": "",
    "kept": "",
}
"""Places by name, and how a cell asks there."""
MODELS_LISTED = 60


def cells(provider: str) -> list[str]:
    """Return the cells that ask a provider of this name, the picker last."""
    hostile = provider == "hostile"
    asked = []
    for place, options in OPTIONS.items():
        numbers = (NUMBERS if place == "answer" else FEW) if hostile else range(-1, 0)
        asked.append(f"channels.ask({provider!r}, {place!r}, {options!r}, {numbers!r})")
    together = [
        f"%%llm -m {provider}:m --once\n{prompt('together', provider, at)}"
        for at in range(0, len(NUMBERS), 4 * TOGETHER)
    ]
    words = f"channels.preview({provider!r}, {FEW if hostile else range(-1, 0)!r})"
    commands = [f"%llm_models {provider}", f"%llm_provider test {provider}", f"%llm_chat show {provider}", "%llm_usage"]
    return ["import channels", *asked, *together, words, *commands, "%llm_config", "%llm_picker"]


def prompt(place: str, provider: str, number: int | None = None) -> str:
    """Return what is asked: a place, and the number of a payload."""
    if number is None:
        number = NUMBERS[5]
    return f"{place} {number if provider == 'hostile' else -1}"


def answering(received: Received) -> Answer:
    """Answer with the payload that the last message names; the provider `harmless` with a harmless text."""
    harmless = received.path.startswith("/harmless")
    if received.path.endswith("/models"):
        ids = [f"model-{number}" for number in range(9)]
        texts = ids if harmless else [payloads()[number].text for number in FEW[:MODELS_LISTED]]
        return document({"object": "list", "data": [{"id": text, "owned_by": text, "parent": text} for text in texts]})
    messages = received.json["messages"]
    said = next(str(message["content"]) for message in reversed(messages) if message["role"] == "user")
    found = re.search(r"(\w+) (-?\d+)\W*$", said)
    assert found is not None, said
    place, number = found[1], int(found[2])
    if place == "together" and not harmless:
        return _together(number)
    return _answer(place, HARMLESS if harmless else payloads()[number].text, after_tools=messages[-1]["role"] == "tool")


def _together(first: int) -> Answer:
    text = "\n\n".join(payloads()[number].text for number in NUMBERS[first : first + TOGETHER])
    steps: list[object] = []
    for piece in _pieces(text, first):
        steps += [chunk(piece), 0.01]
    return stream(*steps, chunk(finish="stop"))


def _pieces(text: str, seed: int) -> Iterator[str]:
    source = random.Random(seed)  # noqa: S311 - pieces, not secrets
    at = 0
    while at < len(text):
        end = at + source.randint(1, 12)
        yield text[at:end]
        at = end


def _answer(place: str, text: str, *, after_tools: bool) -> Answer:
    end = chunk(finish="stop")
    match place:
        case "reasoning":
            return stream(chunk(reasoning_content=text), chunk("ok"), end)
        case "name" | "arguments" | "result" if after_tools:
            return stream(chunk(text), end)
        case "name":
            return _call(text, "{}")
        case "arguments":
            return _call("echo", text)
        case "result":
            return _call("echo", json.dumps({"text": text}))
        case "refusal":
            return stream(chunk(refusal=text), end)
        case "error":
            return document({"error": {"message": text, "type": text, "code": text, "param": text}}, 400)
        case "page":
            return page(f"<html><title>{text}</title><body>{text}</body></html>", 500)
        case "late":
            return stream(chunk("text "), {"error": {"message": text, "code": 500}}, done=False)
        case "two":
            second = chunk(text)
            second["choices"][0]["index"] = 1
            ended = chunk(finish="length")
            ended["choices"][0]["index"] = 1
            return stream(chunk(text), second, end, ended)
        case "typed":
            return stream(chunk(json.dumps([{"a": text, "b": "x"}, {"a": "y", "b": text}])), end)
        case "fields":
            return stream(chunk(json.dumps({"a": text, text: "b"})), end)
        case "reported":
            return stream({**chunk(text), "model": text, "system_fingerprint": text}, {**end, "model": text})
        case "cut":
            return stream(chunk(text), chunk(finish="length"))
        case "citations":
            cited = {
                "type": "url_citation",
                "url_citation": {"url": text, "title": text, "start_index": 0, "end_index": 1},
            }
            return stream(chunk(text, annotations=[cited]), {**end, "citations": [text]})
        case _:
            return stream(*(chunk(piece) for piece in _pieces(text, len(text))), end)


def _call(name: str, arguments: str) -> Answer:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return stream(chunk(tool_calls=[call]), chunk(finish="tool_calls"))
