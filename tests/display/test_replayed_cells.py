"""A cell that is replayed, in a real kernel: it shows and binds what it did when it was asked, and sends nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel, Ran
from servers import Answer, ScriptedServer, chunk, stream

SETUP = """
from typing import Literal
said = ["noon"]
def clock(zone: str) -> str:
    "Tell the time."
    return said[-1]
def loud(zone: str) -> str:
    "Tell the time."
    print("ticking")
    return "noon"
"""
PEOPLE = '[{"name": "Ada", "born": 1815}, {"name": "Bo", "born": 1900}]'


@pytest.fixture
def server(kernel: Kernel, folder: Path) -> Iterator[ScriptedServer]:
    kernel.run("%reload_ext llm_magic").check()
    kernel.run(SETUP).check()
    with ScriptedServer() as server:
        kernel.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)")
        kernel.run("%config LLMMagics.model = 's:m'").check()
        kernel.run("%config LLMMagics.record = 'once'").check()
        yield server


def slowly(*pieces: str, **delta: Any) -> Answer:
    steps: list[Any] = [chunk(**delta)] if delta else []
    for piece in pieces:
        steps += [chunk(piece), 0.02]
    return stream(*steps, chunk(finish="stop"), {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 9}})


def calls(name: str, said: str = "") -> Answer:
    call = {"index": 0, "id": "c-1", "type": "function", "function": {"name": name, "arguments": '{"zone": "x"}'}}
    steps: list[Any] = [chunk(reasoning_content="Hm, "), 0.02, chunk(reasoning_content="well.")]
    return stream(*steps, *([chunk(said), 0.02] if said else []), chunk(tool_calls=[call]), chunk(finish="tool_calls"))


def several(*texts: str) -> Answer:
    def each(deltas: list[dict[str, str]], finish: str | None = None) -> list[dict[str, Any]]:
        choices = [{"index": at, "delta": delta, "finish_reason": finish} for at, delta in enumerate(deltas)]
        return [{"choices": [choice]} for choice in choices]

    begun, more = each([{"content": ""} for _ in texts]), each([{"content": text} for text in texts])
    return stream(*begun, *more, *each([{} for _ in texts], "stop"))


TEXT = slowly("# Title\n\n", "Let \\(a\\) be.\n\n", "```python\nx = 1\n\n", "y = 2\n```\n\n", "The *end*")
CELLS: dict[str, tuple[list[Answer], str]] = {
    "text": ([TEXT], "%%llm --once\nx"),
    "in a conversation": ([TEXT], "%%llm\nx"),
    "shown as text": ([TEXT], "%%llm --once --show text\nx"),
    "shown as code": ([TEXT], "%%llm --once --show code\nx"),
    "shown as JSON": ([slowly('{"a": ', "[1, 2]}")], "%%llm --once --show json\nx"),
    "not shown": ([TEXT], "%%llm --once --show none -o y\nx"),
    "not streamed": ([TEXT], "%%llm --once --no-stream\nx"),
    "reasoning": ([slowly("So ", "it is.", reasoning_content="Hm, well.")], "%%llm --once\nx"),
    "a line": ([TEXT], "before = 1\nprint('a')\n%llm --once x\nprint('b')"),
    "lines": ([slowly("one"), slowly("two")], "for each in 'ab':\n    %llm --once {{ each }}"),
    "a value": ([slowly('{"val', 'ue": "yes"}')], '%%llm --once --as Literal["yes", "no"] -o y\nx'),
    "a table": ([slowly(PEOPLE[:20], PEOPLE[20:])], '%%llm --once --as "list[dict[str, int | str]]" -o y\nx'),
    "asked again": ([slowly('"never"'), slowly('"yes"')], '%%llm --once --as Literal["yes", "no"]\nx'),
    "several": ([several("*one*", "two")], "%%llm --once --n 2 -o y\nx"),
    "tools": ([calls("clock", "Let me see.\n\nSo"), slowly("It is ", "noon.")], "%%llm --once --tools clock\nx"),
    "tools in a line": ([calls("clock", "Let me see."), slowly("It is noon.")], "y = 1\n%llm --once --tools clock x"),
    "a call alone": ([calls("clock"), slowly("It is ", "noon.")], "%%llm --once --tools clock\nx"),
    "a tool that prints": ([calls("loud"), slowly("It is ", "noon.")], "%%llm --once --tools loud\nx"),
    "a mark of hidden text": ([slowly("<script>alert(1)</script>", "\x1b[2J \\[x\n")], "%%llm --once\nx"),
    "in the foreground": ([TEXT], "%%llm -b --once -o y\nx"),
}


def without_mark(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return outputs without what tells that they come from a recording."""
    outputs = copy.deepcopy(outputs)
    for output in outputs:
        if "llm_magic" in output.get("metadata", {}):
            assert output["metadata"]["llm_magic"].pop("recorded") is True
    return outputs


