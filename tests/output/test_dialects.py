"""The table of dialects: what exactly goes out, and what is refused before sending."""

from __future__ import annotations

import json
from datetime import date
from typing import Any, Literal

import pydantic
import pytest

from llm_magic.capabilities import Capabilities
from llm_magic.errors import UnsupportedError
from llm_magic.output.dialects import WRITERS, Structure, apply, schema_name
from llm_magic.output.schema.strict import strict
from llm_magic.output.spec import spec_from


class City(pydantic.BaseModel):
    """A city."""

    name: str = pydantic.Field(min_length=1, description="as its people call it")
    people: int = pydantic.Field(ge=0)
    twin: str | None = None


CLOSED = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "as its people call it (at least 1 characters)"},
        "people": {"type": "integer", "minimum": 0},
        "twin": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["name", "people", "twin"],
    "additionalProperties": False,
    "description": "A city.",
}
PLAIN = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "people": {"type": "integer", "minimum": 0},
        "twin": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["name", "people"],
    "additionalProperties": False,
}
TOLD = (
    'Answer in the form {"name": ..., "people": ..., "twin": ...}.\nThe fields of the answer:\n'
    "- name: as its people call it"
)


def write(dialect: Any, api: Any = "chat", **output: Any) -> Structure:
    spec = spec_from(output.pop("as_", None), **output)
    assert spec is not None
    return apply(spec, Capabilities(api=api, dialects={spec.kind: dialect}))


def test_openai_chat() -> None:
    structure = write("json_schema", as_=City)
    assert structure == Structure(
        "json_schema",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "City", "schema": CLOSED, "strict": True}}},
        notes=("The server is not told about minLength in the schema; the answer is checked here.",),
        nulls=True,
    )


def test_openai_responses() -> None:
    structure = write("json_schema", "responses", as_=City)
    assert structure.fields == {
        "text": {"format": {"type": "json_schema", "name": "City", "schema": CLOSED, "strict": True}}
    }


def test_a_root_that_is_no_object_is_wrapped_where_it_has_to_be() -> None:
    schema = write("json_schema", as_=list[int]).fields["response_format"]["json_schema"]["schema"]
    assert schema == {
        "type": "object", "properties": {"value": {"type": "array", "items": {"type": "integer"}}},
        "required": ["value"], "additionalProperties": False,
    }  # fmt: skip
    assert write("llama_json_schema", as_=bool).fields["response_format"]["json_schema"]["schema"] == {
        "type": "boolean"
    }


def test_a_list_has_a_name_everywhere() -> None:
    """Small models close a bare `[` at once."""
    schema = write("structured_outputs", as_=list[bool]).fields["structured_outputs"]["json"]
    assert schema["properties"] == {"value": {"type": "array", "items": {"type": "boolean"}}}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "a whole number"),
        (float, "a number"),
        (int | float, "a number"),
        (int | None, "a whole number or null"),
    ],
)
@pytest.mark.parametrize("dialect", ["structured_outputs", "llama_json_schema"])
def test_a_number_has_a_name_and_the_prompt_its_form(dialect: str, kind: Any, words: str) -> None:
    """Asked for a bare number, small models write digits without end."""
    structure = write(dialect, as_=kind)
    assert structure.instruction == f'Answer in the form {{"value": ...}} with {words}.'
    assert '"required": ["value"]' in json.dumps(structure.fields)


@pytest.mark.parametrize("kind", [bool, list[int], dict[str, int], date, Literal[1, 2], bool | None])
@pytest.mark.parametrize("dialect", ["structured_outputs", "llama_json_schema"])
def test_other_values_are_asked_for_by_their_constraint_alone(dialect: str, kind: Any) -> None:
    assert write(dialect, as_=kind).instruction == ""


def test_the_form_of_a_record_quotes_its_names_and_ends_where_they_would_outweigh_the_question() -> None:
    properties: dict[str, Any] = {'a "b"': {"type": "string"}, "größe": {"type": "integer"}}
    schema = {"type": "object", "properties": properties}
    assert write("llama_json_schema", schema=schema).instruction == (
        'Answer in the form {"a \\"b\\"": ..., "größe": ...}.'
    )
    schema["properties"] = {f"field_{number}": {"type": "integer"} for number in range(21)}
    assert write("llama_json_schema", schema=schema).instruction == ""


def test_where_an_object_is_one_of_several_everything_is_wrapped() -> None:
    schema = write("llama_json_schema", as_=int | dict[str, int]).fields["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["value"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (dict[str, int], "the value is an object with free keys"),
        (tuple[int, str], "value is an array of fixed places"),
        (list[Any], "value[] is an object with free keys|value.. is an array of anything"),
    ],
)
def test_what_leaves_the_strict_subset_goes_out_non_strict_and_says_so(kind: Any, reason: str) -> None:
    structure = write("json_schema", as_=kind)
    assert structure.fields["response_format"]["json_schema"]["strict"] is False
    (note,) = structure.notes
    assert (
        any(f"sent non-strict, because {each}" in note for each in reason.split("|"))
        or "free keys" in note
        or "anything" in note
    )


def test_a_recursive_model_is_strict() -> None:
    schema = {"type": "object", "properties": {"sub": {"type": "array", "items": {"$ref": "#"}}}, "required": ["sub"]}
    closed = strict(schema).schema
    assert closed is not None
    assert closed["properties"]["sub"]["items"] == {"$ref": "#/$defs/root"}
    assert closed["$defs"]["root"]["required"] == ["sub"]


