"""Rows of offline batches: each line asks what a request from here would, and its result is what that would give."""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypedDict

import pandas as pd
import pytest
from batch_server import NO_ROUTE, BatchServer, Failure, Row, at_once, said
from pydantic import BaseModel

from llm_magic import LLM, api
from llm_magic.capabilities import Capabilities
from llm_magic.config.settings import Settings
from llm_magic.errors import (
    AuthenticationError,
    ContextOverflowError,
    EmptyAnswerError,
    IncompleteAnswerError,
    InvalidValueError,
    OptionError,
    ProtocolError,
    RefusedError,
    ServerFailedError,
)
from llm_magic.mapping.answers.answers import Answers
from llm_magic.providers.compatible import CompatibleProvider
from llm_magic.providers.registry import ProviderRegistry
from llm_magic.response import Response
from llm_magic.session import Session

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
OF_TYPES = {"output_type", "schema", "choices", "regex", "grammar"}
OF_THE_WAY = {"seconds", "first_token_seconds", "attempts", "headers", "request_id"}
"""What of a response tells how it came here."""

Says = Callable[[Row], dict[str, Any] | Failure]


class City(BaseModel):
    name: str
    size: int | None = None


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5


class Sized(TypedDict):
    size: int


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "batched"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    session = Session(Settings(resume=False), ProviderRegistry())
    api.activate(session)
    yield session
    session.close()
    api.activate(None)


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with BatchServer(validating=0, in_progress=0, finalizing=0) as server:
        server.direct = at_once(server)
        yield server


def text(content: str | None, finish: str = "stop", **fields: Any) -> Says:
    """Return what answers each line of a chat with this text."""

    def answer(line: Row) -> Any:
        whole: Any = said(line)
        for choice in whole["choices"]:
            choice["message"] = {**choice["message"], "content": content, **fields}
            choice["finish_reason"] = finish
        return whole

    return answer


def lines(server: BatchServer) -> list[dict[str, Any]]:
    """Return the bodies of all lines that were submitted."""
    return [row["body"] for name in server.batches for row in server.rows(name)]


def of_content(response: Response | None) -> dict[str, Any]:
    """Return what a response says, but for how it came here."""
    assert response is not None
    fields = dataclasses.fields(response)
    return {each.name: getattr(response, each.name) for each in fields if each.name not in OF_THE_WAY}


def by_batch(server: BatchServer, prompt: Any, inputs: Any, model: str = "compatible:m", **options: Any) -> Answers:
    llm = LLM(model, base_url=server.url)
    batch = llm.batch(prompt, inputs, poll=0.001, on_error="keep", again=True, **options)
    answers = batch.result(30)
    assert isinstance(answers, Answers)
    return answers


