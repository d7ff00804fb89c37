"""Offline batches at a real server of files and batches, over a real model; and the same behind LiteLLM's proxy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_proxy import KEY, batch_proxy

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import ContextOverflowError, NotAskedError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

TOO_LONG = "7 " * 10_000  # of which each character is a token


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("A_KEY", KEY)
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


@pytest.fixture(scope="module")
def model() -> str:
    found = os.environ.get("LLM_MAGIC_TEST_BATCHES_MODEL", "")
    if not found:
        pytest.skip("needs the name of a model at the server of batches: set LLM_MAGIC_TEST_BATCHES_MODEL")
    return found


@pytest.fixture(scope="module")
def proxy(batches_url: str, model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with batch_proxy(batches_url, model, tmp_path_factory.mktemp("proxy")) as url:
        yield url


@pytest.mark.parametrize("behind", ["", "proxy"])
def test_values_and_an_error_in_place(
    session: Session, batches_url: str, model: str, request: pytest.FixtureRequest, behind: str
) -> None:
    url = request.getfixturevalue("proxy") if behind else batches_url
    session.registry.add("s", "compatible", base_url=url, api_key_env="A_KEY")
    llm = LLM(f"s:{model}", poll=0.5, temperature=0, max_tokens=40)
    batch = llm.batch("Good or bad? {{ item }}", ["I love it", TOO_LONG], choices=["good", "bad"], on_error="keep")
    answers = batch.result(300)
    assert answers.values[0] in {"good", "bad"}
    assert answers.errors[0] is None
    assert isinstance(answers.errors[1], ContextOverflowError)
    assert (batch.status, batch.counts.total) == ("completed", 2)
    assert answers.responses[0] is not None
    assert answers.responses[0].usage is not None
    again = llm.batch("Good or bad? {{ item }}", ["I love it"], choices=["good", "bad"])
    assert (again.result(300).values, again.ids) == (answers.values[:1], ()), "it is answered"


def test_one_that_is_cancelled_behind_the_proxy(session: Session, proxy: str, model: str) -> None:
    session.registry.add("s", "compatible", base_url=proxy, api_key_env="A_KEY")
    llm = LLM(f"s:{model}", poll=0.5, max_tokens=400)
    batch = llm.batch("Tell me a long story of {{ item }}.", ["the sea", "a bridge", "rain", "snow"], on_error="keep")
    assert batch.cancel()
    answers = batch.result(300)
    assert batch.status == "cancelled"
    assert len(answers.values) == 4
    assert isinstance(answers.errors[3], NotAskedError)
