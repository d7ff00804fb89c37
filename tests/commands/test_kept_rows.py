"""What `%llm_config` says of runs over many rows that are kept, and `%llm_recordings clear --rows`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel
from shown import failed, plain

from llm_magic.mapping.kept import kept_runs
from llm_magic.mapping.kept.store import Store


@pytest.fixture
def folder(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of runs of this process and the kernel."""
    before = kernel.value("__import__('os').environ['XDG_STATE_HOME']")
    kernel.run(f"import os; os.environ['XDG_STATE_HOME'] = {str(tmp_path)!r}").check()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    yield kept_runs.folder()
    kernel.run(f"os.environ['XDG_STATE_HOME'] = {before!r}\n%config LLMMagics.resume = True").check()


def stopped(number: int, size: int = 100) -> None:
    run = Store.open({"number": number}, say=pytest.fail)
    assert run.keep("ab" * 32, {"choices": [{"text": "x" * size}]})
    run.ended(whole=False)


def said(kernel: Kernel, line: str = "%llm_config LLMMagics.resume") -> str:
    return plain(kernel.run(line)).splitlines()[-1]


def test_nothing_is_kept(kernel: Kernel, folder: Path) -> None:
    line = (
        "Kept of runs over many rows that did not end whole, for 30 days and up to 1 GB: nothing now, in "
        f"{folder}. LLMMagics.resume = False keeps none."
    )
    assert said(kernel) == said(kernel, "%llm_config") == line
    assert not folder.exists()
    cleared = f"Nothing of runs over many rows was removed from {folder}."
    assert plain(kernel.run("%llm_recordings clear --rows")) == cleared


def test_what_is_kept_and_its_removal(kernel: Kernel, folder: Path) -> None:
    stopped(1)
    stopped(1)
    stopped(2, 1_500_000)
    there = f"2 runs over many rows, 1.5 MB, in {folder}"
    assert said(kernel) == (
        f"Kept of runs over many rows that did not end whole, for 30 days and up to 1 GB: {there}. "
        "%llm_recordings clear --rows removes them, LLMMagics.resume = False keeps none."
    )
    kernel.run("%config LLMMagics.resume = False").check()
    assert said(kernel) == (
        "Answers of runs over many rows are not kept: LLMMagics.resume = False. "
        f"There are {there}: %llm_recordings clear --rows removes them."
    )
    going_on = Store.open({"number": 3}, say=pytest.fail)
    going_on.keep("ab" * 32, {})
    assert plain(kernel.run("%llm_recordings clear --rows")) == (
        f"2 runs over many rows, 1.5 MB, removed from {folder}. "
        "1 run over many rows that cannot be removed, or go on now, stay."
    )
    going_on.ended(whole=True)
    assert list(folder.iterdir()) == []
    assert said(kernel) == "Answers of runs over many rows are not kept: LLMMagics.resume = False."


def test_a_folder_that_is_none(kernel: Kernel, folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("not yours")
    why = f"Runs over many rows cannot be kept, to go on with: {folder}: it is no folder."
    assert said(kernel) == f"{why} LLMMagics.resume = False does without."
    assert failed(kernel, "%llm_recordings clear --rows")[1] == f"RecordingError: {why}"
    assert folder.read_text() == "not yours"


def test_one_of_both(kernel: Kernel) -> None:
    assert "Give one of them." in failed(kernel, "%llm_recordings clear --rows --unused")[1]
    assert "clear --rows" in str(kernel.run("%llm_recordings --help").outputs)
