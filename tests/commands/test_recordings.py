"""`%llm_recordings` in a kernel: what is recorded is listed, looked through, cleared and exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel
from servers import ScriptedServer, chunk, stream
from shown import failed, html, plain

from llm_magic.recordings.recording import Recording

ANSWER = stream(chunk("Fine <b>day</b>"), chunk(finish="stop"))


@pytest.fixture
def file(kernel: Kernel, tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "notes.llm.jsonl"
    with ScriptedServer(ANSWER) as server:
        kernel.run(
            "session = get_ipython()._llm_magic.session\n"
            f"session.registry.add('there', 'compatible', base_url={server.url!r})\n"
            "session.settings.model = 'there:m'\n"
            "session.settings.record = 'once'\n"
            "session._recordings = None\n"
            f"session.settings.record_file = {str(file)!r}"
        ).check()
        yield file
        kernel.run("session.settings.record = 'off'\nsession.settings.record_file = ''").check()


def made(number: int) -> bytes:
    asked = {
        "kind": "answer",
        "provider": "p",
        "model": "m",
        "messages": [{"role": "user", "content": f"No. {number}"}],
    }
    answer = {"attempts": [], "choices": [{"text": f"Answer {number}", "finish_reason": "stop"}], "seconds": 1.0}
    return Recording(asked, answer, None, "2026-11-29T12:00:01Z").line()


def test_nothing_is_recorded(kernel: Kernel, file: Path) -> None:
    said = f'Nothing is recorded in {file}. %config LLMMagics.record = "once" records from now on.'
    assert plain(kernel.run("%llm_recordings")) == said
    assert plain(kernel.run("%llm_recordings clear")) == f"Nothing is recorded in {file}."
    assert not file.exists()
    assert failed(kernel, "%llm_recordings export a.md") == (
        "RecordingError",
        "RecordingError: There are no recordings to export.",
    )


def test_what_is_recorded_is_listed(kernel: Kernel, file: Path) -> None:
    file.write_bytes(made(1))
    kernel.run("%%llm --once\nHow is <i>it</i>?").check()
    ran = kernel.run("%llm_recordings")
    lines = plain(ran).splitlines()
    assert lines[0].split() == ["model", "asked", "answered", "when", "used"]
    assert lines[1].split()[:6] == ["1", "p:m", "No.", "1", "Answer", "1"]
    assert lines[2].split()[1:8] == ["there:m", "How", "is", "<i>it</i>?", "Fine", "<b>day</b>", lines[2].split()[7]]
    assert lines[2].endswith("yes")
    assert lines[3] == f"2 recordings in {file}."
    page = html(ran)
    assert "<i>" not in page
    assert "<b>" not in page


def test_texts_are_looked_for(kernel: Kernel, file: Path) -> None:
    file.write_bytes(b"".join(map(made, range(120))))
    lines = plain(kernel.run("%llm_recordings")).splitlines()
    assert lines[1].split()[0] == "71"
    assert lines[50].split()[0] == "120"
    assert lines[51] == "The last 50 of 120; %llm_recordings list TEXT finds others."
    lines = plain(kernel.run("%llm_recordings list ANSWER 11")).splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["12", *map(str, range(111, 121))]
    assert lines[-1] == f"11 recordings in {file}."
    assert plain(kernel.run("%llm_recordings list nowhere")) == "None of 120 recordings holds 'nowhere'."


def test_clear(kernel: Kernel, file: Path) -> None:
    file.write_bytes(made(1) + made(2))
    assert failed(kernel, "%llm_recordings clear --unused")[1] == (
        "RecordingError: No recording was used in this session yet, so that all would go.\n"
        "Run the notebook's cells first, or clear without --unused."
    )
    kernel.run("%%llm --once\nHi").check()
    assert (
        plain(kernel.run("%llm_recordings clear --unused")) == f"2 recordings removed from {file}; 1 recording stays."
    )
    assert file.read_bytes().count(b"\n") == 1
    assert plain(kernel.run("%llm_recordings clear")) == f"1 recording removed from {file}."
    assert file.read_bytes() == b""


def test_files_that_are_only_read(kernel: Kernel, file: Path) -> None:
    (file.parent / "a.llm.jsonl").write_bytes(made(1))
    (file.parent / "llm.jsonl").write_bytes(made(2))
    kernel.run(f"import os; before = os.getcwd(); os.chdir({str(file.parent)!r}); session.settings.record_file = ''")
    try:
        lines = plain(kernel.run("%llm_recordings")).splitlines()
        assert [line.split()[-1] for line in lines[1:3]] == ["a.llm.jsonl", "llm.jsonl"]
        assert plain(kernel.run("%llm_recordings clear")) == (
            f"1 recording removed from {file.parent / 'llm.jsonl'}. What is in a.llm.jsonl stays: it is read, and not "
            "written."
        )
    finally:
        kernel.run("os.chdir(before)").check()


def test_export_lines(kernel: Kernel, file: Path, tmp_path: Path) -> None:
    file.write_bytes(made(1) + made(2))
    out = tmp_path / "out.jsonl"
    for _ in range(2):
        assert plain(kernel.run(f"%llm_recordings export {out}")) == f"2 recordings written to {out}."
        assert out.read_bytes() == made(1) + made(2)
    out.write_bytes(made(1) + made(3))
    assert failed(kernel, f"%llm_recordings export {out}")[1] == (
        f"RecordingError: {out} is there already, and holds something else.\n"
        "Name another file, or remove that one first."
    )
    assert out.read_bytes() == made(1) + made(3)
    assert "is the file of recordings itself" in failed(kernel, f"%llm_recordings export {file}")[1]


def test_what_is_no_prompt_is_named_in_the_list_and_in_markdown(kernel: Kernel, file: Path, tmp_path: Path) -> None:
    call = {"kind": "tool", "name": "f", "arguments": "{}", "asked": "a" * 64}
    again = {"kind": "answer", "provider": "p", "model": "m", "messages": [{"role": "user", "again": True}]}
    texts = {"kind": "embeddings", "provider": "p", "model": "m", "input": ["sea", "wind"]}
    vectors = {"vectors": "AAAAPwAAAD8=", "dtype": "float32", "dimensions": 1}
    said = {"attempts": [], "choices": [{"text": "7", "finish_reason": "stop"}], "seconds": 1.0}
    when = "2026-11-29T12:00:01Z"
    answers = ((call, {"result": "2"}), (again, said), (texts, vectors))
    file.write_bytes(b"".join(Recording(asked, answer, None, when).line() for asked, answer in answers))
    out = tmp_path / "kinds.md"
    kernel.run(f"%llm_recordings export {out}").check()
    text = out.read_text("utf-8")
    assert "## 1. 2026-11-29 12:00:01 UTC\n\n**Asked**\n\n```\nf({})\n```" in text
    assert "## 2. p:m, 2026-11-29 12:00:01 UTC\n\n**Prompt**\n\n(asked again)\n\n**Answer**\n\n7" in text
    assert "**Asked**\n\n```\nsea\nwind\n```" in text
    assert "(asked again)" in plain(kernel.run("%llm_recordings list again"))
    assert "sea wind" in plain(kernel.run("%llm_recordings list sea"))


def test_export_markdown(kernel: Kernel, file: Path, tmp_path: Path) -> None:
    file.write_bytes(made(1))
    kernel.run("%%llm --once -t 0.5\nHow is it? <script>x</script>").check()
    out = tmp_path / "out.md"
    for _ in range(2):
        kernel.run(f"%llm_recordings export {out}").check()
    text = out.read_text("utf-8")
    assert text.startswith(
        "# Recordings\n\n## 1. p:m, 2026-11-29 12:00:01 UTC\n\n**Prompt**\n\nNo. 1\n\n"
        "**Answer**\n\nAnswer 1\n\n## 2. there:m, "
    )
    assert '`{"temperature": 0.5}`' in text
    assert "<script" not in text
    out.write_text(text + "of mine\n", "utf-8")
    assert "holds something else" in failed(kernel, f"%llm_recordings export {out}")[1]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("lst", "Did you mean list?"),
        ("clear --unusd", "Did you mean --unused?"),
        ("clear all", "takes no words"),
        ("export", "needs FILE"),
        ("export a.txt", "not written as '.txt'"),
        ("export folder/a.md", "There are no recordings"),
    ],
)
def test_what_is_wrong(kernel: Kernel, file: Path, code: str, message: str) -> None:
    assert message in failed(kernel, f"%llm_recordings {code}")[1]


def test_where_it_cannot_be_written(kernel: Kernel, file: Path, tmp_path: Path) -> None:
    file.write_bytes(made(1))
    assert "cannot be written: No such file" in failed(kernel, f"%llm_recordings export {tmp_path}/gone/a.md")[1]
    assert "cannot be written" in failed(kernel, f"%llm_recordings export {tmp_path / ('x' * 300)}.md")[1]


def test_a_file_of_another_program(kernel: Kernel, file: Path) -> None:
    file.write_text("a diary\n")
    for line in ("", "clear", "export a.md"):
        assert failed(kernel, f"%llm_recordings {line}")[1] == (
            f"RecordingError: {file} is no file of recordings.\nName another: %config LLMMagics.record_file = …"
        )
    assert file.read_text() == "a diary\n"


def test_damage_is_a_row(kernel: Kernel, file: Path) -> None:
    file.write_bytes(made(1).replace(b'"Answer 1"', b"1") + made(2))
    lines = plain(kernel.run("%llm_recordings")).splitlines()
    assert lines[1].split() == ["1", "line", "1:", "answer.choices[0].text", "is", "no", "text."]
    assert lines[2].split()[1:6] == ["p:m", "No.", "2", "Answer", "2"]


def test_help(kernel: Kernel) -> None:
    said = kernel.run("%llm_recordings --help").check()
    assert "clear [--unused]" in json.dumps(said.outputs)
