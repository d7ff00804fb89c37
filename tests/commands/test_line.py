"""Reading the line of a command: words, options, and what is wrong with them."""

import pytest

from llm_magic.close_matches import did_you_mean
from llm_magic.commands.line import Line, read
from llm_magic.errors import OptionError
from llm_magic.options import BY_FLAG, Option

OPTIONS = (BY_FLAG["--model"], BY_FLAG["--param"], Option("new", ("--new",), "", "start one"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", Line((), {})),
        ("switch idea --new", Line(("switch", "idea"), {"new": True})),
        ("-m a b", Line(("b",), {"model": "a"})),
        ("--model='a b'", Line((), {"model": "a b"})),
        ("-p a=1 -p b=x", Line((), {"param": {"a": 1, "b": "x"}})),
        ("-- --new", Line(("--new",), {})),
        ("'a b' -", Line(("a b", "-"), {})),
    ],
)
def test_words_and_options(text: str, line: Line) -> None:
    assert read("%llm_x", text, OPTIONS) == line


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("--modle a", "%llm_x has no option --modle.", "Did you mean --model?"),
        ("--zzz", "%llm_x has no option --zzz.", "%llm_x --help lists the options."),
        ("-m", "-m needs a value: -m NAME.", "An alias, provider:model, or a name that a route knows."),
        ("-m --new", "-m needs a value: -m NAME.", "An alias, provider:model, or a name that a route knows."),
        ("-m a -m b", "-m is given twice.", "Keep one of them."),
        ("--new=1", "--new takes no value.", "Write --new alone."),
        ("-p a", "-p takes NAME=VALUE.", "--param NAME=VALUE: any other field of the body, read as JSON; repeatable."),
    ],
)
def test_what_is_wrong(text: str, message: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        read("%llm_x", text, OPTIONS)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_only_unquoted_words_are_expanded() -> None:
    line = read("%llm_x", "a 'a' --model=a", [BY_FLAG["--model"]], str.upper)
    assert line == Line(("A", "a"), {"model": "A"})


def test_did_you_mean() -> None:
    assert did_you_mean("exprot", ["export", "import", "show"]) == "Did you mean export?"
    assert did_you_mean("zzz", ["export"]) == ""
