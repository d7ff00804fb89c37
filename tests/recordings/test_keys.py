"""What a recording is found by: what was asked, and nothing of how, where, by whom and by which version it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered import NumberedServer, lines

import llm_magic
from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import RecordingError
from llm_magic.options import Options
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.recordings.recording import KeyTemplate, key_of
from llm_magic.session import Session
from llm_magic.session.neutral_request import NeutralRequest
from llm_magic.session.plan import Cell

DEAD = "http://127.0.0.1:9/v1"


@contextmanager
def session(folder: Path, mode: str, cls: str = "compatible", url: str = DEAD, **traits: Any) -> Iterator[Session]:
    """Make a session that records into this folder, with a provider `s`."""
    session = Session(Settings(record=mode, record_file=str(folder / "llm.jsonl")), ProviderRegistry())
    api.activate(session)
    session.registry.add("s", cls, base_url=url, **traits)
    session.registry.add("t", cls, base_url=url, **traits)
    try:
        yield session
    finally:
        api.activate(None)
        session.close()


@pytest.fixture
def server() -> Iterator[NumberedServer]:
    with NumberedServer() as server:
        yield server


def lookup(x: int) -> int:
    """Look it up."""
    return x


def search(x: int) -> int:
    """Search for it."""
    return x


def described_otherwise(x: int) -> int:
    """Look something else up."""
    return x


described_otherwise.__name__ = "lookup"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
TYPES: dict[str, dict[str, Any]] = {
    "none": {}, "int": {"output_type": int}, "float": {"output_type": float}, "bool": {"output_type": bool},
    "list": {"output_type": list[int]}, "dict": {"output_type": dict[str, int]}, "choices": {"choices": ("a", "b")},
    "other choices": {"choices": ("a", "b", "c")}, "regex": {"regex": "[ab]+"}, "other regex": {"regex": "[abc]+"},
    "schema": {"schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    "other schema": {"schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
}  # fmt: skip
ASKED = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["s:m", "s:m2", "t:m"]),
        "prompt": TEXTS.filter(str.strip),
        "system": st.sampled_from(["", "Be brief.", "Be long."]),
        "parameters": st.fixed_dictionaries(
            {},
            optional={
                "temperature": st.sampled_from([0, 0.2, 1]),
                "top_p": st.sampled_from([0.5, 0.9]),
                "max_tokens": st.integers(1, 3),
                "seed": st.integers(0, 2),
                "stop": st.sampled_from([("A",), ("A", "B"), ("B", "A")]),
                "presence_penalty": st.sampled_from([-1, 1]),
                "frequency_penalty": st.sampled_from([-1, 1]),
                "n": st.integers(2, 3),
                "logprobs": st.integers(1, 2),
                "reasoning_effort": st.sampled_from(["low", "high"]),
            },
        ),
        "param": st.dictionaries(st.sampled_from(["top_k", "user"]), st.sampled_from([1, "1", None, [1], {"a": 1}, 0])),
        "type": st.sampled_from(sorted(TYPES)),
        "tools": st.sampled_from([(), (lookup,), (search,), (lookup, search), (described_otherwise,)]),
        "tool_choice": st.sampled_from([None, "required", "none"]),
        "image": st.sampled_from([(), (b"\x89PNG1",), (b"\x89PNG2",), (b"\x89PNG1", b"\x89PNG2")]),
        "base_url": st.sampled_from([None, "http://one.test/v1", "http://two.test/v1"]),
    }
)


def asked_of(session: Session, asked: dict[str, Any], **further: Any) -> dict[str, Any]:
    """Return what is asked, as a recording is found by it."""
    from llm_magic.messages import Image, Text, user

    parts = (Text(asked["prompt"]), *(Image(data=data, media_type="image/png") for data in asked["image"]))
    typed = TYPES[asked["type"]]
    options = Options(
        model=asked["model"],
        system=asked["system"],
        parameters=asked["parameters"],
        param=asked["param"],
        tools=asked["tools"] or None,
        tool_choice=asked["tool_choice"] if asked["tools"] else None,
        base_url=asked["base_url"],
        once=True,
        **typed,
        **further,
    )
    plan = session.plan(Cell("", options, {}, messages=(user(*parts),)))
    return dict(NeutralRequest(plan, plan.models[0]).data(""))


def meaning(asked: dict[str, Any]) -> str:
    """Return all that counts of it, in one text."""
    left_out = {"tool_choice"} if not asked["tools"] else set()
    told = {name: repr(value) for name, value in asked.items() if name not in {"param", "parameters", *left_out}}
    return json.dumps([told, asked["param"], asked["parameters"]], sort_keys=True, default=repr)


@settings(max_examples=300)
@given(ASKED, ASKED)
def test_what_differs_in_what_was_asked_differs_in_its_key(one: dict[str, Any], two: dict[str, Any]) -> None:
    session = Session(Settings(), ProviderRegistry())
    try:
        for name in "st":
            session.registry.add(name, "compatible", base_url=DEAD)
        keys = [key_of(asked_of(session, each)) for each in (one, two)]
    finally:
        session.close()
    assert (keys[0] == keys[1]) == (meaning(one) == meaning(two))


@settings(max_examples=150)
@given(ASKED, st.data())
def test_one_field_that_differs_is_enough(asked: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(asked)))
    other = {**asked, name: data.draw(ASKED)[name]}
    session = Session(Settings(), ProviderRegistry())
    try:
        for each in "st":
            session.registry.add(each, "compatible", base_url=DEAD)
        keys = [key_of(asked_of(session, each)) for each in (asked, other)]
    finally:
        session.close()
    assert (keys[0] == keys[1]) == (meaning(asked) == meaning(other))


HOW: dict[str, dict[str, Any]] = {
    "a key": {"api_key_env": "SOME_KEY"},
    "headers": {"default_headers": {"X-Team": "one"}, "headers_env": {"X-Key": "SOME_KEY"}},
    "a query": {"default_query": {"version": "1"}},
    "deadlines": {"timeout": 3.0, "max_retries": 1},
    "prices": {"prices": {"*": {"input": 1.0, "output": 2.0}}},
    "another class": {"cls": "vllm"},
    "OpenAI's class": {"cls": "openai"},
    "no reasoning back": {"send_reasoning": False},
    "another dialect": {"structured": "json_schema"},
    "no dialect": {"structured": "none"},
    "organization": {"organization": "org", "project": "proj"},
}


@settings(max_examples=30)
@given(ASKED, st.sampled_from(sorted(HOW)))
def test_where_and_how_it_is_asked_is_no_part_of_the_key(asked: dict[str, Any], how: str) -> None:
    keys = []
    traits = dict(HOW[how])
    cls = traits.pop("cls", "compatible")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_KEY", "value-of-the-key")
        for here, url, more, further in (
            ("compatible", DEAD, {}, {}),
            (cls, "http://elsewhere.test/v1", traits, {"timeout": 5.0, "retries": 1, "no_stream": True}),
        ):
            session = Session(Settings(), ProviderRegistry())
            try:
                for name in "st":
                    session.registry.add(name, here, base_url=url, **more)
                keys.append(key_of(asked_of(session, asked, **further)))
            finally:
                session.close()
    assert keys[0] == keys[1]


@settings(max_examples=100)
@given(ASKED)
def test_a_header_of_the_call_is_no_part_of_the_key(asked: dict[str, Any]) -> None:
    session = Session(Settings(), ProviderRegistry())
    try:
        for name in "st":
            session.registry.add(name, "compatible", base_url=DEAD)
        plain = asked_of(session, asked)
        assert key_of(plain) == key_of(asked_of(session, asked, header={"X-Trace": "some-value"}))
        assert "some-value" not in json.dumps(plain)
    finally:
        session.close()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_a_key_is_of_the_data_and_not_of_its_order(value: Any) -> None:
    one = {"kind": "answer", "model": "m", "value": value}
    two = {"value": json.loads(json.dumps(value)), "model": "m", "kind": "answer"}
    assert key_of(one) == key_of(two)
    assert len(key_of(one)) == 64
    assert key_of(one) != key_of({**one, "model": "n"})


ALIKE: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "whole and broken numbers": (
        lambda: LLM("s:m", temperature=0).ask("Hi"), lambda: LLM("s:m", temperature=0.0).ask("Hi"),
    ),
    "defaults and options": (
        lambda: LLM("s:m", temperature=0.5).ask("Hi"), lambda: LLM("s:m").ask("Hi", temperature=0.5),
    ),
    "a text and a list": (lambda: LLM("s:m").ask("Hi"), lambda: LLM("s:m").ask([{"role": "user", "content": "Hi"}])),
    "a system prompt": (
        lambda: LLM("s:m").ask("Hi", system="Be brief."),
        lambda: LLM("s:m").ask([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]),
    ),
    "no system prompt": (lambda: LLM("s:m").ask("Hi"), lambda: LLM("s:m").ask("Hi", system="")),
    "an API": (lambda: LLM("s:m").ask("Hi"), lambda: LLM("s:m").ask("Hi", api="responses")),
    "not streamed": (lambda: LLM("s:m").ask("Hi"), lambda: LLM("s:m").ask("Hi", no_stream=True)),
    "a stop in a list": (lambda: LLM("s:m").ask("Hi", stop=["A"]), lambda: LLM("s:m").ask("Hi", stop=("A",))),
    "a template": (lambda: LLM("s:m").ask("Hi you"), lambda: LLM("s:m").ask("Hi {{ 'you' }}", template=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in ALIKE if name not in {"a template", "not streamed"}])
def test_the_same_in_other_words_is_found(name: str, tmp_path: Path, server: NumberedServer) -> None:
    record, replay = ALIKE[name]
    with session(tmp_path, "once", url=server.url):
        said = record().text
    with session(tmp_path, "only"):
        assert replay().text == said
    assert len(server.asked) == 1


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("typed", ["text", "int", "tools"])
def test_recorded_one_way_it_is_replayed_another(
    how: str, typed: str, tmp_path: Path, server: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "value-of-the-key")
    options: dict[str, Any] = {"text": {}, "int": {"output_type": int}, "tools": {"tools": [f]}}[typed]
    traits = dict(HOW[how])
    cls = traits.pop("cls", "compatible")
    with session(tmp_path, "once", url=server.url):
        said = LLM("s:m").ask("NUMBER", **options)
    with session(tmp_path, "only", cls, "http://elsewhere.test/v1", **traits):
        again = LLM("s:m").ask("NUMBER", **options)
    assert (again.text, again.value, again.usage, again.seconds) == (said.text, said.value, said.usage, said.seconds)
    (tmp_path / "other").mkdir()
    with session(tmp_path / "other", "once", cls, server.url, **traits):
        before = LLM("s:m").ask("NUMBER", **options)
    with session(tmp_path / "other", "only"):
        assert LLM("s:m").ask("NUMBER", **options).value == before.value
    text = (tmp_path / "llm.jsonl").read_text() + (tmp_path / "other" / "llm.jsonl").read_text()
    for word in ("value-of-the-key", "X-Team", "127.0.0.1", "elsewhere", '"org"', '"proj"'):
        assert word not in text


def f(x: int) -> int:
    """Add one."""
    return x + 1


def test_another_version_of_the_program_reads_it(
    tmp_path: Path, server: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session(tmp_path, "once", url=server.url):
        said = LLM("s:m").ask("Hi").text
    assert llm_magic.__version__ not in (tmp_path / "llm.jsonl").read_text()
    monkeypatch.setattr(llm_magic, "__version__", "99.0")
    with session(tmp_path, "only"):
        assert LLM("s:m").ask("Hi").text == said


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "temperature": ({"temperature": 0.2}, "0.2"),
    "a system prompt": ({"system": "Be brief."}, "asked with a system prompt, recorded without"),
    "max_tokens": ({"max_tokens": 5}, "5"),
    "a seed": ({"seed": 1}, "seed"),
    "another field": ({"param": {"top_k": 3}}, "top_k"),
    "an output type": ({"output_type": int}, "output"),
    "a tool": ({"tools": [f]}, "tools"),
    "an image": ({"images": []}, "image"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_said(name: str, tmp_path: Path, server: NumberedServer) -> None:
    options, word = DIFFERENT[name]
    if "images" in options:
        options = {"images": [_png()]}
    with session(tmp_path, "once", url=server.url):
        LLM("s:m").ask("A prompt of some words that is the same", temperature=0)
    with session(tmp_path, "only"), pytest.raises(RecordingError) as caught:
        LLM("s:m").ask("A prompt of some words that is the same", **{"temperature": 0, **options})
    assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert len(str(caught.value)) < 600


def _png() -> bytes:
    import base64

    return base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )


@pytest.mark.parametrize("what", ["model", "prompt", "provider"])
def test_another_model_prompt_or_provider_is_said(what: str, tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, "once", url=server.url):
        LLM("s:m").ask("A prompt of some words\nand of some lines")
    model = {"model": "s:m2", "provider": "t:m"}.get(what, "s:m")
    prompt = (
        "A prompt of some words\nand of other lines"
        if what == "prompt"
        else "A prompt of some words\nand of some lines"
    )
    with session(tmp_path, "only"), pytest.raises(RecordingError) as caught:
        LLM(model).ask(prompt)
    assert {"model": "m2", "prompt": "other", "provider": "t"}[what] in str(caught.value)


def test_vectors_differ_by_what_they_are_of(tmp_path: Path, server: NumberedServer) -> None:
    with session(tmp_path, "once", url=server.url):
        found = LLM("s:m").embed(["a", "b"])
        other = LLM("s:m").embed(["a", "b"], dimensions=3)
        assert LLM("s:m").embed(["b", "a"])[0] != found[0]
    with session(tmp_path, "only"):
        assert LLM("s:m").embed(["a", "b"]) == found
        assert LLM("s:m").embed(["a", "b"], dimensions=3) == other
        for texts, options in ((["a"], {}), (["a", "b"], {"dimensions": 2}), (["a", "b"], {"param": {"x": 1}})):
            with pytest.raises(RecordingError):
                LLM("s:m").embed(texts, **options)
        with pytest.raises(RecordingError):
            LLM("s:m2").embed(["a", "b"])
    assert len(server.asked) == 3
    assert len(lines(tmp_path / "llm.jsonl")) == 3


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
LEAVES = st.one_of(ANY_TEXT, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False))
DATA = st.dictionaries(
    ANY_TEXT,
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3)),
    max_size=4,
)
MARKER = "7f3c9d1e5b2a4860"


@settings(max_examples=300)
@given(shared=DATA, name=ANY_TEXT, around=st.tuples(ANY_TEXT, ANY_TEXT), text=ANY_TEXT, nested=st.booleans())
def test_the_key_of_a_template_is_that_of_the_whole(
    shared: dict[str, Any], name: str, around: tuple[str, str], text: str, nested: bool
) -> None:
    def asked(inner: str) -> dict[str, Any]:
        value = inner.join(around)
        return {**shared, name: [{"role": "user", "content": [{"text": value}]}] if nested else value}

    template = KeyTemplate.of(asked(MARKER), MARKER)
    assert template is not None
    for each in (text, "", '"\\\x00\n\ud800\U0001f600\u2028', MARKER):
        assert template.key(each) == key_of(asked(each))


@pytest.mark.parametrize(
    "asked",
    [
        {"messages": "no marker"},
        {"messages": [MARKER, MARKER]},
        {"messages": f"{MARKER} and {MARKER}"},
        {MARKER: "a name of a field"},
        {"parameters": {MARKER: MARKER}},
    ],
)
def test_no_template_where_the_text_has_no_one_place(asked: dict[str, Any]) -> None:
    assert KeyTemplate.of(asked, MARKER) is None
    assert KeyTemplate.of(asked, "") is None


def test_what_is_no_data_has_no_template() -> None:
    with pytest.raises(RecordingError):
        KeyTemplate.of({"a": object(), "b": MARKER}, MARKER)


def test_the_key_of_a_template_is_that_of_a_request(tmp_path: Path) -> None:
    with session(tmp_path, "off") as one:

        def data(prompt: str) -> dict[str, Any]:
            plan = one.plan(Cell(prompt, Options(model="s:m", system="Be brief.", once=True), {}))
            return NeutralRequest(plan, plan.models[0]).data("")

        template = KeyTemplate.of(data(f"Is {MARKER} good?"), MARKER)
        assert template is not None
        for text in ("tea", 'a "quoted" \\ é', "\U0001f600\nand more"):
            assert template.key(text) == key_of(data(f"Is {text} good?"))
