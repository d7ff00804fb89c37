"""Answers in a real kernel: what the front end is sent while they stream, and what the saved notebook holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel, Ran

BROWSER = Path(__file__).parent.parent / "browser"
SETUP = r"""
%load_ext replay
import replay
short = "# Title\n\nLet \\(a\\) be.\n\n- one\n\n- two\n\n```python\nx = 1\n```\n\nEnd"
evil = "<script>alert(1)</script>"
thoughts = "First <b>this</b>, then that. " * 10
people = [{"name": "Ada", "born": 1815}]
"""
SHORT = "# Title\n\nLet \\(a\\) be.\n\n- one\n\n- two\n\n```python\nx = 1\n```\n\nEnd"


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel(PYTHONPATH=str(BROWSER)) as kernel:
        kernel.run(SETUP).check()
        yield kernel


def painted(ran: Ran) -> list[tuple[str, str]]:
    """Return the markdown of each message, with its kind, in the order of sending."""
    return [
        (message["msg_type"], message["content"].get("data", {}).get("text/markdown", ""))
        for message in ran.messages
        if message["msg_type"] in {"display_data", "update_display_data", "clear_output"}
    ]


def test_it_streams_by_block_and_ends_as_one_output(kernel: Kernel) -> None:
    ran = kernel.run("%%llm text=short speed=100\nx").check()
    answer, footer = ran.outputs
    assert answer["data"] == {"text/plain": SHORT, "text/markdown": SHORT.replace("\\(a\\)", "$a$")}
    assert answer["metadata"]["llm_magic"]["usage"]["output_tokens"] == len(SHORT) // 4 + 1
    assert footer["data"]["text/plain"].startswith("replay · ")
    kinds = [kind for kind, _ in painted(ran)]
    assert kinds.count("clear_output") == 1
    assert kinds[-3:] == ["clear_output", "display_data", "display_data"]
    growing = [text for _, text in painted(ran)[:-3]]
    assert len(growing) > 3
    assert all("- one\n" in text for text in growing if "- two" in text)
    assert all("```python\n" in text for text in growing if "x = 1" in text)
    assert not any("Title" in text and "End" in text for text in growing)


def test_among_other_lines_it_is_one_output_and_clears_nothing(kernel: Kernel) -> None:
    ran = kernel.run("print('before')\n%llm text=short speed=100\nprint('after')").check()
    assert [output["output_type"] for output in ran.outputs] == ["stream", "display_data", "display_data", "stream"]
    assert ran.outputs[1]["data"]["text/plain"] == SHORT
    assert ran.outputs[1]["metadata"]["llm_magic"]["finish_reason"] == "stop"
    assert "clear_output" not in [kind for kind, _ in painted(ran)]


def test_several_in_one_cell_all_stay(kernel: Kernel) -> None:
    ran = kernel.run("for each in range(3):\n    %llm text=short speed=1000").check()
    assert [output["data"]["text/plain"] for output in ran.outputs[::2]] == [SHORT] * 3


@pytest.mark.parametrize(
    ("show", "expected"),
    [
        ("text", {"text/plain": SHORT}),
        ("code", {"text/plain": SHORT, "text/markdown": "```python\nx = 1\n```\n"}),
        ("json", {"text/plain": SHORT, "text/markdown": f"````json\n{SHORT}\n````\n"}),
    ],
)
def test_ways_to_show_it(kernel: Kernel, show: str, expected: dict[str, str]) -> None:
    ran = kernel.run(f"%%llm text=short speed=1000 show={show}\nx").check()
    assert ran.outputs[0]["data"] == expected


def test_nothing_is_shown_where_nothing_is_asked_for(kernel: Kernel) -> None:
    assert kernel.run("%%llm text=short speed=1000 show=none\nx").check().outputs == []


def test_reasoning_is_folded_above_the_answer(kernel: Kernel) -> None:
    ran = kernel.run("%%llm text=short speed=300 reasoning=thoughts\nx").check()
    folded, answer, _ = ran.outputs
    assert folded["data"]["text/html"].startswith("<details")
    assert "First &lt;b&gt;this&lt;/b&gt;" in folded["data"]["text/html"]
    assert "<b>" not in folded["data"]["text/html"]
    assert answer["data"]["text/plain"] == SHORT


def test_a_value_is_a_table(kernel: Kernel) -> None:
    answer = kernel.run("%%llm text=short speed=1000 value=people\nx").check().outputs[0]
    assert answer["data"]["text/plain"] == SHORT
    assert "<table>" in answer["data"]["text/html"]


def test_captured_outputs_are_the_final_ones(kernel: Kernel) -> None:
    ran = kernel.run("%%capture caught\n%llm text=short speed=1000").check()
    assert ran.outputs == []
    ran = kernel.run("print(len(caught.outputs), repr(caught.stdout))\ncaught.show()").check()
    assert ran.stdout == "2 ''\n"
    assert ran.outputs[1]["data"]["text/plain"] == SHORT


def test_html_of_the_model_is_text(kernel: Kernel) -> None:
    data = kernel.run("%%llm text=evil speed=1000\nx").check().outputs[0]["data"]
    assert data == {"text/plain": "<script>alert(1)</script>", "text/markdown": "&lt;script>alert(1)&lt;/script>"}


def test_the_bytes_are_linear_in_the_text(kernel: Kernel) -> None:
    for cell in ("%%llm text=twenty speed=10000\nx", "pass\n%llm text=twenty speed=10000"):
        ran = kernel.run(cell).check()
        sent = sum(len(str(message["content"])) + 700 for message in ran.messages if "display" in message["msg_type"])
        assert len(ran.outputs[0]["data"]["text/plain"]) == 80_000
        assert sent < 6 * 80_000


def test_another_thread_goes_on_in_its_own_cell(kernel: Kernel) -> None:
    code = """%%llm
x""".replace("x", "job")
    kernel.run(
        """
import threading, time
from llm_magic import display
from llm_magic.events import TextDelta, Finished
from llm_magic.draft import Draft
from llm_magic.config.settings import Settings
def background(line, cell=None):
    view = display.choose(get_ipython(), Settings(), background=True)
    def work():
        draft = Draft()
        for number in range(10):
            draft.add(TextDelta(f"Paragraph {number}.\\n\\n"))
            view.update(draft)
            time.sleep(0.1)
        draft.add(Finished("stop"))
        view.finish(draft.response(), "")
    threading.Thread(target=work).start()
get_ipython().register_magic_function(background, "cell", "llm")
"""
    ).check()
    try:
        job = kernel.run(code).check()
        other = kernel.run("time.sleep(1.5); print('other')").check()
        assert [output["output_type"] for output in other.outputs] == ["stream"]
        late = [message for message in kernel.heard if message["parent_header"].get("msg_id") == job.request]
        final = [message for message in late if message["msg_type"] == "display_data"][-1]
        assert final["content"]["data"]["text/plain"] == "".join(f"Paragraph {number}.\n\n" for number in range(10))
        assert any(message["msg_type"] == "clear_output" for message in late)
    finally:
        kernel.run("%reload_ext replay")
