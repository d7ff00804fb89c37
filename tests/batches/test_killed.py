"""Processes are killed at each step of a batch, and of a record: the next one goes on, and nothing is created twice.

A record is changed whole or not at all, at whatever call to the system the process ends.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from batch_calls import own_session
from batch_records import record
from batch_server import SILENT, SILENT_AFTER, BatchServer, Fault
from killed_batches import Forks

from llm_magic import LLM
from llm_magic.batches.kept import kept_batches
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.kept.record import BatchRecord
from llm_magic.errors import ConfigurationError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

PARENT = """
import json, os, signal, sys
from pathlib import Path
from llm_magic.batches.kept.kept_batches import BatchFolder
from llm_magic.batches.kept.record import BatchRecord

folder, what = BatchFolder(Path(sys.argv[1])), sys.argv[2]
new = BatchRecord.read(sys.stdin.buffer.read())
path = folder.place / f"{new.id}.json"
folder.add(new)
folder.update(new, out="")  # what is imported is imported once
folder.remove(new.id)

def child(last):
    calls = 0

    def count(frame, event, called):
        nonlocal calls
        if event == "c_call" and {called.__module__, type(called.__self__).__module__} & {"posix", "_io", "fcntl"}:
            calls += 1
            if calls == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    if what == "add":
        folder.add(new)
    else:
        folder.update(new, step="submitted", batch_id="batch_1")
    sys.setprofile(None)
    os._exit(0)

seen, last = [], 0
while True:
    last += 1
    if what == "add":
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(new.document())
    pid = os.fork()
    if pid == 0:
        child(last)
    killed = os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    said = []
    found = BatchFolder(folder.place, say=said.append).all()
    seen.append(found[0].step if len(found) == 1 and not said else str(said or "none"))
    if not killed:
        break
print(json.dumps(seen))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.parametrize(
    ("what", "before", "after"), [("update", "submitting", "submitted"), ("add", "none", "submitting")]
)
def test_a_record_is_the_old_or_the_new_one(tmp_path: Path, what: str, before: str, after: str) -> None:
    place = tmp_path / "batches"
    command = [sys.executable, "-c", PARENT, str(place), what]
    new = record(step="submitting", file_id="file-1")
    seen = json.loads(subprocess.run(command, input=new.document(), capture_output=True, check=True).stdout)  # noqa: S603 - this Python
    assert len(seen) > 20
    turn = seen.index(after)
    assert seen == [before] * turn + [after] * (len(seen) - turn), "at some call, and then it stays"
    assert turn > 10, "it is killed before and after"
    assert turn < len(seen) - 1
    folder = BatchFolder(place)
    for left in place.iterdir():
        assert left.name.removeprefix(".").startswith(new.id)
    folder.remove(new.id)
    folder.sweep((place.stat().st_mtime) + 90_000)
    assert list(place.iterdir()) == []


class Case:
    """One batch, its folder, and the server that all share."""

    def __init__(self, forks: Forks, server: BatchServer, place: Path) -> None:
        self.forks, self.server, self.place = forks, server, place
        self.folder = BatchFolder(place / "state" / "llm_magic" / "batches")
        self._numbers = iter(range(100))

    def job(self, **more: Any) -> dict[str, Any]:
        prompt = f"CASE {self.place}\nSAY {{{{ item }}}}"
        told = self.place / f"told-{next(self._numbers)}.json"
        return {
            "state": str(self.place / "state"),
            "told": str(told),
            "url": self.server.url,
            "prompt": prompt,
            "rows": [1, 2],
            **more,
        }

    def run(self, **more: Any) -> dict[str, Any]:
        """Run it in a process of its own."""
        return self.forks.run(self.job(**more))

    def killed(self, at: int | str, **more: Any) -> None:
        """Run it, killed at a step."""
        assert self.run(kill_at=at, **more)["killed"]

    def start(self, stop_at: str | None = None, **more: Any) -> Running:
        """Start it; where it is to stop at a step, wait until it is there."""
        return Running(self, self.job(stop_at=stop_at, **more))

    @property
    def created(self) -> list[list[str]]:
        """The rows of each batch at the server, as what is said in them."""
        batches = [self.server.rows(each.id) for each in self.server.created]
        own = [[row["body"]["messages"][-1]["content"] for row in rows] for rows in batches]
        return [
            [text.partition("SAY ")[2] for text in texts] for texts in own if f"CASE {self.place}\n" in f"{texts[0]}\n"
        ]

    def record(self) -> BatchRecord:
        [found] = self.folder.all()
        return found

    def left(self) -> list[str]:
        """What files of batches are there, once those without a record have had their time."""
        self.folder.sweep(time.time() + 90_000)
        names = sorted(path.name.partition(".")[2] for path in self.folder.place.iterdir())
        return [name for name in names if name != "lock"]


