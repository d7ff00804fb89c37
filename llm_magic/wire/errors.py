"""The error for whatever a request came to: a refusal, a lost connection, an answer that is none.

The server's words decide first, its status last: servers send the same fault with different
statuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, get_args

from llm_magic.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    ContentFilteredError,
    ContextOverflowError,
    EndpointNotFoundError,
    IncompleteAnswerError,
    InputError,
    LLMError,
    Origin,
    PromptError,
    ProtocolError,
    ProviderError,
    QuotaExceededError,
    RateLimitedError,
    RequestRefusedError,
    ServerFailedError,
    TimedOutError,
)
from llm_magic.options.parameters import PARAMETERS, Api
from llm_magic.secrets import hidden, hide
from llm_magic.secrets.exceptions import scrub
from llm_magic.wire.documents import BrokenOff, ErrorDocument, found_by_filter
from llm_magic.wire.error_body import ErrorBody, one_line, read_error_body
from llm_magic.wire.headers import request_id, retry_after, sent_with

_DEEPEST = 12
_LAST_STATUS = 599


def translate(error: BaseException, origin: Origin, secrets: Iterable[str] = (), body: Any = None) -> LLMError:
    """Return our error for whatever the SDK, its HTTP client or the reading of a stream raised.

    `secrets` are masked wherever the server repeats them, and so is what the request was sent with;
    `body` is what was sent, for a refusal to name the option behind a field.
    """
    known = (*secrets, *(secret for link in links(error) for secret in sent_with(link)))
    translated = error if isinstance(error, LLMError) else _translated(error, origin, known, body)
    scrub(translated, known)
    scrub(error, known)  # `%tb` prints the whole chain
    return translated


def _translated(error: BaseException, origin: Origin, known: tuple[str, ...], body: Any) -> LLMError:
    if isinstance(error, ErrorDocument):
        return _document(hidden(error.document, known), error.malformed, origin, body)
    if isinstance(error, BrokenOff):
        return _broken_off(error, origin)
    response = getattr(error, "response", None)
    if response is not None and getattr(error, "status_code", None) is not None:
        return refused(error.body, response.status_code, origin, headers=response.headers, known=known, body=body)  # type: ignore[attr-defined]  # APIStatusError
    chain, names = list(links(error)), class_names(error)
    if is_illegal_header(error):
        return illegal_header_error(origin)
    if is_malformed(error):
        return _malformed(error, origin, known)
    if "DecodingError" in names:
        return ProtocolError(
            f"{origin} sent an answer that cannot be decompressed: its content-encoding is not what it says.",
            "The fault is the server's, or of a proxy before it.",
            origin=origin,
        )
    if "UnicodeEncodeError" in names:
        return _unencodable(next(link for link in chain if isinstance(link, UnicodeEncodeError)), origin)
    if names & {"TimeoutException", "APITimeoutError", "TimeoutError"}:
        hint = "Allow more with --timeout SECONDS, or ask again."
        return TimedOutError(f"{origin} did not answer in time.", hint, origin=origin)
    if names & {"TransportError", "APIConnectionError", "OSError"}:
        return _unconnected(chain, names, origin, known)
    said = one_line(hide(str(error), known))
    if isinstance(error, TypeError | ValueError) and ("auth" in said.lower() or "credential" in said.lower()):
        hint = "Set the key that this provider is configured with."
        return ConfigurationError(f"{origin} has no usable key: {said}", hint)
    if "OpenAIError" in names:
        return ConfigurationError(f"{origin}: {said}", "Check the provider's configuration with %llm_config.")
    return ProviderError(f"{origin}: {type(error).__name__}: {said}", "%tb shows where.", origin=origin)


def _broken_off(error: BrokenOff, origin: Origin) -> LLMError:
    if error.during:
        return IncompleteAnswerError(
            f"{origin} broke off in the midst of {error.during}: {error}.",
            "Ask again; _llm.text (in Python: response of the error) has what came.",
        )
    return ConnectionFailedError(
        f"{origin} closed the connection before it answered: {error}.",
        "Ask again; if it stays so, the server's log says why.",
        origin=origin,
    )


def cause_of(ours: LLMError, error: BaseException) -> BaseException | None:
    """Return what `ours`, translated from `error`, is raised from: one that was ours already keeps its cause."""
    return ours.__cause__ if ours is error else error


def class_names(error: BaseException) -> set[str]:
    """Return the names of all classes in an exception's chain: those of HTTP clients are not imported here."""
    return {cls.__name__ for link in links(error) for cls in type(link).__mro__}


def links(error: BaseException | None) -> Iterable[BaseException]:
    """Return an exception and what caused it, the outermost one first."""
    seen = 0
    while error is not None and seen < _DEEPEST:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1


def is_illegal_header(error: BaseException) -> bool:
    """Return whether a transport refused to send a header; one that came is the server's."""
    names = class_names(error)
    return "LocalProtocolError" in names or (
        "RemoteProtocolError" not in names
        and any(
            words in str(link).lower() for link in links(error) for words in ("illegal header", "detected in headers")
        )
    )


