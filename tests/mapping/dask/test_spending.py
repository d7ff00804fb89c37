"""What workers used counts here as if it had been asked here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from echo import echo
from servers import Received, ScriptedServer, chunk, document, stream

from llm_magic import LLM
from llm_magic.budget import EVERYTHING
from llm_magic.config.settings import Settings
from llm_magic.ledger import Ledger
from llm_magic.mapping.dask.spending import account, with_budgets_left
from llm_magic.mapping.rows import Outcome
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.portable import portable
from llm_magic.session.spending import Spending


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    yield session
    session.close()


def ask(session: Session, model: str, prompt: str) -> Outcome:
    llm = LLM(model)
    llm._session = lambda: session
    return Outcome(0, asyncio.run(llm.aask(prompt)))


def test_the_ledger_and_the_accounts_are_those_of_the_worker(session: Session) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    told = stream(chunk("yes"), {**chunk(finish="stop"), "usage": usage})
    failed = document({"error": {"message": "busy"}}, 503, {"retry-after": "0"})
    prices = {"m": {"input": 1, "output": 10}}
    with ScriptedServer(failed, told) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=1, prices=prices)
        outcome = ask(session, "s:m", "Hi")
    there, here = session.spending, Spending(Settings(), Ledger())
    account(outcome, here)
    (ours,), (theirs,) = here.ledger.rows(), there.ledger.rows()
    assert (ours.requests, ours.failed, ours.answers, ours.input_tokens, ours.cost) == (2, 1, 1, 7, 27e-6)
    names = ("provider", "model", "answers", "requests", "failed", "input_tokens", "output_tokens", "cost", "uncounted")
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]
    for name in (EVERYTHING, "s"):
        assert here.accounts.standing(name).used == there.accounts.standing(name).used


def test_a_row_without_a_response_used_nothing() -> None:
    here = Spending(Settings(), Ledger())
    account(Outcome(0, None), here)
    assert here.ledger.rows() == ()


def test_workers_have_what_is_left_of_the_budgets(session: Session) -> None:
    def answer(_request: Received) -> object:
        return stream(chunk("yes"), {**chunk(finish="stop"), "usage": {"prompt_tokens": 7, "completion_tokens": 2}})

    with ScriptedServer(answer) as server:
        session.registry.add("s", "compatible", base_url=server.url, budget={"requests": 1})
        ask(session, "s:m", "Hi")
    session.settings.budget = {"tokens": 100, "cost": 0.5}
    data = with_budgets_left(portable(session.settings, session.registry, ["s:m"]), session.spending)
    assert data.magics["budget"].value == {"tokens": 91, "cost": 0.5}
    assert data.providers["s"]["budget"] == {"requests": 0}


def test_without_budgets_nothing_changes(session: Session) -> None:
    with echo() as server:
        session.registry.add("s", "compatible", base_url=server.url)
        data = portable(session.settings, session.registry, ["s:m"])
    assert with_budgets_left(data, session.spending) == data
