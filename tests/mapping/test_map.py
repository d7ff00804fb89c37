"""`LLM.map` and `LLM.amap`: one prompt over many inputs from Python, each row asked as `LLM.ask` would ask it."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from pydantic import BaseModel
from servers import HANG, Answer, Received, ScriptedServer, document

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import (
    AuthenticationError,
    BudgetError,
    InputError,
    Interrupted,
    InvalidValueError,
    NotAskedError,
    OptionError,
    PromptError,
    RowsFailedError,
    ServerFailedError,
)
from llm_magic.mapping import pipeline, requests
from llm_magic.mapping.inputs.row_prompt import RowPrompt
from llm_magic.mapping.rows import Row, RowRequest
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.recordings import Recordings
from llm_magic.response import Response
from llm_magic.session import Session


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def llm_at(session: Session, server: ScriptedServer, name: str = "s", **settings: object) -> LLM:
    session.registry.add(name, "compatible", base_url=server.url, max_retries=0, **settings)
    return LLM(f"{name}:m")


def said(request: Received) -> str:
    content = request.json["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def completion(text: str, **usage: int) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    counted = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, **usage}
    return document({"id": "c1", "model": "m-1", "choices": [choice], "usage": counted}, headers={"x-request-id": "r1"})


def echo(request: Received) -> Answer:
    return completion(f"you said {said(request)}")


def refused(status: int, message: str = "no") -> Answer:
    return document({"error": {"message": message}}, status=status)


def asked(server: ScriptedServer) -> list[str]:
    return sorted(map(said, server.requests))


# What comes back


def test_values_are_in_the_order_of_the_inputs_and_as_many(session: Session) -> None:
    def slower_first(request: Received) -> Answer:
        answer = echo(request)
        answer.steps.insert(0, 0.05 if said(request) == "0" else 0.0)
        return answer

    with ScriptedServer(slower_first) as server:
        answers = llm_at(session, server).map("{{ item }}", range(30))
    assert answers.values == [f"you said {number}" for number in range(30)]
    assert (len(answers), answers.failed, answers[3]) == (30, [], "you said 3")
    assert (answers.usage.input_tokens, answers.usage.output_tokens) == (210, 90)


def test_a_frame_gives_its_columns_to_the_template_and_its_index_to_the_answers(session: Session) -> None:
    frame = pd.DataFrame({"text": ["good", "bad"], "stars": [5, 1]}, index=["x", "y"])
    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map("{{ index }}: {{ text }} {{ stars }} {{ row.text }}", frame)
    assert answers.values == ["you said x: good 5 good", "you said y: bad 1 bad"]
    assert answers.to_frame().index.tolist() == ["x", "y"]


def test_no_inputs_no_requests(session: Session) -> None:
    with ScriptedServer(echo) as server:
        assert llm_at(session, server).map("{{ item }}", []).values == []
    assert server.requests == []


def test_values_are_validated_and_typed(session: Session) -> None:
    class City(BaseModel):
        name: str
        people: int

    with ScriptedServer(lambda request: completion(json.dumps({"name": said(request)[0], "people": 7}))) as server:
        answers = llm_at(session, server).map("{{ item }}", ["Oslo", "Rome"], output_type=City)
    assert answers.values == [City(name="O", people=7), City(name="R", people=7)]
    assert answers.to_frame().dtypes.map(str).to_dict() == {"name": "str", "people": "int64"}


def test_each_row_is_asked_as_ask_would(session: Session) -> None:
    options: Any = {"temperature": 0.5, "max_tokens": 9, "system": "Be brief.", "choices": ["you said a", "b"]}
    with ScriptedServer(echo) as server:
        llm = llm_at(session, server)
        (of_map,) = llm.map("{{ item }}", ["a"], **options).responses
        of_ask = llm.ask("a", no_stream=True, **options)
    first, second = (request.json for request in server.requests)
    assert first == second
    headers = [
        {name: value for name, value in request.headers.items() if name not in _OF_TRANSPORT}
        for request in server.requests
    ]
    assert headers[0] == headers[1]
    assert of_map is not None
    differing = {item.name for item in fields(Response) if getattr(of_map, item.name) != getattr(of_ask, item.name)} - {
        "seconds",
        "first_token_seconds",
        "attempts",
    }
    assert differing == set()


_OF_TRANSPORT = ("accept-encoding", "x-stainless-read-timeout", "connection")


# Failures


def test_a_row_that_fails_is_an_error_among_values(session: Session) -> None:
    def some(request: Received) -> Answer:
        return refused(500, "broken") if said(request) in {"3", "5"} else echo(request)

    with ScriptedServer(some) as server, pytest.raises(RowsFailedError) as caught:
        llm_at(session, server).map("{{ item }}", range(8))
    answers = caught.value.answers
    assert caught.value.message == "2 of 8 failed: 2 ServerFailedError; answers.retry() asks for those."
    assert answers.failed == [3, 5]
    assert [type(error) for error in answers.errors if error is not None] == [ServerFailedError] * 2
    assert answers.values[2:6] == ["you said 2", None, "you said 4", None]
    assert answers.errors[3].__traceback__ is None


def test_errors_may_be_kept_as_values_and_asked_for_again(session: Session) -> None:
    broken = True

    def some(request: Received) -> Answer:
        return refused(500) if broken and said(request) == "1" else echo(request)

    with ScriptedServer(some) as server:
        answers = llm_at(session, server).map("{{ item }}", [0, 1, 2], on_error="keep")
        assert (answers.failed, len(server.requests)) == ([1], 3)
        broken = False
        again = answers.retry()
    assert (again.values, again.failed) == (["you said 0", "you said 1", "you said 2"], [])
    assert len(server.requests) == 4
    assert answers.failed == [1]


def test_a_refused_key_ends_it_after_ten(session: Session) -> None:
    with ScriptedServer(lambda _: refused(401, "bad key")) as server:
        answers = llm_at(session, server).map("{{ item }}", range(500), on_error="keep", concurrency=2)
    assert 10 <= len(server.requests) <= 12
    assert {type(error) for error in answers.errors} == {AuthenticationError, NotAskedError}
    last = answers.errors[-1]
    assert last is not None
    assert last.message == f"Not asked: s:m ({server.url}) answered 401: bad key"


def test_an_unknown_name_fails_before_anything_is_sent(session: Session) -> None:
    with ScriptedServer(echo) as server:
        llm = llm_at(session, server)
        with pytest.raises(PromptError, match="names 'txt'"):
            llm.map("{{ txt }}", pd.DataFrame({"text": ["a"]}))
    assert server.requests == []


def test_a_row_that_cannot_be_rendered_fails_alone(session: Session) -> None:
    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map("{{ 10 // item }}", [1, 0, 2], on_error="keep")
    assert answers.values == ["you said 10", None, "you said 5"]
    assert type(answers.errors[1]) is PromptError
    assert len(server.requests) == 2


def test_text_of_a_row_is_no_template(session: Session) -> None:
    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map("{{ item }}", ["{{ 1 + 1 }}"])
    assert answers.values == ["you said {{ 1 + 1 }}"]


def test_an_invalid_value_is_asked_for_again_with_the_reason(session: Session) -> None:
    def sloppy(request: Received) -> Answer:
        first = len(request.json["messages"]) == 1
        return completion("many" if first and "b" in said(request) else "7")

    with ScriptedServer(sloppy) as server:
        answers = llm_at(session, server).map("{{ item }}", ["a", "b"], output_type=int)
    assert answers.values == [7, 7]
    assert [len(request.json["messages"]) for request in server.requests] in ([1, 1, 3], [1, 1, 3])
    response = answers.responses[1]
    assert response is not None
    assert response.usage is not None
    assert (response.usage.input_tokens, len(response.attempts)) == (14, 2)
    assert "Not valid" in response.notes[0]


def test_a_value_that_stays_invalid_is_the_row_s_error_and_its_text_is_kept(session: Session) -> None:
    def sloppy(request: Received) -> Answer:
        return completion("7" if request.json["messages"][0]["content"].startswith("a") else "many")

    with ScriptedServer(sloppy) as server:
        answers = llm_at(session, server).map("{{ item }}", ["a", "b"], output_type=int, on_error="keep")
    assert type(answers.errors[1]) is InvalidValueError
    assert answers.responses[1] is not None
    assert answers.responses[1].text == "many"


def test_a_fallback_is_asked_for_the_rows_that_need_it(session: Session) -> None:
    def first(request: Received) -> Answer:
        return refused(500) if said(request) == "1" else echo(request)

    with ScriptedServer(first) as one, ScriptedServer(lambda _: completion("fallback")) as other:
        llm_at(session, one, "one")
        llm_at(session, other, "two")
        session.registry.aliases = {"fast": {"model": "one:m", "fallbacks": ["two:m"]}}
        answers = LLM("fast").map("{{ item }}", [0, 1, 2])
    assert answers.values == ["you said 0", "fallback", "you said 2"]
    assert len(other.requests) == 1


def test_tools_are_called_for_each_row(session: Session) -> None:
    called = []

    def double(number: int) -> int:
        """Double it."""
        called.append(number)
        return 2 * number

    def calls(request: Received) -> Answer:
        last = request.json["messages"][-1]
        if last["role"] == "tool":
            return completion(f"it is {last['content']}")
        function = {"name": "double", "arguments": json.dumps({"number": int(said(request))})}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        }
        return document({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})

    with ScriptedServer(calls) as server:
        answers = llm_at(session, server).map("{{ item }}", [1, 2], tools=double)
    assert answers.values == ["it is 2", "it is 4"]
    assert sorted(called) == [1, 2]


def test_several_answers_to_a_row_are_a_list(session: Session) -> None:
    def several(request: Received) -> Answer:
        choices = [
            {"index": at, "message": {"content": f"{said(request)}{at}"}, "finish_reason": "stop"}
            for at in range(request.json["n"])
        ]
        return document({"choices": choices})

    with ScriptedServer(several) as server:
        assert llm_at(session, server).map("{{ item }}", ["a", "b"], n=2).values == [["a0", "a1"], ["b0", "b1"]]


# How many, in which order, how often


def test_no_more_than_allowed_are_in_flight(session: Session) -> None:
    now = most = 0
    lock = threading.Lock()

    def slowly(request: Received) -> Answer:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        answer = echo(request)

        def steps() -> Iterator[Any]:
            nonlocal now
            yield 0.01
            with lock:
                now -= 1
            yield from echo(request).steps

        answer.steps = steps()  # type: ignore[assignment]
        return answer

    with ScriptedServer(slowly) as server:
        llm = llm_at(session, server)
        llm.map("{{ item }}", range(40), concurrency=5)
        assert most == 5
        most = 0
        session.registry.get("s").concurrency = 3
        llm.map("{{ item }}", range(20, 40))
        assert most == 3


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 3}, {"dedup": True}])
def test_equal_prompts_are_asked_once_where_that_changes_nothing(session: Session, options: Any) -> None:
    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map("{{ item }}", ["a", "b", "a", "a"], **options)
    assert answers.values == ["you said a", "you said b", "you said a", "you said a"]
    assert asked(server) == ["a", "b"]
    assert answers.statistics.usage is not None
    assert answers.statistics.usage.input_tokens == 14


def test_equal_prompts_are_asked_each_where_answers_may_differ(session: Session) -> None:
    with ScriptedServer(echo) as server:
        llm_at(session, server).map("{{ item }}", ["a", "b", "a", "a"])
    assert asked(server) == ["a", "a", "a", "b"]


def test_rows_that_begin_alike_are_sent_together(session: Session) -> None:
    inputs = ["tea: a", "coffee: a", "tea: b", "coffee: b"]
    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map("{{ item }}", inputs, order="prefix", concurrency=1)
    assert [said(request) for request in server.requests] == ["coffee: a", "coffee: b", "tea: a", "tea: b"]
    assert answers.values == [f"you said {each}" for each in inputs]


def test_a_sample_is_spread_over_all(session: Session) -> None:
    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map("{{ item }}", range(100), sample=3, concurrency=1)
    assert [said(request) for request in server.requests] == ["0", "50", "99"]
    assert (answers.values, answers.labels) == (["you said 0", "you said 50", "you said 99"], [0, 50, 99])


@pytest.mark.parametrize("option", [{"sample": 2}, {"order": "prefix"}])
def test_what_needs_all_rows_refuses_a_generator(session: Session, option: Any) -> None:
    with ScriptedServer(echo) as server:
        llm = llm_at(session, server)
        with pytest.raises(OptionError, match="needs all rows before the first is sent"):
            llm.map("{{ item }}", (each for each in "abc"), **option)
    assert server.requests == []


def test_a_generator_is_read_as_it_is_needed(session: Session) -> None:
    read = []

    def endless() -> Iterator[int]:
        number = 0
        while True:
            read.append(number)
            yield number
            number += 1

    async def take() -> list[int]:
        found = []
        async for outcome in llm_at(session, server).amap("{{ item }}", endless(), concurrency=4):
            found.append(outcome.number)
            if len(found) == 20:
                break
        return found

    with ScriptedServer(echo) as server:
        found = asyncio.run(take())
    assert len(set(found)) == 20
    assert len(read) < 3_000


def test_a_spent_budget_ends_it_and_keeps_what_came(session: Session) -> None:
    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map(
            "{{ item }}", range(50), budget={"requests": 5}, on_error="keep", concurrency=2
        )
    assert len(server.requests) == 5
    assert sum(value is not None for value in answers) == 5
    assert {type(error) for error in answers.errors if error is not None} == {BudgetError, NotAskedError}


# Resuming


def test_rows_that_failed_are_asked_for_when_it_is_run_again_and_the_others_are_not(session: Session) -> None:
    broken = True

    def some(request: Received) -> Answer:
        return refused(500) if broken and said(request) in {"2", "4"} else echo(request)

    with ScriptedServer(some) as server:
        llm = llm_at(session, server)
        first = llm.map("{{ item }}", range(6), on_error="keep")
        assert first.failed == [2, 4]
        broken, server.requests[:] = False, []
        second = llm.map("{{ item }}", range(6))
        assert asked(server) == ["2", "4"]
        assert second.values == [f"you said {number}" for number in range(6)]
        assert [outcome.known for outcome in second.outcomes] == [True, True, False, True, False, True]
        assert second.statistics.usage is not None
        assert second.statistics.usage.input_tokens == 14
        server.requests[:] = []
        llm.map("{{ item }}", range(6))
        assert len(server.requests) == 6  # it had ended whole, and so is asked anew


def test_rows_that_were_asked_once_have_the_answer_of_an_earlier_run_all(session: Session) -> None:
    broken = True

    def some(request: Received) -> Answer:
        return refused(500) if broken and said(request) == "b" else completion(f"{len(server.requests)}")

    with ScriptedServer(some) as server:
        llm = llm_at(session, server)
        first = llm.map("{{ item }}", ["a", "b", "a", "a"], dedup=True, on_error="keep")
        broken = False
        second = llm.map("{{ item }}", ["a", "b", "a", "a"], dedup=True)
    assert [second[place] for place in (0, 2, 3)] == [first[0]] * 3
    assert asked(server) == ["a", "b", "b"]


def test_again_asks_for_all(session: Session) -> None:
    with ScriptedServer(lambda request: refused(500) if said(request) == "2" else echo(request)) as server:
        llm = llm_at(session, server)
        llm.map("{{ item }}", range(4), on_error="keep")
        server.requests[:] = []
        llm.map("{{ item }}", range(4), on_error="keep", again=True)
    assert len(server.requests) == 4


def test_nothing_is_kept_where_that_is_switched_off(session: Session) -> None:
    session.settings.resume = False
    with ScriptedServer(lambda request: refused(500) if said(request) == "2" else echo(request)) as server:
        llm = llm_at(session, server)
        llm.map("{{ item }}", range(4), on_error="keep")
        llm.map("{{ item }}", range(4), on_error="keep")
    assert len(server.requests) == 8


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"temperature": 0.5}, 3),
        ({"system": "x"}, 3),
        ({"choices": ["you said 0", "you said 1", "you said 2"]}, 3),
        ({"timeout": 50}, 1),
        ({"concurrency": 2}, 1),
    ],
)
def test_what_changes_an_answer_is_asked_anew(session: Session, change: Any, number: int) -> None:
    broken = True

    def some(request: Received) -> Answer:
        return refused(500) if broken and said(request) == "2" else echo(request)

    with ScriptedServer(some) as server:
        llm = llm_at(session, server)
        llm.map("{{ item }}", range(3), on_error="keep")
        broken, server.requests[:] = False, []
        llm.map("{{ item }}", range(3), on_error="keep", **change)
    assert len(server.requests) == number


def test_an_interrupted_run_goes_on_where_it_was(session: Session) -> None:
    def some(request: Received) -> Answer:
        return Answer([HANG]) if hangs and int(said(request)) >= 5 else echo(request)

    async def cancelled(llm: LLM) -> None:
        found = 0
        async for _ in llm.amap("{{ item }}", range(10), concurrency=2):
            found += 1
            if found == 5:
                while sum(int(said(request)) >= 5 for request in server.requests) < 2:  # noqa: ASYNC110 - else they arrive later
                    await asyncio.sleep(0.01)
                break

    hangs = True
    with ScriptedServer(some) as server:
        llm = llm_at(session, server)
        asyncio.run(cancelled(llm))
        assert all(request.left.wait(5) for request in server.requests if int(said(request)) >= 5)
        hangs, server.requests[:] = False, []
        answers = llm.map("{{ item }}", range(10))
    assert asked(server) == ["5", "6", "7", "8", "9"]
    assert answers.values == [f"you said {number}" for number in range(10)]


def test_a_typed_answer_and_its_rounds_are_found_again(session: Session) -> None:
    def sloppy(request: Received) -> Answer:
        if said(request) == "c" and broken:
            return refused(500)
        return completion("many" if len(request.json["messages"]) == 1 and said(request) == "b" else "7")

    broken = True
    with ScriptedServer(sloppy) as server:
        llm = llm_at(session, server)
        llm.map("{{ item }}", ["a", "b", "c"], output_type=int, on_error="keep")
        broken, server.requests[:] = False, []
        answers = llm.map("{{ item }}", ["a", "b", "c"], output_type=int)
    assert answers.values == [7, 7, 7]
    assert asked(server) == ["c"]


def test_an_answer_that_came_is_not_taken_for_that_of_its_second_round(session: Session) -> None:
    """Of two equal rows one has left an invalid answer; the other's first answer is as invalid, its second is valid."""

    def sloppy(request: Received) -> Answer:
        if broken and len(server.requests) > 1:
            return refused(500)
        return completion("many" if len(request.json["messages"]) == 1 else "7")

    broken = True
    with ScriptedServer(sloppy) as server:
        llm = llm_at(session, server)
        first = llm.map("{{ item }}", ["b", "b"], output_type=int, on_error="keep", concurrency=1)
        assert first.failed == [0, 1]
        broken, server.requests[:] = False, []
        assert llm.map("{{ item }}", ["b", "b"], output_type=int, concurrency=1).values == [7, 7]
    assert [len(request.json["messages"]) for request in server.requests] == [1, 3, 3]


