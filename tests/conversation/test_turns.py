"""Turns by their cells: what a cell sends, what it replaces, and what it leaves alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.conversation import Begun, Conversation, Conversations, Turn, estimate, window
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


class Cells:
    """A notebook's cells, run by name: each run begins, and ends when it is told to."""

    def __init__(self, file: Path | None = None) -> None:
        self.chats = Conversations(file)
        self.number = 0

    def begin(self, cell: str | None, chat: str = "main", part: int = 0, *, new: bool = True) -> Begun:
        self.number += new
        return self.chats.get(chat).begin(cell, part=part, run=self.number)

    def keep(self, begun: Begun, text: str) -> None:
        chat = self.chats.get(begun.chat)
        chat.record(turn(begun.cell_id, text, begun.part), begun)
        chat.end(begun)

    def fail(self, begun: Begun) -> None:
        self.chats.get(begun.chat).end(begun)

    def run(self, cell: str, text: str, chat: str = "main") -> None:
        self.keep(self.begin(cell, chat), text)
        self.leave(cell, chat)

    def leave(self, cell: str, *stays_in: str, new: bool = False) -> None:
        self.number += new
        self.chats.leave(cell, self.number, frozenset(stays_in))

    def said(self, chat: str = "main") -> list[str]:
        return said(self.chats.get(chat).turns())


@pytest.fixture(params=["memory", "file"])
def cells(request: pytest.FixtureRequest, tmp_path: Path) -> Cells:
    return Cells(tmp_path / "chats.sqlite" if request.param == "file" else None)


@pytest.mark.parametrize("order", [*itertools.permutations("abc")])
@pytest.mark.parametrize("named", [True, False])
def test_turns_stand_as_they_were_begun(cells: Cells, order: tuple[str, ...], named: bool) -> None:
    cells.run("first", "first")
    begun = {name: cells.begin(name if named else None) for name in "abc"}
    for name in order:
        cells.keep(begun[name], name)
    assert cells.said() == ["first", "a", "b", "c"]


def test_one_that_failed_leaves_no_place(cells: Cells) -> None:
    a, b, c = (cells.begin(name) for name in "abc")
    cells.keep(c, "c")
    cells.fail(b)
    cells.keep(a, "a")
    cells.run("b", "b")
    assert cells.said() == ["a", "c", "b"]


def test_what_a_cell_follows_while_others_are_on_their_way(cells: Cells) -> None:
    a, b = cells.begin("a"), cells.begin("b")
    main = cells.chats.get()
    assert main.before("c", 20) == ()
    cells.run("c", "c")
    assert said(main.before("d", 20)) == ["c"]
    assert main.before("b", 20) == ()
    cells.keep(a, "a")
    assert said(main.before("b", 20)) == ["a"]
    cells.keep(b, "b")
    assert said(main.before("c", 20)) == ["a", "b"]
    assert cells.said() == ["a", "b", "c"]


def test_a_cell_run_again_while_it_is_on_its_way(cells: Cells) -> None:
    first = cells.begin("a")
    cells.run("b", "b")
    second = cells.begin("a")
    cells.keep(second, "new")
    cells.keep(first, "old")
    assert cells.said() == ["new", "b"]
    late, failing = cells.begin("a"), cells.begin("a")
    cells.fail(failing)
    cells.keep(late, "late")
    assert cells.said() == ["late", "b"]


def test_parts_on_their_way(cells: Cells) -> None:
    for texts in (("x", "y"), ("X", "Y")):
        parts = [cells.begin("a", part=number, new=not number) for number in range(2)]
        cells.leave("a", "main")
        for part, text in reversed([*zip(parts, texts, strict=True)]):
            cells.keep(part, text)
        assert cells.said() == list(texts)
    cells.run("a", "only")
    assert cells.said() == ["only"]


def test_a_part_does_not_follow_one_of_an_earlier_run(cells: Cells) -> None:
    for number in range(2):
        cells.keep(cells.begin("a", part=number, new=not number), str(number))
    cells.begin("a")
    main = cells.chats.get()
    assert main.before("a", 20, part=1, run=cells.number) == ()
    cells.keep(cells.begin("a", new=False), "new")
    assert said(main.before("a", 20, part=1, run=cells.number)) == ["new"]


