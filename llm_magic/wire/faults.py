"""Whatever the SDK raises, as an error of `llm_magic.errors`: what happened, whose fault, and the next step."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from llm_magic.errors import (
    ConfigurationError,
    ConnectionFailedError,
    InputError,
    LLMError,
    Origin,
    PromptError,
    ProtocolError,
    ProviderError,
    TimedOutError,
)
from llm_magic.wire.complaint import one_line, read_complaint
from llm_magic.wire.documents import ErrorDocument
from llm_magic.wire.refusals import refused
from llm_magic.wire.secrets import hide, scrub

_DEEPEST = 12
_LAST_STATUS = 599


class Unconnected(Exception):  # noqa: N818 - carried inside the wire only
    """A connection that cannot be made, and why: what the SDK would have wrapped."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.__cause__ = cause


def translate(error: BaseException, origin: Origin, secrets: Iterable[str] = (), body: Any = None) -> LLMError:
    """Return our error for whatever the SDK, its HTTP client or the reading of a stream raised.

    `secrets` are masked wherever the server repeats them; `body` is what was sent, for a refusal to name the
    option behind a field.
    """
    if isinstance(error, LLMError):
        return error
    known = tuple(secrets)
    translated = _translated(error, origin, known, body)
    for link in (translated, *_chain(error)):  # `%tb` prints the whole chain
        scrub(link, known)
    return translated


def _translated(error: BaseException, origin: Origin, known: tuple[str, ...], body: Any) -> LLMError:
    if isinstance(error, ErrorDocument):
        return _document(error, origin, known, body)
    response = getattr(error, "response", None)
    if response is not None and getattr(error, "status_code", None) is not None:
        return refused(error.body, response.status_code, origin, headers=response.headers, known=known, body=body)  # type: ignore[attr-defined]  # APIStatusError
    chain = list(_chain(error))
    names = {name for link in chain for name in (cls.__name__ for cls in type(link).__mro__)}
    if isinstance(error, UnicodeEncodeError) or "UnicodeEncodeError" in names:
        return _unencodable(next(link for link in chain if isinstance(link, UnicodeEncodeError)), origin)
    if "TimeoutException" in names or "APITimeoutError" in names or "TimeoutError" in names:
        return TimedOutError(
            f"{origin} did not answer in time.", "Allow more with --timeout SECONDS, or ask again.", origin=origin
        )
    if names & {"TransportError", "APIConnectionError", "OSError", "Unconnected"}:
        return _unconnected(chain, names, origin, known)
    said = hide(one_line(str(error)), known)
    if isinstance(error, TypeError | ValueError) and ("auth" in said.lower() or "credential" in said.lower()):
        return ConfigurationError(
            f"{origin} has no usable key: {said}", "Set the key that this provider is configured with."
        )
    if "OpenAIError" in names:
        return ConfigurationError(f"{origin}: {said}", "Check the provider's configuration with %llm_config.")
    return ProviderError(f"{origin}: {type(error).__name__}: {said}", "%tb shows where.", origin=origin)


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    seen = 0
    while error is not None and seen < _DEEPEST:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1


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


def _unconnected(chain: list[BaseException], names: set[str], origin: Origin, known: tuple[str, ...]) -> LLMError:
    reason = next((str(link) for link in reversed(chain) if str(link).strip()), "no connection")
    said = hide(one_line(reason, 200), known)
    low = " ".join(str(link) for link in chain).lower()
    if "LocalProtocolError" in names or "illegal header" in low:
        return ConfigurationError(
            f"The key or a header for {origin} holds a character that no header may carry, "
            "such as a line break or a space.",
            "Check the key's value and the headers (--header, default_headers).",
        )
    if "InvalidURL" in names or "UnsupportedProtocol" in names:
        return ConfigurationError(
            f"{origin}: the URL cannot be used: {said}", "Check base_url; it begins with http:// or https://."
        )
    if "ProxyError" in names or "proxy" in low:
        hint = "Check the proxy in http_client_kwargs, HTTP_PROXY and HTTPS_PROXY, and NO_PROXY."
        what = f"The proxy on the way to {origin} failed: {said}"
    elif "certificate" in low or "ssl" in low or "tls" in low:
        hint = (
            "Give the CA's file as http_client_kwargs={'verify': 'ca.pem'}, or check that the URL's https:// is right."
        )
        what = f"No secure connection to {origin}: {said}"
    elif "refused" in low or "all connection attempts failed" in low:
        hint = "Check that the server runs and that base_url names its port."
        what = f"Nothing listens at {origin}: the connection was refused."
    elif any(words in low for words in ("name or service", "getaddrinfo", "nodename", "name resolution", "no address")):
        hint = "Check the host in base_url, and the network."
        what = f"The host of {origin} is not known: {said}"
    elif "disconnected" in low or "reset" in low or "peer closed" in low or "incomplete" in low:
        hint = "Ask again; if it stays so, the server's log says why."
        what = f"{origin} closed the connection before it answered."
    else:
        hint = "Check base_url and the network."
        what = f"No connection to {origin}: {said}"
    return ConnectionFailedError(what, hint, origin=origin)


def _document(error: ErrorDocument, origin: Origin, known: tuple[str, ...], body: Any) -> ProviderError:
    """Return the error for a document that came where an answer was expected, with status 200."""
    complaint = read_complaint(error.document)
    if complaint.page:
        return ProtocolError(
            f"{origin} answered with {complaint.message}, not with the OpenAI protocol.",
            "Check base_url: it usually ends in /v1.",
            origin=origin,
            body=error.document,
        )
    if error.malformed:
        said = hide(one_line(str(error.document), 120), known)
        return ProtocolError(
            f"{origin} sent what is no answer of this API: {said or 'nothing'}",
            "Check base_url and --api; the server may speak another protocol.",
            origin=origin,
            body=error.document,
        )
    code = complaint.inner.get("code")
    code = code if isinstance(code, int) else complaint.code
    status = int(code) if str(code).isdigit() and HTTPStatus.BAD_REQUEST <= int(code) <= _LAST_STATUS else None
    return refused(error.document, status, origin, known=known, body=body)
