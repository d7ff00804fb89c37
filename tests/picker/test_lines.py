"""Which models a list shows, and how."""

import re

from llm_magic.picker import lines
from llm_magic.providers.model_info import ModelCard


def test_a_search_holds_all_words_in_any_order() -> None:
    cards = [ModelCard(name) for name in ("org/Llama-3-70b", "org/Llama-3-8b", "org/Qwen3-8B")]
    assert [card.id for card in lines.matching(cards, "8b llama")] == ["org/Llama-3-8b"]
    assert [card.id for card in lines.matching(cards, "8B")] == ["org/Llama-3-8b", "org/Qwen3-8B"]
    assert [card.id for card in lines.matching(cards, " ")] == ["org/Llama-3-70b", "org/Llama-3-8b", "org/Qwen3-8B"]


def test_what_the_server_tells_is_told() -> None:
    assert lines.facts(ModelCard("a")) == []
    assert lines.facts(ModelCard("a", 8192)) == ["8,192 tokens"]
    assert lines.facts(ModelCard("a", 200_000, "2999-12-31")) == ["200k tokens", "retires 2999-12-31"]
    assert lines.facts(ModelCard("a", retires="2001-01-01")) == ["retired 2001-01-01"]
    assert lines.facts(ModelCard("adapter", parent="base")) == ["on base"]


def test_numbers_are_aligned_and_go_on() -> None:
    written = lines.numbered(["a:x", "a:y"], [ModelCard("x"), ModelCard("y", 10)], ["a:y"], start=9)
    assert written == ["    9  a:x", "*  10  a:y  (10 tokens)"]


def test_each_in_force_has_a_star_and_stands_in_the_title() -> None:
    written = lines.numbered(["a:x", "a:y", "a:z"], [ModelCard("x"), ModelCard("y"), ModelCard("z")], ("a:x", "a:z"))
    assert [line[0] for line in written] == ["*", " ", "*"]
    titled = lines.title([("a:x", "a:x"), ("calm", "a:z")], "session")
    assert re.sub("<[^>]*>", "", titled) == "Modelsa:x, calm → a:z (session)"
    assert re.sub("<[^>]*>", "", lines.title([("", "")], "default")) == "Modelno model"


def test_whatever_comes_from_elsewhere_is_escaped() -> None:
    bad = "<img src=x onerror=alert(1)>"
    good = "&lt;img src=x onerror=alert(1)&gt;"
    for html in (
        lines.quiet(bad),
        lines.problem(bad),
        lines.answer(bad),
        lines.code(bad),
        lines.title([(bad, bad + "2"), (bad, "")], bad),
        lines.tried(bad, "", ""),
    ):
        assert bad not in html
        assert good in html


def test_colours_are_those_of_the_theme() -> None:
    """Each colour is a theme variable; what stands behind its comma is for places that set none."""
    style = re.sub(r"var\(--jp-[\w-]+, [^()]+\)", "", lines.style())
    assert re.findall(r"#[0-9a-f]{3,8}\b|rgba?\(|\b(?:white(?!-)|black|orange|gray)\b", style) == []
