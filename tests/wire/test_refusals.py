"""A server's refusal: its words, the class they mean, and a next step that names nothing the user did not say."""

# ruff: noqa: E501 - what servers write stays on the line on which they write it

from __future__ import annotations

from typing import Any

import pytest

from llm_magic import errors
from llm_magic.errors import Origin
from llm_magic.wire.refusals import refused

HERE = Origin("eu", "tiny-2", "https://llm.example.org/v1")


def said(message: object, **more: object) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


CASES: list[tuple[str, int, Any, type[errors.ProviderError], str, str]] = [
    ("a model in other words", 404, {"type": "error", "error": {"type": "not_found_error", "message": "model: tiny-2"}}, errors.ModelNotFoundError, "answered 404: model: tiny-2", "%llm_models eu"),
    ("a model's path", 404, {"error": {"code": 404, "message": "models/tiny-2 is not found for this version.", "status": "NOT_FOUND"}}, errors.ModelNotFoundError, "models/tiny-2 is not found", "%llm_models eu"),
    ("a model that was removed", 404, {"message": "model 'tiny-2' was removed on May 1"}, errors.ModelNotFoundError, "was removed on May 1", "%llm_models eu"),
    ("a model that is deprecated", 404, said("The model `old` has been deprecated"), errors.ModelNotFoundError, "has been deprecated", "%llm_models eu"),
    ("a model that is not supported", 400, {"detail": "Model tiny-2 is not supported. Supported models are ['a', 'b']."}, errors.ModelNotFoundError, "Supported models are", "%llm_models eu"),
    ("a model's identifier", 400, {"message": "The provided model identifier is invalid."}, errors.ModelNotFoundError, "identifier is invalid", "%llm_models eu"),
    ("a model that the project may not use", 403, said("Project x does not have access to model tiny-2", code="model_not_found"), errors.ModelNotFoundError, "does not have access", "%llm_models eu"),
    ("a name alone", 404, said("tiny-2: no endpoints"), errors.ModelNotFoundError, "no endpoints", "%llm_models eu"),
    ("something else that is not found", 404, {"message": "Dataset not found"}, errors.EndpointNotFoundError, "answered 404: Dataset not found", "base_url"),
    ("nothing but not found", 404, "404 page not found", errors.EndpointNotFoundError, "this API is not at that URL", "base_url"),
    ("another API", 404, said("This model is only supported in v1/responses and not in v1/chat/completions.", param="model"), errors.EndpointNotFoundError, "only supported in v1/responses", "--api responses asks"),
    ("another API, as 400", 400, said("Please use the /v1/responses endpoint"), errors.RequestRefusedError, "/v1/responses", "--api responses asks"),
    ("a model that does not chat", 404, said("This is not a chat model and thus not supported in the v1/chat/completions endpoint. Did you mean to use v1/completions?"), errors.EndpointNotFoundError, "not a chat model", "--api completions asks"),
    ("a model that chats", 404, said("This is a chat model. Did you mean to use v1/chat/completions?"), errors.EndpointNotFoundError, "a chat model", "--api chat asks"),
    ("a resource of Azure", 404, {"error": {"code": "404", "message": "Resource not found"}}, errors.EndpointNotFoundError, "answered 404: Resource not found", "the deployment (--model) and api_version"),
    ("a resource behind a gateway", 404, {"statusCode": 404, "message": "Resource not found"}, errors.EndpointNotFoundError, "Resource not found", "api_version"),
    ("a deployment", 404, said("The API deployment for this resource does not exist.", code="DeploymentNotFound"), errors.EndpointNotFoundError, "does not exist", "`deployments` and --model tiny-2, the endpoint and api_version"),
    ("a version of the API", 400, said("API version not supported", code="BadRequest"), errors.RequestRefusedError, "API version not supported", "api_version"),
    ("an operation", 400, said("The chatCompletion operation does not work with the specified model, tiny-2.", code="OperationNotSupported"), errors.RequestRefusedError, "does not work", "--api responses, chat or completions"),
    ("a model that is down", 503, said("The model tiny-2 is not available, try again later"), errors.ServerFailedError, "try again later", "ask again"),
    ("a model that is busy", 429, said("Requests to the model tiny-2 are not available in your tier"), errors.RateLimitedError, "in your tier", "Wait a little"),
    ("no money", 402, said("Insufficient Balance", code="invalid_request_error"), errors.QuotaExceededError, "Insufficient Balance", "Waiting does not help"),
    ("no credit", 400, said("Your credit balance is too low to access the API."), errors.QuotaExceededError, "too low", "Waiting does not help"),
    ("words in a text in a document", 429, said("Provider returned error", metadata={"raw": '{"error": {"message": "slow down"}}'}), errors.RateLimitedError, "Provider returned error: slow down", "Wait a little"),
    ("a document as the message", 400, said({"error": {"message": "no such tool"}}), errors.RequestRefusedError, "no such tool", "--dry-run"),
    ("a list of errors", 400, {"error": [{"message": "bad role"}]}, errors.RequestRefusedError, "bad role", "--dry-run"),
    ("a shape that nobody knows", 400, {"fault": {"faultstring": "policy"}}, errors.RequestRefusedError, '{"fault": {"faultstring": "policy"}}', "--dry-run"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "document", "kind", "words", "hint"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_class_words_and_next_step(
    status: int, document: Any, kind: type[errors.ProviderError], words: str, hint: str
) -> None:
    error = refused(document, status, HERE, body={"model": "tiny-2", "messages": []})
    assert type(error) is kind
    assert error.message.startswith("eu:tiny-2 (https://llm.example.org/v1) answered ")
    assert words in error.message
    assert hint in error.hint
    assert error.status == status
    assert error.origin == HERE


def test_a_model_that_its_server_does_not_know_is_an_unknown_model_and_a_provider_s_error() -> None:
    error = refused(said("The model `x` does not exist"), 404, HERE)
    assert isinstance(error, errors.ModelNotFoundError)
    assert isinstance(error, errors.InputError)
    assert isinstance(error, errors.EndpointNotFoundError)


@pytest.mark.parametrize(
    ("document", "sent", "parameter", "hint"),
    [
        (said("bad", param="temperature"), {"temperature": 9}, "temperature", "Change or leave out --temperature."),
        (said("bad", param="temperature"), {}, "", "--dry-run shows what was sent."),
        (said("'max_tokens' is too large"), {"max_completion_tokens": 9}, "max_tokens", "Change or leave out --max-tokens."),
        (said("'max_tokens' is too large"), {}, "", "--dry-run shows what was sent."),
        (said("Unknown: 'top_j'"), {"top_j": 1}, "top_j", "Change or leave out --param top_j."),
        (said("Unknown: 'top_j'"), {}, "", "--dry-run shows what was sent."),
        (said("bad role", param="messages[0].role"), {"messages": []}, "", "--dry-run shows what was sent."),
        (said("Item of type 'reasoning' without its item", param="input"), {"input": [], "reasoning": {}}, "", "--dry-run shows what was sent."),
        (said("bad tool", param="tools[0].parameters"), {"tools": []}, "", "Change or leave out --tools."),
        (said("bad schema", param="text.format.schema"), {"text": {}}, "", "the output type (--as"),
        (said("no streams", param="stream"), {"stream": True}, "", "--no-stream"),
    ],
)  # fmt: skip
def test_what_a_refusal_is_about_is_what_was_sent(document: Any, sent: Any, parameter: str, hint: str) -> None:
    error = refused(document, 400, HERE, body={"model": "m", **sent})
    assert isinstance(error, errors.RequestRefusedError)
    assert error.parameter == parameter
    assert hint in error.hint


@pytest.mark.parametrize(("sent", "named"), [({}, False), ({"max_completion_tokens": 5}, True)])
def test_too_long_a_prompt_names_the_limit_only_where_it_was_sent(sent: dict[str, int], *, named: bool) -> None:
    error = refused(said("too long", code="context_length_exceeded"), 400, HERE, body={"model": "m", **sent})
    assert type(error) is errors.ContextOverflowError
    assert ("--max-tokens" in error.hint) is named


@pytest.mark.parametrize(
    "document",
    [None, [], {}, 5, "", {"error": None}, {"error": 7}, {"error": [1, None]}, {"error": {"message": None}}, {"error": {"message": [None]}}],
)  # fmt: skip
def test_what_says_nothing_is_still_an_error_of_one_line(document: object) -> None:
    error = refused(document, 400, HERE, body=document)
    assert type(error) is errors.RequestRefusedError
    assert error.message.startswith("eu:tiny-2 (https://llm.example.org/v1) answered 400")
    assert "\n" not in error.message


def test_a_document_nested_deeply_is_still_an_error() -> None:
    document: dict[str, Any] = {"message": "x"}
    for _ in range(150):
        document = {"message": document}
    assert type(refused({"error": {"message": document["message"]}}, 400, HERE)) is errors.RequestRefusedError
