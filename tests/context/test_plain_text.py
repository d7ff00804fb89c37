"""Outputs as they are read: without colours, overwritten lines, addresses; cut in the middle."""

from __future__ import annotations

import time

import pytest

from llm_magic.context.plain_text import READ, Excerpt, excerpt_of, plain


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x07", "link"),
        ("cut \x1b[31", "cut "),
        ("  0%|  |\r 50%|# |\r100%|##|\n", "100%|##|\n"),
        ("a longer line\rshort", "shortger line"),  # as a terminal leaves it
        ("a\r\nb\r\n", "a\nb\n"),
        ("x\x00\x07\x08y\tz", "xy\tz"),
        ("half \ud800 of a pair", "half ? of a pair"),
        ("[<matplotlib.lines.Line2D at 0x7f3c5e2a1d50>]", "[<matplotlib.lines.Line2D>]"),
        ("<__main__.A object at 0x7f3c5e2a1d50>", "<__main__.A object>"),
        ("/var/ipykernel_4711/123456.py:3: UserWarning: no", "<cell>:3: UserWarning: no"),
        ('File "/tmp/ipykernel_4711/123456.py", line 3', 'File "<cell>", line 3'),
        ("at 0x10 it is", "at 0x10 it is"),
        ("```\nfence", "```\nfence"),
    ],
)
def test_plain(text: str, read: str) -> None:
    assert plain(text) == read


def test_a_cut_is_said_with_what_it_leaves_out() -> None:
    text = Excerpt("a" * 600 + "b" * 400)
    cut = text.within(120)
    assert len(cut) <= 120
    before, mark, after = cut.split("\n")
    assert (set(before), set(after)) == ({"a"}, {"b"})
    assert mark == f"… [{1000 - len(before) - len(after)} characters left out] …"
    assert text.within(1000) == "a" * 600 + "b" * 400
    assert text.within(0) == "… [1,000 characters left out] …"


def test_a_stream_of_50_mb_is_read_at_its_ends() -> None:
    line = "x" * 99 + "\n"
    chunks = ["begin\n", *[line] * 500_000, "end\n"]
    before = time.process_time()
    found = excerpt_of(chunks)
    assert time.process_time() - before < 2
    assert found.begin.startswith("begin\nxxx")
    assert found.end.endswith("x\nend\n")
    assert len(found.begin) + len(found.end) == READ
    assert len(found) == 50_000_010
    assert len(found.within(1000)) <= 1000
    assert "49,999," in found.within(1000)


def test_a_progress_bar_of_many_steps_is_its_last() -> None:
    assert excerpt_of([f"\r{step:>6,} of 9,999" for step in range(10_000)]).begin == " 9,999 of 9,999"


def test_pieces_that_are_no_text_are_passed_over() -> None:
    assert excerpt_of([b"x", "a", None, "b"]) == Excerpt("ab")


@pytest.mark.parametrize(
    "text",
    [
        "y" * READ + "/ipykernel_1/",
        "x" * (READ // 2) + "\r" * (READ // 2),
        "\x1b[" * (READ // 2),
        "\x1b]" * (READ // 2),
    ],
    ids=["one word", "carriage returns", "sequences cut off", "titles without end"],
)
def test_hostile_text_takes_no_time(text: str) -> None:
    before = time.process_time()
    plain(text)
    assert time.process_time() - before < 1
