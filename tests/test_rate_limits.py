"""Rate limits: no minute holds more than is allowed, little of it is wasted, and what servers say is obeyed by all."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import virtual_time
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llm_magic.config.settings import Settings
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.rate_limits import ANSWER, AT_ONCE, MINUTE, SLACK, EndpointLimits, MinuteLimit, RateLimits

Work = Callable[[RateLimits], Coroutine[Any, Any, Any]]


def most_in_a_minute(taken: list[tuple[float, int]]) -> int:
    """Return the most that any 60 s hold, both ends included."""
    return max(
        (sum(amount for moment, amount in taken if begin <= moment <= begin + MINUTE) for begin, _ in taken), default=0
    )


def spend(limit: MinuteLimit, gaps: list[float], amounts: list[int]) -> list[tuple[float, int]]:
    """Take the amounts as soon as each may be taken, the next one a gap after the last; return when each was."""
    now, taken = 0.0, []
    for gap, amount in zip(gaps, amounts, strict=False):
        now += gap
        while wait := limit.wait(now, amount):
            now += wait
        limit.take(now, amount)
        taken.append((now, amount))
    return taken


# One limit


@given(
    st.integers(1, 90), st.integers(0, 10), st.lists(st.sampled_from([0.0, 0.01, 1.0, 7.3, 59.9, 61.5]), max_size=200)
)
def test_no_minute_holds_more_requests_than_are_allowed(most: int, at_once: int, gaps: list[float]) -> None:
    assert most_in_a_minute(spend(MinuteLimit(most, at_once), gaps, [1] * len(gaps))) <= most


@given(
    st.integers(100, 1000),
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 20.0, 61.5]), st.integers(0, 100)), max_size=100),
)
def test_no_minute_holds_more_tokens_than_are_allowed(most: int, asked: list[tuple[float, int]]) -> None:
    gaps, amounts = [gap for gap, _ in asked], [amount for _, amount in asked]
    assert most_in_a_minute(spend(MinuteLimit(most), gaps, amounts)) <= most


@pytest.mark.parametrize("most", [1, 3, 7, 60, 500, 3001])
def test_nearly_all_that_is_allowed_is_used(most: int) -> None:
    limit, now, sent = MinuteLimit(most, AT_ONCE), 0.0, 0
    while now < 10 * MINUTE:
        wait = limit.wait(now, 1)
        if not wait:
            limit.take(now, 1)
            sent += 1
        now += wait
    assert 0.97 * 10 * most <= sent <= 10 * most
    assert MINUTE / (MINUTE + SLACK) > 0.97  # in the long run, too


def test_a_few_go_at_once_and_the_others_evenly() -> None:
    moments = [moment for moment, _ in spend(MinuteLimit(60, AT_ONCE), [0.0] * 62, [1] * 62)]
    assert moments[:6] == [0.0] * 6  # a tenth
    assert moments[6:60] == pytest.approx(list(range(1, 55)))
    assert moments[60:] == pytest.approx([MINUTE + SLACK] * 2)


def test_more_tokens_than_a_minute_allows_have_a_minute_of_their_own() -> None:
    assert spend(MinuteLimit(100), [0.0] * 3, [10, 500, 10]) == [
        (0.0, 10),
        (MINUTE + SLACK, 500),
        (2 * (MINUTE + SLACK), 10),
    ]


def test_what_was_not_taken_after_all_is_free_again() -> None:
    limit = MinuteLimit(100)
    spent = limit.take(0.0, 100)
    assert limit.wait(0.0, 100) == MINUTE + SLACK
    limit.correct(spent, 10)
    assert limit.wait(0.0, 90) == pytest.approx(6.0)  # evenly spread
    assert limit.wait(6.0, 90) == 0
    limit.wait(100.0, 1)
    limit.correct(spent, 1000)  # its minute is over
    assert limit.wait(100.0, 100) == 0


def test_what_was_sent_later_than_it_was_taken_counts_from_then_on() -> None:
    limit = MinuteLimit(1)
    spent = limit.take(0.0, 1)
    limit.redate(spent, 20.0)
    limit.redate(spent, 10.0)
    assert limit.wait(61.5, 1) == 20.0
    assert limit.wait(81.5, 1) == 0.0


# All requests of an endpoint


def simulate(work: Work, requests: int = 0, tokens: int = 0) -> Any:
    async def main() -> Any:
        return await work(RateLimits("vllm", requests, tokens, clock=asyncio.get_running_loop().time))

    return virtual_time.run(main())


async def moments_of(limits: RateLimits, turns: int, tokens: int = 0) -> list[float]:
    """Return when each of some requests that are made at once has its turn, in the order of asking."""
    loop, moments = asyncio.get_running_loop(), [math.nan] * turns

    async def one(number: int) -> None:
        await limits.turn(tokens)
        moments[number] = loop.time()

    await asyncio.gather(*(one(number) for number in range(turns)))
    return moments


def test_without_a_limit_nothing_waits() -> None:
    async def work(limits: RateLimits) -> None:
        turn = limits.turn(1000)
        with pytest.raises(StopIteration):  # it does not await anything
            turn.send(None)
        assert await moments_of(limits, 1000) == [0.0] * 1000
        assert limits.waiting == limits.line() == ""

    simulate(work)


def test_turns_are_in_the_order_of_asking() -> None:
    async def work(limits: RateLimits) -> None:
        moments = await moments_of(limits, 30)
        assert moments == sorted(moments)
        assert moments[:5] == [0.0] * 5
        assert moments[5:12] == pytest.approx([6.0 * number for number in range(1, 6)] + [MINUTE + SLACK] * 2)
        assert most_in_a_minute([(moment, 1) for moment in moments]) == 10

    simulate(work, requests=10)


def test_who_leaves_the_queue_takes_no_turn() -> None:
    async def work(limits: RateLimits) -> None:
        for _ in range(5):
            await limits.turn()
        first, second, third = (asyncio.ensure_future(limits.turn()) for _ in range(3))
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.sleep(0)
        third.cancel()
        await second
        assert asyncio.get_running_loop().time() == pytest.approx(6.0)  # when the first one would have had its turn
        await limits.turn()
        assert asyncio.get_running_loop().time() == pytest.approx(12.0)

    simulate(work, requests=10)


def test_a_request_that_was_not_sent_gives_its_turn_back() -> None:
    async def work(limits: RateLimits) -> None:
        turns = [await limits.turn() for _ in range(3)]
        assert limits.line()
        turns[1].give_back()
        assert limits.line() == ""
        await limits.turn()
        assert asyncio.get_running_loop().time() == 0

    simulate(work, requests=3)


def test_tokens_that_were_expected_are_corrected_by_those_that_the_server_told() -> None:
    async def work(limits: RateLimits) -> None:
        turn = await limits.turn(1000)
        waiting = asyncio.ensure_future(limits.turn(500))
        await asyncio.sleep(2)
        assert limits.waiting == "waits 60 s: vllm allows 1,000 tokens a minute"
        turn.settle(20)
        await waiting
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)

    simulate(work, tokens=1000)


def test_answers_without_a_bound_are_expected_to_take_what_they_took_lately() -> None:
    limits = RateLimits("vllm")
    assert (limits.expected(10, 5), limits.expected(10, None)) == (15, 10 + ANSWER)
    for _ in range(100):
        limits.learn(40)
    assert limits.expected(10, None) == 50


@pytest.mark.parametrize("told", [10**400, 10**18, -(10**400)])
def test_absurd_numbers_of_tokens_hold_nobody_up_for_longer_than_a_minute(told: int) -> None:
    async def work(limits: RateLimits) -> None:
        loop = asyncio.get_running_loop()
        turn = await limits.turn(max(told, 0))
        turn.settle(told)
        limits.learn(told)
        await limits.turn(limits.expected(max(told, 0), None))
        assert loop.time() <= MINUTE + SLACK
        assert limits.line(1000).count("s: vllm allows") == 1

    simulate(work, tokens=1000)


@hypothesis_settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(0, 400), st.booleans(), st.floats(0, 30), st.sampled_from("ab")),
        min_size=1,
        max_size=60,
    )
)
def test_whoever_comes_and_leaves_when_both_limits_hold(asked: list[tuple[float, int, bool, float, str]]) -> None:
    async def work(limits: RateLimits) -> None:
        loop, sent = asyncio.get_running_loop(), []

        async def one(tokens: int, leaves: bool, patience: float, model: str) -> None:
            try:
                async with asyncio.timeout(patience if leaves else None):
                    await limits.turn(tokens, model)
                sent.append((loop.time(), tokens))
            except TimeoutError:
                pass

        tasks = []
        for gap, tokens, leaves, patience, model in asked:
            await asyncio.sleep(gap)
            tasks.append(asyncio.ensure_future(one(tokens, leaves, patience, model)))
        await asyncio.gather(*tasks)
        assert most_in_a_minute([(moment, 1) for moment, _ in sent]) <= 8
        assert most_in_a_minute(sent) <= 1000
        assert len(sent) >= sum(not leaves for _, _, leaves, _, _ in asked)
        assert limits.waiting == ""

    simulate(work, requests=8, tokens=1000)


# What servers say


@pytest.mark.parametrize("status", [429, 503])
def test_nobody_sends_before_the_moment_that_a_server_asks_for(status: int) -> None:
    async def work(limits: RateLimits) -> None:
        turn = await limits.turn()
        turn.heard(status, {}, 12.0)
        assert limits.line() == f"waits 12 s: vllm asked for that ({status})"
        turn.heard(status, {}, 3.0)  # the longer one holds
        assert await moments_of(limits, 5) == [12.0] * 5
        assert limits.line() == ""

    simulate(work)


@pytest.mark.parametrize("asked", [None, 0.0, -5.0, math.nan, math.inf, 1e9, 121.0, "12"])
def test_a_wait_that_is_none_or_too_long_holds_nobody_up(asked: Any) -> None:
    async def work(limits: RateLimits) -> None:
        turn = await limits.turn()
        turn.heard(429, {}, asked)
        assert await moments_of(limits, 2) == [0.0] * 2

    simulate(work)


def test_another_status_does_not_hold_others_up() -> None:
    async def work(limits: RateLimits) -> None:
        for status in (200, 401, 500, None):
            (await limits.turn()).heard(status, {}, 12.0)
        assert await moments_of(limits, 2) == [0.0] * 2

    simulate(work)


def test_another_model_does_not_wait_for_what_one_is_refused() -> None:
    async def work(limits: RateLimits) -> None:
        (await limits.turn(model="a")).heard(429, {}, 12.0)
        waiting = asyncio.ensure_future(limits.turn(model="a"))
        await limits.turn(model="b")
        assert asyncio.get_running_loop().time() == 0
        await waiting
        assert asyncio.get_running_loop().time() == 12

    simulate(work)


def test_models_share_the_limits_of_a_minute_in_the_order_of_asking() -> None:
    async def work(limits: RateLimits) -> None:
        order: list[str] = []

        async def one(model: str) -> None:
            await limits.turn(model=model)
            order.append(model)

        asked = [*"aaaaa", *"aabacab"]
        await asyncio.gather(*map(one, asked))
        assert order == asked
        assert limits.waiting == ""

    simulate(work, requests=20)


def test_one_who_waits_for_what_a_server_asked_holds_no_other_model_up() -> None:
    async def work(limits: RateLimits) -> None:
        (await limits.turn(model="a")).heard(429, {}, 100.0)
        waiting = asyncio.ensure_future(limits.turn(model="a"))
        await asyncio.sleep(0)
        for _ in range(19):
            await limits.turn(model="b")
        assert asyncio.get_running_loop().time() < 60
        await waiting
        assert asyncio.get_running_loop().time() == pytest.approx(100.0)

    simulate(work, requests=20)


def told(kind: str, left: object, until: str) -> dict[str, str]:
    return {f"x-ratelimit-remaining-{kind}": str(left), f"x-ratelimit-reset-{kind}": until}


def test_no_more_is_sent_than_a_server_says_it_takes() -> None:
    async def work(limits: RateLimits) -> None:
        first = await limits.turn()
        await limits.turn()  # in flight when the server answers the first one
        first.heard(200, told("requests", 3, "20s"))
        assert limits.line() == ""
        assert await moments_of(limits, 4) == [0.0, 0.0, 20.0, 20.0]

    simulate(work)


def test_the_line_of_what_a_server_says() -> None:
    async def work(limits: RateLimits) -> None:
        (await limits.turn(10)).heard(200, told("tokens", 100, "1m0s"))
        assert limits.line(100) == ""
        assert limits.line(101) == "waits 60 s: vllm takes no more tokens until then"
        (await limits.turn(10)).heard(200, told("tokens", 0, "30ms") | told("requests", 0, "6m0s"))
        assert limits.line(1) == ""  # too short to be told; too long to be heeded
        await limits.turn(1)
        assert asyncio.get_running_loop().time() == pytest.approx(0.03)

    simulate(work)


def test_what_was_said_later_holds() -> None:
    async def work(limits: RateLimits) -> None:
        first, second = await limits.turn(), await limits.turn()
        second.heard(200, told("requests", 50, "20s"))
        first.heard(200, told("requests", 0, "20s"))
        assert limits.line() == ""

    simulate(work)


@pytest.mark.parametrize(
    ("left", "until"),
    [("0", "nan"), ("0", "-1"), ("0", "soon"), ("0", "9" * 400), ("-1", "5s"), ("x", "5s"), ("1e3", "5s"), ("0", "")],
)
def test_nonsense_holds_nobody_up(left: str, until: str) -> None:
    async def work(limits: RateLimits) -> None:
        turn = await limits.turn()
        turn.heard(200, told("requests", left, until))
        assert await moments_of(limits, 2) == [0.0] * 2

    simulate(work)


# Settings


def test_other_limits_hold_from_now_on_for_those_who_wait() -> None:
    async def work(limits: RateLimits) -> None:
        loop = asyncio.get_running_loop()
        waiting = asyncio.gather(*(limits.turn() for _ in range(7)))
        await asyncio.sleep(1)
        assert limits.waiting == "waits 60 s: vllm allows 3 requests a minute"
        limits.set(0, 0)
        await waiting
        assert loop.time() == pytest.approx(1.0)

    simulate(work, requests=3)


def test_a_limit_that_is_raised_goes_on_with_what_was_sent() -> None:
    async def work(limits: RateLimits) -> None:
        for _ in range(3):
            await limits.turn()
        limits.set(4, 0)
        await limits.turn()
        assert limits.line().startswith("waits 62 s: vllm allows 4 requests")

    simulate(work, requests=3)


def test_those_ahead_count_in_what_is_said() -> None:
    async def work(limits: RateLimits) -> None:
        tasks = [asyncio.ensure_future(limits.turn()) for _ in range(16)]
        await asyncio.sleep(0)
        assert limits.waiting == "waits 1 s: vllm allows 60 requests a minute"
        assert limits.line() == "waits 11 s: vllm allows 60 requests a minute"
        await asyncio.gather(*tasks)

    simulate(work, requests=60)


def test_an_endpoint_is_a_provider_at_a_host() -> None:
    registry = ProviderRegistry(parent=Settings())
    limits = EndpointLimits()
    one = registry.add("one", "compatible", base_url="http://127.0.0.1:1/v1", requests_per_minute=60)
    other = registry.add("other", "compatible", base_url="http://127.0.0.1:1/v1")
    assert limits.of(one) is limits.of(one)
    assert limits.of(one.at("http://127.0.0.1:1/v2")) is limits.of(one)
    assert limits.of(other) is not limits.of(one)
    assert limits.of(one.at("http://127.0.0.1:2/v1")) is not limits.of(one)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forks beside threads
def test_a_forked_process_does_not_wait_for_those_of_its_parent() -> None:
    async def work(limits: RateLimits) -> None:
        (await limits.turn()).heard(429, {}, 5.0)
        waiting = asyncio.ensure_future(limits.turn())
        await asyncio.sleep(1)
        child = os.fork()
        if child == 0:
            os._exit(0 if limits.waiting == "" else 1)
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - for a moment
        assert os.waitstatus_to_exitcode(status) == 0
        await waiting

    simulate(work)
