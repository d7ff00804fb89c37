"""Names, what a template can say, and how each mistake is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from llm_magic.config.settings import Settings
from llm_magic.errors import PromptError
from llm_magic.messages import Text
from llm_magic.prompt import render

LITERALLY = "Braces that are meant literally: --raw, or {% raw %}…{% endraw %} around them."
NO_SUCH = "but the notebook has no such variable."


def rendered(template: str, namespace: Mapping[str, Any] | None = None) -> str:
    (part,) = render(template, {} if namespace is None else namespace, settings=Settings()).parts
    assert isinstance(part, Text)
    return part.text


def refused(template: str, namespace: Mapping[str, Any] | None = None) -> tuple[str, str]:
    with pytest.raises(PromptError) as caught:
        render(template, {} if namespace is None else namespace, settings=Settings())
    return caught.value.message, caught.value.hint


@pytest.fixture(autouse=True)
def _no_last_error() -> Iterator[None]:
    """Hide what pytest itself leaves in `sys` when a test fails."""
    sys.last_value = None
    rendered("")
    yield
    sys.last_value = None


class Watched(Mapping[str, Any]):
    """A namespace that tells which names were read, and cannot be copied."""

    def __init__(self, **values: Any) -> None:
        self.values_of = values
        self.read: list[str] = []

    def __getitem__(self, name: str) -> Any:
        self.read.append(name)
        return self.values_of[name]

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the namespace was listed")

    def __len__(self) -> int:
        raise AssertionError("the namespace was counted")


def test_only_the_names_of_the_template_are_read() -> None:
    namespace = Watched(a=1, b=2, c=3)
    assert rendered("{{ a }}{% for i in range(2) %}{{ b + i }}{% endfor %}", namespace) == "123"
    assert sorted(set(namespace.read)) == ["a", "b", "range"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ len(xs) }} {{ sum(xs) }} {{ max(xs) }} {{ sorted(xs, reverse=True) }}", "2 3 2 [2, 1]"),
        ("{{ xs | join(', ') }}", "1, 2"),
        ("{% for x in xs if x > 1 %}{{ loop.index }}:{{ x }}{% endfor %}", "1:2"),
        ("{{ d.key }} {{ d['key'] }} {{ d.get('no') }}", "1 1 None"),
        ("{{ s[:3] }}", "<&'"),
        ("{{ s | tojson }}", '"<&\'é>"'),
        ("{{ nothing | default('q') }}{% if nothing is defined %}a{% endif %}", "q"),
        ("[{{ 'x' if not xs }}]", "[]"),
        ("{% set n = namespace(t=0) %}{% for x in xs %}{% set n.t = n.t + x %}{% endfor %}{{ n.t }}", "3"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(s) }}", "<<&'é>>"),
        ("{{ f(2) }} {{ f(x=3) }}", "4 6"),
    ],
)
def test_expressions(template: str, expected: str) -> None:
    namespace = {"xs": [1, 2], "d": {"key": 1}, "s": "<&'é>", "f": lambda x: x * 2}
    assert rendered(template, namespace) == expected


def test_a_variable_of_the_notebook_hides_a_builtin() -> None:
    assert rendered("{{ id }} {{ range }} {{ namespace }}", {"id": 1, "range": 2, "namespace": 3}) == "1 2 3"


def test_an_unknown_name() -> None:
    message, hint = refused("Hi\n  {{ dff.head() }}", {"df": 1, "xy": 2, "_dff": 3})
    assert message == f"The prompt names 'dff' on line 2, column 3 of the prompt, {NO_SUCH}"
    assert hint == "Did you mean df?"


def test_an_unknown_name_in_other_letter_case() -> None:
    assert refused("{{ CIT }}", {"cit": 1})[1] == "Did you mean cit?"


def test_an_unknown_name_that_a_builtin_has() -> None:
    message, hint = refused("{{ len(x) }} {{ id }}", {"x": [1]})
    assert message == f"The prompt names 'id' on line 1, column 17 of the prompt, {NO_SUCH}"
    assert hint == "It is Python's own: {{ id(…) }} calls it."


@pytest.mark.parametrize(
    "template", ["{% if nono %}{% endif %}", "{% for x in nono %}{% endfor %}", "{{ f(nono) }}", "{{ nono or 1 }}"]
)
def test_an_unknown_name_anywhere(template: str) -> None:
    message, _ = refused(template, {"f": lambda _: 1})
    assert message == f"The prompt names 'nono' on line 1, column 1 of the prompt, {NO_SUCH}"


def test_an_unknown_attribute_or_item() -> None:
    assert refused("a {{ s.uper() }}", {"s": "x"}) == (
        "{{ s.uper() }} on line 1, column 3 of the prompt: this str has no attribute or item 'uper'.",
        "Did you mean upper or isupper?",
    )
    assert refused("{{ d['nme'] }}", {"d": {"name": 1}}) == (
        "{{ d['nme'] }} on line 1, column 1 of the prompt: this dict has no attribute or item 'nme'.",
        "Did you mean name?",
    )
    assert refused("{{ d[3] }}", {"d": {}})[0] == (
        "{{ d[3] }} on line 1, column 1 of the prompt: this dict has no item 3."
    )


@pytest.mark.parametrize(
    ("template", "namespace", "message", "hint"),
    [
        ("{{ Out[3] }}", {"Out": {}}, "Out has no entry 3.", "Out is empty: no cell has shown a value yet."),
        ("{{ Out[3] }}", {"Out": {7: "x"}}, "Out has no entry 3.", "There is Out[7]."),
        ("{{ Out[3] }}", {"Out": {7: 1, 2: 2}}, "Out has no entry 3.", "There are Out[2] and Out[7]."),
        ("{{ In[99] }}", {"In": ["", "a", "b"]}, "In has no entry 99.", "There are In[1] and In[2]."),
        (
            "{{ In[99] }}",
            {"In": ["x"] * 9},
            "In has no entry 99.",
            "There are 8, the last ones In[5], In[6], In[7] and In[8].",
        ),
    ],
)
def test_an_entry_of_the_history_that_is_not_there(
    template: str, namespace: dict[str, Any], message: str, hint: str
) -> None:
    assert refused(template, namespace) == (f"{template} on line 1, column 1 of the prompt: {message}", hint)


def test_errors_have_no_numbers() -> None:
    message, hint = refused("{{ Err[8] }}", {})
    assert message == f"The prompt names 'Err' on line 1, column 1 of the prompt, {NO_SUCH}"
    assert hint == "Errors have no numbers here: {{ error }} is the last one, with its traceback."


class Failing:
    @property
    def value(self) -> int:
        raise ValueError("no\n  way")

    @property
    def lost(self) -> int:
        raise AttributeError("inner")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{{ 1 }}\n{{ 2 }} {{ x.value }}",
            "{{ x.value }} failed on line 2, column 9 of the prompt: ValueError: no way",
        ),
        ("{{ x.lost }}", "{{ x.lost }} failed on line 1, column 1 of the prompt: AttributeError: inner"),
        ("{{ x }}", "{{ x }} failed on line 1, column 1 of the prompt: RuntimeError: no repr"),
        ("{{ 1\n / 0 }}", "{{ 1 / 0 }} failed on line 1, column 1 of the prompt: ZeroDivisionError: division by zero"),
        (
            "a\n{% if 1/0 %}{% endif %}",
            "{% if 1/0 %} failed on line 2, column 1 of the prompt: ZeroDivisionError: division by zero",
        ),
        (
            "{% set y %}\n{{ x.value }}{% endset %}",
            "{{ x.value }} failed on line 2, column 1 of the prompt: ValueError: no way",
        ),
        (
            "{% macro m() %}{{ x.value }}{% endmacro %}\n{{ m() }}",
            "{{ x.value }} failed on line 1, column 16 of the prompt: ValueError: no way",
        ),
    ],
)
def test_what_raises_while_rendering(template: str, said: str) -> None:
    message, hint = refused(template, {"x": Failing()})
    assert message == said
    assert hint == "Try the expression in a cell of its own; %tb shows where it failed."


@pytest.mark.parametrize(
    ("template", "place", "said"),
    [
        ("A\n {{ x + }}", "line 2, column 9", "unexpected 'end of print statement'"),
        ("A\r\n {{ x & y }}", "line 2, column 7", "unexpected char '&'"),
        ("A {{ x", "line 1, column 3", "'{{' is not closed"),
        ("A\n{% for i in x %}\nB", "line 2, column 1", "'{% for %}' has no '{% endfor %}'"),
        ("A {% endif %}", "line 1, column 6", "'{% endif %}' is out of place"),
        ("{{ f(1 }}", "line 1, column 8", "unexpected '}', expected ')'"),
        ("{% if x %}{% endfor %}", "line 1, column 14", "'{% endfor %}' comes before the end of '{% if %}'"),
        ("a {% include 'b' %}", "line 1, column 6", "a prompt has no other templates to include, import or extend"),
        ("{% raw %} {{ x }}", "line 1, column 10", "Missing end of raw directive"),
    ],
)
def test_templates_that_do_not_parse(template: str, place: str, said: str) -> None:
    message, hint = refused(template, {"x": 1})
    assert message == f"The prompt's template does not parse, {place} of the prompt: {said}."
    assert hint == LITERALLY


def test_an_unknown_tag() -> None:
    message, hint = refused("A\n\n {% fro i in x %}{% endfor %}", {"x": 1})
    assert message == "The prompt's template does not parse, line 3, column 5 of the prompt: '{% fro %}' is no tag."
    assert hint == "Did you mean for?"


def test_an_unknown_filter() -> None:
    message, hint = refused("{{ x\n | uper }}", {"x": 1})
    assert message == "The prompt's template does not parse, line 2, column 4 of the prompt: there is no filter 'uper'."
    assert hint == "Did you mean upper?"


def test_interrupts_pass() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render("{{ f() }}", {"f": interrupted}, settings=Settings())


def fail() -> None:
    raise ValueError("the first")


def test_error_is_the_last_exception_that_is_not_ours() -> None:
    assert refused("{{ error }}")[1] == "It stands for the last exception, and no cell has failed yet."
    with pytest.raises(ValueError, match="first") as caught:
        fail()
    sys.last_value = caught.value
    text = rendered("{{ error }}")
    assert text.startswith("Traceback (most recent call last):\n")
    assert '    raise ValueError("the first")\nValueError: the first' in text
    with pytest.raises(PromptError) as ours:
        rendered("{{ eror }}")
    sys.last_value = ours.value  # as IPython does when the cell fails
    assert rendered("{{ error }}") == text
    assert rendered("{{ error }}", {"error": "mine"}) == "mine"
