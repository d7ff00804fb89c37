"""A panel over a real session and a scripted endpoint, and what it shows as text."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Callable
from typing import Any

from servers import Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic.config.settings import Settings
from llm_magic.picker.backend import PickerBackend
from llm_magic.picker.panel import Panel
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

MODELS = [
    {"id": "small", "max_model_len": 8192},
    {"id": "large", "context_length": 128_000, "expiration_date": "2999-01-31"},
    {"id": "Other"},
]
ANSWER = "The sky is blue <b>because</b> air scatters short waves."
USAGE = {**chunk(), "choices": [], "usage": {"prompt_tokens": 21, "completion_tokens": 12, "total_tokens": 33}}


def answering(models: list[dict[str, Any]], pause: float = 0.0) -> Callable[[Received], Answer]:
    """Return a script that lists these models, and answers in words, `pause` seconds apart."""

    def script(received: Received) -> Answer:
        if received.path.endswith("/models"):
            return document({"object": "list", "data": models})
        steps: list[object] = []
        for word in re.findall(r"\S+\s*", ANSWER):
            steps += [chunk(word), pause] if pause else [chunk(word)]
        return stream(*steps, chunk(finish="stop"), USAGE)

    return script


class Opened:
    """A panel, open over a session with one provider, `box`, at a server."""

    def __init__(self, server: ScriptedServer, **settings: Any) -> None:
        self.server = server
        self.settings = Settings(model="box:small", **settings)
        self.registry = ProviderRegistry(parent=self.settings)
        self.registry.add("box", "compatible", base_url=server.url, max_retries=0)
        self.session = Session(self.settings, self.registry)
        self.backend = PickerBackend(self.session)
        self.panel = Panel(self.backend)

    def close(self) -> None:
        until(
            lambda: "Loading" not in text(self.panel.status)
        )  # anyio drops a connection that is cancelled as it opens
        self.panel.end("closed")
        self.backend.close()
        self.session.close()

    def listed(self) -> list[str]:
        """Wait for the list, and return the names in it."""
        until(lambda: "Loading" not in self.status)
        return [value for _, value in self.panel.models.options]

    @property
    def status(self) -> str:
        return text(self.panel.status)

    def asked(self) -> list[Any]:
        """Return the bodies of the requests for answers."""
        return [json.loads(item.body) for item in self.server.requests if item.method == "POST"]

    def answered(self) -> str:
        """Wait until the try is over, and return its answer."""
        until(lambda: not self.panel.try_it.disabled)
        return text(self.panel.answer)


def text(widget: Any) -> str:
    """Return the text of an HTML widget, as it would be read."""
    without_style = re.sub(r"<style.*?</style>", "", widget.value, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", "", without_style))


def until(holds: Callable[[], Any], seconds: float = 15) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
