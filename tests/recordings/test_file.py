"""A file of recordings: appended to, shared, damaged, replaced, and no file of recordings at all."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from llm_magic.errors import RecordingError
from llm_magic.recordings.file import RecordingsFile
from llm_magic.recordings.index import MAX_LINE
from llm_magic.recordings.recording import Recording, key_of

FORMATS = Path(__file__).parent / "formats"


def asked(prompt: str) -> dict[str, Any]:
    return {"kind": "answer", "provider": "vllm", "messages": [{"role": "user", "content": prompt}]}


def made(prompt: str, text: str, cell: str | None = None, replaces: int | None = None) -> Recording:
    answer = {"attempts": [], "choices": [{"text": text, "finish_reason": "stop"}], "seconds": 1}
    return Recording(asked(prompt), answer, cell, "2026-11-29T23:59:01Z", replaces)


def texts(file: RecordingsFile, prompt: str, before: int = 0) -> dict[int, str]:
    found = {}
    for at, place in file.find(key_of(asked(prompt)), before).items():
        recording = file.read(place)
        assert recording is not None
        found[at] = recording.answer["choices"][0]["text"]
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notes.llm.jsonl"


@pytest.fixture
def file(path: Path) -> RecordingsFile:
    return RecordingsFile(path, own=True)


def test_a_file_that_is_not_there_is_empty_and_is_not_made_by_looking(file: RecordingsFile) -> None:
    assert (len(file), texts(file, "Hi"), file.keys(), list(file.lines())) == (0, {}, [], [])
    assert not file.path.exists()


def test_answers_to_equal_requests_keep_their_order(file: RecordingsFile) -> None:
    for text in ("one", "two", "three"):
        file.append(made("Hi", text))
        file.append(made("Ho", f"{text}!"))
    for opened in (file, RecordingsFile(file.path, own=False)):
        assert texts(opened, "Hi") == {0: "one", 1: "two", 2: "three"}
        assert texts(opened, "Ho") == {0: "one!", 1: "two!", 2: "three!"}
        assert len(opened) == 6
        assert opened.take_remarks() == []


def test_a_line_takes_the_place_that_it_names(file: RecordingsFile) -> None:
    for recording in (
        made("Hi", "one"),
        made("Hi", "two"),
        made("Hi", "new one", replaces=0),
        made("Hi", "three"),
        made("Hi", "new two", replaces=1),
        made("Hi", "newer one", replaces=0),
        made("Hi", "six", replaces=6),
        made("Hi", "seven"),
    ):
        file.append(recording)
    assert texts(file, "Hi") == {0: "newer one", 1: "new two", 2: "three", 6: "six", 7: "seven"}
    assert list(file.find(key_of(asked("Hi")))) == [0, 1, 2, 6, 7]


def test_many_equal_ones_are_folded_once(file: RecordingsFile) -> None:
    for number in range(30):
        file.append(made("Hi", str(number), replaces=5 if number == 20 else None))
        assert len(file.find(key_of(asked("Hi")))) == (number + 1 if number < 20 else number)
    assert texts(file, "Hi")[5] == "20"


def test_places_follow_those_of_other_files(file: RecordingsFile) -> None:
    file.append(made("Hi", "one"))
    file.append(made("Hi", "two"))
    file.append(made("Hi", "in another's place", replaces=1))
    assert texts(file, "Hi", before=2) == {1: "in another's place", 2: "one", 3: "two"}


def test_one_line_an_answer_and_no_other_file_beside_it(file: RecordingsFile) -> None:
    file.append(made("Hi", "one\ntwo\r\n\u2028"))
    assert [each.name for each in file.path.parent.iterdir()] == ["notes.llm.jsonl"]
    assert file.path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_is_as_the_users_other_files(file: RecordingsFile, umask: int) -> None:
    before = os.umask(umask)
    try:
        file.append(made("Hi", "one"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o666 & ~umask


# --- several kernels


def test_what_other_kernels_append_is_found(path: Path) -> None:
    mine, others = RecordingsFile(path, own=True), RecordingsFile(path, own=True)
    mine.append(made("Hi", "one"))
    others.append(made("Hi", "two"))
    mine.append(made("Hi", "three"))
    assert texts(mine, "Hi") == texts(others, "Hi") == {0: "one", 1: "two", 2: "three"}


def test_which_place_is_decided_when_nobody_else_can_write(path: Path) -> None:
    mine, others = RecordingsFile(path, own=True), RecordingsFile(path, own=True)
    seen: list[dict[int, str]] = []
    assert len(mine) == 0
    others.append(made("Hi", "theirs"))

    def choose() -> None:
        seen.append(texts(mine, "Hi"))

    mine.append(made("Hi", "mine"), choose)
    assert seen == [{0: "theirs"}]


WRITER = """
import sys
from pathlib import Path
from llm_magic.recordings.file import RecordingsFile
from llm_magic.recordings.recording import Recording
file = RecordingsFile(Path(sys.argv[1]), own=True)
name, count = sys.argv[2], int(sys.argv[3])
for number in range(count):
    text = f"{name} {number} " + "x" * (number * 7919 % 200_000)
    answer = {"attempts": [], "choices": [{"text": text, "finish_reason": "stop"}], "seconds": 1}
    file.append(Recording({"kind": "answer", "n": number % 3}, answer, name, "2026-11-29T23:59:01Z"))
    print(number, flush=True)
