"""A session whose requests reserve round figures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_magic import api
from llm_magic.config.settings import Settings
from llm_magic.conversation import estimate
from llm_magic.embeddings import run
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session, spending


@pytest.fixture
def counted_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr(spending, "TEMPLATE", 0)  # a prompt is counted by its estimate
    monkeypatch.setattr(spending, "most_tokens", estimate)
    monkeypatch.setattr(run, "most_tokens", estimate)
    settings = Settings()
    session = Session(settings, ProviderRegistry(parent=settings))
    api.activate(session)
    yield session
    api.activate(None)
    session.close()
