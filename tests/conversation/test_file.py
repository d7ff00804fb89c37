"""Conversations in a file: across restarts, between kernels, after a kill, and when the file is damaged."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from llm_magic.conversation import Conversations, Turn
from llm_magic.errors import HistoryError
from llm_magic.messages import Image, Message, Text, ToolCall, assistant, system, tool, user

CALL = ToolCall("call-1", "add", '{"a": 1, "b": "\\u00e9"}')
MESSAGES: tuple[Message, ...] = (
    system("Be brief."),
    user("a\r\n\0é🙂\ud800", Image(b"\x89PNG\0", "image/png"), Text("b"), Image(url="https://example.org/x?y=1")),
    assistant("", (CALL, CALL)),
    tool(CALL, "3"),
    Message("user", (Text("a"), Text("b"))),
    assistant("done"),
    Message("user"),
)


def said(chats: Conversations, name: str = "main") -> list[str]:
    return [turn.messages[0].text for turn in chats.get(name).turns()]


def put(chats: Conversations, *texts: str) -> None:
    for text in texts:
        chats.get().record(Turn(text, (user(text), assistant("ok"))))


def no_notice(text: str) -> None:
    raise AssertionError(text)


def test_a_restart_gives_the_same_messages(tmp_path: Path) -> None:
    file = tmp_path / "chats.sqlite"
    first = Conversations(file, no_notice)
    assert first.names() == ["main"]
    assert first.get().before("a", 20) == ()
    assert first.get().reset() == 0
    assert not file.exists()
    turn = Turn("cell-1", MESSAGES, "vllm:smollm2", 1234.5)
    first.get().record(turn)
    put(first, "b")
    first.get().fork("other")
    again = Conversations(str(file), no_notice)
    assert again.get().turns()[0] == turn
    assert again.get("other").turns() == again.get().turns() == first.get().turns()
    assert again.names() == ["main", "other"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chats.sqlite"]


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chats = Conversations("chats.sqlite")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    put(chats, "a")
    assert chats.file == tmp_path / "chats.sqlite"
    assert (tmp_path / "chats.sqlite").exists()


def test_two_kernels_see_each_other(tmp_path: Path) -> None:
    one, two = Conversations(tmp_path / "c.db"), Conversations(tmp_path / "c.db")
    put(one, "a")
    put(two, "b")
    put(one, "c")
    assert said(one) == said(two) == ["a", "b", "c"]


WRITER = """
import sys
from llm_magic.conversation import Conversations, Turn
from llm_magic.messages import user
chats = Conversations(sys.argv[1])
for number in range(int(sys.argv[3])):
    chats.get().record(Turn(f"{sys.argv[2]}-{number}", (user(f"{sys.argv[2]}-{number}"),)))
    print(number, flush=True)
