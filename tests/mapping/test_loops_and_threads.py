"""Many rows beside each other: in running loops, from threads, gathered, left in the midst; functions that ask."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import HANG, Answer, Received, ScriptedServer, document

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import AuthenticationError, InputError, NotAskedError, OptionError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def said(request: Received) -> str:
    content = request.json["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def echo(request: Received) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": f"you said {said(request)}"}}
    return document({"choices": [{**choice, "finish_reason": "stop"}]})


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(echo) as server:
        yield server


@pytest.fixture
def llm(session: Session, server: ScriptedServer) -> LLM:
    session.registry.add("s", "compatible", base_url=server.url, max_retries=0)
    return LLM("s:m")


def of(letter: str, number: int) -> list[str]:
    return [f"you said {letter} {each}" for each in range(number)]


def test_two_are_gathered(llm: LLM) -> None:
    async def both() -> Any:
        return await asyncio.gather(llm.amap("a {{ item }}", range(30)), llm.amap("b {{ item }}", range(20)))

    one, other = asyncio.run(both())
    assert (one.values, other.values) == (of("a", 30), of("b", 20))


def test_two_are_iterated_over_side_by_side(llm: LLM) -> None:
    async def all_of(letter: str) -> list[Any]:
        outcomes = [each async for each in llm.amap(letter + " {{ item }}", range(30))]
        return [each.value for each in sorted(outcomes, key=lambda each: each.number)]

    async def both() -> Any:
        return await asyncio.gather(all_of("a"), all_of("b"))

    assert asyncio.run(both()) == [of("a", 30), of("b", 30)]


def test_threads_ask_side_by_side(llm: LLM) -> None:
    found: dict[str, Any] = {}

    def ask(letter: str) -> None:
        found[letter] = llm.map(letter + " {{ item }}", range(20)).values

    threads = [threading.Thread(target=ask, args=(letter,)) for letter in "abcd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == {letter: of(letter, 20) for letter in "abcd"}


def test_an_await_that_is_cancelled_closes_what_is_in_flight(llm: LLM, server: ScriptedServer) -> None:
    server.script[:] = [Answer([HANG], raw=True)]

    async def cancelled() -> None:
        async def ask() -> Any:
            return await llm.amap("{{ item }}", range(50), concurrency=3)

        asking = asyncio.ensure_future(ask())
        while len(server.requests) < 3:  # noqa: ASYNC110 - the server is on another thread
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(cancelled())
    assert all(request.left.wait(10) for request in server.requests)
    assert len(server.requests) == 3


@pytest.mark.parametrize("first", ["awaited", "iterated over"])
@pytest.mark.parametrize("second", ["awaited", "iterated over"])
def test_rows_are_not_asked_a_second_time(llm: LLM, server: ScriptedServer, first: str, second: str) -> None:
    if (first, second) == ("iterated over", "iterated over"):
        return  # it goes on, as any generator

    async def use(answers: Any, how: str) -> Any:
        return await answers if how == "awaited" else [each async for each in answers]

    async def twice() -> None:
        answers = llm.amap("{{ item }}", range(3))
        assert len(await use(answers, first)) == 3
        with pytest.raises(InputError, match=f"^The answers of this amap were {first} before."):
            await use(answers, second)

    asyncio.run(twice())
    assert len(server.requests) == 3


def test_an_iteration_goes_on_where_it_was_left(llm: LLM) -> None:
    async def in_parts() -> list[int]:
        answers = llm.amap("{{ item }}", range(6))
        found = []
        async for outcome in answers:
            found.append(outcome.number)
            if len(found) == 2:
                break
        return found + [outcome.number async for outcome in answers]

    assert sorted(asyncio.run(in_parts())) == list(range(6))


def test_what_failed_is_asked_for_again_inside_a_loop(llm: LLM, server: ScriptedServer) -> None:
    broken = True

    def some(request: Received) -> Answer:
        return document({"error": {"message": "no"}}, 500) if broken and said(request) == "1" else echo(request)

    server.script[:] = [some]

    async def ask() -> Any:
        nonlocal broken
        answers = await llm.amap("{{ item }}", range(3), on_error="keep")
        broken = False
        return answers.failed, answers.retry().values

    assert asyncio.run(ask()) == ([1], ["you said 0", "you said 1", "you said 2"])
    assert len(server.requests) == 4


def test_an_asynchronous_function_is_told_nothing_and_so_refused(llm: LLM, server: ScriptedServer) -> None:
    async def tell(progress: object) -> None:
        del progress

    class Teller:
        async def __call__(self, progress: object) -> None:
            del progress

    for each in (tell, Teller()):
        with pytest.raises(OptionError, match=r"^on_progress takes a function that is called, none"):
            llm.map("{{ item }}", [1], on_progress=each)
    assert server.requests == []


def test_a_function_that_makes_the_prompt_may_ask_itself(llm: LLM) -> None:
    answers = llm.map(lambda number: llm.ask(f"first {number}").text, range(5))
    assert answers.values == [f"you said you said first {number}" for number in range(5)]


@pytest.mark.parametrize("kind", ["images", "function", "text"])
def test_there_are_as_many_answers_as_rows_where_not_all_are_asked(llm: LLM, server: ScriptedServer, kind: str) -> None:
    server.script[:] = [document({"error": {"message": "bad key"}}, 401)]
    options: Any = {"images": PNG} if kind == "images" else {}
    prompt: Any = str if kind == "function" else "{{ item }}"
    answers = llm.map(prompt, range(500), on_error="keep", concurrency=2, **options)
    assert len(answers) == 500
    assert {type(error) for error in answers.errors} == {AuthenticationError, NotAskedError}
    assert len(server.requests) < 20
