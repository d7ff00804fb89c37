"""A variable in single braces is sent as it is, with a note; JSON, LaTeX, code and sets get none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kernels import Kernel
from servers import ScriptedServer, chunk, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.messages import Text
from llm_magic.prompt import render
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

NAMES: dict[str, Any] = {
    **dict.fromkeys(("df", "x", "y", "a", "b", "n", "i", "name", "items", "In", "Out", "exit", "_"), 1),
    "json": json,
}


def notes(template: str, **more: Any) -> tuple[str, ...]:
    rendered = render(template, {**NAMES, **more}, settings=Settings())
    return rendered.notes


@pytest.mark.parametrize(
    ("template", "written", "meant"),
    [
        ("Describe {df}.", "{df}", "{{ df }}"),
        ("{df}", "{df}", "{{ df }}"),
        ("Shape {df.shape} it", "{df.shape}", "{{ df.shape }}"),
        ("First {x[0]}", "{x[0]}", "{{ x[0] }}"),
        ("Last {x[-1].name}", "{x[-1].name}", "{{ x[-1].name }}"),
        ("Key {x['a b']}", "{x['a b']}", "{{ x['a b'] }}"),
        ("Name {x[name]}", "{x[name]}", "{{ x[name] }}"),
        ("Sum {x:.2f}", "{x:.2f}", "{{ x }}"),
        ("Sum {x:,}", "{x:,}", "{{ x }}"),
        ("Sum {x:05d}", "{x:05d}", "{{ x }}"),
        ("Day {x:%Y-%m-%d %H:%M}", "{x:%Y-%m-%d %H:%M}", "{{ x }}"),
        ("Repr {x!r}", "{x!r}", "{{ x }}"),
        ("Debug {x=}", "{x=}", "{{ x }}"),
        ("Cell {In[3]}", "{In[3]}", "{{ In[3] }}"),
        ("Fix {Err[8]}", "{Err[8]}", "{{ error }}"),
        ('Say "{name}" ({y})', "{name}", "{{ name }}"),
        ("{{ 1 }} and {df}", "{df}", "{{ df }}"),
    ],
)
def test_a_variable_is_noted(template: str, written: str, meant: str) -> None:
    assert notes(template)[0] == f"{written} is sent as it is: did you mean {meant}?"
    text = render(template, NAMES, settings=Settings()).parts[0]
    assert isinstance(text, Text)
    assert written in text.text


@pytest.mark.parametrize(
    "template",
    [
        "No {such} variable",
        '{"a": 1, "b": {"n": 2}}',
        "{a: 1}",
        "{a:b}",
        "{a, b}",
        "{ a }",
        "{}",
        "{0}",
        r"\frac{a}{b} and x^{n}, x_{i}, \sqrt[3]{x}, \text{name}, \{a\}",
        "$ {a} + {b} $ and $$ {n} $$",
        r"\( {a} \) \[ {b} \] \begin{align} {n} \end{align}",
        "${name} and $x and #{name}"[:19],
        "```python\nprint({x})\n```",
        "~~~\n{x}",
        "use `{x}` or ``{y}``",
        'print(f"{x} of {y}")',
        "{{ {'k': a}|list }} {% set q = {a: a} %}",
        "{% raw %}{x}{% endraw %}",
        "{{{ x }}}",
        "{exit} {In} {Out} {_} {json}",
        "f{x}",
    ],
)
def test_anything_else_is_not(template: str) -> None:
    assert notes(template) == ()


def test_many_are_told_in_a_few_lines() -> None:
    assert notes("{df} {x} {y} {name} {items} {df}") == (
        "{df} is sent as it is: did you mean {{ df }}?",
        "{x} is sent as it is: did you mean {{ x }}?",
        "{y} is sent as it is: did you mean {{ y }}?",
        "2 more variables stand in single braces and are sent as they are.",
    )


def test_a_raw_prompt_and_the_values_get_no_note() -> None:
    assert render("{x}", NAMES, settings=Settings(), raw=True).notes == ()
    assert notes("{{ said }}", said="{x} and {y}") == ()


@pytest.mark.parametrize(
    "text", ["{x" * 50_000, "`{x} " * 50_000, "\\({x} " * 50_000, "$$ " * 50_001, "f'{x} " * 50_000]
)
def test_a_long_text_is_read_at_once(text: str) -> None:
    assert len(notes(text)) <= 4


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def test_ask_reads_no_template(session: Session) -> None:
    with ScriptedServer(stream(chunk("Hello", finish="stop"))) as server:
        session.registry.add("s", "compatible", base_url=server.url)
        response = LLM("s:m").ask("{df} and {{ df }} and {% if %}")
        assert response.notes == ()
        assert server.requests[0].json["messages"][-1]["content"] == "{df} and {{ df }} and {% if %}"


def test_cells_and_lines_tell_it(kernel: Kernel) -> None:
    said = "{df} is sent as it is: did you mean {{ df }}?"
    with ScriptedServer(stream(chunk("Hello", finish="stop"))) as server:
        kernel.run(f"%llm_provider add braces --base-url {server.url}\ndf = [1]").check()
        for code in ("%%llm -m braces:m --once\nDescribe {df}", "%llm -m braces:m --once Describe {df}"):
            assert said in str(kernel.run(code).check().outputs)
            assert server.requests[-1].json["messages"][-1]["content"] == "Describe {df}"
        assert kernel.value("_llm.notes") == (said,)
        assert said not in str(kernel.run("%%llm -m braces:m --once --raw\nDescribe {df}").check().outputs)
        ran = kernel.run("%%llm -m braces:m --once\nExplain {{ Out[99999] }}")
        assert ran.error_name == "PromptError"
        assert "Out has no entry 99999." in str(ran.outputs)
