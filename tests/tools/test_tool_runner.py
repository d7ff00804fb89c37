"""Calls of tools: carried out, and answered for whatever happens."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import openai
import pytest
from functions import Place, call, google, slowly, weather

from llm_magic.events import ToolResult
from llm_magic.messages import ToolCall
from llm_magic.session.tool_runner import MAX_RESULT_CHARS, run
from llm_magic.tools import describe


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('"Paris"', 'must be a JSON object with city, days, not "Paris"'),
        ('{"city": ', "not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"days": 2}', "city: field required"),
        ('{"city": "Ulm", "days": "many"}', "days: input should be a valid integer"),
        ('{"city": "Ulm", "wind": 1}', "wind: extra inputs are not permitted"),
        ("", "city: field required"),
    ],
)
def test_bad_arguments_become_the_result(arguments: str, message: str) -> None:
    result = call(weather, arguments)
    assert result.failed
    assert result.result.startswith("weather was not called: ")
    assert message in result.result
    assert (result.id, result.name, result.arguments) == ("id1", "weather", arguments)


def test_arguments_that_were_encoded_twice_and_nulls_for_defaults() -> None:
    assert call(weather, json.dumps('{"city": "Ulm"}')).result == "Ulm: sun for 1"
    assert call(weather, {"city": "Ulm", "days": None}).result == "Ulm: sun for 1"


def test_results() -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd"

    def give(what: int) -> Any:
        loop: list[Any] = []
        loop.append(loop)
        return ["text", {"a": [1, None]}, Place(city="Ulm"), {"x": Odd()}, loop, b"\xff", float("nan")][what]

    results = [call(give, {"what": what}) for what in range(7)]
    assert not any(result.failed for result in results)
    assert [result.result for result in results] == [
        "text",
        '{"a":[1,null]}',
        '{"city":"Ulm","country":"DE"}',
        '{"x":"odd"}',
        "[[...]]",
        r"b'\xff'",
        '"NaN"',
    ]


def test_a_long_result_is_cut_and_says_so() -> None:
    def long() -> str:
        return "x" * (MAX_RESULT_CHARS + 1)

    result = call(long).result
    assert result.endswith(f"[cut: the first {MAX_RESULT_CHARS} of {MAX_RESULT_CHARS + 1} characters]")


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError("k"), SystemExit(3), StopIteration("s"), KeyboardInterrupt()]
)
def test_what_a_tool_raises_becomes_the_result(error: BaseException) -> None:
    def broken() -> None:
        raise error

    result = call(broken)
    assert result.failed
    assert result.result == f"{type(error).__name__}: {error}"


def test_an_async_tool_that_raises_or_cancels_itself() -> None:
    async def broken() -> None:
        raise ValueError("no")

    async def cancelled() -> None:
        raise asyncio.CancelledError

    assert call(broken).result == "ValueError: no"
    assert call(cancelled).failed


def test_a_tool_that_never_ends() -> None:
    stop = threading.Event()

    def forever() -> None:
        stop.wait(30)

    started = time.perf_counter()
    for result in (call(forever, timeout=0.2), call(slowly, {"seconds": 30}, timeout=0.2)):
        assert result.failed
        assert "gave no result within 0.2 seconds" in result.result
    assert time.perf_counter() - started < 5
    stop.set()


def test_calls_run_side_by_side() -> None:
    def nap(seconds: float) -> str:
        time.sleep(seconds)
        return "up"

    async def both() -> list[ToolResult]:
        calls = [run(describe(function), ToolCall("1", "x", '{"seconds": 0.5}'), 5) for function in (nap, nap, slowly)]
        return await asyncio.gather(*calls)

    started = time.perf_counter()
    assert [result.result for result in asyncio.run(both())] == ["up", "up", "done"]
    assert time.perf_counter() - started < 1.3


def test_cancelling_the_cell_cancels_the_call() -> None:
    async def cancel() -> None:
        task = asyncio.create_task(run(describe(slowly), ToolCall("1", "slowly", '{"seconds": 30}'), 60))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())


def test_a_function_that_does_not_exist() -> None:
    result = asyncio.run(run(None, ToolCall("1", "ghost", "{}"), 1))
    assert (result.failed, result.result) == (True, "There is no function named ghost.")


def test_strict_tools_on_a_real_vllm(vllm_url: str) -> None:
    """Both functions are called in one turn with arguments that validate."""
    tools = [describe(weather), describe(google)]
    client = openai.OpenAI(base_url=vllm_url, api_key="none", timeout=300, max_retries=0)
    for tool in tools:
        completion = client.chat.completions.create(
            model="smollm2",
            max_tokens=300,
            temperature=0,
            seed=1,
            messages=[{"role": "user", "content": "What is the weather in Ulm?"}],
            tools=[
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.tool.description,
                        "parameters": dict(tool.tool.parameters),
                        "strict": True,
                    },
                }
            ],
            tool_choice={"type": "function", "function": {"name": tool.name}},
        )
        (made,) = completion.choices[0].message.tool_calls or []
        result = asyncio.run(run(tool, ToolCall(made.id, made.function.name, made.function.arguments), 5))
        assert completion.choices[0].finish_reason == "length" or not result.failed, result
