"""A llama.cpp server inside this process: started and stopped by blocking calls, reached only with its own key.

xllamacpp's constructor holds the interpreter's lock while llama.cpp loads the model, so all that can be done before
it is done before it: the file is read ahead, without the lock. Its destructor waits, with the lock, for requests in
flight; who stops a server closes the connections to it first.
"""

from __future__ import annotations

import ctypes
import http.client
import importlib
import json
import os
import secrets
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_magic.errors import ConfigurationError
from llm_magic.providers.local.weights import Report, needs
from llm_magic.secrets import Secret

_SECONDS = 10.0  # to wait for an answer of a server on this machine that only reports its state


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a server is started with: the file, the model's public name, and llama.cpp's own figures.

    `n_ctx` in tokens, shared by all answers in progress; `n_threads` 0 leaves it to llama.cpp; `n_parallel` answers at
    once; `n_batch` tokens of a prompt between two looks at who has hung up.
    """

    path: Path
    alias: str
    n_ctx: int
    n_threads: int
    n_parallel: int
    n_batch: int


def bindings() -> Any:
    """Import xllamacpp, whose threads then wait for each other in moderation.

    OpenMP's threads spin before they sleep. By default they spin so long that with one more busy program on the machine
    an answer takes ten times as long. The runtime reads the variable once, as it is loaded, so it is set just for that.
    Source: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html

    Raises
    ------
    ConfigurationError
        The extra is missing, or a library of the system that it needs.

    """
    settled = "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ
    if not settled:
        os.environ["GOMP_SPINCOUNT"] = "1000"
    try:
        with needs("xllamacpp"):
            return importlib.import_module("xllamacpp")  # it has no types
    finally:
        if not settled:
            os.environ.pop("GOMP_SPINCOUNT", None)


class EmbeddedServer:
    """One llama.cpp server on a loopback port of the system's choice, with a random key."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.key = Secret(secrets.token_urlsafe(32), key=True)
        self.address = ""
        self.properties: dict[str, Any] = {}
        """What the server says of itself (`GET /props`) once it runs."""
        self._held: list[Any] = []
        self._finalizer: weakref.finalize[..., Any] | None = None

    @property
    def base_url(self) -> str:
        """The URL of the API, with `/v1`."""
        return f"{self.address}/v1"

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return bool(self._held)

    def start(self, report: Report) -> None:
        """Load the model and listen; blocks, so call it on a thread.

        Raises
        ------
        ConfigurationError
            The extra is missing, the file is missing or no GGUF, or llama.cpp cannot load it.
        FetchCancelled
            `report` raised it while the file was read.

        """
        settings = self.settings
        xllamacpp = bindings()
        head = check_file(settings.path)
        read_ahead(settings.path, settings.alias, report)
        params = xllamacpp.CommonParams()
        params.model.path = str(settings.path)
        params.model_alias = {settings.alias}
        params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [self.key.reveal()]
        params.ui = params.cors_credentials = False
        params.cors_origins = ""  # no page in a browser has business here
        params.n_ctx, params.n_parallel, params.kv_unified = settings.n_ctx, settings.n_parallel, True
        params.n_batch = params.n_ubatch = settings.n_batch
        if settings.n_threads:
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.n_threads
        params.embedding = True  # answers chats all the same, at the same speed
        if b".pooling_type" not in head:
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        params.sse_ping_interval = 1  # seconds: a hang-up while a prompt is read is noticed by the ping that fails
        params.cache_ram_mib = 0  # not gigabytes of prompts of the past
        params.warmup = params.fit_params = False  # each would load the model once more
        params.verbosity = -1  # llama.cpp writes to the process's stderr, which the notebook shows
        try:
            server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise ConfigurationError(
                f"llama.cpp cannot load {settings.path.name}.",
                "The file may be incomplete, too large for the memory, or of a kind that this version does not know: "
                "pip install -U xllamacpp",
            ) from error
        self.address = server.listening_address
        self._held.append(server)
        self._finalizer = weakref.finalize(self, _drop, self._held, os.getpid())
        del server
        self.properties = self.ask("/props")

    def ask(self, path: str) -> Any:
        """Return a document of the server's; blocks for a moment. Raises OSError where it does not answer."""
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=_SECONDS)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.key.reveal()}"})
            return json.loads(connection.getresponse().read())
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def alive(self) -> bool:
        """Return whether it answers; a millisecond, also while it is at work."""
        try:
            return self.running and self.ask("/health") == {"status": "ok"}
        except OSError:
            return False

    def busy(self) -> int:
        """Return the number of answers in progress; as `ask`."""
        return sum(slot["is_processing"] for slot in self.ask("/slots"))

    def stop(self) -> None:
        """Stop it; at most a second or so where its connections were closed before."""
        if self._finalizer is not None:
            self._finalizer()


def _drop(held: list[Any], process: int) -> None:
    """Let go of the server: the last reference gone, its destructor stops it."""
    if os.getpid() != process:  # forked: the server's threads are not here, and waiting for them has no end
        for server in held:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(server))
    held.clear()


def check_file(path: Path) -> bytes:
    """Return the beginning of a GGUF file; raises ConfigurationError where it cannot be read, or is something else."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 20)
        wrong = "" if head.startswith(b"GGUF") else f"{path} is not a GGUF file."
    except FileNotFoundError:
        wrong = f"There is no file {path}."
    except OSError as error:
        wrong = f"{path} cannot be read: {error.strerror}."
    if wrong:  # https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
        raise ConfigurationError(wrong, 'Name a GGUF file: %config LocalProvider.model_path = "…"')
    return head


def read_ahead(path: Path, name: str, report: Report) -> None:
    """Read a file so that the system has it at hand; of a file not used for long this is most of the wait."""
    size, done = path.stat().st_size, 0
    piece = bytearray(8 << 20)
    with path.open("rb", buffering=0) as file:
        while read := file.readinto(piece):
            done += read
            report(f"loading {name}… {100 * done // size} %")
