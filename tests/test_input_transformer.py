import pytest

from llm_magic.input_transformer import rewrite

CALL = "get_ipython().run_line_magic('llm', {!r})"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%llm Why is the sky blue?\n", CALL.format("Why is the sky blue?") + "\n"),
        ("  %llm -t 0 Why?", "  " + CALL.format("-t 0 Why?")),
        ("x = %llm What's up?\r\n", "x = " + CALL.format("What's up?") + "\r\n"),
        ("a, b = %llm 'Q'?", "a, b = " + CALL.format("'Q'?")),
        ("%llm?", "%llm?"),
        ("%llm No question", "%llm No question"),
        ("print('%llm x?')", "print('%llm x?')"),
    ],
)
def test_one_line(line: str, expected: str) -> None:
    assert rewrite([line]) == [expected]


def test_text_of_a_string_is_left_alone() -> None:
    lines = ['s = """\n', "%llm Why?\n", '"""\n', "%llm Why?\n"]
    assert rewrite(lines) == [*lines[:3], CALL.format("Why?") + "\n"]


def test_the_body_of_a_cell_magic_is_left_alone() -> None:
    lines = ["%%llm\n", "%llm Why?\n"]
    assert rewrite(lines) == lines


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["%%llm"], ["%%llm\n", "\n"]),
        (["%%llm --help\n"], ["%%llm --help\n", "\n"]),
        (["\n", "# why\n", "  %%llm -t 0\r\n", "Hi\r\n"], ["%%llm -t 0\n", "Hi\r\n"]),
        (["%%llm\n", "  # a heading\n"], ["%%llm\n", "  # a heading\n"]),
        (["%%llmx\n"], ["%%llmx\n"]),
        (["# only a comment\n"], ["# only a comment\n"]),
        (["x = 1\n", "%%llm\n"], ["x = 1\n", "%%llm\n"]),
    ],
)
def test_a_cell_magic_comes_first_and_has_a_body(lines: list[str], expected: list[str]) -> None:
    assert rewrite(lines) == expected
