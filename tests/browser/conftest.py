"""What browser tests share: Chromium, JupyterLab and Notebook; they skip, with the reason, where there are none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `lab` and `replay`


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return Chromium, started; ended with the module, for Playwright keeps an event loop running in this thread."""
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    pytest.importorskip("jupyterlab", reason="needs JupyterLab: the extra `demo`")
    import lab

    if lab.CHROMIUM is None:
        pytest.skip("needs Chromium: set LLM_MAGIC_TEST_CHROMIUM to its path")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=lab.CHROMIUM, args=lab.ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the servers serve."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def jupyterlab(browser: Any, folder: Path) -> Iterator[str]:
    """Return the URL of a JupyterLab."""
    import lab

    with lab.server(folder) as url:
        yield url


@pytest.fixture(scope="module")
def notebook7(jupyterlab: str) -> str:
    """Return the URL of a Notebook 7, which is that of JupyterLab: one server has both."""
    pytest.importorskip("notebook", reason="needs Notebook 7: the extra `demo`")
    return jupyterlab


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for screenshots: LLM_MAGIC_TEST_PICTURES, else a temporary one."""
    import os

    named = os.environ.get("LLM_MAGIC_TEST_PICTURES")
    path = Path(named) if named else tmp_path_factory.mktemp("pictures")
    path.mkdir(parents=True, exist_ok=True)
    return path
