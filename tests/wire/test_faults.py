"""Every refusal and failure as one error of ours: class, words, next step, and never a secret."""

# ruff: noqa: E501 - what servers write stays on the line on which they write it

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
import trustme
from asking import KEY, ask, call, client, collect
from servers import Answer, ScriptedServer, document, page, stream

from llm_magic import errors
from llm_magic.messages import Image, user
from llm_magic.request import Parameters
from llm_magic.secrets import hide, masked_headers, masked_url
from llm_magic.wire.error_body import read_error_body
from llm_magic.wire.refusals import filter_words

AZURE_BLOCKED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {
                "hate": {"filtered": False, "severity": "safe"},
                "violence": {"filtered": True, "severity": "medium"},
                "jailbreak": {"filtered": True, "detected": True},
            },
        },
    }
}

CASES: list[tuple[str, int, Any, type[errors.ProviderError], str, str]] = [
    ("openai key", 401, {"error": {"message": f"Incorrect API key provided: {KEY[:7]}********ghij. Find it at …", "type": "invalid_request_error", "code": "invalid_api_key"}}, errors.AuthenticationError, "Incorrect API key provided: ***", "%llm_config"),
    ("vllm key", 401, {"error": "Unauthorized"}, errors.AuthenticationError, "answered 401: Unauthorized", "%llm_config"),
    ("litellm key", 400, {"error": {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}}, errors.AuthenticationError, "refused the key (400: No connected db.)", "%llm_config"),
    ("forbidden", 403, {"error": {"code": "unsupported_country", "message": "Country not supported"}}, errors.AuthenticationError, "Country not supported", "%llm_config"),
    ("vllm model", 404, {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}}, errors.ModelNotFoundError, "does not exist", "%llm_models there"),
    ("litellm model", 400, {"error": {"message": "litellm.BadRequestError: Invalid model name passed in model=x", "code": "400"}}, errors.ModelNotFoundError, "Invalid model name", "%llm_models there"),
    ("azure deployment", 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}, errors.EndpointNotFoundError, "deployment", "`deployments`"),
    ("vllm path", 404, {"detail": "Not Found"}, errors.EndpointNotFoundError, "this API is not at that URL", "/v1"),
    ("openai quota", 429, {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}}, errors.QuotaExceededError, "exceeded your current quota", "Waiting does not help"),
    ("rate", 429, {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}, errors.RateLimitedError, "Rate limit reached", "--retries"),
    ("azure filter", 400, AZURE_BLOCKED, errors.ContentFilteredError, "violence (severity medium), an attempt at jailbreaking", "Rephrase"),
    ("openai overflow", 400, {"error": {"message": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens. Please reduce the length of the messages.", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}, errors.ContextOverflowError, "The prompt has 9,001 tokens, and the context of there:m", "Shorten"),
    ("vllm overflow", 400, {"error": {"message": "This model's maximum context length is 4096 tokens. However, your prompt contains at least 4097 input tokens, which exceeds this limit even without any output tokens.", "param": "input_tokens", "code": 400}}, errors.ContextOverflowError, "at least 4,097 tokens", "Shorten"),
    ("vllm overflow by the answer", 400, {"error": {"message": "This model's maximum context length is 4096 tokens. However, you requested 4090 output tokens and your prompt contains 31 input tokens, for a total of 4121 tokens.", "param": "input_tokens", "code": 400}}, errors.ContextOverflowError, "31 tokens and the answer asked for do not fit into the 4,096 tokens", "--max-tokens"),
    ("llama.cpp overflow", 400, {"error": {"code": 400, "message": "request (9031 tokens) exceeds the available context size (4096 tokens), try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 9031, "n_ctx": 4096}}, errors.ContextOverflowError, "9,031 tokens, and the context", "Shorten"),
    ("litellm overflow", 400, {"error": {"message": "litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: OpenAIException - request (9031 tokens) exceeds the available context size (4096 tokens), try increasing it\nmodel=gpt-4o. context_window_fallbacks=None.", "code": "400"}}, errors.ContextOverflowError, "9,031 tokens, and the context of there:m", "Shorten"),
    ("perplexity overflow", 400, {"error": {"message": "Too much of it.", "type": "too_many_prompt_tokens", "code": 400}}, errors.ContextOverflowError, "Too much of it.", "history_turns"),
    ("overflow in words", 400, {"error": {"message": "All in all, the messages are too long."}}, errors.ContextOverflowError, "the messages are too long", "history_turns"),
    ("vllm answer too long", 400, {"error": {"message": "max_tokens=100000 cannot be greater than max_model_len=4096. Please request fewer output tokens. (parameter=max_tokens, value=100000)", "param": "max_tokens", "code": 400}}, errors.RequestRefusedError, "max_model_len=4096", "--max-tokens"),
    ("openai param", 400, {"error": {"message": "Unsupported value: 'temperature' does not support 0 with this model.", "type": "invalid_request_error", "param": "temperature", "code": "unsupported_value"}}, errors.RequestRefusedError, "does not support 0", "Change or leave out --temperature."),
    ("openai max_tokens", 400, {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "param": "max_tokens", "code": "unsupported_parameter"}}, errors.RequestRefusedError, "max_completion_tokens", "--max-tokens"),
    ("unknown field", 400, {"error": {"message": "Unrecognized request argument supplied: top_j", "param": "top_j"}}, errors.RequestRefusedError, "top_j", "--param top_j"),
    ("vllm validation", 400, {"error": {"message": "1 validation error", "param": "body.temperature", "code": 400}}, errors.RequestRefusedError, "1 validation error", "--temperature"),
    ("fastapi", 422, {"detail": [{"loc": ["body", "temperature"], "msg": "not a number"}]}, errors.RequestRefusedError, "'temperature': not a number", "--temperature"),
    ("vllm image", 400, {"error": {"message": "smollm2 is not a multimodal model", "code": 400}}, errors.RequestRefusedError, "multimodal", "--image"),
    ("llama.cpp image", 500, {"error": {"code": 500, "message": "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"}}, errors.RequestRefusedError, "image input", "--image"),
    ("llama.cpp off", 501, {"error": {"code": 501, "message": "This server does not support embeddings.", "type": "not_supported_error"}}, errors.EndpointNotFoundError, "does not support", "--api"),
    ("server", 500, {"error": {"message": "boom", "code": 500}}, errors.ServerFailedError, "answered 500: boom", "ask again"),
    ("gateway", 504, {"message": "upstream timed out"}, errors.TimedOutError, "upstream", "Ask again"),
    ("nothing said", 503, None, errors.ServerFailedError, "answered 503.", "ask again"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "answer", "kind", "words", "hint"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_refusals(status: int, answer: Any, kind: type[errors.ProviderError], words: str, hint: str) -> None:
    headers = {"x-litellm-call-id": "r7"}
    scripted = Answer([], status, headers) if answer is None else document(answer, status, headers)
    with ScriptedServer(scripted) as server:
        outcome = ask(server.url, parameters=Parameters(temperature=0.0, max_tokens=5, extra={"top_j": 1}))
        error = outcome.error
        assert type(error) is kind, error
        assert words in error.message
        assert hint in error.hint
        assert error.status == status
        assert error.request_id == "r7"
        assert "[request r7]" in error.message
        assert "there:m" in error.message
        assert server.url in error.message
        assert "\n" not in error.message
        assert KEY not in f"{error}{error.__cause__}"
        assert outcome.attempts[-1].status == status


def test_a_page_where_an_api_was_expected() -> None:
    with ScriptedServer(page("<html><title>404 Not Found</title>nginx</html>", 404)) as server:
        error = ask(server.url).error
    assert type(error) is errors.EndpointNotFoundError
    assert "an HTML page" in error.message
    assert "base_url" in error.hint


def test_an_error_with_status_200() -> None:
    with ScriptedServer(
        document({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}})
    ) as server:
        error = ask(server.url).error
    assert type(error) is errors.RateLimitedError
    assert "Rate limit reached" in error.message


def test_a_document_that_is_no_answer() -> None:
    with ScriptedServer(document({"hello": "world"})) as server:
        error = ask(server.url).error
    assert type(error) is errors.ProtocolError
    assert "hello" in error.message


def test_nothing_listens() -> None:
    with ScriptedServer(stream()) as server:
        url = server.url
    outcome = ask(url, retries=1)
    assert type(outcome.error) is errors.ConnectionFailedError
    assert "refused" in outcome.error.message
    assert [(attempt.status, attempt.final) for attempt in outcome.attempts] == [(None, False), (None, True)]


def test_an_unknown_host_is_not_tried_again() -> None:
    outcome = ask("http://no-such-host.invalid/v1", retries=3)
    assert type(outcome.error) is errors.ConnectionFailedError
    assert "host" in outcome.error.hint
    assert [attempt.final for attempt in outcome.attempts] == [True]


def test_a_certificate_of_an_unknown_authority_is_not_tried_again() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ScriptedServer(stream(), tls=context) as server:
        outcome = ask(server.url, retries=3)
    assert type(outcome.error) is errors.ConnectionFailedError
    assert "certificate" in outcome.error.message.lower()
    assert "verify" in outcome.error.hint
    assert [attempt.final for attempt in outcome.attempts] == [True]


def test_tls_to_a_server_without_it() -> None:
    with ScriptedServer(stream()) as server:
        outcome = ask(server.url.replace("http:", "https:"), retries=3)
    assert type(outcome.error) is errors.ConnectionFailedError
    assert "https" in outcome.error.hint
    assert len(outcome.attempts) == 1


def test_a_proxy_that_refuses() -> None:
    import openai

    old = openai.__version__.startswith("2.")
    make = openai.DefaultAsyncHttpxClient if old else openai.DefaultAsyncHttpx2Client
    with ScriptedServer(Answer([], 407)) as proxy:
        made = client("https://api.example/v1", http_client=make(proxy=proxy.host))
        outcome = ask("", made=made)
    assert type(outcome.error) is errors.ConnectionFailedError
    assert "proxy" in outcome.error.message.lower()
    assert "http_client_kwargs" in outcome.error.hint


@pytest.mark.parametrize("key", ["line\nbreak", "ends in a space ", "nön-ascii"])
@pytest.mark.parametrize("sync", [False, True])
def test_a_key_that_no_header_can_carry(key: str, sync: bool) -> None:
    from openai import OpenAI

    with ScriptedServer(stream()) as server:
        made = (
            OpenAI(base_url=server.url, api_key=key, max_retries=3)
            if sync
            else client(server.url, api_key=key, max_retries=3)
        )
        outcome = ask(server.url, made=made)
        assert server.requests == []
    assert type(outcome.error) is errors.ConfigurationError
    assert key not in str(outcome.error)
    assert outcome.attempts == []


@pytest.mark.parametrize("headers", [{"bad name": "x"}, {"X-A": "é"}, {"X-A": "a\nb"}, {"X-A": " a"}, {"": "a"}])
def test_a_header_that_http_does_not_allow(headers: dict[str, str]) -> None:
    with ScriptedServer(stream()) as server:
        outcome = ask(server.url, headers=headers)
        assert server.connections == 0
    assert type(outcome.error) is errors.OptionError
    assert "--header" in outcome.error.message


def test_half_a_surrogate_pair_in_the_prompt() -> None:
    with ScriptedServer(stream()) as server:
        outcome = ask(server.url, messages=(user("a \ud83d b"),))
        assert server.requests == []
    assert type(outcome.error) is errors.PromptError
    assert "surrogate" in outcome.error.message


def test_a_url_that_is_none() -> None:
    outcome = ask("ftp://there.example/v1")
    assert type(outcome.error) is errors.ConfigurationError
    assert "base_url" in outcome.error.hint


def test_a_token_callable_that_fails() -> None:
    async def token() -> str:
        raise RuntimeError("no login at the tenant")

    outcome = asyncio.run(collect(call(client("http://127.0.0.1:9/v1", api_key=token))))
    assert isinstance(outcome.error, errors.LLMError)
    assert "no login at the tenant" in outcome.error.message


def test_secrets_are_masked() -> None:
    assert hide("Bearer abc.def, sk-proj-abcdefghij", ["abc.def"]) == "Bearer ***, ***"
    assert (
        masked_url("https://u:p@h.example/a?api-key=1&v=2024-01-01&code=x")
        == "https://***@h.example/a?api-key=***&v=2024-01-01&code=***"
    )
    headers = {
        "Authorization": "Bearer x",
        "Ocp-Apim-Subscription-Key": "x",
        "Cookie": "x",
        "Accept": "y",
        "X-Max-Tokens": "3",
    }
    assert masked_headers(headers) == {
        "Authorization": "Bearer ***", "Ocp-Apim-Subscription-Key": "***", "Cookie": "***", "Accept": "y", "X-Max-Tokens": "3",
    }  # fmt: skip


def test_a_secret_that_the_server_repeats_is_masked_everywhere() -> None:
    secret = "custom-gateway-secret"
    answer = document({"error": {"message": f"bad token {secret} and {KEY}"}}, 400)
    with ScriptedServer(answer) as server:
        outcome = ask(server.url, made=client(server.url, default_headers={"X-Gateway-Key": secret}))
    shown = f"{outcome.error}{outcome.attempts}"
    assert "bad token *** and ***" in shown
    assert secret not in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("document_", "message", "code"),
    [
        ({"error": "text"}, "text", ""),
        ({"error": {"message": "m", "code": 5}}, "m", "5"),
        ({"error": {"metadata": {"raw": "inner"}, "message": "outer"}}, "outer: inner", ""),
        ({"response": {"error": {"message": "m"}}}, "m", ""),
        ([{"error": {"message": "m"}}], "m", ""),
        ({"type": "error", "message": "m", "code": "c"}, "m", "c"),
        ("plain\n text", "plain text", ""),
        (b"<html><title>A &lt; B</title>", "an HTML page titled “A < B”", ""),
        (None, "", ""),
        ([], "", ""),
        ({"error": {"message": "x" * 5000}}, "x" * 399 + "…", ""),
    ],
)
def test_shapes_of_error_documents(document_: object, message: str, code: str) -> None:
    complaint = read_error_body(document_)
    assert (complaint.message, complaint.code) == (message, code)


def test_filter_findings_in_words() -> None:
    assert filter_words(AZURE_BLOCKED["error"]) == "violence (severity medium), an attempt at jailbreaking"
    assert filter_words({"custom_blocklists": {"filtered": True, "details": []}}) == "custom blocklists"
    assert filter_words({}) == ""


def test_an_image_is_named_in_the_hint_of_a_text_model() -> None:
    with ScriptedServer(document({"error": {"message": "m is not a multimodal model", "code": 400}}, 400)) as server:
        outcome = ask(server.url, messages=(user(Image(b"x")),))
    assert outcome.error is not None
    assert "--image" in outcome.error.hint
