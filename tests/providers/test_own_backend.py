"""A provider whose backend is no server of the OpenAI protocol: it yields events, and everything else follows."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from kernels import Kernel

from llm_magic import api
from llm_magic.config.settings import Settings
from llm_magic.errors import UnsupportedError
from llm_magic.events import TextDelta
from llm_magic.options import Options
from llm_magic.providers import plugins
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.plan import Cell

ECHO = '''
"""A provider that answers with the first line of the prompt."""

from llm_magic.capabilities import Capabilities
from llm_magic.events import Attempt, Finished, TextDelta, Usage, UsageReport
from llm_magic.providers.base import ModelCard, Provider


class EchoProvider(Provider):
    """Says the prompt again, word by word."""

    kind = "echo"

    async def exchange(self, request, capabilities, *, timeout=None, max_retries=None):
        yield [Attempt(self.name, request.model, 200, "", 0.0)]  # counted in %llm_usage
        words = request.messages[-1].text.splitlines()[0].split(" ")
        for number, word in enumerate(words):
            yield [TextDelta(word if number == 0 else f" {word}")]
        yield [UsageReport(Usage(len(words), len(words))), Finished("stop")]

    def capabilities(self, model):
        return Capabilities(tools=False, context=100)

    async def list_models(self, refresh=False, *, patience=None):
        return [ModelCard("parrot", context=100)]
'''


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session that knows the class, as by the entry point of a package."""
    (tmp_path / "echo_backend.py").write_text(ECHO)
    monkeypatch.syspath_prepend(tmp_path)
    entries = {**plugins.entries(), "echo": EntryPoint("echo", "echo_backend:EchoProvider", plugins.GROUP)}
    monkeypatch.setattr(plugins, "entries", lambda: entries)
    settings = Settings()
    session = Session(settings, ProviderRegistry(parent=settings))
    api.activate(session)
    yield session
    api.activate(None)
    session.close()
    sys.modules.pop("echo_backend", None)


def test_the_whole_provider_takes_at_most_thirty_lines() -> None:
    assert len(ECHO.strip().splitlines()) <= 30


@pytest.mark.parametrize("model", ["echo:parrot", "echo:"])
def test_it_is_asked_from_python(echo: Session, model: str) -> None:
    response = api.LLM(model).ask("Hello there, you")
    assert (response.text, response.finish_reason, response.provider) == ("Hello there, you", "stop", "echo")
    assert response.usage is not None
    assert response.usage.output_tokens == 3
    assert api.LLM(model).ask("42", output_type=int).value == 42
    (row,) = echo.ledger.rows()
    assert (row.requests, row.output_tokens) == (2, 4)


def test_its_answer_streams(echo: Session) -> None:
    async def texts() -> list[str]:
        events = api.LLM("echo:parrot").stream("one two")
        return [event.text async for event in events if isinstance(event, TextDelta)]

    assert asyncio.run(texts()) == ["one", " two"]


@pytest.mark.parametrize("model", ["echo:parrot", "echo:"])
def test_its_answer_is_recorded(echo: Session, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    echo.settings.record, echo.settings.record_file = "once", str(tmp_path / "llm.jsonl")
    said = api.LLM(model).ask("Hello there, you")
    number = api.LLM(model).ask("42", output_type=int)
    monkeypatch.setattr(type(echo.registry.get("echo")), "exchange", None)
    monkeypatch.setattr(type(echo.registry.get("echo")), "list_models", None)
    echo.settings.record = "only"
    again = api.LLM(model).ask("Hello there, you")
    assert (again.text, again.usage, again.recorded) == (said.text, said.usage, True)
    assert (api.LLM(model).ask("42", output_type=int).value, number.recorded) == (42, False)
    assert (tmp_path / "llm.jsonl").read_text().count("\n") == 2 + (model == "echo:")


def test_what_it_sends_cannot_be_shown(echo: Session) -> None:
    with pytest.raises(UnsupportedError, match="echo sends its requests by code of its own") as caught:
        echo.preview(Cell("Hello", Options(model="echo:parrot", once=True)))
    assert "EchoProvider.preview" in caught.value.hint


def test_it_answers_the_cells_of_a_notebook(kernel: Kernel, folder: Path) -> None:
    (folder / "echo_backend.py").write_text(ECHO)
    kernel.run("import sys; sys.path.insert(0, '')").check()
    kernel.run("%config ProviderRegistry.providers = {'mine': {'class': 'echo_backend:EchoProvider'}}").check()
    assert kernel.run("%%llm -m mine:parrot\nHello there").check().of_type("text/plain")[0].startswith("Hello there")
    kernel.run("%%llm -m mine:parrot --as int -o number\n42").check()
    assert kernel.value("number") == 42
    listed = kernel.run("%llm_models mine").check().of_type("text/plain")[0]
    assert listed.split() == ["model", "context", "mine:parrot", "100"]
    used = kernel.run("%llm_usage").check().of_type("text/plain")[0].splitlines()[1]
    assert used.split()[:6] == ["mine", "parrot", "2", "2", "3", "3"]  # answers, requests, tokens
    tested = kernel.run("%llm_provider test mine").check().of_type("text/plain")[0]
    assert tested.startswith("mine answers: it lists 1 model in ")
    assert "UnsupportedError" in kernel.run("%%llm -m mine:parrot --dry-run\nHello").error_name


def test_an_instance_is_registered(kernel: Kernel, folder: Path) -> None:
    (folder / "echo_backend.py").write_text(ECHO)
    kernel.run("import sys; sys.path.insert(0, '')").check()
    kernel.run("from echo_backend import EchoProvider").check()
    kernel.run("get_ipython()._llm_magic.registry.register('parrots', provider=EchoProvider())").check()
    kernel.run("%%llm -m parrots: --as int -o seven\n7").check()
    assert kernel.value("seven") == 7
    assert "parrots:parrot" in kernel.run("%llm_models parrots").check().of_type("text/plain")[0]
