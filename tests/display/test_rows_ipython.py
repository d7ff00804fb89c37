"""Many rows in IPython, in a terminal and in a pipe: what its screen shows in the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from terminal_screen import Screen

HERE = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "TERM": "xterm-256color",
    "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
}
TABLE = """\
row  label    error
0    price
1    quality
2    service
3             ValueError: not a <label>
4    quality
5    service
6    price
7    quality
8    service
9    price
10 of {total} rows
vllm:m · {total} rows, p50 0.20 s, p95 0.41 s"""


class Terminal:
    """IPython in a pseudo-terminal of 30 lines and 90 columns."""

    def __init__(self) -> None:
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "IPython", "--no-banner", "--colors=nocolor", "--simple-prompt", "--no-confirm-exit"],
            dimensions=(30, 90),
            timeout=60,
            encoding="utf-8",
            env=ENVIRONMENT,
        )
        self.child.expect_exact("In [1]: ")

    def start(self, line: str) -> None:
        """Type a line."""
        self.child.sendline(line)
        self.child.expect_exact("\n")  # its echo

    def shown(self) -> str:
        """Return what is on the screen when the prompt is there again."""
        self.child.expect(r"\r\n[^\n]*In \[\d+\]: $")
        screen = Screen(30)
        screen.write(self.child.before)
        return screen.text

    def run(self, line: str) -> str:
        """Type a line and return what its cell leaves on the screen."""
        self.start(line)
        return self.shown()


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    terminal.run("from many_rows import drive")
    yield terminal
    terminal.child.close(force=True)


@pytest.mark.parametrize(
    ("how", "total"), [("20, pause=0.05", "20"), ("3_000", "3,000"), ("20, background=True", "20")]
)
def test_the_table_is_what_stays(terminal: Terminal, how: str, total: str) -> None:
    assert terminal.run(f"drive({how})") == TABLE.format(total=total)
    assert ("━" in terminal.child.before) is ("background" not in how)


def test_nothing_of_a_value_a_note_or_a_wait_is_obeyed(terminal: Terminal) -> None:
    evil = "'\\x1b[2J\\x1b]0;title\\x07[bold]\\u202e'"
    shown = terminal.run(
        f"drive(2, failed=(), pause=0.3, known=False, value=lambda _: {evil}, waiting={evil}, notes=({evil},))"
    )
    seen = "␛[2J␛]0;title␇[bold]{U+202E}"
    assert shown.splitlines() == [
        seen,
        "row  label",
        f"0    {seen}",
        f"1    {seen}",
        "vllm:m · 2 rows, p50 0.20 s, p95 0.41 s",
    ]
    assert "\x1b[2J" not in terminal.child.before
    assert "\x1b]0" not in terminal.child.before


def test_interrupted_it_says_how_far_it_came(terminal: Terminal) -> None:
    terminal.start("drive(200, pause=0.02)")
    terminal.child.expect(r"1\d of 200")
    terminal.child.sendintr()
    first, *_, last = terminal.shown().splitlines()
    assert first.startswith("Interrupted. ")
    assert " of 200, 1 failed, 10/s, $" in first
    assert "left" not in first
    assert last.startswith("KeyboardInterrupt")
    assert terminal.run("print('next')") == "next"


def test_in_a_pipe(tmp_path: Path) -> None:
    script = tmp_path / "rows.ipy"
    script.write_text(
        "from many_rows import drive\ndrive(3_000, notes=('A note.',))\ndrive(9, show='none', notes=('A note.',))\n"
    )
    ran = subprocess.run(  # noqa: S603 - our own interpreter and script
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=ENVIRONMENT,
    )
    *table, last = TABLE.format(total="3,000").splitlines()
    assert ran.stdout.splitlines() == table
    assert ran.stderr.splitlines() == ["A note.", last]
