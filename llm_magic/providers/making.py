"""The SDK's clients, made so that no `OPENAI_*` value of the environment goes where it was not meant to go.

The SDK reads key, organization, project and further headers from the environment by itself, whatever the base
URL. What must not go is therefore left out by name, with `omit` in the default headers, which copies of the
client keep. https://github.com/openai/openai-python, `_client.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_magic.errors import ConfigurationError
from llm_magic.providers.credentials import KEYLESS, Asked, Secret
from llm_magic.providers.http_client import http_client

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from llm_magic.providers.base import Provider

CONNECT_SECONDS = 10.0
"""Longest wait for a connection: a host that drops packets must not take the whole timeout, seven times over."""


@dataclass(frozen=True, slots=True)
class Made:
    """A client; `owned` says whether its HTTP client is ours to close."""

    client: Any
    owned: bool = True

    async def aclose(self) -> None:
        """Close it, if it is ours."""
        if self.owned:
            await self.client.close()


def make(provider: Provider, recipe: Mapping[str, Any]) -> Made:
    """Return the client of a provider, made from its recipe.

    Raises
    ------
    ConfigurationError
        The SDK or its HTTP client refuses a value.

    """
    import openai

    from llm_magic.wire.attempts import event_hooks

    where = type(provider).__name__
    http, owned = http_client(recipe["http_client_kwargs"], recipe["http_client"], event_hooks(), where)
    seconds = recipe["timeout"]
    arguments = {
        "base_url": recipe["base_url"],
        "api_key": KEYLESS if recipe["api_key"] is None else recipe["api_key"],
        "organization": recipe["organization"] or None,
        "project": recipe["project"] or None,
        "timeout": openai.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
        "max_retries": recipe["max_retries"],
        "default_headers": recipe["default_headers"],
        "default_query": recipe["default_query"] or None,
        "http_client": http,
    }
    try:
        if recipe["at_home"]:
            client = provider.construct(arguments, recipe)
        else:
            client = without_environment(provider, arguments, recipe)
    except (openai.OpenAIError, ValueError, TypeError) as error:
        raise ConfigurationError(f"The client of {provider.name} cannot be made: {error}") from error
    return Made(client, owned)


def without_environment(provider: Provider, arguments: dict[str, Any], recipe: Mapping[str, Any]) -> AsyncOpenAI:
    """Return a client that sends nothing of the environment's `OPENAI_*` values."""
    from openai import omit

    own = _own_authorization(recipe)
    ours: dict[str, Any] = {}
    asked = []
    for name in _ambient_headers():
        secret = own.get(name.lower(), omit)
        if isinstance(secret, Asked):
            asked.append(name)
        else:
            ours[name] = secret  # `omit` for our own authorization would leave that out, too
    for trait, name in (("organization", "OpenAI-Organization"), ("project", "OpenAI-Project")):
        if arguments[trait] is None:
            ours[name] = omit
    for name, value in arguments["default_headers"].items():
        same = [known for known in ours if known.lower() == name.lower()]
        for known in same or [name]:
            ours[known] = value  # under the environment's spelling of the name: the SDK would send both
    client = provider.construct(arguments | {"default_headers": ours}, recipe)
    if asked:  # its value comes with each request, and the environment's would stand before it
        custom = client._custom_headers  # noqa: SLF001 - the SDK has no other way to take one back
        client._custom_headers = {name: value for name, value in custom.items() if name not in asked}  # noqa: SLF001 - as above
    return client


def _own_authorization(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header that carries the client's own key or token: what it says, or what is asked for that."""
    key = KEYLESS if recipe["api_key"] is None else recipe["api_key"]
    if recipe.get("api_version"):  # the classic API of Azure
        if recipe["token"] is None:
            return {"api-key": key}
        key = recipe["token"]
    return {"authorization": key if isinstance(key, Asked) else Secret(f"Bearer {key}")}


def _ambient_headers() -> list[str]:
    """Return the names of the headers in `OPENAI_CUSTOM_HEADERS`, split as the SDK splits them."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")
    return [line.partition(":")[0].strip() for line in lines if ":" in line]
