"""Text that grows: what readers take of it, and what it takes of memory."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from llm_magic.text_buffer import TextBuffer


@given(st.lists(st.text(max_size=5)), st.integers(0, 60))
def test_a_reader_gets_what_was_added_since(pieces: list[str], position: int) -> None:
    buffer, text = TextBuffer(), ""
    for piece in pieces:
        _, end = buffer.read(0)
        buffer.append(piece)
        text += piece
        assert buffer.read(end)[0] == piece
        if position % 2:
            assert str(buffer) == text
    assert (buffer.read(0)[0], len(buffer), str(buffer)) == (text, len(text), text)


@given(st.lists(st.integers(0, 9000), max_size=8))
def test_pieces_by_the_thousand(counts: list[int]) -> None:
    buffer, position, read, text = TextBuffer(), 0, "", ""
    for count in counts:
        for number in range(count):
            buffer.append(f"{number} ")
        text += "".join(f"{number} " for number in range(count))
        fresh, position = buffer.read(position)
        read += fresh
    assert read == str(buffer) == text


def test_a_million_pieces_take_little_more_memory_than_their_text() -> None:
    tracemalloc.start()
    buffer = TextBuffer()
    for number in range(300_000):
        buffer.append(f"word{number:06} ")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1.2 * len(buffer)


def test_halves_of_characters_are_joined_and_a_lone_one_is_replaced() -> None:
    buffer = TextBuffer()
    buffer.append("a\ud83d")
    assert (buffer.read(0)[0], str(buffer), len(buffer)) == ("a", "a\ufffd", 1)
    buffer.append("\ude00b")
    fresh, position = buffer.read(1)
    assert (fresh, str(buffer), len(buffer)) == ("😀b", "a😀b", 3)
    buffer.append("\udfff\ud800")
    buffer.append("c\ud83d")
    assert buffer.read(position)[0] == "\ufffd\ufffdc"
    assert str(buffer) == "a😀b\ufffd\ufffdc\ufffd"
