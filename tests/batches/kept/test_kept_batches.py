"""The user's folder of batches: records that are found again, hostile files in it, and what goes with time."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import virtual_time
from batch_records import RUN, record

from llm_magic.batches.kept import kept_batches
from llm_magic.batches.kept.kept_batches import CERTAIN_AFTER, LEFT_AFTER, MAX_AGE, UNREAD_AGE, BatchFolder
from llm_magic.batches.kept.record import MAX_RECORD, AnotherBatchError, BatchRecord
from llm_magic.mapping.kept import kept_runs
from llm_magic.recordings.locked_file import lock_at_once

DAY = 86_400


@pytest.fixture
def folder(tmp_path: Path) -> BatchFolder:
    """A folder that is not there yet."""
    return BatchFolder(tmp_path / "state" / "batches", say=pytest.fail)


def aged(path: Path, at: float) -> None:
    os.utime(path, (at, at), follow_symlinks=False)


def files(folder: BatchFolder) -> set[str]:
    return {each.name for each in folder.place.iterdir()}


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond some bytes."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


# Where it is


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="needs the folders of Linux")
def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert BatchFolder().place == tmp_path / "llm_magic/batches" == kept_runs.folder("batches")
    assert kept_runs.folder() == tmp_path / "llm_magic/rows"
    monkeypatch.setenv("XDG_STATE_HOME", "")
    assert BatchFolder().place == Path.home() / ".local/state/llm_magic/batches"


def test_a_look_makes_nothing(folder: BatchFolder) -> None:
    name = folder.new_id()
    assert folder.all() == folder.of_run(RUN) == folder.find("b") == folder.sweep() == []
    assert folder.get(name) is None
    assert not folder.remove(name)
    folder.forget_input(name)
    with pytest.raises(FileNotFoundError, match=f"there is no batch {name}"):
        folder.update(name, step="uploading")
    assert not folder.place.parent.exists()


def test_it_is_for_the_user_alone(folder: BatchFolder) -> None:
    before = os.umask(0)
    try:
        folder.add(record())
        with folder.new_file(folder.input_path(record())) as file:
            file.write(b"{}\n")
    finally:
        os.umask(before)
    assert folder.place.stat().st_mode & 0o777 == 0o700
    assert folder.input_path(record()).stat().st_mode & 0o777 == 0o600
    assert (folder.place / f"{record().id}.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o770])
def test_a_folder_that_others_may_write_to_is_not_used(folder: BatchFolder, mode: int) -> None:
    folder.add(record())
    folder.place.chmod(mode)
    for use in (folder.all, folder.sweep, lambda: folder.add(record(2)), lambda: folder.update(record(), step="read")):
        with pytest.raises(OSError, match="other users may write to it") as raised:
            use()
        assert (raised.value.errno, raised.value.filename) == (errno.EPERM, str(folder.place))
    folder.place.chmod(0o700)
    assert [each.step for each in folder.all()] == ["written"]


def test_a_folder_of_another_user_is_not_used(folder: BatchFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.add(record())
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    for use in (folder.all, folder.sweep, lambda: folder.get(record().id), lambda: folder.add(record(2))):
        with pytest.raises(OSError, match="belongs to another user"):
            use()


def test_a_file_in_the_place_of_the_folder(folder: BatchFolder) -> None:
    folder.place.parent.mkdir(parents=True)
    folder.place.write_bytes(b"")
    for use in (folder.all, lambda: folder.add(record())):
        with pytest.raises(OSError, match=r"no folder|exists"):
            use()


# Records


def test_what_was_added_is_found(folder: BatchFolder) -> None:
    one = record(1, batch_id="batch_abc", step="submitted")
    two = record(2, batch_id="batch_abd", step="submitted", created=one.created + 1)
    other = record(3, run="cd" * 32, created=one.created + 2)
    for each in (two, other, one):
        folder.add(each)
    assert folder.all() == [other, two, one]
    assert folder.of_run(RUN) == [two, one]
    assert folder.get(one.id) == one
    assert folder.get("batch_abc") is None, "that is the server's name"
    assert folder.find("batch_abc") == folder.find(one.id) == [one]
    assert folder.find("batch_ab") == [two, one], "several have this beginning"
    assert folder.find("20260101") == [other, two, one]
    assert folder.find("") == folder.find("nothing") == []


def test_a_whole_name_is_not_the_beginning_of_others(folder: BatchFolder) -> None:
    one, two = record(1, batch_id="batch_1"), record(2, batch_id="batch_12")
    folder.add(one)
    folder.add(two)
    assert folder.find("batch_1") == [one]


def test_an_id_is_new_and_tells_the_time(folder: BatchFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({folder.new_id() for _ in range(100)}) == 100
    for now, begin in (
        (1_767_268_800.5, "20260101T120000Z-"),
        (-1e9, "19700101T000000Z-"),
        (1e15, "99991231T235959Z-"),
    ):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert folder.new_id().startswith(begin)
        folder.input_path(folder.new_id())


def test_no_record_is_overwritten_by_a_new_one(folder: BatchFolder) -> None:
    folder.add(record())
    with pytest.raises(FileExistsError):
        folder.add(record(rows=4))
    assert folder.all() == [record()]
    assert files(folder) == {f"{record().id}.json"}


def test_an_update_is_merged_with_what_is_on_the_disk(folder: BatchFolder, tmp_path: Path) -> None:
    folder.add(record())
    other = BatchFolder(folder.place)
    assert other.update(record().id, step="submitted", batch_id="batch_1", status="validating").status == "validating"
    found = folder.update(record(), step="uploaded", file_id="file-1")
    assert (found.step, found.batch_id, found.file_id) == ("submitted", "batch_1", "file-1")
    assert folder.get(record().id) == found == other.get(record().id)
    assert found.changed == pytest.approx(time.time(), abs=60)


def test_two_batches_of_one_record_are_an_error_that_changes_nothing(folder: BatchFolder) -> None:
    folder.add(record())
    found = folder.update(record().id, step="submitted", batch_id="batch_1")
    with pytest.raises(AnotherBatchError):
        folder.update(record(), batch_id="batch_2")
    assert folder.all() == [found]


def test_updates_of_many_threads_are_all_kept(folder: BatchFolder) -> None:
    folder.add(record())
    changes = [
        {"step": "submitted", "batch_id": "batch_1"},
        {"file_id": "file-1"},
        {"output_file_id": "file-2"},
        {"error_file_id": "file-3"},
        {"status": "in_progress"},
        {"out": "labelled"},
    ]
    threads = [
        threading.Thread(target=BatchFolder(folder.place).update, args=[record()], kwargs=each) for each in changes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (found,) = folder.all()
    for each in changes:
        assert {name: getattr(found, name) for name in each} == each


def test_a_batch_that_was_just_created_is_remembered_though_its_record_is_gone(folder: BatchFolder) -> None:
    sent = record(step="submitting", file_id="file-1")
    folder.add(sent)
    assert folder.remove(sent.id)
    with pytest.raises(FileNotFoundError):
        folder.update(sent, status="in_progress")
    with pytest.raises(FileNotFoundError):
        folder.update(sent.id, step="submitted", batch_id="batch_1")
    assert folder.all() == []
    folder.place.rmdir()
    found = folder.update(sent, step="submitted", batch_id="batch_1")
    assert folder.all() == [found]
    assert (found.step, found.file_id, found.batch_id) == ("submitted", "file-1", "batch_1")


def test_no_room_on_the_disk(folder: BatchFolder) -> None:
    folder.add(record())
    with full_disk(100):
        with pytest.raises(OSError, match="File too large") as raised:
            folder.update(record(), step="submitting")
        assert raised.value.errno == errno.EFBIG
        with pytest.raises(OSError, match="File too large"):
            folder.add(record(2))
        with pytest.raises(OSError, match="File too large"), folder.new_file(folder.output_path(record())) as file:
            file.write(b"x" * 1_000)
    assert folder.all() == [record()]
    assert files(folder) == {f"{record().id}.json", f"{record().id}.lock"}


@pytest.mark.parametrize("when", ["file", "folder"])
def test_what_is_not_surely_on_the_disk_is_an_error(
    folder: BatchFolder, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    folder.add(record())
    sync = os.fsync

    def fail(file: int) -> None:
        if (when == "folder") == os.path.isdir(f"/proc/self/fd/{file}"):  # noqa: PTH112 - a link of the system
            raise OSError(errno.EIO, "Input/output error")
        sync(file)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        folder.update(record(), step="submitting")
    with pytest.raises(OSError, match="Input/output error"):
        folder.add(record(2))
    monkeypatch.undo()
    assert {each.step for each in folder.all()} <= {"written", "submitting"}, "either of the two, and whole"


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user who is not root")
def test_a_folder_that_cannot_be_written(folder: BatchFolder) -> None:
    folder.add(record())
    folder.place.chmod(0o500)
    try:
        for use in (lambda: folder.update(record(), step="submitting"), lambda: folder.add(record(2))):
            with pytest.raises(PermissionError):
                use()
        assert folder.all() == [record()]
    finally:
        folder.place.chmod(0o700)


def test_a_secret_of_the_environment_is_not_in_a_record(folder: BatchFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "a-value-nobody-guesses")
    folder.add(record(prompt="Say a-value-nobody-guesses", url="https://h.example/a-value-nobody-guesses"))
    assert b"nobody" not in (folder.place / f"{record().id}.json").read_bytes()
    assert folder.all()[0].prompt == "Say ***"


# What is not trusted


def hostile(folder: BatchFolder, name: str) -> None:
    """Put something in the place of the record 2."""
    path = folder.place / f"{record(2).id}.json"
    elsewhere = folder.place.parent / "elsewhere.json"
    elsewhere.write_bytes(record(2).document())
    if name == "a link":
        path.symlink_to(elsewhere)
    elif name == "a link to nowhere":
        path.symlink_to(folder.place / "nowhere")
    elif name == "a pipe":
        os.mkfifo(path)
    elif name == "a folder":
        path.mkdir()
    elif name == "huge":
        path.touch()
        os.truncate(path, 10**12)
    elif name == "the id of another":
        path.write_bytes(record(1).document())
    elif name == "an id that is a path":
        path.write_bytes(record(2).document().replace(record(2).id.encode(), b"../elsewhere"))
    elif name == "torn":
        path.write_bytes(record(2).document()[:-20])
    else:
        path.write_bytes(record(2).document().replace(b'"version": 1', b'"version": 2'))


HOSTILE = {
    "a link": "it is no plain file",
    "a link to nowhere": "it is no plain file",
    "a pipe": "it is no plain file",
    "a folder": "it is no plain file",
    "huge": "it is larger than 1 MB",
    "the id of another": "it is the record of another batch",
    "an id that is a path": "its 'id' is none",
    "torn": "it is no JSON",
    "of a newer version": "a newer version of llm_magic wrote it",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_record_that_cannot_be_read_is_said_once_and_left_out(folder: BatchFolder, name: str) -> None:
    folder.add(record(1))
    hostile(folder, name)
    path, said = folder.place / f"{record(2).id}.json", []
    looking = BatchFolder(folder.place, say=said.append)
    for _ in range(2):
        assert looking.all() == looking.find("2026") == looking.of_run(RUN) == [record(1)]
        assert looking.get(record(2).id) is None
        looking.sweep(time.time() + 100 * DAY)
    (line,) = said
    assert line.startswith(f"A batch is left out, for its record cannot be read: {path}: {HOSTILE[name]}")
    assert line.endswith(" The file stays there.")
    before = path.lstat()
    for changes in ({"step": "read"}, {"batch_id": "batch_1", "step": "submitted"}):
        with pytest.raises(OSError, match=r"cannot be read|no plain file|symbolic links"):
            looking.update(record(2), **changes)
    with pytest.raises(FileExistsError):
        looking.add(record(2))
    assert path.lstat().st_ino == before.st_ino
    assert BatchRecord.read((folder.place.parent / "elsewhere.json").read_bytes()) == record(2)


@pytest.mark.parametrize("name", ["", ".", "../x", "/etc/passwd", "batch_1", f"{record().id}/..", f"{record().id}\n"])
def test_a_path_is_made_of_an_id_alone(folder: BatchFolder, name: str) -> None:
    for use in (folder.input_path, folder.ids_path, folder.output_path, folder.errors_path, folder.remove):
        with pytest.raises(ValueError, match=f"^This is no id of a batch: {re.escape(repr(name))}"):
            use(name)
    with pytest.raises(ValueError, match="no id"):
        folder.update(replace(record(), id=name), step="read")
    assert folder.get(name) is None


def test_a_record_of_another_user_is_left_out(folder: BatchFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.add(record())
    said: list[str] = []
    monkeypatch.setattr(kept_runs, "_is_own", lambda found: stat.S_ISDIR(found.st_mode))
    assert BatchFolder(folder.place, say=said.append).all() == []
    assert "belongs to another user" in said[0]


def test_a_link_of_the_name_of_a_file_is_removed_and_not_what_it_leads_to(folder: BatchFolder, tmp_path: Path) -> None:
    folder.add(record(step="read"))
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    for path in (folder.input_path(record()), folder.output_path(record())):
        path.symlink_to(mine)
    folder.forget_input(record())
    assert folder.remove(record())
    assert mine.read_bytes() == b"mine"
    assert files(folder) == set()


# Files


def test_a_file_has_its_name_when_it_is_whole(folder: BatchFolder) -> None:
    path = folder.output_path(record())
    assert path == folder.place / f"{record().id}.output.jsonl"
    with folder.new_file(path) as file:
        file.write(b"{}\n")
        assert not path.exists()
    assert path.read_bytes() == b"{}\n"
    with pytest.raises(KeyError), folder.new_file(path) as file:
        file.write({}["torn"])
    assert path.read_bytes() == b"{}\n"
    with folder.new_file(path) as one, folder.new_file(path) as two:  # of two kernels
        one.write(b"1\n")
        two.write(b"2\n")
    assert path.read_bytes() == b"1\n"
    assert files(folder) == {path.name}


def test_all_files_of_a_batch_go_with_it(folder: BatchFolder) -> None:
    folder.add(record(1))
    folder.add(record(2))
    folder.update(record(1), step="submitted")
    for path in (folder.input_path, folder.ids_path, folder.output_path, folder.errors_path):
        with folder.new_file(path(record(1))) as file:
            file.write(b"x")
    folder.forget_input(record(1).id)
    assert not folder.input_path(record(1)).exists()
    assert folder.ids_path(record(1)).exists()
    assert folder.remove(record(1).id)
    assert not folder.remove(record(1).id)
    assert files(folder) == {f"{record(2).id}.json"}


# What goes with time


def kept(folder: BatchFolder, number: int, age: float, now: float, **values: object) -> BatchRecord:
    """Leave a record that was made and last changed some seconds ago."""
    made = record(number, created=now - age, changed=now - age, **values)
    folder.add(made)
    aged(folder.place / f"{made.id}.json", now - age)
    return made


def test_what_was_read_goes_after_a_month(folder: BatchFolder) -> None:
    now = time.time()
    old = [kept(folder, number, MAX_AGE + 60, now, step=step) for number, step in enumerate(("read", "refused"))]
    young = kept(folder, 2, MAX_AGE - 60, now, step="read")
    with folder.new_file(folder.output_path(old[0])) as file:
        file.write(b"x")
    assert sorted(folder.sweep(now)) == [each.id for each in old]
    assert folder.all() == [young]
    assert files(folder) == {f"{young.id}.json"}


@pytest.mark.parametrize("step", ["written", "uploading", "uploaded", "submitting", "submitted", "ended", "fetched"])
def test_what_is_unread_stays_for_two_months_and_a_week(folder: BatchFolder, step: str) -> None:
    now = time.time()
    made = kept(folder, 1, UNREAD_AGE - 60, now, step=step)
    looks = [now, now + 120, now + 120 + CERTAIN_AFTER - 60]
    for look in looks:
        assert folder.sweep(look) == []
    assert folder.sweep(now + 120 + CERTAIN_AFTER) == [made.id]
    assert files(folder) == set()


def test_a_clock_that_was_wrong_once_loses_nothing_that_is_unread(folder: BatchFolder) -> None:
    now = time.time()
    made = kept(folder, 1, DAY, now, step="submitted")
    far = now + 3_650 * DAY
    for look in (far, far + 60, now, now + DAY, far, now + 2 * DAY):
        assert folder.sweep(look) == []
    assert folder.all() == [made]
    assert files(folder) == {f"{made.id}.json"}, "the mark is gone with the next look at a right clock"


def test_a_mark_of_the_future_counts_for_nothing(folder: BatchFolder) -> None:
    now = time.time()
    made = kept(folder, 1, UNREAD_AGE + DAY, now, step="submitted")
    mark = folder.place / f"{made.id}.old"
    for void in (b"%d" % (now + DAY), b"nan", b"inf", b"-inf", b"", b"\xff", b"0", b"9" * 100):
        mark.write_bytes(void)
        assert folder.sweep(now) == []
        assert float(mark.read_bytes()) == now
    assert folder.sweep(now + CERTAIN_AFTER) == [made.id]


def test_a_batch_that_goes_on_is_young_again(folder: BatchFolder) -> None:
    now = time.time()
    made = kept(folder, 1, UNREAD_AGE + DAY, now, step="submitted")
    assert folder.sweep(now) == []
    folder.update(made, status="in_progress")
    assert folder.sweep(now + CERTAIN_AFTER) == []
    assert [each.status for each in folder.all()] == ["in_progress"]


def test_a_batch_of_the_future_is_sorted_by_its_last_change(folder: BatchFolder) -> None:
    now = time.time()
    ahead = kept(folder, 1, -3_650 * DAY, now, step="submitted")
    aged(folder.place / f"{ahead.id}.json", now - 2 * DAY)
    newer, older = kept(folder, 2, DAY, now), kept(folder, 3, 3 * DAY, now)
    assert folder.all() == [newer, ahead, older]
    assert folder.sweep(now) == []


def test_the_oldest_that_were_read_go_beyond_a_size(folder: BatchFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    read = [kept(folder, number, 100 - number, now, step="read") for number in range(4)]
    unread = kept(folder, 4, 1_000, now, step="fetched")
    for each in (*read, unread):
        with folder.new_file(folder.output_path(each)) as file:
            file.write(b"x" * 10_000)
    monkeypatch.setattr(kept_batches, "MAX_BYTES", 25_000)
    assert folder.sweep(now) == [read[0].id, read[1].id]
    monkeypatch.setattr(kept_batches, "MAX_BYTES", 0)
    assert folder.sweep(now) == [read[2].id, read[3].id]
    assert folder.all() == [unread]
    assert folder.output_path(unread).exists()


def test_what_writes_left_behind_goes_after_a_day(folder: BatchFolder) -> None:
    now = time.time()
    whole = kept(folder, 1, 60, now)
    left = [
        f".{whole.id}.json.{'a' * 16}",
        f"{whole.id}.output.jsonl.{'b' * 8}.part",
        f"{record(2).id}.input.jsonl",
        f"{record(2).id}.ids",
        f"{record(2).id}.lock",
        f"{'c' * 32}.lock",
    ]
    stays = ["notes.txt", f"{record(3).id}.jsonl", f"{record(3).id}.json.bak", f"{whole.id}.input.jsonl", "x.lock"]
    for name in (*left, *stays):
        (folder.place / name).write_bytes(b"")
        aged(folder.place / name, now - LEFT_AFTER + 60)
    folder.sweep(now)
    assert files(folder) == {f"{whole.id}.json", *left, *stays}
    for name in (*left, *stays):
        aged(folder.place / name, now - LEFT_AFTER - 60)
    aged(folder.place / left[0], now + 3_650 * DAY)
    folder.sweep(now)
    assert files(folder) == {f"{whole.id}.json", *stays}


def test_a_batch_that_changes_while_it_is_looked_at_stays(folder: BatchFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    made = kept(folder, 1, MAX_AGE + 60, now, step="refused")
    remove = BatchFolder._remove

    def changed_before(self: BatchFolder, name: str, seen: BatchRecord | None = None) -> bool:
        self.update(name, step="submitted", batch_id="batch_1")
        return remove(self, name, seen)

    monkeypatch.setattr(BatchFolder, "_remove", changed_before)
    assert folder.sweep(now) == []
    assert [each.batch_id for each in folder.all()] == ["batch_1"]
    assert made.batch_id == ""


# Turns


def test_one_cell_at_a_time_submits(folder: BatchFolder) -> None:
    events: list[str] = []

    async def submit(number: int) -> None:
        async with folder.turn(RUN, say=lambda line: events.append(f"{number}: {line}")):
            events.append(f"{number} begins")
            await asyncio.sleep(100)
            events.append(f"{number} ends")

    async def both() -> None:
        async with folder.turn("cd" * 32, say=pytest.fail):
            await asyncio.gather(submit(1), submit(2))

    virtual_time.run(both())
    assert events == [
        "1 begins",
        "2: Another cell is submitting this batch; waiting for it.",
        "1 ends",
        "2 begins",
        "2 ends",
    ]
    assert files(folder) == {f"{RUN[:32]}.lock", f"{'cd' * 16}.lock"}


def test_a_turn_ends_with_an_error_or_an_interrupt(folder: BatchFolder) -> None:
    async def work() -> None:
        with pytest.raises(KeyError):
            async with folder.turn(RUN, say=pytest.fail):
                raise KeyError
        async with folder.turn(RUN, say=pytest.fail):
            waiting = asyncio.create_task(folder.turn(RUN, say=[].append).__aenter__())
            await asyncio.sleep(1)
            waiting.cancel()
            await asyncio.sleep(1)
            assert waiting.cancelled()
        async with folder.turn(RUN, say=pytest.fail):
            pass

    virtual_time.run(work())


def test_a_turn_ends_though_a_child_process_holds_its_file_open(
    folder: BatchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def shared(file: int) -> bool:
        held.append(os.dup(file))  # as a fork does
        return lock_at_once(file)

    async def work() -> None:
        for _ in range(2):
            async with folder.turn(RUN, say=pytest.fail):
                pass

    monkeypatch.setattr(kept_batches, "lock_at_once", shared)
    asyncio.run(work())
    for file in held:
        os.close(file)


HOLDER = """
import asyncio, sys
from pathlib import Path
from llm_magic.batches.kept.kept_batches import BatchFolder