"""


def writer(file: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", WRITER, file, name, str(count)], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    writers = [writer(file, name, 40) for name in "ab"]
    for process in writers:
        process.communicate(timeout=120)
        assert process.returncode == 0
    told = said(Conversations(file, no_notice))
    assert sorted(told) == sorted(f"{name}-{number}" for name in "ab" for number in range(40))
    for name in "ab":
        assert [text for text in told if text.startswith(name)] == [f"{name}-{number}" for number in range(40)]


def test_a_killed_kernel_loses_no_turn(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    for attempt in range(3):
        with writer(file, str(attempt), 10_000) as process:
            assert process.stdout is not None
            for _ in range(20 + attempt):
                last = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            last = max([last, *map(int, process.stdout.read().split())])
        numbers = [
            int(text.partition("-")[2])
            for text in said(Conversations(file, no_notice))
            if text.startswith(f"{attempt}-")
        ]
        assert numbers == list(range(len(numbers)))
        assert last + 1 <= len(numbers) <= last + 2  # the one recorded, but not printed yet


def test_threads_of_one_kernel(tmp_path: Path) -> None:
    for file in (None, tmp_path / "c.db"):
        chats = Conversations(file)
        threads = [threading.Thread(target=put, args=(chats, *(f"{n}-{k}" for k in range(10)))) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(said(chats)) == sorted(f"{n}-{k}" for n in range(4) for k in range(10))


def damage_all(data: bytes) -> bytes:
    return b"not a database, " * 20


def damage_end(data: bytes) -> bytes:
    return data[: len(data) // 2]


def damage_pages(data: bytes) -> bytes:
    return data[:4096] + bytes(len(data) - 4096)


@pytest.mark.parametrize("damage", [damage_all, damage_end, damage_pages])
def test_a_damaged_file_is_kept_aside(tmp_path: Path, damage: object) -> None:
    file = tmp_path / "c.db"
    put(Conversations(file), *(f"{n} {'x' * 500}" for n in range(50)))
    assert callable(damage)
    damaged = damage(file.read_bytes())
    file.write_bytes(damaged)
    notices: list[str] = []
    chats = Conversations(file, notices.append)
    assert chats.get().before("new", 20) == ()
    (aside,) = tmp_path.glob("c.db.damaged-*")
    assert aside.read_bytes() == damaged
    assert len(notices) == 1
    assert notices[0].startswith(f"The conversations in {file} are damaged (")
    assert notices[0].endswith(f"): the file is kept as {aside.name}, and a new one is begun.")
    put(chats, "a")
    file.write_bytes(b"again" * 100)
    second = Conversations(file, notices.append)
    assert said(second) == []
    assert len(list(tmp_path.glob("c.db.damaged-*"))) == 2


def test_damage_is_a_warning_unless_somebody_listens(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    file.write_bytes(b"garbage")
    with pytest.warns(UserWarning, match="are damaged"):
        assert said(Conversations(file)) == []


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    theirs, notebook, newer = tmp_path / "history.sqlite", tmp_path / "work.ipynb", tmp_path / "new.db"
    with closing(sqlite3.connect(theirs)) as database:
        database.execute("CREATE TABLE history (line TEXT)")
    notebook.write_text("{}")
    put(Conversations(newer), "a")
    with closing(sqlite3.connect(newer)) as database:
        database.execute("PRAGMA user_version = 2")
    before = [file.read_bytes() for file in (theirs, notebook, newer)]
    for file, what in (
        (theirs, "is a database of another program"),
        (notebook, "is no file of conversations"),
        (newer, "was written by a newer llm_magic"),
    ):
        chats = Conversations(file, no_notice)
        with pytest.raises(HistoryError, match=what):
            chats.get().before("a", 20)
        with pytest.raises(HistoryError, match=what):
            put(chats, "b")
    assert [file.read_bytes() for file in (theirs, notebook, newer)] == before


def test_an_empty_file_is_used(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    file.touch()
    chats = Conversations(file, no_notice)
    assert said(chats) == []
    put(chats, "a")
    assert said(chats) == ["a"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for file in (tmp_path / "no" / "c.db", tmp_path / "plain" / "c.db"):
        with pytest.raises(HistoryError) as caught:
            put(Conversations(file), "a")
        assert caught.value.message == f"The conversations in {file} cannot be written: unable to open database file."
    assert caught.value.hint == "Check the file and its folder, or set LLMMagics.chat_file to another one."


def test_a_file_deleted_meanwhile(tmp_path: Path) -> None:
    chats = Conversations(tmp_path / "c.db", no_notice)
    put(chats, "a")
    (tmp_path / "c.db").unlink()
    put(chats, "b")
    assert said(chats) == ["b"]


def test_a_locked_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_magic.conversation.database._WAIT", 0.1)
    chats = Conversations(tmp_path / "c.db")
    put(chats, "a")
    with closing(sqlite3.connect(tmp_path / "c.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(HistoryError) as caught:
            put(chats, "b")
        assert caught.value.hint == "Another kernel is writing to it; try again."
    put(chats, "c")
    assert said(chats) == ["a", "c"]


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    for file in (None, tmp_path / "c.db"):
        chats = Conversations(file)
        put(chats, "a", "b")
        with pytest.raises(AttributeError):
            chats.get().record(Turn("a", (user("new"), "no message")))  # type: ignore[arg-type] # what is tested
        assert said(chats) == ["a", "b"]


def test_reading_stays_fast(tmp_path: Path) -> None:
    chats = Conversations(tmp_path / "c.db")
    turns = tuple(Turn(f"cell-{n}", (user("q" * 500), assistant("a" * 1500))) for n in range(3000))
    chats.get().append(turns)
    chats.get().before("warm", 1)
    start = time.perf_counter()
    assert [turn.cell_id for turn in chats.get().before("cell-2000", 20)] == [f"cell-{n}" for n in range(1980, 2000)]
    chats.get().record(turns[0])
    assert time.perf_counter() - start < 0.2
