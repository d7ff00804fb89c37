"""Until an answer is complete, the last line of its cell says that it is not: saved in between, it does not look whole.

The messages of a real kernel are folded as a front end does it, and looked at after each.
"""

from __future__ import annotations

import copy
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from kernels import Kernel, Ran
from servers import HANG, RESET, Answer, ScriptedServer, chunk, stream

from llm_magic.display import answer, markup

LINE = "unfinished: the answer is still arriving"


@pytest.fixture(scope="module", autouse=True)
def _tools(kernel: Kernel) -> None:
    kernel.run("def clock(zone: str) -> str:\n    'Tell the time.'\n    return 'noon'").check()


@pytest.fixture
def server(kernel: Kernel) -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        kernel.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)")
        kernel.run("%config LLMMagics.model = 's:m'").check()
        yield server


def slowly(*pieces: str, pause: float = 0.08) -> Answer:
    steps: list[object] = []
    for piece in pieces:
        steps += [chunk(piece), pause]
    return stream(*steps, chunk(finish="stop"))


def states(messages: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the outputs of the cell after each message that changes them."""
    outputs: list[dict[str, Any]] = []
    shown: dict[str, dict[str, Any]] = {}
    clears = False
    for message in messages:
        kind, content = message["msg_type"], message["content"]
        if kind == "clear_output":
            clears = True
            continue
        if kind not in {"display_data", "update_display_data", "error", "stream"}:
            continue
        if clears and kind != "update_display_data":
            outputs, clears = [], False
        name = content.get("transient", {}).get("display_id")
        if kind == "update_display_data":
            shown[name].clear()
            shown[name].update(content["data"])
        else:
            outputs.append(copy.deepcopy(content.get("data", {"text/plain": content.get("evalue", "")})))
            if name:
                shown[name] = outputs[-1]
        yield copy.deepcopy(outputs)


def last_lines(bundle: dict[str, str]) -> set[str]:
    """Return the last line of an output in each of its media types."""
    lines = {text.rstrip().rsplit("\n", 1)[-1] for kind, text in bundle.items() if kind != "text/html"}
    return {line.strip("*") for line in lines} | {
        LINE for kind in bundle if kind == "text/html" and LINE in bundle[kind]
    }


def check(
    ran: Ran, *, seen: str, waits: str = r"reasoning, |calling |waiting |Not valid|The schema was"
) -> list[list[dict[str, str]]]:
    """Check all states of a cell: each but the final one says last that it is unfinished; return these."""
    import re

    found = list(states(ran.messages))
    final = max(at for at, outputs in enumerate(found) if any(LINE in str(each) for each in outputs)) + 1
    growing = found[:final]
    assert any(seen in str(outputs) for outputs in growing)
    for outputs in growing:
        if not re.match(waits, outputs[-1].get("text/plain", "")):  # a line that says by itself that there is more
            assert last_lines(outputs[-1]) == {LINE}, outputs
    assert str(growing[-1]).count(LINE) == len(growing[-1][-1])  # once
    assert LINE not in str(found[-1])
    return growing


def test_each_repaint_says_so_and_the_last_one_does_not(kernel: Kernel, server: ScriptedServer) -> None:
    text = "# Title\n\nOne.\n\n- a\n- b\n\n```python\nx = 1\n\ny = 2\n```\n\nEnd"
    server.script[:] = [slowly(*(text[at : at + 5] for at in range(0, len(text), 5)))]
    ran = kernel.run("%%llm --once\nx").check()
    growing = check(ran, seen="x = 1")
    assert len(growing) > 5
    code = next(outputs[-1]["text/markdown"] for outputs in growing if "x = 1" in str(outputs[-1]))
    assert code.endswith(f"\n```\n\n*{LINE}*")  # outside of the code, which is still open
    assert ran.outputs[0]["data"] == {"text/plain": text, "text/markdown": text}
    assert set(ran.outputs[0]["metadata"]["llm_magic"]) == {
        "model", "provider", "finish_reason", "usage", "seconds", "request_id",
    }  # fmt: skip


def test_a_frozen_block_at_the_end_does_not_hide_it(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [stream(chunk("# Only a title\n"), 0.5, chunk("Text."), chunk(finish="stop"))]
    growing = check(kernel.run("%%llm --once\nx").check(), seen="Only a title")
    assert any(len(outputs) == 2 and set(outputs[-1]) == {"text/plain", "text/html"} for outputs in growing)


@pytest.mark.parametrize("show", ["text", "code", "json"])
def test_other_ways_to_show_it(kernel: Kernel, server: ScriptedServer, show: str) -> None:
    server.script[:] = [slowly('{"a"', ": 1,\n", ' "b": [2', "]}")]
    check(kernel.run(f"%%llm --once --show {show}\nx").check(), seen='"a"')


def test_among_other_lines(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [slowly("One.\n\n", "```py\nx", " = 1\n", "```\n\nEnd.")]
    ran = kernel.run("y = 1\n%llm --once x").check()
    check(ran, seen="x = 1")
    assert [output["data"]["text/plain"].split(" ")[0] for output in ran.outputs] == ["One.\n\n```py\nx", "s:m"]


def test_several_answers(kernel: Kernel, server: ScriptedServer) -> None:
    pieces = [
        {"choices": [{"index": at % 2, "delta": {"content": f"w{at} "}, "finish_reason": None}]} for at in range(9)
    ]
    steps = [step for piece in pieces for step in (piece, 0.08)]
    ends = [{"choices": [{"index": at, "delta": {}, "finish_reason": "stop"}]} for at in range(2)]
    server.script[:] = [stream(*steps, *ends)]
    check(kernel.run("%%llm --once --n 2\nx").check(), seen="Answer 2")


def test_typed_values_so_far(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [slowly('[{"name": "Ulm"', ', "n": 1}', ', {"name": "Bo', 'nn", "n": 2}]')]
    ran = kernel.run('%%llm --once --as "list[dict[str, int | str]]"\nx').check()
    check(ran, seen="<table>")
    assert LINE not in str(ran.outputs)


def test_reasoning_and_rounds_of_tools(kernel: Kernel, server: ScriptedServer) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "x"}'}}
    first = stream(
        chunk(reasoning_content="Hm, "), 0.1, chunk(reasoning_content="well."), 0.1, chunk("Let me see.\n\nSo"), 0.3,
        chunk(tool_calls=[call]), chunk(finish="tool_calls"),
    )  # fmt: skip
    second = Answer([0.5, *slowly("It is ", "noon.").steps])
    server.script[:] = [first, second]
    ran = kernel.run("%%llm --once --tools clock\nx").check()
    growing = check(ran, seen="Let me see.")
    after_tool = [outputs for outputs in growing if "clock(zone=" in str(outputs)]
    assert after_tool
    assert set(after_tool[0][-1]) <= {"text/plain", "text/html"}
    assert any("It is" in str(outputs[-1]) for outputs in after_tool)


def test_an_answer_that_is_asked_for_again(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [slowly('{"n": ', '"many"}'), Answer([0.4, *slowly('{"n": ', "7}").steps])]
    kernel.run("from typing import TypedDict\nclass Count(TypedDict):\n    n: int").check()
    ran = kernel.run("%%llm --once --as Count\nx").check()
    states_of = list(states(ran.messages))
    waits = next(outputs for outputs in states_of if "Said before" in str(outputs))
    assert last_lines(waits[-1]) == {LINE} or last_lines(next(s for s in states_of[states_of.index(waits) :])[-1])
    assert LINE not in str(ran.outputs)


def test_in_the_background(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [slowly("One.\n\n", "Two.\n\n", "Three.", pause=0.15)]
    job = kernel.run("%%llm -b --once\nx").check()
    kernel.run("_.result(10)").check()
    late = [message for message in kernel.heard if message["parent_header"].get("msg_id") == job.request]
    check(Ran(messages=late), seen="One.")


def test_an_interrupt_says_interrupted_and_a_broken_stream_cut_off(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [Answer([*stream(chunk("Part."), done=False).steps, HANG])]
    once: list[int] = []

    def interrupt(message: dict[str, Any]) -> None:
        if not once and "Part." in str(message["content"].get("data", "")):
            once.append(1)
            kernel.interrupt()

    ran = kernel.run("%%llm --once\nx", on_message=interrupt)
    assert any(LINE in str(outputs) for outputs in states(ran.messages))
    assert LINE not in str(ran.outputs)
    assert "Interrupted." in str(ran.outputs)
    server.script[:] = [Answer([*stream(chunk("Part."), done=False).steps, 0.3, RESET])]
    ran = kernel.run("%%llm --once\nx")
    assert LINE not in str(ran.outputs)
    assert "Part." in str(ran.outputs)


def test_a_failure_before_the_answer_leaves_no_line(kernel: Kernel, server: ScriptedServer) -> None:
    server.script[:] = [Answer([b"{}"], status=500)]
    ran = kernel.run("%%llm --once --retries 0\nx")
    assert [output["output_type"] for output in ran.outputs] == ["error"]


def test_hostile_markdown_cannot_hide_it(kernel: Kernel, server: ScriptedServer) -> None:
    for text in (
        "~~~~~ x\ncode\n~~~\n",
        "> ```\n> code\n",
        "- ```py\n  code\n",
        "```",
        "<!-- \n",
        "$$\nx\n",
        "|a|\n|-|\n",
    ):
        server.script[:] = [stream(chunk(text), 0.3, chunk("\n\nmore"), chunk(finish="stop"))]
        growing = check(kernel.run("%%llm --once\nx").check(), seen=LINE)
        rendered = _html("".join(each.get("text/markdown", "") for each in growing[0]))
        assert f"<em>{LINE}</em>" in rendered, text


def _html(markdown: str) -> str:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("table").render(markdown)


def test_killed_in_mid_answer_it_stays() -> None:
    with (
        ScriptedServer(Answer([*stream(chunk("Part one.\n\nPart"), done=False).steps, HANG])) as server,
        Kernel() as mine,
    ):
        mine.run("%load_ext llm_magic").check()
        mine.run(f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r})").check()
        request = mine.start("%%llm -m s:m --once\nx")
        messages: list[dict[str, Any]] = []
        while not messages or "Part" not in str(messages[-1]["content"].get("data", "")):
            messages.append(mine.client.get_iopub_msg(timeout=20))
        mine.manager.signal_kernel(signal.SIGKILL)
        *_, outputs = states([each for each in messages if each["parent_header"].get("msg_id") == request])
        assert last_lines(outputs[-1]) == {LINE}


def test_a_terminal_does_not_say_it() -> None:
    """There what is printed stays, and nobody reloads it."""
    import inspect

    from llm_magic.display import plain, terminal

    assert "UNFINISHED" not in inspect.getsource(terminal) + inspect.getsource(plain)


def test_an_open_fence_is_closed_before_the_line() -> None:
    def below(text: str) -> str:
        return answer.unfinished({"text/markdown": text})["text/markdown"].removeprefix(text)

    assert below("```py\nx") == below("```py") == f"\n```\n\n*{LINE}*"
    assert below("~~~~\n```\n") == f"\n~~~~\n\n*{LINE}*"
    assert below("x") == below("```\nx\n```\n") == below("> ```\n> x") == f"\n\n*{LINE}*"
    assert markup.UNFINISHED == LINE
