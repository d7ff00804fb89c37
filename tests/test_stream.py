"""`LLM.stream`: which events come in which order, what it ends with, and what is left when it is left."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import gc
import inspect
import threading
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any, get_type_hints

import pytest
from kernels import Kernel
from servers import HANG, Answer, ScriptedServer, chunk, document, stream

from llm_magic import LLM, Provider, Response, api, events
from llm_magic.config.settings import Settings
from llm_magic.errors import IncompleteAnswerError, InvalidValueError, OptionError, ServerFailedError
from llm_magic.events import (
    Attempt,
    Done,
    Event,
    Finished,
    Identified,
    Note,
    Opened,
    ReasoningDelta,
    ReasoningItem,
    Restarted,
    TextDelta,
    ToolCallDelta,
    ToolResult,
    Usage,
    UsageReport,
)
from llm_magic.messages import ToolCall
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session
from llm_magic.session.tool_runner import Question

USAGE = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}}
DOWN = document({"error": {"message": "overloaded"}}, status=503)
BEGUN = Answer([b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n', HANG])


def answer(text: str, finish: str = "stop") -> Answer:
    return stream(chunk(text), chunk(finish=finish), USAGE)


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def llm_at(session: Session, server: ScriptedServer, name: str = "s", **settings: object) -> LLM:
    session.registry.add(name, "compatible", base_url=server.url, max_retries=0, **settings)
    return LLM(f"{name}:m")


def collected(llm: LLM, **options: Any) -> list[Event]:
    async def collect() -> list[Event]:
        return [event async for event in llm.stream("Hi", **options)]

    return asyncio.run(collect())


def kinds(found: list[Event]) -> list[type]:
    """Return the types of events, each once where several follow each other."""
    types = [type(event) for event in found]
    return [kind for number, kind in enumerate(types) if number == 0 or types[number - 1] is not kind]


def test_the_order_of_events_and_the_end(session: Session) -> None:
    script = stream(
        chunk(reasoning_content="Hm."), chunk("Hel"), chunk("lo"), chunk(finish="stop"), USAGE,
        headers={"x-request-id": "r1"},
    )  # fmt: skip
    with ScriptedServer(script) as server:
        found = collected(llm_at(session, server))
    answer = [ReasoningDelta, TextDelta, ReasoningItem, Finished]
    expected = [Attempt, Opened, Identified, *answer, UsageReport, Done]
    assert kinds(found) == expected
    assert found[-2] == UsageReport(Usage(10, 2))
    done = found[-1]
    assert isinstance(done, Done)
    assert isinstance(done.response, Response)
    assert (done.response.text, done.response.value, done.response.reasoning) == ("Hello", "Hello", "Hm.")
    assert (done.response.usage, done.response.finish_reason) == (Usage(10, 2), "stop")
    assert (done.response.model, done.response.provider, done.response.request_id) == ("s:m", "s", "r1")
    assert [message.role for message in done.response.messages] == ["user"]
    assert [row.answers for row in session.ledger.rows()] == [1]


def test_done_has_the_validated_value_and_re_asks_are_seen(session: Session) -> None:
    with ScriptedServer(answer("many"), answer("7")) as server:
        found = collected(llm_at(session, server, structured="none"), output_type=int)
    told = [event for event in found if isinstance(event, Note | Restarted | TextDelta | Finished | UsageReport | Done)]
    assert [type(event) for event in told] == [
        *(TextDelta, Finished, UsageReport, Note, Restarted),
        *(TextDelta, Finished, UsageReport, Done),
    ]
    assert told[4] == Restarted("invalid")
    assert isinstance(told[3], Note)
    assert told[3].text.startswith("Not valid: ")
    done = told[-1]
    assert isinstance(done, Done)
    assert (done.response.value, done.response.text, done.response.usage) == (7, "7", Usage(20, 4))


def test_a_fallback_is_seen_and_done_names_the_model_that_answered(session: Session) -> None:
    with ScriptedServer(DOWN) as down, ScriptedServer(answer("Hello")) as up:
        llm_at(session, down, "a")
        llm_at(session, up, "b")
        session.registry.aliases = {"both": {"model": "a:m", "fallbacks": ["b:m"]}}
        found = collected(LLM("both"))
    assert kinds(found) == [
        *(Attempt, Restarted, Note),
        *(Attempt, Opened, Identified, TextDelta, Finished, UsageReport, Done),
    ]
    assert found[1] == Restarted("fallback")
    done = found[-1]
    assert isinstance(done, Done)
    assert (done.response.model, done.response.provider) == ("b:m", "b")


def call_of(name: str, identifier: str, index: int = 0) -> dict[str, object]:
    return {"index": index, "id": identifier, "type": "function", "function": {"name": name, "arguments": "{}"}}


def test_rounds_of_tools_are_seen(session: Session) -> None:
    def look() -> str:
        """Look."""
        return "sun"

    calls = stream(chunk(tool_calls=[call_of("look", "c1")]), chunk(finish="tool_calls"), USAGE)
    with ScriptedServer(calls, answer("Sunny.")) as server:
        found = collected(llm_at(session, server), tools=[look])
    assert kinds(found) == [
        *(Attempt, Opened, Identified, ToolCallDelta, Finished, UsageReport, ToolResult, Restarted),
        *(Attempt, Opened, Identified, TextDelta, Finished, UsageReport, Done),
    ]
    (result,) = [event for event in found if isinstance(event, ToolResult)]
    assert (result.id, result.name, result.result, result.failed, result.place) == ("c1", "look", "sun", False, 0)
    assert Restarted("tools") in found
    done = found[-1]
    assert isinstance(done, Done)
    assert [run.result for run in done.response.tool_calls] == ["sun"]


@pytest.mark.parametrize(
    ("script", "options", "error", "came"),
    [
        (DOWN, {}, ServerFailedError, ""),
        (stream(chunk("Hel"), done=False), {}, IncompleteAnswerError, "Hel"),
        (answer("many"), {"output_type": int, "retries_invalid": 0}, InvalidValueError, "many"),
        (answer("4", "length"), {"output_type": int}, IncompleteAnswerError, "4"),
    ],
)
def test_an_answer_that_fails_raises_in_the_place_of_done(
    session: Session, script: Answer, options: Any, error: type[Exception], came: str
) -> None:
    found: list[Event] = []

    async def collect() -> None:
        async for event in llm_at(session, server, structured="none").stream("Hi", **options):
            found.append(event)  # noqa: PERF401 - what came before the error is looked at

    with ScriptedServer(script) as server, pytest.raises(error) as caught:
        asyncio.run(collect())
    assert not [event for event in found if isinstance(event, Done)]
    assert "".join(event.text for event in found if isinstance(event, TextDelta)) == came
    assert caught.value.response.text == came  # type: ignore[attr-defined]  # it is there


def test_what_is_wrong_with_the_arguments_is_raised_before_anything_is_sent(session: Session) -> None:
    with ScriptedServer(answer("x")) as server, pytest.raises(OptionError, match="needs tools="):
        collected(llm_at(session, server), tool_choice="auto")
    assert server.requests == []


def test_only_events_are_seen_whatever_a_backend_yields(session: Session) -> None:
    """What a cell asks its user, a foreign object, and an end of the backend's own are none."""

    class Odd(Provider):
        kind = "odd"

        async def exchange(self, *_: Any, **__: Any) -> Any:
            yield [Question(ToolCall("1", "f", "{}"), print), {"text": "no"}, None, Done(Response(text="forged"))]
            yield [TextDelta("Hi"), Finished("stop")]

    session.registry.register("odd", provider=Odd(name="odd"))
    found = collected(LLM("odd:m"))
    assert kinds(found) == [TextDelta, Finished, Done]
    assert isinstance(found[-1], Done)
    assert found[-1].response.text == "Hi"


