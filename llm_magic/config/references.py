"""References to variables (`env:NAME`) as values of settings, read when used; what is secret, and headers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from traitlets import Unicode

from llm_magic.errors import ConfigurationError

_REFERENCE = re.compile(r"(?:env:|os\.environ/)(.*)", re.DOTALL)
_SECRET_HEADER = re.compile(r"auth|cookie|token(?!izer)|secret|password|api-?key|subscription-key", re.IGNORECASE)


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2: token


class Secret(str):
    """A string that does not show itself: only what sends it sees the text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def variable_of(text: str) -> str | None:
    """Return the variable that a reference names, or None for text that is no reference.

    >>> variable_of("env:MY_KEY"), variable_of("os.environ/MY_KEY"), variable_of("https://example.org")
    ('MY_KEY', 'MY_KEY', None)

    """
    found = _REFERENCE.fullmatch(text)
    return found[1].strip() if found else None


def read(value: Any, where: str, *, openai: bool = False) -> Any:
    """Return a value with its references replaced, in lists and dicts too: `env:NAME` and `os.environ/NAME`.

    `where` is the setting, for errors; `openai` says whether variables named `OPENAI_…` may be read for it.

    Raises
    ------
    ConfigurationError
        The variable is not set, or not for this provider.

    """
    if isinstance(value, str):
        name = variable_of(value)
        return value if name is None else variable(name, where, openai=openai)
    if isinstance(value, Mapping):
        return {key: read(item, f"{where}[{key!r}]", openai=openai) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [read(item, where, openai=openai) for item in value]
    return value


def variable(name: str, where: str, *, openai: bool = False) -> Secret:
    """Return the value of an environment variable, spaces around it removed; as `read`."""
    if name.upper().startswith("OPENAI_") and name != "OPENAI_API_VERSION" and not openai:
        raise ConfigurationError(
            f"{where} names {name}, and only providers of class openai send OPENAI_* values.",
            "Put the key of this server in a variable of its own and name that.",
        )
    value = os.environ.get(name, "").strip()
    if not value:
        raise ConfigurationError(
            f"{where}: the environment variable {name} is not set.",
            f"Set it before the kernel starts, or name another one in {where}.",
        )
    return Secret(value)


class Reference(Unicode[str, str]):
    """The trait of `env:NAME` or `os.environ/NAME`, in the place of a number."""

    def validate(self, obj: Any, value: Any) -> str:
        """Refuse any other text."""
        text: str = super().validate(obj, value)
        if variable_of(text) is None:
            self.error(obj, value)
        return text


def is_secret_header(name: str) -> bool:
    """Whether a header of this name carries a secret."""
    return _SECRET_HEADER.search(name) is not None


def check_headers(headers: Mapping[str, str], where: str, *, written: bool = False) -> None:
    """Refuse headers that HTTP does not allow, before the SDK fails on them in riddles; of `written` ones, secrets too.

    Raises
    ------
    ConfigurationError
        Names the header, and no value.

    """
    for name, value in headers.items():
        if written and variable_of(value) is not None:
            continue
        if written and is_secret_header(name):
            raise ConfigurationError(
                f"{where}: {name} carries a secret, and secrets do not stand in configuration.",
                f'Use headers_env = {{"{name}": "NAME_OF_A_VARIABLE"}}.',
            )
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"{where}: {name!r} cannot be the name of a header.", "Use letters, digits and -.")
        if not value.isascii() or any(character in value for character in "\r\n\0"):
            raise ConfigurationError(
                f"{where}: the value of header {name} has a line break or a character outside ASCII.",
                "Remove it, or encode it as the server expects.",
            )