def by_both(
    server: BatchServer, prompt: Any, inputs: Any, model: str = "compatible:m", **options: Any
) -> tuple[Answers, list[dict[str, Any]]]:
    """Ask by a batch, and at once; both ask the same and get the same. Return the answers and the bodies."""
    server.batches.clear()
    batched, sent = by_batch(server, prompt, inputs, model, **options), lines(server)
    assert not any("stream" in body or "stream_options" in body for body in sent)
    before = len(server.requests)
    no_asking = {"retries_invalid": 0} if options.keys() & OF_TYPES else {}
    llm = LLM(model, base_url=server.url)
    mapped = llm.map(prompt, inputs, on_error="keep", retries=0, **no_asking, **options)
    asked = [request.json for request in server.requests[before:] if request.method == "POST"]
    for body in asked:
        body.pop("stream", None)
        body.pop("stream_options", None)
    assert sorted(map(json.dumps, sent)) == sorted(map(json.dumps, asked))
    assert [type(each) for each in batched.values] == [type(each) for each in mapped.values]
    assert batched.values == mapped.values
    assert list(map(type, batched.errors)) == list(map(type, mapped.errors))
    for one, other in zip(batched.responses, mapped.responses, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert of_content(one) == of_content(other)
    return batched, sent


DIALECTS: dict[str, dict[str, Any]] = {
    "json_schema": {},
    "json_object": {"structured": "json_object"},
    "grammar": {"structured": "grammar"},
    "prompt": {"structured": "none"},
}
"""Settings of a server that takes an output type so."""

TYPES: list[tuple[Any, str, Any]] = [
    (City, '{"name": "Ulm", "size": null}', City(name="Ulm")),
    (City, '```json\n{"name": "Ulm", "size": 3}\n```', City(name="Ulm", size=3)),
    (Point, '{"x": 1}', Point(1)),
    (Sized, '{"size": 2}', {"size": 2}),
    (Color, "red", Color.RED),
    (Literal["a", "b"], "b", "b"),
    (int, "3", 3),
    (list[City], '{"value": [{"name": "Ulm"}]}', [City(name="Ulm")]),
    (date, "2020-02-29", date(2020, 2, 29)),
    (Decimal, "1.5", Decimal("1.5")),
    (int | str, "3", 3),
    (City | None, "null", None),
    (bool, "true", True),
]


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_line_is_what_would_be_asked_now_of_every_type(session: Session, server: BatchServer, dialect: str) -> None:
    session.registry.add("here", "compatible", base_url=server.url, max_retries=0, **DIALECTS[dialect])
    for wanted, content, value in TYPES:
        server.answer = text(content)
        answers, sent = by_both(server, "{{ item }}", ["one", "two"], "here:m", output_type=wanted)
        assert answers.values == [value, value]
        assert len(sent) == 2


@pytest.mark.parametrize(
    ("kind", "options", "content"),
    [
        ("vllm", {"regex": "[a-c]+"}, "abc"),
        ("vllm", {"grammar": 'root ::= "yes" | "no"'}, "no"),
        ("vllm", {"choices": ["price", "quality"]}, "price"),
        ("compatible", {"regex": "[a-c]+"}, "abc"),
        ("compatible", {"grammar": 'root ::= "yes" | "no"'}, "no"),
        ("compatible", {"choices": ["price", "quality"]}, "price"),
        ("compatible", {"schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}, '{"a": 1}'),
    ],
)
def test_patterns_grammars_choices_and_schemas(
    session: Session, server: BatchServer, kind: str, options: Any, content: str
) -> None:
    traits: dict[str, Any] = {"structured": "grammar"} if kind == "compatible" else {"batches": True}
    session.registry.add("here", kind, base_url=server.url, max_retries=0, **traits)
    server.answer = text(content)
    answers, _ = by_both(server, "{{ item }}", ["one"], "here:m", **options)
    assert answers.values == [json.loads(content) if "schema" in options else content]


class Forcing(CompatibleProvider):
    """A server that takes an output type as a tool which has to be called."""

    kind = "forcing"

    def capabilities(self, model: str) -> Capabilities:
        known = super().capabilities(model)
        return dataclasses.replace(known, dialects={"json": "tool_call", "choices": "tool_call"})


def calling(arguments: str, content: str | None = None) -> Says:
    def answer(line: Row) -> Any:
        whole: Any = said(line)
        message = whole["choices"][0]["message"]
        name = line["body"]["tools"][-1]["function"]["name"]
        call = {"id": "c0", "type": "function", "function": {"name": name, "arguments": arguments}}
        whole["choices"][0] |= {"message": {**message, "content": content, "tool_calls": [call]}}
        whole["choices"][0]["finish_reason"] = "tool_calls"
        return whole

    return answer


def test_a_type_that_is_asked_for_as_a_call_is_no_call(session: Session, server: BatchServer) -> None:
    session.registry.register("here", provider=Forcing(name="here", base_url=server.url))
    server.answer = calling('{"name": "Ulm", "size": null}', "I think so.")
    answers, (body,) = by_both(server, "{{ item }}", ["one"], "here:m", output_type=City)
    assert body["tool_choice"] == {"type": "function", "function": {"name": "City"}}
    assert answers.values == [City(name="Ulm")]
    (response,) = answers.responses
    assert response is not None
    assert (response.structured, response.tool_calls, response.reasoning) == ("tool_call", (), "I think so.")
    assert answers.notes == ()


@pytest.mark.parametrize("model", ["openai:gpt-4o", "openai:o3-mini", "compatible:m"])
@pytest.mark.usefixtures("session")
def test_options_stand_in_each_line(server: BatchServer, model: str) -> None:
    param = {"service": [1, None, {"x": True}], "metadata": {"a": "b"}}
    options: dict[str, Any] = {
        "seed": 4, "stop": ["END"], "max_tokens": 7, "reasoning_effort": "low", "system": "Be short.", "param": param,
    }  # fmt: skip
    if model != "openai:o3-mini":
        options |= {"temperature": 0.5, "top_p": 0.25, "presence_penalty": 1, "frequency_penalty": -1}
    _, (body, _) = by_both(server, "{{ item }}", ["one", "two"], model, **options)
    assert body["model"] == model.partition(":")[2]
    assert body["messages"][0] == {"role": "system", "content": "Be short."}
    assert body["service"] == [1, None, {"x": True}]
    assert (body["seed"], body["stop"], body["reasoning_effort"]) == (4, ["END"], "low")
    assert body["max_completion_tokens" if model == "openai:o3-mini" else "max_tokens"] == 7


@pytest.mark.usefixtures("session")
def test_whatever_an_answer_has_beside_its_text_is_there(server: BatchServer) -> None:
    quoted = {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 1}
    server.answer = text("Hi", reasoning_content="hm", annotations=[{"type": "url_citation", "url_citation": quoted}])
    answers, _ = by_both(server, "{{ item }}", ["one"])
    (response,) = answers.responses
    assert response is not None
    assert (response.text, response.reasoning, len(response.citations)) == ("Hi", "hm", 1)
    assert (response.request_id, response.seconds, response.first_token_seconds) == ("req_1", 0.0, None)

    def with_logprobs(line: Row) -> Any:
        whole: Any = said(line)
        token = {"token": "one", "logprob": -0.5, "top_logprobs": [{"token": "one", "logprob": -0.5}]}
        whole["choices"][0]["logprobs"] = {"content": [token]}
        return whole

    server.answer = with_logprobs
    answers, _ = by_both(server, "again {{ item }}", ["one"], logprobs=1)
    (response,) = answers.responses
    assert response is not None
    assert response.logprobs


@pytest.mark.usefixtures("session")
def test_several_answers_to_a_row_are_a_list(server: BatchServer) -> None:
    server.answer = text("3")
    answers, (body,) = by_both(server, "{{ item }}", ["one"], output_type=int, n=3)
    assert body["n"] == 3
    assert answers.values == [[3, 3, 3]]

    def differing(line: Row) -> Any:
        whole: Any = said(line)
        for choice in whole["choices"]:
            choice["message"] = {**choice["message"], "content": ["1", "no", "3"][choice["index"]]}
        return whole

    server.answer = differing
    answers, _ = by_both(server, "mixed {{ item }}", ["one"], output_type=int, n=3)
    assert isinstance(answers.errors[0], InvalidValueError)
    answers, _ = by_both(server, "texts {{ item }}", ["one"], n=3)
    assert answers.values == [["1", "no", "3"]]


@pytest.mark.parametrize(
    ("answer", "of_a_type", "of_text"),
    [
        (text(None, refusal="I cannot."), RefusedError, ""),
        (text("{", "content_filter"), IncompleteAnswerError, "{"),
        (text("{", "length"), IncompleteAnswerError, "{"),
        (text(""), InvalidValueError, EmptyAnswerError),
        (text(None), InvalidValueError, EmptyAnswerError),
        (text("no JSON"), InvalidValueError, "no JSON"),
        (lambda _: {"choices": []}, IncompleteAnswerError, EmptyAnswerError),
        (lambda _: {"x": 1}, ProtocolError, ProtocolError),
        (lambda _: {"error": {"message": "bad"}}, ServerFailedError, ServerFailedError),
        (lambda _: Failure("broken", 500, type="server_error"), ServerFailedError, ServerFailedError),
    ],
    ids=["refused", "filtered", "cut", "empty", "null", "invalid", "none", "nonsense", "error", "failed"],
)
@pytest.mark.usefixtures("session")
def test_what_is_no_plain_answer(server: BatchServer, answer: Says, of_a_type: Any, of_text: Any) -> None:
    server.answer = answer
    for options, expected in ({"output_type": City}, of_a_type), ({}, of_text):
        if server.answer.__name__ == "<lambda>":  # such errors hold what names the way, too
            answers = by_batch(server, "{{ item }}", ["one"], **options)
        else:
            answers, _ = by_both(server, "{{ item }}", ["one"], **options)
        if isinstance(expected, str):
            assert answers.values == [expected]
            assert answers.errors == [None]
        else:
            assert answers.values == [None]
            assert type(answers.errors[0]) is expected


@pytest.mark.usefixtures("session")
def test_of_a_cut_text_it_is_marked_that_it_is_cut(server: BatchServer) -> None:
    server.answer = text("half", "length")
    answers = by_batch(server, "{{ item }}", ["one"])
    assert answers.values == ["half"]
    assert answers.responses[0] is not None
    assert answers.responses[0].finish_reason == "length"


@pytest.mark.usefixtures("session")
def test_nothing_is_asked_again_within_a_batch_and_the_hint_says_what_is_done(server: BatchServer) -> None:
    server.answer = text("no JSON")
    (error,) = by_batch(server, "{{ item }}", ["one"], output_type=City).errors
    assert isinstance(error, InvalidValueError)
    assert error.hint == (
        "Reword the prompt, or call it again: only what is missing is asked. error.response.text has what came."
    )
    with pytest.raises(OptionError, match="Nothing is asked again within a batch"):
        by_batch(server, "{{ item }}", ["one"], output_type=City, retries_invalid=2)


def add(x: int) -> int:
    """Add one."""
    raise AssertionError(f"it was run with {x}")


NOT_RUN = "Calls of tools are not carried out in a batch: .responses[N].tool_calls has them."


@pytest.mark.usefixtures("session")
def test_calls_come_back_and_nothing_is_run(server: BatchServer) -> None:
    answers = by_batch(server, "{{ item }}", ["one", "two"], tools=[add])
    assert [body["tools"][0]["function"]["name"] for body in lines(server)] == ["add", "add"]
    assert answers.values == ["", ""], "the text, which there is none of"
    for response in answers.responses:
        assert response is not None
        (call,) = response.tool_calls
        assert (call.name, call.arguments, call.result) == ("add", '{"x": 1}', None)
    assert answers.notes == (NOT_RUN,)

    server.answer = calling('{"x": 1}', "Wait.")
    assert by_batch(server, "beside {{ item }}", ["one"], tools=[add]).values == ["Wait."]
    server.answer = said
    answers = by_batch(server, "none {{ item }}", ["one"], tools=[add], tool_choice="none")
    assert (answers.values, answers.notes) == (["none one"], ())


@pytest.mark.usefixtures("session")
def test_calls_of_tools_that_are_given_as_a_field(server: BatchServer) -> None:
    tool = {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}}
    answers = by_batch(server, "{{ item }}", ["one"], param={"tools": [tool]})
    assert lines(server)[0]["tools"] == [tool]
    assert answers.responses[0] is not None
    assert [call.name for call in answers.responses[0].tool_calls] == ["g"]
    assert answers.notes == (NOT_RUN,)


@pytest.mark.usefixtures("session")
def test_a_call_where_a_type_was_asked_for_is_an_error_in_place(server: BatchServer) -> None:
    answers = by_batch(server, "{{ item }}", ["one", "two"], tools=[add], output_type=City)
    for error, response in zip(answers.errors, answers.responses, strict=True):
        assert isinstance(error, InvalidValueError)
        assert error.message == 'The answer is no City, it calls add({"x": 1}).'
        assert response is not None
        assert response.tool_calls[0].name == "add"
    server.answer = text('{"name": "Ulm"}')
    assert by_batch(server, "{{ item }}!", ["one"], tools=[add], output_type=City).values == [City(name="Ulm")]


@pytest.mark.usefixtures("session")
def test_images_of_options_and_of_rows(server: BatchServer) -> None:
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}}
    _, (body, _) = by_both(server, "{{ item }}", ["one", "two"], images=PNG)
    assert body["messages"][0]["content"] == [{"type": "text", "text": "one"}, shown]
    frame = pd.DataFrame({"picture": [PNG, PNG], "name": ["a", "b"]})
    server.batches.clear()
    _, (body, _) = by_both(server, "{{ name }}: {{ picture }} ?", frame)
    assert [part["type"] for part in body["messages"][0]["content"]] == ["text", "image_url", "text"]


