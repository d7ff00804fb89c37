"""Secrets: a value that is sent and never shown, and the one place that masks secrets in texts, URLs and documents.

A value is a `Secret` by where it came from (the environment, a keyring, a callable, credentials in a URL), whatever
its name. What a server, a library or a log repeats of it is found again by `hide`, in the spellings that they use.
"""

from __future__ import annotations

import binascii
import pickle
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Never, Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from llm_magic.secrets.spellings import SHORTEST, may_hold, patterns

MASK = "***"


class Secret(str):
    """A value that is sent and never shown: as text, repr, JSON or in a pickle it is its mask.

    `reveal` gives the value, to what sends it. Two are equal where their values are; none equals a plain string.

    Parameters
    ----------
    value
        What is sent.
    shown
        What stands for it everywhere else: of a URL what is not secret of it.
    key
        Whether it is a key: then it is masked in texts, however short it is.

    Examples
    --------
    >>> key = Secret("s3cret-value")
    >>> f"{key}", repr(key), reveal({"Authorization": key})
    ('***', "'***'", {'Authorization': 's3cret-value'})

    """

    __slots__ = ("_value", "is_key")
    _value: str
    is_key: bool

    def __new__(cls, value: str, shown: str = MASK, *, key: bool = False) -> Self:
        """Hold a value back."""
        made = super().__new__(cls, shown)
        made._value = value.reveal() if isinstance(value, Secret) else value
        made.is_key = key or (isinstance(value, Secret) and value.is_key)
        return made

    def reveal(self) -> str:
        """Return the value, for what sends it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _known: object) -> Secret:
        return self

    def __reduce_ex__(self, _protocol: object) -> Never:
        raise pickle.PicklingError("A secret is not pickled: name an environment variable (env:NAME) in its place.")


def reveal(value: Any) -> Any:
    """Return a value as it is sent: each `Secret` in it, in dicts and lists too, in plain text."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {name: reveal(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([reveal(item) for item in value]) if type(value) in (list, tuple) else value
    return value


def secrets_in(*values: Any) -> tuple[Secret, ...]:
    """Return each `Secret` in values, in dicts and lists too."""
    found: dict[Secret, None] = {}
    for value in values:
        if isinstance(value, Secret):
            found[value] = None
        elif isinstance(value, Mapping):
            found |= dict.fromkeys(secrets_in(*value.values()))
        elif isinstance(value, list | tuple):
            found |= dict.fromkeys(secrets_in(*value))
    return tuple(found)