def test_an_amap_that_is_left_keeps_what_nobody_took(session: Session) -> None:
    async def left(llm: LLM, inputs: range) -> None:
        async for _ in llm.amap("{{ item }}", inputs):
            break

    def some(request: Received) -> Answer:
        return refused(500) if int(said(request)) == broken else echo(request)

    broken = 5
    with ScriptedServer(some) as server:
        llm = llm_at(session, server)
        llm.map("{{ item }}", range(6), on_error="keep")
        broken = -1
        llm.map("{{ item }}", range(6), sample=6)  # all are answered, and kept
        server.requests[:] = []
        asyncio.run(left(llm, range(6)))
        assert llm.map("{{ item }}", range(6)).values == [f"you said {number}" for number in range(6)]
    assert server.requests == []


def test_recordings_answer_rows_and_take_their_answers(session: Session, tmp_path: Any) -> None:
    session.settings.record_file = str(tmp_path / "r.llm.jsonl")
    with ScriptedServer(echo) as server:
        llm = llm_at(session, server)
        first = llm.map("{{ item }}", ["a", "b"], record="once")
        second = llm.map("{{ item }}", ["b", "a"], record="only")
    assert len(server.requests) == 2
    assert second.values == [first[1], first[0]]
    assert [response.recorded for response in second.responses if response is not None] == [True, True]
    assert len((tmp_path / "r.llm.jsonl").read_text().splitlines()) == 2