@pytest.mark.usefixtures("session")
def test_messages_that_a_function_gives(server: BatchServer) -> None:
    by_both(server, lambda item: f"say {{{{ {item}", ["one", "two"])


def test_the_conversation_goes_along(session: Session, server: BatchServer) -> None:
    LLM("compatible:m", base_url=server.url).ask("SAY Before", chat="talk")
    _, sent = by_both(server, "{{ item }}", ["one", "two"], chat="talk")
    for body, item in zip(sent, ["one", "two"], strict=True):
        assert [message["content"] for message in body["messages"]] == ["SAY Before", "Before", item]
    assert len(session.conversations.get("talk").turns()) == 1, "rows are no turns"


@pytest.mark.usefixtures("session")
def test_a_frame_gets_the_columns_that_it_gets_otherwise(server: BatchServer) -> None:
    frame = pd.DataFrame({"review": ["Ulm", "x"]}, index=pd.Index([7, 9], name="key"))

    def answer(line: Row) -> Any:
        content = line["body"]["messages"][-1]["content"]
        return text(json.dumps({"name": content[:3], "size": 2}) if content.startswith("Ulm") else "?")(line)

    server.answer = answer
    answers, _ = by_both(server, "{{ review }}", frame, output_type=City)
    found = answers.to_frame()
    assert list(found.columns) == ["name", "size", "error"]
    assert list(found.index) == [7, 9]
    assert found.loc[7, "name"] == "Ulm"
    assert found.loc[7, "size"] == 2
    assert "not JSON" in found.loc[9, "error"]
    server.batches.clear()
    server.answer = text('{"value": [{"name": "a", "size": 1}]}')
    answers, _ = by_both(server, "{{ item }}", ["one"], output_type=list[City])
    assert answers.values == [[City(name="a", size=1)]]


