"""What the text before the cursor is taken for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.completion.context import CompletionContext, context_of


def seen(before: str) -> tuple[str, str, str] | None:
    place = context_of(before)
    return place and (place.kind, place.option.name if place.option else "", place.text)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("%%llm ", ("flag", "", "")),
        ("%%llm --mo", ("flag", "", "--mo")),
        ("%%llm -", ("flag", "", "-")),
        ("  %%llm --mo", ("flag", "", "--mo")),
        ("# why\n%%llm --mo", ("flag", "", "--mo")),
        ("%%llm_embed --mo", ("flag", "", "--mo")),
        ("%%llm -t 0 --once --mo", ("flag", "", "--mo")),
        ("%%llm --as 'dict[str, int]' --o", ("flag", "", "--o")),
        ("%%llm --model ", ("value", "model", "")),
        ("%%llm --model l", ("value", "model", "l")),
        ("%%llm -m   l", ("value", "model", "l")),
        ("%%llm --model=l", ("value", "model", "l")),
        ("%%llm --model=", ("value", "model", "")),
        ("%%llm --model 'l", ("value", "model", "l")),
        ('%%llm -t 0 --model "vllm:s', ("value", "model", "vllm:s")),
        ("%%llm --as Ci", ("value", "output_type", "Ci")),
        ("%%llm --as list[Ci", ("value", "output_type", "list[Ci")),
        ("%%llm --as dict[str, Ci", ("value", "output_type", "dict[str, Ci")),
        ("%%llm --as 'dict[str, Ci", ("value", "output_type", "dict[str, Ci")),
        ("%%llm --as Literal['a b', Ci", ("value", "output_type", "Literal['a b', Ci")),
        ("%%llm --tools f,g", ("value", "tools", "f,g")),
        ("%%llm -s 'You are", ("value", "system", "You are")),
        ("%llm --mo", ("flag", "", "--mo")),
        ("x = %llm --mo", ("flag", "", "--mo")),
        ("first, second = %llm -m l", ("value", "model", "l")),
        ("y = 1\nx = %llm -m l", ("value", "model", "l")),
        ("%llm Describe {{ d", ("name", "", "d")),
        ("%%llm\n{{ d", ("name", "", "d")),
        ("%%llm\n{{d", ("name", "", "d")),
        ("%%llm\na {{ b }} c {{ df.sh", ("name", "", "df.sh")),
        ("%%llm\n{% if d", ("name", "", "d")),
        ("%%llm\n{% for x in d", ("name", "", "d")),
        ("%%llm\n{{ f(a, b", ("name", "", "b")),
        ("%%llm\n{{ a | tru", ("filter", "", "tru")),
        ("%%llm -t 0\nline\n{{ ", ("name", "", "")),
        ("%llm_models l", ("word", "", "l")),
        ("%llm_chat sh", ("word", "", "sh")),
    ],
)
def test_what_is_typed(before: str, expected: tuple[str, str, str]) -> None:
    assert seen(before) == expected


@pytest.mark.parametrize(
    "before",
    [
        "",
        "%%llm",
        "%llm",
        "%%llmx --mo",
        "%%time --mo",
        "x = 1 --mo",
        "print('%llm --mo",
        "%%llm\nprose d",
        "%%llm\n{{ a }} d",
        "%%llm\n{ d",
        "%%llm\n{{ 'text d",
        "%%llm\n{{ 1.r",
        "%%llm --raw\n{{ d",
        "%%llm --model 'l'",
        "%llm Why d",
        "%%llm stray --mo",
        "%%llm -- --mo x",
    ],
)
def test_what_is_none_of_ours(before: str) -> None:
    assert seen(before) is None


def test_a_template_tells_the_names_that_it_makes() -> None:
    place = context_of("%%llm\n{% for key, item in d %}{% set total = 1 %}{{ it")
    assert place == CompletionContext("name", "it", "llm", names=("key", "item", "total"))


def test_options_that_were_given_are_told() -> None:
    place = context_of("%%llm -t 0 --once --model=x --")
    assert place is not None
    assert place.given == ("-t", "--once", "--model")


@given(st.text(alphabet="%llm -='\"[]{}|.,\n\tabc#") | st.text())
def test_no_text_makes_it_fail_and_what_was_typed_is_its_end(text: str) -> None:
    for before in (text, f"%%llm {text}", f"%llm {text}", f"%%llm\n{text}"):
        place = context_of(before)
        assert place is None or before.endswith(place.text)
