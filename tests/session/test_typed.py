"""Typed cells over scripted servers: what is bound and seen of values that are wrapped, several, or come with calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kernels import Kernel
from servers import Answer, ScriptedServer, chunk, stream

from llm_magic import LLM, DataFrame, api
from llm_magic.config.settings import Settings
from llm_magic.errors import InvalidValueError, OutputTypeError
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.session import Session

SERVERS = ["json_schema", "json_object", "none"]


def slowly(text: str, **more: Any) -> Answer:
    steps: list[Any] = [item for character in text for item in (chunk(character), 0.03)]
    return stream(*steps, chunk(finish="stop"), **more)


def answer(text: str) -> Answer:
    return stream(chunk(text), chunk(finish="stop"))


def choice(index: int, **delta: Any) -> dict[str, Any]:
    finish = "tool_calls" if "tool_calls" in delta else "stop"
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


@pytest.fixture
def session() -> Iterator[Session]:
    session = Session(Settings(), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


def llm_at(session: Session, server: ScriptedServer, **settings: object) -> LLM:
    session.registry.add("s", "compatible", base_url=server.url, max_retries=0, **settings)
    return LLM("s:m")


@pytest.mark.parametrize("structured", SERVERS)
@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"schema": {"minimum": 5}}, 1),
        ({"schema": {"properties": {"a": {"type": "integer"}}}}, {"a": "x"}),
        ({"output_type": int}, "many"),
        ({"output_type": list[int]}, ["x"]),
        ({"output_type": int | dict[str, int]}, {"a": "b"}),
        ({"choices": ["yes", "no"]}, "maybe"),
        ({"output_type": DataFrame["name, age int"]}, [{"name": "a", "age": "x"}]),
    ],
)
def test_a_wrong_inside_is_asked_again_and_never_bound(
    session: Session, structured: str, options: Any, wrong: Any
) -> None:
    wrapped = answer(json.dumps({"value": wrong}))
    with ScriptedServer(wrapped, wrapped) as server, pytest.raises(InvalidValueError) as caught:
        llm_at(session, server, structured=structured).ask("?", **options, retries_invalid=1)
    assert len(server.requests) == 2
    response: Any = caught.value.response
    assert response.value is None
    assert response.text == json.dumps({"value": wrong})


def test_a_frame_from_python(session: Session) -> None:
    with ScriptedServer(answer('{"value": [{"name": "a", "age": 3}]}')) as server:
        frame = llm_at(session, server).ask("?", output_type="DataFrame[name, age int]").value
    assert frame.to_dict("records") == [{"name": "a", "age": 3}]
    schema = server.requests[0].json["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]["value"]["items"]["properties"]) == ["name", "age"]


def test_several_typed_values_each_wrapped(session: Session) -> None:
    two = [choice(index, content=json.dumps({"value": word})) for index, word in enumerate(("yes", "no"))]
    with ScriptedServer(stream(*two)) as server:
        response = llm_at(session, server).ask("?", choices=["yes", "no"], n=2)
    assert response.value == ["yes", "no"]
    assert [each.value for each in response.alternatives] == ["yes", "no"]


def test_of_several_answers_the_first_that_calls_a_tool_goes_on(session: Session) -> None:
    def double(number: int) -> int:
        """Double it."""
        return 2 * number

    def call(index: int, number: int) -> dict[str, Any]:
        function = {"name": "double", "arguments": json.dumps({"number": number})}
        return choice(index, tool_calls=[{"index": 0, "id": f"c{index}", "type": "function", "function": function}])

    one = stream(choice(0, content="7"), call(1, 21), call(2, 5))
    two = stream(*(choice(index, content=f'{{"value": {40 + index}}}') for index in range(3)))
    with ScriptedServer(one, two) as server:
        response = llm_at(session, server).ask("?", output_type=int, n=3, tools=[double])
    assert response.value == [40, 41, 42]
    assert [(run.id, run.arguments, run.result) for run in response.tool_calls] == [("c1", '{"number": 21}', "42")]
    sent = server.requests[1].json["messages"]
    assert [call["id"] for call in sent[1]["tool_calls"]] == ["c1"]


def test_a_schema_that_nothing_fits_is_refused_before_sending(session: Session) -> None:
    with ScriptedServer() as server, pytest.raises(OutputTypeError, match="No value fits the schema"):
        llm_at(session, server).ask("?", schema={"type": "object", "enum": ["a"]})
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "text", "shown"),
    [
        ("--choices yes,no", '{"value": "yes"}', "yes"),
        ("--as int", '{"value": 1234}', "1234"),
        ("--as 'date | None'", '{"value": "2026-01-02"}', "2026-01-02"),
        ("--as list[int]", '{"value": [1, 23]}', "[1, 23]"),
    ],
)
def test_what_is_seen_is_the_value_from_the_first_to_the_last(
    kernel: Kernel, options: str, text: str, shown: str
) -> None:
    registry = "get_ipython()._llm_magic.registry"
    with ScriptedServer(slowly(text)) as server:
        settings = f"base_url={server.url!r}, max_retries=0, structured='json_schema'"
        kernel.run(f"{registry}.add('w', 'compatible', {settings})").check()
        ran = kernel.run(f"%%llm -m w:m --once -o bound {options}\nx").check()
    sent = [message["content"] for message in ran.messages if "data" in message["content"]]
    assert sent
    assert not [each for each in sent if "value&quot;" in str(each["data"]) or '"value' in str(each["data"].values())]
    final = next(output["data"] for output in ran.outputs if "llm_magic" in output.get("metadata", {}))
    assert (final["text/plain"], final["text/markdown"]) == (shown, shown)


def test_a_frame_of_fields_that_are_named_in_the_cell(kernel: Kernel) -> None:
    registry = "get_ipython()._llm_magic.registry"
    with ScriptedServer(answer('[{"name": "Ada", "age": 36}]')) as server:
        kernel.run(f"{registry}.add('f', 'compatible', base_url={server.url!r}, max_retries=0)").check()
        ran = kernel.run("%%llm -m f:m --once -o people --as DataFrame[name, age int]\nx").check()
    assert kernel.value("(type(people).__module__, people.to_dict('list'))") == (
        "pandas",
        {"name": ["Ada"], "age": [36]},
    )
    assert "<td style" in ran.of_type("text/html")[0]


@pytest.mark.parametrize(
    ("options", "text", "kept"),
    [
        ({"output_type": int}, '{"value": 4}', "4"),
        ({"choices": ["yes", "no"]}, '{"value": "yes"}', "yes"),
        ({"output_type": list[int]}, '{"value": [1, 2]}', "[1, 2]"),
        ({"output_type": dict[str, int]}, '{"value": 4}', '{"value": 4}'),
    ],
)
def test_a_later_turn_sends_the_value_without_its_wrapping(
    session: Session, options: Any, text: str, kept: str
) -> None:
    with ScriptedServer(answer(text), answer("So it is.")) as server:
        llm = llm_at(session, server)
        assert llm.ask("How many?", chat="c", **options).text == text
        llm.ask("And now?", chat="c")
    assert [message["content"] for message in server.requests[-1].json["messages"]][1:] == [kept, "And now?"]
