"""A server's refusal as one of our errors: what its words say goes before its status, which many servers get wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from llm_magic.errors import (
    AuthenticationError,
    ContentFilteredError,
    ContextOverflowError,
    EndpointNotFoundError,
    Origin,
    ProviderError,
    QuotaExceededError,
    RateLimitedError,
    RequestRefusedError,
    ServerFailedError,
    TimedOutError,
)
from llm_magic.wire.complaint import Complaint, one_line, read_complaint
from llm_magic.wire.filters import filter_words
from llm_magic.wire.headers import request_id, retry_after
from llm_magic.wire.options import refused_option
from llm_magic.wire.secrets import hide

_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "budget_exceeded"})
_FILTER = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})
_OVERFLOW = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})
_OVERFLOW_WORDS = re.compile(
    r"maximum context length|context (?:size|length|window)|exceeds? the (?:available|model'?s?) context"
    r"|too many input tokens|prompt is too long|max_model_len|too large to process. increase the physical batch size",
    re.IGNORECASE,
)
_UNKNOWN_MODEL = re.compile(
    r"\bmodel\b.*(?:does not exist|not found|not exist|unknown|not available)|invalid model name|deploymentnotfound"
    r"|(?:unknown|no such) model",
    re.IGNORECASE,
)
_BAD_KEY_WORDS = re.compile(r"no connected db|invalid api key|incorrect api key|api key not valid", re.IGNORECASE)
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
    complaint = read_complaint(document)
    said = hide(complaint.message, known)
    identity = request_id(headers)
    told = f": {said}" if said else "."
    where = f"{origin} answered {status}" if status is not None else f"{origin} failed while answering"
    tail = f" [request {identity}]" if identity else ""
    kind, what, hint = _classify(complaint, status, origin, headers, body)
    return kind(
        one_line(what or f"{where}{told}", 600) + tail,
        hint,
        origin=origin,
        status=status,
        request_id=identity,
        body=document,
    )


Verdict = tuple[type[ProviderError], str, str]
"""The class, the message where it is not simply the server's, and the next step."""


def _classify(complaint: Complaint, status: int | None, origin: Origin, headers: Any, body: Any) -> Verdict:
    """Return the verdict, by the server's words first and by the status last."""
    words = complaint.words
    low = f"{complaint.message} {complaint.code} {complaint.kind}".lower()
    if words & _FILTER or "responsibleai" in low:
        found = filter_words(complaint.inner)
        what = f"{origin} blocked the prompt with its content filter" + (f": {found}." if found else ".")
        return ContentFilteredError, what, "Rephrase the prompt; asking again with the same one does not help."
    if words & _OVERFLOW or (status in (400, 413, 422, 500, None) and _says_overflow(complaint)):
        return (
            ContextOverflowError,
            _overflow(complaint, origin),
            "Shorten the prompt, send fewer turns (--once, history_turns), or ask for fewer --max-tokens.",
        )
    if words & _QUOTA or "exceeded your current quota" in low or "budget has been exceeded" in low:
        return QuotaExceededError, "", "Waiting does not help: check the account's plan and limits."
    if status in (401, 403) or (status == HTTPStatus.BAD_REQUEST and _BAD_KEY_WORDS.search(low)):
        return (
            AuthenticationError,
            _unauthorized(complaint, status, origin),
            ("Check the environment variable that holds this provider's key, with %llm_config."),
        )
    if (
        status == HTTPStatus.NOT_FOUND
        or words & {"model_not_found", "deploymentnotfound"}
        or _UNKNOWN_MODEL.search(low)
    ):
        return _not_found(complaint, low, origin)
    if status == HTTPStatus.TOO_MANY_REQUESTS or "rate_limit_exceeded" in words:
        wait = retry_after(headers)
        pause = f"Wait {wait:.0f} s" if wait else "Wait a little"
        return RateLimitedError, "", f"{pause}, or send less at once; --retries sets how often it is tried again."
    if status in (408, 504):
        return TimedOutError, "", "Ask again, or allow the server more time."
    if status in (405, 501):
        return (
            EndpointNotFoundError,
            "",
            "This server does not offer this API: check base_url, or choose another with --api.",
        )
    if "image input is not supported" in low or "mmproj" in low or "is not a multimodal model" in low:
        return RequestRefusedError, "", "This model does not take images: leave --image out or choose another --model."
    if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestRefusedError, "", refused_option(complaint, body)
    return ServerFailedError, "", "The fault is the server's: ask again, or look into its log."


def _unauthorized(complaint: Complaint, status: int | None, origin: Origin) -> str:
    said = complaint.message
    if said.lower().startswith("no connected db"):  # LiteLLM proxy
        return f"{origin} refused the key ({status}: {said})"
    return ""


def _not_found(complaint: Complaint, low: str, origin: Origin) -> Verdict:
    if "deployment" in low and origin.model:
        return EndpointNotFoundError, "", f"No deployment of this name: check `deployments` and --model {origin.model}."
    if _UNKNOWN_MODEL.search(low) or "model_not_found" in complaint.words or complaint.param == "model":
        return EndpointNotFoundError, "", f"%llm_models {origin.provider} lists the models that it has."
    said = "an HTML page" if complaint.page else "“not found”"
    return (
        EndpointNotFoundError,
        f"{origin} answered 404, {said}: this API is not at that URL.",
        "Check base_url: it usually ends in /v1. --api chooses another API.",
    )


def _says_overflow(complaint: Complaint) -> bool:
    """Return whether the message speaks of too long a prompt, and not of too large a --max-tokens alone."""
    if not _OVERFLOW_WORDS.search(complaint.message):
        return False
    low = complaint.message.lower()
    return not complaint.param.startswith("max_") or any(word in low for word in ("prompt", "input", "messages"))


def _overflow(complaint: Complaint, origin: Origin) -> str:
    """Return the message with both numbers, wherever the server hides them."""
    prompt = complaint.inner.get("n_prompt_tokens")
    context = complaint.inner.get("n_ctx")
    prompt = prompt if isinstance(prompt, int) else _first(_PROMPT_TOKENS, complaint.message)
    context = context if isinstance(context, int) else _first(_CONTEXT_TOKENS, complaint.message)
    if prompt and context and prompt > context:
        least = "at least " if "at least" in complaint.message else ""
        return f"The prompt has {least}{prompt:,} tokens, and the context of {origin} holds {context:,}."
    if prompt and context:
        return (
            f"The prompt's {prompt:,} tokens and the answer asked for do not fit into the {context:,} tokens of "
            f"the context of {origin}."
        )
    return f"The prompt is too long for the context of {origin}: {complaint.message}"


def _first(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    for pattern in patterns:
        found = pattern.search(text)
        if found:
            return int(found[1].replace(",", ""))
    return None
