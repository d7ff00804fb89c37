"""Many rows over each way to an endpoint, with its limits, budgets, fallbacks and mistakes: the same answers by all."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from servers import Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic import LLM, api
from llm_magic.capabilities import Capabilities
from llm_magic.config.settings import Settings
from llm_magic.errors import BudgetError, ConfigurationError, NotAskedError, UnsupportedError
from llm_magic.events import Attempt, Finished, TextDelta, UsageReport
from llm_magic.metadata import Usage
from llm_magic.providers import plugins
from llm_magic.providers.base import Provider
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def said(request: Received) -> str:
    body = request.json
    if "prompt" in body:
        return str(body["prompt"])
    return str((body.get("messages") or body["input"])[-1]["content"])


def completion(text: str, prompt: int = 7, written: int = 3) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return document({"choices": [choice], "usage": {"prompt_tokens": prompt, "completion_tokens": written}})


def echo(request: Received) -> Answer:
    text = f"you said {said(request)}"
    if request.path.endswith("/responses"):
        item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
        return document({"object": "response", "status": "completed", "model": "m", "output": [item]})
    if request.json.get("stream"):
        if request.path.endswith("/chat/completions"):
            usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
            return stream(chunk(text), chunk(finish="stop"), usage)
        return stream({"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]})
    return completion(text)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(echo) as server:
        yield server


def added(session: Session, server: ScriptedServer, name: str = "s", **settings: Any) -> LLM:
    session.registry.add(name, "compatible", base_url=server.url, **{"max_retries": 0, **settings})
    return LLM(f"{name}:m")


# Ways to an endpoint


@pytest.mark.parametrize(
    "settings",
    [
        {"http_client": "aiohttp"},
        {"http_client_kwargs": {"trust_env": False}},
        {"http_client_kwargs": {"limits": {"max_connections": 3}}},
        {"http_client_kwargs": {"proxy": "HOST"}},
        {"api": "responses"},
        {"api": "completions"},
    ],
)
def test_the_same_answers_by_each_transport_and_api(
    session: Session, server: ScriptedServer, settings: dict[str, Any]
) -> None:
    if settings == {"http_client_kwargs": {"proxy": "HOST"}}:
        settings = {"http_client_kwargs": {"proxy": server.host}}
    llm = added(session, server, **settings)
    answers = llm.map("say {{ item }}", range(20), temperature=0.5)
    assert answers.values == [f"you said say {number}" for number in range(20)]
    assert len(server.requests) == 20
    assert {type(error) for error in answers.errors} == {type(None)}


@pytest.mark.parametrize("kind", [AsyncOpenAI, OpenAI])
def test_a_ready_client_gives_them(session: Session, server: ScriptedServer, kind: Any) -> None:
    client = kind(base_url=server.url, api_key="k")
    session.registry.register("ready", client=client)
    assert LLM("ready:m").map("{{ item }}", range(20)).values == [f"you said {number}" for number in range(20)]
    typed = LLM("ready:m").map("{{ item }}", [0, 1], choices=["you said 0", "you said 1"])
    assert typed.values == ["you said 0", "you said 1"]
    closing = client.close()
    if closing is not None:
        session.loop.run(closing)


class WordsProvider(Provider):
    """A backend that is no OpenAI client: says the last word of the first line."""

    kind = "words"

    async def exchange(self, request: Any, capabilities: Any, *, timeout: Any = None, max_retries: Any = None) -> Any:  # noqa: ASYNC109
        del capabilities, timeout, max_retries
        yield [Attempt(self.name, request.model, 200, "", 0.0)]
        yield [TextDelta(request.messages[-1].text.splitlines()[0].split()[-1])]
        yield [UsageReport(Usage(2, 1)), Finished("stop")]

    def capabilities(self, model: str) -> Capabilities:
        del model
        return Capabilities(tools=False)


def test_a_backend_of_ones_own_is_asked_row_by_row(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {**plugins.entries(), "words": EntryPoint("words", f"{__name__}:WordsProvider", plugins.GROUP)}
    monkeypatch.setattr(plugins, "entries", lambda: entries)
    llm = LLM("words:m")
    answers = llm.map("say {{ item }}", range(30), concurrency="auto")
    assert answers.values == [str(number) for number in range(30)]
    assert answers.usage is not None
    assert answers.usage.input_tokens == 60
    assert llm.map("say {{ item }}", range(3), output_type=int).to_frame()["value"].dtype == "int64"


# Mistakes of what all rows share


@pytest.mark.parametrize(
    ("settings", "options", "error", "words"),
    [
        ({"api_key_env": "NO_SUCH_KEY"}, {}, ConfigurationError, "NO_SUCH_KEY is not set"),
        ({"http_client": "no_such_module:client"}, {}, ConfigurationError, "no_such_module"),
        ({"http_client_kwargs": {"nonsense": 1}}, {}, ConfigurationError, "does not know 'nonsense'"),
        ({"api": "completions"}, {"choices": ["a", "b"]}, UnsupportedError, "takes no JSON Schema"),
    ],
)
def test_what_no_row_can_be_sent_with_is_said_as_of_one_cell(  # noqa: PLR0917
    session: Session, server: ScriptedServer, settings: Any, options: Any, error: Any, words: str
) -> None:
    llm = added(session, server, **settings)
    with pytest.raises(error) as of_map:
        llm.map("{{ item }}", range(40), **options)
    with pytest.raises(error) as of_ask:
        llm.ask("1", **options)
    assert words in of_map.value.message
    assert (of_map.value.message, of_map.value.hint) == (of_ask.value.message, of_ask.value.hint)
    kept = llm.map("{{ item }}", range(40), on_error="keep", **options)
    assert len(kept.failed) == 40
    assert {type(each) for each in kept.errors} == {error, NotAskedError}
    assert server.requests == []


def test_an_order_that_all_runs_share_gives_way_where_rows_are_read_as_needed(
    session: Session, server: ScriptedServer
) -> None:
    added(session, server)
    answers = LLM("s:m", order="prefix").map("{{ item }}", iter(range(3)))
    assert answers.values == ["you said 0", "you said 1", "you said 2"]


def test_nothing_is_said_of_recordings_that_nobody_asked_for(session: Session) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Once upon"}, "finish_reason": "length"}
    with ScriptedServer(document({"choices": [choice]})) as server:
        answers = added(session, server).map("{{ item }}", range(3))
    assert answers.values == ["Once upon"] * 3
    assert answers.notes == ()


# Fallbacks


def test_a_row_that_the_second_model_answers_is_counted_and_paid_there(session: Session) -> None:
    def one(request: Received) -> Answer:
        return document({"error": {"message": "broken"}}, 500) if said(request) == "1" else echo(request)

    with ScriptedServer(one) as first, ScriptedServer(completion("fallback", 100, 50)) as second:
        added(session, first, "one", prices={"m": {"input": 1, "output": 10}})
        added(session, second, "two", prices={"m": {"input": 100, "output": 1000}})
        session.registry.aliases = {"fast": {"model": "one:m", "fallbacks": ["two:m"]}}
        answers = LLM("fast").map("{{ item }}", [0, 1, 2])
    assert answers.values == ["you said 0", "fallback", "you said 2"]
    assert [response.provider for response in answers.responses if response] == ["one", "two", "one"]
    assert answers.usage is not None
    assert (answers.usage.input_tokens, answers.usage.output_tokens) == (7 + 100 + 7, 3 + 50 + 3)
    assert answers.cost == pytest.approx((14 * 1 + 6 * 10 + 100 * 100 + 50 * 1000) / 1e6)
    assert answers.notes == ("fast failed (one:m answered 500: broken); asking the next model.",)
    rows = {row.provider: (row.answers, row.requests, row.failed) for row in session.ledger.rows()}
    assert rows == {"one": (2, 3, 1), "two": (1, 1, 0)}


# Budgets together


@pytest.mark.parametrize(
    ("of_all", "of_provider", "of_run", "asked", "setting", "hint"),
    [
        (3, None, None, 3, "LLMMagics.budget", "Raise LLMMagics.budget, or count anew: %llm_usage --reset."),
        (3, None, 5, 3, "LLMMagics.budget", "Raise LLMMagics.budget, or count anew: %llm_usage --reset."),
        (5, None, 2, 2, "budget=", "Raise budget=."),
        (5, 1, 2, 1, "s.budget", "Raise s.budget, or count anew: %llm_usage --reset."),
    ],
)
def test_the_budget_that_is_spent_first_is_said(  # noqa: PLR0917
    session: Session, server: ScriptedServer, of_all: int, of_provider: Any, of_run: Any, asked: int, setting: str,
    hint: str,
) -> None:  # fmt: skip
    llm = added(session, server)
    session.settings.budget = {"requests": of_all}
    if of_provider:
        session.registry.get("s").budget = {"requests": of_provider}
    options: Any = {"budget": {"requests": of_run}} if of_run else {}
    answers = llm.map("{{ item }}", range(8), on_error="keep", concurrency=4, **options)
    assert len(server.requests) == asked
    assert len(answers.failed) == 8 - asked
    errors = [error for error in answers.errors if error is not None]
    assert {type(error) for error in errors} <= {BudgetError, NotAskedError}
    assert all(f"({setting})" in error.message and error.hint == hint for error in errors)


def test_rows_and_cells_share_the_budget_of_all(session: Session, server: ScriptedServer) -> None:
    llm = added(session, server)
    session.settings.budget = {"requests": 3}
    llm.ask("a")
    llm.ask("b")
    assert len(llm.map("{{ item }}", range(6), on_error="keep").failed) == 5
    with pytest.raises(BudgetError):
        llm.ask("c")
    assert len(server.requests) == 3
