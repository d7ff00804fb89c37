"""Tools of real MCP servers, called by a scripted model through each door."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Answer, Received, ScriptedServer, chunk, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

PROGRAM = str(Path(__file__).parents[1] / "mcp_server.py")
SERVERS = {"tests": {"command": sys.executable, "args": [PROGRAM]}}


def calling(*calls: tuple[str, dict[str, Any]], rounds: int = 1) -> Callable[[Received], Answer]:
    """Return a model that calls tools once, and then says what they gave."""

    def answer(request: Received) -> Answer:
        results = [each for each in request.json["messages"] if each["role"] == "tool"]
        if len(results) < rounds * len(calls):
            return stream(
                chunk(
                    tool_calls=[
                        {
                            "index": at,
                            "id": f"c{at}",
                            "type": "function",
                            "function": {"name": name, "arguments": json.dumps(arguments)},
                        }
                        for at, (name, arguments) in enumerate(calls)
                    ]
                ),
                chunk(finish="tool_calls"),
            )
        return stream(chunk(" | ".join(str(each["content"]) for each in results)), chunk(finish="stop"))

    return answer


def offered(request: Received) -> list[str]:
    return [each["function"]["name"] for each in request.json["tools"]]


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(mcp_servers=SERVERS), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def llm_at(session: Session, server: ScriptedServer) -> LLM:
    session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
    return LLM("s:m")


def add_one(x: int) -> int:
    """Add one."""
    return x + 1


def test_functions_and_tools_of_a_server_side_by_side(session: Session) -> None:
    with ScriptedServer(calling(("add", {"a": 1, "b": 2}), ("add_one", {"x": 4}))) as model:
        response = llm_at(session, model).ask("Hi", tools=[add_one, "mcp:tests.add"])
    assert response.text == "3 | 5"
    assert offered(model.requests[-1]) == ["add_one", "add"]
    assert session.mcp_servers.running() == ("tests",)
    assert [(run.name, run.result, run.failed) for run in response.tool_calls] == [
        ("add", "3", False),
        ("add_one", "5", False),
    ]
