"""One notebook of ten cells, unchanged, against every kind of provider; only the project's file differs."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "notebooks" / "ten_cells.ipynb"


def run(folder: Path, project: str, **environment: str) -> nbformat.NotebookNode:
    """Run the notebook in a folder with this configuration."""
    (folder / "pyproject.toml").write_text(project)
    shutil.copy(NOTEBOOK, folder)
    notebook = nbformat.read(folder / NOTEBOOK.name, as_version=4)
    assert len(notebook.cells) == 10
    client = NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "LLM_MAGIC_TRUST": "1", **environment})
    return notebook


def provider_of(notebook: nbformat.NotebookNode) -> str:
    output = notebook.cells[1].outputs[0]
    return str(output.metadata["llm_magic"]["provider"])


def test_local(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="needs the extra `local`")
    assert provider_of(run(tmp_path, '[tool.llm_magic]\nmodel = "local:smollm2"\n')) == "local"


def test_vllm(tmp_path: Path, vllm_url: str) -> None:
    project = f'[tool.llm_magic]\nmodel = "vllm:smollm2"\n[tool.llm_magic.VLLMProvider]\nbase_url = "{vllm_url}"\n'
    assert provider_of(run(tmp_path, project)) == "vllm"


def test_litellm_as_compatible(tmp_path: Path, litellm_url: str, litellm_key: str) -> None:
    project = f"""
[tool.llm_magic]
model = "proxy:gpt-4o"
[tool.llm_magic.providers.proxy]
class = "compatible"
base_url = "{litellm_url}"
api_key_env = "PROXY_KEY"
structured = "json_schema"
"""
    assert provider_of(run(tmp_path, project, PROXY_KEY=litellm_key)) == "proxy"


def test_litellm_as_classic_azure(tmp_path: Path, litellm_url: str, litellm_key: str) -> None:
    project = f"""
[tool.llm_magic]
model = "azure:gpt-4o"
[tool.llm_magic.AzureProvider]
azure_endpoint = "{litellm_url.removesuffix("/v1")}"
api_version = "2024-10-21"
api_key_env = "PROXY_KEY"
"""
    assert provider_of(run(tmp_path, project, PROXY_KEY=litellm_key)) == "azure"
