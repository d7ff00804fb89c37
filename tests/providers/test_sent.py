"""What each provider sends, whole: method, path, headers and body for all three APIs, against a file of the repository.

A change that is meant: `LLM_MAGIC_TEST_WRITE=1 pytest tests/providers/test_sent.py`, and read the difference.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asked import ask
from recorder import Recorder, Seen

from llm_magic.messages import Image, Text, assistant, system, user
from llm_magic.providers.azure import AzureProvider
from llm_magic.providers.base import Provider
from llm_magic.providers.compatible import CompatibleProvider
from llm_magic.providers.openai import OpenAIProvider
from llm_magic.providers.vllm import VLLMProvider

FILE = Path(__file__).with_name("sent.json")

PROVIDERS: dict[str, Callable[[str], Provider]] = {
    "openai": lambda _: OpenAIProvider(organization="org-1", project="proj-1", default_headers={"X-Team": "a"}),
    "azure v1": lambda root: AzureProvider(azure_endpoint=root),
    "azure classic": lambda root: AzureProvider(azure_endpoint=root, api_version="2024-10-21"),
    "vllm": lambda root: VLLMProvider(base_url=root, chat_template_kwargs={"enable_thinking": False}),
    "compatible": lambda root: CompatibleProvider(
        base_url=f"{root}/v1", api_key_env="GATEWAY_KEY", headers_env={"Helicone-Auth": "Bearer HELICONE_KEY"}
    ),
}

TURNS = (system("Be brief."), user("What is 2 + 2?"), assistant("4"), user(Text("And 3 + 3?")))
PICTURE = (user(Text("What is this?"), Image(data=b"\x89PNG", media_type="image/png")),)

ASKED: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "chat": ((TURNS,), {"api": "chat", "temperature": 0, "max_tokens": 5, "seed": 1, "stop": ("END",)}),
    "chat, an image, not streamed": ((PICTURE,), {"api": "chat", "stream": False}),
    "responses": ((TURNS,), {"api": "responses", "temperature": 0, "max_tokens": 5}),
    "responses, an image, not streamed": ((PICTURE,), {"api": "responses", "stream": False}),
    "completions": (("Once",), {"api": "completions", "max_tokens": 5, "n": 2, "logprobs": 1}),
}

VOLATILE = {"host", "content-length", "user-agent", "accept-encoding", "connection"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "GATEWAY_KEY", "HELICONE_KEY"):
        monkeypatch.setenv(name, f"value-of-{name}")
    monkeypatch.setenv("OPENAI_BASE_URL", recorder.url)


def told(seen: Seen) -> dict[str, Any]:
    headers = {
        name: value
        for name, value in sorted(seen.headers.items())
        if name not in VOLATILE and not name.startswith("x-stainless-")
    }
    return {"method": seen.method, "path": seen.target, "headers": headers, "body": seen.json}


@pytest.mark.parametrize("way", ASKED)
@pytest.mark.parametrize("name", PROVIDERS)
def test_sent(name: str, way: str, recorder: Recorder) -> None:
    arguments, options = ASKED[way]
    ask(PROVIDERS[name](recorder.root), "gpt-4o", *arguments, **options)
    key, found = f"{name}: {way}", told(recorder.last)
    if os.environ.get("LLM_MAGIC_TEST_WRITE"):
        known = json.loads(FILE.read_text()) if FILE.exists() else {}
        known[key] = found
        FILE.write_text(json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(FILE.read_text())[key]


def test_the_file_holds_nothing_else() -> None:
    assert set(json.loads(FILE.read_text())) == {f"{name}: {way}" for name in PROVIDERS for way in ASKED}
