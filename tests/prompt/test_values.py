"""How values read in a prompt."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import threading
from decimal import Decimal
from typing import Any

import numpy as np
import pydantic
import pytest

from llm_magic.config.settings import Settings
from llm_magic.errors import PromptError
from llm_magic.messages import Image, Text
from llm_magic.prompt import Rendered, render
from llm_magic.response import Response


def shown(value: Any, **limits: int) -> Rendered:
    return render("{{ value }}", {"value": value}, settings=Settings(**limits))


def text(value: Any, **limits: int) -> str:
    (part,) = shown(value, **limits).parts
    assert isinstance(part, Text)
    return part.text


@dataclasses.dataclass
class Point:
    x: int
    y: object = None


class Person(pydantic.BaseModel):
    name: str
    key: pydantic.SecretStr = pydantic.SecretStr("s3cret")


class Level(str, enum.Enum):  # noqa: UP042 - the kind whose str() is not its value
    LOW = "low"


class Chart:
    def _repr_markdown_(self) -> str:
        return "**chart**"

    def _repr_png_(self) -> bytes:
        raise AssertionError("markdown comes first")


class Endless:
    def __repr__(self) -> str:
        return repr(self)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{{ a }} 'b'\r\n", "{{ a }} 'b'\r\n"),
        (Level.LOW, "low"),
        (None, "None"),
        (True, "True"),
        (0.1, "0.1"),
        (np.float32(0.1), "0.1"),
        (np.int64(3), "3"),
        (np.array(2.5), "2.5"),
        (np.arange(3), "[0, 1, 2]"),
        (["a", 1], "['a', 1]"),
        ({"a": [1]}, "{'a': [1]}"),
        (Point(1, 2), '{\n  "x": 1,\n  "y": 2\n}'),
        ([Point(1)], '[\n  {\n    "x": 1,\n    "y": null\n  }\n]'),
        ({"p": Point(1)}, '{\n  "p": {\n    "x": 1,\n    "y": null\n  }\n}'),
        (Person(name="Zoë"), '{\n  "name": "Zoë",\n  "key": "**********"\n}'),
        (Point(1, 1j), '{\n  "x": 1,\n  "y": "1j"\n}'),
        (Point(1, math.nan), '{\n  "x": 1,\n  "y": NaN\n}'),
        (Chart(), "**chart**"),
        (Response(text="the *answer*", reasoning="hidden"), "the *answer*"),
        (b"\x00no image", "b'\\x00no image'"),
    ],
)
def test_values(value: object, expected: str) -> None:
    assert text(value) == expected
    assert shown(value).notes == ()


def test_cyclic_values() -> None:
    items: list[Any] = [1]
    items.append(items)
    point = Point(1)
    point.y = point
    assert text(items) == "[1, [...]]"
    assert text(point) == "Point(x=1, y=...)"
    assert text(Endless()).startswith("<tests.prompt.test_values.Endless object at 0x")


def test_a_long_text_is_cut_and_that_is_said() -> None:
    rendered = shown("x" * 1500, max_value_chars=1000)
    assert rendered.parts == (Text("x" * 1000 + "\n… [cut: the first 1,000 of 1,500 characters]"),)
    assert rendered.notes == (
        "{{ value }}: the first 1,000 of 1,500 characters are in the prompt (LLMMagics.max_value_chars).",
    )


def test_a_repr_is_written_only_as_far_as_it_is_shown() -> None:
    written = 0

    class Item:
        def __repr__(self) -> str:
            nonlocal written
            written += 1
            return "item"

    rendered = shown([Item()] * 1_000_000, max_value_chars=1000)
    (part,) = rendered.parts
    assert isinstance(part, Text)
    assert part.text.endswith("\n… [cut: the first 1,000 characters]")
    assert len(part.text) == 1000 + len("\n… [cut: the first 1,000 characters]")
    assert written < 1000
    assert len(rendered.notes) == 1


def test_a_long_traceback_keeps_its_end() -> None:
    with pytest.raises(ValueError, match="x") as caught:
        raise ValueError("x" * 3000)
    assert text(caught.value, max_value_chars=100).endswith("x" * 100)
    assert text(caught.value, max_value_chars=100).startswith("[cut: the last 100 of 3,")


def test_an_exception_has_its_cause() -> None:
    def inner() -> None:
        raise KeyError("k")

    def outer() -> None:
        try:
            inner()
        except KeyError as error:
            raise ValueError("v") from error

    with pytest.raises(ValueError, match="v") as caught:
        outer()
    told = text(caught.value)
    assert told.endswith('raise ValueError("v") from error\nValueError: v')
    assert "KeyError: 'k'\n\nThe above exception was the direct cause of the following exception:\n" in told


def test_a_large_array_shows_its_corners() -> None:
    array = np.broadcast_to(np.float64(1.5), (100_000, 70_000))  # 56 GB, were it there
    told = text(array)
    assert told.startswith("[[1.5, 1.5, 1.5, ..., 1.5, 1.5, 1.5],\n")
    assert told.endswith("]\narray of 100,000 × 70,000 items, float64; its corners are shown")
    assert shown(array).notes == ("{{ value }}: the corners of an array of 100,000 × 70,000 items are in the prompt.",)


async def later() -> None:
    """Do nothing."""


def test_what_has_nothing_to_show() -> None:
    coroutine = later()
    with pytest.raises(PromptError) as caught:
        shown(coroutine)
    coroutine.close()
    assert caught.value.message == (
        "{{ value }} failed on line 1, column 1 of the prompt: the value is a coroutine, which has nothing to show yet."
    )
    assert caught.value.hint == "Await it in a cell first."
    with pytest.raises(PromptError) as caught:
        shown(x for x in "ab")
    assert caught.value.hint == "Add the filter `list`: {{ … | list }}."


def test_an_object_that_draws_itself() -> None:
    png = bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
        "0000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
    )

    class Drawn:
        def _repr_png_(self) -> bytes:
            return png

    class Undrawn:
        def _repr_png_(self) -> None:
            """Draw nothing, as sympy does."""

        def __repr__(self) -> str:
            return "undrawn"

    assert shown(Drawn()).parts == (Image(png, "image/png"),)
    assert shown(png).parts == (Image(png, "image/png"),)
    assert text(Undrawn()) == "undrawn"


def test_images_stand_where_they_are_named() -> None:
    one, two = Image(url="https://example.org/1.png"), Image(url="https://example.org/2.png")
    rendered = render(
        "Compare {{ a }} with {% for i in [b, a] %}{{ i }}{% endfor %}.{% set x %}[{{ a }}]{% endset %}{{ x }}",
        {"a": one, "b": two},
        settings=Settings(),
    )
    assert rendered.parts == (Text("Compare "), one, Text(" with "), two, one, Text(".["), one, Text("]"))


def test_rendering_from_another_thread() -> None:
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(text([1, 2])))
    thread.start()
    thread.join()
    assert told == ["[1, 2]"]


def test_dates_and_decimals_read_as_in_a_table() -> None:
    assert text(dt.datetime(2024, 1, 2, 9, 30, tzinfo=dt.UTC)) == "2024-01-02 09:30:00+00:00"
    assert text(dt.date(2024, 1, 2)) == "2024-01-02"
    assert text(dt.time(9, 30)) == "09:30:00"
    assert text(dt.timedelta(days=1)) == "1 day, 0:00:00"
    assert text(Decimal("1.50")) == "1.50"
    assert text([Decimal("1.50")]) == "[Decimal('1.50')]"  # in a collection it is what Python shows
