"""A row of the input, what is asked for it, and its outcome: an answer or an error."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magic.errors import LLMError
from llm_magic.messages import Part
from llm_magic.response import Response


@dataclass(frozen=True, slots=True)
class Row:
    """One input: its place, its label, and the names that a template has for it."""

    number: int
    """Its place in the input, from 0."""
    index: Hashable
    """Its label: of a frame or series the index's, of a mapping the key, else the number. `{{ index }}` is it."""
    names: Mapping[str, Any] = field(default_factory=dict)
    """The names for the template, `index` among them."""


@dataclass(frozen=True, slots=True)
class RowRequest:
    """What is asked for a row: the parts of its prompt."""

    number: int
    index: Hashable
    parts: tuple[Part, ...]
    key: str = ""
    """What its answer is found by; empty where nobody looks for it."""
    by_run: bool = False
    """Whether a run asks for it, which finds what an earlier one has left round by round."""


@dataclass(slots=True)
class Outcome:
    """What became of a row: its response, with the value; or the error, with what had arrived in its response."""

    number: int
    """The place of the row in the input."""
    response: Response | None = None
    error: LLMError | None = None
    known: bool = False
    """Whether it was answered before: in a run of the same rows that was interrupted or failed, or in recordings."""

    duplicate: bool = False
    """Whether it has the answer of an equal row, which was asked once for both."""

    recorded: bool = False
    """Whether it is known from the user's recordings."""

    is_timed: bool = True
    """Whether its response says how long it took; of an offline batch nobody knows that."""

    @property
    def value(self) -> Any:
        """The value, None where the row failed."""
        return None if self.error is not None or self.response is None else self.response.value
