"""Each kind of output on a real vLLM and a real llama.cpp: a value of exactly that type, or a clear error."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import openai
import pydantic
import pytest

from llm_magic.capabilities import Api, Capabilities
from llm_magic.errors import InvalidValueError
from llm_magic.output.dialects import apply
from llm_magic.output.spec import OutputSpec, spec_from


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Movie(TypedDict):
    year: int
    colour: NotRequired[Literal["yes", "no"]]


class Pair(NamedTuple):
    left: int
    right: bool


class City(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    people: int = pydantic.Field(gt=0, lt=100)
    kinds: set[Literal["x", "y"]] = set()
    twin: str | None = pydantic.Field(None, max_length=8)


class Node(pydantic.BaseModel):
    value: Annotated[int, pydantic.Field(ge=0, le=9)]
    below: Annotated[list[Node], pydantic.Field(max_length=1)] = []


class Branch(pydantic.BaseModel):
    """References with keywords beside them: a vendor's, a description, a constraint."""

    value: Annotated[int, pydantic.Field(ge=0, le=9)]
    left: Annotated[
        list[Annotated[Branch, pydantic.Field(json_schema_extra={"x-order": 1})]], pydantic.Field(max_length=1)
    ] = []
    right: Annotated[
        list[Annotated[Branch, pydantic.Field(description="the other")]], pydantic.Field(max_length=1)
    ] = []


OUTPUTS: dict[str, dict[str, Any]] = {
    "int": {"as_": Annotated[int, pydantic.Field(ge=-999, le=999)]},
    "bool": {"as_": bool},
    "date": {"as_": dt.date},
    "datetime": {"as_": dt.datetime},
    "time": {"as_": dt.time},
    "timedelta": {"as_": dt.timedelta},
    "Decimal": {"as_": Annotated[decimal.Decimal, pydantic.Field(max_digits=6, decimal_places=2)]},
    "UUID": {"as_": uuid.UUID},
    "enumeration": {"as_": Colour},
    "enumeration of numbers": {"as_": Size},
    "literal": {"as_": Literal["a", "b"]},
    "mixed literal": {"as_": Literal[1, "b"] | None},
    "dataclass": {"as_": Point},
    "typed dict": {"as_": Movie},
    "named tuple": {"as_": Pair},
    "model": {"as_": City},
    "recursive model": {"as_": Node},
    "recursive with siblings": {"as_": Branch},
    "recursive schema": {
        "schema": {
            "$ref": "#/$defs/N",
            "$defs": {
                "N": {
                    "type": "object",
                    "properties": {
                        "v": {"type": "boolean"},
                        "n": {"allOf": [{"$ref": "#/$defs/N"}, {"required": ["v"]}], "nullable": True},
                    },
                    "required": [],
                }
            },
        }
    },
    "optional": {"as_": Colour | None},
    "union": {"as_": bool | dict[Literal["a", "b"], bool]},
    "tuple": {"as_": tuple[bool, Colour]},
    "list of records": {"as_": Annotated[list[Pair], pydantic.Field(max_length=2)]},
    "pattern": {"as_": Annotated[str, pydantic.Field(pattern=r"^\d{3}-\w{2}$")]},
    "short form": {"schema": "sunny bool, hot bool: is it above 30"},
    "schema": {
        "schema": {
            "type": "object",
            "properties": {"n": {"type": "integer", "exclusiveMinimum": 3, "maximum": 5}},
            "required": ["n"],
        }
    },
    "choices": {"choices": 'yes,no,"not, sure"'},
    "regex": {"regex": r"(?i:v)\d{1,3}\.[^\W\d_]{2}"},
    "grammar": {"grammar": 'root ::= pair{2}\npair ::= [a-c] "-" # two of these'},
}


def ask(url: str, capabilities: Capabilities, spec: OutputSpec, seed: int = 7) -> tuple[str, str]:
    """The text of an answer under the constraint, and why it ended."""
    structure = apply(spec, capabilities)
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300)
    prompt = f"Invent one: {spec.title}. {structure.instruction}"
    body = dict(structure.fields)
    limits: dict[str, Any] = {"temperature": 0.7, "seed": seed} if capabilities.api != "responses" else {}
    if capabilities.api == "chat":
        chat = client.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": prompt}], max_tokens=150, extra_body=body, **limits
        )
        return chat.choices[0].message.content or "", chat.choices[0].finish_reason
    if capabilities.api == "completions":
        plain = client.completions.create(model="smollm2", prompt=prompt, max_tokens=150, extra_body=body, **limits)
        return plain.choices[0].text, plain.choices[0].finish_reason
    answer = client.responses.create(model="smollm2", input=prompt, max_output_tokens=150, extra_body=body)
    return answer.output_text, "stop" if answer.status == "completed" else "length"


def check(url: str, capabilities: Capabilities, spec: OutputSpec) -> None:
    """Ask until an answer ends by itself, for the model likes to go on, and expect its value; a cut one has none."""
    for seed in range(7, 15):
        text, finish = ask(url, capabilities, spec, seed)
        try:
            value = spec.parse(text)
        except InvalidValueError as error:
            if finish != "length":
                pytest.fail(f"{text!r}: {error}")
            continue
        if spec.shape is not None:
            assert spec.shape.adapter.validate_python(value, strict=True) == value
        return
    raise AssertionError("every answer ran into the token limit")


VLLM = Capabilities(dialects=dict.fromkeys(("json", "choices", "regex", "grammar"), "structured_outputs"))
LLAMA = Capabilities(
    dialects={"json": "llama_json_schema"} | dict.fromkeys(("choices", "regex", "grammar"), "llama_grammar")
)


@pytest.mark.parametrize("name", OUTPUTS)
def test_vllm(vllm_url: str, name: str) -> None:
    spec = spec_from(**OUTPUTS[name])
    check(vllm_url, VLLM, spec)


@pytest.mark.parametrize("name", OUTPUTS)
def test_llamacpp(llamacpp_url: str, name: str) -> None:
    spec = spec_from(**OUTPUTS[name])
    check(llamacpp_url, LLAMA, spec)


@pytest.mark.parametrize("api", ["completions", "responses"])
@pytest.mark.parametrize("name", ["dataclass", "choices", "regex", "grammar"])
def test_vllm_on_its_other_apis(vllm_url: str, name: str, api: Api) -> None:
    spec = spec_from(**OUTPUTS[name])
    check(vllm_url, Capabilities(api=api, dialects=VLLM.dialects), spec)


@pytest.mark.parametrize("name", ["dataclass", "choices", "regex", "grammar"])
def test_llamacpp_completions(llamacpp_url: str, name: str) -> None:
    spec = spec_from(**OUTPUTS[name])
    check(llamacpp_url, Capabilities(api="completions", dialects=LLAMA.dialects), spec)


def test_a_server_that_ignores_the_constraint_binds_nothing_unvalidated(llamacpp_url: str) -> None:
    """llama.cpp does not know vLLM's field, and answers with prose."""
    spec = spec_from(as_=list[Point])
    text, _ = ask(llamacpp_url, VLLM, spec)
    with pytest.raises(InvalidValueError):
        spec.parse(text)
