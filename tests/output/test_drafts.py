"""Schemas of each draft: what they mean, how each dialect says it, what is in a note, what is refused and where."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema_rs
import pytest
from documents import JSON, NODES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sampling import value_of

from llm_magic.capabilities import Capabilities
from llm_magic.errors import InvalidValueError, OutputTypeError
from llm_magic.output.dialects import LLAMA, VLLM, apply
from llm_magic.output.schema.drafts import URLS, draft_of, with_escaped_brackets
from llm_magic.output.schema.formats import PATTERNS
from llm_magic.output.schema.normalize import normalize
from llm_magic.output.schema.strict import SUPPORT as OPENAI
from llm_magic.output.schema.strict import strict
from llm_magic.output.spec import spec_from

SUPPORTS = {"llama": LLAMA, "vllm": VLLM, "openai": OPENAI}
OBJECT = {"type": "object"}


def fits(schema: dict[str, Any], value: Any) -> bool:
    return jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(value)


@given(NODES, JSON)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_not_said_of_a_schema_is_noted(schema: dict[str, Any], document: Any) -> None:
    """A decoder under the constraint writes values that fit, and all that fit, but for the keywords that are named."""
    valid = jsonschema_rs.is_valid(schema, document)
    for name, support in SUPPORTS.items():
        try:
            normal = normalize(schema, support)
        except OutputTypeError:
            assert not valid
            continue
        allowed = fits(normal.schema, document)
        if allowed and not valid:
            assert normal.unenforced, (name, normal.schema)
        if valid and not allowed:
            assert normal.narrowed or normal.unenforced, (name, normal.schema)
        if normal.unenforced or name != "llama":  # others know bounds of numbers, which the sampler does not
            continue
        made = value_of(normal.schema, normal.schema, random.Random(1))  # noqa: S311 - the same each time
        assert jsonschema_rs.is_valid(schema, made), (name, normal.schema)


@pytest.mark.parametrize(
    ("schema", "untold"),
    [
        ({**OBJECT, "maxProperties": 0, "minProperties": 0}, ()),
        ({**OBJECT, "maxProperties": 2}, ("maxProperties",)),
        ({"type": "string", "pattern": "^a+$", "format": "date"}, ("format",)),
        ({"type": "string", "format": "uri-template"}, ("format",)),
        ({"type": "string", "format": "colour"}, ()),
        ({"type": "string", "maxLength": 9999}, ("maxLength",)),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ()),
        ({"oneOf": [{"type": "integer"}, {"type": "integer", "minimum": 3}]}, ("oneOf",)),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, ("uniqueItems",)),
        ({"type": "integer", "multipleOf": 3}, ("multipleOf",)),
        ({"allOf": [{"type": "string", "pattern": "^a"}, {"pattern": "b$"}]}, ("pattern",)),
        ({**OBJECT, "properties": {"a": True}, "patternProperties": {"^x": False}}, ("patternProperties",)),
        ({"enum": ["a", 1, None]}, ()),
        ({"type": "object", "properties": {"a": {"$dynamicRef": "#x"}}, "$dynamicAnchor": "x"}, ("$dynamicRef",)),
    ],
)
def test_the_keywords_that_vllm_is_not_told(schema: dict[str, Any], untold: tuple[str, ...]) -> None:
    assert normalize(schema, VLLM).unenforced == untold


def test_of_strict_schemas_lengths_and_open_objects_are_noted() -> None:
    form = strict({**OBJECT, "properties": {"a": {"type": "string", "minLength": 1}}, "required": ["a"]})
    assert (form.unenforced, form.narrowed) == (("minLength",), ("additionalProperties",))
    closed = {**OBJECT, "properties": {"a": {"enum": ["x", 1]}}, "required": ["a"], "additionalProperties": False}
    form = strict(closed)
    assert (form.unenforced, form.narrowed) == ((), ())
    assert form.schema is not None
    assert form.schema["properties"]["a"] == {
        "anyOf": [{"type": "string", "enum": ["x"]}, {"type": "integer", "enum": [1]}]
    }
    structure = apply(
        spec_from(schema={**OBJECT, "properties": {"a": {"maxLength": 3}}}),
        Capabilities(dialects={"json": "json_schema"}),
    )
    assert structure.notes == (
        "The server is not told about maxLength in the schema; the answer is checked here.",
        "The server allows less than the schema does by additionalProperties, type; what it allows is valid.",
    )
    assert structure.nulls


def test_an_open_object_stays_open_for_decoders_and_that_of_a_type_is_closed() -> None:
    schema = {**OBJECT, "properties": {"a": {"type": "null"}}}
    assert "additionalProperties" not in normalize(schema, LLAMA).schema
    assert normalize(schema, LLAMA, of_type=True).schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "object", "enum": ["a", "b"]}, "none of the values it lists is allowed by its type"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "no type, or no listed value, in common"),
        ({"properties": {"a": {"type": "null", "enum": ["a"]}}, "required": ["a"]}, "at a: none of the values"),
        ({"type": "string", "minLength": 3, "maxLength": 1}, "minLength is more than maxLength"),
        ({"type": "array", "items": False, "minItems": 1}, "at []: it is false"),
        ({"$ref": "#/$defs/no", "$defs": {"no": {"not": {}, "enum": []}}}, ""),
    ],
)  # fmt: skip
def test_a_schema_that_nothing_fits_is_refused_with_the_reason(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(OutputTypeError, match="No value fits the schema") as caught:
        normalize(schema, VLLM)
    assert reason in caught.value.message


def test_where_nothing_fits_an_optional_part_it_is_left_out() -> None:
    schema = {**OBJECT, "properties": {"a": {"type": "object", "enum": ["x"]}, "b": {"$ref": "#/$defs/no"}, "c": True},
              "additionalProperties": False, "$defs": {"no": {"type": "object", "enum": [1]}}}  # fmt: skip
    assert list(normalize(schema, VLLM).schema["properties"]) == ["c"]


@pytest.mark.parametrize(
    ("said", "draft"),
    [
        ("http://json-schema.org/draft-04/schema", "4"),
        ("https://json-schema.org/draft-06/schema#", "6"),
        ("http://json-schema.org/draft-07/schema#/", "7"),
        ("http://json-schema.org/draft-04/hyper-schema#", "4"),
        ("http://json-schema.org/draft/2019-09/schema", "2019-09"),
        ("https://json-schema.org/draft/2020-12/schema#", "2020-12"),
        ("http://json-schema.org/schema#", "2020-12"),
        ("http://json-schema.org/draft-03/schema#", None),
        ("https://example.org/x", None),
    ],
)
def test_spellings_of_drafts(said: str, draft: Any) -> None:
    assert draft_of({"$schema": said}) == draft
    if draft is None:
        with pytest.raises(OutputTypeError, match=r"at \$schema: .* is no draft that is known"):
            spec_from(schema={"$schema": said})
    else:
        assert spec_from(schema={"$schema": said, "type": "integer"}).parse("1") == 1


@pytest.mark.parametrize(
    ("draft", "schema", "right", "wrong"),
    [
        ("4", {"type": "integer", "minimum": 3, "exclusiveMinimum": True}, 4, 3),
        ("4", {"type": "integer", "const": 3}, 4, "x"),
        ("6", {"type": "array", "items": [{"type": "integer"}], "additionalItems": False}, [1], [1, 2]),
        ("7", {"$ref": "#/definitions/a", "minimum": 9, "definitions": {"a": {"type": "integer"}}}, 1, "x"),
        ("2019-09", {"$ref": "#/$defs/a", "minimum": 9, "$defs": {"a": {"type": "integer"}}}, 9, 1),
        (
            "2020-12",
            {"type": "array", "prefixItems": [{"type": "integer"}], "items": False, "minItems": 1},
            [1],
            [1, 2],
        ),
    ],
)
def test_each_draft_is_said_as_it_means(draft: Any, schema: dict[str, Any], right: Any, wrong: Any) -> None:
    said = {"$schema": URLS[draft], **schema}
    spec = spec_from(schema=said)
    assert spec.parse(json.dumps(right)) == right
    with pytest.raises(InvalidValueError):
        spec.parse(json.dumps(wrong))
    for support in SUPPORTS.values():
        normal = normalize(said, support)
        assert fits(normal.schema, right)
        assert not fits(normal.schema, wrong) or normal.unenforced


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [(r"^\[([0-9]{1,4})]$", "[12]", "12"), (r"^PUBMED:\{d}$", "PUBMED:{d}", "PUBMED:"),
     ("^/{env}/x$", "/{env}/x", "/env/x"),
     ("^[[a-z]+]$", "a]", "a"), ("^a{2}{$", "aa{", "aa")],
)  # fmt: skip
@pytest.mark.parametrize("draft", list(URLS))
def test_brackets_that_stand_for_themselves(draft: Any, pattern: str, good: str, bad: str) -> None:
    spec = spec_from(schema={"$schema": URLS[draft], "type": "string", "pattern": pattern})
    assert spec.parse(json.dumps(good)) == good
    with pytest.raises(InvalidValueError):
        spec.parse(json.dumps(bad))
    assert with_escaped_brackets(with_escaped_brackets(pattern)) == with_escaped_brackets(pattern)


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"properties": {"a": {"$ref": "#/nope"}}}, "at properties.a: Pointer '/nope' does not exist"),
        (
            {"items": {"$ref": "https://x.org/y.json#/a"}},
            "at items: Resource 'https://x.org/y.json' is another document",
        ),
        ({"properties": {"a": {"type": "objet"}}}, 'at properties.a.type: fits no alternative; nearest: "objet"'),
        ({"$schema": URLS["7"], "pattern": "(?i)a"}, 'at pattern: "(?i)a" is not a "regex"'),
    ],
)
def test_a_schema_that_is_refused_says_where(schema: dict[str, Any], where: str) -> None:
    with pytest.raises(OutputTypeError) as caught:
        spec_from(schema=schema)
    assert where in caught.value.message


@pytest.mark.parametrize("draft", list(URLS))
def test_formats_are_checked_in_every_draft(draft: Any) -> None:
    for name in PATTERNS:
        spec = spec_from(schema={"$schema": URLS[draft], "type": "string", "format": name})
        with pytest.raises(InvalidValueError, match=f'is not a "{name}"'):
            spec.parse('"a b%"')


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_the_pattern_of_a_format_is_the_format(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(PATTERNS)))
    text = data.draw(st.from_regex(PATTERNS[name], fullmatch=True).filter(lambda made: "02-29" not in made))
    if name in {"hostname", "email", "uri", "uri-reference"} and len(text) > 60:
        return
    assert fits({"format": name}, text)


def test_a_root_of_any_kind_is_wrapped_whole() -> None:
    schema = {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#"}, {"type": "object"}], "$defs": {"a": {"type": "integer"}}}
    spec = spec_from(schema={"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": schema["$defs"]})
    structure = apply(spec, Capabilities(dialects={"json": "prompt"}))
    told = json.loads(structure.instruction.split("\n", 1)[1])
    assert told["properties"]["value"]["properties"]["x"] == {"$ref": "#/properties/value/$defs/a"}
    assert fits(told, {"value": {"x": 1}})
    assert not fits(told, {"value": {"x": "a"}})


@pytest.mark.parametrize("word", ["nope", "some/file", "number"])
def test_a_word_is_no_schema(word: str) -> None:
    with pytest.raises(OutputTypeError, match=f"--schema {word}: this is"):
        spec_from(schema=word, namespace={"number": 3})
