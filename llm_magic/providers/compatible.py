"""Any server of the OpenAI protocol: proxies, gateways, llama.cpp, Ollama; and ready clients of the SDK."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from traitlets import Enum

from llm_magic.capabilities import Capabilities
from llm_magic.errors import ConfigurationError
from llm_magic.providers import credentials, model_info
from llm_magic.providers.base import Provider
from llm_magic.secrets import Secret, is_secret_name, query_secrets, secret_url, secrets_in
from llm_magic.urls import without_secrets


class CompatibleProvider(Provider):
    """A server of the OpenAI protocol.

    It needs a `base_url`; a key only where `api_key_env` or `headers_env` names one.
    """

    kind = "compatible"

    structured = Enum(
        list(model_info.COMPATIBLE),
        "json_schema",
        help="How the server takes an output type: json_schema, json_object, grammar (llama.cpp's), or none: then it "
        "is asked for in words. The answer is validated here in any case.",
    ).tag(config=True, trusted_only=False)

    def capabilities(self, model: str) -> Capabilities:
        """Return what the server can do, as `structured` says."""
        return replace(super().capabilities(model), dialects=dict(model_info.COMPATIBLE[self.structured]))


_OF_THE_SDK = re.compile(r"accept|accept-.*|content-type|user-agent|x-stainless-.*", re.IGNORECASE)
"""Headers that the SDK adds by itself."""


class ExistingClientProvider(CompatibleProvider):
    """A ready client of the SDK: `AsyncOpenAI`, `OpenAI`, or their Azure kin; used as it is, and never closed here.

    Parameters
    ----------
    client
        The client; its key, URL, headers, timeouts and retries hold.
    name
        The instance's name.
    traits
        `api`, `batches`, `models`, `prices`, `send_reasoning` and `structured`; the rest is the client's own.

    Raises
    ------
    ConfigurationError
        It is no client of the SDK.

    """

    kind = "ready"

    def __init__(self, client: Any, *, name: str = "", **traits: Any) -> None:
        import openai

        if not isinstance(client, openai.AsyncOpenAI | openai.OpenAI):
            raise ConfigurationError(
                f"A {type(client).__name__} is no client of the openai package.", "Give an openai.AsyncOpenAI."
            )
        self._ready = client
        super().__init__(name=name, **traits)

    def client(self) -> Any:
        """Return the client."""
        return self._ready

    async def renewed(self, refused: Any) -> Any:
        """Return the client where it asks a function for its key or token, which may give another one."""
        asks = ("_api_key_provider", "_azure_ad_token_provider")
        return refused if any(getattr(refused, name, None) is not None for name in asks) else None

    def url(self) -> str:
        """Return the client's base URL."""
        return secret_url(str(self._ready.base_url))

    def secrets(self) -> tuple[Secret, ...]:
        """Return what the client holds, whose origin nobody knows: all but the SDK's own headers."""
        client = self._ready
        headers = [
            Secret(value, key=is_secret_name(name))
            for name, value in client.default_headers.items()
            if isinstance(value, str) and not _OF_THE_SDK.fullmatch(name)
        ]
        keys = [Secret(key, key=True) for key in (client.api_key, getattr(client, "admin_api_key", None)) if key]
        query = query_secrets(client.default_query)
        return secrets_in(self.url(), headers, keys, query, credentials.environment_proxies())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {without_secrets(self.url())}>"

    def key_hint(self) -> str:
        """Say whose the key is."""
        return "The key is that of the registered client."

    def capabilities(self, model: str) -> Capabilities:
        """Return what the endpoint can do: newer models of OpenAI by their names, others as `structured` says."""
        from openai import AsyncAzureOpenAI, AzureOpenAI

        url = self._ready.base_url
        is_azure = url.host.endswith("azure.com") or isinstance(self._ready, AsyncAzureOpenAI | AzureOpenAI)
        newer = url.host.endswith(("openai.com", "azure.com")) or model_info.is_reasoning(model)
        field: Any = "max_completion_tokens" if newer else "max_tokens"
        known = replace(super().capabilities(model), max_tokens_field=field)
        if known.batches is None and (is_azure or url.host.endswith("openai.com")):
            known = replace(known, batches=True)
        if not is_azure:
            return known
        prefix = "/v1" if url.path.rstrip("/").endswith("/v1") else ""
        return replace(known, batch_prefix=prefix, batch_endpoint=model_info.AZURE_BATCH_ENDPOINT)

    def copy_at(self, base_url: str, values: dict[str, Any]) -> Provider:
        """Return a provider for another URL; the client, with its key, stays behind on every host."""
        kept = {name: values[name] for name in ("api", "structured", "send_reasoning")}
        return CompatibleProvider(name=self.name, base_url=base_url, **kept)
