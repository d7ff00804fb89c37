"""No secret leaves in a message, a preview or a header table: what looks like one, or is known to be one, is masked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

MASK = "***"
_SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|password|credential|signature|^sig$|^code$", re.IGNORECASE)
_PUBLIC_NAME = re.compile(r"^x-stainless-|^max[-_]|tokens$|^idempotency-key$|^x-ratelimit-", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"\b(?:sk|pk|rk|gsk|hf|xai|AIza|sess|ghp)[-_][A-Za-z0-9_*.\-]{6,}"  # the usual prefixes of keys
    r"|\beyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]+){1,2}"  # JSON web tokens
    r"|(?<=Bearer )[^\s\"',]+|(?<=bearer )[^\s\"',]+"
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
        if is_secret(name):
            scheme = _SCHEME.match(value)
            masked[name] = f"{scheme[1]} {MASK}" if scheme else MASK
        else:
            masked[name] = hide(value, known)
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
