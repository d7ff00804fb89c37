"""OpenAI: the one provider that sends the environment's `OPENAI_*` values, and only where they are at home."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from llm_magic.capabilities import Capabilities
from llm_magic.config.references import mark_secrets
from llm_magic.providers import credentials, model_info
from llm_magic.providers.base import Provider
from llm_magic.secrets import Secret, is_secret_name, secret_url
from llm_magic.urls import checked

_HOST = "openai.com"


class OpenAIProvider(Provider):
    """OpenAI.

    Empty settings are read from the environment: `OPENAI_API_KEY`, `OPENAI_BASE_URL` (or `OPENAI_API_BASE`),
    `OPENAI_ORG_ID` (or `OPENAI_ORGANIZATION`), `OPENAI_PROJECT_ID`. With a `base_url` of another host in the
    configuration none of these is sent, unless a setting names it: `api_key_env = "OPENAI_API_KEY"`.
    """

    kind = "openai"
    standard_url = "https://api.openai.com/v1"
    has_batches = True
    sends_openai_values = True

    @property
    def at_home(self) -> bool:
        """Whether the base URL is one that the environment's key is for: OpenAI's own, or the environment's."""
        if self.keyless or self.vouched:
            return self.vouched
        if not self.base_url:
            return True
        host = urlsplit(str(self.read("base_url"))).hostname or ""
        return host == _HOST or host.endswith("." + _HOST)

    def url(self) -> str:
        """Return the base URL: the setting's, the environment's, or OpenAI's."""
        if not self.base_url:
            found = _ambient_url()
            if found:
                return secret_url(checked(found, "OPENAI_BASE_URL"))
        return super().url()

    def from_environment(self) -> Mapping[str, Any]:
        """Return the base URL, where the environment gives it."""
        found = {} if self.base_url else {"base_url": _ambient_url()}
        return {trait: mark_secrets(value, trait) for trait, value in found.items() if value}

    def key(self) -> Secret | credentials.SecretCallable | None:
        """Return the key that was named, or at home that of the environment."""
        if self.api_key_env or self.keyless:
            return super().key()
        if not self.at_home:
            return None
        return credentials.key("OPENAI_API_KEY", f"{self.section}.api_key_env", openai=True)

    def recipe(self) -> dict[str, Any]:
        """Return all that the client is made from."""
        recipe = super().recipe()
        if self.at_home:
            recipe["organization"] = recipe["organization"] or _ambient("OPENAI_ORG_ID", "OPENAI_ORGANIZATION")
            recipe["project"] = recipe["project"] or _ambient("OPENAI_PROJECT_ID")
            lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").split("\n")  # read by the SDK itself
            pairs = [line.partition(":")[::2] for line in lines if ":" in line]
            recipe["ambient"] = [Secret(value.strip(), key=is_secret_name(name)) for name, value in pairs]
        return recipe

    def key_hint(self) -> str:
        """Say why no key was sent, where one is there."""
        if self.key() is None and not self.keyless and os.environ.get("OPENAI_API_KEY"):
            return (
                f"OPENAI_API_KEY is not sent to {urlsplit(self.url()).hostname} by itself: name the key of this "
                f"server, e.g. " + self.line_that_sets("api_key_env", '"OPENAI_API_KEY"') + "."
            )
        return super().key_hint()

    def vendor_model(self, model: str) -> tuple[str, str] | None:
        """Return OpenAI and the model, where that is asked itself: no proxy, and no region with prices of its own."""
        at = urlsplit(self.url())
        return ("openai", model) if (at.scheme, at.hostname, at.port) == ("https", f"api.{_HOST}", None) else None

    def capabilities(self, model: str) -> Capabilities:
        """Return what a model of OpenAI's can do; what a proxy in its place takes is taken to be older."""
        newer = self.at_home or model_info.is_reasoning(model)
        field: Any = "max_completion_tokens" if newer else "max_tokens"
        known = super().capabilities(model)
        batches = known.batches if self.at_home else self.batches
        return replace(known, max_tokens_field=field, dialects=dict(model_info.OPENAI), batches=batches)


def _ambient_url() -> str:
    """Return the base URL that the environment gives; empty where it gives none."""
    return (os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE") or "").strip()


def _ambient(*names: str) -> Secret | None:
    """Return the value of the first of these variables that is set."""
    return next((Secret(value) for name in names if (value := os.environ.get(name))), None)