def test_too_deep_for_strict() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(12):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    assert "deeper than 10 levels" in strict(schema).reason


@pytest.mark.parametrize("api", ["chat", "responses", "completions"])
def test_vllm(api: str) -> None:
    assert write("structured_outputs", api, as_=bool).fields == {"structured_outputs": {"json": {"type": "boolean"}}}
    assert write("structured_outputs", api, choices="a,b").fields == {"structured_outputs": {"choice": ["a", "b"]}}
    assert write("structured_outputs", api, regex=r"(?P<y>\d{4})x").fields == {
        "structured_outputs": {"regex": "[0-9]{4}x"}
    }
    grammar = 'root ::= "a"'
    assert write("structured_outputs", api, grammar=grammar).fields == {"structured_outputs": {"grammar": grammar}}
    structure = write("structured_outputs", api, as_=City)
    people = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
    assert structure.fields["structured_outputs"]["json"] == PLAIN | {
        "properties": PLAIN["properties"] | {"people": people}
    }
    assert structure.instruction == TOLD


def test_llamacpp() -> None:
    chat = write("llama_json_schema", as_=City)
    assert chat.fields == {"response_format": {"type": "json_schema", "json_schema": {"name": "City", "schema": PLAIN}}}
    assert write("llama_json_schema", "completions", as_=City).fields == {"json_schema": PLAIN}
    assert write("llama_json_schema", "responses", as_=City).fields == {
        "text": {"format": {"type": "json_schema", "name": "City", "schema": PLAIN}},
    }
    assert write("llama_grammar", choices=('say "hi"', "b")).fields == {"grammar": r'root ::= "say \"hi\"" | "b"'}
    assert write("llama_grammar", regex=r"v\d+").fields == {"grammar": 'root ::= "v" [0-9]+'}
    assert write("llama_grammar", choices="a,b").instruction == "Answer with exactly one of: a, b"


def test_json_object_tool_call_and_words() -> None:
    asked = write("json_object", as_=bool)
    assert asked.fields == {"response_format": {"type": "json_object"}}
    assert asked.instruction.endswith(
        '{"type":"object","properties":{"value":{"type":"boolean"}},"required":["value"],"additionalProperties":false}'
    )
    called = write("tool_call", as_=City)
    assert (called.fields, called.instruction) == ({}, "")
    assert [(tool.name, tool.parameters, tool.strict) for tool in called.tools] == [("City", CLOSED, True)]
    told = write("prompt", as_=bool)
    assert told.fields == {}
    assert told.instruction == 'Answer with JSON that fits this JSON Schema, and nothing else:\n{"type":"boolean"}'


@pytest.mark.parametrize(
    ("dialect", "output"),
    [
        ("prompt", {"regex": "a"}),
        ("json_object", {"regex": "a"}),
        ("json_schema", {"grammar": 'root ::= "a"'}),
        ("llama_grammar", {"regex": r"(?=a)b"}),
        ("structured_outputs", {"regex": r"(a)\1"}),
        ("structured_outputs", {"regex": r"\bx"}),
    ],
)
def test_what_an_endpoint_cannot_take_is_refused_before_sending(dialect: str, output: Any) -> None:
    with pytest.raises(UnsupportedError) as caught:
        write(dialect, **output)
    assert caught.value.hint


def test_a_kind_that_the_profile_does_not_have_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="takes no regular expression"):
        apply(spec_from(regex="a"), Capabilities())


def test_the_completions_api_takes_no_response_format() -> None:
    for dialect in ("json_schema", "json_object"):
        with pytest.raises(UnsupportedError, match="completions API"):
            write(dialect, "completions", as_=bool)


def test_what_the_server_is_not_told_is_said() -> None:
    schema = {"type": "array", "items": {"type": "integer", "multipleOf": 5}, "uniqueItems": True}
    (note,) = write("llama_json_schema", schema=schema).notes
    assert note == "The server is not told about multipleOf, uniqueItems in the schema; the answer is checked here."
    assert write("llama_json_schema", as_=set[int]).notes == ()


def test_a_set_of_few_words_ends() -> None:
    fields = write("llama_json_schema", as_=set[Literal["a", "b"]]).fields
    assert fields["response_format"]["json_schema"]["schema"]["properties"]["value"]["maxItems"] == 2


def test_a_constraint_is_made_once() -> None:
    spec = spec_from(City)
    capabilities = Capabilities(dialects={"json": "json_schema"})
    assert apply(spec, capabilities) is apply(spec, capabilities)


@pytest.mark.parametrize(
    ("title", "name"), [("list[City]", "list_City"), ("Größe", "Gr_e"), ("«»", "answer"), ("x" * 99, "x" * 64)]
)
def test_names_are_legal(title: str, name: str) -> None:
    assert schema_name(title) == name


def test_every_row_of_the_table_works() -> None:
    outputs: dict[str, Any] = {
        "json": {"as_": City},
        "choices": {"choices": "a,b"},
        "regex": {"regex": "a+"},
        "grammar": {"grammar": 'root ::= "a"'},
    }
    for dialect, kind in WRITERS:
        assert write(dialect, **outputs[kind]).dialect == dialect
