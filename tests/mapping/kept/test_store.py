"""The answers of a run over rows on disk: what a later run of the same rows is given, and what it is not."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_magic.mapping.kept import kept_runs
from llm_magic.mapping.kept.store import Store
from llm_magic.secrets import Secret

RUN = {"kind": "rows", "model": "m", "template": "Is {{ text }} good?"}
ANSWER = {"choices": [{"text": "price", "finish_reason": "stop"}], "seconds": 0.25, "attempts": []}


def key(row: object) -> str:
    return sha256(str(row).encode("utf-8", "surrogatepass")).hexdigest()


def answer(text: str) -> dict[str, Any]:
    return {**ANSWER, "choices": [{"text": text}]}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs, which is not there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "llm_magic" / "rows"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def begin(said: list[str]) -> Callable[..., Store]:
    def begin(identity: dict[str, Any] = RUN, **options: Any) -> Store:
        return Store.open(identity, say=said.append, **options)

    return begin


@pytest.fixture(autouse=True)
def _said_nothing(said: list[str]) -> Iterator[None]:
    """What is said is taken out by the test that expects it."""
    yield
    assert said == []


def stopped(begin: Callable[..., Store], *rows: object, **options: Any) -> None:
    """Leave the answers of a run that did not end whole."""
    run = begin(**options)
    for row in rows:
        assert run.keep(key(row), answer(str(row)))
    run.ended(whole=False)


def test_a_run_that_did_not_end_whole_is_gone_on_with(begin: Callable[..., Store], folder: Path) -> None:
    first = begin()
    assert (len(first), first.known(key(1))) == (0, None)
    assert not folder.exists(), "nothing is made before there is an answer"
    assert first.keep(key(1), answer("one"))
    assert first.keep(key(2), answer("é\ud800\x00\u2028\U0001f600"))
    first.ended(whole=False)
    second = begin()
    assert len(second) == 2
    assert second.known(key(1)) == answer("one")
    assert second.known(key(2)) == answer("é\ud800\x00\u2028\U0001f600")
    assert second.known(key(3)) is None
    assert (second.has(key(1)), second.has(key(1), 1), second.has(key(3))) == (True, False, False)
    assert second.keep(key(3), answer("three"))
    second.ended(whole=False)
    third = begin()
    assert [third.known(key(row)) for row in (1, 2, 3)] == [
        answer("one"),
        answer("é\ud800\x00\u2028\U0001f600"),
        answer("three"),
    ]
    third.ended(whole=True)
    assert list(folder.iterdir()) == [], "what ended whole is asked anew"
    assert len(begin()) == 0


def test_a_line_has_the_format_of_recordings_without_what_was_asked(begin: Callable[..., Store], folder: Path) -> None:
    stopped(begin, "a row")
    (file,) = folder.iterdir()
    first, line = map(json.loads, file.read_text().splitlines())
    assert line.pop("at").endswith("Z")
    assert line == {"answer": answer("a row"), "key": key("a row"), "version": 1}
    assert first["version"] == 1


def test_it_is_for_the_user_alone_and_says_nothing_of_the_prompt(begin: Callable[..., Store], folder: Path) -> None:
    stopped(begin, "a row")
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent, folder.parent.parent)} == {0o700}
    assert b"Is {{" not in file.read_bytes()


def test_equal_rows_have_answers_of_their_own(begin: Callable[..., Store]) -> None:
    run = begin()
    for text in ("first", "second"):
        assert run.keep(key("same"), answer(text))
    run.ended(whole=False)
    run = begin()
    assert [run.known(key("same"), number) for number in range(3)] == [answer("first"), answer("second"), None]
    assert run.keep(key("same"), answer("third"))
    run.ended(whole=False)
    found = [begin().known(key("same"), number) for number in range(4)]
    assert found == [answer("first"), answer("second"), answer("third"), None]
    assert begin().known(key("same"), -1) is None


def test_runs_that_differ_in_what_all_rows_share_do_not_meet(begin: Callable[..., Store]) -> None:
    stopped(begin, 1)
    assert len(begin({**RUN, "system": "Be brief."})) == 0
    assert begin({**RUN, "temperature": 1.0}).known(key(1)) is None
    assert begin(dict(reversed(RUN.items()))).known(key(1)) == answer("1")


def test_again_forgets_what_was_there(begin: Callable[..., Store]) -> None:
    stopped(begin, 1)
    run = begin(again=True)
    assert (len(run), run.known(key(1))) == (0, None)
    run.ended(whole=False)
    assert len(begin()) == 0


def test_to_look_changes_nothing(begin: Callable[..., Store], folder: Path) -> None:
    stopped(begin, 1)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    for again in (False, True):
        run = begin(writes=False, again=again)
        assert len(run) == int(not again)
        assert not run.keep(key(2), ANSWER)
        run.ended(whole=True)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_what_came_after_the_end_is_not_kept(begin: Callable[..., Store]) -> None:
    run = begin()
    run.ended(whole=False)
    run.ended(whole=True)
    assert not run.keep(key(1), ANSWER)
    assert run.known(key(1)) is None


def test_a_run_that_nobody_ended_is_gone_on_with(begin: Callable[..., Store]) -> None:
    abandoned = begin()
    abandoned.keep(key(1), answer("1"))
    later = begin()
    assert later.known(key(1)) == answer("1"), "of one that goes on, too: nobody pays twice"
    later.ended(whole=True)
    assert abandoned.keep(key(2), answer("2"))
    abandoned.ended(whole=False)
    assert len(begin()) == 2, "a run that goes on is not removed by another that ends"
    begin(again=True)
    assert len(begin()) == 0


def test_two_at_once_do_not_forget_what_the_other_added(begin: Callable[..., Store]) -> None:
    stopped(begin, 1)
    one, other = begin(), begin()
    one.keep(key(2), answer("2"))
    other.keep(key(3), answer("3"))
    one.ended(whole=True)  # removes what was there, and its own
    assert other.known(key(1)) == answer("1"), "it is still open"
    other.ended(whole=False)
    assert [begin().known(key(row)) for row in (1, 2, 3)] == [None, None, answer("3")]


def test_a_run_that_was_added_to_since_it_was_read_stays(begin: Callable[..., Store]) -> None:
    one = begin()
    one.keep(key(1), answer("1"))
    other = begin()
    assert len(other) == 1
    one.keep(key(2), answer("2"))
    one.ended(whole=False)  # as if it were killed
    other.ended(whole=True)
    assert len(begin()) == 2


def test_what_is_no_json_or_too_long_is_not_kept(
    begin: Callable[..., Store], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin()
    loop: list[Any] = []
    loop.append(loop)
    for bad in (b"bytes", loop, {1, 2}):
        assert not run.keep(key(1), {"choices": bad})
    assert [line.startswith("An answer is no JSON data (") for line in said] == [True] * len(said)
    said.clear()
    monkeypatch.setattr("llm_magic.mapping.kept.store.MAX_LINE", 1_000_000)
    assert not run.keep(key(1), answer("x" * 1_000_000))
    assert said == ["An answer is larger than 0 MB, and is not kept: should this run stop, its row is asked again."]
    said.clear()
    assert run.keep(key(1), answer("x" * 900_000))
    assert run.keep(key(2), answer("2"))
    run.ended(whole=False)
    assert begin().known(key(1)) == answer("x" * 900_000)
    assert begin().known(key(2)) == answer("2")


def test_an_identity_that_is_no_data_keeps_nothing(begin: Callable[..., Store], said: list[str], folder: Path) -> None:
    run = begin({"model": object()})
    assert not run.keep(key(1), ANSWER)
    assert run.known(key(1)) is None
    run.ended(whole=True)
    assert not folder.exists()
    (line,) = said
    assert line.startswith("Answers are not kept, to go on with if this run stops: What was asked cannot be recorded")
    said.clear()


@pytest.mark.parametrize("spelled", ["sk-top-secret-12345", "sk-top%2Dsecret%2D12345", "c2stdG9wLXNlY3JldC0xMjM0NQ=="])
def test_an_answer_that_holds_a_key_is_not_kept(
    spelled: str, begin: Callable[..., Store], said: list[str], folder: Path
) -> None:
    run = begin()
    keys = (Secret("sk-top-secret-12345", key=True),)
    for row in (1, 2):
        assert not run.keep(key(row), answer(f"Use {spelled} here"), keys)
    assert said == ["An answer holds a key, and is not kept: should this run stop, its row is asked again."]
    said.clear()
    assert run.keep(key(3), answer("nothing of it"), keys)
    run.ended(whole=False)
    assert b"top" not in b"".join(file.read_bytes() for file in folder.iterdir())


def test_secrets_of_the_environment_are_not_kept(
    begin: Callable[..., Store], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin()
    assert run.keep(key(1), answer("quite-a-secret"))
    monkeypatch.setenv("HOUSE_TOKEN", "quite-a-secret")
    assert not run.keep(key(2), answer("quite-a-secret"))
    assert said.pop().startswith("An answer holds the value of the environment variable HOUSE_TOKEN, and is not kept")


# The folder and its files as they should not be


def test_another_program_may_cut_or_change_the_file(begin: Callable[..., Store], folder: Path) -> None:
    stopped(begin, *range(10))
    (file,) = folder.iterdir()
    run = begin()
    whole = file.read_bytes()
    os.truncate(file, len(whole) - 30)
    assert run.known(key(8)) == answer("8")
    assert run.known(key(9)) is None
    file.write_bytes(whole.replace(b'"text": "3"', b'"text": "33'))
    assert run.known(key(3)) is None
    file.write_bytes(b"".join(sorted(whole.splitlines(keepends=True), key=len, reverse=True)))
    assert {run.known(key(row)) is None for row in range(10)} == {True}, "a place that has another key is none"


def test_the_own_file_is_cut_while_the_run_goes_on(begin: Callable[..., Store], folder: Path) -> None:
    run = begin()
    for row in range(3):
        run.keep(key(row), answer(str(row)))
    (file,) = folder.iterdir()
    os.truncate(file, file.stat().st_size - 30)
    for row in range(3, 6):
        assert run.keep(key(row), answer(str(row)))
    run.ended(whole=False)
    later = begin()
    assert [row for row in range(6) if later.known(key(row)) == answer(str(row))] == [0, 1, 3, 4, 5]


def test_the_folder_is_removed_before_the_first_answer(
    begin: Callable[..., Store], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, times = kept_runs.make_folder, []

    def made_and_removed(place: Path) -> None:
        make(place)
        times.append(place)
        if len(times) < 3:
            shutil.rmtree(folder.parent)

    monkeypatch.setattr(kept_runs, "make_folder", made_and_removed)
    stopped(begin, 1)
    assert begin().known(key(1)) == answer("1")


def test_the_folder_is_removed_while_the_run_goes_on(begin: Callable[..., Store], folder: Path) -> None:
    stopped(begin, "old")
    run = begin()
    run.keep(key(1), answer("1"))
    shutil.rmtree(folder.parent)
    assert run.known(key("old")) == answer("old"), "it is still open"
    assert run.keep(key(2), answer("2"))
    run.ended(whole=False)
    assert [begin().known(key(row)) for row in (1, 2)] == [None, answer("2")]


ODD = {
    "nothing": b"\n",
    "zeros": bytes(5_000),
    "no json": b"hello\n",
    "marks of a merge": b"<<<<<<< HEAD\n=======\n>>>>>>> other\n",
    "a newer version": b'{"answer": {}, "at": "", "key": "%s", "version": 2}\n' % key("odd").encode(),
    "a key that is none": b'{"answer": {}, "at": "", "key": "%s", "version": 1}\n' % (b"zz" * 32),
    "no answer": b'{"answer": 1, "at": "", "key": "%s", "version": 1}\n' % key("odd").encode(),
    "a list": b'{"answer": {[}, "at": "", "key": "%s", "version": 1}\n' % key("odd").encode(),
    "nested": b'{"answer": {"a": %s}, "at": "", "key": "%s", "version": 1}\n' % (b"[" * 200_000, key("odd").encode()),
    "torn, with another after it": b'{"answer": {"choices": [{"text": "tor'
    b'{"answer": {}, "at": "", "key": "%s", "version": 1}\n' % key("odd").encode(),
    "torn": b'{"answer": {"choices": [{"te',
    "long": b"x" * 9_000_000 + b"\n",
    "not UTF-8": b'{"answer": {"a": "\xff"}, "at": "", "key": "%s", "version": 1}\n' % key("odd").encode(),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_an_odd_line_costs_no_other(name: str, place: str, begin: Callable[..., Store], folder: Path) -> None:
    stopped(begin, 1, 2)
    (file,) = folder.iterdir()
    first, *lines = file.read_bytes().splitlines(keepends=True)
    at = {"before": 0, "between": 1, "after": 2}[place]
    odd = ODD[name] if ODD[name].endswith(b"\n") or place == "after" else ODD[name] + b"\n"
    lines.insert(at, odd)
    file.write_bytes(first + b"".join(lines))
    run = begin()
    assert [run.known(key(row)) for row in (1, 2, "odd")] == [answer("1"), answer("2"), None]
    run.keep(key(3), answer("3"))
    run.ended(whole=True)
    assert list(folder.iterdir()) == []


def test_a_line_longer_than_any_is_passed_over(
    begin: Callable[..., Store], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(begin, 1, 2)
    (file,) = folder.iterdir()
    first, one, two = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + one + b'{"answer": {"x": "' + b"x" * 13_000_000 + two + one.replace(b"price", b"pr") + two)
    monkeypatch.setattr("llm_magic.mapping.kept.earlier_answers.MAX_LINE", 100_000)
    run = begin()
    assert len(run) == 3
    assert [run.known(key(row)) for row in (1, 2)] == [answer("1"), answer("2")]


def test_a_file_of_another_run_or_version_is_not_read(begin: Callable[..., Store], folder: Path) -> None:
    stopped(begin, 1)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for first in (b'{"answers_of": "rows", "run": "x", "version": 1}\n', whole.splitlines()[0].replace(b"1}", b"2}")):
        file.write_bytes(first + b"\n" + whole.partition(b"\n")[2])
        assert len(begin()) == 0
    file.write_bytes(whole)
    assert len(begin()) == 1


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


def test_a_file_that_cannot_be_read_costs_no_other(
    begin: Callable[..., Store], said: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(begin, 1)
    (file,) = folder.iterdir()
    stopped(begin, 2)
    found = kept_runs.opened

    def refused(path: Path, flags: int = os.O_RDONLY) -> Any:
        if path == file:
            raise PermissionError(13, "Permission denied")
        return found(path, flags)

    monkeypatch.setattr(kept_runs, "opened", refused)
    run = begin()
    assert [run.known(key(row)) for row in (1, 2)] == [None, answer("2")]
    what = f"Earlier answers cannot be read: {file}: Permission denied"
    assert said == [f"{what}. LLMMagics.resume = False does without."]
    said.clear()


def test_more_files_than_stay_open(begin: Callable[..., Store]) -> None:
    for row in range(80):
        stopped(begin, row)
    before = open_files()
    run = begin()
    for _ in range(2):
        assert [run.known(key(row)) for row in range(80)] == [answer(str(row)) for row in range(80)]
    assert open_files() - before <= 32
    run.keep(key("own"), ANSWER)
    del run
    assert open_files() == before, "closed where nobody has it any more"


def not_kept(why: str) -> str:
    return f"Answers are not kept, to go on with if this run stops: {why}. LLMMagics.resume = False does without."


def pipe(place: Path) -> None:
    place.parent.mkdir(parents=True)
    os.mkfifo(place)


def plain_file(place: Path) -> None:
    place.parent.mkdir(parents=True)
    place.write_text("not yours")


def parent_is_a_file(place: Path) -> None:
    place.parent.parent.mkdir(parents=True)
    place.parent.write_text("not yours")


def link_to_nothing(place: Path) -> None:
    place.parent.mkdir(parents=True)
    place.symlink_to(place.parent / "nowhere")


def link_to_a_device(place: Path) -> None:
    place.parent.mkdir(parents=True)
    place.symlink_to("/dev/zero")


HOSTILE = [pipe, plain_file, parent_is_a_file, link_to_nothing, link_to_a_device]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_something_else_in_the_place_of_the_folder(
    hostile: Callable[[Path], None], begin: Callable[..., Store], said: list[str], folder: Path
) -> None:
    hostile(folder)
    run = begin()
    assert run.known(key(1)) is None
    assert not run.keep(key(1), ANSWER)
    assert not run.keep(key(2), ANSWER)
    run.ended(whole=True)
    assert len(said) in {1, 2}
    for line in said:
        assert line.startswith(f"Answers are not kept, to go on with if this run stops: {folder}: ")
        assert line.endswith(". LLMMagics.resume = False does without.")
    said.clear()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs another user's folder")
@pytest.mark.parametrize("which", ["folder", "folder above", "link", "file"])
def test_what_is_another_users_is_not_used(
    which: str, begin: Callable[..., Store], said: list[str], folder: Path
) -> None:
    stopped(begin, 1)
    (file,) = folder.iterdir()
    if which == "link":
        elsewhere = folder.parent / "elsewhere"
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)
    os.chown({"folder above": folder.parent, "file": file}.get(which, folder), 12_345, 12_345, follow_symlinks=False)
    run = begin()
    assert run.known(key(1)) is None
    assert run.keep(key(2), ANSWER) is (which == "file")
    run.ended(whole=False)
    if which != "file":
        assert said == [not_kept(f"{folder}: it belongs to another user (uid 12345)")]
        said.clear()


def test_a_link_of_the_user_leads_to_another_disk(begin: Callable[..., Store], folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "big disk"
    elsewhere.mkdir(mode=0o750)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(elsewhere)
    stopped(begin, 1)
    assert begin().known(key(1)) == answer("1")
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o750, "what the user has made stays as it is"


def test_links_in_the_folder_are_not_followed(begin: Callable[..., Store], folder: Path, tmp_path: Path) -> None:
    stopped(begin, 1)
    (file,) = folder.iterdir()
    moved = tmp_path / "moved"
    file.rename(moved)
    file.symlink_to(moved)
    run = begin(again=True)
    run.ended(whole=True)
    kept_runs.clear(folder)
    assert len(begin()) == 0
    assert moved.exists()
    assert file.is_symlink()


def test_no_home(begin: Callable[..., Store], said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    run = begin()
    assert not run.keep(key(1), ANSWER)
    run.ended(whole=True)
    assert said == [not_kept("no folder: there is no home folder")]
    said.clear()


def test_a_file_that_cannot_grow(begin: Callable[..., Store], said: list[str], folder: Path) -> None:
    resource: Any = pytest.importorskip("resource", reason="needs a limit on the size of files")
    run = begin()
    run.keep(key(1), answer("1"))
    (file,) = folder.iterdir()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = file.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, limit[1]))
    try:
        for row in (2, 3):
            assert not run.keep(key(row), answer(str(row)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert said == [not_kept(f"{folder}: File too large")]
    said.clear()
    assert file.stat().st_size == size, "nothing of them is there"
    assert run.keep(key(4), answer("4"))
    run.ended(whole=False)
    assert [begin().known(key(row)) is not None for row in (1, 2, 3, 4)] == [True, False, False, True]


def test_a_disk_that_is_full_or_read_only(begin: Callable[..., Store], said: list[str], folder: Path) -> None:
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    may_mount = os.geteuid() == 0 and shutil.which("mount") is not None
    if not may_mount or subprocess.run(command, check=False).returncode:  # noqa: S603 - of this test
        pytest.skip("needs to mount a small file system")
    try:
        run = begin()
        kept = [row for row in range(200) if run.keep(key(row), answer(str(row) * 50))]
        assert 0 < len(kept) < 200
        assert ["No space left on device" in line for line in said] == [True]
        said.clear()
        run.ended(whole=False)
        later = begin()
        assert [row for row in range(200) if later.known(key(row)) == answer(str(row) * 50)] == kept
        assert not later.keep(key("more"), answer("x" * 5_000)), "not even the first line"
        assert "No space left on device" in said.pop()
        later.ended(whole=True)
        del later
        assert list(folder.iterdir()) == []
        stopped(begin, 1)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)  # noqa: S603, S607
        run = begin()
        assert run.known(key(1)) == answer("1")
        assert not run.keep(key(2), ANSWER)
        assert "Read-only file system" in said.pop()
        run.ended(whole=True)
        begin(again=True).ended(whole=True)
        assert said == []
    finally:
        subprocess.run(["umount", "-l", folder], check=True)  # noqa: S603, S607


def test_several_threads_keep_side_by_side(begin: Callable[..., Store]) -> None:
    run = begin()

    def work(thread: int) -> None:
        for row in range(200):
            assert run.keep(key((thread, row)), answer(f"{thread} {row}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.ended(whole=False)
    later = begin()
    assert len(later) == 1_600
    assert all(later.known(key((t, row))) == answer(f"{t} {row}") for t in range(8) for row in range(200))


# Any answer, and any order of events


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(st.dictionaries(st.text(), JSON, max_size=4), min_size=1, max_size=4))
def test_every_answer_is_given_as_it_was(answers: list[dict[str, Any]], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    run = Store.open(RUN, say=pytest.fail)
    for number, each in enumerate(answers):
        assert run.keep(key(number), each)
        assert run.keep(key("same"), each)
    run.ended(whole=False)
    run = Store.open(RUN, say=pytest.fail)
    assert [run.known(key(number)) for number in range(len(answers))] == answers
    assert [run.known(key("same"), number) for number in range(len(answers))] == answers


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("keep"), st.integers(0, 2), st.integers(0, 3)),
        st.tuples(st.just("ended"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("killed"), st.integers(0, 2), st.integers(0, 120)),
        st.tuples(st.just("known"), st.integers(0, 2), st.integers(0, 3)),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_order_of_runs_gives_what_was_kept_and_nothing_else(
    steps: list[tuple[str, int, int]], folder: Path
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    runs: dict[int, Store] = {}
    ever: dict[int, list[dict[str, Any]]] = {row: [] for row in range(4)}
    left: dict[int, list[dict[str, Any]]] = {row: [] for row in range(4)}  # by runs that ended, and were not forgotten
    own: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    said: list[str] = []
    number = 0
    for what, who, value in steps:
        if what == "begin":
            if who in runs:
                runs[who].ended(whole=False)
                for row, told in own.pop(who):
                    left[row].append(told)
            runs[who], own[who] = Store.open(RUN, say=said.append, again=bool(value)), []
            if value:
                left = {row: [] for row in left}
            missing = [row for row in left if len(left[row]) and not runs[who].has(key(row))]
            assert not missing
        elif who not in runs:
            continue
        elif what == "keep":
            number += 1
            told = answer(str(number))
            ever[value].append(told)
            own[who].append((value, told))
            assert runs[who].keep(key(value), told)
        elif what == "known":
            found = [runs[who].known(key(value), at) for at in range(8)]
            given_ = [each for each in found if each is not None]
            assert all(each in ever[value] for each in given_)
            assert len({str(each) for each in given_}) == len(given_)
            assert None not in found[: len(given_)]
        elif what == "ended":
            runs.pop(who).ended(whole=bool(value))
            mine = own.pop(who)
            if value:
                left = {row: [] for row in left}
            else:
                for row, told in mine:
                    left[row].append(told)
        else:  # killed: the end of its file is torn, at most that of one line
            store = runs.pop(who)
            path, mine = store._own._path, own.pop(who)
            store._own.close()
            store._earlier.close()
            if path is not None and path.exists() and mine:
                size = path.stat().st_size
                last = len(path.read_bytes().splitlines(keepends=True)[-1])
                os.truncate(path, size - min(value, last))
                mine = mine[:-1] if value else mine
            for row, told in mine:
                left[row].append(told)
    assert said == []
    for store in runs.values():
        store.ended(whole=False)
