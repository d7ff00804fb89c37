"""Outcomes on their way back: together, by themselves where that fails, and never lost."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pydantic

from llm_magic.errors import LLMError, RateLimitedError
from llm_magic.mapping.dask.serialization import open_outcomes, pack_outcomes
from llm_magic.mapping.rows import Outcome
from llm_magic.response import Response


def there_and_back(*outcomes: Outcome) -> list[Outcome]:
    return open_outcomes([each.number for each in outcomes], pack_outcomes(list(outcomes)))


def test_outcomes_come_back_together() -> None:
    first, second = there_and_back(
        Outcome(1, Response(text="yes", value="yes")), Outcome(2, None, RateLimitedError("Too many."))
    )
    assert (first.number, first.value) == (1, "yes")
    assert (second.number, type(second.error), str(second.error)) == (2, RateLimitedError, "Too many.")


def test_one_that_does_not_travel_costs_the_others_nothing() -> None:
    first, second = there_and_back(
        Outcome(1, Response(text="yes", value=threading.Lock())), Outcome(2, Response(text="no", value="no"))
    )
    assert "cannot come back from the worker" in str(first.error)
    assert second.value == "no"


def test_a_type_of_the_notebook_is_known_here() -> None:
    city: Any = pydantic.create_model("City", name=(str, ...), __module__="__main__")
    (found,) = there_and_back(Outcome(1, Response(text="", value=city(name="Oslo"))))
    assert type(found.value) is city


class Unreadable:
    """Is made there, and cannot be made here."""

    def __reduce__(self) -> Any:
        return (_refuse, ())


def _refuse() -> None:
    raise ValueError("not here")


def test_what_cannot_be_read_here_is_the_error_of_its_rows() -> None:
    (found,) = there_and_back(Outcome(3, Response(text="", value=Unreadable())))
    assert found.number == 3
    assert type(found.error) is LLMError
    assert str(found.error) == "The answer came from the worker, and cannot be read here: ValueError: not here"
    (found,) = open_outcomes([4], pickle.dumps([b"broken"]))
    assert found.number == 4
    assert "cannot be read here" in str(found.error)
