"""Conversations in a file: across restarts, between kernels, after a kill, and when the file is damaged."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel
from servers import ScriptedServer, chunk, stream

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


def damage_header(data: bytes) -> bytes:
    return data[:32] + b"x" * 8 + data[40:]


def damage_end(data: bytes) -> bytes:
    return data[: len(data) // 2]


def damage_pages(data: bytes) -> bytes:
    return data[:4096] + bytes(len(data) - 4096)


def damage_all_but_the_header(data: bytes) -> bytes:
    return data[:100] + b"garbage "


@pytest.mark.parametrize("damage", [damage_header, damage_end, damage_pages, damage_all_but_the_header])
def test_a_damaged_file_of_ours_is_kept_aside(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "c.db"
    put(Conversations(file), *(f"{n} {'x' * 500}" for n in range(50)))
    damaged = damage(file.read_bytes())
    file.write_bytes(damaged)
    file.chmod(0o644)  # as an earlier version left it
    notices: list[str] = []
    chats = Conversations(file, notices.append)
    assert chats.get().before("new", 20) == ()
    (aside,) = tmp_path.glob("c.db.damaged-*")
    assert aside.read_bytes() == damaged
    assert mode(aside) == 0o600
    assert len(notices) == 1
    assert notices[0].startswith(f"The conversations in {file} are damaged (")
    assert notices[0].endswith(f"): the file is kept as {aside.name}, and a new one is begun.")
    put(chats, "a")
    assert mode(file) == 0o600
    file.write_bytes(damage(file.read_bytes()))
    assert said(Conversations(file, notices.append)) == []
    assert len(list(tmp_path.glob("c.db.damaged-*"))) == 2


def test_damage_is_a_warning_unless_somebody_listens(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    put(Conversations(file), "a")
    file.write_bytes(damage_all_but_the_header(file.read_bytes()))
    with pytest.warns(UserWarning, match="are damaged"):
        assert said(Conversations(file)) == []


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def refused(file: Path, what: str) -> None:
    """Reading and writing are errors that say so, and nothing beside the file appears."""
    beside = sorted(path.name for path in file.parent.iterdir())
    for attempt in (lambda chats: chats.get().before("a", 20), lambda chats: put(chats, "b")):
        with pytest.raises(HistoryError) as caught:
            attempt(Conversations(file, no_notice))
        assert what in caught.value.message
        assert caught.value.hint
    assert sorted(path.name for path in file.parent.iterdir()) == beside


@pytest.mark.parametrize(
    "content",
    [
        b"export PATH=$PATH:~/bin\n",
        b"garbage",
        b"\0" * 4096,
        b"SQLite format 3",
        b"SQLite format 3\0" + b"x" * 300,
        "ключ\n".encode("utf-16"),
        b"{}",
    ],
)
@pytest.mark.parametrize("name", [".bashrc", "work.ipynb", "id_rsa", "chats.sqlite", "c.db"])
def test_a_file_of_others_is_never_touched(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    before = file.stat()
    refused(file, f"{file} is no file of conversations")
    after = file.stat()
    assert file.read_bytes() == content
    assert (before.st_ino, before.st_mtime_ns, before.st_mode) == (after.st_ino, after.st_mtime_ns, after.st_mode)


def test_an_empty_file_may_be_of_use_to_somebody(tmp_path: Path) -> None:
    file = tmp_path / "__init__.py"
    file.touch()
    refused(file, f"{file} is an empty file")
    assert file.read_bytes() == b""


@pytest.mark.parametrize("wal", [False, True])
def test_databases_of_others_are_left_alone(tmp_path: Path, wal: bool) -> None:
    theirs = tmp_path / "history.sqlite"
    with closing(sqlite3.connect(theirs)) as database:
        if wal:
            database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE history (line TEXT)")
        database.commit()
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        refused(theirs, f"{theirs} is a database of another program")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_database_of_others_with_a_table_of_our_name(tmp_path: Path) -> None:
    theirs = tmp_path / "game.sqlite"
    with closing(sqlite3.connect(theirs)) as database:
        database.execute("CREATE TABLE turns (id INTEGER PRIMARY KEY, player TEXT)")
        database.commit()
    before = theirs.read_bytes()
    refused(theirs, "is a database of another program")
    assert theirs.read_bytes() == before


def test_a_database_of_a_newer_version(tmp_path: Path) -> None:
    newer = tmp_path / "new.db"
    put(Conversations(newer), "a")
    with closing(sqlite3.connect(newer)) as database:
        database.execute("PRAGMA user_version = 2")
        database.execute("CREATE TABLE more (x)")
        database.commit()
    before = newer.read_bytes()
    refused(newer, "was written by a newer llm_magic")
    newer.write_bytes(before[:5000])  # damaged, and still not ours to judge
    refused(newer, "was written by a newer llm_magic")


def test_an_old_file_without_the_mark_is_known_by_its_schema_and_marked(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    put(Conversations(old), "a", "b")
    with closing(sqlite3.connect(old)) as database:
        database.execute("PRAGMA application_id = 0")
    assert old.read_bytes()[68:72] == bytes(4)
    chats = Conversations(old, no_notice)
    assert said(chats) == ["a", "b"]
    put(chats, "c")
    assert old.read_bytes()[68:72] == b"llmc"
    assert said(Conversations(old, no_notice)) == ["a", "b", "c"]
    with closing(sqlite3.connect(old)) as database:
        database.execute("PRAGMA application_id = 0")
    damaged = damage_pages(old.read_bytes())
    old.write_bytes(damaged)
    refused(old, "is a database of another program")
    assert old.read_bytes() == damaged


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name in ("folder", "pipe", "socket"):
            refused(tmp_path / name, f"{tmp_path / name} is no plain file")
    started = time.monotonic()
    for device in ("/dev/null", "/dev/zero", "/dev/tty", "/dev/stdin"):
        with pytest.raises(HistoryError):
            put(Conversations(device, no_notice), "a")
    assert time.monotonic() - started < 5


def test_links_lead_only_to_whole_files_of_ours(tmp_path: Path) -> None:
    ours, theirs, nowhere = tmp_path / "ours.db", tmp_path / "theirs", tmp_path / "nowhere"
    put(Conversations(ours), "a")
    theirs.write_text("private")
    link = tmp_path / "link.db"
    link.symlink_to(ours)
    chats = Conversations(link, no_notice)
    put(chats, "b")
    assert said(chats) == said(Conversations(ours)) == ["a", "b"]
    assert link.is_symlink()
    link.unlink()
    link.symlink_to(theirs)
    refused(link, "is no file of conversations")
    assert theirs.read_text() == "private"
    link.unlink()
    link.symlink_to(nowhere)
    refused(link, "is a link that leads nowhere")
    assert not nowhere.exists()
    link.unlink()
    link.symlink_to(link)
    refused(link, "is a link that leads nowhere")
    ours.write_bytes(damage_all_but_the_header(ours.read_bytes()))
    link.unlink()
    link.symlink_to(ours)
    refused(link, "is damaged")  # nothing is moved behind a link
    assert link.is_symlink()


@pytest.mark.parametrize("ending", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["text", "link", "pipe"])
def test_what_stands_where_sqlite_writes_beside_a_database(tmp_path: Path, ending: str, kind: str) -> None:
    if ending == "-shm" and kind == "text":
        pytest.skip("has no mark that could be looked for, and is made only for databases of the mode WAL")
    file, private = tmp_path / "c.db", tmp_path / "private"
    put(Conversations(file), "a")
    private.write_text("private")
    beside = tmp_path / f"c.db{ending}"
    if kind == "text":
        beside.write_text("a journal of mine")
    elif kind == "link":
        beside.symlink_to(private)
    else:
        os.mkfifo(beside)
    refused(file, f"{beside} is in the way")
    file.unlink()
    with pytest.raises(HistoryError, match="is in the way"):
        put(Conversations(file, no_notice), "b")
    assert not file.exists()
    assert private.read_text() == "private"
    assert kind != "text" or beside.read_text() == "a journal of mine"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away")
def test_a_file_that_another_user_put_into_a_folder_for_all(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    put(Conversations(file), "a")
    os.chown(file, 54321, -1)
    assert said(Conversations(file)) == ["a"]  # shared on purpose
    tmp_path.chmod(0o1777)
    before = file.read_bytes()
    refused(file, "was put there by another user (uid 54321)")
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["a?mode=ro#b%20c&d", "é 🙂", "a\nb", "a'b\"c", "-x", ":memory:", "file:x", "\udcff"])
def test_names_that_are_no_plain_words(tmp_path: Path, name: str) -> None:
    chats = Conversations(tmp_path / name, no_notice)
    put(chats, "a")
    assert said(Conversations(tmp_path / name, no_notice)) == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_journal_that_was_put_there_deletes_no_other_file(tmp_path: Path) -> None:
    """A hot journal may name a super-journal, which SQLite deletes after it has rolled back."""
    file, victim = tmp_path / "c.db", tmp_path / "victim"
    put(Conversations(file), "a")
    victim.write_text("precious\n")
    name, mark = str(victim).encode(), bytes.fromhex("d9d505f920a163d7")
    journal = (mark + struct.pack(">IIIII", 0, 0, file.stat().st_size // 4096, 512, 4096)).ljust(512, b"\0")
    journal += struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + mark
    (tmp_path / "c.db-journal").write_bytes(journal)
    refused(file, "c.db-journal is in the way")
    assert victim.read_text() == "precious\n"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_new_files_are_for_the_user_alone(tmp_path: Path, umask: int) -> None:
    file = tmp_path / "new" / "deep" / "c.db"
    seen: dict[str, int] = {}
    before = os.umask(umask)
    try:
        chats = Conversations(file, no_notice)
        put(chats, "a")
        with chats._database.writing() as rows:
            rows.execute("DELETE FROM turns")
            seen = {path.name: mode(path) for path in file.parent.iterdir()}
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("DELETE FROM turns")
            database.commit()
            put(chats, "b")
            seen |= {path.name: mode(path) for path in file.parent.iterdir()}
    finally:
        os.umask(before)
    assert seen == {"c.db": 0o600, "c.db-journal": 0o600, "c.db-wal": 0o600, "c.db-shm": 0o600}
    assert mode(file.parent) == mode(file.parent.parent) == 0o700


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    put(Conversations(tmp_path / "c.db"), "a")
    assert mode(tmp_path) == 0o755


def test_a_file_that_appears_in_the_last_moment_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.db"
    link = os.link

    def slow(source: Any, target: Any, **more: Any) -> None:
        file.write_text("mine")
        link(source, target, **more)

    monkeypatch.setattr(os, "link", slow)
    with pytest.raises(HistoryError):
        put(Conversations(file, no_notice), "a")
    assert file.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["c.db"]


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    chats = Conversations(tmp_path / "c.db", no_notice)
    put(chats, "a")
    assert said(chats) == ["a"]
    assert mode(tmp_path / "c.db") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["c.db"]


def test_a_file_that_is_exchanged_after_it_was_seen(tmp_path: Path) -> None:
    file = tmp_path / "c.db"
    chats = Conversations(file, no_notice)
    put(chats, "a")
    content = b"SQLite format 3\0 but mine"
    with file.open("r+b") as opened:  # the same inode
        opened.truncate()
        opened.write(content)
    refused(file, "is no file of conversations")
    with pytest.raises(HistoryError):
        put(chats, "b")
    assert file.read_bytes() == content


BORN = """
import os, sys, signal
from llm_magic.conversation import Conversations, Turn
from llm_magic.messages import user
step, at = 0, int(sys.argv[2])
def count(event, arguments):
    global step
    if event.split(".")[0] in {"open", "os", "sqlite3"} and os.path.dirname(sys.argv[1]) in str(arguments):
        step += 1
        if step == at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
