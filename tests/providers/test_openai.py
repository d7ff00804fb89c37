"""OpenAI: every setting and parameter, as a server sees it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from asked import ask, sent
from recorder import Recorder
from servers import HANG, Answer, ScriptedServer, document

from llm_magic.errors import (
    AuthenticationError,
    ConfigurationError,
    QuotaExceededError,
    RateLimitedError,
    ServerFailedError,
    TimedOutError,
    UnsupportedError,
)
from llm_magic.providers.openai import OpenAIProvider
from llm_magic.secrets import reveal

REPLY = {"id": "c", "model": "m", "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-standard")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> Recorder:
    """A server that stands for OpenAI."""
    monkeypatch.setenv("OPENAI_BASE_URL", recorder.url)
    return recorder


def test_the_address_and_its_variables(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    assert OpenAIProvider().url() == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_API_BASE", recorder.url)
    ask(OpenAIProvider(), "gpt-4o")
    assert recorder.last.target == "/v1/chat/completions"
    assert recorder.last.headers["authorization"] == "Bearer sk-standard"
    monkeypatch.setenv("OPENAI_BASE_URL", f"{recorder.root}/newer/v1")
    ask(OpenAIProvider(), "gpt-4o")
    assert recorder.last.target == "/newer/v1/chat/completions"
    monkeypatch.setenv("MY_URL", f"{recorder.root}/mine/v1")
    ask(OpenAIProvider(base_url="env:MY_URL"), "gpt-4o")
    assert recorder.last.target == "/mine/v1/chat/completions"


@pytest.mark.parametrize(
    "url", ["https://eu.api.openai.com/v1", "https://api.openai.com/v1/", "https://API.openai.com"]
)
def test_openais_own_hosts_get_its_key(url: str) -> None:
    provider = OpenAIProvider(base_url=url)
    assert provider.at_home
    assert reveal(provider.key()) == "sk-standard"


@pytest.mark.parametrize(
    "url", ["https://openai.com.evil.org/v1", "https://notopenai.com/v1", "https://api.openai.co/v1"]
)
def test_hosts_that_only_look_like_it_do_not(url: str) -> None:
    assert OpenAIProvider(base_url=url).key() is None
    assert OpenAIProvider().at(url).key() is None


@pytest.mark.parametrize(
    "names", [("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"), ("OPENAI_ORGANIZATION", "OPENAI_PROJECT_ID")]
)
def test_organization_and_project(names: tuple[str, str], monkeypatch: pytest.MonkeyPatch, home: Recorder) -> None:
    ask(OpenAIProvider(), "gpt-4o")
    assert "openai-organization" not in home.last.headers
    monkeypatch.setenv(names[0], "org-environment")
    monkeypatch.setenv(names[1], "proj-environment")
    ask(OpenAIProvider(), "gpt-4o")
    assert home.last.headers["openai-organization"] == "org-environment"
    assert home.last.headers["openai-project"] == "proj-environment"
    ask(OpenAIProvider(organization="org-set", project="proj-set"), "gpt-4o")
    assert home.last.headers["openai-organization"] == "org-set"
    assert home.last.headers["openai-project"] == "proj-set"


def test_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch, home: Recorder) -> None:
    monkeypatch.setenv("SECOND_ACCOUNT", "sk-second")
    ask(OpenAIProvider(api_key_env="SECOND_ACCOUNT"), "gpt-4o")
    assert home.last.headers["authorization"] == "Bearer sk-second"


def test_headers_and_query(home: Recorder) -> None:
    provider = OpenAIProvider(default_headers={"X-Team": "a", "X-Two": "b"}, default_query={"tenant": "t", "n": 1})
    ask(provider, "gpt-4o", headers={"X-Two": "call", "X-Three": "c"})
    assert home.last.target == "/v1/chat/completions?tenant=t&n=1"
    headers = home.last.headers
    assert (headers["x-team"], headers["x-two"], headers["x-three"]) == ("a", "call", "c")


def test_names_are_passed_untouched(home: Recorder) -> None:
    for name in ("ft:gpt-4o-2024-08-06:org::id", "openai/gpt-oss-120b", "llama3:8b"):
        ask(OpenAIProvider(), name)
        assert home.last.json["model"] == name


PARAMETERS: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 7,
    "seed": 3,
    "stop": ("a", "b"),
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
    "n": 2,
    "logprobs": 4,
    "reasoning_effort": "low",
    "extra": {"service_tier": "flex", "metadata": {"k": "v"}},
}


def test_every_parameter_of_chat(home: Recorder) -> None:
    ask(OpenAIProvider(), "gpt-4o", **PARAMETERS)
    body = home.last.json
    assert {
        name: value for name, value in body.items() if name not in {"model", "messages", "stream", "stream_options"}
    } == {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 7,
        "seed": 3,
        "stop": ["a", "b"],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 4,
        "reasoning_effort": "low",
        "service_tier": "flex",
        "metadata": {"k": "v"},
    }


def test_nothing_is_sent_that_was_not_asked_for(home: Recorder) -> None:
    ask(OpenAIProvider(), "gpt-5")
    assert set(home.last.json) == {"model", "messages", "stream", "stream_options"}
    ask(OpenAIProvider(), "gpt-5", api="responses", stream=False)
    assert set(home.last.json) == {"model", "input", "store", "include"}


def test_responses_are_not_stored_and_have_their_own_names(home: Recorder) -> None:
    given = {name: PARAMETERS[name] for name in ("temperature", "top_p", "max_tokens", "logprobs", "reasoning_effort")}
    ask(OpenAIProvider(api="responses"), "o3", **given)
    body = home.last.json
    assert home.last.target == "/v1/responses"
    assert body["store"] is False
    assert body["max_output_tokens"] == 7
    assert body["reasoning"]["effort"] == "low"
    assert (body["temperature"], body["top_p"], body["top_logprobs"]) == (0.5, 0.9, 4)
    for name in ("seed", "n", "stop", "presence_penalty", "frequency_penalty"):
        with pytest.raises(UnsupportedError, match=f"--{name.replace('_', '-')} does not exist in the Responses API"):
            ask(OpenAIProvider(api="responses"), "o3", **{name: PARAMETERS[name]})


def test_legacy_completions(home: Recorder) -> None:
    given = {name: value for name, value in PARAMETERS.items() if name != "reasoning_effort"}
    ask(OpenAIProvider(api="completions"), "gpt-3.5-turbo-instruct", "Once", **given)
    body = home.last.json
    assert home.last.target == "/v1/completions"
    assert (body["prompt"], body["max_tokens"], body["logprobs"], body["n"]) == ("Once", 7, 4, 2)


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ("o1", "max_completion_tokens"),
        ("o3-mini-2025-01-31", "max_completion_tokens"),
        ("o4-mini", "max_completion_tokens"),
        ("gpt-5-nano", "max_completion_tokens"),
        ("gpt-5.1-codex", "max_completion_tokens"),
        ("ft:o4-mini:org::id", "max_completion_tokens"),
        ("gpt-4o", "max_tokens"),
        ("llama", "max_tokens"),
        ("gpt-5-chat-latest", "max_tokens"),
    ],
)
def test_a_proxy_gets_the_field_that_the_model_takes(model: str, field: str, recorder: Recorder) -> None:
    ask(OpenAIProvider(base_url=recorder.url), model, max_tokens=5)
    assert recorder.last.json[field] == 5
    ask(OpenAIProvider().at(recorder.url), model, max_tokens=5)
    assert recorder.last.json[field] == 5


def test_timeout_of_the_provider_and_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(Answer([HANG])) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        for provider, options in [
            (OpenAIProvider(timeout=0.3, max_retries=0), {}),
            (OpenAIProvider(max_retries=0), {"timeout": 0.3}),
        ]:
            began = time.perf_counter()
            with pytest.raises(TimedOutError):
                ask(provider, "m", **options)
            assert time.perf_counter() - began < 3
        assert server.requests[0].headers["x-stainless-read-timeout"] == "0.3"


@pytest.mark.parametrize(("traits", "options", "times"), [({"max_retries": 2}, {}, 3), ({}, {"max_retries": 1}, 2)])
def test_retries_of_the_provider_and_of_a_call(
    traits: dict[str, Any], options: dict[str, Any], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = document({"error": {"message": "busy"}}, 503, {"retry-after-ms": "1"})
    with ScriptedServer(busy) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        with pytest.raises(ServerFailedError):
            ask(OpenAIProvider(**traits), "m", **options)
        assert len(server.requests) == times


def test_six_retries_and_two_minutes_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = document({"error": {"message": "slow down"}}, 429, {"retry-after-ms": "1"})
    with ScriptedServer(busy, busy, busy, busy, busy, busy, document(REPLY)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        response = ask(OpenAIProvider(), "m", stream=False)
        assert response.text == "Hi"
        assert [attempt.status for attempt in response.attempts] == [429] * 6 + [200]
        assert server.requests[0].headers["x-stainless-read-timeout"] == "120.0"


def test_a_spent_quota_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = document(
        {"error": {"message": "no quota", "code": "insufficient_quota", "type": "insufficient_quota"}}, 429
    )
    with ScriptedServer(spent) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        with pytest.raises(QuotaExceededError):
            ask(OpenAIProvider(), "m")
        assert len(server.requests) == 1


def test_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(document({"error": {"message": "busy"}}, 429, {"retry-after": "1"}), document(REPLY)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        response = ask(OpenAIProvider(), "m", stream=False)
        assert server.requests[1].at - server.requests[0].at >= 1
        assert response.attempts[0].retry_after == 1.0
        server.script = [document({"error": {"message": "busy"}}, 429, {"retry-after": "300"})]
        with pytest.raises(RateLimitedError):
            ask(OpenAIProvider(), "m", stream=False)


def test_what_the_response_knows_of_the_server(home: Recorder) -> None:
    home.headers = {"x-request-id": "req-1", "x-ratelimit-remaining-requests": "99", "openai-processing-ms": "5"}
    for stream in (True, False):
        response = ask(OpenAIProvider(), "gpt-4o", stream=stream)
        assert response.request_id == "req-1"
        assert response.rate_limits == {"remaining-requests": "99"}
        assert response.headers["openai-processing-ms"] == "5"


def test_a_number_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, home: Recorder) -> None:
    monkeypatch.setenv("MY_TIMEOUT", "7.5")
    ask(OpenAIProvider(timeout="env:MY_TIMEOUT"), "m")
    assert home.last.headers["x-stainless-read-timeout"] == "7.5"
    monkeypatch.setenv("MY_TIMEOUT", "soon")
    with pytest.raises(ConfigurationError, match="is no number"):
        ask(OpenAIProvider(timeout="env:MY_TIMEOUT"), "m")
    for value in ("7", "soon", 0, -1):
        with pytest.raises(ConfigurationError, match="timeout"):
            OpenAIProvider(timeout=value)


def test_a_changed_setting_makes_a_new_client(home: Recorder) -> None:
    provider = OpenAIProvider()
    first = provider.client()
    assert provider.client() is first
    provider.organization = "org-new"
    second = provider.client()
    assert second is not first
    assert not first.is_closed()
    ask(provider, "m")
    assert home.last.headers["openai-organization"] == "org-new"
    assert first.is_closed()
    assert second.is_closed()


def test_a_wrong_key_names_the_provider_and_not_the_key(home: Recorder) -> None:
    home.fixed = (401, "application/json", b'{"error": {"message": "Incorrect API key provided: sk-standard"}}')
    home.headers = {"x-request-id": "req-9"}
    with pytest.raises(AuthenticationError) as caught:
        ask(OpenAIProvider(), "gpt-4o")
    assert "openai:gpt-4o" in caught.value.message
    assert caught.value.request_id == "req-9"
    assert "sk-standard" not in str(caught.value)
    assert len(home.requests) == 1


@pytest.mark.parametrize("url", ["api.openai.com/v1", "http://", "ftp://h/v1", "http://h:port/v1", "http://[::1/v1"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is no URL"):
        OpenAIProvider(base_url=url).url()


def test_prices() -> None:
    prices = {
        "gpt-*": {"input": 1, "output": 2},
        "gpt-4o*": {"input": 3, "output": 4},
        "gpt-4o": {"input": 5, "output": 6},
    }
    provider = OpenAIProvider(prices=prices)
    found = [provider.price(name) for name in ("gpt-4o", "gpt-4o-mini", "gpt-5", "o3")]
    assert [price and price.input for price in found] == [5.0, 3.0, 1.0, None]
    for wrong in (
        {"input": 1},
        {"input": "1", "output": 2},
        {"input": 1, "output": 2, "per": 3},
        5,
        {"input": -1, "output": 1},
    ):
        with pytest.raises(ConfigurationError, match="is no price"):
            OpenAIProvider(prices={"m": wrong}).price("m")


def test_a_dry_run_sends_nothing_and_masks(home: Recorder) -> None:
    preview = sent(OpenAIProvider(organization="org-1"), "gpt-4o")
    assert home.requests == []
    assert preview.url == f"{home.url}/chat/completions"
    assert {name.lower(): value for name, value in preview.headers.items()}["authorization"] == "Bearer ***"
