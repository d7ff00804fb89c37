"""Recorded answers of OpenAI and Azure, replayed: exact text, usage, tool calls and finish reason, streamed and not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asking import ask
from servers import Answer, ScriptedServer, document

from llm_magic import errors
from llm_magic.capabilities import Api, Capabilities
from llm_magic.events import Usage
from llm_magic.messages import ToolCall
from llm_magic.request import Parameters


def interactions(folder: Path, name: str) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    content: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text("utf-8"))
    return content["interactions"]  # type: ignore[no-any-return]  # YAML


def api_of(interaction: dict[str, Any]) -> Api:
    return "responses" if "/responses" in interaction["request"]["uri"] else "chat"


def replay(interaction: dict[str, Any], pieces: int = 1, **asked: Any) -> Any:
    """Ask a server that answers as recorded, in reads of `pieces` bytes (1: whole)."""
    response = interaction["response"]
    status = response["status"]["code"]
    if "parsed_body" in response:
        answer = document(response["parsed_body"], status)
    else:
        data = response["body"]["string"].encode()
        size = len(data) if pieces == 1 else pieces
        answer = Answer([data[place : place + size] for place in range(0, len(data), size)], status)
    answer.headers |= {
        name: values[0]
        for name, values in response["headers"].items()
        if name in ("content-type", "apim-request-id", "x-request-id")
    }
    with ScriptedServer(answer) as server:
        stream = bool(interaction["request"]["parsed_body"].get("stream"))
        return ask(server.url, capabilities=Capabilities(api=api_of(interaction)), stream=stream, **asked)


def expected_usage(usage: dict[str, Any]) -> Usage:
    inside = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    made = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    return Usage(
        usage.get("prompt_tokens", usage.get("input_tokens")),
        usage.get("completion_tokens", usage.get("output_tokens")),
        inside.get("cached_tokens", 0),
        made.get("reasoning_tokens", 0),
    )


def from_chat(document_: dict[str, Any]) -> dict[str, Any]:
    choice = document_["choices"][0]
    calls = choice["message"].get("tool_calls") or []
    return {
        "text": choice["message"].get("content") or "",
        "calls": tuple(ToolCall(item["id"], item["function"]["name"], item["function"]["arguments"]) for item in calls),
        "finish": choice["finish_reason"],
        "usage": expected_usage(document_["usage"]),
        "model": document_["model"],
    }


def from_response(document_: dict[str, Any]) -> dict[str, Any]:
    output = document_["output"]
    texts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
    calls = [item for item in output if item["type"] == "function_call"]
    return {
        "text": "".join(texts),
        "calls": tuple(ToolCall(item["call_id"], item["name"], item["arguments"]) for item in calls),
        "finish": "tool_calls" if calls else "stop",
        "usage": expected_usage(document_["usage"]),
        "model": document_["model"],
    }


def from_stream(text: str) -> dict[str, Any]:
    """Return what the recorded stream says, read the slow and simple way."""
    documents = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    if "choices" not in documents[0]:
        return from_response(documents[-1]["response"])
    said, calls, finish = "", {}, None
    for item in documents:
        for choice in item["choices"]:
            said += choice["delta"].get("content") or ""
            finish = finish or choice["finish_reason"]
            for call in choice["delta"].get("tool_calls") or []:
                known = calls.setdefault(
                    call["index"], {"id": call.get("id"), "name": call["function"].get("name"), "arguments": ""}
                )
                known["arguments"] += call["function"].get("arguments") or ""
    return {
        "text": said,
        "calls": tuple(ToolCall(item["id"], item["name"], item["arguments"]) for item in calls.values()),
        "finish": finish,
        "usage": expected_usage(documents[-1]["usage"]),
        "model": documents[0]["model"],
    }


GOOD = [
    "test_azure_provider_call",
    "test_native_output",
    "test_openai_native_output",
    "test_openai_responses_reasoning_effort",
    "test_openai_responses_stream",
    "test_openai_tool_output",
    "test_reasoning_model_with_temperature",
    "test_run_stream_sync_streams_real_model",
]


@pytest.mark.parametrize("pieces", [1, 7, 1000])
@pytest.mark.parametrize("name", GOOD)
def test_a_recording_gives_exactly_what_was_recorded(recordings: Path, name: str, pieces: int) -> None:
    found = interactions(recordings, name)
    assert found
    for interaction in found:
        response = interaction["response"]
        if "parsed_body" in response:
            read = from_response if api_of(interaction) == "responses" else from_chat
            expected = read(response["parsed_body"])
        else:
            expected = from_stream(response["body"]["string"])
        outcome = replay(interaction, pieces)
        assert outcome.error is None
        draft = outcome.draft
        assert draft.text == expected["text"]
        assert draft.tool_calls == expected["calls"]
        assert draft.finish_reason == expected["finish"]
        assert draft.usage == expected["usage"]
        assert draft.model_reported == expected["model"]


def test_azure_names_the_request(recordings: Path) -> None:
    outcome = replay(interactions(recordings, "test_azure_provider_call")[0])
    assert outcome.draft.request_id == "1d93fae1-cb8e-4789-8fb6-d26577a3cb77"
    assert outcome.draft.filters == []


def test_reasoning_tokens(recordings: Path) -> None:
    outcome = replay(interactions(recordings, "test_reasoning_model_with_temperature")[0])
    assert outcome.draft.usage == Usage(13, 238, 0, 192)


def test_a_recorded_refusal(recordings: Path) -> None:
    parameters = Parameters(temperature=-1.0)
    outcome = replay(interactions(recordings, "test_openai_responses_model_http_error")[0], parameters=parameters)
    assert type(outcome.error) is errors.RequestRefusedError
    assert outcome.error.status == 400
    assert "decimal below minimum value" in outcome.error.message
    assert "--temperature" in outcome.error.hint
