"""Secrets: a value that is sent and never shown, and the one place that masks secrets in texts, URLs and errors.

A value is a `Secret` by where it came from (the environment, a keyring, a callable, credentials in a URL), whatever
its name. What a server, a library or a log repeats of it is found again by `hide`, in the spellings that they use.
"""

from __future__ import annotations

import binascii
import pickle
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from traceback import clear_frames
from typing import Any, Never, Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

MASK = "***"
SHORTEST = 8
"""Characters from which on a value that is no key is looked for in texts; keys are, whatever their length."""


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
    r"|(?<=Bearer )[^\s\"',]+|(?<=bearer )[^\s\"',]+"
    r"|(?<=Illegal header value )\S.*"  # as h11 has it
)
_ENCODED = re.compile(r"[%\\&+]")


def hide(text: str, known: Iterable[str] = ()) -> str:
    """Return `text` with the `known` secrets, all that looks like a key, and credentials in URLs masked.

    A known one is found as it is, percent-encoded, escaped for JSON or HTML, and within base64.

    >>> hide("Incorrect API key provided: sk-abcdefgh12345, see s3cret-value", ["s3cret-value"])
    'Incorrect API key provided: ***, see ***'
    """
    plain, encoded = _patterns(frozenset(part for secret in known for part in _looked_for(secret)))
    if plain is not None:
        text = plain.sub(MASK, text)
    if encoded is not None and _ENCODED.search(text):
        text = encoded.sub(MASK, text)
    if "://" in text:
        text = _USER_INFO.sub(f"{MASK}@", text)
    return _SECRET_VALUE.sub(MASK, text)


def hidden(value: Any, known: Iterable[str] = ()) -> Any:
    """Return a JSON document with `hide` applied to each of its strings, names of fields included."""
    known = tuple(known)
    if isinstance(value, Secret):
        return str.__str__(value)
    if isinstance(value, str):
        return hide(value, known)
    if isinstance(value, bytes):
        return hide(value.decode("utf-8", "surrogateescape"), known).encode("utf-8", "surrogateescape")
    if isinstance(value, Mapping):
        return {hidden(name, known): hidden(item, known) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([hidden(item, known) for item in value]) if type(value) in (list, tuple) else value
    return value


@lru_cache(maxsize=64)
def _patterns(looked_for: frozenset[str]) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
    """Return what finds secrets as they are and in base64, and what finds them escaped; None where there are none."""
    texts = sorted(looked_for, key=len, reverse=True)
    if not texts:
        return None, None
    plain = [_alone(text, re.escape(text)) for text in texts] + [part for text in texts for part in _in_base64(text)]
    encoded = [_alone(text, "".join(map(_escaped, text))) for text in texts]
    return re.compile("|".join(plain)), re.compile("|".join(encoded))


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


_WORD = SHORTEST
"""Characters below which a key is looked for as a word of its own only."""


def _alone(text: str, pattern: str) -> str:
    return rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])" if len(text) < _WORD else pattern


def _in_base64(text: str) -> Iterator[str]:
    """Yield what base64 makes of a text, wherever in the encoded bytes it begins; what follows belongs to it."""
    data = text.encode("utf-8", "surrogatepass")
    for before, unsure in enumerate((0, 2, 3)):
        known = b64encode(b"\0" * before + data).decode()[unsure : (before + len(data)) * 8 // 6]
        if len(known) >= SHORTEST:
            for spelled in {known, known.replace("+", "-").replace("/", "_")}:
                yield rf"{re.escape(spelled)}[A-Za-z0-9+/_=-]*"
    for whole in (text, f"Bearer {text}"):
        yield re.escape(b64encode(whole.encode("utf-8", "surrogatepass")).decode().rstrip("=")) + "=*"


_ENTITIES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_JSON = {"\n": "n", "\t": "t", "\r": "r", "\b": "b", "\f": "f"}


def _escaped(character: str) -> str:
    """Return a pattern of one character: as it is, or escaped in URLs, JSON or HTML, once or several times."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    code, utf8 = ord(character), character.encode("utf-8", "surrogatepass").hex()
    ways = [
        re.escape(character),
        "".join(rf"\\+u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4)),
        "".join(rf"%(?:25)*(?i:{utf8[at : at + 2]})" for at in range(0, len(utf8), 2)),
        rf"&(?:amp;)*#(?:0*{code}|[xX]0*(?i:{code:x}));",
    ]
    if character in _ENTITIES:
        ways.insert(0, rf"&(?:amp;)*{_ENTITIES[character]};")
    if character in _JSON:
        ways.append(rf"\\+{_JSON[character]}")
    if character == " ":
        ways.append(r"\+")
    before = "" if character.isalnum() else r"(?:\\|%(?:25)*5[cC])*"
    return f"{before}(?:{'|'.join(ways)})"


def scrub(error: BaseException, known: Iterable[str] = ()) -> None:
    """Mask secrets in an exception and in all that led to it: arguments, attributes, requests and answers it holds.

    Local variables of the frames that it has left are let go: reports with variables would show them.
    """
    known, waiting, seen = tuple(known), [error], set[int]()
    while waiting:
        link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        _scrub_one(link, known)
        if link.__traceback__ is not None:
            clear_frames(link.__traceback__.tb_next)  # the first one is where it was caught, and may go on
        inner = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
        waiting += [cause for cause in (link.__cause__, link.__context__, *inner) if cause is not None]


def _scrub_one(error: BaseException, known: tuple[str, ...]) -> None:
    with suppress(Exception):  # an exception that cannot be changed keeps what it says
        error.args = hidden(error.args, known)
    if isinstance(error, UnicodeEncodeError):  # of a header, as a rule
        error.object = MASK * len(error.object)
        error.args = (error.encoding, error.object, *error.args[2:])
    for name, value in list(getattr(error, "__dict__", {}).items()):
        masked = None
        with suppress(Exception):  # what cannot be masked is not kept
            masked = _masked_attribute(value, known)
        if masked is not value:
            with suppress(Exception):
                setattr(error, name, masked)


def _masked_attribute(value: Any, known: tuple[str, ...]) -> Any:
    """Return what an exception holds, masked; what is neither text nor part of an exchange is returned itself."""
    if isinstance(value, str | bytes | Mapping | list | tuple):
        masked = hidden(value, known)
        return value if masked == value and type(masked) is type(value) else masked
    if hasattr(value, "method") and hasattr(value, "url") and hasattr(value, "headers"):
        return _masked_request(value, known)
    if hasattr(value, "status_code") and hasattr(value, "headers"):
        return _masked_answer(value, known)
    return value


def _masked_request(request: Any, known: tuple[str, ...]) -> Any:
    """Return a request of the HTTP client without what it carried."""
    headers = masked_headers(dict(request.headers), known)
    return type(request)(request.method, masked_url(str(request.url), known), headers=headers)


def _masked_answer(answer: Any, known: tuple[str, ...]) -> Any:
    """Return an answer of the HTTP client, its headers and what has been read of its body masked."""
    content = b""
    with suppress(Exception):  # not read
        content = hidden(answer.content, known)
    framing = {"content-encoding", "content-length", "transfer-encoding"}
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in framing}
    request = None
    with suppress(Exception):
        request = _masked_request(answer.request, known)
    return type(answer)(answer.status_code, headers=masked_headers(headers, known), content=content, request=request)
