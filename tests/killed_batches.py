"""Processes that run a batch and are killed at a step of it, forked from one that has imported all: so they are quick.

`Forks` is the parent's side. The child ends itself with SIGKILL, which nothing in it can catch, when it has come to a
step by its number; or it is killed from outside.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import IO, Any, Self

Job = dict[str, Any]


class Forks:
    """Starts processes, each of which runs one job."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this Python
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()
        self._process.wait(10)

    def start(self, job: Job) -> int:
        """Start a process, and return its id.

        A job is what it asks (`prompt`, `rows`, `options`, `via`: "batch" or "map") and of which server (`url`); the
        folder of its state (`state`), and the file that its result is written to (`told`); the number or the name of
        the step at which it is killed (`kill_at`); the name of one at which it waits until there is a file that is
        called as `told`, but for its suffix `.go` (`stop_at`): one with `.here` tells that it has come to it.
        """
        return int(self._ask(json.dumps({"run": job})))

    def wait(self, pid: int) -> int:
        """Wait for its end, and return the signal that ended it, or 0."""
        return int(self._ask(json.dumps({"wait": pid})))

    def run(self, job: Job) -> dict[str, Any]:
        """Run one to its end, and return what it told; where it was killed, the steps that it had taken."""
        told = Path(job["told"])
        told.unlink(missing_ok=True)
        killed = self.wait(self.start(job))
        found = json.loads(told.read_text()) if told.exists() else {}
        if imported := found.pop("imported", []):  # so that those after it need not
            self._ask(json.dumps({"import": imported}))
        return {"killed": killed == signal.SIGKILL, **found}

    def _ask(self, line: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def main() -> None:
    """Fork a process for each job that is asked for."""
    _import(["openai.resources.chat", "openai.resources.files", "llm_magic.api", "llm_magic.batches.rows.engine"])
    for line in sys.stdin:
        asked = json.loads(line)
        if "import" in asked:
            answer = _import(asked["import"])
        elif "wait" in asked:
            status = os.waitpid(asked["wait"], 0)[1]
            answer = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        else:
            answer = os.fork()
            if answer == 0:
                try:
                    child(asked["run"])
                finally:
                    os._exit(0)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _import(names: list[str]) -> int:
    """Import modules, and return how many there are now."""
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)
    return len(sys.modules)


def child(job: Job) -> None:
    """Run one job."""
    known = set(sys.modules)
    os.environ["XDG_STATE_HOME"] = job["state"]
    steps = Steps(job)
    found: dict[str, Any] = {}
    try:
        steps.watch()
        found = run(job)
        steps.at("bound")
    except BaseException as error:  # noqa: BLE001 - told to the parent
        import traceback

        found = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    found |= {"steps": steps.names, "imported": sorted(set(sys.modules) - known)}
    Path(job["told"]).write_text(json.dumps(found))


def run(job: Job) -> dict[str, Any]:
    """Ask what a job asks."""
    from llm_magic import LLM
    from llm_magic.batches.remote import submission

    submission.SETTLING = job.get("settling", 0.02)
    llm = LLM("compatible:m", base_url=job["url"])
    options = {"output_type": int, "on_error": "keep", **job.get("options", {})}
    if job.get("via", "batch") == "map":
        answers = llm.map(job["prompt"], job["rows"], retries_invalid=0, **options)
    else:
        batch = llm.batch(job["prompt"], job["rows"], poll=0.01, **options)
        answers = batch.result(20)
    errors = [None if each is None else f"{type(each).__name__}: {each}" for each in answers.errors]
    return {"values": list(answers.values), "errors": errors, "notes": list(answers.notes)}


class Steps:
    """Counts the steps of a batch, and kills the process at one."""

    def __init__(self, job: Job) -> None:
        self.names: list[str] = []
        self._kill_at, self._stop_at = job.get("kill_at"), job.get("stop_at")
        self._go = Path(job["told"]).with_suffix(".go")
        self._here = Path(job["told"]).with_suffix(".here")
        self._lock = threading.Lock()

    def at(self, name: str) -> None:
        """Count a step."""
        with self._lock:
            self.names.append(name)
            if self._kill_at in (len(self.names), name):
                self._here.write_text(name)
                os.kill(os.getpid(), signal.SIGKILL)
        if name == self._stop_at:
            import time

            self._stop_at = None
            self._here.write_text(name)
            while not self._go.exists():
                time.sleep(0.005)

    def watch(self) -> None:
        """Count whatever is written, sent, or handed on."""
        from llm_magic.batches.jsonl import input_file
        from llm_magic.batches.kept import kept_batches
        from llm_magic.batches.rows import pipeline
        from llm_magic.mapping.kept.store import Store
        from llm_magic.wire import batches, file_download

        for of, names in (
            (kept_batches.BatchFolder, ("add", "update", "forget_input", "remove")),
            (input_file.InputFileWriter, ("_begin", "_finish")),
            (batches.BatchRoutes, ("upload", "create", "retrieve", "download", "find")),
            (pipeline.BatchPipeline, ("put",)),
            (Store, ("keep", "ended")),
            (file_download, ("_write",)),
        ):
            for name in names:
                setattr(of, name, self._around(getattr(of, name), name))
        opened = Path.open

        def slowly(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> IO[Any]:
            file = opened(path, mode, *arguments, **options)
            return _Slowly(file, self) if mode == "rb" and path.name.endswith(".input.jsonl") else file  # type: ignore[return-value]

        Path.open = slowly  # type: ignore[method-assign,assignment]

    def _around(self, called: Callable[..., Any], name: str) -> Callable[..., Any]:
        def told(changes: dict[str, Any]) -> str:
            return f"{name} {changes.get('step') or changes.get('status') or ''}".strip()

        if inspect.iscoroutinefunction(called):

            @wraps(called)
            async def around_later(*arguments: Any, **options: Any) -> Any:
                self.at(f"before {told(options)}")
                result = await called(*arguments, **options)
                self.at(f"after {told(options)}")
                return result

            return around_later

        @wraps(called)
        def around(*arguments: Any, **options: Any) -> Any:
            self.at(f"before {told(options)}")
            result = called(*arguments, **options)
            self.at(f"after {told(options)}")
            return result

        return around


class _Slowly:
    """A file that is read a little at a time, while it is sent."""

    def __init__(self, file: IO[bytes], steps: Steps) -> None:
        self._file, self._steps = file, steps

    def read(self, _size: int = -1) -> bytes:
        self._steps.at("in the upload")
        return self._file.read(300)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


if __name__ == "__main__":
    main()
