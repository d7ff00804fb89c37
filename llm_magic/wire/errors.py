"""The error for whatever a request came to: a lost connection, an answer that is none; refusals are in `refusals`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from llm_magic.errors import (
    ConfigurationError,
    ConnectionFailedError,
    IncompleteAnswerError,
    InputError,
    LLMError,
    Origin,
    PromptError,
    ProtocolError,
    ProviderError,
    TimedOutError,
)
from llm_magic.secrets import hidden, hide
from llm_magic.secrets.exceptions import scrub
from llm_magic.wire.documents import BrokenOff, ErrorDocument
from llm_magic.wire.error_body import one_line, read_error_body
from llm_magic.wire.headers import sent_with
from llm_magic.wire.refusals import refused

_DEEPEST = 12
_LAST_STATUS = 599


def translate(
    error: BaseException, origin: Origin, secrets: Iterable[str] = (), body: Any = None, proxy: str = ""
) -> LLMError:
    """Return our error for whatever the SDK, its HTTP client or the reading of a stream raised.

    `secrets` are masked wherever the server repeats them, and so is what the request was sent with;
    `body` is what was sent, for a refusal to name the option behind a field; `proxy` the address that it went through.
    """
    known = (*secrets, *(secret for link in links(error) for secret in sent_with(link)))
    translated = error if isinstance(error, LLMError) else _translated(error, origin, known, body, proxy)
    scrub(translated, known)
    scrub(error, known)  # `%tb` prints the whole chain
    return translated


def _translated(error: BaseException, origin: Origin, known: tuple[str, ...], body: Any, proxy: str) -> LLMError:
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
    if proxy and "ConnectTimeout" in names:
        return ConnectionFailedError(
            f"The proxy {proxy} on the way to {origin} did not answer in time.", _PROXY, origin=origin
        )
    if names & {"TimeoutException", "APITimeoutError", "TimeoutError"}:
        hint = "Allow more with --timeout SECONDS, or ask again."
        return TimedOutError(f"{origin} did not answer in time.", hint, origin=origin)
    if names & {"TransportError", "APIConnectionError", "OSError"}:
        return _unconnected(chain, names, origin, known, proxy)
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
            "Ask again; _llm.text has what came.",
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


def is_disconnected(error: BaseException) -> bool:
    """Return whether a connection ended, while what came was HTTP."""
    names = class_names(error)
    return bool(names & {"ReadError", "WriteError", "RemoteProtocolError"}) and not is_malformed(error)


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


def illegal_header_error(origin: Origin) -> ConfigurationError:
    """Return the error for a key or header that HTTP does not allow."""
    return ConfigurationError(
        f"The key or a header for {origin} holds a character that no header may carry, "
        "such as a line break or a space.",
        "Check the key's value and the headers (--header, default_headers).",
    )


def half_of_a_pair() -> PromptError:
    """Return the error for a prompt that no encoding can write."""
    return PromptError(
        "The prompt holds half of a surrogate pair, which is no character and cannot be sent.",
        'Clean the text with text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").',
    )


def _unencodable(error: UnicodeEncodeError, origin: Origin) -> InputError:
    if error.encoding.startswith("utf"):
        return half_of_a_pair()
    return ConfigurationError(
        f"A header or the key for {origin} holds a character outside ASCII ({error.object[error.start]!a}), which "
        "cannot be sent.",
        "Check the key and the headers for a stray character.",
    )


_ALL_FAILED = "all connection attempts failed"
_PROXY = (
    "Check the proxy in http_client_kwargs, HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; NO_PROXY names hosts without one."
)
_LOST = (
    (
        ("certificate", "ssl", "tls"),
        "No secure connection to {origin}: {said}",
        "Give the CA's file as http_client_kwargs={'verify': 'ca.pem'}, or check that the URL's https:// is right.",
    ),
    (
        ("refused", _ALL_FAILED),
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


def _unconnected(
    chain: list[BaseException], names: set[str], origin: Origin, known: tuple[str, ...], proxy: str
) -> LLMError:
    reason = next((str(link) for link in reversed(chain) if str(link).strip()), "no connection")
    said = one_line(hide(reason, known), 200)
    low = " ".join(str(link) for link in chain).lower()
    if "InvalidURL" in names or "UnsupportedProtocol" in names:
        hint = "Check base_url; it begins with http:// or https://."
        return ConfigurationError(f"{origin}: the URL cannot be used: {said}", hint)
    secured = "certificate" in low or "ssl" in low  # with the server, through the proxy
    if "ProxyError" in names or "proxy" in low or (proxy and "ConnectError" in names and not secured):
        how = "refused the connection" if "refused" in low or _ALL_FAILED in low else f"failed: {said}"
        what = f"The proxy {proxy}".rstrip() + f" on the way to {origin} {how}".rstrip(".")
        return ConnectionFailedError(f"{what}.", _PROXY, origin=origin)
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
