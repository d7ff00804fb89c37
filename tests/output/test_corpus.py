"""Two hundred schemas in the shapes of real projects, through every dialect and through a real small model."""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from typing import Any

import jsonschema_rs
import openai
import pytest
from corpus import REFUSED, corpus
from sampling import value_of

from llm_magic.capabilities import Capabilities
from llm_magic.errors import InvalidValueError, OutputTypeError
from llm_magic.output.dialects import LLAMA, VLLM, apply
from llm_magic.output.schema.normalize import normalize
from llm_magic.output.spec import spec_from

SCHEMAS = dict(corpus())
DIALECTS = ("json_schema", "structured_outputs", "llama_json_schema", "json_object", "tool_call", "prompt")
KNOWN = {
    "$defs", "$ref", "anyOf", "enum", "type", "properties", "required", "additionalProperties", "items", "prefixItems",
    "minItems", "maxItems", "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum",
}  # fmt: skip


def test_there_are_two_hundred() -> None:
    assert len(SCHEMAS) >= 200


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_schema_is_said_in_each_dialect(name: str, dialect: Any) -> None:
    structure = apply(spec_from(schema=SCHEMAS[name]), Capabilities(dialects={"json": dialect}))
    assert structure.dialect == dialect
    for schema in _schemas(structure.fields):
        jsonschema_rs.validator_for(schema)


def _schemas(fields: Any) -> list[dict[str, Any]]:
    if "response_format" in fields and "json_schema" in fields["response_format"]:
        return [fields["response_format"]["json_schema"]["schema"]]
    return [fields["structured_outputs"]["json"]] if "structured_outputs" in fields else []


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("target", [LLAMA, VLLM], ids=["llama", "vllm"])
def test_the_normal_form_has_only_what_decoders_know(name: str, target: Any) -> None:
    found: list[str] = []

    def walk(schema: dict[str, Any]) -> None:
        assert schema.keys() <= KNOWN, schema
        if "$ref" in schema:
            assert schema.keys() == {"$ref"}
            found.append(schema["$ref"])
        if "anyOf" in schema:
            assert schema.keys() <= {"anyOf", "$defs"}
        if "pattern" in schema:
            assert re.fullmatch(r"\^\(.*\)\$", schema["pattern"])
            assert not re.search(r"\\[dDwWsSbB]|\(\?", schema["pattern"])
        for each in (*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("prefixItems", ())):
            walk(each)
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), dict):
                walk(schema[key])

    plain = normalize(SCHEMAS[name], target).schema
    walk(plain)
    definitions = plain.get("$defs", {})
    for each in definitions.values():
        walk(each)
    assert {reference.removeprefix("#/$defs/") for reference in found} <= definitions.keys()


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_the_normal_form_allows_validates(name: str) -> None:
    """A decoder under the constraint writes valid values, but for what the note says is only checked here."""
    spec = spec_from(schema=SCHEMAS[name])
    plain = normalize(spec.schema, LLAMA)
    validate = jsonschema_rs.validator_for(spec.schema)
    rng = random.Random(name)  # noqa: S311 - a sample that is the same each time
    wrong = []
    for _ in range(25):
        value = value_of(plain.schema, plain.schema, rng)
        wrong += [error.message for error in validate.iter_errors(value)]
    if not set(plain.unenforced) - {"maxProperties", "patternProperties"}:
        assert wrong == []


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_is_none_is_refused_before_sending(name: str) -> None:
    with pytest.raises(OutputTypeError, match=r"is not a (usable )?JSON Schema"):
        spec_from(schema=REFUSED[name])


def test_a_real_small_model_gives_a_valid_value_or_a_clear_error(llamacpp_url: str) -> None:
    """`LLM_MAGIC_TEST_CORPUS=1` takes every schema instead of a tenth; idle, that is about five minutes."""
    client = openai.OpenAI(base_url=llamacpp_url, api_key="none", max_retries=0, timeout=300)
    step = 1 if os.environ.get("LLM_MAGIC_TEST_CORPUS") else 10
    outcomes: Counter[str] = Counter()
    for name in list(SCHEMAS)[::step]:
        spec = spec_from(schema=SCHEMAS[name])
        structure = apply(spec, Capabilities(dialects={"json": "llama_json_schema"}))
        try:
            completion = client.chat.completions.create(
                model="smollm2",
                messages=[{"role": "user", "content": f"Write a short example of: {name.split()[0]}."}],
                max_tokens=120, temperature=0, seed=1, extra_body=dict(structure.fields),
            )  # fmt: skip
        except openai.APIStatusError as error:
            pytest.fail(f"{name}: the server refused the schema: {error}")
        choice = completion.choices[0]
        text = choice.message.content or ""
        if choice.finish_reason == "length":
            outcomes["cut"] += 1
            continue
        try:
            value = spec.parse(text)
        except InvalidValueError:
            outcomes["invalid, said so"] += 1
        else:
            outcomes["valid"] += 1
            jsonschema_rs.validator_for(spec.schema, validate_formats=True).validate(value)
    print(outcomes)  # noqa: T201 - shown by -s
    assert outcomes["valid"] > sum(outcomes.values()) / 2
