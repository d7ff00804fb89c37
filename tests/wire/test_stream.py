from __future__ import annotations

import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magic.wire import stream
from llm_magic.wire.stream import Decoder, EventTooLargeError


def decode(data: bytes, *cuts: int) -> list[tuple[bytes, bytes]]:
    decoder = Decoder()
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    events = []
    for start, end in pairwise(places):
        events += decoder.feed(data[start:end])
    return events + decoder.close()


CASES = [
    (b"data: a\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", [(b"", b"a"), (b"", b"b")]),
    (b"data: a\r\rdata: b\r\r", [(b"", b"a"), (b"", b"b")]),
    (b"data: a\r\n\ndata: b\r\r\n", [(b"", b"a"), (b"", b"b")]),
    (b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")]),
    (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),  # only one mark is taken off: then it is an unknown field
    (b": comment\n\n:\ndata: a\n\n", [(b"", b"a")]),
    (b"data: a\ndata: b\ndata:c\n\n", [(b"", b"a\nb\nc")]),
    (b"data\n\n", [(b"", b"")]),
    (b"data:\n\n", [(b"", b"")]),
    (b"data\ndata\n\n", [(b"", b"\n")]),
    (b"data:  a\n\n", [(b"", b" a")]),
    (b"event: x\ndata: a\n\ndata: b\n\n", [(b"x", b"a"), (b"", b"b")]),
    (b"event: x\n\ndata: b\n\n", [(b"", b"b")]),
    (b"id: 1\n\nretry: 10\n\ndata: b\n\n", [(b"", b"b")]),
    (b"unknown: 1\ndata: b\nno colon\n\n", [(b"", b"b")]),
    (b"data: a\n\n\n\n\ndata: b\n\n", [(b"", b"a"), (b"", b"b")]),
    (b"\n\n\ndata: a\n\n", [(b"", b"a")]),
    (b"data: last", [(b"", b"last")]),
    (b"data: last\n", [(b"", b"last")]),
    (b"data: last\r\n", [(b"", b"last")]),
    (b"data: a\n\nevent: x\ndata: last\n", [(b"", b"a"), (b"x", b"last")]),
    ("data: né\n\n".encode(), [(b"", "né".encode())]),
    (b"data: \xff\xfe\n\n", [(b"", b"\xff\xfe")]),
    (b"", []),
    (b"\xef\xbb", []),
]


@pytest.mark.parametrize(("data", "events"), CASES)
def test_by_the_specification(data: bytes, events: list[tuple[bytes, bytes]]) -> None:
    assert decode(data) == events
    assert decode(data, *range(len(data))) == events, "byte by byte"


PIECES = st.sampled_from(
    [b"data: ", b"data:", b"data", b"event: e", b"\n", b"\n\n", b"\r", b"\r\n", b":", b": c", b"{}", b"\xc3", b"\xa9",
     b"\xef\xbb\xbf", b"id: 1", b" ", b"x" * 40]
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES, max_size=30), st.lists(st.integers(0, 10_000), max_size=8))
def test_how_bytes_are_split_never_changes_the_events(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    assert decode(data, *cuts) == decode(data)


def test_an_event_is_given_out_as_soon_as_its_blank_line_has_come() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\n") == [(b"", b"a")]
    assert decoder.feed(b"data: b\r\n\r") == [(b"", b"b")]
    assert decoder.feed(b"\ndata: c\r\r") == [(b"", b"c")]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_large_event_costs_its_length_not_its_square(end: bytes) -> None:
    event = b'data: "' + b"x" * 50_000_000 + b'"' + end
    decoder = Decoder()
    tracemalloc.start()
    started = time.perf_counter()
    events = []
    for place in range(0, len(event), 65_536):
        events += decoder.feed(event[place : place + 65_536])
    seconds = time.perf_counter() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(events) == 1
    assert len(events[0][1]) == 50_000_002
    assert seconds < 3
    assert peak < 260_000_000, "not more than a few copies of the event"


@pytest.mark.parametrize("start", [b"data: ", b"\rdata: ", b"\r\n"])
def test_what_never_ends_is_a_fault_and_not_all_of_memory(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LARGEST", 1000)
    decoder = Decoder()
    decoder.feed(start)
    with pytest.raises(EventTooLargeError):
        [decoder.feed(b"x" * 100) for _ in range(30)]


def test_many_lines_of_data_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LARGEST", 1000)
    decoder = Decoder()
    decoder.feed(b"\r")
    with pytest.raises(EventTooLargeError):
        [decoder.feed(b"data: " + b"x" * 100 + b"\n") for _ in range(30)]
