"""The exact body of each API for the same request, as a snapshot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llm_magic.capabilities import ALL_PARAMETERS, Api, Capabilities
from llm_magic.errors import UnsupportedError
from llm_magic.messages import Image, Message, Text, ToolCall, assistant, system, tool, user
from llm_magic.request import Parameters, Request, Tool
from llm_magic.wire import chat, completions, responses

CALL = ToolCall("c1", "add", '{"a": 1}')
ADD = Tool("add", "Add numbers.", {"type": "object", "properties": {"a": {"type": "integer"}}})
IMAGE = Image(b"\x89PNG", "image/png")
TALK = (
    system("Be brief."),
    user("What is ", "this? ", IMAGE, Image(url="https://x.example/i.png")),
    assistant("Let me add.", (CALL,)),
    tool(CALL, "3"),
    assistant("Three."),
    user("Sure?"),
)
FULL = Parameters(
    temperature=0.0, top_p=0.5, max_tokens=9, seed=7, stop=("a", "b"), presence_penalty=0.1, frequency_penalty=0.2, n=2,
    logprobs=3, reasoning_effort="low", extra={"user": "u", "nothing": None},
)  # fmt: skip
BODIES: dict[Api, Any] = {"chat": chat.body, "responses": responses.body, "completions": completions.body}


def test_chat() -> None:
    request = Request("m", TALK, FULL, {"response_format": {"type": "json_object"}}, (ADD,), "add")
    assert chat.body(request, Capabilities(max_tokens_field="max_completion_tokens", system_role="developer")) == {
        "model": "m",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is "},
                    {"type": "text", "text": "this? "},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
                    {"type": "image_url", "image_url": {"url": "https://x.example/i.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": "Let me add.",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
            },
            {"role": "tool", "content": "3", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Three."},
            {"role": "user", "content": "Sure?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 9,
        "logprobs": True,
        "top_logprobs": 3,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 7,
        "stop": ["a", "b"],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "n": 2,
        "reasoning_effort": "low",
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "add",
                    "description": "Add numbers.",
                    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
                    "strict": True,
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "response_format": {"type": "json_object"},
        "user": "u",
        "nothing": None,
    }


def test_responses() -> None:
    parameters = Parameters(
        temperature=0.0,
        top_p=0.5,
        max_tokens=9,
        logprobs=3,
        reasoning_effort="low",
        extra={"text": {"verbosity": "low"}, "reasoning": {"summary": "auto"}},
    )
    request = Request("m", TALK, parameters, {"text": {"format": {"type": "json_object"}}}, (ADD,), "required")
    assert responses.body(request, Capabilities(api="responses", store=False)) == {
        "model": "m",
        "instructions": "Be brief.",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is "},
                    {"type": "input_text", "text": "this? "},
                    {"type": "input_image", "image_url": "data:image/png;base64,iVBORw==", "detail": "auto"},
                    {"type": "input_image", "image_url": "https://x.example/i.png", "detail": "auto"},
                ],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me add."}]},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
            {"type": "function_call_output", "call_id": "c1", "output": "3"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Three."}]},
            {"role": "user", "content": "Sure?"},
        ],
        "stream": True,
        "store": False,
        "temperature": 0.0,
        "top_p": 0.5,
        "max_output_tokens": 9,
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 3,
        "tools": [
            {
                "type": "function",
                "name": "add",
                "description": "Add numbers.",
                "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
                "strict": True,
            }
        ],
        "tool_choice": "required",
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
    }


def test_completions() -> None:
    parameters = replace(FULL, reasoning_effort=None)
    request = Request("m", (user("Once"),), parameters, {"structured_outputs": {"regex": "a+"}}, stream=False)
    assert completions.body(request, Capabilities(api="completions", max_tokens_field="max_completion_tokens")) == {
        "model": "m",
        "prompt": "Once",
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 9,
        "seed": 7,
        "stop": ["a", "b"],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "n": 2,
        "logprobs": 3,
        "structured_outputs": {"regex": "a+"},
        "user": "u",
        "nothing": None,
    }


def test_a_dialogue_for_completions() -> None:
    talk = (system("Be brief."), user("Hi"), assistant("Hello."), user("Bye"))
    assert completions.prompt(talk) == "Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: Bye\n\nAssistant:"
    assert completions.prompt((user("as it "),)) == "as it "


@pytest.mark.parametrize("api", ["chat", "responses", "completions"])
def test_nothing_is_sent_that_was_not_given(api: Api) -> None:
    body = BODIES[api](Request("m", (user("hi"),), stream=False), Capabilities(api=api))
    asked = {
        "chat": {"messages": [{"role": "user", "content": "hi"}]},
        "responses": {"input": [{"role": "user", "content": "hi"}]},
        "completions": {"prompt": "hi"},
    }
    assert body == {"model": "m", **asked[api]}


def test_usage_is_asked_for_only_in_streams_and_only_where_it_may_be() -> None:
    request = Request("m", (user("hi"),))
    assert "stream_options" not in chat.body(request, Capabilities(stream_usage=False))
    assert "stream_options" not in chat.body(replace(request, stream=False), Capabilities())
    assert "stream_options" not in responses.body(request, Capabilities(api="responses"))
    assert completions.body(request, Capabilities())["stream_options"] == {"include_usage": True}


def test_logprobs_of_the_token_alone() -> None:
    request = Request("m", (user("hi"),), Parameters(logprobs=0))
    assert chat.body(request, Capabilities())["logprobs"] is True
    assert "top_logprobs" not in chat.body(request, Capabilities())
    assert completions.body(request, Capabilities())["logprobs"] == 0
    body = responses.body(request, Capabilities())
    assert (body["include"], "top_logprobs" in body) == (["message.output_text.logprobs"], False)


def test_strict_tools_only_where_they_may_be() -> None:
    request = Request("m", (user("hi"),), tools=(ADD, replace(ADD, name="loose", strict=False)))
    strict, loose = (item["function"] for item in chat.body(request, Capabilities())["tools"])
    assert (strict.get("strict"), loose.get("strict")) == (True, None)
    assert all(
        "strict" not in item["function"] for item in chat.body(request, Capabilities(strict_tools=False))["tools"]
    )
    assert [item["strict"] for item in responses.body(request, Capabilities())["tools"]] == [True, False]
    assert [item["strict"] for item in responses.body(request, Capabilities(strict_tools=False))["tools"]] == [
        False,
        False,
    ]


def test_a_message_of_tool_calls_alone_has_no_content() -> None:
    talk = (user("hi"), Message("assistant", (), (CALL,)), tool(CALL, ""))
    _, said, result = chat.body(Request("m", talk), Capabilities())["messages"]
    assert "content" not in said
    assert result["content"] == ""
    assert [item.get("type") for item in responses.body(Request("m", talk), Capabilities())["input"]] == [
        None, "function_call", "function_call_output",
    ]  # fmt: skip


def test_extra_fields_win_and_the_request_is_left_alone() -> None:
    extra = {"temperature": 1, "stream_options": {"continuous_usage_stats": True}}
    request = Request("m", (user("hi"),), Parameters(temperature=0.0, extra=extra))
    body = chat.body(request, Capabilities())
    assert body["temperature"] == 1
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert extra == {"temperature": 1, "stream_options": {"continuous_usage_stats": True}}


@pytest.mark.parametrize(
    ("api", "names"),
    [
        ("responses", {"seed", "stop", "presence_penalty", "frequency_penalty", "n"}),
        ("completions", {"reasoning_effort"}),
        ("chat", set()),
    ],
)
def test_what_an_api_has_not_is_refused_by_our_name(api: Api, names: set[str]) -> None:
    given: dict[str, Any] = {**FULL.given}
    assert set(given) == ALL_PARAMETERS
    for name, value in given.items():
        request = Request("m", (user("hi"),), Parameters(**{name: value}))
        if name in names:
            with pytest.raises(UnsupportedError, match="--" + name.replace("_", "-")):
                BODIES[api](request, Capabilities(api=api))
        else:
            BODIES[api](request, Capabilities(api=api))


def test_what_the_model_does_not_take_is_refused() -> None:
    request = Request("m", (user("hi"),), Parameters(temperature=0.0))
    with pytest.raises(UnsupportedError, match="m does not take --temperature"):
        chat.body(request, Capabilities(parameters=ALL_PARAMETERS - {"temperature"}))
    with pytest.raises(UnsupportedError, match="images"):
        chat.body(Request("m", (user(IMAGE),)), Capabilities(images=False))
    with pytest.raises(UnsupportedError, match="tools"):
        chat.body(Request("m", (user("hi"),), tools=(ADD,)), Capabilities(tools=False))
    with pytest.raises(UnsupportedError, match="--tool-choice"):
        chat.body(Request("m", (user("hi"),), tool_choice="required"), Capabilities())
    for talk in ((user(IMAGE),), (user("a"), tool(CALL, "b"))):
        with pytest.raises(UnsupportedError):
            completions.body(Request("m", talk), Capabilities())
    with pytest.raises(UnsupportedError, match="tools"):
        completions.body(Request("m", (user("hi"),), tools=(ADD,)), Capabilities())


def test_texts_without_an_image_are_one_string() -> None:
    message = Message("user", (Text("a"), Text("b")))
    assert chat.body(Request("m", (message,)), Capabilities())["messages"] == [{"role": "user", "content": "ab"}]
