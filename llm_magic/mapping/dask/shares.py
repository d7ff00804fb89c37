"""Shares of a limit for the workers of a cluster: whole numbers whose sum is the limit, whoever comes and goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magic.session.portable import PortableSettings

RATES = ("requests_per_minute", "tokens_per_minute")
"""Limits of a provider that are divided among workers."""


def shares(total: int, number: int) -> list[int]:
    """Return `number` whole shares whose sum is `total`; they differ by one at most.

    >>> shares(10, 4), shares(1, 2)
    ([3, 3, 2, 2], [1, 0])

    """
    each, rest = divmod(total, number)
    return [each + (place < rest) for place in range(number)]


def rates_of(data: PortableSettings) -> dict[tuple[str, str], int]:
    """Return the limits a minute that are set, by provider and trait."""
    return {
        (name, trait): int(spec[trait])
        for name, spec in data.providers.items()
        for trait in RATES
        if isinstance(spec.get(trait), int | float) and spec[trait] > 0
    }


def divided(data: PortableSettings, number: int) -> list[PortableSettings]:
    """Return the settings of each of `number` workers, with its share of each limit a minute and of each budget.

    No limit may be less than `number`: a share of 0 would be none.
    """
    parts = [data] * number
    for (name, trait), total in rates_of(data).items():
        given = shares(total, number)
        parts = [part.with_provider(name, **{trait: share}) for part, share in zip(parts, given, strict=True)]
    for name, spec in data.providers.items():
        if spec.get("budget"):
            budgets = _budgets(spec["budget"], number)
            parts = [part.with_provider(name, budget=each) for part, each in zip(parts, budgets, strict=True)]
    if "budget" in data.magics and data.magics["budget"].value:
        budgets = _budgets(data.magics["budget"].value, number)
        parts = [part.with_magics(budget=each) for part, each in zip(parts, budgets, strict=True)]
    return parts


def _budgets(budget: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
    whole = {kind: shares(int(limit), number) for kind, limit in budget.items() if kind != "cost"}
    cost = {"cost": budget["cost"] / number} if "cost" in budget else {}
    return [cost | {kind: given[place] for kind, given in whole.items()} for place in range(number)]


@dataclass
class Concurrency:
    """The requests in flight that each worker may have: never more than `total` of all, whoever comes and goes.

    What a worker gives up is free for others once its requests in flight have ended: it tells by `held`.

    >>> cluster = Concurrency(4)
    >>> cluster.divide(["a"]), cluster.divide(["a", "b"])
    ({'a': 4}, {'a': 2})
    >>> cluster.held("a", 2), cluster.divide(["a", "b"])
    (None, {'b': 2})

    """

    total: int
    _granted: dict[str, int] = field(default_factory=dict)
    _held: dict[str, int] = field(default_factory=dict)

    def divide(self, workers: Iterable[str]) -> dict[str, int]:
        """Return the new shares of those workers whose share changes now; others than `workers` are gone."""
        workers = list(workers)
        for gone in set(self._held) - set(workers):
            del self._granted[gone], self._held[gone]
        if not workers:
            return {}
        aims = dict(zip(workers, shares(self.total, len(workers)), strict=True))
        changed: dict[str, int] = {}
        for worker, aim in aims.items():
            if aim < self._granted.setdefault(worker, 0):
                changed[worker] = self._granted[worker] = aim
        free = self.total - sum(self._held.values())
        for worker, aim in aims.items():
            held = self._held.setdefault(worker, 0)
            granted = min(aim, held + free)  # what it holds is not free, and its own
            if granted > self._granted[worker]:
                changed[worker] = self._granted[worker] = granted
                self._held[worker] = max(held, granted)
                free -= self._held[worker] - held
        return changed

    def held(self, worker: str, number: int) -> None:
        """Take note of the requests that a worker has in flight, or may have."""
        if worker in self._held:
            self._held[worker] = max(number, self._granted[worker])