def kinds(ran: Ran) -> list[str]:
    return [message["msg_type"] for message in ran.messages if message["msg_type"] not in {"status", "execute_input"}]


def bound(kernel: Kernel) -> Any:
    """Return what is bound: the variable and all of the response but headers, which are not recorded."""
    fields = "{name: repr(value) for name, value in vars(_llm).items() if name not in {'headers', 'recorded'}}"
    return kernel.value(f"(repr(globals().get('y')), {fields}, len(list(_llm.attempts)))")


@pytest.mark.parametrize("name", CELLS)
def test_a_replayed_cell_shows_and_binds_what_it_did(kernel: Kernel, server: ScriptedServer, name: str) -> None:
    script, code = CELLS[name]
    interactive = name != "in the foreground"
    server.script[:] = script
    kernel.run("y = None").check()
    live = kernel.run(code, "cell", allow_stdin=interactive).check()
    asked, was = len(server.requests), bound(kernel)
    kernel.run("y = None").check()
    again = kernel.run(code, "cell", allow_stdin=interactive).check()
    assert len(server.requests) == asked == len(script)
    assert without_mark(again.outputs) == live.outputs
    assert bound(kernel) == was
    assert kernel.value("_llm.recorded") is True
    if name == "a tool that prints":
        assert kinds(again)[:2] == ["stream", "clear_output"]
    else:
        assert set(kinds(again)) <= {"display_data", "stream"}
    assert "recorded" not in str(live.outputs)


@pytest.mark.parametrize("name", ["text", "reasoning", "tools", "a table", "asked again"])
def test_in_the_background(kernel: Kernel, server: ScriptedServer, name: str) -> None:
    script, code = CELLS[name]
    server.script[:] = script
    code = code.replace("--once", "-b --once")
    live, again = (job(kernel, code) for _ in range(2))
    assert len(server.requests) == len(script)
    assert without_mark(again.outputs) == live.outputs
    assert "clear_output" in kinds(live)
    assert set(kinds(again)) <= {"display_data", "execute_result"} | ({"clear_output"} if name == "tools" else set())


def job(kernel: Kernel, code: str) -> Ran:
    """Run a cell in the background, and return what it has when it is done."""
    ran = kernel.run(code, "job").check()
    kernel.run("_.result(20)").check()
    kernel.run("import sys; sys.stdout.flush()").check()
    outputs: list[dict[str, Any]] = []
    shown: dict[str, dict[str, Any]] = {}
    clears = False
    late = [message for message in kernel.heard if message["parent_header"].get("msg_id") == ran.request]
    for message in late:
        kind, content = message["msg_type"], message["content"]
        name = content.get("transient", {}).get("display_id")
        if kind == "clear_output":
            clears = True
        elif kind == "update_display_data":
            shown[name].update(data=content["data"], metadata=content["metadata"])
        elif kind == "display_data":
            outputs, clears = [] if clears else outputs, False
            outputs.append({"data": content["data"], "metadata": content["metadata"]})
            shown.update({name: outputs[-1]} if name else {})
    return Ran(outputs=outputs, messages=late)


