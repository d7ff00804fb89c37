"""A shell with the extension, whose cells with several models are shown by a view that remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from comparison_view import RecordingView
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from llm_magic import api, display, extension
from llm_magic.config.settings import Settings
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


class Cells:
    """Runs cells; `view` is that of the last comparison."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.views: list[RecordingView] = []
        self.on_tick: Callable[[RecordingView], object] = lambda _: None

    @property
    def session(self) -> Session:
        return self.shell._llm_magic.session

    @property
    def view(self) -> RecordingView:
        return self.views[-1]

    def run(self, code: str) -> Any:
        """Run a cell, and return its result, or raise its error."""
        ran = self.shell.run_cell(code, store_history=True)
        if ran.error_before_exec or ran.error_in_exec:
            raise ran.error_before_exec or ran.error_in_exec
        return ran.result

    def __getitem__(self, name: str) -> Any:
        return self.shell.user_ns[name]


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cells]:
    monkeypatch.chdir(tmp_path)
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell(config=config)
    monkeypatch.setattr(InteractiveShell, "_instance", shell)
    extension.load(shell)
    found = Cells(shell)

    def choose(*_: Any, **__: Any) -> RecordingView:
        found.views.append(RecordingView(found.on_tick))
        return found.views[-1]

    monkeypatch.setattr(display, "choose_comparison_view", choose, raising=False)
    yield found
    extension.unload(shell)


@pytest.fixture
def session() -> Iterator[Session]:
    settings = Settings()
    session = Session(settings, ProviderRegistry(parent=settings))
    api.activate(session)
    yield session
    api.activate(None)
    session.close()