def test_the_list_of_events() -> None:
    """`__all__` is every event there is, each frozen and with a docstring, named where the module says the order."""
    found = {name for name, value in vars(events).items() if isinstance(value, type) and issubclass(value, Event)}
    assert set(events.__all__) == found | {"FinishReason", "Usage"}
    for name in found - {"Event"}:
        value = getattr(events, name)
        assert (value.__doc__ or "").strip()
        assert value.__dataclass_params__.frozen, name
        assert f"`{name}`" in (events.__doc__ or "") or f"`{name}(" in (events.__doc__ or ""), name
    assert get_type_hints(Done)["response"] is Response
    with pytest.raises(FrozenInstanceError):
        Done(Response()).response = Response()  # type: ignore[misc]  # that it cannot be is asked here


def test_a_slow_reader_slows_the_answer_down_and_loses_nothing(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "AHEAD", 10)
    told = 0

    class Endless(Provider):
        kind = "endless"

        async def exchange(self, *_: Any, **__: Any) -> Any:
            nonlocal told
            for told in range(1, 201):  # noqa: B007 - looked at while it grows
                yield [TextDelta("x")]
            yield [Finished("stop")]

    async def read() -> tuple[int, str]:
        found = LLM("endless:m").stream("Hi")
        await first_text(found)
        await asyncio.sleep(0.3)  # long enough for all of it
        ahead = told
        rest = [event async for event in found]
        assert isinstance(rest[-1], Done)
        return ahead, rest[-1].response.text

    session.registry.register("endless", provider=Endless(name="endless"))
    ahead, text = asyncio.run(read())
    assert ahead <= 12
    assert text == "x" * 200


