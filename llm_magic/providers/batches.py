"""Who takes no offline batches, and no file of one: refusals that say what to do instead; and prices nobody gave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_magic.capabilities import Api, Capabilities
from llm_magic.errors import UnsupportedError
from llm_magic.providers.base import Provider
from llm_magic.providers.local import LocalProvider
from llm_magic.providers.vllm import VLLMProvider
from llm_magic.secrets import secrets_in

PATHS: dict[Api, str] = {"chat": "/chat/completions", "responses": "/responses", "completions": "/completions"}
"""The path of each API, behind the prefix of its server."""
EMBEDDINGS_PATH = "/embeddings"


def line_url(capabilities: Capabilities, *, embeddings: bool = False) -> str:
    """Return the `url` of each line of a batch's file.

    >>> line_url(Capabilities(api="responses")), line_url(Capabilities(batch_prefix="")), line_url(
    ...     Capabilities(), embeddings=True
    ... )
    ('/v1/responses', '/chat/completions', '/v1/embeddings')

    """
    return capabilities.batch_prefix + (EMBEDDINGS_PATH if embeddings else PATHS[capabilities.api])


def endpoint(capabilities: Capabilities, *, embeddings: bool = False) -> str:
    """Return the `endpoint` that a batch is created with.

    >>> endpoint(Capabilities()), endpoint(Capabilities(api="responses", batch_endpoint="/chat/completions"))
    ('/v1/chat/completions', '/chat/completions')

    """
    if embeddings or capabilities.batch_endpoint is None:
        return line_url(capabilities, embeddings=embeddings)
    return capabilities.batch_endpoint


def refuse_batches(provider: Provider, capabilities: Capabilities, model: str) -> None:
    """Refuse offline batches where the server is known to take none; what nobody knows is tried.

    Raises
    ------
    UnsupportedError
        Says what to do instead.

    """
    if provider.own_backend:
        raise no_batches(provider, model, f"{type(provider).__name__} sends its requests by code of its own")
    if capabilities.batches is False:
        told = f"{provider.section}.batches says so" if provider.batches is False else ""
        raise no_batches(provider, model, told)


def no_batches(provider: Provider, model: str, why: str = "") -> UnsupportedError:
    """Return the error of a server without offline batches: known before, or learnt from its answer, which is `why`."""
    origin = provider.origin(model)
    reason = f": {why}" if why else ""
    return UnsupportedError(f"{origin} takes no offline batches{reason}.", provider.instead_of_batches)


def refuse_secrets(fields: Mapping[str, Any]) -> None:
    """Raise UnsupportedError where a field of the bodies is a secret, which a file would have."""
    if secrets_in(fields):
        raise UnsupportedError(
            "A batch writes its fields into a file, and one of them is a secret (env:…).",
            "Leave it out, or send it as a header: --header NAME=env:VARIABLE goes with the requests about the batch.",
        )


def refuse_batch_file(provider: Provider, capabilities: Capabilities, model: str) -> None:
    """Refuse the file of a batch that nothing could read: bodies that are not of the protocol, or of another API.

    vLLM's `run-batch` reads lines of chats and embeddings, not those of responses and completions:
    https://docs.vllm.ai/en/stable/examples/offline_inference/openai_batch.html

    Raises
    ------
    UnsupportedError
        Says what to change.

    """
    origin = provider.origin(model)
    if provider.own_backend:
        raise UnsupportedError(
            f"{origin}: {type(provider).__name__} sends its requests by code of its own, which no file can hold.",
            "Leave --batch-file out: --each asks now.",
        )
    if isinstance(provider, LocalProvider):
        raise UnsupportedError(
            f"{origin}: the embedded model answers here, and reads no file of a batch.",
            "Leave --batch-file out: --each asks now. For vLLM name the model as its own: -m vllm:MODEL.",
        )
    if not isinstance(provider, VLLMProvider) or capabilities.api == "chat":
        return
    if provider.tokenizer:
        why = f"{provider.section}.tokenizer makes them requests of the Completions API"
        hint = f"{provider.line_that_sets('tokenizer', repr(''))}: `vllm run-batch` applies the template itself."
    else:
        why, hint = f"these are of the {capabilities.api.title()} API", "Say --api chat."
    raise UnsupportedError(f"{origin}: `vllm run-batch` reads chats and embeddings, and {why}.", hint)


def unknown_price(provider: Provider, model: str) -> str:
    """Return the line that says how to give the prices of batches, of which none are known."""
    entry = '{"input": …, "output": …, "batch_input": …, "batch_output": …}'
    line = provider.line_that_sets("prices", f"{{{json.dumps(model, ensure_ascii=False)}: {entry}}}")
    return f"No price of batches is known for {model} (US dollars per million tokens): {line}"
