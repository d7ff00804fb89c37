"""Servers that misbehave under a cell of a real kernel: what came is kept and marked, and the next cell works."""

from typing import Any

import pytest
from kernels import Kernel, Ran
from servers import HANG, RESET, Answer, ScriptedServer, Step, chunk, stream

BEGUN = b'data: {"choices":[{"index":0,"delta":{"content":"Begun"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
GOOD = stream(chunk("Fine."), chunk(finish="stop"))
CUT = "Cut off: the connection ended before the answer did."
FAULTS: dict[str, tuple[list[Step], str, str]] = {
    "closed within an event": ([BEGUN, b"data: {", RESET], "", ""),
    "silent": ([BEGUN, HANG], "TimedOutError", "fell silent: nothing whole came for 1 s."),
    "a byte at a time": (
        [BEGUN, *(step for number in range(40) for step in (b"data: {"[number : number + 1] or b" ", 0.1))],
        "TimedOutError",
        "fell silent: nothing whole came for 1 s.",
    ),
    "an error within": (
        [BEGUN, b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'],
        "ServerFailedError",
        "answered 500: out of memory",
    ),
    "no JSON": ([BEGUN, b"data: {not json}\n\n"], "ProtocolError", "sent what is no answer of this API: {not json}"),
}


def ask(kernel: Kernel, server: ScriptedServer, options: str = "") -> Ran:
    registry = "get_ipython()._llm_magic.registry"
    kernel.run(f"{registry}.add('odd', 'compatible', base_url={server.url!r}, max_retries=0, timeout=1)").check()
    return kernel.run(f"%%llm -m odd:m --once -o said {options}\nHi")


@pytest.mark.parametrize(("steps", "error", "message"), FAULTS.values(), ids=FAULTS)
def test_what_came_is_kept_and_marked_and_the_next_cell_works(
    kernel: Kernel, steps: list[Step], error: str, message: str
) -> None:
    with ScriptedServer(Answer(steps), GOOD) as server:
        ran = ask(kernel, server)
        assert ran.error_name == error
        assert message in ran.error
        assert len(ran.error.splitlines()) <= 2
        assert ran.seconds < 8
        assert kernel.value("(_llm.text, _llm.finish_reason)") == ("Begun", "truncated")
        assert ran.of_type("text/markdown") == ["Begun"]
        assert CUT in ran.of_type("text/plain")
        ask(kernel, server).check()
    assert kernel.value("said") == "Fine."


def test_an_answer_that_broke_off_is_no_value(kernel: Kernel) -> None:
    kernel.run("said = None").check()
    seven = b'data: {"choices":[{"index":0,"delta":{"content":"7"}}]}\n\n'
    with ScriptedServer(Answer([seven, b"data: {", RESET])) as server:
        ran = ask(kernel, server, "--as int")
    assert ran.error_name == "IncompleteAnswerError"
    assert kernel.value("(said, _llm.text, _llm.value)") == (None, "7", None)


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([b'data: {"choices":[{"delta":{"content":"Gr\xc3', b'\xbc\xff"}}]}\n\n', END], "Grü\ufffd"),
        ([b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"long " * 200_000), END], "long " * 200_000),
    ],
    ids=["bytes that are no text, and a letter cut in two", "1 MB at once"],
)
def test_what_is_odd_but_whole_is_shown(kernel: Kernel, steps: Any, text: str) -> None:
    with ScriptedServer(Answer(steps)) as server:
        ran = ask(kernel, server).check()
    assert ran.of_type("text/markdown") == [text]
    assert kernel.value("said") == text
