"""`--budget` and the estimates of many rows, through `LLM.map`, runs and cells: exact amounts, and requests counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from echo import echo
from kernels import Kernel
from servers import Answer, Received, ScriptedServer, document

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import BudgetError, InvalidValueError, NotAskedError, ServerFailedError
from llm_magic.mapping.inputs.inputs import read_inputs
from llm_magic.mapping.run import RowsRun
from llm_magic.options.reader import parse
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.plan import Cell


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


TEMPLATE = "Name a colour: {{ item }}"


@pytest.fixture
def session() -> Iterator[Session]:
    settings = Settings()
    settings.resume = False
    session = Session(settings, ProviderRegistry(parent=settings))
    api.activate(session)
    yield session
    api.activate(None)
    session.close()


def said(text: str = "blue", given: int = 9, taken: int = 1) -> Answer:
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    return document({"choices": choices, "usage": {"prompt_tokens": given, "completion_tokens": taken}})


def added(session: Session, server: ScriptedServer, **traits: Any) -> LLM:
    session.registry.add("s", "compatible", base_url=server.url, **{"max_retries": 0, **traits})
    return LLM("s:m")


def kinds(answers: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for error in answers.errors:
        name = type(error).__name__ if error is not None else ""
        found[name] = found.get(name, 0) + 1
    return found


def test_dollars_of_a_run(session: Session) -> None:
    with ScriptedServer(said()) as server:
        llm = added(session, server, prices={"m": {"input": 1, "output": 10}})
        answers = llm.map(TEMPLATE, range(400), budget=0.005, max_tokens=10, on_error="keep", concurrency=8)
    # 19 millionths of a dollar a row: as many as leave what one more may take
    sent = len(server.requests)
    spent = sent * 0.000019
    assert 0.005 - 0.0003 < spent <= 0.005
    assert answers.cost == pytest.approx(spent)
    found = kinds(answers)
    assert found[""] == sent
    assert 1 <= found["BudgetError"] <= 8
    assert found["NotAskedError"] == 400 - sent - found["BudgetError"]
    error = next(error for error in answers.errors if isinstance(error, BudgetError))
    assert "(budget=) does not cover this request to s:m" in error.message
    assert error.hint == "Raise budget=, or bound the answer with max_tokens=N."
    last = answers.errors[-1]
    assert isinstance(last, NotAskedError)
    assert "(budget=)" in last.message


def test_the_next_run_has_a_budget_of_its_own(session: Session) -> None:
    with ScriptedServer(said()) as server:
        llm = added(session, server)
        for _ in range(2):
            assert kinds(llm.map(TEMPLATE, range(3), budget={"requests": 3})) == {"": 3}
    assert len(server.requests) == 6


def test_attempts_of_rows_count(session: Session) -> None:
    with ScriptedServer(document({"error": {"message": "busy"}}, 503, {"retry-after": "0"})) as server:
        llm = added(session, server, max_retries=3)
        answers = llm.map(TEMPLATE, range(3), budget={"requests": 6}, on_error="keep", concurrency=1)
    assert len(server.requests) == 6
    assert isinstance(answers.errors[0], ServerFailedError)
    assert isinstance(answers.errors[1], BudgetError)
    assert "another attempt at s:m, of which the last one failed" in answers.errors[1].message


def test_values_that_are_asked_for_again_count(session: Session) -> None:
    def answer(received: Received) -> Answer:
        return said("7" if "colour: 0" in str(received.json["messages"]) else "none")

    with ScriptedServer(answer) as server:
        llm = added(session, server, structured="none")
        answers = llm.map(
            TEMPLATE,
            range(3),
            output_type=int,
            retries_invalid=2,
            budget={"requests": 4},
            on_error="keep",
            concurrency=1,
        )
    assert len(server.requests) == 4
    assert answers.values[0] == 7
    assert isinstance(answers.errors[1], InvalidValueError | BudgetError)
    assert isinstance(answers.errors[2], NotAskedError | BudgetError)


@pytest.mark.parametrize("tools", [{}, {"tools": [add]}])
def test_a_budget_of_dollars_needs_a_price_before_anything_is_sent(session: Session, tools: dict[str, Any]) -> None:
    with ScriptedServer(said()) as server:
        llm = added(session, server)
        with pytest.raises(BudgetError) as caught:
            llm.map(TEMPLATE, range(3), budget=2.5, on_error="keep", **tools)
    assert server.requests == []
    assert caught.value.message.startswith("The budget of $2.50 (budget=) needs a price for s:m ")
    assert caught.value.hint.endswith('Or budget tokens: budget={"tokens": N}.')


# Dry runs


def preview(session: Session, line: str, rows: Any, body: str = TEMPLATE) -> tuple[str, ...]:
    cell = Cell(body, parse(f"-m s:m --each rows --dry-run --once {line}")[0], {"rows": rows})
    return session.loop.run(RowsRun(session, cell, read_inputs(rows, "rows")).preview()).notes


def test_a_dry_run_says_what_all_would_take(session: Session) -> None:
    with ScriptedServer(said()) as server:
        added(session, server, prices={"m": {"input": 1, "output": 10}})
        assert preview(session, "--max-tokens 10 -s Short.", ["a", "a", "b"])[:4] == (
            "This is the request of the first row.",
            "3 rows, 2 different prompts: 3 requests to send; --dedup sends equal ones once.",
            "About 42 tokens in, at most 30 out.",
            "Price: about $0.000042 for the prompts, at most $0.00034 in all.",
        )
        assert preview(session, "--max-tokens 10 --dedup", ["a", "a", "b"])[1] == (
            "3 rows, 2 different prompts: 2 requests to send."
        )
        assert preview(session, "--sample 2", ["a", "a", "b"])[1] == "2 rows, 2 different prompts: 2 requests to send."
        assert preview(session, "", iter(["a"]))[1] == "How many rows there are is not known: what follows is of one."
        assert preview(session, "--budget $1", ["a"])[-1].startswith(
            "Left of --budget: $1.00 of $1.00, and it may take"
        )
    assert server.connections == 0


def test_a_dry_run_of_many_rows_looks_at_some(session: Session) -> None:
    with ScriptedServer(said()) as server:
        added(session, server)
        notes = preview(session, "-t 0", [f"{number:06}" for number in range(50_000)])
    assert notes[1] == "50,000 rows, 1,000 of 1,000 prompts are different: 50,000 requests to send."
    assert ", as in 1,000 rows spread over all, as many out as the model writes." in notes[2]
    assert notes[3].startswith("No price is known. Set it, in US dollars per million tokens: %llm_config s.prices = ")


def test_a_dry_run_says_which_prompts_cannot_be_made(session: Session) -> None:
    with ScriptedServer(said()) as server:
        added(session, server)
        notes = preview(session, "", [{"n": 1}, {"n": 0}, {"n": 2}], "{{ 4 / n }}")
    assert next(note for note in notes if "cannot be made" in note).startswith(
        "1 prompt cannot be made, the first of row 1: "
    )


def test_in_a_cell() -> None:
    with echo() as server, Kernel() as kernel:
        kernel.run("%load_ext llm_magic\nrows = [f'{n:03}' for n in range(200)]").check()
        kernel.run(
            f"get_ipython()._llm_magic.registry.add('s', 'compatible', base_url={server.url!r}, max_retries=0)"
        ).check()
        dry = kernel.run("%%llm -m s:m --each rows --dry-run -o x\nSAY {{ item }}")
        dry.check()
        shown = dry.stdout + "".join(dry.of_type("text/plain"))
        assert "200 rows, 200 different prompts: 200 requests to send." in shown
        assert "x is not bound" in shown
        assert [request for request in server.requests if request.method == "POST"] == []
        sample = kernel.run("%%llm -m s:m --each rows --sample 5 -o x\nSAY {{ item }}")
        sample.check()
        assert len(server.requests) == 5
        shown = sample.stdout + "".join(sample.of_type("text/plain"))
        assert "A sample of 5 rows: " in shown
        assert "; all 200: " in shown
        assert "at 16 at once." in shown
        assert "x is not bound." in shown
