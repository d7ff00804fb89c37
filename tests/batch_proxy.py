"""LiteLLM's proxy before a server of files and batches: a process of its own, about 20 s to start beside others."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

KEY = "sk-of-this-test"
MODEL = "batched"
"""The proxy's own name of the model; the rows of a batch name it as the server behind does."""


@contextlib.contextmanager
def batch_proxy(upstream: str, upstream_model: str, folder: Path, *, files: bool = True) -> Iterator[str]:
    """Yield the proxy's base URL. `files` False: it has no `files_settings`, and wants `model` in each request."""
    program = os.environ.get("LLM_MAGIC_TEST_LITELLM_PROGRAM", "")
    if not program:
        pytest.skip("needs the program `litellm` of the proxy: set LLM_MAGIC_TEST_LITELLM_PROGRAM to its path")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    behind = {"api_base": upstream, "api_key": "none"}
    parameters = {"model": f"openai/{upstream_model}", **behind}
    configuration = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters, "model_info": {"mode": "batch"}}],
        "general_settings": {"master_key": KEY},
    }
    if files:
        configuration["files_settings"] = [{"custom_llm_provider": "openai", **behind}]
    (folder / "litellm.yaml").write_text(json.dumps(configuration))
    with (folder / "litellm.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - the program that was named
            [program, "--config", "litellm.yaml", "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""},
        )
    try:
        _await(f"http://127.0.0.1:{port}/health/liveliness", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 90
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - a fixed http URL
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("the proxy did not start")
