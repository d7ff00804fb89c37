"""`LLM.compare` and `acompare`: several models from Python, and the calls that ask one alone."""

from __future__ import annotations

import _thread
import asyncio
import json
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from echo import echo
from servers import HANG, Answer, Received, ScriptedServer, chunk, stream

from llm_magic import LLM, Comparison
from llm_magic.errors import Interrupted, LLMError, ModelNotFoundError, ModelsFailedError, OptionError
from llm_magic.messages import ToolCall
from llm_magic.session import Session

MCP_SERVER = Path(__file__).parents[1] / "mcp_server.py"


def add(session: Session, name: str, server: ScriptedServer) -> None:
    session.registry.add(name, "compatible", base_url=server.url, max_retries=0)


@pytest.mark.parametrize(
    "compare",
    [
        lambda prompt, **options: LLM("e:a,e:b").compare(prompt, **options),
        lambda prompt, **options: LLM(["e:a", "e:b"]).compare(prompt, **options),
        lambda prompt, **options: LLM("e:z").compare(prompt, ["e:a", "e:b"], **options),
        lambda prompt, **options: LLM(temperature=0).compare(prompt, models="e:a, e:b", **options),
        lambda prompt, **options: asyncio.run(LLM("e:a,e:b").acompare(prompt, **options)),
        lambda prompt, **options: asyncio.run(LLM().acompare(prompt, ("e:a", "e:b"), **options)),
    ],
)
def test_several_models_answer(session: Session, compare: Callable[..., Comparison]) -> None:
    with echo() as server:
        add(session, "e", server)
        found = compare("SAY 4", output_type=int, max_tokens=9)
    assert found.value == {"e:a": 4, "e:b": 4}
    assert list(found.responses) == ["e:a", "e:b"]
    assert found.errors == {}
    assert sorted(request.json["model"] for request in server.requests) == ["a", "b"]


def test_the_model_of_all_calls_may_be_several(session: Session) -> None:
    session.settings.model = "e:a,e:b"
    with echo() as server:
        add(session, "e", server)
        assert LLM().compare("SAY Hi").value == {"e:a": "Hi", "e:b": "Hi"}


def test_one_model_in_a_list_is_compared_with_none(session: Session) -> None:
    with echo() as server:
        add(session, "e", server)
        assert LLM().compare("SAY Hi", ["e:a"]).value == {"e:a": "Hi"}


@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        (lambda: LLM("e:a").compare("x"), OptionError, r"LLM.compare asks several models, and e:a is one"),
        (lambda: LLM("e:a").compare("x", ["e:a", "e:a"]), OptionError, "e:a stands twice"),
        (lambda: LLM("e:a").compare("x", ["e:a", "nobody"]), ModelNotFoundError, "'nobody'"),
        (lambda: LLM("e:a").compare("x", ["e:a", 1]), OptionError, "LLM.compare: models must be the name"),
        (lambda: LLM("e:a").compare("x", ["e:a", ""]), OptionError, "must be a list of names"),
        (lambda: LLM("e:a").compare("x", ["e:a,e:b"]), OptionError, "must be a list of names"),
        (lambda: LLM("e:a").compare("x", {"e:a"}), OptionError, "must be the name"),
        (lambda: LLM("e:a,").compare("x"), OptionError, "missing after the last comma"),
        (lambda: LLM("e:a,e:b").compare(""), LLMError, "The prompt is empty"),
        (lambda: LLM("e:a,e:b").compare("x", concurrency=2), OptionError, "LLM.map takes it"),
        (lambda: LLM("e:a,e:b").compare("x", on_error="maybe"), OptionError, "must be one of fail, keep"),
        (lambda: LLM("e:a,e:b").compare("x", model="c"), OptionError, "has no option model"),
        (lambda: LLM("e:a,e:b").compare("x", confirm=True), OptionError, "needs"),
        (lambda: LLM("e:a,e:b").ask("x"), OptionError, "'e:a,e:b' names several models, where one can be asked"),
        (lambda: LLM("e:a").ask("x", on_error="keep"), OptionError, "LLM.map takes it"),
        (lambda: LLM("e:a").ask("x", models=["e:b"]), OptionError, "LLM.compare.* and LLM.map.* ask several"),
        (lambda: LLM("e:a,e:b").compare("x", record_tools=True), OptionError, "record_tools"),
        (lambda: asyncio.run(LLM("e:a,e:b").aask("x")), OptionError, "names several models"),
        (lambda: LLM("e:a,e:b").map("{{ item }}", [1]), OptionError, "names several models"),
        (lambda: LLM("e:a,e:b").batch("{{ item }}", [1]), OptionError, "names several models"),
        (lambda: LLM("e:a,e:b").embed(["x"]), OptionError, "names several models"),
        (lambda: LLM(["e:a", 1]), OptionError, "LLM: model must be the name of one, not 1"),
        (lambda: LLM(5), OptionError, "LLM: model must be the name of one, not 5"),
    ],
)
def test_a_mistake_is_an_error_before_anything_is_sent(
    session: Session, ask: Callable[[], object], error: type[LLMError], says: str
) -> None:
    with echo() as server:
        add(session, "e", server)
        with pytest.raises(error, match=says) as caught:
            ask()
        assert " -" not in str(caught.value).replace("%%llm -m a,b", "")  # flags are for cells
        assert server.requests == []


