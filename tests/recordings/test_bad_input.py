"""Recordings files that are not what they should be, where they cannot be written, and answers that were forged."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernels import Kernel, Ran
from markdown_readers import Page, what_acts
from numbered import NumberedServer, lines
from servers import Answer, Received, ScriptedServer, chunk, stream
from shown import failed

ASK = "%%llm -m s:m -t 0 --once\nHi"
OTHER = "%%llm -m s:m -t 0 --once\nHo"
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def server() -> Iterator[NumberedServer]:
    with NumberedServer() as server:
        yield server


@pytest.fixture(scope="module")
def shared(server: ScriptedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with working_in(tmp_path_factory.mktemp("shared"), server.url) as kernel:
        yield kernel


@pytest.fixture
def kernel(shared: Kernel, tmp_path: Path) -> Kernel:
    """A kernel that works in the test's folder."""
    shared.run(
        f"os.chdir({str(tmp_path)!r})\n%config LLMMagics.record = 'once'\n%config LLMMagics.record_file = ''"
    ).check()
    return shared


@pytest.fixture(scope="module")
def recorded(shared: Kernel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The lines of answers that were recorded."""
    found = {}
    for code in (ASK, OTHER):
        file = tmp_path_factory.mktemp("recorded") / "one.jsonl"
        shared.run(f"%config LLMMagics.record_file = {str(file)!r}").check()
        shared.run(code).check()
        found[code] = file.read_bytes()
    shared.run("%config LLMMagics.record_file = ''").check()
    return found


def working_in(folder: Path, url: str, mode: str = "once") -> Kernel:
    """Start a kernel that works in a folder, and records."""
    kernel = Kernel()
    kernel.run(
        f"import os; os.chdir({str(folder)!r})\n%load_ext llm_magic\n%config LLMMagics.record = {mode!r}\n"
        f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={url!r}, max_retries=0)"
    ).check()
    return kernel


def not_recorded(ran: Ran, kernel: Kernel) -> str:
    """Check that an answer is there and that it is said that it is not recorded; return why."""
    ran.check()
    assert kernel.value("_llm.text").startswith("Answer ")
    (note,) = [note for note in kernel.value("_llm.notes") if note.startswith("Not recorded: ")]
    assert note in str(ran.outputs).replace("\\'", "'") or note.partition("'")[0] in str(ran.outputs)
    assert "Traceback" not in note
    return str(note).removeprefix("Not recorded: ")


NOT_OURS = {
    "a database": b"SQLite format 3\x00" + bytes(100),
    "a page": b"<!DOCTYPE html>\n<html></html>\n",
    "a cassette": b"interactions:\n- request:\n    body: null\nversion: 1\n",
    "other lines": b'{"hello": 1}\n{"hello": 2}\n',
    "a list": b"[1, 2]\n",
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "UTF-16": '{"a": 1}\n'.encode("utf-16"),
    "one long line": b"x" * 3_000_000,
    "deeply nested": b"[" * 200_000 + b"\n",
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_file_of_another_program_is_left_alone(name: str, tmp_path: Path, kernel: Kernel) -> None:
    file = tmp_path / "llm.jsonl"
    file.write_bytes(NOT_OURS[name])
    for mode in ("once", "only", "new"):
        cls, text = failed(kernel, ASK.replace("--once", f"--once --record {mode}"))
        assert cls == "RecordingError"
        assert "llm.jsonl" in text
        assert len(text) < 500
        assert not CONTROLS.search(text.replace("\x1b[0;31m", "").replace("\x1b[0m", "").replace("\n", ""))
    assert file.read_bytes() == NOT_OURS[name]
    kernel.run(ASK.replace("--once", "--once --record off")).check()


def test_a_newer_format_is_left_alone(
    tmp_path: Path, kernel: Kernel, server: NumberedServer, recorded: dict[str, bytes]
) -> None:
    entry = json.loads(recorded[ASK])
    newer = json.dumps({**entry, "version": 2}, sort_keys=True) + "\n"
    file = tmp_path / "llm.jsonl"
    file.write_text(newer)
    cls, text = failed(kernel, ASK)
    assert cls == "RecordingError"
    assert "newer" in text
    assert file.read_text() == newer


def test_a_torn_last_line_is_no_loss(
    tmp_path: Path, kernel: Kernel, server: NumberedServer, recorded: dict[str, bytes]
) -> None:
    whole, other = recorded[ASK], recorded[OTHER]
    file = tmp_path / "llm.jsonl"
    file.write_bytes(whole + other[: len(other) // 2])
    asked = len(server.asked)
    kernel.run(ASK).check()
    assert kernel.value("_llm.recorded") is True
    kernel.run(OTHER).check()
    assert kernel.value("_llm.recorded") is False
    assert len(server.asked) == asked + 1
    with working_in(tmp_path, "http://127.0.0.1:9/v1", "only") as later:
        later.run(ASK).check()
        later.run(OTHER).check()
        assert later.value("_llm.recorded") is True


@pytest.mark.parametrize("cut", [1, 2, 20, 60])
def test_each_torn_end_is_no_loss(
    cut: int, tmp_path: Path, kernel: Kernel, server: NumberedServer, recorded: dict[str, bytes]
) -> None:
    whole = recorded[ASK]
    (tmp_path / "llm.jsonl").write_bytes(whole + whole[:-cut])
    kernel.run(ASK).check()
    assert kernel.value("_llm.recorded") is True
    kernel.run(OTHER).check()
    with working_in(tmp_path, "http://127.0.0.1:9/v1", "only") as later:
        later.run(OTHER).check()


def test_marks_of_a_merge_conflict_are_named(
    tmp_path: Path, kernel: Kernel, server: NumberedServer, recorded: dict[str, bytes]
) -> None:
    ours, theirs = recorded[ASK], recorded[OTHER]
    conflict = b"<<<<<<< HEAD\n" + ours + b"=======\n" + theirs + b">>>>>>> branch\n"
    (tmp_path / "llm.jsonl").write_bytes(conflict)
    asked = len(server.asked)
    ran = kernel.run(ASK).check()
    said = " ".join(ran.of_type("text/plain"))
    assert f"{tmp_path / 'llm.jsonl'} holds the marks of a merge conflict (lines 1, 3" in said
    assert kernel.value("_llm.recorded") is True
    ran = kernel.run(OTHER).check()
    assert "conflict" not in str(ran.outputs), "said once"
    assert len(server.asked) == asked
    assert (tmp_path / "llm.jsonl").read_bytes() == conflict
    (tmp_path / "llm.jsonl").write_bytes(ours + theirs)  # both sides, as merge=union leaves them
    kernel.run(ASK).check()
    kernel.run(OTHER).check()
    assert kernel.value("_llm.recorded") is True


ODD_LINES = {
    "a list of our words": b'["asked", "answer"]',
    "our words alone": b'{"asked": 1, "answer": 2}',
    "a key that is none": b'{"version": 1, "key": "zz", "asked": {}, "answer": {}, "at": ""}',
    "a key of another type": b'{"version": 1, "key": 5, "asked": {}, "answer": {}, "at": ""}',
    "a version that is text": b'{"version": "1", "key": "%s", "asked": {}, "answer": {}, "at": ""}' % (b"ab" * 32),
    "a huge version": b'{"answer": {}, "asked": {}, "at": "", "key": "%s", "version": %s}' % (b"ab" * 32, b"9" * 5000),
    "a huge place": b'{"answer": {}, "asked": {}, "at": "", "key": "%s", "replaces": %s, "version": 1}'
    % (b"ab" * 32, b"9" * 30),
    "a cell that is a list": b'{"key": "%s", "version": 1, "asked": {}, "answer": {}, "at": "", "cell": [1]}'
    % (b"ab" * 32),
    "a place that is text": b'{"key": "%s", "version": 1, "asked": {}, "answer": {}, "at": "", "replaces": "x"}'
    % (b"ab" * 32),
    "null": b"null",
    "nested": b'{"asked": ' + b"[" * 100_000 + b', "answer": 1',
    "bytes of another encoding": b'{"answer": {"text": "\xff\xfe"}, "asked": {}}',
    "nothing": b"   ",
}


@pytest.mark.parametrize("name", ODD_LINES)
def test_an_odd_line_costs_no_other_line(
    name: str, tmp_path: Path, kernel: Kernel, server: NumberedServer, recorded: dict[str, bytes]
) -> None:
    good = recorded[ASK]
    for number, content in enumerate((good + ODD_LINES[name] + b"\n", ODD_LINES[name] + b"\n" + good)):
        file = tmp_path / f"{number}.jsonl"
        file.write_bytes(content)
        kernel.run(f"%config LLMMagics.record_file = {str(file)!r}").check()
        ran = kernel.run(ASK)
        if name == "a huge version" and ran.status == "error":
            assert ran.error_name == "RecordingError"
            continue
        ran.check()
        assert kernel.value("_llm.recorded") is True
        assert kernel.run(ASK.replace("Hi", f"After {name}")).status == "ok"
        assert file.read_bytes().startswith(content)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user of the machine can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(kernel: Kernel, elsewhere: Path) -> None:
    """Let the kernel be a user whom permissions bind; what it imports is imported before."""
    kernel.run(f"%config LLMMagics.record_file = {str(elsewhere / 'first.jsonl')!r}").check()
    kernel.run(ASK).check()
    kernel.run("%config LLMMagics.record_file = ''").check()
    if os.geteuid() == 0:
        kernel.run("os.setegid(65534); os.seteuid(65534)").check()


def test_a_file_that_may_not_be_written(
    open_folder: Path, tmp_path: Path, server: NumberedServer, recorded: dict[str, bytes]
) -> None:
    file = open_folder / "llm.jsonl"
    file.write_bytes(recorded[ASK])
    file.chmod(0o444)
    before = file.read_bytes()
    with working_in(open_folder, server.url) as kernel:
        as_nobody(kernel, tmp_path)
        kernel.run(ASK).check()
        assert kernel.value("_llm.recorded") is True
        why = not_recorded(kernel.run(OTHER), kernel)
        assert "llm.jsonl" in why
        assert "Permission denied" in why or "may not be written" in why
    assert file.read_bytes() == before


def test_a_file_that_may_not_be_read(
    open_folder: Path, tmp_path: Path, server: NumberedServer, recorded: dict[str, bytes]
) -> None:
    file = open_folder / "llm.jsonl"
    file.write_bytes(recorded[ASK])
    file.chmod(0o000)
    with working_in(open_folder, server.url) as kernel:
        as_nobody(kernel, tmp_path)
        cls, text = failed(kernel, ASK)
        assert cls == "RecordingError"
        assert "llm.jsonl" in text


def test_a_folder_that_may_not_be_written(open_folder: Path, tmp_path: Path, server: NumberedServer) -> None:
    open_folder.chmod(0o555)
    with working_in(open_folder, server.url) as kernel:
        as_nobody(kernel, tmp_path)
        not_recorded(kernel.run(ASK), kernel)
    assert list(open_folder.iterdir()) == []


def test_a_folder_that_is_gone(tmp_path: Path, kernel: Kernel) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    kernel.run(f"%config LLMMagics.record_file = {str(folder / 'llm.jsonl')!r}").check()
    kernel.run(ASK).check()
    shutil.rmtree(folder)
    not_recorded(kernel.run(OTHER), kernel)
    assert not folder.exists()
    folder.mkdir()
    kernel.run("%%llm -m s:m --once\nOnce more").check()
    assert len(lines(folder / "llm.jsonl")) == 1


def test_the_working_folder_is_gone(tmp_path: Path, server: NumberedServer) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with working_in(folder, server.url) as kernel:
        kernel.run("%llm -m s:m --record off Hi").check()  # Python itself imports little where the folder is gone
        folder.rmdir()
        cls, text = failed(kernel, ASK)
        assert cls == "RecordingError"
        assert "The working folder is gone, so that there is no place for recordings." in text
        kernel.run(f"%config LLMMagics.record_file = {str(tmp_path / 'llm.jsonl')!r}").check()
        kernel.run(ASK).check()
    assert len(lines(tmp_path / "llm.jsonl")) == 1


def test_a_full_disk_loses_the_recording_alone(tmp_path: Path, kernel: Kernel, server: NumberedServer) -> None:
    file = tmp_path / "llm.jsonl"
    kernel.run(ASK).check()
    size = file.stat().st_size
    kernel.run(
        f"import resource\nlimit = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 50}, limit[1]))"
    ).check()
    not_recorded(kernel.run(OTHER), kernel)
    kernel.run("resource.setrlimit(resource.RLIMIT_FSIZE, limit)").check()
    kernel.run("%%llm -m s:m --once\nWith room").check()
    asked = len(server.asked)
    with working_in(tmp_path, server.url) as later:
        for code in (ASK, "%%llm -m s:m --once\nWith room"):
            later.run(code).check()
            assert later.value("_llm.recorded") is True
        assert len(server.asked) == asked


def test_a_file_system_that_is_full(tmp_path: Path, server: NumberedServer) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    may_mount = os.geteuid() == 0 and shutil.which("mount") is not None
    if not may_mount or subprocess.run(command, check=False).returncode:  # noqa: S603 - of this test
        pytest.skip("needs to mount a small file system")
    try:
        with working_in(disk, server.url) as kernel:
            kernel.run(ASK).check()
            (disk / "filler").write_bytes(bytes(11_900))
            why = not_recorded(kernel.run(f"%%llm -m s:m --once\n{'word ' * 3000}"), kernel)
            assert "No space left on device" in why
            (disk / "filler").unlink()
            kernel.run(OTHER).check()
        assert len(lines(disk / "llm.jsonl")) == 2
    finally:
        subprocess.run(["umount", "-l", disk], check=True)  # noqa: S603, S607


def link(file: Path, other: Path) -> None:
    other.write_text("not yours\n")
    file.symlink_to(other)


HOSTILE: dict[str, Callable[[Path, Path], None]] = {
    "a link to a file": link,
    "a link to nothing": lambda file, other: file.symlink_to(other),
    "a link to a device that is full": lambda file, _: file.symlink_to("/dev/full"),
    "a link to endless zeros": lambda file, _: file.symlink_to("/dev/zero"),
    "a pipe": lambda file, _: os.mkfifo(file),
    "a folder": lambda file, _: file.mkdir(),
    "a link to itself": lambda file, _: file.symlink_to(file),
}


@pytest.mark.parametrize("mode", ["once", "only", "new"])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_plain_file_is_neither_read_nor_written(
    name: str, mode: str, tmp_path: Path, server: NumberedServer
) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    HOSTILE[name](folder / "llm.jsonl", other)
    before = other.read_text() if other.exists() else None
    with working_in(folder, server.url, mode) as kernel:
        ran = kernel.run(ASK)
        if ran.status == "error":
            assert ran.error_name == "RecordingError"
            assert "llm.jsonl" in ran.error
            assert len(ran.error.splitlines()) <= 2
        else:
            not_recorded(ran, kernel)
    assert (other.read_text() if other.exists() else None) == before
    mode_of = (folder / "llm.jsonl").lstat().st_mode
    assert not stat.S_ISREG(mode_of)


def test_one_bad_file_of_several_is_named(
    tmp_path: Path, kernel: Kernel, server: NumberedServer, recorded: dict[str, bytes]
) -> None:
    good = recorded[ASK]
    (tmp_path / "good.llm.jsonl").write_bytes(good)
    os.mkfifo(tmp_path / "pipe.llm.jsonl")
    (tmp_path / "other.llm.jsonl").write_bytes(NOT_OURS["a database"])
    ran = kernel.run(ASK).check()
    assert kernel.value("_llm.recorded") is True
    said = " ".join(ran.of_type("text/plain"))
    assert f"{tmp_path / 'other.llm.jsonl'} is no file of recordings. It is passed over." in said
    assert f"{tmp_path / 'pipe.llm.jsonl'} cannot be read: it is no plain file. It is passed over." in said


class Acting(Page):
    """Finds what no output of ours has; `style` is ours where it loads nothing."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag] if tag in {"script", "iframe", "object", "embed", "form", "link", "svg"} else []
        for name, value in attrs:
            told = (value or "").strip().lower()
            is_image = tag == "img" and name == "src" and told.startswith("data:image/")
            loads = name in {"src", "srcset"} and not is_image
            acts = name.startswith("on") or (told.startswith(("javascript:", "data:")) and not is_image)
            if loads or acts or "url(" in told:
                self.found.append(f"{tag} {name}={value}")


def acting(html: str) -> list[str]:
    """Return what of a page acts or loads."""
    page = Acting()
    page.feed(html)
    page.close()
    return page.found


EVIL = (
    "<img src=x onerror=alert(1)> <script>alert(1)</script> [a](javascript:b) "
    "\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\u202e\x08 $\\href{javascript:alert(1)}{x}$"
)


def evil(received: Received) -> Answer:
    """Answer with hostile words everywhere."""
    note = {"type": "url_citation", "url_citation": {"url": "javascript:alert(1)", "title": EVIL}}
    delta = chunk(EVIL, reasoning_content=EVIL, annotations=[note])
    return stream({**delta, "model": EVIL}, {**chunk(finish="stop"), "model": EVIL}, headers={"x-request-id": "a"})


def test_a_hostile_answer_is_as_harmless_as_it_was(tmp_path: Path) -> None:
    shown = []
    with ScriptedServer(evil) as server:
        for mode in ("once", "only"):
            with working_in(tmp_path, server.url, mode) as kernel:
                ran = kernel.run(ASK).check()
                for output in ran.outputs:
                    output.get("metadata", {}).get("llm_magic", {}).pop("recorded", None)
                shown.append(ran.outputs)
                assert kernel.value("_llm.text") == EVIL
        assert len(server.requests) == 1
    assert shown[0] == shown[1]
    text = json.dumps(shown[1], ensure_ascii=False)
    assert not CONTROLS.search(text)
    assert [acting(output["data"].get("text/html", "")) for output in shown[1]] == [[]] * len(shown[1])
    assert [what_acts(output["data"].get("text/markdown", "")) for output in shown[1]] == [{}] * len(shown[1])
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", (tmp_path / "llm.jsonl").read_bytes()), "nor in an editor"


FORGED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no choices": {"choices": [], "seconds": 1.0},
    "choices of another type": {"choices": "none", "seconds": 1.0},
    "a choice that is none": {"choices": [7], "seconds": 1.0},
    "text that is none": {"choices": [{"text": 7, "finish_reason": "stop"}], "seconds": 1.0},
    "text that is a list": {"choices": [{"text": ["a"], "finish_reason": "stop"}], "seconds": 1.0},
    "an end that is none": {"choices": [{"text": "a", "finish_reason": "whatever"}], "seconds": 1.0},
    "no end": {"choices": [{"text": "a"}], "seconds": 1.0},
    "seconds that are text": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": "long"},
    "no seconds": {"choices": [{"text": "a", "finish_reason": "stop"}]},
    "seconds without end": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": float("inf")},
    "seconds that are no number": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": float("nan")},
    "seconds below zero": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": -1.0},
    "huge seconds": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 10**30},
    "first token that is text": {
        "choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "first_token_seconds": "a"
    },
    "huge usage": {
        "choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0,
        "usage": {"input_tokens": 10**400, "output_tokens": "many"},
    },
    "usage below zero": {
        "choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "usage": {"input_tokens": -5}
    },
    "a cost that is text": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "cost": "free"},
    "a cost without end": {
        "choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "cost": float("nan")
    },
    "notes of other types": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "notes": [1, {}]},
    "notes that are no list": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "notes": 5},
    "hostile notes": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "notes": [EVIL]},
    "a fallback that is none": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "fallback": 5},
    "a dialect that is none": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "structured": 5},
    "a dialect of another type": {
        "choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "structured": {"dialect": [1]}
    },
    "turns that are none": {
        "choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "history_turns": "all"
    },
    "a sender that is none": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "sender": [1]},
    "attempts that are none": {"choices": [{"text": "a", "finish_reason": "stop"}], "seconds": 1.0, "attempts": [3]},
    "hostile words": {
        "choices": [{"text": EVIL, "finish_reason": "stop", "reasoning": EVIL,
                     "citations": [{"url": "javascript:alert(1)", "title": EVIL}],
                     "items": [{"type": EVIL, EVIL: EVIL}]}],
        "seconds": 1.0, "model": EVIL, "request_id": EVIL,
    },
    "an image that is none": {
        "choices": [{"text": "a", "finish_reason": "stop", "images": [{"data": "!", "media_type": "image/png"}]}],
        "seconds": 1.0,
    },
    "an image that acts": {
        "choices": [{"text": "a", "finish_reason": "stop",
                     "images": [{"data": "PHN2Zy8+", "media_type": "image/svg+xml"}, {"url": "javascript:alert(1)"}]}],
        "seconds": 1.0,
    },
    "a call of another tool": {
        "choices": [{"text": "", "finish_reason": "tool_calls",
                     "tool_calls": [{"id": "a", "name": "os.system", "arguments": "rm"}]}],
        "seconds": 1.0,
    },
    "a call that is none": {
        "choices": [{"text": "", "finish_reason": "tool_calls", "tool_calls": [{"id": 1, "name": []}]}],
        "seconds": 1.0,
    },
    "lone surrogates": {"choices": [{"text": "a\ud800b", "finish_reason": "stop"}], "seconds": 1.0},
    "10 MB": {"choices": [{"text": "word " * 2_000_000, "finish_reason": "stop"}], "seconds": 1.0},
    "many choices": {
        "choices": [{"text": "a", "finish_reason": "stop", "index": 10**9 + number} for number in range(1000)],
        "seconds": 1.0,
    },
    "one index twice": {"choices": [{"text": "a", "finish_reason": "stop", "index": 1}] * 2, "seconds": 1.0},
}  # fmt: skip