def test_a_cell_that_left(cells: Cells) -> None:
    for name in "abc":
        cells.run(name, name)
    cells.run("b", "other b", chat="other")
    assert (cells.said(), cells.said("other")) == (["a", "c"], ["other b"])
    cells.run("b", "back")
    assert (cells.said(), cells.said("other")) == (["a", "c", "back"], [])
    cells.leave("a", new=True)
    cells.leave("nobody", new=True)
    assert cells.said() == ["c", "back"]


def test_a_cell_that_left_before_its_answer_was_there(cells: Cells) -> None:
    late, moved = cells.begin("a"), cells.begin("b")
    cells.leave("a", new=True)
    cells.run("b", "there", chat="other")
    for begun in (late, moved):
        cells.keep(begun, "ghost")
    assert (cells.said(), cells.said("other")) == ([], ["there"])


def test_a_fork_keeps_what_it_has(cells: Cells) -> None:
    for name in "ab":
        cells.run(name, name)
    cells.chats.get().fork("idea")
    cells.run("a", "A")
    cells.run("a", "idea of a", chat="idea")
    cells.run("c", "c", chat="idea")
    assert (cells.said(), cells.said("idea")) == (["A", "b"], ["idea of a", "b", "c"])
    cells.run("c", "c")
    assert (cells.said(), cells.said("idea")) == (["A", "b", "c"], ["idea of a", "b"])
    cells.leave("a", new=True)
    assert (cells.said(), cells.said("idea")) == (["b", "c"], ["b"])


def test_a_fork_keeps_what_it_has_over_a_restart(tmp_path: Path) -> None:
    cells = Cells(tmp_path / "c.db")
    for name in "ab":
        cells.run(name, name)
    cells.chats.get().fork("idea")
    cells = Cells(tmp_path / "c.db")
    cells.run("a", "A")
    cells.run("b", "other", chat="other")
    assert [cells.said(chat) for chat in ("main", "idea", "other")] == [["A"], ["a"], ["other"]]


def test_one_cell_in_two_conversations(cells: Cells) -> None:
    for _ in range(2):
        for number, chat in enumerate(("one", "two")):
            cells.keep(cells.begin("a", chat, number, new=not number), chat)
        cells.leave("a", "one", "two")
        assert (cells.said("one"), cells.said("two")) == (["one"], ["two"])
    cells.run("a", "only", chat="one")
    assert (cells.said("one"), cells.said("two")) == (["only"], [])


def test_two_kernels_begin_at_the_same_place(tmp_path: Path) -> None:
    one, two = Cells(tmp_path / "c.db"), Cells(tmp_path / "c.db")
    one.run("first", "first")
    begun = [one.begin("a"), one.begin("b"), one.begin(None)]
    two.run("x", "x")
    two.run(None, "y")  # type: ignore[arg-type] # as a front end without names
    for each, text in zip(reversed(begun), "NBA", strict=True):
        one.keep(each, text)
    assert one.said() == two.said()
    assert sorted(one.said()) == ["A", "B", "N", "first", "x", "y"]
    assert [text for text in one.said() if text in "ABN"] == ["A", "B", "N"]
    assert [text for text in one.said() if text in "xy"] == ["x", "y"]
    two.run("x", "X")
    one.run("a", "A2")
    assert sorted(one.said()) == ["A2", "B", "N", "X", "first", "y"]


def test_a_reset_forgets_what_is_on_its_way(cells: Cells) -> None:
    cells.run("a", "a")
    late = cells.begin("b")
    assert cells.chats.get().reset() == 1
    cells.keep(late, "late")
    assert cells.said() == []
    cells.run("b", "b")
    assert cells.said() == ["b"]


def test_turns_are_dropped_by_number(cells: Cells) -> None:
    for name in "abcd":
        cells.run(name, name)
    cells.run("c", "other", chat="other")
    main = cells.chats.get()
    main.drop({2, 3, 99})
    assert (cells.said(), cells.said("other")) == (["a"], ["other"])
    cells.run("b", "again")
    cells.run("a", "A")
    assert cells.said() == ["A", "again"]
    main.drop([])
    main.drop([2, 1])
    assert cells.said() == []
    assert cells.chats.are_empty() is False
    cells.chats.get("other").reset()
    assert cells.chats.are_empty() is True
