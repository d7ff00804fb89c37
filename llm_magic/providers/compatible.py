"""Any server of the OpenAI protocol: proxies, gateways, llama.cpp, Ollama, OpenRouter and the like."""

from __future__ import annotations

from dataclasses import replace

from traitlets import Enum

from llm_magic.capabilities import Capabilities
from llm_magic.providers import model_info
from llm_magic.providers.base import Provider


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
    ).tag(config=True)

    def capabilities(self, model: str) -> Capabilities:
        """Return what the server can do, as `structured` says."""
        return replace(super().capabilities(model), dialects=dict(model_info.COMPATIBLE[self.structured]))