def test_what_failed_is_an_error_with_the_comparison(session: Session) -> None:
    with echo() as server:
        add(session, "e", server)
        session.registry.add("gone", "compatible", base_url="http://127.0.0.1:9/v1", max_retries=0)
        llm = LLM("e:a,gone:m")
        with pytest.raises(ModelsFailedError, match=r"1 of 2 models failed\. gone:m: ConnectionFailedError") as caught:
            llm.compare("SAY Hi")
        found = llm.compare("SAY Hi", on_error="keep")
        same = LLM("e:a,gone:m", on_error="keep").compare("SAY Hi")
    assert "error.response.errors has the errors by model, error.response.responses what came" in caught.value.hint
    assert caught.value.response.value["e:a"] == found.value["e:a"] == same.value["e:a"] == "Hi"
    assert list(found.errors) == ["gone:m"]


def test_the_words_of_a_server_stay_as_they_are(session: Session) -> None:
    words = "_llm is full: say --schema or -t 0"
    refuses = Answer([json.dumps({"error": {"message": words}}).encode()], 400, {"content-type": "application/json"})
    with ScriptedServer(refuses) as one, echo() as server:
        add(session, "one", one)
        add(session, "e", server)
        with pytest.raises(ModelsFailedError) as caught:
            LLM("one:m,e:a").compare("SAY 4")
    assert words in caught.value.message
    assert words in caught.value.response.errors["one:m"].message


def _travelled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))  # noqa: S301 - our own


def test_the_hint_says_where_the_answer_of_the_model_is(session: Session) -> None:
    cut = stream(chunk("fo"), chunk(finish="length"))
    with ScriptedServer(cut) as one, echo() as server:
        add(session, "one", one)
        add(session, "e", server)
        with pytest.raises(ModelsFailedError) as caught:
            LLM("one:m,e:a").compare("SAY 4", output_type=int)
    error = caught.value
    assert "error.response.responses['one:m'].text has what came" in error.hint
    assert error.response.responses["one:m"].text == "fo"
    alone = error.response.errors["one:m"]
    assert "error.response.text has what came" in alone.hint
    assert alone.response.text == "fo"


def test_an_llm_of_several_models_travels_in_a_pickle(session: Session) -> None:
    with echo() as server:
        add(session, "e", server)
        llm = _travelled(LLM("e:a,e:b", temperature=0))
        assert repr(llm) == "LLM('e:a,e:b', temperature=0)"
        assert llm.compare("SAY Hi").value == {"e:a": "Hi", "e:b": "Hi"}
        session.settings.model = "e:c,e:d"
        llm = _travelled(LLM())
        assert list(llm.compare("SAY Hi").responses) == ["e:c", "e:d"]


