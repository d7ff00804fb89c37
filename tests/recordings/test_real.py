"""Answers of real servers, and of the embedded model, are replayed whole with nobody to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import AnswerError, RequestRefusedError, UnsupportedError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.response import Response
from llm_magic.session import Session

DEAD = "http://127.0.0.1:9/v1"
NOT_RECORDED = {"headers", "recorded", "messages", "attempts"}


@contextmanager
def session(folder: Path, mode: str, cls: str, url: str, **traits: Any) -> Iterator[Session]:
    session = Session(Settings(record=mode, record_file=str(folder / "llm.jsonl")), ProviderRegistry())
    api.activate(session)
    session.registry.add("s", cls, base_url=url, **traits)
    try:
        yield session
    finally:
        api.activate(None)
        session.close()


WORD: Any = {"stop": [" ", ".", ",", "\n"], "max_tokens": 16}
"""Options of a short answer that ends by itself."""

ASKED: dict[str, Callable[[LLM], Response]] = {
    "text": lambda llm: llm.ask("Name a sea.", temperature=1, **WORD),
    "not streamed": lambda llm: llm.ask("Name a lake.", no_stream=True, **WORD),
    "a system prompt": lambda llm: llm.ask("A river?", system="Answer with one word.", **WORD),
    "a choice": lambda llm: llm.ask("Is the sea wet?", choices=["yes", "no"], temperature=0, max_tokens=16),
    "several": lambda llm: llm.ask("A word.", n=2, **WORD),
    "log probabilities": lambda llm: llm.ask("Another word.", logprobs=2, **WORD),
}


def told(response: Response) -> dict[str, Any]:
    return {each.name: getattr(response, each.name) for each in fields(response) if each.name not in NOT_RECORDED}


def replayed(folder: Path, cls: str, url: str, model: str, **traits: Any) -> None:
    """Check that answers are replayed as they came: all that were whole."""
    came: dict[str, dict[str, Any]] = {}
    with session(folder, "once", cls, url, **traits):
        for name, ask in ASKED.items():
            with suppress(AnswerError, RequestRefusedError, UnsupportedError):  # a small model, and what it cannot do
                response = ask(LLM(f"s:{model}"))
                assert response.recorded is False
                if all(each.finish_reason == "stop" for each in response.alternatives or (response,)):
                    came[name] = told(response)
    assert "text" in came
    with session(folder, "only", cls, DEAD):
        for name, response in came.items():
            again = ASKED[name](LLM(f"s:{model}"))
            assert (name, told(again)) == (name, response)
            assert again.recorded is True
    assert "127.0.0.1" not in (folder / "llm.jsonl").read_text()


def test_vllm(tmp_path: Path, vllm_url: str) -> None:
    replayed(tmp_path, "vllm", vllm_url, "smollm2")


@pytest.mark.parametrize("model", ["", "smollm2"])
def test_llamacpp(model: str, tmp_path: Path, llamacpp_url: str) -> None:
    replayed(tmp_path, "compatible", llamacpp_url, model)


def test_litellm(tmp_path: Path, litellm_url: str, litellm_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_KEY", litellm_key)
    replayed(tmp_path, "compatible", litellm_url, "gpt-4o", api_key_env="PROXY_KEY")
    assert litellm_key not in (tmp_path / "llm.jsonl").read_text()


def test_embeddings(tmp_path: Path, llamacpp_embeddings_url: str) -> None:
    texts = ["the sea is blue", "stocks fell"]
    with session(tmp_path, "once", "compatible", llamacpp_embeddings_url):
        came = LLM("s:").embed(texts)
    with session(tmp_path, "only", "compatible", DEAD):
        again = LLM("s:").embed(texts)
    assert [list(each) for each in again] == [list(each) for each in came]
    assert len(again[0]) == 576


def test_the_embedded_model(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="needs the extra `local`")
    came: list[dict[str, Any]] = []
    for mode in ("once", "only"):
        session = Session(Settings(record=mode, record_file=str(tmp_path / "llm.jsonl")), ProviderRegistry())
        api.activate(session)
        try:
            llm = LLM("local:smollm2", temperature=0)
            responses = [llm.ask("How many legs has a cat?", output_type=int), llm.ask("Say one word.", stop=["."])]
            came.append({str(number): told(response) for number, response in enumerate(responses)})
            assert [response.recorded for response in responses] == [mode == "only"] * 2
        finally:
            api.activate(None)
            session.close()
    assert came[0] == came[1]
