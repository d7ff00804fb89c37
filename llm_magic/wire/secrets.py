"""Secrets masked in messages, URLs and previews; and the headers of HTTP: what may be sent, what servers say in them.

No secret leaves in a message, a preview or a header table: what looks like one, or is known to be
one, is masked.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from llm_magic.errors import OptionError

MASK = "***"
_SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|password|credential|signature|^sig$|^code$", re.IGNORECASE)
_PUBLIC_NAME = re.compile(r"^x-stainless-|^max[-_]|tokens$|^idempotency-key$|^x-ratelimit-", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"\b(?:sk|pk|rk|gsk|hf|xai|AIza|sess|ghp)[-_][A-Za-z0-9_*.\-]{6,}"  # the usual prefixes of keys
    r"|\beyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]+){1,2}"  # JSON web tokens
    r"|(?<=Bearer )[^\s\"',]+|(?<=bearer )[^\s\"',]+"
    r"|(?<=Illegal header value )\S.*"  # as h11 has it
)
_SHORTEST = 4
_SCHEME = re.compile(r"^(Bearer|Basic|Token)\s+", re.IGNORECASE)


def hide(text: str, known: Iterable[str] = ()) -> str:
    """Return `text` with the `known` secrets, and all that looks like a key, masked.

    >>> hide("Incorrect API key provided: sk-abcdefgh12345, see s3cret-value", ["s3cret-value"])
    'Incorrect API key provided: ***, see ***'
    """
    for secret in sorted({secret for secret in known if len(secret) >= _SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _SECRET_VALUE.sub(MASK, text)


def hidden(value: Any, known: Iterable[str] = ()) -> Any:
    """Return a JSON document with `hide` applied to each of its strings."""
    if isinstance(value, str):
        return hide(value, known)
    if isinstance(value, Mapping):
        return {key: hidden(item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(hidden(item, known) for item in value)
    return value


def scrub(error: BaseException, known: Iterable[str] = ()) -> None:
    """Mask secrets in what an exception shows: its arguments, and the message and body that the SDK's have."""
    with suppress(Exception):  # an exception that cannot be changed keeps what it says
        error.args = hidden(error.args, known)
    for name in ("message", "hint", "body", "param", "code"):
        if isinstance(getattr(error, name, None), str | Mapping | list):
            with suppress(Exception):
                setattr(error, name, hidden(getattr(error, name), known))


def is_secret(name: str) -> bool:
    """Return whether a header or query field of this name holds a secret."""
    return bool(_SECRET_NAME.search(name)) and not _PUBLIC_NAME.search(name)


def masked_headers(headers: Mapping[str, str], known: Iterable[str] = ()) -> dict[str, str]:
    """Return the headers with secrets masked; the scheme of an authorization stays."""
    masked = {}
    for name, value in headers.items():
        scheme = _SCHEME.match(value)
        mask = f"{scheme[1]} {MASK}" if scheme else MASK
        masked[name] = mask if is_secret(name) else hide(value, known)
    return masked


def masked_url(url: str, known: Iterable[str] = ()) -> str:
    """Return the URL without user info, secrets of its query masked."""
    parts = urlsplit(url)
    query = [
        (name, MASK if is_secret(name) else value) for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    host = parts.netloc.rpartition("@")[2]
    return hide(urlunsplit(parts._replace(netloc=host, query=urlencode(query, safe="*/:"))), known)


def secrets_of(client: Any) -> tuple[str, ...]:
    """Return the secrets that a client holds as text, for `hide` to find them again."""
    found = [getattr(client, name, None) for name in ("api_key", "admin_api_key", "_azure_ad_token")]
    for headers in (getattr(client, "_custom_headers", None), getattr(client, "_custom_query", None)):
        if isinstance(headers, Mapping):
            found.extend(value for name, value in headers.items() if is_secret(name))
    placeholders = {"", "EMPTY", "none", "None", "<missing API key>"}
    return tuple(value for value in found if isinstance(value, str) and value not in placeholders)


REQUEST_IDS = (
    "x-request-id",
    "request-id",
    "x-litellm-call-id",
    "apim-request-id",
    "x-ms-request-id",
    "x-amzn-requestid",
    "cf-ray",
)
"""Headers in which servers name a request, the best one first."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def request_id(headers: Any) -> str | None:
    """Return the server's own name for the request; None where it gave none."""
    return next((headers[name] for name in REQUEST_IDS if headers.get(name)), None)


def retry_after(headers: Any) -> float | None:
    """Return the seconds that a server asks to wait; None where it does not.

    Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after, and `retry-after-ms` of OpenAI and Azure.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "")
        with suppress(ValueError):
            seconds = float(value) / unit
            if math.isfinite(seconds):
                return seconds
            continue
        date = email.utils.parsedate_tz(value)
        if date is not None:
            return max(0.0, email.utils.mktime_tz(date) - time.time())
    return None


def check_headers(headers: Mapping[str, object]) -> None:
    """Raise OptionError for the first header that HTTP does not allow.

    Source: https://www.rfc-editor.org/rfc/rfc9110#fields.names
    """
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise OptionError(
                f"--header {name!r}: this is no name of a header.", "Letters, digits and hyphens make one."
            )
        if not isinstance(value, str):
            continue  # the SDK's mark for leaving a header out
        if not value.isascii() or _CONTROL.search(value) or value != value.strip():
            raise OptionError(
                f"--header {name}: its value holds a character that no header may carry.",
                "Plain ASCII, no line breaks, no space at either end.",
            )
