"""The pipeline of many rows: how many are in flight, when it stops, what it waits for, and what is left open."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magic.errors import (
    AuthenticationError,
    BudgetError,
    ConnectionFailedError,
    InputError,
    InvalidValueError,
    LLMError,
    NotAskedError,
    ServerFailedError,
)
from llm_magic.mapping import pipeline
from llm_magic.mapping.concurrency import Concurrency, InFlight
from llm_magic.mapping.pipeline import Pipeline, RowSource
from llm_magic.mapping.rows import Outcome, RowRequest
from llm_magic.response import Response


def rows(number: int) -> Iterator[RowRequest]:
    return (RowRequest(each, each, ()) for each in range(number))


def well(row: RowRequest) -> Outcome:
    return Outcome(row.number, Response(value=row.number))


async def all_of(stream: AsyncGenerator[list[Outcome], None]) -> list[Outcome]:
    return [outcome async for batch in stream for outcome in batch]


def run(number: int, ask: Callable[..., object], limit: int = 4, **more: float) -> tuple[Pipeline, list[Outcome]]:
    async def work() -> tuple[Pipeline, list[Outcome]]:
        async def asked(row: RowRequest, _: InFlight) -> Outcome:
            found = ask(row)
            outcome = await found if asyncio.iscoroutine(found) else found
            return outcome if isinstance(outcome, Outcome) else Outcome(row.number, error=outcome)  # type: ignore[arg-type]

        made = Pipeline(RowSource(rows(number), waits=False), asked, Concurrency(limit), **more)
        found = await all_of(made.outcomes())
        return made, sorted(found, key=lambda outcome: outcome.number)

    return asyncio.run(work())


def test_as_many_as_allowed_are_in_flight_and_never_more() -> None:
    now, most = 0, 0

    async def ask(row: RowRequest) -> Outcome:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.001)
        now -= 1
        return well(row)

    _, found = run(50, ask, limit=7)
    assert [outcome.value for outcome in found] == list(range(50))
    assert (now, most) == (0, 7)


def test_no_rows_no_outcomes() -> None:
    made, found = run(0, well)
    assert (found, made.stopped) == ([], None)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 9), st.randoms(use_true_random=False))
def test_whatever_fails_each_row_has_one_outcome(fails: list[bool], limit: int, dice: random.Random) -> None:
    async def ask(row: RowRequest) -> Outcome | LLMError:
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        return InvalidValueError(f"{chr(97 + row.number % 26)}") if fails[row.number] else well(row)

    _, found = run(len(fails), ask, limit)
    assert [outcome.number for outcome in found] == list(range(len(fails)))
    assert [outcome.error is not None for outcome in found] == fails


def test_where_the_first_ten_fail_alike_nothing_more_is_asked() -> None:
    asked = []

    def ask(row: RowRequest) -> LLMError:
        asked.append(row.number)
        return AuthenticationError(f"refused, request {row.number}0f3a9b{row.number:08x}", "Check the key.", status=401)

    made, found = run(1000, ask, limit=1)
    assert asked == list(range(10))
    assert made.stopped is found[9].error
    assert [type(outcome.error) for outcome in found] == [AuthenticationError] * 10 + [NotAskedError] * 990
    assert str(found[500].error) == f"Not asked: {found[9].error.message}\nCheck the key."  # type: ignore[union-attr]


def test_one_that_is_answered_among_the_first_lets_all_be_asked() -> None:
    made, found = run(100, lambda row: well(row) if row.number == 3 else ServerFailedError("down", status=500), limit=1)
    assert made.stopped is None
    assert sum(isinstance(outcome.error, ServerFailedError) for outcome in found) == 99


def test_two_kinds_of_failure_are_not_alike() -> None:
    made, _ = run(100, lambda row: ServerFailedError("ab"[row.number == 4], status=500), limit=1)
    assert made.stopped is None


def test_a_key_that_is_refused_in_the_midst_ends_it() -> None:
    made, found = run(
        100, lambda row: well(row) if row.number < 50 else AuthenticationError("refused", status=401), limit=1
    )
    assert made.stopped is not None
    assert [type(outcome.error) for outcome in found[50:62]] == [AuthenticationError] * 10 + [NotAskedError] * 2


def test_a_spent_budget_ends_it_at_once() -> None:
    _, found = run(100, lambda row: well(row) if row.number < 5 else BudgetError("spent"), limit=1)
    assert [type(outcome.error) for outcome in found[4:8]] == [type(None), BudgetError, NotAskedError, NotAskedError]


def test_an_endpoint_that_is_gone_is_waited_for_by_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(pipeline, "LONGEST_LOOK", 0.01)
    down, asked_while_down = False, 0
    lines = set()

    async def ask(row: RowRequest) -> Outcome | LLMError:
        nonlocal down, asked_while_down
        await asyncio.sleep(0)
        if row.number == 20 and not asked_while_down:
            down = True
        if down:
            asked_while_down += 1
            if asked_while_down == 12:
                down = False
            return ConnectionFailedError("refused")
        return well(row)

    async def work() -> list[Outcome]:
        async def asked(row: RowRequest, _: InFlight) -> Outcome:
            outcome = await ask(row)
            lines.add(made.waiting)
            return outcome if isinstance(outcome, Outcome) else Outcome(row.number, error=outcome)

        made = Pipeline(RowSource(rows(40), waits=False), asked, Concurrency(4))
        return await all_of(made.outcomes())

    found = asyncio.run(work())
    assert sorted(outcome.number for outcome in found) == list(range(40))
    assert all(outcome.error is None for outcome in found)
    assert lines == {"", "waits for an answer again: refused"}


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "FIRST_LOOK", 0.01)
    made, found = run(
        30, lambda row: well(row) if row.number < 10 else ConnectionFailedError("refused"), limit=3, patience=0.05
    )
    assert str(made.stopped) == "refused, and not within 0.05 s after that.\n--patience SECONDS waits longer."
    kinds = [type(outcome.error).__name__ for outcome in found[10:]]
    assert kinds.count("ConnectionFailedError") in {1, 2, 3}
    assert kinds.count("NotAskedError") == 20 - kinds.count("ConnectionFailedError")


def test_an_endpoint_that_never_answered_is_not_waited_for() -> None:
    made, found = run(30, lambda _: ConnectionFailedError("refused"), limit=1)
    assert str(made.stopped) == "refused"
    assert sum(isinstance(outcome.error, NotAskedError) for outcome in found) == 20


def test_rows_of_an_iterator_are_read_as_they_are_needed() -> None:
    read = []

    def slowly() -> Iterator[RowRequest]:
        for row in rows(10_000):
            read.append(row.number)
            yield row

    async def work() -> int:
        async def ask(row: RowRequest, _: InFlight) -> Outcome:
            await asyncio.sleep(0)
            return well(row)

        made = Pipeline(RowSource(slowly(), waits=True), ask, Concurrency(2))
        taken = 0
        async for batch in made.outcomes():
            taken += len(batch)
            if taken >= 100:
                break
        return taken

    taken = asyncio.run(work())
    assert len(read) <= taken + pipeline.AHEAD + 2 * 64 + 2


def test_what_the_input_raises_is_raised_after_the_rows_before() -> None:
    def breaks() -> Iterator[RowRequest]:
        yield from rows(5)
        raise InputError("the input raised ValueError")

    async def work() -> list[int]:
        async def ask(row: RowRequest, _: InFlight) -> Outcome:
            return well(row)

        found: list[int] = []
        with suppress(InputError):
            async for batch in Pipeline(RowSource(breaks(), waits=True), ask, Concurrency(2)).outcomes():
                found += [outcome.number for outcome in batch]
            pytest.fail("nothing was raised")
        return found

    assert sorted(asyncio.run(work())) == [0, 1, 2, 3, 4]


def test_whoever_takes_outcomes_slowly_sees_the_end() -> None:
    """The last rows end, and their workers, while those before are taken."""

    async def ask(row: RowRequest, _: InFlight) -> Outcome:
        await asyncio.sleep(0)
        return well(row)

    async def slowly() -> int:
        found = 0
        pipe = Pipeline(RowSource(rows(20), waits=False), ask, Concurrency(2))
        async for batch in pipe.outcomes():
            found += len(batch)
            for _turn in range(500):
                await asyncio.sleep(0)
        return found

    assert asyncio.run(asyncio.wait_for(slowly(), 20)) == 20


def test_leaving_it_closes_what_is_in_flight() -> None:
    async def work() -> tuple[int, int]:
        closed, flying = 0, asyncio.Event()

        async def ask(row: RowRequest, _: InFlight) -> Outcome:
            nonlocal closed
            if row.number < 3:
                return well(row)
            if made.in_flight == 5:
                flying.set()
            try:
                await asyncio.sleep(60)
            finally:
                closed += 1
            raise AssertionError

        made = Pipeline(RowSource(rows(100), waits=False), ask, Concurrency(5))
        stream = made.outcomes()
        await anext(stream)
        await asyncio.wait_for(flying.wait(), 5)
        await stream.aclose()
        return closed, made.in_flight

    assert asyncio.run(work()) == (5, 0)


def test_the_number_in_flight_follows_what_is_allowed() -> None:
    class Growing(Concurrency):
        def heed_end(self, answered: bool) -> None:
            super().heed_end(answered)
            self.allowed = 8 if self.allowed == 1 else self.allowed

    now, most = 0, 0

    async def work() -> int:
        async def ask(row: RowRequest, _: InFlight) -> Outcome:
            nonlocal now, most
            now, most = now + 1, max(most, now + 1)
            await asyncio.sleep(0.001)
            now -= 1
            return well(row)

        return len(await all_of(Pipeline(RowSource(rows(100), waits=False), ask, Growing(1)).outcomes()))

    assert asyncio.run(work()) == 100
    assert most == 8


@given(st.lists(st.integers(0, 3), max_size=12), st.randoms(use_true_random=False))
def test_whoever_takes_outcomes_slowly_hears_of_the_end(put: list[int], dice: random.Random) -> None:
    async def work() -> list[int]:
        async def ask(row: RowRequest, _: InFlight) -> Outcome:
            for _turn in range(dice.randrange(3)):
                await asyncio.sleep(0)
            return well(row)

        made = Pipeline(RowSource(rows(6), waits=False), ask, Concurrency(2))
        known, found = iter(range(100, 200)), []

        async def put_known() -> None:
            for count in put:
                made.put([Outcome(next(known)) for _ in range(count)])
                await asyncio.sleep(0)

        putting = asyncio.ensure_future(put_known())
        async with asyncio.timeout(5):
            async for batch in made.outcomes():
                found += [outcome.number for outcome in batch]
                for _turn in range(dice.randrange(8)):  # rows end, and workers, while nobody takes anything
                    await asyncio.sleep(0)
        await putting
        return sorted(each for each in found if each < 100)

    assert asyncio.run(work()) == list(range(6))


@pytest.mark.parametrize("limit", [1, 3])
def test_a_row_that_was_read_is_asked_while_its_iterator_waits_for_the_answer(limit: int) -> None:
    answered = threading.Semaphore(0)

    def waits() -> Iterator[RowRequest]:
        for row in rows(150):
            yield row
            assert answered.acquire(timeout=10), "the row is not asked"

    async def work() -> list[int]:
        async def ask(row: RowRequest, _: InFlight) -> Outcome:
            answered.release()
            return well(row)

        made = Pipeline(RowSource(waits(), waits=True, ends=False), ask, Concurrency(limit))
        return [outcome.number for outcome in await all_of(made.outcomes())]

    assert asyncio.run(work()) == list(range(150))


def test_all_that_wait_for_an_iterator_have_a_row_when_it_goes_on() -> None:
    goes_on, flying = threading.Event(), 0

    def pauses() -> Iterator[RowRequest]:
        yield from rows(3)
        assert goes_on.wait(10)
        yield from (RowRequest(number, number, ()) for number in range(3, 200))

    async def work() -> list[int]:
        nonlocal flying
        all_fly = asyncio.Event()

        async def ask(row: RowRequest, _: InFlight) -> Outcome:
            nonlocal flying
            flying += 1
            if flying == 3:
                goes_on.set()
            if flying == 8:
                all_fly.set()
            await asyncio.wait_for(all_fly.wait(), 10)
            return well(row)

        made = Pipeline(RowSource(pauses(), waits=True, ends=False), ask, Concurrency(8))
        return sorted(outcome.number for outcome in await all_of(made.outcomes()))

    assert asyncio.run(work()) == list(range(200))


@pytest.mark.parametrize("pause_after", [10, 12])
def test_an_iterator_that_pauses_holds_up_no_stop(pause_after: int) -> None:
    never = threading.Event()

    def pauses() -> Iterator[RowRequest]:
        yield from rows(pause_after)
        never.wait(10)

    async def work() -> tuple[Pipeline, list[Outcome]]:
        async def ask(_row: RowRequest, _: InFlight) -> Outcome:
            return Outcome(_row.number, error=AuthenticationError("refused", status=401))

        made = Pipeline(RowSource(pauses(), waits=True, ends=False), ask, Concurrency(1))
        async with asyncio.timeout(5):
            return made, await all_of(made.outcomes())

    try:
        made, found = asyncio.run(work())
    finally:
        never.set()
    assert made.stopped is not None
    assert [outcome.number for outcome in found] == list(range(pause_after))
    assert sum(isinstance(outcome.error, NotAskedError) for outcome in found) == pause_after - 10


@pytest.mark.parametrize("waits", [True, False])
def test_of_what_ends_all_rows_have_an_outcome_after_a_stop(waits: bool) -> None:
    async def work() -> list[Outcome]:
        async def ask(row: RowRequest, _: InFlight) -> Outcome:
            await asyncio.sleep(0)
            return Outcome(row.number, error=AuthenticationError("refused", status=401))

        return await all_of(Pipeline(RowSource(rows(30_000), waits=waits), ask, Concurrency(4)).outcomes())

    found = asyncio.run(work())
    assert [outcome.number for outcome in found] == list(range(30_000))
    assert sum(isinstance(outcome.error, AuthenticationError) for outcome in found) < 15
