"""LiteLLM's proxy before a server of files and batches: a process of its own, about 20 s to start beside others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from litellm_proxy import litellm_proxy

KEY = "sk-of-this-test"
MODEL = "batched"
"""The proxy's own name of the model; the rows of a batch name it as the server behind does."""


@contextlib.contextmanager
def batch_proxy(upstream: str, upstream_model: str, folder: Path, *, files: bool = True) -> Iterator[str]:
    """Yield the proxy's base URL. `files` False: it has no `files_settings`, and wants `model` in each request."""
    behind = {"api_base": upstream, "api_key": "none"}
    parameters = {"model": f"openai/{upstream_model}", **behind}
    configuration = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters, "model_info": {"mode": "batch"}}],
        "general_settings": {"master_key": KEY},
    }
    if files:
        configuration["files_settings"] = [{"custom_llm_provider": "openai", **behind}]
    with litellm_proxy(configuration, folder) as url:
        yield url