def test_a_forged_answer_is_shown_harmless_or_refused_in_two_lines(
    tmp_path: Path, server: NumberedServer, recorded: dict[str, bytes]
) -> None:
    entry = json.loads(recorded[ASK])
    file, asked = tmp_path / "llm.jsonl", len(server.asked)
    wrong = []
    with working_in(tmp_path, server.url, "only") as kernel:
        for name, answer in FORGED.items():
            forged = json.dumps({**entry, "answer": answer}, sort_keys=True)
            file.write_text(forged + "\n")
            kernel.run(f"%config LLMMagics.record_file = {str(file)!r}").check()
            ran = kernel.run(ASK)
            said = json.dumps(ran.outputs, ensure_ascii=False)
            if ran.status == "error" and (
                ran.error_name not in {"RecordingError", "IncompleteAnswerError", "EmptyAnswerError"}
                or len(ran.error.splitlines()) > 2
                or "Traceback" in said
            ):
                wrong.append(f"{name}: {ran.error_name}: {ran.error[:300]}")
            data = [output.get("data", {}) for output in ran.outputs]
            if CONTROLS.search(re.sub(r"\\u001b\[[0-9;]*m|\x1b\[[0-9;]*m", "", "".join(map(str, data)))):
                wrong.append(f"{name}: control characters")
            wrong += [
                f"{name}: {acts}"
                for each in (data if name != "10 MB" else ())
                if (acts := acting(each.get("text/html", "")) or what_acts(each.get("text/markdown", "")))
            ]
            if file.read_text() != forged + "\n":
                wrong.append(f"{name}: written")
            file.unlink()
    assert not wrong, "\n".join(wrong)
    assert len(server.asked) == asked


def test_an_answer_with_lone_surrogates_is_recorded(tmp_path: Path) -> None:
    half = stream(b'data: {"choices": [{"index": 0, "delta": {"content": "a\\ud83d"}}]}\n\n', chunk(finish="stop"))
    texts = []
    with ScriptedServer(half) as server:
        for mode in ("once", "only"):
            with working_in(tmp_path, server.url, mode) as kernel:
                kernel.run(ASK).check()
                texts.append(kernel.value("ascii(_llm.text)"))
    assert texts[0] == texts[1]


def test_a_prompt_with_lone_surrogates_is_recorded(tmp_path: Path, kernel: Kernel, server: NumberedServer) -> None:
    kernel.run("half = 'a\\ud800'").check()
    ran = kernel.run("%%llm -m s:m --once\n{{ half }}")
    assert "Traceback" not in str(ran.outputs) or ran.error_name.endswith("Error")
    assert ran.error_name in {"", "PromptError"}