_ENDED = re.compile(
    r"disconnected|peer closed|connection ?closed|incomplete|connectionterminated|streamreset|goaway", re.IGNORECASE
)
"""What a transport says of a connection that ended too early, though it was HTTP until then."""


def is_malformed(error: BaseException) -> bool:
    """Return whether what came is no HTTP."""
    if "RemoteProtocolError" not in class_names(error):
        return False
    return not any(_ENDED.search(str(link)) for link in links(error))


def _malformed(error: BaseException, origin: Origin, known: tuple[str, ...]) -> ProtocolError:
    said = next(
        (str(link) for link in links(error) if "RemoteProtocolError" in {cls.__name__ for cls in type(link).__mro__}),
        "",
    )
    tls = "\\x15\\x03" in said  # an alert of TLS
    return ProtocolError(
        f"{origin} sent a malformed HTTP answer: {hide(one_line(said, 120), known)}",
        "The server speaks TLS: base_url begins with https://."
        if tls
        else "The fault is the server's, or of a proxy before it; check that base_url names the right port.",
        origin=origin,
    )


def asked_wait(headers: Any) -> float | None:
    """Return the seconds that a server asks to wait; None where it does not, or asks for what is no wait."""
    try:
        seconds = retry_after(headers)
    except (ValueError, OverflowError, TypeError, AttributeError):  # a date that no calendar holds
        return None
    return seconds if seconds is not None and seconds > 0 else None


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


def illegal_header_error(origin: Origin) -> ConfigurationError:
    """Return the error for a key or header that HTTP does not allow."""
    return ConfigurationError(
        f"The key or a header for {origin} holds a character that no header may carry, "
        "such as a line break or a space.",
        "Check the key's value and the headers (--header, default_headers).",
    )


def _unencodable(error: UnicodeEncodeError, origin: Origin) -> InputError:
    if error.encoding.startswith("utf"):
        return PromptError(
            "The prompt holds half of a surrogate pair, which is no character and cannot be sent.",
            'Clean the text with text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").',
        )
    return ConfigurationError(
        f"A header or the key for {origin} holds a character outside ASCII ({error.object[error.start]!a}), which "
        "cannot be sent.",
        "Check the key and the headers for a stray character.",
    )


_LOST = (
    (
        ("proxy",),
        "The proxy on the way to {origin} failed: {said}",
        "Check the proxy in http_client_kwargs, HTTP_PROXY and HTTPS_PROXY, and NO_PROXY.",
    ),
    (
        ("certificate", "ssl", "tls"),
        "No secure connection to {origin}: {said}",
        "Give the CA's file as http_client_kwargs={'verify': 'ca.pem'}, or check that the URL's https:// is right.",
    ),
    (
        ("refused", "all connection attempts failed"),
        "Nothing listens at {origin}: the connection was refused.",
        "Check that the server runs and that base_url names its port.",
    ),
    (
        ("name or service", "getaddrinfo", "nodename", "name resolution", "no address"),
        "The host of {origin} is not known: {said}",
        "Check the host in base_url, and the network.",
    ),
    (
        ("disconnected", "reset", "peer closed", "incomplete"),
        "{origin} closed the connection before it answered.",
        "Ask again; if it stays so, check http:// or https:// in base_url, and the server's log.",
    ),
    (("",), "No connection to {origin}: {said}", "Check base_url and the network."),
)
"""What a lost connection says, what that means, and the next step; the last one holds for anything else."""


def _unconnected(chain: list[BaseException], names: set[str], origin: Origin, known: tuple[str, ...]) -> LLMError:
    reason = next((str(link) for link in reversed(chain) if str(link).strip()), "no connection")
    said = one_line(hide(reason, known), 200)
    low = " ".join(str(link) for link in chain).lower()
    if "InvalidURL" in names or "UnsupportedProtocol" in names:
        hint = "Check base_url; it begins with http:// or https://."
        return ConfigurationError(f"{origin}: the URL cannot be used: {said}", hint)
    if "ProxyError" in names:
        low = f"proxy {low}"
    what, hint = next((what, hint) for words, what, hint in _LOST if any(word in low for word in words))
    return ConnectionFailedError(what.format(origin=origin, said=said), hint, origin=origin)


def _document(document: Any, malformed: bool, origin: Origin, body: Any) -> ProviderError:
    """Return the error for a document that came where an answer was expected, with status 200."""
    server_error = read_error_body(document)
    if server_error.page or malformed:
        said = one_line(str(document), 120)
        what = f"sent what is no answer of this API: {said or 'nothing'}"
        hint = "Check base_url and --api; the server may speak another protocol."
        if server_error.page:
            what = f"answered with {server_error.message}, not with the OpenAI protocol."
            hint = "Check base_url: it usually ends in /v1."
        return ProtocolError(f"{origin} {what}", hint, origin=origin, body=document)
    code = server_error.code
    status = int(code) if code.isdigit() and HTTPStatus.BAD_REQUEST <= int(code) <= _LAST_STATUS else None
    return refused(document, status, origin, body=body)


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
    known = tuple(known)
    document = hidden(document, known)  # before anything is cut: half a key is one, too
    server_error = read_error_body(document)
    said = server_error.message
    identity = request_id(headers)
    identity = hide(identity, known) if identity else None
    where = f"{origin} answered {status}" if status is not None else f"{origin} failed while answering"
    kind, what, hint = _classify(server_error, status, origin, headers, body)
    message = one_line(what or (f"{where}: {said}" if said else f"{where}."), 600)
    return kind(
        f"{message} [request {one_line(identity, 80)}]" if identity else message,
        hint or _HINTS[kind],
        origin=origin,
        status=status,
        request_id=identity,
        body=document,
    )


