"""The same cells in IPython in a terminal, and where the output is no terminal."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

pytest.importorskip("xllamacpp", reason="needs the extra `local`")

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[>=]|\r")


class Terminal:
    """IPython in a pseudo-terminal."""

    def __init__(self) -> None:
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "IPython", "--no-banner", "--colors=nocolor", "--simple-prompt", "--no-confirm-exit"],
            dimensions=(30, 100),
            timeout=60,
            encoding="utf-8",
            env={**__import__("os").environ, "TERM": "xterm-256color"},
        )
        self.number = 1
        self.child.expect_exact("In [1]: ")

    def run(self, *lines: str) -> str:
        """Type a cell and return what is shown until the next prompt."""
        for line in lines:
            self.child.sendline(line)
        if len(lines) > 1:
            self.child.sendline("")
            self.child.sendline("")
        self.child.expect(r"\r\n[^\n]*In \[\d+\]: $")
        return ESCAPES.sub("", self.child.before)


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    terminal.run("%load_ext llm_magic")
    yield terminal
    terminal.child.close(force=True)


def test_an_answer_is_shown_and_bound(terminal: Terminal) -> None:
    shown = terminal.run("%%llm -m local -o answer -t 0 --max-tokens 20 --once", "Why is the sky blue?")
    bound = terminal.run("print('[' + ' '.join(answer.split()) + ']')")
    answer = re.search(r"\[(\w.+)\]", " ".join(bound.split()))
    assert answer is not None
    assert len(answer[1]) > 20
    assert answer[1][:30] in " ".join(shown.split())
    assert "20 tokens" in shown
    assert "Out[" not in shown
    assert "Response" in terminal.run("print(type(_).__name__, _ is _llm)")


def test_a_typed_value(terminal: Terminal) -> None:
    terminal.run("%%llm --as int -o number -t 0 --max-tokens 30 --once", "What is 2 + 2?")
    assert "int" in terminal.run("print(type(number).__name__)")


def test_a_question_on_a_line(terminal: Terminal) -> None:
    shown = terminal.run("%llm -t 0 --max-tokens 5 --once What's up?")
    assert "5 tokens" in shown
    assert "not found" not in shown


def test_an_error_is_a_line_or_two(terminal: Terminal) -> None:
    shown = terminal.run("%llm --modle x Hi")
    assert "OptionError: %llm has no option --modle." in shown
    assert "Did you mean --model" in shown
    assert "Traceback" not in shown


def test_interrupt(terminal: Terminal) -> None:
    terminal.child.sendline("%llm -m local --once Write a very long story about the sea.")
    terminal.child.expect_exact("\n")  # the echo of the line
    terminal.child.expect("[a-z]{3,} [a-z]{2,} [a-z]{2,}")
    terminal.child.sendintr()
    terminal.child.expect(r"KeyboardInterrupt")
    terminal.child.expect(r"\r\n[^\n]*In \[\d+\]: $")
    assert "interrupted" in terminal.run("print(_llm.finish_reason)")


def test_plain_text_where_the_output_is_no_terminal(tmp_path: Path) -> None:
    script = tmp_path / "cells.ipy"
    script.write_text("%load_ext llm_magic\nx = %llm -t 0 --max-tokens 8 --once Say hi.\nprint('VALUE', [x.text])\n")
    ran = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answer, _, value = ran.stdout.partition("VALUE ")
    assert [answer.rstrip("\n")] == eval(value)  # noqa: S307 - our own list of a string
    assert "\x1b" not in ran.stdout
    assert "8 tokens" in ran.stderr


def test_a_prompt_typed_again_is_said_to_be_a_turn_once(terminal: Terminal) -> None:
    said = "this front end does not tell which cell runs"
    shown = [" ".join(terminal.run("%llm -c twice -t 0 --max-tokens 2 Hi").split()) for _ in range(3)]
    assert [said in each for each in shown] == [False, True, False]
    assert "2 turns of history" in shown[2]
    assert "twice: 2 turns dropped; it has 1 turn now." in terminal.run("%llm_chat drop 2 3 twice")