@pytest.mark.parametrize("name", ["text", "reasoning", "tools", "a table"])
def test_captured(kernel: Kernel, server: ScriptedServer, name: str) -> None:
    script, code = CELLS[name]
    server.script[:] = script
    line = code.replace("%%llm", "%llm").replace("\n", " ")
    cell = f"from IPython.utils.capture import capture_output\nwith capture_output() as caught:\n    {line}"
    caught = "([(each.data, each.metadata) for each in caught.outputs], caught.stdout, caught.stderr)"
    kernel.run(cell, "cell").check()
    was = kernel.value(caught)
    again = kernel.run(cell, "cell").check()
    assert len(server.requests) == len(script)
    outputs, *printed = kernel.value(caught)
    assert [(each["data"], each["metadata"]) for each in without_mark([_output(each) for each in outputs])] == was[0]
    assert printed == ["", ""]
    assert again.outputs == []


def _output(of: tuple[Any, Any]) -> dict[str, Any]:
    return {"data": of[0], "metadata": of[1]}


def test_what_is_asked_after_a_recorded_round_streams(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [calls("clock", "Let me see."), slowly("It is ", "noon.")]
    code = "%%llm --once --tools clock\nx"
    kernel.run(code, "cell").check()
    first = kernel.value("_llm.seconds")
    kernel.run("said.append('midnight')").check()
    server.script[:] = [Answer([0.3, *slowly("It is\n\n", "midnight.").steps])]
    ran = kernel.run(code, "cell").check()
    assert len(server.requests) == 3
    folded, answer, _ = ran.outputs
    assert [line.strip() for line in folded["data"]["text/plain"].splitlines()][::3] == [
        "Reasoning (2 words)", "Let me see.", '"zone": "x"',
    ]  # fmt: skip
    assert answer["data"]["text/plain"] == "It is\n\nmidnight."
    assert "recorded" not in answer["metadata"]["llm_magic"]
    assert kinds(ran).count("clear_output") == 1
    assert "update_display_data" in kinds(ran)
    assert kernel.value("_llm.recorded") is False
    assert kernel.value("_llm.seconds") >= 0.3 + 0.02
    assert first > 0
    again = kernel.run(code, "cell").check()  # now both rounds are there
    assert len(server.requests) == 3
    assert without_mark(again.outputs) == ran.outputs
    assert set(kinds(again)) == {"display_data"}


def test_at_the_recorded_pace_it_streams_and_ends_as_it_did(kernel: Kernel, server: ScriptedServer) -> None:
    words = [f"word{number} " for number in range(12)]
    server.script[:] = [Answer([0.1, *slowly(*words).steps])]
    live = kernel.run("%%llm --once\nx", "cell").check()
    kernel.run("%config LLMMagics.replay_pace = 1").check()
    again = kernel.run("%%llm --once\nx", "cell").check()
    assert len(server.requests) == 1
    assert without_mark(again.outputs) == live.outputs
    growing = [
        message["content"]["data"]["text/markdown"].count("word")
        for message in again.messages
        if message["msg_type"] == "update_display_data" and "text/markdown" in message["content"]["data"]
    ]
    assert growing == sorted(growing)
    assert len(set(growing)) > 1
    assert kernel.value("(_llm.recorded, len(_llm.attempts))") == (True, 1)


def test_a_replay_at_a_pace_is_interrupted_as_an_answer_is(kernel: Kernel, server: ScriptedServer) -> None:
    words = [f"word{number} " for number in range(12)]
    server.script[:] = [slowly(*words)]
    kernel.run("%%llm --once\nx", "cell").check()
    seconds = kernel.value("_llm.seconds")
    kernel.run("%config LLMMagics.replay_pace = 1e-3").check()
    once: list[int] = []

    def interrupt(message: dict[str, Any]) -> None:
        if not once and "waiting for" in str(message["content"].get("data", "")):
            once.append(1)
            kernel.interrupt()

    ran = kernel.run("%%llm --once\nx", "cell", on_message=interrupt)
    assert (ran.status, ran.error_name) == ("error", "Interrupted")
    kernel.run("%config LLMMagics.replay_pace = 0").check()
    assert kernel.run("%%llm --once\nx", "cell").check().outputs
    assert kernel.value("_llm.seconds") == seconds
    assert len(server.requests) == 1


def test_nothing_is_said_of_waiting_where_a_tool_takes_long(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [calls("clock"), slowly("It is noon.")]
    kernel.run("%%llm --once --tools clock\nx", "cell").check()
    kernel.run("import time\nclock.__code__ = (lambda zone: time.sleep(1.5) or said[-1]).__code__").check()
    ran = kernel.run("%%llm --once --tools clock\nx", "cell").check()
    assert kinds(ran) == ["display_data"] * 3
    assert kernel.value("_llm.seconds") < 1.5


def test_a_failure_after_recorded_rounds_keeps_them(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [calls("clock", "Let me see."), slowly("It is ", "noon.")]
    code = "%%llm --once --tools clock\nx"
    kernel.run(code, "cell").check()
    kernel.run("said.append('midnight')").check()
    server.script[:] = [Answer([b"{}"], status=500)]
    ran = kernel.run(code, "cell")
    assert (ran.status, ran.error_name) == ("error", "ServerFailedError")
    assert "Let me see." in str(ran.outputs[0]["data"])
    assert "midnight" in str(ran.outputs[0]["data"])


def test_where_only_recordings_answer_what_was_said_first_stands_above_the_error(
    kernel: Kernel, server: ScriptedServer
) -> None:
    kernel.run("import pandas; many = pandas.DataFrame({'a': range(99)})").check()
    ran = kernel.run("%%llm --once --record only\n{{ many }}")
    assert (ran.status, ran.error_name) == ("error", "RecordingError")
    assert kinds(ran) == ["display_data", "error"]
    assert "99" in ran.outputs[0]["data"]["text/plain"]
    assert server.requests == []


def test_the_model_that_was_asked_in_the_place_of_another(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("registry = get_ipython()._llm_magic.registry").check()
    kernel.run("registry.add('d', 'compatible', base_url='http://127.0.0.1:9/v1', max_retries=0)").check()
    kernel.run("registry.aliases = {'both': {'model': 'd:m', 'fallbacks': ['s:m']}}").check()
    server.script[:] = [TEXT]
    live = kernel.run("%%llm -m both --once\nx", "cell").check()
    was = kernel.value("(_llm.text, _llm.seconds, _llm.notes, _llm.model)")
    assert "asking the next model" in str(live.outputs)
    again = kernel.run("%%llm -m both --once\nx", "cell").check()
    assert without_mark(again.outputs) == live.outputs
    assert set(kinds(again)) == {"display_data"}
    assert kernel.value("(_llm.text, _llm.seconds, _llm.notes, _llm.model)") == was
    assert len(server.requests) == 1


def test_interrupted_in_a_tool_it_keeps_what_is_recorded(kernel: Kernel, server: ScriptedServer) -> None:
    kernel.run("def nap(zone: str) -> str:\n    'Sleep.'\n    return naps() or 'noon'\nnaps = str").check()
    server.script[:] = [calls("nap", "Let me see."), slowly("It is noon.")]
    code = "%%llm --once --tools nap\nx"
    kernel.run(code, "cell").check()
    kernel.run("import time\ndef naps():\n    print('asleep', flush=True)\n    time.sleep(60)").check()

    interrupted = []

    def interrupt(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream" and not interrupted:  # what is printed may come in two messages
            interrupted.append(message)
            kernel.interrupt()

    ran = kernel.run(code, "cell", on_message=interrupt)
    assert (ran.status, ran.error_name) == ("error", "Interrupted")
    shown = [output["data"]["text/plain"].splitlines()[0] for output in ran.outputs if "data" in output]
    assert shown == ["Reasoning (2 words)", "Let me see.", "Interrupted."]
    assert kernel.value("(_llm.text, _llm.finish_reason)") == ("Let me see.", "interrupted")
    assert len(server.requests) == 2