async def hold():
    async with BatchFolder(Path(sys.argv[1])).turn(sys.argv[2], say=print):
        print("held", flush=True)
        await asyncio.sleep(1_000)

asyncio.run(hold())
"""


def test_a_kernel_that_is_killed_frees_its_turn(folder: BatchFolder) -> None:
    command = [sys.executable, "-c", HOLDER, str(folder.place), RUN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:  # noqa: S603 - this Python
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said: list[str] = []

        async def wait() -> int:
            beats = 0

            async def beat() -> None:
                nonlocal beats
                while True:
                    await asyncio.sleep(0.01)
                    beats += 1

            beating = asyncio.create_task(beat())
            asyncio.get_running_loop().call_later(0.15, holder.kill)
            async with folder.turn(RUN, say=said.append):
                beating.cancel()
                return beats

        assert asyncio.run(wait()) >= 3, "the loop goes on meanwhile"
        assert said == ["Another notebook is submitting this batch; waiting for it."]


def test_a_file_system_without_locks_goes_on(folder: BatchFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    test_one_cell_at_a_time_submits(folder)
    folder.add(record())
    assert folder.update(record(), step="uploading").step == "uploading"


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_something_else_has_the_name_of_a_lock(folder: BatchFolder, tmp_path: Path, what: str) -> None:
    folder.add(record())
    (tmp_path / "mine").write_bytes(b"mine")
    for name in (f"{RUN[:32]}.lock", f"{record().id}.lock"):
        path = folder.place / name
        if what == "link":
            path.symlink_to(tmp_path / "mine")
        elif what == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()

    async def take() -> None:
        async with folder.turn(RUN, say=pytest.fail):
            pytest.fail("it is held")

    for _ in range(2):
        with pytest.raises(OSError, match="no plain file"):
            asyncio.run(take())
    with pytest.raises(OSError, match="no plain file"):
        folder.update(record(), step="uploading")
    assert (tmp_path / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize("run", ["", "../x", "AB" * 32, "ab" * 31, f"{RUN}\n"])
def test_a_turn_is_of_a_run(folder: BatchFolder, run: str) -> None:
    async def take() -> None:
        async with folder.turn(run, say=pytest.fail):
            pytest.fail("it is held")

    with pytest.raises(ValueError, match="This is no identity of a run"):
        asyncio.run(take())
    assert not folder.place.exists()


def test_a_lock_that_another_program_holds_is_not_removed(folder: BatchFolder) -> None:
    now = time.time()

    async def hold() -> None:
        async with folder.turn(RUN, say=pytest.fail):
            aged(folder.place / f"{RUN[:32]}.lock", now - 2 * DAY)
            folder.sweep(now)
            assert files(folder) == {f"{RUN[:32]}.lock"}
        folder.sweep(now)
        assert files(folder) == set()

    asyncio.run(hold())


def test_a_record_may_be_as_large_as_it_is_read(folder: BatchFolder) -> None:
    with pytest.raises(ValueError, match="larger than 1 MB"):
        folder.add(record(out="x" * MAX_RECORD))
    assert folder.all() == []
