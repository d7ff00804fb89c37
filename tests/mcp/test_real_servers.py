"""Two real MCP servers, of Python and of npm: listed, called, and called by a real model over vLLM with strict tools.

`mcp-server-time` (its path in `LLM_MAGIC_TEST_MCP_TIME`) and `@modelcontextprotocol/server-everything` (its path, a
program or a `.js`, in `LLM_MAGIC_TEST_MCP_EVERYTHING`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.events import Event, Progress
from llm_magic.mcp.results import ToolOutput
from llm_magic.mcp.tool import tools_of
from llm_magic.messages import Image
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.tools import telling


def _path(name: str, package: str) -> str:
    pytest.importorskip("mcp", reason="needs the package mcp")
    path = os.environ.get(name, "")
    if not path:
        pytest.skip(f"needs the path of the MCP server {package}: set {name}")
    return path


@pytest.fixture(scope="module")
def time_server() -> dict[str, Any]:
    path = _path("LLM_MAGIC_TEST_MCP_TIME", "mcp-server-time")
    return {"command": path, "args": ["--local-timezone", "UTC"]}


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    path = _path("LLM_MAGIC_TEST_MCP_EVERYTHING", "@modelcontextprotocol/server-everything")
    return {"command": "node", "args": [path]} if path.endswith(".js") else {"command": path}


@pytest.fixture(scope="module")
def active() -> Iterator[Session]:
    session = Session(Settings(max_tool_rounds=2), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


@pytest.fixture
def session(active: Session, request: pytest.FixtureRequest) -> Session:
    """Return a session with those servers that there are."""
    servers: dict[str, Any] = {}
    for name, fixture in (("time", "time_server"), ("everything", "everything")):
        if fixture in request.fixturenames:
            servers[name] = request.getfixturevalue(fixture)
    active.settings.mcp_servers = {**active.settings.mcp_servers, **servers}
    return active


async def silent(_events: Any) -> None:
    pass


def call(session: Session, server: str, tool: str, **arguments: Any) -> ToolOutput:
    return session.loop.run(session.mcp_servers.call(server, tool, arguments))


def offered(session: Session, server: str) -> dict[str, Any]:
    listed = session.loop.run(session.mcp_servers.listed(server, silent))
    tools, _ = tools_of(server, listed, session.mcp_servers.call)
    return {each.name: each for each in tools}


def test_the_time_server(time_server: dict[str, Any], session: Session) -> None:
    tools = offered(session, "time")
    assert set(tools) >= {"get_current_time", "convert_time"}
    assert tools["convert_time"].tool.strict
    output = call(session, "time", "get_current_time", timezone="Asia/Tokyo")
    assert (output.failed, output.images) == (False, ())
    assert json.loads(output.text)["datetime"].endswith("+09:00")  # once: the structured content says the same
    assert call(session, "time", "get_current_time", timezone="Mars").failed
    assert session.mcp_servers.running() == ("time",)


def test_everything_that_a_server_may_return(everything: dict[str, Any], session: Session) -> None:
    assert {"echo", "get-sum", "get-tiny-image", "get-structured-content"} <= set(offered(session, "everything"))
    assert call(session, "everything", "echo", message="hé\n") == ToolOutput("Echo: hé\n")
    assert call(session, "everything", "get-sum", a=1, b=2).text == "The sum of 1 and 2 is 3."
    weather = call(session, "everything", "get-structured-content", location="Chicago").text
    assert set(json.loads(weather)) == {"temperature", "conditions", "humidity"}
    picture = call(session, "everything", "get-tiny-image")
    assert [type(image) for image in picture.images] == [Image]
    assert picture.images[0].media_type == "image/png"
    assert "[image 1: image/png, 20 × 20 pixels]" in picture.text
    annotated = call(session, "everything", "get-annotated-message", messageType="error", includeImage=True)
    assert annotated.text.startswith("Error: ")
    assert len(annotated.images) == 1
    links = call(session, "everything", "get-resource-links", count=2).text.splitlines()
    assert [line.partition(": ")[0] for line in links[1:]] == [
        "[link to demo://resource/dynamic/blob/1",
        "[link to demo://resource/dynamic/text/2",
    ]
    resource = call(session, "everything", "get-resource-reference", resourceType="Blob", resourceId=1).text
    assert "[resource demo://resource/dynamic/blob/1, text/plain, " in resource
    assert call(session, "everything", "no-such-tool").failed


def test_a_server_does_not_get_the_kernels_variables(
    everything: dict[str, Any], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "wJalrXUtnFEMI-K7MDENG-bPxRfiCY")
    monkeypatch.setenv("MY_TOKEN", "high-and-dry")
    own = {**everything, "env": {"LEVEL": "info", "TOKEN": "env:MY_TOKEN"}}
    session.settings.mcp_servers = {"own": own}
    variables = json.loads(call(session, "own", "get-env").text)
    assert variables["LEVEL"] == "info"
    assert variables["TOKEN"] == "***"  # it got it, and what it gives back is masked
    assert "OPENAI_API_KEY" not in variables


def test_progress_is_told(everything: dict[str, Any], session: Session) -> None:
    told: list[Event] = []

    async def emit(events: Any) -> None:
        told.extend(events)

    async def long() -> ToolOutput:
        telling.set(emit)
        return await session.mcp_servers.call(
            "everything", "trigger-long-running-operation", {"duration": 0.4, "steps": 2}
        )

    output = session.loop.run(long())
    assert output.text == "Long running operation completed. Duration: 0.4 seconds, Steps: 2."
    assert any(isinstance(event, Progress) for event in told)


def test_a_model_calls_both_kinds(
    time_server: dict[str, Any], everything: dict[str, Any], session: Session, vllm_url: str
) -> None:
    """By name, so that a very small model calls them: what it says in the arguments is kept to by strict tools."""
    session.registry.add("gpu", "vllm", base_url=vllm_url)
    model = LLM("gpu:smollm2")
    tools = ["mcp:time", "mcp:everything.get-structured-content", "mcp:everything.get-sum"]

    def asked(tool: str, **arguments: str) -> Any:
        line = json.dumps({"name": tool, "arguments": arguments})
        prompt = f"Answer with this line:\n<tool_call>{line}</tool_call>"
        return model.ask(prompt, tools=tools, tool_choice=tool, temperature=0, max_tokens=150)

    response = asked("get_current_time", timezone="Asia/Tokyo")
    called = response.tool_calls[0]
    assert called.name == "get_current_time"
    assert list(json.loads(called.arguments)) == ["timezone"]
    assert called.failed or "datetime" in json.loads(called.result)
    response = asked("get-structured-content", location="Chicago")
    called = response.tool_calls[0]
    assert json.loads(called.arguments)["location"] in {"New York", "Chicago", "Los Angeles"}
    assert set(json.loads(called.result)) == {"temperature", "conditions", "humidity"}
    assert [message.role for message in response.messages[:3]] == ["user", "assistant", "tool"]
