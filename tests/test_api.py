"""`LLM`: names and values of its keywords, typed answers, lists of messages; what is wrong is never sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Answer, Received, ScriptedServer, chunk, stream

from llm_magic import LLM, api
from llm_magic.config.settings import Settings
from llm_magic.errors import InputError, OptionError, OutputTypeError, PromptError
from llm_magic.messages import Text, assistant, user
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def echo(request: Received) -> Answer:
    """Answer with what fits the constraint."""
    asked = request.json.get("response_format") or request.json.get("grammar") or ""
    said = json.dumps(asked)
    text = '{"name": "Ada", "age": 36}' if "age" in said else "yes"
    return stream(chunk(text), chunk(finish="stop"))


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


@pytest.fixture
def server(session: Session) -> Iterator[ScriptedServer]:
    with ScriptedServer(echo) as server:
        session.registry.add("s", "compatible", base_url=server.url, max_retries=0, structured="json_schema")
        yield server


def body_of(server: ScriptedServer) -> Any:
    (request,) = server.requests
    return request.json


def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


# Names

FURTHER = 'A further field of the body stands in param: {"%s": …}.'


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", "Did you mean temperature? "),
        ("max_token", "Did you mean max_tokens? "),
        ("systm", "Did you mean system? "),
        ("image", "It is called images here. "),
        ("api_base", "It is called base_url here."),
        ("extra_headers", "It is called header here."),
        ("extra_body", "It is called param here."),
        ("sampling_params", "It is called param here."),
        ("max_retries", "It is called retries here."),
        ("num_generations", "It is called n here. "),
        ("max_new_tokens", "It is called max_tokens here. "),
        ("max_completion_tokens", "It is called max_tokens here. "),
        ("max_output_tokens", "It is called max_tokens here. "),
        ("system_prompt", "It is called system here. "),
        ("response_format", "It is called output_type here. "),
        ("response_model", "It is called output_type here. "),
        ("as_", "It is called output_type here. "),
        ("type", "It is called output_type here. "),
        ("as", "It is called output_type here. "),
        ("functions", "It is called tools here. "),
        ("stop_sequences", "It is called stop here. "),
        ("min_p", ""),
    ],
)
def test_an_unknown_name_is_an_error_that_knows_what_is_meant(server: ScriptedServer, name: str, hint: str) -> None:
    llm = LLM("s:m")

    async def streamed() -> None:
        async for _ in llm.stream("Hi", **{name: 1}):
            pass

    doors = {
        "LLM": lambda: LLM("s:m", **{name: 1}),
        "ask": lambda: llm.ask("Hi", **{name: 1}),
        "aask": lambda: asyncio.run(llm.aask("Hi", **{name: 1})),
        "stream": lambda: asyncio.run(streamed()),
    }
    for door, call in doors.items():
        with pytest.raises(OptionError) as caught:
            call()
        assert caught.value.message == f"{door} has no option {name}."
        assert caught.value.hint == hint + (FURTHER % name if hint.endswith(" ") or not hint else "")
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("out", "It returns the answer: x = llm.ask(…).value."),
        ("show", "Nothing is shown here: print(response.text), or display(response.value)."),
        ("code", "response.text has the code of the answer."),
        ("background", "aask and stream are awaited while other code runs."),
        ("raw", "A prompt is sent as it stands here, {{ }} included."),
        ("dry_run", "%%llm --dry-run shows the request."),
        ("model", 'LLM("provider:model").ask(…) names the model.'),
        ("model_name", 'LLM("provider:model").ask(…) names the model.'),
        ("fallbacks", 'They stand in an alias: {"model": …, "fallbacks": […]}.'),
        ("messages", "The prompt, a text or a list of messages, is the first argument."),
    ],
)
def test_what_only_a_cell_can_do_says_what_to_do_in_its_place(server: ScriptedServer, name: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        LLM("s:m").ask("Hi", **{name: True})
    assert (caught.value.message, caught.value.hint) == (f"ask has no option {name}.", hint)
    assert server.requests == []


def test_no_stream_asks_for_one_document(server: ScriptedServer) -> None:
    LLM("s:m").ask("Hi", no_stream=True)
    assert "stream" not in body_of(server) or body_of(server)["stream"] is False

    async def streamed() -> None:
        async for _ in LLM("s:m").stream("Hi", no_stream=True):
            pass

    with pytest.raises(OptionError, match="no_stream=True excludes that"):
        asyncio.run(streamed())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dimension", "It is called dimensions here. "),
        ("batch_size", "It is called batch here. "),
        ("extra_body", "It is called param here."),
        ("dimensons", "Did you mean dimensions? "),
    ],
)
def test_embed_knows_what_is_meant(server: ScriptedServer, name: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        LLM("s:m").embed(["a"], **{name: 2})
    assert caught.value.message == f"embed has no option {name}."
    assert caught.value.hint == hint + (FURTHER % name if hint.endswith(" ") else "")
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temperature", "It is for answers in words, which vectors are not."),
        ("max_completion_tokens", "It is for answers in words, which vectors are not."),
        ("system", "It is for answers in words, which vectors are not."),
        ("input", "The texts are the first argument."),
        ("model", 'LLM("provider:model").embed(…) names the model.'),
    ],
)
def test_embed_does_not_send_an_option_of_answers_astray(server: ScriptedServer, name: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        LLM("s:m").embed(["a"], **{name: 2})
    assert (caught.value.message, caught.value.hint) == (f"embed has no option {name}.", hint)
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": 0}, "embed: dimensions must be a whole number of at least 1, not 0."),
        ({"batch": "many"}, "embed: batch must be a whole number of at least 1, not 'many'."),
        ({"base_url": "ftp://x"}, "embed: base_url must be a URL that starts with http:// or https://, not 'ftp://x'."),
        ({"header": ["x"]}, "embed: header must be a dict, not list."),
        ({"param": {"x": {1}}}, "embed: param['x'] must be JSON, not set."),
    ],
)
def test_embed_refuses_wrong_values(server: ScriptedServer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        LLM("s:m").embed(["a"], **options)
    assert caught.value.message == message
    assert server.requests == []


# Values

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"temperature": "hot"}, "temperature must be a number, not 'hot'."),
    ({"temperature": True}, "temperature must be a number, not True."),
    ({"temperature": [1]}, "temperature must be a number, not [1]."),
    ({"temperature": float("nan")}, "temperature must be a number of at least 0, not nan."),
    ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1, not 0."),
    ({"max_tokens": 2.5}, "max_tokens must be a whole number, not 2.5."),
    ({"max_tokens": 10**5000}, "max_tokens must be a number that a server takes, not this int."),
    ({"n": 0}, "n must be a whole number of at least 1, not 0."),
    ({"seed": "x"}, "seed must be a whole number, not 'x'."),
    ({"stop": 5}, "stop must be a text, not 5."),
    ({"stop": ["a", 5]}, "stop must be a text, not 5."),
    ({"timeout": -1}, "timeout must be a number of at least 0, not -1."),
    ({"timeout": 0}, "timeout must be more than 0 seconds, not 0."),
    ({"retries": -1}, "retries must be a whole number of at least 0, not -1."),
    ({"api": "chatt"}, "api must be one of chat, responses, completions, not 'chatt'."),
    ({"base_url": "localhost"}, "base_url must be a URL that starts with http:// or https://, not 'localhost'."),
    ({"base_url": 5}, "base_url must be a text, not 5."),
    ({"system": 5}, "system must be a text, not 5."),
    ({"chat": 5}, "chat must be a text, not 5."),
    ({"images": 5}, "images must be paths, URLs or images, not 5."),
    ({"images": ["a.png", None]}, "images must be paths, URLs or images, not None."),
    ({"tools": "weather"}, "tools must be functions, or MCP servers as 'mcp:NAME', not 'weather'."),
    ({"tools": [5]}, "tools must be functions, or MCP servers as 'mcp:NAME', not 5."),
    ({"schema": 5}, ("schema must be a JSON Schema: a dict, the path of a .json file or a text such as "
                     "'name, age int', not 5.")),
    ({"choices": "a,b"}, 'choices must be a list of texts, such as ["yes", "no"], not \'a,b\'.'),
    ({"choices": []}, 'choices must be a list of texts, such as ["yes", "no"], not [].'),
    ({"choices": [1, 2]}, 'choices must be a list of texts, such as ["yes", "no"], not [1, 2].'),
    ({"regex": 5}, "regex must be a text, not 5."),
    ({"grammar": 5}, "grammar must be a text or the path of a file, not 5."),
    ({"output_type": 5}, "output_type must be a type, or an expression of one, not 5."),
    ({"header": ["x"]}, "header must be a dict, not list."),
    ({"header": {"X-A": 5}}, "header['X-A'] must be text, not int."),
    ({"header": {"X A": "x"}}, "header['X A'] must be a name of letters, digits and hyphens, not this."),
    ({"header": {"X-A": "a\r\nB: c"}}, "header['X-A'] must be printable ASCII characters, not this text."),
    ({"param": "x"}, "param must be a dict, not str."),
    ({"param": {5: 1}}, "the name 5 in param must be text, not 5."),
    ({"param": {"x": [object]}}, "param['x'] must be JSON, not type."),
    ({"param": {"x": {"y": float("nan")}}}, "param['x'] must be JSON, not nan."),
    ({"param": {"x": {5: 1}}}, "param['x'] must be JSON, not a dict whose keys are no texts."),
    ({"confirm": "yes"}, "confirm must be True or False, not 'yes'."),
    ({"once": 1}, "once must be True or False, not 1."),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_a_wrong_value_names_its_keyword(server: ScriptedServer, options: dict[str, Any], message: str) -> None:
    for door, call in {"LLM": lambda: LLM("s:m", **options), "ask": lambda: LLM("s:m").ask("Hi", **options)}.items():
        with pytest.raises(OptionError) as caught:
            call()
        assert caught.value.message == f"{door}: {message}"
    assert server.requests == []


def test_the_model_is_a_name() -> None:
    with pytest.raises(OptionError) as caught:
        LLM(5)  # type: ignore[arg-type]
    assert caught.value.message == "LLM: model must be the name of one, not 5."
    assert LLM(None).model == ""


def test_none_is_not_given(server: ScriptedServer) -> None:
    nothing = dict.fromkeys(
        (
            "temperature",
            "system",
            "images",
            "tools",
            "schema",
            "choices",
            "param",
            "header",
            "chat",
            "timeout",
            "confirm",
        )
    )
    LLM("s:m", temperature=0.5, system="Be brief.").ask("Hi", **nothing)  # type: ignore[arg-type]
    body = body_of(server)
    assert body["temperature"] == 0.5
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def test_a_lone_image_and_a_lone_function_are_lists_of_one(server: ScriptedServer) -> None:
    LLM("s:m").ask("Hi", images=PIXEL, tools=weather)
    body = body_of(server)
    assert [part["type"] for part in body["messages"][0]["content"]] == ["text", "image_url"]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather"]


def test_no_tools_and_no_images_leave_out_those_of_the_model(server: ScriptedServer) -> None:
    LLM("s:m", tools=weather, images=PIXEL).ask("Hi", tools=[], images=[])
    assert "tools" not in body_of(server)
    assert body_of(server)["messages"] == [{"role": "user", "content": "Hi"}]


def test_numbers_of_numpy_are_numbers(server: ScriptedServer) -> None:
    numpy = pytest.importorskip("numpy")
    LLM("s:m").ask("Hi", max_tokens=numpy.int64(5), temperature=numpy.float32(0.5))
    assert (body_of(server)["max_tokens"], body_of(server)["temperature"]) == (5, 0.5)


def test_once_leaves_out_the_conversation_of_the_model(server: ScriptedServer) -> None:
    llm = LLM("s:m", chat="talk")
    for options in ({}, {"once": True}, {}):
        llm.ask("Hi", **options)
    assert [len(request.json["messages"]) for request in server.requests] == [1, 1, 3]
    with pytest.raises(OptionError, match="chat= and once=True exclude each other"):
        llm.ask("Hi", chat="talk", once=True)


def test_a_further_field_reads_a_variable_and_hides_it(
    session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENANT", "tenant-0123456789")
    session.settings.params = {"param": {"tenant": "env:TENANT"}}
    response = LLM("s:m").ask("Hi", param={"deep": {"tenant": ["os.environ/TENANT"]}})
    assert body_of(server)["tenant"] == "tenant-0123456789"
    assert body_of(server)["deep"] == {"tenant": ["tenant-0123456789"]}
    assert "tenant-0123456789" not in repr(response)
    monkeypatch.delenv("TENANT")
    with pytest.raises(InputError, match=r'param=\{"tenant": …\}: the environment variable TENANT is not set'):
        LLM("s:m").ask("Hi")


# Typed answers

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


def test_a_schema_from_each_door(session: Session, server: ScriptedServer, tmp_path: Path) -> None:
    file = tmp_path / "person.json"
    file.write_text(json.dumps(SCHEMA))
    ada = {"name": "Ada", "age": 36}
    for schema in (SCHEMA, str(file), file, "name, age int", json.dumps(SCHEMA)):
        assert LLM("s:m").ask("Who?", schema=schema).value == ada
        assert LLM("s:m", schema=schema).ask("Who?").value == ada
    session.settings.params = {"schema": SCHEMA}
    assert LLM("s:m").ask("Who?").value == ada
    session.settings.params = {}
    session.registry.aliases = {"who": {"model": "s:m", "schema": SCHEMA}}
    assert LLM("who").ask("Who?").value == ada
    for request in server.requests:
        schema = request.json["response_format"]["json_schema"]["schema"]
        assert schema["properties"]["age"] == {"type": "integer"}


def test_choices_a_pattern_and_a_grammar(session: Session, server: ScriptedServer) -> None:
    session.registry.get("s").structured = "grammar"
    for options in ({"choices": ["yes", "no"]}, {"choices": ("yes", "no, never")}, {"regex": "yes|no"},
                    {"grammar": 'root ::= "yes" | "no"'}):  # fmt: skip
        assert LLM("s:m").ask("Well?", **options).value == "yes"
        assert LLM("s:m", **options).ask("Well?").value == "yes"
        session.settings.params = options
        assert LLM("s:m").ask("Well?").value == "yes"
        session.settings.params = {}
    assert all(request.json["grammar"].startswith("root ::=") for request in server.requests)


def test_the_nearer_type_takes_the_place_of_a_farther_one(server: ScriptedServer) -> None:
    llm = LLM("s:m", schema=SCHEMA)
    assert llm.ask("Well?", choices=["yes", "no"]).value == "yes"
    assert llm.ask("Well?", output_type=str).value == "yes"
    with pytest.raises(InputError, match="schema= and choices= exclude each other"):
        llm.ask("Well?", schema=SCHEMA, choices=["yes"])


def test_a_schema_that_is_none(server: ScriptedServer) -> None:
    with pytest.raises(OutputTypeError):
        LLM("s:m").ask("Who?", schema={"type": "strng"})
    with pytest.raises(OutputTypeError, match=r"neither a \.json file"):
        LLM("s:m").ask("Who?", schema="nope")
    with pytest.raises(OptionError, match="a type stands in output_type"):
        LLM("s:m").ask("Who?", schema=int)
    assert server.requests == []


@pytest.mark.parametrize("options", [{"schema": SCHEMA}, {"choices": ["yes", "no"]}, {"regex": "[0-9]{1,3}"}])
def test_typed_answers_of_a_real_server(session: Session, vllm_url: str, options: dict[str, Any]) -> None:
    session.registry.add("v", "vllm", base_url=vllm_url)
    value = LLM("v:", temperature=0, max_tokens=200).ask("Ada is 36 years old.", **options).value
    if "schema" in options:
        assert set(value) == {"name", "age"}
        assert isinstance(value["age"], int)
    else:
        assert value in ("yes", "no") if "choices" in options else value.isdigit()


# Lists of messages

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Look: "}, {"type": "image_url", "image_url": {"url": PIXEL}}],
    },
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    {"role": "user", "content": "So?"},
]


def test_a_list_of_messages_is_sent_as_it_is(server: ScriptedServer) -> None:
    async def both() -> None:
        await LLM("s:m").aask(MESSAGES)
        assert [event async for event in LLM("s:m").stream(MESSAGES)]

    response = LLM("s:m").ask(MESSAGES)
    asyncio.run(both())
    sent = [request.json["messages"] for request in server.requests]
    assert sent[0] == sent[1] == sent[2]
    assert [message["role"] for message in sent[0]] == ["system", "user", "assistant", "tool", "user"]
    assert sent[0][0] == MESSAGES[0]
    assert [part["type"] for part in sent[0][1]["content"]] == ["text", "image_url"]
    assert sent[0][2]["tool_calls"] == [CALL]
    assert sent[0][3:] == [{"role": "tool", "content": "sunny", "tool_call_id": "c1"}, MESSAGES[4]]
    assert response.text == "yes"
    assert response.messages[-1] == user("So?")


def test_the_messages_of_a_response_go_on(server: ScriptedServer) -> None:
    first = LLM("s:m").ask("Hi")
    LLM("s:m").ask([*first.messages, assistant(first.text), {"role": "user", "content": "And?"}])
    assert [message["content"] for message in server.requests[1].json["messages"]] == ["Hi", "yes", "And?"]


def test_what_a_list_ends_with(server: ScriptedServer) -> None:
    LLM("s:m").ask(MESSAGES[:4])
    assert [message["role"] for message in body_of(server)["messages"]] == ["system", "user", "assistant", "tool"]


def test_typed_answers_to_a_list(session: Session, server: ScriptedServer) -> None:
    session.registry.get("s").structured = "none"
    assert LLM("s:m").ask(MESSAGES, choices=["yes", "no"]).value == "yes"
    last = body_of(server)["messages"][-1]
    assert last["role"] == "user"
    assert last["content"].startswith("So?\n\n")


def test_a_system_prompt_stands_once(session: Session, server: ScriptedServer) -> None:
    session.settings.system = "Of the settings."
    LLM("s:m", system="Of the model.").ask(MESSAGES)
    LLM("s:m", system="Of the model.").ask(MESSAGES[4:])
    assert [
        [m["content"] for m in request.json["messages"] if m["role"] == "system"] for request in server.requests
    ] == [
        ["Be brief."],
        ["Of the model."],
    ]
    with pytest.raises(OptionError) as caught:
        LLM("s:m").ask(MESSAGES, system="Another.")
    assert caught.value.message == "The messages have a system prompt, and system= is another."
    with pytest.raises(OptionError, match="A list of messages is a conversation of its own, and chat='talk' names"):
        LLM("s:m", chat="talk").ask(MESSAGES)
    LLM("s:m", chat="talk").ask(MESSAGES, once=True)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "Message 1 is no message but None."),
        ("Hi", "Message 1 is no message but str."),
        ({"content": "x"}, "Message 1 has no role."),
        ({"role": "usr", "content": "x"}, "Message 1 has the role 'usr'."),
        ({"role": "user"}, "Message 1 (user) has no content."),
        ({"role": "user", "content": ""}, "Message 1 (user) is empty."),
        ({"role": "user", "content": 5}, "Message 1 (user): its content is int, no text and no list of parts."),
        (
            {"role": "user", "content": "x", "name": "Bo"},
            "Message 1 (user) has a field 'name', which would not be sent.",
        ),
        ({"role": "user", "content": [5]}, "Message 1 (user), part 0 is int, no dict."),
        ({"role": "user", "content": ["a", {"text": "x"}]}, "Message 1 (user), part 1 has no type."),
        ({"role": "user", "content": [{"type": "audio"}]}, "Message 1 (user), part 0 has the type 'audio'."),
        ({"role": "user", "content": [{"type": "text"}]}, "Message 1 (user), part 0: its text is None."),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]},
            "Message 1 (user), part 0 names no image.",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}]},
            "Message 1 (user), part 0 has a field 'detail', which would not be sent.",
        ),
        ({"role": "tool", "content": "x"}, "Message 1 (tool) has no tool_call_id."),
        ({"role": "assistant", "tool_calls": "x"}, "Message 1: its tool_calls are str, no list."),
        ({"role": "assistant", "tool_calls": [{}]}, "Message 1, call 0 is no call of a function."),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            "Message 1, call 0: its id is None, no text.",
        ),
    ],
)
def test_a_wrong_message_is_named_by_its_place(server: ScriptedServer, item: Any, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        LLM("s:m").ask([{"role": "user", "content": "Hi"}, item])
    assert caught.value.message == message
    assert server.requests == []


@pytest.mark.parametrize(("role", "ours"), [("human", "user"), ("AI", "assistant"), ("model", "assistant")])
def test_a_role_by_another_name(server: ScriptedServer, role: str, ours: str) -> None:
    with pytest.raises(PromptError) as caught:
        LLM("s:m").ask([{"role": role, "content": "Hi"}])
    assert str(caught.value) == f"Message 0 has the role {role!r}.\nIt is called {ours} here."
    assert server.requests == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "The prompt must be a text or a list of messages, not NoneType."),
        (b"Hi", "The prompt must be a text or a list of messages, not bytes."),
        (5, "The prompt must be a text or a list of messages, not int."),
        ({"role": "user"}, "The prompt must be a text or a list of messages, not dict."),
        ("", "The prompt is empty."),
        (" \n", "The prompt is empty."),
        ([], "The list of messages is empty."),
        ([{"role": "system", "content": "x"}], "The messages hold a system prompt only."),
    ],
)
def test_what_is_no_prompt(server: ScriptedServer, prompt: Any, message: str) -> None:
    async def streamed() -> None:
        async for _ in LLM("s:m").stream(prompt):
            pass

    for call in (lambda: LLM("s:m").ask(prompt), lambda: asyncio.run(streamed())):
        with pytest.raises(PromptError) as caught:
            call()
        assert caught.value.message == message
    assert server.requests == []


def test_a_list_to_a_real_server(session: Session, vllm_url: str) -> None:
    session.registry.add("v", "vllm", base_url=vllm_url)
    said = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Hello Ada!"},
            {"role": "user", "content": "Say hello once more."}]  # fmt: skip
    response = LLM("v:", temperature=0, max_tokens=5).ask(said)
    assert [message.role for message in response.messages] == ["user", "assistant", "user"]
    assert response.messages[0].parts == (Text("My name is Ada."),)
    assert response.usage is not None
    alone = LLM("v:", temperature=0, max_tokens=1).ask("Say hello once more.").usage
    assert alone is not None
    assert response.usage.input_tokens > alone.input_tokens
