"""A session of its own that asks a server of batches, for tests: `LLM.batch` looks at once, and state lies apart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer

from llm_magic import LLM, api
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.kept.record import BatchRecord
from llm_magic.config.settings import Settings
from llm_magic.errors import LLMError
from llm_magic.mapping.answers.answers import Answers
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

AT_ONCE = {"validating": 0, "in_progress": 0, "finalizing": 0, "cancelling": 0}
"""Knobs of a server whose batches are done when they are first looked at."""
SAY = "SAY {{ item }}"


@contextmanager
def own_session(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """Make a session the active one, whose state lies in a folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no machine fails here, and it is most of the time
    settings = Settings()
    session = Session(settings, ProviderRegistry(parent=settings))
    api.activate(session)
    try:
        yield session
    finally:
        api.activate(None)
        session.close()


def asking(session: Session, server: BatchServer, **traits: Any) -> LLM:
    """Return a model `s:m` at the server."""
    session.registry.add("s", "compatible", base_url=server.url, **{"max_retries": 0, **traits})
    return LLM("s:m", poll=0.01)


def answered(llm: LLM, inputs: Any, prompt: Any = SAY, **options: Any) -> Answers:
    """Return the answers of a batch, failures among them."""
    return llm.batch(prompt, inputs, **{"on_error": "keep", **options}).result(20)


def refused(llm: LLM, inputs: Any, prompt: Any = SAY, **options: Any) -> LLMError:
    """Return the error that a batch as a whole ends with."""
    with pytest.raises(LLMError) as raised:
        answered(llm, inputs, prompt, **options)
    return raised.value


def names(answers: Answers) -> list[str]:
    """Return the classes of the errors, empty where a row was answered."""
    return ["" if error is None else type(error).__name__ for error in answers.errors]


def records() -> list[BatchRecord]:
    """Return what is remembered, the newest first."""
    return BatchFolder().all()
