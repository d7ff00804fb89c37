"""JupyterLab or Notebook on a free port with a notebook of given cells, driven in Chromium through Playwright."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import nbformat

CHROMIUM = os.environ.get("LLM_MAGIC_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HERE = Path(__file__).parent


@contextmanager
def server(root: Path, app: str = "lab") -> Iterator[str]:
    """Run JupyterLab (`lab`) or Notebook 7 (`notebook`) on the folder `root`; yields its URL.

    Where both are installed, each serves the pages of the other, too.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    private = {
        name: str(root / ".home" / name.lower())
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
            "JUPYTER_RUNTIME_DIR",
        )
    }
    news = (
        root
        / ".home"
        / "jupyterlab_settings_dir"
        / "@jupyterlab"
        / "apputils-extension"
        / "notification.jupyterlab-settings"
    )
    news.parent.mkdir(parents=True, exist_ok=True)
    news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}), encoding="utf-8")
    command = [
        sys.executable, "-m", "jupyterlab" if app == "lab" else "notebook", "--no-browser", "--allow-root",
        f"--port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={root}", "--expose-app-in-browser",
        "--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True",
    ]  # fmt: skip
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    with (root / ".home" / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, env={**os.environ, **private, "PYTHONPATH": path}, stdout=log, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url + "/api", process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the server at {url} does not answer")


class Page:
    """A notebook open in a page: its cells are run and read by number."""

    def __init__(
        self, browser: Any, url: str, root: Path, cells: Sequence[str], *, app: str = "lab", dark: bool = False
    ) -> None:
        stamp = time.monotonic_ns()
        name = f"{stamp}.ipynb"
        self.path = root / name
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        sources = ["%load_ext replay", *cells]
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(each) for each in sources], metadata=metadata
        )
        nbformat.write(notebook, self.path)
        self.context = browser.new_context(viewport={"width": 1200, "height": 900})
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.page.goto(url + (f"/lab/workspaces/{stamp}/tree/{name}" if app == "lab" else f"/notebooks/{name}"))
        self.ready()
        if dark:
            self.command("apputils:change-theme", {"theme": "JupyterLab Dark"})
        self.run(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.context.close()

    def ready(self) -> None:
        """Wait until the kernel answers."""
        self.page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext", timeout=90_000)
        self.page.evaluate(
            """async () => {
                const widget = jupyterapp.shell.currentWidget;
                await widget.context.ready;
                await widget.sessionContext.ready;
                const kernel = widget.sessionContext.session.kernel;
                await kernel.info;
                await kernel.requestExecute({code: '1', silent: true}).done;
                window.ran = {};
            }"""
        )

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        """Execute a command of the front end."""
        self.page.evaluate("([name, given]) => jupyterapp.commands.execute(name, given)", [name, arguments or {}])

    def start(self, number: int) -> None:
        """Run a cell and do not wait for it."""
        self.page.evaluate(
            """number => {
                const notebook = jupyterapp.shell.currentWidget.content;
                notebook.activeCellIndex = number;
                notebook.deselectAll();
                window.ran[number] = false;
                jupyterapp.commands.execute('notebook:run-cell').then(() => { window.ran[number] = true; });
            }""",
            number,
        )

    def wait(self, number: int, seconds: float = 90) -> None:
        """Wait until a cell that was started has run."""
        self.page.wait_for_function("number => window.ran[number]", arg=number, timeout=seconds * 1000)

    def run(self, number: int, seconds: float = 90) -> None:
        """Run a cell to its end."""
        self.start(number)
        self.wait(number, seconds)

    def saved(self) -> Any:
        """Save the notebook, and return what is in the file."""
        self.page.evaluate("jupyterapp.shell.currentWidget.context.save()")
        return nbformat.read(self.path, as_version=4)

    def printed(self, number: int) -> str:
        """Run a cell and return what it printed."""
        self.run(number)
        return "".join(each.get("text", "") for each in self.saved().cells[number].outputs)

    def cell(self, number: int) -> Any:
        """Return the locator of a cell's outputs."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number).locator(".jp-OutputArea").first

    def watch(self, number: int) -> None:
        """Begin to note when the outputs of a cell change, when that was painted, and how high they are."""
        self.page.evaluate(
            """number => {
                const cell = document.querySelectorAll('.jp-Notebook .jp-Cell')[number];
                const seen = window.seen = {painted: [], heights: [], tasks: [], outputs: 0};
                let waiting = false;
                new MutationObserver(() => {
                    const outputs = cell.querySelectorAll('.jp-OutputArea-child').length;
                    seen.outputs = Math.max(seen.outputs, outputs);
                    if (waiting) return;
                    waiting = true;
                    const painted = () => { waiting = false; seen.painted.push(performance.now()); };
                    requestAnimationFrame(() => setTimeout(painted));
                }).observe(cell, {subtree: true, childList: true, characterData: true});
                const resized = entries => seen.heights.push(Math.round(entries[0].contentRect.height));
                new ResizeObserver(resized).observe(cell);
                new PerformanceObserver(list => list.getEntries().forEach(
                    entry => seen.tasks.push([entry.startTime, entry.duration])
                )).observe({entryTypes: ['longtask']});
            }""",
            number,
        )

    def seen(self) -> dict[str, Any]:
        """Return what was noted since `watch`; times are in seconds since the epoch."""
        noted: dict[str, Any] = self.page.evaluate("({...window.seen, origin: performance.timeOrigin})")
        origin = noted["origin"]
        noted["painted"] = [(origin + at) / 1000 for at in noted["painted"]]
        noted["tasks"] = [((origin + at) / 1000, lasted / 1000) for at, lasted in noted["tasks"]]
        return noted


def main_thread_tasks(trace: bytes) -> list[tuple[float, float, float]]:
    """Return the tasks of a page's main thread from a trace: begin, wall and processor time, in seconds.

    The trace holds a mark `zero`, to which the begins are relative. Processor time is what a task would take on a
    machine with nothing else to do.
    """
    events = json.loads(trace)["traceEvents"]
    zero = next(event for event in events if event["name"] == "zero")
    return [
        ((event["ts"] - zero["ts"]) / 1e6, event["dur"] / 1e6, event.get("tdur", event["dur"]) / 1e6)
        for event in events
        if event["name"] == "ThreadControllerImpl::RunTask"
        and (event["pid"], event["tid"]) == (zero["pid"], zero["tid"])
        and "dur" in event
    ]
