"""What the tests of MCP tools share: a session whose servers are scripted programs, and a model that calls tools."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Answer, Received, chunk, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

SCRIPTED = str(Path(__file__).parent / "scripted_server.py")
REAL = str(Path(__file__).parents[1] / "mcp_server.py")

Model = Callable[..., Callable[[Received], Answer]]


def program(*words: str, file: str = SCRIPTED, **settings: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": [file, *words], **settings}


@pytest.fixture
def server_log(tmp_path: Path) -> Path:
    """What the server `s` was asked, a line a message."""
    return tmp_path / "server.log"


@pytest.fixture
def session(server_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.chdir(tmp_path)
    servers = {
        "s": program(env={"SCRIPTED_LOG": str(server_log)}),
        "other": program(),
        **{word: program(word) for word in ("many", "hostile", "garbage", "hangs", "malformed", "empty")},
        "missing": {"command": "no-such-program"},
        "quits": {"command": sys.executable, "args": ["-c", "raise SystemExit('no database')"]},
    }
    session = Session(Settings(mcp_servers=servers), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


@pytest.fixture(scope="module")
def session_of_real_server() -> Iterator[Session]:
    """A session with the server `real`, of the official package, which takes a second to start."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MCP_TOKEN", "tok-of-the-server")
        servers = {"real": program(file=REAL, env={"TOKEN": "env:MCP_TOKEN"})}
        session = Session(Settings(mcp_servers=servers), ProviderRegistry())
        yield session
        session.close()


@pytest.fixture
def real(session_of_real_server: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.chdir(tmp_path)
    api.activate(session_of_real_server)
    yield session_of_real_server
    api.activate(None)


@pytest.fixture
def calling() -> Model:
    """Return a function that makes a model: it calls these tools in one round, and then says what they gave."""

    def model(*calls: tuple[str, dict[str, Any]]) -> Callable[[Received], Answer]:
        asked = [
            {
                "index": at,
                "id": f"c{at}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(given)},
            }
            for at, (name, given) in enumerate(calls)
        ]

        def answer(request: Received) -> Answer:
            results = [each["content"] for each in request.json["messages"] if each["role"] == "tool"]
            if not results and calls:
                return stream(chunk(tool_calls=asked), chunk(finish="tool_calls"))
            return stream(chunk(" | ".join(results) or "nothing"), chunk(finish="stop"))

        return answer

    return model


@pytest.fixture
def llm(request: pytest.FixtureRequest) -> Callable[[Any], LLM]:
    session = request.getfixturevalue("real" if "real" in request.fixturenames else "session")

    def at(server: Any) -> LLM:
        session.registry.add("m", "compatible", base_url=server.url, max_retries=0)
        return LLM("m:m")

    return at
