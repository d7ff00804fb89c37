"""The real servers: vLLM, llama.cpp, and the LiteLLM proxy before it, over the three APIs."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from typing import Any

import pytest
from asking import ask, call, client

from llm_magic import errors
from llm_magic.capabilities import Api, Capabilities
from llm_magic.events import TextDelta
from llm_magic.messages import Image, Reasoning, assistant, system, user
from llm_magic.request import Parameters
from llm_magic.wire.call import exchange
from llm_magic.wire.embeddings import embed
from llm_magic.wire.models import list_models

APIS: list[Api] = ["chat", "responses", "completions"]
TALK = (system("Be brief."), user("Say hello."))
PNG = Image(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
    )
)


@pytest.fixture(params=["vllm", "llamacpp", "litellm"])
def server(request: pytest.FixtureRequest) -> tuple[str, Any, str]:
    """Name, client and model of each server."""
    name: str = request.param
    url = request.getfixturevalue(f"{name}_url")
    key = request.getfixturevalue("litellm_key") if name == "litellm" else "EMPTY"
    return name, client(url, api_key=key, timeout=60.0), "gpt-4o" if name == "litellm" else "smollm2"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", APIS)
def test_an_answer(server: tuple[str, Any, str], api: Api, stream: bool) -> None:
    name, made, model = server
    cap = 16  # OpenAI's least, to which the proxy raises any smaller one
    outcome = ask(
        "",
        made=made,
        model=model,
        messages=TALK,
        capabilities=Capabilities(api=api),
        stream=stream,
        parameters=Parameters(max_tokens=cap, temperature=0.0),
    )
    assert outcome.error is None
    assert outcome.draft.text
    assert outcome.draft.usage is not None
    assert outcome.draft.usage.input_tokens > 3
    assert outcome.draft.usage.output_tokens <= cap
    if (name, api, stream) != ("litellm", "responses", False):  # there it says that nothing was cut
        assert outcome.draft.finish_reason == ("length" if outcome.draft.usage.output_tokens == cap else "stop")
    assert [attempt.status for attempt in outcome.attempts][-1] == 200


def test_a_stream_says_the_same_as_a_document(vllm_url: str) -> None:
    parameters = Parameters(max_tokens=20, temperature=0.0, seed=1)
    asked = [
        ask(vllm_url, model="smollm2", messages=TALK, stream=stream, parameters=parameters) for stream in (True, False)
    ]
    texts = [outcome.draft.text for outcome in asked]
    assert texts[0] == texts[1]


def test_several_answers_and_logprobs(vllm_url: str) -> None:
    outcome = ask(
        vllm_url, model="smollm2", messages=TALK, parameters=Parameters(max_tokens=5, n=3, logprobs=2, seed=1)
    )
    draft = outcome.draft
    assert draft.indexes == [0, 1, 2]
    assert all(one.finish_reason in ("stop", "length") for one in draft.alternatives())
    logprobs = draft.response().logprobs
    assert "".join(token["token"] for token in logprobs).startswith(draft.text)
    assert len(logprobs[0]["top_logprobs"]) == 2


@pytest.mark.parametrize("api", ["chat", "responses", "completions"])
def test_logprobs(server: tuple[str, Any, str], api: Api) -> None:
    name, made, model = server
    if name == "litellm":
        pytest.skip("the proxy passes on what the server behind it does, which is tested by itself")
    outcome = ask(
        "",
        made=made,
        model=model,
        messages=TALK,
        capabilities=Capabilities(api=api),
        parameters=Parameters(max_tokens=4, logprobs=1, temperature=0),
    )
    if (name, api) == ("llamacpp", "responses"):
        assert type(outcome.error) is errors.RequestRefusedError
        assert "--logprobs" in outcome.error.hint
        return
    assert outcome.error is None
    tokens = outcome.draft.response().logprobs
    assert tokens[0]["token"]
    assert all(token["logprob"] <= 0 for token in tokens)


def test_an_over_long_prompt_says_both_numbers(server: tuple[str, Any, str]) -> None:
    _, made, model = server
    outcome = ask("", made=made, model=model, messages=(user("word " * 9000),))
    assert type(outcome.error) is errors.ContextOverflowError
    assert re.search(r"has (at least )?[49],\d{3} tokens, and the context of .* holds 4,096\.", outcome.error.message)
    assert len(outcome.attempts) == 1


def test_an_image_for_a_text_model_is_refused_once(server: tuple[str, Any, str]) -> None:
    _, made, model = server
    outcome = ask("", made=made, model=model, messages=(user(PNG, "What?"),), retries=3)
    assert type(outcome.error) is errors.RequestRefusedError
    assert "--image" in outcome.error.hint
    assert len(outcome.attempts) == 1


def test_a_bad_value_names_the_option(server: tuple[str, Any, str]) -> None:
    _, made, model = server
    outcome = ask("", made=made, model=model, parameters=Parameters(extra={"temperature": "hot"}))
    assert type(outcome.error) is errors.RequestRefusedError
    assert "--temperature" in outcome.error.hint


def test_a_wrong_model_a_wrong_key_and_a_wrong_url(vllm_url: str, litellm_url: str) -> None:
    unknown = ask(vllm_url, model="nope").error
    assert type(unknown) is errors.ModelNotFoundError
    assert "%llm_models" in unknown.hint
    refused = ask(litellm_url, model="gpt-4o").error
    assert type(refused) is errors.AuthenticationError
    assert "No connected db" in refused.message
    misplaced = ask(vllm_url.removesuffix("/v1"), model="smollm2").error
    assert type(misplaced) is errors.EndpointNotFoundError
    assert "/v1" in misplaced.hint


def test_an_embedding_where_there_is_none_is_asked_once(llamacpp_url: str) -> None:
    with pytest.raises(errors.EndpointNotFoundError, match="501"):
        asyncio.run(embed(client(llamacpp_url, max_retries=3), errors.Origin("there", "m", llamacpp_url), "m", ["a"]))


def test_embeddings(llamacpp_embeddings_url: str) -> None:
    async def run() -> Any:
        made = client(llamacpp_embeddings_url)
        origin = errors.Origin("there", "m", llamacpp_embeddings_url)
        both = await embed(made, origin, "m", ["cat", "dog"])
        one = await embed(made, origin, "m", ["dog"], extra={"encoding_format": "base64"})
        await made.close()
        return both, one

    both, one = asyncio.run(run())
    assert len(both.vectors) == 2
    assert len(both.vectors[0]) == 576
    assert both.vectors[0] != both.vectors[1]
    assert one.vectors[0] == pytest.approx(both.vectors[1], abs=1e-2)
    assert both.usage is not None


def test_models(server: tuple[str, Any, str]) -> None:
    name, made, model = server

    async def run() -> list[dict[str, Any]]:
        cards = await list_models(made, errors.Origin("there", "", str(made.base_url)))
        await made.close()
        return cards

    cards = asyncio.run(run())
    assert all(card["id"] for card in cards)
    if name != "llamacpp":
        assert model in [card["id"] for card in cards]


def _running(url: str) -> float:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=10) as page:  # noqa: S310 - a fixed http URL
        text = page.read().decode()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("vllm:num_requests_running")
    )


def test_an_interrupt_ends_the_generation_at_the_server(vllm_url: str) -> None:
    async def run() -> None:
        made = client(vllm_url)
        asked = call(made, model="smollm2", parameters=Parameters(max_tokens=3000, extra={"ignore_eos": True}))
        seen = asyncio.Event()

        async def read() -> None:
            async for batch in exchange(asked):
                if any(isinstance(event, TextDelta) for event in batch):
                    seen.set()

        task = asyncio.ensure_future(read())
        await asyncio.wait_for(seen.wait(), 60)
        assert await asyncio.to_thread(_running, vllm_url) >= 1
        task.cancel()
        await asyncio.wait({task})
        await made.close()

    before = _running(vllm_url)
    asyncio.run(run())
    deadline = time.monotonic() + 10
    while _running(vllm_url) > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _running(vllm_url) <= before


BACK: dict[Api, tuple[dict[str, Any], ...]] = {
    "chat": (
        {
            "reasoning_content": "They greet me.",
            "reasoning": "They greet me.",
            "reasoning_details": [{"type": "reasoning.text", "text": "They greet me.", "index": 0}],
        },
    ),
    "responses": (
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "They greet me."}],
            "encrypted_content": "",
            "status": "completed",
        },
        {"type": "message", "length": 6},
    ),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("api", BACK)
def test_two_turns_with_reasoning(server: tuple[str, Any, str], api: Api, stream: bool) -> None:
    _, made, model = server
    outcome = ask(
        "",
        made=made,
        model=model,
        messages=(user("Hello."), assistant("Hello.", reasoning=Reasoning("", BACK[api])), user("How are you?")),
        capabilities=Capabilities(api=api, store=False),
        stream=stream,
        parameters=Parameters(max_tokens=16, temperature=0.0),
    )
    assert outcome.error is None
    assert outcome.draft.text.strip()
