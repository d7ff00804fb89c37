"""References to variables (`env:NAME`) as values of settings, read when used; and what is secret."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from traitlets import Unicode

from llm_magic.errors import ConfigurationError

_REFERENCE = re.compile(r"(?:env:|os\.environ/)(.*)", re.DOTALL)
_SECRET_HEADER = re.compile(r"auth|cookie|token(?!izer)|secret|password|api-?key|subscription-key", re.IGNORECASE)


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

    Parameters
    ----------
    value
        A value from the configuration.
    where
        The setting, for errors.
    openai
        Whether variables named `OPENAI_…` may be read for it.

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
    """Return the value of an environment variable, spaces around it removed.

    Raises
    ------
    ConfigurationError
        It is not set or empty, or an `OPENAI_…` one where only `openai` may send these.

    """
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
