"""JupyterLab and Notebook 7 in a real browser: one server for both, pages to run cells in, axe-core to check them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import nbformat
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
AXE = "4.13"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm_magic-tests"


class Jupyter:
    """A server of JupyterLab and Notebook 7 over a folder; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / ".settings"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._write("@jupyterlab/apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False})
        self.theme("light")
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={self.port}"]
        command += [f"--ServerApp.root_dir={self.folder}", "--IdentityProvider.token=", "--ServerApp.log_level=ERROR"]
        home = self.folder / ".home"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "AZURE_"))},
            "JUPYTERLAB_SETTINGS_DIR": str(self.settings),
            "JUPYTER_CONFIG_DIR": str(home / "jupyter"),
            "IPYTHONDIR": str(home / "ipython"),
        }
        self._log = (self.folder / "server.log").open("wb")
        self._process = subprocess.Popen(command, env=environment, stdout=self._log, stderr=subprocess.STDOUT)
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._log.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/api", timeout=5):
                    return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _write(self, plugin: str, values: dict[str, Any]) -> None:
        file = self.settings / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))

    def theme(self, name: str) -> None:
        """Take a theme, for pages that are opened from now on."""
        self._write("@jupyterlab/apputils-extension/themes", {"theme": THEMES[name]})

    def write(self, name: str, *cells: str) -> None:
        """Write a notebook of code cells."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / name)


class Notebook:
    """A notebook that is open in a page, of JupyterLab (`lab`) or Notebook 7 (`notebook`)."""

    def __init__(self, page: Page, jupyter: Jupyter, name: str, app: str) -> None:
        self.page = page
        page.goto(f"{jupyter.url}/{'lab/tree' if app == 'lab' else 'notebooks'}/{name}")
        self.cells = page.locator(".jp-Notebook .jp-CodeCell")
        self.cells.first.wait_for(timeout=60_000)
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for(timeout=60_000)

    def run(self, number: int, *, wait: bool = True, timeout: float = 60) -> Locator:
        """Run a cell and return it."""
        cell = self.cells.nth(number)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        if wait:
            prompt = cell.locator(".jp-InputPrompt")
            until(lambda: prompt.inner_text().strip(" []:").isdigit(), timeout)
        return cell


def until(holds: Callable[[], Any], timeout: float = 20) -> Any:
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + timeout
    while not (value := holds()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


@contextmanager
def browser(executable: str) -> Iterator[Browser]:
    """Start a Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        try:
            yield started
        finally:
            started.close()


def axe() -> str:
    """Return the source of axe-core, fetched once by npm."""
    folder = CACHE / f"axe-core-{AXE}"
    file = folder / "package" / "axe.min.js"
    if not file.exists():
        if shutil.which("npm") is None:
            pytest.skip("needs axe-core, and npm to fetch it")
        folder.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", f"axe-core@{AXE}", "--silent"], cwd=folder, capture_output=True, text=True, timeout=120
        )
        if packed.returncode:
            pytest.skip(f"needs axe-core, which npm cannot fetch: {packed.stderr.strip()[:200]}")
        shutil.unpack_archive(folder / packed.stdout.strip(), folder)
    return file.read_text(encoding="utf-8")


def violations(page: Page, selector: str) -> list[str]:
    """Return what axe-core finds wrong, of serious or critical impact, in a part of a page."""
    page.evaluate(axe())
    found = page.evaluate(
        "selector => axe.run({include: [[selector]]}, {resultTypes: ['violations']}).then(result => result.violations)",
        selector,
    )
    return [
        f"{item['id']} ({item['impact']}): {item['help']}: {node['html'][:160]} {node['any'][:1]}"
        for item in found
        if item["impact"] in {"serious", "critical"}
        for node in item["nodes"]
    ]
