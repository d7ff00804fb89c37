"""A type of the user's own that pydantic can validate is an output type as it is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from llm_magic.capabilities import Capabilities
from llm_magic.errors import InvalidValueError
from llm_magic.output.dialects import apply
from llm_magic.output.spec import spec_from


class Celsius:
    """A temperature that is written as `21 °C`."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    @classmethod
    def parse(cls, text: str) -> Celsius:
        return cls(float(text.removesuffix("°C")))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema(pattern=r"^-?\d+ °C$"))


def test_it_is_asked_for_by_its_schema_and_bound_as_itself() -> None:
    spec = spec_from(as_="Celsius", namespace={"Celsius": Celsius})
    sent = apply(spec, Capabilities(dialects={"json": "json_schema"}))
    assert '"pattern"' in str(sent.fields).replace("'", '"')
    value = spec.parse('{"value": "21 °C"}')
    assert (type(value), value.degrees) == (Celsius, 21.0)


def test_what_it_refuses_is_not_bound() -> None:
    with pytest.raises(InvalidValueError):
        spec_from(Celsius).parse('{"value": "warm"}')
