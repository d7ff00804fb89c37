"""The embedded default: a llama.cpp server inside the kernel, started by the first cell that needs it."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from traitlets import Enum, Int, Unicode, Union

from llm_magic.capabilities import ALL_PARAMETERS, Capabilities
from llm_magic.errors import ConfigurationError, ModelNotFoundError, UnsupportedError
from llm_magic.model_names import shown_model
from llm_magic.providers import model_info
from llm_magic.providers.base import ModelCard, Provider
from llm_magic.providers.local.server import EmbeddedServer, ServerSettings, bindings, check_file
from llm_magic.providers.local.weights import SMOLLM2, FetchCancelled, Report, fetch
from llm_magic.request import Request
from llm_magic.secrets import Secret

T = TypeVar("T")

_NOT_STARTED = "http://127.0.0.1:0/v1"  # what a dry run shows: the port is the system's choice
_SECONDS = 2.0  # for open connections to be closed before the server is stopped
_NOT_OURS = ("base_url", "api_key_env", "organization", "project", "headers_env", "http_client", "models", "batches")
"""Common settings that say where a server is and who asks it, which is settled here."""


class LocalProvider(Provider):
    """The llama.cpp server of `xllamacpp`, in the kernel's own process, on a loopback port with a random key.

    It serves one model: `smollm2`, whose weights are fetched once into the user's cache, or the GGUF file of
    `model_path`, named by its stem. Chats and embeddings both.
    """

    kind = "local"
    is_free = True
    has_batches = False

    model_path = Unicode("", help="A GGUF file to serve; empty serves smollm2, which is fetched once.").tag(
        config=True, trusted_only=True, could="run"
    )
    n_ctx = Int(
        8192,
        min=0,
        help="Context in tokens, shared by the answers in progress; 0 takes what the model was trained for.",
    ).tag(config=True, trusted_only=False)
    n_threads = Int(0, min=0, help="Threads that compute; 0 leaves the number to llama.cpp.").tag(
        config=True, trusted_only=False
    )
    n_parallel = Int(8, min=1, help="Answers at once, and the most that --n can ask for; further cells wait.").tag(
        config=True, trusted_only=False
    )
    concurrency = Union(
        [Int(8, min=1), Enum(["auto"])],
        default_value=8,
        help="Requests in flight at most where one prompt is asked over many inputs: no more than n_parallel are "
        'answered at once. "auto" finds the number at which answers come fastest.',
    ).tag(config=True, trusted_only=False)
    n_batch = Int(
        512,
        min=32,
        help="Tokens of a prompt that are read in one go. It bounds the text that can be embedded, and how long an "
        "interrupted prompt still occupies the server.",
    ).tag(config=True, trusted_only=False)

    def __init__(self, *, name: str = "", **traits: Any) -> None:
        self._server: EmbeddedServer | None = None
        self._turn = threading.Lock()  # one thread at a time starts or stops the server
        self._loop: asyncio.AbstractEventLoop | None = None
        super().__init__(name=name, **traits)

    @property
    def model(self) -> str:
        """The name of the model it serves."""
        return Path(self.model_path).stem if self.model_path else SMOLLM2.name

    def url(self) -> str:
        """Return the server's URL; with port 0 while there is none."""
        for trait in _NOT_OURS:
            if getattr(self, trait):
                raise ConfigurationError(
                    f"{self.section}.{trait} is set, but the embedded server settles that itself.",
                    "Servers elsewhere are providers of class compatible, vllm, openai or azure.",
                )
        server = self._server
        return server.base_url if server is not None and server.running else _NOT_STARTED

    def key(self) -> Secret | None:
        """Return the server's random key."""
        return self._server.key if self._server is not None else None

    def recipe(self) -> dict[str, Any]:
        """Return what the client is made from: no proxy of the environment stands before this machine itself."""
        recipe = super().recipe()
        return recipe | {"http_client_kwargs": {"trust_env": False} | recipe["http_client_kwargs"]}

    def at(self, base_url: str) -> Provider:
        """Refuse: the model is here."""
        raise UnsupportedError(
            f"{self.name} is served inside this kernel, so --base-url {base_url} cannot apply to it.",
            "Name the model that is asked there: -m NAME --base-url URL.",
        )

    def capabilities(self, model: str) -> Capabilities:
        """Return what llama.cpp can do with this model; another is refused here: llama.cpp would take any name."""
        if model != self.model:
            raise ModelNotFoundError(
                f"{self.name} serves {self.model}, not {shown_model(model)!r}.",
                f"Ask -m {self.name}:{self.model}, or serve a file: " + self.line_that_sets("model_path", '"…"'),
            )
        able = self._properties().get("chat_template_caps", {})
        thinks = able.get("supports_reasoning_effort", False)
        return replace(
            super().capabilities(model),
            dialects=dict(model_info.LLAMA),
            parameters=ALL_PARAMETERS if thinks else ALL_PARAMETERS - {"reasoning_effort"},
            images=False,
            tools=able.get("supports_tools", bool(self.model_path)),  # llama.cpp drops them without a word
        )

    def context(self, model: str) -> int | None:  # noqa: ARG002 - it serves one
        """Return the context in tokens: what the server says, else what was asked for."""
        return self._properties().get("default_generation_settings", {}).get("n_ctx") or self.n_ctx or None

    def _properties(self) -> dict[str, Any]:
        server = self._server
        return server.properties if server is not None and server.running else {}

    async def check(self, request: Request, capabilities: Capabilities) -> None:
        """Refuse more answers at once than the server has room for."""
        await super().check(request, capabilities)
        if (request.parameters.n or 1) > self.n_parallel:
            raise UnsupportedError(
                f"{self.name} gives {self.n_parallel} answers at once, not {request.parameters.n}.",
                self.line_that_sets("n_parallel", str(request.parameters.n)),
            )

    def static_models(self) -> list[ModelCard]:
        """Return the one model; nothing is started."""
        return [ModelCard(self.model, self.context(self.model), owned_by="llama.cpp")]

    async def prepare(self, report: Callable[[str], None]) -> None:
        """Have the server running: fetch the weights where they are missing, start it, or start it again."""
        self._loop = asyncio.get_running_loop()
        stop, shown = threading.Event(), ""

        def tell(line: str) -> None:
            nonlocal shown
            if stop.is_set():
                raise FetchCancelled
            if line != shown:
                shown = line
                report(line)

        try:
            await _on_thread(lambda: self._start(tell))
        finally:
            stop.set()

    def _start(self, report: Report) -> None:
        """Do the work of `prepare`; blocks."""
        while not self._turn.acquire(timeout=0.1):
            report(f"loading {self.model}…")
        try:
            server = self._server
            path = Path(self.model_path).expanduser() if self.model_path else None
            if server is not None and server.alive():
                if server.settings == self._settings(path or server.settings.path):
                    return
                while server.alive() and server.busy():  # a restart with other settings would cut these answers
                    report("waiting for the answers in progress, before the model is loaded with the new settings…")
                    time.sleep(0.2)
            if server is not None:
                server.stop()
            report(f"loading {self.model}…")
            if path is not None:
                check_file(path)
            else:
                bindings()  # what it lacks is said before megabytes are fetched for it
                path = fetch(SMOLLM2, report)
            fresh = EmbeddedServer(self._settings(path))
            fresh.start(report)
            self._server = fresh
            atexit.register(_close, weakref.ref(self))  # its threads must not outlive the interpreter
        finally:
            self._turn.release()

    def _settings(self, path: Path) -> ServerSettings:
        return ServerSettings(path, self.model, self.n_ctx, self.n_threads, self.n_parallel, self.n_batch)

    def close(self) -> None:
        """Stop the server, and before that whatever is still being asked of it; blocks for a moment."""
        loop = self._loop
        if loop is not None and loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(self.aclose(), loop)
            try:
                closing.result(_SECONDS)
            except Exception:  # noqa: BLE001 - a connection that does not close well is closed all the same
                closing.cancel()
        mine = self._turn.acquire(timeout=_SECONDS)  # a start in progress ends first
        server, self._server = self._server, None
        if server is not None:
            server.stop()
        if mine:
            self._turn.release()


async def _on_thread(work: Callable[[], T]) -> T:
    """Run `work` on a daemon thread of its own: the end of the process does not wait for it, as for one of a pool."""
    done: Future[T] = Future()
    done.set_running_or_notify_cancel()  # who waits may go away, the work goes on

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            done.set_exception(error)

    threading.Thread(target=run, name="llm_magic local", daemon=True).start()
    return await asyncio.wrap_future(done)


def _close(provider: weakref.ref[LocalProvider]) -> None:
    found = provider()
    if found is not None:
        found.close()