class Running:
    """A process that runs a case."""

    def __init__(self, case: Case, job: dict[str, Any]) -> None:
        self._case, self._told = case, Path(job["told"])
        self.pid = case.forks.start(job)
        if job["stop_at"]:
            self._until(self._told.with_suffix(".here").exists)

    def go(self) -> None:
        self._told.with_suffix(".go").touch()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def kill_when(self, there: Any) -> None:
        self._until(there)
        self.kill()
        assert self._case.forks.wait(self.pid) == signal.SIGKILL

    def ended(self) -> dict[str, Any]:
        self._case.forks.wait(self.pid)
        found = json.loads(self._told.read_text())
        assert isinstance(found, dict)
        return found

    def _until(self, there: Any) -> None:
        until = time.monotonic() + 20
        while not there():
            assert time.monotonic() < until
            time.sleep(0.003)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture
def case(forks: Forks, tmp_path: Path) -> Iterator[Case]:
    with BatchServer(validating=0, in_progress=0, finalizing=0) as server:
        yield Case(forks, server, tmp_path)


@pytest.fixture
def session(case: Case, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A session of this process, with the state of the case."""
    with own_session(case.place, monkeypatch):
        yield


WHOLE = ["ids", "json", "output.jsonl"]
"""What is left of a batch that was read."""


def test_killed_at_each_step(forks: Forks, tmp_path: Path) -> None:
    with BatchServer(validating=0, in_progress=0, finalizing=0) as server:
        steps = Case(forks, server, tmp_path / "whole").run()["steps"]
        assert len(steps) > 40
        for at, (last, name) in enumerate(pairwise(["", *steps]), 1):
            if last.startswith("after") and name.startswith("before"):
                continue  # nothing is done between them
            case = Case(forks, server, tmp_path / str(at))
            case.place.mkdir()
            case.killed(at)
            found = case.run()
            where = f"killed {name} ({at})"
            assert found.get("values") == [1, 2], (where, found)
            assert found["errors"] == [None, None], where
            assert case.created == [["1", "2"]], where
            said = [note for note in found["notes"] if "broke off" in note]
            assert bool(said) == (steps.index("after add") < at <= steps.index("after update submitted")), (where, said)
            assert case.record().batch_id == server.created[-1].id, where
            assert case.left() == WHOLE, where


def test_the_tests_kill_at_what_they_say(case: Case) -> None:
    steps = case.run()["steps"]
    assert [name for name in steps if name.startswith("after update")] == [
        f"after update {step}"
        for step in ("uploading", "uploaded", "submitting", "submitted", "completed", "ended", "fetched", "read")
    ]
    assert steps.count("in the upload") > 2
    assert {"after _begin", "after _finish", "before create", "before _write", "bound"} <= set(steps)


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("upload", SILENT),
        ("upload", SILENT_AFTER),
        ("create", SILENT),
        ("create", SILENT_AFTER),
        ("poll", SILENT),
        ("content", SILENT),
    ],
)
def test_killed_while_the_server_has_not_answered(case: Case, route: str, fault: Fault) -> None:
    case.server.faults[route] = [fault]
    running = case.start()
    running.kill_when(lambda: route in case.server.asked)
    found = case.run()
    assert found["values"] == [1, 2], found
    assert case.created == [["1", "2"]]
    assert case.left() == WHOLE


def test_killed_with_a_list_that_shows_a_batch_late(case: Case) -> None:
    case.killed("after create")
    batch = case.server.created[0].id
    case.server.hidden = {batch}
    late = threading.Timer(0.15, lambda: setattr(case.server, "hidden", ()))
    late.start()
    assert case.run(settling=1.5)["values"] == [1, 2]
    assert case.created == [["1", "2"]]


def test_killed_twice_and_three_times(case: Case) -> None:
    case.killed("before create")
    case.killed("after create")
    assert len(case.created) == 1
    case.killed("after find")
    case.killed("after update submitted")
    case.killed("after download")
    assert case.run()["values"] == [1, 2]
    assert case.created == [["1", "2"]]
    assert case.left() == WHOLE


def test_killed_in_the_second_creation_of_a_batch(case: Case) -> None:
    """The time in which a creation may still be carried out begins anew with each attempt."""
    case.killed("before create")
    time.sleep(0.03)
    case.killed("after create")
    case.server.hidden = {case.server.created[0].id}
    late = threading.Timer(0.1, lambda: setattr(case.server, "hidden", ()))
    late.start()
    assert case.run(settling=1.0)["values"] == [1, 2]
    assert case.created == [["1", "2"]]


BEFORE, SENT, AFTER = (
    ["after add", "before upload", "before update submitting"],
    ["after create"],
    ["after update submitted", "after update fetched"],
)


@pytest.mark.parametrize("at", [*BEFORE, "before create", *SENT, *AFTER, "bound"])
def test_rows_that_came_after_it_was_killed(case: Case, at: str) -> None:
    case.killed(at)
    found = case.run(rows=[1, 2, 3, 4])
    assert found["values"] == [1, 2, 3, 4], found
    assert sorted(case.created) == [["1", "2"], ["3", "4"]]
    assert [path for path in case.left() if "input" in path] == []


@pytest.mark.parametrize("at", [*BEFORE, "before create"])
def test_a_row_that_changed_after_nothing_was_created(case: Case, at: str) -> None:
    """What was never created is given up: nobody pays for the row that is no longer asked for."""
    case.killed(at)
    found = case.run(rows=[1, 5])
    assert found["values"] == [1, 5], found
    assert case.created == [["1", "5"]]
    assert [note for note in found["notes"] if "broke off" in note] == []
    assert case.left() == WHOLE


@pytest.mark.parametrize("at", [*SENT, *AFTER])
def test_a_row_that_changed_after_it_was_created(case: Case, at: str) -> None:
    case.killed(at)
    found = case.run(rows=[1, 5])
    assert found["values"] == [1, 5], found
    assert case.created == [["1", "2"], ["5"]]
    assert [path for path in case.left() if "input" in path] == []


@pytest.mark.parametrize("at", ["before upload", "before update submitting", "before create"])
def test_its_input_file_is_gone_or_cut(case: Case, at: str) -> None:
    case.killed(at)
    path = case.folder.input_path(case.record())
    path.write_bytes(path.read_bytes()[:100])
    found = case.run()
    assert found["values"] == [1, 2], found
    assert case.created == [["1", "2"]]
    assert case.left() == WHOLE


def test_the_server_has_lost_the_file(case: Case) -> None:
    case.killed("before create")
    case.server.files.clear()
    assert case.run()["values"] == [1, 2]
    assert case.created == [["1", "2"]]
    assert len(case.server.uploads) == 2


def test_the_results_are_gone(case: Case) -> None:
    case.killed("after update fetched")
    case.folder.output_path(case.record()).unlink()
    assert case.run()["values"] == [1, 2]
    assert case.created == [["1", "2"]]


def test_the_list_of_its_rows_is_gone(case: Case) -> None:
    case.killed("after update submitted")
    known = case.record()
    case.folder.ids_path(known).unlink()
    found = case.run()
    assert found["error"].startswith("ConfigurationError: It is not known which rows the batch batch_")
    assert f"%llm_batch remove {known.id} forgets it" in found["error"]
    case.folder.remove(known)
    assert case.run()["values"] == [1, 2]


# Asked otherwise


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("before update submitting", ""),
        ("before create", "The submission of a batch of the same prompt broke off on "),
        ("after update submitted", "is under way with rows of the same prompt"),
        ("after update fetched", "has answers to the same prompt that nobody has read"),
    ],
)
def test_asked_directly_while_a_batch_has_the_rows(case: Case, at: str, said: str) -> None:
    case.killed(at)
    found = case.run(via="map")
    assert found["errors"] == [None, None], found
    assert "".join(found["notes"]).count(said or "batch") == bool(said), found["notes"]
    assert "--" not in "".join(found["notes"])
    direct = case.server.asked.count("direct")
    assert direct == 2
    assert case.run()["errors"] == [None, None]


def test_again_while_one_is_under_way(case: Case) -> None:
    case.killed("after update submitted")
    found = case.run(options={"again": True})
    assert found["values"] == [1, 2], found
    assert case.created == [["1", "2"]] * 2
    [note] = found["notes"]
    first = case.server.created[0].id
    assert note.startswith(f"The batch {first} of ")
    assert note.endswith(f"is of this cell, too, and goes on beside the new one: %llm_batch cancel {first} ends it.")
    assert case.run()["values"] == [1, 2]
    assert len(case.created) == 2


@pytest.mark.parametrize("at", [*BEFORE, "before create", "after create"])
def test_again_after_a_submission_that_broke_off(case: Case, at: str) -> None:
    case.killed(at)
    found = case.run(options={"again": True})
    assert found["values"] == [1, 2], found
    assert len(case.created) == 1 + (at == "after create")
    assert len(found["notes"]) == (at == "after create")
    assert "input.jsonl" not in case.left()


# Two at once


def test_two_processes_at_once(case: Case) -> None:
    first = case.start("before create")
    second = case.start()
    first.go()
    for found in (first.ended(), second.ended()):
        assert found["values"] == [1, 2], found
    assert case.created == [["1", "2"]]
    assert case.left() == WHOLE


@pytest.mark.parametrize("at", ["before add", "before upload", "before create", "after create", "before forget_input"])
def test_the_other_goes_on_when_one_is_killed_in_its_turn(case: Case, at: str) -> None:
    first = case.start(at)
    second = case.start()
    first.kill()
    found = second.ended()
    case.forks.wait(first.pid)
    assert found["values"] == [1, 2], found
    assert case.created == [["1", "2"]]
    assert case.left() == WHOLE


@pytest.mark.parametrize("at", ["before retrieve", "before download", "before put", "before update read"])
def test_another_kernel_has_read_and_removed_it(case: Case, at: str) -> None:
    slow = case.start(at)
    assert case.run()["values"] == [1, 2]
    case.folder.remove(case.record())
    slow.go()
    found = slow.ended()
    assert found["values"] == [1, 2], found
    assert found["notes"] == []
    assert case.created == [["1", "2"]]
    assert case.left() == []


def test_one_is_removed_before_it_is_submitted(case: Case) -> None:
    slow = case.start("before upload")
    case.folder.remove(case.record())
    slow.go()
    assert slow.ended()["error"].endswith("Call it again: the file is written anew.")
    assert case.created == []
    assert case.run()["values"] == [1, 2]


def test_one_is_removed_while_it_is_created(case: Case) -> None:
    """What is paid is remembered, whoever forgot it before."""
    slow = case.start("after create")
    case.folder.remove(case.record())
    slow.go()
    assert slow.ended()["values"] == [1, 2]
    assert case.record().step == "read"


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "finalizing", "completed": 1},
        {"step": "ended", "status": "completed", "output_file_id": "file-9"},
        {"step": "read", "status": "completed"},
    ],
)
def test_another_kernel_changes_the_record(case: Case, changes: dict[str, Any]) -> None:
    slow = case.start("before retrieve")
    case.folder.update(case.record(), **changes)
    slow.go()
    found = slow.ended()
    assert found["values"] == [1, 2], found
    assert case.record().step == "read"


def test_the_record_is_damaged_meanwhile(case: Case) -> None:
    slow = case.start("before retrieve")
    (case.folder.place / f"{case.record().id}.json").write_text("{")
    slow.go()
    found = slow.ended()
    assert found["values"] == [1, 2], found
    assert "goes on, but how far it is cannot be written" in found["notes"][0]


def test_both_see_that_it_is_refused(case: Case) -> None:
    """The rows that a refused batch was not refused for are submitted once, whoever waited for it."""
    case.server.invalid = {1: {"message": "Nope."}}
    first = case.start("before retrieve")
    second = case.start("before retrieve")
    case.server.invalid = {}
    first.go()
    second.go()
    for found in (first.ended(), second.ended()):
        assert found["values"][1] == 2, (found["steps"], case.created, case.server.recorded()["batches"])
        assert "Nope." in found["errors"][0]
    assert sorted(case.created) == [["1", "2"], ["2"]]


@pytest.mark.usefixtures("session")
def test_two_threads_at_once(case: Case) -> None:
    found: list[Any] = []

    def ask() -> None:
        batch = LLM("compatible:m", base_url=case.server.url).batch(case.job()["prompt"], [1, 2], poll=0.01)
        found.append(list(batch.result(20)))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["1", "2"]] * 3, found
    assert case.created == [["1", "2"]]


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("write", range(1, 9))
def test_a_full_disk_at_each_write(case: Case, monkeypatch: pytest.MonkeyPatch, write: int) -> None:
    """Nothing is created that is not remembered; what is created is waited for, though that cannot be written."""
    count = 0

    def full(write_whole: Any, path: Path, data: bytes) -> None:
        nonlocal count
        count += path.suffix == ".json"
        if count >= write:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_whole(path, data)

    job = case.job()

    def ask() -> Any:
        return LLM("compatible:m", base_url=job["url"]).batch(job["prompt"], [1, 2], poll=0.01).result(20)

    with monkeypatch.context() as patch:
        for name in ("create", "replace"):
            patch.setattr(kept_batches, name, partial(full, getattr(kept_batches, name)))
        if write <= 5:
            with pytest.raises(ConfigurationError, match="No space left on device") as raised:
                ask()
            assert "call it again" in raised.value.hint
        else:
            answers = ask()
            assert list(answers) == ["1", "2"]
            assert any("No space left on device" in note for note in answers.notes) == (write < 9), answers.notes
    assert len(case.created) == (write >= 5)
    assert list(ask()) == ["1", "2"]
    assert case.created == [["1", "2"]]
    assert case.left() == WHOLE


def texts(ran: Any) -> list[str]:
    """Return all that a cell has shown, as texts."""
    return [str(text) for output in ran.outputs for text in (output.get("text", ""), *output.get("data", {}).values())]


def test_a_kernel_is_killed_and_the_next_one_goes_on(case: Case) -> None:
    from kernels import Kernel

    case.server.ends = "never"
    cell = f"%%llm -m compatible:m --base-url {case.server.url} --each [1,2] --as int --batch --poll 0.02 -o out\n"
    cell += case.job()["prompt"]
    with Kernel(XDG_STATE_HOME=str(case.place / "state")) as kernel:
        kernel.run("%load_ext llm_magic").check()
        kernel.run(cell).check()
        while not case.server.polls:
            time.sleep(0.005)
        os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)
    with Kernel(XDG_STATE_HOME=str(case.place / "state")) as kernel:
        kernel.run("%load_ext llm_magic").check()
        direct = kernel.run(cell.replace("--batch --poll 0.02", "")).check()
        batch = case.server.created[0].id
        said = f"The batch {batch} of "
        assert any(said in text and "is under way with rows of the same prompt" in text for text in texts(direct))
        again = kernel.run(cell.replace("--batch", "--batch --dry-run")).check()
        assert not any("under way" in text for text in texts(again))
        case.server.ends = "completed"
        kernel.run(cell.replace("--batch", "--batch --wait")).check()
        assert kernel.value("list(out.values)") == [1, 2]
    assert case.created == [["1", "2"]]
    assert case.left() == WHOLE
