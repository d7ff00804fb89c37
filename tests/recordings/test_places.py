"""Which files of recordings are read and written."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_magic.recordings.places import record_files


def test_beside_the_notebook(tmp_path: Path) -> None:
    notebook = tmp_path / "analysis.ipynb"
    (tmp_path / "other.llm.jsonl").touch()
    assert record_files("", notebook) == (tmp_path / "analysis.llm.jsonl", ())


def test_what_was_recorded_where_the_name_was_not_known_is_read_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "llm.jsonl").touch()
    assert record_files("", tmp_path / "analysis.ipynb") == (
        tmp_path / "analysis.llm.jsonl",
        (tmp_path / "llm.jsonl",),
    )


def test_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.llm.jsonl", "a.llm.jsonl", "llm.jsonl", "a.jsonl"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert record_files("", None) == (tmp_path / "llm.jsonl", (tmp_path / "a.llm.jsonl", tmp_path / "b.llm.jsonl"))


def test_the_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llm.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert record_files("kept.jsonl", tmp_path / "analysis.ipynb") == (tmp_path / "kept.jsonl", ())
    assert record_files("~/kept.jsonl", None) == (tmp_path / "kept.jsonl", ())