# While it runs


def test_leaving_amap_closes_what_is_in_flight(session: Session) -> None:
    async def leave(llm: LLM) -> None:
        async for _ in llm.amap("{{ item }}", range(20), concurrency=4):
            break

    with ScriptedServer(lambda request: echo(request) if said(request) == "0" else Answer([HANG])) as server:
        asyncio.run(leave(llm_at(session, server)))
        others = [request for request in server.requests if said(request) != "0"]
        assert others
        assert all(request.left.wait(5) for request in others)


def test_amap_is_awaited_whole_too(session: Session) -> None:
    async def whole(llm: LLM) -> list[str]:
        return (await llm.amap("{{ item }}", ["a", "b"])).values

    with ScriptedServer(echo) as server:
        assert asyncio.run(whole(llm_at(session, server))) == ["you said a", "you said b"]


def test_map_works_inside_a_running_loop(session: Session) -> None:
    async def inside(llm: LLM) -> list[str]:
        return llm.map("{{ item }}", ["a"]).values

    with ScriptedServer(echo) as server:
        assert asyncio.run(inside(llm_at(session, server))) == ["you said a"]


def test_progress_is_told(session: Session) -> None:
    told = []
    with ScriptedServer(echo) as server:
        llm_at(session, server).map("{{ item }}", range(10), on_progress=told.append)
    assert (told[-1].total, told[-1].done, told[-1].failed) == (10, 10, 0)
    assert told[-1].usage is not None
    assert told[-1].usage.input_tokens == 70


