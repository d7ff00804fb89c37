"""Files for the user alone that are written a little at a time."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from llm_magic import private_files
from llm_magic.private_files import NotPlainError


def test_a_file_takes_its_place_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(0o666)
    with private_files.replacing(path) as opened:
        opened.write(b"new")
        opened.seek(0)
        assert opened.read() == b"new"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_what_was_there_stays_where_it_is_not(tmp_path: Path, kind: type[BaseException]) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    made = private_files.replacing(path)
    made.__enter__().write(b"new")
    assert not made.__exit__(kind, kind(), None)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes among its files")
def test_what_is_no_plain_file_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder"):
        with pytest.raises(NotPlainError), private_files.replacing(tmp_path / name):
            pass
    assert sorted(found.name for found in tmp_path.iterdir()) == ["folder", "link", "pipe"]
