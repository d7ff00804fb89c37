"""Where the requests to one endpoint go, and what they share: all that the SDK makes of one, but for its body."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from llm_magic.secrets import Secret
from llm_magic.wire import logs


@dataclass(frozen=True, slots=True)
class AskedKey:
    """A header whose key is asked for at each request: what stands before and after it, and who is asked."""

    header: str
    before: str
    after: str
    ask: Callable[[], Any]

    async def headers(self) -> dict[str, str]:
        """Ask, as the SDK does."""
        key = self.ask()
        if inspect.isawaitable(key):
            key = await key
        if not isinstance(key, str) or not key:
            raise ValueError("The function that was asked for an authorization key gave no text.")
        logs.learn(Secret(key, key=True))
        return {self.header: f"{self.before}{key}{self.after}"}


@dataclass(frozen=True, slots=True)
class Target:
    """A request as the SDK prepared it, but for its body.

    Attributes
    ----------
    client
        The SDK's client, which names errors.
    library
        The SDK's HTTP library: httpx or httpx2.
    method, url, headers
        What is sent.
    seconds
        The timeout of headers and of silence; None for ever.
    connect
        The timeout of connecting.
    secrets
        What nothing may show.
    key
        The header whose key is asked for at each request; None where there is none.

    """

    client: Any
    library: Any
    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    seconds: float | None
    connect: float | None
    secrets: tuple[Secret, ...]
    key: AskedKey | None = None


class StaleError(Exception):
    """A kept connection that was closed before one byte of an answer came; `error` is what to raise else."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def asked_key(client: Any, headers: Iterable[tuple[str, str]], mark: str) -> AskedKey | None:
    """Return the header that carries a key which a function gives, where `mark` stands now; None without one."""
    ask = getattr(client, "_azure_ad_token_provider", None) or getattr(client, "_api_key_provider", None)
    for name, value in headers:
        before, found, after = value.partition(mark)
        if found and ask is not None:
            return AskedKey(name, before, after, ask)
    return None
