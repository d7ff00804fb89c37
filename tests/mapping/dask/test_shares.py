"""Shares of a limit: whole, and never more than the limit, whatever comes and goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_magic.mapping.dask.shares import Concurrency, divided, rates_of, shares
from llm_magic.session.portable import PortableSetting, PortableSettings


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_shares_are_whole_even_and_sum_to_the_limit(total: int, number: int) -> None:
    found = shares(total, number)
    assert (sum(found), len(found)) == (total, number)
    assert max(found) - min(found) <= 1


def settings(**provider: object) -> PortableSettings:
    return PortableSettings(
        {"budget": PortableSetting({"cost": 3.0, "requests": 7}, "session")}, {}, {}, {"s": provider}
    )


def test_limits_and_budgets_of_the_workers_sum_to_those_of_the_cluster() -> None:
    data = settings(requests_per_minute=61, tokens_per_minute=1000, budget={"tokens": 5})
    parts = divided(data, 2)
    assert [part.providers["s"] for part in parts] == [
        {"requests_per_minute": 31, "tokens_per_minute": 500, "budget": {"tokens": 3}},
        {"requests_per_minute": 30, "tokens_per_minute": 500, "budget": {"tokens": 2}},
    ]
    assert [part.magics["budget"].value for part in parts] == [
        {"cost": 1.5, "requests": 4},
        {"cost": 1.5, "requests": 3},
    ]
    assert rates_of(data) == {("s", "requests_per_minute"): 61, ("s", "tokens_per_minute"): 1000}


def test_no_limit_stays_none() -> None:
    data = settings(requests_per_minute=0)
    assert rates_of(data) == {}
    assert divided(data, 2)[0].providers["s"] == {"requests_per_minute": 0}


@given(
    st.integers(1, 20), st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.integers(0, 20)), max_size=30)
)
def test_requests_in_flight_never_exceed_the_limit(total: int, happenings: list[tuple[str, bool, int]]) -> None:
    """Workers join and leave; each has at most what it was last told in flight, or what it had before."""
    cluster, present, told, flying = Concurrency(total), set[str](), dict[str, int](), dict[str, int]()
    for worker, joins, number in happenings:
        (present.add if joins else present.discard)(worker)
        for gone in set(told) - present:
            del told[gone], flying[gone]
        told |= cluster.divide(sorted(present))
        for each in present:
            flying.setdefault(each, 0)
            flying[each] = max(told.get(each, 0), min(flying[each], number))  # as many as it may begin
        assert sum(flying.values()) <= total
        for each in present:
            cluster.held(each, flying[each])
        told |= cluster.divide(sorted(present))
    for each in present:  # what was in flight has ended
        cluster.held(each, 0)
    told |= cluster.divide(sorted(present))
    for each in present:
        cluster.held(each, 0)
    told |= cluster.divide(sorted(present))
    assert not present or sum(told.get(each, 0) for each in present) == total
