"""Function calls that nobody offered here, and those of several answers: part of the answer, said, and not run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kernels import Kernel
from servers import Answer, ScriptedServer, chunk, document, stream
from shown import plain

from llm_magic import LLM, api
from llm_magic.capabilities import Capabilities
from llm_magic.config.settings import Settings
from llm_magic.errors import EmptyAnswerError, InvalidValueError
from llm_magic.providers.compatible import CompatibleProvider
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.response import ToolRun
from llm_magic.session import Session

OFFERED = json.dumps([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}])
PARIS = '{"city": "Paris"}'
RUN = ToolRun("c1", "weather", PARIS)


def call(name: str = "weather", arguments: str = PARIS, identity: str = "c1") -> dict[str, Any]:
    return {"index": 0, "id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def choice(index: int, finish: str = "stop", **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


CALLS: dict[str, tuple[str, Answer]] = {
    "chat, streamed": ("chat", stream(choice(0, "tool_calls", tool_calls=[call()]))),
    "chat, whole": (
        "chat",
        document({"choices": [{"message": {"content": None, "tool_calls": [call()]}, "finish_reason": "tool_calls"}]}),
    ),
    "responses": (
        "responses",
        document({
            "object": "response", "status": "completed",
            "output": [{"type": "function_call", "call_id": "c1", "name": "weather", "arguments": PARIS}],
        }),
    ),
}  # fmt: skip


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def llm_at(session: Session, server: ScriptedServer) -> LLM:
    session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
    return LLM("s:m")


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_nobody_offered_here_is_the_answer(session: Session, name: str) -> None:
    used, served = CALLS[name]
    with ScriptedServer(served) as server:
        response = llm_at(session, server).ask("Weather?", api=used, param={"tools": json.loads(OFFERED)})
    assert response.tool_calls == (RUN,)
    assert (response.text, response.value, response.finish_reason) == ("", "", "tool_calls")
    assert response.notes == (
        f"Not run, for --tools does not offer it: weather({PARIS}). _llm.tool_calls has it.",
    )  # fmt: skip


def test_in_a_cell_it_is_said_in_one_line(kernel: Kernel) -> None:
    first = stream(chunk("A moment."), choice(0, "tool_calls", tool_calls=[call()]))
    with ScriptedServer(first, stream(chunk("Yes."), choice(0))) as server:
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        ran = kernel.run(f"%%llm -m there:m -p tools='{OFFERED}' -o said\nWeather?").check()
        assert f"Not run, for --tools does not offer it: weather({PARIS}). _llm.tool_calls has it." in plain(ran)
        assert kernel.value("said") == "A moment."
        assert kernel.value("[(run.arguments, run.result) for run in _llm.tool_calls]") == [(PARIS, None)]
        kernel.run("%%llm -m there:m\nAnd now?").check()
        assert [message["role"] for message in server.requests[1].json["messages"]] == ["user", "assistant", "user"]
        assert "tool_calls" not in server.requests[1].json["messages"][1], "no server takes a call without its result"


def test_a_call_is_no_value(session: Session) -> None:
    with ScriptedServer(CALLS["chat, streamed"][1]) as server, pytest.raises(InvalidValueError) as caught:
        llm_at(session, server).ask("How many?", output_type=int, retries_invalid=0)
    assert caught.value.message == f"The answer is no int, it calls weather({PARIS})."
    assert caught.value.response.tool_calls == (RUN,)


def test_calls_of_each_of_several_answers(session: Session) -> None:
    other = call("time", "{}", "c2")
    both = stream(choice(0, "tool_calls", tool_calls=[call()]), choice(1, "tool_calls", tool_calls=[other]))
    with ScriptedServer(both) as server:
        response = llm_at(session, server).ask("Weather?", n=2)
    assert [one.tool_calls for one in response.alternatives] == [(RUN,), (ToolRun("c2", "time", "{}"),)]
    assert [one.finish_reason for one in response.alternatives] == ["tool_calls", "tool_calls"]
    assert (response.tool_calls, response.value) == ((RUN,), ["", ""])


def test_in_a_cell_the_calls_of_several_answers_are_shown(kernel: Kernel) -> None:
    served = stream(choice(0, content="Sunny."), choice(1, "tool_calls", tool_calls=[call()]))
    with ScriptedServer(served) as server:
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        ran = kernel.run("%%llm -m there:m --n 2\nWeather?").check()
    assert any("calls weather(" in str(output) for output in ran.outputs)


def test_several_answers_that_call_tools(session: Session) -> None:
    asked: list[str] = []

    def weather(city: str) -> str:
        asked.append(city)
        return "sunny"

    berlin = call(arguments='{"city": "Berlin"}', identity="c2")
    both = stream(choice(0, "tool_calls", tool_calls=[call()]), choice(1, "tool_calls", tool_calls=[berlin]))
    with ScriptedServer(both, stream(choice(0, content="Sunny."), choice(1, content="Fine."))) as server:
        response = llm_at(session, server).ask("Weather?", n=2, tools=[weather])
    assert asked == ["Paris"]
    assert (response.value, response.tool_calls) == (["Sunny.", "Fine."], (ToolRun("c1", "weather", PARIS, "sunny"),))
    assert response.notes == ("2 answers call tools: the calls of answer 1 are run and go on.",)


FORCED = Capabilities(dialects={"json": "tool_call"})


def forced(session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, **asked: Any) -> Any:
    llm = llm_at(session, server)
    monkeypatch.setattr(CompatibleProvider, "capabilities", lambda _self, _model: FORCED)
    return llm.ask("How many?", output_type=int, **asked)


def test_the_answer_as_a_forced_call(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    value = call("int", '{"value": 4}')
    with ScriptedServer(stream(choice(0, content="Sure. ", tool_calls=[value]))) as server:
        response = forced(session, server, monkeypatch)
        sent = server.requests[0].json
        assert sent["tool_choice"]["function"]["name"] == sent["tools"][0]["function"]["name"]
    assert (response.value, response.text, response.reasoning) == (4, '{"value": 4}', "Sure. ")
    assert (response.tool_calls, response.notes) == ((), ())
    five = call("int", '{"value": 5}')
    with ScriptedServer(stream(choice(0, tool_calls=[value]), choice(1, tool_calls=[five]))) as server:
        response = forced(session, server, monkeypatch, n=2)
    assert (response.value, [one.value for one in response.alternatives]) == ([4, 5], [4, 5])
    with ScriptedServer(stream(chunk('{"value": '), chunk("6}", finish="stop"))) as server:
        assert forced(session, server, monkeypatch).value == 6


def test_an_answer_that_is_not_there_yet(session: Session) -> None:
    queued = document({"object": "response", "status": "queued", "output": [], "background": True})
    for typed in ({}, {"output_type": int}):
        with ScriptedServer(queued) as server, pytest.raises(EmptyAnswerError) as caught:
            llm_at(session, server).ask("Hi", api="responses", param={"background": True}, **typed)
        assert caught.value.message.endswith("gave no answer yet: its response is queued.")
        assert caught.value.hint == "Ask without `background`."
