"""Requests in flight: a fixed number, or the one that serves best, against servers whose time is simulated."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pytest
import virtual_time
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.mapping.concurrency import FIRST, MOST, Concurrency, most_in_flight, share


@dataclass
class Server:
    """Answers so many at once, in 100 to 400 ms; more than that wait in a queue, or are refused."""

    places: int
    refuses: bool
    retry_after: float | None = None
    busy: int = 0
    answered: int = 0
    refused: int = 0


async def run_against(server: Server, concurrency: Concurrency, *, seconds: float, rest: float = 0.0) -> float:
    """Keep `allowed` requests in flight; return the answers a second after the first `rest` seconds."""
    loop, chance, queue = asyncio.get_running_loop(), random.Random(7), asyncio.Semaphore(server.places)  # noqa: S311 - no secret
    workers: set[asyncio.Future[None]] = set()
    counted = 0

    async def serve() -> bool:
        if server.refuses and server.busy >= server.places:
            server.refused += 1
            await asyncio.sleep(0.005)
            return False
        async with queue:
            server.busy += 1
            await asyncio.sleep(chance.uniform(0.1, 0.4))
            server.busy -= 1
        return True

    async def work() -> None:
        nonlocal counted
        while loop.time() < seconds and len(workers) <= concurrency.allowed:
            request, number = concurrency.begin(), 0
            while not await serve():
                request.refused(server.retry_after)
                wait = 0.5 * 2.0 ** min(number, 4) * (1 - chance.random() / 4)
                await asyncio.sleep(server.retry_after or wait)
                number += 1
            request.end()
            counted += loop.time() >= rest
            fill()

    def fill() -> None:
        while len(workers) < concurrency.allowed:
            worker = asyncio.ensure_future(work())
            workers.add(worker)
            worker.add_done_callback(workers.discard)

    fill()
    await asyncio.sleep(seconds)
    for worker in list(workers):
        worker.cancel()
    return counted / (seconds - rest)


def speed(server: Server, limit: int | None, *, seconds: float, rest: float = 0.0) -> tuple[float, Concurrency]:
    async def main() -> tuple[float, Concurrency]:
        clock = asyncio.get_running_loop().time
        concurrency = Concurrency("auto" if limit is None else limit, most=MOST, clock=clock)
        return await run_against(server, concurrency, seconds=seconds, rest=rest), concurrency

    return virtual_time.run(main())


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("places", [8, 64])
def test_the_number_that_is_found_is_within_a_tenth_of_the_best_fixed_one(places: int, refuses: bool) -> None:
    best, _ = speed(Server(places, refuses), places, seconds=20)
    server = Server(places, refuses)
    found, concurrency = speed(server, None, seconds=50, rest=30)
    assert found >= 0.9 * best
    if refuses:
        assert concurrency.allowed == places  # just below the level that was refused
        assert server.refused < 100  # of several thousand
    assert concurrency.allowed <= 4 * places


def test_a_fixed_number_stays_so_whatever_comes() -> None:
    server = Server(4, refuses=True)
    _, concurrency = speed(server, 6, seconds=10)
    assert concurrency.allowed == 6
    assert server.refused > 0


def test_a_refusal_drops_by_a_tenth_once_for_all_that_were_in_flight() -> None:
    now = [0.0]
    concurrency = Concurrency(most=512, clock=lambda: now[0])
    requests = [concurrency.begin() for _ in range(FIRST)]
    now[0] = 1.0
    for request in reversed(requests):
        request.refused(retry_after=2.0)
    assert concurrency.allowed == 14
    for request in requests:
        request.refused(retry_after=2.0)
        request.end()
    assert (concurrency.allowed, concurrency.in_flight) == (14, 0)


def test_refusals_by_the_minute_do_not_collapse_it() -> None:
    server = Server(0, refuses=True, retry_after=5.0)
    _, concurrency = speed(server, None, seconds=30)  # all is refused, six times
    assert server.refused > 20
    assert concurrency.allowed >= 4


def test_what_is_refused_by_chance_is_tried_again() -> None:
    async def main() -> Concurrency:
        concurrency = Concurrency(most=512, clock=asyncio.get_running_loop().time)
        request = concurrency.begin()
        request.refused()
        request.end()
        await run_against(Server(64, refuses=False), concurrency, seconds=120)
        return concurrency

    assert virtual_time.run(main()).allowed >= 60


def test_what_fails_or_comes_slowly_does_not_make_it_grow() -> None:
    now = [0.0]
    concurrency = Concurrency(clock=lambda: now[0])
    for _ in range(1000):
        request = concurrency.begin()
        now[0] += 0.1
        request.end(answered=False)
    assert concurrency.allowed == FIRST
    for _ in range(1000):  # one after the other: more would not be in flight
        request = concurrency.begin()
        now[0] += 0.1
        request.end()
        request.end()
    assert (concurrency.allowed, concurrency.in_flight) == (FIRST, 0)


@given(st.lists(st.tuples(st.sampled_from(["begin", "refuse", "end", "fail"]), st.floats(0, 30)), max_size=300))
def test_it_stays_between_one_and_the_bound(events: list[tuple[str, float]]) -> None:
    now, requests = [0.0], []
    concurrency = Concurrency(most=40, clock=lambda: now[0])
    for what, seconds in events:
        now[0] += seconds
        if what == "begin" or not requests:
            requests.append(concurrency.begin())
        elif what == "refuse":
            requests[0].refused(seconds if seconds > 15 else None)
        else:
            requests.pop(0).end(answered=what == "end")
        assert 1 <= concurrency.allowed <= 40
        assert concurrency.in_flight == len(requests)


def test_more_than_can_be_open_are_not_in_flight_and_that_is_said() -> None:
    concurrency = Concurrency(1000, most=300)
    assert concurrency.allowed == 300
    assert concurrency.note == "At most 300 requests are in flight here, not 1,000."
    assert Concurrency(300, most=300).note == ""
    assert 1 <= most_in_flight() <= MOST


def test_few_files_allow_few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert most_in_flight() == 192
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    assert most_in_flight() == 1
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert most_in_flight() == MOST


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_a_limit_is_shared_exactly(limit: int, workers: int) -> None:
    parts = share(limit, workers)
    assert len(parts) == workers
    assert sum(parts) == limit
    assert max(parts) - min(parts) <= 1
