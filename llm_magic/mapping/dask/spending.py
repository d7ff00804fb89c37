"""The spending of a cluster: what is left of the budgets for its workers, and what they used, entered at the client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magic.budget import EVERYTHING, NOTHING, Amount, Budget, units
from llm_magic.errors import BudgetError
from llm_magic.mapping.rows import Outcome
from llm_magic.metadata import Attempt
from llm_magic.session.portable import PortableSettings
from llm_magic.session.spending import Spending


def with_budgets_left(
    data: PortableSettings, spending: Spending, of_run: Mapping[str, float] | None = None
) -> PortableSettings:
    """Return settings whose budgets are what is left of them here: for workers, who know of nothing used before.

    `of_run` is a budget of the run alone; of both the smaller limit holds.
    """
    of_all: dict[str, Any] = {}
    if "budget" in data.magics and data.magics["budget"].value:
        of_all = _left(data.magics["budget"].value, EVERYTHING, spending)
    for kind, limit in (of_run or {}).items():
        of_all[kind] = min(limit, of_all.get(kind, limit))
    if of_all:
        data = data.with_magics(budget=of_all)
    for name, spec in data.providers.items():
        if spec.get("budget"):
            data = data.with_provider(name, budget=_left(spec["budget"], name, spending))
    return data


def _left(limits: Mapping[str, Any], account: str, spending: Spending) -> dict[str, Any]:
    standing = spending.accounts.standing(account)
    left = {
        kind: max(0, most - getattr(standing.used, kind) - getattr(standing.in_flight, kind))
        for kind, most in Budget("", account, dict(limits)).most.items()
    }
    return {kind: rest / units(1.0) if kind == "cost" else rest for kind, rest in left.items()}


def of_share(error: BudgetError, *, of_run: bool) -> BudgetError:
    """Return the error of a worker whose share is spent as one that names the budget which was divided."""
    message, hint = error.message, error.hint or ""
    if of_run:  # which travels as that of all requests
        message, hint = (each.replace("LLMMagics.budget", "--budget") for each in (message, hint))
        hint = hint.replace(", or count anew: %llm_usage --reset", "")
    of_all = BudgetError(f"A worker's share of a budget is spent. {message}", hint)
    of_all.response = error.response
    return of_all


def account(outcome: Outcome, spending: Spending) -> None:
    """Enter what a worker used for a row, as if it had been asked here; its seconds are those of the worker alone."""
    response = outcome.response
    if response is None:
        return
    by_name: dict[tuple[str, str], list[Attempt]] = {}
    for attempt in response.attempts:
        by_name.setdefault((attempt.provider, attempt.model), []).append(attempt)
    if not by_name:
        by_name = {(response.provider, response.model_reported or response.model): []}
    *others, last = by_name  # the one that answered, where one did
    for name in others:
        spending.ledger.begin(*name)(by_name[name], None, None, answered=False)
    came = response.usage is not None or bool(response.text)
    spending.ledger.begin(*last)(by_name[last], response.usage, response.cost, answered=came)
    spending.ledger.answered(response, *last)
    usage = response.usage
    tokens = 0 if usage is None else usage.input_tokens + usage.output_tokens
    for name in by_name:
        used = Amount(requests=len(by_name[name]))
        if name == last:
            used += Amount(cost=units(response.cost or 0.0), tokens=tokens)
        spending.accounts.reserve((), name[0], NOTHING, "").settle(used)