_HINTS: dict[type[ProviderError], str] = {
    ContentFilteredError: "Rephrase the prompt; asking again with the same one does not help.",
    ContextOverflowError: "Shorten the prompt, send fewer turns (--once, history_turns), "
    "or ask for fewer --max-tokens.",
    QuotaExceededError: "Waiting does not help: check the account's plan and limits.",
    AuthenticationError: "Check the environment variable that holds this provider's key, with %llm_config.",
    TimedOutError: "Ask again, or allow the server more time.",
    ServerFailedError: "The fault is the server's: ask again, or look into its log.",
}
"""The next step after a refusal of each class that has but one."""


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
        return ContextOverflowError, _overflow(server_error, origin), ""
    if words & _QUOTA or "exceeded your current quota" in low or "budget has been exceeded" in low:
        return QuotaExceededError, "", ""
    if status in (401, 403) or (status == HTTPStatus.BAD_REQUEST and _BAD_KEY_WORDS.search(low)):
        said = server_error.message  # the proxy LiteLLM's “no connected db” means the key
        what = f"{origin} refused the key ({status}: {said})" if said.lower().startswith("no connected db") else ""
        return AuthenticationError, what, ""
    unknown = bool(_UNKNOWN_MODEL.search(low))
    if status == HTTPStatus.NOT_FOUND or words & {"model_not_found", "deploymentnotfound"} or unknown:
        what, hint = "", f"%llm_models {origin.provider} lists the models that it has."
        if "deployment" in low and origin.model:
            hint = f"No deployment of this name: check `deployments` and --model {origin.model}."
        elif not unknown and "model_not_found" not in words and server_error.param != "model":
            said = "an HTML page" if server_error.page else "“not found”"
            what = f"{origin} answered 404, {said}: this API is not at that URL."
            hint = "Check base_url: it usually ends in /v1. --api chooses another API."
        return EndpointNotFoundError, what, hint
    if status == HTTPStatus.TOO_MANY_REQUESTS or "rate_limit_exceeded" in words:
        pause = _pause(asked_wait(headers))
        return RateLimitedError, "", f"{pause}, or send less at once; --retries sets how often it is tried again."
    if status in (408, 504):
        return TimedOutError, "", ""
    if status in (405, 501):
        hint = "This server does not offer this API: check base_url, or choose another with --api."
        return EndpointNotFoundError, "", hint
    if "image input is not supported" in low or "mmproj" in low or "is not a multimodal model" in low:
        return RequestRefusedError, "", "This model does not take images: leave --image out or choose another --model."
    if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return RequestRefusedError, "", refused_option(server_error, body)
    return ServerFailedError, "", ""


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


_OPTIONS = {
    **{
        field: parameter.flag
        for parameter in PARAMETERS.values()
        for api in get_args(Api)
        for field in (parameter.name, *parameter.fields(api))
    },
    "model": "--model",
    "tools": "--tools",
    "tool_choice": "--tool-choice",
    "response_format": "the output type (--as, --schema, --choices)",
    "text": "the output type (--as, --schema, --choices)",
    "structured_outputs": "the output type (--as, --schema, --choices, --regex, --grammar)",
    "grammar": "--grammar",
    "stream": "--no-stream",
    "stream_options": "--no-stream",
}
_UNMISTAKABLE = frozenset({"temperature", "logprobs", "seed"})
"""Fields whose bare name in a message is no other word."""

_QUOTED = re.compile(r"['\"`“]([A-Za-z_][A-Za-z0-9_.\[\]]*)['\"`”]")


def refused_option(server_error: ErrorBody, body: Any) -> str:
    """Return the next step after a refused request: leave out, or change, the option behind the refused field.

    The field is the error's `param`, or a name in its message that is a field of the `body` sent.
    """
    names = [server_error.param] if server_error.param else []
    names += _QUOTED.findall(server_error.message)
    sent = body if isinstance(body, dict) else {}
    fields = [re.split(r"[.\[]", name.removeprefix("body."))[0] for name in names]
    said = set(re.findall(r"[A-Za-z_]+", server_error.message))
    fields += [name for name in sent if name in said and ("_" in name or name in _UNMISTAKABLE)]
    for field in fields:
        if field in sent:
            return f"Change or leave out {_OPTIONS.get(field, f'--param {field}')}."
    for field in fields:
        if field in _OPTIONS:
            return f"It is about {_OPTIONS[field]}."
    return "--dry-run shows what was sent."
