"""Which cells are meant."""

from __future__ import annotations

import pytest

from llm_magic.context.executed_cells import ExecutedCell
from llm_magic.context.selection import select
from llm_magic.errors import OptionError

CELLS = [
    ExecutedCell((str(number), ""), number, source)
    for number, source in enumerate(["df = 1", "def f(): pass", "df['a'] = 2", "print(df)"])
]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [(1, [3]), (2, [2, 3]), (99, [0, 1, 2, 3]), ("all", [0, 1, 2, 3]), (("df",), [0, 2]), (("f", "df"), [0, 1, 2])],
)
def test_selected(wanted: object, numbers: list[int]) -> None:
    assert [cell.number for cell in select(CELLS, wanted)] == numbers  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cells", "name", "hint"),
    [
        (CELLS, "dff", "Did you mean df?"),
        (CELLS, "answer", "It is a variable: {{ answer }} in the prompt sends its value."),
        (CELLS, "qqqqqqq", "They define df, f."),
        ([], "qqqqqqq", "No executed cell defines a name."),
    ],
)
def test_an_unknown_name(cells: list[ExecutedCell], name: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        select(cells, ("df", name) if cells else (name,), {"answer"})
    assert caught.value.message == f"--context {name}: no executed cell defines {name}."
    assert caught.value.hint == hint
