"""Offline batches where nobody looks: notebooks that a program executes, scripts, and IPython in a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pexpect
import pytest
from batch_server import BatchServer

CELL = "%%llm --each rows --as int --batch --poll 0.02 -o out\nSAY {{ item }}"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[>=]|\r")


@pytest.fixture(scope="module")
def server() -> Iterator[BatchServer]:
    with BatchServer() as server:
        yield server


def first(server: BatchServer, *values: str) -> str:
    """Return the lines before a cell."""
    return (
        "%load_ext llm_magic\n"
        f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)\n"
        f"%config LLMMagics.model = 's:m'\nrows = {values!r}"
    )


def executed(tmp_path: Path, *sources: str) -> nbformat.NotebookNode:
    """Return a notebook as `jupyter execute` leaves it."""
    pytest.importorskip("nbclient", reason="needs nbclient: the extra `demo`")
    path = tmp_path / "rows.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources))), path)
    execute = "from nbclient.cli import main; main()"  # `jupyter execute` of this very Python, whatever is on the path
    command = [sys.executable, "-c", execute, "--allow-errors", "--inplace", str(path)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)  # noqa: S603 - our own Python
    return nbformat.read(path, as_version=4)


def test_an_executed_notebook_waits_or_sends_nothing(server: BatchServer, tmp_path: Path) -> None:
    made = len(server.asked)
    refused, waited, same = executed(
        tmp_path, first(server, "1", "2"), CELL, CELL.replace("--batch", "--batch --wait"), "out.values"
    ).cells[1:]
    assert refused.outputs[0]["ename"] == "OptionError"
    assert refused.outputs[0]["evalue"].startswith("--batch needs --wait here: ")
    assert server.asked[made] == "upload"
    assert len(server.created) == 1
    (table,) = waited.outputs
    assert table["data"]["text/plain"].startswith("row  out\n0      1\n1      2\ns:m · batch ")
    assert same.outputs[0]["data"]["text/plain"] == "[1, 2]"


def ipython(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own Python
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=nocolor", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


LINE = "%llm --each rows --as int --batch --poll 0.02 -o out SAY {{ item }}"


def test_a_script_ends_once_all_is_submitted(server: BatchServer, tmp_path: Path) -> None:
    """The same script, run again, has the answers."""
    script = tmp_path / "rows.ipy"
    script.write_text(f"{first(server, '3', '4')}\n{LINE}\nprint('next')\n")
    server.in_progress, made = 10**9, len(server.created)
    ran = ipython(str(script))
    batch = server.created[-1].id
    assert (ran.returncode, ran.stdout.split()) == (0, ["next"])
    assert ran.stderr.startswith(
        f"Not waited for: the batch {batch} goes on at s. Run this again to fetch the answers, or say --wait.\n"
    )
    assert "Error" not in ran.stderr
    server.in_progress = 1
    again = ipython("-c", script.read_text().replace("--batch", "--batch --wait"))
    assert "row  out\n0      3\n1      4\n" in again.stdout
    assert len(server.created) == made + 1


def test_a_script_whose_rows_cannot_be_submitted_fails() -> None:
    with BatchServer() as server:
        lines = f"{first(server, '5')}\n{LINE}"
    ran = ipython("-c", lines)
    assert ran.returncode == 1
    said = [line for line in (ran.stdout + ran.stderr).splitlines() if "Error: " in line]
    assert said == [f"ConnectionFailedError: Nothing listens at s:m ({server.url}): the connection was refused."]


def test_at_a_prompt_it_goes_on_below(server: BatchServer) -> None:
    command = ["-m", "IPython", "--no-banner", "--colors=nocolor", "--simple-prompt", "--no-confirm-exit"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    child = pexpect.spawn(sys.executable, command, dimensions=(30, 120), timeout=30, encoding="utf-8", env=environment)
    child.expect_exact("In [1]: ")

    def typed(line: str) -> str:
        child.sendline(line)
        child.expect(r"\r\n[^\n]*In \[\d+\]: $")
        return ESCAPES.sub("", child.before)

    for line in first(server, "6", "7").splitlines():
        typed(line)
    server.in_progress = 10**9
    assert "<Batch of s:m: preparing>" in typed(LINE)
    assert "'out' is not defined" in typed("out")
    server.in_progress = 1
    shown = typed("Out[max(Out)].result(20) and None")
    assert "row  out\n0      6\n1      7\n" in ESCAPES.sub("", shown)
    assert "[6, 7]" in typed("out.values")
    child.close(force=True)
