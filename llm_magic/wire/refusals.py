"""The error for a server's refusal: its class, what happened in the server's words, and the next step.

The server's words decide first, its status last: servers send the same fault with different
statuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, get_args

from llm_magic.errors import (
    AuthenticationError,
    ContentFilteredError,
    ContextOverflowError,
    EndpointNotFoundError,
    ModelNotFoundError,
    Origin,
    ProviderError,
    QuotaExceededError,
    RateLimitedError,
    RequestRefusedError,
    ServerFailedError,
    TimedOutError,
)
from llm_magic.model_names import shown_model
from llm_magic.options.parameters import PARAMETERS, Api
from llm_magic.secrets import hidden, hide
from llm_magic.wire.documents import found_by_filter
from llm_magic.wire.error_body import ErrorBody, one_line, read_error_body
from llm_magic.wire.headers import asked_wait, request_id


def refused(
    document: object,
    status: int | None,
    origin: Origin,
    *,
    headers: Any = MappingProxyType({}),
    known: Iterable[str] = (),
    body: Any = None,
) -> ProviderError:
    """Return the error for a server's refusal; `status` None where it came in the midst of an answer.

    `known` are secrets to be masked, `body` is what was sent.
    """
    known = tuple(known)
    document = hidden(document, known)  # before anything is cut: half a key is one, too
    server_error = _without_path(read_error_body(document), body)
    said = server_error.message
    identity = request_id(headers)
    identity = hide(identity, known) if identity else None
    where = f"{origin} answered {status}" if status is not None else f"{origin} failed while answering"
    kind, what, hint = _classify(server_error, status, origin, headers, body)
    message = one_line(what or (f"{where}: {said}" if said else f"{where}."), 600)
    error = kind(
        f"{message} [request {one_line(identity, 80)}]" if identity else message,
        hint or _HINTS.get(kind, ""),
        origin=origin,
        status=status,
        request_id=identity,
        body=document,
    )
    if type(error) is RequestRefusedError and not hint:
        about = _refused_field(server_error, body)
        error.parameter, error.hint = "" if about in _FLAGS else about, _about(about)
    return error


def _without_path(server_error: ErrorBody, body: Any) -> ErrorBody:
    """Return an error whose message has the name of the file where it repeats the path of the model asked for."""
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(model, str) or model == shown_model(model):
        return server_error
    return replace(server_error, message=server_error.message.replace(model, shown_model(model)))


_HINTS: dict[type[ProviderError], str] = {
    ContentFilteredError: "Rephrase the prompt; asking again with the same one does not help.",
    QuotaExceededError: "Waiting does not help: check the account's plan and limits.",
    AuthenticationError: "Check the environment variable that holds this provider's key, with %llm_config.",
    TimedOutError: "Ask again, or allow the server more time.",
    ServerFailedError: "The fault is the server's: ask again, or look into its log.",
}
"""The next step after a refusal of each class that has but one."""

_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "budget_exceeded"})
_QUOTA_WORDS = re.compile(
    r"exceeded your current quota|budget has been exceeded|insufficient (?:balance|credits?|funds)"
    r"|credit balance is too low",
    re.IGNORECASE,
)
_FILTER = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})
_OVERFLOW = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length", "too_many_prompt_tokens"}
)
_OVERFLOW_WORDS = re.compile(
    r"maximum context length|context (?:size|length|window)|exceeds? the (?:available|model'?s?) context"
    r"|too many input tokens|(?:prompt|input|messages) (?:is|are) too long|max_model_len"
    r"|too large to process. increase the physical batch size",
    re.IGNORECASE,
)
_UNKNOWN_MODEL = re.compile(
    r"\bmodels?\b.*(?:does not exist|not found|not exist|unknown|not available)|invalid model name"
    r"|(?:unknown|no such) model|\bmodels?\b\S* (?:\S+ )?(?:has been|was|is) (?:deprecated|removed|retired|shut down)"
    r"|\bmodel (?!is\b)\S+ is not supported|model identifier is invalid",
    re.IGNORECASE,
)
_BAD_KEY_WORDS = re.compile(r"no connected db|invalid api key|incorrect api key|api key not valid", re.IGNORECASE)
_NOTHING_SAID = re.compile(
    r"(?:error:? ?)?(?:404:? ?)?(?:(?:page|file|url|path|route) )?(?:not found)?[.!]?", re.IGNORECASE
)

_OTHER_API = re.compile(
    r"(?:only (?:supported|available) (?:in|by|through|via|with)|did you mean(?: to use)?|please use|use)"
    r" (?:the )?[`'\"/]*v1/(responses|chat/completions|completions)",
    re.IGNORECASE,
)
_APIS = {"responses": "responses", "chat/completions": "chat", "completions": "completions"}


def _api_meant(said: str) -> str:
    """Return the API that a server names as the one of this model; empty where it names none.

    >>> _api_meant("This model is only supported in v1/responses and not in v1/chat/completions.")
    'responses'
    >>> _api_meant("This is not a chat model and thus not supported in the v1/chat/completions endpoint.")
    'completions'
    """
    found = _OTHER_API.search(said)
    if found is not None:
        return _APIS[found[1].lower()]
    return "completions" if "not a chat model" in said.lower() else ""


def _classify(
    server_error: ErrorBody, status: int | None, origin: Origin, headers: Any, body: Any
) -> tuple[type[ProviderError], str, str]:
    """Return the class, the message where it is not the server's, and the hint where it is not that of `_HINTS`.

    The server's words decide first, and the status last.
    """
    words = server_error.words
    low = f"{server_error.message} {server_error.code} {server_error.kind}".lower()
    if words & _FILTER or "responsibleai" in low:
        found = filter_words(server_error.inner)
        what = f"{origin} blocked the prompt with its content filter" + (f": {found}." if found else ".")
        return ContentFilteredError, what, ""
    if words & _OVERFLOW or (status in (400, 413, 422, 500, None) and _says_overflow(server_error)):
        return ContextOverflowError, _overflow(server_error, origin), _shorter(body)
    if words & _QUOTA or _QUOTA_WORDS.search(low) or status == HTTPStatus.PAYMENT_REQUIRED:
        return QuotaExceededError, "", ""
    if "model_not_found" not in words and (
        status in (401, 403) or (status == HTTPStatus.BAD_REQUEST and _BAD_KEY_WORDS.search(low))
    ):
        said = server_error.message  # the proxy LiteLLM's “no connected db” means the key
        what = f"{origin} refused the key ({status}: {said})" if said.lower().startswith("no connected db") else ""
        return AuthenticationError, what, ""
    if (misplaced := _misplaced(server_error, status, origin, low)) is not None:
        return misplaced
    if status == HTTPStatus.TOO_MANY_REQUESTS or "rate_limit_exceeded" in words:
        pause = _pause(asked_wait(headers))
        return RateLimitedError, "", f"{pause}, or send less at once; --retries sets how often it is tried again."
    if status in (408, 504):
        return TimedOutError, "", ""
    if status in (405, 501):
        hint = "This server does not offer this API: check base_url, or choose another with --api."
        return EndpointNotFoundError, "", hint
    if "image input is not supported" in low or "mmproj" in low or "is not a multimodal model" in low:
        return (
            RequestRefusedError,
            "",
            "This model does not take images: leave them out (--image, {{ … }}), or choose another --model.",
        )
    if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestRefusedError, "", ""
    return ServerFailedError, "", ""


def _misplaced(
    server_error: ErrorBody, status: int | None, origin: Origin, low: str
) -> tuple[type[ProviderError], str, str] | None:
    """Return what `_classify` does where the model, its API or the URL is not the right one; None for anything else."""
    missing, words = status == HTTPStatus.NOT_FOUND, server_error.words
    later = status is not None and (status in (408, 429) or status >= HTTPStatus.INTERNAL_SERVER_ERROR)
    kind: type[ProviderError] = EndpointNotFoundError if missing else RequestRefusedError
    if api := _api_meant(server_error.message):
        return kind, "", f"--api {api} asks this model by its API."
    if "api version not supported" in low or "unsupported api version" in low:
        return kind, "", "Set another api_version; without one, the v1 API is asked."
    if "operation does not work with the specified model" in low or "operationnotsupported" in words:
        return kind, "", "This model is asked by another API: --api responses, chat or completions; or name another."
    if "deploymentnotfound" in words:
        named = f" and --model {origin.model}" if origin.model else ""
        hint = f"No deployment of this name: check `deployments`{named}, the endpoint and api_version."
        return EndpointNotFoundError, "", hint
    if (
        "model_not_found" in words
        or (not later and _UNKNOWN_MODEL.search(low))
        or (missing and (server_error.param == "model" or _names(server_error.message, origin.model)))
    ):
        return ModelNotFoundError, "", f"%llm_models {origin.provider} lists the models that it has."
    if not missing:
        return None
    if low.startswith("resource not found"):
        hint = "Check the endpoint, the deployment (--model) and api_version; elsewhere than on Azure, base_url."
        return EndpointNotFoundError, "", hint
    hint = "Check base_url: it usually ends in /v1. --api chooses another API."
    if not server_error.page and not _NOTHING_SAID.fullmatch(server_error.message.strip()):
        return EndpointNotFoundError, "", hint
    said = "an HTML page" if server_error.page else "“not found”"
    return EndpointNotFoundError, f"{origin} answered 404, {said}: this API is not at that URL.", hint


def _names(message: str, model: str) -> bool:
    """Return whether a message names a model: as itself, or as `model: …`."""
    name = rf"(?<![\w'-]){re.escape(model)}(?![\w'-])" if model else "(?!)"
    return bool(re.search(rf"^\s*models?\s*[:/]|{name}", message, re.IGNORECASE))


def _pause(seconds: float | None) -> str:
    """Return a wait in words.

    >>> _pause(0.4), _pause(90), _pause(259_200), _pause(None)
    ('Wait 1 s', 'Wait 90 s', 'Wait 3 days', 'Wait a little')
    """
    if seconds is None:
        return "Wait a little"
    for unit, least, length in (("days", 172_800, 86_400), ("hours", 7_200, 3_600), ("min", 600, 60)):
        if seconds >= least:
            return f"Wait {seconds / length:,.0f} {unit}"
    return f"Wait {max(seconds, 1):.0f} s"


_NUMBER = r"(\d[\d,]*)"
_PROMPT_TOKENS = (
    re.compile(rf"prompt contains at least {_NUMBER} input tokens", re.IGNORECASE),
    re.compile(rf"{_NUMBER} (?:input tokens|in the messages|tokens in the messages)", re.IGNORECASE),
    re.compile(
        r"(?:request|prompt|messages|input)[^.]*?\b(?:has|have|contains?|resulted in|requested|is) (?:at least )?"
        rf"{_NUMBER}",
        re.IGNORECASE,
    ),
    re.compile(rf"\({_NUMBER} tokens\)", re.IGNORECASE),
    re.compile(rf"requested {_NUMBER} tokens", re.IGNORECASE),
)
_CONTEXT_TOKENS = (
    re.compile(rf"(?:maximum context length|context (?:length|window|size))[^.\d]*?{_NUMBER}", re.IGNORECASE),
    re.compile(rf"max_model_len[^\d]*{_NUMBER}", re.IGNORECASE),
)


def _shorter(body: Any) -> str:
    """Return the next step after too long a prompt, which names --max-tokens only where it was sent."""
    limits = PARAMETERS["max_tokens"]
    fields = {"max_tokens", *(field for api in get_args(Api) for field in limits.fields(api))}
    if isinstance(body, dict) and fields & body.keys():
        return "Shorten the prompt, send fewer turns (--once, history_turns), or ask for fewer --max-tokens."
    return "Shorten the prompt, or send fewer turns (--once, history_turns)."


def _says_overflow(server_error: ErrorBody) -> bool:
    """Return whether the message speaks of too long a prompt, and not of too large a --max-tokens alone."""
    low = server_error.message.lower()
    about_prompt = not server_error.param.startswith("max_") or any(
        word in low for word in ("prompt", "input", "messages")
    )
    return bool(_OVERFLOW_WORDS.search(low)) and about_prompt


def _overflow(server_error: ErrorBody, origin: Origin) -> str:
    """Return the message with both numbers, wherever the server hides them."""
    inner, said = server_error.inner, server_error.message
    prompt, context = inner.get("n_prompt_tokens"), inner.get("n_ctx")
    prompt = prompt if isinstance(prompt, int) else _first(_PROMPT_TOKENS, said)
    context = context if isinstance(context, int) else _first(_CONTEXT_TOKENS, said)
    if not prompt or not context:
        return f"The prompt is too long for the context of {origin}: {said}"
    if prompt > context:
        least = "at least " if "at least" in said else ""
        return f"The prompt has {least}{prompt:,} tokens, and the context of {origin} holds {context:,}."
    return (
        f"The prompt's {prompt:,} tokens and the answer asked for do not fit into the {context:,} tokens of "
        f"the context of {origin}."
    )


def _first(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    found = (pattern.search(text) for pattern in patterns)
    return next((int(each[1].replace(",", "")) for each in found if each), None)


_RESULTS = ("innererror", "inner_error", "content_filter_result", "content_filter_results")
_NAMES = {
    "self_harm": "self-harm",
    "jailbreak": "an attempt at jailbreaking",
    "indirect_attack": "an indirect attack",
    "protected_material_text": "protected text",
    "protected_material_code": "protected code",
}


def filter_words(details: Mapping[str, Any]) -> str:
    """Return the findings of Azure's content filter, from its results or from an error that holds them.

    >>> filter_words({"violence": {"filtered": True, "severity": "medium"}, "hate": {"filtered": False}})
    'violence (severity medium)'
    """
    inside: Any = details
    while isinstance(inside, Mapping):
        details = inside
        inside = next((details[name] for name in _RESULTS if isinstance(details.get(name), Mapping)), None)
    words = []
    for category, found in details.items():
        if found_by_filter({category: found}):
            name = _NAMES.get(category, category.replace("_", " "))
            severity = found.get("severity")
            words.append(f"{name} (severity {severity})" if severity else name)
    return ", ".join(words)


_FLAGS = {
    "model": "--model",
    "tools": "--tools",
    "tool_choice": "--tool-choice",
    "output type": "the output type (--as, --schema, --choices, --regex, --grammar)",
    "stream": "streaming, with --no-stream",
}
_OPTIONS = {
    **{
        field: parameter.name
        for parameter in PARAMETERS.values()
        for api in get_args(Api)
        for field in (parameter.name, *parameter.fields(api))
    },
    **{name: name for name in ("model", "tools", "tool_choice")},
    **dict.fromkeys(("response_format", "text", "structured_outputs", "grammar"), "output type"),
    **dict.fromkeys(("stream", "stream_options"), "stream"),
}
"""Fields of the bodies, and what sets them: a parameter by its name, or another option."""

_OURS = frozenset({"messages", "input", "prompt", "instructions", "store", "include"})
"""Fields that no option sets."""

_UNMISTAKABLE = frozenset({"temperature", "logprobs", "seed"})
"""Fields whose bare name in a message is no other word."""

_QUOTED = re.compile(r"['\"`“]([A-Za-z_][A-Za-z0-9_.\[\]]*)['\"`”]")


def _refused_field(server_error: ErrorBody, body: Any) -> str:
    """Return what a refusal is about, by a name of `_OPTIONS` or as a field of the body; empty where nobody knows.

    The field is the error's `param`, or a name in its message; it is one that the `body` sent has, under its own name
    or another that stands for the same option.
    """
    names = [server_error.param] if server_error.param else []
    names += _QUOTED.findall(server_error.message)
    sent = body if isinstance(body, dict) else {}
    by_option = {_OPTIONS[field]: field for field in sent if field in _OPTIONS}
    fields = [re.split(r"[.\[]", name.removeprefix("body."))[0] for name in names]
    said = set(re.findall(r"[A-Za-z_]+", server_error.message))
    fields += [name for name in sent if name in said and ("_" in name or name in _UNMISTAKABLE)]
    if server_error.param and fields[0] in _OURS:
        return ""
    for field in fields:
        if field in sent and field not in _OURS:
            return _OPTIONS.get(field, field)
        if _OPTIONS.get(field) in by_option:
            return _OPTIONS[field]
    return ""


def _about(parameter: str) -> str:
    """Return the next step after a refusal of what a parameter, or an option of that name, says."""
    if not parameter:
        return "--dry-run shows what was sent."
    if parameter in PARAMETERS:
        return f"Change or leave out {PARAMETERS[parameter].flag}."
    return f"Change or leave out {_FLAGS.get(parameter, f'--param {parameter}')}."
