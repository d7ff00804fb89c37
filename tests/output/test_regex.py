"""A pattern as a grammar, as a plain pattern and within JSON: none of them accepts what Python's `re` does not."""

from __future__ import annotations

import itertools
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import text_of

from llm_magic.errors import UnsupportedError
from llm_magic.output.grammar import Grammar
from llm_magic.output.grammar.regex import read_regex
from llm_magic.output.grammar.regex_to_gbnf import in_json, to_gbnf, to_regex

EXACT = [
    r"[\^\-]+",
    r"[+--]",
    r"[^\^]",
    r"[\]\[\\^-]*x",
    r"\.?",
    r"ab\.?x",
    r"\^{2}",
    r"\\+",
    r"[!-~]{2}",
    r"[^-]",
    r"[a^]",
    r"(\+|-)?1",
    r"[X-^]",
    r"[^-a]",
    r"",
    r"a{0,2}x",
    r"a{2,}",
    r"a??x",
    r"(?:a|x)*",
    r"(?i)AX|\.",
    r"^a$|^x$",
    r"(?P<n>a)x",
    r"a|",
    r"(a|x1|)+",
    r"[^]a]",
    r"(?s).x",
    r".x",
]


@pytest.mark.filterwarnings("ignore:Possible")  # set operations of a later Python
@pytest.mark.parametrize("pattern", EXACT)
def test_short_texts_are_accepted_alike(pattern: str) -> None:
    tree = read_regex(pattern)
    grammar, plain = Grammar(f"root ::= {to_gbnf(tree)}"), re.compile(to_regex(tree))
    for length in range(4):
        for letters in itertools.product("^-][\\.ax+1A\n", repeat=length):
            text = "".join(letters)
            expected = re.fullmatch(pattern, text) is not None
            assert grammar.accepts(text) is expected, text
            assert (plain.fullmatch(text) is not None) is expected, text


NARROWER = [
    r"\d{3}-\w+",
    r"\w+@\w+\.com",
    r"[^\s,]+",
    r"\D\W\S",
    r"[\w.-]{3}",
    r"[^\W\d]+",
    r"(\d+(\.\d{2})?|free)",
    r"é+ü?",
    r"\x41\u00e9\t?",
    r"(?a:\w+)",
    r'"[^"]*"',
    r"\S+@\S+",
    r"(?i:größe)",
]


@pytest.mark.parametrize("pattern", NARROWER)
def test_what_the_grammar_writes_matches(pattern: str) -> None:
    tree = read_regex(pattern)
    grammar, plain = Grammar(f"root ::= {to_gbnf(tree)}"), re.compile(to_regex(tree))
    rng = random.Random(1)  # noqa: S311 - the same sample each time
    for _ in range(200):
        text = text_of(grammar, rng)
        assert re.fullmatch(pattern, text), text
        assert plain.fullmatch(text), text
        assert grammar.accepts(text)


@pytest.mark.parametrize("pattern", [r'^"\w"$', r"^a\\b$", r"\d", r"^.{3}$", r"^[^a]+$", "^\\n$"])
def test_what_stands_in_a_json_string_is_json_and_matches(pattern: str) -> None:
    grammar = Grammar(f"root ::= {to_gbnf(in_json(read_regex(pattern, search=True)))}")
    rng = random.Random(pattern)  # noqa: S311 - the same sample each time
    for _ in range(100):
        assert re.search(pattern, json.loads(f'"{text_of(grammar, rng)}"'))


PIECES = st.recursive(
    st.sampled_from(["a", "b", r"\d", r"[a-c]", r"[^ab]", ".", r"\.", "-"]),
    lambda inner: st.one_of(
        st.builds("({}|{})".format, inner, inner),
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}){}".format, inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}"])),
    ),
    max_leaves=6,
)


@given(PIECES, st.text("ab1.-c", max_size=6))
@settings(max_examples=200, deadline=None)
def test_random_patterns_agree_with_python(pattern: str, text: str) -> None:
    tree = read_regex(pattern)
    expected = re.fullmatch(pattern, text) is not None
    assert Grammar(f"root ::= {to_gbnf(tree)}").accepts(text) is expected
    assert (re.fullmatch(to_regex(tree), text) is not None) is expected


@pytest.mark.parametrize(
    "pattern",
    [r"(?=a)b", r"(?!a)b", r"(?<=a)b", r"(a)\1", r"\bx", r"(?>a)", r"a++", r"(a)?(?(1)b|c)", r"(?m)^a$", "(", "a{9"],
)
def test_what_no_grammar_can_say_is_refused(pattern: str) -> None:
    if pattern == "a{9":  # Python takes it literally
        assert to_regex(read_regex(pattern)) == "a[{]9"
        return
    with pytest.raises(UnsupportedError):
        read_regex(pattern)


def test_a_grammar_that_recurs() -> None:
    grammar = Grammar('root ::= "(" root ")" | left\nleft ::= left "x" | ""')
    assert [grammar.accepts(text) for text in ("", "((xx))", "((x)", "x(")] == [True, True, False, False]
    assert grammar.reach("((y") == 2


def test_a_long_text_is_matched_in_linear_time() -> None:
    grammar = Grammar('root ::= item+\nitem ::= "- " [^\\n]{1,40} "\\n"')
    assert grammar.accepts("- a line of a list\n" * 500)