"""


def writing(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, "-c", WRITER, str(path), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )


def test_four_kernels_append_at_once(path: Path) -> None:
    writers = [writing(path, name, 40) for name in "abcd"]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    file = RecordingsFile(path, own=True)
    found = sorted(Recording.read(line).answer["choices"][0]["text"].split()[:2] for _, line in file.lines())
    assert found == sorted([name, str(number)] for name in "abcd" for number in range(40))
    assert file.take_remarks() == []


def test_killed_at_any_moment_nothing_is_lost_that_was_appended(path: Path) -> None:
    told: list[tuple[str, int]] = []
    for round_ in range(50):
        name = f"r{round_}"
        writer = writing(path, name, 1_000_000)
        assert writer.stdout is not None
        told.append((name, int(writer.stdout.readline())))
        time.sleep(round_ * 7919 % 50 / 1000)
        writer.send_signal(signal.SIGKILL)
        told += [(name, int(line)) for line in writer.stdout.read().split("\n") if line.isdigit()]
        writer.wait()
        writer.stdout.close()
    file = RecordingsFile(path, own=True)
    found = [tuple(Recording.read(line).answer["choices"][0]["text"].split()[:2]) for _, line in file.lines()]
    assert {(name, str(number)) for name, number in told} <= set(found)
    assert len(found) == len(set(found))
    assert len(told) > 50


def test_threads_append_at_once(file: RecordingsFile) -> None:
    def append(name: str) -> None:
        for number in range(25):
            file.append(made("Hi", f"{name}{number}"))

    threads = [threading.Thread(target=append, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts(file, "Hi").values()) == sorted(f"{name}{number}" for name in "abcd" for number in range(25))


def test_a_file_that_stays_locked_is_an_error(file: RecordingsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr("llm_magic.recordings.locked_file._PATIENCE", 0.05)
    file.append(made("Hi", "one"))
    with file.path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RecordingError, match="cannot be written: another program has locked it"):
            file.append(made("Hi", "two"))
        assert texts(file, "Hi") == {0: "one"}
    file.append(made("Hi", "two"))
    assert texts(file, "Hi") == {0: "one", 1: "two"}


def test_a_file_system_without_locks_is_written(file: RecordingsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_file: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("llm_magic.recordings.locked_file._try_to_lock", no_locks)
    file.append(made("Hi", "one"))
    assert texts(file, "Hi") == {0: "one"}


def test_nothing_is_written_to_a_file_that_was_replaced(file: RecordingsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.append(made("Hi", "one"))
    monkeypatch.setattr("llm_magic.recordings.locked_file._PATIENCE", 0.05)
    monkeypatch.setattr("llm_magic.recordings.locked_file.is_called", lambda *_: False)
    with pytest.raises(RecordingError, match="cannot be written: another program replaces it again and again"):
        file.append(made("Hi", "two"))
    assert file.path.read_bytes() == made("Hi", "one").line()


# --- what becomes of the file


def test_a_torn_last_line_is_no_loss(file: RecordingsFile) -> None:
    file.append(made("Hi", "one"))
    line = made("Hi", "torn").line()
    with file.path.open("ab") as opened:
        opened.write(line[: len(line) // 2])
    assert texts(file, "Hi") == {0: "one"}
    assert texts(RecordingsFile(file.path, own=True), "Hi") == {0: "one"}
    assert file.take_remarks() == []
    file.append(made("Hi", "two"))
    assert texts(file, "Hi") == {0: "one", 1: "two"}
    assert file.take_remarks() == [f"{file.path}: no recordings, and passed over: line 2."]
    fresh = RecordingsFile(file.path, own=True)
    assert texts(fresh, "Hi") == {0: "one", 1: "two"}


@pytest.mark.parametrize("length", [1, 5, 10, 11, 40, -2])
def test_a_file_that_holds_a_torn_line_alone_is_ours(file: RecordingsFile, length: int) -> None:
    file.path.write_bytes(made("Hi", "torn").line()[:length])
    assert len(file) == 0
    file.append(made("Hi", "one"))
    assert texts(file, "Hi") == {0: "one"}


def test_a_line_that_another_kernel_completes_is_found(file: RecordingsFile) -> None:
    lines = [made("Hi", text).line() for text in ("one", "two", "three")]
    whole = b"".join(lines)
    for end in range(0, len(whole) + 1, 7):
        file.path.write_bytes(whole[:0]) if end == 0 else None
        with file.path.open("r+b") as opened:
            opened.write(whole[:end])
        expected = sum(end >= len(b"".join(lines[: number + 1])) - 1 for number in range(3))
        assert len(texts(file, "Hi")) == expected, end


def test_the_last_line_needs_no_end(file: RecordingsFile) -> None:
    file.path.write_bytes(made("Hi", "one").line() + made("Hi", "two").line().rstrip())
    assert texts(file, "Hi") == {0: "one", 1: "two"}
    file.append(made("Hi", "three"))
    for opened in (file, RecordingsFile(file.path, own=True)):
        assert texts(opened, "Hi") == {0: "one", 1: "two", 2: "three"}
        assert opened.take_remarks() == []


def test_a_file_that_vanishes_is_made_anew(file: RecordingsFile) -> None:
    file.append(made("Hi", "one"))
    place = file.find(key_of(asked("Hi")))[0]
    file.path.unlink()
    assert file.read(place) is None
    assert texts(file, "Hi") == {}
    file.append(made("Hi", "two"))
    assert texts(file, "Hi") == {0: "two"}


def test_a_file_that_is_replaced_is_read_anew(file: RecordingsFile) -> None:
    file.append(made("Hi", "one"))
    place = file.find(key_of(asked("Hi")))[0]
    other = RecordingsFile(file.path.with_name("other.jsonl"), own=True)
    for text in ("a", "b", "c"):
        other.append(made("Hi", text))
    other.path.replace(file.path)
    assert file.read(place) is None
    assert texts(file, "Hi") == {0: "a", 1: "b", 2: "c"}


def test_a_file_that_is_written_in_place_is_read_anew(file: RecordingsFile) -> None:
    """Some editors keep the inode."""
    file.append(made("Ho", "first"))
    file.append(made("Hi", "one"))
    place = file.find(key_of(asked("Hi")))[0]
    file.path.write_bytes(made("Hi", "an answer that is longer than before").line() + made("Hi", "two").line())
    assert file.read(place) is None
    assert texts(file, "Hi") == {0: "an answer that is longer than before", 1: "two"}
    assert file.take_remarks() == []


def test_a_file_that_is_cut_is_read_anew(file: RecordingsFile) -> None:
    for text in ("one", "two"):
        file.append(made("Hi", text))
    os.truncate(file.path, len(made("Hi", "one").line()))
    assert texts(file, "Hi") == {0: "one"}


def test_while_a_lock_is_waited_for_the_file_may_be_replaced(file: RecordingsFile) -> None:
    import fcntl

    file.append(made("Hi", "one"))
    done = threading.Event()

    def append() -> None:
        file.append(made("Hi", "two"))
        done.set()

    with file.path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=append)
        thread.start()
        assert not done.wait(0.1)
        fresh = file.path.with_name("fresh")
        fresh.write_bytes(made("Hi", "a").line())
        fresh.replace(file.path)
    thread.join()
    assert texts(file, "Hi") == {0: "a", 1: "two"}


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\r\n\r\n", b"   \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"],
    ids=["empty", "line", "lines", "spaces", "bom", "bom-line"],
)
def test_an_empty_file_is_one_of_recordings(file: RecordingsFile, content: bytes) -> None:
    file.path.write_bytes(content)
    assert len(file) == 0
    file.append(made("Hi", "one"))
    assert texts(file, "Hi") == {0: "one"}
    assert texts(RecordingsFile(file.path, own=True), "Hi") == {0: "one"}


def test_line_ends_and_marks_of_other_systems(file: RecordingsFile) -> None:
    lines = [made("Hi", "one").line(), made("Hi", "two", "cell-1").line(), made("Hi", "three", replaces=0).line()]
    file.path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(line.rstrip() for line in lines) + b"\r\n")
    assert texts(file, "Hi") == {0: "three", 1: "two"}
    assert [place.cell for place in file.find(key_of(asked("Hi"))).values()] == [None, "cell-1"]
    file.append(made("Hi", "four"))
    assert texts(file, "Hi") == {0: "three", 1: "two", 2: "four"}
    assert file.take_remarks() == []


@pytest.mark.parametrize(
    "cell",
    [
        "c",
        "5f3c2b1a-0000-4000-8000-000000000001",
        'a"b\\c',
        "é\n\u202e",
        "vscode-notebook-cell:/a b.ipynb#W0sZmlsZQ%3D%3D",
        "x" * 300,
    ],
)
def test_the_cell_is_known_without_reading_the_line(file: RecordingsFile, cell: str) -> None:
    file.append(made("Hi", "one", cell))
    assert [place.cell for place in file.find(key_of(asked("Hi"))).values()] == [cell]


def test_text_that_looks_like_the_end_of_a_line_is_text(file: RecordingsFile) -> None:
    looks = '"at": "x", "cell": "y", "key": "%s", "replaces": 3, "version": 9}' % ("0" * 64)
    file.append(made(looks, looks, looks))
    assert texts(file, looks) == {0: looks}
    assert file.keys() == [key_of(asked(looks))]
    assert [place.cell for place in file.find(file.keys()[0]).values()] == [looks]


def test_a_line_whose_fields_are_in_another_order_is_read(file: RecordingsFile) -> None:
    document = json.loads(made("Hi", "one", "c").line())
    turned = dict(sorted(document.items(), reverse=True))
    file.path.write_text(json.dumps(turned, separators=(",", ":")) + "\n" + json.dumps(document) + "\n")
    assert texts(file, "Hi") == {0: "one", 1: "one"}
    assert [place.cell for place in file.find(key_of(asked("Hi"))).values()] == ["c", "c"]


# --- damage


def test_both_sides_of_a_merge_conflict_are_read(file: RecordingsFile) -> None:
    lines = [made("Hi", text).line() for text in ("base", "ours", "theirs", "after")]
    file.path.write_bytes(
        lines[0] + b"<<<<<<< HEAD\n" + lines[1] + b"=======\n" + lines[2] + b">>>>>>> branch\n" + lines[3]
    )
    assert texts(file, "Hi") == {0: "base", 1: "ours", 2: "theirs", 3: "after"}
    (remark,) = file.take_remarks()
    assert remark == (
        f"{file.path} holds the marks of a merge conflict (lines 2, 4 and 6): both sides are read. "
        "Remove them; with the line `*.llm.jsonl merge=union` in .gitattributes there will be none."
    )
    file.append(made("Hi", "more"))
    assert len(texts(file, "Hi")) == 5
    assert file.take_remarks() == []  # said once


def test_what_is_torn_in_the_middle_is_passed_over_and_said(file: RecordingsFile) -> None:
    good, bad = made("Hi", "one").line(), made("Hi", "torn").line()
    file.path.write_bytes(good + bad[:50] + b"\n" + b"hand-written\n" + b"\n" + good)
    assert texts(file, "Hi") == {0: "one", 1: "one"}
    assert file.take_remarks() == [f"{file.path}: no recordings, and passed over: lines 2 and 3."]


def test_of_many_bad_lines_a_few_are_named(file: RecordingsFile) -> None:
    file.path.write_bytes(made("Hi", "one").line() + b"x\n" * 2_000)
    assert texts(file, "Hi") == {0: "one"}
    assert file.take_remarks() == [f"{file.path}: no recordings, and passed over: lines 2, 3, 4, 5, 6 and 1,995 more."]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((b'"content": "Hi"', b'"content": "Ho"'), "was changed by hand"),
        ((b'"answer": {', b'"answer": ['), "This is no JSON"),
        ((b'"asked"', b'"ask"'), "This is no recording"),
        ((b'"text": "two"', b'"text": "\xff\xfe"'), "This is no JSON"),
    ],
)
def test_what_does_not_hold_what_its_end_says_is_passed_over(
    file: RecordingsFile, change: tuple[bytes, bytes], why: str
) -> None:
    lines = [made("Hi", text).line() for text in ("one", "two", "three")]
    file.path.write_bytes(lines[0] + lines[1].replace(*change) + lines[2])
    places = file.find(key_of(asked("Hi")))
    assert [file.read(place) is None for place in places.values()] == [False, True, False]
    (remark,) = file.take_remarks()
    assert remark.startswith(f"{file.path}, line 2 is passed over: ")
    assert why in remark
    assert texts(file, "Hi") == {0: "one", 1: "three"}


def test_an_answer_that_was_changed_by_hand_is_given(file: RecordingsFile) -> None:
    file.path.write_bytes(made("Hi", "one").line().replace(b'"one"', b'"uno"'))
    assert texts(file, "Hi") == {0: "uno"}


def test_an_answer_that_is_none_is_an_error_that_names_its_line(file: RecordingsFile) -> None:
    file.path.write_bytes(made("Ho", "one").line() + made("Hi", "one").line().replace(b'"one"', b"1"))
    (place,) = file.find(key_of(asked("Hi"))).values()
    with pytest.raises(RecordingError) as caught:
        file.read(place)
    assert caught.value.message == f"{file.path}, line 2: answer.choices[0].text is no text."
    assert caught.value.hint == "Remove that line, or record the answer anew."


def test_a_line_that_is_longer_than_any_is_passed_over(file: RecordingsFile) -> None:
    good = made("Hi", "one").line()
    with file.path.open("wb") as opened:
        opened.write(good + b'{"answer": "')
        for _ in range(MAX_LINE // 2**20 + 1):
            opened.write(b"x" * 2**20)
        opened.write(b'"}\n' + good)
    assert texts(file, "Hi") == {0: "one", 1: "one"}
    assert file.take_remarks() == [f"{file.path}: no recordings, and passed over: line 2."]


def test_an_answer_that_is_longer_than_any_is_not_written(file: RecordingsFile) -> None:
    with pytest.raises(RecordingError, match="The answer is larger than 64 MB"):
        file.append(made("Hi", "x" * MAX_LINE))
    assert file.path.read_bytes() == b""


# --- what is no file of recordings


def sqlite_file(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE a (b)")
    database.close()


FOREIGN: dict[str, Any] = {
    "json": b'{"cells": []}\n',
    "json-indented": json.dumps({"a": {"b": [1] * 5}}, indent=1).encode(),
    "json-lines": b'{"id": 1, "text": "x"}\n{"id": 2, "text": "y"}\n',
    "json-lines-unended": b'{"id": 1}',
    "dataset": b'{"answer": {"text": "yes"}, "question": "?"}\n' * 3,
    "one-record": b'{"answer": {"text": "yes"}, "question": "?"}',
    "text": b"Dear diary,\n",
    "binary": bytes(range(256)) * 100,
    "zeros": b"\0" * 10_000,
    "utf-16": made("Hi", "one").line().decode().encode("utf-16"),
    "one-line": b"x" * 5_000_000,
    "many-lines": b'{"id": 1}\n' * 100_000,
    "conflict": b"<<<<<<< HEAD\na\n=======\nb\n>>>>>>> c\n",
    "sqlite": sqlite_file,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_file_of_another_program_stays_as_it_is(path: Path, content: Any) -> None:
    content(path) if callable(content) else path.write_bytes(content)
    before = path.read_bytes()
    named, found = RecordingsFile(path, own=True), RecordingsFile(path, own=False)
    for work in (
        lambda: named.find("0" * 64),
        lambda: named.append(made("Hi", "x")),
        lambda: named.rewrite(lambda *_: False),
        named.keys,
    ):
        with pytest.raises(RecordingError) as caught:
            work()
        assert caught.value.message == f"{path} is no file of recordings."
        assert caught.value.hint == "Name another: %config LLMMagics.record_file = …"
    assert found.find("0" * 64) == {}
    assert found.find("0" * 64) == {}
    assert found.take_remarks() == [f"{path} is no file of recordings. It is passed over."]
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_a_file_of_a_newer_format_stays_as_it_is(path: Path) -> None:
    path.write_bytes(made("Hi", "one").line() + made("Hi", "two").line().replace(b'"version": 1', b'"version": 2'))
    before = path.read_bytes()
    named, found = RecordingsFile(path, own=True), RecordingsFile(path, own=False)
    for _ in range(2):
        with pytest.raises(RecordingError) as caught:
            named.append(made("Hi", "x"))
        assert caught.value.message == f"{path} was written by a newer llm_magic, in format 2."
        assert caught.value.hint == "Update llm_magic. Name another: %config LLMMagics.record_file = …"
    assert found.find(key_of(asked("Hi"))) == {}
    assert found.take_remarks() == [f"{path} was written by a newer llm_magic, in format 2. It is passed over."]
    assert path.read_bytes() == before


def test_what_becomes_a_file_of_recordings_is_read(path: Path) -> None:
    path.write_bytes(b"x\n")
    found = RecordingsFile(path, own=False)
    assert texts(found, "Hi") == {}
    path.write_bytes(made("Hi", "one").line())
    assert texts(found, "Hi") == {0: "one"}


def test_a_link_is_read_and_not_written_through(path: Path) -> None:
    target = RecordingsFile(path.with_name("target.llm.jsonl"), own=True)
    target.append(made("Hi", "one"))
    before = target.path.read_bytes()
    path.symlink_to(target.path)
    file = RecordingsFile(path, own=True)
    assert texts(file, "Hi") == {0: "one"}
    for work in (lambda: file.append(made("Hi", "two")), lambda: file.rewrite(lambda *_: False)):
        with pytest.raises(RecordingError, match="cannot be written: it is a link") as caught:
            work()
        assert caught.value.hint == "Name the file that it leads to: %config LLMMagics.record_file = …"
    assert target.path.read_bytes() == before
    assert path.is_symlink()


def test_a_link_to_nothing_makes_no_file(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))
    file = RecordingsFile(path, own=True)
    assert texts(file, "Hi") == {}
    with pytest.raises(RecordingError, match="cannot be written: it is no plain file"):
        file.append(made("Hi", "one"))
    assert not path.with_name("elsewhere").exists()


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop"])
def test_what_is_no_plain_file_is_neither_waited_for_nor_written(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    named, found = RecordingsFile(path, own=True), RecordingsFile(path, own=False)
    with pytest.raises(RecordingError, match=r"cannot be read: .*plain file"):
        named.find("0" * 64)
    with pytest.raises(RecordingError, match=r"cannot be written: .*plain file"):
        named.append(made("Hi", "one"))
    assert found.find("0" * 64) == {}
    (remark,) = found.take_remarks()
    assert remark.endswith("plain file. It is passed over.")


def test_a_folder_that_is_gone_is_an_error_where_it_is_written(tmp_path: Path) -> None:
    file = RecordingsFile(tmp_path / "gone" / "a.llm.jsonl", own=True)
    assert texts(file, "Hi") == {}
    with pytest.raises(RecordingError, match="cannot be written: No such file or directory"):
        file.append(made("Hi", "one"))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_cannot_be_is_an_error(tmp_path: Path, name: str) -> None:
    file = RecordingsFile(tmp_path / name, own=True)
    with pytest.raises(RecordingError, match="cannot be read"):
        file.find("0" * 64)
    with pytest.raises(RecordingError, match="cannot be written"):
        file.append(made("Hi", "one"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do all")
def test_a_read_only_file_is_read_and_not_written(file: RecordingsFile) -> None:
    file.append(made("Hi", "one"))
    file.path.chmod(0o444)
    assert texts(file, "Hi") == {0: "one"}
    with pytest.raises(RecordingError, match="cannot be written: Permission denied"):
        file.append(made("Hi", "two"))


def test_a_full_disk_leaves_no_half_line(file: RecordingsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.append(made("Hi", "one"))
    before, write = file.path.read_bytes(), os.write
    calls: list[int] = []

    def full(opened: int, data: bytes) -> int:
        calls.append(opened)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(opened, data[:40])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RecordingError, match="cannot be written: No space left on device"):
        file.append(made("Hi", "two"))
    monkeypatch.undo()
    assert file.path.read_bytes() == before
    file.append(made("Hi", "two"))
    assert texts(file, "Hi") == {0: "one", 1: "two"}


# --- written anew


def test_what_is_not_kept_is_dropped_and_the_order_stays(file: RecordingsFile) -> None:
    for recording in (
        made("Hi", "one", "a"),
        made("Ho", "other"),
        made("Hi", "two", "b"),
        made("Hi", "three", "c"),
        made("Hi", "new one", "d", replaces=0),
    ):
        file.append(recording)
    file.path.chmod(0o640)
    other = RecordingsFile(file.path, own=True)
    assert len(other) == 5
    assert file.rewrite(lambda key, at: key == key_of(asked("Hi")) and at != 1) == 2
    for opened in (file, other, RecordingsFile(file.path, own=True)):
        assert texts(opened, "Hi") == {0: "new one", 1: "three"}
        assert texts(opened, "Ho") == {}
        assert opened.take_remarks() == []
    assert b"replaces" not in file.path.read_bytes()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640
    assert len(list(file.path.parent.iterdir())) == 1
    file.append(made("Hi", "four"))
    assert texts(file, "Hi") == {0: "new one", 1: "three", 2: "four"}


def test_what_other_kernels_added_meanwhile_stays(path: Path) -> None:
    mine, others = RecordingsFile(path, own=True), RecordingsFile(path, own=True)
    mine.append(made("Hi", "one"))
    assert len(mine) == 1
    others.append(made("Hi", "two"))
    assert mine.rewrite(lambda *_: False) == 1
    assert texts(mine, "Hi") == texts(others, "Hi") == {0: "two"}


def test_a_place_in_another_file_stays_taken(file: RecordingsFile) -> None:
    file.append(made("Hi", "of mine"))
    file.append(made("Hi", "in another's place", replaces=1))
    file.append(made("Hi", "in mine", replaces=2))
    assert texts(file, "Hi", before=2) == {1: "in another's place", 2: "in mine"}
    file.rewrite(lambda *_: True, lambda _: 2)
    assert texts(file, "Hi", before=2) == {1: "in another's place", 2: "in mine"}


def test_damage_is_gone_from_a_file_that_is_written_anew(file: RecordingsFile) -> None:
    file.path.write_bytes(made("Hi", "one").line() + b"<<<<<<< HEAD\nx\n" + made("Hi", "two").line().rstrip())
    assert file.rewrite(lambda *_: True) == 0
    assert file.path.read_bytes() == made("Hi", "one").line() + made("Hi", "two").line()


def test_a_full_disk_leaves_the_old_file(file: RecordingsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.append(made("Hi", "one"))
    before = file.path.read_bytes()

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordingError, match="cannot be written: No space left on device"):
        file.rewrite(lambda *_: False)
    assert file.path.read_bytes() == before
    assert len(list(file.path.parent.iterdir())) == 1


def test_kernels_append_while_another_writes_the_file_anew(path: Path) -> None:
    writers = [writing(path, name, 60) for name in "ab"]
    file = RecordingsFile(path, own=True)
    while any(writer.poll() is None for writer in writers):
        file.rewrite(lambda *_: True)
        time.sleep(0.005)
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    found = sorted(Recording.read(line).answer["choices"][0]["text"].split()[:2] for _, line in file.lines())
    assert found == sorted([name, str(number)] for name in "ab" for number in range(60))
