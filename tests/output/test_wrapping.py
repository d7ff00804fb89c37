"""`{"value": …}` around a value is never the value: random types and schemas, with a right and a wrong inside."""

from __future__ import annotations

import enum
import json
from typing import Any, Literal

import jsonschema_rs
import pytest
from documents import JSON, NODES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_magic.errors import InvalidValueError
from llm_magic.output.spec import spec_from


class Level(enum.IntEnum):
    OFF = 0
    ON = 1


KINDS: list[Any] = [
    int, float, bool, Literal["a", "b"], Literal[1, "a"], Level, int | None, list[int], dict[str, int] | int,
    tuple[int, str], set[int], list[dict[str, bool]], str | None, list[int] | dict[str, int],
]  # fmt: skip


@pytest.mark.parametrize(
    ("output", "inside"),
    [
        ({"schema": {"minimum": 1}}, 0),
        ({"schema": {"properties": {"a": {"type": "integer"}}}}, {"a": "x"}),
        ({"schema": {"anyOf": [{"type": "integer"}, {"type": "object", "required": ["a"]}]}}, "x"),
        ({"schema": {"enum": [1, "a"]}}, 2),
        ({"schema": {"maxLength": 1}}, "ab"),
        ({"schema": {"not": {"type": "string"}}}, "x"),
        ({"schema": {"oneOf": [{"minimum": 0}, {"maximum": 9}]}}, 5),
        ({"choices": "yes,no"}, "maybe"),
        ({"regex": "a+"}, "b"),
        ({"as_": int}, "x"),
        ({"as_": list[int]}, ["x"]),
        ({"as_": int | dict[str, int]}, "x"),
        ({"as_": dict[str, int] | None}, {"a": "x"}),
    ],
)
def test_a_wrong_inside_is_never_bound_and_its_message_is_about_the_inside(output: Any, inside: Any) -> None:
    spec = spec_from(**output)
    assert spec is not None
    with pytest.raises(InvalidValueError) as caught:
        spec.parse(json.dumps({"value": inside}))
    assert '{"value"' not in caught.value.message or spec.kind != "json"


@given(st.sampled_from(KINDS), JSON)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_of_a_type_a_wrapped_document_is_what_the_bare_one_is(kind: Any, document: Any) -> None:
    spec = spec_from(kind)
    assert spec is not None
    wrapped = json.dumps({"value": document})
    fits = jsonschema_rs.is_valid(spec.schema, document)
    try:
        value = spec.parse(wrapped)
    except InvalidValueError:
        return
    assert fits, (document, value)
    assert value != {"value": document} or document == value["value"]


@given(NODES, JSON)
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_of_a_schema_the_verdict_is_that_of_the_schema(schema: dict[str, Any], document: Any) -> None:
    spec = spec_from(schema=schema)
    assert spec is not None
    text = json.dumps(document if spec.object_root else {"value": document})
    if jsonschema_rs.is_valid(schema, document):
        assert spec.parse(text) == document
    else:
        with pytest.raises(InvalidValueError):
            spec.parse(text)


@pytest.mark.parametrize("text", ["1", "true", "null", "1.5"])
def test_json_that_is_no_string_is_none(text: str) -> None:
    with pytest.raises(InvalidValueError, match='is not of type "string"'):
        spec_from(schema={"type": "string"}).parse(text)


def test_nulls_stand_for_absence_only_where_the_server_was_asked_for_them() -> None:
    spec = spec_from(schema={"type": "object", "properties": {"a": {"type": "integer"}}})
    assert spec.parse('{"a": null}', nulls=True) == {}
    with pytest.raises(InvalidValueError, match='a: null is not of type "integer"'):
        spec.parse('{"a": null}')
