"""Azure OpenAI: the v1 API is OpenAI's at another address; the classic one wants an `api_version` and deployments.

https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle
Offline batches: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/batch. The `model` of each line is the
deployment, of type Global-Batch or Data Zone Batch, and the same in all; embeddings and fine-tuned models are not
taken. A line's `url` is /v1/chat/completions or /v1/responses with the v1 API, and /chat/completions with the classic
one; a batch is created for /chat/completions in either: which API is asked, Azure reads in the lines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from traitlets import Any as AnyTrait
from traitlets import Dict, Unicode, validate

from llm_magic.capabilities import Capabilities
from llm_magic.config.references import mark_secrets
from llm_magic.errors import ConfigurationError
from llm_magic.providers import credentials, model_info
from llm_magic.providers.base import Provider
from llm_magic.providers.model_info import ModelCard
from llm_magic.secrets import Secret, reveal, secret_url
from llm_magic.urls import checked

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from llm_magic.request import Request

_V1 = {"", "v1", "preview", "latest"}
_HOSTS = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_SINCE = "2024-09-01"
"""API versions from here on know max_completion_tokens and stream_options."""


class AzureProvider(Provider):
    """Azure OpenAI.

    With an `api_version` it is the classic API, without one v1. Empty settings are read from the SDK's own variables:
    `AZURE_OPENAI_ENDPOINT`, `OPENAI_API_VERSION`, `AZURE_OPENAI_AD_TOKEN`, `AZURE_OPENAI_API_KEY`; of the last two
    the token is preferred, as the SDK does, but what the configuration names comes before either.
    """

    kind = "azure"
    standard_key = "AZURE_OPENAI_API_KEY"
    has_batches = True
    of_its_host = Provider.of_its_host | {"azure_ad_token_env", "azure_ad_token_provider"}

    azure_endpoint = Unicode("", help="Address of the resource: https://NAME.openai.azure.com.").tag(
        config=True, trusted_only=True, could="send"
    )
    api_version = Unicode("", help="Version of the classic API, such as 2024-10-21; empty or v1 for the v1 API.").tag(
        config=True, trusted_only=False
    )
    deployments = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help='Deployments and their models: {"my-gpt": "gpt-4o"}; either name may be asked for.',
    ).tag(config=True, trusted_only=False)
    azure_ad_token_env = Unicode(
        "", help="Name of the environment variable of an Entra token; empty for AZURE_OPENAI_AD_TOKEN."
    ).tag(config=True, trusted_only=True, could="send")
    azure_ad_token_provider = AnyTrait(
        None,
        allow_none=True,
        help="module:function (or a function) that returns an Entra token, async or not; asked at each request.",
    ).tag(config=True, trusted_only=True, could="run")

    def __init__(self, *, name: str = "", **traits: Any) -> None:
        self._asked: Secret | None = None
        super().__init__(name=name, **traits)

    @validate("azure_ad_token_env")
    def _check_token_source(self, proposal: Any) -> str:
        return credentials.check_key_source(proposal["value"], f"{self.section}.azure_ad_token_env")

    @validate("azure_ad_token_provider")
    def _check_token_provider(self, proposal: Any) -> Any:
        value = proposal["value"]
        if isinstance(value, str) and value and not credentials.IMPORT.fullmatch(value):
            raise ConfigurationError(
                f"{self.section}.azure_ad_token_provider is no import string.",
                'Write "module:function"; a token itself does not stand in configuration.',
            )
        return value or None

    @validate("azure_endpoint")
    def _mark_endpoint(self, proposal: Any) -> str:
        endpoint: str = mark_secrets(proposal["value"])
        return endpoint

    @property
    def version(self) -> str:
        """The version of the classic API; empty for v1."""
        found = str(reveal(self.read("api_version")) or os.environ.get("OPENAI_API_VERSION", "")).strip()
        at = str(reveal(self.read("base_url")) or self._endpoint()).rstrip("/")
        return "" if found.lower() in _V1 or at.endswith("/openai/v1") else found

    def _endpoint(self) -> str:
        """Return the resource's address; what a portal's "target URI" has behind it is cut off."""
        found = str(reveal(self.read("azure_endpoint")) or os.environ.get("AZURE_OPENAI_ENDPOINT", "")).strip()
        parts = urlsplit(found)
        before, _, after = parts.path.partition("/openai")
        path = parts.path if after.rstrip("/") == "/v1" else before
        return urlunsplit((parts.scheme, parts.netloc, path.rstrip("/"), "", ""))

    def from_environment(self) -> Mapping[str, Any]:
        """Return the address and the version, where the environment gives them."""
        variables = {"azure_endpoint": "AZURE_OPENAI_ENDPOINT", "api_version": "OPENAI_API_VERSION"}
        found = {
            trait: os.environ.get(name, "").strip() for trait, name in variables.items() if not getattr(self, trait)
        }
        if self.base_url:
            found.pop("azure_endpoint", None)
        return {trait: mark_secrets(value, trait) for trait, value in found.items() if value}

    def url(self) -> str:
        """Return the base URL of the API in force."""
        if self.base_url:
            return super().url()
        endpoint = self._endpoint()
        if not endpoint:
            raise ConfigurationError(
                f"{self.name} has no azure_endpoint.",
                "Set AZURE_OPENAI_ENDPOINT, or "
                + self.line_that_sets("azure_endpoint", '"https://NAME.openai.azure.com"'),
            )
        checked(endpoint, f"{self.section}.azure_endpoint")
        if endpoint.endswith("/openai/v1"):
            return secret_url(f"{endpoint}/")
        return secret_url(f"{endpoint}/openai" if self.version else f"{endpoint}/openai/v1/")

    def token(self) -> Secret | credentials.SecretCallable | None:
        """Return the Entra token, or what asks for it; None where a key is to be used."""
        where = f"{self.section}.azure_ad_token"
        if self.keyless:
            return None
        provider = self.azure_ad_token_provider
        if provider is not None:
            if callable(provider):
                return credentials.SecretCallable(f"{where}_provider of {self.name} ({id(provider)})", provider)
            return credentials.key(provider, f"{where}_provider")
        if self.azure_ad_token_env:
            return credentials.key(self.azure_ad_token_env, f"{where}_env")
        if not self.api_key_env and os.environ.get("AZURE_OPENAI_AD_TOKEN"):
            return credentials.key("AZURE_OPENAI_AD_TOKEN", f"{where}_env")
        return None

    def key(self) -> Secret | credentials.SecretCallable | None:
        """Return the key; None where there is a token."""
        return super().key() if self.token() is None else None

    def recipe(self) -> dict[str, Any]:
        """Return all that the client is made from."""
        token, recipe = self.token(), super().recipe()
        classic = bool(self.version)
        if classic and isinstance(recipe["api_key"], credentials.SecretCallable):
            recipe["api_key"] = self._asked  # the classic client of 2.x asks no callable for a key: `prepare` does
        if not classic and token is not None:
            recipe["api_key"], token = token, None
        return recipe | {"api_version": self.version, "token": token}

    def construct(self, arguments: dict[str, Any], recipe: Mapping[str, Any]) -> AsyncOpenAI:
        """Return the SDK's client: OpenAI's for v1, Azure's for the classic API."""
        if not recipe["api_version"]:
            return super().construct(arguments, recipe)
        from openai import AsyncAzureOpenAI, omit

        token = recipe["token"]
        unused = "Authorization" if token is None else "api-key"  # versions of the SDK differ in sending it, too
        headers = dict(arguments["default_headers"])
        if unused.lower() not in {name.lower() for name in headers}:
            headers[unused] = omit
        arguments = arguments | {"api_version": recipe["api_version"], "default_headers": headers}
        if isinstance(token, credentials.SecretCallable):
            arguments |= {"azure_ad_token_provider": token, "api_key": None}
        elif token is not None:
            arguments |= {"azure_ad_token": reveal(token), "api_key": None}
        client = AsyncAzureOpenAI(**arguments)
        if not isinstance(token, str):
            client._azure_ad_token = None  # noqa: SLF001 - 2.x takes the environment's, whatever else is given
        return client

    async def prepare(self, report: Callable[[str], None]) -> None:  # noqa: ARG002 - nothing takes long
        """Ask for the key of the classic API, where it has to be asked for."""
        key = self.key() if self.version else None
        if isinstance(key, credentials.SecretCallable):
            self._asked = Secret(await key(), key=True)

    async def renewed(self, refused: AsyncOpenAI) -> AsyncOpenAI | None:
        """Return the client to ask once more, with a token or key that was asked for anew; None without one."""
        await self.prepare(lambda _: None)
        client, token = await super().renewed(refused), self.token()
        renews = isinstance(token, credentials.SecretCallable) and token.renews
        return self.client() if client is None and renews else client

    def key_hint(self) -> str:
        """Say which of the credentials was used."""
        used = "the Entra token" if self.token() is not None else self.api_key_env or self.standard_key
        return f"{self.name} used {used}: check that it belongs to {self.origin().url}."

    def capabilities(self, model: str) -> Capabilities:
        """Return what a model can do, by its own name and the API's version."""
        newer = self.version == "" or self.version >= _SINCE
        reasoning = model_info.is_reasoning(self.deployments.get(model, model))
        return replace(
            super().capabilities(model),
            max_tokens_field="max_completion_tokens" if newer or reasoning else "max_tokens",
            dialects=dict(model_info.OPENAI),
            stream_usage=newer,
            encrypted_reasoning=self.send_reasoning and reasoning,
            batch_prefix="" if self.version else "/v1",
            batch_endpoint=model_info.AZURE_BATCH_ENDPOINT,
        )

    def vendor_model(self, model: str) -> tuple[str, str] | None:
        """Return Azure and the model that `deployments` names: a deployment may be called anything."""
        known = self.deployments.get(model) or (model if model in self.deployments.values() else None)
        at = urlsplit(self.url())
        own = at.scheme == "https" and (at.hostname or "").endswith(_HOSTS)
        return ("azure", known) if own and known is not None else None

    async def adapt(self, request: Request, capabilities: Capabilities) -> Request:  # noqa: ARG002 - the base's signature
        """Name the deployment where the model was named."""
        if request.model in self.deployments:
            return request
        named = [deployment for deployment, model in self.deployments.items() if model == request.model]
        return replace(request, model=named[0]) if named else request

    def static_models(self) -> list[ModelCard]:
        """Return the deployments where they are configured."""
        deployed = [ModelCard(name, parent=model) for name, model in self.deployments.items()]
        return super().static_models() or deployed

    async def list_models(self, refresh: bool = False, *, patience: float | None = None) -> list[ModelCard]:
        """Return the deployments where they are configured, else the models that the resource lists."""
        if not self.static_models():
            await self.prepare(lambda _: None)
        return await super().list_models(refresh, patience=patience)

    def copy_at(self, base_url: str, values: dict[str, Any]) -> Provider:
        """Return a provider for another resource's address, or for a base URL that ends in its API's path."""
        of_api = "/openai" in urlsplit(base_url).path or "/v1" in urlsplit(base_url).path
        place = {"base_url": base_url} if of_api else {"base_url": "", "azure_endpoint": base_url}
        return type(self)(name=self.name, **(values | place | {"api_version": self.version or "v1"}))