def test_a_comparison_travels_in_a_pickle_and_stands_in_a_prompt(session: Session) -> None:
    with echo() as server:
        add(session, "e", server)
        found = _travelled(LLM("e:a,e:b").compare("SAY 4", output_type=int))
    assert (found.value, found._in_prompt_()) == ({"e:a": 4, "e:b": 4}, {"e:a": 4, "e:b": 4})


def test_on_confirm_is_asked_for_each_model_and_what_it_raises_ends_all(session: Session) -> None:
    asked: list[ToolCall] = []

    def f(x: int) -> int:
        """Add one."""
        return x + 1

    def allow(call: ToolCall) -> bool:
        asked.append(call)
        return True

    def broken(_: ToolCall) -> bool:
        raise ZeroDivisionError

    with echo() as server:
        add(session, "e", server)
        llm = LLM("e:a,e:b")
        found = llm.compare("SAY Hi", tools=[f], on_confirm=allow)
        with pytest.raises(ZeroDivisionError):
            llm.compare("SAY Hi", tools=[f], on_confirm=broken)
    assert len(asked) == 2
    assert [response.tool_calls[0].result for response in found.responses.values()] == ["2", "2"]


def test_an_interrupt_keeps_what_came(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = stream(chunk("Some"), HANG, done=False)
    with ScriptedServer(hangs) as one, ScriptedServer(hangs) as two:
        add(session, "one", one)
        add(session, "two", two)
        run: Any = session.loop.run

        def interrupted(coroutine: Any) -> Any:
            def when_it_came() -> None:
                for server in (one, two):
                    while not server.requests:
                        threading.Event().wait(0.005)
                _thread.interrupt_main()

            threading.Thread(target=when_it_came).start()
            return run(coroutine)

        with monkeypatch.context() as patch:
            patch.setattr(session.loop, "run", interrupted)
            with pytest.raises(Interrupted) as caught:
                LLM("one:m,two:m").compare("Hi")
        assert [server.requests[0].left.wait(5) for server in (one, two)] == [True, True]
    assert [each.finish_reason for each in caught.value.response.responses.values()] == ["interrupted"] * 2


def test_tools_of_an_mcp_server_serve_each_model(session: Session) -> None:
    pytest.importorskip("mcp")
    session.settings.mcp_servers = {"tests": {"command": sys.executable, "args": [str(MCP_SERVER)]}}

    def answer(request: Received) -> Answer:
        results = [each["content"] for each in request.json["messages"] if each["role"] == "tool"]
        if results:
            return stream(chunk(" | ".join(results)), chunk(finish="stop"))
        arguments = json.dumps({"a": 1, "b": {"a": 10, "b": 20}[request.json["model"]]})
        call = {"index": 0, "id": "c", "type": "function", "function": {"name": "add", "arguments": arguments}}
        return stream(chunk(tool_calls=[call]), chunk(finish="tool_calls"))

    with ScriptedServer(answer) as server:
        add(session, "e", server)
        found = LLM("e:a,e:b").compare("Add.", tools="mcp:tests.add")
    assert found.value == {"e:a": "11", "e:b": "21"}


def test_a_real_server_gives_a_value_for_each(session: Session, vllm_url: str) -> None:
    session.registry.add("v", "vllm", base_url=vllm_url)
    session.registry.aliases = {"lively": {"model": "v:", "temperature": 1.5}}
    found = LLM("v:smollm2,lively").compare("Is water wet?", choices=["yes", "no"], max_tokens=8)
    assert set(found.value.values()) <= {"yes", "no"}
    assert found.usage is not None
    assert found.usage.input_tokens == sum(each.usage.input_tokens for each in found.responses.values() if each.usage)
    assert found.seconds == max(response.seconds for response in found.responses.values())
