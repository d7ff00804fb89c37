"""The headers of HTTP: what may be sent, what servers say in them, and which secrets a request went out with."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from llm_magic.errors import OptionError
from llm_magic.secrets import MASK, Secret, hide, is_secret_name, secret_url, secrets_in


def sent_with(exchanged: Any) -> tuple[Secret, ...]:
    """Return the secrets that a request carried, by what was really sent: keys in its headers, and those of its URL.

    `exchanged` is the HTTP client's request, or an answer or an exception that has one; without any there are none.
    """
    request = None
    with suppress(Exception):  # an answer that was made without one
        request = exchanged if hasattr(exchanged, "method") else exchanged.request
    if request is None:
        return ()
    named = [value for name, value in request.headers.items() if is_secret_name(name)]
    keys = [Secret(value, key=True) for value in named if value not in _NO_KEYS]
    return (*keys, *secrets_in(secret_url(str(request.url))))


_NO_KEYS = frozenset({"", "EMPTY", "Bearer EMPTY", "none", "None"})
"""What stands where a server wants no key."""


def answered_with(headers: Mapping[str, str], known: Iterable[str]) -> dict[str, str]:
    """Return the headers of an answer, names in lower case, with the `known` secrets and cookies masked."""
    known = tuple(known)
    return {name.lower(): MASK if "cookie" in name.lower() else hide(value, known) for name, value in headers.items()}


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


def response_cost(headers: Any) -> float | None:
    """Return the US dollars that the proxy LiteLLM says a request costs; None where it says nothing, or 0: no price.

    >>> response_cost({"x-litellm-response-cost": "0.25"}), response_cost({"x-litellm-response-cost": "0.0"})
    (0.25, None)
    """
    try:
        cost = float(headers.get("x-litellm-response-cost") or 0)
    except ValueError:
        return None
    return cost if 0 < cost < _MOST_DOLLARS else None


_MOST_DOLLARS = 1e9


def asked_wait(headers: Any) -> float | None:
    """Return the seconds that a server asks to wait; None where it does not, or asks for what is no wait."""
    try:
        seconds = retry_after(headers)
    except (ValueError, OverflowError, TypeError, AttributeError):  # a date that no calendar holds
        return None
    return seconds if seconds is not None and seconds > 0 else None


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


_NAMES_OF_LIMITS = {
    kind: (
        (f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}"),
        (f"anthropic-ratelimit-{kind}-remaining", f"anthropic-ratelimit-{kind}-reset"),
    )
    for kind in ("requests", "tokens")
}


def remaining(headers: Mapping[str, str], kind: str) -> tuple[int, float] | None:
    """Return how many `kind` ("requests", "tokens") a server still takes, and for how many seconds that holds.

    None where it does not say both, or says what is neither. Headers of OpenAI, which Azure, LiteLLM, Groq and others
    have, too, and of Anthropic; names in lower case.
    Source: https://platform.openai.com/docs/guides/rate-limits, https://docs.anthropic.com/en/api/rate-limits

    >>> remaining({"x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "6m0s"}, "requests")
    (59, 360.0)
    """
    ours, theirs = _NAMES_OF_LIMITS[kind]
    names = ours if ours[0] in headers else theirs
    if names[0] not in headers:
        return None
    left, until = map(headers.get, names)
    if left is None or until is None or not _WHOLE.fullmatch(left):
        return None
    seconds = _seconds_until(until)
    return None if seconds is None else (int(left), seconds)


def exhausted(headers: Mapping[str, str], longest: float) -> float | None:
    """Return the seconds until a server takes requests or tokens again of which none are left; None beyond `longest`.

    >>> exhausted({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "7s"}, 120)
    7.0
    """
    told = (remaining(headers, kind) for kind in ("requests", "tokens"))
    waits = [seconds for left, seconds in filter(None, told) if left == 0 and 0 < seconds <= longest]
    return max(waits, default=None)


_WHOLE = re.compile(r"[0-9]{1,15}")
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|[smhd]))+")
_PART = re.compile(r"([0-9.]+)(ms|[smhd])")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds_until(text: str) -> float | None:
    """Return the seconds of `1s`, `6m0s`, `17ms`, of a number of seconds, or until a moment of RFC 3339."""
    text = text[:64].strip()
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    with suppress(ValueError):
        seconds = float(text)
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else max(0.0, moment.timestamp() - time.time())
    return None
