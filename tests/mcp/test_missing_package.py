"""Without the extra `mcp`: what needs it says how to install it, and nothing else is lost."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from servers import ScriptedServer, chunk, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import ConfigurationError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    for name in [name for name in sys.modules if name == "mcp" or name.startswith("mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)  # as where it is not installed
    servers = {"tests": {"command": sys.executable, "args": ["-c", "pass"]}, "docs": {"url": "https://127.0.0.1:9/mcp"}}
    session = Session(Settings(mcp_servers=servers), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


@pytest.mark.parametrize("name", ["tests", "docs.search"])
def test_it_is_said(session: Session, name: str) -> None:
    with ScriptedServer(stream(chunk("Hello"), chunk(finish="stop"))) as model:
        session.registry.add("s", "compatible", base_url=model.url)
        with pytest.raises(ConfigurationError) as caught:
            LLM("s:m").ask("Hi", tools=[double, f"mcp:{name}"])
        assert str(caught.value) == 'MCP servers need the package mcp.\npip install "llm_magic[mcp]"'
        assert model.requests == []
        assert LLM("s:m").ask("Hi", tools=[double]).text == "Hello"
