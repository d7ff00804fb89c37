"""Many rows on real servers: typed, in order, side by side, within the limits of a proxy, with a warm prefix cache."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from litellm_proxy import litellm_proxy
from servers import Received, ScriptedServer, document

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.display.rows import RowsProgress
from llm_magic.errors import IncompleteAnswerError, RateLimitedError, UnsupportedError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

WORDS = ["sea", "fire", "snow", "sand", "rain", "moss", "salt", "wind", "iron", "milk", "bread", "smoke"]


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


# vLLM


@pytest.fixture
def vllm(session: Session, vllm_url: str) -> LLM:
    session.registry.add("real", "vllm", base_url=vllm_url)
    return LLM("real:smollm2", temperature=0, max_tokens=24)


def test_choices_of_a_real_vllm(vllm: LLM) -> None:
    answers = vllm.map("Is {{ item }} wet or dry?", WORDS, choices=["wet", "dry"], concurrency=6)
    assert set(answers) <= {"wet", "dry"}
    assert len(answers) == len(WORDS)
    frame = answers.to_frame()
    assert frame["value"].dtype.name == "category"
    assert list(frame["value"].cat.categories) == ["wet", "dry"]
    assert answers.usage is not None
    assert answers.usage.output_tokens


def test_typed_rows_of_a_real_vllm_are_those_of_their_inputs(vllm: LLM) -> None:
    answers = vllm.map("Repeat the number: {{ item }}", list(range(12)), output_type=int, concurrency=6)
    assert all(type(value) is int for value in answers)
    assert answers.to_frame()["value"].dtype == "int64"
    alone = [vllm.ask(f"Repeat the number: {number}", output_type=int).value for number in (0, 5, 11)]
    assert [answers[0], answers[5], answers[11]] == alone


def test_rows_that_begin_alike_find_their_beginning_in_the_cache_of_a_real_vllm(vllm: LLM, vllm_url: str) -> None:
    """Each of three beginnings is worked on once; in the given order, too, as long as the cache has room for all."""
    size = int(metric(vllm_url, r'block_size="(\d+)"'))
    texts = [f"{uuid4()} " + "the sea and the sky " * size for _ in range(3)]  # new ones: some five blocks each
    rows = [f"{text}\nIn a word, {number}: " for number in range(3) for text in texts]
    before, asked = hits(vllm_url)
    vllm.map("{{ item }}", rows, order="prefix", concurrency=1, max_tokens=1)
    after, asked_after = hits(vllm_url)
    tokens = asked_after - asked
    assert after - before >= tokens * (1 - 3 / len(rows)) - size * len(rows)


def test_the_order_of_rows_keeps_a_small_cache_of_a_real_vllm_warm(vllm: LLM, vllm_url: str) -> None:
    room = int(metric(vllm_url, r'kv_cache_size_tokens="(\d+)"'))
    if room > 8_000:
        pytest.skip(f"needs a vLLM with a small cache (--num-gpu-blocks-override 33); this one has {room} tokens")
    found = {}
    for order in ("given", "prefix"):
        texts = [f"{uuid4()} " + "the sea and the sky " * 256 for _ in range(5)]
        rows = [f"{text}\nIn a word, {number}: " for number in range(3) for text in texts]
        before, asked = hits(vllm_url)
        vllm.map("{{ item }}", rows, order=order, concurrency=1, max_tokens=1)
        after, asked_after = hits(vllm_url)
        found[order] = (after - before) / (asked_after - asked)
    assert found["given"] < 0.1
    assert found["prefix"] > 0.5


def metric(url: str, pattern: str) -> str:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=10) as page:  # noqa: S310 - a fixed http URL
        found = re.search(pattern, page.read().decode())
    if found is None:
        pytest.skip("this server does not tell of its prefix cache")
    return found[1]


def hits(url: str) -> tuple[float, float]:
    """Return the tokens of prompts that were found in the prefix cache, and those that were looked for."""
    number = r"\{[^}]*\} (\S+)"
    return (
        float(metric(url, r"(?m)^vllm:prefix_cache_hits_total" + number)),
        float(metric(url, r"(?m)^vllm:prefix_cache_queries_total" + number)),
    )


# llama.cpp, and the embedded model


def test_more_rows_than_slots_of_a_real_llama_server_come_back_in_order(session: Session, llamacpp_url: str) -> None:
    session.registry.add("real", "compatible", base_url=llamacpp_url)
    told: list[RowsProgress] = []
    llm = LLM("real:", temperature=0, max_tokens=6)
    longer = ["sea " * (12 - number) for number in range(12)]  # the tokens of a prompt tell which row it is of
    answers = llm.map("Wet or dry? {{ item }}", longer, concurrency=8, on_progress=told.append)
    assert all(answers)
    tokens = [response.usage.input_tokens for response in answers.responses if response and response.usage]
    assert [tokens[0] - each for each in tokens] == list(range(12))
    assert max(each.in_flight for each in told) == 8


def test_rows_of_the_embedded_model_run_side_by_side(session: Session) -> None:
    pytest.importorskip("xllamacpp", reason="needs the extra `local`")
    busy: list[int] = []
    llm = LLM("local:smollm2", temperature=0, max_tokens=24)
    llm.ask("Hello")  # it is started

    def look(_: object) -> None:
        server = session.registry.get("local")._server  # type: ignore[attr-defined]
        busy.append(server.busy())

    answers = llm.map("Say a word about {{ item }}.", WORDS, on_progress=look, choices=["wet", "dry"])
    assert len(answers) == len(WORDS)
    texts = llm.map("Tell a story of {{ item }}.", WORDS, on_progress=look, on_error="keep", max_tokens=48)
    assert len(texts) == len(WORDS)
    assert max(busy) >= 2


def test_the_embedded_model_gives_several_answers_and_says_what_it_cannot(session: Session) -> None:
    pytest.importorskip("xllamacpp", reason="needs the extra `local`")
    llm = LLM("local:smollm2", temperature=0.9, max_tokens=6)
    several = llm.map("Say a word about {{ item }}.", WORDS[:2], n=2)
    assert [len(texts) for texts in several] == [2, 2]
    assert several.notes == ()  # answers that are cut are no matter of recordings that nobody asked for
    assert all(re.fullmatch("[a-c]{3}", text) for text in llm.map("{{ item }}", WORDS[:3], regex="[a-c]{3}"))
    with pytest.raises(UnsupportedError, match="cannot call tools"):  # as of one cell: nothing was sent
        llm.map("{{ item }}", WORDS[:3], tools=[next_number])


def next_number(number: int) -> int:
    """Add one."""
    return number + 1


# LiteLLM


def test_rows_through_a_real_proxy(
    session: Session, litellm_url: str, litellm_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_KEY", litellm_key)
    session.registry.add("proxy", "compatible", base_url=litellm_url, api_key_env="PROXY_KEY", structured="json_schema")
    llm = LLM("proxy:gpt-4o", temperature=0, max_tokens=24)
    answers = llm.map("Is {{ item }} wet or dry?", WORDS, choices=["wet", "dry"], concurrency=6, on_error="keep")
    assert {type(error) for error in answers.errors} <= {type(None), IncompleteAnswerError}  # of a small model
    assert set(answers) <= {"wet", "dry", None}
    assert len(answers.failed) < len(answers) / 2
    assert answers.usage is not None
    assert answers.usage.input_tokens
    state = Path(os.environ["XDG_STATE_HOME"])
    assert all(litellm_key not in each.read_text() for each in state.rglob("*.jsonl"))


def test_a_row_over_the_classic_route_of_azure(
    session: Session, litellm_url: str, litellm_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXY_KEY", litellm_key)
    endpoint = litellm_url.removesuffix("/v1")
    session.registry.add("classic", "azure", azure_endpoint=endpoint, api_version="2024-10-21", api_key_env="PROXY_KEY")
    (response,) = LLM("classic:gpt-4o").map("Say {{ item }}.", ["hello"], max_tokens=8, on_error="keep").responses
    assert response is not None
    assert response.text


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real proxy of our own, with two models that may be asked 60 times a minute; what it asks answers at once."""
    monkeypatch.setenv("PROXY_KEY", "sk-of-this-test")
    with ScriptedServer(answered) as server:
        parameters = {"model": "openai/m", "api_base": server.url, "api_key": "none", "rpm": 60}
        configuration = {
            "model_list": [{"model_name": name, "litellm_params": parameters} for name in ("one", "other")],
            "router_settings": {"optional_pre_call_checks": ["enforce_model_rate_limits"]},
            "general_settings": {"master_key": "sk-of-this-test"},
        }
        with litellm_proxy(configuration, tmp_path) as url:
            yield url


def answered(_: Received) -> Any:
    choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    return document(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    )


def test_a_real_proxy_refuses_nothing_where_its_limit_is_known(session: Session, limited: str) -> None:
    session.registry.add("open", "compatible", base_url=limited, api_key_env="PROXY_KEY", max_retries=0)
    refused = LLM("open:one").map("Is {{ item }} wet?", range(130), on_error="keep")
    assert {type(error) for error in refused.errors if error is not None} == {RateLimitedError}
    assert len(refused.failed) >= 10  # two of its minutes at most
    elsewhere = limited.replace("127.0.0.1", "localhost")  # which has had no refusal
    limit = {"max_retries": 0, "requests_per_minute": 60}
    session.registry.add("held", "compatible", base_url=elsewhere, api_key_env="PROXY_KEY", **limit)
    answers = LLM("held:other").map("Is {{ item }} wet?", range(62), on_error="keep")
    assert answers.failed == []
    assert {attempt.status for response in answers.responses if response for attempt in response.attempts} == {200}