Conversations(sys.argv[1]).get().record(Turn("a", (user("a"),)))
print("whole")
"""


def test_a_kill_at_any_step_of_a_birth_leaves_no_half_file(tmp_path: Path) -> None:
    for at in range(1, 60):
        file = tmp_path / str(at) / "c.db"
        file.parent.mkdir()
        ran = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", BORN, file, str(at)], capture_output=True, text=True, check=False
        )
        if ran.stdout:
            break
        assert ran.returncode == -signal.SIGKILL, ran.stderr
        assert not file.exists() or file.stat().st_size > 4096
        chats = Conversations(file, no_notice)
        put(chats, "b")
        assert said(chats) == ["b"]
    assert at >= 5


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away and take its rights")
def test_what_may_not_be_read_or_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.owner() == "root" and not parent.stat().st_mode & 0o005:
            parent.chmod(parent.stat().st_mode | 0o005)
    unreadable, alone = tmp_path / "unreadable.db", tmp_path / "folder"
    put(Conversations(unreadable), "a")
    alone.mkdir(mode=0o755)
    put(Conversations(alone / "c.db"), "a")
    (alone / "c.db").chmod(0o644)
    damaged = alone / "damaged.db"
    damaged.write_bytes(damage_all_but_the_header((alone / "c.db").read_bytes()))
    damaged.chmod(0o666)
    before = {path: path.read_bytes() for path in (unreadable, alone / "c.db", damaged)}
    for file in (unreadable, alone / "c.db", alone / "new.db", damaged):
        child = os.fork()
        if not child:
            outcome = 1
            with suppress(BaseException):
                os.setgroups([])
                os.setgid(54321)
                os.setuid(54321)
                try:
                    put(Conversations(file, no_notice), "x")
                except HistoryError as error:
                    outcome = 0 if error.message.startswith(f"The conversations in {file} cannot be ") else 2
            os._exit(outcome)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, file
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in alone.iterdir()) == ["c.db", "damaged.db"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    put(Conversations(tmp_path / "no" / "c.db"), "a")
    assert mode(tmp_path / "no") == 0o700
    (tmp_path / "plain").touch()
    file = tmp_path / "plain" / "c.db"
    with pytest.raises(HistoryError) as caught:
        put(Conversations(file), "a")
    assert caught.value.message == f"The conversations in {file} cannot be written: Not a directory."
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
        with pytest.raises((AttributeError, TypeError)):
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


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    file = tmp_path / "chats.sqlite"
    put(Conversations(file), "a")
    file.write_bytes(damage_all_but_the_header(file.read_bytes()))
    return file


ANSWER = stream(chunk("# One\n\nTwo\n\n"), chunk("Three"), chunk(finish="stop"))


@pytest.mark.parametrize("line", ["%%llm\nHi", "x = 1\n%llm Hi", "%%llm -b\nHi"])
def test_the_notice_stays_below_the_answer_whose_blocks_are_cleared(damaged: Path, line: str) -> None:
    with ScriptedServer(ANSWER) as server, Kernel() as kernel:
        kernel.run("%load_ext llm_magic").check()
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        kernel.run(f"%config LLMMagics.model = 'there:m'\n%config LLMMagics.chat_file = {str(damaged)!r}").check()
        ran = kernel.run(line).check()
        if "-b" in line:
            kernel.run("_.result()").check()
            own = [message for message in kernel.heard if message["parent_header"].get("msg_id") == ran.request]
            cleared = max(number for number, message in enumerate(own) if message["msg_type"] == "clear_output")
            shown = [message["content"].get("data", {}).get("text/plain", "") for message in own[cleared:]]
        else:
            shown = ran.of_type("text/plain")
        assert len([text for text in shown if f"The conversations in {damaged} are damaged (" in text]) == 1
        assert "are damaged" not in str(kernel.run("%%llm\nHi").check().outputs)


@pytest.mark.parametrize("line", ["%llm_chat", "%%llm --dry-run\nHi", "%%llm -m nobody:x\nHi"])
def test_the_notice_where_nothing_is_asked(damaged: Path, line: str) -> None:
    with Kernel() as kernel:
        kernel.run("%load_ext llm_magic").check()
        kernel.run(f"%config LLMMagics.model = 'vllm:m'\n%config LLMMagics.chat_file = {str(damaged)!r}").check()
        assert f"The conversations in {damaged} are damaged (" in kernel.run(line).stdout


def test_the_notice_in_a_notebook_that_is_executed_and_saved(damaged: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    with ScriptedServer(ANSWER) as server:
        sources = (
            f"%load_ext llm_magic\n%llm_provider add there --base-url {server.url}",
            f"%config LLMMagics.model = 'there:m'\n%config LLMMagics.chat_file = {str(damaged)!r}",
            "%%llm\nHi",
        )
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        notebook = nbformat.v4.new_notebook(cells=cells)
        NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output["data"]["text/plain"] for output in notebook.cells[-1].outputs if "data" in output]
    assert "# One\n\nTwo\n\nThree" in shown
    assert len([text for text in shown if "are damaged (" in text]) == 1


def test_a_setting_cannot_make_a_cell_take_a_file_away(tmp_path: Path) -> None:
    private = tmp_path / ".bashrc"
    private.write_text("export A=1\n")
    with ScriptedServer(ANSWER) as server, Kernel(HOME=str(tmp_path)) as kernel:
        kernel.run("%load_ext llm_magic").check()
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        kernel.run("%config LLMMagics.model = 'there:m'\n%config LLMMagics.chat_file = '~/.bashrc'").check()
        ran = kernel.run("%%llm\nHi")
        assert (ran.status, ran.error_name) == ("error", "HistoryError")
        assert ran.error.splitlines() == [
            f"{private} is no file of conversations.",
            "Name a new file: LLMMagics.chat_file = 'chats.sqlite'.",
        ]
        assert server.requests == []
    assert private.read_text() == "export A=1\n"