@pytest.mark.usefixtures("session")
def test_a_row_that_cannot_be_sent_fails_alone(server: BatchServer) -> None:
    answers = by_batch(server, "{{ item }}", ["one", "half \ud800", "three"])
    assert answers.values == ["one", None, "three"]
    assert "surrogate" in str(answers.errors[1])
    assert len(lines(server)) == 2


# The Responses API, and completions


@pytest.mark.usefixtures("session")
def test_the_responses_api(server: BatchServer) -> None:
    answers, (body, _) = by_both(server, "{{ item }}", ["3", "4"], "openai:gpt-4o", output_type=int, api="responses")
    assert answers.values == [3, 4]
    assert body["store"] is False
    assert body["input"][0]["content"]
    assert [batch.body["endpoint"] for batch in server.created] == ["/v1/responses"]
    (name,) = server.batches
    assert {row["url"] for row in server.rows(name)} == {"/v1/responses"}


def of_responses(status: str = "completed", *items: dict[str, Any], **fields: Any) -> Says:
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    return lambda _: (
        {"object": "response", "status": status, "output": list(items), "model": "m", "usage": usage} | fields
    )


def item(content: str, kind: str = "output_text") -> dict[str, Any]:
    part = (
        {"type": kind, "text": content, "annotations": []} if kind == "output_text" else {"type": kind, kind: content}
    )
    return {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


@pytest.mark.usefixtures("session")
def test_items_of_the_responses_api(server: BatchServer) -> None:
    thought = {"id": "r1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    server.answer = of_responses("completed", thought, item("Hi"))
    answers, _ = by_both(server, "{{ item }}", ["one"], "openai:gpt-5", api="responses")
    assert answers.responses[0] is not None
    assert (answers.values, answers.responses[0].reasoning) == (["Hi"], "hm")
    call = {"id": "f1", "type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"x": 1}'}
    server.answer = of_responses("completed", call)
    answers = by_batch(server, "{{ item }}", ["one"], "openai:gpt-5", api="responses", tools=[add])
    assert answers.responses[0] is not None
    assert [each.name for each in answers.responses[0].tool_calls] == ["add"]
    assert answers.notes == (NOT_RUN,)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            of_responses("incomplete", item('{"na'), incomplete_details={"reason": "max_output_tokens"}),
            IncompleteAnswerError,
        ),
        (
            of_responses("incomplete", item('{"na'), incomplete_details={"reason": "content_filter"}),
            IncompleteAnswerError,
        ),
        (of_responses("completed", item("I cannot.", "refusal")), RefusedError),
        (of_responses("failed", error={"code": "server_error", "message": "broken"}), ServerFailedError),
        (of_responses("completed", item("no JSON")), InvalidValueError),
    ],
    ids=["cut", "filtered", "refused", "failed", "invalid"],
)
@pytest.mark.usefixtures("session")
def test_responses_that_are_no_values(server: BatchServer, answer: Says, expected: type) -> None:
    server.answer = answer
    answers = by_batch(server, "{{ item }}", ["one"], "openai:gpt-4o", api="responses", output_type=City)
    assert [type(error) for error in answers.errors] == [expected]


