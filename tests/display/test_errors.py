"""Errors in a real kernel: one or two lines, and the whole traceback for who asks for it."""

from __future__ import annotations

from kernels import Kernel

SETUP = """
from llm_magic.errors import LLMError
def ask():
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise LLMError("It failed here.", "Do this next.") from error
"""


def traceback(kernel: Kernel, code: str) -> str:
    ran = kernel.run(code)
    assert ran.outputs[-1]["ename"] == "LLMError"
    assert ran.outputs[-1]["evalue"] == "It failed here.\nDo this next."
    return "\n".join(ran.outputs[-1]["traceback"])


def test_the_message_and_the_hint_and_nothing_else() -> None:
    with Kernel() as kernel:
        kernel.run(SETUP).check()
        for code in (
            "ask()",
            "%time ask()",
            "try:\n    ask()\nexcept LLMError as error:\n    kept = error",
            "raise kept",
            "raise kept",
        ):
            if "kept =" in code:
                kernel.run(code).check()
            else:
                assert traceback(kernel, code) == "LLMError: It failed here.\nDo this next."
        for _ in range(2):
            whole = traceback(kernel, "%tb")
            assert "ZeroDivisionError: division by zero" in whole
            assert "in ask" in whole
