"""What `--as`, `--schema`, `--choices`, `--regex` and `--grammar` accept, refuse, and make of a text."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import gc
import time
import uuid
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

import pydantic
import pytest

from llm_magic.errors import InvalidValueError, OutputTypeError
from llm_magic.output.spec import spec_from


class City(pydantic.BaseModel):
    name: str
    people: int
    nick: str = "none"


class Tree(pydantic.BaseModel):
    name: str
    children: list[Tree] = []


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    OFF = 0
    ON = 1


NAMESPACE: dict[str, Any] = {
    "City": City,
    "Tree": Tree,
    "Point": Point,
    "Movie": Movie,
    "Pair": Pair,
    "Colour": Colour,
    "Level": Level,
    "number": 3,
    "words": ["a"],
    "datetime": dt,
    "pydantic": pydantic,
}


@pytest.mark.parametrize(
    ("expression", "text", "value"),
    [
        ("int", " 42\n", 42),
        ("int", "```\n42\n```", 42),
        ("int", '{"value": 42}', 42),
        ("int", str(10**30), 10**30),
        ("float", "1", 1.0),
        ("bool", "true", True),
        ("date", "2026-02-28", dt.date(2026, 2, 28)),
        ("date", '"2026-02-28"', dt.date(2026, 2, 28)),
        ("datetime", '"2026-02-28T10:00:00Z"', dt.datetime(2026, 2, 28, 10, tzinfo=dt.UTC)),
        ("datetime.date", "2026-02-28", dt.date(2026, 2, 28)),
        ("time", "10:30:00", dt.time(10, 30)),
        ("timedelta", '"P1DT2H"', dt.timedelta(days=1, hours=2)),
        ("Decimal", "1.50", decimal.Decimal("1.50")),
        ("Decimal", '"0.12345678901234567890123"', decimal.Decimal("0.12345678901234567890123")),
        ("UUID", "123e4567-e89b-12d3-a456-426614174000", uuid.UUID("123e4567-e89b-12d3-a456-426614174000")),
        ("Colour", "Red.", Colour.RED),
        ("Colour", '{"value": "blue"}', Colour.BLUE),
        ("Level", "1", Level.ON),
        ("Literal['a', 'b']", '"b"', "b"),
        ("Literal[1, 'a']", "1", 1),
        ("City", '{"name": "Ulm", "people": 1}', City(name="Ulm", people=1)),
        ("City", '{"name": "Ulm", "people": 1, "nick": null}', City(name="Ulm", people=1)),
        ("City", 'Here: {"name": "Ulm", "people": 1}. Done.', City(name="Ulm", people=1)),
        ("list[City]", '[{"name": "Ulm", "people": 1}]', [City(name="Ulm", people=1)]),
        ("list[City]", '{"value": []}', []),
        ("Point", '{"x": 1, "y": 2}', Point(1, 2.0)),
        ("Movie", '{"title": "Alien"}', {"title": "Alien"}),
        (
            "list[Movie | Point]",
            '[{"title": "Alien", "year": 1979}, {"x": 1}]',
            [{"title": "Alien", "year": 1979}, Point(1)],
        ),
        ("Pair", '{"left": 1}', Pair(1)),
        ("Pair", '[1, "x"]', Pair(1, "x")),
        ("Tree", '{"name": "a", "children": [{"name": "b"}]}', Tree(name="a", children=[Tree(name="b")])),
        ("int | None", "null", None),
        ("Optional[Colour]", '"red"', Colour.RED),
        ("int | str", '"1"', "1"),
        ("dict[str, date]", '{"a": "2026-01-01"}', {"a": dt.date(2026, 1, 1)}),
        ("dict[int, str]", '{"1": "a"}', {1: "a"}),
        ("tuple[int, str]", '[1, "a"]', (1, "a")),
        ("set[Colour]", '["red", "red"]', {Colour.RED}),
        ("frozenset[int]", "[1, 1, 2]", frozenset({1, 2})),
        ("int | dict[str, int]", '{"value": {"value": 3}}', {"value": 3}),
        ("int | dict[str, int]", '{"value": 3}', 3),
        ("Any", '{"value": [1]}', [1]),
        ("Annotated[str, pydantic.Field(min_length=2)]", '"ab"', "ab"),
    ],
)
def test_a_text_becomes_a_value_of_exactly_that_type(expression: str, text: str, value: Any) -> None:
    parsed = spec_from(expression, namespace=NAMESPACE).parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("expression", "text", "message"),
    [
        ("int", "true", "got true"),
        ("int", "1.0", "got 1.0"),
        ("int", '"1"', 'got "1"'),
        ("int", "The answer is 42.", "not JSON"),
        ("int", "", "empty"),
        ("int", "1 2", "not JSON"),
        ("float", "NaN", "NaN is not JSON"),
        ("float", "1e999", "too large"),
        ("bool", "1", "got 1"),
        ("Literal[1, 2]", "true", "true is not one of"),
        ("Level", "true", "true is not one of"),
        ("list[Literal[0, 1]]", "[1, false]", "[1]: false is not one of"),
        ("date", "1700000000", "should be a valid date (got 1700000000)"),
        ("date", "2026-02-30", "day value is outside expected range"),
        ("datetime", '"1700000000"', 'does not match "^[0-9]{4}-'),
        ("Colour", "green", '"green" is none of: red, blue'),
        ("City", '{"name": "Ulm"}', "people: field required"),
        ("City", '{"name": "Ulm", "people": "many"}', 'people: input should be a valid integer (got "many")'),
        ("City", '{"name": "Ulm", "name": "Bonn", "people": 1}', "the key 'name' appears twice"),
        ("City", '{"name": "a", "people": 1} and {"name": "b", "people": 2}', "not JSON"),
        ("list[City]", '[{"name": "Ulm", "people": 1}, {"name": 2, "people": 3}]', "[1].name"),
        ("list[int]", "See [1] for more.", "not JSON"),
        ("list[int]", "```\n[1]\n```\n```\n[2]\n```", "not JSON"),
        ("str | None", '"\\ud800"', "surrogate"),
        ("City", '{"name": "Ulm", "people": ', "not JSON"),
        ("City", "[" * 100_000, "not JSON"),
    ],
)
def test_a_text_that_is_no_such_value_is_refused_and_says_where(expression: str, text: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        spec_from(expression, namespace=NAMESPACE).parse(text)
    assert message in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("expression", "message", "hint"),
    [
        ("Ctiy", "no name 'Ctiy'", "City"),
        ("lsit[int]", "no name 'lsit'", "list"),
        ("number", "not a type", "Examples"),
        ("words", "not a type", "list["),
        ("3 +", "not a Python expression", "--as int"),
        ("'City'", "not a type", "quotes"),
        ("{'a': 1}", "not a type", "--schema"),
        ("len", "not a type", "--tools"),
        ("pydantic", "not a type", "class"),
        ("None", "only one such value", "Examples"),
        ("Callable[[int], int]", "a function is no value that JSON can hold", "list[City]"),
        ("type(open)", "cannot be used", ""),
        ("1 / 0", "ZeroDivisionError", ""),
        ("City.nothing", "AttributeError", ""),
    ],
)
def test_a_type_that_is_none_is_refused(expression: str, message: str, hint: str) -> None:
    with pytest.raises(OutputTypeError) as caught:
        spec_from(expression, namespace=NAMESPACE)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_plain_str_and_nothing_are_plain_text() -> None:
    assert spec_from("str") is None
    assert spec_from(str) is None
    assert spec_from() is None


def test_the_namespace_is_neither_copied_nor_written() -> None:
    before = dict(NAMESPACE)
    spec_from("dict[str, Decimal]", namespace=NAMESPACE)
    assert before == NAMESPACE
    assert "__builtins__" not in NAMESPACE


def test_two_kinds_exclude_each_other() -> None:
    with pytest.raises(OutputTypeError, match="--as and --regex exclude each other"):
        spec_from("int", regex="a")


def test_a_validator_that_raises_is_told() -> None:
    def broken(_value: int) -> int:
        raise KeyError("oops")

    kind = Annotated[int, pydantic.AfterValidator(broken)]
    with pytest.raises(InvalidValueError, match="raised KeyError: 'oops'"):
        spec_from(kind).parse("1")


def test_the_constraint_of_fifty_fields_takes_five_milliseconds_and_is_kept() -> None:
    def model() -> type[pydantic.BaseModel]:
        fields: Any = {f"field_{n}": (int | None if n % 3 else list[str], ...) for n in range(50)}
        return pydantic.create_model("Wide", **fields)

    seconds = []
    for _ in range(5):
        kind = model()
        started = time.perf_counter()
        first = spec_from(kind)
        seconds.append(time.perf_counter() - started)
        assert spec_from(kind) is first
    assert min(seconds) < 0.005


@pytest.mark.parametrize("last", ["1", '"no number"'])
def test_garbage_is_collected_again_after_a_long_answer(last: str) -> None:
    spec = spec_from(list[int])
    assert spec is not None
    assert gc.isenabled()
    with contextlib.suppress(InvalidValueError):
        spec.parse(f"[{'1, ' * 30_000}{last}]")
    assert gc.isenabled()
