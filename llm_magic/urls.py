"""URLs of endpoints: shown without secrets, and compared by the host that a key belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit, urlunsplit

from llm_magic.errors import ConfigurationError

_PORTS = {"http": 80, "https": 443}


@lru_cache
def without_secrets(url: str) -> str:
    """Return a URL without user info, query and fragment.

    >>> without_secrets("https://me:pass@example.org:8443/v1?key=1")
    'https://example.org:8443/v1'

    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@lru_cache
def checked(url: str, where: str, example: str = "https://host:port/v1") -> str:
    """Return a URL that requests can be sent to.

    Raises
    ------
    ConfigurationError
        It has no http(s) scheme or no host, or is malformed.

    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in _PORTS and bool(parts.hostname) and (parts.port is None or parts.port >= 0)
        shown = without_secrets(url)
    except ValueError:
        good, shown = False, "it is malformed"
    if not good:
        raise ConfigurationError(f"{where} is no URL: {shown}", f"Write it as {example}.")
    return url


def same_host(one: str, other: str) -> bool:
    """Whether two URLs have scheme, host and port in common: then a key for the one may go to the other.

    >>> same_host("https://example.org/v1", "https://EXAMPLE.org:443/v2")
    True
    >>> same_host("https://example.org/v1", "http://example.org/v1")
    False

    """
    try:
        return _place(urlsplit(one)) == _place(urlsplit(other)) != ("", None, None)
    except ValueError:  # a port that is no number
        return False


def _place(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


@lru_cache
def with_v1(url: str) -> str:
    """Return a URL whose path ends in a version; `/v1` is added where it ends in none.

    >>> with_v1("http://localhost:8000"), with_v1("http://localhost:8000/v1/"), with_v1("https://h/api/v3")
    ('http://localhost:8000/v1', 'http://localhost:8000/v1', 'https://h/api/v3')

    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    last = path.rpartition("/")[2]
    if not (last[:1] == "v" and last[1:].isdigit()):
        path += "/v1"
    return urlunsplit(parts._replace(path=path))


def without_hosts(text: str, urls: Iterable[str]) -> str:
    """Return a text that names neither these URLs nor their hosts.

    >>> without_hosts("Nothing listens at s:m (http://h.example:8/v1): no route to h.example.", ["http://h.example:8/v1"])
    'Nothing listens at s:m: no route to its host.'

    """
    for url in filter(None, urls):
        text = text.replace(f" ({url})", "").replace(url, "its URL")
        with suppress(ValueError):  # it is no URL
            parts = urlsplit(url)
            for host in filter(None, (parts.netloc, parts.hostname)):
                text = text.replace(host, "its host")
    return text
