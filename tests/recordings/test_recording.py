"""One recording: its key, its line, and lines that are none."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.errors import RecordingError
from llm_magic.recordings.recording import Recording, canonical, key_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=4), JSON, max_size=4)
ASKED = {"kind": "answer", "provider": "vllm", "model": "m", "messages": [{"role": "user", "content": "Hi"}]}
ANSWER = {"choices": [{"text": "Hello", "finish_reason": "stop"}], "seconds": 1.5, "attempts": []}
LINE = (
    b'{"answer": {"attempts": [], "choices": [{"finish_reason": "stop", "text": "Hello"}], "seconds": 1.5}, '
    b'"asked": {"kind": "answer", "messages": [{"content": "Hi", "role": "user"}], "model": "m", "provider": "vllm"}, '
    b'"at": "2026-11-29T23:59:01Z", "cell": "c-1", '
    b'"key": "49d301f946a8a4579f7c977cf89b0c308000d81dc17d02892a073a846b4f474b", "replaces": 2, "version": 1}\n'
)


def test_a_line_as_it_stands_in_the_file() -> None:
    written = b'{"kind":"answer","messages":[{"content":"Hi","role":"user"}],"model":"m","provider":"vllm"}'
    assert canonical(ASKED) == written
    assert key_of(ASKED) == hashlib.sha256(written).hexdigest()
    assert Recording(ASKED, ANSWER, "c-1", "2026-11-29T23:59:01Z", 2).line() == LINE


def test_what_is_absent_is_left_out() -> None:
    assert set(json.loads(Recording(ASKED, ANSWER).line())) == {"answer", "asked", "at", "key", "version"}


@given(OBJECTS, OBJECTS, st.none() | st.text(max_size=5), st.none() | st.integers(0, 99))
def test_a_line_is_read_as_it_was_written(
    asked: dict[str, Any], answer: dict[str, Any], cell: str | None, replaces: int | None
) -> None:
    made = Recording(asked, answer, cell, "2026-11-29T23:59:01Z", replaces)
    line = made.line()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    read = Recording.read(line)
    assert read == made
    assert read.key == made.key
    assert read.line() == line


@given(OBJECTS, OBJECTS)
def test_what_differs_differs_in_its_key(first: dict[str, Any], second: dict[str, Any]) -> None:
    def sameness(data: Any) -> str:
        return repr(json.loads(canonical(data)))

    assert (key_of(first) == key_of(second)) == (sameness(first) == sameness(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"t": 0}, {"t": 0.0}),
        ({"t": 0}, {"t": -0.0}),
        ({"t": (1, 2)}, {"t": [1.0, 2]}),
        ({1: "a", 10: "b", 9: "c"}, {"1": "a", "10": "b", "9": "c"}),
        ({"t": "\ud83d\ude00"}, {"t": "\U0001f600"}),
    ],
)
def test_what_is_the_same_has_one_key(first: dict[Any, Any], second: dict[Any, Any]) -> None:
    assert key_of(first) == key_of(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"t": 0}, {"t": False}),
        ({"t": 1}, {"t": True}),
        ({"t": "1"}, {"t": 1}),
        ({}, {"t": None}),
        ({"t": 0.1}, {"t": 0}),
    ],
)
def test_what_is_not_has_two(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert key_of(first) != key_of(second)


def test_a_key_is_the_same_in_every_process() -> None:
    script = "from llm_magic.recordings.recording import key_of; print(key_of({'b': 0.1, 'a': ['é', 1e300, -0.0]}))"
    keys = {
        subprocess.run(  # noqa: S603 - our own words
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert keys == {"410cc1b74554e4a688356acd295264b93a9c2e75dabf999ff044685040b54c7c\n"}


def test_what_misleads_the_eye_is_escaped() -> None:
    text = "a\u202eb\x9b31m\u2028c\x7f\ufeffd\x1b é 🙂 \ud800"
    line = Recording({"kind": "answer", "text": text}, ANSWER).line()
    assert rb"a\u202eb\u009b31m\u2028c\u007f\ufeffd\u001b" + " é 🙂 ".encode() + rb"\ud800" in line
    assert Recording.read(line).asked["text"] == text


def test_documents_of_a_server_keep_their_order() -> None:
    answer = {"choices": [{"text": "x", "items": [{"type": "call", "b": 1, "a": {"z": 1, "y": 2}}]}]}
    read = Recording.read(Recording(ASKED, answer).line()).answer
    assert json.dumps(read["choices"][0]["items"]) == '[{"type": "call", "b": 1, "a": {"z": 1, "y": 2}}]'


@pytest.mark.parametrize("asked", [{"a": object()}, {"a": {1, 2}}, {"a": b"x"}])
def test_what_is_no_data_cannot_be_recorded(asked: dict[str, Any]) -> None:
    with pytest.raises(RecordingError, match="cannot be recorded"):
        key_of(asked)
    with pytest.raises(RecordingError, match="cannot be recorded"):
        Recording(ASKED, asked).line()
    with pytest.raises(RecordingError, match="cannot be recorded"):
        Recording(asked, ANSWER).line()


def test_what_is_too_deep_cannot_be_recorded() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for asked, answer in (({"a": deep}, ANSWER), (ASKED, {"a": deep})):
        with pytest.raises(RecordingError, match="cannot be recorded"):
            Recording(asked, answer).line()


def changed(**fields: Any) -> bytes:
    document = json.loads(Recording(ASKED, ANSWER, "c").line()) | fields
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a": %s}' % (b"1" * 5_000), "no JSON"),
        (b"[]", "no recording"),
        (b"null", "no recording"),
        (b'{"version": 1}', "no recording"),
        (changed(asked=...), "no recording"),
        (changed(asked=[]), "'asked' is no object"),
        (changed(answer="x"), "'answer' is no object"),
        (changed(at=1), "'at' is no text"),
        (changed(cell=None), "'cell' is no text"),
        (changed(key=1), "'key' is no text"),
        (changed(version="1"), "'version' is no whole number"),
        (changed(version=True), "'version' is no whole number"),
        (changed(replaces=1.0), "'replaces' is no whole number"),
        (changed(replaces=-1), "a number that cannot be"),
        (changed(version=0), "a number that cannot be"),
        (changed(version=2), "is of format 2, which is newer"),
        (changed(asked={"kind": "answer"}), "was changed by hand"),
        (changed(key="0" * 64), "was changed by hand"),
    ],
)
def test_what_is_no_recording_is_an_error_of_ours(line: bytes, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        Recording.read(line)


@pytest.mark.parametrize("around", [(b"\xef\xbb\xbf", b"\n"), (b"", b"\r\n"), (b" ", b"  \n")])
def test_what_editors_add_is_passed_over(around: tuple[bytes, bytes]) -> None:
    made = Recording(ASKED, ANSWER)
    assert Recording.read(around[0] + made.line().strip() + around[1]) == made