def test_an_interrupt_says_how_far_it_came(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    import _thread

    def some(request: Received) -> Answer:
        if said(request) == "3":
            threading.Timer(0.2, _thread.interrupt_main).start()
        return Answer([HANG]) if int(said(request)) >= 3 else echo(request)

    with ScriptedServer(some) as server:
        with pytest.raises(Interrupted) as caught:
            llm_at(session, server).map("{{ item }}", range(10), concurrency=1)
        assert server.requests[-1].left.wait(5)
    (line,) = caught.value._render_traceback_()
    assert line == (
        "KeyboardInterrupt: stopped; 3 of 10 rows are answered, and kept: run it again to go on from there."
    )


@pytest.mark.parametrize(
    ("message", "reason", "options"),
    [
        ({"content": "cut"}, "length", {}),
        ({"content": "no number"}, "stop", {"output_type": int, "retries_invalid": 0}),
        ({"content": None, "refusal": "I would rather not."}, "stop", {}),
    ],
)
def test_seconds_of_an_answer_that_is_not_plain_are_its_own(
    session: Session, message: Any, reason: str, options: Any
) -> None:
    def odd(request: Received) -> Answer:
        made = document({"choices": [{"index": 0, "message": message, "finish_reason": reason}]})
        made.steps = [0.1, *made.steps]
        return made

    with ScriptedServer(odd) as server:
        llm = llm_at(session, server)
        answers = llm.map("{{ item }}", range(3), on_error="keep", **options)
    for response in answers.responses:
        assert response is not None
        assert 0.1 <= response.seconds < 60


def test_an_interrupt_ends_the_look_for_earlier_answers(session: Session) -> None:
    import _thread

    class Many(Sequence[str]):
        def __init__(self) -> None:
            self.read = 0

        def __len__(self) -> int:
            return 10**9

        def __getitem__(self, number: Any) -> Any:
            self.read = number
            if number == 5_000:
                _thread.interrupt_main()
            return str(number)

    rows = Many()
    with ScriptedServer(lambda request: echo(request) if said(request) < "3" else Answer([HANG])) as server:
        llm = llm_at(session, server)

        async def some() -> None:
            async for _ in llm.amap("{{ item }}", rows, concurrency=1):
                break

        asyncio.run(some())
        with pytest.raises(Interrupted):
            llm.map("{{ item }}", rows, concurrency=1)
    read = -1
    for _ in range(100):  # the thread that reads them sees it at its next row
        if read == rows.read:
            break
        read = rows.read
        time.sleep(0.05)
    assert read == rows.read
    assert 5_000 <= read < 10**9


def test_an_endpoint_that_comes_back_is_waited_for(session: Session) -> None:
    down: list[float] = []

    def some(request: Received) -> Answer:
        if int(said(request)) >= 5 and not down:
            down.append(time.monotonic())
        gone = down and time.monotonic() - down[0] < 1.0
        return refused(503, "restarting") if gone else echo(request)

    with ScriptedServer(some) as server:
        answers = llm_at(session, server).map("{{ item }}", range(20), concurrency=4)
    assert answers.values == [f"you said {number}" for number in range(20)]


def test_patience_ends(session: Session) -> None:
    with ScriptedServer(lambda request: refused(503) if int(said(request)) >= 5 else echo(request)) as server:
        answers = llm_at(session, server).map("{{ item }}", range(40), concurrency=4, patience=0.6, on_error="keep")
    assert answers.values[:5] == [f"you said {number}" for number in range(5)]
    last = answers.errors[-1]
    assert type(last) is NotAskedError
    assert "not within 0.6 s" in last.message
    assert last.hint == "patience=SECONDS waits longer."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"patience": -1}, "patience"),
        ({"on_error": "ignore"}, "on_error"),
        ({"on_progress": 3}, "on_progress takes a function"),
        ({"max_workers": 3}, "max_workers"),
        ({"show_progress": True}, "show_progress"),
        ({"confirm": True}, "confirm"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(session: Session, options: Any, message: str) -> None:
    with ScriptedServer(echo) as server, pytest.raises(OptionError, match=message):
        llm_at(session, server).map("{{ item }}", ["a"], **options)
    assert server.requests == []


def test_ask_takes_no_option_of_many_rows(session: Session) -> None:
    with ScriptedServer(echo) as server:
        ask: Callable[..., Any] = llm_at(session, server).ask
        with pytest.raises(OptionError, match=r"llm\.map"):
            ask("a", concurrency=3)


def test_a_function_makes_the_prompt(session: Session) -> None:
    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map(lambda item: f"<{item}>", ["a", "b"])
    assert answers.values == ["you said <a>", "you said <b>"]


def test_categories_are_made_of_literals(session: Session) -> None:
    with ScriptedServer(lambda _: completion('{"value": "good"}')) as server:
        answers = llm_at(session, server).map("{{ item }}", ["a", "b"], output_type=Literal["good", "bad"])
    frame = answers.to_frame()
    assert frame["value"].dtype.name == "category"
    assert list(frame["value"].cat.categories) == ["good", "bad"]


def test_usage_counts_each_row_once(session: Session) -> None:
    with ScriptedServer(echo) as server:
        llm_at(session, server).map("{{ item }}", range(12))
    (row,) = session.ledger.rows()
    assert (row.requests, row.answers, row.input_tokens) == (12, 12, 84)


@pytest.mark.parametrize("left", [1, 40, 399])
def test_each_of_many_rows_comes_once_whether_known_or_not(session: Session, left: int) -> None:
    def answer(request: Received) -> Answer:
        number = int(said(request))
        return completion("answered") if number < 400 - left or len(server.requests) > 400 else document({}, status=400)

    with ScriptedServer(answer) as server:
        llm = llm_at(session, server)
        first = llm.map("{{ item }}", range(400), on_error="keep", concurrency=4)
        second = llm.map("{{ item }}", range(400), concurrency=8)
    assert (first.statistics.failed, second.statistics.known) == (left, 400 - left)
    assert list(second) == ["answered"] * 400


def test_the_prompts_of_rows_that_are_to_be_asked_do_not_lie_in_memory(session: Session) -> None:
    alive: list[int] = []

    def answer(request: Received) -> Answer:
        if int(said(request)) == 7 and not alive:
            alive.append(-1)
            return document({}, status=400)
        if alive and len(alive) < 3:
            alive.append(sum(type(each) is RowRequest for each in gc.get_objects()))
        return completion("answered")

    with ScriptedServer(answer) as server:
        llm = llm_at(session, server)
        assert llm.map("{{ item }}", range(8), on_error="keep", concurrency=1).failed == [7]
        alive[:] = [-1]
        answers = llm.map("{{ item }}", range(2_000), concurrency=2)
    assert (len(answers), answers.statistics.known) == (2_000, 7)
    assert 0 < alive[1] < 200


def test_what_is_to_be_said_of_rows_is_said_once_of_those_that_are_made_twice(session: Session) -> None:
    fails = True

    def answer(request: Received) -> Answer:
        return document({}, status=400) if fails and "2:" in said(request) else completion("answered")

    inputs = [{"number": number, "rows": list(range(100_000))} for number in range(4)]
    with ScriptedServer(answer) as server:
        llm = llm_at(session, server)
        first = llm._call("{{ number }}: {{ rows }}", inputs, {}, "map")
        session.loop.run(first.all())
        fails = False
        second = llm._call("{{ number }}: {{ rows }}", inputs, {}, "map")
        session.loop.run(second.all())
    told, told_again = first.run.take_notes(), second.run.take_notes()
    assert "1 of 4" not in " ".join(told)
    assert [note for note in told_again if "more row" in note] == [note for note in told if "more row" in note] != []


def test_of_an_iterator_few_known_answers_wait_to_be_handed_on(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_MOST_READY", 20)
    waiting: list[int] = []
    fails = True

    def answer(request: Received) -> Answer:
        return document({}, status=400) if fails and said(request) == "200" else completion("answered")

    with ScriptedServer(answer) as server:
        llm = llm_at(session, server)
        first = llm._call("{{ item }}", iter(range(201)), {"on_error": "keep"}, "map")
        assert len(session.loop.run(first.all())) == 201
        fails = False

        def items() -> Iterator[int]:
            for number in range(201):
                waiting.append(second.run._requests.known if number else 0)
                yield number

        second = llm._call("{{ item }}", items(), {}, "map")
        found = session.loop.run(second.all())
    assert (sorted(each.number for each in found), sum(each.known for each in found)) == (list(range(201)), 200)
    assert max(waiting) <= 20


def test_an_iteration_keeps_no_labels(session: Session) -> None:
    async def read() -> list[int]:
        return [outcome.number async for outcome in to_come]

    with ScriptedServer(echo) as server:
        to_come = llm_at(session, server).amap("{{ item }}", {f"row {number}": number for number in range(50)})
        assert sorted(asyncio.run(read())) == list(range(50))
    assert to_come._call.run._requests.labels == {}


# What the user's own code raises


def ends_with(error: BaseException) -> Iterator[str]:
    yield from ("a", "b")
    raise error


ENDINGS = [SystemExit(), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]


@pytest.mark.parametrize("error", ENDINGS, ids=repr)
def test_an_iterator_that_raises_what_would_end_a_loop_has_raised(session: Session, error: BaseException) -> None:
    with ScriptedServer(echo) as server, pytest.raises(InputError) as found:
        llm_at(session, server).map("{{ item }}", ends_with(error))
    assert found.value.message == f"inputs raised {type(error).__name__} after 2 rows."
    assert asked(server) == ["a", "b"]


@pytest.mark.parametrize("error", ENDINGS, ids=repr)
def test_a_function_that_raises_what_would_end_a_loop_fails_its_row(session: Session, error: BaseException) -> None:
    def prompt(item: str) -> str:
        if item == "b":
            raise error
        return item

    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map(prompt, ["a", "b", "c"], on_error="keep")
    assert answers.values == ["you said a", None, "you said c"]
    assert answers.errors[1].message == f"Row 1: the function of the prompt raised {type(error).__name__}"


def test_a_value_that_raises_what_would_end_a_loop_fails_its_row(session: Session) -> None:
    class Ends:
        def __repr__(self) -> str:
            raise SystemExit

    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map("{{ item }}", ["a", Ends()], on_error="keep")
    assert answers.values == ["you said a", None]
    assert answers.errors[1].message == "Row 1: a value of the prompt raised SystemExit."


@pytest.mark.parametrize("error", [ValueError("no"), *ENDINGS], ids=repr)
def test_on_progress_that_raises_costs_no_answer(session: Session, error: BaseException) -> None:
    told = []

    def on_progress(progress: object) -> None:
        told.append(progress)
        raise error

    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map("{{ item }}", ["ab"], on_progress=on_progress)
    assert (answers.values, len(told)) == (["you said ab"], 1)
    said_of_it = f"{type(error).__name__}{': no' if error.args else ''}"
    assert answers.notes == (f"on_progress raised {said_of_it}, and is not called again.",)


def test_what_is_known_comes_before_what_the_input_raised(session: Session) -> None:
    async def iterated() -> list[str]:
        stream = llm.amap("{{ item }}", ends_with(ValueError()))
        came = [(await anext(stream)).value for _ in "ab"]
        with pytest.raises(InputError):
            await anext(stream)
        return came

    with ScriptedServer(echo) as server:
        llm = llm_at(session, server)
        assert sorted(asyncio.run(iterated())) == ["you said a", "you said b"]
        assert sorted(asyncio.run(iterated())) == ["you said a", "you said b"]
    assert len(server.requests) == 2


def test_what_is_said_of_a_run_is_in_its_answers(session: Session, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with ScriptedServer(echo) as server:
        answers = llm_at(session, server).map("{{ text }}", pd.DataFrame({"text": ["a", None]}))
    assert [note.split(":")[0] for note in answers.notes] == [
        "1 of 2 rows has no value for {{ text }}",
        "Answers are not kept, to go on with if this run stops",
    ]


# What waits, and what ends


@pytest.mark.parametrize("whole", [True, False])
def test_an_iterator_may_wait_for_the_answer_before_it_goes_on(session: Session, whole: bool) -> None:
    came = threading.Semaphore(0)

    def heard(request: Received) -> Answer:
        came.release()
        return echo(request)

    def one_by_one() -> Iterator[int]:
        for number in range(5):
            yield number
            assert came.acquire(timeout=10), "the row is not asked"

    async def taken(llm: LLM) -> list[str]:
        return [str(outcome.value) async for outcome in llm.amap("{{ item }}", one_by_one())]

    with ScriptedServer(heard) as server:
        llm = llm_at(session, server)
        found = llm.map("{{ item }}", one_by_one()).values if whole else asyncio.run(taken(llm))
    assert found == [f"you said {number}" for number in range(5)]


def test_an_iterator_may_wait_for_what_amap_yields(session: Session) -> None:
    """Whoever takes the answers says what is asked next."""
    taken: list[str] = []
    was_taken = threading.Semaphore(0)

    def grows() -> Iterator[str]:
        yield "a"
        for _ in range(3):
            assert was_taken.acquire(timeout=10), "the answer does not come"
            yield taken[-1]

    async def work(llm: LLM) -> None:
        async for outcome in llm.amap("{{ item }}", grows()):
            taken.append(str(outcome.value))
            was_taken.release()

    with ScriptedServer(lambda request: completion(said(request) + "a")) as server:
        asyncio.run(work(llm_at(session, server)))
    assert taken == ["aa", "aaa", "aaaa", "aaaaa"]


def test_rows_that_are_not_asked_are_not_rendered(session: Session) -> None:
    class Counted:
        rendered = 0

        def _repr_llm_(self) -> str:
            Counted.rendered += 1
            return "x"

        __str__ = __repr__ = _repr_llm_

    frame = pd.DataFrame({"text": [Counted() for _ in range(3_000)]}, index=[f"r{number}" for number in range(3_000)])
    with ScriptedServer(refused(401)) as server:
        answers = llm_at(session, server).map("{{ index }} {{ text }}", frame, on_error="keep", concurrency=2)
    assert len(server.requests) < 20
    assert Counted.rendered < 100
    assert len(answers) == 3_000
    assert answers.labels == list(frame.index)
    assert {type(error).__name__ for error in answers.errors} == {"AuthenticationError", "NotAskedError"}


def test_where_nothing_more_is_asked_answers_that_are_of_no_use_are_not_asked_either(session: Session) -> None:
    def sloppy(request: Received) -> Answer:
        if broken:
            return refused(401)
        if len(request.json["messages"]) > 1 or said(request) != "0":
            return refused(500)
        return completion("many")

    broken = False
    with ScriptedServer(sloppy) as server:
        llm = llm_at(session, server)
        llm.map("{{ item }}", range(30), output_type=int, on_error="keep", concurrency=1)
        broken, server.requests[:] = True, []
        answers = llm.map("{{ item }}", range(30), output_type=int, on_error="keep", concurrency=1)
    assert len(server.requests) == 10
    assert [type(error).__name__ for error in answers.errors].count("NotAskedError") == 20
    assert isinstance(answers.errors[0], NotAskedError)


def test_rows_with_images_have_an_outcome_each_after_a_stop(session: Session, tmp_path: Path) -> None:
    image = tmp_path / "i.png"
    image.write_bytes(
        bytes.fromhex(
            "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
            "1f15c4890000000d49444154789c6364f8cf500f00030601800568d35e0000000049454e44ae426082"
        )
    )
    with ScriptedServer(refused(401)) as server:
        llm = llm_at(session, server)
        answers = llm.map("{{ item }}", range(200), images=[str(image)], on_error="keep", concurrency=2)
    assert len(answers) == 200
    assert len(server.requests) < 20


# What is to be done next


def failure(call: Callable[[], object]) -> str:
    with pytest.raises(RowsFailedError) as raised:
        call()
    return str(raised.value)


def test_after_a_spent_budget_a_larger_one_is_asked_for(session: Session) -> None:
    with ScriptedServer(echo) as server:
        llm = llm_at(session, server)
        said = failure(lambda: llm.map("{{ item }}", range(4), budget={"tokens": 80}, max_tokens=2, concurrency=1))
    assert "failed: 2 NotAskedError, 1 BudgetError; call it again with a larger budget to ask for those.\n" in said
    assert said.endswith(" Raise budget=, or bound the answer with max_tokens=N.")


def test_where_nothing_is_recorded_it_is_said_how_to_record(session: Session, tmp_path: Path) -> None:
    session.settings.record_file = str(tmp_path / "r.llm.jsonl")
    with ScriptedServer(echo) as server:
        llm = llm_at(session, server)
        said = failure(lambda: llm.map("{{ item }}", range(4), record="only"))
    lines = said.splitlines()
    assert lines[0] == '4 of 4 failed: 4 RecordingError; run it once with record="once" to ask for those.'
    assert lines[1].startswith('The first of them, row 0: RecordingError: Not recorded, and record="only" sends')
    assert lines[1].count("Run it once") == 0
    assert server.requests == []


def test_what_is_recorded_answers_though_the_first_rows_are_not(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained = []
    nearest = Recordings.nearest
    monkeypatch.setattr(Recordings, "nearest", lambda *given: explained.append(1) or nearest(*given))
    session.settings.record_file = str(tmp_path / "r.llm.jsonl")
    with ScriptedServer(echo) as server:
        llm = llm_at(session, server)
        llm.map("{{ item }}", range(20, 40), record="once")
        server.requests.clear()
        answers = llm.map("{{ item }}", range(40), record="only", on_error="keep", concurrency=1)
    assert answers.failed == list(range(20))
    assert answers.values[20:] == [f"you said {number}" for number in range(20, 40)]
    assert server.requests == []
    assert len(explained) == 10  # each reads all recordings
    assert str(answers.errors[15]) == 'Not recorded, and record="only" sends nothing.\nRun it once with record="once".'
    assert "20 from recordings" in str(answers.statistics)
    assert "answered before" not in str(answers.statistics)


def test_patience_is_spoken_of_where_rows_were_not_asked(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(pipeline, "LONGEST_LOOK", 0.01)
    dies_after = 5

    def dies(request: Received) -> Answer:
        return echo(request) if len(server.requests) <= dies_after else refused(503, "gone")

    with ScriptedServer(dies) as server:
        llm = llm_at(session, server)
        said = failure(lambda: llm.map("{{ item }}", range(20), patience=0.1, concurrency=1))
        assert said.splitlines()[0].endswith("; answers.retry() asks for those.")
        assert said.endswith("answered 503: gone. patience=SECONDS waits longer.")
        dies_after = 0
        for rows in (3, 30):
            assert "patience" not in failure(lambda rows=rows: llm.map("x {{ item }}", range(rows), concurrency=1))


def test_what_to_do_about_the_first_is_said(session: Session) -> None:
    with ScriptedServer(refused(401)) as server:
        said = failure(lambda: llm_at(session, server).map("{{ item }}", range(20)))
    assert "answered 401: no. No key was sent: set s.api_key_env to the name of " in said


# Prompts that ask themselves


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("order", ["given", "prefix"])
def test_a_function_of_the_prompt_may_ask(session: Session, order: Any, broken: bool) -> None:
    fails = broken

    def some(request: Received) -> Answer:
        return refused(500) if fails and said(request).endswith("b!") else echo(request)

    with ScriptedServer(some) as server:
        llm = llm_at(session, server)

        def prompt(item: str) -> str:
            return llm.map("{{ item }}", [item]).values[0] + llm.ask(f"and {item}", no_stream=True).text + "!"

        answers = llm.map(prompt, ["a", "b"], order=order, on_error="keep")
        if broken:
            assert answers.failed == [1]
            fails = False
            answers = llm.map(prompt, ["a", "b"], order=order)
    assert answers.values == [f"you said you said {each}you said and {each}!" for each in "ab"]


def test_what_is_iterated_anew_may_wait_for_the_answer_too(session: Session) -> None:
    came = threading.Semaphore(0)

    class Lines:
        def __iter__(self) -> Iterator[int]:
            for number in range(4):
                yield number
                assert came.acquire(timeout=10), "the row is not asked"

    def heard(request: Received) -> Answer:
        came.release()
        return echo(request)

    with ScriptedServer(heard) as server:
        found = llm_at(session, server).map("{{ item }}", Lines()).values
    assert found == [f"you said {number}" for number in range(4)]


@pytest.mark.parametrize("by_function", [True, False])
def test_an_interrupt_of_the_look_up_does_not_say_that_nothing_is_answered(
    session: Session, monkeypatch: pytest.MonkeyPatch, by_function: bool
) -> None:
    import _thread

    rendered, goes_on = [0], threading.Event()
    real = RowPrompt.render

    def slowly(self: RowPrompt, row: Row) -> Any:
        rendered[0] += 1
        if rendered[0] == 50:
            threading.Timer(0.2, _thread.interrupt_main).start()
            goes_on.wait(10)
        return real(self, row)

    broken = True
    with ScriptedServer(lambda request: refused(500) if broken and said(request) == "7" else echo(request)) as server:
        llm = llm_at(session, server)
        prompt: Any = str if by_function else "{{ item }}"
        llm.map(prompt, range(100), on_error="keep")
        server.requests.clear()
        monkeypatch.setattr(RowPrompt, "render", slowly)
        with pytest.raises(Interrupted) as caught:
            llm.map(prompt, range(100))
        goes_on.set()
        monkeypatch.setattr(RowPrompt, "render", real)
        broken = False
        assert llm.map(prompt, range(100)).values[3] == "you said 3"
    assert asked(server) == ["7"]
    (line,) = caught.value._render_traceback_()
    assert line == (
        "KeyboardInterrupt: stopped while answers of an earlier run were looked up; they are kept: "
        "run it again to go on."
    )
    assert rendered[0] < 60


def test_answers_of_another_url_are_not_those_of_this_one(session: Session) -> None:
    """The provider is called the same, and its address is another: another server, with other models behind it."""
    with ScriptedServer(lambda request: refused(500) if said(request) == "2" else echo(request)) as server:
        llm_at(session, server).map("{{ item }}", range(3), on_error="keep")
    session.registry.remove("s")
    with ScriptedServer(lambda request: completion(f"another says {said(request)}")) as other:
        llm = llm_at(session, other)
        assert llm.map("{{ item }}", range(3)).values == [f"another says {number}" for number in range(3)]


# What is said in Python


def test_notes_name_keywords(session: Session) -> None:
    with ScriptedServer(lambda request: refused(500) if said(request) == "1" else echo(request)) as server:
        llm = llm_at(session, server)
        assert llm.map("{{ item }}", range(3), on_error="keep").failed == [1]
        again = llm.map("{{ item }}", range(3), on_error="keep")
    assert again.notes == ("2 of 3 answered before; asking for the rest (again=True asks for all).",)


def test_all_anew_of_recordings_alone_is_an_error(session: Session) -> None:
    with ScriptedServer(echo) as server, pytest.raises(OptionError) as raised:
        llm_at(session, server).map("{{ item }}", range(3), again=True, record="only")
    assert raised.value.message == 'again=True and record="only" exclude each other: nothing is sent.'


def test_an_answer_that_was_cut_off_took_the_seconds_that_it_took(session: Session) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "so far"}, "finish_reason": "length"}
    with ScriptedServer(lambda _request: document({"id": "c1", "model": "m-1", "choices": [choice]})) as server:
        (response,) = llm_at(session, server).map("{{ item }}", ["a"]).responses
    assert response is not None
    assert 0 < response.seconds < 60