_SECRET_NAME = re.compile(
    r"auth(?!or$|ors|ority)|key(?!word|board)|token|secret|cookie|password|credential|signature|^sig$|^code$",
    re.IGNORECASE,
)
_PUBLIC_NAME = re.compile(
    r"^x-stainless-|^max[-_]|tokens$|tokenizer|^idempotency-key$|cache[-_]key$|^x-ratelimit-|_env$|_provider$",
    re.IGNORECASE,
)
_SHOWN_IN_QUERY = re.compile(r"version$|^v$|^model$|^deployment(?:[-_]id)?$|^after$|^limit$", re.IGNORECASE)
_SCHEME = re.compile(r"^(Bearer|Basic|Token|ApiKey)\s+(?=\S)", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^/?#@\s'\"<>]+(?:@[^/?#@\s'\"<>]+)*@")


def is_secret_name(name: str) -> bool:
    """Return whether a header or field of this name holds a secret.

    >>> [name for name in ("X-Api-Key", "max_tokens", "Authorization", "tokenizer") if is_secret_name(name)]
    ['X-Api-Key', 'Authorization']

    """
    return bool(_SECRET_NAME.search(name)) and not _PUBLIC_NAME.search(name)


def query_secrets(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a query with each value as a `Secret`, but for versions, models and deployments."""
    return {
        name: value if _SHOWN_IN_QUERY.search(name) or not isinstance(value, str) else Secret(value)
        for name, value in query.items()
    }


def secret_url(url: str) -> str:
    """Return a URL as a `Secret` that shows what is not secret of it; one without credentials and query as it is."""
    plain: str = reveal(url)
    shown = masked_url(plain)
    return Secret(plain, shown) if shown != plain else plain


_NAMED_IN_QUERY = re.compile(r"[?&;]([^=&?#\s]*)=[^&\s]")


def has_secret_query(text: str) -> bool:
    """Return whether a text is a URL, or has one in it, with a value under the name of a secret in its query.

    >>> has_secret_query("https://h.example/mcp?api_key=abc"), has_secret_query("https://h.example/mcp?project=abc")
    (True, False)

    """
    return "://" in text and any(is_secret_name(name) for name in _NAMED_IN_QUERY.findall(text))


def masked_url(url: str, known: Iterable[str] = ()) -> str:
    """Return a URL with its credentials, and the values of its query, masked; versions and models are shown.

    >>> masked_url("https://me:pass@h.example/v1?sub=abc&api-version=2024-10-21")
    'https://***@h.example/v1?sub=***&api-version=2024-10-21'

    """
    plain = hide(reveal(url), known)
    try:
        parts = urlsplit(plain)
        query = [
            (name, value if _SHOWN_IN_QUERY.search(name) or not value else MASK)
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ]
        host = f"{MASK}@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
        masked = urlunsplit(parts._replace(netloc=host, query=urlencode(query, safe="*/:")))
    except ValueError:  # malformed
        masked = _USER_INFO.sub(f"{MASK}@", plain.partition("?")[0])
    return masked


def masked_headers(headers: Mapping[str, str], known: Iterable[str] = ()) -> dict[str, str]:
    """Return headers with secrets masked, by their names and by their values; the scheme of an authorization stays."""
    masked = {}
    for name, value in headers.items():
        scheme = _SCHEME.match(value)
        mask = f"{scheme[1]} {MASK}" if scheme else MASK
        masked[name] = mask if is_secret_name(name) else hide(value, known)
    return masked


_SECRET_VALUE = re.compile(
    r"\b(?:sk|pk|rk|gsk|hf|xai|AIza|sess|ghp)[-_][A-Za-z0-9_*.\-]{6,}"  # the usual prefixes of keys
    r"|\beyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]+){1,2}"  # JSON web tokens
    r"|(?:(?<=Bearer )|(?<=bearer ))(?!(?:env:|os\.environ/)\w+\b)[^\s\"',]+"  # a key, and not where one is
    r"|(?<=Illegal header value )\S.*"  # as h11 has it
)
_ENCODED = re.compile(r"[%\\&+]")


def hide(text: str, known: Iterable[str] = ()) -> str:
    """Return `text` with the `known` secrets, all that looks like a key, and credentials in URLs masked.

    A known one is found as it is, percent-encoded, escaped for JSON or HTML, and within base64.

    >>> hide("Incorrect API key provided: sk-abcdefgh12345, see s3cret-value", ["s3cret-value"])
    'Incorrect API key provided: ***, see ***'
    """
    return _hider(known)(text)


def hide_known(text: str, known: Iterable[str] = ()) -> str:
    """Return `text` with the `known` secrets masked, in any spelling; what merely looks like a key stays.

    >>> hide_known("hf_hub_download: s3cret-value", ["s3cret-value"])
    'hf_hub_download: ***'
    """
    looked_for = frozenset(part for secret in known for part in _looked_for(secret))
    plain, encoded = patterns(looked_for)
    if plain is not None:
        text = plain.sub(MASK, text)
    if encoded is not None and _ENCODED.search(text) and may_hold(text, looked_for):
        text = encoded.sub(MASK, text)
    return text


def hidden(value: Any, known: Iterable[str] = ()) -> Any:
    """Return a JSON document with `hide` applied to each of its strings, names of fields included."""
    hider = _hider(known)

    def masked(item: Any) -> Any:
        if isinstance(item, Secret):
            return str.__str__(item)
        if isinstance(item, str):
            return hider(item)
        if isinstance(item, bytes):
            return hider(item.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        if isinstance(item, Mapping):
            return {masked(name): masked(inner) for name, inner in item.items()}
        if type(item) in (list, tuple):
            return type(item)([masked(inner) for inner in item])
        return item

    return masked(value)


def holds(text: str, known: Iterable[str]) -> bool:
    """Return whether a text holds one of the `known` secrets, in the spellings that `hide` finds.

    >>> holds("see s3cret%2Dvalue", ["s3cret-value"]), holds("hf_hub_download", ["s3cret-value"])
    (True, False)

    """
    return finder(known)(text)


def finder(known: Iterable[str]) -> Callable[[str], bool]:
    """Return what tells of texts whether they hold one of the `known` secrets, as `holds` does."""
    looked_for = frozenset(part for secret in known for part in _looked_for(secret))
    plain, encoded = patterns(looked_for)

    def is_held(text: str) -> bool:
        if plain is None or encoded is None:
            return False
        if plain.search(text):
            return True
        return bool(_ENCODED.search(text)) and may_hold(text, looked_for) and bool(encoded.search(text))

    return is_held


def _hider(known: Iterable[str]) -> Callable[[str], str]:
    """Return what masks a text."""
    plain, encoded = patterns(frozenset(part for secret in known for part in _looked_for(secret)))

    def hider(text: str) -> str:
        if plain is not None:
            text = plain.sub(MASK, text)
        if encoded is not None and _ENCODED.search(text):
            text = encoded.sub(MASK, text)
        if "://" in text:
            text = _USER_INFO.sub(f"{MASK}@", text)
        return _SECRET_VALUE.sub(MASK, text)

    return hider


def _looked_for(secret: str) -> Iterator[str]:
    """Yield what of a secret may stand in a text by itself: of an authorization its token, of a URL its password."""
    value: str = reveal(secret)
    is_key = secret.is_key if isinstance(secret, Secret) else True
    if isinstance(secret, Secret) and str.__str__(secret) != MASK:
        yield from _in_url(value)  # the rest of it is no secret
        return
    if value and (is_key or len(value) >= SHORTEST):
        yield value
    scheme = _SCHEME.match(value)
    if scheme is not None:
        token = value[scheme.end() :].strip()
        yield token
        if scheme[1].lower() == "basic":
            with suppress(binascii.Error, ValueError):
                pair = b64decode(token, validate=True).decode()
                yield from (pair, pair.partition(":")[2] or pair)
    if "://" in value:
        yield from _in_url(value)


def _in_url(url: str) -> Iterator[str]:
    with suppress(ValueError):
        parts = urlsplit(url)
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
        for text in filter(None, (password,) if password else (user,)):
            yield from (text, unquote(text))
        if password:
            yield unquote(f"{user}:{password}")
        for name, value in parse_qsl(parts.query):
            if not _SHOWN_IN_QUERY.search(name) and (len(value) >= SHORTEST or is_secret_name(name)):
                yield value
