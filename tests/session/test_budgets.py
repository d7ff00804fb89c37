"""Budgets of requests, through `LLM` and cells: nothing is sent that might exceed one, and what came is kept."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from servers import Answer, Received, ScriptedServer, chunk, document, stream

from llm_magic import LLM
from llm_magic.budget import EVERYTHING
from llm_magic.config.effective import set_value
from llm_magic.errors import BudgetError, ConfigurationError, RateLimitedError
from llm_magic.events import Done, Note, TextDelta
from llm_magic.options import Options
from llm_magic.response import Response
from llm_magic.session import Session
from llm_magic.session.plan import Cell

PROMPT = "four bytes a token"  # 9 tokens, by the estimate


@pytest.fixture
def session(counted_session: Session) -> Session:
    return counted_session


def said(text: str = "Hello", given: int = 9, taken: int = 2, **headers: str) -> Answer:
    used = {"choices": [], "usage": {"prompt_tokens": given, "completion_tokens": taken}}
    return stream(chunk(text, finish="stop"), used, headers=headers)


def llm_at(session: Session, server: ScriptedServer, name: str = "s", **traits: Any) -> LLM:
    session.registry.add(name, "compatible", base_url=server.url, **traits)
    return LLM(f"{name}:m")


def used(session: Session, account: str = EVERYTHING) -> int:
    standing = session.spending.accounts.standing(account)
    assert standing.in_flight.tokens == 0
    return standing.used.tokens


# The setting


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"token": 5}, "LLMMagics.budget has no limit 'token'.\nDid you mean tokens?"),
        ({"euro": 5}, "LLMMagics.budget has no limit 'euro'.\nThere are cost, tokens, requests."),
        ({5: 5}, "has no limit '5'"),
        ({"tokens": -1}, "LLMMagics.budget['tokens'] is a whole number of tokens, from 0, and not -1."),
        ({"tokens": True}, "and not True"),
        ({"tokens": 2.5}, "and not 2.5"),
        ({"tokens": math.nan}, "and not nan"),
        ({"cost": math.nan}, r"LLMMagics.budget['cost'] is US dollars, from 0, and not nan."),
        ({"cost": math.inf}, "and not inf"),
        ({"cost": 10**400}, "and not 1000"),
        ({"requests": math.inf}, "and not inf"),
        ({"requests": "5"}, "and not '5'"),
        ({"requests": None}, "and not None"),
        ({"cost": [1]}, "and not [1]"),
        (5, "LLMMagics.budget is a dict, not this int."),
        ("5 dollars", "LLMMagics.budget is a dict, not this str."),
        (None, "not this NoneType"),
    ],
)
def test_what_is_no_budget_is_refused_when_it_is_set(session: Session, value: Any, message: str) -> None:
    session.settings.budget = {"tokens": 1}
    with pytest.raises(ConfigurationError) as caught:
        session.settings.budget = value
    assert message in str(caught.value)
    assert session.settings.budget == {"tokens": 1}
    with pytest.raises(ConfigurationError) as caught:
        session.registry.add("s", "compatible", base_url="http://127.0.0.1:9/v1", budget=value)
    assert message.replace("LLMMagics.", "s.") in str(caught.value)


def test_it_is_set_as_any_other(session: Session) -> None:
    found = set_value(session.settings, session.registry, "budget", '{"cost": 5, "tokens": 2e6}')
    assert (found.name, found.value, found.source) == ("LLMMagics.budget", {"cost": 5, "tokens": 2e6}, "session")
    set_value(session.settings, session.registry, "budget", "{}")
    assert session.settings.budget == {}
    with pytest.raises(ConfigurationError, match="Did you mean requests"):
        set_value(session.settings, session.registry, "LLMMagics.budget", '{"request": 5}')
    set_value(session.settings, session.registry, "OpenAIProvider.budget", '{"requests": 5}')
    assert session.registry.get("openai").budget == {"requests": 5}


# Before each request


def test_nothing_is_sent_that_might_exceed_it(session: Session) -> None:
    session.settings.budget = {"tokens": 70}
    with ScriptedServer(said()) as server:
        llm = llm_at(session, server)
        llm.ask(PROMPT, max_tokens=50)
        with pytest.raises(BudgetError) as caught:
            llm.ask(PROMPT, max_tokens=51)
        llm.ask(PROMPT, max_tokens=50)
    assert len(server.requests) == 2
    assert used(session) == 22
    assert caught.value.message == (
        "The budget of 70 tokens (LLMMagics.budget) does not cover this request to s:m: 11 used, 0 in flight, 59 left, "
        "and it may take 60."
    )
    assert caught.value.hint == (
        "Raise LLMMagics.budget, bound the answer with max_tokens=N, or count anew: %llm_usage --reset."
    )
    assert caught.value.response.attempts == ()


def test_to_bound_the_answer_is_said_only_where_that_helps(session: Session) -> None:
    session.settings.budget = {"tokens": 9}
    with ScriptedServer(said()) as server:
        llm = llm_at(session, server)
        with pytest.raises(BudgetError) as of_prompt:
            llm.ask(PROMPT, max_tokens=1)
        with pytest.raises(BudgetError) as of_embeddings:
            llm.embed(["four bytes a token " * 10])
    assert server.requests == []
    hint = "Raise LLMMagics.budget, or count anew: %llm_usage --reset."
    assert (of_prompt.value.hint, of_embeddings.value.hint) == (hint, hint)


def test_without_max_tokens_the_setting_is_reserved(session: Session) -> None:
    session.settings.budget = {"tokens": 4104}
    with ScriptedServer(said()) as server:
        llm = llm_at(session, server)
        with pytest.raises(BudgetError, match=r"4,104 left, and it may take 4,105\."):
            llm.ask(PROMPT)
        session.settings.budget_tokens_per_request = 4095
        llm.ask(PROMPT)
    assert len(server.requests) == 1


def test_the_tools_and_the_schema_count_with_the_prompt(session: Session) -> None:
    session.settings.budget = {"tokens": 59}
    with ScriptedServer(said("7")) as server, pytest.raises(BudgetError, match=r"may take [6-9]\d|may take \d{3}"):
        llm_at(session, server).ask(PROMPT, output_type=dict[str, int], max_tokens=50)
    assert server.requests == []


def test_more_is_reserved_than_a_prompt_takes(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    session.settings.budget = {"tokens": 126}
    with ScriptedServer(said()) as server:
        llm = llm_at(session, server)
        with pytest.raises(BudgetError, match=r"126 left, and it may take 127\."):  # 13 of 9, and 64
            llm.ask(PROMPT, max_tokens=50)
        llm.ask(PROMPT, max_tokens=49)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "texts", ["Count to twenty.", "def f(x): return {'a': [x, x ** 2]}  # " * 20, "今日は良い天気です。" * 20]
)
def test_a_hundred_at_once_at_a_real_server_never_exceed_it(
    session: Session, vllm_url: str, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(llm: LLM) -> list[Any]:
        return await asyncio.gather(
            *(llm.aask(f"{number}. {texts}", max_tokens=8) for number in range(100)), return_exceptions=True
        )

    monkeypatch.undo()
    session.registry.add("gpu", "vllm", base_url=vllm_url)
    session.settings.budget = {"tokens": 3_000}
    found = asyncio.run(ask(LLM("gpu:")))
    assert {type(each) for each in found} == {Response, BudgetError}
    assert 1_000 < used(session) <= 3_000
    assert used(session) == sum(row.input_tokens + row.output_tokens for row in session.ledger.rows())


@pytest.mark.parametrize("door", ["threads", "tasks", "streams"])
def test_a_hundred_at_once_never_exceed_it(session: Session, door: str) -> None:
    together = 0

    def answer(_: Received) -> Answer:
        nonlocal together
        together = max(together, session.spending.accounts.standing(EVERYTHING).in_flight.tokens)
        return said(given=9, taken=20)

    async def tasks(llm: LLM) -> list[Any]:
        return await asyncio.gather(*(llm.aask(PROMPT, max_tokens=20) for _ in range(100)), return_exceptions=True)

    async def stream_one(llm: LLM) -> Any:
        try:
            return [event async for event in llm.stream(PROMPT, max_tokens=20)][-1].response
        except BudgetError as error:
            return error

    async def streams(llm: LLM) -> list[Any]:
        return await asyncio.gather(*(stream_one(llm) for _ in range(100)))

    def ask(llm: LLM) -> Any:
        try:
            return llm.ask(PROMPT, max_tokens=20)
        except BudgetError as error:
            return error

    session.settings.budget = {"tokens": 1000}
    with ScriptedServer(answer) as server:
        llm = llm_at(session, server)
        if door == "threads":
            with ThreadPoolExecutor(20) as pool:
                found = list(pool.map(ask, [llm] * 100))
        else:
            found = asyncio.run((tasks if door == "tasks" else streams)(llm))
    refused = [each for each in found if isinstance(each, BudgetError)]
    assert (len(refused), len(server.requests)) == (66, 34)  # 34 times 29 tokens
    assert used(session) == 986
    assert together <= 1000


def test_attempts_after_a_failure_are_requests_too(session: Session) -> None:
    session.settings.budget = {"requests": 3}
    busy = document({"error": {"message": "wait"}}, 429, {"retry-after-ms": "1"})
    with ScriptedServer(busy) as server, pytest.raises(BudgetError) as caught:
        llm_at(session, server, max_retries=6).ask(PROMPT)
    assert len(server.requests) == 3
    assert caught.value.message == (
        "The budget of 3 requests (LLMMagics.budget) does not cover another attempt at s:m, of which the last one "
        "failed (wait): 3 used, 0 in flight, 0 left, and it may take 1."
    )
    assert [attempt.status for attempt in caught.value.response.attempts] == [429, 429, 429]
    assert session.ledger.rows()[0].failed == 3


def test_attempts_at_embeddings_are_requests_too(session: Session) -> None:
    session.settings.budget = {"requests": 2}
    busy = document({"error": {"message": "wait"}}, 503, {"retry-after-ms": "1"})
    with ScriptedServer(busy) as server, pytest.raises(BudgetError, match="another attempt at s:m"):
        llm_at(session, server, max_retries=6).embed(["a"])
    assert len(server.requests) == 2
    assert session.ledger.rows()[0].failed == 2


def test_embeddings_that_came_before_are_kept(session: Session) -> None:
    def vectors(received: Received) -> Answer:
        return document({"data": [{"index": 0, "embedding": [1.0, 0.0]}], "usage": {"prompt_tokens": 5}})

    session.settings.budget = {"requests": 2}
    with ScriptedServer(vectors) as server:
        llm = llm_at(session, server)
        with pytest.raises(BudgetError, match="of 2 requests"):
            llm.embed(["a", "b", "c"], batch=1)
        sent = len(server.requests)
        session.settings.budget = {}
        assert len(llm.embed(["a", "b", "c"], batch=1)) == 3
        assert sent <= 2
        assert len(server.requests) <= 5
    assert used(session) == session.ledger.rows()[0].input_tokens + 5 * session.ledger.rows()[0].uncounted


def test_a_round_of_tools_that_exceeds_it_fails_and_what_came_is_kept(session: Session) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    usage = {"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 5}}
    calls = stream(chunk("I add."), chunk(tool_calls=[call]), chunk(finish="tool_calls"), usage)
    session.settings.budget = {"requests": 2}
    with ScriptedServer(calls) as server, pytest.raises(BudgetError, match="of 2 requests") as caught:
        llm_at(session, server).ask("1 + 2?", tools=[add])
    assert len(server.requests) == 2
    response = caught.value.response
    assert [(run.name, run.result) for run in response.tool_calls] == [("add", "3"), ("add", "3")]
    assert (response.usage.input_tokens, response.usage.output_tokens) == (40, 10)
    assert session.ledger.rows()[0].answers == 1


def test_a_value_is_not_asked_for_again_beyond_it(session: Session) -> None:
    session.settings.budget = {"requests": 1}
    with ScriptedServer(said("many")) as server, pytest.raises(BudgetError) as caught:
        llm_at(session, server, structured="none").ask("How many?", output_type=int)
    assert len(server.requests) == 1
    assert caught.value.response.usage.output_tokens == 2


def test_a_provider_has_one_of_its_own_and_no_fallback_takes_over(session: Session) -> None:
    with ScriptedServer(said()) as server:
        llm_at(session, server, "a", budget={"requests": 1})
        llm_at(session, server, "b")
        session.registry.aliases = {"best": {"model": "a:m", "fallbacks": ["b:m"]}}
        LLM("best").ask("Hi")
        with pytest.raises(BudgetError, match=r"The budget of 1 request \(a.budget\) does not cover"):
            LLM("best").ask("Hi")
        LLM("b:m").ask("Hi")
    assert len(server.requests) == 2


def test_a_fallback_asks_the_budget_too(session: Session) -> None:
    session.settings.budget = {"requests": 1}
    busy = document({"error": {"message": "wait"}}, 429)
    with ScriptedServer(busy) as down, ScriptedServer(said()) as server:
        llm_at(session, down, "a", max_retries=0)
        llm_at(session, server, "b")
        session.registry.aliases = {"best": {"model": "a:m", "fallbacks": ["b:m"]}}
        with pytest.raises(BudgetError, match="this request to b:m: 1 used") as caught:
            LLM("best").ask("Hi")
    assert (len(down.requests), len(server.requests)) == (1, 0)
    assert isinstance(caught.value.__context__, RateLimitedError | type(None))


def test_another_url_counts_for_the_provider(session: Session) -> None:
    with ScriptedServer(said()) as server, ScriptedServer(said()) as other:
        llm = llm_at(session, server, budget={"requests": 1})
        llm.ask("Hi", base_url=other.url)
        with pytest.raises(BudgetError, match=r"\(s.budget\)"):
            llm.ask("Hi")
    assert (len(server.requests), len(other.requests)) == (0, 1)


def test_reset_counts_anew(session: Session) -> None:
    session.settings.budget = {"requests": 1}
    with ScriptedServer(said()) as server:
        llm = llm_at(session, server)
        llm.ask("Hi")
        with pytest.raises(BudgetError):
            llm.ask("Hi")
        session.spending.reset()
        llm.ask("Hi")
        session.settings.budget = {}
        llm.ask("Hi")
    assert len(server.requests) == 3


# More than was reserved


def test_what_took_more_is_said_in_the_cell(session: Session) -> None:
    session.settings.budget = {"tokens": 100}
    session.settings.budget_tokens_per_request = 50
    with ScriptedServer(said(given=30, taken=200)) as server:
        llm = llm_at(session, server)
        response = llm.ask(PROMPT)
        with pytest.raises(BudgetError, match="230 used, 0 in flight, 0 left"):
            llm.ask(PROMPT)
    (line,) = response.notes
    assert line == (
        "The budget of 100 tokens (LLMMagics.budget) is exceeded by 130: 59 were reserved for this request, and it "
        "took 230."
    )
    assert response.text == "Hello"


def test_it_is_said_in_a_stream_before_the_end(session: Session) -> None:
    async def kinds(llm: LLM) -> list[type]:
        return [type(event) async for event in llm.stream(PROMPT, max_tokens=5)]

    session.settings.budget = {"tokens": 50}
    with ScriptedServer(said(given=30, taken=200)) as server:
        found = asyncio.run(kinds(llm_at(session, server)))
    assert found[-2:] == [Note, Done]
    assert TextDelta in found


def test_it_is_said_of_embeddings(session: Session) -> None:
    vectors = document({"data": [{"index": 0, "embedding": [1.0, 0.0]}], "usage": {"prompt_tokens": 500}})
    session.settings.budget = {"tokens": 50}
    with ScriptedServer(vectors) as server:
        found = llm_at(session, server).embed(["a"])
    (line,) = found.notes
    assert line == (
        "The budget of 50 tokens (LLMMagics.budget) is exceeded by 450: 5 were reserved for this request, and it took "
        "500."
    )


# Cost


def test_a_budget_of_cost_needs_a_price(session: Session) -> None:
    session.settings.budget = {"cost": 5}
    with ScriptedServer(said()) as server:
        llm = llm_at(session, server)
        with pytest.raises(BudgetError) as caught:
            llm.ask(PROMPT)
        with pytest.raises(BudgetError, match="needs a price for s:m"):
            llm.embed(["a"])
    assert server.requests == []
    assert caught.value.message == (
        f"The budget of $5.00 (LLMMagics.budget) needs a price for s:m ({server.url}), and none is known. "
        "Nothing was sent."
    )
    assert caught.value.hint == (
        'Set it, in US dollars per million tokens: %llm_config s.prices = {"m": {"input": 2.5, "output": 10}}. Or '
        "budget tokens."
    )


def test_the_line_that_sets_a_price_does(session: Session) -> None:
    session.settings.budget = {"cost": 1}
    with ScriptedServer(said(given=10, taken=20)) as server:
        llm = llm_at(session, server)
        with pytest.raises(BudgetError) as caught:
            llm.ask(PROMPT)
        name, _, value = caught.value.hint.partition("%llm_config ")[2].partition(". Or")[0].partition(" = ")
        set_value(session.settings, session.registry, name, value)
        response = llm.ask(PROMPT)
    assert response.cost == session.ledger.rows()[0].cost == pytest.approx((10 * 2.5 + 20 * 10) / 1e6)
    assert session.spending.accounts.standing(EVERYTHING).used.dollars == pytest.approx(response.cost)


def test_the_cost_of_what_is_in_flight_is_that_of_its_tokens(session: Session) -> None:
    session.settings.budget = {"cost": 0.001}
    prices = {"m": {"input": 10, "output": 100}}
    with ScriptedServer(said()) as server:
        llm = llm_at(session, server, prices=prices)
        with pytest.raises(BudgetError, match=r"\$0.001 left, and it may take \$0.00109\."):
            llm.ask(PROMPT, max_tokens=10)
        llm.ask(PROMPT, max_tokens=9)
    assert len(server.requests) == 1


def test_a_price_is_learned_from_what_the_server_told(session: Session) -> None:
    with ScriptedServer(said(given=10, taken=10, **{"x-litellm-response-cost": "0.02"})) as server:
        llm = llm_at(session, server)
        assert llm.ask(PROMPT).cost == 0.02
        session.settings.budget = {"cost": 0.05}
        with pytest.raises(BudgetError, match=r"\$0.02 used, \$0.00 in flight, \$0.03 left, and it may take \$0.031\."):
            llm.ask(PROMPT, max_tokens=22)
        llm.ask(PROMPT, max_tokens=21)
        with pytest.raises(BudgetError, match="needs a price for s:other"):
            LLM("s:other").ask(PROMPT)
    assert len(server.requests) == 2


def test_a_price_does_not_go_along_to_another_host(session: Session) -> None:
    session.settings.budget = {"cost": 5}
    with ScriptedServer(said()) as server:
        llm = llm_at(session, server, prices={"m": {"input": 1, "output": 1}})
        there = f"http://localhost:{server.port}/v1"
        with pytest.raises(BudgetError, match="needs a price") as caught:
            llm.ask("Hi", base_url=there)
        llm.ask("Hi")
    assert caught.value.hint == (  # what sets a price of this provider would change nothing
        "Prices do not go with base_url= to another host. Make that host a provider, with prices of its own: "
        f"%llm_provider add NAME --class compatible --base-url {there}. Or budget tokens."
    )


def test_what_is_no_price_is_said_before_anything_is_sent(session: Session) -> None:
    with ScriptedServer(said()) as server, pytest.raises(ConfigurationError, match="is no price"):
        llm_at(session, server, prices={"m": {"input": "much"}}).ask("Hi")
    assert server.requests == []


# A dry run


def test_a_dry_run_says_what_is_left(session: Session) -> None:
    def notes(**options: Any) -> tuple[str, ...]:
        cell = Cell(PROMPT, Options(model="s:m", once=True, parameters=options))
        return session.preview(cell).notes

    with ScriptedServer(said()) as server:
        llm_at(session, server, prices={"m": {"input": 10, "output": 100}}, budget={"requests": 1}).ask(PROMPT)
        assert notes(max_tokens=5) == ("Left of s.budget: 0 of 1 requests, and it may take 1. It would be refused.",)
        session.settings.budget = {"tokens": 1000, "cost": 1}
        assert notes(max_tokens=5)[0] == (
            "Left of LLMMagics.budget: 989 of 1,000 tokens, and it may take 14; $0.99971 of $1.00, and it may take "
            "$0.00059."
        )
    assert len(server.requests) == 1
    session.registry.add("t", "compatible", base_url=server.url)
    notes = session.preview(Cell(PROMPT, Options(model="t:m", once=True))).notes
    assert notes[0].startswith("It would be refused: The budget of $1.00 (LLMMagics.budget) needs a price for t:m")


def test_a_dry_run_of_what_is_recorded_says_nothing_of_budgets(session: Session, tmp_path: Path) -> None:
    session.settings.record_file = str(tmp_path / "a.llm.jsonl")
    session.settings.budget = {"requests": 1}
    with ScriptedServer(said()) as server:
        llm_at(session, server).ask(PROMPT, record="once", temperature=0)
    cell = Cell(PROMPT, Options(model="s:m", once=True, record="once", parameters={"temperature": 0}))
    assert session.preview(cell).notes == (
        "It is recorded: the answer would come from the recordings, and nothing be sent.",
    )
    other = Cell("another", Options(model="s:m", once=True, record="only"))
    assert session.preview(other).notes == (
        "It is not recorded, and --record only sends nothing: the cell would fail.",
    )
    other = Cell("another", Options(model="s:m", once=True, record="once"))
    assert session.preview(other).notes[-1].startswith("Left of LLMMagics.budget: 0 of 1 requests")


# Answers of recordings


def test_what_comes_from_a_recording_uses_nothing(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session.settings.budget = {"requests": 1}
    with ScriptedServer(said()) as server:
        llm = llm_at(session, server, prices={"m": {"input": 1000, "output": 1000}})
        first = llm.ask(PROMPT, record="once")
        again = [llm.ask(PROMPT, record="only") for _ in range(3)]
        with pytest.raises(BudgetError):
            llm.ask("Something else", record="once")
    assert len(server.requests) == 1
    assert [(each.recorded, each.cost, each.usage) for each in again] == [(True, first.cost, first.usage)] * 3
    assert first.cost == pytest.approx(0.011)
    (row,) = session.ledger.rows()
    assert (row.answers, row.recorded, row.requests, row.input_tokens, row.cost) == (1, 3, 1, 9, first.cost)
    assert used(session) == 11


def test_embeddings_from_a_recording_use_nothing(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session.settings.budget = {"requests": 1}
    vectors = document({"data": [{"index": 0, "embedding": [1.0, 0.0]}], "usage": {"prompt_tokens": 5}})
    with ScriptedServer(vectors) as server:
        llm = llm_at(session, server, prices={"m": {"input": 1000, "output": 0}})
        first = llm.embed(["a"], record="once")
        again = llm.embed(["a"], record="once")
    assert len(server.requests) == 1
    assert (first, first.cost, again.recorded) == (again, again.cost, True)
    (row,) = session.ledger.rows()
    assert (row.answers, row.recorded, row.requests, row.input_tokens, row.cost) == (1, 1, 1, 5, 0.005)


def test_the_note_on_a_budget_is_not_recorded(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    session.settings.budget = {"tokens": 20}
    with ScriptedServer(said(given=30, taken=200)) as server:
        llm = llm_at(session, server)
        assert "is exceeded by 210" in llm.ask(PROMPT, max_tokens=5, record="once").notes[0]
        assert llm.ask(PROMPT, max_tokens=5, record="only").notes == ()
    assert "exceeded" not in (tmp_path / "llm.jsonl").read_text()
