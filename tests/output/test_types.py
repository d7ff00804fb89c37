"""Types beyond the simple ones: what they become, and the words in which others are refused."""

from __future__ import annotations

import enum
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Literal, TypedDict, TypeVar

import numpy as np
import pandas as pd
import pydantic
import pytest
import typing_extensions

from llm_magic.errors import InvalidValueError, OutputTypeError
from llm_magic.output.spec import spec_from

attrs = pytest.importorskip("attrs")

T = TypeVar("T")


class Level(enum.IntEnum):
    OFF = 0
    ON = 1


class Truth(enum.Enum):
    YES = True
    NO = False


class Empty(enum.Enum):
    pass


class Pairs(enum.Enum):
    A = (1, 2)


class Box(pydantic.BaseModel, Generic[T]):
    inside: T


class Lazy(pydantic.BaseModel):
    numbers: Iterable[int]


class Flags(pydantic.BaseModel):
    sure: Literal[True]
    counts: dict[str, Literal[1]] = {}


class Node(TypedDict):
    name: str
    below: typing.NotRequired[list[Node]]


@attrs.define
class Attrs:
    x: int


class Struct:
    """As msgspec makes them."""

    __struct_fields__ = ("x",)


class Plain:
    pass


Numbers = typing_extensions.TypeAliasType("Numbers", list[int])
Words = typing_extensions.TypeAliasType("Words", Literal["a", "b"])
Plainly = typing_extensions.TypeAliasType("Plainly", str)
Tree = typing_extensions.TypeAliasType("Tree", "dict[str, Tree] | int")
NAMES: dict[str, Any] = {**globals(), "np": np, "pd": pd}


@pytest.mark.parametrize(
    ("expression", "text", "value"),
    [
        ("Numbers", "[1]", [1]),
        ("list[Words]", '["a"]', ["a"]),
        ("Tree", '{"value": {"a": {"b": 1}}}', {"a": {"b": 1}}),
        ("Box[int]", '{"inside": 1}', Box[int](inside=1)),
        ("JsonValue", '{"value": [1, {"a": null}]}', [1, {"a": None}]),
        ("dict[str, JsonValue]", '{"a": [1]}', {"a": [1]}),
        ("Node", '{"name": "a", "below": [{"name": "b"}]}', {"name": "a", "below": [{"name": "b"}]}),
        ("Iterable[int]", "[1, 2]", [1, 2]),
        ("Iterator[int]", "[1, 2]", [1, 2]),
        ("Iterable", "[1, null]", [1, None]),
        ("dict[str, Iterable[int]]", '{"a": [1]}', {"a": [1]}),
        ("Literal[True]", "true", True),
        ("Optional[Level]", "1", Level.ON),
        ("Truth", "false", Truth.NO),
        ("[name, age int]", '[{"name": "a", "age": 1}]', [{"name": "a", "age": 1}]),
        ("[name, age]", '[{"name": "a", "age": "1"}]', [{"name": "a", "age": "1"}]),
    ],
)
def test_a_value_of_exactly_that_type(expression: str, text: str, value: Any) -> None:
    parsed = spec_from(expression, namespace=NAMES).parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_an_alias_is_what_it_stands_for() -> None:
    assert spec_from("Plainly", namespace=NAMES) is None
    words = spec_from("Words", namespace=NAMES)
    assert (words.kind, words.choices) == ("choices", ("a", "b"))
    assert spec_from(Numbers).title == "Numbers"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Iterable[int], '["x"]'),
        (Iterator[int], '[1, "x"]'),
        (Literal[True], "1"),
        (Literal[True], '{"value": 1}'),
        (Literal[1], "true"),
        (Literal[0, "a"], "false"),
        (Literal[1] | None, "true"),
        (Level | None, "true"),
        (list[Level | str], "[true]"),
        (Truth, "1"),
        (Truth | None, "0"),
        (dict[str, Literal[True]], '{"a": 1}'),
        (tuple[Literal[0], Literal[True]], "[false, true]"),
        (set[Literal[1]], "[true]"),
        (Flags, '{"sure": 1}'),
        (Flags, '{"sure": true, "counts": {"a": true}}'),
        (dict[str, int], '{"a": null}'),
        (Words, "c"),
    ],
)
def test_a_value_of_another_type_is_none(kind: Any, text: str) -> None:
    with pytest.raises(InvalidValueError):
        spec_from(kind).parse(text)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ('Literal[b"a"]', "b'a' is nothing that JSON can hold"),
        ("Empty", "it has no members"),
        ("enum.Enum", "it has no members"),
        ("Pairs", "the value of A, (1, 2), is no text or number"),
        ("pydantic.BaseModel", "it has no fields; name a model of your own"),
        ("Box", "it is generic; say of what: Box[int]"),
        ("Attrs", "pydantic does not validate classes of attrs"),
        ("list[Struct]", "in it, Struct: pydantic does not validate Structs of msgspec"),
        ("Plain", "Plain is a class that pydantic does not validate"),
        ("np.ndarray", "nothing of numpy is JSON; ask for list[float]"),
        ("list[np.float64]", "in it, float64: nothing of numpy is JSON"),
        ("pd.Series", "its columns are not known"),
        ("Never", "no value is of this type"),
        ("NoReturn", "no value is of this type"),
        ("Callable", "a function is no value that JSON can hold"),
        ("dict[str, Callable[[int], int]]", "a function is no value"),
        ("type[int]", "a class is no value"),
        ("Union", "it needs its types"),
        ("Optional", "it needs its type"),
        ("Literal", "it needs its values"),
        ("list[T]", "in it, T: a type variable stands for no type"),
        ("dict[bool, int]", "keys in JSON are text, not bool"),
        ("dict[Literal[1], int]", "keys in JSON are text, not Literal[1]"),
        ("Lazy", "it has an Iterable, which is not validated"),
        ("TypedDict", "it makes record types; name one of yours"),
        ("list[DataFrame[Flags]]", "a DataFrame is the whole answer, not a part of it"),
        ("[name strng, age int]", "'strng' is no type of the short form"),
    ],
)
def test_what_no_answer_can_be_is_refused_in_true_words(expression: str, reason: str) -> None:
    with pytest.raises(OutputTypeError) as caught:
        spec_from(expression, namespace=NAMES)
    assert reason in caught.value.message
