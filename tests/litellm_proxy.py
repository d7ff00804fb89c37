"""LiteLLM's proxy, started for a test with a configuration of its own; about 20 seconds."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def litellm_proxy(configuration: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yield the proxy's base URL; skips where its program is not named."""
    program = os.environ.get("LLM_MAGIC_TEST_LITELLM_PROGRAM", "")
    if not program:
        pytest.skip("needs the program `litellm` of the proxy: set LLM_MAGIC_TEST_LITELLM_PROGRAM to its path")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
