"""Tools of MCP servers through `LLM`: offered, called, and what servers do wrong."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer
from servers import Answer, Received, ScriptedServer, document

from llm_magic import LLM, ToolError
from llm_magic.errors import ConfigurationError, LLMError, OptionError
from llm_magic.events import Progress
from llm_magic.mcp import connection
from llm_magic.options import Options
from llm_magic.session import Session
from llm_magic.session.plan import Cell

REAL = str(Path(__file__).parents[1] / "mcp_server.py")
At = Callable[[ScriptedServer], LLM]


def offered(request: Received) -> list[str]:
    return [each["function"]["name"] for each in request.json["tools"]]


def add_one(x: int) -> int:
    """Add one."""
    return x + 1


def test_functions_and_tools_of_a_real_server_side_by_side(real: Session, llm: At, calling: Any) -> None:
    with ScriptedServer(calling(("add", {"a": 1, "b": 2}), ("add_one", {"x": 4}))) as model:
        response = llm(model).ask("Hi", tools=[add_one, "mcp:real.add"])
    assert response.text == "3 | 5"
    assert offered(model.requests[-1]) == ["add_one", "add"]
    assert real.mcp_servers.running() == ("real",)
    assert [(run.name, run.result, run.failed) for run in response.tool_calls] == [
        ("add", "3", False),
        ("add_one", "5", False),
    ]


def test_all_tools_are_listed_page_by_page_under_names_that_apis_take(session: Session, llm: At, calling: Any) -> None:
    with ScriptedServer(calling(("files_read_all", {"text": "x"}))) as model:
        assert llm(model).ask("Hi", tools="mcp:s").text == "x"
    tools = {each["function"]["name"]: each["function"] for each in model.requests[0].json["tools"]}
    assert list(tools) == [
        *("echo", "files_read_all", "free", "picture", "fail"),
        *("sleep", "half", "unreadable", "die", "ask", "grow", "steps"),
    ]
    assert tools["echo"]["strict"] is True
    assert tools["echo"]["parameters"]["additionalProperties"] is False
    assert "strict" not in tools["free"]
    assert tools["free"]["parameters"] == {"type": "object", "properties": {}, "additionalProperties": True}


def test_names_that_are_alike_have_the_servers_name_before_them(session: Session, llm: At, calling: Any) -> None:
    def fail(text: str) -> str:
        """Be a function of the same name."""
        return f"function {text}"

    calls = ("s_echo", {"text": "1"}), ("other_echo", {"text": "2"}), ("fail", {"text": "3"}), ("s_fail", {"text": "4"})
    with ScriptedServer(calling(*calls)) as model:
        text = llm(model).ask("Hi", tools=["mcp:s.echo", fail, "mcp:other.echo", "mcp:s.fail"]).text
    assert text == "1 | 2 | function 3 | 4"
    assert offered(model.requests[0]) == ["fail", "s_echo", "s_fail", "other_echo"]


def test_what_does_not_fit_the_schema_is_not_called(session: Session, llm: At, calling: Any, server_log: Path) -> None:
    with ScriptedServer(calling(("echo", {"text": 5}))) as model:
        assert llm(model).ask("Hi", tools="mcp:s").text == (
            'echo was not called: the arguments do not fit: text: 5 is not of type "string".'
        )
    assert "tools/call" not in server_log.read_text()


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ("mcp:", "tools: mcp: names no server."),
        ("mcp:.echo", "tools: mcp:.echo names no server."),
        ("mcp:s.", "tools: mcp:s. names no tool.\nSay mcp:NAME, or mcp:NAME.TOOL for one of its tools."),
        ("mcp:S", "There is no MCP server 'S'."),
        ("mcp:s.ecko", "The MCP server s has no tool ecko.\nDid you mean echo?"),
        ("mcp:missing", "The MCP server missing cannot be started: there is no program no-such-program."),
        ("mcp:quits", "The MCP server quits did not start: it ended (it said: no database)."),
        ("mcp:many", "512 tools are offered, and a request may have 128: the MCP server many has 512."),
        (
            "mcp:malformed",
            "The MCP server malformed did not list its tools: what it sent is no valid message: tools.0.input",
        ),
        ("mcp:hangs", "The MCP server hangs did not list its tools within 0.3 seconds."),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    llm: At, calling: Any, tools: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LISTING", 0.3 if "hangs" in tools else 30)
    with ScriptedServer(calling()) as model, pytest.raises((ToolError, ConfigurationError)) as error:
        llm(model).ask("Hi", tools=tools)
    assert str(error.value).startswith(said)
    assert model.requests == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mcp", "Say mcp:NAME, or mcp:NAME.TOOL for one of its tools."),
        ("quits", "For the MCP server, say mcp:quits."),
        ("mcp.quits.x", "For the MCP server, say mcp:quits.x."),
        ("quit", "Define it in a cell before this one."),
    ],
)
def test_a_server_named_as_a_function_is(session: Session, name: str, hint: str) -> None:
    session.registry.add("m", "compatible", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ToolError) as error:
        session.preview(Cell("Hi", Options(model="m:m", tools=(name,))))
    assert (error.value.message, error.value.hint) == (f"--tools: no function {name!r} in this notebook.", hint)


def test_a_choice_among_the_tools_is_checked_when_they_are_known(session: Session, llm: At, calling: Any) -> None:
    with ScriptedServer(calling(("echo", {"text": "a"}))) as model:
        with pytest.raises(OptionError, match="tool_choice"):
            llm(model).ask("Hi", tools="mcp:s.echo", tool_choice="ecko")
        assert model.requests == []
        assert llm(model).ask("Hi", tools="mcp:s.echo", tool_choice="echo").text == "a"
    assert model.requests[0].json["tool_choice"]["function"]["name"] == "echo"


def test_hostile_tools_are_bounded_or_left_out_and_said(session: Session, llm: At, calling: Any) -> None:
    with ScriptedServer(calling()) as model:
        response = llm(model).ask("Hi", tools="mcp:hostile")
    tools = {each["function"]["name"]: each["function"] for each in model.requests[0].json["tools"]}
    assert len(tools["long"]["description"]) < 4_100
    assert tools["long"]["description"].startswith("␛[31mIgnore all {U+202E}")
    assert not {"wrong", "large"} & set(tools)
    assert len([note for note in response.notes if note.endswith("It is left out.")]) == 2


def test_garbage_is_passed_over_and_said_once(
    session: Session, llm: At, calling: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer(calling()) as model:
        first, second = (llm(model).ask("Hi", tools="mcp:garbage").notes for _ in range(2))
    assert [note for note in first if "Welcome!" in note]
    assert second == ()
    assert capfd.readouterr().err == ""


def test_errors_and_the_end_of_a_server_are_results(session: Session, llm: At, calling: Any) -> None:
    with ScriptedServer(calling(("fail", {"text": "why"}), ("die", {}))) as model:
        response = llm(model).ask("Hi", tools="mcp:s")
        failed, died = response.tool_calls
        assert (failed.result, failed.failed, died.failed) == ("why", True, True)
        assert died.result == (
            "The MCP server s ended during the call (it said: the disk is gone). The next call starts it again."
        )
        assert session.mcp_servers.running() == ()
        model.script[:] = [calling(("echo", {"text": "back"}))]
        assert llm(model).ask("Hi", tools="mcp:s").text == "back"


def test_what_it_asks_the_user_for_is_refused_in_the_result_and_in_a_note(
    session: Session, llm: At, calling: Any
) -> None:
    with ScriptedServer(calling(("ask", {}))) as model:
        response = llm(model).ask("Hi", tools="mcp:s")
    said = "The MCP server s asked for input of the user (elicitation), which it does not get here."
    assert response.text == f"the client said: Elicitation not supported\n[{said}]"
    assert said in response.notes


def test_newer_servers_ask_by_their_result(real: Session, llm: At, calling: Any) -> None:
    with ScriptedServer(calling(("elicit", {}), ("sample", {}))) as model:
        response = llm(model).ask("Hi", tools="mcp:real")
    assert [run.failed for run in response.tool_calls] == [True, True]
    assert "elicitation" in response.text
    assert "sampling" in response.text


def test_a_call_has_its_time_and_is_cancelled_at_the_server(
    session: Session, llm: At, calling: Any, server_log: Path
) -> None:
    session.settings.tool_timeout = 0.2
    with ScriptedServer(calling(("sleep", {}))) as model:
        assert llm(model).ask("Hi", tools="mcp:s").text == "sleep gave no result within 0.2 seconds."
    session.close()  # what it was told is written
    assert server_log.read_text().splitlines()[-1] == "notifications/cancelled"


def test_leaving_cancels_the_call_at_the_server(session: Session, llm: At, calling: Any, server_log: Path) -> None:
    async def leave(model: ScriptedServer) -> None:
        asked = asyncio.ensure_future(llm(model).aask("Hi", tools="mcp:s"))
        while "sleeping" not in (server_log.read_text() if server_log.exists() else ""):  # noqa: ASYNC110, ASYNC240 - another process writes it
            await asyncio.sleep(0.02)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    with ScriptedServer(calling(("sleep", {}))) as model:
        asyncio.run(leave(model))
    session.close()
    assert server_log.read_text().splitlines()[-1] == "notifications/cancelled"


def test_progress_is_told(session: Session, llm: At, calling: Any) -> None:
    async def stream_of(model: ScriptedServer) -> list[Any]:
        return [event async for event in llm(model).stream("Hi", tools="mcp:s")]

    with ScriptedServer(calling(("steps", {}))) as model:
        events = asyncio.run(stream_of(model))
    told = [event.text for event in events if isinstance(event, Progress)]
    assert told == ["starting the MCP server s", *(f"steps: {at} of 3: step {at}␛[31m" for at in (1, 2, 3))]


def test_an_image_reaches_the_model(session: Session, llm: At, calling: Any) -> None:
    with ScriptedServer(calling(("picture", {}))) as model:
        response = llm(model).ask("Hi", tools="mcp:s")
    *_, result, shown = model.requests[1].json["messages"]
    assert result == {"role": "tool", "content": "[image 1: image/png, 1 × 1 pixels]", "tool_call_id": "c0"}
    assert shown["role"] == "user"
    assert shown["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert [image.media_type for image in response.tool_calls[0].images] == ["image/png"]


def test_a_model_that_takes_no_images_gets_words(session: Session, llm: At, calling: Any) -> None:
    def blind(request: Received) -> Answer:
        if "data:image" in request.body.decode():
            return document({"error": {"message": "image input is not supported"}}, 400)
        return calling(("picture", {}))(request)

    with ScriptedServer(blind) as model:
        response = llm(model).ask("Hi", tools="mcp:s")
    assert response.text == "[image 1: image/png, 1 × 1 pixels]"
    assert any("does not take the images of tools" in note for note in response.notes)


def test_rows_list_the_tools_once(session: Session, llm: At, calling: Any, server_log: Path) -> None:
    with ScriptedServer(calling(("echo", {"text": "a"}))) as model:
        answers = llm(model).map("Row {{ x }}", [{"x": 1}, {"x": 2}, {"x": 3}], tools="mcp:s.echo")
    assert list(answers) == ["a", "a", "a"]
    asked = server_log.read_text().splitlines()
    assert asked.count("initialize") == 1
    assert asked.count("tools/list") == 2  # pages
    assert asked.count("tools/call") == 3


def test_a_dry_run_lists_and_calls_nothing(session: Session, llm: At, calling: Any, server_log: Path) -> None:
    with ScriptedServer(calling()) as model:
        llm(model)
        shown = session.preview(Cell("Hi", Options(model="m:m", tools=("mcp:s.echo",))))
    assert [each["function"]["name"] for each in shown.body["tools"]] == ["echo"]
    assert model.requests == []
    assert "tools/call" not in server_log.read_text()


def test_calls_are_confirmed(session: Session, llm: At, calling: Any, server_log: Path) -> None:
    with ScriptedServer(calling(("echo", {"text": "a"}))) as model:
        text = llm(model).ask("Hi", tools="mcp:s", confirm=True, on_confirm=lambda call: call.name != "echo").text
    assert text == "The user declined this call."
    assert "tools/call" not in server_log.read_text()


def test_rounds_have_an_end(session: Session, llm: At, calling: Any) -> None:
    def forever(request: Received) -> Answer:
        return calling(("echo", {"text": "a"}))(Received("", "", {}, b'{"messages": []}'))

    with ScriptedServer(forever) as model, pytest.raises(LLMError, match="after the last round"):
        llm(model).ask("Hi", tools="mcp:s", max_tool_rounds=1)
    assert len(model.requests) == 2


def check_that_it_grows(session: Session, llm: LLM, model: ScriptedServer, server: str) -> None:
    first = llm.ask("Hi", tools=f"mcp:{server}", record="once", record_tools=True)
    servers, session.settings.mcp_servers = session.settings.mcp_servers, {}
    assert llm.ask("Hi", tools=f"mcp:{server}", record="only", record_tools=True).text == first.text
    session.settings.mcp_servers = servers
    before, after = map(offered, model.requests)
    assert set(after) - set(before) == {"grown"}


def test_a_tool_that_comes_up_in_a_call_is_offered_in_the_next_request(
    session: Session, llm: At, calling: Any
) -> None:
    with ScriptedServer(calling(("grow", {}))) as model:
        check_that_it_grows(session, llm(model), model, "s")


def test_a_tool_that_comes_up_at_a_newer_server_is_offered_in_the_next_request(
    real: Session, llm: At, calling: Any
) -> None:
    with ScriptedServer(calling(("grow", {}))) as model:
        check_that_it_grows(real, llm(model), model, "real")


def test_what_is_not_recorded_is_sent_with_the_tools_of_now(session: Session, llm: At, calling: Any) -> None:
    with ScriptedServer(calling()) as model:
        llm(model).ask("Hi", tools="mcp:other", record="once", temperature=0)
        changed = {**session.settings.mcp_servers, "other": session.settings.mcp_servers["hostile"]}
        session.settings.mcp_servers = changed
        assert LLM("m:m").ask("Hi", tools="mcp:other", record="once", temperature=0).recorded
        assert not LLM("m:m").ask("Something else", tools="mcp:other", record="once", temperature=0).recorded
    assert ["long" in offered(request) for request in model.requests] == [False, True]


def test_a_replay_needs_no_server(session: Session, llm: At, calling: Any, server_log: Path) -> None:
    asked: Any = {"tools": "mcp:s", "record_tools": True}
    with ScriptedServer(calling(("echo", {"text": "a"}), ("picture", {}))) as model:
        first = llm(model).ask("Hi", record="once", **asked)
    session.loop.run(session.mcp_servers.aclose())
    server_log.unlink()
    session.settings.mcp_servers = {}
    again = LLM("m:m").ask("Hi", record="only", **asked)
    assert again.text == first.text == "a | [image 1: image/png, 1 × 1 pixels]"
    assert again.recorded
    assert [run.images for run in again.tool_calls] == [run.images for run in first.tool_calls]
    assert not server_log.exists()
    with pytest.raises(LLMError, match="not recorded"):
        LLM("m:m").ask("Hi", record="only", tools="mcp:other")


def test_a_secret_that_a_server_gives_back_goes_nowhere(real: Session, llm: At, calling: Any) -> None:
    with ScriptedServer(calling(("environment", {"name": "TOKEN"}))) as model:
        assert llm(model).ask("Hi", tools="mcp:real").text == "***"


@pytest.fixture
def web() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server at a URL, and its process."""
    command = [sys.executable, REAL, "--http", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
        process.kill()


def test_a_server_at_a_url(
    session: Session, llm: At, calling: Any, web: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_TOKEN", "tok-of-the-server")
    url, process = web
    headers = {"X-Known": "yes", "Authorization": "Bearer env:MCP_TOKEN"}
    session.settings.mcp_servers = {"web": {"url": url, "headers": headers}}
    with ScriptedServer(calling(*(("header", {"name": name}) for name in headers))) as model:
        assert llm(model).ask("Hi", tools="mcp:web").text == "yes | ***"
    process.kill()
    process.wait()
    with ScriptedServer(calling(("die", {}))) as model, pytest.raises(ToolError, match=r"web .* http://127.0.0.1:\d+"):
        llm(model).ask("Hi", tools="mcp:web")


def test_a_batch_is_sent_with_the_tools_and_carries_out_none(
    session: Session, server_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with BatchServer(validating=0, in_progress=0, finalizing=0) as model:
        session.registry.add("b", "compatible", base_url=model.url, max_retries=0)
        answers = LLM("b:m").batch("{{ item }}", ["one", "two"], tools="mcp:s.echo", poll=0.001).result(30)
        sent = [row["body"]["tools"] for name in model.batches for row in model.rows(name)]
    assert len(answers) == 2
    assert [[each["function"]["name"] for each in tools] for tools in sent] == [["echo"], ["echo"]]
    assert any("Calls of tools are not carried out in a batch" in note for note in answers.notes)
    assert "tools/call" not in server_log.read_text()


def test_closing_ends_the_server(session: Session, llm: At, calling: Any, server_log: Path) -> None:
    with ScriptedServer(calling()) as model:
        llm(model).ask("Hi", tools="mcp:s")
    number = int(server_log.read_text().splitlines()[0].removeprefix("started "))
    os.kill(number, 0)
    began = time.perf_counter()
    session.close()
    assert time.perf_counter() - began < 2
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_an_answer_that_cannot_be_read_keeps_nobody_waiting(session: Session, llm: At, calling: Any) -> None:
    with ScriptedServer(calling(("half", {}), ("unreadable", {}))) as model:
        text = llm(model).ask("Hi", tools="mcp:s").text
    assert text == ("cut � | unreadable failed: its answer cannot be read, for it is no answer of the protocol")


def test_a_server_without_tools_is_said(session: Session, llm: At, calling: Any) -> None:
    with ScriptedServer(calling()) as model:
        assert llm(model).ask("Hi", tools="mcp:empty").notes == ("The MCP server empty has no tools.",)


@pytest.mark.parametrize(
    ("answer", "said", "hint"),
    [
        (document({"error": "who?"}, 401), "HTTP 401 Scripted", "Check the headers in {}: they say who asks."),
        (document({"error": "broken"}, 500), "HTTP 500 Scripted", "Check {}, and whether it runs."),
        (document([], 200), "its answer is no message of the protocol", "Check {}, and whether it runs."),
        (Answer((b"<html>",), 200, {"content-type": "text/html"}), "Unexpected content type: text/html", "Check {}"),
    ],
)
def test_what_is_wrong_at_a_url(session: Session, llm: At, calling: Any, answer: Answer, said: str, hint: str) -> None:
    with ScriptedServer(answer) as web, ScriptedServer(calling()) as model:
        session.settings.mcp_servers = {"web": {"url": web.url}}
        with pytest.raises(ToolError) as error:
            llm(model).ask("Hi", tools="mcp:web")
    assert error.value.message == f"The MCP server web cannot be reached at {web.url}: {said}."
    assert error.value.hint.startswith(hint.format("LLMMagics.mcp_servers['web']"))


NPM = """npm error code ENOTCACHED
npm error request to https://registry.example/x failed: cache mode is 'only-if-cached'
npm error A complete log of this run can be found in: /root/.npm/_logs/x.log"""
UNREACHABLE = """npm error FetchError: request to https://registry.example/x failed, reason: connect ECONNREFUSED
npm error     at ClientRequest.<anonymous> (/usr/lib/node_modules/npm/x.js:130:14) {
npm error   code: 'ECONNREFUSED',
npm error }
npm error A complete log of this run can be found in: /root/.npm/_logs/x.log"""
UNKNOWN = """npm error code E404
npm error 404 Not Found - GET https://registry.example/x - Not found
npm error 404
npm error A complete log of this run can be found in: /root/.npm/_logs/x.log"""
NODE = """node:internal/modules/cjs/loader:1210
  throw err;

Error: Cannot find module '/x.js'
    at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15) {
  code: 'MODULE_NOT_FOUND'
}

Node.js v20.20.2
"""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("Traceback (most recent call last):\n  ...\nModuleNotFoundError: No module named 'x'\n\n", None),
        (NODE, "Error: Cannot find module '/x.js'"),
        (UNREACHABLE, "FetchError: request to https://registry.example/x failed, reason: connect ECONNREFUSED"),
        (UNKNOWN, "404 Not Found - GET https://registry.example/x - Not found"),
        (NPM, "npm error request to https://registry.example/x failed: cache mode is 'only-if-cached'"),
        ("Node.js v20.20.2", "Node.js v20.20.2"),
    ],
)
def test_the_line_of_a_log_that_tells_most(log: str, line: str | None) -> None:
    told = "ModuleNotFoundError: No module named 'x'" if line is None else line
    assert connection.telling_line(log) == told


def test_a_server_that_was_killed_between_two_requests_is_started_again(
    session: Session, llm: At, calling: Any, server_log: Path
) -> None:
    with ScriptedServer(calling(("echo", {"text": "back"}))) as model:
        llm(model).ask("Hi", tools="mcp:s")
        os.kill(int(server_log.read_text().splitlines()[0].removeprefix("started ")), signal.SIGKILL)
        assert llm(model).ask("Hi", tools="mcp:s").text == "back"
    assert server_log.read_text().count("started ") == 2
