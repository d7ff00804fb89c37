"""The user's folder of runs: where it is, what goes from it with time and size, and what is never touched."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from llm_magic.mapping.kept import kept_runs
from llm_magic.mapping.kept.kept_runs import MAX_AGE, Kept
from llm_magic.mapping.kept.store import Store

KEY = "ab" * 32


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs, which is not there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "llm_magic" / "rows"


def begun(number: int, size: int = 100) -> Store:
    run = Store.open({"number": number}, say=pytest.fail)
    assert run.keep(KEY, {"choices": [{"text": "x" * size}]})
    return run


def stopped(number: int, age: float = 0, size: int = 100) -> Path:
    """Leave a run that did not end whole, some seconds ago; return its file."""
    before = set(kept_runs.files(kept_runs.folder()))
    run = begun(number, size)
    (path,) = {each.path for each in kept_runs.files(kept_runs.folder())} - {each.path for each in before}
    run.ended(whole=False)
    aged(path, age)
    return path


def aged(path: Path, age: float) -> None:
    then = time.time() - age
    os.utime(path, (then, then), follow_symlinks=False)


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="needs the folders of Linux")
def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert kept_runs.folder() == tmp_path / "state/llm_magic/rows"
    for void in ("", "here"):
        monkeypatch.setenv("XDG_STATE_HOME", void)
        assert kept_runs.folder() == Path.home() / ".local/state/llm_magic/rows"


def test_there_is_nothing(folder: Path) -> None:
    assert kept_runs.files(folder) == []
    assert kept_runs.kept(folder) == kept_runs.clear(folder) == Kept(0, 0, 0)
    kept_runs.sweep(folder)
    assert not folder.exists()


def test_old_runs_go_when_another_begins(folder: Path) -> None:
    young, old = stopped(2, MAX_AGE - 60), stopped(1, MAX_AGE + 60)
    assert old.exists()
    Store.open({"number": 3}, say=pytest.fail, writes=False)
    assert old.exists(), "to look removes nothing"
    Store.open({"number": 3}, say=pytest.fail)
    assert [old.exists(), young.exists()] == [False, True]


def test_what_is_too_old_is_not_given(folder: Path) -> None:
    stopped(1, MAX_AGE + 60)
    assert len(Store.open({"number": 1}, say=pytest.fail, writes=False)) == 0
    assert len(Store.open({"number": 1}, say=pytest.fail)) == 0
    assert list(folder.iterdir()) == []


def test_the_oldest_go_beyond_a_size(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    files = [stopped(number, 1_000 - number, 10_000) for number in range(10)]
    monkeypatch.setattr(kept_runs, "MAX_BYTES", 55_000)
    Store.open({"number": 99}, say=pytest.fail)
    assert [file.exists() for file in files] == [False] * 5 + [True] * 5
    monkeypatch.setattr(kept_runs, "MAX_BYTES", 1)
    again = Store.open({"number": 6}, say=pytest.fail)
    assert again.known(KEY) is not None, "not the one that begins"
    assert [file.exists() for file in files] == [False] * 6 + [True] + [False] * 3


def test_a_run_that_goes_on_stays(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    run = begun(1)
    (file,) = folder.iterdir()
    aged(file, 2 * MAX_AGE)
    monkeypatch.setattr(kept_runs, "MAX_BYTES", 1)
    kept_runs.sweep(folder)
    assert kept_runs.clear(folder) == Kept(0, 0, 1)
    assert file.exists()
    run.ended(whole=False)
    size = file.stat().st_size
    assert kept_runs.clear(folder) == Kept(1, size, 0)
    assert list(folder.iterdir()) == []


OTHERS = {
    "another name": ("notes.jsonl", b"mine\n"),
    "our name and other bytes": (f"{'a' * 32}-20260101T000000Z-12-{'b' * 8}.jsonl", b"mine\n"),
    "recordings": ("llm.jsonl", b'{"answer": {}}\n'),
    "our name with more": (f"{'a' * 32}-20260101T000000Z-12-{'b' * 8}.jsonl.bak", kept_runs.first_line("a" * 64)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_ours_is_never_removed(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    stopped(1)
    called, content = OTHERS[name]
    file = folder / called
    file.write_bytes(content)
    aged(file, 2 * MAX_AGE)
    monkeypatch.setattr(kept_runs, "MAX_BYTES", 1)
    kept_runs.sweep(folder)
    kept_runs.clear(folder)
    assert file.read_bytes() == content
    assert list(folder.iterdir()) == [file]


def test_a_folder_pipe_or_link_of_our_name_is_never_touched(folder: Path, tmp_path: Path) -> None:
    name = stopped(1).name
    (tmp_path / "other").write_bytes(kept_runs.first_line("a" * 64))
    pipe, link, sub = (folder / name.replace(name[-10:-6], end) for end in ("1111", "2222", "3333"))
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "other")
    sub.mkdir()
    for each in (pipe, link, sub):
        aged(each, 2 * MAX_AGE)
    assert kept_runs.kept(folder).runs == 1
    kept_runs.sweep(folder)
    assert kept_runs.clear(folder).runs == 1
    assert {each.name for each in folder.iterdir()} == {pipe.name, link.name, sub.name}
    assert (tmp_path / "other").exists()
    for each in (pipe, link, sub):
        assert not kept_runs.remove(each)


def test_a_file_without_its_first_line_goes_when_nobody_can_be_writing_it(folder: Path) -> None:
    file = stopped(1)
    file.write_bytes(b"")
    assert not kept_runs.remove(file)
    aged(file, 4_000)
    assert kept_runs.remove(file)
