"""What HTTP headers say: the id of a request, how long to wait, and whether a header may be sent at all."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from llm_magic.errors import OptionError

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
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / unit
        except ValueError:
            date = email.utils.parsedate_tz(value)
            if date is not None:
                return max(0.0, email.utils.mktime_tz(date) - time.time())
            continue
        if math.isfinite(seconds):
            return seconds
    return None


def illegal_header(name: str, value: object) -> OptionError | None:
    """Return the error for a header that HTTP does not allow; None for one that it does.

    Source: https://www.rfc-editor.org/rfc/rfc9110#fields.names
    """
    if not _NAME.fullmatch(name):
        return OptionError(f"--header {name!r}: this is no name of a header.", "Letters, digits and hyphens make one.")
    if not isinstance(value, str):
        return None  # the SDK's mark for leaving a header out
    if not value.isascii() or _CONTROL.search(value) or value != value.strip():
        return OptionError(
            f"--header {name}: its value holds a character that no header may carry.",
            "Plain ASCII, no line breaks, no space at either end.",
        )
    return None


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise OptionError for the first header that HTTP does not allow."""
    for name, value in headers.items():
        error = illegal_header(name, value)
        if error is not None:
            raise error
