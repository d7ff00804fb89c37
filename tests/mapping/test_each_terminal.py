"""`%%llm --each` in IPython: a bar in a terminal, stopped and gone on with; plain lines in a pipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from servers import Answer, Received, ScriptedServer, document
from terminal_screen import Screen

STEPS = {"Slowly": 0.2, "Never": 0.2}
IPYTHON = [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor"]
LOAD = (
    "get_ipython().run_line_magic('load_ext', 'llm_magic'); "
    "get_ipython()._llm_magic.registry.add('s', 'compatible', base_url='URL', max_retries=0); "
    "get_ipython().run_line_magic('config', 'LLMMagics.model = \"s:m\"')"
)


def answer(request: Received) -> Answer:
    said = str(request.json["messages"][-1]["content"])
    if said.startswith("Refuse") and said.endswith(" 3"):
        return document({"error": {"message": "too \x1b[31mlong"}}, status=400)
    choice = {"index": 0, "message": {"role": "assistant", "content": f"you said {said}"}, "finish_reason": "stop"}
    made = document({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    made.steps = [STEPS.get(said.split(maxsplit=1)[0], 0.0), *made.steps]
    return made


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(answer) as server:
        yield server


class Terminal:
    """IPython in a pseudo-terminal of 30 lines and 90 columns."""

    def __init__(self, server: ScriptedServer, **environment: str) -> None:
        self.child = pexpect.spawn(
            IPYTHON[0],
            [*IPYTHON[1:], "--simple-prompt", "--no-confirm-exit"],
            dimensions=(30, 90),
            timeout=20,
            encoding="utf-8",
            env={**os.environ, "TERM": "xterm-256color", **environment},
        )
        self.child.expect_exact("In [1]: ")
        self.run(LOAD.replace("URL", server.url))

    def start(self, *lines: str) -> None:
        """Type a cell."""
        for line in lines:
            self.child.sendline(line)
            self.child.expect_exact("\n")  # its echo
        if len(lines) > 1:
            for _ in range(2):
                self.child.sendline("")
                self.child.expect_exact("\n")

    def shown(self) -> str:
        """Return what is on the screen when the prompt is there again."""
        self.child.expect(r"\r\n[^\n]*In \[\d+\]: $")
        screen = Screen(30)
        screen.write(self.child.before)
        return re.sub(r"^(\s*\.\.\.:\s*)+", "", screen.text)

    def run(self, *lines: str) -> str:
        """Type a cell and return what it leaves on the screen."""
        self.start(*lines)
        return self.shown()


@pytest.fixture(scope="module")
def terminal(server: ScriptedServer) -> Iterator[Terminal]:
    terminal = Terminal(server)
    yield terminal
    terminal.child.close(force=True)


def test_a_bar_while_it_runs_and_the_table_in_the_end(terminal: Terminal) -> None:
    terminal.start("%llm --each range(12) --concurrency 2 -o numbers Slowly {{ item }}")
    terminal.child.expect(r"━.* of 12, .*/s")
    *table, below = terminal.shown().splitlines()
    assert table == [
        "row  numbers",
        *(f"{number}    you said Slowly {number}" for number in range(10)),
        "10 of 12 rows",
    ]
    assert re.fullmatch(r"s:m · 12 rows in [\d.]+ s, p50 .*, 84 → 36 tokens", below)
    assert "━" in terminal.child.before
    assert terminal.run("print(len(numbers), numbers[11])") == "12 you said Slowly 11"


def test_a_cell_of_more_lines(terminal: Terminal) -> None:
    shown = terminal.run("%%llm --each \"list('ab')\" -o letters", "Say", "{{ item }}")
    assert shown.splitlines()[:3] == ["row  letters", "0    you said Say a", "1    you said Say b"]
    assert terminal.run("print([each.split() for each in letters])") == (
        "[['you', 'said', 'Say', 'a'], ['you', 'said', 'Say', 'b']]"
    )


def test_stopped_it_says_how_far_it_came_and_goes_on(terminal: Terminal, server: ScriptedServer) -> None:
    line = "%llm --each range(40) --concurrency 2 -o never Never {{ item }}"
    terminal.start(line)
    terminal.child.expect(r"1\d of 40")
    terminal.child.sendintr()
    first, *_, last = terminal.shown().splitlines()
    found = re.fullmatch(
        r"KeyboardInterrupt: stopped; (\d+) of 40 rows are answered, and kept: run it again to go on from there\.", last
    )
    assert found is not None, last
    assert first.startswith(f"Interrupted. {found[1]} of 40, ")
    assert terminal.run("print('never' in globals())") == "False"
    before = len(server.requests)
    shown = terminal.run(line)
    assert f"{found[1]} of 40 answered before; asking for the rest" in shown
    assert shown.splitlines()[-2:][0] == "10 of 40 rows"
    assert len(server.requests) - before == 40 - int(found[1])
    assert terminal.run("print(len(never), never[39])") == "40 you said Never 39"


def test_a_row_that_fails_and_a_mistake_are_a_line_or_two(terminal: Terminal) -> None:
    *table, first, second = terminal.run("%llm --each range(5) -o parts Refuse {{ item }}").splitlines()
    assert first == "RowsFailedError: 1 of 5 failed: 1 RequestRefusedError; run the cell again to ask for those."
    assert second.startswith("The first of them, row 3: RequestRefusedError: s:m (http://127.0.0.1:")
    assert table[4].startswith("3                       RequestRefusedError: s:m ")
    assert " ".join(table[6:]).endswith("; 1 failed: 1 RequestRefusedError")
    assert "\x1b[31mlong" not in terminal.child.before
    (line, _) = terminal.run("%llm --each rang(5) Say {{ item }}").splitlines()
    assert line.startswith("OptionError: --each rang(5): there is no variable 'rang'.")


def test_in_the_background_the_terminal_is_free(terminal: Terminal) -> None:
    terminal.run("job = %llm -b --each range(8) --concurrency 2 -o later Slowly again {{ item }}")
    assert terminal.run("print(job, 'later' in globals())") == "<Job s:m: running> False"
    assert terminal.run("print(len(job.result(30)), job, len(later))").endswith("8 <Job s:m: done> 8")
    terminal.run("job = %llm -b --each range(80) --concurrency 2 -o cancelled Slowly now {{ item }}")
    terminal.start("print([job.cancel(), job])")
    came = [r"\[True, <Job s:m: cancelled>\]", r"Interrupted\. \d+ of 80"]  # in either order
    assert {terminal.child.expect(came), terminal.child.expect(came)} == {0, 1}


def test_a_terminal_that_can_nothing(server: ScriptedServer) -> None:
    terminal = Terminal(server, TERM="dumb")
    try:
        *table, below = terminal.run("%llm --each range(4) --concurrency 1 Slowly dumb {{ item }}").splitlines()
        assert table[-4:] == [f"{number}    you said Slowly dumb {number}" for number in range(4)]
        assert below.startswith("s:m · 4 rows in ")
        assert "\x1b[" not in terminal.child.before.replace("\x1b[?2004", "")
    finally:
        terminal.child.close(force=True)


def test_in_a_pipe_there_are_plain_lines(server: ScriptedServer, tmp_path: Path) -> None:
    script = tmp_path / "rows.ipy"
    script.write_text(
        f"{LOAD.replace('URL', server.url)}\n"
        "x = %llm --each range(12) -o numbers Say {{ item }}\n"
        "print('VALUE', len(x), len(numbers))\n"
        "y = %llm --each range(5) --on-error keep Refuse it {{ item }}\n"
        "print('FAILED', y.failed)\n"
    )
    ran = subprocess.run(  # noqa: S603 - our own interpreter and script
        [*IPYTHON, str(script)], capture_output=True, text=True, timeout=120, check=True
    )
    lines = ran.stdout.splitlines()
    assert lines[:13] == [
        "row  numbers",
        *(f"{number}    you said Say {number}" for number in range(10)),
        "10 of 12 rows",
        "VALUE 12 12",
    ]
    assert lines[-1] == "FAILED [3]"
    assert "\x1b" not in ran.stdout + ran.stderr
    first, second = ran.stderr.splitlines()
    assert first.startswith("s:m · 12 rows in ")
    assert second.endswith("; 1 failed: 1 RequestRefusedError")
