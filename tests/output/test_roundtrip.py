"""Random types and instances of them: through schema, text and back to an equal value of the same type."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid
from typing import Any, Literal, NamedTuple

import jsonschema_rs
import pydantic
import typing_extensions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_magic.capabilities import Capabilities
from llm_magic.output.dialects import apply
from llm_magic.output.schema.strict import strict
from llm_magic.output.spec import spec_from


class Mood(enum.Enum):
    CALM = "calm"
    ODD = 1


Leaf = tuple[Any, st.SearchStrategy[Any]]
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)
NAIVE_TIMES = st.times().map(lambda value: value.replace(microsecond=0))
SPANS = st.builds(dt.timedelta, days=st.integers(0, 999), seconds=st.integers(0, 86_399))
LEAVES: list[Leaf] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, st.booleans()),
    (dt.date, st.dates()),
    (dt.datetime, st.datetimes(timezones=st.just(dt.UTC))),
    (dt.time, NAIVE_TIMES),
    (dt.timedelta, SPANS),
    (decimal.Decimal, DECIMALS),
    (uuid.UUID, st.uuids()),
    (Mood, st.sampled_from(Mood)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Literal[1, "x"], st.sampled_from([1, "x"])),
    (str | None, st.none() | st.text(max_size=5)),
]


def containers(inner: st.SearchStrategy[Leaf]) -> st.SearchStrategy[Leaf]:
    def build(parts: list[Leaf], shape: str) -> Leaf:
        (kind, values), second = parts[0], parts[-1]
        names = [f"field_{number}" for number in range(len(parts))]
        fields = list(zip(names, parts, strict=True))
        if shape == "list":
            return list[kind], st.lists(values, max_size=3)
        if shape == "dict":
            return dict[str, kind], st.dictionaries(st.text(max_size=4), values, max_size=3)
        if shape == "tuple":
            return tuple[kind, second[0]], st.tuples(values, second[1])
        if shape == "optional":
            return kind | None, st.none() | values
        keys = {name: part[1] for name, part in fields}
        if shape == "model":
            model = pydantic.create_model("Model", **{name: (part[0], ...) for name, part in fields})
            return model, st.builds(model, **keys)
        if shape == "dataclass":
            made = dataclasses.make_dataclass("Data", [(name, part[0]) for name, part in fields])
            return made, st.builds(made, **keys)
        if shape == "named":
            named = NamedTuple("Named", [(name, part[0]) for name, part in fields])  # type: ignore[misc]  # made while it runs
            return named, st.builds(named, **keys)
        typed = typing_extensions.TypedDict("Typed", {name: part[0] for name, part in fields})
        return typed, st.fixed_dictionaries(keys)

    shapes = st.sampled_from(["list", "dict", "tuple", "optional", "model", "dataclass", "named", "typed"])
    return st.builds(build, st.lists(inner, min_size=1, max_size=3), shapes)


TYPES: st.SearchStrategy[Leaf] = st.recursive(st.sampled_from(LEAVES), containers, max_leaves=5)


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[Any, Any]:
    kind, values = draw(TYPES)
    return kind, draw(values)


@given(typed_values())
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_value_survives_schema_text_and_parsing(typed: tuple[Any, Any]) -> None:
    kind, value = typed
    spec = spec_from(kind)
    assert spec is not None
    text = pydantic.TypeAdapter(kind).dump_json(value).decode()
    if spec.kind == "choices":
        assert spec.parse(text) == value
        return
    document = json.loads(text)
    readings = [text, f"```json\n{text}\n```"]
    if not spec.object_root:
        readings.append(json.dumps({"value": document}))
    if spec.always_wrapped:
        readings = readings[2:]  # bare, `{"value": …}` could be either
    for reading in readings:
        parsed = spec.parse(reading)
        assert parsed == value
        assert type(parsed) is type(value)


@given(typed_values())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_dialect_allows_the_value(typed: tuple[Any, Any]) -> None:
    """What goes to servers describes the values of the type, and the strict form differs by nulls only."""
    kind, value = typed
    spec = spec_from(kind)
    assert spec is not None
    if spec.kind == "choices":
        return
    document = json.loads(pydantic.TypeAdapter(kind).dump_json(value))
    for dialect in ("json_schema", "structured_outputs", "llama_json_schema", "tool_call", "prompt"):
        apply(spec, Capabilities(dialects={spec.kind: dialect}))
    closed = strict(spec.schema, of_type=True).schema
    if closed is not None and spec.object_root and not _has_named_tuple(kind):
        errors = [error.message for error in jsonschema_rs.validator_for(closed).iter_errors(document)]
        assert [message for message in errors if '"field_' not in message and "does not match" not in message] == []


def _has_named_tuple(kind: Any) -> bool:
    return "Named" in repr(kind) or any(_has_named_tuple(part) for part in _fields(kind))


def _fields(kind: Any) -> list[Any]:
    hints = getattr(kind, "__annotations__", {}) if isinstance(kind, type) else {}
    return [*getattr(kind, "__args__", ()), *hints.values()]
