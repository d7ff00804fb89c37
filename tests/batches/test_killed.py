"""Processes that change a record are killed at each call to the system: the record is the old or the new one, whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from batch_records import record

from llm_magic.batches.kept_batches import BatchFolder

PARENT = """
import json, os, signal, sys
from pathlib import Path
from llm_magic.batches.kept_batches import BatchFolder
from llm_magic.batches.record import BatchRecord

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
