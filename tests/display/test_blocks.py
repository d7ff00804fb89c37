"""Blocks are those of the whole text, whatever the pieces it came in."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llm_magic.display.blocks import Splitter


def split(text: str) -> tuple[list[str], str]:
    """Return the finished blocks of a text, and its tail."""
    splitter = Splitter()
    return splitter.feed(text), splitter.tail


WHOLE = {
    "fence": "```python\nx = 1\n\n# not a title\n\n- not a list\n```\n",
    "tilde fence": "~~~\n```\n\n```\n~~~\n",
    "longer fence": "````markdown\n```\n\n```\n````\n",
    "loose list": "- a\n\n- b\n\n  of b\n\n      code of b\n\n- c\n\n",
    "ordered list with code": "1. one\n\n   ```sh\n   ls\n\n   # x\n   ```\n\n2. two\n\n",
    "nested list": "* a\n\n    * b\n\n    * c\n\n* d\n\n",
    "list after text": "These:\n- a\n\n- b\n\n",
    "table": "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\n",
    "quote": "> one\n>\n> ```\n> x\n> ```\n>\n> two\n\n",
    "dollars": "$$\na\n\nb\n$$\n\n",
    "dollars after text": "So $$\na\n\n- b\n$$ holds.\n\n",
    "brackets": "\\[\n\\frac{a}{b}\n\n= c\n\\]\n\n",
    "brackets in one line": "Then \\[ a = b \\] holds.\n\n",
    "environment": "\\begin{align*}\na &= b\n\nc &= d\n\\end{align*}\n\n",
    "details": "<details>\n<summary>More</summary>\n\n# Inside\n\n<details>\n\nDeep\n\n</details>\n\n</details>\n\n",
    "details with code": "<details>\n\n```html\n</details>\n```\n\nafter\n\n</details>\n\n",
    "comment": "<!-- one\n\ntwo -->\n\n",
    "pre": "<pre>\na\n\nb\n</pre>\n\n",
    "footnote": "[^1]: one\n\n    two\n\n",
    "definition": "[a]: https://example.org\n  'a title'\n\n",
    "indented code": "    a\n\n    b\n\n",
    "setext title": "Title\n=====\n\n",
}


@pytest.mark.parametrize("block", WHOLE.values(), ids=WHOLE.keys())
def test_what_belongs_together_stays_together(block: str) -> None:
    blocks, tail = split(f"Before.\n\n{block}After.\n\nEnd")
    assert "".join([*blocks, tail]) == f"Before.\n\n{block}After.\n\nEnd"
    assert blocks == ["Before.\n\n", block, "After.\n\n"]
    assert tail == "End"


def test_titles_and_code_end_without_a_blank_line() -> None:
    assert split("# One\nText\n```\nx\n```\nMore\n") == (["# One\n", "Text\n", "```\nx\n```\n"], "More\n")


def test_code_at_the_margin_ends_a_list() -> None:
    assert split("1. a\n```\nx\n```\n2. b\n\nEnd\n\n") == (["1. a\n", "```\nx\n```\n", "2. b\n\n"], "End\n\n") or (
        split("1. a\n```\nx\n```\n2. b\n\nEnd\n\n") == (["1. a\n", "```\nx\n```\n", "2. b\n\n", "End\n\n"], "")
    )


@pytest.mark.parametrize(
    "line",
    ["It costs $$ a lot", "price: 5$", "`$$`", "a < b", "<b>bold</b>", "<br>", "\\\\[2pt]", "x[0] \\] y", "1.5 is it"],
)
def test_what_only_looks_like_an_opening_holds_nothing_up(line: str) -> None:
    assert split(f"{line}\n\nNext\n\n") == ([f"{line}\n\n", "Next\n\n"], "")


def test_maths_that_never_ends_is_given_up() -> None:
    text = "$$ open\n\n" + "line\n\n" * 400
    blocks, _ = split(text)
    assert len(blocks) > 100


PIECES = st.sampled_from(
    [
        *WHOLE.values(),
        "Text\n",
        "\n",
        "- a\n",
        "  b\n",
        "    c\n",
        "1. x\n",
        "```\n",
        "~~~\n",
        "$$\n",
        "\\[\n",
        "\\]\n",
        "> q\n",
        "<div>\n",
        "</div>\n",
        "# T\n",
        "---\n",
        "|a|\n",
        "\t",
        " ",
        "x",
        "`",
        "$",
        "\r\n",
        "<!--",
        "-->",
        "[^1]: n\n",
        "é漢🙂",
    ]
)
TEXTS = st.lists(PIECES, max_size=25).map("".join)


@given(TEXTS, st.data())
@settings(max_examples=400, deadline=None)
def test_blocks_do_not_depend_on_the_pieces(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    splitter = Splitter()
    blocks: list[str] = []
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        blocks += splitter.feed(text[begin:end])
        assert "".join([*blocks, splitter.tail]) == text[:end]
        assert splitter.length == len(splitter.tail)
    assert (blocks, splitter.tail) == split(text)


MARKDOWN = st.lists(
    st.sampled_from(
        [
            "Text *a*\n",
            "\n",
            "\n",
            "- a\n",
            "- b\n",
            "  in\n",
            "    deep\n",
            "1. x\n",
            "   y\n",
            "```\n",
            "   ```\n",
            "> q\n",
            "# T\n",
            "===\n",
            "---\n",
            "|a|b|\n|-|-|\n|1|2|\n",
            "~~~\n",
            "* * *\n",
            "+ c\n",
            "10) z\n",
            "     code\n",
            "> - l\n",
        ]
    ),
    max_size=30,
).map("".join)


@given(MARKDOWN)
@example("|a|b|\n|-|-|\n|1|2|\n     code\n\n     code\n")
@example("Text *a*\n# T\n     code\n\n     code\n")
@example("Text *a*\n===\n     code\n\n     code\n")
@settings(max_examples=1500, deadline=None)
def test_the_blocks_read_one_by_one_are_the_text_read_as_a_whole(text: str) -> None:
    reader = MarkdownIt("commonmark").enable("table")
    blocks, tail = split(text)
    assert "".join(reader.render(block) for block in [*blocks, tail]) == reader.render(text)


def test_the_work_is_on_the_new_text_alone() -> None:
    splitter = Splitter()
    splitter.feed("```\n")
    begun = time.perf_counter()
    for _ in range(200_000):
        splitter.feed("word ")
        splitter.feed("x\n")
    assert time.perf_counter() - begun < 6  # quadratic work would take minutes
    assert splitter.length == 4 + 200_000 * 7
