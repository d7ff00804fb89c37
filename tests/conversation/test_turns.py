"""Turns by their cells: what a cell sends, what it replaces, and what it leaves alone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.conversation import Conversation, Conversations, Turn, estimate, window
from llm_magic.errors import HistoryError
from llm_magic.messages import Image, assistant, tool, user
from llm_magic.messages import ToolCall as Call


def turn(cell: str | None, text: str, part: int = 0) -> Turn:
    return Turn(cell, (user(text), assistant(f"re {text}")), "m", 1.0, part)


def said(turns: tuple[Turn, ...]) -> list[str]:
    return [turn.messages[0].text for turn in turns]


def run(chat: Conversation, cell: str | None, text: str) -> list[str]:
    """Do what a cell does: send the turns before its own, then keep its turn; return what was sent."""
    sent = said(chat.before(cell, 20))
    chat.record(turn(cell, text))
    return sent


def test_the_story() -> None:
    chat = Conversations().get("main")
    assert [run(chat, cell, cell.upper()) for cell in "abc"] == [[], ["A"], ["A", "B"]]
    assert run(chat, "a", "A2") == []
    assert run(chat, "c", "C2") == ["A2", "B"]
    assert run(chat, "b", "B2") == ["A2"]
    assert run(chat, "copy", "D") == ["A2", "B2", "C2"]
    assert run(chat, None, "E") == ["A2", "B2", "C2", "D"]
    assert run(chat, None, "F") == ["A2", "B2", "C2", "D", "E"]
    assert said(chat.turns()) == ["A2", "B2", "C2", "D", "E", "F"]


def test_a_window_of_turns() -> None:
    chat = Conversations().get()
    for cell in "abcd":
        chat.record(turn(cell, cell))
    assert said(chat.before("new", 2)) == ["c", "d"]
    assert said(chat.before("c", 1)) == ["b"]
    assert chat.before("c", 0) == ()
    assert chat.before("a", 5) == ()


def test_several_prompts_of_one_cell() -> None:
    chat = Conversations().get()
    chat.record(turn("a", "A"))
    for part in range(3):
        assert said(chat.before("b", 20, part=part)) == ["A", *(f"B{n}" for n in range(part))]
        chat.record(turn("b", f"B{part}", part))
    chat.record(turn("c", "C"))
    assert said(chat.turns()) == ["A", "B0", "B1", "B2", "C"]
    chat.record(turn("b", "new B0"))
    assert said(chat.turns()) == ["A", "new B0", "C"]
    assert said(chat.before("b", 20, part=1)) == ["A", "new B0"]
    chat.record(turn("b", "new B1", 1))
    assert said(chat.turns()) == ["A", "new B0", "new B1", "C"]


def test_a_fork_does_not_change_its_parent() -> None:
    chats = Conversations()
    for cell in "ab":
        chats.get().record(turn(cell, cell))
    child = chats.get().fork("idea")
    child.record(turn("a", "other"))
    child.record(turn("c", "c"))
    chats.get().record(turn("d", "d"))
    assert (said(chats.get("main").turns()), said(child.turns())) == (["a", "b", "d"], ["other", "b", "c"])
    with pytest.raises(HistoryError, match=r"^There is a conversation 'idea' already\.\nTake another name"):
        chats.get().fork("idea")
    with pytest.raises(HistoryError, match=r"^There is no conversation 'ida'\.\nDid you mean idea\?$"):
        chats.find("ida").fork("new")


def test_find_list_and_reset() -> None:
    chats = Conversations()
    assert chats.names() == ["main"]
    plan = chats.get("plan")
    assert chats.find("plan", "plan").name == plan.name == "plan"
    assert chats.names("plan") == ["main", "plan"]
    plan.record(turn("a", "x" * 36))
    chats.get("main").record(turn("a", "y"))
    assert [(s.name, s.turns, s.tokens, s.model, s.last) for s in chats.list("plan")] == [
        ("plan", 1, 4 + 9 + 4 + 10, "m", 1.0),
        ("main", 1, 4 + 1 + 4 + 1, "m", 1.0),
    ]
    with pytest.raises(HistoryError, match="There is no conversation 'plam'"):
        chats.find("plam", "plan")
    assert (plan.reset(), plan.reset(), chats.get("main").reset()) == (1, 0, 1)
    assert chats.names("plan") == ["main", "plan"]


@pytest.mark.parametrize("name", [" ", "a\nb"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(HistoryError, match="is no name for a conversation"):
        Conversations().get(name)


def test_an_estimate_of_tokens() -> None:
    call = Call("1", "f", '{"x": 1}')
    assert estimate([]) == 0
    assert estimate([user("abcde")]) == 4 + 2
    assert estimate([user("日本")]) == 4 + 2
    assert estimate([user("a", Image(b"x"))]) == 4 + 1 + 1000
    assert estimate([assistant("", (call,)), tool(call, "1234")]) == 4 + 3 + 4 + 1


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 200))
def test_a_window_of_tokens(sizes: list[int], tokens: int) -> None:
    turns = [Turn(str(n), (user("x" * size),)) for n, size in enumerate(sizes)]
    kept = window(turns, tokens)
    assert list(kept) == turns[len(turns) - len(kept) :]
    costs = [estimate(turn.messages) for turn in turns]
    fitting = [total <= tokens for total in itertools.accumulate(reversed(costs))]
    assert len(kept) == sum(fitting)


def test_a_window_of_what_is_before() -> None:
    chat = Conversations().get()
    for cell in "abc":
        chat.record(turn(cell, "x" * 16))
    each = estimate(turn("a", "x" * 16).messages)
    assert len(window(chat.before("new", 20), 2 * each)) == 2
    assert len(window(chat.before("new", 1), 2 * each)) == 1
    assert window(chat.before("new", 20), each - 1) == ()