@pytest.mark.usefixtures("session")
def test_the_completions_api(server: BatchServer) -> None:
    answers, (body, _) = by_both(server, "{{ item }}", ["one", "two"], api="completions", max_tokens=5)
    assert answers.values == ["one", "two"]
    assert (body["prompt"], body["max_tokens"]) == ("one", 5)
    assert server.created[0].body["endpoint"] == "/v1/completions"


# Settings that change between submission and reading


NULLS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("asked", "read"),
    [("json_schema", "prompt"), ("json_schema", "json_object"), ("prompt", "json_schema")],
)
def test_an_answer_is_read_as_it_was_asked_for(session: Session, server: BatchServer, asked: str, read: str) -> None:
    by_null = asked == "json_schema"  # strict schemas require all, and have null for what is left out
    server.answer = text('{"a": 1, "b": null}' if by_null else '{"a": 1}')

    def batch(dialect: str) -> Any:
        session.registry.add("here", "compatible", base_url=server.url, **DIALECTS[dialect])
        return LLM("here:m").batch("{{ item }}", ["one"], schema=NULLS, poll=0.001)

    server.faults["poll"] = [dataclasses.replace(NO_ROUTE, status=401)]
    with pytest.raises(AuthenticationError):
        batch(asked).result(30)
    server.faults.clear()
    answers = batch(read).result(30)
    assert len(server.created) == 1
    assert answers.values == [{"a": 1}]
    assert answers.responses[0].structured == asked


