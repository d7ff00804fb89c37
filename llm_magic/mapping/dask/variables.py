"""Environment variables that rows on a cluster need: named by settings, forwarded from here, set on a worker."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from llm_magic.config.references import variable_of
from llm_magic.errors import ConfigurationError


def variables_of(value: Any, key: str = "") -> tuple[str, ...]:
    """Return the names of the environment variables that settings name.

    >>> variables_of({"s": {"api_key_env": "KEY", "base_url": "env:URL", "headers_env": {"X-A": "Bearer TOKEN"}}})
    ('KEY', 'URL', 'TOKEN')

    """
    found: list[str] = []
    if isinstance(value, Mapping):
        for name, item in value.items():
            inner = "api_key_env" if key == "headers_env" else str(name)
            found += variables_of(item, inner)
    elif isinstance(value, list | tuple):
        for item in value:
            found += variables_of(item, key)
    elif isinstance(value, str) and value:
        name = variable_of(value)
        if name is None and key in ("api_key_env", "azure_ad_token_env"):
            name = value.strip().rpartition(" ")[2]
        found += [name] if name and ":" not in name else []
    return tuple(dict.fromkeys(found))


def forwarded(names: Iterable[str]) -> dict[str, str]:
    """Return the variables to forward; raises ConfigurationError where one is not set here."""
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if not isinstance(name, str) or not os.environ.get(name):
            raise ConfigurationError(
                f"forward_env names {name!r:.60}, which is not set here.", "Name environment variables of this process."
            )
    return {name: os.environ[name] for name in names}


class Variables:
    """Environment variables that a client forwards, for the time of its run.

    Their values are put back when it ends, unless somebody has changed them meanwhile.
    """

    def __init__(self, values: dict[str, str]) -> None:
        self._before = {name: os.environ.get(name) for name in values}
        self._values = values
        os.environ.update(values)

    def restore(self) -> None:
        """Put back what was there before."""
        for name, before in self._before.items():
            if os.environ.get(name) != self._values[name]:
                continue
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before
