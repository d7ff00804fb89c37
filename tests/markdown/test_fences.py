"""Fenced code is what CommonMark takes for it, in lists and quotes, too; a fence holds any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llm_magic.markdown.fences import Snippet, closes, code_blocks, fenced, opening_run, snippet

UNFINISHED = "The answer ends within its code, so it is not put into a cell; copy it from above."
CODES = st.sampled_from(["x = 1\n", "def f():\n    return 1\n\nf()\n", "ls\n\n- x\n", "> quoted\n1. a\n", "``\n", ""])
FENCES = st.sampled_from(["```", "````", "~~~", "~~~~~"])
INFOS = st.sampled_from(["", "python", "js title"])


def inside(text: str, first: str, rest: str) -> str:
    lines = text.splitlines()
    return "".join(f"{(rest if number else first) + line}".rstrip(" ") + "\n" for number, line in enumerate(lines))


BLOCKS = st.builds(
    lambda code, fence, info, around: around[0] + inside(f"{fence}{info}\n{code}{fence}\n", *around[1:]) + "\n",
    CODES,
    FENCES,
    INFOS,
    st.sampled_from([
        ("", "", ""), ("", "> ", "> "), ("- item\n\n", "  ", "  "), ("", "- ", "  "), ("1. item\n", "   ", "   "),
        ("", "10) ", "    "), ("- a\n  - b\n\n", "    ", "    "),
    ]),
)  # fmt: skip


@given(st.lists(BLOCKS | st.just("Text with `code`.\n\n"), max_size=4).map("".join))
def test_it_is_what_commonmark_takes_for_it(text: str) -> None:
    expected = [(token.info.strip(), token.content) for token in MarkdownIt().parse(text) if token.type == "fence"]
    assert [(block.info, block.code) for block in code_blocks(text)] == expected
    for block in code_blocks(text):
        assert block.closed
        assert text[block.start : block.end].count(block.info or "`") or "~" in text[block.start : block.end]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("```py\nopen", [("open", False)]),
        ("```", [("", False)]),
        ("``` `\nx\n", []),
        ("````\n```\n````\n", [("```\n", True)]),
        ("~~~\n```\n~~~\n", [("```\n", True)]),
        ("```\nx\n    ```\n", [("x\n    ```\n", False)]),
    ],
)
def test_where_it_ends(text: str, codes: list[tuple[str, bool]]) -> None:
    assert [(block.code, block.closed) for block in code_blocks(text)] == codes


def test_lines() -> None:
    assert [opening_run(line) for line in ("```py", "~~~~ `", "``` `", "``", "text")] == ["```", "~~~~", "", "", ""]
    assert [closes(line, "````") for line in ("````", "`````", "```", "~~~~", "````x")] == [True, True, *[False] * 3]


@given(st.text(alphabet="a`~\n "))
def test_a_fence_holds_any_text(text: str) -> None:
    (block,) = code_blocks(fenced(text, "x"))
    assert (block.info, block.code) == ("x", text.removesuffix("\n") + "\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```\nx = 1\n```", Snippet("x = 1")),
        ("Text\n\n~~~python\n%matplotlib inline\nx = !ls\n~~~\n", Snippet("%matplotlib inline\nx = !ls")),
        ("- a list\n\n  ```python\n  x = 1\n  ```\n", Snippet("x = 1")),
        ("```python\nx\n```\n```bash\nls\n```", Snippet("x", ("Left out: code in bash.",))),
        ("```python\nx =\n```", Snippet("x =", ("The code is not valid Python: line 1: invalid syntax.",))),
        ("```pycon\n>>> x = 1\n>>> for i in x:\n...     pass\n1\n```", Snippet("x = 1\nfor i in x:\n    pass")),
        ("````markdown\n```python\nx\n```\n````", Snippet("%%markdown\n```python\nx\n```")),
        ("```html\n<b>\n```\n```html\n<i>\n```", Snippet("%%html\n<b>", ("Only the first of 2 blocks is taken.",))),
        (
            "```rust\nfn main() {}\n```",
            Snippet("", ("The answer's code is rust, which a cell cannot run; copy it from above.",)),
        ),
        ("x = 1\nprint(x)\n", Snippet("x = 1\nprint(x)")),
        ("I cannot do that.", Snippet("", ("The answer has no code.",))),
        ("", Snippet("", ("The answer has no code.",))),
        ("```python\nx = 1", Snippet("", (UNFINISHED,))),
        ("```python\nx = 1\n```\nand\n```python\ny", Snippet("", (UNFINISHED,))),
        ("```bash\nls", Snippet("", (UNFINISHED,))),
        ("```python\nx = 1\n```\n```", Snippet("x = 1")),
    ],
)
def test_snippet(text: str, expected: Snippet) -> None:
    assert snippet(text) == expected


@pytest.mark.parametrize("text", ["```python\nx = 1\n```\nand", "x = 1", "```python\nx =", "I am", ""])
def test_no_code_is_taken_from_an_answer_that_was_cut(text: str) -> None:
    note = "The answer was cut, so no code of it is put into a cell; copy it from above."
    assert snippet(text, cut=True) == Snippet("", (note,))
