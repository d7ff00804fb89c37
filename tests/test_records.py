"""A list of records as columns and rows, without pandas and with it."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, NamedTuple

import pydantic
import pytest

from llm_magic.errors import ConfigurationError
from llm_magic.records import Records, records_of


class Model(pydantic.BaseModel):
    a: int
    b: str = "x"


@dataclasses.dataclass
class Data:
    a: int


class Pair(NamedTuple):
    a: int
    c: int


def test_records_of_every_kind_make_one_table() -> None:
    assert records_of([Model(a=1), Data(2), Pair(3, 4), {"b": "y"}]) == Records(
        ("a", "b", "c"), ((1, "x", None), (2, None, None), (3, None, 4), (None, "y", None))
    )


@pytest.mark.parametrize("value", [[], [1], "text", {"a": 1}, Pair(1, 2), [Model], None, [[1]], [Model(a=1), 3]])
def test_what_is_no_list_of_records_is_no_table(value: Any) -> None:
    assert records_of(value) is None


def test_columns_records_and_pandas() -> None:
    frame = records_of([{"a": 1}, {"a": 2}])
    assert frame is not None
    assert frame.column("a") == (1, 2)
    assert list(frame.records()) == [{"a": 1}, {"a": 2}]
    assert frame.to_frame()["a"].tolist() == [1, 2]
    with pytest.raises(KeyError):
        frame.column("b")


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigurationError, match="pip install pandas"):
        records_of([{"a": 1}]).to_frame()
