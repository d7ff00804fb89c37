"""Input files of batches: what a line is, where a file ends, and what a full disk or a request that is none leaves."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llm_magic.batches.jsonl.input_file import (
    MOST_BYTES,
    MOST_EMBEDDED,
    MOST_ROWS,
    InputFile,
    InputFileWriter,
    custom_id,
    parse_custom_id,
    read_ids,
    require_request,
)
from llm_magic.errors import PromptError
from llm_magic.private_files import NotPlainError

URL = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def name(number: int) -> str:
    return f"{number}-{key(number)[:32]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "batches"
    made.mkdir()
    return made


def writer(folder: Path, **limits: int) -> InputFileWriter:
    return InputFileWriter(lambda part: (folder / f"{part}.jsonl", folder / f"{part}.ids"), URL, **limits)


def test_limits_are_those_of_the_api() -> None:
    assert (MOST_ROWS, MOST_EMBEDDED, MOST_BYTES) == (50_000, 50_000, 200_000_000)


def test_a_request_for_several_inputs_counts_for_as_many(folder: Path) -> None:
    writing = writer(folder, most_rows=5)
    for number, inputs in enumerate((2, 3, 1, 4, 5)):
        writing.write(number, key(number), BODY, inputs=inputs)
    assert [file.rows for file in writing.close()] == [2, 2, 1]


def test_a_line_is_a_request_by_its_custom_id(folder: Path) -> None:
    writing = writer(folder)
    writing.write(0, key(0), BODY)
    writing.write(7, key(7), '{"messages":[{"role":"user","content":"ä€😀"}]}'.encode())
    (file,) = writing.close()
    content = file.path.read_bytes()
    assert (
        content
        == (
            f'{{"custom_id":"{name(0)}","method":"POST","url":"{URL}","body":{BODY.decode()}}}\n'
            f'{{"custom_id":"{name(7)}","method":"POST","url":"{URL}",'
            '"body":{"messages":[{"role":"user","content":"ä€😀"}]}}\n'
        ).encode()
    )
    assert file == InputFile(folder / "0.jsonl", folder / "0.ids", 2, len(content), hashlib.sha256(content).hexdigest())
    assert file.ids_path.read_text() == f"{name(0)}\n{name(7)}\n"
    assert read_ids(file.ids_path) == [name(0), name(7)]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_files_are_for_the_user_alone_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0o777)
    try:
        writing = writer(folder)
        writing.write(0, key(0), BODY)
        writing.close()
    finally:
        os.umask(before)
    assert [stat.S_IMODE(each.stat().st_mode) for each in sorted(folder.iterdir())] == [0o600, 0o600]


def test_no_rows_are_no_file(folder: Path) -> None:
    assert writer(folder).close() == []
    assert list(folder.iterdir()) == []


def test_a_new_file_begins_before_a_limit_of_rows(folder: Path) -> None:
    writing = writer(folder, most_rows=2)
    for number in range(5):
        writing.write(number, key(number), BODY)
    files = writing.close()
    assert [(file.path.name, file.rows) for file in files] == [("0.jsonl", 2), ("1.jsonl", 2), ("2.jsonl", 1)]
    assert [read_ids(file.ids_path) for file in files] == [[name(0), name(1)], [name(2), name(3)], [name(4)]]
    assert [hashlib.sha256(file.path.read_bytes()).hexdigest() for file in files] == [file.digest for file in files]


def test_a_new_file_begins_before_a_limit_of_bytes(folder: Path) -> None:
    writing = writer(folder)
    writing.write(0, key(0), BODY)
    (file,) = writing.close()
    writing.discard()
    exactly_two = writer(folder, most_bytes=2 * file.size)
    for number in range(3):
        exactly_two.write(number, key(number), BODY)
    assert [(each.rows, each.size) for each in exactly_two.close()] == [(2, 2 * file.size), (1, file.size)]
    exactly_two.discard()
    one_less = writer(folder, most_bytes=2 * file.size - 1)
    for number in range(2):
        one_less.write(number, key(number), BODY)
    assert [each.rows for each in one_less.close()] == [1, 1]


def test_a_request_larger_than_a_file_fails_alone(folder: Path) -> None:
    writing = writer(folder, most_bytes=500)
    writing.write(0, key(0), BODY)
    with pytest.raises(PromptError) as raised:
        writing.write(1, key(1), b'{"prompt":"%s"}' % (b"x" * 500))
    assert raised.value.message == "The request has 617 bytes, and a whole file of a batch holds 500."
    assert raised.value.hint == "Shorten the prompt, name its images by URL, or ask without --batch."
    writing.write(2, key(2), BODY)
    (file,) = writing.close()
    assert read_ids(file.ids_path) == [name(0), name(2)]
    assert [json.loads(line)["custom_id"] for line in file.path.read_text().splitlines()] == [name(0), name(2)]


def test_a_request_as_large_as_a_file_passes(folder: Path) -> None:
    writing = writer(folder)
    writing.write(0, key(0), BODY)
    size = writing.close()[0].size
    writing.discard()
    exactly = writer(folder, most_bytes=size)
    exactly.write(0, key(0), BODY)
    exactly.write(1, key(1), BODY)
    assert [(file.rows, file.size) for file in exactly.close()] == [(1, size), (1, size)]
    exactly.discard()
    with pytest.raises(PromptError):
        writer(folder, most_bytes=size - 1).write(0, key(0), BODY)


def test_a_request_that_begins_no_file_leaves_none(folder: Path) -> None:
    writing = writer(folder, most_bytes=100)
    with pytest.raises(PromptError):
        writing.write(0, key(0), b'{"prompt":"%s"}' % (b"x" * 100))
    assert list(folder.iterdir()) == []
    assert writing.close() == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a":\n1}', "The request is not on one line, as a file of a batch needs it."),
        (b'{"a":1}\r', "The request is not on one line, as a file of a batch needs it."),
        (b'{"a":NaN}', "The request is no JSON: expected value at line 1 column 6."),
        (b'{"a":-Infinity}', "The request is no JSON: invalid number at line 1 column 7."),
        (b'{"a":"\xff"}', "The request is no JSON: invalid unicode code point at line 1 column 7."),
        (b'{"a":"\xed\xa0\x80"}', "The request is no JSON: invalid unicode code point at line 1 column 7."),
        (b'{"a":1}}', "The request is no JSON: trailing characters at line 1 column 8."),
        (b'{"a":1} {"b":2}', "The request is no JSON: trailing characters at line 1 column 9."),
        (b'{"a":1', "The request is no JSON: EOF while parsing an object at line 1 column 6."),
        (b"", "The request is no JSON: EOF while parsing a value at line 1 column 0."),
        (b'\xef\xbb\xbf{"a":1}', "The request is no JSON: expected value at line 1 column 1."),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "The request is no JSON: recursion limit exceeded"),
        (b'{"a":"\\\xe2\x80\xa8"}', "The request is no JSON: invalid escape"),
        (b"[1]", "The request is no JSON object."),
        (b"null", "The request is no JSON object."),
        (b'{"a":"\\ud800"}', "The prompt holds half of a surrogate pair, which is no character and cannot be sent."),
        (b'{"a":"\\udc00x"}', "The prompt holds half of a surrogate pair, which is no character and cannot be sent."),
    ],
)
def test_what_would_fail_the_whole_batch_elsewhere_fails_alone(folder: Path, body: bytes, why: str) -> None:
    writing = writer(folder)
    writing.write(0, key(0), BODY)
    with pytest.raises(PromptError) as raised:
        writing.write(1, key(1), body)
    assert raised.value.message.startswith(why)
    assert raised.value.hint
    (file,) = writing.close()
    assert read_ids(file.ids_path) == [name(0)]


def test_what_unicode_calls_the_end_of_a_line_is_none(folder: Path) -> None:
    text = "a\u2028b\u2029c\x85d\\\u2028"
    writing = writer(folder)
    writing.write(0, key(0), json.dumps({"prompt": text}, ensure_ascii=False).encode())
    (file,) = writing.close()
    (line,) = file.path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["body"] == {"prompt": text}
    assert file.size == file.path.stat().st_size


def test_a_url_is_written_as_json(folder: Path) -> None:
    writing = InputFileWriter(lambda _: (folder / "a", folder / "b"), '/deployments/"x"')
    writing.write(0, key(0), BODY)
    (file,) = writing.close()
    assert json.loads(file.path.read_bytes())["url"] == '/deployments/"x"'


@pytest.mark.parametrize("stands", ["0.jsonl", "0.ids"])
def test_what_is_there_stays_as_it_is(folder: Path, stands: str) -> None:
    (folder / stands).write_text("somebody's")
    writing = writer(folder)
    with pytest.raises(FileExistsError):
        writing.write(0, key(0), BODY)
    assert [each.name for each in folder.iterdir()] == [stands]
    assert (folder / stands).read_text() == "somebody's"


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
@pytest.mark.parametrize("stands", ["0.jsonl", "0.ids"])
def test_a_link_is_not_followed(folder: Path, tmp_path: Path, stands: str) -> None:
    (folder / stands).symlink_to(tmp_path / "elsewhere")
    writing = writer(folder)
    with pytest.raises(FileExistsError):
        writing.write(0, key(0), BODY)
    assert not (tmp_path / "elsewhere").exists()
    assert [each.name for each in folder.iterdir()] == [stands]


def test_a_folder_that_is_gone_is_an_error_of_the_system(folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(FileNotFoundError):
        writer(folder).write(0, key(0), BODY)


def test_after_an_error_nothing_more_is_written(folder: Path) -> None:
    (folder / "1.ids").write_text("somebody's")
    writing = writer(folder, most_rows=1)
    writing.write(0, key(0), BODY)
    with pytest.raises(FileExistsError):
        writing.write(1, key(1), BODY)
    for call in (lambda: writing.write(2, key(2), BODY), writing.close):
        with pytest.raises(ValueError, match="the writer is closed"):
            call()
    assert [each.name for each in folder.iterdir()] == ["1.ids"]


def test_a_disk_that_cannot_be_synchronized_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    writing = writer(folder)
    writing.write(0, key(0), BODY)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        writing.close()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("when", ["before", "written", "closed"])
def test_discarded_is_gone(folder: Path, when: str) -> None:
    writing = writer(folder, most_rows=1)
    if when != "before":
        writing.write(0, key(0), BODY)
        writing.write(1, key(1), BODY)
    if when == "closed":
        assert len(writing.close()) == 2
    writing.discard()
    writing.discard()
    assert list(folder.iterdir()) == []


LIMITED = """
import json, os, resource, signal, sys
from pathlib import Path
from llm_magic.batches.jsonl.input_file import InputFileWriter
folder, size, rows, limit = Path(sys.argv[1]), *map(int, sys.argv[2:])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
writer = InputFileWriter(lambda part: (folder / f"{part}.jsonl", folder / f"{part}.ids"), "/v1/chat/completions")
body = b'{"prompt":"' + b"x" * size + b'"}'
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for number in range(rows):
        writer.write(number, f"{number:064x}", body)
    print(sum(file.rows for file in writer.close()))