@pytest.mark.parametrize("forcing_first", [True, False])
def test_so_is_one_that_is_a_call_now_or_was_one(session: Session, server: BatchServer, forcing_first: bool) -> None:
    def batch(forcing: bool) -> Any:
        provider = Forcing if forcing else CompatibleProvider
        session.registry.register("here", provider=provider(name="here", base_url=server.url))
        return LLM("here:m").batch("{{ item }}", ["one"], output_type=City, poll=0.001)

    server.answer = calling('{"name": "Ulm", "size": null}') if forcing_first else text('{"name": "Ulm"}')
    server.faults["poll"] = [dataclasses.replace(NO_ROUTE, status=401)]
    with pytest.raises(AuthenticationError):
        batch(forcing_first).result(30)
    server.faults.clear()
    answers = batch(not forcing_first).result(30)
    assert len(server.created) == 1
    assert answers.values == [City(name="Ulm")]
    assert answers.responses[0].tool_calls == ()


# All at once, and in cells


@pytest.mark.parametrize("string_bodies", [False, True])
@pytest.mark.parametrize("failed_rows", ["openai", "llama-stack", "vllm", "vllm-text"])
def test_a_mixed_batch_has_values_and_errors_in_place(
    session: Session, server: BatchServer, failed_rows: Any, string_bodies: bool
) -> None:
    overflow = "This model's maximum context length is 4096 tokens. However, your messages resulted in 20035 tokens."
    answers: dict[str, Says] = {
        "valid": text('{"name": "Ulm", "size": 3}'),
        "invalid": text('{"name": "Ulm"'),
        "refused": text(None, refusal="I cannot."),
        "filtered": text("", "content_filter"),
        "long": lambda _: Failure(overflow, 400, "context_length_exceeded", param="messages"),
        "cut": text('{"name": "U', "length"),
        "valid again": text('{"name": "Bonn"}'),
    }
    server.answer = lambda line: answers[line["body"]["messages"][-1]["content"].partition("\n")[0]](line)
    server.failed_rows, server.string_bodies, server.order = failed_rows, string_bodies, "shuffled"
    session.registry.add("here", "compatible", base_url=server.url, structured="none")
    found = by_batch(server, "{{ item }}", list(answers), "here:m", output_type=City)
    assert found.values == [City(name="Ulm", size=3), *[None] * 5, City(name="Bonn")]
    kinds = [None, InvalidValueError, RefusedError, IncompleteAnswerError, ContextOverflowError, IncompleteAnswerError]
    assert [error and type(error) for error in found.errors] == [*kinds, None]
    cut = found.responses[5]
    assert cut is not None
    assert cut.text == '{"name": "U'
    frame = found.to_frame()
    assert list(frame["name"].dropna()) == ["Ulm", "Bonn"]
    assert [bool(each) and not pd.isna(each) for each in frame["error"]] == [False, *[True] * 5, False]


@pytest.mark.parametrize("first", ["chat", "responses"])
def test_so_is_one_that_is_asked_by_another_api_now(session: Session, server: BatchServer, first: str) -> None:
    server.answer = text("one") if first == "chat" else of_responses("completed", item("one"))

    def batch(by: str) -> Any:
        session.registry.add("here", "compatible", base_url=server.url, api=by)
        return LLM("here:m").batch("{{ item }}", ["one"], output_type=Literal["one", "two"], poll=0.001)

    server.faults["poll"] = [dataclasses.replace(NO_ROUTE, status=401)]
    with pytest.raises(AuthenticationError):
        batch(first).result(30)
    server.faults.clear()
    answers = batch({"chat": "responses", "responses": "chat"}[first]).result(30)
    assert answers.values == ["one"]
    assert len(server.created) == 1
