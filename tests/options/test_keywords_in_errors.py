"""Errors that leave `LLM` name its keywords and the error's response; those of cells name flags and `_llm`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from servers import Answer, ScriptedServer, chunk, document, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.display.plain import PlainView
from llm_magic.errors import LLMError, RequestRefusedError
from llm_magic.options import Options
from llm_magic.options.keywords_in_errors import in_python
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.plan import Cell


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def said(text: str, finish: str = "stop") -> Answer:
    return stream(chunk(text), chunk(finish=finish))


def f(x: int) -> int:
    """Add one."""
    return x + 1


CALLS: list[tuple[dict[str, Any], str, str]] = [
    ({"tool_choice": "auto"}, "tool_choice= needs tools=.", "tools=[f, g] gives the Python functions."),
    (
        {"tools": f, "tool_choice": "g"},
        "tool_choice='g' is not one of the tools.",
        "Say auto, none, required or f.",
    ),
    ({"output_type": int, "choices": ["a"]}, "output_type= and choices= exclude each other.", "Keep one of them."),
    ({"output_type": [1]}, "output_type=[1]: this is a list", "Write list[…] of a type, or choices= for a list of"),
    (
        {"schema": "nope"},
        "schema='nope': this is neither a .json file, nor a variable, nor two fields.",
        "The short form is: name, age int",
    ),
    (
        {"retries_invalid": 2},
        "retries_invalid= needs an output type: text is never invalid.",
        "Say output_type=, schema=, choices=, regex= or grammar=; retries= is for failures.",
    ),
    ({"chat": "a", "once": True}, "chat= and once=True exclude each other.", "Keep one of them."),
    (
        {"param": {"messages": []}},
        'param={"messages": …} is refused: the call sets this field itself.',
        "The first argument is the prompt, system= the system prompt; chat= NAME continues a conversation.",
    ),
    (
        {"n": 2, "api": "responses"},
        "n= does not exist in the Responses API, by which m is asked.",
        "Leave n= out, or choose another API with api=.",
    ),
    ({"api": "completions", "tools": f}, "The Completions API knows no tools.", 'Leave tools= out, or use api="chat".'),
    (
        {"max_tokens": 5, "param": {"max_completion_tokens": 6}},
        'max_tokens= and param={"max_completion_tokens": …} set the same field.',
        "Keep one of them.",
    ),
]


@pytest.mark.parametrize(("options", "message", "hint"), CALLS)
def test_errors_name_keywords_by_every_call(session: Session, options: dict[str, Any], message: str, hint: str) -> None:
    with ScriptedServer(said("x")) as server:
        session.registry.add("s", "compatible", base_url=server.url)
        llm = LLM("s:m")

        async def streamed() -> None:
            async for _ in llm.stream("Hi", **options):
                pass

        for call in (
            lambda: llm.ask("Hi", **options),
            lambda: asyncio.run(llm.aask("Hi", **options)),
            lambda: asyncio.run(streamed()),
        ):
            with pytest.raises(LLMError) as caught:
                call()
            assert caught.value.message.startswith(message)
            assert caught.value.hint.startswith(hint)
            assert str(caught.value) == f"{caught.value.message}\n{caught.value.hint}"
    assert server.requests == []


def test_embeddings_too(session: Session) -> None:
    session.registry.add("s", "compatible", base_url="http://127.0.0.1:9")
    with pytest.raises(LLMError) as caught:
        LLM("s:m").embed(["a"], dimensions=2, param={"dimensions": 3})
    assert str(caught.value) == 'dimensions= and param={"dimensions": …} set the same field.\nKeep one of them.'


def test_what_came_is_in_the_response_of_the_error(session: Session) -> None:
    with ScriptedServer(said("x"), said("x"), said("x", "length"), said("x"), said("x")) as server:
        session.registry.add("s", "compatible", base_url=server.url)
        with pytest.raises(LLMError) as caught:
            LLM("s:m").ask("Hi", output_type=int)
        hint = "Raise retries_invalid=, or reword the prompt. error.response.text has what came."
        assert (caught.value.hint, caught.value.response.text) == (hint, "x")
        with pytest.raises(LLMError) as caught:
            LLM("s:m").ask("Hi", output_type=int)
        assert caught.value.hint == "Allow more with max_tokens=N, or ask for less. error.response.text has what came."
        with pytest.raises(LLMError) as caught:  # a cell
            session.ask(Cell("Hi", Options(model="s:m", output_type="int"), namespace={}), PlainView("text"))
        assert caught.value.hint == "Raise --retries-invalid, or reword the prompt. _llm.text has what came."


def test_the_words_of_a_server_stay(session: Session) -> None:
    refusal = document({"error": {"message": "start me with --tools, --regex or --once: temperature"}}, 400)
    with ScriptedServer(refusal) as server:
        session.registry.add("s", "compatible", base_url=server.url)
        with pytest.raises(RequestRefusedError) as caught:
            LLM("s:m").ask("Hi", temperature=0)
    assert "start me with --tools, --regex or --once: temperature" in caught.value.message
    assert caught.value.hint == "Change or leave out temperature=."


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Ask again; --dry-run shows what is sent.", "Ask again; %%llm --dry-run shows what is sent."),
        ("%%llm --dry-run shows the request.", "%%llm --dry-run shows the request."),
        ("python -m pip install x", "python -m pip install x"),
        (
            "Start it with --enable-auto-tool-choice --max-model-len 5.",
            "Start it with --enable-auto-tool-choice --max-model-len 5.",
        ),
        ("Name one: -m s:MODEL", 'Name one: LLM("s:MODEL")'),
        ("_llm has what came; my_llm.text, x._llm.y", "error.response has what came; my_llm.text, x._llm.y"),
    ],
)
def test_flags_and_what_is_none(text: str, meant: str) -> None:
    assert in_python(text) == meant