except OSError as error:
    print(type(error).__name__, error.errno)
    writer.discard()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(sorted(os.listdir(folder)), len(os.listdir("/proc/self/fd")))
"""


def limited(folder: Path, size: int, rows: int, limit: int) -> list[str]:
    command = [sys.executable, "-W", "error", "-c", LIMITED, str(folder), str(size), str(rows), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files, and counts those that are open")
@pytest.mark.parametrize(
    ("size", "rows"),
    [
        (100, 3),  # found out when the file is closed
        (4_000, 1_000),  # in the midst
        (3_000_000, 2),  # by a row larger than the buffer
    ],
)
def test_a_full_disk_leaves_nothing(folder: Path, size: int, rows: int) -> None:
    said, _, left = limited(folder, size, rows, limit=200)
    assert said == "OSError 27"
    assert left.startswith("[] ")
    assert int(left.split()[1]) <= 5  # of which one is that of the list itself


@pytest.mark.skipif(sys.platform != "linux", reason="measures as Linux does")
def test_many_rows_stay_out_of_memory(folder: Path) -> None:
    rows, grown, left = limited(folder, 4_000, 15_000, limit=0)
    assert rows == "15000"
    assert left.startswith("['0.ids', '0.jsonl']")
    assert sum(each.stat().st_size for each in folder.iterdir()) > 60_000_000
    assert int(grown) < 20_000  # kB


def test_names_of_rows_are_read_back() -> None:
    assert custom_id(0, key(0)) == name(0)
    assert parse_custom_id(name(12_345)) == (12_345, key(12_345)[:32])


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        ["7"],
        "",
        "7",
        "7-",
        "7-abc",
        f"7-{'0' * 31}",
        f"7-{'0' * 33}",
        f"7-{'0' * 32}\n",
        f" 7-{'0' * 32}",
        f"07-{'0' * 32}",
        f"-7-{'0' * 32}",
        f"+7-{'0' * 32}",
        f"7_0-{'0' * 32}",
        f"\u0667-{'0' * 32}",
        f"7-{'0' * 31}A",
        f"7-{'0' * 31}\uff10",
        f"{'9' * 16}-{'0' * 32}",
        f"{'9' * 1_000_000}-{'0' * 32}",
        "\ud800",
        b"7-00000000000000000000000000000000",
    ],
)
def test_what_is_no_name_of_a_row_is_none(text: object) -> None:
    assert parse_custom_id(text) is None


@pytest.mark.parametrize(("number", "of"), [(-1, key(0)), (0, "abc"), (0, 'x"' * 32), (0, "0" * 31 + "\n")])
def test_a_row_without_a_name_of_ours_is_not_written(folder: Path, number: int, of: str) -> None:
    with pytest.raises(ValueError, match="no number of a row, or no key of one"):
        writer(folder).write(number, of, BODY)
    assert list(folder.iterdir()) == []


def test_a_request_that_is_one_passes() -> None:
    require_request(BODY)
    require_request(b' {"a": "\\n\\ud83d\\ude00\xf0\x9f\x98\x80"} ')
    require_request(b'{"a":' * 190 + b"{}" + b"}" * 190)


def test_ids_that_were_damaged_keep_their_places(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    path.write_bytes(b"")
    assert read_ids(path) == []
    path.write_bytes(f"{name(0)}\n\xff\n\n{name(3)}\n7-00".encode("latin-1"))
    assert read_ids(path) == [name(0), "\ufffd", "", name(3), "7-00"]
    assert [parse_custom_id(each) is not None for each in read_ids(path)] == [True, False, False, True, False]


def test_ids_are_read_from_a_plain_file_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_ids(tmp_path / "none")
    with pytest.raises(NotPlainError):
        read_ids(tmp_path)
    with (tmp_path / "large").open("wb") as large:
        large.truncate(64 * 2**20 + 1)
    with pytest.raises(OSError, match="too large for the custom ids of a batch"):
        read_ids(tmp_path / "large")