@pytest.mark.parametrize("module", [events])
def test_the_example_of_the_docstring_on_the_embedded_model(module: Any) -> None:
    pytest.importorskip("xllamacpp", reason="needs the extra `local`")
    said = inspect.cleandoc(module.__doc__).replace("# doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(said, {}, module.__name__, module.__file__, 0)
    wrong: list[str] = []
    results = doctest.DocTestRunner().run(example, out=wrong.append)
    assert (results.attempted, results.failed) == (5, 0), "".join(wrong)
    api.active_session().close()
    api.activate(None)


# Leaving


async def first_text(found: Any) -> TextDelta:
    async for event in found:
        if isinstance(event, TextDelta):
            return event
    raise AssertionError("no text came")


async def _close(llm: LLM) -> None:
    found = llm.stream("Hi")
    assert await first_text(found) == TextDelta("x")
    await found.aclose()
    assert [event async for event in found] == []


async def _closing(llm: LLM) -> None:
    async with contextlib.aclosing(llm.stream("Hi")) as found:
        await first_text(found)


async def _break(llm: LLM) -> None:
    async for event in llm.stream("Hi"):
        if isinstance(event, TextDelta):
            break


async def _raise(llm: LLM) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async for event in llm.stream("Hi"):
            if isinstance(event, TextDelta):
                1 / 0  # noqa: B018 - raises


async def _cancel(llm: LLM) -> None:
    began = asyncio.Event()

    async def read() -> None:
        async for event in llm.stream("Hi"):
            if isinstance(event, TextDelta):
                began.set()

    task = asyncio.create_task(read())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _time_out(llm: LLM) -> None:
    async def read() -> None:
        async for _ in llm.stream("Hi"):
            pass

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.5)


@pytest.mark.parametrize("leave", [_close, _closing, _break, _raise, _cancel, _time_out])
def test_leaving_a_stream_closes_the_request(session: Session, leave: Any) -> None:
    async def stay() -> None:
        await leave(llm_at(session, server))
        gone = await asyncio.to_thread(server.requests[0].left.wait, 5)  # while the loop is still there
        assert gone

    with ScriptedServer(BEGUN) as server:
        asyncio.run(stay())


def test_a_stream_whose_loop_was_closed_closes_its_request(session: Session) -> None:
    """Its loop ended without ending what it ran: nobody can await the rest."""
    loop = asyncio.new_event_loop()
    with ScriptedServer(BEGUN) as server:
        found = llm_at(session, server).stream("Hi")
        loop.run_until_complete(first_text(found))
        loop.close()
        del found
        gc.collect()
        assert server.requests[0].left.wait(5)


def test_more_that_comes_after_the_loop_was_closed_closes_the_request(session: Session) -> None:
    loop, more = asyncio.new_event_loop(), threading.Event()

    def slow(_: object) -> Answer:
        def steps() -> Iterator[Any]:
            yield b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
            while not more.is_set():
                yield 0.02
            yield b'data: {"choices":[{"index":0,"delta":{"content":"y"}}]}\n\n'
            yield HANG

        return Answer(steps())

    with ScriptedServer(slow) as server:
        found = llm_at(session, server).stream("Hi")
        loop.run_until_complete(first_text(found))
        loop.close()
        more.set()
        assert server.requests[0].left.wait(5)
        del found


def test_two_streams_at_once(session: Session) -> None:
    """The first goes on while the second, begun later, is read to its end."""

    async def both() -> tuple[str, str]:
        llm = llm_at(session, server)
        first, second = llm.stream("a"), llm.stream("b")
        said = [(await first_text(first)).text]
        other = [event.text async for event in second if isinstance(event, TextDelta)]
        said += [event.text async for event in first if isinstance(event, TextDelta)]
        return "".join(said), "".join(other)

    def echo(request: Any) -> Answer:
        return stream(chunk(request.json["messages"][0]["content"]), chunk("!"), chunk(finish="stop"))

    with ScriptedServer(echo) as server:
        assert asyncio.run(both()) == ("a!", "b!")


def test_a_stream_in_a_thread_with_a_loop_of_its_own(session: Session) -> None:
    with ScriptedServer(answer("Hello")) as server:
        llm, found = llm_at(session, server), []
        threads = [threading.Thread(target=lambda: found.append(collected(llm)[-1])) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert [event.response.text for event in found] == ["Hello"] * 4


def test_a_stream_under_anyio(session: Session) -> None:
    anyio = pytest.importorskip("anyio")
    found: list[Event] = []

    async def collect() -> None:
        async with anyio.create_task_group() as group:

            async def read() -> None:
                async for event in llm_at(session, server).stream("Hi"):
                    found.append(event)
                    if isinstance(event, TextDelta):
                        group.cancel_scope.cancel()

            group.start_soon(read)

    with ScriptedServer(BEGUN) as server:
        anyio.run(collect)
        assert server.requests[0].left.wait(5)
    assert found[-1] == TextDelta("x")


CELL = """
said = []
async for event in LLM("s:m").stream("Hi"):
    if isinstance(event, TextDelta):
        said.append(event.text)
event.response.value, said
"""


@pytest.mark.parametrize("allow_stdin", [True, False])
def test_a_stream_in_a_cell(kernel: Kernel, allow_stdin: bool) -> None:
    """Also where a program executes the notebook."""
    with ScriptedServer(stream(chunk("Hel"), chunk("lo"), chunk(finish="stop"))) as server:
        kernel.run("%reload_ext llm_magic").check()
        kernel.run("from llm_magic import LLM, registry\nfrom llm_magic.events import TextDelta").check()
        kernel.run(f"registry().add('s', 'compatible', base_url={server.url!r}, max_retries=0)").check()
        ran = kernel.run(CELL, allow_stdin=allow_stdin).check()
    (shown,) = ran.outputs
    assert shown["data"]["text/plain"] == "('Hello', ['Hel', 'lo'])"
