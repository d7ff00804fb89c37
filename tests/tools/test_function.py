"""Functions as tools: described, and resolved by name."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Annotated, Any

import pydantic
import pytest
from functions import Place, call, google, sphinx, weather

from llm_magic.errors import ToolError
from llm_magic.messages import ToolCall
from llm_magic.session.tool_runner import run
from llm_magic.tools import describe, tools_from


def test_a_function_is_described_strictly() -> None:
    tool = describe(weather).tool
    assert (tool.name, tool.description, tool.strict) == (
        "weather",
        "Tell the weather.\n\nFor tomorrow and later.",
        True,
    )
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Its name, as people write it."},
            "days": {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "How many days."},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    }


def test_docstrings_of_other_styles() -> None:
    properties = describe(google).tool.parameters["properties"]
    assert properties["a"] == {"type": "number", "description": "One number."}
    assert properties["b"] == {"type": "string", "enum": ["x", "y"], "description": "Which one, of two."}
    assert describe(google).tool.description == "Add."
    assert describe(sphinx).tool.parameters["properties"]["a"]["description"] == "The number."
    assert describe(sphinx).tool.description == "Double it."


def test_models_annotations_and_nothing_at_all() -> None:
    def here(place: Place, note: Annotated[str, pydantic.Field(description="any")] = "") -> str:
        return f"{type(place).__name__} {place.country} {note!r}"

    def nothing() -> None:
        pass

    tool = describe(here).tool
    assert tool.strict
    assert tool.parameters["properties"]["note"]["description"] == "any"
    assert call(here, {"place": {"city": "Ulm", "country": None}, "note": None}).result == "Place DE ''"
    assert describe(nothing).tool.parameters == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
        "required": [],
    }
    assert call(nothing, "").result == "null"


def test_what_cannot_be_strict_is_not() -> None:
    def free(options: dict[str, int]) -> int:
        return sum(options.values())

    tool = describe(free).tool
    assert not tool.strict
    assert tool.parameters["properties"]["options"]["additionalProperties"] == {"type": "integer"}
    assert call(free, {"options": {"a": 1, "b": 2}}).result == "3"


def test_methods_partials_and_callables() -> None:
    class Box:
        def put(self, item: str) -> str:
            return item

        def __call__(self, item: int) -> int:
            return item

    assert describe(Box().put).name == "put"
    assert describe(Box()).name == "Box"
    partial = functools.partial(weather, days=3)
    tool = describe(partial)
    assert asyncio.run(run(tool, ToolCall("1", "weather", '{"city": "Ulm"}'), 5)).result == "Ulm: sun for 3"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (3, "is no function"),
        (Place, "is no function"),
        (lambda x: x, "cannot be a tool"),
        (lambda: None, "cannot be a tool"),
    ],
)
def test_what_is_no_tool(function: Any, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        describe(function)


def test_parameters_that_cannot_be_described() -> None:
    def bare(x) -> None:  # type: ignore[no-untyped-def]  # which is the point
        pass

    def many(*items: int) -> None:
        pass

    def socket(file: threading.Thread) -> None:
        pass

    def undefined(x: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821 - that is the point
        pass

    for function, message in (
        (bare, "'x' has no type hint"),
        (many, "by name"),
        (socket, "cannot be used"),
        (undefined, "Missing"),
    ):
        with pytest.raises(ToolError, match=message):
            describe(function)


def test_names_are_resolved() -> None:
    namespace = {
        "weather": weather,
        "number": 3,
        "google": google,
        "holder": type("H", (), {"weather": staticmethod(weather)}),
    }
    assert [tool.name for tool in tools_from("weather, google", namespace)] == ["weather", "google"]
    assert tools_from(["holder.weather"], namespace)[0].function is weather
    assert tools_from([sphinx], namespace)[0].name == "sphinx"
    for names, message in (
        ("wether", "no function 'wether'"),
        ("number", "is a int"),
        ("weather,weather", "two functions"),
        ("", "is no name"),
        ("holder.nothing", "AttributeError"),
        ("f()", "is no name"),
    ):
        with pytest.raises(ToolError, match=message):
            tools_from(names, namespace)
    with pytest.raises(ToolError) as caught:
        tools_from("wether", namespace)
    assert "weather" in caught.value.hint
    with pytest.raises(ToolError) as caught:
        tools_from("opn", {**namespace, "open": open})  # IPython puts one of its own there
    assert "open" not in caught.value.hint
