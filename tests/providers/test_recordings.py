"""Recorded answers of OpenAI and Azure, replayed: text, usage, tool calls and finish reason come out as recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from asked import answer
from recorder import Recorder

from llm_magic.draft import Draft
from llm_magic.errors import LLMError, RequestRefusedError
from llm_magic.events import Usage
from llm_magic.messages import ToolCall
from llm_magic.providers.azure import AzureProvider
from llm_magic.providers.base import Provider
from llm_magic.providers.openai import OpenAIProvider
from llm_magic.wire.call import exchange

APIS = {"/chat/completions": "chat", "/responses": "responses"}


def interactions(folder: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    yaml: Any = pytest.importorskip("yaml", reason="needs PyYAML")
    for path in sorted(folder.glob("*.yaml")):
        for number, item in enumerate(yaml.safe_load(path.read_text(encoding="utf-8"))["interactions"]):
            yield f"{path.stem}[{number}]", item["request"], item["response"]


def body_of(response: dict[str, Any]) -> bytes:
    if "parsed_body" in response:
        return json.dumps(response["parsed_body"]).encode()
    text: str = response["body"]["string"]
    return text.encode()


def events_of(text: bytes) -> list[dict[str, Any]]:
    """Read a stream plainly: whatever stands behind `data:`."""
    lines = [line[5:].strip() for line in text.decode().splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


class Expected:
    """What a recording holds, read by other code than ours."""

    def __init__(self, api: str, response: dict[str, Any]) -> None:
        self.text = ""
        self.calls: list[ToolCall] = []
        self.usage = Usage()
        self.finish = ""
        content = body_of(response)
        streamed = "event-stream" in response["headers"]["content-type"][0]
        if api == "responses":
            document = events_of(content)[-1]["response"] if streamed else json.loads(content)
            self._responses(document)
        elif streamed:
            self._chunks(events_of(content))
        else:
            self._chat(json.loads(content))

    def _count(self, usage: dict[str, Any], inputs: str, outputs: str, names: tuple[str, str]) -> None:
        into, out = usage.get(names[0]) or {}, usage.get(names[1]) or {}
        self.usage = Usage(
            usage[inputs], usage[outputs], into.get("cached_tokens") or 0, out.get("reasoning_tokens") or 0
        )

    def _chat(self, document: dict[str, Any]) -> None:
        choice = document["choices"][0]
        self.text = choice["message"]["content"] or ""
        for call in choice["message"].get("tool_calls") or []:
            self.calls.append(ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"]))
        self.finish = choice["finish_reason"]
        details = ("prompt_tokens_details", "completion_tokens_details")
        self._count(document["usage"], "prompt_tokens", "completion_tokens", details)

    def _chunks(self, chunks: list[dict[str, Any]]) -> None:
        calls: dict[int, list[str]] = {}
        for chunk in chunks:
            for choice in chunk["choices"]:
                self.text += choice["delta"].get("content") or ""
                for call in choice["delta"].get("tool_calls") or []:
                    known = calls.setdefault(call["index"], ["", "", ""])
                    known[0] += call.get("id") or ""
                    known[1] += call["function"].get("name") or ""
                    known[2] += call["function"].get("arguments") or ""
                self.finish = self.finish or choice.get("finish_reason") or ""
            if chunk.get("usage"):
                details = ("prompt_tokens_details", "completion_tokens_details")
                self._count(chunk["usage"], "prompt_tokens", "completion_tokens", details)
        self.calls = [ToolCall(*known) for known in calls.values()]

    def _responses(self, document: dict[str, Any]) -> None:
        for item in document["output"]:
            if item["type"] == "message":
                self.text += "".join(part["text"] for part in item["content"])
            elif item["type"] == "function_call":
                self.calls.append(ToolCall(item["call_id"], item["name"], item["arguments"]))
        self.finish = "tool_calls" if self.calls else "stop"
        details = ("input_tokens_details", "output_tokens_details")
        self._count(document["usage"], "input_tokens", "output_tokens", details)


def provider_for(uri: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> tuple[Provider, str]:
    parts = urlsplit(uri)
    api = next(name for path, name in APIS.items() if parts.path.endswith(path))
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "key")
    if "azure" in (parts.hostname or ""):
        version = parts.query.partition("=")[2]
        return AzureProvider(azure_endpoint=recorder.root, api_version=version, max_retries=0), api
    monkeypatch.setenv("OPENAI_BASE_URL", recorder.url)
    return OpenAIProvider(max_retries=0), api


async def replay(provider: Provider, api: Any, request: dict[str, Any]) -> Draft:
    from asked import call

    draft = Draft()
    asked = await call(provider, request["model"], api=api, stream=bool(request.get("stream")))
    async for batch in exchange(asked):
        for event in batch:
            draft.add(event)
    await provider.aclose()
    return draft


def test_answers_as_recorded(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    seen = 0
    for name, request, response in interactions(recordings):
        if response["status"]["code"] != 200:
            continue
        with Recorder() as recorder:
            provider, api = provider_for(request["uri"], recorder, monkeypatch)
            recorder.fixed = (200, response["headers"]["content-type"][0], body_of(response))
            recorder.headers = {
                key: values[0]
                for key, values in response["headers"].items()
                if key.startswith(("x-", "apim", "openai-"))
            }
            draft = asyncio.run(replay(provider, api, request["parsed_body"]))
            expected = Expected(api, response)
            assert draft.text == expected.text, name
            assert list(draft.tool_calls) == expected.calls, name
            assert draft.usage == expected.usage, name
            assert draft.finish_reason == expected.finish, name
            path = urlsplit(request["uri"])
            assert recorder.last.target == path.path + (f"?{path.query}" if path.query else ""), name
            seen += 1
    assert seen >= 10


def test_the_recorded_refusal(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    refused = 0
    for _, request, response in interactions(recordings):
        if response["status"]["code"] == 200:
            continue
        with Recorder() as recorder:
            provider, api = provider_for(request["uri"], recorder, monkeypatch)
            recorder.fixed = (response["status"]["code"], "application/json", body_of(response))
            with pytest.raises(LLMError) as caught:
                asyncio.run(_closing(provider, request["parsed_body"]["model"], api))
            error = caught.value
            assert isinstance(error, RequestRefusedError)
            assert error.status == 400
            assert "--temperature" in str(error)
            assert f"openai:{request['parsed_body']['model']}" in error.message
            refused += 1
    assert refused == 1


async def _closing(provider: Provider, model: str, api: Any) -> None:
    try:
        await answer(provider, model, api=api, temperature=0.5)
    finally:
        await provider.aclose()
