"""What tests share: real servers by their URL (skipping, with the reason, where there is none), and real kernels."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)  # the same examples each time
if os.environ.get("CI"):
    settings.load_profile("ci")

sys.path.insert(0, str(Path(__file__).parent))  # for `servers` and `kernels`, which tests import

if TYPE_CHECKING:
    from kernels import Kernel


def _from_environment(name: str, what: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        pytest.skip(f"{what}: set {name}")
    return value


@pytest.fixture(scope="session")
def vllm_url() -> str:
    return _from_environment("LLM_MAGIC_TEST_VLLM", "needs the base URL of a vLLM server that serves smollm2")


@pytest.fixture(scope="session")
def llamacpp_url() -> str:
    return _from_environment("LLM_MAGIC_TEST_LLAMACPP", "needs the base URL of a llama.cpp server")


@pytest.fixture(scope="session")
def llamacpp_embeddings_url() -> str:
    return _from_environment(
        "LLM_MAGIC_TEST_LLAMACPP_EMBEDDINGS",
        "needs the base URL of a llama.cpp server that serves embeddings",
    )


@pytest.fixture(scope="session")
def litellm_url() -> str:
    return _from_environment("LLM_MAGIC_TEST_LITELLM", "needs the base URL of a LiteLLM proxy")


@pytest.fixture(scope="session")
def litellm_key() -> str:
    return _from_environment("LLM_MAGIC_TEST_LITELLM_KEY", "needs the key of the LiteLLM proxy")


@pytest.fixture(scope="session")
def batches_url() -> str:
    return _from_environment("LLM_MAGIC_TEST_BATCHES", "needs the base URL of a server with Files and Batches routes")


@pytest.fixture(scope="session")
def batches_model() -> str:
    return _from_environment("LLM_MAGIC_TEST_BATCHES_MODEL", "needs the model of the server with Batches routes")


@pytest.fixture(scope="session")
def recordings() -> Path:
    return Path(_from_environment("LLM_MAGIC_TEST_RECORDINGS", "needs the folder of recorded answers"))


@pytest.fixture(scope="session")
def chromium() -> str:
    return _from_environment("LLM_MAGIC_TEST_CHROMIUM", "needs the path of a Chromium")


@pytest.fixture(autouse=True)
def _no_credentials_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see only the variables that they set."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _nothing_kept_on_the_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs that did not end whole are kept in a folder of the tests, by kernels, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """A real kernel with the extension loaded, shared by the tests of a module."""
    from kernels import Kernel

    with Kernel() as kernel:
        kernel.run("%load_ext llm_magic").check()
        yield kernel


@pytest.fixture
def folder(kernel: Kernel, tmp_path: Path) -> Path:
    """A folder of its own, in which the kernel works meanwhile."""
    kernel.run(f"import os; os.chdir({str(tmp_path)!r})").check()
    return tmp_path
